//! Bounds on bytes per second, of one or of several who share one. Pure: time is an argument.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How far a transfer may fall behind its rate and make up for it later. More would be a burst.
const SLACK: Duration = Duration::from_millis(200);

/// The time that bytes take at a rate, which is not zero.
pub fn time_of(bytes: u64, rate: u64) -> Duration {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Holds a transfer to a rate.
#[derive(Clone, Copy, Debug)]
pub struct Pacer {
    /// Bytes per second, never zero.
    rate: u64,
    /// When the bytes that have passed would have passed at the rate.
    due: Option<Instant>,
}

impl Pacer {
    /// At most so many bytes per second.
    pub fn new(rate: u64) -> Self {
        Self { rate: rate.max(1), due: None }
    }

    /// Notes bytes that have passed, and tells how long to wait before the next ones.
    pub fn pass(&mut self, bytes: usize, now: Instant) -> Duration {
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        let from = self.due.map_or(now, |due| due.max(earliest));
        let due = from + time_of(bytes as u64, self.rate);
        self.due = Some(due);
        due.saturating_duration_since(now)
    }

    /// Forgets what has passed, after a time without a bound.
    pub fn reset(&mut self) {
        self.due = None;
    }
}

/// Billionths of a byte: what a byte per second brings in a nanosecond.
const BILLION: i128 = 1_000_000_000;

/// Holds several to one rate, each to an equal share of it, however many transfers each has; what
/// one does not take is the others'.
///
/// This is fair queueing, with the time reckoned instead of a queue: `level` is what each has been
/// given that always had something to send. Whoever is above it has to wait until it comes up.
#[derive(Debug)]
pub struct SharedPacer<K> {
    /// Bytes per second, never zero.
    rate: u64,
    /// In billionths of a byte, as all of these are.
    level: i128,
    /// When that was reckoned.
    at: Option<Instant>,
    /// What the rate has brought and nobody took, at most that of [`SLACK`]; below zero what was
    /// taken before it was brought.
    left: i128,
    /// Up to where each has taken.
    taken: HashMap<K, i128>,
    /// Who is above the level, the lowest first.
    above: BTreeSet<(i128, K)>,
}

impl<K: Copy + Ord + Hash> SharedPacer<K> {
    /// At most so many bytes per second, together.
    pub fn new(rate: u64) -> Self {
        let (taken, above) = (HashMap::new(), BTreeSet::new());
        Self { rate: rate.max(1), level: 0, at: None, left: 0, taken, above }
    }

    /// Notes bytes of one of them, and tells how long to wait before they pass.
    pub fn pass(&mut self, of: K, bytes: usize, now: Instant) -> Duration {
        self.catch_up(now);
        // Whoever is late by a little goes on where it was, at its own share: clocks are coarse.
        let floor = self.level - self.brought_in(SLACK) / self.count();
        let before = self.taken.get(&of).copied();
        let from = before.map_or(self.level, |taken| taken.max(floor));
        let to = from + bytes as i128 * BILLION;
        self.above.remove(&(before.unwrap_or(from), of));
        self.taken.insert(of, to);
        self.left -= (to.min(self.level) - from).max(0);
        if to > self.level {
            self.above.insert((to, of));
        }
        self.raise();
        let to_come = match to - self.level {
            above @ 1.. => above * self.count() - self.left,
            // Whoever is behind catches up first. The others make up for it.
            _ => -self.left - self.brought_in(SLACK),
        };
        let nanos = to_come.max(0) / i128::from(self.rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Holds them to another rate from now on.
    pub fn set_rate(&mut self, rate: u64, now: Instant) {
        self.catch_up(now);
        self.rate = rate.max(1);
        self.left = self.left.min(self.brought_in(SLACK));
    }

    /// Hands out what the rate has brought by now.
    fn catch_up(&mut self, now: Instant) {
        let since = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.at = Some(self.at.map_or(now, |at| at.max(now)));
        self.left = self.left.saturating_add(self.brought_in(since));
        self.raise();
        self.left = self.left.min(self.brought_in(SLACK));
    }

    /// Forgets one of them, who has nothing more to send.
    pub fn forget(&mut self, gone: K) {
        if let Some(taken) = self.taken.remove(&gone) {
            self.above.remove(&(taken, gone));
        }
    }

    /// Gives what is left to those who are above the level, in equal parts.
    fn raise(&mut self) {
        while let Some((lowest, of)) = self.above.first().copied().filter(|_| self.left > 0) {
            let count = self.count();
            let step = (lowest - self.level).min(self.left / count);
            self.level += step;
            self.left -= step * count;
            if self.level < lowest {
                return;
            }
            self.above.remove(&(lowest, of));
        }
    }

    /// How many have to wait, at least one.
    fn count(&self) -> i128 {
        self.above.len().max(1) as i128
    }

    fn brought_in(&self, time: Duration) -> i128 {
        let nanos = i128::try_from(time.as_nanos()).unwrap_or(i128::MAX);
        nanos.saturating_mul(i128::from(self.rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: u64 = 1000;

    #[test]
    fn bytes_pass_at_the_rate() {
        let start = Instant::now();
        let (mut pace, mut now, mut passed) = (Pacer::new(RATE), start, 0);
        for bytes in [1, 500, 20, 3000, 7, 472].into_iter().cycle().take(60) {
            now += pace.pass(bytes, now);
            passed += bytes as u64;
        }
        let took = now.duration_since(start);
        assert_eq!(took.as_millis(), u128::from(passed * 1000 / RATE));
    }

    #[test]
    fn a_pause_is_made_up_for_only_a_little() {
        let start = Instant::now();
        let mut pace = Pacer::new(RATE);
        assert_eq!(pace.pass(100, start), Duration::from_millis(100));
        let later = start + Duration::from_secs(60);
        assert_eq!(pace.pass(100, later), Duration::ZERO);
        assert_eq!(pace.pass(200, later), Duration::from_millis(100));
        pace.reset();
        assert_eq!(pace.pass(200, later), Duration::from_millis(200));
    }

    /// Connections of clients, each as a client, the bytes that it sends at once and what it takes
    /// per second by itself; and how late each of them is woken. What each client got in four
    /// seconds, in MiB.
    fn shared(rate: u64, connections: &[(u8, usize, u64)], late: Duration) -> Vec<u64> {
        let (start, mut pace) = (Instant::now(), SharedPacer::new(rate));
        let mut next: Vec<_> = connections.iter().map(|of| (start, *of, 0)).collect();
        let clients = connections.iter().map(|(client, ..)| *client).max().unwrap_or(0);
        let mut sent = vec![0_u64; usize::from(clients) + 1];
        loop {
            let next = next.iter_mut().min_by_key(|(at, ..)| *at).expect("one");
            let (at, (client, bytes, own), under_way) = next;
            if at.duration_since(start) > Duration::from_secs(4) {
                return sent.into_iter().map(|bytes| bytes >> 20).collect();
            }
            sent[usize::from(*client)] += *under_way;
            let wait = pace.pass(*client, *bytes, *at);
            let woken = if wait.is_zero() { wait } else { wait + late };
            *at += woken.max(time_of(*bytes as u64, *own));
            *under_way = *bytes as u64;
        }
    }

    const PIECE: usize = 64 << 10;
    const MIB: u64 = 1 << 20;
    const FAST: u64 = u64::MAX;

    #[test]
    fn clients_have_equal_shares_however_many_transfers_they_have() {
        let one = |client| (client, PIECE, FAST);
        for late in [0, 1, 2].map(Duration::from_millis) {
            for rate in [10, 100, 500].map(|mib| mib * MIB) {
                let check = |what: &str, connections: &[(u8, usize, u64)], shares: &[u64]| {
                    let found = shared(rate, connections, late);
                    for (found, share) in found.iter().zip(shares) {
                        // In hundredths of the rate.
                        let expected = rate / MIB * 4 * share / 100;
                        let most = expected / 8 + 2;
                        let off = found.abs_diff(expected);
                        assert!(off <= most, "{what} {rate} {late:?}: {found} of {expected} MiB");
                    }
                };
                check("alone", &[one(0)], &[100]);
                check("alone with many", &[one(0); 16], &[100]);
                check("two", &[one(0), one(1)], &[50, 50]);
                check("one beside sixteen", &[&[one(0); 16][..], &[one(1)]].concat(), &[50, 50]);
                let many = [&[one(0); 100][..], &[one(1); 10], &[one(2)]].concat();
                check("a hundred, ten and one", &many, &[33, 33, 33]);
                let small = [(0, 16 << 10, FAST), (0, 1000, FAST), (1, PIECE, FAST)];
                if late.is_zero() {
                    check("small pieces", &small, &[50, 50]);
                }
                let slow = [(0, PIECE, rate / 10), (1, PIECE, FAST), (2, PIECE, FAST)];
                check("one who takes less", &slow, &[10, 45, 45]);
                let slow = [&[(0, PIECE, rate / 200); 20][..], &[one(1); 16], &[one(2)]].concat();
                check("one who takes less by many", &slow, &[10, 45, 45]);
            }
        }
    }

    #[test]
    fn another_rate_holds_from_then_on() {
        let (mut pace, start) = (SharedPacer::new(RATE), Instant::now());
        assert_eq!(pace.pass(1, 1000, start), Duration::from_secs(1));
        // Half of that was brought by then, and the rest comes in half the time.
        let later = start + Duration::from_millis(500);
        pace.set_rate(2 * RATE, later);
        assert_eq!(pace.pass(1, 1000, later), Duration::from_millis(750));
        pace.set_rate(RATE / 2, later);
        assert_eq!(pace.pass(1, 500, later), Duration::from_secs(4));
    }

    #[test]
    fn whoever_has_nothing_more_is_forgotten() {
        let (mut pace, now) = (SharedPacer::new(RATE), Instant::now());
        assert_eq!(pace.pass(1, 100, now), Duration::from_millis(100));
        assert_eq!(pace.pass(2, 100, now), Duration::from_millis(200), "both, side by side");
        pace.forget(1);
        pace.forget(3);
        assert_eq!(pace.pass(2, 100, now), Duration::from_millis(200), "the second one alone");
        pace.forget(2);
        assert!(pace.above.is_empty() && pace.taken.is_empty());
    }

    proptest! {
        /// However they come and go.
        #[test]
        fn never_more_passes_than_the_rate_brings(
            steps in prop::collection::vec((0..4_u8, 1..200_usize, 0..300_u64), 1..300),
        ) {
            let (start, mut pace) = (Instant::now(), SharedPacer::new(RATE));
            let (mut now, mut passed, mut ends) = (start, 0_u64, start);
            let mut busy = [start; 4];
            for (client, bytes, pause) in steps {
                now += Duration::from_millis(pause);
                let at = now.max(busy[usize::from(client)]);
                now = at;
                busy[usize::from(client)] = at + pace.pass(client, bytes, at);
                ends = ends.max(busy[usize::from(client)]);
                passed += bytes as u64;
            }
            // What was under way when others came was promised to each for itself.
            let most = (ends.duration_since(start) + SLACK * 2).as_millis();
            let most = most * u128::from(RATE) / 1000;
            prop_assert!(u128::from(passed) <= most + 4 * 400, "{passed} of {most}");
        }
    }
}
