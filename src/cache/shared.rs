//! What the store and its fills share: the archives, those on their way, and who is told of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore, watch};

use super::counts::FillCounts;
use super::growing::Growing;
use super::layout::{Layout, remove};
use super::options::{Appraise, Options, StoreSettings, Successor};
use super::progress::Progress;
use super::record::Record;
use super::sealed::{self, Sealed};
use crate::clock::Now;
use crate::index::{Distrusted, Held, Mark, TargetId, Worth};
use crate::snapshot::ArchiveName;

/// How long a target is not asked again for a copy that was not sound. By then one may have been
/// made anew that nobody can tell from it.
const DISTRUST: Duration = Duration::from_secs(3600);
/// Most such copies that are remembered.
const MAX_DISTRUSTED: usize = 1024;
/// Most of them of one archive at one target: only what comes after the last of them is new.
const MAX_DISTRUSTED_ALIKE: usize = 8;

/// What the store and its fills share.
pub(super) struct Shared {
    layout: Layout,
    appraise: Appraise,
    pub(super) successor: Successor,
    /// Held for its lock; nothing while another process has it.
    lock: Mutex<Option<File>>,
    settings: Mutex<StoreSettings>,
    state: Mutex<State>,
    pub(super) held: watch::Sender<Arc<[Held]>>,
    /// Told when a right to fetch is given back.
    pub(super) released: Notify,
    pub(super) distrusted: watch::Sender<Arc<[Distrusted]>>,
    loads: Arc<Semaphore>,
    pub(super) sealing: Arc<AtomicUsize>,
    pub(super) counts: Arc<FillCounts>,
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
    pub(super) distrusted: Vec<Distrusted>,
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
    pub(super) source: TargetId,
    /// There while it can be read.
    pub(super) growing: Option<Arc<Growing>>,
    /// Bytes that it will have.
    pub(super) length: u64,
    /// Bytes that are still to be taken from what is free.
    pub(super) promised: u64,
    /// How far it is, once bytes come.
    pub(super) progress: Option<watch::Receiver<Progress>>,
    /// Since when somebody has the right to it.
    pub(super) began: Instant,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("directory", &self.layout.directory()).finish_non_exhaustive()
    }
}

impl Filling {
    /// A fill of which nothing has come.
    pub(super) fn of(source: &TargetId) -> Self {
        Self {
            source: source.clone(),
            growing: None,
            length: 0,
            promised: 0,
            progress: None,
            began: Instant::now(),
        }
    }
}

impl Shared {
    pub(super) fn new(layout: Layout, lock: Option<File>, options: &Options) -> Self {
        Self {
            layout,
            appraise: Arc::clone(&options.appraise),
            successor: Arc::clone(&options.successor),
            lock: Mutex::new(lock),
            settings: Mutex::new(options.settings),
            state: Mutex::default(),
            held: watch::Sender::default(),
            released: Notify::new(),
            distrusted: watch::Sender::default(),
            loads: sealed::loads(),
            sealing: Arc::default(),
            counts: Arc::default(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // No change of the state can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The lock of the directory, or its absence.
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<File>> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How archives are cached now.
    pub(super) fn settings(&self) -> StoreSettings {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, settings: StoreSettings) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
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

    /// From now on it can be seen how far an archive is that is being fetched.
    pub(super) fn measure(&self, name: &ArchiveName, progress: watch::Receiver<Progress>) {
        if let Some(filling) = self.state().filling.get_mut(name) {
            filling.progress = Some(progress);
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
