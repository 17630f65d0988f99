//! What an answer gives of a copy.

use std::sync::Arc;

use http::StatusCode;

use super::portion::Portion;
use crate::index::Source;
use crate::route::answer::ArchiveHead;
use crate::route::asked::Asked;
use crate::route::pinned_copy::PinnedCopy;
use crate::route::range::{ByteRange, Selection};

/// An answer that is about to be given.
#[derive(Clone, Debug)]
pub struct Part {
    /// Of which copy.
    pub given: Arc<PinnedCopy>,
    /// How long that is, where it is known.
    pub length: Option<u64>,
    /// Which bytes of it.
    pub ranges: Vec<ByteRange>,
}

impl Part {
    /// What a target is about to give, by the head of its answer.
    pub fn of_head(head: &ArchiveHead, asked: &Asked, source: &Source) -> Self {
        let given = Arc::new(PinnedCopy { target: source.target.clone(), copy: head.copy });
        let (length, ranges) = match (head.status, head.content_range) {
            (StatusCode::OK, _) => (Some(head.length), all_of(head.length)),
            (_, Some(found)) => (Some(found.total), found.range.into_iter().collect()),
            (_, None) => (
                source.listed.size,
                source.listed.size.map_or_else(Vec::new, |total| selected(asked, total)),
            ),
        };
        Self { given, length, ranges }
    }

    /// What a file of so many bytes gives.
    pub fn of_file(given: Arc<PinnedCopy>, length: u64, asked: &Asked) -> Self {
        let holds = asked.if_range.as_ref().is_none_or(|condition| condition.holds(given.copy));
        let ranges = if holds { selected(asked, length) } else { all_of(length) };
        Self { given, length: Some(length), ranges }
    }

    /// Whether it begins with the first byte, and where the request named its copy, has all of it.
    pub(super) fn is_from_start(&self, portion: Option<Portion>) -> bool {
        let is_first = |range: &ByteRange| range.start() == 0;
        let is_all = |range: &ByteRange| self.length.is_none_or(|length| range.end() == length);
        self.ranges
            .first()
            .is_some_and(|range| is_first(range) && (portion.is_some() || is_all(range)))
    }
}

fn all_of(length: u64) -> Vec<ByteRange> {
    ByteRange::new(0, length).into_iter().collect()
}

fn selected(asked: &Asked, total: u64) -> Vec<ByteRange> {
    match asked.range.select(total) {
        Selection::Whole => all_of(total),
        Selection::Part(range) => vec![range],
        Selection::Parts(ranges) => ranges,
        Selection::Unsatisfiable => Vec::new(),
    }
}
