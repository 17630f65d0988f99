//! How much a client takes of one transfer, and how long it is waited for, over the last seconds.
//! Pure: times are arguments.

use std::time::{Duration, Instant};

/// Seconds that are remembered, the current one included.
const SECONDS: usize = 32;
const SECOND: Duration = Duration::from_secs(1);

/// The last seconds of one transfer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gauge {
    began: Instant,
    bytes: u64,
    /// How long the client has been waited for in all, when that was last told.
    waited: Duration,
    seconds: [Second; SECONDS],
}

/// What happened in one second.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    /// Which one it is, from the beginning.
    number: u64,
    bytes: u64,
    waited: Duration,
}

impl Gauge {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, bytes: 0, waited: Duration::ZERO, seconds: Default::default() }
    }

    /// How long the transfer has been running.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }

    /// Bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Notes bytes that the client takes.
    pub(super) fn pass(&mut self, bytes: u64, now: Instant) {
        self.bytes = self.bytes.saturating_add(bytes);
        let number = self.age(now).as_secs();
        self.second(number).bytes += bytes;
    }

    /// Notes how long the client has been waited for in all. What is new of it lies just behind.
    pub(super) fn wait(&mut self, waited: Duration, now: Instant) {
        let mut new = waited.saturating_sub(self.waited);
        self.waited = self.waited.max(waited);
        let mut number = self.age(now).as_secs();
        for _ in 0..SECONDS {
            let second = self.second(number);
            let part = new.min(SECOND.saturating_sub(second.waited));
            second.waited += part;
            new -= part;
            let Some(before) = number.checked_sub(1).filter(|_| !new.is_zero()) else { return };
            number = before;
        }
    }

    /// Bytes per second over so many of the last seconds, and of no more than there are, where the
    /// client was waited for in most of that time: else whatever comes is not by its doing.
    pub(super) fn rate_of_client(&self, seconds: u64, now: Instant) -> Option<u64> {
        let age = self.age(now);
        let first = age.as_secs().saturating_sub(seconds.min(SECONDS as u64 - 1));
        let time = age.saturating_sub(Duration::from_secs(first)).max(Duration::from_millis(1));
        let (mut bytes, mut waited) = (0, Duration::ZERO);
        for second in self.seconds.iter().filter(|second| second.number >= first) {
            bytes += second.bytes;
            waited += second.waited;
        }
        let rate = u128::from(bytes) * 1_000_000_000 / time.as_nanos();
        (waited * 2 >= time).then(|| u64::try_from(rate).unwrap_or(u64::MAX))
    }

    /// What is noted of a second; what was there of one long ago makes way.
    fn second(&mut self, number: u64) -> &mut Second {
        // Less than there are.
        let place = usize::try_from(number % SECONDS as u64).unwrap_or_default();
        let second = &mut self.seconds[place];
        if second.number != number {
            *second = Second { number, ..Second::default() };
        }
        second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Seconds of bytes and of waiting in each; the rates over two and over thirty of them.
    fn rates(steps: &[(usize, u64, f64)]) -> [Option<u64>; 2] {
        let start = Instant::now();
        let (mut gauge, mut now, mut waited) = (Gauge::new(start), start, Duration::ZERO);
        for (seconds, bytes, waits) in steps {
            for _ in 0..*seconds {
                gauge.pass(*bytes, now);
                now += SECOND;
                waited += SECOND.mul_f64(*waits);
                gauge.wait(waited, now);
            }
        }
        [2, 30].map(|seconds| gauge.rate_of_client(seconds, now))
    }

    #[test]
    fn a_rate_is_that_of_the_last_seconds_and_of_a_client_that_is_waited_for() {
        let steady = rates(&[(60, 4 * MIB, 1.0)]);
        assert!(steady.iter().flatten().all(|rate| (3 * MIB..=5 * MIB).contains(rate)));
        assert_eq!(rates(&[(60, 4 * MIB, 0.1)]), [None, None], "the target is slow");
        let [short, long] = rates(&[(60, 50 * MIB, 0.9), (5, 0, 1.0)]);
        assert_eq!(short, Some(0), "it pauses");
        assert!(long.is_some_and(|rate| rate > 35 * MIB), "{long:?}");
        let [short, long] = rates(&[(60, 50 * MIB, 0.0), (40, 75_000, 1.0)]);
        assert!(short.is_some_and(|rate| rate < 120_000) && long.is_some_and(|r| r < 80_000));
        let [short, long] = rates(&[(1, 4 * MIB, 1.0), (4, 75_000, 1.0)]);
        assert!(short.is_some_and(|rate| rate < 120_000), "a burst is over");
        assert!(long.is_some_and(|rate| rate < MIB), "{long:?}");
        assert_eq!(rates(&[]), [None, None]);
    }

    /// However seldom somebody looks.
    #[test]
    fn what_was_waited_lies_just_behind() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut gauge = Gauge::new(start);
        gauge.pass(MIB, start);
        gauge.wait(Duration::from_secs(9), at(10_500));
        assert_eq!(gauge.rate_of_client(2, at(10_500)), Some(0));
        gauge.wait(Duration::from_secs(9), at(14_500));
        assert_eq!(gauge.rate_of_client(2, at(14_500)), None, "it was not waited for since");
        assert!(gauge.rate_of_client(30, at(14_500)).is_some());
        assert_eq!((gauge.bytes(), gauge.age(at(14_500))), (MIB, Duration::from_millis(14_500)));
        gauge.wait(Duration::from_secs(500), at(700_000));
        assert_eq!(gauge.rate_of_client(30, at(700_000)), Some(0));
    }
}
