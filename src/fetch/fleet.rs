//! What each target carries: as many transfers at once as it may, and those who wait for one.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::meter::{Meter, Sample};
use crate::index::TargetId;
use crate::route::{Busy, Merit};
use crate::target::Conduct;

/// Most requests that wait for a target. More are told at once that all are busy.
const MAX_WAITING: usize = 1024;
/// Most targets that are remembered; far above what discovery admits.
const MAX_REMEMBERED: usize = 100_000;
/// Bytes of a transfer after which a target that came back is given more of them.
const PROGRESS: u64 = 16 << 20;

/// The targets, as far as anything was asked of them.
#[derive(Debug)]
pub(super) struct Fleet {
    per_target: usize,
    queue_wait: Duration,
    books: Mutex<Books>,
}

/// Pure, but for the ends of channels that it keeps for others.
#[derive(Debug, Default)]
struct Books {
    members: HashMap<TargetId, Member>,
    /// Those who wait, the longest first.
    queue: VecDeque<Waiting>,
    next: u64,
}

#[derive(Debug, Default)]
struct Member {
    conduct: Conduct,
    running: usize,
}

/// A request that waits for any of some targets, the best first.
#[derive(Debug)]
struct Waiting {
    number: u64,
    wanted: Vec<TargetId>,
    grant: oneshot::Sender<(usize, Slot)>,
}

/// The right to one transfer from a target, which measures it. Dropping it gives it to who waits.
#[derive(Debug)]
pub struct Slot {
    fleet: Arc<Fleet>,
    target: TargetId,
    meter: Meter,
    carried: u64,
}

impl Fleet {
    pub(super) fn new(per_target: usize, queue_wait: Duration) -> Arc<Self> {
        Arc::new(Self { per_target, queue_wait, books: Mutex::default() })
    }

    /// The right to a transfer from the first of these targets that may carry one more, and which
    /// one that is. Waits where there is none, behind those who came before.
    pub(super) async fn slot(
        self: &Arc<Self>,
        wanted: Vec<TargetId>,
    ) -> Result<(usize, Slot), Busy> {
        let (place, granted) = {
            let mut books = self.books();
            if let Some(at) = books.take(&wanted, self.per_target, Instant::now()) {
                let target = wanted.get(at).cloned().ok_or(Busy::Targets)?;
                return Ok((at, self.slot_of(target)));
            }
            if books.queue.len() >= MAX_WAITING || self.queue_wait.is_zero() {
                return Err(Busy::Targets);
            }
            let (grant, granted) = oneshot::channel();
            books.next += 1;
            let number = books.next;
            books.queue.push_back(Waiting { number, wanted, grant });
            (Place { fleet: self, number }, granted)
        };
        // What is granted in the moment in which the time is over is dropped with the channel.
        let granted = tokio::time::timeout(self.queue_wait, granted).await;
        drop(place);
        granted.map_err(|_| Busy::Targets)?.map_err(|_| Busy::Targets)
    }

    /// How a target does, for those who choose.
    pub(super) fn merit(&self, target: &TargetId, now: Instant) -> Merit {
        let books = self.books();
        let Some(member) = books.members.get(target) else { return Merit::default() };
        Merit {
            resting: member.conduct.is_resting(now),
            load: member.running,
            cost: member.conduct.cost(now),
        }
    }

    /// Notes that a transfer failed by the target's fault.
    pub(super) fn failed(&self, target: &TargetId, now: Instant) {
        let mut books = self.books();
        if let Some(member) = books.member(target, now) {
            member.conduct.failed(now);
        }
    }

    /// Notes that a target delivered.
    pub(super) fn succeeded(self: &Arc<Self>, target: &TargetId) {
        self.note(target, Conduct::succeeded);
    }

    /// Changes what is known of a target that may be allowed more by that.
    fn note(self: &Arc<Self>, target: &TargetId, change: impl FnOnce(&mut Conduct)) {
        let now = Instant::now();
        let granted = {
            let mut books = self.books();
            if let Some(member) = books.member(target, now) {
                change(&mut member.conduct);
            }
            books.serve(target, self.per_target, now)
        };
        self.grant(granted, target);
    }

