//! What became of the fills of a store, for those who look.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::abandoned::Abandoned;
use crate::index::TargetId;
use crate::snapshot::ArchiveName;

/// Most ends of fills that are remembered.
const MAX_ENDS: usize = 64;
/// Every reason for which an archive is not taken.
pub(super) const REFUSALS: [&str; 5] = ["no_space", "too_large", "name_taken", "elsewhere", "disk"];

/// How a fill ended.
#[derive(Clone, Debug)]
pub struct FillEnd {
    /// Grows with each end.
    pub number: u64,
    /// When that was.
    pub at: SystemTime,
    /// The archive.
    pub name: ArchiveName,
    /// The target that it came from.
    pub target: TargetId,
    /// Bytes that were written.
    pub written: u64,
    /// Nothing where the archive is whole; else a word for why, and words for people.
    pub failed: Option<(&'static str, String)>,
}

/// Counts since the start of the process; they never go back.
#[derive(Debug, Default)]
pub struct FillCounts {
    started: AtomicU64,
    promoted: AtomicU64,
    failed: [AtomicU64; Abandoned::CAUSES.len()],
    refused: [AtomicU64; REFUSALS.len()],
    ends: Mutex<VecDeque<FillEnd>>,
}

impl FillCounts {
    /// Fills that were begun.
    pub fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// Archives that became whole.
    pub fn promoted(&self) -> u64 {
        self.promoted.load(Ordering::Relaxed)
    }

    /// Fills that came to nothing, by why.
    pub fn failed(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.failed.iter().map(|count| count.load(Ordering::Relaxed));
        Abandoned::CAUSES.into_iter().zip(counts)
    }

    /// Archives that were not taken, by why.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.refused.iter().map(|count| count.load(Ordering::Relaxed));
        REFUSALS.into_iter().zip(counts)
    }

    /// The last ends after this number, the oldest first.
    pub fn ends_after(&self, number: u64) -> Vec<FillEnd> {
        self.ends().iter().filter(|end| end.number > number).cloned().collect()
    }

    /// Counts an archive that was not taken, for one of these causes.
    pub fn refuse(&self, cause: &'static str) {
        count(&self.refused, &REFUSALS, cause);
    }

    pub(super) fn begin(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an archive that no source began to deliver. Where one did, its fill counts itself.
    pub fn barren(&self, name: ArchiveName, target: &TargetId, why: String) {
        self.note(name, target, 0, Some((Abandoned::SourceFailed.cause(), why)));
    }

    pub(super) fn end(
        &self,
        name: ArchiveName,
        target: &TargetId,
        written: u64,
        failed: Option<Abandoned>,
    ) {
        self.note(name, target, written, failed.map(|why| (why.cause(), why.to_string())));
    }

    fn note(
        &self,
        name: ArchiveName,
        target: &TargetId,
        written: u64,
        failed: Option<(&'static str, String)>,
    ) {
        match &failed {
            None => drop(self.promoted.fetch_add(1, Ordering::Relaxed)),
            Some((cause, _)) => count(&self.failed, &Abandoned::CAUSES, cause),
        }
        let (at, target) = (SystemTime::now(), target.clone());
        let mut ends = self.ends();
        let number = ends.back().map_or(1, |last| last.number + 1);
        if ends.len() >= MAX_ENDS {
            ends.pop_front();
        }
        ends.push_back(FillEnd { number, at, name, target, written, failed });
    }

    fn ends(&self) -> MutexGuard<'_, VecDeque<FillEnd>> {
        // No change of it can panic half-way.
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(counts: &[AtomicU64], causes: &[&'static str], cause: &str) {
    let place = causes.iter().position(|known| *known == cause);
    if let Some(count) = place.and_then(|place| counts.get(place)) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}
