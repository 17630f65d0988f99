//! What tells that a file is another one than it was.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A file as it was at a moment: whatever is written to it, or put in its place, changes this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Bytes.
    pub length: u64,
    /// When it was changed last, in seconds and nanoseconds since 1970: its content, and what the
    /// system knows of it.
    pub changed: [(i64, i64); 2],
    /// The file system and the number in it.
    pub place: (u64, u64),
}

impl Stamp {
    /// The file at a path, symbolic links followed; nothing where none is, or none can be seen.
    pub fn of(path: &Path) -> Option<Self> {
        let seen = path.metadata().ok()?;
        Some(Self {
            length: seen.len(),
            changed: [(seen.mtime(), seen.mtime_nsec()), (seen.ctime(), seen.ctime_nsec())],
            place: (seen.dev(), seen.ino()),
        })
    }
}
