//! Whether an archive is read from the cache, fills it, or passes it by.

use http::Method;

use super::entry::{CachePolicy, EntryState};
use crate::config::Sharing;
use crate::index::CopyId;
use crate::route::asked::Asked;
use crate::route::cache_status::Bypass;
use crate::route::range::RangeRequest;

/// Of which copies a client has bytes, as far as that matters for its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bytes {
    /// The copy that the answer has to be of, for the sake of bytes that it is added to.
    pub(super) begun: Option<CopyId>,
    /// True where the condition of the request names the copy of a target.
    pub(super) of_target: bool,
}

impl Bytes {
    /// Whether a request goes on with bytes of this copy.
    fn are_of(self, asked: &Asked, copy: CopyId) -> bool {
        asked.names(copy).map_or(self.begun == Some(copy), |named| named && asked.has_to_fit())
    }
}

/// How an archive gets to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// Out of the cache.
    Hit,
    /// Out of the archive that is being fetched, as it grows.
    Follow,
    /// All of the growing archive although a part was asked for, which will not be there in time,
    /// while the target would send all of it as well.
    FollowWhole,
    /// From a target, and into the cache on the way.
    Fill,
    /// A fetch is begun where there is none, and its head waited for.
    Await,
    /// From a target, past the cache.
    Bypass(Bypass),
}

impl Delivery {
    /// Whether it is out of the cache, complete or as it grows.
    pub(super) fn is_of_cache(self) -> bool {
        matches!(self, Self::Hit | Self::Follow | Self::FollowWhole)
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
/// everybody where the policy keeps it, or while it is being fetched: it will not be fetched again.
pub(super) fn deliver(
    asked: &Asked,
    best: bool,
    policy: CachePolicy,
    cached: EntryState<'_>,
    bytes: Bytes,
) -> Delivery {
    let shared = policy.sharing == Sharing::Shared;
    match cached {
        EntryState::Whole { copy, .. } if !best && bytes.are_of(asked, copy) => Delivery::Hit,
        EntryState::Whole { copy, .. } if best || policy.keeps => {
            if has_other(asked, copy, bytes) {
                Delivery::Bypass(Bypass::OtherCopy)
            } else {
                Delivery::Hit
            }
        }
        EntryState::Growing { copy, .. } if has_other(asked, copy, bytes) => {
            Delivery::Bypass(Bypass::OtherCopy)
        }
        EntryState::Growing { copy, length, reach, ranges, .. } => {
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
        EntryState::Nothing if asked.range != RangeRequest::Whole => {
            Delivery::Bypass(Bypass::Range)
        }
        EntryState::Nothing => Delivery::Fill,
        // A whole archive that is the best was decided about above.
        EntryState::Filling(_) | EntryState::Whole { .. } => Delivery::Bypass(Bypass::Filling),
    }
}

/// Whether the client has bytes of another copy that its request has to fit to.
fn has_other(asked: &Asked, copy: CopyId, bytes: Bytes) -> bool {
    match asked.names(copy) {
        Some(named) => asked.has_to_fit() && bytes.of_target && !named,
        None => bytes.begun.is_some_and(|begun| begun != copy),
    }
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
    use crate::index::TargetId;
    use crate::route::{Conditions, IfRange, TEST_KEY};

    const EXCLUSIVE: CachePolicy = CachePolicy { sharing: Sharing::Exclusive, keeps: false };
    const SHARED: CachePolicy = CachePolicy { sharing: Sharing::Shared, keeps: false };
    const KEEPING: CachePolicy = CachePolicy { sharing: Sharing::Shared, keeps: true };

    fn target() -> TargetId {
        TargetId { group: "g".into(), authority: "10.0.0.1:8899".into() }
    }

    /// Copy 1.
    fn whole(target: &TargetId) -> EntryState<'_> {
        EntryState::Whole { target, copy: copy(1) }
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
    fn check(request: &str, cached: EntryState<'_>, expected: Delivery) {
        let found = deliver(&asked(request, None), true, EXCLUSIVE, cached, Bytes::default());
        assert_eq!(found, expected, "{request}");
        let stale = deliver(&asked(request, None), false, EXCLUSIVE, cached, Bytes::default());
        assert_eq!(stale, Delivery::Bypass(Bypass::NotBest), "{request}");
    }

    #[test]
    fn only_a_whole_get_fills() {
        check("GET", EntryState::Nothing, Delivery::Fill);
        check("GET lines=1-2", EntryState::Nothing, Delivery::Fill);
        check("HEAD", EntryState::Nothing, Delivery::Bypass(Bypass::Head));
        for range in ["0-", "0-0", "5-", "-5", "0-1,3-4"] {
            let request = format!("GET bytes={range}");
            check(&request, EntryState::Nothing, Delivery::Bypass(Bypass::Range));
            check(&request, EntryState::Filling(&target()), Delivery::Bypass(Bypass::Filling));
            check(&request, whole(&target()), Delivery::Hit);
        }
        check("GET", EntryState::Filling(&target()), Delivery::Bypass(Bypass::Filling));
        check("HEAD", EntryState::Filling(&target()), Delivery::Bypass(Bypass::Head));
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
        check("GET", None, Some(1), true);
        for request in ["GET bytes=0-", "GET", "HEAD"] {
            check(request, None, None, false);
        }
    }

    #[test]
    fn a_part_of_another_copy_does_not_come_from_the_cache() {
        let begun = |number| Bytes { begun: Some(copy(number)), of_target: false };
        check_copy("GET bytes=5-", None, begun(1), true);
        check_copy("GET bytes=5-", None, begun(2), false);
        check_copy("GET bytes=0-5,7-8", None, begun(2), false);
        // Beside parts of it that are under way.
        check_copy("GET", None, begun(2), false);
        // These begin anew.
        for request in ["GET", "HEAD", "GET bytes=0-"] {
            check_copy(request, None, Bytes::default(), true);
        }
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
    fn check_shared(request: &str, best: bool, cached: EntryState<'_>, expected: [Delivery; 2]) {
        let found = [SHARED, KEEPING]
            .map(|policy| deliver(&asked(request, None), best, policy, cached, Bytes::default()));
        assert_eq!(found, expected, "{request} {best} {cached:?}");
    }

    #[test]
    fn a_shared_fetch_is_begun_once_and_never_by_a_head() {
        let target = target();
        let all = ["GET", "GET bytes=0-", "GET bytes=5-", "GET bytes=-5", "GET bytes=0-1,3-4"];
        for request in all {
            check_shared(request, true, EntryState::Nothing, [Delivery::Await; 2]);
            check_shared(request, true, EntryState::Filling(&target), [Delivery::Await; 2]);
            check_shared(request, true, whole(&target), [Delivery::Hit; 2]);
            let not_best = Delivery::Bypass(Bypass::NotBest);
            check_shared(request, false, EntryState::Nothing, [not_best; 2]);
            check_shared(request, false, EntryState::Filling(&target), [not_best; 2]);
            check_shared(request, false, whole(&target), [not_best, Delivery::Hit]);
        }
        let head = [Delivery::Bypass(Bypass::Head); 2];
        check_shared("HEAD", true, EntryState::Nothing, head);
        check_shared("HEAD", true, EntryState::Filling(&target), head);
    }

    /// Of copy 1, which has a thousand bytes.
    fn growing(target: &TargetId, reach: u64, ranges: bool) -> EntryState<'_> {
        EntryState::Growing { target, copy: copy(1), length: 1000, reach, ranges }
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
