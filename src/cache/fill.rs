//! The refresh of one archive: `Claim`, then `Reservation`, then `Fill`, then `Sealed`.
//!
//! Each state holds the one before, and dropping any of them undoes it: the unfinished file is
//! removed first, and the name given free after that. What touches the disk runs in threads of its
//! own or in the caller's blocking section, never on an async thread.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use rustix::fs::{CWD, FallocateFlags, FsWord, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::layout::Layout;
use super::record::Record;
use super::store::Shared;
use crate::clock::Now;
use crate::index::TargetId;
use crate::route::CopyId;
use crate::snapshot::ArchiveName;

/// The file system in memory, by `statfs(2)`.
const TMPFS: FsWord = 0x0102_1994;
/// Bytes that are written at once.
const BLOCK: usize = 1 << 20;
/// Blocks that wait for the disk. With the one that is collected and the one that is written this
/// is all the memory that a fill needs.
const QUEUE: usize = 8;
/// How long a full queue holds up the client before the fill is given up. Clients leave after two
/// seconds of silence.
const DISK_PATIENCE: Duration = Duration::from_secs(1);

/// The copy that is to be cached, as its source announced it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The source's target.
    pub target: TargetId,
    /// Bytes.
    pub length: u64,
    /// Which copy it is.
    pub copy: CopyId,
    /// When it last changed, where the source tells.
    pub modified: Option<SystemTime>,
}

/// Why a refresh does not begin. The client is served all the same.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The disk is too small.
    #[error(
        "it needs {needed} bytes, of {available} that are free `cache.min_free_space` keeps {kept}"
    )]
    NoSpace {
        /// Bytes of the archive.
        needed: u64,
        /// Bytes that are free.
        available: u64,
        /// Bytes that have to stay free.
        kept: u64,
    },
    /// Something that is not ours has the archive's name.
    #[error("`{0}` is there already and is not ours, remove it or choose another directory")]
    NameTaken(PathBuf),
    /// The disk does not do what it is asked.
    #[error("the disk fails")]
    Disk(#[from] io::Error),
    /// The disk does not answer.
    #[error("the disk did not answer within {0:?}")]
    Slow(Duration),
}

/// Why a refresh that had begun does not end in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Abandoned {
    /// Nobody takes the bytes any more.
    #[error("the client left")]
    ClientLeft,
    /// The source broke off or fell silent.
    #[error("the source failed")]
    SourceFailed,
    /// The transfer ended in some other way.
    #[error("the transfer ended")]
    Ended,
    /// More or fewer bytes than were announced.
    #[error("the body has another length than was announced")]
    Length,
    /// Another archive is the best one by now.
    #[error("it is no longer the best")]
    NotBest,
    /// The disk takes the bytes slower than the client.
    #[error("the disk did not take a block within {DISK_PATIENCE:?}")]
    Slow,
    /// The disk refused the bytes.
    #[error("the disk fails")]
    Disk,
}

/// The right to refresh one archive. There is never a second one.
#[derive(Debug)]
pub struct Claim {
    shared: Arc<Shared>,
    name: ArchiveName,
}

impl Claim {
    pub(super) fn new(shared: Arc<Shared>, name: ArchiveName) -> Self {
        Self { shared, name }
    }

    fn is_best(&self) -> bool {
        self.shared.is_best(&self.name)
    }

    /// Notes whose copy is being asked for, so that others ask for the same.
    pub fn asks(&self, target: &TargetId) {
        self.shared.note_source(&self.name, target);
    }

    /// Makes room for the archive: stale ones go, and its length is reserved. Blocks.
    pub fn reserve(self, announced: Announced) -> Result<Reservation, Refusal> {
        let Announced { target, length, copy, modified } = announced;
        self.shared.remove_stale();
        let layout = self.shared.layout();
        let path = layout.archive(&self.name);
        if path.symlink_metadata().is_ok() {
            return Err(Refusal::NameTaken(path));
        }
        self.shared.check_space(length)?;
        let unfinished = Unfinished::create(layout.unfinished(&self.name));
        let unfinished = unfinished.map_err(|error| self.shared.refusal(length, error))?;
        match unfinished.reserve(length) {
            Ok(true) => {}
            Ok(false) => self.shared.note_unbacked(&self.name, length),
            Err(error) => return Err(self.shared.refusal(length, error)),
        }
        self.shared.note_source(&self.name, &target);
        let record = Record {
            name: self.name,
            target,
            length,
            copy,
            modified,
            sealed: SystemTime::UNIX_EPOCH,
        };
        Ok(Reservation { unfinished, record, claim: self })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shared.release(&self.name);
    }
}

