//! The checks of an archive while it is written, as deep as the configuration wants them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use super::layout::open_to_read;
use super::record::Record;
use crate::check::{Flaw, FrameWalk, Unsound, decode, looks_inside};
use crate::config::Verify;
use crate::snapshot::{ArchiveName, Compression};

/// Bytes that the decompression may be behind what was written, where others read that. On a slow
/// processor these are two or three seconds.
const MAX_LAG: u64 = 256 << 20;
/// How often it is looked whether it is still there.
const MOMENT: Duration = Duration::from_millis(100);

/// What looks into one archive. Dropping it ends its thread, where it has one, soon after.
#[derive(Debug)]
pub(super) struct Inspection {
    frames: Option<FrameWalk>,
    decoding: Option<Decoding>,
}

/// Why an archive is not kept.
#[derive(Debug)]
pub(super) enum Finding {
    /// The archive is not sound.
    Flaw(Flaw),
    /// The archive could not be looked into.
    Failed(io::Error),
}

/// The decompression in a thread of its own. It reads what was written back from the file.
#[derive(Debug)]
struct Decoding {
    /// Bytes that are written.
    written: watch::Sender<u64>,
    /// Bytes that it has read.
    position: Arc<Position>,
    thread: JoinHandle<Result<(), Unsound>>,
}

impl Inspection {
    /// Begins with the file that is empty as yet.
    pub(super) fn begin(verify: Verify, record: &Record, path: &Path) -> io::Result<Self> {
        let is_zstd = record.name.compression() == Compression::Zstd;
        let frames = (verify != Verify::Length && is_zstd).then(FrameWalk::new);
        let decodes = verify == Verify::Decode && looks_inside(&record.name);
        let decoding = decodes.then(|| Decoding::begin(record, path)).transpose()?;
        Ok(Self { frames, decoding })
    }

    /// Looks at bytes on their way to the disk.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> Result<(), Finding> {
        match &mut self.frames {
            Some(frames) => frames.push(bytes).map_err(Finding::Flaw),
            None => Ok(()),
        }
    }

    /// Notes that so many bytes are in the file. An error is what was found in them meanwhile.
    pub(super) fn written(&mut self, bytes: u64) -> Result<(), Finding> {
        if let Some(decoding) = &self.decoding {
            decoding.written.send_replace(bytes);
            if decoding.thread.is_finished() {
                return self.decoding.take().map_or(Ok(()), Decoding::finish);
            }
        }
        Ok(())
    }

    /// Waits until the decompression is not far behind what was written. Otherwise readers of an
    /// archive that is fetched faster than it can be decompressed would wait at its end for all
    /// that is left to do.
    pub(super) fn keep_up(&self) {
        let Some(decoding) = &self.decoding else { return };
        let least = decoding.written.borrow().saturating_sub(MAX_LAG);
        while !decoding.thread.is_finished() && !decoding.position.passes(least) {}
    }

    /// All was written: what is there to be said of it. Waits for the decompression.
    pub(super) fn finish(&mut self) -> Result<(), Finding> {
        if let Some(frames) = &self.frames {
            frames.finish().map_err(Finding::Flaw)?;
        }
        self.decoding.take().map_or(Ok(()), Decoding::finish)
    }
}

impl Decoding {
    fn begin(record: &Record, path: &Path) -> io::Result<Self> {
        let (written, watched) = watch::channel(0);
        let position = Arc::<Position>::default();
        let body = Body::open(path, record.length, watched, Arc::clone(&position))?;
        let name: ArchiveName = record.name;
        let thread = std::thread::Builder::new().name("cache decode".to_owned());
        let thread = thread.spawn(move || decode(&name, body))?;
        Ok(Self { written, position, thread })
    }

    fn finish(self) -> Result<(), Finding> {
        let decoded = self.thread.join();
        let panicked = || Finding::Failed(io::Error::other("the decoder panicked"));
        match decoded.map_err(|_| panicked())? {
            Ok(()) => Ok(()),
            Err(Unsound::Flaw(flaw)) => Err(Finding::Flaw(flaw)),
            Err(Unsound::Reader(error) | Unsound::Decoder(error)) => Err(Finding::Failed(error)),
        }
    }
}

/// How far a body was read.
#[derive(Debug, Default)]
struct Position {
    bytes: Mutex<u64>,
    moved: Condvar,
}

impl Position {
    fn set(&self, bytes: u64) {
        *self.bytes.lock().unwrap_or_else(PoisonError::into_inner) = bytes;
        self.moved.notify_all();
    }

    /// Waits a moment for the position to be at least this one; true where it is.
    fn passes(&self, least: u64) -> bool {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.moved.wait_timeout_while(bytes, MOMENT, |bytes| *bytes < least);
        *waited.unwrap_or_else(PoisonError::into_inner).0 >= least
    }
}

/// An unfinished file as a body: reading waits for the bytes that are to come, and is an error when
/// they will not.
struct Body {
    file: File,
    at: u64,
    length: u64,
    written: watch::Receiver<u64>,
    position: Arc<Position>,
    /// For nothing but to wait with.
    runtime: Runtime,
}

impl Body {
    fn open(
        path: &Path,
        length: u64,
        written: watch::Receiver<u64>,
        position: Arc<Position>,
    ) -> io::Result<Self> {
        let file = open_to_read(path)?;
        let runtime = Builder::new_current_thread().build()?;
        Ok(Self { file, at: 0, length, written, position, runtime })
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.length {
            return Ok(0);
        }
        let at = self.at;
        if self.written.has_changed().is_err() {
            // However much is there: nobody waits for what would be said of it.
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let more = self.written.wait_for(|written| *written > at);
        let written = *self.runtime.block_on(more).map_err(|_| io::ErrorKind::BrokenPipe)?;
        let there = usize::try_from(written - at).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..there], at)?;
        if count == 0 && there > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        self.position.set(self.at);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_body_waits_for_what_is_to_come_and_knows_when_nothing_will() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        let (written, watched) = watch::channel(0);
        let mut body = Body::open(file.path(), 10, watched, Arc::default()).expect("readable");
        let reading = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let outcome = body.read_to_end(&mut bytes).map_err(|error| error.kind());
            (bytes, outcome)
        });
        file.write_all(b"01234").expect("written");
        written.send_replace(3);
        written.send_replace(5);
        file.write_all(b"56789").expect("written");
        written.send_replace(10);
        assert_eq!(reading.join().expect("no panic"), (b"0123456789".to_vec(), Ok(10)));

        let (written, watched) = watch::channel(4);
        let mut body = Body::open(file.path(), 10, watched, Arc::default()).expect("readable");
        let mut bytes = [0; 2];
        body.read_exact(&mut bytes).expect("there");
        assert_eq!(&bytes, b"01");
        drop(written);
        let outcome = body.read(&mut bytes).map_err(|error| error.kind());
        assert_eq!(outcome, Err(io::ErrorKind::BrokenPipe), "although there is more");
    }

    #[test]
    fn what_is_written_does_not_run_far_ahead_of_what_is_read() {
        let position = Arc::new(Position::default());
        assert!(position.passes(0));
        assert!(!position.passes(5), "nobody has read anything");
        let reading = Arc::clone(&position);
        let reader = std::thread::spawn(move || (1..=5).for_each(|bytes| reading.set(bytes)));
        while !position.passes(5) {}
        reader.join().expect("no panic");
        assert!(position.passes(5) && !position.passes(6));
    }
}
