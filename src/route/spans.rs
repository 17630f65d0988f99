//! Which bytes of something there are: spans that share no byte and do not touch.

use super::range::ByteRange;

/// Most spans that are told apart. Downloaders fetch some dozens of parts side by side; with more,
/// the two that are nearest to each other count as one.
const MAX_SPANS: usize = 128;

/// A set of bytes, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spans {
    ranges: Vec<ByteRange>,
    /// Whether bytes are counted in that were never added.
    blurred: bool,
    /// Whether bytes are counted in that may be gone since.
    doubted: bool,
}

impl Spans {
    /// Adds these bytes.
    pub(super) fn add(&mut self, added: ByteRange) {
        let from = self.ranges.partition_point(|span| span.end() < added.start());
        let to = self.ranges.partition_point(|span| span.start() <= added.end());
        let start = self.ranges[from..to].first().map_or(added.start(), |span| span.start());
        let end = self.ranges[from..to].last().map_or(added.end(), |span| span.end());
        let joined = ByteRange::new(start.min(added.start()), end.max(added.end()));
        self.ranges.splice(from..to, joined);
        if self.ranges.len() > MAX_SPANS {
            self.blur();
        }
    }

    /// Takes these bytes out.
    pub(super) fn remove(&mut self, removed: ByteRange) {
        let rest = std::mem::take(&mut self.ranges).into_iter().flat_map(|span| {
            let before = ByteRange::new(span.start(), span.end().min(removed.start()));
            let after = ByteRange::new(span.start().max(removed.end()), span.end());
            [before, after].into_iter().flatten()
        });
        self.ranges = rest.collect();
        if self.ranges.len() > MAX_SPANS {
            self.blur();
        }
    }

    /// Adds the bytes of another set.
    pub(super) fn add_all(&mut self, other: &Self) {
        self.blurred |= other.blurred;
        self.doubted |= other.doubted;
        for span in &other.ranges {
            self.add(*span);
        }
    }

    /// From here on it is not known any more which bytes are missing.
    pub(super) fn forget_gaps(&mut self) {
        self.blurred = true;
    }

    /// From here on it is not known whether all of them are still there.
    pub(super) fn doubt(&mut self) {
        self.doubted = true;
    }

    /// Trusts all of them: whoever goes on to the end says that it has what comes before.
    pub(super) fn trust(&mut self) {
        self.doubted = false;
    }

    /// Whether there is any.
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether all of so many bytes are there, for certain.
    pub(super) fn cover(&self, length: u64) -> bool {
        let covers = |span: &ByteRange| span.start() == 0 && span.end() >= length;
        !self.blurred && !self.doubted && self.ranges.first().is_some_and(covers)
    }

    /// Whether they are anything else than the start of something.
    pub(super) fn are_scattered(&self) -> bool {
        match self.ranges[..] {
            [] => false,
            [only] => only.start() > 0,
            _ => true,
        }
    }

    /// How many bytes there are from this position on, where the one before it is there.
    pub(super) fn beyond(&self, position: u64) -> Option<u64> {
        let span =
            self.ranges[..self.ranges.partition_point(|span| span.start() < position)].last();
        span.and_then(|span| span.end().checked_sub(position))
    }

    /// Counts the smallest gap in.
    fn blur(&mut self) {
        let gap = |at: &usize| self.ranges[*at].start() - self.ranges[*at - 1].end();
        let Some(at) = (1..self.ranges.len()).min_by_key(gap) else { return };
        let joined = ByteRange::new(self.ranges[at - 1].start(), self.ranges[at].end());
        self.ranges.splice(at - 1..=at, joined);
        self.blurred = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spans(parts: &[(u64, u64)]) -> Spans {
        let mut spans = Spans::default();
        for (start, end) in parts {
            spans.add(ByteRange::new(*start, *end).expect("a byte"));
        }
        spans
    }

    #[track_caller]
    fn check(parts: &[(u64, u64)], expected: &[(u64, u64)]) {
        let found: Vec<_> =
            spans(parts).ranges.iter().map(|span| (span.start(), span.end())).collect();
        assert_eq!(found, expected, "{parts:?}");
    }

    #[test]
    fn spans_that_meet_are_one() {
        check(&[(0, 5)], &[(0, 5)]);
        check(&[(0, 5), (5, 9)], &[(0, 9)]);
        check(&[(5, 9), (0, 5)], &[(0, 9)]);
        check(&[(0, 5), (6, 9)], &[(0, 5), (6, 9)]);
        check(&[(0, 5), (6, 9), (5, 6)], &[(0, 9)]);
        check(&[(0, 5), (6, 9), (20, 30), (4, 21)], &[(0, 30)]);
        check(&[(3, 4), (3, 4)], &[(3, 4)]);
        check(&[(0, 9), (3, 4)], &[(0, 9)]);
    }

    #[test]
    fn what_is_there_is_told_from_what_is_missing() {
        let two = spans(&[(0, 5), (8, 10)]);
        assert!(two.are_scattered() && !two.cover(10) && two.cover(5) && two.cover(0));
        assert_eq!([0, 1, 5, 6].map(|at| two.beyond(at)), [None, Some(4), Some(0), None]);
        assert_eq!([8, 9, 10, 11].map(|at| two.beyond(at)), [None, Some(1), Some(0), None]);
        assert!(spans(&[(1, 5)]).are_scattered() && !spans(&[(0, 5)]).are_scattered());
        let none = Spans::default();
        assert!(none.is_empty() && !none.are_scattered() && !none.cover(0));
    }

    #[test]
    fn more_spans_than_are_told_apart_are_never_all_of_it() {
        let most = MAX_SPANS as u64;
        let parts: Vec<_> = (0..=most).map(|at| (at * 10, at * 10 + 5)).collect();
        let mut many = spans(&parts);
        assert_eq!(many.ranges.len(), MAX_SPANS);
        many.add(ByteRange::new(0, most * 20).expect("a byte"));
        assert_eq!(many.ranges.len(), 1);
        assert!(!many.cover(most * 20), "nobody knows what was counted in");
    }

    proptest! {
        #[test]
        fn a_set_of_bytes_is_what_was_added_and_not_removed(
            steps in prop::collection::vec((0_usize..64, 1_usize..9, any::<bool>()), 0..40),
        ) {
            let (mut set, mut there) = (Spans::default(), [false; 80]);
            for (start, count, is_added) in steps {
                let end = start + count;
                let range = ByteRange::new(start as u64, end as u64).expect("a byte");
                if is_added { set.add(range) } else { set.remove(range) }
                there[start..end].fill(is_added);
            }
            let has = |at: &usize| there[*at];
            for at in 1..80_usize {
                let beyond = (at..80).take_while(has).count() as u64;
                prop_assert_eq!(set.beyond(at as u64), has(&(at - 1)).then_some(beyond));
                prop_assert_eq!(set.cover(at as u64), (0..at).all(|at| has(&at)));
            }
        }
    }
}
