//! What each target carries: as many transfers at once as it may, and those who wait for one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::claimant::Client;
use super::eviction::{Ended, Terms};
use super::health::Health;
use super::load::{Begun, Taking};
use super::meter::{Meter, Sample};
use super::slots::{Dismissed, Member, Request, Slots, Wanted};
use crate::config::Limits;
use crate::index::TargetId;
use crate::route::{Busy, TargetStats};

/// Longest time between two looks of one that waits at who may carry more by now.
const LOOK: Duration = Duration::from_secs(1);
/// Longest and shortest time between two looks of one that waits at whose transfers end for it.
const RELIEF: Duration = Duration::from_millis(250);
const SHORTEST_RELIEF: Duration = Duration::from_millis(10);
/// Bytes of a transfer, again and again, after which a target that came back is given more of them.
const PROGRESS: u64 = 16 << 20;

/// How one who waits gets its slot, and of which of its targets it is.
type Grant = oneshot::Sender<(usize, Slot)>;

/// The targets, as far as anything was asked of them.
#[derive(Debug)]
pub(super) struct SlotPool {
    slots: Mutex<Slots<Grant>>,
    /// Bytes that came from all targets, those too that are forgotten.
    received: AtomicU64,
}

/// How a target does, for those who look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivering {
    /// Transfers that it carries.
    pub transfers: usize,
    /// Bytes that came from it.
    pub received: u64,
    /// Until when it is given none, since those before failed.
    pub ejected_until: Option<Instant>,
    /// How often that was so.
    pub ejections: u64,
    /// Bytes per second that it brought of late.
    pub rate: Option<u64>,
}

/// The right to one transfer from a target, which measures it. Dropping it gives it to who waits.
#[derive(Debug)]
pub struct Slot {
    pool: Arc<SlotPool>,
    target: TargetId,
    number: u64,
    taking: Arc<Taking>,
    /// Bytes of all transfers of the target.
    received: Arc<AtomicU64>,
    meter: Meter,
    carried: u64,
}

