//! Which of the archives that are claimed may be there: those at slots that something besides one
//! target's word supports.
//!
//! A slot that a cluster has not reached cannot be told from one that it has by looking at it, and
//! whoever claims the highest one would be what every client is led to. So an archive is wanted
//! and offered only where its slot has support, see [`weigh`].

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::ahead::{Ahead, Bound};
use super::answer::Answer;
use super::grounds::{Grounds, Reference};
use super::listing::{Held, TargetId};
use super::voice::Voice;
use crate::snapshot::{ArchiveName, Slot};

/// More slots in a second than any cluster makes: they make two and a half, and slot times are
/// being reduced.
const SLOTS_PER_SECOND: u64 = 5;
/// After so long, what a target said while there was nobody to contradict it stands against others
/// that are behind: a node that is added to a group may have to catch up first.
const SEASONED: Duration = Duration::from_secs(600);
/// Most rounds in which what has support supports others. A longer chain is looked at again with
/// the next view.
const MAX_ROUNDS: usize = 8;

/// The highest slot of a target that had support, for as long as the target is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peak {
    slot: Slot,
    /// When an archive at that slot was first seen there.
    at: Instant,
    /// Since when the target has had support.
    since: Instant,
    /// True while nobody was ever near: it was believed for want of others.
    alone: bool,
}

impl Peak {
    /// How far the cluster can be by now.
    fn grown(self, now: Instant) -> Slot {
        grown(self.slot, now.saturating_duration_since(self.at))
    }

    fn is_seasoned(self, now: Instant) -> bool {
        self.alone && now.saturating_duration_since(self.since) >= SEASONED
    }
}

fn grown(slot: Slot, elapsed: Duration) -> Slot {
    plus(slot, elapsed.as_secs().saturating_mul(SLOTS_PER_SECOND))
}

fn plus(slot: Slot, slots: u64) -> Slot {
    Slot(slot.0.saturating_add(slots))
}

/// Everything that is said about one group.
pub(super) struct Testimony<'a> {
    /// The targets that have answered, and whether their last answers still count.
    pub(super) answers: Vec<(&'a TargetId, &'a Answer, bool)>,
    /// What the cache holds for the group, and whether the target that it came from is there.
    pub(super) held: Vec<(&'a Held, bool)>,
    /// Whether each of its targets has answered or failed since the start.
    pub(super) settled: bool,
    /// What was believed before.
    pub(super) before: Option<&'a BTreeMap<TargetId, Peak>>,
}

/// What of that has support.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Support {
    /// The archives that have none.
    pub(super) baseless: BTreeSet<ArchiveName>,
    /// The targets that list some of those.
    pub(super) ahead: BTreeMap<TargetId, Ahead>,
    /// What is to be remembered.
    pub(super) peaks: BTreeMap<TargetId, Peak>,
    /// Archives that the cache has of targets that are no longer there.
    pub(super) orphans: BTreeSet<ArchiveName>,
    /// The targets that are trusted more than others of the group.
    pub(super) trusted: BTreeSet<TargetId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    Stranger,
    /// A target that is here, but may hold archives of another cluster.
    Local,
    Trusted,
}

/// One archive that a target lists, or listed when the cache fetched it.
struct Claim<'a> {
    target: &'a TargetId,
    voice: &'a Voice,
    name: ArchiveName,
    since: Instant,
    trust: Trust,
    /// Whether the target says so now.
    is_live: bool,
    /// Whether it says anything about the claims of others.
    counts: bool,
}

/// Somebody who said at some time that the cluster is at this slot, grown since.
#[derive(Clone, Copy)]
struct Point<'a> {
    /// Nobody for the reference node, which is everybody's.
    voice: Option<&'a Voice>,
    slot: Slot,
    grown: Slot,
}

/// Decides what has support. Time is an argument.
///
/// While the reference node answers, it decides: nothing is farther ahead of it than
/// `max_slot_lead`. Otherwise the slot of an archive has support where
///
/// - its target, or the group, is trusted, or it is a local directory;
/// - nobody else has said anything: a group of one target is as good as that;
/// - it is at most `max_slot_lead` ahead of the newest archive of every other voice, or of the
///   newest that had support of the other voices, with [`SLOTS_PER_SECOND`] since that was seen.
///   What the reference node told last counts as one, and so does what the cache holds;
/// - another voice lists an archive within `max_slot_lead` of it;
/// - its target had long been alone ([`SEASONED`]) before somebody came who is behind, and it is
///   not faster than a cluster since then.
///
/// What has support supports others in turn, for a few rounds.
pub(super) fn weigh(grounds: &Grounds, testimony: &Testimony<'_>, now: Instant) -> Support {
    let nothing = BTreeMap::new();
    let mut support = round(grounds, testimony, testimony.before.unwrap_or(&nothing), now);
    for _ in 1..MAX_ROUNDS {
        let next = round(grounds, testimony, &support.peaks, now);
        if next == support {
            break;
        }
        support = next;
    }
    support
}

