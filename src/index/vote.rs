//! Which hash is right at a slot: the one that most targets list, and of two that as many do the
//! one of the target that has been known longer.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Instant;

use super::answer::Answer;
use super::listing::{Held, TargetId};
use super::undelivered::Nowhere;
use super::voice::Voice;
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
        write!(
            f,
            "most targets, or those that are known longest, list hash {winner}, some list {loser}, \
             which is not offered"
        )
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
type Ballots<'a> = BTreeMap<Seat, BTreeMap<ArchiveHash, Ballot<'a>>>;

/// The targets that list one hash.
#[derive(Default)]
struct Ballot<'a> {
    /// Each counts once, in however many compressions and from however many ports it lists it.
    voices: BTreeSet<&'a Voice>,
    /// True where one of them is trusted.
    trusted: bool,
    /// True where the cache has the archive: a target delivered it, and it was looked into.
    cached: bool,
    /// The one that has been known the longest, and since when.
    elder: Option<(Instant, &'a TargetId)>,
    /// The archive in its best compression.
    name: Option<ArchiveName>,
}

/// Who may be elected.
pub(super) struct Electorate<'a> {
    /// The targets that count.
    pub(super) members: &'a [(&'a TargetId, &'a Answer)],
    /// What the cache holds for them.
    pub(super) held: &'a [&'a Held],
    /// The archives at slots that nothing supports, which do not stand.
    pub(super) baseless: &'a BTreeSet<ArchiveName>,
    /// The targets that are trusted.
    pub(super) trusted: &'a BTreeSet<TargetId>,
    /// The archives that no target delivers, which stand where there is no other form of them.
    pub(super) nowhere: &'a Nowhere,
}

/// Counts the voices behind each hash. An incremental archive is elected only together with the
/// full one below it, and only targets that do not contradict that full one have a say in it.
///
/// Where two have as many, it is that of a trusted target, or the one that the cache has, or that
/// of the target that has been known the longest. Who is new does not win by what it says.
///
/// What the cache holds can be elected and has no vote: it is a copy of what a target listed.
pub(super) fn elect(electorate: &Electorate<'_>) -> Elected {
    let mut elected = Elected::default();
    let held = || electorate.held.iter().map(|held| held.name);
    let mut fulls = ballots(electorate, |_, name| name.is_full());
    stand(&mut fulls, held().filter(ArchiveName::is_full));
    for (seat, hashes) in fulls {
        elected.decide(seat, &hashes);
    }
    let bases: BTreeMap<Slot, ArchiveHash> =
        elected.names.iter().map(|name| (name.slot(), name.hash())).collect();
    let mut incrementals = ballots(electorate, |answer, name| {
        !name.is_full()
            && bases
                .get(&name.base_slot())
                .is_some_and(|hash| !answer.contradicts(name.base_slot(), *hash))
    });
    let on_base = |name: &ArchiveName| {
        !name.is_full()
            && bases
                .get(&name.base_slot())
                .is_some_and(|hash| !contradict(held(), name.base_slot(), *hash))
    };
    stand(&mut incrementals, held().filter(on_base));
    for (seat, hashes) in incrementals {
        elected.decide(seat, &hashes);
    }
    elected
}

fn ballots<'a>(
    electorate: &Electorate<'a>,
    counts: impl Fn(&Answer, &ArchiveName) -> bool,
) -> Ballots<'a> {
    let mut ballots = Ballots::new();
    for (target, answer) in electorate.members {
        let trusted = electorate.trusted.contains(*target) || target.is_ledger();
        let stands = |name: &&ArchiveName| !electorate.baseless.contains(*name);
        for name in answer.holdings.keys().filter(stands).filter(|name| counts(answer, name)) {
            let ballot = ballots.entry(seat(name)).or_default().entry(name.hash()).or_default();
            ballot.voices.insert(&answer.voice);
            ballot.trusted |= trusted;
            let elder = (answer.known, *target);
            ballot.elder = Some(ballot.elder.map_or(elder, |other| other.min(elder)));
            let better = |a: ArchiveName, b: ArchiveName| {
                let rank = |name| (!electorate.nowhere.contains_key(&name), name);
                if rank(a) < rank(b) { b } else { a }
            };
            ballot.name = Some(ballot.name.map_or(*name, |known| better(known, *name)));
        }
    }
    ballots
}

/// Puts archives on the ballots without a vote.
fn stand(ballots: &mut Ballots<'_>, names: impl Iterator<Item = ArchiveName>) {
    for name in names {
        let ballot = ballots.entry(seat(&name)).or_default().entry(name.hash()).or_default();
        ballot.cached = true;
        ballot.name = ballot.name.max(Some(name));
    }
}

fn seat(name: &ArchiveName) -> Seat {
    match name.kind() {
        Kind::Full => (None, name.slot()),
        Kind::Incremental { base } => (Some(base), name.slot()),
    }
}

impl Ballot<'_> {
    /// The greatest wins. Where nobody lists either of two, the hash is all that there is.
    fn rank(&self) -> impl Ord + use<'_> {
        let elder = self.elder.map(Reverse);
        (self.voices.len(), self.trusted, self.cached, elder)
    }
}

impl Elected {
    fn decide(&mut self, (base, slot): Seat, hashes: &BTreeMap<ArchiveHash, Ballot<'_>>) {
        let winner = hashes.iter().max_by_key(|(hash, ballot)| (ballot.rank(), **hash));
        let Some((&winner, ballot)) = winner else { return };
        self.names.extend(ballot.name);
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
