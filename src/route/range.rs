//! Byte ranges of RFC 9110, section 14: what a client may ask, what of a body that is, and what an
//! upstream may answer.

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
    /// No part: no `range`, or one that is ignored (another unit, bad syntax, no byte, too many).
    Whole,
    /// One range.
    Single(RangeSpec),
    /// Several ranges, at least two.
    Multiple(Vec<RangeSpec>),
}

/// What of a body a request is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All of the archive, as a 200.
    Whole,
    /// One range, as a 206 with `content-range`.
    Part(ByteRange),
    /// Several ranges in the order in which they were asked, as a 206 in parts; at least two.
    Parts(Vec<ByteRange>),
    /// None of the asked ranges has a byte, as a 416.
    Unsatisfiable,
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
        let specs: Vec<String> = self.specs()?.iter().map(ToString::to_string).collect();
        Some(format!("bytes={}", specs.join(",")))
    }

    /// What of a body of `total` bytes a request is answered with (RFC 9110, section 14.2).
    ///
    /// Several ranges of which two share a byte are answered with the body: otherwise a short
    /// header would be worth a long answer, 64 times the body, and Pingora cannot put such a body
    /// together. In any order they are fine.
    /// An empty body has no range, not even a suffix: no `content-range` could say which.
    pub fn select(&self, total: u64) -> Selection {
        let Some(specs) = self.specs() else { return Selection::Whole };
        let ranges: Vec<ByteRange> = specs.iter().filter_map(|spec| spec.resolve(total)).collect();
        match ranges[..] {
            [] => Selection::Unsatisfiable,
            [range] => Selection::Part(range),
            _ if are_disjoint(&ranges) => Selection::Parts(ranges),
            _ => Selection::Whole,
        }
    }

    /// The last position at which a part of the answer begins, of a body of `total` bytes.
    pub fn last_start(&self, total: u64) -> u64 {
        match self.select(total) {
            Selection::Part(range) => range.start(),
            Selection::Parts(ranges) => ranges.iter().map(|range| range.start()).max().unwrap_or(0),
            Selection::Whole | Selection::Unsatisfiable => 0,
        }
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

    /// The ranges that are asked for; `None` for all of it.
    const fn specs(&self) -> Option<&[RangeSpec]> {
        match self {
            Self::Whole => None,
            Self::Single(spec) => Some(std::slice::from_ref(spec)),
            Self::Multiple(specs) => Some(specs.as_slice()),
        }
    }
}

