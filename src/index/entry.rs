//! Copies of archives on targets, and how the tracker API lists them.

use std::sync::Arc;
use std::time::SystemTime;

use super::copy::CopyId;
use super::listing::{Listed, TargetId};

/// One archive on one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The target.
    pub target: TargetId,
    /// What it says of the archive.
    pub listed: Listed,
    /// When it said so.
    pub updated_at: SystemTime,
}

impl Source {
    /// Which copy it is, as far as the listing tells.
    pub fn copy(&self) -> Option<CopyId> {
        let Listed { size, modified, .. } = self.listed;
        let size = size?;
        Some(if self.target.is_ledger() {
            CopyId::of_file(&self.target.authority, size, modified)
        } else {
            CopyId::new(&self.target.authority, size, modified)
        })
    }
}

/// One archive on one target, as the tracker API lists it: with the archive below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The archive.
    pub source: Arc<Source>,
    /// For an incremental archive the full one below it, on the same target.
    pub base: Option<Arc<Source>>,
    /// False where most targets list another hash.
    pub believed: bool,
}
