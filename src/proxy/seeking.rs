//! Requests that wait while targets are asked for an archive that the index does not know.

use std::time::Instant;

use super::admission::Permit;
use super::edge::Edge;
use super::planning::{Planned, Request};
use crate::fetch::Look;
use crate::index::{TargetId, View};
use crate::route::{Failure, Targets};

/// A request for an archive that is being looked for.
pub(super) struct Seeking {
    request: Request,
    look: Look,
}

impl Edge {
    /// Has an archive looked for that nobody is known to have, where that is worth it.
    pub(super) fn seek(
        &self,
        request: Request,
        view: &View,
        now: Instant,
    ) -> Result<Planned, Failure> {
        let targets = self.upstreams.at(now);
        let resting = |target: &TargetId| targets.merit(target).resting;
        let Request { name, client, ref came, .. } = request;
        let look = self.looks.begin(name, client, came, view, resting, now);
        let seeking = look.map(|look| Planned::Seek(Box::new(Seeking { request, look })));
        seeking.ok_or(Failure::NotHeld)
    }

    /// Waits for the end of the look and decides again, by what the index knows then.
    pub(super) async fn found(
        &self,
        seeking: Seeking,
        permit: &mut Option<Permit>,
    ) -> Result<Planned, Failure> {
        let Seeking { request, look } = seeking;
        look.over().await;
        self.let_in(&request, permit).await?;
        self.begin_again(request)
    }
}
