//! What every target said last.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::distrust::{Distrusted, Tag};
use super::grounds::Grounds;
use super::support::{Support, Testimony, weigh};
use super::view::{GroupView, View};
use super::voice::Voice;
use crate::clock::Now;
use crate::hops::{EdgeId, Via};
use crate::snapshot::ArchiveName;

/// One upstream in one group.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId {
    /// Name of the group.
    pub group: Arc<str>,
    /// `host:port` as configured or discovered, or the absolute path of a ledger: no host begins
    /// with a slash. It is for the log and for hashes, and shown to no client where it is a path.
    pub authority: Arc<str>,
}

impl TargetId {
    /// The local directory of archives at this absolute path.
    pub fn ledger(group: Arc<str>, path: &str) -> Self {
        debug_assert!(path.starts_with('/'), "{path} is not absolute");
        Self { group, authority: path.into() }
    }

    /// True for a local directory, from which nothing can be asked over the network.
    pub fn is_ledger(&self) -> bool {
        self.authority.starts_with('/')
    }
}

impl fmt::Debug for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in `{}`", self.authority, self.group)
    }
}

/// Where the bytes of a source are: what to connect to and what to ask there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Scheme of its URL.
    pub scheme: &'static str,
    /// The address that the probe spoke to, so that a download meets the same machine.
    pub address: SocketAddr,
    /// `host:port` for the `host` header.
    pub authority: Arc<str>,
    /// Absolute path of the archive there.
    pub path: String,
    /// Which access leads there: the place of an entry among those of the configuration.
    pub access: usize,
    /// The edges that it comes through from there.
    pub via: Via,
}

impl Location {
    /// The absolute URL.
    pub fn url(&self) -> String {
        format!("{}://{}{}", self.scheme, self.authority, self.path)
    }
}

/// One archive as one target lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: ArchiveName,
    /// Bytes, where the target tells.
    pub size: Option<u64>,
    /// Time of the last change, where the target tells.
    pub modified: Option<SystemTime>,
    /// What the target calls this copy, where it was asked for it and tells.
    pub tag: Option<Tag>,
    /// Where to ask for it; nowhere where only the cache or a ledger has it.
    pub location: Option<Location>,
}

/// An archive that the cache holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its name.
    pub name: ArchiveName,
    /// The target that it is a copy of, which need not be there any more.
    pub target: TargetId,
    /// Bytes.
    pub size: u64,
    /// Time of the last change, where the target told.
    pub modified: Option<SystemTime>,
    /// Since when this process has it.
    pub since: Now,
    /// How long it was complete before that.
    pub age: Duration,
}

/// Something that was learned about a target.
#[derive(Clone, Debug)]
pub enum Event {
    /// The target is there, and will be probed.
    Expected {
        /// Which target.
        target: TargetId,
    },
    /// A probe was answered; `archives` is everything that the target has.
    Answered {
        /// Which target.
        target: TargetId,
        /// When the probe began: what it saw may be that old.
        at: Now,
        /// The archives, each name once.
        archives: Vec<Listed>,
    },
    /// A probe failed.
    Failed {
        /// Which target.
        target: TargetId,
        /// When the probe began.
        at: Now,
    },
    /// The target is this edge, of those whose answers are all that they have, or none of them any
    /// more.
    Identified {
        /// Which target.
        target: TargetId,
        /// Which edge.
        edge: Option<EdgeId>,
    },
    /// The target is no longer configured or discovered.
    Removed {
        /// Which target.
        target: TargetId,
    },
    /// The target says that it no longer has this archive.
    Gone {
        /// Which target.
        target: TargetId,
        /// Which archive.
        name: ArchiveName,
        /// When it said so: a probe that began before may still have seen the archive.
        at: Instant,
    },
    /// The target has this archive, which it did not list yet.
    Found {
        /// Which target.
        target: TargetId,
        /// When it said so: a probe that began before may not have seen the archive yet.
        at: Instant,
        /// The archive.
        archive: Listed,
    },
}

