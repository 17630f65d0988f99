//! One local directory of archives: its listing, and the opening of its files. The calls that wait
//! for the disk say so.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use tokio::sync::Semaphore;

use super::entry::{Unfit, archive_name, fit, modified, notes_of};
use super::vetting::{Identity, Verdict, Vetting};
use super::walk::walk;
use crate::config::{Config, Verify};
use crate::index::{Listed, TargetId};
use crate::snapshot::ArchiveName;

/// Most entries of a directory. One with more is something else than a node's archives.
const MAX_ENTRIES: usize = 10_000;
/// Most archives in one directory, as of any other target.
const MAX_ARCHIVES: usize = 1000;
/// Threads that open files of one directory at once, and as many that read them.
const MAX_WAITING: usize = 32;
/// How long the disk has to open a file, its turn included. Some clients (Firedancer) give an
/// answer one second in all.
const OPEN_PATIENCE: Duration = Duration::from_millis(800);

/// Why a directory has no listing.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The directory is not there, or not ours to read.
    #[error("cannot open the directory")]
    Open(#[source] io::Error),
    /// The directory is there, and reading it fails.
    #[error("cannot read the directory")]
    Read(#[source] io::Error),
    /// No directory of archives.
    #[error("the directory has more than {MAX_ENTRIES} entries")]
    Entries,
    /// More than any node keeps.
    #[error("the directory has more than {MAX_ARCHIVES} archives")]
    Archives,
}

/// Why a file was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file is not there any more.
    #[error("the file is gone")]
    Gone,
    /// Something else is there now.
    #[error("it is {0}")]
    Unfit(Unfit),
    /// The system cannot.
    #[error("cannot open the file")]
    Disk(#[source] io::Error),
    /// The disk hangs.
    #[error("the file was not opened within {OPEN_PATIENCE:?}")]
    Slow,
}

/// What a directory has.
#[derive(Debug, Default)]
pub struct Listing {
    /// The files that can be archives, each name once.
    pub files: BTreeMap<ArchiveName, Found>,
    /// What has the name of an archive and is none.
    pub refused: BTreeMap<ArchiveName, Unfit>,
}

/// A file, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What the index is told of it.
    pub listed: Listed,
    /// Which one it is.
    pub identity: Identity,
}

/// What of a listing is served.
#[derive(Debug, Default)]
pub struct Offer {
    /// The archives, each name once.
    pub archives: Vec<Listed>,
    /// What is not served, and why.
    pub refused: BTreeMap<ArchiveName, Unfit>,
    /// When the directory is to be listed again, where that is sooner than usual.
    pub next: Option<Duration>,
}

/// An archive that was opened. It stays readable whatever happens to its name.
#[derive(Debug)]
pub struct Opened {
    /// The file.
    pub file: File,
    /// Bytes that it had then.
    pub length: u64,
    /// Time of its last change before that, where a client can be told.
    pub modified: Option<SystemTime>,
    /// Which file it is.
    pub identity: Identity,
}

/// A local directory of archives.
#[derive(Debug)]
pub struct Ledger {
    id: TargetId,
    path: PathBuf,
    opens: Arc<Semaphore>,
    loads: Arc<Semaphore>,
    vetting: Mutex<Vetting>,
}

/// All local directories of archives.
#[derive(Debug, Default)]
pub struct Ledgers(Mutex<BTreeMap<TargetId, Arc<Ledger>>>);

impl Ledgers {
    /// The directories that the configuration names.
    pub fn new(config: &Config) -> Self {
        let ledgers = Self::default();
        ledgers.apply(config);
        ledgers
    }

    /// Goes on with the directories that another configuration names. Of those that were there
    /// before it stays known which files are whole.
    pub fn apply(&self, config: &Config) {
        let (interval, verify) = (config.scrape_interval, config.cache.verify != Verify::Length);
        let mut ledgers = self.lock();
        let mut before = std::mem::take(&mut *ledgers);
        for group in &config.groups {
            for path in &group.sources.ledger_targets {
                let id = TargetId::ledger(Arc::clone(&group.name), &path.to_string_lossy());
                let ledger = before
                    .remove(&id)
                    .unwrap_or_else(|| Arc::new(Ledger::new(id.clone(), path, interval, verify)));
                ledger.vetting().set(interval, verify);
                ledgers.entry(id).or_insert(ledger);
            }
        }
    }

