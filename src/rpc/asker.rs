//! Who asks a node.

use std::net::IpAddr;
use std::time::Duration;

use crate::configured::Configured;
use crate::hops::CdnLoop;

/// Longest that one node is waited for, where `limits.read_timeout` is not shorter.
const MAX_PATIENCE: Duration = Duration::from_secs(3);

/// Who asks, and of whom.
pub(super) struct Asker<'a> {
    /// What it is answered under.
    pub(super) configured: &'a Configured,
    pub(super) client: IpAddr,
    pub(super) group: Option<&'a str>,
    /// The proxies that the request came through.
    pub(super) came: CdnLoop,
}

impl Asker<'_> {
    /// Longest that a client is waited for.
    pub(super) fn read_timeout(&self) -> Duration {
        self.configured.config.limits.read_timeout
    }

    /// Longest that one node is waited for.
    pub(super) fn patience(&self) -> Duration {
        self.read_timeout().min(MAX_PATIENCE)
    }
}
