//! Conditions on a request (RFC 9110, section 13), judged on the copy that its answer would come
//! from. Of a copy they need its entity tag and the time of its last change, and none of its bytes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{
    ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    IF_UNMODIFIED_SINCE, LAST_MODIFIED,
};
use http::status::StatusCode;

use super::reply::Reply;
use super::tag::TagKey;
use crate::index::CopyId;

/// Bytes of each of our tags, quotes included. Longer and shorter ones name none of our copies.
const TAG: usize = 34;

/// What a request demands of the copy. Nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// `if-match`.
    matching: Option<Tags>,
    /// `if-unmodified-since`.
    unmodified_since: Option<SystemTime>,
    /// `if-none-match`.
    different: Option<Tags>,
    /// `if-modified-since`.
    modified_since: Option<SystemTime>,
}

/// What the conditions of a request come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The request is carried out.
    Met,
    /// The client has it already: 304.
    NotModified,
    /// The copy is not the one that the client has in mind: 412.
    Failed,
}

/// The value of `if-match` or `if-none-match`, over all lines of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tags {
    /// `*`
    Any,
    /// A list, of which those are kept that can be ours.
    Listed { tags: Vec<Tag>, key: TagKey },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Tag {
    weak: bool,
    /// With its quotes.
    text: Box<str>,
}

impl Conditions {
    /// The conditions in the head of a GET or HEAD; `key` is what tags are made with. A date that
    /// is none, or is given twice, is no condition; a list of tags that is none matches nothing.
    pub fn of(headers: &HeaderMap, key: TagKey) -> Self {
        Self {
            matching: Tags::of(headers, &IF_MATCH, key),
            unmodified_since: date(headers, &IF_UNMODIFIED_SINCE),
            different: Tags::of(headers, &IF_NONE_MATCH, key),
            modified_since: date(headers, &IF_MODIFIED_SINCE),
        }
    }

    /// True where nothing is demanded.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the copy is one that the request says its answer has to be of (`if-match`); `None`
    /// where it says nothing.
    pub fn names(&self, copy: CopyId) -> Option<bool> {
        match &self.matching {
            Some(tags @ Tags::Listed { .. }) => Some(tags.hold(copy, Comparison::Strong)),
            Some(Tags::Any) | None => None,
        }
    }

    /// True where the request says which copy its answer has to be of.
    pub fn name_copies(&self) -> bool {
        matches!(self.matching, Some(Tags::Listed { .. }))
    }

    /// Judges them on a copy that was `modified` then, in the order of section 13.2.2. Times are
    /// compared as HTTP tells them, in whole seconds; a copy without one meets each of them.
    pub fn judge(&self, copy: CopyId, modified: Option<SystemTime>) -> Judgement {
        let modified = modified.map(in_whole_seconds);
        let holds = match (&self.matching, self.unmodified_since, modified) {
            (Some(tags), ..) => tags.hold(copy, Comparison::Strong),
            (None, Some(since), Some(modified)) => modified <= since,
            (None, ..) => true,
        };
        if !holds {
            return Judgement::Failed;
        }
        let is_known = match (&self.different, self.modified_since, modified) {
            (Some(tags), ..) => tags.hold(copy, Comparison::Weak),
            (None, Some(since), Some(modified)) => modified <= since,
            (None, ..) => false,
        };
        if is_known { Judgement::NotModified } else { Judgement::Met }
    }
}

impl Judgement {
    /// The answer without the archive, where there is to be one; `tag` and `modified` are those of
    /// the copy that was judged.
    pub fn reply(self, tag: &str, modified: Option<SystemTime>) -> Option<Reply> {
        let reply = match self {
            Self::Met => return None,
            Self::NotModified => Reply::empty(StatusCode::NOT_MODIFIED),
            Self::Failed => Reply::text(
                StatusCode::PRECONDITION_FAILED,
                "the archive is there in another copy than the one that the request demands\n",
            ),
        };
        let reply = match HeaderValue::from_str(tag) {
            Ok(tag) => reply.with(ETAG, tag),
            Err(_) => reply,
        };
        let modified = modified.map(httpdate::fmt_http_date);
        Some(match modified.and_then(|date| HeaderValue::from_str(&date).ok()) {
            Some(date) => reply.with(LAST_MODIFIED, date),
            None => reply,
        })
    }
}

/// How two tags are compared (section 8.8.3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// Strong comparison: both tags have to be strong.
    Strong,
    Weak,
}