    /// The directories of a group.
    pub fn of_group(&self, group: &str) -> Vec<Arc<Ledger>> {
        let ledgers = self.lock();
        ledgers.values().filter(|ledger| *ledger.id.group == *group).cloned().collect()
    }

    /// The directory of a target, where it is one.
    pub fn of(&self, target: &TargetId) -> Option<Arc<Ledger>> {
        self.lock().get(target).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TargetId, Arc<Ledger>>> {
        // No change of the map can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    /// The directory at an absolute path, which is listed in this interval.
    fn new(id: TargetId, path: &Path, interval: Duration, verify: bool) -> Self {
        let turns = || Arc::new(Semaphore::new(MAX_WAITING));
        let (path, vetting) = (path.to_owned(), Mutex::new(Vetting::new(interval, verify)));
        Self { id, path, opens: turns(), loads: turns(), vetting }
    }

    /// Under which it is known.
    pub fn id(&self) -> &TargetId {
        &self.id
    }

    /// The bound on threads that read its files, for whoever does.
    pub fn loads(&self) -> &Arc<Semaphore> {
        &self.loads
    }

    /// What is in it now. Waits for the disk.
    pub fn list(&self) -> Result<Listing, LedgerError> {
        let directory = descend(&self.path).map_err(LedgerError::Open)?;
        let entries =
            Dir::read_from(&directory).map_err(|error| LedgerError::Read(error.into()))?;
        let (mut listing, mut unfinished) = (Listing::default(), BTreeMap::new());
        for (count, entry) in entries.enumerate() {
            let entry = entry.map_err(|error| LedgerError::Read(error.into()))?;
            if count >= MAX_ENTRIES {
                return Err(LedgerError::Entries);
            }
            let entry = entry.file_name().to_bytes();
            unfinished.extend(notes_of(entry));
            let Some(name) = archive_name(entry) else { continue };
            match open_in(&directory, &name) {
                Ok(opened) => {
                    listing.files.insert(name, opened.found(name));
                }
                Err(OpenError::Unfit(unfit)) => {
                    listing.refused.insert(name, unfit);
                }
                // It went while the directory was read.
                Err(OpenError::Gone | OpenError::Slow) => {}
                Err(OpenError::Disk(error)) => return Err(LedgerError::Read(error)),
            }
            if listing.files.len() + listing.refused.len() > MAX_ARCHIVES {
                return Err(LedgerError::Archives);
            }
        }
        for (name, ending) in unfinished {
            if listing.files.remove(&name).is_some() {
                listing.refused.insert(name, Unfit::Unfinished(ending));
            }
        }
        Ok(listing)
    }

    /// What of a listing is served: files that nobody is writing, and that are whole.
    pub fn vet(&self, listing: Listing, now: Instant) -> Offer {
        let Listing { files, refused } = listing;
        let mut vetting = self.vetting();
        vetting.list(&files.iter().map(|(name, found)| (*name, found.identity)).collect(), now);
        let mut offer = Offer { refused, next: vetting.next(now), ..Offer::default() };
        for (name, found) in files {
            match vetting.verdict(&name, now) {
                Verdict::Offer => offer.archives.push(found.listed),
                Verdict::Wait => {}
                Verdict::Refuse(unfit) => drop(offer.refused.insert(name, unfit)),
            }
        }
        offer
    }

    /// The file whose bytes are to be looked at next, by [`Self::walk`].
    pub fn unwalked(&self) -> Option<(ArchiveName, Identity)> {
        self.vetting().walk()
    }

    /// Looks through the bytes of a file, which decides about it from then on. Waits for the disk.
    pub fn walk(&self, name: ArchiveName, identity: Identity) {
        let walked = || -> Result<_, OpenError> {
            let directory = descend(&self.path).map_err(unopened)?;
            let opened = open_in(&directory, &name)?;
            if opened.identity != identity {
                return Err(OpenError::Gone);
            }
            walk(&opened.file, identity.length).map_err(OpenError::Disk)
        };
        let outcome = walked().map_err(|error| {
            log::info!("cannot look through {name} of target {}: {error}", self.id);
        });
        self.vetting().walked(&name, identity, outcome.ok());
    }

    fn vetting(&self) -> MutexGuard<'_, Vetting> {
        self.vetting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens an archive, off the async threads.
    pub async fn open(&self, name: ArchiveName) -> Result<Opened, OpenError> {
        let (opens, path) = (Arc::clone(&self.opens), self.path.clone());
        let open = async {
            let closed = |error| OpenError::Disk(io::Error::other(error));
            let turn = opens.acquire_owned().await.map_err(closed)?;
            let open = tokio::task::spawn_blocking(move || {
                // For as long as the thread is held up, whoever has given it up meanwhile.
                let _turn = turn;
                open_in(&descend(&path).map_err(unopened)?, &name)
            });
            open.await.map_err(|panic| OpenError::Disk(io::Error::other(panic)))?
        };
        let opened = tokio::time::timeout(OPEN_PATIENCE, open).await;
        let opened = opened.map_err(|_| OpenError::Slow)??;
        if !self.vetting().admits(&name, opened.identity, Instant::now()) {
            return Err(OpenError::Unfit(Unfit::Changing));
        }
        Ok(opened)
    }
}

/// The directory itself. Its path is the operator's, who may have put links on the way.
fn descend(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn unopened(error: io::Error) -> OpenError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => OpenError::Gone,
        _ => OpenError::Disk(error),
    }
}

/// Opens an archive in a directory. What is no regular file is not even opened, since that can wake
/// whoever waits at the other end of a pipe; what became one since then is recognised after it.
fn open_in(directory: &OwnedFd, name: &ArchiveName) -> Result<Opened, OpenError> {
    let name = name.to_string();
    let found = rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW);
    let found = found.map_err(refused)?;
    let size = u64::try_from(found.st_size).unwrap_or_default();
    fit(FileType::from_raw_mode(found.st_mode), size).map_err(OpenError::Unfit)?;
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, &name, flags, Mode::empty()).map_err(refused)?;
    let file = File::from(file);
    let metadata = file.metadata().map_err(OpenError::Disk)?;
    let kind = if metadata.is_file() { FileType::RegularFile } else { FileType::Unknown };
    fit(kind, metadata.len()).map_err(OpenError::Unfit)?;
    let changed = metadata.modified().ok().and_then(modified);
    let identity = Identity {
        device: metadata.dev(),
        inode: metadata.ino(),
        length: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    };
    Ok(Opened { file, length: metadata.len(), modified: changed, identity })
}

