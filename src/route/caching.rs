//! Whether an archive is read from the cache, fills it, or passes it by.

use std::fmt;

use http::Method;

use super::answer::Asked;
use super::range::RangeRequest;
use crate::config::Sharing;
use crate::index::{CopyId, TargetId};

/// What the cache has of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cached<'a> {
    /// Nothing.
    Nothing,
    /// It is being fetched from this target, and cannot be read yet.
    Filling(&'a TargetId),
    /// It is being fetched, and can be read as it grows.
    Growing {
        /// The target that it comes from.
        target: &'a TargetId,
        /// Which copy it is.
        copy: CopyId,
        /// Bytes of all of it.
        length: u64,
        /// The position up to which it will be there within the time that a range may wait.
        reach: u64,
        /// Whether the target answers ranges.
        ranges: bool,
    },
    /// All of it.
    Whole {
        /// The target that it came from.
        target: &'a TargetId,
        /// Which copy it is.
        copy: CopyId,
    },
}

/// How the cache is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Who gets an archive while it is fetched.
    pub sharing: Sharing,
    /// Whether what is in the cache is served although it is no longer the best.
    pub keeps: bool,
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
        asked.has_to_fit() && asked.names(copy).unwrap_or(self.begun == Some(copy))
    }
}

/// How an archive gets to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Out of the cache.
    Hit,
    /// Out of the archive that is being fetched, as it grows.
    Follow,
    /// The same, and all of it although a part was asked for: it will not be there in time, and the
    /// target would send all of it as well.
    FollowWhole,
    /// From a target, and into the cache on the way.
    Fill,
    /// A fetch is begun where there is none, and its head waited for.
    Await,
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
    /// Fetching it failed a moment ago.
    Backoff,
    /// A condition of the request decided, and nothing was fetched; or nobody could tell before the
    /// archive was asked for whether it holds.
    Condition,
}

impl Bypass {
    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::Off,
        Self::Head,
        Self::Range,
        Self::Filling,
        Self::NotBest,
        Self::OtherCopy,
        Self::NoSpace,
        Self::Disk,
        Self::Abandoned,
        Self::Backoff,
        Self::Condition,
    ];

    /// The value of the `detail` parameter, a token.
    pub const fn detail(self) -> &'static str {
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
            Self::Backoff => "backoff",
            Self::Condition => "condition",
        }
    }
}

/// How an answer came about, as in a `cache-status` header (RFC 9211).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheStatus {
    /// Out of the cache.
    Hit,
    /// Out of a local directory.
    Lent,
    /// From a target, and into the cache on the way; this request began it.
    Stored,
    /// From the fetch that another request, or none, began.
    Collapsed,
    /// From a target, past the cache.
    Bypass(Bypass),
}

impl fmt::Display for CacheStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hit => f.write_str("snapedge; hit"),
            Self::Lent => f.write_str("snapedge; hit; detail=ledger"),
            Self::Stored => f.write_str("snapedge; fwd=miss; stored"),
            Self::Collapsed => f.write_str("snapedge; fwd=miss; collapsed"),
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
/// What is not the best any more is served to those who have bytes of exactly that copy, and to
/// everybody where the terms keep it, or while it is being fetched: it will not be fetched again.
pub(super) fn deliver(
    asked: &Asked,
    best: bool,
    terms: Terms,
    cached: Cached<'_>,
    bytes: Bytes,
) -> Delivery {
    let shared = terms.sharing == Sharing::Shared;
    match cached {
        Cached::Whole { copy, .. } if !best && bytes.are_of(asked, copy) => Delivery::Hit,
        Cached::Whole { copy, .. } if best || terms.keeps => {
            if has_other(asked, copy, bytes) {
                Delivery::Bypass(Bypass::OtherCopy)
            } else {
                Delivery::Hit
            }
        }
        Cached::Growing { copy, .. } if has_other(asked, copy, bytes) => {
            Delivery::Bypass(Bypass::OtherCopy)
        }
        Cached::Growing { copy, length, reach, ranges, .. } => {
            if last_start(asked, copy, length) <= reach || asked.method == Method::HEAD {
                Delivery::Follow
            } else if ranges {
                Delivery::Bypass(Bypass::Range)
            } else {
                Delivery::FollowWhole
            }
        }
        _ if !best => Delivery::Bypass(Bypass::NotBest),
        _ if asked.method == Method::HEAD => Delivery::Bypass(Bypass::Head),
        _ if shared => Delivery::Await,
        Cached::Nothing if asked.range != RangeRequest::Whole => Delivery::Bypass(Bypass::Range),
        Cached::Nothing => Delivery::Fill,
        // A whole archive that is the best was decided about above.
        Cached::Filling(_) | Cached::Whole { .. } => Delivery::Bypass(Bypass::Filling),
    }
}

/// Whether the client has bytes of another copy that its request has to fit to.
fn has_other(asked: &Asked, copy: CopyId, bytes: Bytes) -> bool {
    let other = match asked.names(copy) {
        Some(named) => bytes.of_target && !named,
        None => bytes.begun.is_some_and(|begun| begun != copy),
    };
    asked.has_to_fit() && other
}