fn round(
    grounds: &Grounds,
    testimony: &Testimony<'_>,
    before: &BTreeMap<TargetId, Peak>,
    now: Instant,
) -> Support {
    let voices: Vec<Voice> =
        testimony.held.iter().map(|(held, _)| voice_of_held(held, testimony)).collect();
    let claims = claims(grounds, testimony, &voices, now);
    let bench = Bench { grounds, claims: &claims, now };
    let priors = priors(testimony, before);
    match grounds.reference {
        Reference::Current(slot) => {
            let limit = plus(slot, grounds.max_slot_lead);
            let stands =
                |claim: &Claim<'_>| claim.trust == Trust::Trusted || claim.name.slot() <= limit;
            let kept = priors.into_iter().filter(|(_, _, peak)| peak.slot <= limit).collect();
            let judge = |claim: &Claim<'_>| {
                if stands(claim) { Verdict::Shared } else { Verdict::Baseless(limit) }
            };
            bench.decide(kept, judge, Bound::Reference)
        }
        Reference::Unknown | Reference::Last(..) => {
            let known = bench.known(&priors, testimony, &voices);
            let kept: Vec<_> = priors
                .into_iter()
                .filter(|(_, voice, peak)| {
                    peak.is_seasoned(now)
                        || known.supports(voice, peak.slot, Nearness::Counts).is_ok()
                })
                .collect();
            let known = bench.known(&kept, testimony, &voices);
            // Whoever has long been believed, and how far the cluster can be by that.
            let own: BTreeMap<&TargetId, Slot> = kept
                .iter()
                .filter(|(_, _, peak)| peak.is_seasoned(now))
                .map(|(target, _, peak)| (*target, peak.grown(now)))
                .chain(long_held(testimony, now))
                .collect();
            // Who is heard first throws out nothing that was fetched before.
            let first = cached(testimony, now).map(|slot| plus(slot, grounds.max_slot_lead));
            let first = first.filter(|_| !testimony.settled);
            let judge = |claim: &Claim<'_>| {
                let slot = claim.name.slot();
                // What is left of a target that has gone is nobody's word any more.
                let near = if claim.counts { Nearness::Counts } else { Nearness::IsNothing };
                match (known.supports(claim.voice, slot, near), first) {
                    _ if claim.trust != Trust::Stranger => Verdict::Shared,
                    (Ok(Verdict::Alone), Some(limit)) if slot > limit => Verdict::Baseless(limit),
                    (Ok(verdict), _) => verdict,
                    (Err(_), _) if own.get(claim.target).is_some_and(|own| slot <= *own) => {
                        Verdict::Alone
                    }
                    (Err(limit), _) => Verdict::Baseless(limit),
                }
            };
            bench.decide(kept, judge, Bound::Others)
        }
    }
}

/// How a claim fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// There is more than the target's word.
    Shared,
    /// The claim stands for want of others.
    Alone,
    /// The claim would stand up to this slot.
    Baseless(Slot),
}

/// Whether a claim is supported by one near it that has no other support.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nearness {
    Counts,
    IsNothing,
}

type Prior<'a> = (&'a TargetId, &'a Voice, Peak);

/// What is remembered of those that are still there.
fn priors<'a>(testimony: &Testimony<'a>, before: &BTreeMap<TargetId, Peak>) -> Vec<Prior<'a>> {
    let peak = |target: &TargetId| before.get(target).copied();
    let answers = testimony.answers.iter();
    answers
        .filter_map(|(target, answer, _)| Some((*target, &answer.voice, peak(target)?)))
        .collect()
}

fn voice_of_held(held: &Held, testimony: &Testimony<'_>) -> Voice {
    let mut answers = testimony.answers.iter();
    let same = answers.find(|(target, ..)| **target == held.target);
    same.map_or_else(|| Voice::of(&held.target, None), |(_, answer, _)| answer.voice.clone())
}

