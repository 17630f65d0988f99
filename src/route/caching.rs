//! Whether an archive is read from the cache, fills it, or passes it by.

use std::fmt;

use http::Method;

use super::answer::Asked;
use super::range::RangeRequest;
use crate::index::{CopyId, TargetId};

/// What the cache has of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cached<'a> {
    /// Nothing.
    Nothing,
    /// It is being fetched from this target for another request.
    Filling(&'a TargetId),
    /// All of it.
    Whole {
        /// The target that it came from.
        target: &'a TargetId,
        /// Which copy it is.
        copy: CopyId,
    },
}

/// Of which copies a client has bytes, as far as that matters for its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bytes {
    /// The copy that the client began, where its answer goes into one file with those bytes.
    pub(super) begun: Option<CopyId>,
    /// True where the condition of the request names the copy of a target.
    pub(super) of_target: bool,
}

impl Bytes {
    /// Whether a request goes on with bytes of this copy.
    fn are_of(self, asked: &Asked, copy: CopyId) -> bool {
        let named = asked.if_range.as_ref().map(|condition| condition.holds(copy));
        asked.range.is_part_of_a_file() && named.unwrap_or(self.begun == Some(copy))
    }
}

/// How an archive gets to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Out of the cache.
    Hit,
    /// From a target, and into the cache on the way.
    Fill,
    /// From a target, past the cache.
    Bypass(Bypass),
}

/// Why a request passes the cache by; each is a `detail` of RFC 9211.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bypass {
    /// There is no cache.
    Off,
    /// A HEAD, which must not start the transfer of an archive.
    Head,
    /// A range, which must not start the transfer of everything else.
    Range,
    /// Another request is filling the cache with this archive.
    Filling,
    /// The archive is not the best of its kind, and so is not kept.
    NotBest,
    /// The client has bytes of another copy than the cache.
    OtherCopy,
    /// The disk has no room for the archive.
    NoSpace,
    /// The disk fails, does not answer, or has something else under the archive's name.
    Disk,
    /// It was filling the cache, and the source that it began with failed.
    Abandoned,
}

impl Bypass {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::Off,
        Self::Head,
        Self::Range,
        Self::Filling,
        Self::NotBest,
        Self::OtherCopy,
        Self::NoSpace,
        Self::Disk,
        Self::Abandoned,
    ];

    /// The value of the `detail` parameter, a token.
    const fn detail(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Head => "head",
            Self::Range => "range",
            Self::Filling => "filling",
            Self::NotBest => "not-best",
            Self::OtherCopy => "other-copy",
            Self::NoSpace => "no-space",
            Self::Disk => "disk",
            Self::Abandoned => "abandoned",
        }
    }
}

/// How an answer came about, as in a `cache-status` header (RFC 9211).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheStatus {
    /// Out of the cache.
    Hit,
    /// From a target, and into the cache on the way.
    Stored,
    /// From a target, past the cache.
    Bypass(Bypass),
}

impl fmt::Display for CacheStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hit => f.write_str("snapedge; hit"),
            Self::Stored => f.write_str("snapedge; fwd=miss; stored"),
            Self::Bypass(why) => write!(f, "snapedge; fwd=bypass; detail={}", why.detail()),
        }
    }
}