impl Opened {
    fn found(&self, name: ArchiveName) -> Found {
        let Self { length, modified, identity, .. } = *self;
        let (size, tag, location) = (Some(length), None, None);
        let listed = Listed { name, size, modified, tag, location };
        Found { listed, identity }
    }
}

/// What an error says of one file, as against this process, which has no descriptor left.
fn refused(error: Errno) -> OpenError {
    match error {
        Errno::NOENT => OpenError::Gone,
        Errno::LOOP => OpenError::Unfit(Unfit::Link),
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => OpenError::Disk(error.into()),
        _ => OpenError::Unfit(Unfit::Unreadable(io::Error::from(error).kind())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::time::UNIX_EPOCH;

    fn name(slot: u64) -> ArchiveName {
        format!("snapshot-{slot}-{}.tar.zst", "1".repeat(32)).parse().expect("valid")
    }

    /// A ledger whose files are served as they are.
    fn ledger_at(path: &Path) -> Ledger {
        let id = TargetId::ledger("g".into(), path.to_str().expect("plain text"));
        Ledger::new(id, path, Duration::ZERO, false)
    }

    /// Lists it twice, after which what did not change is served.
    fn settle(ledger: &Ledger) -> Offer {
        let _ = ledger.vet(ledger.list().expect("readable"), Instant::now());
        ledger.vet(ledger.list().expect("readable"), Instant::now())
    }

    /// A directory and the ledger of it.
    fn ledger() -> (tempfile::TempDir, Ledger) {
        let directory = tempfile::tempdir().expect("a directory");
        let ledger = ledger_at(directory.path());
        (directory, ledger)
    }

    fn write(directory: &Path, name: &str, bytes: &[u8]) -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    }

    fn pipe(path: &Path) {
        let made = std::process::Command::new("mkfifo").arg(path).status().expect("mkfifo");
        assert!(made.success());
    }

    #[test]
    fn a_listing_has_archives_and_refuses_what_only_looks_like_one() {
        let (directory, ledger) = ledger();
        let at = |slot| directory.path().join(name(slot).to_string());
        let outside = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(outside.path(), b"secret").expect("written");
        let path = write(directory.path(), &name(1).to_string(), b"12345");
        let day = UNIX_EPOCH + Duration::new(86_400, 5_000);
        File::options().write(true).open(path).expect("open").set_modified(day).expect("set");
        symlink(outside.path(), at(2)).expect("a link");
        symlink(at(1), at(3)).expect("a link");
        std::fs::create_dir(at(4)).expect("a directory");
        pipe(&at(5));
        let _socket = UnixListener::bind(at(6)).expect("a socket");
        write(directory.path(), &name(7).to_string(), b"");
        write(directory.path(), &format!("tmp-{}", name(8)), b"12345");
        write(directory.path(), "genesis.bin", b"12345");
        std::fs::create_dir(directory.path().join("remote")).expect("a directory");

        let offer = settle(&ledger);
        let listed =
            Listed { name: name(1), size: Some(5), modified: Some(day), tag: None, location: None };
        assert_eq!(offer.archives, [listed]);
        let refused = [
            (name(2), Unfit::Link),
            (name(3), Unfit::Link),
            (name(4), Unfit::Directory),
            (name(5), Unfit::Special),
            (name(6), Unfit::Special),
            (name(7), Unfit::Empty),
        ];
        assert_eq!(offer.refused, refused.into());
    }

    #[tokio::test]
    async fn what_is_opened_is_the_file_of_that_moment() {
        let (directory, ledger) = ledger();
        let path = write(directory.path(), &name(1).to_string(), b"12345");
        settle(&ledger);
        let opened = ledger.open(name(1)).await.expect("a file");
        assert_eq!(opened.length, 5);
        assert!(matches!(ledger.open(name(2)).await, Err(OpenError::Gone)));

        let outside = write(directory.path(), "outside", b"secret");
        std::fs::remove_file(&path).expect("removed");
        assert!(matches!(ledger.open(name(1)).await, Err(OpenError::Gone)));
        symlink(&outside, &path).expect("a link");
        let error = ledger.open(name(1)).await.expect_err("a link");
        assert!(matches!(error, OpenError::Unfit(Unfit::Link)), "{error:?}");
        std::fs::remove_file(&path).expect("removed");
        pipe(&path);
        let error = ledger.open(name(1)).await.expect_err("a pipe");
        assert!(matches!(error, OpenError::Unfit(Unfit::Special)), "{error:?}");
        drop(directory);
        assert!(matches!(ledger.open(name(1)).await, Err(OpenError::Gone)));
        assert!(matches!(ledger.list(), Err(LedgerError::Open(_))));
    }

    #[test]
    fn a_directory_of_something_else_is_an_error() {
        let (directory, ledger) = ledger();
        for number in 0..MAX_ENTRIES {
            write(directory.path(), &number.to_string(), b"");
        }
        assert!(matches!(ledger.list(), Err(LedgerError::Entries)));
        let file = ledger_at(&write(directory.path(), "file", b"x"));
        assert!(matches!(file.list(), Err(LedgerError::Open(_))));
    }

    #[test]
    fn too_many_archives_are_an_error() {
        let (directory, ledger) = ledger();
        for slot in 1..=MAX_ARCHIVES as u64 {
            write(directory.path(), &name(slot).to_string(), b"x");
        }
        assert_eq!(ledger.list().expect("readable").files.len(), MAX_ARCHIVES);
        write(directory.path(), &name(0).to_string(), b"x");
        assert!(matches!(ledger.list(), Err(LedgerError::Archives)));
    }

    #[test]
    fn errors_are_told_apart_by_whose_they_are() {
        let check = |errno, expected: &str| {
            assert!(format!("{:?}", refused(errno)).starts_with(expected), "{errno:?}");
        };
        check(Errno::NOENT, "Gone");
        check(Errno::LOOP, "Unfit(Link)");
        check(Errno::ACCESS, "Unfit(Unreadable(PermissionDenied))");
        check(Errno::NXIO, "Unfit(Unreadable");
        check(Errno::MFILE, "Disk");
        check(Errno::NFILE, "Disk");
    }
}
