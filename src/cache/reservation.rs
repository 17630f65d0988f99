//! Room for one archive on the disk: `Claim`, then `Reservation`, and at last the archive itself.
//!
//! A claim or a reservation is undone where it is dropped: the unfinished file is removed first,
//! and the name given free after that. What touches the disk runs in the thread of a
//! [`Fill`](super::fill::Fill) or in the caller's blocking section, never on an async one.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FallocateFlags, FsWord, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use tokio::sync::watch;

use super::abandoned::{Abandoned, Stopped, WhenSuperseded, disk};
use super::counts::FillCounts;
use super::growing::Growing;
use super::inspection::Inspection;
use super::intact::{check_blocks, check_length};
use super::layout::{Layout, open_to_read, remove};
use super::progress::Progress;
use super::record::Record;
use super::sealed::Sealed;
use super::shared::Shared;
use crate::check::Flaw;
use crate::clock::Now;
use crate::index::{CopyId, Mark, Tag, TargetId, Worth};
use crate::snapshot::{ArchiveName, Compression};

/// The file system in memory, by `statfs(2)`.
const TMPFS: FsWord = 0x0102_1994;
/// Bytes of the disk that are set aside at once: all of a large archive would take too long for a
/// client that waits for its head. The rest follows with the first blocks.
const ROOM_STEP: u64 = 4 << 30;

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
    /// When it last changed, as the source had listed it.
    pub listed: Option<SystemTime>,
    /// What the source itself calls it.
    pub tag: Option<Tag>,
}

impl Announced {
    fn mark(&self) -> Mark {
        let Self { length, modified, listed, tag, .. } = *self;
        Mark { length, modified, listed, tag }
    }
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
    /// The cache is too small.
    #[error(
        "it needs {needed} bytes beside {others} that stay, and `cache.max_size` is {most}: raise \
         that"
    )]
    TooLarge {
        /// Bytes of the archive.
        needed: u64,
        /// Bytes of the archives that stay.
        others: u64,
        /// Bytes that all may have.
        most: u64,
    },
    /// Something that is not ours has the archive's name.
    #[error(
        "`{0}` is there and is not served from here, remove it or choose another \
         `proxy_snapshot_cache_dir`"
    )]
    NameTaken(PathBuf),
    /// Another process of this program, which is about to end or to take over, fetches it.
    #[error("another process fetches it into the same directory")]
    Elsewhere,
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

impl Refusal {
    /// A word for it, for those who count.
    pub const fn cause(&self) -> &'static str {
        match self {
            Self::NoSpace { .. } => "no_space",
            Self::TooLarge { .. } => "too_large",
            Self::NameTaken(_) => "name_taken",
            Self::Elsewhere => "elsewhere",
            Self::Disk(_) | Self::Thread(_) | Self::Slow(_) => "disk",
        }
    }
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

    /// What becomes of fills of its store.
    pub fn counts(&self) -> Arc<FillCounts> {
        Arc::clone(&self.shared.counts)
    }

    /// Notes whose copy is being asked for, so that others ask for the same.
    pub fn asks(&self, target: &TargetId) {
        self.shared.note_source(&self.name, target);
    }

    /// Makes room for the archive: stale ones go, and its length is reserved. Blocks.
    pub fn reserve(self, announced: Announced) -> Result<Reservation, Refusal> {
        let mark = announced.mark();
        let Announced { target, length, copy, modified, .. } = announced;
        let removed = self.shared.make_way(&self.name, length)?;
        let layout = self.shared.layout();
        let path = layout.archive(&self.name);
        if !is_absent(&path) {
            return Err(Refusal::NameTaken(path));
        }
        self.shared.promise(&self.name, length, removed)?;
        let unfinished = Unfinished::create(layout.unfinished(&self.name));
        let unfinished = unfinished.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Refusal::Elsewhere,
            _ => self.shared.refusal(length, error),
        })?;
        let mut room = unfinished.room().map_err(Refusal::Disk)?;
        if let Err(error) = self.allocate(&unfinished, &mut room, length) {
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
        Ok(Reservation { unfinished, room, written: 0, record, mark, claim: self })
    }

    /// Sets the next step of the room aside, where it is done in steps.
    fn allocate(&self, unfinished: &Unfinished, room: &mut Room, length: u64) -> io::Result<()> {
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
    /// Bytes that were written.
    written: u64,
    record: Record,
    mark: Mark,
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
    /// Makes the file, and locks it for as long as it is written. One that is there already was
    /// left behind by a removal that failed, or by a process that is gone; unless it is locked, by
    /// one that is there, which is [`io::ErrorKind::WouldBlock`].
    fn create(path: PathBuf) -> io::Result<Self> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        // Nobody else is to write it, now or ever.
        let mode = Mode::RUSR | Mode::RGRP | Mode::ROTH;
        let file = match rustix::fs::open(&path, flags, mode) {
            Err(Errno::EXIST) => {
                // What cannot be opened so is no file that anybody writes.
                let left = open_to_read(&path).ok();
                // Locked to the end of this, so that whoever else finds it gives up.
                left.as_ref().map_or(Ok(()), File::try_lock)?;
                remove(&path);
                rustix::fs::open(&path, flags, mode)
            }
            outcome => outcome,
        };
        let file = File::from(file?);
        file.try_lock()?;
        // Another process may have taken it for one that was left, before it was locked.
        if !is_still_at(&file, &path)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Self { path, file, renamed: false })
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

