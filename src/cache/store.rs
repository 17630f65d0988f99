//! What is in the directory: which archives are complete, which are being fetched, and the room
//! that is left.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use tokio::sync::{Notify, Semaphore, watch};

use super::growing::Growing;
use super::layout::{Layout, remove};
use super::record::Record;
use super::reservation::{Claim, Refusal};
use super::retention::{self, Retention};
use super::scan;
use super::sealed::{self, Sealed};
use crate::clock::Now;
use crate::config::Verify;
use crate::index::{Distrusted, Generation, Held, Listed, Mark, TargetId, Worth};
use crate::snapshot::ArchiveName;

/// Tells what an archive that came from a group is worth now. Asked often, from any thread, and
/// under the store's lock: it must not ask the store.
pub type Appraise = Arc<dyn Fn(&ArchiveName, &str) -> Worth + Send + Sync>;
/// Tells the generation that a group wants now. Asked as the other one is.
pub type Successor = Arc<dyn Fn(&str) -> Option<Generation> + Send + Sync>;
/// Most fills at once. There are two for each group at most, and as many more that are no longer
/// worth it and have not noticed; beyond that the disk hangs.
const MAX_FILLS: usize = 64;
/// How long a target is not asked again for a copy that was not sound. By then one may have been
/// made anew that nobody can tell from it.
const DISTRUST: Duration = Duration::from_secs(3600);
/// Most such copies that are remembered.
const MAX_DISTRUSTED: usize = 1024;
/// Most of them of one archive at one target: only what comes after the last of them is new.
const MAX_DISTRUSTED_ALIKE: usize = 8;
/// Where and how archives are cached.
pub struct Options {
    /// The directory. It is made where it does not exist.
    pub directory: PathBuf,
    /// Bytes that stay free on its file system.
    pub min_free_space: u64,
    /// Bytes that all archives may have together, those on their way included.
    pub max_size: Option<u64>,
    /// For how long what is no longer the best is kept.
    pub retention: Retention,
    /// How an archive is looked into before it is kept.
    pub verify: Verify,
    /// The groups of the configuration: archives of others are swept.
    pub groups: Vec<Arc<str>>,
    /// What is worth keeping.
    pub appraise: Appraise,
    /// What comes after it.
    pub successor: Successor,
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
    /// It is being fetched from this target, for one request or not far enough to be read.
    Filling(TargetId),
    /// It is being fetched, and can be read as it grows.
    Growing(Arc<Growing>),
    /// All of it.
    Whole(Arc<Sealed>),
}

/// The cached archives.
#[derive(Clone, Debug)]
pub struct Store(Arc<Shared>);

/// What the store and its fills share.
pub(super) struct Shared {
    layout: Layout,
    pub(super) min_free_space: u64,
    pub(super) max_size: Option<u64>,
    pub(super) retention: Retention,
    verify: Verify,
    appraise: Appraise,
    pub(super) successor: Successor,
    /// Held for its lock.
    _lock: File,
    state: Mutex<State>,
    held: watch::Sender<Arc<[Held]>>,
    /// Told when a right to fetch is given back.
    released: Notify,
    distrusted: watch::Sender<Arc<[Distrusted]>>,
    loads: Arc<Semaphore>,
    sealing: Arc<AtomicUsize>,
}

/// An archive all of whose bytes came, until it is found or given up.
#[derive(Debug)]
pub(super) struct Sealing(Arc<AtomicUsize>);

impl Drop for Sealing {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Default)]
pub(super) struct State {
    pub(super) whole: BTreeMap<ArchiveName, Whole>,
    pub(super) filling: BTreeMap<ArchiveName, Filling>,
    /// Sources that are not used.
    distrusted: Vec<Distrusted>,
}

pub(super) struct Whole {
    pub(super) sealed: Arc<Sealed>,
    since: Now,
    /// How long it was complete before that.
    age: Duration,
    /// When it was first seen that another one is the best.
    pub(super) stale_since: Option<Instant>,
}

pub(super) struct Filling {
    source: TargetId,
    /// There while it can be read.
    growing: Option<Arc<Growing>>,
    /// Bytes that it will have.
    pub(super) length: u64,
    /// Bytes that are still to be taken from what is free.
    pub(super) promised: u64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("directory", &self.layout.directory()).finish_non_exhaustive()
    }
}

