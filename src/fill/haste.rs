//! Whether a source brings an archive fast enough to be waited for. Pure: times are arguments.

use std::time::Duration;

/// Bytes per second below which a source is as good as silent: no client would wait for it, and
/// meanwhile nobody else is asked. Measured over so much time that was spent waiting for it.
const LEAST_RATE: u64 = 256 << 10;
const LEAST_WINDOW: Duration = Duration::from_secs(20);
/// How often it is asked whether others wait for what is late, in time that was spent waiting.
const LATE_AGAIN: Duration = Duration::from_secs(1);

/// What a source brings in the time that is spent waiting for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Haste {
    /// Time in which all of it would have come at the least rate, after which it is late.
    time: Duration,
    waited: Duration,
    /// Bytes and time since the last judgement of the rate.
    window: (u64, Duration),
    /// When it is asked next whether that matters.
    next: Duration,
}

/// What is thought of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    Enough,
    /// The source is as good as silent.
    Silent,
    /// The source takes too long for what else could be fetched.
    Late,
}

impl Haste {
    /// For so many bytes, which come in time at this rate in bytes per second, `grace` aside.
    pub(super) fn new(length: u64, rate: u64, grace: Duration) -> Self {
        let time = Duration::from_secs(length / rate.max(1)).saturating_add(grace);
        Self { time, waited: Duration::ZERO, window: (0, Duration::ZERO), next: time }
    }

    /// Begins with another connection, whose rate is its own.
    pub(super) fn reconnect(&mut self) {
        self.window = (0, Duration::ZERO);
    }

    /// Notes bytes that were waited for so long.
    pub(super) fn pass(&mut self, bytes: u64, waited: Duration) -> Judgement {
        self.waited = self.waited.saturating_add(waited);
        let (sum, time) = &mut self.window;
        *sum += bytes;
        *time += waited;
        if *time >= LEAST_WINDOW {
            let (bytes, waited) = std::mem::take(&mut self.window);
            if u128::from(bytes) * 1000 / waited.as_millis() < u128::from(LEAST_RATE) {
                return Judgement::Silent;
            }
        }
        if self.waited <= self.time || self.waited < self.next {
            return Judgement::Enough;
        }
        self.next = self.waited.saturating_add(LATE_AGAIN);
        Judgement::Late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MIB: u64 = 1 << 20;

    #[test]
    fn a_source_is_too_slow_by_what_it_lets_wait_for() {
        let mut haste = Haste::new(u64::MAX, 1, Duration::ZERO);
        let slow = (1..=20).map(|_| haste.pass(LEAST_RATE - 1, SECOND));
        assert_eq!(slow.filter(|found| *found == Judgement::Silent).count(), 1, "after a window");
        assert!((0..100).all(|_| haste.pass(LEAST_RATE, SECOND) == Judgement::Enough));
        // What comes without waiting is no matter of time.
        assert!((0..100_000).all(|_| haste.pass(1, Duration::ZERO) == Judgement::Enough));
        let mut dripping = Haste::new(u64::MAX, 1, Duration::ZERO);
        let slow = |_| dripping.pass(1, Duration::from_secs(9)) == Judgement::Silent;
        assert!((0..3).any(slow));
    }

    #[test]
    fn a_connection_is_judged_by_its_own_rate() {
        let mut haste = Haste::new(u64::MAX, 1, Duration::ZERO);
        for _ in 0..50 {
            haste.reconnect();
            assert!((0..19).all(|_| haste.pass(0, SECOND) == Judgement::Enough));
        }
    }

    #[test]
    fn an_archive_is_late_after_the_time_for_its_size() {
        // Ten seconds for it, and five besides; however many connections bring it.
        let mut haste = Haste::new(40 * MIB, 4 * MIB, 5 * SECOND);
        for second in 1..=15 {
            haste.reconnect();
            assert_eq!(haste.pass(MIB, SECOND), Judgement::Enough, "{second}");
        }
        let late: Vec<Judgement> = (0..4).map(|_| haste.pass(MIB, SECOND / 2)).collect();
        let expected = [Judgement::Late, Judgement::Enough, Judgement::Late, Judgement::Enough];
        assert_eq!(late, expected, "asked now and then");
        let mut quick = Haste::new(400 * MIB, 4 * MIB, Duration::ZERO);
        assert!((0..100).all(|_| quick.pass(4 * MIB, SECOND) == Judgement::Enough));
    }
}
