//! The phases of Pingora's cache, for a request that was planned.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName};
use http::{HeaderValue, Method, StatusCode};
use pingora::http::ResponseHeader;
use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_cache::storage::Storage;
use pingora_cache::{CacheKey, NoCacheReason, RespCacheable};
use pingora_proxy::{MultiRangeInfo, RangeType};

use super::context::{Caching, Hit, Phase, Relay};
use super::head;
use crate::cache::{Abandoned, Archive, ArchiveStorage, Fill, LentStorage, Record};
use crate::fetch;
use crate::route::{
    ArchiveHead, Bypass, ByteRange, CacheStatus, ContentRange, Given, Ranges, Selection, TagKey,
};

/// The backend for archives out of ledgers. It has no state: what is read comes with the request.
static LENT: LentStorage = LentStorage::new(cached_head);

/// The head under which a cached archive is served, before ranges and conditions.
pub fn cached_head(record: &Record) -> Result<ResponseHeader> {
    let Record { name, length, copy, modified, .. } = record;
    head::archive(&ArchiveHead {
        status: StatusCode::OK,
        length: *length,
        copy: *copy,
        modified: *modified,
        tag: None,
        content_range: None,
        content_type: HeaderValue::from_static(name.compression().content_type()),
        ranges: Ranges::Served,
    })
}

impl Hit {
    /// What the client is given; a HEAD gives nothing.
    pub(super) fn given(&self) -> Option<Arc<Given>> {
        (self.asked.method == Method::GET).then(|| self.copy())
    }

    /// The copy that is served.
    pub(super) fn copy(&self) -> Arc<Given> {
        let Record { target, copy, .. } = self.archive.record();
        Arc::new(Given { target: target.clone(), copy: *copy })
    }

    /// Where its bytes come from, for the log.
    pub(super) fn origin(&self) -> String {
        match &self.archive {
            Archive::Lent(lent) => format!(" from {}", lent.record().target.authority),
            Archive::Whole(_) | Archive::Growing(_) => " from the cache".to_owned(),
        }
    }
}

/// The backend of Pingora's cache that takes part, where one does.
pub(super) fn storage(
    phase: &Phase,
    cache: Option<&'static ArchiveStorage>,
) -> Option<&'static (dyn Storage + Sync)> {
    let takes_part = match phase {
        Phase::Local => false,
        Phase::Hit(hit) if matches!(hit.archive, Archive::Lent(_)) => return Some(&LENT),
        Phase::Hit(_) => true,
        Phase::Relay(relay) => matches!(relay.caching, Caching::Claimed(_)),
    };
    cache.filter(|_| takes_part).map(|cache| cache as &(dyn Storage + Sync))
}

pub(super) fn key(phase: &Phase) -> Result<CacheKey> {
    match phase {
        Phase::Hit(hit) => Ok(ArchiveStorage::key_of_hit(&hit.archive)),
        Phase::Relay(relay) => Ok(ArchiveStorage::key_of_fill(&relay.name, &relay.handover)),
        Phase::Local => Error::e_explain(ErrorType::InternalError, "nothing is looked up"),
    }
}

/// Begins to fill the cache with the accepted answer, where the request has the right to. The
/// client is served whatever becomes of it.
pub(super) async fn begin(relay: &mut Relay, enabled: bool) {
    let Some((claim, announced)) = relay.take_claim() else { return };
    if !enabled {
        relay.caching = Caching::Bypass(Bypass::Abandoned);
        return;
    }
    let patience = fetch::PATIENCE_OF_CLIENTS;
    match fetch::prepare(relay.name, claim, announced, patience, Fill::begin).await {
        Ok(fill) => {
            if let Some(holding) = &relay.holding {
                holding.ends_by(fill.reason(), fill.length());
            }
            relay.caching = Caching::Filling(fill.reason());
            relay.handover.put(fill);
        }
        Err(refusal) => relay.caching = Caching::Bypass(fetch::bypass_of(&refusal)),
    }
}

/// What the end of a transfer means for the fill that rode on it.
pub(super) fn ending(e: &Error) -> Abandoned {
    match e.esource() {
        ErrorSource::Upstream => Abandoned::SourceFailed,
        ErrorSource::Downstream => Abandoned::ClientLeft,
        ErrorSource::Internal | ErrorSource::Unset => Abandoned::Ended,
    }
}

