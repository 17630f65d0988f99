//! Whether an archive is read from the cache, fills it, or passes it by.

use http::Method;

use super::answer::Asked;
use super::etag::CopyId;
use super::range::RangeRequest;

/// What the cache has of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cached {
    /// Nothing.
    Nothing,
    /// It is being fetched for another request.
    Part,
    /// All of this copy.
    Whole(CopyId),
}

/// Of which copies a client has bytes, as far as that matters for its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// The copy that the client began, where its answer goes into one file with those bytes.
    pub begun: Option<CopyId>,
    /// True where the condition of the request names the copy of a target.
    pub of_target: bool,
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
}

impl Bypass {
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
        }
    }
}

/// Decides about one request for one archive; `best` is whether short names lead to it now, which is
/// what the cache is for.
///
/// A request for a part of a file is served from the cached copy only where the client has no bytes
/// of another one. A condition that names the cached copy decides by itself; one that names a copy
/// which a target still has leads to that target; any other gets all of the cached copy.
pub fn deliver(asked: &Asked, best: bool, cached: Cached, bytes: Bytes) -> Delivery {
    if !best {
        return Delivery::Bypass(Bypass::NotBest);
    }
    match cached {
        Cached::Whole(copy) => {
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
        Cached::Part => Delivery::Bypass(Bypass::Filling),
        Cached::Nothing if asked.range != RangeRequest::Whole => Delivery::Bypass(Bypass::Range),
        Cached::Nothing => Delivery::Fill,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::IfRange;

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
    fn check(request: &str, cached: Cached, expected: Delivery) {
        let found = deliver(&asked(request, None), true, cached, Bytes::default());
        assert_eq!(found, expected, "{request}");
        let stale = deliver(&asked(request, None), false, cached, Bytes::default());
        assert_eq!(stale, Delivery::Bypass(Bypass::NotBest), "{request}");
    }

    #[test]
    fn only_a_whole_get_fills() {
        check("GET", Cached::Nothing, Delivery::Fill);
        check("GET lines=1-2", Cached::Nothing, Delivery::Fill);
        check("HEAD", Cached::Nothing, Delivery::Bypass(Bypass::Head));
        for range in ["0-", "0-0", "5-", "-5", "0-1,3-4"] {
            let request = format!("GET bytes={range}");
            check(&request, Cached::Nothing, Delivery::Bypass(Bypass::Range));
            check(&request, Cached::Part, Delivery::Bypass(Bypass::Filling));
            check(&request, Cached::Whole(copy(1)), Delivery::Hit);
        }
        check("GET", Cached::Part, Delivery::Bypass(Bypass::Filling));
        check("HEAD", Cached::Part, Delivery::Bypass(Bypass::Head));
        check("GET", Cached::Whole(copy(1)), Delivery::Hit);
        check("HEAD", Cached::Whole(copy(1)), Delivery::Hit);
    }

    /// With copy 1 in the cache.
    #[track_caller]
    fn check_copy(request: &str, condition: Option<u64>, bytes: Bytes, hit: bool) {
        let found = deliver(&asked(request, condition), true, Cached::Whole(copy(1)), bytes);
        let other = Delivery::Bypass(Bypass::OtherCopy);
        assert_eq!(found, if hit { Delivery::Hit } else { other }, "{request} {condition:?}");
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
