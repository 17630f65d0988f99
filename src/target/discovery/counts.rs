//! How often the sources of targets failed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
    /// By group, and in it by the place of the kind in [`SourceKind::ALL`].
    failures: BTreeMap<Arc<str>, [AtomicU64; SourceKind::ALL.len()]>,
}

impl DiscoveryCounts {
    pub(crate) fn new(groups: impl IntoIterator<Item = Arc<str>>) -> Self {
        let zeros = || std::array::from_fn(|_| AtomicU64::new(0));
        Self { failures: groups.into_iter().map(|group| (group, zeros())).collect() }
    }

    pub(super) fn failed(&self, group: &str, kind: SourceKind) {
        if let Some(counts) = self.failures.get(group) {
            counts[kind as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often the sources of this kind of this group named no targets when they were asked.
    pub fn failures(&self, group: &str, kind: SourceKind) -> u64 {
        let counts = self.failures.get(group);
        counts.map_or(0, |counts| counts[kind as usize].load(Ordering::Relaxed))
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
        for (at, kind) in SourceKind::ALL.into_iter().enumerate() {
            assert_eq!(counts.failures("a", kind), at as u64 + 1, "{kind}");
            assert_eq!(counts.failures("b", kind), 0, "{kind}");
            assert_eq!(counts.failures("nowhere", kind), 0, "{kind}");
        }
    }
}
