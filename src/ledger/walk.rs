//! A look through the bytes of a file: the headers of zstd's frames and blocks, and not much more.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::check::{Flaw, FrameWalk};

/// Bytes that are read at once. What lies between two headers is passed over where it is more.
const PIECE: usize = 64 << 10;

/// Follows the frames of a file of `length` bytes to its end. Waits for the disk.
pub(super) fn walk(file: &File, length: u64) -> io::Result<Result<(), Flaw>> {
    let (mut walk, mut piece, mut at) = (FrameWalk::new(), vec![0; PIECE], 0);
    while at < length {
        let left = usize::try_from(length - at).unwrap_or(usize::MAX);
        let bytes = &mut piece[..PIECE.min(left)];
        file.read_exact_at(bytes, at)?;
        at += bytes.len() as u64;
        if let Err(flaw) = walk.push(bytes) {
            return Ok(Err(flaw));
        }
        at += walk.leap(length - at);
    }
    Ok(walk.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// Blocks of these lengths in one frame.
    fn frame(blocks: &[usize]) -> Vec<u8> {
        // A window of 128 KiB.
        let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x38];
        for (number, length) in blocks.iter().enumerate() {
            let last = usize::from(number + 1 == blocks.len());
            let header = u32::try_from(length << 3 | last).expect("small").to_le_bytes();
            bytes.extend_from_slice(&header[..3]);
            bytes.resize(bytes.len() + length, 0xaa);
        }
        bytes
    }

    fn of(bytes: &[u8]) -> io::Result<Result<(), Flaw>> {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("written");
        walk(&file, bytes.len() as u64)
    }

    #[test]
    fn a_file_is_whole_or_it_is_said_where_it_is_not() {
        for blocks in [&[5][..], &[128 << 10; 9], &[1, 70_000, 2, 128 << 10, 3], &[65_536; 4]] {
            let whole = frame(blocks);
            assert_eq!(of(&whole).expect("readable"), Ok(()), "{blocks:?}");
            for end in [whole.len() - 1, whole.len() / 2 + 5] {
                let found = of(&whole[..end]).expect("readable");
                assert!(found.is_err(), "{blocks:?} up to {end}: {found:?}");
            }
            let more = [&whole[..], &[0; 100]].concat();
            let at = whole.len() as u64;
            assert_eq!(of(&more).expect("readable"), Err(Flaw::NotAFrame { at }), "{blocks:?}");
        }
        // Zeros where a downloader has not been yet.
        let mut holed = frame(&[128 << 10; 9]);
        holed[400_000..900_000].fill(0);
        assert!(of(&holed).expect("readable").is_err());
        assert_eq!(of(&[]).expect("readable"), Err(Flaw::NoFrame));
        assert_eq!(of(b"<html>").expect("readable"), Err(Flaw::NotAFrame { at: 0 }));
    }

    #[test]
    fn a_file_that_is_shorter_by_now_is_an_error_of_reading() {
        let file = tempfile::tempfile().expect("a file");
        assert!(walk(&file, 10).is_err());
    }
}
