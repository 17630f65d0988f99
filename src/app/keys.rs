//! What entity tags and choices are made with.

use crate::cache::{ArchiveStorage, SecretError, random_secret};
use crate::config::{Config, Key};
use crate::route::Keys;

/// Where the keys come from: the secret of the configuration, or else the one that is kept beside
/// the cache, or one that goes with the process.
pub(super) struct KeySource {
    cache: Option<&'static ArchiveStorage>,
    passing: Key,
}

impl KeySource {
    pub(super) fn new(cache: Option<&'static ArchiveStorage>) -> Result<Self, SecretError> {
        Ok(Self { cache, passing: random_secret()? })
    }

    /// The keys of a configuration.
    pub(super) fn keys(&self, config: &Config) -> Result<Keys, SecretError> {
        match (&config.etag_secret, self.cache) {
            (Some(secret), _) => Ok(Keys::lasting(secret)),
            (None, Some(cache)) => Ok(Keys::lasting(&cache.store().secret()?)),
            (None, None) => Ok(Keys::passing(&self.passing)),
        }
    }
}
