//! A bound on bytes per second. Pure: time is an argument.

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
pub struct Pace {
    /// Bytes per second, never zero.
    rate: u64,
    /// When the bytes that have passed would have passed at the rate.
    due: Option<Instant>,
}

impl Pace {
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

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 1000;

    #[test]
    fn bytes_pass_at_the_rate() {
        let start = Instant::now();
        let (mut pace, mut now, mut passed) = (Pace::new(RATE), start, 0);
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
        let mut pace = Pace::new(RATE);
        assert_eq!(pace.pass(100, start), Duration::from_millis(100));
        let later = start + Duration::from_secs(60);
        assert_eq!(pace.pass(100, later), Duration::ZERO);
        assert_eq!(pace.pass(200, later), Duration::from_millis(100));
        pace.reset();
        assert_eq!(pace.pass(200, later), Duration::from_millis(200));
    }
}
