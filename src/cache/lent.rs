//! An archive that is read from somebody else's file, and the reading of it.
//!
//! Such a file is not mapped: who truncates it would end the process of everyone who reads a
//! mapping of it. It is read piece by piece, and a file that is changed while it is read, in length
//! or otherwise, is an error to its reader: what came before is of another copy than what comes
//! after.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{Advice, AtFlags, StatxFlags};
use tokio::sync::Semaphore;

use super::piece;
use super::record::Record;

/// An archive in somebody else's file, which stays readable when it is removed or replaced.
#[derive(Debug)]
pub struct Lent {
    record: Record,
    /// There until it is dropped.
    file: Option<Arc<File>>,
    began: State,
    loads: Arc<Semaphore>,
}

/// What changes with the bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    length: u64,
    modified: (i64, u32),
}

impl Lent {
    /// What the record is about, in this file; `loads` is the bound on threads that wait for the
    /// disk. Waits for nothing: the file was opened a moment ago.
    pub fn new(file: File, record: Record, loads: Arc<Semaphore>) -> io::Result<Self> {
        let began = State::of(&file)?;
        if began.length != record.length {
            return Err(io::Error::other("it is not as long any more as it was"));
        }
        // Advice; nothing depends on it.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Sequential);
        Ok(Self { record, file: Some(Arc::new(file)), began, loads })
    }

    /// What is known of it.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// A reader of all of it.
    pub(super) fn reader(self: &Arc<Self>) -> LentReader {
        LentReader { lent: Arc::clone(self), rest: 0..self.record.length }
    }

    /// Reads some of these bytes, which are those that the record is about.
    async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let piece = piece::read(file, range, &self.loads).await?;
        // After the piece was read: it is not known when a change came that is seen.
        if State::of(file)? != self.began {
            return Err(io::Error::other("the file was changed while it was read"));
        }
        Ok(piece)
    }
}

impl State {
    /// As the kernel knows it now: a file server is not asked, which could take any time.
    fn of(file: &File) -> io::Result<Self> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let wanted = StatxFlags::SIZE | StatxFlags::MTIME;
        let Ok(found) = rustix::fs::statx(file, "", flags, wanted) else {
            // Before Linux 4.11, and where a sandbox forbids it.
            let found = rustix::fs::fstat(file)?;
            return Ok(Self {
                length: u64::try_from(found.st_size).unwrap_or_default(),
                modified: (found.st_mtime, u32::try_from(found.st_mtime_nsec).unwrap_or(0)),
            });
        };
        let modified = (found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec);
        Ok(Self { length: found.stx_size, modified })
    }
}

/// The last one to let go of a large file that was removed frees its space, which takes too long
/// for an async thread.
impl Drop for Lent {
    fn drop(&mut self) {
        let file = self.file.take();
        let thread = std::thread::Builder::new().name("ledger close".to_owned());
        // Where there is no thread to be had, the closure and what it holds are dropped here.
        let _ = thread.spawn(move || drop(file));
    }
}

/// A reader of some bytes of it.
#[derive(Debug)]
pub struct LentReader {
    lent: Arc<Lent>,
    rest: Range<u64>,
}

impl LentReader {
    /// Goes to these bytes; what is behind the end of the archive is left out.
    pub(super) fn seek(&mut self, start: u64, end: u64) {
        let length = self.lent.record.length;
        self.rest = start.min(length)..end.min(length);
    }

