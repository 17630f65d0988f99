//! An archive that is being fetched, and the reading of it as it grows.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Semaphore, watch};

use super::layout::open_to_read;
use super::piece;
use super::progress::{End, Progress};
use super::record::Record;
use super::sealed::Sealed;

/// How long a reader waits for a fill that makes no progress at all: as long as the most patient
/// client, which is Agave.
const FOLLOW_PATIENCE: Duration = Duration::from_secs(30);

/// How long a fill has to go on before its rate means something.
const MOMENT: Duration = Duration::from_millis(100);

/// An archive that is being fetched. Its readers get what is there and wait for the rest.
#[derive(Debug)]
pub struct Growing {
    record: Record,
    /// Whether its source answers ranges.
    ranges: bool,
    /// There until it is dropped.
    file: Option<Arc<File>>,
    progress: watch::Receiver<Progress>,
    readers: Mutex<Readers>,
    loads: Arc<Semaphore>,
    began: Instant,
    /// Whether it is in the log that it cannot be read.
    complained: AtomicBool,
}

/// Who reads, and when the last one left.
#[derive(Debug)]
struct Readers {
    count: usize,
    none_since: Instant,
}

impl Growing {
    /// The archive that is written to `path`, of which the record says what it will be.
    pub(super) fn open(
        path: &Path,
        record: Record,
        ranges: bool,
        progress: watch::Receiver<Progress>,
        loads: Arc<Semaphore>,
    ) -> io::Result<Self> {
        let file = Some(Arc::new(open_to_read(path)?));
        let (began, complained) = (Instant::now(), AtomicBool::new(false));
        let readers = Mutex::new(Readers { count: 0, none_since: began });
        Ok(Self { record, ranges, file, progress, readers, loads, began, complained })
    }

    /// What it will be, but for the time when it is complete.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Whether its source answers ranges.
    pub fn source_has_ranges(&self) -> bool {
        self.ranges
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// Whether its fill has come to nothing.
    pub fn has_failed(&self) -> bool {
        matches!(self.progress.borrow().end(), Some(End::Failed(_)))
    }

    /// Waits until `position` is there, or can be foretold to come or not: until the fill has gone
    /// on for a moment. At most for `patience`.
    pub async fn measured(&self, position: u64, patience: Duration) {
        if self.began.elapsed() > MOMENT && self.progress.borrow().frontier() > 0 {
            return;
        }
        let mut progress = self.progress.clone();
        let known =
            |progress: &Progress| progress.frontier() > position || progress.end().is_some();
        let moment = async {
            if progress
                .wait_for(|progress| progress.frontier() > 0 || known(progress))
                .await
                .is_ok()
            {
                // An error is a fill that has ended; its readers will see that.
                let moment = progress.wait_for(known);
                let _ = tokio::time::timeout(MOMENT, moment).await;
            }
        };
        // What is not known by then is foretold by what is.
        let _ = tokio::time::timeout(patience, moment).await;
    }

    /// For how long nobody has been reading; `None` while somebody does.
    pub fn unread_for(&self, now: Instant) -> Option<Duration> {
        let readers = self.readers();
        (readers.count == 0).then(|| now.saturating_duration_since(readers.none_since))
    }

    /// Who reads it.
    pub(super) fn reader_count(&self) -> usize {
        self.readers().count
    }

    /// A reader of all of it.
    pub(super) fn follow(self: &Arc<Self>) -> Follower {
        Follower {
            growing: Arc::clone(self),
            rest: 0..self.record.length,
            progress: self.progress.clone(),
            counted: false,
        }
    }

    /// Says once that it cannot be read, as against failing.
    fn complain(&self, error: &io::Error) {
        if !self.complained.swap(true, Ordering::Relaxed) {
            log::error!("cache: cannot read {} while it is fetched: {error}", self.record.name);
        }
    }

    fn readers(&self) -> std::sync::MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads some of these bytes, all of which are written. Most are in memory, where they were
    /// written just now.
    async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        piece::read(file, range, &self.loads).await
    }
}

/// The last one to let go of a large file that was removed frees its space, which takes too long
/// for an async thread.
impl Drop for Growing {
    fn drop(&mut self) {
        let file = self.file.take();
        let thread = std::thread::Builder::new().name("cache close".to_owned());
        // Where there is no thread to be had, the closure and what it holds are dropped here.
        let _ = thread.spawn(move || drop(file));
    }
}

/// A reader of some bytes of an archive that is being fetched.
#[derive(Debug)]
pub struct Follower {
    growing: Arc<Growing>,
    rest: Range<u64>,
    progress: watch::Receiver<Progress>,
    /// Whether it has asked for anything; one that did not, as for a HEAD, is no reader.
    counted: bool,
}

/// What a reader gets next.
pub(super) enum Next {
    /// Bytes of the archive.
    Piece(Bytes),
    /// The end of what was asked for.
    End,
    /// The archive is whole; the rest is read from that.
    Whole(Arc<Sealed>, Range<u64>),
}

impl Follower {
    /// Goes to these bytes; what is behind the end of the archive is left out.
    pub(super) fn seek(&mut self, start: u64, end: u64) {
        let length = self.growing.record.length;
        self.rest = start.min(length)..end.min(length);
    }

    /// The next piece, as soon as there is one. A fill that failed, and one that stands still for
    /// too long, is an error, whatever of it could still be read.
    pub(super) async fn next(&mut self) -> io::Result<Next> {
        if self.rest.is_empty() {
            return Ok(Next::End);
        }
        if !self.counted {
            self.counted = true;
            self.growing.readers().count += 1;
        }
        let start = self.rest.start;
        let frontier = loop {
            let (frontier, end) = {
                let progress = self.progress.borrow_and_update();
                (progress.frontier(), progress.end().cloned())
            };
            match end {
                Some(End::Failed(why)) => return Err(io::Error::other(why)),
                Some(End::Whole(sealed)) => return Ok(Next::Whole(sealed, self.rest.clone())),
                None if frontier > start => break frontier,
                None => {}
            }
            let changed = tokio::time::timeout(FOLLOW_PATIENCE, self.progress.changed()).await;
            changed.map_err(|_| io::ErrorKind::TimedOut)?.map_err(io::Error::other)?;
        };
        let piece = self.growing.read(start..frontier.min(self.rest.end)).await;
        let piece = piece.inspect_err(|error| self.growing.complain(error))?;
        self.rest.start += piece.len() as u64;
        Ok(Next::Piece(piece))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if self.counted {
            let mut readers = self.growing.readers();
            readers.count -= 1;
            readers.none_since = Instant::now();
        }
    }
}
