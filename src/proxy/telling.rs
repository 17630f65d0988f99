//! HEAD for an archive that is at a target: answered by what the target lists where it answers
//! nothing of use, and as a GET or a range would be served then.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};
use pingora::Result;
use pingora_proxy::{FailToProxy, Session};

use super::caching;
use super::context::{Caching, Phase, Relay};
use super::edge::Edge;
use super::head;
use crate::config::Sharing;
use crate::index::Source;
use crate::route::{ArchiveHead, Bypass, Failure, RangeRequest, Ranges, SourceFailure, Verdict};

/// How long a target has for its answer to a HEAD where its listing tells the length as well:
/// finders give up after a second.
const HEAD_PATIENCE: Duration = Duration::from_secs(1);

/// Whether a request was answered by a listing.
pub(super) fn is_told(phase: &Phase) -> bool {
    matches!(phase, Phase::Relay(relay) if relay.told().is_some())
}

/// Whether a HEAD that the current source did not answer is answered by what it listed. One
/// that nobody can connect to would not serve a GET either, and what was answered is judged.
fn told_instead(relay: &mut Relay, failure: &SourceFailure) -> bool {
    let is_silence = matches!(failure, SourceFailure::Broken | SourceFailure::Timeout);
    let told = is_silence && relay.tell();
    if let Some(source) = relay.source().filter(|_| told) {
        log::debug!("HEAD of {} at target {}: {failure}", relay.name, source.target);
    }
    told
}

impl Edge {
    /// How long the current source of a transfer may be silent.
    pub(super) fn patience(&self, relay: &Relay) -> Duration {
        let is_head = relay.asked().method == Method::HEAD;
        let listed = relay.source().filter(|_| is_head).and_then(|source| source.listed.size);
        let longest = self.upstreams.limits().read_timeout;
        listed.map_or(longest, |_| longest.min(HEAD_PATIENCE))
    }

    /// Notes that the current source failed before anything went to the client, and says whether
    /// another one is left.
    pub(super) fn source_failed(&self, relay: &mut Relay, failure: SourceFailure) -> bool {
        if told_instead(relay, &failure) {
            return false;
        }
        if let Some(source) = relay.source() {
            self.upstreams.refused(source, &relay.asked().method, &failure);
            if failure == SourceFailure::Gone {
                self.looks.gone(&relay.name, Instant::now());
            }
        }
        relay.next(failure)
    }

    /// The verdict, but for a HEAD that says what a GET said a moment ago: that the archive is
    /// gone, which the index need not know yet.
    pub(super) fn with_absence(
        &self,
        verdict: Verdict,
        source: &Source,
        relay: &Relay,
        status: StatusCode,
    ) -> Verdict {
        let is_absent = relay.asked().method == Method::HEAD
            && matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
            && self.upstreams.is_gone(source, Instant::now());
        if is_absent { Verdict::Fail(SourceFailure::Gone) } else { verdict }
    }

    /// The head with what a range would be answered with: in the shared mode, where a range has the
    /// archive fetched, with parts, whatever its target knows of ranges; and otherwise as the
    /// target answered the last one, where it does not say.
    pub(super) fn with_ranges(&self, relay: &Relay, head: ArchiveHead) -> ArchiveHead {
        let Some(source) = relay.source() else { return head };
        let asked = relay.asked();
        if asked.method == Method::GET && asked.range != RangeRequest::Whole {
            let is_part = head.status == StatusCode::PARTIAL_CONTENT;
            self.upstreams.answered_range(&source.target, is_part);
        }
        let is_fetched = matches!(relay.caching, Caching::Bypass(Bypass::Head))
            && self.terms.sharing == Sharing::Shared
            && self.orders.is_some();
        if is_fetched || self.upstreams.serves_ranges(&source.target) {
            return ArchiveHead { ranges: Ranges::Served, ..head };
        }
        head
    }

    /// Answers a HEAD by a listing.
    pub(super) async fn write_told(&self, session: &mut Session, phase: &mut Phase) -> FailToProxy {
        let written = match phase {
            Phase::Relay(relay) => match relay.told().cloned() {
                Some(told) if self.stops_at(&told, relay) => Err(relay.reply()),
                Some(told) => {
                    if let Some(copy) = relay.copy() {
                        self.copies.show(relay.client, relay.name, copy, Instant::now());
                    }
                    Ok(self.with_ranges(relay, told))
                }
                None => Err(relay.reply()),
            },
            Phase::Hit(_) | Phase::Local => Err(Failure::Internal.reply()),
        };
        let (status, sent) = match written {
            Ok(told) => (told.status, self.write_head(session, phase, &told).await),
            Err(reply) => (reply.status, head::write(session, reply).await),
        };
        FailToProxy { error_code: status.as_u16(), can_reuse_downstream: sent.is_ok() }
    }

    async fn write_head(
        &self,
        session: &mut Session,
        phase: &Phase,
        told: &ArchiveHead,
    ) -> Result<()> {
        let mut head = head::archive(told)?;
        caching::label(phase, session.cache.enabled(), self.tags, &mut head)?;
        session.write_response_header(Box::new(head), true).await?;
        session.write_response_body(None::<Bytes>, true).await
    }
}
