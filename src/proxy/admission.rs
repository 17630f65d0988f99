//! How many archives go to clients at once, and at which rate together: rather one client less
//! than all of them too slow. Places and rate are shared by clients first, and by the transfers of
//! each of them then.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::oneshot;

use crate::config::Limits;
use crate::limit::{KeyedCount, Queue, SharedPacer, Waiting};
use crate::route::{Busy, ClientNet};

/// Bytes of one turn where the rate of all is bounded, and so of one piece out of the cache: as
/// much as of a target's archive is passed on at once.
const PACED_PIECE: usize = 64 << 10;
/// Most requests that wait to be let in. Of more, those are told at once that there is no place
/// whose client has the most.
const MAX_WAITING: usize = 4096;

/// Most bytes that are read out of the cache at once.
pub fn piece(limits: &Limits) -> usize {
    if limits.total_rate.is_some() { PACED_PIECE } else { usize::MAX }
}

/// Who is let in.
#[derive(Debug)]
pub(super) struct Admission {
    books: Mutex<Books>,
    /// What the archives' bytes are held to, where they are.
    pace: ArcSwapOption<Mutex<SharedPacer<ClientNet>>>,
}

#[derive(Debug)]
struct Books {
    bounds: Bounds,
    /// How long a request waits that is not let in at once.
    patience: Duration,
    running: KeyedCount<ClientNet>,
    queue: Queue<ClientNet, oneshot::Sender<Permit>>,
}

/// Most transfers at once.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    all: usize,
    per_client: usize,
    /// Transfers that have the least rate each when all have the same.
    at_rate: usize,
}

/// How many transfers to clients are under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunningCount {
    /// In all.
    pub all: usize,
    /// Of the client that has the most.
    pub most_of_one: usize,
}

/// One transfer to a client, for as long as it is kept.
#[derive(Debug)]
pub(super) struct Permit {
    admission: Arc<Admission>,
    client: ClientNet,
    /// Bytes that went to the client since its last turn.
    unpaced: usize,
}

impl Bounds {
    fn new(limits: &Limits) -> Self {
        let shares = limits.total_rate.map(|total| total / limits.min_rate.max(1));
        let shares = shares.map(|shares| usize::try_from(shares).unwrap_or(usize::MAX));
        Self {
            all: limits.max_transfers,
            per_client: limits.per_client_transfers,
            at_rate: shares.unwrap_or(usize::MAX),
        }
    }

    /// Whether there may be one more for this client.
    ///
    /// Who has none needs a place, and the least rate beside the other clients. Who has some may
    /// have as many as are left for others, and the least rate for each out of its share.
    fn admit(&self, running: &KeyedCount<ClientNet>, client: ClientNet) -> Result<(), Busy> {
        let (own, clients) = (running.of(client), running.owners());
        let places_left = self.all.saturating_sub(running.all());
        let has_rate = match own {
            0 => clients < self.at_rate,
            own => own < (self.at_rate / clients.max(1)).max(1),
        };
        if own >= self.per_client {
            Err(Busy::Client)
        } else if places_left == 0 || own >= places_left {
            Err(Busy::Transfers)
        } else if has_rate {
            Ok(())
        } else {
            Err(Busy::Rate)
        }
    }
}

impl Books {
    /// Counts one more transfer of a client, where there may be one.
    fn take(&mut self, client: ClientNet) -> Result<(), Busy> {
        self.bounds.admit(&self.running, client)?;
        self.running.begin(client);
        Ok(())
    }

    /// Counts transfers for those who wait and may have one by now: of the client that has the
    /// least first, and of these for who has waited the longest.
    fn serve(&mut self) -> Vec<Waiting<ClientNet, oneshot::Sender<Permit>>> {
        let mut served = Vec::new();
        loop {
            let may = |(place, waiting): (usize, &Waiting<ClientNet, _>)| {
                let owner = waiting.owner;
                self.bounds
                    .admit(&self.running, owner)
                    .ok()
                    .map(|()| (self.running.of(owner), place))
            };
            let next = self.queue.iter().enumerate().filter_map(may).min();
            let Some(waiting) = next.and_then(|(_, place)| self.queue.remove(place)) else {
                return served;
            };
            self.running.begin(waiting.owner);
            served.push(waiting);
        }
    }
}

