//! Room for the archive that is always given back.

use std::io::Result;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A directory that goes when this process goes, however that ends. The shell that removes it waits
/// for the end of its input, in a process group of its own that a Ctrl-C does not reach.
pub(super) struct Directory {
    path: PathBuf,
    shell: Child,
}

impl Directory {
    /// Makes one below the build's directory for temporary files, which is on a disk.
    pub(super) fn new() -> Result<Self> {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let shell = Command::new("sh")
            .args(["-c", "cat >/dev/null; rm -rf -- \"$1\"", "sh"])
            .arg(directory.path())
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()?;
        Ok(Self { path: directory.keep(), shell })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // There is nobody to tell.
        let _ = self.shell.wait();
    }
}