/// The rules' settings.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Failed probes in a row after which a target's archives no longer count.
    pub probe_failures: u32,
    /// How long an old pair is preferred to a newer full archive without incrementals.
    pub pair_hold: Duration,
    /// When short names lead to a generation that is new.
    pub publish: Publish,
}

/// When short names lead to a generation that is new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Publish {
    /// As soon as targets list it.
    #[default]
    Seen,
    /// When the cache holds all of it for the group. Somebody must fetch it then: clients come for
    /// what they are led to.
    Promoted,
}

/// An archive on a target, and since when it is known there.
#[derive(Clone, Debug)]
pub(super) struct Holding {
    pub(super) listed: Listed,
    pub(super) since: Instant,
    /// When the target said so last.
    seen: Instant,
}

/// The last answer of one target.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) at: Now,
    pub(super) failures: u32,
    pub(super) holdings: BTreeMap<ArchiveName, Holding>,
    /// Whose word it is.
    pub(super) voice: Voice,
    /// When it answered for the first time; the same for all of a group that did before the last of
    /// them had answered or failed, since it is chance who comes first.
    pub(super) known: Instant,
    /// Archives that are gone since then, for probes that are still under way.
    gone: BTreeMap<ArchiveName, Instant>,
}

/// Everything that the targets said last, and what the cache holds. Feed it with
/// [`Catalog::apply`] and [`Catalog::hold`].
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    pub(super) targets: BTreeMap<TargetId, Answer>,
    /// The targets that are probed, and whether they have answered or failed by now.
    expected: BTreeMap<TargetId, bool>,
    /// The groups of which all have, once: those that come later are no founders.
    founded: BTreeSet<Arc<str>>,
    grounds: Grounds,
    /// Those of them that are edges and list all that they have.
    pub(super) edges: BTreeMap<TargetId, EdgeId>,
    held: Vec<Kept>,
    distrusted: Vec<Distrusted>,
}

/// An archive that the cache holds, and when a target of its group listed it last, or it was taken
/// in.
#[derive(Clone, Debug)]
struct Kept {
    held: Held,
    listed: Instant,
}

