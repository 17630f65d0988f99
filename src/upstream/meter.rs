//! How fast the bytes of one transfer come, in windows that are long enough to mean something.
//! Pure: times are arguments.

use std::time::Duration;

/// Waiting time of one window.
const WINDOW: Duration = Duration::from_secs(1);
/// The least that an unfinished window has to hold to count.
const LEAST_BYTES: u64 = 1 << 20;
const LEAST_TIME: Duration = Duration::from_millis(250);

/// Bytes, and the time that was spent on waiting for them.
pub(super) type Sample = (u64, Duration);

/// Measures one transfer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    bytes: u64,
    waited: Duration,
}

impl Meter {
    /// Notes bytes that came; a window that is full by that.
    pub(super) fn pass(&mut self, bytes: u64, waited: Duration) -> Option<Sample> {
        self.bytes = self.bytes.saturating_add(bytes);
        self.waited = self.waited.saturating_add(waited);
        (self.waited >= WINDOW).then(|| self.take())
    }

    /// What is left at the end, where it is enough.
    pub(super) fn rest(&mut self) -> Option<Sample> {
        let is_enough = self.bytes >= LEAST_BYTES || self.waited >= LEAST_TIME;
        (is_enough && self.bytes > 0).then(|| self.take())
    }

    fn take(&mut self) -> Sample {
        let Self { bytes, waited } = std::mem::take(self);
        (bytes, waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_a_second_of_waiting() {
        let mut meter = Meter::default();
        let part = Duration::from_millis(400);
        assert_eq!(meter.pass(10, part), None);
        assert_eq!(meter.pass(10, part), None);
        assert_eq!(meter.pass(10, part), Some((30, part * 3)));
        assert_eq!(meter.pass(10, part), None, "the next one");
        assert_eq!(meter.rest(), Some((10, part)));
        assert_eq!(meter.rest(), None);
    }

    #[test]
    fn what_is_too_little_says_nothing() {
        let rest = |bytes, millis| {
            let mut meter = Meter::default();
            meter.pass(bytes, Duration::from_millis(millis));
            meter.rest().is_some()
        };
        assert!(!rest(LEAST_BYTES - 1, 249));
        assert!(rest(LEAST_BYTES, 0));
        assert!(rest(1, 250));
        assert!(!rest(0, 999), "a silent target is a failure, and counted as one");
    }
}