impl Tags {
    fn of(headers: &HeaderMap, name: &HeaderName, key: TagKey) -> Option<Self> {
        let lines: Vec<&HeaderValue> = headers.get_all(name).iter().collect();
        match lines[..] {
            [] => None,
            [line] if line.as_bytes().trim_ascii() == b"*" => Some(Self::Any),
            _ => {
                let tags = lines.iter().flat_map(|line| listed(line.as_bytes())).collect();
                Some(Self::Listed { tags, key })
            }
        }
    }

    /// Whether one of them is that of this copy, whose own tag is strong.
    fn hold(&self, copy: CopyId, comparison: Comparison) -> bool {
        let Self::Listed { tags, key } = self else { return true };
        let ours = key.tag(copy);
        let counts = |tag: &&Tag| comparison == Comparison::Weak || !tag.weak;
        tags.iter().filter(counts).any(|tag| *tag.text == *ours)
    }
}

/// The tags of one line that can be ours. What is behind something that is no tag does not count:
/// nobody knows how it was meant.
fn listed(line: &[u8]) -> Vec<Tag> {
    let mut tags = Vec::new();
    let mut rest = line;
    loop {
        // Members of a list may be empty.
        rest = skip(rest, b" \t,");
        let (weak, quoted) = match rest.strip_prefix(b"W/") {
            Some(quoted) => (true, quoted),
            None => (false, rest),
        };
        let Some(length) = quoted_length(quoted) else { return tags };
        let (tag, behind) = quoted.split_at(length);
        rest = skip(behind, b" \t");
        if !rest.is_empty() && rest[0] != b',' {
            return tags;
        }
        if let Some(text) = std::str::from_utf8(tag).ok().filter(|text| text.len() == TAG) {
            tags.push(Tag { weak, text: text.into() });
        }
    }
}

/// Bytes of the quoted text at the front, quotes included. No escapes: a backslash is a character.
fn quoted_length(text: &[u8]) -> Option<usize> {
    let inner = text.strip_prefix(b"\"")?;
    let end = inner.iter().position(|byte| *byte == b'"')?;
    let is_tag = |byte: &u8| *byte == 0x21 || (0x23..=0x7e).contains(byte) || *byte >= 0x80;
    inner[..end].iter().all(is_tag).then_some(end + 2)
}

fn skip<'a>(text: &'a [u8], what: &[u8]) -> &'a [u8] {
    let start = text.iter().position(|byte| !what.contains(byte));
    &text[start.unwrap_or(text.len())..]
}

/// The date of a header that comes once and holds one.
fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let mut lines = headers.get_all(name).iter();
    let (line, None) = (lines.next()?, lines.next()) else { return None };
    httpdate::parse_http_date(line.to_str().ok()?.trim()).ok()
}

