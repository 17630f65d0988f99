//! Rests that grow with what goes wrong.

use std::time::{Duration, Instant};

/// Rest after the first failure.
const FIRST: Duration = Duration::from_secs(1);
/// Longest rest.
const LONGEST: Duration = Duration::from_secs(60);

/// The rest after so many failures, at least one: the first one, doubled with each after it.
pub fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    let factor = 2_u32.checked_pow(times.saturating_sub(1)).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(longest)
}

/// How long one rests after so many failures in a row: nothing after none.
pub fn delay(failures: u32) -> Duration {
    if failures == 0 { Duration::ZERO } else { doubled(FIRST, failures, LONGEST) }
}

/// The rest of one who failed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rest {
    failures: u32,
    until: Option<Instant>,
}

impl Rest {
    /// Notes a failure; false where it belongs to those that led to this rest. Twenty transfers
    /// that break together are one event.
    pub fn failed(&mut self, now: Instant) -> bool {
        let is_new = !self.is_on(now);
        if is_new {
            self.failures = self.failures.saturating_add(1);
            self.until = Some(now + delay(self.failures));
        }
        is_new
    }

    /// When it ends, or ended.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// True while it lasts.
    pub fn is_on(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_double_up_to_a_minute() {
        let seconds: Vec<u64> = (0..9).map(|failures| delay(failures).as_secs()).collect();
        assert_eq!(seconds, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(delay(u32::MAX), LONGEST);
    }
}