/// Decides about one request for one archive; `best` is whether short names lead to it now, which
/// is what the cache is for, or no target has it any more.
///
/// A request for a part of a file is served from the cached copy only where the client has no bytes
/// of another one. A condition that names the cached copy decides by itself; one that names a copy
/// which a target still has leads to that target; any other gets all of the cached copy.
///
/// What is not the best any more is served to those who have bytes of exactly that copy.
pub(super) fn deliver(asked: &Asked, best: bool, cached: Cached<'_>, bytes: Bytes) -> Delivery {
    match cached {
        Cached::Whole { copy, .. } if !best && bytes.are_of(asked, copy) => Delivery::Hit,
        _ if !best => Delivery::Bypass(Bypass::NotBest),
        Cached::Whole { copy, .. } => {
            let other = match &asked.if_range {
                Some(condition) => bytes.of_target && !condition.holds(copy),
                None => bytes.begun.is_some_and(|begun| begun != copy),
            };
            if asked.range.is_part_of_a_file() && other {
                Delivery::Bypass(Bypass::OtherCopy)
            } else {
                Delivery::Hit
            }
        }
        _ if asked.method == Method::HEAD => Delivery::Bypass(Bypass::Head),
        Cached::Filling(_) => Delivery::Bypass(Bypass::Filling),
        Cached::Nothing if asked.range != RangeRequest::Whole => Delivery::Bypass(Bypass::Range),
        Cached::Nothing => Delivery::Fill,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::IfRange;

    fn target() -> TargetId {
        TargetId { group: "g".into(), authority: "10.0.0.1:8899".into() }
    }

    /// Copy 1.
    fn whole(target: &TargetId) -> Cached<'_> {
        Cached::Whole { target, copy: copy(1) }
    }

    fn copy(number: u64) -> CopyId {
        CopyId::new("10.0.0.1:8899", number, None)
    }

    /// A request as `GET`, `HEAD`, or `GET <range>`, with a condition that names a copy or none.
    fn asked(request: &str, condition: Option<u64>) -> Asked {
        let (method, range) = request.split_once(' ').unwrap_or((request, ""));
        Asked {
            method: method.parse().expect("a method"),
            range: RangeRequest::parse(range),
            if_range: condition.map(|number| IfRange::new(&copy(number).to_string())),
        }
    }

    #[track_caller]
    fn check(request: &str, cached: Cached<'_>, expected: Delivery) {
        let found = deliver(&asked(request, None), true, cached, Bytes::default());
        assert_eq!(found, expected, "{request}");
        let stale = deliver(&asked(request, None), false, cached, Bytes::default());
        assert_eq!(stale, Delivery::Bypass(Bypass::NotBest), "{request}");
    }

    /// What operators read about, and nothing else.
    #[test]
    fn every_status_is_documented() {
        let documentation = include_str!("../../docs/CACHE.md");
        let bypasses = Bypass::ALL.map(CacheStatus::Bypass);
        for status in bypasses.iter().chain(&[CacheStatus::Hit, CacheStatus::Stored]) {
            assert!(documentation.contains(&format!("| `{status}` |")), "{status}");
        }
        let rows = documentation.matches("| `snapedge; ").count();
        assert_eq!(rows, Bypass::ALL.len() + 2);
    }

    #[test]
    fn only_a_whole_get_fills() {
        check("GET", Cached::Nothing, Delivery::Fill);
        check("GET lines=1-2", Cached::Nothing, Delivery::Fill);
        check("HEAD", Cached::Nothing, Delivery::Bypass(Bypass::Head));
        for range in ["0-", "0-0", "5-", "-5", "0-1,3-4"] {
            let request = format!("GET bytes={range}");
            check(&request, Cached::Nothing, Delivery::Bypass(Bypass::Range));
            check(&request, Cached::Filling(&target()), Delivery::Bypass(Bypass::Filling));
            check(&request, whole(&target()), Delivery::Hit);
        }
        check("GET", Cached::Filling(&target()), Delivery::Bypass(Bypass::Filling));
        check("HEAD", Cached::Filling(&target()), Delivery::Bypass(Bypass::Head));
        check("GET", whole(&target()), Delivery::Hit);
        check("HEAD", whole(&target()), Delivery::Hit);
    }

    /// With copy 1 in the cache.
    #[track_caller]
    fn check_copy(request: &str, condition: Option<u64>, bytes: Bytes, hit: bool) {
        let found = deliver(&asked(request, condition), true, whole(&target()), bytes);
        let other = Delivery::Bypass(Bypass::OtherCopy);
        assert_eq!(found, if hit { Delivery::Hit } else { other }, "{request} {condition:?}");
    }

    #[test]
    fn what_is_stale_is_there_for_those_who_began_it() {
        let check = |request: &str, condition, begun: Option<u64>, hit: bool| {
            let bytes = Bytes { begun: begun.map(copy), of_target: false };
            let found = deliver(&asked(request, condition), false, whole(&target()), bytes);
            let expected = if hit { Delivery::Hit } else { Delivery::Bypass(Bypass::NotBest) };
            assert_eq!(found, expected, "{request} {condition:?} {begun:?}");
        };
        check("GET bytes=5-", None, Some(1), true);
        check("GET bytes=5-", None, Some(2), false);
        check("GET bytes=5-", None, None, false);
        check("GET bytes=5-", Some(1), None, true);
        check("GET bytes=5-", Some(2), Some(1), false);
        check("GET bytes=0-", None, Some(1), false);
        check("GET", None, Some(1), false);
        check("HEAD", None, Some(1), false);
    }

    #[test]
    fn a_part_of_another_copy_does_not_come_from_the_cache() {
        let begun = |number| Bytes { begun: Some(copy(number)), of_target: false };
        check_copy("GET bytes=5-", None, begun(1), true);
        check_copy("GET bytes=5-", None, begun(2), false);
        check_copy("GET bytes=0-5,7-8", None, begun(2), false);
        // These begin anew.
        check_copy("GET", None, begun(2), true);
        check_copy("HEAD", None, begun(2), true);
        check_copy("GET bytes=0-", None, begun(2), true);
        // Who names its copy is not judged by what its address began.
        check_copy("GET bytes=5-", Some(1), begun(2), true);
        let of_target = Bytes { begun: None, of_target: true };
        check_copy("GET bytes=5-", Some(1), of_target, true);
        check_copy("GET bytes=5-", Some(2), of_target, false);
        check_copy("GET bytes=5-", Some(2), Bytes::default(), true);
        check_copy("GET bytes=0-", Some(2), of_target, true);
    }
}