impl Catalog {
    /// Takes one event in.
    ///
    /// What a probe saw counts from the time when it began, so a late report of an older probe
    /// changes nothing.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Expected { target } => {
                self.expected.entry(target).or_insert(false);
            }
            Event::Answered { target, at, archives } => self.answered(target, at, archives),
            Event::Failed { target, at } => {
                self.heard(&target);
                if let Some(answer) = self.targets.get_mut(&target)
                    && answer.at.instant < at.instant
                {
                    answer.failures = answer.failures.saturating_add(1);
                }
            }
            Event::Identified { target, edge: Some(edge) } => {
                self.edges.insert(target, edge);
            }
            Event::Identified { target, edge: None } => {
                self.edges.remove(&target);
            }
            Event::Removed { target } => {
                self.targets.remove(&target);
                self.expected.remove(&target);
                self.edges.remove(&target);
            }
            Event::Gone { target, name, at } => {
                // Only what is listed can go, which also bounds what is remembered.
                if let Some(answer) = self.targets.get_mut(&target)
                    && answer.holdings.remove(&name).is_some()
                {
                    answer.gone.insert(name, at);
                }
            }
            Event::Found { target, at, archive } => self.found(&target, at, archive),
        }
    }

    /// Takes in what may be relied on besides what targets claim, in place of what that was before.
    pub fn rely_on(&mut self, grounds: Grounds) {
        self.grounds = grounds;
    }

    /// Takes in what the cache holds now: all of it, in place of what it held before.
    pub fn hold(&mut self, held: &[Held]) {
        let before = std::mem::take(&mut self.held);
        let listed = |held: &Held| {
            let same = before.iter().find(|kept| kept.held == *held);
            same.map_or(held.since.instant, |kept| kept.listed)
        };
        let kept = |held: &Held| Kept { listed: listed(held), held: held.clone() };
        self.held = held.iter().map(kept).collect();
    }

    /// Takes in what is not to be believed: all of it, in place of what it was before.
    pub fn distrust(&mut self, distrusted: &[Distrusted], now: Instant) {
        self.distrusted = distrusted.to_vec();
        self.distrusted.retain(|distrusted| now < distrusted.until);
        for found in &self.distrusted {
            if let Some(answer) = self.targets.get_mut(&found.target)
                && let Some(holding) = answer.holdings.get(&found.name)
                && found.covers(&found.target, &holding.listed, now)
            {
                answer.holdings.remove(&found.name);
            }
        }
    }

    fn is_distrusted(&self, target: &TargetId, listed: &Listed, at: Instant) -> bool {
        self.distrusted.iter().any(|distrusted| distrusted.covers(target, listed, at))
    }

    fn answered(&mut self, target: TargetId, at: Now, archives: Vec<Listed>) {
        if self.targets.get(&target).is_some_and(|answer| answer.at.instant > at.instant) {
            return;
        }
        let settled = self.is_settled(&target.group);
        self.heard(&target);
        let known = self.targets.remove(&target).unwrap_or_else(|| {
            let founders = self.targets.iter().filter(|(id, _)| id.group == target.group);
            let first = founders.map(|(_, answer)| answer.known).min();
            let known = first.filter(|_| !settled).unwrap_or(at.instant);
            Answer::new(&target, at, known)
        });
        let Answer { holdings: before, mut gone, known, voice, .. } = known;
        let met = archives.iter().find_map(|listed| Some(listed.location.as_ref()?.address.ip()));
        let voice = met.map_or(voice, |address: IpAddr| Voice::of(&target, Some(address)));
        gone.retain(|_, since| *since > at.instant);
        let since =
            |name: &ArchiveName| before.get(name).map_or(at.instant, |holding| holding.since);
        let mut holdings: BTreeMap<ArchiveName, Holding> = archives
            .into_iter()
            .filter(|listed| !gone.contains_key(&listed.name))
            .filter(|listed| !self.is_distrusted(&target, listed, at.instant))
            .map(|listed| {
                let since = since(&listed.name);
                (listed.name, Holding { since, listed, seen: at.instant })
            })
            .collect();
        // What was found while this probe was under way, which may have been too early for it.
        for (name, holding) in before.into_iter().filter(|(_, holding)| holding.seen > at.instant) {
            holdings.entry(name).or_insert(holding);
        }
        let answer = Answer { at, failures: 0, holdings, voice, known, gone };
        for kept in &mut self.held {
            let lists = answer.holdings.get(&kept.held.name).is_some_and(Holding::is_backed);
            if lists && kept.held.target.group == target.group {
                kept.listed = kept.listed.max(at.instant);
            }
        }
        self.targets.insert(target, answer);
    }

    fn heard(&mut self, target: &TargetId) {
        if let Some(heard) = self.expected.get_mut(target) {
            *heard = true;
            if self.is_settled(&target.group) {
                self.founded.insert(Arc::clone(&target.group));
            }
        }
    }

    /// Whether every target that the group began with has answered or failed.
    fn is_settled(&self, group: &str) -> bool {
        let is_awaited = |(target, heard): (&TargetId, &bool)| *target.group == *group && !heard;
        self.founded.contains(group) || !self.expected.iter().any(is_awaited)
    }

    /// Only a target that has answered can have more than it listed: one that was removed meanwhile
    /// must not come back, and a probe that began later knows better.
    fn found(&mut self, target: &TargetId, at: Instant, archive: Listed) {
        let name = archive.name;
        if self.is_distrusted(target, &archive, at) {
            return;
        }
        let Some(answer) = self.targets.get_mut(target) else { return };
        let gone_since = answer.gone.get(&name).is_some_and(|gone| *gone > at);
        if answer.at.instant > at || gone_since {
            return;
        }
        answer.gone.remove(&name);
        let found = Holding { listed: archive, since: at, seen: at };
        let holding = answer.holdings.entry(name).or_insert(found);
        holding.seen = holding.seen.max(at);
        for kept in &mut self.held {
            if kept.held.name == name && kept.held.target.group == target.group {
                kept.listed = kept.listed.max(at);
            }
        }
    }

    /// What the cache holds for a group, as far as it counts: what the group's targets list, from
    /// whichever group it was fetched, and what was fetched from this group. That is offered, while
    /// the group's targets list something and not this, for as long as an old pair is. Otherwise an
    /// archive at a slot that no target will ever reach, of a fork or of another cluster, would
    /// stay the best.
    fn held_for(
        &self,
        group: &str,
        members: &[(&TargetId, &Answer)],
        support: &Support,
        policy: Policy,
        now: Instant,
    ) -> Vec<&Held> {
        // Groups that are regions of one cluster list the same archives, of which there is one.
        let lists: BTreeSet<ArchiveName> = members
            .iter()
            .flat_map(|(_, answer)| answer.backed().copied())
            .filter(|name| !support.baseless.contains(name))
            .collect();
        let silent = !lists.iter().any(ArchiveName::is_full);
        let counts = |kept: &&Kept| {
            let its_own = *kept.held.target.group == *group;
            let in_time = silent || now < kept.listed + policy.pair_hold;
            let listed_or_kept = lists.contains(&kept.held.name) || (its_own && in_time);
            listed_or_kept && !support.baseless.contains(&kept.held.name)
        };
        self.held.iter().filter(counts).map(|kept| &kept.held).collect()
    }

    /// What of that which is said about a group has support, given what was believed before, and
    /// what the cache holds without any, of targets that are no longer there.
    fn support(
        &self,
        group: &str,
        before: Option<&GroupView>,
        policy: Policy,
        now: Instant,
    ) -> Support {
        let settled = self.is_settled(group);
        let answers = self.targets.iter().filter(|(id, _)| *id.group == *group);
        let held = self.held.iter().filter(|kept| *kept.held.target.group == *group);
        let is_there =
            |id: &TargetId| self.targets.contains_key(id) || self.expected.contains_key(id);
        let testimony = Testimony {
            answers: answers.map(|(id, answer)| (id, answer, answer.counts(policy))).collect(),
            held: held.map(|kept| (&kept.held, is_there(&kept.held.target))).collect(),
            settled,
            before: before.map(GroupView::peaks),
        };
        weigh(&self.grounds, &testimony, now)
    }

    /// What can be served and what is best, given what was offered before.
    ///
    /// `previous` is what keeps slots from going back and old pairs in place; the groups are those
    /// of the configuration, so that a group whose targets are all silent is still a known name.
    pub fn view(&self, previous: &View, groups: &[Arc<str>], policy: Policy, now: Instant) -> View {
        match self.without_hearsay() {
            Some(catalog) => catalog.view_of_all(previous, groups, policy, now),
            None => self.view_of_all(previous, groups, policy, now),
        }
    }

    fn view_of_all(
        &self,
        previous: &View,
        groups: &[Arc<str>],
        policy: Policy,
        now: Instant,
    ) -> View {
        let counted = || self.targets.iter().filter(|(_, answer)| answer.counts(policy));
        let ledgers = counted().filter(|(id, _)| id.is_ledger());
        let local: BTreeSet<ArchiveName> =
            ledgers.flat_map(|(_, answer)| answer.holdings.keys().copied()).collect();
        let by_group = |group: &Arc<str>| {
            let members: Vec<_> = counted().filter(|(id, _)| id.group == *group).collect();
            let before = previous.group(group);
            let support = self.support(group, before, policy, now);
            let held = self.held_for(group, &members, &support, policy, now);
            let view = GroupView::new(&members, &held, &local, support, before, policy, now);
            (Arc::clone(group), view)
        };
        let groups = groups.iter().map(by_group).collect();
        let held = self.held.iter().map(|kept| &kept.held);
        View::new(previous, groups, counted(), held)
    }
}

impl Answer {
    fn new(target: &TargetId, at: Now, known: Instant) -> Self {
        let (holdings, gone) = (BTreeMap::new(), BTreeMap::new());
        Self { at, failures: 0, holdings, voice: Voice::of(target, None), known, gone }
    }

    fn counts(&self, policy: Policy) -> bool {
        self.failures < policy.probe_failures
    }
}
