//! A file as memory. The one place of this crate with `unsafe`.

use std::fs::File;
use std::io;
use std::ops::Range;

use memmap2::{Advice, Mmap, MmapOptions};

/// Distance at which pages are touched where the kernel cannot be asked for a range: the size of
/// the smallest page.
const PAGE: usize = 4096;

/// A read-only mapping of a whole file. It outlives the file's name.
#[derive(Debug)]
pub(super) struct Mapping(Mmap);

impl Mapping {
    /// Maps the first `length` bytes of a sealed file.
    pub(super) fn new(file: &File, length: u64) -> io::Result<Self> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        // SAFETY: the bytes behind the slice must not change and must stay while it exists. A
        // sealed archive is never written or truncated again: the store opens no file for writing
        // under an archive's name, and holds a lock against other processes of this program. What
        // is unlinked stays readable. Against an operator who truncates a file in the directory by
        // hand there is no defence in a process that reads; the documentation says so.
        #[expect(unsafe_code, reason = "mapping a file is the point of this module")]
        let map = unsafe { MmapOptions::new().len(length).map(file) }?;
        Ok(Self(map))
    }

    /// Brings pages in, as a fault would, and waits for the disk. An error is the disk's, which a
    /// fault would turn into the end of the process.
    pub(super) fn load(&self, range: Range<usize>) -> io::Result<()> {
        match self.0.advise_range(Advice::PopulateRead, range.start, range.len()) {
            // Before Linux 5.14.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                for byte in self.0[range].iter().step_by(PAGE) {
                    std::hint::black_box(*byte);
                }
                Ok(())
            }
            outcome => outcome,
        }
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
