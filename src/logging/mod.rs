//! What is written about: what the process does ([`start`]), and each request ([`AccessLog`]). Both
//! are written by threads of their own, see `sink`.

mod access;
mod process;
mod sink;

use std::io;
use std::time::Duration;

pub use access::{AccessLog, Entry, Opened};
pub use process::{ACCESS, NOISY_MODULE, dropped, set, start};

/// Longest that the end of the process waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

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
        path: std::path::PathBuf,
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

/// Writes what waits to be written, for a second at most: the process ends.
pub fn flush() {
    process::flush(LAST_LINES);
}
