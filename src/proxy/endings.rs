//! Ends of requests: what clients have by then, and what that says of the targets.

use std::sync::Arc;
use std::time::Instant;

use http::header::CONTENT_LENGTH;
use http::{Method, StatusCode};
use pingora::Error;
use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use super::affinity_table::Delivery;
use super::archives::Archives;
use super::cache_fill;
use super::context::{Context, Phase};
use super::forward::Delivered;
use super::transfers::Answer;
use crate::listener::Serving;
use crate::metrics::SourceClass;
use crate::route::Failure;

/// What the head of an answer says of the archive that it carries.
pub(super) fn answer(phase: &Phase, head: &ResponseHeader) -> Option<Answer> {
    let (source, target) = match phase {
        Phase::Local => return None,
        Phase::Forward(forward) => (SourceClass::Target, &forward.source()?.target),
        Phase::CacheRead(read) => (read.class(), &read.archive.record().target),
    };
    Some(Answer { source, target: Arc::clone(&target.authority), length: length_of(head) })
}

fn length_of(head: &ResponseHeader) -> Option<u64> {
    head.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether all of the answer went out. A client that leaves after the last byte is an error to
/// Pingora, and has all of it.
pub(super) fn has_all(session: &Session) -> bool {
    let Some(head) = session.response_written() else { return false };
    let is_bare =
        session.req_header().method == Method::HEAD || head.status == StatusCode::NOT_MODIFIED;
    is_bare || length_of(head).is_some_and(|length| session.body_bytes_sent() as u64 >= length)
}

/// Remembers how a transfer ended, and tells the target that its bytes came from.
pub(super) fn note_end(
    archives: &Archives,
    session: &Session,
    ctx: &mut Context,
    e: Option<&Error>,
) -> Option<Arc<str>> {
    let receipt = || ctx.serving.as_ref().map(Serving::receipt);
    let (delivery, origin) = match &mut ctx.phase {
        Phase::Local => return None,
        Phase::Forward(forward) => {
            if let Some(e) = e {
                forward.abandon(cache_fill::ending(e));
            }
            let asked = forward.asked_last().map(Arc::from);
            let (Some(source), Some(delivery)) =
                (forward.source().cloned(), forward.delivery.take())
            else {
                return asked;
            };
            match e.map_or_else(|| forward.delivered(), |_| Delivered::Little) {
                Delivered::All => archives.upstreams.delivered(&source, forward.began()),
                Delivered::Enough => archives.upstreams.succeeded(&source.target),
                Delivered::Little => {}
            }
            (Some(delivery), asked)
        }
        Phase::CacheRead(read) => (read.delivery.take(), read.origin()),
    };
    let sent = session.body_bytes_sent();
    let has_all = |delivery: &Delivery| has_all(session) && delivery.is_within(sent);
    if let Some(delivery) = delivery.filter(|delivery| e.is_none() || has_all(delivery)) {
        delivery.complete(receipt());
    }
    origin
}

/// Remembers that nobody has the copy that an answer had to be of.
pub(super) fn note_missing(archives: &Archives, ctx: &Context, failure: &Failure) {
    if *failure == Failure::OtherCopy
        && let Some(name) = ctx.tally.name
    {
        archives.affinities.miss(ctx.visitor.client, name, Instant::now());
    }
}
