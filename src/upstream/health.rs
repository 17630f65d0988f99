//! How one target does, judged by what it was asked for anyway. Pure: time is an argument.
//!
//! A target that fails rests, twice as long each time. When it comes back it is given one transfer
//! and, with each one that gets somewhere, twice as many. How fast it is decides what share of the
//! clients it gets, see `route/`; nothing is asked of a target to find that out.

use std::time::{Duration, Instant};

use crate::limit::Rest;

/// Bytes whose delivery stands for all: an incremental archive of the smaller kind. The time to
/// connect matters next to that, and does not decide.
const TYPICAL: u64 = 256 << 20;
/// Bytes per second above which no client gains anything.
const FAST: u64 = 256 << 20;
/// What one new time to connect or to answer counts against all before it.
const WEIGHT: f64 = 0.3;
/// Time after which what was fast counts half against what was slower since. A transfer is as slow
/// as the slower side of it, so the fastest of late tells most about a target.
const FORGET_SPEED: Duration = Duration::from_secs(30);
/// Time after which nothing is known any more: by then it may be another one.
const FORGET_ALL: Duration = Duration::from_secs(300);
/// Time after which a failure counts half.
const FORGET_FAILURE: Duration = Duration::from_secs(60);

/// What is known of one target.
#[derive(Clone, Debug, Default)]
pub(super) struct Health {
    rest: Rest,
    /// How often it was left alone for a while.
    ejections: u64,
    /// Transfers that it may carry after a failure; without one as many as any.
    ramp: Option<usize>,
    /// Seconds to connect, and from there to the head of the answer.
    connect: Option<f64>,
    answer: Option<f64>,
    /// Bytes per second, and when that was noted.
    rate: Option<(f64, Instant)>,
    /// Failures of late, and when that was noted.
    failures: Option<(f64, Instant)>,
}

impl Health {
    /// Notes that a transfer failed by the target's fault.
    pub(super) fn failed(&mut self, now: Instant) {
        if self.rest.failed(now) {
            self.ejections = self.ejections.saturating_add(1);
            let failures = self.failures_of_late(now) + 1.0;
            self.failures = Some((failures, now));
        }
    }

    /// Notes that it cannot be relied on to carry more than the transfers that deliver.
    pub(super) fn weakened(&mut self, delivering: usize) {
        self.ramp = Some(delivering.max(1));
    }

    /// Notes that a transfer came to its end.
    pub(super) fn succeeded(&mut self) {
        self.rest = Rest::default();
        self.progressed();
    }

    /// Notes that a transfer has got somewhere.
    pub(super) fn progressed(&mut self) {
        self.ramp = self.ramp.map(|ramp| ramp.saturating_mul(2));
    }

    /// Notes how long it took to connect, and from there to the head of the answer.
    pub(super) fn opened(&mut self, connect: Duration, answer: Duration) {
        let mean = |old: Option<f64>, new: Duration| {
            let new = new.as_secs_f64();
            Some(old.map_or(new, |old| old + WEIGHT * (new - old)))
        };
        self.connect = mean(self.connect, connect);
        self.answer = mean(self.answer, answer);
    }

    /// Notes that `bytes` came while `waited` was spent on waiting for them.
    pub(super) fn carried(&mut self, bytes: u64, waited: Duration, now: Instant) {
        let new = approximate(bytes) / waited.as_secs_f64().max(1e-6);
        // What came at once out of a socket would be believed for too long.
        let new = new.min(approximate(FAST));
        let rate = match self.rate {
            Some((old, at)) if old > new => new + (old - new) * remains(at, now, FORGET_SPEED),
            _ => new,
        };
        self.rate = Some((rate, now));
    }

    /// How often it was left alone for a while, since it is known.
    pub(super) fn ejections(&self) -> u64 {
        self.ejections
    }

    /// Bytes per second of late, as it is chosen by.
    pub(super) fn rate(&self, now: Instant) -> Option<u64> {
        let (rate, at) = self.rate?;
        let known = now.saturating_duration_since(at) < FORGET_ALL;
        // At most `FAST`, and never below zero.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        known.then_some(rate as u64)
    }

    /// Until when the target is left alone, where it is.
    pub(super) fn rests_until(&self, now: Instant) -> Option<Instant> {
        self.rest.until().filter(|until| *until > now)
    }

    /// Whether it is left alone for a while.
    pub(super) fn is_resting(&self, now: Instant) -> bool {
        self.rest.is_on(now)
    }

    /// Transfers that it may carry at once, of `most`. Never none: where all targets rest the least
    /// bad one is tried.
    pub(super) fn allowance(&self, most: usize, now: Instant) -> usize {
        if self.is_resting(now) { 1 } else { self.ramp.map_or(most, |ramp| ramp.min(most)) }
    }