fn claims<'a>(
    grounds: &Grounds,
    testimony: &Testimony<'a>,
    voices: &'a [Voice],
    now: Instant,
) -> Vec<Claim<'a>> {
    let trust = |target: &TargetId| {
        let trusted = grounds.trusted_groups.contains(&target.group)
            || grounds.trusted_targets.contains(target);
        match (trusted, target.is_ledger()) {
            (true, _) => Trust::Trusted,
            (false, true) => Trust::Local,
            (false, false) => Trust::Stranger,
        }
    };
    let live = testimony.answers.iter().filter(|(_, _, counts)| *counts);
    let live = live.flat_map(|(target, answer, _)| {
        let trust = trust(target);
        answer.holdings.iter().map(move |(name, holding)| Claim {
            target,
            voice: &answer.voice,
            name: *name,
            since: holding.since,
            trust,
            is_live: true,
            counts: true,
        })
    });
    let held = testimony.held.iter().zip(voices).map(|((held, is_there), voice)| Claim {
        target: &held.target,
        voice,
        name: held.name,
        since: held.since.instant.min(now),
        // It is a copy of what a trusted target had.
        trust: trust(&held.target),
        is_live: false,
        counts: *is_there || !testimony.settled,
    });
    live.chain(held).collect()
}

/// Targets of which the cache has had an archive for long, and how far they can be since.
fn long_held<'a>(
    testimony: &'a Testimony<'_>,
    now: Instant,
) -> impl Iterator<Item = (&'a TargetId, Slot)> {
    testimony.held.iter().filter_map(move |(held, is_there)| {
        let age = age(held, now);
        let seasoned = *is_there && age >= SEASONED;
        seasoned.then(|| (&held.target, grown(held.name.slot(), age)))
    })
}

/// How far the cluster can be by the newest archive of the cache.
fn cached(testimony: &Testimony<'_>, now: Instant) -> Option<Slot> {
    let newest = testimony.held.iter().map(|(held, _)| held).max_by_key(|held| held.name.slot());
    newest.map(|held| grown(held.name.slot(), age(held, now)))
}

fn age(held: &Held, now: Instant) -> Duration {
    held.age.saturating_add(now.saturating_duration_since(held.since.instant))
}

/// What is decided upon.
struct Bench<'a> {
    grounds: &'a Grounds,
    claims: &'a [Claim<'a>],
    now: Instant,
}

