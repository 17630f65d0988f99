//! The phases of Pingora's cache, for a request that was planned.

use std::time::SystemTime;

use http::header::{AGE, CACHE_CONTROL, ETAG};
use http::{HeaderValue, StatusCode};
use pingora::http::ResponseHeader;
use pingora::{Error, ErrorType, Result};
use pingora_cache::storage::Storage;
use pingora_cache::{CacheKey, NoCacheReason, RespCacheable};

use super::cache_fill::FillState;
use super::context::Phase;
use super::head;
use crate::cache::{Archive, ArchiveStorage, LentStorage, Record};
use crate::configured::Configured;
use crate::route::{ArchiveHead, Bypass, CacheStatus, Ranges};

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

/// The backend of Pingora's cache that takes part, where one does.
pub(super) fn storage(
    phase: &Phase,
    cache: Option<&'static ArchiveStorage>,
) -> Option<&'static (dyn Storage + Sync)> {
    let takes_part = match phase {
        Phase::Local => false,
        Phase::CacheRead(read) if matches!(read.archive, Archive::Lent(_)) => return Some(&LENT),
        Phase::CacheRead(_) => true,
        Phase::Forward(forward) => matches!(forward.fill, FillState::Claimed(_)),
    };
    cache.filter(|_| takes_part).map(|cache| cache as &(dyn Storage + Sync))
}

pub(super) fn key(phase: &Phase) -> Result<CacheKey> {
    match phase {
        Phase::CacheRead(read) => Ok(ArchiveStorage::key_of_hit(&read.archive)),
        Phase::Forward(forward) => Ok(ArchiveStorage::key_of_fill(&forward.name, &forward.cell)),
        Phase::Local => Error::e_explain(ErrorType::InternalError, "nothing is looked up"),
    }
}

pub(super) fn cacheable(phase: &Phase, resp: &ResponseHeader) -> RespCacheable {
    match phase {
        Phase::Forward(forward) if matches!(forward.fill, FillState::Filling(_)) => {
            RespCacheable::Cacheable(ArchiveStorage::meta(resp.clone(), SystemTime::now()))
        }
        _ => RespCacheable::Uncacheable(NoCacheReason::Custom("refused")),
    }
}

/// Adds to the head of an archive which copy it is, how it came, and what caches in front may do
/// with it.
pub(super) fn label(
    phase: &Phase,
    enabled: bool,
    configured: &Configured,
    answer: &mut ResponseHeader,
) -> Result<()> {
    if let Some(copy) = phase.copy() {
        answer.insert_header(ETAG, configured.keys.tags.tag(copy))?;
    }
    let is_sealed = match phase {
        Phase::CacheRead(read) => matches!(read.archive, Archive::Whole(_)),
        Phase::Forward(_) | Phase::Local => false,
    };
    let has_bytes = matches!(answer.status, StatusCode::OK | StatusCode::PARTIAL_CONTENT);
    let caching = head::caching(is_sealed && has_bytes, configured.is_for_all());
    answer.insert_header(CACHE_CONTROL, caching)?;
    // A copy is as new after a day as at first, and is not to be stale elsewhere for its age.
    answer.remove_header(&AGE);
    answer.insert_header(head::CACHE_STATUS, status(phase, enabled).to_string())
}

/// How an answer came about; `enabled` is whether Pingora's cache takes part by now.
fn status(phase: &Phase, enabled: bool) -> CacheStatus {
    match phase {
        Phase::CacheRead(read) => read.how,
        Phase::Forward(forward) => match &forward.fill {
            FillState::Filling(_) if enabled => CacheStatus::Stored,
            FillState::Filling(_) | FillState::Claimed(_) => CacheStatus::Bypass(Bypass::Abandoned),
            FillState::Bypass(why) => CacheStatus::Bypass(*why),
        },
        Phase::Local => CacheStatus::Bypass(Bypass::Off),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::forward::Forward;
    use crate::proxy::scene::{configured, request, source};
    use crate::route::plan::Transfer;
    use std::time::Instant;

    fn phase(fill: FillState) -> Phase {
        let transfer = Transfer { sources: vec![source(1)], pinned: None };
        let forward =
            Forward::new(&configured(), &request(1, "GET", &[]), transfer, fill, Instant::now());
        Phase::Forward(Box::new(forward))
    }

    #[test]
    fn an_answer_says_how_it_came() {
        for why in Bypass::ALL {
            let mut head = ResponseHeader::build(StatusCode::OK, None).expect("a head");
            let phase = phase(FillState::Bypass(why));
            label(&phase, false, &configured(), &mut head).expect("a header");
            let caching = head.headers.get(CACHE_CONTROL).expect("told");
            assert_eq!(caching, "no-store", "the next answer may be another copy");
            let how = head.headers.get(head::CACHE_STATUS).expect("told");
            assert_eq!(how.to_str().ok(), Some(&*CacheStatus::Bypass(why).to_string()));
            // Of a copy that nobody accepted there is no tag.
            assert!(!head.headers.contains_key(ETAG));
        }
    }

    #[test]
    fn only_who_may_fill_takes_part_in_the_cache() {
        let past = phase(FillState::Bypass(Bypass::Off));
        assert!(storage(&past, None).is_none() && storage(&Phase::Local, None).is_none());
        assert!(key(&past).is_ok() && key(&Phase::Local).is_err());
        let head = ResponseHeader::build(StatusCode::OK, None).expect("a head");
        for phase in [past, Phase::Local] {
            assert!(matches!(cacheable(&phase, &head), RespCacheable::Uncacheable(_)));
        }
    }
}
