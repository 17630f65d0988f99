//! Local directories of archives, such as a node writes them to: which of their files are archives,
//! and the opening of one.
//!
//! The files belong to somebody else, who may remove, replace or change them at any moment. Nothing
//! here writes, and nothing is opened but regular files directly in the directory: symbolic links
//! in it are never followed, and what would wake somebody by being opened is not opened.
//!
//! It leaves out when a directory is listed (`target/`), which of several sources is asked
//! (`route/`), and how an open file is read (`cache/`).

mod directory;
mod entry;

pub use directory::{Ledger, LedgerError, Ledgers, Listing, OpenError, Opened};
pub use entry::Unfit;