/// Room on the disk, and the file in it. Fields are dropped in this order.
#[derive(Debug)]
pub struct Reservation {
    unfinished: Unfinished,
    record: Record,
    claim: Claim,
}

/// A file that is removed unless it is renamed.
#[derive(Debug)]
struct Unfinished {
    path: PathBuf,
    file: File,
    renamed: bool,
}

impl Unfinished {
    /// Makes the file. One that is there already was left behind by a removal that failed.
    fn create(path: PathBuf) -> io::Result<Self> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        // Nobody else is to write it, now or ever.
        let mode = Mode::RUSR | Mode::RGRP | Mode::ROTH;
        let file = match rustix::fs::open(&path, flags, mode) {
            Err(Errno::EXIST) if remove(&path) => rustix::fs::open(&path, flags, mode),
            outcome => outcome,
        };
        Ok(Self { path, file: File::from(file?), renamed: false })
    }

    /// Sets so many bytes of the disk aside; false where the file system does not do that, or does
    /// it by writing them. The size of the file stays what was written, so that one that is not
    /// whole is never as long as one that is.
    fn reserve(&self, length: u64) -> io::Result<bool> {
        if rustix::fs::fstatfs(&self.file)?.f_type == TMPFS {
            return Ok(false);
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, length) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the file its name, in place of nothing: what has that name stays, and is an error.
    fn promote(&mut self, path: &Path) -> io::Result<()> {
        match rustix::fs::renameat_with(CWD, &self.path, CWD, path, RenameFlags::NOREPLACE) {
            // Not every file system can. Nobody else of this program writes here.
            Err(Errno::INVAL | Errno::NOSYS) if path.symlink_metadata().is_err() => {
                std::fs::rename(&self.path, path)?;
            }
            outcome => outcome?,
        }
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.renamed {
            remove(&self.path);
        }
    }
}

/// What the writer of a fill is sent.
enum Step {
    Write(Bytes),
    /// That was all.
    Seal,
}

/// Where those who end a fill say why. The first reason stays.
#[derive(Clone, Debug, Default)]
pub struct Reason(Arc<OnceLock<Abandoned>>);

impl Reason {
    /// Gives the reason, where there is none yet.
    pub fn give(&self, why: Abandoned) {
        // A later reason follows from the first one.
        let _ = self.0.set(why);
    }

    /// What was given.
    pub fn given(&self) -> Option<Abandoned> {
        self.0.get().copied()
    }
}

/// An archive on its way to the disk. Dropping it without [`Fill::finish`] abandons it.
#[derive(Debug)]
pub struct Fill {
    steps: mpsc::Sender<Step>,
    block: BytesMut,
    written: u64,
    length: u64,
    reason: Reason,
}

impl Fill {
    /// Starts the thread that writes.
    pub fn begin(reservation: Reservation) -> io::Result<Self> {
        let (steps, inbox) = mpsc::channel(QUEUE);
        let (length, reason) = (reservation.record.length, Reason::default());
        let Record { name, target, .. } = &reservation.record;
        log::info!("cache: refresh of {name} from target {target} started, {length} bytes");
        let writer = Writer { reservation, inbox, reason: reason.clone(), began: Instant::now() };
        std::thread::Builder::new().name("cache fill".to_owned()).spawn(|| writer.run())?;
        Ok(Self { steps, block: BytesMut::new(), written: 0, length, reason })
    }

    /// Where to say why it ends early.
    pub fn reason(&self) -> Reason {
        self.reason.clone()
    }

    /// Bytes of the whole archive.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Takes the next bytes. After an error there is nothing more to do but to drop it.
    pub async fn write(&mut self, mut data: Bytes) -> Result<(), Abandoned> {
        self.written += data.len() as u64;
        if self.written > self.length {
            return Err(self.abandon(Abandoned::Length));
        }
        while !data.is_empty() {
            // Copied, since the pieces of a network's buffer keep all of that buffer alive.
            let room = BLOCK - self.block.len();
            self.block.extend_from_slice(&data.split_to(room.min(data.len())));
            if self.block.len() == BLOCK {
                self.send_block().await?;
            }
        }
        Ok(())
    }

    /// The body is complete: the archive is sealed in the writer's thread, and found from then on.
    /// Nobody waits for that, least of all the client, whose last bytes are still to be sent.
    pub async fn finish(mut self) -> Result<(), Abandoned> {
        if self.written != self.length {
            return Err(self.abandon(Abandoned::Length));
        }
        if !self.block.is_empty() {
            self.send_block().await?;
        }
        self.send(Step::Seal).await
    }

    async fn send_block(&mut self) -> Result<(), Abandoned> {
        let block = std::mem::replace(&mut self.block, BytesMut::with_capacity(BLOCK));
        self.send(Step::Write(block.freeze())).await
    }

