//! What each target carries: as many transfers at once as it may, and those who wait for one.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::meter::{Meter, Sample};
use crate::index::TargetId;
use crate::route::{Busy, ClientNet, Merit};
use crate::tally::Tally;
use crate::target::Conduct;

/// Most requests that wait for a target. More are told at once that all are busy.
const MAX_WAITING: usize = 1024;
/// Longest time between two looks of one that waits at who may carry more by now.
const LOOK: Duration = Duration::from_secs(1);
/// Most targets that are remembered; far above what discovery admits.
const MAX_REMEMBERED: usize = 100_000;
/// Bytes of a transfer, again and again, after which a target that came back is given more of them.
const PROGRESS: u64 = 16 << 20;

/// The targets, as far as anything was asked of them.
#[derive(Debug)]
pub(super) struct Fleet {
    books: Mutex<Books>,
}

/// Pure, but for the ends of channels that it keeps for others.
#[derive(Debug, Default)]
struct Books {
    per_target: usize,
    members: HashMap<TargetId, Member>,
    /// Those who wait, the longest first.
    queue: VecDeque<Waiting>,
    next: u64,
}

#[derive(Debug, Default)]
struct Member {
    conduct: Conduct,
    /// Transfers that it carries.
    running: Tally<Client>,
    /// Those of them that have brought something.
    delivering: usize,
}

/// For whom a transfer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// For everyone, by way of the cache: one of these may save many of the others.
    Everyone,
    /// For one client.
    One(ClientNet),
}

/// A request for a transfer.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// The targets that would do, the best first. Where there are others, targets that rest are
    /// not turned to because these are busy.
    pub(super) targets: Vec<TargetId>,
    pub(super) client: Client,
    /// Until when it waits.
    pub(super) until: Instant,
}

/// A request that waits for any of its targets.
#[derive(Debug)]
struct Waiting {
    number: u64,
    wanted: Wanted,
    grant: oneshot::Sender<(usize, Slot)>,
}

/// The right to one transfer from a target, which measures it. Dropping it gives it to who waits.
#[derive(Debug)]
pub struct Slot {
    fleet: Arc<Fleet>,
    target: TargetId,
    client: Client,
    meter: Meter,
    carried: u64,
}

impl Fleet {
    pub(super) fn new(per_target: usize) -> Arc<Self> {
        let books = Books { per_target, ..Books::default() };
        Arc::new(Self { books: Mutex::new(books) })
    }

    /// The right to a transfer from the first of these targets that may carry one more, and which
    /// one that is. Waits where there is none, behind those who came before.
    pub(super) async fn slot(self: &Arc<Self>, wanted: Wanted) -> Result<(usize, Slot), Busy> {
        let Wanted { targets, client, until } = wanted.clone();
        // Who waits for what has come back meanwhile is first.
        self.serve_all(&targets);
        let (place, mut granted) = {
            let (mut books, now) = (self.books(), Instant::now());
            if let Some(at) = books.take(&wanted, now) {
                let target = targets.get(at).cloned().ok_or(Busy::Targets)?;
                return Ok((at, self.slot_of(target, client)));
            }
            let is_full = books.queue.len() >= MAX_WAITING && client != Client::Everyone;
            if is_full || until <= now {
                return Err(Busy::Targets);
            }
            let (grant, granted) = oneshot::channel();
            books.next += 1;
            let number = books.next;
            books.queue.push_back(Waiting { number, wanted, grant });
            (Place { fleet: self, number }, granted)
        };
        let granted = loop {
            // A target may begin to rest at any time, and nobody tells when that is over.
            let look = self.rests_until(&targets).unwrap_or(until);
            let at = look.min(Instant::now() + LOOK).min(until);
            match tokio::time::timeout_at(at.into(), &mut granted).await {
                Ok(granted) => break granted.map_err(|_| Busy::Targets),
                Err(_) if at == until => break Err(Busy::Targets),
                Err(_) => self.serve_all(&targets),
            }
        };
        // What was granted in the moment in which the time was over is dropped with the channel.
        drop(place);
        granted
    }

    /// How a target does, for those who choose.
    pub(super) fn merit(&self, target: &TargetId, now: Instant) -> Merit {
        let books = self.books();
        let Some(member) = books.members.get(target) else { return Merit::default() };
        Merit {
            resting: member.conduct.is_resting(now),
            load: member.running.all(),
            cost: member.conduct.cost(now),
        }
    }