impl Admission {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            books: Mutex::new(Books {
                bounds: Bounds::new(limits),
                patience: limits.queue_wait,
                running: KeyedCount::default(),
                queue: Queue::new(MAX_WAITING),
            }),
            pace: ArcSwapOption::new(limits.total_rate.map(paced)),
        })
    }

    /// Goes on under other bounds. Where more are under way than these allow, no more is let in
    /// until enough of them have ended.
    pub(super) fn apply(self: &Arc<Self>, limits: &Limits, now: Instant) {
        {
            let mut books = self.books();
            (books.bounds, books.patience) = (Bounds::new(limits), limits.queue_wait);
        }
        match (limits.total_rate, &*self.pace.load()) {
            (Some(rate), Some(pace)) => locked(pace).set_rate(rate, now),
            (rate, _) => self.pace.store(rate.map(paced)),
        }
        self.serve();
    }

    /// The transfers that are under way.
    pub(super) fn running(&self) -> RunningCount {
        let books = self.books();
        RunningCount { all: books.running.all(), most_of_one: books.running.most_of_one() }
    }

    /// Lets one more transfer begin, where it may at once.
    pub(super) fn admit(self: &Arc<Self>, client: ClientNet) -> Result<Permit, Busy> {
        self.books().take(client)?;
        Ok(self.permit(client))
    }

    /// Lets one more transfer begin. Waits where it may not, behind clients that have less and
    /// behind who came before.
    pub(super) async fn wait(self: &Arc<Self>, client: ClientNet) -> Result<Permit, Busy> {
        let (place, granted, patience) = {
            let mut books = self.books();
            let Err(busy) = books.take(client) else {
                return Ok(self.permit(client));
            };
            let (grant, granted) = oneshot::channel();
            if books.patience.is_zero() {
                return Err(busy);
            }
            // Who loses a place for this one is told by the end of its channel.
            let (number, _displaced) = books.queue.join(client, grant).ok_or(busy)?;
            (Place { admission: self, number }, granted, books.patience)
        };
        let granted = tokio::time::timeout(patience, granted).await;
        // What was granted in the moment in which the time was over is dropped with the channel.
        drop(place);
        match granted {
            Ok(Ok(permit)) => Ok(permit),
            // With the bound that holds now, or none any more.
            Ok(Err(_)) | Err(_) => self.admit(client),
        }
    }

    /// Hands out what is free to those who wait. Whoever is gone meanwhile drops it, which hands
    /// it out anew; so the lock must be free then.
    fn serve(self: &Arc<Self>) {
        let served = self.books().serve();
        for waiting in served {
            drop(waiting.item.send(self.permit(waiting.owner)));
        }
    }

    /// What was counted before.
    fn permit(self: &Arc<Self>, client: ClientNet) -> Permit {
        Permit { admission: Arc::clone(self), client, unpaced: 0 }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // No change of the books can panic half-way.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn paced(rate: u64) -> Arc<Mutex<SharedPacer<ClientNet>>> {
    Arc::new(Mutex::new(SharedPacer::new(rate)))
}

fn locked(pace: &Mutex<SharedPacer<ClientNet>>) -> MutexGuard<'_, SharedPacer<ClientNet>> {
    pace.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place in the queue, which ends with whoever has it.
struct Place<'a> {
    admission: &'a Admission,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.admission.books().queue.leave(self.number);
    }
}

impl Permit {
    /// Notes bytes of an archive that go to the client, and tells how long to wait before that. The
    /// clients that wait have equal shares, and each client's transfers of its share; what a slow
    /// client leaves is the others'.
    pub(super) fn pass(&mut self, bytes: usize, now: Instant) -> Option<Duration> {
        let pace = self.admission.pace.load();
        let pace = pace.as_ref()?;
        self.unpaced = self.unpaced.saturating_add(bytes);
        if self.unpaced < PACED_PIECE {
            // As small as the records of TLS are, of which a turn each would be too little.
            return None;
        }
        let bytes = std::mem::take(&mut self.unpaced);
        Some(locked(pace).pass(self.client, bytes, now)).filter(|wait| !wait.is_zero())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let is_last = {
            let mut books = self.admission.books();
            books.running.end(self.client);
            books.running.of(self.client) == 0
        };
        if let Some(pace) = self.admission.pace.load().as_ref().filter(|_| is_last) {
            locked(pace).forget(self.client);
        }
        self.admission.serve();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr};

