//! How often the sources of targets failed, and what was left out of their lists and of those of
//! targets.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

/// A kind of source, named after its key in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceKind {
    /// `file_targets`.
    File,
    /// `http_targets`.
    Http,
    /// `consul_sd_config`.
    Consul,
    /// `dns_targets`.
    Dns,
}

impl SourceKind {
    /// Every kind, in the order of their values.
    pub const ALL: [Self; 4] = [Self::File, Self::Http, Self::Consul, Self::Dns];

    /// A word for it, as metrics have it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Http => "http",
            Self::Consul => "consul",
            Self::Dns => "dns",
        }
    }

    /// The key of the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file_targets",
            Self::Http => "http_targets",
            Self::Consul => "consul_sd_config",
            Self::Dns => "dns_targets",
        }
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Counts since the start of the process; they never go back.
#[derive(Debug, Default)]
pub struct DiscoveryCounts {
    groups: ArcSwap<BTreeMap<Arc<str>, Arc<Counts>>>,
}

/// The counts of one group, by the place of the kind in [`SourceKind::ALL`].
#[derive(Debug, Default)]
struct Counts {
    failures: [AtomicU64; SourceKind::ALL.len()],
    omissions: [AtomicU64; SourceKind::ALL.len()],
    /// Of what its targets list.
    unlisted: AtomicU64,
}

impl DiscoveryCounts {
    pub(crate) fn new(groups: impl IntoIterator<Item = Arc<str>>) -> Self {
        let counts = Self::default();
        counts.keep(groups);
        counts
    }

    /// Goes on with these groups, of which those go on counting that were there before.
    pub(in crate::scrape) fn keep(&self, groups: impl IntoIterator<Item = Arc<str>>) {
        let before = self.groups.load();
        let counts = |group: Arc<str>| {
            let known = before.get(&group).cloned().unwrap_or_default();
            (group, known)
        };
        self.groups.store(Arc::new(groups.into_iter().map(counts).collect()));
    }

    fn of(&self, group: &str) -> Option<Arc<Counts>> {
        self.groups.load().get(group).cloned()
    }

    pub(super) fn failed(&self, group: &str, kind: SourceKind) {
        if let Some(counts) = self.of(group) {
            counts.failures[kind as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn omitted(&self, group: &str, kind: SourceKind, count: u64) {
        if let Some(counts) = self.of(group) {
            counts.omissions[kind as usize].fetch_add(count, Ordering::Relaxed);
        }
    }

    pub(in crate::scrape) fn unlisted(&self, group: &str, count: u64) {
        if let Some(counts) = self.of(group) {
            counts.unlisted.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// How often the sources of this kind of this group named no targets when they were asked.
    pub fn failures(&self, group: &str, kind: SourceKind) -> u64 {
        let counts = self.of(group);
        counts.map_or(0, |counts| counts.failures[kind as usize].load(Ordering::Relaxed))
    }

    /// How many entries of what these sources answered were left out, over all answers.
    pub fn omissions(&self, group: &str, kind: SourceKind) -> u64 {
        let counts = self.of(group);
        counts.map_or(0, |counts| counts.omissions[kind as usize].load(Ordering::Relaxed))
    }

    /// How many entries of what the targets of this group listed were left out.
    pub fn listing_omissions(&self, group: &str) -> u64 {
        self.of(group).map_or(0, |counts| counts.unlisted.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_group_and_kind_counts_for_itself() {
        let counts = DiscoveryCounts::new(["a".into(), "b".into()]);
        for (at, kind) in SourceKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at, "{kind}");
            for _ in 0..=at {
                counts.failed("a", kind);
            }
        }
        counts.failed("nowhere", SourceKind::File);
        counts.keep(["b".into(), "a".into(), "new".into()]);
        for (at, kind) in SourceKind::ALL.into_iter().enumerate() {
            assert_eq!(counts.failures("a", kind), at as u64 + 1, "{kind}");
            assert_eq!(counts.failures("b", kind), 0, "{kind}");
            assert_eq!(counts.failures("nowhere", kind), 0, "{kind}");
        }
    }
}
