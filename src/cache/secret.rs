//! The secret that is kept beside the cached archives, so that their entity tags outlive a restart.
//!
//! `snapedge.secret` holds 32 hexadecimal digits and a line feed, for the owner's eyes alone. It is
//! made at the first start and never changed.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::layout::{Layout, remove};
use super::store::Store;
use crate::config::{Key, secret_in};

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// There is a file, which cannot be read or is none of ours.
    #[error(
        "the secret of entity tags cannot be used: {0}; remove the file and another one is made, \
         under which clients cannot resume what they began"
    )]
    Unfit(String),
    /// The secret cannot be made.
    #[error("cannot make `{path}`, the secret of entity tags")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The system has no random numbers.
    #[error("the system gives no random numbers for the secret of entity tags: {0}")]
    Random(getrandom::Error),
}

/// A secret that nobody knows, not even this process when it comes again.
pub fn random_secret() -> Result<Key, SecretError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(SecretError::Random)?;
    Ok(Key::new(bytes))
}

impl Store {
    /// The secret in the directory, which is made where there is none. Blocks.
    pub fn secret(&self) -> Result<Key, SecretError> {
        let layout = self.layout();
        let path = layout.secret();
        if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            let key = random_secret()?;
            write(layout, &key).map_err(|source| SecretError::Io { path, source })?;
            return Ok(key);
        }
        secret_in(&path, Key::parse).map_err(SecretError::Unfit)
    }
}

/// Makes the file, whole or not at all over a crash: the directory is locked by its store.
fn write(layout: &Layout, key: &Key) -> io::Result<()> {
    let unfinished = layout.unfinished_secret();
    remove(&unfinished);
    let mut file = new_file(&unfinished)?;
    writeln!(file, "{}", key.digits())?;
    file.sync_all()?;
    std::fs::rename(&unfinished, layout.secret())?;
    layout.sync()
}

/// A file that was not there, and that its owner alone can read.
fn new_file(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?))
}
