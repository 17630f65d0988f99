//! Where an answer begins in a file of its client's.

use crate::route::range::{RangeRequest, RangeSpec};

/// Where an answer begins, and whether its request said where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Portion {
    /// At the first byte.
    Start {
        /// Whether it ends somewhere.
        bounded: bool,
    },
    /// Behind it.
    From {
        /// The position, not 0.
        first: u64,
        /// Whether it ends somewhere.
        bounded: bool,
    },
    /// The last so many bytes.
    Suffix(u64),
}

impl Portion {
    /// Whether its request said where it ends.
    pub(super) fn is_bounded(self) -> bool {
        match self {
            Self::Start { bounded } | Self::From { bounded, .. } => bounded,
            Self::Suffix(_) => true,
        }
    }

    /// The portion of a range; of several ranges it is the first position.
    pub fn of(range: &RangeRequest) -> Self {
        let specs: &[RangeSpec] = match range {
            RangeRequest::Whole => return Self::Start { bounded: false },
            RangeRequest::Single(spec) => std::slice::from_ref(spec),
            RangeRequest::Multiple(specs) => specs,
        };
        let positions = specs.iter().filter_map(|spec| match spec {
            RangeSpec::From { first, last } => Some((*first, last.is_some() || specs.len() > 1)),
            RangeSpec::Suffix(_) => None,
        });
        match (positions.min(), specs) {
            (Some((0, bounded)), _) => Self::Start { bounded },
            (Some((first, bounded)), _) => Self::From { first, bounded },
            (None, [RangeSpec::Suffix(count), ..]) => Self::Suffix(*count),
            (None, _) => Self::Start { bounded: false },
        }
    }
}
