//! How an answer came about, as clients and the log are told.

use std::fmt;

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
    /// The request was filling the cache, and the source that it began with failed.
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
