//! Which pair of archives the short names lead to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::snapshot::{ArchiveName, Slot};

/// What a client that starts from nothing needs: a full archive, and the newest incremental one on
/// exactly that full one, where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    /// The full archive.
    pub full: ArchiveName,
    /// The incremental archive on it.
    pub incremental: Option<ArchiveName>,
}

impl Generation {
    /// The archive that decides how new the state is in the end.
    pub fn tip(&self) -> ArchiveName {
        self.incremental.unwrap_or(self.full)
    }

    /// The best of several generations, given what was offered before: the newest one that does not
    /// lead back from `before` while that can still be served. Where all of them do, what is left
    /// of `before` stays.
    pub(super) fn newer(
        candidates: impl Iterator<Item = Self>,
        before: Option<Self>,
        servable: impl Fn(&ArchiveName) -> bool,
    ) -> Option<Self> {
        let floor = Floor::new(before, &servable);
        let all: Vec<Self> = candidates.collect();
        let ahead = all.iter().filter(|candidate| floor.allows(candidate));
        let newest = |a: &&Self, b: &&Self| a.tip().cmp(&b.tip()).then(a.full.cmp(&b.full));
        let left = before.filter(|before| servable(&before.full)).map(|before| Self {
            full: before.full,
            incremental: before.incremental.filter(&servable),
        });
        let back = || left.or_else(|| all.iter().max_by(newest).copied());
        ahead.max_by(newest).copied().or_else(back)
    }
}

/// The slots below which nothing is offered, since what was offered there can still be had.
#[derive(Clone, Copy, Debug, Default)]
struct Floor {
    full: Slot,
    incremental: Slot,
}

impl Floor {
    fn new(before: Option<Generation>, servable: impl Fn(&ArchiveName) -> bool) -> Self {
        let slot = |name: Option<ArchiveName>| {
            name.filter(&servable).map_or(Slot::default(), |name| name.slot())
        };
        Self {
            full: slot(before.map(|before| before.full)),
            incremental: slot(before.and_then(|before| before.incremental)),
        }
    }

    /// A generation without an incremental archive takes back no promise about one.
    fn allows(self, candidate: &Generation) -> bool {
        candidate.full.slot() >= self.full
            && candidate.incremental.is_none_or(|name| name.slot() >= self.incremental)
    }
}

/// The outcome of [`choose`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    /// What to offer; nothing when there is no full archive.
    pub(super) generation: Option<Generation>,
    /// When the choice changes although nothing else did: the end of a hold.
    pub(super) until: Option<Instant>,
}

/// Chooses among `names`, which has one name for a slot (and base).
///
/// The newest pair wins over every full archive below its slot. A newer full archive without
/// incrementals waits for its first one, `pair_hold` at most, counted from `first_seen`; where no
/// pair can be offered at all it is offered at once. A hold that has begun `before` is not
/// prolonged by a still newer full archive. Slots of what was offered `before` are not gone back
/// from while `servable`, or for an incremental archive while it is among `names` as well.
pub(super) fn choose(
    names: &BTreeSet<ArchiveName>,
    before: Choice,
    servable: impl Fn(&ArchiveName) -> bool,
    first_seen: impl Fn(&ArchiveName) -> Instant,
    pair_hold: Duration,
    now: Instant,
) -> Choice {
    // In ascending order, so that the newest incremental archive of each base stays.
    let incrementals = names.iter().filter(|name| !name.is_full());
    let newest: BTreeMap<Slot, ArchiveName> =
        incrementals.map(|name| (name.base_slot(), *name)).collect();
    let generations = || {
        let fulls = names.iter().filter(|name| name.is_full());
        fulls.map(|full| Generation { full: *full, incremental: newest.get(&full.slot()).copied() })
    };
    let pairs = generations().filter(|generation| generation.incremental.is_some());
    // The slot of a full archive that is listed always has a winner to be offered. An incremental
    // archive that was voted down has none: its slot is no floor.
    let state = |name: &ArchiveName| (name.kind(), name.slot(), name.hash());
    let believed = |name: &ArchiveName| names.iter().any(|other| state(other) == state(name));
    let floor =
        Floor::new(before.generation, |name| servable(name) && (name.is_full() || believed(name)));
    let pair = pairs
        .filter(|pair| floor.allows(pair))
        .max_by(|a, b| a.tip().cmp(&b.tip()).then(a.full.cmp(&b.full)));
    let bare = generations()
        .filter(|generation| generation.incremental.is_none() && floor.allows(generation))
        .max_by_key(|generation| generation.full);

    let fixed = |generation| Choice { generation, until: None };
    match (pair, bare) {
        (Some(pair), Some(bare)) if bare.full > pair.tip() => {
            let held =
                before.generation.is_some_and(|before| before.full.slot() == pair.full.slot());
            let begun = before.until.filter(|_| held);
            let end = first_seen(&bare.full) + pair_hold;
            let end = begun.map_or(end, |begun| begun.min(end));
            if now >= end {
                fixed(Some(bare))
            } else {
                Choice { generation: Some(pair), until: Some(end) }
            }
        }
        (Some(pair), _) => fixed(Some(pair)),
        (None, Some(bare)) => fixed(Some(bare)),
        (None, None) => fixed(None),
    }
}