    async fn send(&self, step: Step) -> Result<(), Abandoned> {
        match tokio::time::timeout(DISK_PATIENCE, self.steps.send(step)).await {
            Ok(Ok(())) => Ok(()),
            // The writer has gone, and said why.
            Ok(Err(_)) => Err(self.abandon(Abandoned::Disk)),
            Err(_) => Err(self.abandon(Abandoned::Slow)),
        }
    }

    fn abandon(&self, why: Abandoned) -> Abandoned {
        self.reason.give(why);
        self.reason.given().unwrap_or(why)
    }
}

/// Why there is no archive at the end, and what the system said where it was the system's fault.
type Stopped = (Abandoned, Option<io::Error>);

fn disk(error: impl Into<io::Error>) -> Stopped {
    (Abandoned::Disk, Some(error.into()))
}

/// The thread behind a [`Fill`]. It ends with the archive sealed or with nothing left of it.
struct Writer {
    reservation: Reservation,
    inbox: mpsc::Receiver<Step>,
    reason: Reason,
    began: Instant,
}

impl Writer {
    fn run(mut self) {
        let mut written = 0;
        let complete = self.write_all(&mut written);
        if let Err((why, _)) = complete {
            // What the client's side noticed is the cause of what is noticed here.
            self.reason.give(why);
        }
        // Nobody is to wait for a queue that is not emptied any more.
        self.inbox.close();
        let Self { reservation, reason, began, .. } = self;
        let name = reservation.record.name;
        let outcome = complete.and_then(|()| reservation.seal());
        match outcome {
            Ok(()) => {
                let seconds = began.elapsed().as_secs_f64();
                let rate = written / 1_000_000;
                let rate = Duration::from_secs(rate).as_secs_f64() / seconds.max(1e-9);
                log::info!(
                    "cache: promoted {name}, {written} bytes, {seconds:.3} s, {rate:.0} MB/s"
                );
            }
            Err((why, error)) => {
                let why = reason.given().unwrap_or(why);
                let error = error.map(|error| format!(": {error}")).unwrap_or_default();
                log::info!(
                    "cache: refresh of {name} abandoned after {written} bytes: {why}{error}"
                );
            }
        }
    }

    fn write_all(&mut self, written: &mut u64) -> Result<(), Stopped> {
        while let Some(step) = self.inbox.blocking_recv() {
            let Step::Write(block) = step else { return Ok(()) };
            if !self.reservation.claim.is_best() {
                return Err((Abandoned::NotBest, None));
            }
            self.reservation.unfinished.file.write_all(&block).map_err(disk)?;
            *written += block.len() as u64;
        }
        Err((Abandoned::Ended, None))
    }
}

impl Reservation {
    /// From a file with all of its bytes to an archive that is found. The record is there before
    /// the archive, so that an archive without one is never ours.
    fn seal(self) -> Result<(), Stopped> {
        // In this order, so that the name is free only after the file is gone.
        let Self { claim, mut unfinished, mut record } = self;
        if !claim.is_best() {
            return Err((Abandoned::NotBest, None));
        }
        unfinished.file.sync_all().map_err(disk)?;
        if unfinished.file.metadata().map_err(disk)?.len() != record.length {
            return Err((Abandoned::Length, None));
        }
        let now = Now::read();
        record.sealed = now.wall;
        let layout = claim.shared.layout();
        let (archive, record_path) = (layout.archive(&record.name), layout.record(&record.name));
        let promoted = write_record(layout, &record).and_then(|()| {
            unfinished.promote(&archive)?;
            layout.sync()?;
            claim.shared.open(record)
        });
        match promoted {
            Ok(sealed) => claim.shared.publish(sealed, now),
            Err(error) => {
                // Without its record the archive would never be swept.
                if !unfinished.renamed || remove(&archive) {
                    remove(&record_path);
                }
                return Err(disk(error));
            }
        }
        Ok(())
    }
}

/// Removes a file of ours, and says whether it is gone.
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

fn write_record(layout: &Layout, record: &Record) -> io::Result<()> {
    let bytes = record.encode();
    if Record::decode(&bytes).as_ref() != Ok(&record.in_whole_seconds()) {
        return Err(io::Error::other("the record would not be read back as it is"));
    }
    let mut unfinished = Unfinished::create(layout.unfinished_record(&record.name))?;
    unfinished.file.write_all(&bytes)?;
    unfinished.file.sync_all()?;
    // In place of whatever has that name: only ours can have it.
    std::fs::rename(&unfinished.path, layout.record(&record.name))?;
    unfinished.renamed = true;
    layout.sync()
}
