//! Byte ranges of RFC 9110, section 14: what a client may ask and what an upstream may answer.

use std::fmt;

/// Most ranges of one request; a request for more is answered with the whole, as RFC 9110 allows.
const MAX_RANGES: usize = 64;
/// Greatest position that is told apart from "beyond every end". Go's servers, among others, read
/// positions as signed numbers.
const MAX_POSITION: u64 = i64::MAX as u64;

/// Bytes `start..end` of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    start: u64,
    end: u64,
}

impl ByteRange {
    /// The bytes from `start` up to and without `end`; `None` unless there is at least one.
    pub const fn new(start: u64, end: u64) -> Option<Self> {
        if start < end { Some(Self { start, end }) } else { None }
    }

    /// The first byte.
    pub const fn start(self) -> u64 {
        self.start
    }

    /// The byte after the last one.
    pub const fn end(self) -> u64 {
        self.end
    }

    /// How many bytes; never zero.
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub const fn len(self) -> u64 {
        self.end - self.start
    }
}

/// One range as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeSpec {
    /// `first-` and `first-last`, `last` included.
    From {
        /// The first byte.
        first: u64,
        /// The last byte, where it is given.
        last: Option<u64>,
    },
    /// `-count`: the end.
    Suffix(u64),
}

/// What a request asks of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeRequest {
    /// All of it: no `range`, or one that is ignored (another unit, bad syntax, no byte, too many).
    Whole,
    /// One range.
    Single(RangeSpec),
    /// Several ranges, at least two.
    Multiple(Vec<RangeSpec>),
}

impl RangeRequest {
    /// Reads the value of a `range` header.
    pub fn parse(value: &str) -> Self {
        let Some((unit, set)) = value.split_once('=') else { return Self::Whole };
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return Self::Whole;
        }
        let specs: Option<Vec<RangeSpec>> =
            set.split(',').take(MAX_RANGES + 1).map(|text| RangeSpec::parse(text.trim())).collect();
        match specs {
            None => Self::Whole,
            Some(specs) if specs.len() > MAX_RANGES => Self::Whole,
            Some(specs) => match specs[..] {
                [] => Self::Whole,
                [spec] => Self::Single(spec),
                _ => Self::Multiple(specs),
            },
        }
    }

    /// The value of a `range` header that means this, in the plainest spelling: what one server
    /// accepts, another one must not read otherwise. `None` for all of it.
    pub fn to_header(&self) -> Option<String> {
        let specs = match self {
            Self::Whole => return None,
            Self::Single(spec) => std::slice::from_ref(spec),
            Self::Multiple(specs) => specs,
        };
        let specs: Vec<String> = specs.iter().map(ToString::to_string).collect();
        Some(format!("bytes={}", specs.join(",")))
    }

    /// True where the client has the start already, or another request fetches it.
    pub const fn is_behind_the_start(&self) -> bool {
        !matches!(self, Self::Whole | Self::Single(RangeSpec::From { first: 0, .. }))
    }

    /// True where the answer goes into a file that the client has other bytes of already, or will
    /// have by other requests. `bytes=0-` is everything, and so a new start.
    pub const fn is_part_of_a_file(&self) -> bool {
        !matches!(self, Self::Whole | Self::Single(RangeSpec::From { first: 0, last: None }))
    }
}

impl fmt::Display for RangeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From { first, last: None } => write!(f, "{first}-"),
            Self::From { first, last: Some(last) } => write!(f, "{first}-{last}"),
            Self::Suffix(count) => write!(f, "-{count}"),
        }
    }
}

impl RangeSpec {
    fn parse(text: &str) -> Option<Self> {
        match text.split_once('-')? {
            // No byte at all: unsatisfiable, which servers disagree about how to say.
            ("", count) => number(count).filter(|count| *count > 0).map(Self::Suffix),
            (first, "") => Some(Self::From { first: number(first)?, last: None }),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::From { first, last: Some(last) })
            }
        }
    }

    /// The bytes that are meant in a body of `total`; `None` where there are none.
    pub fn resolve(self, total: u64) -> Option<ByteRange> {
        match self {
            Self::From { first, last } => {
                let end = last.map_or(total, |last| last.saturating_add(1).min(total));
                ByteRange::new(first, end)
            }
            Self::Suffix(count) => ByteRange::new(total.saturating_sub(count), total),
        }
    }
}

/// Digits only; what is beyond every end is cut to the greatest position.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(MAX_POSITION).min(MAX_POSITION))
}

/// The value of a `content-range` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// The bytes that follow; none in a 416.
    pub range: Option<ByteRange>,
    /// Bytes of the whole.
    pub total: u64,
}

impl ContentRange {
    /// Reads `bytes 0-99/1000` and `bytes */1000`. An unknown total (`*`) is refused: without it
    /// nobody can tell which copy the bytes are of.
    pub fn parse(value: &str) -> Option<Self> {
        let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
        let total: u64 = exact(total)?;
        if range == "*" {
            return Some(Self { range: None, total });
        }
        let (first, last) = range.split_once('-')?;
        let range = ByteRange::new(exact(first)?, exact(last)?.checked_add(1)?)?;
        (range.end() <= total).then_some(Self { range: Some(range), total })
    }
}