    /// Time that it needs for a typical delivery, longer after failures; nothing where it has not
    /// delivered anything of late.
    pub(super) fn cost(&self, now: Instant) -> Option<Duration> {
        let fresh = |at: Instant| now.saturating_duration_since(at) < FORGET_ALL;
        let (rate, _) = self.rate.filter(|(_, at)| fresh(*at))?;
        let typical = approximate(TYPICAL) / rate.max(1.0);
        let seconds = self.connect.unwrap_or(0.0) + self.answer.unwrap_or(0.0) + typical;
        Some(Duration::from_secs_f64(seconds * (1.0 + self.failures_of_late(now))))
    }

    fn failures_of_late(&self, now: Instant) -> f64 {
        self.failures.map_or(0.0, |(count, at)| count * remains(at, now, FORGET_FAILURE))
    }
}

/// What is left of something after the time since `at`, of which half is lost in each `half`.
fn remains(at: Instant, now: Instant, half: Duration) -> f64 {
    let age = now.saturating_duration_since(at).as_secs_f64() / half.as_secs_f64();
    0.5_f64.powf(age)
}

#[expect(clippy::cast_precision_loss, reason = "rates need no more than 52 bits")]
fn approximate(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_target_comes_back_slowly() {
        let start = Instant::now();
        let mut health = Health::default();
        assert_eq!(health.allowance(4, start), 4);
        health.failed(start);
        health.weakened(0);
        assert!(health.is_resting(start));
        assert_eq!(health.allowance(4, start), 1, "as the last resort");
        let back = at(start, 1);
        assert!(!health.is_resting(back));
        let mut allowed = Vec::new();
        for _ in 0..4 {
            allowed.push(health.allowance(4, back));
            health.progressed();
        }
        assert_eq!(allowed, [1, 2, 4, 4]);
        health.failed(back);
        health.weakened(0);
        assert!(health.is_resting(at(start, 2)), "twice as long");
        assert_eq!(health.allowance(4, at(start, 3)), 1);
        // The end of a transfer is progress as well.
        health.succeeded();
        assert_eq!(health.allowance(4, at(start, 3)), 2);
        health.failed(at(start, 3));
        assert!(!health.is_resting(at(start, 4)), "from the beginning");
        assert_eq!(health.rests_until(at(start, 3)), Some(at(start, 4)));
        assert_eq!(health.rests_until(at(start, 4)), None);
    }

    #[test]
    fn what_delivers_goes_on() {
        let start = Instant::now();
        let mut health = Health::default();
        health.failed(start);
        assert_eq!(health.allowance(4, at(start, 1)), 4, "of an archive that is not sound");
        health.weakened(3);
        assert_eq!(health.allowance(4, at(start, 1)), 3);
        health.progressed();
        assert_eq!(health.allowance(4, at(start, 1)), 4);
    }

    #[test]
    fn cost_is_time() {
        let start = Instant::now();
        let mut health = Health::default();
        assert_eq!(health.cost(start), None);
        health.opened(Duration::from_millis(100), Duration::from_millis(400));
        assert_eq!(health.cost(start), None, "before it delivered anything");
        health.carried(128 * MIB, Duration::from_secs(1), start);
        assert_eq!(health.cost(start), Some(Duration::from_millis(2500)));
        health.failed(start);
        assert_eq!(health.cost(start), Some(Duration::from_secs(5)));
        // Transfers that fail together are one failure.
        health.failed(start);
        assert_eq!(health.cost(start), Some(Duration::from_secs(5)));
        assert_eq!(health.cost(at(start, 60)), Some(Duration::from_millis(3750)));
    }

    #[test]
    fn nobody_gains_from_more_than_fast() {
        let start = Instant::now();
        let cost = |rate: u64| {
            let mut health = Health::default();
            health.carried(rate, Duration::from_secs(1), start);
            health.cost(start).expect("it delivered")
        };
        assert_eq!(cost(FAST), cost(FAST * 100));
        assert!(cost(FAST / 2) > cost(FAST));
        assert!(cost(0) > cost(1 << 10) && cost(0) < Duration::MAX);
    }

    #[test]
    fn the_fastest_of_late_counts() {
        let start = Instant::now();
        let mut health = Health::default();
        let cost = |health: &Health| health.cost(start).expect("it delivered").as_millis();
        health.carried(64 * MIB, Duration::from_secs(1), start);
        assert_eq!(cost(&health), 4000);
        health.carried(128 * MIB, Duration::from_secs(1), start);
        assert_eq!(cost(&health), 2000);
        // Of a slow client.
        health.carried(MIB, Duration::from_secs(1), start);
        assert_eq!(cost(&health), 2000);
        health.carried(64 * MIB, Duration::from_secs(1), at(start, 30));
        assert_eq!(cost(&health), 256_000 / 96);
        assert_eq!(health.cost(at(start, 330)), None, "long ago");
    }
}
