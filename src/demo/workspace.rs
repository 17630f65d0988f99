//! The directory of the demo.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

/// How often the removal is tried.
const MAX_REMOVALS: usize = 10;

/// A temporary directory that is gone when the demo has ended, also when an archive is being
/// written just then.
pub(super) struct Workspace {
    path: PathBuf,
    dir: Mutex<Option<TempDir>>,
}

impl Workspace {
    /// Makes the directory.
    pub(super) fn new() -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("snapedge-demo-").tempdir()?;
        Ok(Self { path: dir.path().to_owned(), dir: Mutex::new(Some(dir)) })
    }

    /// Where it is, or was.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Does what writes into the directory, and nothing once it is removed. The lock is held
    /// meanwhile: a file that appears during the removal would make it fail.
    pub(super) fn write<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let dir = self.dir.lock().unwrap_or_else(PoisonError::into_inner);
        match *dir {
            Some(_) => work(),
            None => Err(io::Error::other("the demo has ended")),
        }
    }

    /// Removes the directory with all that is in it.
    pub(super) fn remove(&self) -> io::Result<()> {
        let mut dir = self.dir.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(path) = dir.take().map(TempDir::keep) else { return Ok(()) };
        for _ in 1..MAX_REMOVALS {
            match std::fs::remove_dir_all(&path) {
                // The last refresh of the cache is still being undone.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                outcome => return outcome,
            }
        }
        std::fs::remove_dir_all(&path)
    }
}
