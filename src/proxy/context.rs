//! What a request knows of itself. It follows the phases: a transfer exists once it was planned,
//! and its head once a source's answer was accepted.

use std::sync::Arc;

use http::{Method, Uri};

use super::admission::Permit;
use super::affinity_table::Delivery;
use super::cache_read::CacheRead;
use super::forward::Forward;
use super::tally::Tally;
use super::traffic::{Ending, Traffic};
use super::visitor::Visitor;
use crate::cache::Abandoned;
use crate::configured::Configured;
use crate::drain::UnderWay;
use crate::hops::CdnLoop;
use crate::index::CopyId;
use crate::listener::Serving;
use crate::metrics::End;

/// State of one request.
pub struct Context {
    /// What it is served under.
    pub(super) configured: Arc<Configured>,
    /// What is counted of it.
    pub(super) tally: Tally,
    /// Where it is told of at its end.
    pub(super) traffic: Arc<Traffic>,
    /// The proxies that it came through.
    pub(super) came: Arc<CdnLoop>,
    /// Whose it is.
    pub(super) visitor: Arc<Visitor>,
    /// What is done with it.
    pub(super) phase: Phase,
    /// The right to a transfer, where it is one.
    pub(super) permit: Option<Permit>,
    /// What its connection is told of it.
    pub(super) serving: Option<Serving>,
    /// What it asks for, until it has come to an end of its own.
    pub(super) open: Option<Open>,
    /// What the end of the process waits for.
    under_way: UnderWay,
}

impl Context {
    pub(super) fn new(
        under_way: UnderWay,
        configured: Arc<Configured>,
        traffic: &Arc<Traffic>,
    ) -> Self {
        Self {
            configured,
            tally: traffic.begin(),
            traffic: Arc::clone(traffic),
            came: Arc::default(),
            visitor: Arc::default(),
            phase: Phase::Local,
            permit: None,
            serving: None,
            open: None,
            under_way,
        }
    }

    /// Counts bytes of the body that went out: `sent` is all of them.
    pub(super) fn sent(&mut self, sent: u64) {
        self.tally.sent(sent, &self.traffic.counts);
    }
}

/// What a request asks for that has not ended.
pub(super) struct Open {
    pub(super) method: Method,
    pub(super) uri: Uri,
}

/// A request that is dropped where it stands has no other end than this: it was dismissed for
/// others, or the process ends.
impl Drop for Context {
    fn drop(&mut self) {
        let Some(Open { method, uri }) = self.open.take() else { return };
        let is_dismissed = self.serving.as_ref().is_some_and(Serving::is_dismissed);
        let (end, why, remark) = if std::thread::panicking() {
            (End::Internal, Abandoned::Ended, " (broken off by a fault)")
        } else if self.under_way.is_ending() && !is_dismissed {
            (End::Stopped, Abandoned::Ended, " (broken off, the process ends)")
        } else {
            let remark = " (broken off, others wait for its place)";
            (End::Dismissed, Abandoned::Overtaken, remark)
        };
        let mut upstream = None;
        if let Phase::Forward(forward) = &self.phase {
            forward.abandon(why);
            upstream = forward.asked_last();
        }
        let bytes = self.tally.counted();
        let ending = Ending {
            client: self.visitor.client,
            connection: self.visitor.peer,
            method: &method,
            uri: &uri,
            asked: None,
            answer: None,
            status: self.tally.head().map_or(0, |(status, _)| status),
            bytes,
            upstream,
            end,
            remark,
        };
        self.traffic.end(&mut self.tally, &ending);
    }
}

/// What is done with a request.
pub(super) enum Phase {
    /// Not decided, or answered from memory.
    Local,
    /// An archive is carried.
    Forward(Box<Forward>),
    /// An archive comes out of the cache.
    CacheRead(Box<CacheRead>),
}

impl Phase {
    /// Whether a request was answered by a listing.
    pub(super) fn is_told(&self) -> bool {
        matches!(self, Self::Forward(forward) if forward.told().is_some())
    }

    /// Bytes on their way to the client.
    pub(super) fn delivery(&self) -> Option<&Delivery> {
        match self {
            Self::Local => None,
            Self::Forward(forward) => forward.delivery.as_ref(),
            Self::CacheRead(read) => read.delivery.as_ref(),
        }
    }

    /// The copy whose bytes go to the client, or would go to one that asks for them.
    pub(super) fn copy(&self) -> Option<CopyId> {
        match self {
            Self::Local => None,
            Self::Forward(forward) => forward.delivered.as_ref().map(|head| head.copy),
            Self::CacheRead(read) => Some(read.archive.record().copy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::CopyId;
    use crate::proxy::cache_fill::FillState;
    use crate::proxy::scene::{configured, node, request, source};
    use crate::route::Bypass;
    use crate::route::plan::Transfer;
    use std::time::Instant;

    #[test]
    fn what_is_told_by_a_listing_is_known_by_its_phase() {
        assert!(!Phase::Local.is_told() && Phase::Local.copy().is_none());
        assert!(Phase::Local.delivery().is_none());
        for (method, is_told) in [("HEAD", true), ("GET", false)] {
            let transfer = Transfer { sources: vec![source(1)], pinned: None };
            let (request, fill) = (request(1, method, &[]), FillState::Bypass(Bypass::Off));
            let mut forward = Forward::new(&configured(), &request, transfer, fill, Instant::now());
            assert_eq!(forward.tell(), is_told);
            let phase = Phase::Forward(Box::new(forward));
            assert_eq!(phase.is_told(), is_told, "{method}");
            let listed = CopyId::new(&node(1).authority, crate::proxy::scene::SIZE, None);
            assert_eq!(phase.copy(), is_told.then_some(listed), "{method}");
            assert!(phase.delivery().is_none());
        }
    }
}
