//! Whether a broken transfer can go on where it broke off: only with the same copy.

use http::StatusCode;
use http::header::{CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, LAST_MODIFIED};

use super::answer::body_length;
use super::failure::SourceFailure;
use super::header::text;
use super::range::ContentRange;
use crate::snapshot::Compression;

/// What a target calls its copy: its own strong tag, or the time of the last change where there is
/// none. It goes back to the same target and nowhere else; clients know copies by our tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validator {
    tag: Option<HeaderValue>,
    modified: Option<HeaderValue>,
}

impl Validator {
    /// The validator in the head of a whole archive, where it has one. A weak tag says that two
    /// copies mean the same, and not that they have the same bytes.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let tag = headers.get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")).cloned();
        let modified = headers.get(LAST_MODIFIED).cloned();
        (tag.is_some() || modified.is_some()).then_some(Self { tag, modified })
    }

    /// The value of an `if-range` header.
    pub fn condition(&self) -> Option<&HeaderValue> {
        self.tag.as_ref().or(self.modified.as_ref())
    }

    /// Whether a head names the same copy: by what was relied on, and by nothing else than what
    /// was known. A server that ignores the condition says so by leaving it out, at best.
    fn agrees_with(&self, headers: &HeaderMap) -> bool {
        let (tag, modified) = (headers.get(ETAG), headers.get(LAST_MODIFIED));
        let same_time = modified == self.modified.as_ref();
        match &self.tag {
            Some(ours) => tag == Some(ours) && (same_time || modified.is_none()),
            None => same_time,
        }
    }
}

/// What an answer to the request for the rest of a copy means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rest {
    /// The rest follows.
    Follows,
    /// The copy is no longer there. What was received is of no use.
    Changed,
    /// The target failed; it may be asked again.
    Failed(SourceFailure),
}

