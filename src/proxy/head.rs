//! Heads on the wire: of replies, of archives, and of requests to targets.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, HOST,
    HeaderName, LAST_MODIFIED,
};
use http::{HeaderValue, Method, StatusCode};
use pingora::http::ResponseHeader;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::request_id::{REQUEST_ID, RequestId};
use crate::cache::SLICE;
use crate::config::Limits;
use crate::limit::time_of;
use crate::route::{ArchiveHead, Reply};

/// Longest host and port that is repeated in an answer: a name of 255 bytes, and a port.
const MAX_AUTHORITY: usize = 255 + 6;
/// Bytes of a reply that are written at once: the bound on a client's slowness is for each piece.
const PIECE: usize = 16 << 10;

/// How the answer came about (RFC 9211).
pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// What no cache may keep.
pub(super) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// What any cache may keep, and what only that of the client may.
const FOR_ALL: HeaderValue =
    HeaderValue::from_static("public, max-age=86400, immutable, no-transform");
const FOR_ONE: HeaderValue =
    HeaderValue::from_static("private, max-age=86400, immutable, no-transform");

/// How long one piece of an answer may take. The listener looks after connections that are too
/// slow, so that for most this is the fuse behind it: who pauses for as long as may be, and then
/// takes the piece at the least rate, is not too slow. A stream of HTTP/2 that stands still while
/// others of its connection go on has no other bound.
pub(super) fn patience(limits: &Limits) -> Duration {
    limits.send_timeout.saturating_add(time_of(SLICE, limits.min_send_rate.max(1)))
}

/// Writes a reply to a client that takes it in time: in that of one piece, and in what all of it
/// takes at the least rate. A reply is in memory until then. (The listener leaves connections that
/// are too slow; a stream of HTTP/2 may stand still while others of its connection go on.)
pub(super) async fn write_in_time(
    session: &mut Session,
    reply: Reply,
    id: RequestId,
    limits: &Limits,
) -> Result<()> {
    let seconds = reply.body.len() as u64 / limits.min_send_rate.max(1);
    let time = limits.send_timeout + Duration::from_secs(seconds);
    let written = tokio::time::timeout(time, write(session, reply, id)).await;
    written.unwrap_or_else(|_| {
        Error::e_explain(ErrorType::WriteTimedout, "the client is too slow")
            .map_err(Error::into_down)
    })
}

/// Writes a reply. A HEAD gets the head that a GET would have got.
pub(super) async fn write(session: &mut Session, reply: Reply, id: RequestId) -> Result<()> {
    let mut head = ResponseHeader::build(reply.status, Some(reply.headers.len() + 4))?;
    head.insert_header(DATE, now())?;
    head.insert_header(REQUEST_ID, id.to_string())?;
    if reply.status != StatusCode::NOT_MODIFIED {
        // There it would be that of the archive (RFC 9110, section 8.6).
        head.insert_header(CONTENT_LENGTH, reply.body.len().to_string())?;
    }
    // A cache in front keeps a bare redirect for minutes, and what was best is not for ever.
    if !reply.headers.iter().any(|(name, _)| *name == CACHE_CONTROL) {
        head.insert_header(CACHE_CONTROL, NO_STORE)?;
    }
    for (name, value) in reply.headers {
        head.append_header(name, value)?;
    }
    if session.req_header().method == Method::HEAD || reply.body.is_empty() {
        session.write_response_header(Box::new(head), true).await?;
        return session.write_response_body(None::<Bytes>, true).await;
    }
    session.write_response_header(Box::new(head), false).await?;
    let mut body = reply.body;
    while body.len() > PIECE {
        session.write_response_body(Some(body.split_to(PIECE)), false).await?;
    }
    session.write_response_body(Some(body), true).await
}

