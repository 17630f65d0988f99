//! A file as memory. The one place of this crate with `unsafe`.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use memmap2::{Advice, Mmap, MmapOptions};

/// Bytes that are read at once where the kernel cannot be asked for a range.
const SCRATCH: usize = 64 << 10;
/// The size of a page. On machines with larger ones `mincore` refuses most ranges, and they are
/// brought in.
const PAGE: usize = 4096;

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

    /// Whether all of these pages are in memory, so that nobody has to wait for the disk. Where the
    /// kernel does not tell, they are not.
    pub(super) fn is_resident(&self, range: Range<usize>) -> bool {
        let Some((map, _)) = &self.parts else { return false };
        let start = range.start - range.start % PAGE;
        let length = range.end.min(map.len()).saturating_sub(start);
        let mut pages = vec![0_u8; length.div_ceil(PAGE)];
        // SAFETY: `start` is a multiple of the page's size, and `start + length` is within the
        // mapping, which lives as long as `self`. The kernel writes a byte for each page that the
        // range touches, which is as many as `pages` has.
        #[expect(unsafe_code, reason = "the two crates for mappings and files lack this call")]
        let told = unsafe {
            let address = map.as_ptr().add(start).cast_mut().cast();
            libc::mincore(address, length, pages.as_mut_ptr())
        };
        told == 0 && pages.iter().all(|page| page & 1 == 1)
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

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::Advice;

    #[test]
    fn what_was_brought_in_is_in_memory_and_what_was_dropped_is_not() {
        const LENGTH: usize = (1 << 20) + 5;
        let bytes = vec![7; LENGTH];
        let file = tempfile::tempfile_in(".").expect("a file");
        file.write_all_at(&bytes, 0).expect("written");
        file.sync_all().expect("synced");
        // Nobody has mapped it yet, so that the kernel can let go of it.
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).expect("advised");
        let mapping = Mapping::new(file, LENGTH as u64).expect("mapped");
        let ranges = [0..LENGTH, 0..1, 4095..4097, LENGTH - 1..LENGTH, 5000..900_000];
        assert!(!mapping.is_resident(0..LENGTH), "it was dropped");
        for range in ranges {
            mapping.load(range.clone()).expect("readable");
            assert!(mapping.is_resident(range.clone()), "{range:?}");
        }
        assert!(mapping.as_ref() == bytes);
    }
}
