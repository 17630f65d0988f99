//! What a source of targets answers, whatever kind of source it is.

use std::time::Duration;

use super::gathering::Named;

/// What a source says.
pub(super) struct Answer {
    pub(super) named: Named,
    /// When to ask again, counted from when it was asked. Never zero.
    pub(super) again: Duration,
}
