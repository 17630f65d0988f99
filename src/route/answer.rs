//! Whether what an upstream answers is the archive that was asked for.

use std::time::SystemTime;

use http::header::{
    ACCEPT_RANGES, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, LAST_MODIFIED,
};
use http::{Method, StatusCode};

use super::asked::Asked;
use super::condition::Judgement;
use super::failure::{Failure, SourceFailure};
use super::header::text;
use super::range::{ContentRange, RangeRequest};
use crate::access::is_long;
use crate::index::{CopyId, Listed, Source, Tag};
use crate::snapshot::{Compression, framing};

/// What is done with an upstream's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The answer is passed on, under this head.
    Deliver(ArchiveHead),
    /// The source is asked again, for all of the archive.
    AskWhole,
    /// The client is told this; another source would say the same.
    Refuse(Failure),
    /// The source failed; the next one is tried.
    Fail(SourceFailure),
}

/// The head under which an archive, or a part of it, goes to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveHead {
    /// 200 or 206.
    pub status: StatusCode,
    /// Bytes of the body.
    pub length: u64,
    /// Which copy it is.
    pub copy: CopyId,
    /// When that copy last changed.
    pub modified: Option<SystemTime>,
    /// What its target calls it.
    pub tag: Option<Tag>,
    /// Where the bytes are, in an answer to a single range.
    pub content_range: Option<ContentRange>,
    /// The media type.
    pub content_type: HeaderValue,
    /// What a range of it would be answered with.
    pub ranges: Ranges,
}

/// What is known of the answers to ranges, as `accept-ranges` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// Parts.
    Served,
    /// Ranges are answered with all of the archive.
    Ignored,
    /// Ranges may be served or not, which a client finds out by asking.
    Unknown,
}

impl Ranges {
    /// The value of an `accept-ranges` header, where there is one to send.
    pub const fn header(self) -> Option<&'static str> {
        match self {
            Self::Served => Some("bytes"),
            Self::Ignored => Some("none"),
            Self::Unknown => None,
        }
    }
}

impl ArchiveHead {
    /// The head of all of a source's archive, by its listing; nothing where that has no length.
    pub fn listed(source: &Source) -> Option<Self> {
        let Listed { size, modified, .. } = source.listed;
        size.map(|length| whole_head(source, length, modified, Ranges::Unknown))
    }
}

/// Judges the head of an upstream's answer.
///
/// A 200 must be the archive: as long as the target said, framed by its length, not encoded. A 206
/// must be the asked range of the same. Everything else is a failure of the source.
///
/// But not of one that is asked by HEAD: there are servers that refuse it, route it elsewhere or
/// leave the length out, and serve a GET well. It may confirm what the target listed, and cannot
/// contradict it; only of what was listed without a length it is the first word. What a GET would
/// be told as well is that this process may not ask.
pub fn judge(asked: &Asked, source: &Source, status: StatusCode, headers: &HeaderMap) -> Verdict {
    let ranged = asked.range != RangeRequest::Whole;
    let verdict = match status {
        _ if is_long(headers) => Err(SourceFailure::LongHead),
        StatusCode::OK => whole(source, headers),
        StatusCode::PARTIAL_CONTENT if ranged => part(asked, source, headers),
        StatusCode::RANGE_NOT_SATISFIABLE if ranged => unsatisfiable(asked, source, headers),
        // Firedancer's answer to several ranges, and others' to spellings that they do not know:
        // what the client asks is not the source's fault.
        StatusCode::BAD_REQUEST if ranged => Ok(Verdict::AskWhole),
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(SourceFailure::Gone),
        StatusCode::LOOP_DETECTED => Err(SourceFailure::Loop),
        status if status.is_redirection() => Err(SourceFailure::Redirect),
        status => Err(SourceFailure::Status(status.as_u16())),
    };
    match verdict {
        Ok(verdict) => verdict,
        Err(failure) if asked.method == Method::HEAD && status != StatusCode::UNAUTHORIZED => {
            match ArchiveHead::listed(source) {
                Some(head) => Verdict::Deliver(head),
                None if failure == SourceFailure::Gone => {
                    Verdict::Fail(SourceFailure::Status(status.as_u16()))
                }
                None => Verdict::Fail(failure),
            }
        }
        Err(failure) => Verdict::Fail(failure),
    }
}

