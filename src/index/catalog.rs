//! What every target said last, and what the cache holds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::answer::{Answer, Holding};
use super::distrust::Distrusted;
use super::grounds::Grounds;
use super::listing::{Held, Listed, TargetId};
use super::policy::Policy;
use super::support::{Support, Testimony, weigh};
use super::undelivered::{Nowhere, Undelivered};
use super::view::{GroupView, Having, View};
use super::voice::Voice;
use crate::clock::Now;
use crate::hops::EdgeId;
use crate::snapshot::ArchiveName;

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
    /// Whether each source of targets of a group has said which there are, or has failed to.
    Surveyed {
        /// Which group.
        group: Arc<str>,
        /// False where some are asked for the first time.
        all: bool,
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

/// Everything that the targets said last, and what the cache holds. Feed it with
/// [`Catalog::apply`] and [`Catalog::hold`].
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    pub(super) targets: BTreeMap<TargetId, Answer>,
    /// The targets that are probed, and whether they have answered or failed by now.
    expected: BTreeMap<TargetId, bool>,
    /// The groups of which all have, once: those that come later are no founders.
    founded: BTreeSet<Arc<str>>,
    /// The groups whose targets were all found, as far as anybody says which there are.
    surveyed: BTreeSet<Arc<str>>,
    grounds: Grounds,
    /// The targets that are edges and list all that they have.
    pub(super) edges: BTreeMap<TargetId, EdgeId>,
    held: Vec<Kept>,
    distrusted: Vec<Distrusted>,
    /// Sources that were tried and did not deliver.
    undelivered: Vec<Undelivered>,
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
            Event::Surveyed { group, all: true } => {
                self.surveyed.insert(group);
            }
            Event::Surveyed { group, all: false } => {
                self.surveyed.remove(&group);
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

    /// Forgets all groups but these.
    pub fn keep_groups(&mut self, groups: &[Arc<str>]) {
        self.targets.retain(|target, _| groups.contains(&target.group));
        self.expected.retain(|target, _| groups.contains(&target.group));
        self.edges.retain(|target, _| groups.contains(&target.group));
        self.founded.retain(|group| groups.contains(group));
        self.surveyed.retain(|group| groups.contains(group));
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

    /// Takes in which sources failed to deliver: all of them, in place of what it was before.
    pub fn miss(&mut self, undelivered: &[Undelivered]) {
        self.undelivered = undelivered.to_vec();
    }

    /// The archives whose every source failed, and that the cache does not have.
    pub(super) fn nowhere(&self, policy: Policy) -> Nowhere {
        let mut nowhere = Nowhere::new();
        for found in &self.undelivered {
            nowhere.entry(found.listed.name).or_default().push(found.clone());
        }
        nowhere.retain(|name, failed| {
            let all = self.targets.iter().filter(|(_, answer)| answer.counts(policy));
            let mut sources = all
                .filter_map(|(id, answer)| Some((id, &answer.holdings.get(name)?.listed)))
                .peekable();
            sources.peek().is_some()
                && !self.is_held(name)
                && sources.all(|(id, listed)| failed.iter().any(|found| found.covers(id, listed)))
        });
        nowhere
    }

    /// Whether the cache holds an archive, of whichever group.
    pub(super) fn is_held(&self, name: &ArchiveName) -> bool {
        self.held.iter().any(|kept| kept.held.name == *name)
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
        self.founded.contains(group) || !self.awaits(group)
    }

    /// Whether all targets of a group were found and heard, or failed.
    fn is_surveyed(&self, group: &str) -> bool {
        self.surveyed.contains(group) && !self.awaits(group)
    }

    /// Whether a target of a group was not heard yet, and did not fail.
    fn awaits(&self, group: &str) -> bool {
        self.expected.iter().any(|(target, heard)| *target.group == *group && !heard)
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
        let nowhere = self.nowhere(policy);
        let having = Having { local: &local, nowhere: &nowhere };
        let by_group = |group: &Arc<str>| {
            let members: Vec<_> = counted().filter(|(id, _)| id.group == *group).collect();
            let before = previous.group(group);
            let support = self.support(group, before, policy, now);
            let held = self.held_for(group, &members, &support, policy, now);
            let view = GroupView::new(&members, &held, having, support, before, policy, now);
            (Arc::clone(group), view.surveyed(self.is_surveyed(group)))
        };
        let groups = groups.iter().map(by_group).collect();
        let held = self.held.iter().map(|kept| &kept.held);
        View::new(previous, groups, counted(), held, nowhere)
    }
}
