//! What is written about: what the process does ([`start`]), and each request ([`AccessLog`]). Both
//! are written by threads of their own, see `sink`.

mod access;
mod error;
mod process;
mod sink;

pub use access::{AccessLog, Entry, Opened};
pub use error::LogError;
pub use process::{ACCESS, LAST_LINES, NOISY_MODULE, dropped, flush, set, start};
