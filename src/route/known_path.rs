//! The paths under which something is served.

use crate::snapshot::ArchiveName;

/// Which of the two short forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// `snapshot.tar.*`
    Full,
    /// `incremental-snapshot.tar.*`
    Incremental,
}

/// Under which of the two path schemes a request came, so that its redirect stays there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As on a node: `/<name>`.
    Root,
    /// As on a sidecar: `/v1/snapshot/<name>`.
    V1,
}

impl Style {
    /// The path of an archive.
    pub fn path(self, name: &ArchiveName) -> String {
        match self {
            Self::Root => format!("/{name}"),
            Self::V1 => format!("/v1/snapshot/{name}"),
        }
    }
}

/// What a path alone tells.
#[derive(Debug)]
pub(super) enum KnownPath {
    ShortForm(Wanted, Style),
    Archive(ArchiveName),
    Snapshots,
    BestSnapshots,
    TrackerHealth,
    Health,
}

impl KnownPath {
    /// What is served under a path; nothing where that is nothing, or a node's.
    pub(super) fn of(path: &str) -> Option<Self> {
        let rest = path.strip_prefix('/')?;
        if let Some(wanted) = short_form(rest) {
            return Some(Self::ShortForm(wanted, Style::Root));
        }
        if let Some(v1) = rest.strip_prefix("v1/") {
            return match v1 {
                "snapshots" => Some(Self::Snapshots),
                "best_snapshots" => Some(Self::BestSnapshots),
                "health" => Some(Self::TrackerHealth),
                _ => {
                    short_form(v1).map(|wanted| Self::ShortForm(wanted, Style::V1)).or_else(|| {
                        let name = v1.strip_prefix("snapshot/")?;
                        name.parse().ok().map(Self::Archive)
                    })
                }
            };
        }
        match rest {
            "health" => Some(Self::Health),
            name => name.parse().ok().map(Self::Archive),
        }
    }
}

/// Whether a node answers something under a path.
pub(super) fn is_of_node(path: &str) -> bool {
    matches!(path, "/" | "/genesis.tar.bz2" | "/health")
}

/// Whether something is served under a path, by whomever.
pub(super) fn is_known(path: &str) -> bool {
    KnownPath::of(path).is_some() || is_of_node(path)
}

/// The short names never meant a format: the redirect leads to whatever there is.
fn short_form(name: &str) -> Option<Wanted> {
    match name {
        "snapshot.tar.bz2" | "snapshot.tar.zst" => Some(Wanted::Full),
        "incremental-snapshot.tar.bz2" | "incremental-snapshot.tar.zst" => {
            Some(Wanted::Incremental)
        }
        _ => None,
    }
}
