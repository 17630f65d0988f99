//! Settings of the store.

use std::path::PathBuf;
use std::sync::Arc;

use super::retention::Retention;
use crate::config::{Cache, Verify};
use crate::index::{Generation, Worth};
use crate::snapshot::ArchiveName;

/// Tells what an archive that came from a group is worth now. Asked often, from any thread, and
/// under the store's lock: it must not ask the store.
pub type Appraise = Arc<dyn Fn(&ArchiveName, &str) -> Worth + Send + Sync>;
/// Tells the generation that a group wants now. Asked as the other one is.
pub type Successor = Arc<dyn Fn(&str) -> Option<Generation> + Send + Sync>;

/// How archives are cached, which may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// Bytes that stay free on the file system.
    pub min_free_space: u64,
    /// Bytes that all archives may have together, those on their way included.
    pub max_size: Option<u64>,
    /// For how long what is no longer the best is kept.
    pub retention: Retention,
    /// How an archive is looked into before it is kept.
    pub verify: Verify,
}

impl StoreSettings {
    /// The settings that the configuration asks for.
    pub fn of(cache: &Cache) -> Self {
        let Cache { min_free_space, max_size, verify, keep_previous, lease, .. } = *cache;
        let retention =
            if keep_previous { Retention::Leased(lease) } else { Retention::UntilRefresh };
        Self { min_free_space, max_size, retention, verify }
    }
}

/// Where and how archives are cached.
pub struct Options {
    /// The directory. It is made where it does not exist.
    pub directory: PathBuf,
    /// How.
    pub settings: StoreSettings,
    /// What is worth keeping.
    pub appraise: Appraise,
    /// What comes after it.
    pub successor: Successor,
}