fn whole(source: &Source, headers: &HeaderMap) -> Result<Verdict, SourceFailure> {
    let length = body_length(compression(source), headers)?;
    check_total(source, length)?;
    if source.listed.size.is_none() && is_text(headers) {
        // With a length to compare, a careless default type is forgiven.
        return Err(SourceFailure::Text);
    }
    let accepts = text(headers, &ACCEPT_RANGES).map(str::to_ascii_lowercase);
    let accepts = accepts.is_some_and(|value| value.contains("bytes"));
    let ranges = if accepts { Ranges::Served } else { Ranges::Ignored };
    let head = whole_head(source, length, modified(headers), ranges);
    Ok(Verdict::Deliver(ArchiveHead { tag: tag(headers), ..head }))
}

/// The head of the whole archive, as an answer or the listing tells it.
fn whole_head(
    source: &Source,
    length: u64,
    modified: Option<SystemTime>,
    ranges: Ranges,
) -> ArchiveHead {
    ArchiveHead {
        status: StatusCode::OK,
        length,
        copy: CopyId::new(&source.target.authority, length, modified),
        modified,
        tag: None,
        content_range: None,
        content_type: own_type(source),
        ranges,
    }
}

fn part(asked: &Asked, source: &Source, headers: &HeaderMap) -> Result<Verdict, SourceFailure> {
    let length = body_length(compression(source), headers)?;
    let content_range = text(headers, &CONTENT_RANGE).and_then(ContentRange::parse);
    let (total, content_type) = match (&asked.range, content_range) {
        (_, Some(found)) if found.range.is_none_or(|range| range.len() != length) => {
            return Err(SourceFailure::Range);
        }
        (RangeRequest::Single(spec), Some(found)) if found.range == spec.resolve(found.total) => {
            (found.total, own_type(source))
        }
        // Several ranges may be answered by one that covers them, or by a body in parts whose
        // boundary is in the type. The total is then in the parts, out of sight.
        (RangeRequest::Multiple(_), Some(found)) => (found.total, own_type(source)),
        (RangeRequest::Multiple(_), None) => match (source.listed.size, multipart(headers)) {
            (Some(total), Some(content_type)) => (total, content_type),
            _ => return Ok(Verdict::AskWhole),
        },
        (RangeRequest::Single(_) | RangeRequest::Whole, _) => return Err(SourceFailure::Range),
    };
    check_total(source, total)?;
    let modified = modified(headers);
    let copy = CopyId::new(&source.target.authority, total, modified);
    if asked.if_range.as_ref().is_some_and(|condition| !condition.holds(copy)) {
        return Ok(Verdict::AskWhole);
    }
    Ok(Verdict::Deliver(ArchiveHead {
        status: StatusCode::PARTIAL_CONTENT,
        length,
        copy,
        modified,
        tag: tag(headers),
        content_range,
        content_type,
        ranges: Ranges::Served,
    }))
}

/// A 416 is believed where it is plausible. Otherwise, and under a condition, of which it says
/// nothing, all of the archive is asked for.
fn unsatisfiable(
    asked: &Asked,
    source: &Source,
    headers: &HeaderMap,
) -> Result<Verdict, SourceFailure> {
    let found = text(headers, &CONTENT_RANGE).and_then(ContentRange::parse);
    // Other conditions come before the range. Which copy it is, only the listing tells.
    let are_met = asked.conditions.is_empty()
        || source.copy().is_some_and(|copy| {
            asked.conditions.judge(copy, source.listed.modified) == Judgement::Met
        });
    match (&asked.range, found.map(|found| found.total).or(source.listed.size)) {
        (RangeRequest::Single(spec), Some(total))
            if asked.if_range.is_none() && are_met && spec.resolve(total).is_none() =>
        {
            check_total(source, total)?;
            Ok(Verdict::Refuse(Failure::Unsatisfiable { total }))
        }
        _ => Ok(Verdict::AskWhole),
    }
}

