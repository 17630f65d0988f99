//! Copies that clients have something of.

use crate::index::{CopyId, TargetId};

/// The copy that a client has bytes of, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedCopy {
    /// The target that it is on.
    pub target: TargetId,
    /// Which copy.
    pub copy: CopyId,
}