    /// The next piece; `None` at the end.
    pub(super) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let piece = self.lent.read(self.rest.clone()).await.inspect_err(|error| {
            let Record { name, target, .. } = &self.lent.record;
            log::error!("cannot read {name} of {target}: {error}");
        })?;
        self.rest.start += piece.len() as u64;
        Ok(Some(piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{CopyId, TargetId};
    use std::os::unix::fs::FileExt;
    use std::time::SystemTime;

    const LENGTH: u64 = 300_000;

    fn bytes() -> Vec<u8> {
        (0..LENGTH).map(|at| (at % 251) as u8).collect()
    }

    /// A file, another descriptor of it, and its archive.
    fn lent() -> (tempfile::NamedTempFile, Arc<Lent>) {
        let file = tempfile::NamedTempFile::new_in(".").expect("a file");
        file.as_file().write_all_at(&bytes(), 0).expect("written");
        let name = format!("snapshot-1-{}.tar.zst", "1".repeat(32)).parse().expect("valid");
        let record = Record {
            name,
            target: TargetId::ledger("g".into(), "/ledger"),
            length: LENGTH,
            copy: CopyId::of_file("/ledger", LENGTH, None),
            modified: None,
            sealed: SystemTime::now(),
        };
        let opened = file.reopen().expect("opened");
        let lent = Lent::new(opened, record, Arc::new(Semaphore::new(1))).expect("as long");
        (file, Arc::new(lent))
    }

    async fn rest(reader: &mut LentReader) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(piece) = reader.next().await? {
            all.extend(piece);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn any_part_is_read_whether_in_memory_or_not() {
        let (file, lent) = lent();
        for dropped in [false, true] {
            for (start, end) in [(0, u64::MAX), (0, 1), (65_535, 65_537), (299_999, 400_000)] {
                if dropped {
                    file.as_file().sync_all().expect("synced");
                    let advice = Advice::DontNeed;
                    rustix::fs::fadvise(file.as_file(), 0, None, advice).expect("advised");
                }
                let mut reader = lent.reader();
                reader.seek(start, end);
                let place = |at: u64| usize::try_from(at.min(LENGTH)).expect("small");
                let found = rest(&mut reader).await.expect("readable");
                let expected = &bytes()[place(start)..place(end)];
                assert!(found == expected, "{start}..{end} {dropped}");
            }
        }
        let mut reader = lent.reader();
        reader.seek(LENGTH, u64::MAX);
        assert_eq!(reader.next().await.expect("nothing"), None);
    }

    #[tokio::test]
    async fn a_file_that_is_removed_is_read_to_its_end() {
        let (file, lent) = lent();
        let mut reader = lent.reader();
        let first = reader.next().await.expect("readable").expect("a piece");
        file.close().expect("removed");
        let rest = rest(&mut reader).await.expect("readable");
        assert!([&first[..], &rest[..]].concat() == bytes());
    }

    /// Reads a piece, lets somebody change the file, and reads on.
    async fn check(what: &str, change: impl FnOnce(&File)) {
        let (file, lent) = lent();
        let mut reader = lent.reader();
        reader.next().await.expect("readable").expect("a piece");
        change(file.as_file());
        assert!(rest(&mut reader).await.is_err(), "{what}");
    }

    #[tokio::test]
    async fn a_file_that_is_changed_is_an_error_and_never_a_clean_end() {
        check("cut behind what was read", |file| file.set_len(100_000).expect("cut")).await;
        check("cut before it", |file| file.set_len(10).expect("cut")).await;
        check("cut to nothing", |file| file.set_len(0).expect("cut")).await;
        check("cut and filled again", |file| {
            file.set_len(0).expect("cut");
            file.set_len(LENGTH).expect("grown");
        })
        .await;
        check("longer", |file| file.set_len(LENGTH + 1).expect("grown")).await;
        check("written to, which shows in its time alone", |file| {
            file.write_all_at(&[0xff], LENGTH - 1).expect("written");
            // The clock of the file system may not have moved on since the file was made.
            file.set_modified(SystemTime::now()).expect("set");
        })
        .await;
    }

    #[test]
    fn a_file_of_another_length_is_not_begun() {
        let (file, lent) = lent();
        let (opened, record) = (file.reopen().expect("opened"), lent.record().clone());
        file.as_file().set_len(LENGTH - 1).expect("cut");
        assert!(Lent::new(opened, record, Arc::new(Semaphore::new(1))).is_err());
    }
}