/// Length of the body that follows, when it is one that can be passed on as it is.
pub(super) fn body_length(
    compression: Compression,
    headers: &HeaderMap,
) -> Result<u64, SourceFailure> {
    if !framing::is_file_itself(headers, compression) {
        return Err(SourceFailure::Encoded);
    }
    let html = |value: &str| {
        let essence = value.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("text/html")
            || essence.eq_ignore_ascii_case("application/xhtml+xml")
    };
    if text(headers, &CONTENT_TYPE).is_some_and(html) {
        return Err(SourceFailure::Html);
    }
    match framing::body_length(headers) {
        None => Err(SourceFailure::NoLength),
        Some(0) => Err(SourceFailure::Empty),
        Some(length) => Ok(length),
    }
}

fn is_text(headers: &HeaderMap) -> bool {
    let media = text(headers, &CONTENT_TYPE).unwrap_or_default().trim_start().to_ascii_lowercase();
    media.starts_with("text/") || media.starts_with("application/json")
}

fn check_total(source: &Source, found: u64) -> Result<(), SourceFailure> {
    match source.listed.size {
        Some(expected) if expected != found => Err(SourceFailure::Length { expected, found }),
        _ => Ok(()),
    }
}

fn tag(headers: &HeaderMap) -> Option<Tag> {
    headers.get(ETAG).map(|tag| Tag::new(tag.as_bytes()))
}

fn modified(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(text(headers, &LAST_MODIFIED)?).ok()
}

fn compression(source: &Source) -> Compression {
    source.listed.name.compression()
}

fn own_type(source: &Source) -> HeaderValue {
    HeaderValue::from_static(compression(source).content_type())
}