/// Judges the answer to a request for everything from `from` on, of a copy of `total` bytes.
pub fn judge_rest(
    validator: &Validator,
    compression: Compression,
    from: u64,
    total: u64,
    status: StatusCode,
    headers: &HeaderMap,
) -> Rest {
    match status {
        StatusCode::PARTIAL_CONTENT => {}
        // The condition does not hold any more, or the target does not know ranges after all.
        StatusCode::OK
        | StatusCode::NOT_FOUND
        | StatusCode::GONE
        | StatusCode::PRECONDITION_FAILED
        | StatusCode::RANGE_NOT_SATISFIABLE => return Rest::Changed,
        StatusCode::LOOP_DETECTED => return Rest::Failed(SourceFailure::Loop),
        status if status.is_redirection() => return Rest::Changed,
        status => return Rest::Failed(SourceFailure::Status(status.as_u16())),
    }
    let length = match body_length(compression, headers) {
        Ok(length) => length,
        Err(failure) => return Rest::Failed(failure),
    };
    let place = text(headers, &CONTENT_RANGE).and_then(ContentRange::parse);
    let Some(ContentRange { range: Some(range), total: found }) = place else {
        return Rest::Failed(SourceFailure::Range);
    };
    if found == total && (range.start(), range.end(), range.len()) != (from, total, length) {
        return Rest::Failed(SourceFailure::Range);
    }
    if found == total && validator.agrees_with(headers) { Rest::Follows } else { Rest::Changed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::HeaderName;

    const DATE: &str = "Mon, 21 Sep 2026 14:13:20 GMT";
    const LATER: &str = "Mon, 21 Sep 2026 14:13:21 GMT";

    fn headers(lines: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(": ").expect("a header");
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn a_strong_tag_comes_before_a_date_and_a_weak_one_is_none() {
        let condition = |lines: &str| {
            let validator = Validator::of(&headers(lines))?;
            Some(validator.condition()?.to_str().expect("text").to_owned())
        };
        let dated = format!("last-modified: {DATE}");
        assert_eq!(condition(""), None);
        assert_eq!(condition("etag: W/\"a\""), None);
        assert_eq!(condition("etag: \"a\"").as_deref(), Some("\"a\""));
        assert_eq!(condition(&dated).as_deref(), Some(DATE));
        assert_eq!(condition(&format!("etag: W/\"a\"\n{dated}")).as_deref(), Some(DATE));
        assert_eq!(condition(&format!("etag: \"a\"\n{dated}")).as_deref(), Some("\"a\""));
    }

    #[test]
    fn a_copy_that_is_known_by_its_date_has_to_have_that_date() {
        let validator = Validator::of(&headers(&format!("last-modified: {DATE}"))).expect("one");
        let found = |lines: &str| {
            let rest = format!("content-length: 600\ncontent-range: bytes 400-999/1000\n{lines}");
            let status = StatusCode::PARTIAL_CONTENT;
            judge_rest(&validator, Compression::Zstd, 400, 1000, status, &headers(&rest))
        };
        assert_eq!(found(&format!("last-modified: {DATE}")), Rest::Follows);
        assert_eq!(found(&format!("last-modified: {LATER}")), Rest::Changed);
        assert_eq!(found(""), Rest::Changed);
    }

    /// The answer to a request for the bytes from 400 on, of 1000.
    #[track_caller]
    fn check(status: u16, lines: &str, expected: &Rest) {
        let validator = Validator::of(&headers(&format!("etag: \"a\"\nlast-modified: {DATE}")));
        let (validator, zstd) = (validator.expect("one"), Compression::Zstd);
        let status = StatusCode::from_u16(status).expect("a status");
        let found = judge_rest(&validator, zstd, 400, 1000, status, &headers(lines));
        assert_eq!(found, *expected, "{status} {lines}");
    }

    #[test]
    fn only_the_rest_of_the_same_copy_goes_on() {
        let rest = "content-length: 600\ncontent-range: bytes 400-999/1000\n";
        let with = |lines: &str| format!("{rest}{lines}");
        check(206, &with("etag: \"a\""), &Rest::Follows);
        check(206, &with(&format!("etag: \"a\"\nlast-modified: {DATE}")), &Rest::Follows);
        check(206, &with("etag: \"a\"\ncontent-encoding: zstd"), &Rest::Follows);
        check(206, &with("etag: \"a\"\ncontent-length: 600"), &Rest::Follows);
        // Another copy, of whatever length.
        check(206, &with("etag: \"b\""), &Rest::Changed);
        check(206, &with("etag: W/\"a\""), &Rest::Changed);
        // One that does not say.
        check(206, rest, &Rest::Changed);
        check(206, &with(&format!("last-modified: {DATE}")), &Rest::Changed);
        check(206, &with(&format!("last-modified: {LATER}")), &Rest::Changed);
        let longer = "content-length: 601\ncontent-range: bytes 400-1000/1001";
        check(206, longer, &Rest::Changed);
        for status in [200, 404, 410, 412, 416, 302] {
            check(status, "content-length: 1000", &Rest::Changed);
        }
        // Another part, and what is none.
        let range = Rest::Failed(SourceFailure::Range);
        check(206, "content-length: 599\ncontent-range: bytes 401-999/1000", &range);
        check(206, "content-length: 599\ncontent-range: bytes 400-998/1000", &range);
        check(206, "content-length: 600\ncontent-range: bytes */1000", &range);
        check(206, "content-length: 600", &range);
        check(206, "content-length: 601\ncontent-range: bytes 400-999/1000", &range);
        let lengths = Rest::Failed(SourceFailure::NoLength);
        check(206, &with("content-length: 601"), &lengths);
        let chunked = "transfer-encoding: chunked\ncontent-range: bytes 400-999/1000";
        check(206, chunked, &lengths);
        let encoded = with("content-encoding: gzip");
        check(206, &encoded, &Rest::Failed(SourceFailure::Encoded));
        check(503, "content-length: 0", &Rest::Failed(SourceFailure::Status(503)));
    }
}
