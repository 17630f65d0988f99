//! Why there is no log.

use std::io;
use std::path::PathBuf;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file of the access log.
    #[error(
        "cannot write the access log `{}`, give this process the right to or choose another \
         `log.access`", path.display()
    )]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The thread that writes.
    #[error("cannot start the thread that writes the log")]
    Thread(#[source] io::Error),
    /// The log of the process was begun before.
    #[error("there is a log already")]
    Begun,
}