    fn release(self: &Arc<Self>, target: &TargetId) {
        let now = Instant::now();
        let granted = {
            let mut books = self.books();
            if let Some(member) = books.members.get_mut(target) {
                member.running = member.running.saturating_sub(1);
            }
            books.serve(target, self.per_target, now)
        };
        self.grant(granted, target);
    }

    /// Hands over what was granted. Whoever is gone meanwhile drops it, which grants it anew; so
    /// the lock must be free here.
    fn grant(self: &Arc<Self>, granted: Vec<(usize, Waiting)>, target: &TargetId) {
        for (at, waiting) in granted {
            drop(waiting.grant.send((at, self.slot_of(target.clone()))));
        }
    }

    /// What was counted before.
    fn slot_of(self: &Arc<Self>, target: TargetId) -> Slot {
        Slot { fleet: Arc::clone(self), target, meter: Meter::default(), carried: 0 }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // No change of the books can panic half-way.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    /// Counts a transfer for the first of these targets that may carry one more.
    fn take(&mut self, wanted: &[TargetId], per_target: usize, now: Instant) -> Option<usize> {
        let at = wanted.iter().position(|target| {
            let member = self.members.get(target);
            member.is_none_or(|member| member.running < member.conduct.allowance(per_target, now))
        })?;
        // Where nothing more can be remembered nothing is counted, and nothing allowed.
        self.member(wanted.get(at)?, now)?.running += 1;
        Some(at)
    }

    /// Counts transfers for those who wait for this target, the longest first, and lets them go.
    fn serve(
        &mut self,
        target: &TargetId,
        per_target: usize,
        now: Instant,
    ) -> Vec<(usize, Waiting)> {
        let mut granted = Vec::new();
        while let Some((place, at)) = self.next(target, per_target, now) {
            let (Some(waiting), Some(member)) =
                (self.queue.remove(place), self.members.get_mut(target))
            else {
                break;
            };
            member.running += 1;
            granted.push((at, waiting));
        }
        granted
    }

    /// Who is served next by this target, where it may carry one more: the place in the queue, and
    /// that of the target among those that are wanted there.
    fn next(&self, target: &TargetId, per_target: usize, now: Instant) -> Option<(usize, usize)> {
        let member = self.members.get(target)?;
        if member.running >= member.conduct.allowance(per_target, now) {
            return None;
        }
        let rests = |target: &TargetId| {
            self.members.get(target).is_some_and(|member| member.conduct.is_resting(now))
        };
        // It may have failed since somebody began to wait for it or another one.
        let is_last_resort = rests(target);
        self.queue.iter().enumerate().find_map(|(place, waiting)| {
            let at = waiting.wanted.iter().position(|wanted| wanted == target)?;
            (!is_last_resort || waiting.wanted.iter().all(rests)).then_some((place, at))
        })
    }

    /// What is known of a target, kept from now on; nothing where that would be too many.
    fn member(&mut self, target: &TargetId, now: Instant) -> Option<&mut Member> {
        if self.members.len() >= MAX_REMEMBERED && !self.members.contains_key(target) {
            self.members.retain(|_, member| member.running > 0 || member.conduct.is_resting(now));
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

    /// Notes how long it took to connect, and from there to the head of the answer.
    pub fn opened(&self, connect: Duration, answer: Duration) {
        self.fleet.note(&self.target, |conduct| conduct.opened(connect, answer));
    }

    /// Notes bytes that came, and the time that was spent on waiting for them.
    pub fn piece(&mut self, bytes: usize, waited: Duration) {
        let bytes = bytes as u64;
        let before = self.carried;
        self.carried = before.saturating_add(bytes);
        if before < PROGRESS && self.carried >= PROGRESS {
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
        self.fleet.release(&self.target);
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

    fn running(fleet: &Fleet, number: usize) -> usize {
        fleet.merit(&target(number), Instant::now()).load
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_carries_its_bound_and_the_next_one_the_rest() {
        let fleet = Fleet::new(2, SECOND);
        let mut slots = Vec::new();
        for expected in [0, 0, 1, 1] {
            let (at, slot) = fleet.slot(targets(&[1, 2])).await.expect("one of them is free");
            assert_eq!((at, slot.target()), (expected, &target(expected + 1)));
            slots.push(slot);
        }
        let before = tokio::time::Instant::now();
        assert_eq!(fleet.slot(targets(&[1, 2])).await.expect_err("none is free"), Busy::Targets);
        assert_eq!(before.elapsed(), SECOND, "as long as it may take");
        slots.clear();
        assert_eq!((running(&fleet, 1), running(&fleet, 2)), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_longest_is_served_first_and_only_by_what_it_wants() {
        let fleet = Fleet::new(1, SECOND);
        let (_, one) = fleet.slot(targets(&[1])).await.expect("free");
        let (_, two) = fleet.slot(targets(&[2])).await.expect("free");
        let wait = |wanted: &[usize]| {
            let (fleet, wanted) = (Arc::clone(&fleet), targets(wanted));
            tokio::spawn(async move { fleet.slot(wanted).await })
        };
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
        let fleet = Fleet::new(1, SECOND);
        for _ in 0..200 {
            let (_, slot) = fleet.slot(targets(&[1])).await.expect("free");
            let wait = || {
                let fleet = Arc::clone(&fleet);
                tokio::spawn(async move { fleet.slot(targets(&[1])).await })
            };
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
        let fleet = Fleet::new(4, SECOND);
        // In the past, so that the rest is over.
        fleet.failed(&target(1), Instant::now().checked_sub(SECOND).expect("long after boot"));
        let (_, mut slot) = fleet.slot(targets(&[1])).await.expect("one is allowed");
        let waiting = {
            let fleet = Arc::clone(&fleet);
            tokio::spawn(async move { fleet.slot(targets(&[1])).await })
        };
        tokio::task::yield_now().await;
        slot.piece(1 << 20, Duration::ZERO);
        assert!(!waiting.is_finished());
        slot.piece(15 << 20, Duration::ZERO);
        let second = waiting.await.expect("no panic").expect("granted by progress");
        assert_eq!(fleet.slot(targets(&[1])).await.expect_err("two"), Busy::Targets);
        fleet.succeeded(&target(1));
        let third = fleet.slot(targets(&[1])).await.expect("four");
        drop((slot, second, third));
        assert_eq!(running(&fleet, 1), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_not_sent_to_what_failed_meanwhile() {
        let fleet = Fleet::new(1, SECOND);
        let (_, one) = fleet.slot(targets(&[1])).await.expect("free");
        let (_, two) = fleet.slot(targets(&[2])).await.expect("free");
        let wait = |wanted: &[usize]| {
            let (fleet, wanted) = (Arc::clone(&fleet), targets(wanted));
            tokio::spawn(async move { fleet.slot(wanted).await })
        };
        let (either, only) = (wait(&[1, 2]), wait(&[1]));
        tokio::task::yield_now().await;
        fleet.failed(&target(1), Instant::now());
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
    async fn the_queue_is_bounded() {
        let fleet = Fleet::new(1, SECOND);
        let slot = fleet.slot(targets(&[1])).await.expect("free");
        let wait = || {
            let fleet = Arc::clone(&fleet);
            tokio::spawn(async move { fleet.slot(targets(&[1])).await.map(drop) })
        };
        let waiting: Vec<_> = (0..MAX_WAITING).map(|_| wait()).collect();
        while fleet.books().queue.len() < MAX_WAITING {
            tokio::task::yield_now().await;
        }
        let before = tokio::time::Instant::now();
        assert_eq!(fleet.slot(targets(&[1])).await.expect_err("too many"), Busy::Targets);
        assert_eq!(before.elapsed(), Duration::ZERO);
        drop(slot);
        for waiting in waiting {
            waiting.await.expect("no panic").expect("each in its turn");
        }
        let none = Fleet::new(1, Duration::ZERO);
        let _slot = none.slot(targets(&[1])).await.expect("free");
        assert_eq!(none.slot(targets(&[1])).await.expect_err("no waiting"), Busy::Targets);
    }

    #[test]
    fn what_was_measured_decides() {
        let fleet = Fleet::new(4, SECOND);
        let cost = || fleet.merit(&target(1), Instant::now()).cost;
        assert_eq!(cost(), None);
        let mut slot = fleet.slot_of(target(1));
        slot.piece(64 << 20, SECOND);
        assert_eq!(cost(), Some(SECOND * 4));
        slot.piece(1 << 20, Duration::ZERO);
        drop(slot);
        assert!(cost() < Some(SECOND * 4), "what was left counts as well");
    }
}
