//! Targets that claim what nothing supports.

use std::fmt;

use crate::snapshot::{ArchiveName, Slot};

/// A target that claims archives which nothing supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// The newest of them.
    pub name: ArchiveName,
    /// The highest slot that would have support.
    pub limit: Slot,
    /// What that follows from.
    pub by: Bound,
}

/// What the highest slot that has support follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The reference node's slot.
    Reference,
    /// The other targets.
    Others,
}

impl fmt::Display for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, limit, by } = self;
        let (whom, advice) = match by {
            Bound::Reference => (
                "`rpc` tells",
                "see whether it belongs to this cluster, or set `trusted` for the target or raise \
                 `max_slot_lead`",
            ),
            Bound::Others => (
                "any other target claims",
                "see whether it belongs to this cluster, and set `rpc`, or `trusted` for the \
                 target",
            ),
        };
        write!(
            f,
            "{name} at slot {} is farther ahead of what {whom} than `max_slot_lead` allows (slot \
             {limit}): it is not offered; {advice}",
            name.slot()
        )
    }
}
