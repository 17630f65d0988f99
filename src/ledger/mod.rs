//! Local directories of archives, such as a node writes them to: which of their files are archives,
//! finished and whole ones, and the opening of one.
//!
//! The files belong to somebody else, who may remove, replace or change them at any moment. Nothing
//! here writes, and nothing is opened but regular files directly in the directory: symbolic links
//! in it are never followed, and what would wake somebody by being opened is not opened.
//!
//! It leaves out when a directory is listed (`target/`), which of several sources is asked
//! (`route/`), and how an open file is read (`cache/`).

mod directory;
mod entry;
mod vetting;
mod walk;

pub use directory::{Found, Ledger, LedgerError, Ledgers, Listing, Offer, OpenError, Opened};
pub use entry::Unfit;
pub use vetting::Identity;
