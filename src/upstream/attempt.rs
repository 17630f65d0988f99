//! One try of a source: how long each part of it took, and whose fault it is where it breaks off.
//! Pure: times are arguments.

use std::time::{Duration, Instant};

use crate::route::SourceFailure;

/// A pause of this length between two pieces of a body means that the client took none. Servers cut
/// such readers, which says nothing about the server; what was under way still arrives after that.
const CLIENT_IS_SLOW: Duration = Duration::from_secs(5);
/// A body that breaks off this late has met a server's bound on the whole transfer (250 s on
/// Agave), or a server that will refuse the next connection anyway.
const LONG_TRANSFER: Duration = Duration::from_secs(200);

/// Who takes the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// A client, which may pause.
    Client,
    /// The reader is this edge, which takes what there is.
    Edge,
}

/// One try of a source.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    reader: Reader,
    began: Instant,
    connected: Option<Instant>,
    /// When the head was accepted, or the last piece of the body passed on.
    last_piece: Option<Instant>,
    /// Whether there was a pause within the body.
    paused: bool,
}

impl Attempt {
    /// An attempt that begins now, for this reader.
    pub fn begin(reader: Reader, now: Instant) -> Self {
        Self { reader, began: now, connected: None, last_piece: None, paused: false }
    }

    /// When it began.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// How long it has been going on.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }

    /// Notes that the source is connected to.
    pub fn connected(&mut self, now: Instant) {
        self.connected = Some(now);
    }

    /// Notes that the head of its answer is accepted. How long it took to connect, and from there
    /// to the head.
    pub fn answered(&mut self, now: Instant) -> Option<(Duration, Duration)> {
        let connected = self.connected?;
        self.last_piece = Some(now);
        let connect = connected.saturating_duration_since(self.began);
        Some((connect, now.saturating_duration_since(connected)))
    }

    /// Notes that a piece of the body is passed on, and says how long that was waited for.
    pub fn piece(&mut self, now: Instant) -> Duration {
        let since = self.last_piece.replace(now).unwrap_or(now);
        let waited = now.saturating_duration_since(since);
        self.paused |= waited >= CLIENT_IS_SLOW;
        waited
    }

    /// Notes that the next piece is not taken before this time has passed, by our own will.
    pub fn held_up(&mut self, delay: Duration) {
        self.last_piece = self.last_piece.map(|last| last + delay);
    }

    /// Whether a body that breaks off now does so by the target's fault.
    ///
    /// Silence is: it counts only while the target is waited for.
    pub fn is_targets_fault(&self, failure: &SourceFailure, now: Instant) -> bool {
        if matches!(failure, SourceFailure::Timeout | SourceFailure::Slow) {
            return true;
        }
        let since = self.last_piece.unwrap_or(self.began);
        let pauses = self.paused || now.saturating_duration_since(since) >= CLIENT_IS_SLOW;
        let is_slow_client = self.reader == Reader::Client && pauses;
        !is_slow_client && self.age(now) < LONG_TRANSFER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One whose pieces came at these seconds, after a head at the first of them.
    fn attempt(reader: Reader, start: Instant, seconds: &[u64]) -> Attempt {
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut attempt = Attempt::begin(reader, start);
        if let [head, pieces @ ..] = seconds {
            attempt.connected(start);
            attempt.answered(at(*head));
            for piece in pieces {
                attempt.piece(at(*piece));
            }
        }
        attempt
    }

    #[track_caller]
    fn check(seconds: &[u64], broke: u64, by_edge: bool, by_client: bool) {
        let start = Instant::now();
        let now = start + Duration::from_secs(broke);
        for (reader, expected) in [(Reader::Edge, by_edge), (Reader::Client, by_client)] {
            let attempt = attempt(reader, start, seconds);
            let fault = |failure| attempt.is_targets_fault(&failure, now);
            assert_eq!(fault(SourceFailure::Broken), expected, "{reader:?} {seconds:?} {broke}");
            assert!(fault(SourceFailure::Timeout) && fault(SourceFailure::Slow));
        }
    }

    #[test]
    fn what_breaks_off_is_the_targets_fault_unless_its_reader_paused_or_it_was_long() {
        check(&[], 0, true, true);
        check(&[], 4, true, true);
        check(&[1], 2, true, true);
        check(&[1, 2, 3], 4, true, true);
        // A pause at the end, or before that.
        check(&[1, 2], 7, true, false);
        check(&[1, 6, 7], 8, true, false);
        check(&[1, 5, 9], 10, true, true);
        // A server's bound on the whole transfer.
        let steady: Vec<u64> = (1..199).collect();
        check(&steady, 199, true, true);
        check(&steady, 200, false, false);
    }

    #[test]
    fn how_long_each_part_took_is_told() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut attempt = Attempt::begin(Reader::Client, start);
        assert_eq!(attempt.answered(at(1)), None, "of what was not connected to");
        attempt.connected(at(1));
        let seconds = Duration::from_secs;
        assert_eq!(attempt.answered(at(4)), Some((seconds(1), seconds(3))));
        assert_eq!(attempt.piece(at(6)), seconds(2));
        attempt.held_up(seconds(3));
        assert_eq!(attempt.piece(at(10)), seconds(1), "what was our own will does not count");
        assert_eq!((attempt.began(), attempt.age(at(10))), (start, seconds(10)));
    }
}
