//! Events that are too many to have a line of the log each. Pure: time is an argument.

use std::time::{Duration, Instant};

/// Least time between two lines, where nothing else is said.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// How many there were since somebody said so.
#[derive(Clone, Copy, Debug)]
pub struct LogLimiter {
    count: u64,
    said: Option<Instant>,
    every: Duration,
}

impl Default for LogLimiter {
    fn default() -> Self {
        Self::said_every(SAID_EVERY)
    }
}

impl LogLimiter {
    /// With at least this time between two lines.
    pub const fn said_every(every: Duration) -> Self {
        Self { count: 0, said: None, every }
    }

    /// Counts one. How many there were since the last time that it was said, where it is to be said
    /// now.
    pub fn count(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        if self.said.is_some_and(|said| now.saturating_duration_since(said) < self.every) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_spoken_of_now_and_then_with_their_number() {
        let (mut refusals, start) = (LogLimiter::default(), Instant::now());
        let mut refuse = |seconds| refusals.count(start + Duration::from_secs(seconds));
        let said = [0, 0, 1, 9, 10, 11, 19, 25].map(&mut refuse);
        assert_eq!(said, [Some(1), None, None, None, Some(4), None, None, Some(3)]);
    }
}