/// Whether no byte is in two of the ranges.
fn are_disjoint(ranges: &[ByteRange]) -> bool {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable_by_key(|range| range.start());
    sorted.windows(2).all(|pair| pair[0].end() <= pair[1].start())
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
    fn an_answer_can_be_begun_once_its_last_part_is_there() {
        for (value, expected) in [
            ("", 0),
            ("bytes=0-", 0),
            ("bytes=5-9", 5),
            ("bytes=-10", 90),
            ("bytes=-1000", 0),
            ("bytes=7-8,50-,1-2", 50),
            ("bytes=0-60,50-", 0),
            ("bytes=100-", 0),
        ] {
            assert_eq!(RangeRequest::parse(value).last_start(100), expected, "{value}");
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

    #[expect(clippy::needless_pass_by_value, reason = "rows read better without `&`")]
    fn check_selection(value: &str, total: u64, expected: Selection) {
        assert_eq!(RangeRequest::parse(value).select(total), expected, "{value:?} of {total}");
    }

    fn part(start: u64, end: u64) -> Selection {
        Selection::Part(ByteRange::new(start, end).expect("a row has bytes"))
    }

    fn parts(bounds: &[(u64, u64)]) -> Selection {
        let range = |&(start, end)| ByteRange::new(start, end).expect("a row has bytes");
        Selection::Parts(bounds.iter().map(range).collect())
    }

    #[test]
    fn selections() {
        use Selection::{Unsatisfiable, Whole};

        check_selection("", 1000, Whole);
        check_selection("bytes=5-4", 1000, Whole);
        check_selection("bytes=-0", 1000, Whole);
        check_selection("bytes=0-", 1000, part(0, 1000));
        check_selection("bytes=0-99", 1000, part(0, 100));
        check_selection("bytes=999-5000", 1000, part(999, 1000));
        check_selection("bytes=-5000", 1000, part(0, 1000));
        check_selection("bytes=1000-", 1000, Unsatisfiable);
        check_selection("bytes=18446744073709551616-", 1000, Unsatisfiable);

        check_selection("bytes=0-0,-1", 1000, parts(&[(0, 1), (999, 1000)]));
        check_selection("bytes=-1,0-0", 1000, parts(&[(999, 1000), (0, 1)]));
        check_selection("bytes= 0-1 ,\t4-5", 1000, parts(&[(0, 2), (4, 6)]));
        check_selection("bytes=0-0,0-0", 1000, Whole);
        check_selection("bytes=0-9,5-14", 1000, Whole);
        check_selection("bytes=50-99,0-60", 1000, Whole);
        check_selection("bytes=90-90,0-4,3-3", 1000, Whole);
        check_selection("bytes=10-19,0-9,20-29", 1000, parts(&[(10, 20), (0, 10), (20, 30)]));
        check_selection("bytes=1000-,2-3,5-6,1001-1002", 1000, parts(&[(2, 4), (5, 7)]));
        check_selection("bytes=1000-,2-3", 1000, part(2, 4));
        check_selection("bytes=0-,1000-", 1000, part(0, 1000));
        check_selection("bytes=1000-,1001-1002", 1000, Unsatisfiable);
        check_selection("bytes=0-0,-0", 1000, Whole);

        // All bytes of the body, and one of them twice.
        check_selection("bytes=500-999,0-499", 1000, parts(&[(500, 1000), (0, 500)]));
        check_selection("bytes=0-500,500-999", 1000, Whole);
        check_selection("bytes=0-,999-", 1000, Whole);
        // What is dropped counts for nothing, and what is cut counts for what is left.
        check_selection("bytes=0-499,1000-9999,500-9999", 1000, parts(&[(0, 500), (500, 1000)]));

        for value in ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=0-0,-1", "bytes=1-,-5"] {
            check_selection(value, 0, Unsatisfiable);
        }
        check_selection("bytes=0-0,1-1,-1", 1, Whole);
        check_selection("bytes=0-0,1-1", 1, part(0, 1));
        check_selection("bytes=1-1,0-0", 2, parts(&[(1, 2), (0, 1)]));
    }

    #[test]
    fn ranges_of_the_greatest_body_are_counted_without_overflow() {
        const MAX: u64 = u64::MAX;
        let spec = |first, last| RangeSpec::From { first, last };
        let whole = [spec(0, None), spec(0, Some(MAX)), spec(0, Some(MAX - 1))];
        for asked in [whole.to_vec(), vec![RangeSpec::Suffix(MAX); 2], vec![whole[0]; 1000]] {
            assert_eq!(RangeRequest::Multiple(asked).select(MAX), Selection::Whole);
        }
        let halves = vec![spec(1 << 63, Some(MAX)), spec(0, Some((1 << 63) - 1)), spec(MAX, None)];
        let expected = parts(&[(1 << 63, MAX), (0, 1 << 63)]);
        assert_eq!(RangeRequest::Multiple(halves).select(MAX), expected);
        let last = RangeRequest::Single(spec(MAX - 1, Some(MAX)));
        assert_eq!(last.select(MAX), part(MAX - 1, MAX));
        assert_eq!(RangeRequest::Single(spec(MAX, None)).select(MAX), Selection::Unsatisfiable);
    }

    /// What RFC 9110 says of a `range` header, read to the letter and without a look at the code:
    /// the grammar of section 14.1.1, the bytes of section 14.1.2, the answer of section 14.2. The
    /// places in which the parser or `select` makes use of a freedom, or departs, are marked.
    mod oracle {
        /// An answer in parts of whatever stands for bytes.
        #[derive(Debug, PartialEq, Eq)]
        pub(super) enum Answer<P> {
            /// 200.
            Whole,
            /// 206.
            Parts(Vec<P>),
            /// 416.
            Unsatisfiable,
        }

        /// `int-range` and `suffix-range`. No number here is so long that it would not fit.
        #[derive(Debug)]
        enum Spec {
            Int(u128, Option<u128>),
            Suffix(u128),
        }

        /// The answer, part for part as the positions of its bytes. For small bodies.
        pub(super) fn positions(header: &str, total: u64) -> Answer<Vec<u64>> {
            let meet = |a: &Vec<u64>, b: &Vec<u64>| a.iter().any(|byte| b.contains(byte));
            answer(header, total, bytes, |bytes| bytes.len() as u128, meet)
        }

        /// The ranges as first and last positions, for bodies whose bytes nobody wants to list.
        pub(super) fn intervals(header: &str, total: u64) -> Answer<(i128, i128)> {
            let len = |(first, last): &(i128, i128)| u128::try_from(last - first + 1).unwrap_or(0);
            let meet = |a: &(i128, i128), b: &(i128, i128)| a.0 <= b.1 && b.0 <= a.1;
            answer(header, total, interval, len, meet)
        }

        fn answer<P>(
            header: &str,
            total: u64,
            part: fn(&Spec, u64) -> P,
            len: fn(&P) -> u128,
            meet: fn(&P, &P) -> bool,
        ) -> Answer<P> {
            let Some(specs) = ranges_specifier(header.as_bytes()) else { return Answer::Whole };
            let mut parts: Vec<P> = specs.iter().map(|spec| part(spec, total)).collect();
            for (spec, part) in specs.iter().zip(&parts) {
                let satisfiable = match spec {
                    Spec::Int(first, _) => *first < u128::from(total),
                    // Departs: with an empty body the RFC counts a suffix as satisfiable.
                    Spec::Suffix(count) => *count > 0 && total > 0,
                };
                assert_eq!(len(part) > 0, satisfiable, "{spec:?} of {total}");
            }
            parts.retain(|part| len(part) > 0);
            let overlap =
                (0..parts.len()).any(|at| parts[..at].iter().any(|other| meet(other, &parts[at])));
            match parts.len() {
                0 => Answer::Unsatisfiable,
                // Freedom: overlapping ranges may be ignored.
                2.. if overlap => Answer::Whole,
                _ => Answer::Parts(parts),
            }
        }

        fn bytes(spec: &Spec, total: u64) -> Vec<u64> {
            let body = 0..total;
            match spec {
                Spec::Int(first, None) => body.filter(|at| *first <= u128::from(*at)).collect(),
                Spec::Int(first, Some(last)) => {
                    body.filter(|at| (*first..=*last).contains(&u128::from(*at))).collect()
                }
                Spec::Suffix(count) => {
                    let mut end = Vec::new();
                    for at in body.rev() {
                        if end.len() as u128 == *count {
                            break;
                        }
                        end.insert(0, at);
                    }
                    end
                }
            }
        }

        fn interval(spec: &Spec, total: u64) -> (i128, i128) {
            let signed = |number: &u128| i128::try_from(*number).unwrap();
            let end = i128::from(total) - 1;
            match spec {
                Spec::Int(first, None) => (signed(first), end),
                Spec::Int(first, Some(last)) => (signed(first), signed(last).min(end)),
                Spec::Suffix(count) => ((end - signed(count) + 1).max(0), end),
            }
        }

        /// `ranges-specifier = range-unit "=" range-set`, of bytes; `None` where it is ignored.
        fn ranges_specifier(text: &[u8]) -> Option<Vec<Spec>> {
            let mut rest = text;
            // Freedom: white space before the unit, and before and after `=`, is let pass. An
            // example of section 14.1.2 has some after it, though the grammar has not.
            spaces(&mut rest);
            let unit = take(&mut rest, |byte| byte.is_ascii_alphanumeric() || byte == b'-');
            spaces(&mut rest);
            if !unit.eq_ignore_ascii_case(b"bytes") || !eat(&mut rest, b'=') {
                return None;
            }
            let mut specs = vec![];
            loop {
                spaces(&mut rest);
                // Departs: an empty element of a list does not count (section 5.6.1.2), but it
                // makes the parser ignore the header.
                specs.push(range_spec(&mut rest)?);
                spaces(&mut rest);
                if rest.is_empty() {
                    break;
                }
                if !eat(&mut rest, b',') {
                    return None;
                }
            }
            // Freedom: many ranges may be ignored.
            (specs.len() <= 64).then_some(specs)
        }

        fn range_spec(rest: &mut &[u8]) -> Option<Spec> {
            // Departs: numbers beyond this one are taken for it, so that two of them in the wrong
            // order are no error, but a range behind the end.
            let cut = |number: u128| number.min(9_223_372_036_854_775_807);
            if eat(rest, b'-') {
                let count = number(rest)?;
                // Departs: an empty suffix is valid and unsatisfiable, but it makes the parser
                // ignore the header.
                return (count > 0).then_some(Spec::Suffix(count));
            }
            let first = number(rest)?;
            if !eat(rest, b'-') {
                return None;
            }
            let last = number(rest);
            // Freedom: what is invalid may be ignored instead of rejected.
            let valid = last.is_none_or(|last| cut(first) <= cut(last));
            valid.then_some(Spec::Int(first, last))
        }

        /// `1*DIGIT`
        fn number(rest: &mut &[u8]) -> Option<u128> {
            let digits = take(rest, |byte| byte.is_ascii_digit());
            let number = |value: u128, digit: &u8| 10 * value + u128::from(digit - b'0');
            (!digits.is_empty()).then(|| digits.iter().fold(0, number))
        }

        fn spaces(rest: &mut &[u8]) {
            take(rest, |byte| byte == b' ' || byte == b'\t');
        }

        fn eat(rest: &mut &[u8], byte: u8) -> bool {
            let found = rest.first() == Some(&byte);
            *rest = &rest[usize::from(found)..];
            found
        }

        fn take<'a>(rest: &mut &'a [u8], wanted: fn(u8) -> bool) -> &'a [u8] {
            let len = rest.iter().take_while(|byte| wanted(**byte)).count();
            let (taken, left) = rest.split_at(len);
            *rest = left;
            taken
        }
    }

    /// A selection as an answer, with what `part` makes of a range.
    fn answer<P>(selection: Selection, part: fn(ByteRange) -> P) -> oracle::Answer<P> {
        match selection {
            Selection::Whole => oracle::Answer::Whole,
            Selection::Part(range) => oracle::Answer::Parts(vec![part(range)]),
            Selection::Parts(ranges) => {
                assert!(ranges.len() > 1, "one range is no answer in parts");
                oracle::Answer::Parts(ranges.into_iter().map(part).collect())
            }
            Selection::Unsatisfiable => oracle::Answer::Unsatisfiable,
        }
    }

    /// Asks the oracle that knows intervals, and for a small body also the one that knows bytes.
    #[track_caller]
    fn check_with_the_rfc(header: &str, total: u64) {
        let selection = RangeRequest::parse(header).select(total);
        let bounds = |range: ByteRange| (range.start().into(), i128::from(range.end()) - 1);
        let found = answer(selection.clone(), bounds);
        assert_eq!(found, oracle::intervals(header, total), "{header:?} of {total}");
        if total <= 100 {
            let found = answer(selection, |range| (range.start()..range.end()).collect());
            assert_eq!(found, oracle::positions(header, total), "{header:?} of {total}");
        }
    }

    #[test]
    fn every_set_of_up_to_three_ranges_of_a_tiny_body_is_answered_by_the_rfc() {
        let mut specs: Vec<String> =
            ["", " 1-\t", "x", "1", "0-18446744073709551616", "18446744073709551616-"]
                .map(str::to_owned)
                .to_vec();
        for first in 0..=4 {
            specs.extend([format!("{first}-"), format!("-{first}")]);
            specs.extend((0..=4).map(|last| format!("{first}-{last}")));
        }
        for total in 0..=3 {
            for one in &specs {
                check_with_the_rfc(&format!("bytes={one}"), total);
                for two in &specs {
                    check_with_the_rfc(&format!("bytes={one},{two}"), total);
                    for three in &specs {
                        check_with_the_rfc(&format!("bytes={one},{two},{three}"), total);
                    }
                }
            }
        }
    }

    const SLICE: u64 = 1 << 20;
    const TINY: &[u64] = &[0, 2, 5, 8, 11];
    const SLICES: &[u64] = &[0, SLICE / 2, SLICE, 2 * SLICE, 3 * SLICE];
    const GREATEST: &[u64] = &[0, 1 << 62, MAX_POSITION / 2, MAX_POSITION];

    /// A number a little off one of these, rarely padded, and rarely beyond every end.
    fn number_near(places: &'static [u64]) -> impl Strategy<Value = String> {
        let near = (prop::sample::select(places), 0u64..=4)
            .prop_map(|(place, off)| (place + off).saturating_sub(2).to_string());
        prop_oneof![
            16 => near.clone(),
            1 => near.prop_map(|number| format!("000{number}")),
            1 => prop::sample::select(vec![
                "9223372036854775806",
                "9223372036854775807",
                "9223372036854775808",
                "18446744073709551615",
                "18446744073709551616",
                "999999999999999999999999999999",
            ])
            .prop_map(str::to_owned),
        ]
    }

    fn spec_near(places: &'static [u64]) -> impl Strategy<Value = String> {
        let number = || number_near(places);
        let wrong = ["", "-", "0", "1-2-3", "--1", "+1-2", "-+1", "1 -2", "1- 2", "0x1-2", "a-b"];
        prop_oneof![
            12 => (number(), number()).prop_map(|(first, last)| format!("{first}-{last}")),
            6 => number().prop_map(|first| format!("{first}-")),
            6 => number().prop_map(|count| format!("-{count}")),
            1 => prop::sample::select(wrong.to_vec()).prop_map(str::to_owned),
        ]
    }

    /// Headers, most of them good, about these places of a body.
    fn header_near(places: &'static [u64]) -> impl Strategy<Value = String> {
        let good = Just("bytes=");
        let odd = ["Bytes=", "BYTES =", " bytes= ", "bytes\t=\t", "bits=", "bytes", "=", "bytes=="];
        let odd = prop::sample::select(odd.to_vec());
        let comma = prop::sample::select(vec![",", ",", ",", ", ", " ,\t", "  ,", ",,", ";"]);
        let end = prop::sample::select(vec!["", "", "", "", " ", "\t ", ",", " x"]);
        let specs = prop::collection::vec(spec_near(places), 1..=5);
        (prop_oneof![8 => good, 1 => odd], specs, comma, end)
            .prop_map(|(unit, specs, comma, end)| format!("{unit}{}{end}", specs.join(comma)))
    }

    /// A position, a count or a total: anywhere, or near either end of what there is.
    fn anywhere() -> impl Strategy<Value = u64> {
        prop_oneof![any::<u64>(), 0u64..8, (0u64..8).prop_map(|less| u64::MAX - less)]
    }

    fn spec_anywhere() -> impl Strategy<Value = RangeSpec> {
        prop_oneof![
            (anywhere(), prop::option::of(anywhere()))
                .prop_map(|(first, last)| RangeSpec::From { first, last }),
            (anywhere(), 0u64..8)
                .prop_map(|(first, more)| (first, Some(first.saturating_add(more))))
                .prop_map(|(first, last)| RangeSpec::From { first, last }),
            anywhere().prop_map(RangeSpec::Suffix),
        ]
    }

    fn request_anywhere() -> impl Strategy<Value = RangeRequest> {
        prop_oneof![
            1 => Just(RangeRequest::Whole),
            3 => spec_anywhere().prop_map(RangeRequest::Single),
            6 => prop::collection::vec(spec_anywhere(), 2..8).prop_map(RangeRequest::Multiple),
        ]
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

        #[test]
        fn a_small_body_is_answered_by_the_rfc(header in header_near(TINY), total in 0u64..=12) {
            check_with_the_rfc(&header, total);
        }

        #[test]
        fn a_body_of_slices_is_answered_by_the_rfc(
            header in header_near(SLICES),
            slices in 1u64..=3,
            off in 0u64..=4,
        ) {
            check_with_the_rfc(&header, slices * SLICE + off - 2);
        }

        #[test]
        fn a_greatest_body_is_answered_by_the_rfc(
            header in header_near(GREATEST),
            less in 0u64..4,
        ) {
            check_with_the_rfc(&header, MAX_POSITION - less);
        }

        #[test]
        fn many_ranges_are_answered_by_the_rfc(
            order in Just((0u64..70).collect::<Vec<_>>()).prop_shuffle(),
            count in 60usize..=70,
            total in 56u64..=72,
        ) {
            let specs: Vec<String> = order[..count].iter().map(|at| format!("{at}-{at}")).collect();
            check_with_the_rfc(&format!("bytes={}", specs.join(",")), total);
        }

        #[test]
        fn any_printable_header_is_answered_by_the_rfc(
            header in "[\t -~]{0,12}|[Bb]ytes ?=[0-9, \t-]{1,20}",
            total in 0u64..=100,
        ) {
            check_with_the_rfc(&header, total);
        }

        #[test]
        fn an_answer_never_has_more_bytes_than_the_body(
            request in request_anywhere(),
            total in anywhere(),
        ) {
            let selected = match request.select(total) {
                Selection::Whole | Selection::Unsatisfiable => vec![],
                Selection::Part(range) => vec![range],
                Selection::Parts(ranges) => {
                    prop_assert!(ranges.len() > 1);
                    ranges
                }
            };
            for range in &selected {
                prop_assert!(range.start() < range.end() && range.end() <= total);
            }
            let sum: u128 = selected.iter().map(|range| u128::from(range.len())).sum();
            prop_assert!(sum <= u128::from(total), "{sum} of {total}");
        }
    }
}
