//! A file as memory. The one place of this crate with `unsafe`.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use memmap2::{Advice, Mmap, MmapOptions};

/// Bytes that are read at once where the kernel cannot be asked for a range.
const SCRATCH: usize = 64 << 10;

/// A read-only mapping of a whole file. It outlives the file's name.
#[derive(Debug)]
pub(super) struct Mapping {
    /// There until it is dropped.
    parts: Option<(Mmap, File)>,
}

impl Mapping {
    /// Maps the first `length` bytes of a sealed file.
    pub(super) fn new(file: File, length: u64) -> io::Result<Self> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        // SAFETY: the bytes behind the slice must not change and must stay while it exists. A
        // sealed archive is never written or truncated again: the store opens no file for writing
        // under an archive's name, and holds a lock against other processes of this program. What
        // is unlinked stays readable. Against an operator who truncates a file in the directory by
        // hand there is no defence in a process that reads; the documentation says so.
        #[expect(unsafe_code, reason = "mapping a file is the point of this module")]
        let map = unsafe { MmapOptions::new().len(length).map(&file) }?;
        Ok(Self { parts: Some((map, file)) })
    }

    /// Brings pages in, as a fault would, and waits for the disk. An error is the disk's, which a
    /// fault would turn into the end of the process.
    pub(super) fn load(&self, range: Range<usize>) -> io::Result<()> {
        let Some((map, file)) = &self.parts else { return Ok(()) };
        match map.advise_range(Advice::PopulateRead, range.start, range.len()) {
            // Before Linux 5.14: what was read is in the page cache, where a fault finds it.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => read_through(file, range),
            outcome => outcome,
        }
    }
}

fn read_through(file: &File, range: Range<usize>) -> io::Result<()> {
    let mut scratch = vec![0; SCRATCH];
    for start in range.clone().step_by(SCRATCH) {
        let end = range.end.min(start + SCRATCH);
        file.read_exact_at(&mut scratch[..end - start], start as u64)?;
    }
    Ok(())
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        self.parts.as_ref().map_or(&[], |(map, _)| map)
    }
}

/// Letting go of a large archive takes a second or more, the pages of the mapping and the space of
/// a file that is unlinked: too long for an async thread, where the last reader may be.
impl Drop for Mapping {
    fn drop(&mut self) {
        let parts = self.parts.take();
        let thread = std::thread::Builder::new().name("cache unmap".to_owned());
        // Where there is no thread to be had, the closure and what it holds are dropped here.
        let _ = thread.spawn(move || drop(parts));
    }
}
