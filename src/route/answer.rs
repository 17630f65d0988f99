//! Whether what an upstream answers is the archive that was asked for.

use std::time::SystemTime;

use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap,
    HeaderName, HeaderValue, LAST_MODIFIED, TRANSFER_ENCODING,
};
use http::{Method, StatusCode};

use super::etag::CopyId;
use super::failure::{Failure, SourceFailure};
use super::range::{ContentRange, RangeRequest};
use crate::index::Source;

/// The condition of a range request: which copy the client has the rest of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IfRange {
    /// An entity tag, as sent.
    Tag(String),
    /// The time of the last change.
    Date(SystemTime),
}

impl IfRange {
    /// Reads the value of an `if-range` header. What is not a date is a tag, at worst one that no
    /// copy has.
    pub fn parse(value: &str) -> Self {
        httpdate::parse_http_date(value).map_or_else(|_| Self::Tag(value.to_owned()), Self::Date)
    }

    fn holds(&self, copy: CopyId, modified: Option<SystemTime>) -> bool {
        match self {
            Self::Tag(tag) => copy.matches(tag),
            Self::Date(date) => modified == Some(*date),
        }
    }
}

/// What was asked of the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// GET or HEAD.
    pub method: Method,
    /// How much of it.
    pub range: RangeRequest,
    /// Under which condition the range is wanted; otherwise all of it is.
    pub if_range: Option<IfRange>,
}

/// What is done with an upstream's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is passed on, under this head.
    Deliver(ArchiveHead),
    /// The same source is asked again, for all of it.
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
    /// Where the bytes are, in an answer to a single range.
    pub content_range: Option<ContentRange>,
    /// The media type.
    pub content_type: HeaderValue,
    /// True when the source is known to answer ranges.
    pub ranges: bool,
}

/// Judges the head of an upstream's answer.
///
/// A 200 must be the archive: as long as the target said, framed by its length, not encoded. A 206
/// must be the asked range of the same. Everything else is a failure of the source.
pub fn judge(asked: &Asked, source: &Source, status: StatusCode, headers: &HeaderMap) -> Verdict {
    let ranged = asked.range != RangeRequest::Whole;
    let verdict = match status {
        StatusCode::OK => whole(source, headers),
        StatusCode::PARTIAL_CONTENT if ranged => part(asked, source, headers),
        StatusCode::RANGE_NOT_SATISFIABLE if ranged => unsatisfiable(asked, source, headers),
        // Firedancer's answer to several ranges, of which it knows nothing.
        StatusCode::BAD_REQUEST if asked.range == RangeRequest::Multiple => Ok(Verdict::AskWhole),
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(SourceFailure::Gone),
        status if status.is_redirection() => Err(SourceFailure::Redirect),
        status => Err(SourceFailure::Status(status.as_u16())),
    };
    verdict.unwrap_or_else(Verdict::Fail)
}

fn whole(source: &Source, headers: &HeaderMap) -> Result<Verdict, SourceFailure> {
    let length = body_length(headers)?;
    check_total(source, length)?;
    let accepts = text(headers, &ACCEPT_RANGES).is_some_and(|value| value.contains("bytes"));
    let modified = modified(headers);
    Ok(Verdict::Deliver(ArchiveHead {
        status: StatusCode::OK,
        length,
        copy: CopyId::new(&source.target.authority, length, modified),
        modified,
        content_range: None,
        content_type: own_type(source),
        ranges: accepts,
    }))
}

fn part(asked: &Asked, source: &Source, headers: &HeaderMap) -> Result<Verdict, SourceFailure> {
    let length = body_length(headers)?;
    let content_range = text(headers, &CONTENT_RANGE).and_then(ContentRange::parse);
    let (total, content_type) = match (asked.range, content_range) {
        (RangeRequest::Single(spec), Some(found)) => {
            let fits = found.range.is_some_and(|range| range.len() == length)
                && found.range == spec.resolve(found.total);
            if !fits {
                return Err(SourceFailure::Range);
            }
            (found.total, own_type(source))
        }
        // Several ranges may be answered by one that covers them, or by a body in parts whose
        // boundary is in the type. The total is then in the parts, out of sight.
        (RangeRequest::Multiple, Some(found)) => (found.total, own_type(source)),
        (RangeRequest::Multiple, None) => match (source.listed.size, multipart(headers)) {
            (Some(total), Some(content_type)) => (total, content_type),
            _ => return Ok(Verdict::AskWhole),
        },
        (RangeRequest::Single(_) | RangeRequest::Whole, _) => return Err(SourceFailure::Range),
    };
    check_total(source, total)?;
    let modified = modified(headers);
    let copy = CopyId::new(&source.target.authority, total, modified);
    if asked.if_range.as_ref().is_some_and(|condition| !condition.holds(copy, modified)) {
        return Ok(Verdict::AskWhole);
    }
    Ok(Verdict::Deliver(ArchiveHead {
        status: StatusCode::PARTIAL_CONTENT,
        length,
        copy,
        modified,
        content_range,
        content_type,
        ranges: true,
    }))
}

/// A 416 is believed where it is plausible. Under a condition it proves nothing about the copy, so
/// all of it is asked for.
fn unsatisfiable(
    asked: &Asked,
    source: &Source,
    headers: &HeaderMap,
) -> Result<Verdict, SourceFailure> {
    if asked.if_range.is_some() {
        return Ok(Verdict::AskWhole);
    }
    let found = text(headers, &CONTENT_RANGE).and_then(ContentRange::parse);
    let total = found.map(|found| found.total).or(source.listed.size);
    let total = total.ok_or(SourceFailure::Range)?;
    check_total(source, total)?;
    match asked.range {
        RangeRequest::Single(spec) if spec.resolve(total).is_none() => {
            Ok(Verdict::Refuse(Failure::Unsatisfiable { total }))
        }
        RangeRequest::Multiple => Ok(Verdict::AskWhole),
        RangeRequest::Single(_) | RangeRequest::Whole => Err(SourceFailure::Range),
    }
}

/// Length of the body that follows, when it is one that can be passed on as it is.
fn body_length(headers: &HeaderMap) -> Result<u64, SourceFailure> {
    let encoding = text(headers, &CONTENT_ENCODING);
    if encoding.is_some_and(|value| !value.trim().eq_ignore_ascii_case("identity")) {
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
    if headers.contains_key(TRANSFER_ENCODING) {
        return Err(SourceFailure::NoLength);
    }
    match text(headers, &CONTENT_LENGTH).and_then(|value| value.parse::<u64>().ok()) {
        None => Err(SourceFailure::NoLength),
        Some(0) => Err(SourceFailure::Empty),
        Some(length) => Ok(length),
    }
}

fn check_total(source: &Source, found: u64) -> Result<(), SourceFailure> {
    match source.listed.size {
        Some(expected) if expected != found => Err(SourceFailure::Length { expected, found }),
        _ => Ok(()),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn modified(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(text(headers, &LAST_MODIFIED)?).ok()
}

fn own_type(source: &Source) -> HeaderValue {
    HeaderValue::from_static(source.listed.name.compression().content_type())
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
