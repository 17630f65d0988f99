//! Requests that go round between edges which list each other, and what edges are told besides.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderValue;
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

use super::context::{Context, Phase};
use crate::hops::{CDN_LOOP, CdnLoop, EdgeId, LoopFault, VIA, Via};
use crate::index::View;
use crate::limit::LogLimiter;
use crate::route::{Failure, Reply};

/// Least time between two lines about requests that go round.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// The requests that went round, since that was said last.
pub(super) struct Circles(Mutex<LogLimiter>);

impl Default for Circles {
    fn default() -> Self {
        Self(Mutex::new(LogLimiter::said_every(SAID_EVERY)))
    }
}

/// Reads `cdn-loop`.
pub(super) fn came(head: &RequestHeader) -> CdnLoop {
    CdnLoop::parse(head.headers.get_all(CDN_LOOP).iter().map(HeaderValue::as_bytes))
}

impl Circles {
    /// The refusal of a request that goes round.
    pub(super) fn turn_back(
        &self,
        came: &CdnLoop,
        edge: &EdgeId,
    ) -> std::result::Result<(), Failure> {
        let Err(fault) = came.check(edge) else { return Ok(()) };
        let mut refusals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
}

/// The answer with what an edge is told besides: who answers, unless it is told more already.
pub(super) fn introduce(reply: Reply, came: &CdnLoop, edge: &EdgeId) -> Reply {
    let knows = reply.headers.iter().any(|(name, _)| *name == VIA);
    if knows || !came.is_of_an_edge() { reply } else { told(reply, &Via::straight(), edge) }
}

/// The answer with who answers, and how it came by what it tells of.
pub(super) fn told(reply: Reply, via: &Via, edge: &EdgeId) -> Reply {
    match HeaderValue::try_from(via.header(edge)) {
        Ok(value) => reply.with(VIA, value),
        // Names of edges are plain text.
        Err(_) => reply,
    }
}

/// Tells in the head of an archive who answers, and how it came by that.
pub(super) fn introduce_archive(
    ctx: &Context,
    view: &View,
    head: &mut ResponseHeader,
) -> Result<()> {
    let name = match &ctx.phase {
        _ if !ctx.came.is_of_an_edge() => return Ok(()),
        Phase::Local => return Ok(()),
        Phase::Forward(forward) => forward.name,
        Phase::CacheRead(read) => read.archive.record().name,
    };
    let via = view.way(&name, None, &ctx.came).unwrap_or_else(Via::kept);
    head.insert_header(VIA, via.header(&ctx.configured.edge))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    fn edge(name: &str) -> EdgeId {
        name.parse().expect("a name")
    }

    fn came_through(values: &[&str]) -> CdnLoop {
        let mut head = RequestHeader::build("GET", b"/", None).expect("a head");
        for value in values {
            head.append_header(CDN_LOOP, *value).expect("a header");
        }
        came(&head)
    }

    fn via(reply: &Reply) -> Option<&str> {
        let header = reply.headers.iter().find(|(name, _)| *name == VIA);
        header.map(|(_, value)| value.to_str().expect("text"))
    }

    #[test]
    fn what_was_here_before_is_turned_back() {
        let circles = Circles::default();
        let turned_back =
            |values: &[&str]| circles.turn_back(&came_through(values), &edge("a")).err();
        assert_eq!(turned_back(&[]), None);
        assert_eq!(turned_back(&["snapedge-b", "other"]), None);
        assert_eq!(turned_back(&["snapedge-b, snapedge-a"]), Some(Failure::Loop(LoopFault::Again)));
    }

    #[test]
    fn edges_are_told_who_answers_and_nobody_else() {
        let reply = || Reply::text(StatusCode::OK, "x");
        let introduced = |values: &[&str]| introduce(reply(), &came_through(values), &edge("a"));
        assert_eq!(via(&introduced(&[])), None);
        assert_eq!(via(&introduced(&["cdn"])), None);
        assert_eq!(via(&introduced(&["snapedge-b"])), Some("a"));
        // Whoever says more already is left alone.
        let more = told(reply(), &Via::kept(), &edge("a"));
        let shown = via(&more).map(str::to_owned);
        let again = introduce(more, &came_through(&["snapedge-b"]), &edge("c"));
        assert_eq!(via(&again).map(str::to_owned), shown);
    }
}
