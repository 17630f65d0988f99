//! The refresh of one archive: `Claim`, then `Reservation`, then `Fill`, then `Sealed`.
//!
//! A claim or a reservation is undone where it is dropped: the unfinished file is removed first,
//! and the name given free after that. A fill that is dropped is undone by its thread, soon after.
//! What touches the disk runs in that thread or in the caller's blocking section, never on an
//! async one.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use rustix::fs::{CWD, FallocateFlags, FsWord, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::layout::{Layout, remove};
use super::record::Record;
use super::store::Shared;
use crate::clock::Now;
use crate::index::{CopyId, TargetId, Worth};
use crate::snapshot::ArchiveName;

/// The file system in memory, by `statfs(2)`.
const TMPFS: FsWord = 0x0102_1994;
/// Bytes of the disk that are set aside at once: all of a large archive would take too long for a
/// client that waits for its head. The rest follows with the first blocks.
const ROOM_STEP: u64 = 4 << 30;
/// Bytes that are written at once.
const BLOCK: usize = 1 << 20;
/// Blocks that wait for the disk. With the one that is collected and the one that is written this
/// is all the memory that a fill needs.
const QUEUE: usize = 8;

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
        "it needs {needed} bytes and `cache.min_free_space` keeps {kept}, but {available} are \
         free: make room, or choose another `proxy_snapshot_cache_dir`"
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
    #[error(
        "`{0}` is there and is not served from here, remove it or choose another \
         `proxy_snapshot_cache_dir`"
    )]
    NameTaken(PathBuf),
    /// The disk does not do what it is asked.
    #[error("the disk fails")]
    Disk(#[source] io::Error),
    /// There is no thread to write with.
    #[error("cannot start the thread that writes")]
    Thread(#[source] io::Error),
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
    #[error("the disk is slower than the client")]
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

    /// Notes whose copy is being asked for, so that others ask for the same.
    pub fn asks(&self, target: &TargetId) {
        self.shared.note_source(&self.name, target);
    }

    /// Makes room for the archive: stale ones go, and its length is reserved. Blocks.
    pub fn reserve(self, announced: Announced) -> Result<Reservation, Refusal> {
        let Announced { target, length, copy, modified } = announced;
        let removed = self.shared.remove_stale();
        let layout = self.shared.layout();
        let path = layout.archive(&self.name);
        if !is_absent(&path) {
            return Err(Refusal::NameTaken(path));
        }
        self.shared.promise(&self.name, length, removed)?;
        let unfinished = Unfinished::create(layout.unfinished(&self.name));
        let unfinished = unfinished.map_err(|error| self.shared.refusal(length, error))?;
        let mut room = unfinished.room().map_err(Refusal::Disk)?;
        if let Err(error) = self.set_aside(&unfinished, &mut room, length) {
            return Err(self.shared.refusal(length, error));
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
        Ok(Reservation { unfinished, room, record, claim: self })
    }

    /// Sets the next step of the room aside, where it is done in steps.
    fn set_aside(&self, unfinished: &Unfinished, room: &mut Room, length: u64) -> io::Result<()> {
        let Room::SetAside(done) = *room else { return Ok(()) };
        let step = ROOM_STEP.min(length - done);
        if step == 0 {
            return Ok(());
        }
        match rustix::fs::fallocate(&unfinished.file, FallocateFlags::KEEP_SIZE, done, step) {
            Ok(()) => {
                *room = Room::SetAside(done + step);
                self.shared.keep(&self.name, step);
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => *room = Room::Counted,
            Err(error) => return Err(error.into()),
        }
        Ok(())
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
    room: Room,
    record: Record,
    claim: Claim,
}

/// How the room for a file is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    /// By the file system, so many bytes by now.
    SetAside(u64),
    /// By the store, which counts what is still to be written.
    Counted,
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

    /// Whether room can be set aside for the file without writing it. Its size stays what was
    /// written in any case, so that one that is not whole is never as long as one that is.
    fn room(&self) -> io::Result<Room> {
        let in_memory = rustix::fs::fstatfs(&self.file)?.f_type == TMPFS;
        Ok(if in_memory { Room::Counted } else { Room::SetAside(0) })
    }

    /// Gives the file its name, in place of nothing: what has that name stays, and is an error.
    fn promote(&mut self, path: &Path) -> io::Result<()> {
        match rustix::fs::renameat_with(CWD, &self.path, CWD, path, RenameFlags::NOREPLACE) {
            // Not every file system can. Nobody else of this program writes here.
            Err(Errno::INVAL | Errno::NOSYS) if is_absent(path) => {
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
    pub fn begin(reservation: Reservation) -> Result<Self, Refusal> {
        let (steps, inbox) = mpsc::channel(QUEUE);
        let (length, reason) = (reservation.record.length, Reason::default());
        let Record { name, target, .. } = &reservation.record;
        log::info!("cache: refresh of {name} from target {target} started, {length} bytes");
        let writer = Writer { reservation, inbox, reason: reason.clone(), began: Instant::now() };
        let thread = std::thread::Builder::new().name("cache fill".to_owned());
        thread.spawn(|| writer.run()).map_err(Refusal::Thread)?;
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

    /// Takes the next bytes, and waits for the disk where too many wait already. After an error, or
    /// when it was not waited for, there is nothing more to do but to drop the fill.
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
        // A writer that has gone has said why.
        self.steps.send(step).await.map_err(|_| self.abandon(Abandoned::Disk))
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
        let outcome = match complete {
            Ok(()) => reservation.seal(),
            Err((why, error)) => {
                drop(reservation);
                Err((reason.given().unwrap_or(why), error))
            }
        };
        match outcome {
            Ok(()) => {
                let took = began.elapsed();
                let rate = u128::from(written) / 1000 / took.as_millis().max(1);
                let seconds = took.as_secs_f64();
                log::info!("cache: promoted {name}, {written} bytes, {seconds:.3} s, {rate} MB/s");
            }
            Err((why, error)) => {
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
            self.reservation.write(&block)?;
            *written += block.len() as u64;
        }
        Err((Abandoned::Ended, None))
    }
}

impl Reservation {
    fn write(&mut self, block: &[u8]) -> Result<(), Stopped> {
        self.check_worth()?;
        let Self { unfinished, room, record, claim } = self;
        claim.set_aside(unfinished, room, record.length).map_err(disk)?;
        unfinished.file.write_all(block).map_err(disk)?;
        if *room == Room::Counted {
            claim.shared.keep(&claim.name, block.len() as u64);
        }
        Ok(())
    }

    /// A target that does not answer for a while is no reason to give up what comes from it.
    fn check_worth(&self) -> Result<(), Stopped> {
        match self.claim.shared.worth(&self.record.name, &self.record.target.group) {
            Worth::Superseded => Err((Abandoned::NotBest, None)),
            Worth::Best | Worth::Doubtful => Ok(()),
        }
    }

    /// From a file with all of its bytes to an archive that is found. The record is there before
    /// the archive, so that an archive without one is never ours.
    fn seal(self) -> Result<(), Stopped> {
        self.unfinished.file.sync_all().map_err(disk)?;
        // After the sync, which can take a while.
        self.check_worth()?;
        // In this order, so that the name is free only after the file is gone.
        let Self { claim, mut unfinished, mut record, .. } = self;
        if unfinished.file.metadata().map_err(disk)?.len() != record.length {
            return Err((Abandoned::Length, None));
        }
        let now = Now::read();
        record.sealed = now.wall;
        let layout = claim.shared.layout();
        let record_name = record.name;
        let archive = layout.archive(&record_name);
        if !is_absent(&archive) {
            // Not even for a moment is there to be a record beside what is not ours.
            return Err(disk(io::Error::from(io::ErrorKind::AlreadyExists)));
        }
        let promoted = write_record(layout, &record).and_then(|()| {
            unfinished.promote(&archive)?;
            layout.sync()?;
            claim.shared.open(record)
        });
        match promoted {
            Ok(sealed) => claim.shared.publish(sealed, now),
            Err(error) => {
                if unfinished.renamed {
                    layout.remove(&record_name);
                } else {
                    remove(&layout.record(&record_name));
                }
                return Err(disk(error));
            }
        }
        Ok(())
    }
}

fn is_absent(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
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