fn exact(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl fmt::Display for ContentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.range {
            None => write!(f, "bytes */{}", self.total),
            Some(range) => {
                write!(f, "bytes {}-{}/{}", range.start, range.end - 1, self.total)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[expect(clippy::needless_pass_by_value, reason = "rows read better without `&`")]
    fn check(value: &str, total: u64, expected: Result<Option<(u64, u64)>, RangeRequest>) {
        let found = match RangeRequest::parse(value) {
            RangeRequest::Single(spec) => {
                Ok(spec.resolve(total).map(|range| (range.start, range.end)))
            }
            other => Err(other),
        };
        assert_eq!(found, expected, "{value:?} of {total}");
    }

    #[test]
    fn ranges() {
        check("bytes=0-99", 1000, Ok(Some((0, 100))));
        check("bytes=0-", 1000, Ok(Some((0, 1000))));
        check("bytes=999-", 1000, Ok(Some((999, 1000))));
        check("bytes=1000-", 1000, Ok(None));
        check("bytes=0-5000", 1000, Ok(Some((0, 1000))));
        check("bytes=-1", 1000, Ok(Some((999, 1000))));
        check("bytes=-5000", 1000, Ok(Some((0, 1000))));
        check("bytes=-0", 1000, Err(RangeRequest::Whole));
        check("bytes=0-0", 0, Ok(None));
        check("BYTES=0-0", 1, Ok(Some((0, 1))));
        check("bytes= 5-6 ", 1000, Ok(Some((5, 7))));
        check("bytes=0-99999999999999999999999", 10, Ok(Some((0, 10))));
        check("bytes=18446744073709551615-", 10, Ok(None));
        let two = [(0, 1), (3, 4)].map(|(first, last)| RangeSpec::From { first, last: Some(last) });
        check("bytes=0-1,3-4", 1000, Err(RangeRequest::Multiple(two.to_vec())));
        let many = |count| format!("bytes={}", vec!["0-0"; count].join(","));
        assert!(matches!(RangeRequest::parse(&many(MAX_RANGES)), RangeRequest::Multiple(_)));
        check(&many(MAX_RANGES + 1), 1000, Err(RangeRequest::Whole));
        for bad in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-4",
            "bytes=+1-2",
            "bytes=1",
            "bytes=0-1,",
            "bytes=,0-1",
            "bytes=0-1,x",
            "lines=0-1",
            "bytes=1-2-3",
            "bytes=0x1-2",
        ] {
            check(bad, 1000, Err(RangeRequest::Whole));
        }
    }

    #[test]
    fn a_range_goes_on_in_its_plainest_spelling() {
        for (value, expected) in [
            ("BYTES = 5-6 ", Some("bytes=5-6")),
            ("bytes=0005-", Some("bytes=5-")),
            ("bytes= 0-1 , -7", Some("bytes=0-1,-7")),
            ("bytes=0-99999999999999999999", Some("bytes=0-9223372036854775807")),
            ("bytes=-0", None),
            ("bytes=x", None),
        ] {
            assert_eq!(RangeRequest::parse(value).to_header().as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn only_everything_is_a_new_start() {
        for (value, part, behind) in [
            ("", false, false),
            ("bytes=0-", false, false),
            ("bytes=0-99", true, false),
            ("bytes=1-", true, true),
            ("bytes=-5", true, true),
            ("bytes=0-0,5-5", true, true),
        ] {
            let range = RangeRequest::parse(value);
            assert_eq!(range.is_part_of_a_file(), part, "{value}");
            assert_eq!(range.is_behind_the_start(), behind, "{value}");
        }
    }

    #[test]
    fn content_ranges() {
        let good = ["bytes 0-99/1000", "bytes 999-999/1000", "bytes */1000", "bytes */0"];
        for value in good {
            let parsed = ContentRange::parse(value).expect(value);
            assert_eq!(parsed.to_string(), value);
        }
        for bad in [
            "",
            "bytes",
            "0-99/1000",
            "bytes 0-99",
            "bytes 0-99/*",
            "bytes 5-4/1000",
            "bytes 0-1000/1000",
            "bytes 0-1/-1",
            "bytes -1/1000",
            "bytes 0-18446744073709551615/1",
        ] {
            assert_eq!(ContentRange::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn resolved_ranges_are_inside(first: u64, last: Option<u64>, total: u64, suffix: bool) {
            let spec = if suffix {
                RangeSpec::Suffix(first)
            } else {
                RangeSpec::From { first, last }
            };
            if let Some(range) = spec.resolve(total) {
                prop_assert!(range.start() < range.end() && range.end() <= total);
                prop_assert_eq!(range.end() - range.start(), range.len());
            }
        }

        #[test]
        fn arbitrary_text_never_panics(text: String) {
            let _ = RangeRequest::parse(&text);
            let _ = RangeRequest::parse(&format!("bytes={text}"));
            let _ = ContentRange::parse(&format!("bytes {text}"));
        }
    }
}
