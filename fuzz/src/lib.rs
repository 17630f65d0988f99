//! What holds of everything that is read from others, whatever it is: one function for each parser,
//! which fails by panicking. A fuzzer looks for an input that makes one fail; `tests/seeds.rs` of
//! the package above tries those that are kept, with every test run.
//!
//! Parsers are reached by the public interface of `snapedge`, which promises nothing to anybody
//! else: there is no second door for fuzzing that could differ from what the program does.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "to panic is how a property fails"
)]

mod archives;
mod names;
mod texts;

pub use archives::{cache_record, frames, tar_members};
pub use names::{archive_name, file_sd, listing, ranges};
pub use texts::{config, rpc_body};

/// A function of this crate and its name, which is that of its target and of its seeds' folder.
pub type Property = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: [Property; 9] = [
    ("archive_name", archive_name),
    ("cache_record", cache_record),
    ("config", config),
    ("file_sd", file_sd),
    ("frames", frames),
    ("listing", listing),
    ("ranges", ranges),
    ("rpc_body", rpc_body),
    ("tar_members", tar_members),
];

/// The first byte of an input as a number from 1 on, and the rest: a length to cut that into.
fn pieces(data: &[u8]) -> Option<(usize, &[u8])> {
    data.split_first().map(|(first, rest)| (usize::from(*first) + 1, rest))
}
