//! Where requests are told of: counted, listed while they run, and written down at their end.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::header::{ETAG, HeaderName, RANGE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Uri};

use super::head::CACHE_STATUS;
use super::request_id::{REQUEST_ID, RequestIds};
use super::tally::{Final, Tally};
use super::transfers::Transfers;
use crate::logging::{AccessLog, Entry};
use crate::metrics::{CacheResult, End, LimitName, RequestCounts};

/// Where requests are told of.
#[derive(Debug)]
pub struct Traffic {
    /// What they are counted by.
    pub counts: Arc<RequestCounts>,
    /// The archives that are on their way.
    pub transfers: Arc<Transfers>,
    /// Where their ends are written.
    pub log: AccessLog,
    pub(super) ids: RequestIds,
}

/// A request at its end.
pub(super) struct Ending<'a> {
    pub(super) client: IpAddr,
    /// Who the connection is from.
    pub(super) connection: IpAddr,
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    /// What else its head says, where that is still there.
    pub(super) asked: Option<&'a HeaderMap>,
    /// The head of the answer, where there was one.
    pub(super) answer: Option<&'a HeaderMap>,
    pub(super) status: u16,
    /// Bytes of the body that went out.
    pub(super) bytes: u64,
    pub(super) upstream: Option<&'a str>,
    pub(super) end: End,
    /// Words for people: empty, or a blank and brackets.
    pub(super) remark: &'static str,
}

impl Traffic {
    /// Counts from zero, and writes ends there.
    pub fn new(counts: Arc<RequestCounts>, log: AccessLog) -> Self {
        Self { counts, transfers: Arc::default(), log, ids: RequestIds::default() }
    }

    /// A request whose head is there.
    pub(super) fn begin(&self) -> Tally {
        Tally::new(self.ids.make(), Instant::now())
    }

    /// Counts the end of a request and writes it down. Once for each.
    pub(super) fn end(&self, tally: &mut Tally, ending: &Ending<'_>) {
        let Ending { client, connection, method, uri, asked, answer, .. } = *ending;
        let Ending { status, bytes, upstream, end, remark, .. } = *ending;
        let now = Instant::now();
        let is_dropped = asked.is_none();
        let asked = |name: HeaderName| asked?.get(name).map(HeaderValue::as_bytes);
        let told = |name: HeaderName| answer?.get(name).map(HeaderValue::as_bytes);
        let status_line = told(CACHE_STATUS);
        // Of a request that was dropped the head is gone.
        let cache = match tally.head().filter(|_| is_dropped) {
            Some((_, cache)) => cache,
            None => CacheResult::of(status_line),
        };
        let last = Final { method, status, cache, end, bytes };
        tally.close(&last, now, &self.counts);
        self.log.write(&Entry {
            id: &tally.id,
            client,
            connection: Some(connection),
            method: method.as_str(),
            path: uri.path(),
            query: uri.query(),
            route: tally.route.as_str(),
            status,
            bytes,
            duration: now.saturating_duration_since(tally.started),
            first_byte: tally.first_byte(),
            upstream,
            copy: told(ETAG).map(unquoted),
            cache: status_line,
            range: asked(RANGE),
            agent: asked(USER_AGENT),
            received_id: asked(REQUEST_ID),
            end: end.as_str(),
            limit: tally.refused().map(LimitName::as_str),
            remark,
        });
    }
}

/// An entity tag without its quotes.
fn unquoted(tag: &[u8]) -> &[u8] {
    let tag = tag.strip_prefix(b"\"").unwrap_or(tag);
    tag.strip_suffix(b"\"").unwrap_or(tag)
}
