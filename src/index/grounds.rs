//! What may be relied on besides what targets claim.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::listing::TargetId;
use crate::snapshot::Slot;

/// Slots that an archive may be ahead of what supports it, unless the configuration says otherwise.
pub const DEFAULT_SLOT_LEAD: u64 = 1000;

/// Whose word counts for what.
#[derive(Clone, Debug)]
pub struct Grounds {
    /// Slots that an archive may be ahead of what supports it.
    pub max_slot_lead: u64,
    /// Groups all of whose targets are trusted.
    pub trusted_groups: BTreeSet<Arc<str>>,
    /// Targets that are trusted.
    pub trusted_targets: BTreeSet<TargetId>,
    /// The cluster's slot, as far as a node tells it.
    pub reference: Reference,
}

impl Default for Grounds {
    fn default() -> Self {
        Self {
            max_slot_lead: DEFAULT_SLOT_LEAD,
            trusted_groups: BTreeSet::new(),
            trusted_targets: BTreeSet::new(),
            reference: Reference::Unknown,
        }
    }
}

/// What a node tells of the cluster's slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reference {
    /// The node said nothing so far, or none is asked.
    #[default]
    Unknown,
    /// The node's slot, by its last answer.
    Current(Slot),
    /// The node's slot, at that time; since then it does not answer.
    Last(Slot, Instant),
}
