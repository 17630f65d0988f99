//! Whether a file is still what was written into it. Nobody else is to touch what is in the cache's
//! directory, and somebody does: a script that frees space, an editor, another program's sync.
//!
//! What is written over in place is not found here; `verify: decode` reads what is on the disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Fails where the file is not as long as what was written into it.
pub(super) fn check_length(file: &File, written: u64) -> io::Result<()> {
    let length = file.metadata()?.len();
    if length == written {
        return Ok(());
    }
    Err(changed(&format!("it has {length} bytes, of which {written} were written")))
}

/// Fails where the file is not the one at `path`, or has no block for some of its bytes.
///
/// Holes are looked for: the number of blocks is no measure on a file system that compresses.
pub(super) fn check_blocks(file: &File, path: &Path, length: u64) -> io::Result<()> {
    let (ours, named) = (file.metadata()?, path.symlink_metadata()?);
    if (ours.dev(), ours.ino()) != (named.dev(), named.ino()) {
        return Err(changed("another one has its name"));
    }
    match rustix::fs::seek(file, SeekFrom::Hole(0)) {
        Ok(hole) if hole < length => Err(changed(&format!("there is a hole at byte {hole}"))),
        // A file system that does not know of holes says that the first one is the end.
        Ok(_) | Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(()),
        // There is no byte that could be one.
        Err(Errno::NXIO) if length == 0 => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn changed(how: &str) -> io::Error {
    io::Error::other(format!("somebody else changed the file: {how}"))
}
