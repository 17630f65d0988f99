//! What is written about: what the process does ([`start`]), and each request ([`AccessLog`]). Both
//! are written by threads of their own, see `sink`.

mod access;
mod error;
mod process;
mod sink;

use std::time::Duration;

pub use access::{AccessLog, Entry, Opened};
pub use error::LogError;
pub use process::{ACCESS, NOISY_MODULE, dropped, set, start};

/// Longest that the end of the process waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Writes what waits to be written, for a second at most: the process ends.
pub fn flush() {
    process::flush(LAST_LINES);
}