/// Whether a path leads to this file.
fn is_still_at(file: &File, path: &Path) -> io::Result<bool> {
    let place = |seen: &std::fs::Metadata| (seen.dev(), seen.ino());
    match path.symlink_metadata() {
        Ok(found) => Ok(place(&found) == place(&file.metadata()?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.renamed {
            // Its room comes back now, and not when the last one closes it who had begun to read.
            // An error is the disk's, and is met again in a moment.
            let _ = self.file.set_len(0);
            remove(&self.path);
        }
    }
}

impl Reservation {
    /// What the archive will be.
    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// The archive as its readers see it while it is written.
    pub(super) fn growing(
        &self,
        ranges: bool,
        progress: watch::Receiver<Progress>,
    ) -> io::Result<Growing> {
        let loads = self.claim.shared.loads();
        Growing::open(&self.unfinished.path, self.record.clone(), ranges, progress, loads)
    }

    /// From now on requests find the archive although it is not complete.
    pub(super) fn show(&self, growing: &Arc<Growing>) {
        self.claim.shared.show(&self.claim.name, growing);
    }

    /// The store that the archive is for.
    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.claim.shared)
    }

    /// What looks into the archive as it is written.
    pub(super) fn inspection(&self) -> io::Result<Inspection> {
        Inspection::begin(self.claim.shared.settings().verify, &self.record, &self.unfinished.path)
    }

    /// The source gave something that is no archive of this name, and is not asked for that copy
    /// again.
    pub(super) fn distrust_source(&self, flaw: Flaw) {
        let Record { name, target, .. } = &self.record;
        log::warn!("cache: {name} from target {target} is not sound, it is not used: {flaw}");
        self.claim.shared.distrust(name, target, self.mark);
    }

    pub(super) fn write(&mut self, block: &[u8]) -> Result<(), Stopped> {
        let Self { unfinished, room, written, record, claim, .. } = self;
        claim.allocate(unfinished, room, record.length).map_err(disk)?;
        // Before each block, since what is written behind a cut leaves a hole.
        check_length(&unfinished.file, *written).map_err(disk)?;
        unfinished.file.write_all(block).map_err(disk)?;
        *written += block.len() as u64;
        if *room == Room::Counted {
            claim.shared.keep(&claim.name, block.len() as u64);
        }
        Ok(())
    }

    /// A target that does not answer for a while is no reason to give up what comes from it.
    pub(super) fn check_worth(&self) -> Result<(), Stopped> {
        match self.claim.shared.worth(&self.record.name, &self.record.target.group) {
            Worth::Superseded | Worth::Baseless => Err((Abandoned::NotBest, None)),
            Worth::Best | Worth::Offered | Worth::Doubtful => Ok(()),
        }
    }

    /// From a file with all of its bytes to an archive that is found. The record is there before
    /// the archive, so that an archive without one is never ours.
    pub(super) fn seal(
        self,
        superseded: WhenSuperseded,
    ) -> Result<(Arc<Sealed>, Arc<Shared>), Stopped> {
        self.unfinished.file.sync_all().map_err(disk)?;
        if superseded == WhenSuperseded::End {
            // After the sync, which can take a while.
            self.check_worth()?;
        }
        // In this order, so that the name is free only after the file is gone.
        let Self { claim, mut unfinished, mut record, .. } = self;
        check_length(&unfinished.file, record.length).map_err(disk)?;
        // What is not compressed may have zeros that a file system keeps no block for.
        if record.name.compression() != Compression::None {
            check_blocks(&unfinished.file, &unfinished.path, record.length).map_err(disk)?;
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
            Ok(sealed) => {
                let sealed = claim.shared.publish(sealed, now);
                Ok((sealed, Arc::clone(&claim.shared)))
            }
            Err(error) => {
                if unfinished.renamed {
                    layout.remove(&record_name);
                } else {
                    remove(&layout.record(&record_name));
                }
                Err(disk(error))
            }
        }
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
