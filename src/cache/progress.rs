//! How far a fill has got, and how fast it goes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::abandoned::Abandoned;
use super::sealed::Sealed;

/// Shortest time over which a rate is measured.
const WINDOW: Duration = Duration::from_millis(500);

/// The state of a fill.
#[derive(Clone, Debug)]
pub struct Progress {
    frontier: u64,
    rate: Rate,
    end: Option<End>,
}

/// How a fill ended.
#[derive(Clone, Debug)]
pub enum End {
    /// With the archive.
    Whole(Arc<Sealed>),
    /// With nothing.
    Failed(Abandoned),
}

impl Progress {
    /// The progress of a fill of which nothing is there as yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { frontier: 0, rate: Rate::new(now), end: None }
    }

    /// Bytes that can be read, from the first one on.
    pub fn frontier(&self) -> u64 {
        self.frontier
    }

    /// How the fill ended, where it has.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// The position that the fill will have reached after so much more time, as far as its rate
    /// tells.
    pub fn reach(&self, time: Duration, now: Instant) -> u64 {
        let rate = self.rate.bytes_per_second(now).unwrap_or(0);
        self.frontier.saturating_add(scaled(rate, time))
    }

    /// Bytes per second of late; nothing before the first bytes.
    pub fn rate(&self, now: Instant) -> Option<u64> {
        self.rate.bytes_per_second(now)
    }

    /// Notes that everything up to `frontier` can be read.
    pub(super) fn advance(&mut self, frontier: u64, now: Instant) {
        self.rate.add(frontier.saturating_sub(self.frontier), now);
        self.frontier = frontier;
    }

    pub(super) fn finish(&mut self, end: End) {
        self.end = Some(end);
    }
}

/// `rate` for so much time, in whole bytes.
fn scaled(rate: u64, time: Duration) -> u64 {
    let bytes = u128::from(rate) * time.as_millis() / 1000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Bytes per second over the last window that was full, or the one that is under way where that is
/// longer or slower: what has stalled is slow from then on.
#[derive(Clone, Copy, Debug)]
struct Rate {
    since: Instant,
    bytes: u64,
    last: Option<u64>,
}

impl Rate {
    fn new(now: Instant) -> Self {
        Self { since: now, bytes: 0, last: None }
    }

    fn add(&mut self, bytes: u64, now: Instant) {
        self.bytes += bytes;
        if now.saturating_duration_since(self.since) >= WINDOW {
            *self = Self { since: now, bytes: 0, last: Some(self.of_window(now)) };
        }
    }

    fn bytes_per_second(&self, now: Instant) -> Option<u64> {
        let full = now.saturating_duration_since(self.since) >= WINDOW;
        match self.last {
            Some(last) if full => Some(last.min(self.of_window(now))),
            Some(last) => Some(last),
            None => (self.bytes > 0).then(|| self.of_window(now)),
        }
    }

    /// The rate of the window that is under way.
    fn of_window(&self, now: Instant) -> u64 {
        let millis = now.saturating_duration_since(self.since).as_millis().max(1);
        u64::try_from(u128::from(self.bytes) * 1000 / millis).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of milliseconds and bytes from the beginning, and the rate that is measured at a time.
    #[track_caller]
    fn check(steps: &[(u64, u64)], at: u64, expected: Option<u64>) {
        let start = Instant::now();
        let time = |millis| start + Duration::from_millis(millis);
        let mut progress = Progress::new(start);
        let mut frontier = 0;
        for (millis, bytes) in steps {
            frontier += bytes;
            progress.advance(frontier, time(*millis));
        }
        assert_eq!(progress.rate(time(at)), expected, "{steps:?} at {at}");
        assert_eq!(progress.frontier(), frontier);
    }

    #[test]
    fn the_rate_is_that_of_late() {
        check(&[], 100, None);
        check(&[(0, 10)], 0, Some(10_000));
        check(&[(100, 1000)], 100, Some(10_000));
        check(&[(100, 1000), (500, 1000)], 500, Some(4000));
        check(&[(100, 1000), (500, 1000), (600, 5000)], 600, Some(4000));
        check(&[(500, 1000), (1000, 5000)], 1000, Some(10_000));
        // What has stalled becomes slower and slower.
        check(&[(500, 1000), (1000, 5000)], 1499, Some(10_000));
        check(&[(500, 1000), (1000, 5000)], 2000, Some(0));
        check(&[(500, 1000), (1000, 5000), (1100, 500)], 2000, Some(500));
    }

    #[test]
    fn the_reach_follows_from_the_rate() {
        let start = Instant::now();
        let mut progress = Progress::new(start);
        let two = Duration::from_secs(2);
        assert_eq!(progress.reach(two, start), 0, "nothing is known");
        progress.advance(5000, start + Duration::from_millis(500));
        let later = start + Duration::from_millis(600);
        assert_eq!(progress.reach(two, later), 5000 + 20_000);
        assert_eq!(progress.reach(Duration::ZERO, later), 5000);
        assert_eq!(progress.reach(Duration::MAX, later), u64::MAX);
    }
}
