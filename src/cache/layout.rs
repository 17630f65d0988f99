//! The names of the files in the cache's directory, and how they are opened and removed. There is
//! no way to a path but these.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::snapshot::ArchiveName;

/// Held, by a lock, by the process that uses the directory.
const LOCK: &str = "snapedge.lock";
/// What entity tags are made with.
const SECRET: &str = "snapedge.secret";
/// Name of the secret's file while it is written.
const UNFINISHED_SECRET: &str = "snapedge.secret-new";
/// Behind an archive's name: its record.
const RECORD: &str = ".snapedge";
/// Behind an archive's name: the archive while it is fetched.
const UNFINISHED: &str = ".snapedge-part";
/// Behind an archive's name: its record while it is written.
const UNFINISHED_RECORD: &str = ".snapedge-new";

/// What a file of the directory is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// An archive; ours if its record is there.
    Archive(ArchiveName),
    /// The record of an archive.
    Record(ArchiveName),
    /// What a refresh writes of an archive, or was writing.
    Part(ArchiveName),
    /// What was being written of a record; or a secret half-written.
    Unfinished,
    /// The lock.
    Lock,
    /// The secret.
    Secret,
    /// A file that is not ours.
    Foreign,
}

impl Place {
    pub(super) fn of(file_name: &OsStr) -> Self {
        let Some(text) = file_name.to_str() else { return Self::Foreign };
        let name = |suffix| text.strip_suffix(suffix).and_then(|name| name.parse().ok());
        if text == LOCK {
            Self::Lock
        } else if text == SECRET {
            Self::Secret
        } else if text == UNFINISHED_SECRET {
            Self::Unfinished
        } else if let Ok(name) = text.parse() {
            Self::Archive(name)
        } else if let Some(name) = name(RECORD) {
            Self::Record(name)
        } else if let Some(name) = name(UNFINISHED) {
            Self::Part(name)
        } else if name(UNFINISHED_RECORD).is_some() {
            Self::Unfinished
        } else {
            Self::Foreign
        }
    }

    /// The archive whose record is written under a name, where one is.
    pub(super) fn of_unfinished_record(file_name: &OsStr) -> Option<ArchiveName> {
        file_name.to_str()?.strip_suffix(UNFINISHED_RECORD)?.parse().ok()
    }
}

/// The directory.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    directory: PathBuf,
}

impl Layout {
    pub(super) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes what was renamed in the directory last.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }

    /// Removes an archive and then its record, in this order over a crash as well: an archive
    /// without a record would be nobody's. Says whether both are gone.
    pub(super) fn remove(&self, name: &ArchiveName) -> bool {
        if !remove(&self.archive(name)) {
            return false;
        }
        if let Err(error) = self.sync() {
            log::error!("cache: cannot sync `{}`: {error}", self.directory.display());
            return false;
        }
        remove(&self.record(name))
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.directory.join(LOCK)
    }

    pub(super) fn secret(&self) -> PathBuf {
        self.directory.join(SECRET)
    }

    pub(super) fn unfinished_secret(&self) -> PathBuf {
        self.directory.join(UNFINISHED_SECRET)
    }

    pub(super) fn archive(&self, name: &ArchiveName) -> PathBuf {
        self.directory.join(name.to_string())
    }

    pub(super) fn record(&self, name: &ArchiveName) -> PathBuf {
        self.directory.join(format!("{name}{RECORD}"))
    }

    pub(super) fn unfinished(&self, name: &ArchiveName) -> PathBuf {
        self.directory.join(format!("{name}{UNFINISHED}"))
    }

    pub(super) fn unfinished_record(&self, name: &ArchiveName) -> PathBuf {
        self.directory.join(format!("{name}{UNFINISHED_RECORD}"))
    }
}

/// Opens a file of the directory as it is: through no link, and without waiting where it is a pipe
/// in place of a file.
pub(super) fn open_to_read(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// Removes a file, and says whether it is gone.
pub(super) fn remove(path: &Path) -> bool {
    match std::fs::remove_file(path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => {
            log::error!("cache: cannot remove `{}`: {error}", path.display());
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    const NAME: &str = "snapshot-1000-426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY.tar.zst";

    fn check(file_name: &str, expected: Place) {
        assert_eq!(Place::of(OsStr::new(file_name)), expected, "{file_name}");
    }

    #[test]
    fn golden_names() {
        let name: ArchiveName = NAME.parse().expect("valid");
        let layout = Layout::new(Path::new("/cache"));
        let places = [
            (layout.archive(&name), format!("/cache/{NAME}"), Place::Archive(name)),
            (layout.record(&name), format!("/cache/{NAME}.snapedge"), Place::Record(name)),
            (layout.unfinished(&name), format!("/cache/{NAME}.snapedge-part"), Place::Part(name)),
            (
                layout.unfinished_record(&name),
                format!("/cache/{NAME}.snapedge-new"),
                Place::Unfinished,
            ),
            (layout.lock(), "/cache/snapedge.lock".to_owned(), Place::Lock),
            (layout.secret(), "/cache/snapedge.secret".to_owned(), Place::Secret),
            (
                layout.unfinished_secret(),
                "/cache/snapedge.secret-new".to_owned(),
                Place::Unfinished,
            ),
        ];
        for (path, expected, place) in places {
            assert_eq!(path, Path::new(&expected));
            assert_eq!(Place::of(path.file_name().expect("a name")), place);
        }
    }

    #[test]
    fn what_is_not_ours_is_foreign() {
        for file_name in [
            "",
            ".snapedge",
            "x.snapedge",
            "snapshot.tar.zst",
            "snapshot.tar.zst.snapedge",
            "genesis.tar.bz2",
            "snapedge.lock.snapedge",
            "snapedge.secret.snapedge",
            "snapedge.secrets",
            "snapshot-1000-x.tar.zst",
        ] {
            check(file_name, Place::Foreign);
        }
        // Other programs' partial downloads.
        for suffix in [".part", ".tmp", ".aria2", ".snapedge~", ".snapedge-part.1", ".SNAPEDGE"] {
            check(&format!("{NAME}{suffix}"), Place::Foreign);
        }
        check(&format!("tmp-{NAME}"), Place::Foreign);
        assert_eq!(Place::of(OsStr::from_bytes(b"\xff.snapedge")), Place::Foreign);
    }
}
