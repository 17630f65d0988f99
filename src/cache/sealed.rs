//! A complete archive, and the reading of it.

use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::layout::open_to_read;
use super::mapping::Mapping;
use super::record::Record;

/// Bytes of one slice. Below 1 MiB the cost of a system call shows, far above it a client's time
/// for one piece does.
pub const SLICE: u64 = 2 << 20;
/// Threads that bring pages in at once, over all readers: no more than a disk can use.
const MAX_LOADS: usize = 32;
/// How long the disk has to bring one slice in, its turn included.
pub(super) const LOAD_PATIENCE: Duration = Duration::from_secs(10);

/// A complete archive: mapped once, shared by all of its readers, and readable for as long as one
/// of them is there, whatever happens to its name.
#[derive(Debug)]
pub struct Sealed {
    record: Record,
    mapping: Arc<Mapping>,
    body: Bytes,
    loads: Arc<Semaphore>,
    readers: Mutex<Readers>,
    /// Which file it is, whatever its name leads to later.
    inode: (u64, u64),
}

/// Who reads, and when somebody did last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Readers {
    pub(super) count: usize,
    pub(super) last: Option<Instant>,
}

/// The mapping as the owner of a [`Bytes`].
struct Owner(Arc<Mapping>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref().as_ref()
    }
}

/// The bound on [`MAX_LOADS`], to be shared by all archives of a store.
pub(super) fn loads() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MAX_LOADS))
}

impl Sealed {
    /// Opens the archive at `path`, which is as long as its record says or an error.
    pub(super) fn open(path: &Path, record: Record, loads: Arc<Semaphore>) -> io::Result<Self> {
        let file = open_to_read(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() != record.length {
            return Err(io::Error::other("it is not the file that its record is about"));
        }
        let inode = (metadata.dev(), metadata.ino());
        let mapping = Arc::new(Mapping::new(file, record.length)?);
        let body = Bytes::from_owner(Owner(Arc::clone(&mapping)));
        Ok(Self { record, mapping, body, loads, readers: Mutex::default(), inode })
    }

    /// Whether this is the file at `path`, and not one that was put there later.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        let metadata = path.symlink_metadata();
        metadata.is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.inode)
    }

    /// What is known of it.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Who reads it.
    pub(super) fn readers(&self) -> Readers {
        *self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, change: impl FnOnce(&mut Readers)) {
        change(&mut self.readers.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A reader of all of it.
    pub fn reader(self: &Arc<Self>) -> SealedReader {
        let end = self.body.len();
        SealedReader { sealed: Arc::clone(self), rest: 0..end, ahead: None, counted: false }
    }

    /// Brings a slice in, off the async threads where the disk has to be waited for.
    fn load(self: &Arc<Self>, range: Range<usize>) -> Load {
        if self.mapping.is_resident(range.clone()) {
            return Load::Done;
        }
        let sealed = Arc::clone(self);
        Load::Running(tokio::spawn(async move {
            // The semaphore is never closed; if it were, there would be no bound.
            let loads = Arc::clone(&sealed.loads);
            let permit = loads.acquire_owned().await.map_err(io::Error::other)?;
            let mapping = Arc::clone(&sealed.mapping);
            let load = tokio::task::spawn_blocking(move || {
                // For as long as the thread is held up, whoever has given it up meanwhile.
                let _permit = permit;
                mapping.load(range)
            });
            load.await.map_err(io::Error::other)?
        }))
    }
}

/// A reader of some bytes of a sealed archive. It costs no memory: what it hands out is a view of
/// the mapping.
#[derive(Debug)]
pub struct SealedReader {
    sealed: Arc<Sealed>,
    rest: Range<usize>,
    /// The next slice, of which the client takes the one before.
    ahead: Option<(Range<usize>, Load)>,
    /// Whether it has read anything; one that did not, as for a HEAD, is none.
    counted: bool,
}

/// How a slice gets into memory.
#[derive(Debug)]
enum Load {
    /// What was waited for is there.
    Done,
    /// By a thread that waits for the disk.
    Running(JoinHandle<io::Result<()>>),
}

impl Drop for SealedReader {
    fn drop(&mut self) {
        self.forget();
        if self.counted {
            self.sealed.note(|readers| {
                readers.count -= 1;
                readers.last = Some(Instant::now());
            });
        }
    }
}

impl SealedReader {
    /// The archive.
    pub fn sealed(&self) -> &Arc<Sealed> {
        &self.sealed
    }

    /// Gives up what is being brought in; what still waits for its turn is never read.
    fn forget(&mut self) {
        if let Some((_, Load::Running(load))) = self.ahead.take() {
            load.abort();
        }
    }

    /// Goes to these bytes; what is behind the end of the archive is left out.
    pub fn seek(&mut self, start: usize, end: usize) {
        self.forget();
        let length = self.sealed.body.len();
        self.rest = start.min(length)..end.min(length);
    }

    /// The next slice, in memory when it is handed out; `None` at the end.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let Some(slice) = self.slice() else { return Ok(None) };
        if !self.counted {
            self.counted = true;
            self.sealed.note(|readers| readers.count += 1);
        }
        let load = match self.ahead.take() {
            Some((range, load)) if range == slice => load,
            _ => self.sealed.load(slice.clone()),
        };
        if let Load::Running(load) = load {
            // A disk that hangs must not hold a client that could be served from elsewhere.
            let load = tokio::time::timeout(LOAD_PATIENCE, load).await;
            load.map_err(|_| io::ErrorKind::TimedOut)?.map_err(io::Error::other)??;
        }
        self.rest.start = slice.end;
        self.ahead = self.slice().map(|next| (next.clone(), self.sealed.load(next)));
        Ok(Some(self.sealed.body.slice(slice)))
    }

    /// The next slice, where anything is left.
    fn slice(&self) -> Option<Range<usize>> {
        let Range { start, end } = self.rest;
        let size = usize::try_from(SLICE).unwrap_or(usize::MAX);
        (start < end).then(|| start..end.min(start.saturating_add(size)))
    }
}
