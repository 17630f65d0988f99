//! Edges that stand behind each other: who they are, which of them a request came through
//! (`cdn-loop`, RFC 8586), and which ones an archive comes through. Pure.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::HeaderName;

/// Most edges that a request, or an archive, comes through.
pub const MAX_HOPS: usize = 4;
/// The header in which a request says what it came through.
pub const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
/// The header in which an edge tells another one who it is, and through which ones what it answers
/// came to it.
pub const VIA: HeaderName = HeaderName::from_static("snapedge-via");

/// Longest name of an edge, in bytes.
const MAX_ID: usize = 64;
/// Most bytes of `cdn-loop` that are passed on.
const MAX_LOOP: usize = 1024;
/// Prefix of the names of edges in `cdn-loop`, where those of others are as well.
const PREFIX: &str = "snapedge-";

/// Who an edge is: its name among all of them, in lower case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EdgeId(Arc<str>);

/// Why a text is no name of an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to {MAX_ID} letters, digits, dots and hyphens")]
pub struct BadId;

impl EdgeId {
    /// The text of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name for these bits, which nobody else has where they are random.
    pub fn of_bits(bits: u64) -> Self {
        Self(format!("{bits:016x}").into())
    }
}

impl FromStr for EdgeId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
        if text.is_empty() || text.len() > MAX_ID || !text.chars().all(is_plain) {
            return Err(BadId);
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for EdgeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EdgeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0)
    }
}

/// The edges that an archive comes through: first the one that is asked for it, last the one that
/// has it from an origin. None where that is this one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Via {
    edges: Vec<EdgeId>,
    /// Whether the last of them has it in its cache alone, and no origin of it lists it.
    kept: bool,
}

/// Why what an edge has cannot be had through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Detour {
    /// The edge that is asked is this one.
    #[error("the target is this edge itself, leave it out of its targets")]
    Itself,
    /// The archive comes through this edge.
    #[error("it comes through this edge")]
    ThroughUs,
    /// The archive comes through more edges than a request may.
    #[error("it comes through more than {MAX_HOPS} edges")]
    TooFar,
    /// An edge on the way has no name.
    #[error("an edge on the way has no name")]
    Nameless,
}

impl Via {
    /// The way of an archive which no edge is asked for.
    pub const fn straight() -> Self {
        Self { edges: Vec::new(), kept: false }
    }

    /// The way of an archive which only the cache has.
    pub fn kept() -> Self {
        Self { edges: Vec::new(), kept: true }
    }

    /// The edges.
    pub fn edges(&self) -> &[EdgeId] {
        &self.edges
    }

    /// Whether no origin lists it any more.
    pub fn is_kept(&self) -> bool {
        self.kept
    }

    /// True where one more edge may ask for it.
    pub fn goes_on(&self) -> bool {
        self.edges.len() < MAX_HOPS
    }

    /// The way through edges that are named in order, for the edge `own`.
    pub fn through<'a>(
        names: impl Iterator<Item = &'a str>,
        kept: bool,
        own: &EdgeId,
    ) -> Result<Self, Detour> {
        let mut edges = Vec::new();
        for name in names {
            let id: EdgeId = name.parse().map_err(|_| Detour::Nameless)?;
            if id == *own {
                let is_first = edges.is_empty();
                return Err(if is_first { Detour::Itself } else { Detour::ThroughUs });
            }
            if edges.len() == MAX_HOPS {
                return Err(Detour::TooFar);
            }
            edges.push(id);
        }
        Ok(Self { edges, kept })
    }

    /// The way that a [`VIA`] header tells; that of a target without one is none.
    pub fn told(header: Option<&[u8]>, own: &EdgeId) -> Result<Self, Detour> {
        let Some(header) = header else { return Ok(Self::default()) };
        let (names, kept) = names_in(header).ok_or(Detour::Nameless)?;
        Self::through(names, kept, own)
    }

    /// Who tells it in a [`VIA`] header.
    pub fn teller(header: Option<&[u8]>) -> Option<EdgeId> {
        names_in(header?)?.0.next()?.parse().ok()
    }

    /// The text with which `own` tells of it in a [`VIA`] header.
    pub fn header(&self, own: &EdgeId) -> String {
        let others = self.edges.iter().map(|id| format!(", {id}"));
        let kept = self.kept.then(|| KEPT.to_owned());
        std::iter::once(own.to_string()).chain(others).chain(kept).collect()
    }
}

/// End of a [`VIA`] header where only a cache has what is told of.
const KEPT: &str = "; kept";

/// The names in a [`VIA`] header, and whether only a cache has what is told of.
fn names_in(header: &[u8]) -> Option<(impl Iterator<Item = &str>, bool)> {
    let text = std::str::from_utf8(header).ok()?;
    let (names, kept) = text.strip_suffix(KEPT).map_or((text, false), |names| (names, true));
    Some((names.split(',').map(str::trim), kept))
}

/// The proxies that a request came through: the edges among them, and all of them as they are
/// passed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CdnLoop {
    /// As they came, with their parameters.
    hops: Vec<String>,
    edges: Vec<EdgeId>,
    count: usize,
    bytes: usize,
}

