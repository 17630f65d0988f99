//! Which pair of archives is wanted, and which one the short names lead to.

use std::cmp::Ordering;
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

    /// The archives of a generation, the full one first.
    pub fn names(&self) -> impl Iterator<Item = ArchiveName> + use<> {
        std::iter::once(self.full).chain(self.incremental)
    }

    /// True for an archive that is no newer than the one of its kind here.
    pub(super) fn reaches(&self, name: &ArchiveName) -> bool {
        *name <= if name.is_full() { self.full } else { self.tip() }
    }

    /// The best of several generations, given what was offered before: the newest one that does not
    /// lead back from `before` while that can still be served. Where all of them do, what is left
    /// of `before` stays.
    pub(super) fn newer(
        candidates: impl Iterator<Item = Self>,
        before: Option<Self>,
        servable: impl Fn(&ArchiveName) -> bool,
    ) -> Option<Self> {
        // An incremental archive is worth nothing without the full one below it.
        let left = before.filter(|before| servable(&before.full)).map(|before| Self {
            full: before.full,
            incremental: before.incremental.filter(&servable),
        });
        let floor = Floor::of(left);
        let all: Vec<Self> = candidates.collect();
        // Nor is a full archive alone ahead of a newer pair that can still be had.
        let reached = left.map_or(Slot::default(), |left| left.tip().slot());
        let is_ahead =
            |candidate: &&Self| floor.allows(candidate) && candidate.tip().slot() >= reached;
        let ahead = all.iter().filter(is_ahead);
        let newest = |a: &&Self, b: &&Self| a.compare(b);
        let back = || left.or_else(|| all.iter().max_by(newest).copied());
        ahead.max_by(newest).copied().or_else(back)
    }

    /// By how new they are; the newer one is the greater one.
    fn compare(&self, other: &Self) -> Ordering {
        self.tip().cmp(&other.tip()).then(self.full.cmp(&other.full))
    }
}

/// The slots below which nothing is offered, since what was offered there can still be had.
#[derive(Clone, Copy, Debug, Default)]
struct Floor {
    full: Slot,
    incremental: Slot,
}

impl Floor {
    /// The slots of those archives of `before` that still stand.
    fn new(before: Option<Generation>, stands: impl Fn(&ArchiveName) -> bool) -> Self {
        let slot = |name: Option<ArchiveName>| {
            name.filter(&stands).map_or(Slot::default(), |name| name.slot())
        };
        Self {
            full: slot(before.map(|before| before.full)),
            incremental: slot(before.and_then(|before| before.incremental)),
        }
    }

    fn of(generation: Option<Generation>) -> Self {
        Self::new(generation, |_| true)
    }

    fn max(self, other: Self) -> Self {
        Self {
            full: self.full.max(other.full),
            incremental: self.incremental.max(other.incremental),
        }
    }

    /// A generation without an incremental archive takes back no promise about one.
    fn allows(self, candidate: &Generation) -> bool {
        candidate.full.slot() >= self.full
            && candidate.incremental.is_none_or(|name| name.slot() >= self.incremental)
    }
}

/// Every full archive of `names` with the newest incremental one on it.
fn generations(names: &BTreeSet<ArchiveName>) -> Vec<Generation> {
    // In ascending order, so that the newest incremental archive of each base stays.
    let incrementals = names.iter().filter(|name| !name.is_full());
    let newest: BTreeMap<Slot, ArchiveName> =
        incrementals.map(|name| (name.base_slot(), *name)).collect();
    let fulls = names.iter().filter(|name| name.is_full());
    fulls
        .map(|full| Generation { full: *full, incremental: newest.get(&full.slot()).copied() })
        .collect()
}

/// True for an archive whose state is among `names`, in whatever compression.
pub(super) fn is_believed(name: &ArchiveName, names: &BTreeSet<ArchiveName>) -> bool {
    let state = |name: &ArchiveName| (name.kind(), name.slot(), name.hash());
    names.iter().any(|other| state(other) == state(name))
}

/// What a group wants and offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    /// What is offered as soon as the policy allows it; nothing when there is no full archive.
    pub(super) wanted: Option<Generation>,
    /// What short names lead to.
    pub(super) offered: Option<Generation>,
    /// When the choice changes although nothing else did: the end of a hold.
    pub(super) until: Option<Instant>,
}

