//! What is in the directory: which archives are complete, which are being fetched, and the room
//! that is left.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use tokio::sync::{Semaphore, watch};

use super::fill::{Claim, Refusal};
use super::layout::{Layout, remove};
use super::record::Record;
use super::scan;
use super::sealed::{self, Sealed};
use crate::clock::Now;
use crate::index::{Held, TargetId, Worth};
use crate::snapshot::ArchiveName;

/// Tells what an archive that came from a group is worth now. Asked often, from any thread, and
/// under the store's lock: it must not ask the store.
pub type Appraise = Arc<dyn Fn(&ArchiveName, &str) -> Worth + Send + Sync>;
/// Most fills at once. There are two for each group at most, and as many more that are no longer
/// worth it and have not noticed; beyond that the disk hangs.
const MAX_FILLS: usize = 64;
/// How long the room of a removed archive may take to come back.
const ROOM_PATIENCE: Duration = Duration::from_millis(300);
/// How often it is looked for.
const ROOM_PAUSE: Duration = Duration::from_millis(10);

/// Where and how archives are cached.
pub struct Options {
    /// The directory. It is made where it does not exist.
    pub directory: PathBuf,
    /// Bytes that stay free on its file system.
    pub min_free_space: u64,
    /// The groups of the configuration: archives of others are swept.
    pub groups: Vec<Arc<str>>,
    /// What is worth keeping.
    pub appraise: Appraise,
}

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses it.
    #[error(
        "another process uses the cache directory `{0}`, stop it or choose another \
         `proxy_snapshot_cache_dir`"
    )]
    InUse(PathBuf),
    /// It cannot be read or written.
    #[error(
        "cannot use the cache directory `{directory}`, give this process the right to read and \
         write it or choose another `proxy_snapshot_cache_dir`"
    )]
    Io {
        /// The directory.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What the store has of an archive.
#[derive(Clone, Debug)]
pub enum Standing {
    /// Nothing.
    Absent,
    /// It is being fetched from this target.
    Filling(TargetId),
    /// All of it.
    Whole(Arc<Sealed>),
}

/// The cached archives.
#[derive(Clone, Debug)]
pub struct Store(Arc<Shared>);

/// What the store and its fills share.
pub(super) struct Shared {
    layout: Layout,
    min_free_space: u64,
    appraise: Appraise,
    /// Held for its lock.
    _lock: File,
    state: Mutex<State>,
    held: watch::Sender<Arc<[Held]>>,
    loads: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    whole: BTreeMap<ArchiveName, (Arc<Sealed>, Now)>,
    filling: BTreeMap<ArchiveName, Filling>,
}

struct Filling {
    source: TargetId,
    /// Bytes that are still to be taken from what is free.
    promised: u64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("directory", &self.layout.directory()).finish_non_exhaustive()
    }
}