/// Why a request is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoopFault {
    /// The request was here before.
    #[error("the request came through this edge before (`cdn-loop`)")]
    Again,
    /// The request came a long way.
    #[error("the request came through more than {MAX_HOPS} others (`cdn-loop`)")]
    TooFar,
}

impl CdnLoop {
    /// Reads the values of all `cdn-loop` headers of a request, in order. What is no text, or has a
    /// quote that is never closed and would hide what comes after it, is not passed on.
    pub fn parse<'a>(values: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut found = Self::default();
        for value in values.filter_map(|value| std::str::from_utf8(value).ok()) {
            for hop in elements(value) {
                found.push(hop);
            }
        }
        found
    }

    fn push(&mut self, hop: &str) {
        self.bytes = self.bytes.saturating_add(hop.len());
        let name = hop.split(';').next().unwrap_or_default().trim();
        let prefix = name.get(..PREFIX.len()).filter(|text| text.eq_ignore_ascii_case(PREFIX));
        let id = prefix.and_then(|prefix| name.get(prefix.len()..)?.parse().ok());
        self.edges.extend(id);
        self.count += 1;
        // More than that are passed on to nobody.
        if self.count <= MAX_HOPS && self.bytes <= MAX_LOOP && is_closed(hop) {
            self.hops.push(hop.to_owned());
        }
    }

    /// Whether `own` may go on with it.
    pub fn check(&self, own: &EdgeId) -> Result<(), LoopFault> {
        if self.edges.contains(own) {
            return Err(LoopFault::Again);
        }
        if self.count > MAX_HOPS || self.bytes > MAX_LOOP {
            return Err(LoopFault::TooFar);
        }
        Ok(())
    }

    /// The edges that it came through.
    pub fn edges(&self) -> &[EdgeId] {
        &self.edges
    }

    /// True for the request of an edge.
    pub fn is_of_an_edge(&self) -> bool {
        !self.edges.is_empty()
    }

    /// Whether who asks may be given what comes this way: none of those that ask is on it.
    pub fn admits(&self, via: &Via) -> bool {
        !via.edges().iter().any(|id| self.edges.contains(id))
    }

    /// The value of the header with which `own` passes it on.
    pub fn onward(&self, own: &EdgeId) -> String {
        let own = format!("{PREFIX}{own}");
        self.hops.iter().cloned().chain([own]).collect::<Vec<_>>().join(", ")
    }
}

/// The state of a walk over a text with quoted parts (RFC 9110, 5.6.4).
#[derive(Clone, Copy, Default)]
struct Quotes {
    open: bool,
    escaped: bool,
}

impl Quotes {
    /// Whether a character is outside of them.
    fn pass(&mut self, c: char) -> bool {
        let is_escaped = std::mem::take(&mut self.escaped);
        match c {
            '\\' if self.open && !is_escaped => self.escaped = true,
            '"' if !is_escaped => self.open = !self.open,
            _ => {}
        }
        !self.open
    }
}

fn is_closed(text: &str) -> bool {
    let mut quotes = Quotes::default();
    text.chars().for_each(|c| _ = quotes.pass(c));
    !quotes.open
}

