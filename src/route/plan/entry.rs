//! What the cache has of an archive, and how it is used.

use crate::config::Sharing;
use crate::index::{CopyId, TargetId};

/// What the cache has of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryState<'a> {
    /// The cache has nothing.
    Nothing,
    /// A fetch from this target, which cannot be read yet.
    Filling(&'a TargetId),
    /// A fetch that can be read as it grows.
    Growing {
        /// The target that it comes from.
        target: &'a TargetId,
        /// Which copy it is.
        copy: CopyId,
        /// Bytes of all of it.
        length: u64,
        /// The position up to which it will be there within the time that a range may wait.
        reach: u64,
        /// Whether the target answers ranges.
        ranges: bool,
    },
    /// The cache has all of the archive.
    Whole {
        /// The target that it came from.
        target: &'a TargetId,
        /// Which copy it is.
        copy: CopyId,
    },
}

impl EntryState<'_> {
    /// Which copy can be read.
    pub fn copy(self) -> Option<CopyId> {
        match self {
            Self::Nothing | Self::Filling(_) => None,
            Self::Growing { copy, .. } | Self::Whole { copy, .. } => Some(copy),
        }
    }
}

/// How the cache is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CachePolicy {
    /// Who gets an archive while it is fetched.
    pub sharing: Sharing,
    /// Whether what is in the cache is served although it is no longer the best.
    pub keeps: bool,
}