    /// Notes what happened to a target, which may be allowed more by that.
    pub(super) fn note(self: &Arc<Self>, target: &TargetId, change: impl FnOnce(&mut Conduct)) {
        let now = Instant::now();
        if let Some(member) = self.books().member(target, now) {
            change(&mut member.conduct);
        }
        self.serve(target);
    }

    /// Notes that a transfer failed by the target's fault, and whether that tells of how much it
    /// can carry: what is well under way does as well.
    pub(super) fn failed(&self, target: &TargetId, is_weak: bool, now: Instant) {
        if let Some(member) = self.books().member(target, now) {
            member.conduct.failed(now);
            if is_weak {
                member.conduct.weakened(member.delivering);
            }
        }
    }

    /// When the first of these targets that rest comes back.
    fn rests_until(&self, targets: &[TargetId]) -> Option<Instant> {
        let (books, now) = (self.books(), Instant::now());
        let until = |target| books.members.get(target)?.conduct.rests_until(now);
        targets.iter().filter_map(until).min()
    }

    fn serve_all(self: &Arc<Self>, targets: &[TargetId]) {
        for target in targets {
            self.serve(target);
        }
    }

    /// Hands out what a target may carry by now to those who wait for it. Whoever is gone
    /// meanwhile drops it, which hands it out anew; so the lock must be free then.
    fn serve(self: &Arc<Self>, target: &TargetId) {
        let granted = self.books().serve(target, Instant::now());
        for (at, Waiting { wanted, grant, .. }) in granted {
            drop(grant.send((at, self.slot_of(target.clone(), wanted.client))));
        }
    }

    /// What was counted before.
    fn slot_of(self: &Arc<Self>, target: TargetId, client: Client) -> Slot {
        let fleet = Arc::clone(self);
        Slot { fleet, target, client, meter: Meter::default(), carried: 0 }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // No change of the books can panic half-way.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    /// Counts a transfer for the first of the wanted targets that may carry one more.
    fn take(&mut self, wanted: &Wanted, now: Instant) -> Option<usize> {
        let is_last_resort = self.all_rest(wanted, now);
        let at = wanted.targets.iter().position(|target| {
            self.may_carry_more(target, now) && (is_last_resort || !self.rests(target, now))
        })?;
        // Where nothing more can be remembered nothing is counted, and nothing allowed.
        self.member(wanted.targets.get(at)?, now)?.running.begin(wanted.client);
        Some(at)
    }

    /// Counts transfers for those who wait for this target, and lets them go.
    fn serve(&mut self, target: &TargetId, now: Instant) -> Vec<(usize, Waiting)> {
        let mut granted = Vec::new();
        while let Some((place, at)) = self.next(target, now) {
            let (Some(waiting), Some(member)) =
                (self.queue.remove(place), self.members.get_mut(target))
            else {
                break;
            };
            member.running.begin(waiting.wanted.client);
            granted.push((at, waiting));
        }
        granted
    }

    /// Who is served next by this target, where it may carry one more: the place in the queue, and
    /// that of the target among those that are wanted there. What is for everyone comes first, and
    /// then the client that has the least of this target; of these, who has waited the longest.
    fn next(&self, target: &TargetId, now: Instant) -> Option<(usize, usize)> {
        if self.queue.is_empty() || !self.may_carry_more(target, now) {
            return None;
        }
        let is_last_resort = self.rests(target, now);
        let has = |client: Client| match client {
            Client::Everyone => (0, 0),
            Client::One(_) => {
                (1, self.members.get(target).map_or(0, |member| member.running.of(client)))
            }
        };
        let waiting =
            self.queue.iter().enumerate().filter_map(|(place, Waiting { wanted, .. })| {
                let at = wanted.targets.iter().position(|wanted| wanted == target)?;
                let would_do = !is_last_resort || self.all_rest(wanted, now);
                would_do.then(|| (has(wanted.client), place, at))
            });
        waiting.min().map(|(_, place, at)| (place, at))
    }

    fn may_carry_more(&self, target: &TargetId, now: Instant) -> bool {
        let member = self.members.get(target);
        member.is_none_or(|Member { conduct, running, .. }| {
            running.all() < conduct.allowance(self.per_target, now)
        })
    }

    fn rests(&self, target: &TargetId, now: Instant) -> bool {
        self.members.get(target).is_some_and(|member| member.conduct.is_resting(now))
    }

    fn all_rest(&self, wanted: &Wanted, now: Instant) -> bool {
        wanted.targets.iter().all(|target| self.rests(target, now))
    }

    /// What is known of a target, kept from now on; nothing where that would be too many.
    fn member(&mut self, target: &TargetId, now: Instant) -> Option<&mut Member> {
        if self.members.len() >= MAX_REMEMBERED && !self.members.contains_key(target) {
            self.members
                .retain(|_, member| member.running.all() > 0 || member.conduct.is_resting(now));
            if self.members.len() >= MAX_REMEMBERED {
                return None;
            }
        }
        Some(self.members.entry(target.clone()).or_default())
    }
}

/// A place in the queue, which ends with whoever has it.
struct Place<'a> {
    fleet: &'a Fleet,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.fleet.books().queue.retain(|waiting| waiting.number != self.number);
    }
}

