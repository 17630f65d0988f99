//! Which targets carry what, who waits for them, and whose transfers end for that. Pure: `G` is
//! how one who waits is told.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::claimant::{Claimant, Client, Taker};
use super::eviction::{Ended, Terms, Waiter};
use super::health::Health;
use super::load::{Begun, Load};
use crate::index::TargetId;
use crate::limit::{Queue, Waiting};

/// Most requests that wait for a target. Of more, those are told at once that all are busy whose
/// client has the most.
pub(super) const MAX_WAITING: usize = 1024;
/// Most targets that are remembered; far above what discovery admits.
const MAX_REMEMBERED: usize = 100_000;
/// Least time between two looks at whose transfers end.
const PAUSE: Duration = Duration::from_millis(50);
/// How long one that waits has to be given what was made room for, before more is.
const GIVEN: Duration = Duration::from_secs(1);
/// Most of those who wait, the longest first, for whom room is made at one time.
const MAX_RELIEVED: usize = 64;
/// How long a client is known to be slow, and ends nobody else's transfer.
const SLOW_FOR: Duration = Duration::from_secs(300);
/// Most such clients.
const MAX_SLOW: usize = 4096;

#[derive(Debug)]
pub(super) struct Slots<G> {
    per_target: usize,
    terms: Terms,
    pub(super) members: HashMap<TargetId, Member>,
    pub(super) queue: Queue<Client, Request<G>>,
    /// Clients that took too little of late, and since when.
    slow: HashMap<Client, Instant>,
    relieved: Option<Instant>,
}

#[derive(Debug, Default)]
pub(super) struct Member {
    pub(super) health: Health,
    /// Transfers that it carries.
    pub(super) load: Load,
    /// Transfers that it carries and that have brought something.
    pub(super) delivering: usize,
}

/// A request for a transfer.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// The targets that would do, the best first. Where there are others, targets that rest are
    /// not turned to because these are busy.
    pub(super) targets: Vec<TargetId>,
    pub(super) claimant: Claimant,
    /// Until when the request waits.
    pub(super) until: Instant,
}

/// A request that waits for any of its targets.
#[derive(Debug)]
pub(super) struct Request<G> {
    pub(super) wanted: Wanted,
    pub(super) grant: G,
    since: Instant,
    /// When room was made for it.
    relieved: Option<Instant>,
}

/// A transfer that was counted for a request: the place of its target, and what is known of it.
pub(super) type Granted = (usize, Begun);

/// A transfer that is to end.
#[derive(Debug)]
pub(super) struct Dismissed {
    pub(super) target: TargetId,
    pub(super) client: Client,
    pub(super) why: Ended,
    pub(super) taker: Arc<dyn Taker>,
}

impl<G> Request<G> {
    pub(super) fn new(wanted: Wanted, grant: G, now: Instant) -> Self {
        Self { wanted, grant, since: now, relieved: None }
    }
}

impl<G> Slots<G> {
    pub(super) fn new(per_target: usize, terms: Terms) -> Self {
        Self {
            per_target,
            terms,
            members: HashMap::new(),
            queue: Queue::new(MAX_WAITING),
            slow: HashMap::new(),
            relieved: None,
        }
    }

    /// Goes on under other bounds.
    pub(super) fn set(&mut self, per_target: usize, terms: Terms) {
        (self.per_target, self.terms) = (per_target, terms);
    }

    /// How long requests wait.
    pub(super) fn patience(&self) -> Duration {
        self.terms.patience
    }

    /// The targets that are waited for, each once.
    pub(super) fn wanted(&self) -> Vec<TargetId> {
        let wanted = self.queue.iter().flat_map(|waiting| &waiting.item.wanted.targets);
        wanted.collect::<HashSet<_>>().into_iter().cloned().collect()
    }

    /// Counts a transfer for the first of the wanted targets that may carry one more.
    pub(super) fn take(&mut self, wanted: &Wanted, now: Instant) -> Option<Granted> {
        let is_last_resort = self.all_rest(wanted, now);
        let at = wanted.targets.iter().position(|target| {
            self.may_carry_more(target, now) && (is_last_resort || !self.rests(target, now))
        })?;
        // Where nothing more can be remembered nothing is counted, and nothing allowed.
        let member = self.member(wanted.targets.get(at)?, now)?;
        Some((at, member.load.begin(&wanted.claimant, now)))
    }

    /// Counts transfers for those who wait for this target, and lets them go.
    pub(super) fn serve(&mut self, target: &TargetId, now: Instant) -> Vec<(Granted, Request<G>)> {
        let mut granted = Vec::new();
        while let Some((place, at)) = self.next(target, now) {
            let (Some(Waiting { item, .. }), Some(member)) =
                (self.queue.remove(place), self.members.get_mut(target))
            else {
                break;
            };
            let begun = member.load.begin(&item.wanted.claimant, now);
            granted.push(((at, begun), item));
        }
        granted
    }

    /// Who is served next by this target, where it may carry one more: the place in the queue, and
    /// that of the target among those that are wanted there. What is for everyone comes first, and
    /// then the client that has the least of this target, before those that were too slow of late;
    /// of these, who has waited the longest.
    fn next(&self, target: &TargetId, now: Instant) -> Option<(usize, usize)> {
        if self.queue.is_empty() || !self.may_carry_more(target, now) {
            return None;
        }
        let is_last_resort = self.rests(target, now);
        let has = |client: Client| match client {
            Client::Everyone => (0, 0),
            Client::One(_) => {
                let own = self.members.get(target).map_or(0, |member| member.load.of(client));
                (1 + u8::from(self.is_slow(client, now)), own)
            }
        };
        let waiting = self.queue.iter().enumerate().filter_map(|(place, waiting)| {
            let wanted = &waiting.item.wanted;
            let at = wanted.targets.iter().position(|wanted| wanted == target)?;
            let would_do = !is_last_resort || self.all_rest(wanted, now);
            would_do.then(|| (has(waiting.owner), place, at))
        });
        waiting.min().map(|(_, place, at)| (place, at))
    }