/// Chooses what is wanted among `names`, which has one name for a slot (and base), and offers it
/// at once: [`promoted`] is how to wait.
///
/// The newest pair wins over every full archive below its slot. A newer full archive without
/// incrementals waits for its first one, `pair_hold` at most, counted from `first_seen`; where no
/// pair can be offered at all it is offered at once. A hold that has begun `before` is not
/// prolonged by a still newer full archive. Slots of what was offered `before` are not gone back
/// from while `servable`, or for an incremental archive while it is among `names` as well; nor are
/// those of what was wanted, while all of it is.
pub(super) fn choose(
    names: &BTreeSet<ArchiveName>,
    before: &Choice,
    servable: impl Fn(&ArchiveName) -> bool,
    first_seen: impl Fn(&ArchiveName) -> Instant,
    pair_hold: Duration,
    now: Instant,
) -> Choice {
    // The slot of a full archive that is listed always has a winner to be offered. An incremental
    // archive that was voted down has none: its slot is no floor.
    let stands =
        |name: &ArchiveName| servable(name) && (name.is_full() || is_believed(name, names));
    // What was only wanted was promised to nobody: half of it holds nothing up.
    let whole = before.wanted.filter(|wanted| wanted.names().all(|name| stands(&name)));
    let floor = Floor::new(before.offered, stands).max(Floor::new(whole, stands));
    let generations = generations(names);
    let allowed = || generations.iter().filter(|generation| floor.allows(generation)).copied();
    let pair = allowed().filter(|pair| pair.incremental.is_some()).max_by(Generation::compare);
    let bare = allowed()
        .filter(|generation| generation.incremental.is_none())
        .max_by_key(|generation| generation.full);

    let fixed = |wanted| Choice { wanted, offered: wanted, until: None };
    match (pair, bare) {
        (Some(pair), Some(bare)) if bare.full > pair.tip() => {
            let held = before.wanted.is_some_and(|before| before.full.slot() == pair.full.slot());
            let begun = before.until.filter(|_| held);
            let end = first_seen(&bare.full) + pair_hold;
            let end = begun.map_or(end, |begun| begun.min(end));
            if now >= end {
                fixed(Some(bare))
            } else {
                Choice { until: Some(end), ..fixed(Some(pair)) }
            }
        }
        (Some(pair), _) => fixed(Some(pair)),
        (None, Some(bare)) => fixed(Some(bare)),
        (None, None) => fixed(None),
    }
}

/// What to offer where clients are led to nothing but what is `cached`: what is `wanted`, when all
/// of it is. Until then the newest generation all of which is cached, or what was offered `before`
/// while all of it is `servable` and believed, that is among `names`, whichever is newer: where new
/// archives appear faster than they can be fetched, what is wanted is never cached, and what was
/// wanted a moment ago is. Where there is neither, what is wanted is offered after all: an archive
/// that clients wait for is better than none.
///
/// For that reason a full archive without an incremental one is no generation where a pair is
/// wanted. Nor is offered what `wanted` would be a step back from, or it would stay for as long as
/// it can be served.
pub(super) fn promoted(
    names: &BTreeSet<ArchiveName>,
    wanted: Option<Generation>,
    before: Option<Generation>,
    cached: &BTreeSet<ArchiveName>,
    servable: impl Fn(&ArchiveName) -> bool,
) -> Option<Generation> {
    let wanted = wanted?;
    if wanted.names().all(|name| cached.contains(&name)) {
        return Some(wanted);
    }
    let believed = |name: &ArchiveName| is_believed(name, names);
    let stays = |before: &Generation| before.names().all(|name| servable(&name) && believed(&name));
    let floor = Floor::new(before, |name| servable(name) && (name.is_full() || believed(name)));
    let believed = cached.iter().filter(|name| believed(name)).copied().collect();
    let leads_on =
        |held: &Generation| Floor::of(Some(*held)).allows(&wanted) && held.compare(&wanted).is_le();
    let is_complete =
        |held: &Generation| held.incremental.is_some() || wanted.incremental.is_none();
    let held = generations(&believed)
        .into_iter()
        .filter(|held| floor.allows(held) && is_complete(held) && leads_on(held));
    let stays = before.filter(stays);
    Some(held.chain(stays).max_by(Generation::compare).unwrap_or(wanted))
}