    const MIB: u64 = 1 << 20;

    fn client(number: u8) -> ClientNet {
        ClientNet::of(Ipv4Addr::from([10, 0, 0, number]).into())
    }

    fn limits(all: usize, per_client: usize, total_rate: Option<u64>) -> Limits {
        Limits {
            max_transfers: all,
            per_client_transfers: per_client,
            total_rate,
            ..Limits::default()
        }
    }

    /// Of clients that have so many each; the first one is asked about.
    fn running(counts: &[usize]) -> KeyedCount<ClientNet> {
        let mut running = KeyedCount::default();
        for (number, count) in (1..).zip(counts) {
            (0..*count).for_each(|_| running.begin(client(number)));
        }
        running
    }

    #[test]
    fn each_bound_is_exact() {
        let check = |limits: Limits, counts: &[usize], expected: Result<(), Busy>| {
            let found = Bounds::new(&limits).admit(&running(counts), client(1));
            assert_eq!(found, expected, "{counts:?} {limits:?}");
        };
        check(limits(3, 9, None), &[0, 1, 1], Ok(()));
        check(limits(3, 9, None), &[0, 1, 1, 1], Err(Busy::Transfers));
        check(limits(9, 3, None), &[2, 3], Ok(()));
        check(limits(9, 3, None), &[3, 2], Err(Busy::Client));
        // Who has some leaves as many places to others.
        check(limits(16, 99, None), &[7], Ok(()));
        check(limits(16, 99, None), &[8], Err(Busy::Transfers));
        check(limits(16, 99, None), &[3, 8], Ok(()));
        check(limits(16, 99, None), &[4, 8], Err(Busy::Transfers));
        check(limits(16, 99, None), &[0, 8, 4, 2, 1], Ok(()));
        check(limits(1, 99, None), &[0], Ok(()));
        // Ten MiB/s each.
        let rate = |mib| limits(99, 99, Some(mib * MIB));
        let each_one = |clients| [&[0][..], &vec![1; clients]].concat();
        check(rate(100), &each_one(9), Ok(()));
        check(rate(100), &each_one(10), Err(Busy::Rate));
        check(rate(109), &each_one(10), Err(Busy::Rate));
        check(rate(110), &each_one(10), Ok(()));
        check(rate(10), &[0], Ok(()));
        check(rate(10), &each_one(1), Err(Busy::Rate));
        // Alone with all of it, and beside others with the own share.
        check(rate(100), &[9], Ok(()));
        check(rate(100), &[10], Err(Busy::Rate));
        check(rate(100), &[0, 10], Ok(()));
        check(rate(100), &[4, 10], Ok(()));
        check(rate(100), &[5, 10], Err(Busy::Rate));
        check(rate(100), &[2, 10, 1], Ok(()));
        check(rate(100), &[3, 10, 1], Err(Busy::Rate));
        let slower = Limits { min_rate: 5 * MIB, ..rate(10) };
        check(slower, &each_one(1), Ok(()));
    }

    #[test]
    fn clients_are_told_apart_and_forgotten() {
        let admission = Admission::new(&limits(9, 1, None));
        let of = |address: IpAddr| admission.admit(ClientNet::of(address));
        let first = admission.admit(client(1)).expect("the first one");
        assert_eq!(admission.admit(client(1)).expect_err("its second one"), Busy::Client);
        let mapped = Ipv4Addr::from([10, 0, 0, 1]).to_ipv6_mapped();
        assert_eq!(of(mapped.into()).expect_err("the same client"), Busy::Client);
        let second = admission.admit(client(2)).expect("another client");
        let host = |text: &str| of(text.parse().expect("an address"));
        let third = host("2001:db8::1").expect("a host");
        assert_eq!(host("2001:db8::ffff:2").expect_err("the same host"), Busy::Client);
        drop(host("2001:db8:0:1::1").expect("another host"));
        drop(first);
        drop(admission.admit(client(1)).expect("again"));
        drop((second, third));
        assert_eq!(admission.books().running.owners(), 0);
        assert_eq!(admission.books().running.all(), 0);
    }