impl Store {
    /// Takes the directory, adopts what is whole in it and sweeps what is ours and broken. Blocks.
    pub fn open(options: Options, now: Now) -> Result<Self, OpenError> {
        let Options { directory, min_free_space, groups, appraise } = options;
        let failed = |source| OpenError::Io { directory: directory.clone(), source };
        DirBuilder::new().recursive(true).mode(0o755).create(&directory).map_err(failed)?;
        let layout = Layout::new(&directory);
        let lock = lock(&layout.lock()).map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::InUse(directory.clone()),
            TryLockError::Error(error) => failed(error),
        })?;
        let found = scan::scan(&layout, &groups).map_err(failed)?;
        let shared = Shared {
            layout,
            min_free_space,
            appraise,
            _lock: lock,
            state: Mutex::default(),
            held: watch::Sender::default(),
            loads: sealed::loads(),
        };
        for record in found {
            let name = record.name;
            match shared.open(record) {
                Ok(sealed) => {
                    let Record { length, target, .. } = sealed.record();
                    log::info!("cache: adopted {name} of target {target}, {length} bytes");
                    shared.publish(sealed, now);
                }
                Err(error) => log::error!("cache: cannot open {name}: {error}"),
            }
        }
        Ok(Self(Arc::new(shared)))
    }

    /// What there is of an archive.
    pub fn standing(&self, name: &ArchiveName) -> Standing {
        let state = self.0.state();
        match (state.whole.get(name), state.filling.get(name)) {
            (Some((sealed, _)), _) => Standing::Whole(Arc::clone(sealed)),
            (None, Some(filling)) => Standing::Filling(filling.source.clone()),
            (None, None) => Standing::Absent,
        }
    }

    /// The right to fetch an archive, of `source` first; `None` where it is there, or another one
    /// has the right.
    pub fn claim(&self, name: &ArchiveName, source: &TargetId) -> Option<Claim> {
        let mut state = self.0.state();
        let taken = state.whole.contains_key(name) || state.filling.contains_key(name);
        if taken || state.filling.len() >= MAX_FILLS {
            return None;
        }
        state.filling.insert(*name, Filling { source: source.clone(), promised: 0 });
        Some(Claim::new(Arc::clone(&self.0), *name))
    }

    /// The complete archives, always those of this moment.
    pub fn held(&self) -> watch::Receiver<Arc<[Held]>> {
        self.0.held.subscribe()
    }

    /// The complete archives, by name.
    pub fn names(&self) -> Vec<ArchiveName> {
        self.0.state().whole.keys().copied().collect()
    }

    /// Removes one archive, for whatever reason there is outside; false where it is not there.
    /// Blocks.
    pub fn remove(&self, name: &ArchiveName) -> bool {
        self.0.take(|sealed| sealed.record().name == *name, "it was purged") > 0
    }

    /// Removes an archive that cannot be read; a better one may have its name already. Blocks.
    pub fn discard(&self, broken: &Arc<Sealed>) {
        self.0.take(|sealed| std::ptr::eq(sealed, &raw const **broken), "it cannot be read");
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // No change of the state can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(super) fn worth(&self, name: &ArchiveName, group: &str) -> Worth {
        (self.appraise)(name, group)
    }

    pub(super) fn open(&self, record: Record) -> io::Result<Sealed> {
        Sealed::open(&self.layout.archive(&record.name), record, Arc::clone(&self.loads))
    }

    /// From now on the archive is found, by requests and by the index.
    pub(super) fn publish(&self, sealed: Sealed, now: Now) {
        let mut state = self.state();
        state.whole.insert(sealed.record().name, (Arc::new(sealed), now));
        self.tell(&state);
    }

    /// Tells the index, in the order of the changes.
    fn tell(&self, state: &State) {
        let held = |(sealed, since): &(Arc<Sealed>, Now)| {
            let Record { name, target, length, modified, .. } = sealed.record().clone();
            Held { name, target, size: length, modified, since: *since }
        };
        self.held.send_replace(state.whole.values().map(held).collect());
    }

    /// Removes every archive that is not the best any more. Its readers are not disturbed.
    /// Returns how many bytes that were.
    pub(super) fn remove_stale(&self) -> u64 {
        let stale = |sealed: &Sealed| {
            let Record { name, target, .. } = sealed.record();
            self.worth(name, &target.group) != Worth::Best
        };
        self.take(stale, "it is no longer the best")
    }

    fn take(&self, goes: impl Fn(&Sealed) -> bool, why: &str) -> u64 {
        let taken: Vec<(ArchiveName, Arc<Sealed>)> = {
            let mut state = self.state();
            let whole = std::mem::take(&mut state.whole);
            let (gone, left) = whole.into_iter().partition(|(_, (sealed, _))| goes(sealed));
            state.whole = left;
            let gone: BTreeMap<_, (Arc<Sealed>, Now)> = gone;
            let taken: Vec<_> =
                gone.into_iter().map(|(name, (sealed, _))| (name, sealed)).collect();
            if !taken.is_empty() {
                self.tell(&state);
            }
            taken
        };
        // Without the lock, and before the mapping goes: a file that is open is unlinked at once,
        // and what frees its space is done by whoever lets go of it last.
        for (name, sealed) in &taken {
            let path = self.layout.archive(name);
            if !sealed.is_at(&path) {
                log::warn!("cache: `{}` is not what was put there, it is left", path.display());
                remove(&self.layout.record(name));
            } else if self.layout.remove(name) {
                log::info!("cache: removed {name}: {why}");
            }
        }
        taken.iter().map(|(_, sealed)| sealed.record().length).fold(0, u64::saturating_add)
    }

    pub(super) fn note_source(&self, name: &ArchiveName, source: &TargetId) {
        if let Some(filling) = self.state().filling.get_mut(name) {
            filling.source = source.clone();
        }
    }

    /// Promises room to an archive, if there is enough with what has to stay free. Where so many
    /// bytes were `removed` just now that they would do, they may take a moment to come back.
    pub(super) fn promise(
        &self,
        name: &ArchiveName,
        length: u64,
        removed: u64,
    ) -> Result<(), Refusal> {
        let deadline = Instant::now() + ROOM_PATIENCE;
        loop {
            match self.try_to_promise(name, length) {
                Err(Refusal::NoSpace { needed, available, kept })
                    if needed.saturating_add(kept) <= available.saturating_add(removed)
                        && Instant::now() < deadline =>
                {
                    std::thread::sleep(ROOM_PAUSE);
                }
                outcome => return outcome,
            }
        }
    }

    fn try_to_promise(&self, name: &ArchiveName, length: u64) -> Result<(), Refusal> {
        let free = self.free().map_err(Refusal::Disk)?;
        let mut state = self.state();
        let available = state.available(free);
        if length.saturating_add(self.min_free_space) > available {
            return Err(self.no_space(length, available));
        }
        if let Some(filling) = state.filling.get_mut(name) {
            filling.promised = length;
        }
        Ok(())
    }

    /// So many bytes of what was promised are no longer free.
    pub(super) fn keep(&self, name: &ArchiveName, bytes: u64) {
        if let Some(filling) = self.state().filling.get_mut(name) {
            filling.promised = filling.promised.saturating_sub(bytes);
        }
    }

    pub(super) fn release(&self, name: &ArchiveName) {
        self.state().filling.remove(name);
    }

    /// What an error of the disk means for an archive of this length.
    pub(super) fn refusal(&self, needed: u64, error: io::Error) -> Refusal {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                let available = self.free().map(|free| self.state().available(free));
                available.map_or_else(Refusal::Disk, |available| self.no_space(needed, available))
            }
            _ => Refusal::Disk(error),
        }
    }

    fn no_space(&self, needed: u64, available: u64) -> Refusal {
        Refusal::NoSpace { needed, available, kept: self.min_free_space }
    }

    /// Bytes that are free on the file system.
    fn free(&self) -> io::Result<u64> {
        let space = rustix::fs::statvfs(self.layout.directory())?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }
}

impl State {
    /// Bytes that are free and not promised to anybody.
    fn available(&self, free: u64) -> u64 {
        let promised = self.filling.values().map(|filling| filling.promised);
        free.saturating_sub(promised.fold(0, u64::saturating_add))
    }
}

fn lock(path: &Path) -> Result<File, TryLockError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
    let file = rustix::fs::open(path, flags, mode).map_err(io::Error::from);
    let file = File::from(file.map_err(TryLockError::Error)?);
    file.try_lock()?;
    Ok(file)
}
