//! Requests that go round between edges which list each other, and what edges are told besides.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderValue;
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

use super::context::{Context, Phase};
use super::edge::Edge;
use super::planning::Request;
use crate::cache::Standing;
use crate::hops::{CDN_LOOP, CdnLoop, LoopFault, VIA, Via};
use crate::index::View;
use crate::refusals::Refusals;
use crate::route::{Failure, Reply};

/// Least time between two lines about requests that go round.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// The requests that went round, since that was said last.
pub(super) struct Circles(Mutex<Refusals>);

impl Default for Circles {
    fn default() -> Self {
        Self(Mutex::new(Refusals::said_every(SAID_EVERY)))
    }
}

/// Reads `cdn-loop`.
pub(super) fn came(head: &RequestHeader) -> CdnLoop {
    CdnLoop::parse(head.headers.get_all(CDN_LOOP).iter().map(HeaderValue::as_bytes))
}

impl Edge {
    /// The refusal of a request that goes round.
    pub(super) fn turn_back(&self, came: &CdnLoop) -> std::result::Result<(), Failure> {
        let Err(fault) = came.check(self.upstreams.edge()) else { return Ok(()) };
        let mut refusals = self.circles.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = refusals.count(Instant::now()) {
            let advice = match fault {
                LoopFault::Again => {
                    "this edge is a target of its own, or of one that it lists: leave one of the \
                     two out where that is not meant"
                }
                LoopFault::TooFar => "too many edges and others stand behind each other",
            };
            log::warn!("{count} requests refused with 508: {fault}; {advice}");
        }
        Err(Failure::Loop(fault))
    }

    /// The answer with what an edge is told besides: who answers, unless it is told more already.
    pub(super) fn introduce(&self, reply: Reply, came: &CdnLoop) -> Reply {
        let knows = reply.headers.iter().any(|(name, _)| *name == VIA);
        if knows || !came.is_of_an_edge() { reply } else { self.told(reply, &Via::straight()) }
    }

    /// The answer with who answers, and how it came by what it tells of.
    pub(super) fn told(&self, reply: Reply, via: &Via) -> Reply {
        match HeaderValue::try_from(via.header(self.upstreams.edge())) {
            Ok(value) => reply.with(VIA, value),
            // Names of edges are plain text.
            Err(_) => reply,
        }
    }

    /// The same in the head of an archive.
    pub(super) fn introduce_archive(&self, ctx: &Context, head: &mut ResponseHeader) -> Result<()> {
        let name = match &ctx.phase {
            _ if !ctx.came.is_of_an_edge() => return Ok(()),
            Phase::Local => return Ok(()),
            Phase::Relay(relay) => relay.name,
            Phase::Hit(hit) => hit.archive.record().name,
        };
        let via = self.published.load().way(&name, None, &ctx.came).unwrap_or_else(Via::kept);
        head.insert_header(VIA, via.header(self.upstreams.edge()))
    }

    /// Whether what is being fetched into the cache comes from the one who asks for it: of two
    /// edges that wait for each other's fetch, neither would get a byte.
    pub(super) fn comes_through_asker(
        request: &Request,
        standing: Option<&Standing>,
        view: &View,
    ) -> bool {
        let Some(Standing::Growing(growing)) = standing else { return false };
        let mut sources = view.sources(&request.name).iter();
        let source = sources.find(|source| source.target == growing.record().target);
        source.is_some_and(|source| !request.came.admits(source.via()))
    }
}