impl Slot {
    /// The target that carries it.
    pub fn target(&self) -> &TargetId {
        &self.target
    }

    /// Whether it has brought so much that the target can be said to be well.
    pub fn is_proof(&self) -> bool {
        self.carried >= PROGRESS
    }

    /// Notes how long it took to connect, and from there to the head of the answer.
    pub fn opened(&self, connect: Duration, answer: Duration) {
        self.fleet.note(&self.target, |conduct| conduct.opened(connect, answer));
    }

    /// Notes bytes that came, and the time that was spent on waiting for them.
    pub fn piece(&mut self, bytes: usize, waited: Duration) {
        let (bytes, before) = (bytes as u64, self.carried);
        self.carried = before.saturating_add(bytes);
        if before == 0
            && bytes > 0
            && let Some(member) = self.fleet.books().members.get_mut(&self.target)
        {
            member.delivering += 1;
        }
        if before / PROGRESS < self.carried / PROGRESS {
            self.fleet.note(&self.target, Conduct::progressed);
        }
        let sample = self.meter.pass(bytes, waited);
        self.measured(sample);
    }

    fn measured(&self, sample: Option<Sample>) {
        if let Some((bytes, waited)) = sample {
            let now = Instant::now();
            self.fleet.note(&self.target, |conduct| conduct.carried(bytes, waited, now));
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let sample = self.meter.rest();
        self.measured(sample);
        if let Some(member) = self.fleet.books().members.get_mut(&self.target) {
            member.running.end(self.client);
            member.delivering = member.delivering.saturating_sub(usize::from(self.carried > 0));
        }
        self.fleet.serve(&self.target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    fn target(number: usize) -> TargetId {
        TargetId { group: "g".into(), authority: format!("10.0.0.{number}:8899").into() }
    }

    fn targets(numbers: &[usize]) -> Vec<TargetId> {
        numbers.iter().copied().map(target).collect()
    }

    /// By one client, who waits for a second.
    fn wanted(numbers: &[usize]) -> Wanted {
        of(1, numbers)
    }

    fn of(client: u8, numbers: &[usize]) -> Wanted {
        let address = std::net::Ipv4Addr::from([10, 9, 9, client]);
        let client = Client::One(ClientNet::of(address.into()));
        let until = tokio::time::Instant::now().into_std() + SECOND;
        Wanted { targets: targets(numbers), client, until }
    }

    /// Waits, beside the test.
    fn wait(
        fleet: &Arc<Fleet>,
        wanted: Wanted,
    ) -> tokio::task::JoinHandle<Result<(usize, Slot), Busy>> {
        let fleet = Arc::clone(fleet);
        tokio::spawn(async move { fleet.slot(wanted).await })
    }

    fn fail(fleet: &Fleet, number: usize, now: Instant) {
        fleet.failed(&target(number), true, now);
    }

    fn running(fleet: &Fleet, number: usize) -> usize {
        fleet.merit(&target(number), Instant::now()).load
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_carries_its_bound_and_the_next_one_the_rest() {
        let fleet = Fleet::new(2);
        let mut slots = Vec::new();
        for expected in [0, 0, 1, 1] {
            let (at, slot) = fleet.slot(wanted(&[1, 2])).await.expect("one of them is free");
            assert_eq!((at, slot.target()), (expected, &target(expected + 1)));
            slots.push(slot);
        }
        let before = tokio::time::Instant::now();
        assert_eq!(fleet.slot(wanted(&[1, 2])).await.expect_err("none is free"), Busy::Targets);
        assert_eq!(before.elapsed(), SECOND, "as long as it may take");
        slots.clear();
        assert_eq!((running(&fleet, 1), running(&fleet, 2)), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_longest_is_served_first_and_only_by_what_it_wants() {
        let fleet = Fleet::new(1);
        let (_, one) = fleet.slot(wanted(&[1])).await.expect("free");
        let (_, two) = fleet.slot(wanted(&[2])).await.expect("free");
        let wait = |numbers: &[usize]| wait(&fleet, wanted(numbers));
        let (first, second, third) = (wait(&[1]), wait(&[2, 1]), wait(&[1, 2]));
        tokio::task::yield_now().await;
        drop(two);
        let (at, slot) = second.await.expect("no panic").expect("granted");
        assert_eq!((at, slot.target()), (0, &target(2)));
        drop(one);
        let (_, one) = first.await.expect("no panic").expect("granted");
        assert!(!third.is_finished());
        drop(slot);
        let (at, slot) = third.await.expect("no panic").expect("granted");
        assert_eq!((at, slot.target()), (1, &target(2)));
        drop((one, slot));
        assert_eq!((running(&fleet, 1), running(&fleet, 2)), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_gone_holds_nothing_up() {
        let fleet = Fleet::new(1);
        for _ in 0..200 {
            let (_, slot) = fleet.slot(wanted(&[1])).await.expect("free");
            let wait = || wait(&fleet, wanted(&[1]));
            let (gone, stays) = (wait(), wait());
            tokio::task::yield_now().await;
            assert_eq!(fleet.books().queue.len(), 2);
            // Before it is granted, or after that and before it knows.
            gone.abort();
            drop(slot);
            drop(stays.await.expect("no panic").expect("granted"));
            assert!(gone.await.expect_err("aborted").is_cancelled());
        }
        assert_eq!(running(&fleet, 1), 0);
        assert!(fleet.books().queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_came_back_is_given_more_as_it_delivers() {
        let fleet = Fleet::new(4);
        // In the past, so that the rest is over.
        fail(&fleet, 1, Instant::now().checked_sub(SECOND).expect("long after boot"));
        let (_, mut slot) = fleet.slot(wanted(&[1])).await.expect("one is allowed");
        let waiting = wait(&fleet, wanted(&[1]));
        tokio::task::yield_now().await;
        slot.piece(1 << 20, Duration::ZERO);
        assert!(!waiting.is_finished());
        slot.piece(15 << 20, Duration::ZERO);
        let second = waiting.await.expect("no panic").expect("granted by progress");
        assert_eq!(fleet.slot(wanted(&[1])).await.expect_err("two"), Busy::Targets);
        slot.piece(16 << 20, Duration::ZERO);
        let third = fleet.slot(wanted(&[1])).await.expect("four");
        drop((slot, second, third));
        assert_eq!(running(&fleet, 1), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_not_sent_to_what_failed_meanwhile() {
        let fleet = Fleet::new(1);
        let (_, one) = fleet.slot(wanted(&[1])).await.expect("free");
        let (_, two) = fleet.slot(wanted(&[2])).await.expect("free");
        let wait = |numbers: &[usize]| wait(&fleet, wanted(numbers));
        let (either, only) = (wait(&[1, 2]), wait(&[1]));
        tokio::task::yield_now().await;
        fail(&fleet, 1, Instant::now());
        drop(one);
        let (_, slot) = only.await.expect("no panic").expect("there is no other");
        assert_eq!(slot.target(), &target(1));
        drop(slot);
        assert!(!either.is_finished());
        drop(two);
        let (at, slot) = either.await.expect("no panic").expect("granted");
        assert_eq!((at, slot.target()), (1, &target(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn everyone_comes_first_and_then_who_has_least() {
        let fleet = Fleet::new(2);
        let (_, greedy) = fleet.slot(of(1, &[1])).await.expect("free");
        let (_, free) = fleet.slot(of(2, &[1])).await.expect("free");
        let more = wait(&fleet, of(1, &[1]));
        tokio::task::yield_now().await;
        let modest = wait(&fleet, of(3, &[1]));
        tokio::task::yield_now().await;
        let everyone = wait(&fleet, Wanted { client: Client::Everyone, ..of(9, &[1]) });
        tokio::task::yield_now().await;
        drop(free);
        let (_, free) = everyone.await.expect("no panic").expect("granted");
        assert!(!more.is_finished() && !modest.is_finished());
        drop(free);
        let (_, free) = modest.await.expect("no panic").expect("granted");
        assert!(!more.is_finished());
        drop(free);
        drop(more.await.expect("no panic").expect("granted"));
        drop(greedy);
        assert_eq!(running(&fleet, 1), 0);
        assert!(fleet.books().members.values().all(|member| member.running.owners() == 0));
    }

    /// In real time, which rests are measured in.
    #[tokio::test]
    async fn what_comes_back_is_given_to_who_waited_for_it() {
        let fleet = Fleet::new(1);
        let until = Instant::now() + SECOND * 20;
        let all = |client| Wanted { until, ..of(client, &[1, 2]) };
        let (_, busy) = fleet.slot(wanted(&[1])).await.expect("free");
        fail(&fleet, 2, Instant::now());
        let first = wait(&fleet, all(1));
        let (at, slot) = first.await.expect("no panic").expect("after its rest");
        assert_eq!((at, slot.target()), (1, &target(2)));
        drop((busy, slot));
        assert_eq!(running(&fleet, 2), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_delivers_is_not_taken_for_weak() {
        let fleet = Fleet::new(4);
        let mut slots = Vec::new();
        for _ in 0..3 {
            let (_, mut slot) = fleet.slot(wanted(&[1])).await.expect("free");
            slot.piece(1, Duration::ZERO);
            slots.push(slot);
        }
        fail(&fleet, 1, Instant::now().checked_sub(SECOND).expect("long after boot"));
        assert_eq!(fleet.slot(wanted(&[1])).await.expect_err("three"), Busy::Targets);
        slots.pop();
        let again = fleet.slot(wanted(&[1])).await.expect("one for another");
        slots[0].piece(16 << 20, Duration::ZERO);
        let fourth = fleet.slot(wanted(&[1])).await.expect("they deliver");
        drop((slots, again, fourth));
        assert_eq!((running(&fleet, 1), fleet.books().members[&target(1)].delivering), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_bounded() {
        let fleet = Fleet::new(1);
        let slot = fleet.slot(wanted(&[1])).await.expect("free");
        let wait = |number| {
            let (fleet, wanted) = (Arc::clone(&fleet), of(number, &[1]));
            tokio::spawn(async move { fleet.slot(wanted).await.map(drop) })
        };
        let clients = (1..=4).cycle().take(MAX_WAITING);
        let waiting: Vec<_> = clients.map(wait).collect();
        while fleet.books().queue.len() < MAX_WAITING {
            tokio::task::yield_now().await;
        }
        let before = tokio::time::Instant::now();
        assert_eq!(fleet.slot(wanted(&[1])).await.expect_err("too many"), Busy::Targets);
        assert_eq!(before.elapsed(), Duration::ZERO);
        drop(slot);
        for waiting in waiting {
            waiting.await.expect("no panic").expect("each in its turn");
        }
        let none = Fleet::new(1);
        let now = || Wanted { until: Instant::now(), ..wanted(&[1]) };
        let _slot = none.slot(now()).await.expect("free");
        assert_eq!(none.slot(now()).await.expect_err("no waiting"), Busy::Targets);
    }

    #[test]
    fn what_was_measured_decides() {
        let fleet = Fleet::new(4);
        let cost = || fleet.merit(&target(1), Instant::now()).cost;
        assert_eq!(cost(), None);
        let mut slot = fleet.slot_of(target(1), Client::Everyone);
        slot.piece(64 << 20, SECOND);
        assert_eq!(cost(), Some(SECOND * 4));
        slot.piece(1 << 20, Duration::ZERO);
        drop(slot);
        assert!(cost() < Some(SECOND * 4), "what was left counts as well");
    }
}