/// The elements of a list (RFC 9110, 5.6.1), between commas that are not within quotes; between all
/// of them where a quote is never closed.
fn elements(list: &str) -> impl Iterator<Item = &str> {
    let (mut quotes, ignores_quotes) = (Quotes::default(), !is_closed(list));
    let separates = move |c: char| {
        let outside = quotes.pass(c);
        c == ',' && (outside || ignores_quotes)
    };
    list.split(separates).map(|element| element.trim_matches([' ', '\t'])).filter(|e| !e.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(text: &str) -> EdgeId {
        text.parse().expect("a name")
    }

    fn came(values: &[&str]) -> CdnLoop {
        CdnLoop::parse(values.iter().map(|value| value.as_bytes()))
    }

    #[test]
    fn names_are_short_and_plain_and_their_case_means_nothing() {
        for text in ["a", "Frankfurt-1", "edge.example", "0123456789abcdef", &"x".repeat(64)] {
            assert_eq!(id(text).to_string(), text.to_ascii_lowercase());
        }
        for text in ["", "a b", "a,b", "a;b", "\u{e9}", "a_b", "a/b", &"x".repeat(65)] {
            assert_eq!(text.parse::<EdgeId>(), Err(BadId), "{text}");
        }
        assert_eq!(id("Berlin"), id("berlin"));
    }

    #[test]
    fn a_request_that_was_here_before_is_known_in_every_spelling() {
        let own = id("Berlin");
        for values in [
            &["snapedge-berlin"][..],
            &["snapedge-Berlin"],
            &["SNAPEDGE-BERLIN"],
            &["other.example", "snapedge-berlin"],
            &["cloudflare; loops=1,snapedge-berlin ;v=2, x"],
            &[",, ,snapedge-berlin,"],
            &["a;note=\"x, y\", snapedge-berlin"],
            &["a;note=\"x\\\", y\"\t,\tsnapedge-berlin"],
            &["a, b, c, d, e, f, g, snapedge-berlin"],
            &["a;note=\"x, snapedge-berlin"],
            &["\"", "snapedge-berlin"],
        ] {
            assert_eq!(came(values).check(&own), Err(LoopFault::Again), "{values:?}");
        }
        for values in [
            &[][..],
            &[""],
            &["berlin"],
            &["snapedge-berlin2"],
            &["snapedge-"],
            &["snapedge"],
            &["x-snapedge-berlin"],
            &["a;note=\"x, snapedge-berlin, y\""],
            &["a, b, c, snapedge-paris"],
            &["\u{e9}"],
        ] {
            assert_eq!(came(values).check(&own), Ok(()), "{values:?}");
        }
    }

    #[test]
    fn a_request_that_came_too_far_is_not_passed_on() {
        let own = id("own");
        let hops = |count: usize| {
            let hops: Vec<String> = (0..count).map(|number| format!("cdn{number}")).collect();
            hops.join(",")
        };
        assert_eq!(came(&[&hops(MAX_HOPS)]).check(&own), Ok(()));
        for values in [&[&*hops(MAX_HOPS + 1)][..], &[&hops(2), &hops(3)], &[&hops(5000)]] {
            assert_eq!(came(values).check(&own), Err(LoopFault::TooFar));
        }
        let long = format!("a;p={}", "x".repeat(MAX_LOOP));
        assert_eq!(came(&[&long]).check(&own), Err(LoopFault::TooFar));
    }

    #[test]
    fn what_it_came_through_is_passed_on_as_it_was() {
        let own = id("Own");
        assert_eq!(came(&[]).onward(&own), "snapedge-own");
        let values = ["cloudflare; loops=1 , snapedge-Paris", "x;note=\"a, b\""];
        let onward = "cloudflare; loops=1, snapedge-Paris, x;note=\"a, b\", snapedge-own";
        assert_eq!(came(&values).onward(&own), onward);
        assert_eq!(came(&[onward]).check(&own), Err(LoopFault::Again));
        assert_eq!(came(&values).edges(), [id("paris")]);
        assert_eq!(came(&["a, b;note=\"x", "c"]).onward(&own), "a, c, snapedge-own");
    }

    #[test]
    fn an_archive_is_not_given_to_those_that_it_comes_through() {
        let own = id("own");
        let via = |names: &[&str]| Via::through(names.iter().copied(), false, &own);
        assert_eq!(via(&[]), Ok(Via::default()));
        assert_eq!(via(&["own", "b"]), Err(Detour::Itself));
        assert_eq!(via(&["a", "OWN"]), Err(Detour::ThroughUs));
        assert_eq!(via(&["a", "b c"]), Err(Detour::Nameless));
        let far = via(&["a", "b", "c", "d"]).expect("four");
        assert!(!far.goes_on() && via(&["a", "b", "c"]).expect("three").goes_on());
        assert_eq!(via(&["a", "b", "c", "d", "e"]), Err(Detour::TooFar));
        assert!(!came(&["snapedge-x, snapedge-c"]).admits(&far));
        assert!(came(&["a, snapedge-x"]).admits(&far));

        assert_eq!(far.header(&own), "own, a, b, c, d");
        assert_eq!(Via::kept().header(&own), "own; kept");
        let kept = Via::told(Some(b"a, b; kept"), &own).expect("two edges");
        assert!(kept.is_kept() && kept.edges() == [id("a"), id("b")]);
        assert_eq!(Via::told(None, &own), Ok(Via::default()));
        assert_eq!(Via::told(Some(b"a,b , c"), &own), via(&["a", "b", "c"]));
        assert_eq!(Via::teller(Some(b"A , own")), Some(id("a")));
        assert_eq!(Via::teller(None), None);
        assert_eq!(Via::told(Some(b"own"), &own), Err(Detour::Itself));
        assert_eq!(Via::told(Some(b"a, own"), &own), Err(Detour::ThroughUs));
        for garbage in [&b""[..], b"a;b", b"\xff"] {
            assert_eq!(Via::told(Some(garbage), &own), Err(Detour::Nameless), "{garbage:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_client_says_is_bounded(values: Vec<Vec<u8>>) {
            let own = id("own");
            let came = CdnLoop::parse(values.iter().map(Vec::as_slice));
            if came.check(&own).is_ok() {
                let onward = came.onward(&own);
                prop_assert!(onward.len() <= MAX_LOOP + (MAX_HOPS + 1) * 80);
                let next = CdnLoop::parse([onward.as_bytes()].into_iter());
                prop_assert_eq!(next.check(&own), Err(LoopFault::Again));
            }
        }

        #[test]
        fn a_way_that_is_told_is_read_as_it_was(
            names in proptest::collection::vec("[a-z0-9.-]{1,9}", 0..4),
        ) {
            let (own, next) = (id("A-own"), id("A-next"));
            if let Ok(via) = Via::through(names.iter().map(String::as_str), false, &own) {
                let told = Via::told(Some(via.header(&own).as_bytes()), &next);
                let mut expected = vec![own.clone()];
                expected.extend_from_slice(via.edges());
                prop_assert_eq!(told.map(|via| via.edges().to_vec()), Ok(expected));
            }
        }
    }
}
