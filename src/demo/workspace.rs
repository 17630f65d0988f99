//! The directory of the demo.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

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
        dir.take().map_or(Ok(()), TempDir::close)
    }
}
