//! What an archive is worth to a cache. Pure.

/// What an archive is worth to a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// Short names lead to it, or are to lead to it, and to nothing newer.
    Best,
    /// Short names lead to it until they can lead to something newer.
    Offered,
    /// Short names are to lead to a newer one, if they do not yet.
    Superseded,
    /// Short names lead to nothing of its kind, or to something older: its targets may just not
    /// answer.
    Doubtful,
    /// The slot has no support: nothing says that it is one of this cluster.
    Baseless,
}