impl SlotPool {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        let slots = Slots::new(limits.per_target, terms(limits));
        Arc::new(Self { slots: Mutex::new(slots), received: AtomicU64::new(0) })
    }

    /// Goes on under other bounds. A target that carries more than these allow is given no more
    /// until enough of that has ended.
    pub(super) fn apply(self: &Arc<Self>, limits: &Limits) {
        let wanted = {
            let mut slots = self.slots();
            slots.set(limits.per_target, terms(limits));
            slots.wanted()
        };
        self.serve_all(&wanted);
    }

    /// Forgets targets but these, unless they carry something.
    pub(super) fn keep(&self, stays: impl Fn(&TargetId) -> bool) {
        self.slots().members.retain(|id, member| stays(id) || member.load.all() > 0);
    }

    /// The right to a transfer from the first of these targets that may carry one more, and which
    /// one that is. Waits where there is none, behind those who came before, while transfers that
    /// take too little end for that.
    pub(super) async fn slot(self: &Arc<Self>, wanted: Wanted) -> Result<(usize, Slot), Busy> {
        let (targets, until) = (wanted.targets.clone(), wanted.until);
        // Who waits for what has come back meanwhile is first.
        self.serve_all(&targets);
        let (place, mut granted) = {
            let (mut slots, now) = (self.slots(), Instant::now());
            if let Some((at, begun)) = slots.take(&wanted, now) {
                let target = targets.get(at).cloned();
                // Dropped after the lock, where it is dropped.
                drop(slots);
                return target.map(|target| (at, self.slot_of(target, begun))).ok_or(Busy::Targets);
            }
            if until <= now {
                let dismissed = slots.relieve_next(&wanted, now);
                drop(slots);
                dismissed.into_iter().for_each(dismiss);
                return Err(Busy::Targets);
            }
            let (client, (grant, granted)) = (wanted.claimant.client, oneshot::channel());
            let request = Request::new(wanted, grant, clock());
            let number = match client {
                Client::Everyone => slots.queue.join_anyway(client, request),
                // Who loses a place for this one is told by the end of its channel.
                Client::One(_) => slots.queue.join(client, request).ok_or(Busy::Targets)?.0,
            };
            (Place { pool: self, number }, granted)
        };
        let mut looked = clock();
        let granted = loop {
            let now = clock();
            if now.saturating_duration_since(looked) >= LOOK {
                looked = now;
                self.serve_all(&targets);
            }
            let (dismissed, patience) = {
                let mut slots = self.slots();
                (slots.relieve(now), slots.patience())
            };
            let relief = RELIEF.min(patience / 8).max(SHORTEST_RELIEF);
            dismissed.into_iter().for_each(dismiss);
            // A target may begin to rest at any time, and nobody tells when that is over.
            let rested = self.rests_until(&targets).filter(|at| *at > now).unwrap_or(until);
            let at = rested.min(now + relief).min(until);
            match tokio::time::timeout_at(at.into(), &mut granted).await {
                Ok(granted) => break granted.map_err(|_| Busy::Targets),
                Err(_) if at == until => break Err(Busy::Targets),
                Err(_) if at == rested => self.serve_all(&targets),
                Err(_) => {}
            }
        };
        // What was granted in the moment in which the time was over is dropped with the channel.
        drop(place);
        granted
    }

    /// How a target does, for those who choose.
    pub(super) fn stats(&self, target: &TargetId, now: Instant) -> TargetStats {
        let slots = self.slots();
        let Some(member) = slots.members.get(target) else { return TargetStats::default() };
        TargetStats {
            resting: member.health.is_resting(now),
            load: member.load.all(),
            cost: member.health.cost(now),
        }
    }

    /// Bytes that came from all targets.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// How those of these targets do of which anything was asked.
    pub(super) fn delivering<'a>(
        &self,
        targets: impl Iterator<Item = &'a TargetId>,
        now: Instant,
    ) -> BTreeMap<TargetId, Delivering> {
        let slots = self.slots();
        let delivering = |member: &Member| Delivering {
            transfers: member.load.all(),
            received: member.load.received(),
            ejected_until: member.health.rests_until(now),
            ejections: member.health.ejections(),
            rate: member.health.rate(now),
        };
        let known = |target: &TargetId| {
            slots.members.get(target).map(|member| (target.clone(), delivering(member)))
        };
        targets.filter_map(known).collect()
    }

    /// Whether a target carries transfers that have brought something.
    pub(super) fn delivers(&self, target: &TargetId) -> bool {
        self.slots().members.get(target).is_some_and(|member| member.delivering > 0)
    }

    /// Notes what happened to a target, which may be allowed more by that.
    pub(super) fn note(self: &Arc<Self>, target: &TargetId, change: impl FnOnce(&mut Health)) {
        let now = Instant::now();
        if let Some(member) = self.slots().member(target, now) {
            change(&mut member.health);
        }
        self.serve(target);
    }

    /// Notes that a transfer failed by the target's fault, and whether that tells of how much it
    /// can carry: what is well under way does as well.
    pub(super) fn failed(&self, target: &TargetId, is_weak: bool, now: Instant) {
        if let Some(member) = self.slots().member(target, now) {
            member.health.failed(now);
            if is_weak {
                member.health.weakened(member.delivering);
            }
        }
    }

    /// When the first of these targets that rest comes back.
    fn rests_until(&self, targets: &[TargetId]) -> Option<Instant> {
        let (slots, now) = (self.slots(), Instant::now());
        let until = |target| slots.members.get(target)?.health.rests_until(now);
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
        let granted = self.slots().serve(target, Instant::now());
        for ((at, begun), Request { grant, .. }) in granted {
            drop(grant.send((at, self.slot_of(target.clone(), begun))));
        }
    }

    /// What was counted before.
    fn slot_of(self: &Arc<Self>, target: TargetId, begun: Begun) -> Slot {
        let (pool, Begun { number, taking, received }) = (Arc::clone(self), begun);
        Slot { pool, target, number, taking, received, meter: Meter::default(), carried: 0 }
    }

    fn slots(&self) -> MutexGuard<'_, Slots<Grant>> {
        // No change of the slots can panic half-way.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn terms(limits: &Limits) -> Terms {
    Terms { least_rate: limits.min_rate, patience: limits.queue_wait }
}

/// The time that waiting is measured in.
fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Ends a transfer, which gives its slot back in a moment.
fn dismiss(Dismissed { target, client, why, taker }: Dismissed) {
    let client = match client {
        Client::One(client) => client.to_string(),
        Client::Everyone => String::new(),
    };
    let why = match why {
        Ended::Slow => "takes less than `limits.min_rate`",
        Ended::Share => "has more than its share",
    };
    log::info!("a transfer from target {target} is ended: {client} {why}, and others wait for it");
    taker.dismiss();
}

