//! What is in the directory: which archives are complete, which are being fetched, and the room
//! that is left.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rustix::fs::{Mode, OFlags};
use tokio::sync::watch;

use super::counts::FillCounts;
use super::growing::Growing;
use super::layout::Layout;
use super::options::{Options, StoreSettings};
use super::record::Record;
use super::report::Contents;
use super::reservation::{Claim, Refusal};
use super::retention::{self, Retention};
use super::scan::{self, Sweeping};
use super::sealed::Sealed;
use super::shared::{Filling, Shared};
use crate::clock::Now;
use crate::index::{Distrusted, Held, Listed, TargetId};
use crate::snapshot::ArchiveName;

/// Most fills at once. There are two for each group at most, and as many more that are no longer
/// worth it and have not noticed; beyond that the disk hangs.
const MAX_FILLS: usize = 64;
/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses it.
    #[error(
        "another process uses the cache directory `{0}`, stop it or choose another \
         `proxy_snapshot_cache_dir`"
    )]
    InUse(PathBuf),
    /// The directory cannot be read or written.
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
    /// The store has nothing.
    Absent,
    /// A fetch from this target, for one request or not far enough to be read.
    Filling(TargetId),
    /// A fetch that can be read as it grows.
    Growing(Arc<Growing>),
    /// A whole archive.
    Whole(Arc<Sealed>),
}

/// The cached archives.
#[derive(Clone, Debug)]
pub struct Store(Arc<Shared>);

impl Store {
    /// Takes the directory, adopts what is whole in it and sweeps what is ours and broken. Blocks.
    pub fn open(options: &Options, now: Now) -> Result<Self, OpenError> {
        let store = Self::open_beside(options, now)?;
        if store.is_owner() {
            return Ok(store);
        }
        Err(OpenError::InUse(options.directory.clone()))
    }

    /// As [`open`](Self::open), also where another process has the directory: then nothing is swept
    /// in it until [`meet`](Self::meet) finds that the other one has gone. Blocks.
    pub fn open_beside(options: &Options, now: Now) -> Result<Self, OpenError> {
        let directory = &options.directory;
        let failed = |source| OpenError::Io { directory: directory.clone(), source };
        DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(failed)?;
        let layout = Layout::new(directory);
        let lock = lock(&layout.lock()).map_err(failed)?;
        let found = scan::scan(&layout, Sweeping::of(lock.is_some())).map_err(failed)?;
        let shared = Shared::new(layout, lock, options);
        for record in found {
            adopt(&shared, record, now);
        }
        Ok(Self(Arc::new(shared)))
    }

    /// Whether no other process has the directory.
    pub fn is_owner(&self) -> bool {
        self.0.lock().is_some()
    }

    /// Adopts what another process has put into the directory since, and takes the directory where
    /// that one has gone. Says whether it has. Blocks.
    pub fn meet(&self, now: Now) -> Result<bool, OpenError> {
        if self.is_owner() {
            return Ok(true);
        }
        let (shared, layout) = (&self.0, self.0.layout());
        let failed = |source| OpenError::Io { directory: layout.directory().to_owned(), source };
        let lock = lock(&layout.lock()).map_err(failed)?;
        let is_owner = lock.is_some();
        let found = scan::scan(layout, Sweeping::of(is_owner)).map_err(failed)?;
        // Not before it was swept.
        *shared.lock() = lock;
        for record in found {
            let state = shared.state();
            let is_known =
                state.whole.contains_key(&record.name) || state.filling.contains_key(&record.name);
            drop(state);
            if !is_known {
                adopt(shared, record, now);
            }
        }
        Ok(is_owner)
    }

    pub(super) fn layout(&self) -> &Layout {
        self.0.layout()
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
        state.filling.insert(*name, Filling::of(source));
        Some(Claim::new(Arc::clone(&self.0), *name))
    }

    /// Caches otherwise from now on. What is there or under way is what it is.
    pub fn set(&self, settings: StoreSettings) {
        self.0.set(settings);
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

    /// Whether an archive is on its way, or what is left of one that came to nothing.
    pub fn is_filling(&self) -> bool {
        !self.0.state().filling.is_empty()
    }

    /// The archives that were not sound of late, always those of this moment.
    pub fn distrusted(&self) -> watch::Receiver<Arc<[Distrusted]>> {
        self.0.distrusted.subscribe()
    }

    /// Looks at what every archive is worth now, and removes those whose lease is over. Says when
    /// the next one may be. Blocks.
    pub fn expire(&self, now: Instant) -> Option<Instant> {
        let entries = self.0.entries(now);
        let Retention::Leased(lease) = self.0.settings().retention else { return None };
        let retention::Ended { names, next } = retention::ended(&entries, lease, now);
        self.0.take(|sealed| names.contains(&sealed.record().name), "its lease is over");
        next
    }

    /// Whether there could be room for an archive of so many bytes, whatever would have to go for
    /// it. Blocks.
    pub fn could_hold(&self, name: &ArchiveName, length: u64) -> Result<(), Refusal> {
        self.0.could_hold(name, length)
    }

    /// What is there. Blocks, and for as long as the disk does.
    pub fn contents(&self, now: Instant) -> Contents {
        self.0.contents(now)
    }

    /// What became of its fills.
    pub fn counts(&self) -> &FillCounts {
        &self.0.counts
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        self.0.layout().directory()
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
        self.let_go(name, "it was purged")
    }

    /// Removes one archive and says why; false where it is not there. Blocks.
    pub fn let_go(&self, name: &ArchiveName, why: &str) -> bool {
        self.0.take(|sealed| sealed.record().name == *name, why) > 0
    }

    /// Removes an archive that cannot be read; a better one may have its name already. Blocks.
    pub fn discard(&self, broken: &Arc<Sealed>) {
        self.0.take(|sealed| std::ptr::eq(sealed, &raw const **broken), "it cannot be read");
    }
}

/// Offers an archive that is whole in the directory.
fn adopt(shared: &Shared, record: Record, now: Now) {
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

/// Takes the lock of the directory; nothing where another process has it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
    let file = File::from(rustix::fs::open(path, flags, mode)?);
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
