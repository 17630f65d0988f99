//! Settings of the rules by which archives are offered.

use std::time::Duration;

/// The rules' settings.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Failed probes in a row after which a target's archives no longer count.
    pub probe_failures: u32,
    /// How long an old pair is preferred to a newer full archive without incrementals.
    pub pair_hold: Duration,
    /// When short names lead to a generation that is new.
    pub publish: Publish,
}

/// When short names lead to a generation that is new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Publish {
    /// As soon as targets list it.
    #[default]
    Seen,
    /// When the cache holds all of it for the group. Somebody must fetch it then: clients come for
    /// what they are led to.
    Promoted,
}