/// The head of an archive, made from nothing but what was checked: whatever else a target says
/// (cookies, its name, a disposition) stays behind, and the whole stays far below the 4096 bytes
/// that Sig's client reads. What says how it came, and which copy it is, is added where it is sent.
pub(super) fn archive(archive: &ArchiveHead) -> Result<ResponseHeader> {
    let mut head = ResponseHeader::build(archive.status, Some(9))?;
    head.insert_header(DATE, now())?;
    head.insert_header(CONTENT_TYPE, archive.content_type.clone())?;
    head.insert_header(CONTENT_LENGTH, archive.length.to_string())?;
    if let Some(range) = archive.content_range {
        head.insert_header(CONTENT_RANGE, range.to_string())?;
    }
    if let Some(ranges) = archive.ranges.header() {
        head.insert_header(ACCEPT_RANGES, ranges)?;
    }
    if let Some(modified) = archive.modified {
        head.insert_header(LAST_MODIFIED, httpdate::fmt_http_date(modified))?;
    }
    Ok(head)
}

/// What caches in front may do with an archive: keep it where it is a sealed copy, which is what it
/// is for everybody and for ever. Of anything else the next answer may be another copy.
pub(super) fn caching(is_sealed: bool, is_for_all: bool) -> HeaderValue {
    match (is_sealed, is_for_all) {
        (false, _) => NO_STORE,
        (true, true) => FOR_ALL,
        (true, false) => FOR_ONE,
    }
}

/// The host and port that the request came for, where it is one: HTTP/1.0 names none.
pub(super) fn authority(session: &Session) -> Option<String> {
    let request = session.req_header();
    let named = request.uri.authority().map(http::uri::Authority::as_str);
    let host = request.headers.get(HOST).and_then(|value: &HeaderValue| value.to_str().ok());
    let named = named.or(host).filter(|name| name.len() <= MAX_AUTHORITY)?;
    let authority: http::uri::Authority = named.parse().ok()?;
    // No user name, and nothing that would need an escape where the value is shown.
    (!authority.as_str().contains('@')).then(|| authority.to_string())
}

fn now() -> String {
    httpdate::fmt_http_date(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::CopyId;
    use crate::route::{ByteRange, ContentRange, Ranges};
    use std::time::UNIX_EPOCH;

    #[test]
    fn the_head_of_an_archive_has_what_was_checked_and_nothing_else() {
        let changed = UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        let range = ByteRange::new(5, 10);
        let told = ArchiveHead {
            status: StatusCode::PARTIAL_CONTENT,
            length: 5,
            copy: CopyId::new("a:1", 1000, None),
            modified: Some(changed),
            tag: None,
            content_range: Some(ContentRange { range, total: 1000 }),
            content_type: HeaderValue::from_static("application/zstd"),
            ranges: Ranges::Served,
        };
        let head = archive(&told).expect("a head");
        let shown: Vec<String> = head
            .headers
            .iter()
            .filter(|(name, _)| *name != DATE)
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
            .collect();
        let expected = [
            "content-type: application/zstd",
            "content-length: 5",
            "content-range: bytes 5-9/1000",
            "accept-ranges: bytes",
            "last-modified: Mon, 21 Sep 2026 14:13:20 GMT",
        ];
        assert_eq!(
            (head.status, shown),
            (StatusCode::PARTIAL_CONTENT, expected.map(str::to_owned).to_vec())
        );
        let bare = ArchiveHead {
            status: StatusCode::OK,
            modified: None,
            content_range: None,
            ranges: Ranges::Unknown,
            ..told
        };
        let head = archive(&bare).expect("a head");
        for name in [CONTENT_RANGE, ACCEPT_RANGES, LAST_MODIFIED] {
            assert!(!head.headers.contains_key(&name), "{name}");
        }
    }

    #[test]
    fn a_piece_may_take_a_pause_and_its_time_at_the_least_rate() {
        let limits = |pause, rate| Limits {
            send_timeout: Duration::from_secs(pause),
            min_send_rate: rate,
            ..Limits::default()
        };
        let slice = SLICE;
        assert_eq!(patience(&limits(60, slice)), Duration::from_secs(61));
        assert_eq!(patience(&limits(60, 2 * slice)), Duration::from_millis(60_500));
        // Without a least rate there is an end all the same.
        assert!(patience(&limits(60, 0)) > Duration::from_secs(60));
    }
}
