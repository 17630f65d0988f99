//! One file that is put together by a client, of one copy.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::portion::Portion;
use crate::route::pinned_copy::PinnedCopy;
use crate::route::range::ByteRange;
use crate::route::spans::Spans;

/// What became of bytes that were handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The client's system has not confirmed them yet.
    OnTheWay,
    /// The bytes came, and whether the program has read them is not known yet.
    There,
    /// The program has read them, as far as anybody can tell.
    Taken,
    /// The connection was reset before that.
    Lost,
}

/// Whoever can tell that, of all bytes of one answer.
pub trait Receipt: fmt::Debug + Send + Sync {
    /// What is known now.
    fn arrival(&self) -> Arrival;
}

#[derive(Debug)]
pub(super) struct File {
    pub(super) given: Arc<PinnedCopy>,
    pub(super) length: Option<u64>,
    /// What was handed over, and not asked for again since.
    pub(super) spans: Spans,
    pub(super) running: Vec<Running>,
    /// Of what is not known to have been read.
    pub(super) receipts: Vec<Arc<dyn Receipt>>,
    /// Whether some of it was lost, nobody knows how much.
    pub(super) torn: bool,
    /// Whether another one was begun after it.
    pub(super) superseded: bool,
    /// Whether an answer of it broke off.
    pub(super) loose: bool,
    /// When its last byte was handed over.
    pub(super) last: Instant,
}

/// An answer that is under way.
#[derive(Debug)]
pub(super) struct Running {
    /// Bytes that were handed over; the answer is known by it.
    pub(super) progress: Arc<AtomicU64>,
    pub(super) ranges: Vec<ByteRange>,
    /// Whether the file begins with it.
    pub(super) begins: bool,
    /// Whether it goes on to the end, for a program that has all before it.
    pub(super) resumes: bool,
}

impl File {
    /// A file of which nothing was given yet.
    pub(super) fn new(given: Arc<PinnedCopy>, length: Option<u64>, now: Instant) -> Self {
        Self {
            given,
            length,
            spans: Spans::default(),
            running: Vec::new(),
            receipts: Vec::new(),
            torn: false,
            superseded: false,
            loose: false,
            last: now,
        }
    }

    /// Takes an older one of the same copy in. Of both together nobody knows what is missing.
    pub(super) fn join(&mut self, older: Self) {
        self.spans.add_all(&older.spans);
        self.spans.forget_gaps();
        self.running.extend(older.running);
        self.receipts.extend(older.receipts);
        self.torn |= older.torn;
        self.loose |= older.loose;
        self.last = self.last.max(older.last);
    }

    pub(super) fn is_complete(&self) -> bool {
        let all = self.length.is_some_and(|length| self.spans.cover(length));
        all && !self.torn && self.running.is_empty()
    }

    /// Whether somebody has a part of it.
    pub(super) fn binds(&self) -> bool {
        let is_on_the_way = |receipt: &Arc<dyn Receipt>| receipt.arrival() == Arrival::OnTheWay;
        !self.is_complete() || self.receipts.iter().any(is_on_the_way)
    }

    pub(super) fn is_over(&self) -> bool {
        let has_nothing = self.spans.is_empty() && self.running.is_empty();
        has_nothing || (self.is_complete() && self.receipts.is_empty())
    }

    pub(super) fn settle(&mut self) {
        let (torn, loose) = (&mut self.torn, &mut self.loose);
        self.receipts.retain(|receipt| match receipt.arrival() {
            Arrival::OnTheWay | Arrival::There => true,
            Arrival::Taken => false,
            Arrival::Lost => {
                (*torn, *loose) = (true, true);
                false
            }
        });
    }

    /// How many bytes were given from where a portion begins, where the one before it was given, or
    /// is the last one of an answer that is under way.
    pub(super) fn beyond(&self, portion: Portion) -> Option<u64> {
        let position = match portion {
            Portion::Start { .. } => return None,
            Portion::From { first, .. } => first,
            Portion::Suffix(count) => self.length?.saturating_sub(count),
        };
        let running = self.running.iter().filter_map(|running| running.beyond(position));
        running.chain(self.spans.beyond(position)).min()
    }
}

impl Running {
    pub(super) fn has_handed_over_all(&self) -> bool {
        let all: u64 = self.ranges.iter().map(|range| range.len()).sum();
        self.progress.load(Ordering::Relaxed) >= all
    }

    /// What was handed over of it.
    pub(super) fn handed_over(&self) -> Vec<ByteRange> {
        let mut left = self.progress.load(Ordering::Relaxed);
        let handed_over = self.ranges.iter().filter_map(|range| {
            let count = range.len().min(left);
            left -= count;
            ByteRange::new(range.start(), range.start() + count)
        });
        handed_over.collect()
    }

    pub(super) fn beyond(&self, position: u64) -> Option<u64> {
        if self.ranges.iter().any(|range| range.end() == position) {
            return Some(0);
        }
        let has = |range: &ByteRange| range.start() < position && position <= range.end();
        self.handed_over().into_iter().find(has).map(|range| range.end() - position)
    }
}
