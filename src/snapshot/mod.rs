//! What a snapshot archive is called, which of two is the better one, and how heads announce one.
//!
//! Pure: no file, socket or clock. An [`ArchiveName`] that exists is a valid one; it is the only
//! type from which a path or a URL of an archive is ever made.

pub mod framing;
mod hash;
mod name;

pub use hash::{ArchiveHash, HashError};
pub use name::{ArchiveName, Compression, Kind, NameError, Slot};
