//! What may go wrong with a source of targets.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::MAX_TARGETS;
use crate::scrape::client::ClientError;

/// Why a source names no targets.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no list of targets.
    #[error("`{}`: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// What answers cannot be reached, or does not answer as it should.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The answer is no list of targets.
    #[error("the answer is no list of targets: {0}")]
    Answer(String),
    /// The file with the token holds something else.
    #[error("the file with the token has no token, or more than that")]
    Token,
    /// The name has no such records.
    #[error("`{name}` has no `{kind}` records")]
    NoRecords {
        /// The domain name.
        name: String,
        /// The type of records.
        kind: &'static str,
    },
    /// No server says what records the name has.
    #[error("cannot look up the `{kind}` records of `{name}`")]
    Dns {
        /// The domain name.
        name: String,
        /// The type of records.
        kind: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The source says nothing.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// The group would have too many targets.
    #[error("more than {MAX_TARGETS} targets in the group, over all its sources")]
    TooMany,
}