/// What is known of others, laid out so that each claim costs little.
struct Known<'a> {
    lead: u64,
    /// The highest one, and the highest one of another voice.
    highest: [Option<Point<'a>>; 2],
    /// The voice whose newest claim is the lowest, and the next one.
    lowest: [Option<(&'a Voice, Slot)>; 2],
    claims: &'a [Claim<'a>],
    /// The voices that count, by slot; made when the first claim needs it.
    slots: OnceCell<Vec<(Slot, &'a Voice)>>,
}

impl<'a> Bench<'a> {
    fn known(
        &self,
        priors: &[Prior<'a>],
        testimony: &Testimony<'a>,
        voices: &'a [Voice],
    ) -> Known<'a> {
        let now = self.now;
        let peaks = priors.iter().map(|(_, voice, peak)| Point {
            voice: Some(voice),
            slot: peak.slot,
            grown: peak.grown(now),
        });
        let held = testimony.held.iter().zip(voices).filter_map(|((held, is_there), voice)| {
            let (slot, counts) = (held.name.slot(), *is_there || !testimony.settled);
            let grown = || grown(slot, age(held, now));
            counts.then(|| Point { voice: Some(voice), slot, grown: grown() })
        });
        let last = match self.grounds.reference {
            Reference::Last(slot, at) => {
                let elapsed = now.saturating_duration_since(at);
                Some(Point { voice: None, slot, grown: grown(slot, elapsed) })
            }
            Reference::Unknown | Reference::Current(_) => None,
        };
        let mut highest = [None; 2];
        for point in peaks.chain(held).chain(last) {
            raise(&mut highest, point);
        }
        let mut newest: BTreeMap<&Voice, Slot> = BTreeMap::new();
        for claim in self.claims.iter().filter(|claim| claim.counts) {
            let slot = newest.entry(claim.voice).or_default();
            *slot = claim.name.slot().max(*slot);
        }
        let mut lowest: Vec<(&Voice, Slot)> = newest.into_iter().collect();
        lowest.sort_by_key(|(_, slot)| *slot);
        let mut lowest = lowest.into_iter();
        Known {
            lead: self.grounds.max_slot_lead,
            highest,
            lowest: [lowest.next(), lowest.next()],
            claims: self.claims,
            slots: OnceCell::new(),
        }
    }

    /// Judges every claim, and remembers what stands.
    fn decide(
        &self,
        kept: Vec<Prior<'a>>,
        judge: impl Fn(&Claim<'a>) -> Verdict,
        by: Bound,
    ) -> Support {
        let trusted = self.grounds.trusted_targets.clone();
        let mut support = Support { trusted, ..Support::default() };
        let mut supported = BTreeSet::new();
        let mut found: BTreeMap<&TargetId, Peak> = BTreeMap::new();
        let kept: BTreeMap<&TargetId, Peak> =
            kept.into_iter().map(|(target, _, peak)| (target, peak)).collect();
        for claim in self.claims {
            let verdict = judge(claim);
            if let Verdict::Baseless(limit) = verdict {
                support.baseless.insert(claim.name);
                if !claim.is_live && !claim.counts {
                    support.orphans.insert(claim.name);
                }
                if claim.is_live {
                    let ahead = Ahead { name: claim.name, limit, by };
                    let newest = support.ahead.entry(claim.target.clone()).or_insert(ahead);
                    if claim.name > newest.name {
                        *newest = ahead;
                    }
                }
                continue;
            }
            supported.insert(claim.name);
            if claim.is_live {
                let (slot, at) = (claim.name.slot(), claim.since);
                let peak = Peak { slot, at, since: at, alone: verdict == Verdict::Alone };
                let newest = found.entry(claim.target).or_insert(peak);
                let since = newest.since.min(at);
                let is_newer = (newest.slot, Reverse(newest.at)) < (slot, Reverse(at));
                *newest = Peak { since, ..if is_newer { peak } else { *newest } };
            }
        }
        support.baseless.retain(|name| !supported.contains(name));
        support.orphans.retain(|name| !supported.contains(name));
        support.ahead.retain(|_, ahead| support.baseless.contains(&ahead.name));
        for (target, peak) in &kept {
            let found = found.remove(target);
            let peak = match found {
                None => *peak,
                Some(new) if new.slot > peak.slot => Peak { since: peak.since, ..new },
                Some(new) => Peak { alone: new.alone, ..*peak },
            };
            support.peaks.insert((*target).clone(), peak);
        }
        let found = found.into_iter().map(|(target, peak)| (target.clone(), peak));
        support.peaks.extend(found);
        support
    }
}

/// Keeps the highest point, and the highest one of somebody else.
fn raise<'a>(highest: &mut [Option<Point<'a>>; 2], point: Point<'a>) {
    let rank = |point: &Point<'_>| (point.slot, point.grown);
    let [first, second] = highest;
    match first {
        Some(top) if rank(top) >= rank(&point) => {
            let is_other = top.voice.is_none() || top.voice != point.voice;
            if is_other && second.as_ref().is_none_or(|second| rank(second) < rank(&point)) {
                *second = Some(point);
            }
        }
        Some(top) => {
            if top.voice.is_none() || top.voice != point.voice {
                *second = Some(*top);
            }
            *first = Some(point);
        }
        None => *first = Some(point),
    }
}

impl Known<'_> {
    /// How a voice's claim of this slot fares by what others say; the error is the highest slot
    /// that would stand.
    fn supports(&self, voice: &Voice, slot: Slot, near: Nearness) -> Result<Verdict, Slot> {
        let others = |point: &&Point<'_>| point.voice != Some(voice);
        let peak = self.highest.iter().flatten().find(others).map(|point| point.grown);
        let mut lowest = self.lowest.iter().flatten();
        let lowest = lowest.find(|(other, _)| *other != voice).map(|(_, slot)| *slot);
        let Some(reached) = peak.max(lowest) else { return Ok(Verdict::Alone) };
        let limit = plus(reached, self.lead);
        if slot <= limit || (near == Nearness::Counts && self.is_near_another(voice, slot)) {
            Ok(Verdict::Shared)
        } else {
            Err(limit)
        }
    }

    fn is_near_another(&self, voice: &Voice, slot: Slot) -> bool {
        let slots = self.slots.get_or_init(|| {
            let counted = self.claims.iter().filter(|claim| claim.counts);
            let mut slots: Vec<_> = counted.map(|claim| (claim.name.slot(), claim.voice)).collect();
            slots.sort_unstable();
            slots
        });
        let least = Slot(slot.0.saturating_sub(self.lead));
        let from = slots.partition_point(|(other, _)| *other < least);
        let most = plus(slot, self.lead);
        let mut near = slots[from..].iter().take_while(|(other, _)| *other <= most);
        near.any(|(_, other)| *other != voice)
    }
}