/// The last position at which a part of the answer begins.
fn last_start(asked: &Asked, copy: CopyId, length: u64) -> u64 {
    match &asked.if_range {
        Some(condition) if !condition.holds(copy) => 0,
        _ => asked.range.last_start(length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Conditions, IfRange, TEST_KEY};

    const EXCLUSIVE: Terms = Terms { sharing: Sharing::Exclusive, keeps: false };
    const SHARED: Terms = Terms { sharing: Sharing::Shared, keeps: false };
    const KEEPING: Terms = Terms { sharing: Sharing::Shared, keeps: true };

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
            if_range: condition.map(|number| IfRange::new(&TEST_KEY.tag(copy(number)), TEST_KEY)),
            conditions: Conditions::default(),
        }
    }

    #[track_caller]
    fn check(request: &str, cached: Cached<'_>, expected: Delivery) {
        let found = deliver(&asked(request, None), true, EXCLUSIVE, cached, Bytes::default());
        assert_eq!(found, expected, "{request}");
        let stale = deliver(&asked(request, None), false, EXCLUSIVE, cached, Bytes::default());
        assert_eq!(stale, Delivery::Bypass(Bypass::NotBest), "{request}");
    }

    /// What operators read about, and nothing else.
    #[test]
    fn every_status_is_documented() {
        let documentation = include_str!("../../docs/CACHE.md");
        let bypasses = Bypass::ALL.map(CacheStatus::Bypass);
        let others =
            [CacheStatus::Hit, CacheStatus::Lent, CacheStatus::Stored, CacheStatus::Collapsed];
        for status in bypasses.iter().chain(&others) {
            assert!(documentation.contains(&format!("| `{status}` |")), "{status}");
        }
        let rows = documentation.matches("| `snapedge; ").count();
        assert_eq!(rows, Bypass::ALL.len() + others.len());
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
        let found = deliver(&asked(request, condition), true, EXCLUSIVE, whole(&target()), bytes);
        let other = Delivery::Bypass(Bypass::OtherCopy);
        assert_eq!(found, if hit { Delivery::Hit } else { other }, "{request} {condition:?}");
    }

    #[test]
    fn what_is_stale_is_there_for_those_who_began_it() {
        let check = |request: &str, condition, begun: Option<u64>, hit: bool| {
            let bytes = Bytes { begun: begun.map(copy), of_target: false };
            let found =
                deliver(&asked(request, condition), false, EXCLUSIVE, whole(&target()), bytes);
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

    /// What the shared mode does, and what it does where old archives are kept.
    #[track_caller]
    fn check_shared(request: &str, best: bool, cached: Cached<'_>, expected: [Delivery; 2]) {
        let found = [SHARED, KEEPING]
            .map(|terms| deliver(&asked(request, None), best, terms, cached, Bytes::default()));
        assert_eq!(found, expected, "{request} {best} {cached:?}");
    }

    #[test]
    fn a_shared_fetch_is_begun_once_and_never_by_a_head() {
        let target = target();
        let all = ["GET", "GET bytes=0-", "GET bytes=5-", "GET bytes=-5", "GET bytes=0-1,3-4"];
        for request in all {
            check_shared(request, true, Cached::Nothing, [Delivery::Await; 2]);
            check_shared(request, true, Cached::Filling(&target), [Delivery::Await; 2]);
            check_shared(request, true, whole(&target), [Delivery::Hit; 2]);
            let not_best = Delivery::Bypass(Bypass::NotBest);
            check_shared(request, false, Cached::Nothing, [not_best; 2]);
            check_shared(request, false, Cached::Filling(&target), [not_best; 2]);
            check_shared(request, false, whole(&target), [not_best, Delivery::Hit]);
        }
        let head = [Delivery::Bypass(Bypass::Head); 2];
        check_shared("HEAD", true, Cached::Nothing, head);
        check_shared("HEAD", true, Cached::Filling(&target), head);
    }

    /// Of copy 1, which has a thousand bytes.
    fn growing(target: &TargetId, reach: u64, ranges: bool) -> Cached<'_> {
        Cached::Growing { target, copy: copy(1), length: 1000, reach, ranges }
    }

    #[test]
    fn a_growing_archive_serves_what_it_will_have_in_time() {
        let target = target();
        for best in [true, false] {
            let check = |request: &str, reach, ranges, expected| {
                let cached = growing(&target, reach, ranges);
                check_shared(request, best, cached, [expected; 2]);
            };
            for ranges in [true, false] {
                for request in ["GET", "HEAD", "GET bytes=0-", "GET bytes=2000-", "HEAD bytes=9-"] {
                    check(request, 0, ranges, Delivery::Follow);
                }
                check("GET bytes=500-", 500, ranges, Delivery::Follow);
                check("GET bytes=0-1,500-", 500, ranges, Delivery::Follow);
                check("GET bytes=-100", 900, ranges, Delivery::Follow);
            }
            check("GET bytes=501-", 500, true, Delivery::Bypass(Bypass::Range));
            check("GET bytes=501-", 500, false, Delivery::FollowWhole);
            check("GET bytes=0-1,501-", 500, false, Delivery::FollowWhole);
            check("GET bytes=-1", 500, true, Delivery::Bypass(Bypass::Range));
        }
    }

    #[test]
    fn a_growing_copy_is_not_mixed_with_another_one() {
        let target = target();
        let check = |condition, begun: Option<u64>, of_target, expected| {
            let bytes = Bytes { begun: begun.map(copy), of_target };
            let asked = asked("GET bytes=500-", condition);
            let found = deliver(&asked, true, SHARED, growing(&target, 400, true), bytes);
            assert_eq!(found, expected, "{condition:?} {begun:?} {of_target}");
        };
        let (range, other) = (Delivery::Bypass(Bypass::Range), Delivery::Bypass(Bypass::OtherCopy));
        check(None, Some(1), false, range);
        check(None, Some(2), false, other);
        check(Some(1), Some(2), false, range);
        check(Some(2), None, true, other);
        // All of it, from its start on.
        check(Some(2), None, false, Delivery::Follow);
    }
}
