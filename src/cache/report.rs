//! What is in the store, for those who look.

use std::time::{Duration, Instant, SystemTime};

use super::retention::{Entry, Retention, lease_end};
use super::shared::{Filling, Shared};
use crate::index::{TargetId, Worth};
use crate::snapshot::ArchiveName;

/// What is in a store at one time.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// The whole archives, by name.
    pub whole: Vec<WholeArchive>,
    /// The archives on their way, by name.
    pub fills: Vec<FillState>,
    /// Bytes that are free on the file system; nothing where the disk does not say.
    pub free: Option<u64>,
    /// Bytes that have to stay free there.
    pub min_free: u64,
    /// Most bytes of the store, where that is bounded.
    pub max_size: Option<u64>,
}

/// A whole archive.
#[derive(Clone, Debug)]
pub struct WholeArchive {
    /// The archive.
    pub name: ArchiveName,
    /// The target that it came from.
    pub target: TargetId,
    /// Bytes.
    pub size: u64,
    /// When it became whole.
    pub sealed: SystemTime,
    /// Who reads it.
    pub readers: usize,
    /// Whether short names lead to it, or are to.
    pub offered: bool,
    /// How long it is kept for those who were led to it, where nobody is any more.
    pub lease: Option<Duration>,
}

/// An archive on its way.
#[derive(Clone, Debug)]
pub struct FillState {
    /// The archive.
    pub name: ArchiveName,
    /// The target that it comes from.
    pub target: TargetId,
    /// Bytes that are there.
    pub received: u64,
    /// Bytes that it will have, once that is known.
    pub length: Option<u64>,
    /// Bytes that are set aside for it on the disk.
    pub reserved: u64,
    /// Bytes per second of late.
    pub rate: Option<u64>,
    /// How long it has been under way.
    pub age: Duration,
    /// Who reads it as it grows.
    pub readers: usize,
}

impl Shared {
    /// What is there. Blocks.
    pub(super) fn contents(&self, now: Instant) -> Contents {
        let settings = self.settings();
        let entries = self.entries(now);
        let state = self.state();
        let lease = |entry: &Entry| match settings.retention {
            Retention::UntilRefresh => None,
            Retention::Leased(lease) => {
                let end = lease_end(entry, &entries, lease, now)?;
                Some(end.saturating_duration_since(now))
            }
        };
        let whole = entries.iter().filter_map(|entry| {
            let record = state.whole.get(&entry.name)?.sealed.record();
            let offered = matches!(entry.worth, Worth::Best | Worth::Offered);
            Some(WholeArchive {
                name: entry.name,
                target: record.target.clone(),
                size: record.length,
                sealed: record.sealed,
                readers: entry.readers,
                offered,
                lease: lease(entry).filter(|_| !offered),
            })
        });
        let whole = whole.collect();
        let fills = state.filling.iter().map(|(name, filling)| filling.shown(*name, now)).collect();
        // Without the lock, since the disk may hang.
        drop(state);
        let free = self.free().ok();
        Contents {
            whole,
            fills,
            free,
            min_free: settings.min_free_space,
            max_size: settings.max_size,
        }
    }
}

impl Filling {
    fn shown(&self, name: ArchiveName, now: Instant) -> FillState {
        let progress = self.progress.as_ref().map(|progress| progress.borrow().clone());
        let received = progress.as_ref().map_or(0, super::Progress::frontier);
        FillState {
            name,
            target: self.source.clone(),
            received,
            length: (self.length > 0).then_some(self.length),
            reserved: self.length.saturating_sub(self.promised),
            rate: progress.and_then(|progress| progress.rate(now)),
            age: now.saturating_duration_since(self.began),
            readers: self.growing.as_ref().map_or(0, |growing| growing.reader_count()),
        }
    }
}
