//! Which hash is right at a slot: the one that most targets list.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::catalog::{Answer, Held, TargetId};
use crate::snapshot::{ArchiveHash, ArchiveName, Kind, Slot};

/// Targets that disagree about the state at one slot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// Base slot, for incremental archives.
    pub base: Option<Slot>,
    /// The slot.
    pub slot: Slot,
    /// The hash that is believed.
    pub winner: ArchiveHash,
    /// A hash that is not.
    pub loser: ArchiveHash,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { base, slot, winner, loser } = self;
        match base {
            None => write!(f, "full archives at slot {slot} disagree: ")?,
            Some(base) => write!(f, "incremental archives from {base} to {slot} disagree: ")?,
        }
        write!(f, "most targets list hash {winner}, some list {loser}, which is not offered")
    }
}

/// The archives of a group that may be offered, and what was voted down.
#[derive(Debug, Default)]
pub(super) struct Elected {
    /// One name for each slot (and base): the believed hash in its best compression.
    pub(super) names: BTreeSet<ArchiveName>,
    /// Every other hash that was listed, in a fixed order.
    pub(super) conflicts: Vec<Conflict>,
}

/// What an archive claims to be the state of: a slot, and for an incremental one the way there.
type Seat = (Option<Slot>, Slot);
/// Who lists which hash, in which forms.
type Ballots = BTreeMap<Seat, BTreeMap<ArchiveHash, (usize, ArchiveName)>>;

/// Counts the targets behind each hash. An incremental archive is elected only together with the
/// full one below it, and only targets that do not contradict that full one have a say in it.
///
/// What the cache holds can be elected and has no vote: it is a copy of what a target listed.
pub(super) fn elect(members: &[(&TargetId, &Answer)], held: &[&Held]) -> Elected {
    let mut elected = Elected::default();
    let mut fulls = ballots(members, |_, name| name.is_full());
    stand(&mut fulls, held.iter().map(|held| held.name).filter(ArchiveName::is_full));
    for (seat, hashes) in fulls {
        elected.decide(seat, &hashes);
    }
    let bases: BTreeMap<Slot, ArchiveHash> =
        elected.names.iter().map(|name| (name.slot(), name.hash())).collect();
    let mut incrementals = ballots(members, |answer, name| {
        !name.is_full()
            && bases
                .get(&name.base_slot())
                .is_some_and(|hash| !answer.contradicts(name.base_slot(), *hash))
    });
    let cached = || held.iter().map(|held| held.name);
    let on_base = |name: &ArchiveName| {
        !name.is_full()
            && bases
                .get(&name.base_slot())
                .is_some_and(|hash| !contradict(cached(), name.base_slot(), *hash))
    };
    stand(&mut incrementals, cached().filter(on_base));
    for (seat, hashes) in incrementals {
        elected.decide(seat, &hashes);
    }
    elected
}

fn ballots(
    members: &[(&TargetId, &Answer)],
    counts: impl Fn(&Answer, &ArchiveName) -> bool,
) -> Ballots {
    let mut ballots = Ballots::new();
    for (_, answer) in members {
        // A target has one vote for a hash, in however many compressions it lists it.
        let mut counted = BTreeSet::new();
        for name in answer.holdings.keys().filter(|name| counts(answer, name)) {
            let seat = seat(name);
            let hashes = ballots.entry(seat).or_default();
            let (votes, best) = hashes.entry(name.hash()).or_insert((0, *name));
            *votes += usize::from(counted.insert((seat, name.hash())));
            *best = (*best).max(*name);
        }
    }
    ballots
}

/// Puts archives on the ballots without a vote.
fn stand(ballots: &mut Ballots, names: impl Iterator<Item = ArchiveName>) {
    for name in names {
        let (_, best) =
            ballots.entry(seat(&name)).or_default().entry(name.hash()).or_insert((0, name));
        *best = (*best).max(name);
    }
}

fn seat(name: &ArchiveName) -> Seat {
    match name.kind() {
        Kind::Full => (None, name.slot()),
        Kind::Incremental { base } => (Some(base), name.slot()),
    }
}

impl Elected {
    fn decide(&mut self, (base, slot): Seat, hashes: &BTreeMap<ArchiveHash, (usize, ArchiveName)>) {
        let winner = hashes.iter().max_by_key(|(hash, (votes, _))| (*votes, **hash));
        let Some((&winner, &(_, name))) = winner else { return };
        self.names.insert(name);
        let losers = hashes.keys().filter(|hash| **hash != winner);
        self.conflicts.extend(losers.map(|&loser| Conflict { base, slot, winner, loser }));
    }
}

impl Answer {
    fn contradicts(&self, slot: Slot, hash: ArchiveHash) -> bool {
        contradict(self.holdings.keys().copied(), slot, hash)
    }
}

/// True when there is a full archive at `slot` among `names`, but none with this hash.
fn contradict(names: impl Iterator<Item = ArchiveName>, slot: Slot, hash: ArchiveHash) -> bool {
    let mut at_slot = names.filter(|name| name.is_full() && name.slot() == slot).peekable();
    at_slot.peek().is_some() && at_slot.all(|name| name.hash() != hash)
}