/// Gives up the fill of a try that is followed by another one; true where there was one.
pub(super) fn forget_fill(relay: &mut Relay) -> bool {
    let filling = matches!(relay.caching, Caching::Filling(_));
    if filling {
        relay.caching = Caching::Bypass(Bypass::Abandoned);
    }
    filling
}

pub(super) fn cacheable(phase: &Phase, resp: &ResponseHeader) -> RespCacheable {
    match phase {
        Phase::Relay(relay) if matches!(relay.caching, Caching::Filling(_)) => {
            RespCacheable::Cacheable(ArchiveStorage::meta(resp.clone(), SystemTime::now()))
        }
        _ => RespCacheable::Uncacheable(NoCacheReason::Custom("refused")),
    }
}

/// Adds to the head of an archive which copy it is, and how it came.
pub(super) fn label(
    phase: &Phase,
    enabled: bool,
    tags: TagKey,
    answer: &mut ResponseHeader,
) -> Result<()> {
    if let Some(copy) = phase.copy() {
        answer.insert_header(ETAG, tags.tag(copy))?;
    }
    answer.insert_header(head::CACHE_STATUS, status(phase, enabled).to_string())
}

/// How an answer came about; `enabled` is whether Pingora's cache takes part by now.
fn status(phase: &Phase, enabled: bool) -> CacheStatus {
    match phase {
        Phase::Hit(hit) => hit.how,
        Phase::Relay(relay) => match &relay.caching {
            Caching::Filling(_) if enabled => CacheStatus::Stored,
            Caching::Filling(_) | Caching::Claimed(_) => CacheStatus::Bypass(Bypass::Abandoned),
            Caching::Bypass(why) => CacheStatus::Bypass(*why),
        },
        Phase::Local => CacheStatus::Bypass(Bypass::Off),
    }
}

/// What of a cached archive is sent, with the head changed accordingly. Conditions that end in a
/// 304 were judged before.
pub(super) fn select(hit: &Hit, resp: &mut ResponseHeader) -> RangeType {
    if resp.status != StatusCode::OK {
        return RangeType::None;
    }
    let Record { length: total, copy, .. } = *hit.archive.record();
    if hit.asked.if_range.as_ref().is_some_and(|condition| !condition.holds(copy)) {
        return RangeType::None;
    }
    let length = |length: u64| (CONTENT_LENGTH, length.to_string());
    let place = |range| (CONTENT_RANGE, ContentRange { range, total }.to_string());
    let (status, headers, body) = match hit.asked.range.select(total) {
        Selection::Whole => return RangeType::None,
        Selection::Part(range) => (
            StatusCode::PARTIAL_CONTENT,
            [length(range.len()), place(Some(range))],
            RangeType::Single(positions(range)),
        ),
        Selection::Parts(ranges) => {
            let mut parts = MultiRangeInfo::new(ranges.into_iter().map(positions).collect());
            parts.set_total_length(position(total));
            parts.set_content_type(hit.archive.record().name.compression().content_type().into());
            let kind = format!("multipart/byteranges; boundary={}", parts.boundary);
            let all = (CONTENT_LENGTH, parts.calculate_multipart_length().to_string());
            (StatusCode::PARTIAL_CONTENT, [all, (CONTENT_TYPE, kind)], RangeType::Multi(parts))
        }
        Selection::Unsatisfiable => {
            (StatusCode::RANGE_NOT_SATISFIABLE, [length(0), place(None)], RangeType::Invalid)
        }
    };
    match changed(resp, status, headers) {
        Ok(head) => {
            *resp = head;
            body
        }
        Err(error) => {
            log::error!("cannot make the head of a part: {error}");
            RangeType::None
        }
    }
}

fn changed(
    head: &ResponseHeader,
    status: StatusCode,
    headers: [(HeaderName, String); 2],
) -> Result<ResponseHeader> {
    let mut head = head.clone();
    head.set_status(status)?;
    for (name, value) in headers {
        head.insert_header(name, value)?;
    }
    if status == StatusCode::RANGE_NOT_SATISFIABLE {
        head.remove_header(&CONTENT_TYPE);
    }
    Ok(head)
}

fn positions(range: ByteRange) -> Range<usize> {
    position(range.start())..position(range.end())
}

/// A position in something that is mapped, and so fits the address space.
fn position(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