impl Store {
    /// Takes the directory, adopts what is whole in it and sweeps what is ours and broken. Blocks.
    pub fn open(options: Options, now: Now) -> Result<Self, OpenError> {
        let Options { directory, groups, .. } = &options;
        let failed = |source| OpenError::Io { directory: directory.clone(), source };
        DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(failed)?;
        let layout = Layout::new(directory);
        let lock = lock(&layout.lock()).map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::InUse(directory.clone()),
            TryLockError::Error(error) => failed(error),
        })?;
        let found = scan::scan(&layout, groups).map_err(failed)?;
        let shared = Shared {
            layout,
            min_free_space: options.min_free_space,
            max_size: options.max_size,
            retention: options.retention,
            verify: options.verify,
            appraise: options.appraise,
            successor: options.successor,
            _lock: lock,
            state: Mutex::default(),
            held: watch::Sender::default(),
            released: Notify::new(),
            distrusted: watch::Sender::default(),
            loads: sealed::loads(),
            sealing: Arc::default(),
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

    pub(super) fn layout(&self) -> &Layout {
        &self.0.layout
    }

    /// What there is of an archive.
    pub fn standing(&self, name: &ArchiveName) -> Standing {
        let state = self.0.state();
        match (state.whole.get(name), state.filling.get(name)) {
            (Some(whole), _) => Standing::Whole(Arc::clone(&whole.sealed)),
            (None, Some(Filling { growing: Some(growing), .. })) if !growing.has_failed() => {
                Standing::Growing(Arc::clone(growing))
            }
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
        let (source, growing) = (source.clone(), None);
        state.filling.insert(*name, Filling { source, growing, length: 0, promised: 0 });
        Some(Claim::new(Arc::clone(&self.0), *name))
    }

    /// Waits until nobody has the right to fetch an archive.
    pub async fn unclaimed(&self, name: &ArchiveName) {
        loop {
            let mut released = pin!(self.0.released.notified());
            // From here on no release is missed.
            released.as_mut().enable();
            if !self.0.state().filling.contains_key(name) {
                return;
            }
            released.await;
        }
    }

    /// The complete archives, always those of this moment.
    pub fn held(&self) -> watch::Receiver<Arc<[Held]>> {
        self.0.held.subscribe()
    }

    /// The complete archives, by name.
    pub fn names(&self) -> Vec<ArchiveName> {
        self.0.state().whole.keys().copied().collect()
    }

    /// Whether what this target lists is a copy that was not sound of late.
    pub fn is_distrusted(&self, target: &TargetId, listed: &Listed, now: Instant) -> bool {
        self.0.state().distrusted.iter().any(|found| found.covers(target, listed, now))
    }

    /// Whether an archive that came whole is on its way to being found.
    pub fn is_sealing(&self) -> bool {
        self.0.sealing.load(Ordering::Acquire) > 0
    }

    /// The archives that were not sound of late, always those of this moment.
    pub fn distrusted(&self) -> watch::Receiver<Arc<[Distrusted]>> {
        self.0.distrusted.subscribe()
    }

    /// Looks at what every archive is worth now, and removes those whose lease is over. Says when
    /// the next one may be. Blocks.
    pub fn expire(&self, now: Instant) -> Option<Instant> {
        let entries = self.0.entries(now);
        let Retention::Leased(lease) = self.0.retention else { return None };
        let retention::Ended { names, next } = retention::ended(&entries, lease, now);
        self.0.take(|sealed| names.contains(&sealed.record().name), "its lease is over");
        next
    }

    /// Whether there could be room for an archive of so many bytes, whatever would have to go for
    /// it. Blocks.
    pub fn could_hold(&self, name: &ArchiveName, length: u64) -> Result<(), Refusal> {
        self.0.could_hold(name, length)
    }

    /// Requests no longer find an archive that is being fetched, since its fill hangs.
    pub fn hide(&self, name: &ArchiveName) {
        if let Some(filling) = self.0.state().filling.get_mut(name) {
            filling.growing = None;
        }
    }

    /// Removes one archive, for whatever reason there is outside; false where it is not there.
    /// Blocks.
    pub fn remove(&self, name: &ArchiveName) -> bool {
        self.0.take(|sealed| sealed.record().name == *name, "it was purged") > 0
    }

    /// Removes an archive that nothing supports any more. Blocks.
    pub fn disown(&self, name: &ArchiveName) {
        let why = "its target has gone, and nothing else supports its slot";
        self.0.take(|sealed| sealed.record().name == *name, why);
    }

    /// Removes an archive that cannot be read; a better one may have its name already. Blocks.
    pub fn discard(&self, broken: &Arc<Sealed>) {
        self.0.take(|sealed| std::ptr::eq(sealed, &raw const **broken), "it cannot be read");
    }
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // No change of the state can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(super) fn verify(&self) -> Verify {
        self.verify
    }

    /// The bound on threads that wait for the disk.
    pub(super) fn loads(&self) -> Arc<Semaphore> {
        Arc::clone(&self.loads)
    }

    /// Notes that all bytes of an archive came.
    pub(super) fn sealing(&self) -> Sealing {
        self.sealing.fetch_add(1, Ordering::AcqRel);
        Sealing(Arc::clone(&self.sealing))
    }

    /// From now on requests find an archive that is being fetched.
    pub(super) fn show(&self, name: &ArchiveName, growing: &Arc<Growing>) {
        if let Some(filling) = self.state().filling.get_mut(name) {
            filling.growing = Some(Arc::clone(growing));
        }
    }

    /// The target is not asked for this copy of an archive for a while.
    pub(super) fn distrust(&self, name: &ArchiveName, target: &TargetId, mark: Mark) {
        let now = Instant::now();
        let (target, name, until) = (target.clone(), *name, now + DISTRUST);
        let found = Distrusted { target, name, mark, until };
        let mut state = self.state();
        state.distrusted.retain(|old| now < old.until);
        let is_alike = |old: &Distrusted| old.name == found.name && old.target == found.target;
        let alike = state.distrusted.iter().filter(|old| is_alike(old)).count();
        let goes = if alike >= MAX_DISTRUSTED_ALIKE {
            state.distrusted.iter().position(is_alike)
        } else {
            (state.distrusted.len() >= MAX_DISTRUSTED).then_some(0)
        };
        if let Some(oldest) = goes {
            state.distrusted.remove(oldest);
        }
        state.distrusted.push(found);
        self.distrusted.send_replace(state.distrusted.as_slice().into());
    }

    pub(super) fn worth(&self, name: &ArchiveName, group: &str) -> Worth {
        (self.appraise)(name, group)
    }

    pub(super) fn open(&self, record: Record) -> io::Result<Sealed> {
        Sealed::open(&self.layout.archive(&record.name), record, Arc::clone(&self.loads))
    }

    /// From now on the archive is found, by requests and by the index.
    pub(super) fn publish(&self, sealed: Sealed, now: Now) -> Arc<Sealed> {
        let sealed = Arc::new(sealed);
        let age = now.wall.duration_since(sealed.record().sealed).unwrap_or_default();
        let whole = Whole { sealed: Arc::clone(&sealed), since: now, age, stale_since: None };
        let mut state = self.state();
        state.whole.insert(sealed.record().name, whole);
        self.tell(&state);
        sealed
    }

    /// Tells the index, in the order of the changes.
    fn tell(&self, state: &State) {
        let held = |Whole { sealed, since, age, .. }: &Whole| {
            let Record { name, target, length, modified, .. } = sealed.record().clone();
            Held { name, target, size: length, modified, since: *since, age: *age }
        };
        self.held.send_replace(state.whole.values().map(held).collect());
    }

    pub(super) fn take(&self, goes: impl Fn(&Sealed) -> bool, why: &str) -> u64 {
        let taken: Vec<(ArchiveName, Arc<Sealed>)> = {
            let mut state = self.state();
            let whole = std::mem::take(&mut state.whole);
            let (gone, left): (BTreeMap<_, Whole>, _) =
                whole.into_iter().partition(|(_, whole)| goes(&whole.sealed));
            state.whole = left;
            let taken: Vec<_> =
                gone.into_iter().map(|(name, whole)| (name, whole.sealed)).collect();
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

    pub(super) fn release(&self, name: &ArchiveName) {
        self.state().filling.remove(name);
        self.released.notify_waiters();
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
