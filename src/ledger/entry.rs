//! Which entries of a directory are archives. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::FileType;

use crate::check::Flaw;
use crate::snapshot::ArchiveName;

/// Seconds from 1970 to the year 10000: later dates cannot be written in a header.
const LAST_SECOND: Duration = Duration::from_secs(253_402_300_799);

/// Why what has an archive's name is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// A link, which leads somewhere else.
    #[error("a symbolic link, which is not followed")]
    Link,
    /// A directory.
    #[error("a directory")]
    Directory,
    /// A pipe, a socket or a device.
    #[error("not a regular file")]
    Special,
    /// No byte.
    #[error("an empty file")]
    Empty,
    /// A file that this process may not read, or the disk cannot.
    #[error("a file that cannot be opened ({0})")]
    Unreadable(std::io::ErrorKind),
    /// A downloader has left its notes beside it.
    #[error("unfinished: there is a file of its name with `{0}` at the end")]
    Unfinished(&'static str),
    /// Somebody is writing it.
    #[error("still changing, it is served once two listings find it the same")]
    Changing,
    /// A file that is no whole archive.
    #[error("damaged, copy it again: {0}")]
    Damaged(Flaw),
}

/// What downloaders put behind the name of a file that they have not finished, for a file beside
/// it: aria2, axel, lftp, browsers and what they are built on, rclone, `WinSCP`, `qBittorrent`.
const NOTES: [&str; 8] =
    [".aria2", ".st", ".lftp-pget-status", ".part", ".partial", ".crdownload", ".filepart", ".!qB"];

/// The archive that an entry of a directory says is unfinished, and by which ending.
pub(super) fn notes_of(entry: &[u8]) -> Option<(ArchiveName, &'static str)> {
    let entry = std::str::from_utf8(entry).ok()?;
    NOTES.iter().find_map(|ending| Some((entry.strip_suffix(ending)?.parse().ok()?, *ending)))
}

/// The archive that an entry of a directory has the name of; nothing for everything else that is
/// there, such as `tmp-…`, what a node is still writing.
pub(super) fn archive_name(entry: &[u8]) -> Option<ArchiveName> {
    std::str::from_utf8(entry).ok()?.parse().ok()
}

/// Whether a file of this type and size is fit to be served.
pub(super) fn fit(kind: FileType, size: u64) -> Result<(), Unfit> {
    match kind {
        FileType::RegularFile if size == 0 => Err(Unfit::Empty),
        FileType::RegularFile => Ok(()),
        FileType::Symlink => Err(Unfit::Link),
        FileType::Directory => Err(Unfit::Directory),
        _ => Err(Unfit::Special),
    }
}

/// The time of a file's last change, where it is one that a client can be told: somebody else sets
/// it.
pub(super) fn modified(time: SystemTime) -> Option<SystemTime> {
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    (since <= LAST_SECOND).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_archives_and_nothing_else() {
        let check = |text: &str, expected: bool| {
            let text = text.replace('#', "426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY");
            let found = archive_name(text.as_bytes()).map(|name| name.to_string());
            assert_eq!(found, expected.then_some(text));
        };
        check("snapshot-1000-#.tar.zst", true);
        check("snapshot-1000-#.tar", true);
        check("incremental-snapshot-1000-1100-#.tar.zst", true);
        check("tmp-snapshot-1000-#.tar.zst", false);
        check("tmp-snapshot-archive-aBcDeF", false);
        check("snapshot-1000-#.tar.zst.snapedge-part", false);
        check("snapshot-1000-#.tar.zst ", false);
        check("incremental-snapshot-1100-1000-#.tar.zst", false);
        check("snapshot-01000-#.tar.zst", false);
        check("genesis.tar.bz2", false);
        check("remote", false);
        check("..", false);
        assert_eq!(archive_name(b"snapshot-1\xff"), None);
    }

    #[test]
    fn notes_of_downloaders_tell_what_is_unfinished() {
        let archive = "snapshot-1000-426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY.tar.zst";
        for ending in NOTES {
            let found = notes_of(format!("{archive}{ending}").as_bytes());
            assert_eq!(found, Some((archive.parse().expect("a name"), ending)));
        }
        for other in [archive, "genesis.tar.bz2.aria2", ".aria2", "snapshot-1000.part"] {
            assert_eq!(notes_of(other.as_bytes()), None, "{other}");
        }
        assert_eq!(notes_of(format!("{archive}.aria2.bak").as_bytes()), None);
    }

    #[test]
    fn only_regular_files_with_bytes_are_fit() {
        let check = |kind, size, expected| assert_eq!(fit(kind, size), expected, "{kind:?}");
        check(FileType::RegularFile, 1, Ok(()));
        check(FileType::RegularFile, u64::MAX, Ok(()));
        check(FileType::RegularFile, 0, Err(Unfit::Empty));
        check(FileType::Symlink, 80, Err(Unfit::Link));
        check(FileType::Directory, 4096, Err(Unfit::Directory));
        for kind in [
            FileType::Fifo,
            FileType::Socket,
            FileType::CharacterDevice,
            FileType::BlockDevice,
            FileType::Unknown,
        ] {
            check(kind, 1, Err(Unfit::Special));
        }
    }

    #[test]
    fn a_time_that_no_header_can_tell_is_none() {
        let check = |time: SystemTime, told: bool| {
            assert_eq!(modified(time), told.then_some(time), "{time:?}");
            if let Some(time) = modified(time) {
                // It panics for those that it cannot write.
                assert!(!httpdate::fmt_http_date(time).is_empty());
            }
        };
        check(UNIX_EPOCH, true);
        check(UNIX_EPOCH + Duration::new(1_790_000_000, 999), true);
        check(UNIX_EPOCH + LAST_SECOND, true);
        check(UNIX_EPOCH + LAST_SECOND + Duration::from_nanos(1), false);
        check(UNIX_EPOCH - Duration::from_nanos(1), false);
        check(UNIX_EPOCH + Duration::from_secs(1 << 40), false);
    }
}