    /// A request that waits, beside the test.
    fn wait(
        admission: &Arc<Admission>,
        number: u8,
    ) -> tokio::task::JoinHandle<Result<Permit, Busy>> {
        let admission = Arc::clone(admission);
        tokio::spawn(async move { admission.wait(client(number)).await })
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_over_a_bound_waits_and_then_is_refused() {
        let rate = Some(20 * MIB);
        for (limits, counts, busy) in [
            (limits(9, 2, None), [2, 0], Busy::Client),
            (limits(2, 9, None), [1, 1], Busy::Transfers),
            (limits(9, 9, rate), [2, 0], Busy::Rate),
        ] {
            let admission = Admission::new(&limits);
            let take = |number| admission.admit(client(number)).expect("a place");
            let mut held: Vec<_> = (0..counts[0]).map(|_| take(1)).collect();
            held.extend((0..counts[1]).map(|_| take(2)));
            assert_eq!(admission.admit(client(1)).expect_err("over it"), busy);
            let before = tokio::time::Instant::now();
            assert_eq!(admission.wait(client(1)).await.expect_err("over it"), busy);
            assert_eq!(before.elapsed(), limits.queue_wait);
            let waiting = wait(&admission, 1);
            tokio::task::yield_now().await;
            held.pop();
            held.pop();
            drop(waiting.await.expect("no panic").expect("there is room"));
            drop(held);
            let impatient = Limits { queue_wait: Duration::ZERO, ..limits };
            let admission = Admission::new(&impatient);
            let _held: Vec<_> = (0..2).filter_map(|_| admission.admit(client(1)).ok()).collect();
            let _other = admission.admit(client(2)).ok().filter(|_| counts[1] > 0);
            let before = tokio::time::Instant::now();
            assert!(admission.wait(client(1)).await.is_err());
            assert!(before.elapsed().is_zero());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_least_is_let_in_first_and_who_leaves_holds_nothing_up() {
        let admission = Admission::new(&limits(4, 9, None));
        let take = |number| admission.admit(client(number)).expect("a place");
        let mut held = [take(1), take(1), take(2), take(3)].map(Some);
        let more = wait(&admission, 1);
        tokio::task::yield_now().await;
        let (gone, new) = (wait(&admission, 4), wait(&admission, 5));
        tokio::task::yield_now().await;
        gone.abort();
        held[3] = None;
        let new = new.await.expect("no panic").expect("it has none");
        assert!(gone.await.expect_err("aborted").is_cancelled());
        assert!(!more.is_finished());
        (held[0], held[1]) = (None, None);
        drop(more.await.expect("no panic").expect("its turn"));
        drop((held, new));
        let books = admission.books();
        assert_eq!((books.running.all(), books.queue.len()), (0, 0));
    }

    /// Lowered below what is under way, and raised for who waits.
    #[tokio::test(start_paused = true)]
    async fn other_bounds_count_what_is_under_way() {
        let now = Instant::now();
        let rate = |mib| limits(9, 9, Some(mib * MIB));
        for (wide, narrow, clients, busy) in [
            (limits(9, 9, None), limits(2, 9, None), [1, 2, 3, 4], Busy::Transfers),
            (limits(9, 9, None), limits(9, 2, None), [5; 4], Busy::Client),
            (rate(50), rate(20), [1, 2, 3, 4], Busy::Rate),
        ] {
            let admission = Admission::new(&wide);
            let admit = |number| admission.admit(client(number));
            let mut held: Vec<_> =
                clients.iter().map(|number| admit(*number).expect("room")).collect();
            admission.apply(&narrow, now);
            while held.len() > 1 {
                assert_eq!(admit(5).expect_err("over it"), busy);
                held.pop();
            }
            held.push(admit(5).expect("the second one"));
            assert_eq!(admit(6).is_err(), busy != Busy::Client);
            let waiting = wait(&admission, if busy == Busy::Client { 5 } else { 6 });
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished(), "{busy:?}");
            admission.apply(&wide, now);
            drop(waiting.await.expect("no panic").expect("there is room at once"));
            drop(held);
            assert_eq!(admission.books().running.all(), 0);
        }
    }

    #[test]
    fn another_rate_holds_for_what_is_under_way() {
        let (start, bytes) = (Instant::now(), 4 << 20);
        let admission = Admission::new(&limits(9, 9, None));
        let mut permit = admission.admit(client(1)).expect("the first one");
        assert_eq!(permit.pass(bytes, start), None);
        for (rate, millis) in [(Some(10), 400), (Some(20), 200), (None, 0), (Some(1), 4000)] {
            admission.apply(&limits(9, 9, rate.map(|rate: u64| rate * MIB)), start);
            let [first, second] = [(); 2].map(|()| permit.pass(bytes, start).unwrap_or_default());
            assert_eq!(second.saturating_sub(first).as_millis(), millis, "{rate:?}");
        }
    }

    #[test]
    fn without_a_rate_nobody_waits() {
        let now = Instant::now();
        let admission = Admission::new(&limits(9, 9, None));
        let mut permit = admission.admit(client(1)).expect("the first one");
        assert_eq!(permit.pass(1 << 30, now), None);
        let admission = Admission::new(&limits(9, 9, Some(10 * MIB)));
        let mut permit = admission.admit(client(1)).expect("the first one");
        let waits: Duration = (0..10).filter_map(|_| permit.pass(1 << 20, now)).sum();
        assert_eq!(waits, Duration::from_millis(5500), "a tenth of a second after the other");
    }

    /// However small the pieces are in which a transfer's bytes come.
    #[test]
    fn shares_are_equal() {
        let admission = Admission::new(&limits(9, 9, Some(64 * MIB)));
        let start = Instant::now();
        let sizes = [PACED_PIECE, 16 << 10, 1000];
        let mut transfers: Vec<_> = sizes
            .iter()
            .map(|size| (start, *size, 0, admission.admit(client(1)).expect("three of nine")))
            .collect();
        let end = start + Duration::from_secs(10);
        loop {
            let next = transfers.iter_mut().min_by_key(|(at, ..)| *at).expect("three");
            let (at, size, sent, permit) = next;
            if *at > end {
                break;
            }
            *at += permit.pass(*size, *at).unwrap_or_default();
            *sent += *size as u64;
        }
        let all: u64 = transfers.iter().map(|(_, _, sent, _)| *sent).sum();
        assert!((all / MIB).abs_diff(640) < 10, "the rate, {all}");
        for (_, size, sent, _) in transfers {
            assert!((sent / MIB).abs_diff(213) < 8, "{size}: {sent}");
        }
    }

    proptest! {
        /// However permits come and go, they are counted.
        #[test]
        fn no_permit_is_lost(steps in prop::collection::vec((0..4_u8, any::<bool>()), 0..200)) {
            let admission = Admission::new(&limits(10, 4, None));
            let mut permits: Vec<(u8, Permit)> = Vec::new();
            for (number, comes) in steps {
                let of_client = permits.iter().filter(|(of, _)| *of == number).count();
                if comes {
                    let left = 10 - permits.len();
                    let expected = if of_client >= 4 {
                        Some(Busy::Client)
                    } else {
                        (left == 0 || of_client >= left).then_some(Busy::Transfers)
                    };
                    match admission.admit(client(number)) {
                        Ok(permit) => {
                            prop_assert_eq!(expected, None);
                            permits.push((number, permit));
                        }
                        Err(busy) => prop_assert_eq!(Some(busy), expected),
                    }
                } else if let Some(at) = permits.iter().position(|(of, _)| *of == number) {
                    permits.swap_remove(at);
                }
                prop_assert_eq!(admission.books().running.all(), permits.len());
            }
            permits.clear();
            prop_assert_eq!(admission.books().running.owners(), 0);
        }

        /// A client that has nothing is let in while others have more than one each, or room is
        /// left; and nobody has more than its bounds.
        #[test]
        fn no_client_takes_what_others_need(
            comes in prop::collection::vec(0..6_u8, 0..200),
            all in 1..40_usize,
            at_rate in 1..20_u64,
        ) {
            let limits = limits(all, 9, Some(at_rate * 10 * MIB));
            let bounds = Bounds::new(&limits);
            let mut running = KeyedCount::default();
            for number in comes {
                if bounds.admit(&running, client(number)).is_ok() {
                    running.begin(client(number));
                }
                prop_assert!(running.all() <= all && running.of(client(number)) <= 9);
                prop_assert!(running.owners() as u64 <= at_rate);
                let most = (0..6).map(|number| running.of(client(number))).max().unwrap_or(0);
                if running.owners() == 1 && at_rate > 1 && all > 1 {
                    let new = bounds.admit(&running, client(9));
                    prop_assert_eq!(new, Ok(()), "{} of {}", most, all);
                }
            }
        }
    }
}