/// The type of a body in parts. A boundary has at most 70 characters (RFC 2046), and the head that
/// it goes into is bounded.
fn multipart(headers: &HeaderMap) -> Option<HeaderValue> {
    const PREFIX: &str = "multipart/byteranges; boundary=";
    let value = headers.get(CONTENT_TYPE)?;
    let text = value.to_str().ok()?;
    let starts = text.get(..PREFIX.len())?.eq_ignore_ascii_case(PREFIX);
    (starts && text.len() <= PREFIX.len() + 72).then(|| value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{AccessKey, Location, TargetId};
    use crate::route::{ByteRange, Conditions, IfRange, RangeSpec, TEST_KEY};
    use http::HeaderName;
    use std::time::{Duration, UNIX_EPOCH};

    const TOTAL: u64 = 1000;
    const DATE: &str = "Mon, 21 Sep 2026 14:13:20 GMT";

    fn changed() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_790_000_000)
    }

    fn source(size: Option<u64>) -> Source {
        let name = format!("snapshot-1-{}.tar.zst", "1".repeat(32)).parse().expect("valid");
        Source {
            target: TargetId { group: "g".into(), authority: "10.0.0.1:8899".into() },
            listed: Listed {
                name,
                size,
                modified: None,
                tag: None,
                location: Some(Location {
                    scheme: "http",
                    address: ([10, 0, 0, 1], 8899).into(),
                    authority: "10.0.0.1:8899".into(),
                    path: "/x".to_owned(),
                    access: AccessKey::default(),
                    via: crate::hops::Via::default(),
                }),
            },
            updated_at: UNIX_EPOCH,
        }
    }

    fn copy(modified: Option<SystemTime>) -> CopyId {
        CopyId::new("10.0.0.1:8899", TOTAL, modified)
    }

    fn asked(range: &str, if_range: Option<&str>) -> Asked {
        Asked {
            method: Method::GET,
            range: RangeRequest::parse(range),
            if_range: if_range.map(|value| IfRange::new(value, TEST_KEY)),
            conditions: Conditions::default(),
        }
    }

    /// An upstream's answer: a status, and headers as `name: value` lines.
    fn check_with(size: Option<u64>, asked: &Asked, status: u16, head: &str, expected: &Verdict) {
        let mut headers = HeaderMap::new();
        for line in head.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(": ").expect("a header");
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, value.parse().expect("a value"));
        }
        let status = StatusCode::from_u16(status).expect("a status");
        let found = judge(asked, &source(size), status, &headers);
        assert_eq!(found, *expected, "{asked:?} {status} {head}");
    }

    fn check(asked: &Asked, status: u16, head: &str, expected: &Verdict) {
        check_with(Some(TOTAL), asked, status, head, expected);
    }

    fn fail(failure: SourceFailure) -> Verdict {
        Verdict::Fail(failure)
    }

    fn whole_head(modified: Option<SystemTime>, ranges: bool) -> Verdict {
        let ranges = if ranges { Ranges::Served } else { Ranges::Ignored };
        Verdict::Deliver(ArchiveHead {
            status: StatusCode::OK,
            length: TOTAL,
            copy: copy(modified),
            modified,
            tag: None,
            content_range: None,
            content_type: HeaderValue::from_static("application/zstd"),
            ranges,
        })
    }

    fn part_head(start: u64, end: u64) -> Verdict {
        let range = ByteRange::new(start, end);
        Verdict::Deliver(ArchiveHead {
            status: StatusCode::PARTIAL_CONTENT,
            length: end - start,
            copy: copy(Some(changed())),
            modified: Some(changed()),
            tag: None,
            content_range: Some(ContentRange { range, total: TOTAL }),
            content_type: HeaderValue::from_static("application/zstd"),
            ranges: Ranges::Served,
        })
    }

    #[test]
    fn a_whole_archive() {
        let all = asked("", None);
        check(&all, 200, "content-length: 1000", &whole_head(None, false));
        let go = format!("content-length: 1000\naccept-ranges: bytes\nlast-modified: {DATE}");
        check(&all, 200, &go, &whole_head(Some(changed()), true));
        let odd = "content-length: 1000\nlast-modified: yesterday\naccept-ranges: none\n\
                   content-encoding: identity\ncontent-type: text/plain\nset-cookie: a=b";
        check(&all, 200, odd, &whole_head(None, false));
        // All of it is a right answer to any range and under any condition.
        check(&asked("bytes=5-9", Some("\"x\"")), 200, &go, &whole_head(Some(changed()), true));

        let unknown = whole_head(None, false);
        check_with(None, &all, 200, "content-length: 1000", &unknown);
        let wrong = SourceFailure::Length { expected: 1001, found: 1000 };
        check_with(Some(1001), &all, 200, "content-length: 1000", &fail(wrong));
        for head in ["", "content-length: -1", "content-length: 1e3", "transfer-encoding: chunked"]
        {
            check(&all, 200, head, &fail(SourceFailure::NoLength));
        }
        let both = "content-length: 1000\ntransfer-encoding: chunked";
        check(&all, 200, both, &fail(SourceFailure::NoLength));
        check(&all, 200, "content-length: 0", &fail(SourceFailure::Empty));
        let text = "content-length: 1000\ncontent-type: text/plain";
        check_with(None, &all, 200, text, &fail(SourceFailure::Text));
        let json = "content-length: 1000\ncontent-type: application/json";
        check_with(None, &all, 200, json, &fail(SourceFailure::Text));
        let twice = "content-length: 1000\ncontent-encoding: identity\ncontent-encoding: gzip";
        check(&all, 200, twice, &fail(SourceFailure::Encoded));
        for encoding in ["gzip", "br", "GZIP", "zstd, zstd"] {
            let head = format!("content-length: 1000\ncontent-encoding: {encoding}");
            check(&all, 200, &head, &fail(SourceFailure::Encoded));
        }
        for encoding in ["zstd", "ZSTD", "identity, zstd"] {
            let head = format!("content-length: 1000\ncontent-encoding: {encoding}");
            check(&all, 200, &head, &whole_head(None, false));
        }
        check(&all, 200, "content-length: 1000, 1000", &whole_head(None, false));
        let other = "content-length: 1000, 1001";
        check(&all, 200, other, &fail(SourceFailure::NoLength));
        for media in ["text/html", "Text/HTML; charset=utf-8", "application/xhtml+xml"] {
            let head = format!("content-length: 1000\ncontent-type: {media}");
            check(&all, 200, &head, &fail(SourceFailure::Html));
        }
    }

    #[test]
    fn other_statuses() {
        let all = asked("", None);
        for status in [404, 410] {
            check(&all, status, "", &fail(SourceFailure::Gone));
        }
        check(&all, 508, "", &fail(SourceFailure::Loop));
        for status in [301, 302, 303, 307, 308, 304] {
            check(&all, status, "location: /x", &fail(SourceFailure::Redirect));
        }
        for status in [101, 201, 202, 204, 206, 400, 401, 403, 405, 416, 429, 500, 502, 503] {
            let head = "content-length: 1000\ncontent-range: bytes 0-999/1000";
            check(&all, status, head, &fail(SourceFailure::Status(status)));
        }
    }

    fn by_head() -> Asked {
        Asked::all(Method::HEAD)
    }

    /// Answers to HEAD that say nothing of use.
    const USELESS: [(u16, &str); 19] = [
        (200, ""),
        (200, "content-length: 0"),
        (200, "content-length: 60"),
        (200, "content-length: 1000, 60"),
        (200, "transfer-encoding: chunked"),
        (200, "content-length: 1000\ncontent-type: text/html"),
        (200, "content-length: 1000\ncontent-encoding: br"),
        (202, "content-length: 60"),
        (204, ""),
        (206, "content-length: 60"),
        (302, "location: http://elsewhere/"),
        (304, ""),
        (400, ""),
        (403, "content-length: 60"),
        (404, ""),
        (405, "content-length: 60"),
        (410, ""),
        (501, "content-length: 60"),
        (503, ""),
    ];

    #[test]
    fn a_head_confirms_a_listing_and_never_contradicts_it() {
        let listed = Verdict::Deliver(ArchiveHead {
            status: StatusCode::OK,
            length: TOTAL,
            copy: copy(None),
            modified: None,
            tag: None,
            content_range: None,
            content_type: HeaderValue::from_static("application/zstd"),
            ranges: Ranges::Unknown,
        });
        for (status, head) in USELESS {
            check(&by_head(), status, head, &listed);
        }
        let told = format!("content-length: 1000\naccept-ranges: Bytes\nlast-modified: {DATE}");
        check(&by_head(), 200, &told, &whole_head(Some(changed()), true));
        check(&by_head(), 200, "content-length: 1000", &whole_head(None, false));
        check(&by_head(), 401, "", &fail(SourceFailure::Status(401)));
    }

    #[test]
    fn a_head_of_what_was_listed_without_a_length_says_no_more_than_that_it_failed() {
        for (status, head) in USELESS.into_iter().filter(|(_, head)| *head != "content-length: 60")
        {
            let mut headers = HeaderMap::new();
            for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
                let name: HeaderName = name.parse().expect("a name");
                headers.append(name, value.parse().expect("a value"));
            }
            let answer = StatusCode::from_u16(status).expect("a status");
            let found = judge(&by_head(), &source(None), answer, &headers);
            let Verdict::Fail(failure) = found else { panic!("{status} {head}: {found:?}") };
            assert_ne!(failure, SourceFailure::Gone, "{status} {head}");
        }
        let asked = asked("", None);
        check_with(None, &asked, 404, "", &fail(SourceFailure::Gone));
    }

    #[test]
    fn a_part() {
        let head = |range: &str, length: u64| {
            format!("content-range: {range}\ncontent-length: {length}\nlast-modified: {DATE}")
        };
        let middle = asked("bytes=10-19", None);
        check(&middle, 206, &head("bytes 10-19/1000", 10), &part_head(10, 20));
        check(&asked("bytes=-5", None), 206, &head("bytes 995-999/1000", 5), &part_head(995, 1000));
        let clamped = asked("bytes=990-5000", None);
        check(&clamped, 206, &head("bytes 990-999/1000", 10), &part_head(990, 1000));

        let wrong = [
            head("bytes 10-19/1000", 11),
            head("bytes 11-19/1000", 9),
            head("bytes 0-999/1000", 1000),
            head("bytes */1000", 10),
            head("bytes 10-19/*", 10),
            "content-length: 10".to_owned(),
        ];
        for head in wrong {
            check(&middle, 206, &head, &fail(SourceFailure::Range));
        }
        let total = SourceFailure::Length { expected: TOTAL, found: 2000 };
        check(&middle, 206, &head("bytes 10-19/2000", 10), &fail(total));
        let html = head("bytes 10-19/1000", 10) + "\ncontent-type: text/html";
        check(&middle, 206, &html, &fail(SourceFailure::Html));
    }

    #[test]
    fn a_condition_is_the_copys() {
        let head =
            format!("content-range: bytes 10-19/1000\ncontent-length: 10\nlast-modified: {DATE}");
        let tag = TEST_KEY.tag(copy(Some(changed())));
        check(&asked("bytes=10-19", Some(&tag)), 206, &head, &part_head(10, 20));
        let weak = format!("W/{tag}");
        for fails in ["\"x\"", "", "*", &weak, DATE] {
            check(&asked("bytes=10-19", Some(fails)), 206, &head, &Verdict::AskWhole);
        }
        // Nothing can be said of a copy whose range is unsatisfiable.
        let beyond = asked("bytes=5000-", Some(&tag));
        check(&beyond, 416, "content-range: bytes */1000", &Verdict::AskWhole);
    }

    #[test]
    fn an_unsatisfiable_range_is_believed_where_it_is_one() {
        let beyond = asked("bytes=5000-", None);
        let refused = Verdict::Refuse(Failure::Unsatisfiable { total: TOTAL });
        check(&beyond, 416, "content-range: bytes */1000", &refused);
        check(&beyond, 416, "", &refused);
        check_with(None, &beyond, 416, "", &Verdict::AskWhole);
        let within = asked("bytes=5-", None);
        check(&within, 416, "content-range: bytes */1000", &Verdict::AskWhole);
        let shorter = SourceFailure::Length { expected: TOTAL, found: 4 };
        check(&within, 416, "content-range: bytes */4", &fail(shorter));
        check(&within, 400, "", &Verdict::AskWhole);
    }

    #[test]
    fn several_ranges() {
        let several = asked("bytes=0-1,5-6", None);
        assert!(matches!(several.range, RangeRequest::Multiple(_)));
        let multipart = "multipart/byteranges; boundary=THIS";
        let head = format!("content-length: 150\ncontent-type: {multipart}");
        let parts = Verdict::Deliver(ArchiveHead {
            status: StatusCode::PARTIAL_CONTENT,
            length: 150,
            copy: copy(None),
            modified: None,
            tag: None,
            content_range: None,
            content_type: HeaderValue::from_static(multipart),
            ranges: Ranges::Served,
        });
        check(&several, 206, &head, &parts);
        // Without a known total the copy cannot be named.
        check_with(None, &several, 206, &head, &Verdict::AskWhole);
        let long = format!("{head}{}", "x".repeat(100));
        check(&several, 206, &long, &Verdict::AskWhole);
        let one = "content-range: bytes 0-6/1000\ncontent-length: 8";
        check(&several, 206, one, &fail(SourceFailure::Range));
        for status in [400, 416] {
            check(&several, status, "content-range: bytes */1000", &Verdict::AskWhole);
        }
        let single = RangeRequest::Single(RangeSpec::Suffix(5));
        let asked = Asked { range: single, ..Asked::all(Method::GET) };
        check(&asked, 206, &head, &fail(SourceFailure::Range));
    }
}
