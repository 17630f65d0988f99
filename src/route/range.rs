//! Byte ranges of RFC 9110, section 14: what a client may ask and what an upstream may answer.

use std::fmt;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeRequest {
    /// All of it: no `range`, or one that must be ignored (another unit, bad syntax).
    Whole,
    /// One range.
    Single(RangeSpec),
    /// Several ranges.
    Multiple,
}

impl RangeRequest {
    /// Reads the value of a `range` header.
    pub fn parse(value: &str) -> Self {
        let Some((unit, set)) = value.split_once('=') else { return Self::Whole };
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return Self::Whole;
        }
        let specs: Option<Vec<RangeSpec>> =
            set.split(',').map(|text| RangeSpec::parse(text.trim())).collect();
        match specs.as_deref() {
            Some([spec]) => Self::Single(*spec),
            Some([_, _, ..]) => Self::Multiple,
            Some([]) | None => Self::Whole,
        }
    }
}

impl RangeSpec {
    fn parse(text: &str) -> Option<Self> {
        match text.split_once('-')? {
            ("", count) => number(count).map(Self::Suffix),
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

    /// True where a client that asks this holds the start already, and so mixes copies if it is
    /// given the rest of another one.
    pub const fn continues(self) -> bool {
        !matches!(self, Self::From { first: 0, .. })
    }
}

/// Digits only; what is above `u64` counts as the greatest `u64`, which no archive reaches.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
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
        check("bytes=-0", 1000, Ok(None));
        check("bytes=0-0", 0, Ok(None));
        check("BYTES=0-0", 1, Ok(Some((0, 1))));
        check("bytes= 5-6 ", 1000, Ok(Some((5, 7))));
        check("bytes=0-99999999999999999999999", 10, Ok(Some((0, 10))));
        check("bytes=18446744073709551615-", 10, Ok(None));
        check("bytes=0-1,3-4", 1000, Err(RangeRequest::Multiple));
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