fn in_whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::TEST_KEY;
    use Judgement::{Failed, Met, NotModified};
    use proptest::prelude::*;

    const BEFORE: &str = "Mon, 21 Sep 2026 14:13:19 GMT";
    const AT: &str = "Mon, 21 Sep 2026 14:13:20 GMT";
    const AFTER: &str = "Mon, 21 Sep 2026 14:13:21 GMT";

    fn copy() -> CopyId {
        CopyId::new("10.0.0.1:8899", 1000, None)
    }

    /// Changed within the second of `AT`.
    fn changed() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_790_000_000_900)
    }

    /// Headers as `name: value` lines, in which `OURS` is the tag of the copy.
    fn conditions(lines: &str) -> Conditions {
        let mut headers = HeaderMap::new();
        for line in lines.replace("OURS", &TEST_KEY.tag(copy())).split('\n') {
            let (name, value) = line.split_once(": ").expect("a header");
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, value.parse().expect("a value"));
        }
        Conditions::of(&headers, TEST_KEY)
    }

    #[track_caller]
    fn check(lines: &str, expected: Judgement) {
        let found = conditions(lines).judge(copy(), Some(changed()));
        assert_eq!(found, expected, "{lines}");
    }

    #[test]
    fn tags_are_compared_strongly_for_if_match_and_weakly_for_if_none_match() {
        for (value, strong, weak) in [
            ("OURS", true, true),
            ("W/OURS", false, true),
            ("*", true, true),
            (" * ", true, true),
            ("\"x\"", false, false),
            ("\"x\", OURS", true, true),
            ("\"x\",OURS,\"y\"", true, true),
            (",, ,OURS,", true, true),
            ("\"a,b\", \"\", W/\"\", OURS", true, true),
            ("\"x\", W/OURS", false, true),
            // Inside of another tag.
            ("\"a, OURS, \"", false, false),
            // No lists of tags.
            ("", false, false),
            ("x", false, false),
            ("x, OURS", false, false),
            ("OURS x", false, false),
            ("w/OURS", false, false),
            ("*, \"x\"", false, false),
            ("\"x", false, false),
        ] {
            check(&format!("if-match: {value}"), if strong { Met } else { Failed });
            check(&format!("if-none-match: {value}"), if weak { NotModified } else { Met });
        }
        check("if-match: \"x\"\nif-match: OURS", Met);
        check("if-match: \"x\"\nif-match: \"y\"", Failed);
        check("if-none-match: \"x\"\nif-none-match: W/OURS", NotModified);
    }

    #[test]
    fn dates_are_compared_in_whole_seconds_and_ignored_where_they_are_none() {
        for (date, modified_since, unmodified_since) in [
            (BEFORE, Met, Failed),
            (AT, NotModified, Met),
            (AFTER, NotModified, Met),
            // The two other forms.
            ("Monday, 21-Sep-26 14:13:20 GMT", NotModified, Met),
            ("Mon Sep 21 14:13:19 2026", Met, Failed),
            ("yesterday", Met, Met),
            ("", Met, Met),
            ("0", Met, Met),
            ("Mon, 21 Sep 2026 14:13:19 CET", Met, Met),
            ("Mon, 41 Sep 2026 14:13:19 GMT", Met, Met),
        ] {
            check(&format!("if-modified-since: {date}"), modified_since);
            check(&format!("if-unmodified-since: {date}"), unmodified_since);
        }
        check(&format!("if-modified-since: {AT}\nif-modified-since: {AT}"), Met);
        check(&format!("if-unmodified-since: {BEFORE}\nif-unmodified-since: {BEFORE}"), Met);
        // Without a time there is nothing to compare.
        for line in ["if-modified-since", "if-unmodified-since"] {
            let conditions = conditions(&format!("{line}: {BEFORE}"));
            assert_eq!(conditions.judge(copy(), None), Met, "{line}");
        }
    }

    #[test]
    fn conditions_are_judged_in_their_order() {
        // A tag makes the date beside it no condition.
        check(&format!("if-match: OURS\nif-unmodified-since: {BEFORE}"), Met);
        check(&format!("if-match: \"x\"\nif-unmodified-since: {AFTER}"), Failed);
        check(&format!("if-none-match: \"x\"\nif-modified-since: {AFTER}"), Met);
        check(&format!("if-none-match: OURS\nif-modified-since: {BEFORE}"), NotModified);
        // 412 comes before 304.
        check("if-match: \"x\"\nif-none-match: OURS", Failed);
        check("if-match: OURS\nif-none-match: OURS", NotModified);
        check(&format!("if-unmodified-since: {BEFORE}\nif-none-match: OURS"), Failed);
        check(&format!("if-unmodified-since: {AT}\nif-modified-since: {AT}"), NotModified);
        check(&format!("if-match: *\nif-modified-since: {BEFORE}"), Met);
    }

    #[test]
    fn only_a_list_in_if_match_names_copies() {
        for (lines, expected) in [
            ("if-match: OURS", Some(true)),
            ("if-match: \"x\"", Some(false)),
            ("if-match: W/OURS", Some(false)),
            ("if-match: *", None),
            ("if-none-match: OURS", None),
        ] {
            let conditions = conditions(lines);
            assert_eq!(conditions.names(copy()), expected, "{lines}");
            assert_eq!(conditions.name_copies(), expected.is_some(), "{lines}");
            assert!(!conditions.is_empty(), "{lines}");
        }
        assert!(conditions("range: bytes=0-").is_empty());
        assert!(conditions("if-modified-since: never").is_empty());
    }

    proptest! {
        #[test]
        fn arbitrary_values_never_panic(
            a in proptest::collection::vec(any::<u8>(), 0..80),
            b in "[W/\", *a]{0,40}",
        ) {
            for value in [&a[..], b.as_bytes()] {
                let Ok(value) = HeaderValue::from_bytes(value) else { continue };
                for name in [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE] {
                    let headers = [(name, value.clone())].into_iter().collect();
                    let conditions = Conditions::of(&headers, TEST_KEY);
                    let _ = conditions.judge(copy(), Some(changed()));
                }
            }
        }
    }
}