    /// Transfers that end for those who wait.
    pub(super) fn relieve(&mut self, now: Instant) -> Vec<Dismissed> {
        let lately = |at: Instant, pause| now.saturating_duration_since(at) < pause;
        if self.queue.is_empty() || self.relieved.is_some_and(|at| lately(at, PAUSE)) {
            return Vec::new();
        }
        self.relieved = Some(now);
        let may_be = |waiting: &&mut Waiting<Client, Request<G>>| {
            !waiting.item.relieved.is_some_and(|at| lately(at, GIVEN))
        };
        // Without the queue, which the rest of the slots are read for.
        let mut queue = std::mem::replace(&mut self.queue, Queue::new(0));
        let wants: Vec<_> =
            queue.iter().map(|w| (w.owner, w.item.wanted.targets.clone())).collect();
        let mut dismissed = Vec::new();
        for waiting in queue.iter_mut().filter(may_be).take(MAX_RELIEVED) {
            let waited = now.saturating_duration_since(waiting.item.since);
            let victim = self.make_room(&waiting.item.wanted, waited, &wants, now);
            if victim.is_some() {
                waiting.item.relieved = Some(now);
            }
            dismissed.extend(victim);
        }
        self.queue = queue;
        dismissed
    }

    /// A transfer that ends for a request that does not wait, so that the next one is served.
    pub(super) fn relieve_next(&mut self, wanted: &Wanted, now: Instant) -> Option<Dismissed> {
        let wants = [(wanted.claimant.client, wanted.targets.clone())];
        self.make_room(wanted, self.terms.patience, &wants, now)
    }

    /// Whose transfer ends for a request, where somebody's does: of all its targets, and the
    /// slow ones before those of whoever has more than its share. `wants` is who waits for what.
    fn make_room(
        &mut self,
        wanted: &Wanted,
        time: Duration,
        wants: &[(Client, Vec<TargetId>)],
        now: Instant,
    ) -> Option<Dismissed> {
        let client = wanted.claimant.client;
        if self.is_slow(client, now) {
            return None;
        }
        let is_last_resort = self.all_rest(wanted, now);
        let mut found: Option<(&TargetId, u64, Ended)> = None;
        for target in &wanted.targets {
            let Some(member) = self.members.get(target) else { continue };
            if self.rests(target, now) && !is_last_resort {
                continue;
            }
            let waiting = wants.iter().filter(|(_, targets)| targets.contains(target));
            let clients: HashSet<Client> =
                member.load.clients().chain(waiting.map(|(client, _)| *client)).collect();
            let most = member.health.allowance(self.per_target, now);
            let share = (most / clients.len().max(1)).max(1);
            let waiter = Waiter { client, waited: time, share, own: member.load.of(client) };
            let carried = member.load.carried(|client| self.is_slow(client, now), now);
            match self.terms.victim(&waiter, carried.iter().copied()) {
                Some((number, Ended::Slow)) => {
                    found = Some((target, number, Ended::Slow));
                    break;
                }
                Some((number, Ended::Share)) if found.is_none() => {
                    found = Some((target, number, Ended::Share));
                }
                _ => {}
            }
        }
        let (target, number, why) = found?;
        let (client, taker) = self.members.get_mut(target)?.load.dismiss(number)?;
        if why == Ended::Slow {
            self.note_slow(client, now);
        }
        Some(Dismissed { target: target.clone(), client, why, taker })
    }

    fn note_slow(&mut self, client: Client, now: Instant) {
        if self.slow.len() >= MAX_SLOW {
            self.slow.retain(|_, since| now.saturating_duration_since(*since) < SLOW_FOR);
        }
        if self.slow.len() < MAX_SLOW {
            self.slow.insert(client, now);
        }
    }

    fn is_slow(&self, client: Client, now: Instant) -> bool {
        let since = self.slow.get(&client);
        since.is_some_and(|since| now.saturating_duration_since(*since) < SLOW_FOR)
    }

    fn may_carry_more(&self, target: &TargetId, now: Instant) -> bool {
        let member = self.members.get(target);
        member.is_none_or(|Member { health, load, .. }| {
            load.all() < health.allowance(self.per_target, now)
        })
    }

    fn rests(&self, target: &TargetId, now: Instant) -> bool {
        self.members.get(target).is_some_and(|member| member.health.is_resting(now))
    }

    fn all_rest(&self, wanted: &Wanted, now: Instant) -> bool {
        wanted.targets.iter().all(|target| self.rests(target, now))
    }

    /// What is known of a target, kept from now on; nothing where that would be too many.
    pub(super) fn member(&mut self, target: &TargetId, now: Instant) -> Option<&mut Member> {
        if self.members.len() >= MAX_REMEMBERED && !self.members.contains_key(target) {
            self.members.retain(|_, member| member.load.all() > 0 || member.health.is_resting(now));
            if self.members.len() >= MAX_REMEMBERED {
                return None;
            }
        }
        Some(self.members.entry(target.clone()).or_default())
    }
}