/// A place in the queue, which ends with whoever has it.
struct Place<'a> {
    pool: &'a SlotPool,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.pool.slots().queue.leave(self.number);
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
        self.pool.note(&self.target, |health| health.opened(connect, answer));
    }

    /// Bytes so far.
    pub fn carried(&self) -> u64 {
        self.carried
    }

    /// What is taken of it.
    pub fn taking(&self) -> Arc<Taking> {
        Arc::clone(&self.taking)
    }

    /// Notes bytes that came, and the time that was spent on waiting for them.
    pub fn piece(&mut self, bytes: usize, waited: Duration) {
        let (bytes, before) = (bytes as u64, self.carried);
        self.taking.pass(bytes, Instant::now());
        self.received.fetch_add(bytes, Ordering::Relaxed);
        self.pool.received.fetch_add(bytes, Ordering::Relaxed);
        self.carried = before.saturating_add(bytes);
        if before == 0
            && bytes > 0
            && let Some(member) = self.pool.slots().members.get_mut(&self.target)
        {
            member.delivering += 1;
        }
        if before / PROGRESS < self.carried / PROGRESS {
            self.pool.note(&self.target, Health::progressed);
        }
        let sample = self.meter.pass(bytes, waited);
        self.measured(sample);
    }

    fn measured(&self, sample: Option<Sample>) {
        if let Some((bytes, waited)) = sample {
            let now = Instant::now();
            self.pool.note(&self.target, |health| health.carried(bytes, waited, now));
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let sample = self.meter.rest();
        self.measured(sample);
        if let Some(member) = self.pool.slots().members.get_mut(&self.target) {
            member.load.end(self.number);
            member.delivering = member.delivering.saturating_sub(usize::from(self.carried > 0));
        }
        self.pool.serve(&self.target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::ClientNet;
    use crate::upstream::claimant::{Claimant, Taker};
    use crate::upstream::slots::MAX_WAITING;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    fn carrying(per_target: usize) -> Arc<SlotPool> {
        SlotPool::new(&Limits { per_target, ..Limits::default() })
    }

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
        let claimant = Claimant { client, ..Claimant::everyone() };
        let until = tokio::time::Instant::now().into_std() + SECOND;
        Wanted { targets: targets(numbers), claimant, until }
    }

    /// Waits, beside the test.
    fn wait(
        pool: &Arc<SlotPool>,
        wanted: Wanted,
    ) -> tokio::task::JoinHandle<Result<(usize, Slot), Busy>> {
        let pool = Arc::clone(pool);
        tokio::spawn(async move { pool.slot(wanted).await })
    }

    fn fail(pool: &SlotPool, number: usize, now: Instant) {
        pool.failed(&target(number), true, now);
    }

    fn running(pool: &SlotPool, number: usize) -> usize {
        pool.stats(&target(number), Instant::now()).load
    }

    #[tokio::test(start_paused = true)]
    async fn another_bound_counts_what_is_carried() {
        let bound = |per_target| Limits { per_target, ..Limits::default() };
        let pool = carrying(4);
        let mut slots = Vec::new();
        for _ in 0..4 {
            slots.push(pool.slot(wanted(&[1])).await.expect("one of four"));
        }
        pool.apply(&bound(2));
        let now = Wanted { until: clock(), ..wanted(&[1]) };
        while slots.len() > 1 {
            assert_eq!(pool.slot(now.clone()).await.map(drop), Err(Busy::Targets));
            slots.pop();
        }
        slots.push(pool.slot(now.clone()).await.expect("one of two"));
        assert_eq!(pool.slot(now).await.map(drop), Err(Busy::Targets));
        let waiting = wait(&pool, wanted(&[1]));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        pool.apply(&bound(3));
        let (at, slot) = waiting.await.expect("no panic").expect("it is served at once");
        assert_eq!((at, running(&pool, 1)), (0, 3));
        drop((slot, slots));
        assert_eq!(running(&pool, 1), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_carries_its_bound_and_the_next_one_the_rest() {
        let pool = carrying(2);
        let mut slots = Vec::new();
        for expected in [0, 0, 1, 1] {
            let (at, slot) = pool.slot(wanted(&[1, 2])).await.expect("one of them is free");
            assert_eq!((at, slot.target()), (expected, &target(expected + 1)));
            slots.push(slot);
        }
        let before = tokio::time::Instant::now();
        assert_eq!(pool.slot(wanted(&[1, 2])).await.expect_err("none is free"), Busy::Targets);
        assert_eq!(before.elapsed(), SECOND, "as long as it may take");
        slots.clear();
        assert_eq!((running(&pool, 1), running(&pool, 2)), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_longest_is_served_first_and_only_by_what_it_wants() {
        let pool = carrying(1);
        let (_, one) = pool.slot(wanted(&[1])).await.expect("free");
        let (_, two) = pool.slot(wanted(&[2])).await.expect("free");
        let wait = |numbers: &[usize]| wait(&pool, wanted(numbers));
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
        assert_eq!((running(&pool, 1), running(&pool, 2)), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_gone_holds_nothing_up() {
        let pool = carrying(1);
        for _ in 0..200 {
            let (_, slot) = pool.slot(wanted(&[1])).await.expect("free");
            let wait = || wait(&pool, wanted(&[1]));
            let (gone, stays) = (wait(), wait());
            tokio::task::yield_now().await;
            assert_eq!(pool.slots().queue.len(), 2);
            // Before it is granted, or after that and before it knows.
            gone.abort();
            drop(slot);
            drop(stays.await.expect("no panic").expect("granted"));
            assert!(gone.await.expect_err("aborted").is_cancelled());
        }
        assert_eq!(running(&pool, 1), 0);
        assert!(pool.slots().queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_came_back_is_given_more_as_it_delivers() {
        let pool = carrying(4);
        // In the past, so that the rest is over.
        fail(&pool, 1, Instant::now().checked_sub(SECOND).expect("long after boot"));
        let (_, mut slot) = pool.slot(wanted(&[1])).await.expect("one is allowed");
        let waiting = wait(&pool, wanted(&[1]));
        tokio::task::yield_now().await;
        slot.piece(1 << 20, Duration::ZERO);
        assert!(!waiting.is_finished());
        slot.piece(15 << 20, Duration::ZERO);
        let second = waiting.await.expect("no panic").expect("granted by progress");
        assert_eq!(pool.slot(wanted(&[1])).await.expect_err("two"), Busy::Targets);
        slot.piece(16 << 20, Duration::ZERO);
        let third = pool.slot(wanted(&[1])).await.expect("four");
        drop((slot, second, third));
        assert_eq!(running(&pool, 1), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_not_sent_to_what_failed_meanwhile() {
        let pool = carrying(1);
        let (_, one) = pool.slot(wanted(&[1])).await.expect("free");
        let (_, two) = pool.slot(wanted(&[2])).await.expect("free");
        let wait = |numbers: &[usize]| wait(&pool, wanted(numbers));
        let (either, only) = (wait(&[1, 2]), wait(&[1]));
        tokio::task::yield_now().await;
        fail(&pool, 1, Instant::now());
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
        let pool = carrying(2);
        let (_, greedy) = pool.slot(of(1, &[1])).await.expect("free");
        let (_, free) = pool.slot(of(2, &[1])).await.expect("free");
        let more = wait(&pool, of(1, &[1]));
        tokio::task::yield_now().await;
        let modest = wait(&pool, of(3, &[1]));
        tokio::task::yield_now().await;
        let everyone = wait(&pool, Wanted { claimant: Claimant::everyone(), ..of(9, &[1]) });
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
        assert_eq!(running(&pool, 1), 0);
        assert!(pool.slots().members.values().all(|member| member.load.clients().count() == 0));
    }

    /// In real time, which rests are measured in.
    #[tokio::test]
    async fn what_comes_back_is_given_to_who_waited_for_it() {
        let pool = carrying(1);
        let until = Instant::now() + SECOND * 20;
        let all = |client| Wanted { until, ..of(client, &[1, 2]) };
        let (_, busy) = pool.slot(wanted(&[1])).await.expect("free");
        fail(&pool, 2, Instant::now());
        let first = wait(&pool, all(1));
        let (at, slot) = first.await.expect("no panic").expect("after its rest");
        assert_eq!((at, slot.target()), (1, &target(2)));
        drop((busy, slot));
        assert_eq!(running(&pool, 2), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_delivers_is_not_taken_for_weak() {
        let pool = carrying(4);
        let mut slots = Vec::new();
        for _ in 0..3 {
            let (_, mut slot) = pool.slot(wanted(&[1])).await.expect("free");
            slot.piece(1, Duration::ZERO);
            slots.push(slot);
        }
        fail(&pool, 1, Instant::now().checked_sub(SECOND).expect("long after boot"));
        assert_eq!(pool.slot(wanted(&[1])).await.expect_err("three"), Busy::Targets);
        slots.pop();
        let again = pool.slot(wanted(&[1])).await.expect("one for another");
        slots[0].piece(16 << 20, Duration::ZERO);
        let fourth = pool.slot(wanted(&[1])).await.expect("they deliver");
        drop((slots, again, fourth));
        assert_eq!((running(&pool, 1), pool.slots().members[&target(1)].delivering), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_bounded() {
        let pool = carrying(1);
        let slot = pool.slot(wanted(&[1])).await.expect("free");
        let wait = |number| {
            let (pool, wanted) = (Arc::clone(&pool), of(number, &[1]));
            tokio::spawn(async move { pool.slot(wanted).await.map(drop) })
        };
        let clients = (1..=4).cycle().take(MAX_WAITING);
        let waiting: Vec<_> = clients.map(wait).collect();
        while pool.slots().queue.len() < MAX_WAITING {
            tokio::task::yield_now().await;
        }
        let before = tokio::time::Instant::now();
        assert_eq!(pool.slot(wanted(&[1])).await.expect_err("too many"), Busy::Targets);
        assert_eq!(before.elapsed(), Duration::ZERO);
        drop(slot);
        for waiting in waiting {
            waiting.await.expect("no panic").expect("each in its turn");
        }
        let none = carrying(1);
        let now = || Wanted { until: Instant::now(), ..wanted(&[1]) };
        let _slot = none.slot(now()).await.expect("free");
        assert_eq!(none.slot(now()).await.expect_err("no waiting"), Busy::Targets);
    }

    #[test]
    fn what_was_measured_decides() {
        let pool = carrying(4);
        let cost = || pool.stats(&target(1), Instant::now()).cost;
        assert_eq!(cost(), None);
        let begun = {
            let (mut slots, now) = (pool.slots(), Instant::now());
            let member = slots.member(&target(1), now).expect("the first one");
            member.load.begin(&Claimant::everyone(), now)
        };
        let mut slot = pool.slot_of(target(1), begun);
        slot.piece(64 << 20, SECOND);
        assert_eq!(cost(), Some(SECOND * 4));
        slot.piece(1 << 20, Duration::ZERO);
        drop(slot);
        assert!(cost() < Some(SECOND * 4), "what was left counts as well");
    }

    /// A client that has been waited for since ever, and takes nothing.
    #[derive(Debug, Default)]
    struct Stalled(AtomicBool);

    impl Taker for Stalled {
        fn waited(&self, _now: Instant) -> Duration {
            Duration::from_secs(1 << 30)
        }

        fn dismiss(&self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// In real time, in which transfers are measured.
    #[tokio::test]
    async fn who_holds_all_slots_and_takes_nothing_makes_room() {
        let pool = carrying(2);
        let until = Instant::now() + SECOND * 20;
        let mut held = Vec::new();
        for number in [1, 1, 2, 2] {
            let taker = Arc::new(Stalled::default());
            let mut wanted = Wanted { until, ..of(1, &[number]) };
            wanted.claimant.taker = Some(Arc::<Stalled>::clone(&taker));
            held.push((taker, Some(pool.slot(wanted).await.expect("free").1)));
        }
        let dismissed = |held: &[(Arc<Stalled>, Option<Slot>)]| {
            held.iter().filter(|(taker, _)| taker.0.load(Ordering::Relaxed)).count()
        };
        let (began, waiting) = (Instant::now(), wait(&pool, Wanted { until, ..of(2, &[1, 2]) }));
        while dismissed(&held) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(began.elapsed() < SECOND * 10, "{:?}", began.elapsed());
        assert!(!waiting.is_finished(), "what was ended has not yet come back");
        // Who was too slow comes after who waits, and ends nobody.
        let again = wait(&pool, Wanted { until, ..of(1, &[1, 2]) });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(dismissed(&held), 1, "one for one who waits");
        for (taker, slot) in &mut held {
            slot.take_if(|_| taker.0.load(Ordering::Relaxed));
        }
        let (_, slot) = waiting.await.expect("no panic").expect("room was made");
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!((dismissed(&held), again.is_finished()), (1, false));
        drop(slot);
        drop((again.await.expect("no panic").expect("its turn"), held));
        assert_eq!((running(&pool, 1), running(&pool, 2)), (0, 0));
    }

    #[tokio::test]
    async fn without_waiting_the_next_one_is_served() {
        let limits = Limits { per_target: 2, queue_wait: Duration::ZERO, ..Limits::default() };
        let pool = SlotPool::new(&limits);
        let now = |client| Wanted { until: Instant::now(), ..of(client, &[1]) };
        let taker = Arc::new(Stalled::default());
        let mut wanted = now(1);
        wanted.claimant.taker = Some(Arc::<Stalled>::clone(&taker));
        let (_, first) = pool.slot(wanted.clone()).await.expect("free");
        let (_, second) = pool.slot(wanted).await.expect("free");
        while !taker.0.load(Ordering::Relaxed) {
            assert_eq!(pool.slot(now(2)).await.expect_err("it is full"), Busy::Targets);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(first);
        drop((pool.slot(now(2)).await.expect("room was made"), second));
    }
}
