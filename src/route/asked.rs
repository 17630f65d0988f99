//! What a client asks of an archive.

use http::Method;
use http::header::{HeaderMap, IF_RANGE, RANGE};

use super::affinity::Portion;
use super::condition::Conditions;
use super::header::text;
use super::range::RangeRequest;
use super::tag::TagKey;
use crate::index::CopyId;

/// The condition of a range request: the tag of the copy that the client has bytes of.
///
/// A date never holds: copies of one archive on several nodes can well be of one second, and a
/// wrong 206 costs more than a whole 200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IfRange {
    tag: String,
    key: TagKey,
}

impl IfRange {
    /// The condition in an `if-range` header, at worst one that no copy meets; `key` is what tags
    /// are made with.
    pub fn new(value: &str, key: TagKey) -> Self {
        Self { tag: value.to_owned(), key }
    }

    /// Whether the condition is about this copy.
    pub fn holds(&self, copy: CopyId) -> bool {
        self.key.tag(copy) == self.tag
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
    /// Under which conditions it is wanted at all.
    pub conditions: Conditions,
}

impl Asked {
    /// What a request's method and headers ask. A range on a HEAD means nothing (RFC 9110, section
    /// 14.2), nor does a condition without a range.
    pub fn of(method: &Method, headers: &HeaderMap, key: TagKey) -> Self {
        let range = match text(headers, &RANGE) {
            Some(value) if *method == Method::GET => RangeRequest::parse(value),
            _ => RangeRequest::Whole,
        };
        let if_range = match range {
            RangeRequest::Whole => None,
            _ => text(headers, &IF_RANGE).map(|value| IfRange::new(value, key)),
        };
        let conditions = Conditions::of(headers, key);
        Self { method: method.clone(), range, if_range, conditions }
    }

    /// All of an archive, or the head of it, whatever copy that is.
    pub fn all(method: Method) -> Self {
        let (range, conditions) = (RangeRequest::Whole, Conditions::default());
        Self { method, range, if_range: None, conditions }
    }

    /// A request for all of the archive, whatever copy that is.
    #[must_use]
    pub fn whole(&self) -> Self {
        Self { range: RangeRequest::Whole, if_range: None, ..self.clone() }
    }

    /// Whether this copy is the one that the request names, by `if-match` or else by `if-range`;
    /// `None` where it names none.
    pub fn names(&self, copy: CopyId) -> Option<bool> {
        let by_range = || self.if_range.as_ref().map(|condition| condition.holds(copy));
        self.conditions.names(copy).or_else(by_range)
    }

    /// True where it names a copy.
    pub fn has_named(&self) -> bool {
        self.conditions.name_copies() || self.if_range.is_some()
    }

    /// True where not any copy will do: the answer goes into a file with other bytes, or has to be
    /// of the copy that `if-match` names.
    pub fn has_to_fit(&self) -> bool {
        self.range.is_part_of_a_file() || self.conditions.name_copies()
    }

    /// Where the answer begins in a file of the client's; `None` where it says of which copy that
    /// is.
    pub fn portion(&self) -> Option<Portion> {
        (!self.has_named()).then(|| Portion::of(&self.range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::TEST_KEY;
    use http::{HeaderName, HeaderValue};

    #[test]
    fn what_a_head_asks() {
        let part = RangeRequest::parse("bytes=5-");
        let check = |method: Method, head: &[(HeaderName, &'static str)], expected, named| {
            let headers =
                head.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
            let asked = Asked::of(&method, &headers.collect(), TEST_KEY);
            let (range, if_range): (&RangeRequest, Option<&str>) = expected;
            let if_range = if_range.map(|value| IfRange::new(value, TEST_KEY));
            let conditions = Conditions::default();
            assert_eq!(asked, Asked { method, range: range.clone(), if_range, conditions });
            assert_eq!(asked.portion().is_none(), named, "{asked:?}");
        };
        let range = || (RANGE, "bytes=5-");
        check(Method::GET, &[], (&RangeRequest::Whole, None), false);
        check(Method::GET, &[range()], (&part, None), false);
        check(Method::GET, &[range(), (IF_RANGE, "\"x\"")], (&part, Some("\"x\"")), true);
        check(Method::GET, &[(IF_RANGE, "\"x\"")], (&RangeRequest::Whole, None), false);
        check(Method::GET, &[(RANGE, "lines=5-")], (&RangeRequest::Whole, None), false);
        check(Method::HEAD, &[range()], (&RangeRequest::Whole, None), false);
        let all = RangeRequest::parse("bytes=0-");
        check(Method::GET, &[(RANGE, "bytes=0-")], (&all, None), false);
    }
}
