//! The archive: a zstd frame of raw blocks, all of them alike, so that it takes no memory.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Its name.
pub(super) const NAME: &str =
    "snapshot-300000000-426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY.tar.zst";

/// The start of a frame with a window of 128 KiB (RFC 8878, 3.1.1).
const START: [u8; START_BYTES as usize] = [0x28, 0xb5, 0x2f, 0xfd, 0, 0x38];
const START_BYTES: u32 = 6;
/// What a block holds, which is as much as it may.
const CONTENT: u32 = 128 << 10;
/// A block with its header.
const BLOCK: u32 = 3 + CONTENT;

/// What an origin sends, and what clients compare.
pub(super) struct Archive {
    length: u32,
    block: Vec<u8>,
    /// The same with a header that ends the frame.
    last: Vec<u8>,
}

impl Archive {
    /// One with so many MiB in its blocks, at least 1 and less than 4095.
    pub(super) fn new(mib: u32) -> Self {
        let mut content = vec![0; CONTENT as usize];
        ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut content);
        let block = |last: u32| [&(CONTENT << 3 | last).to_le_bytes()[..3], &content].concat();
        let length = START_BYTES + mib * ((1 << 20) / CONTENT) * BLOCK;
        Self { length, block: block(0), last: block(1) }
    }

    /// Its bytes.
    pub(super) fn length(&self) -> u32 {
        self.length
    }

    /// What is at `at` and behind it, to the end of its block; nothing at the end.
    pub(super) fn piece(&self, at: u32) -> &[u8] {
        let Some(behind) = at.checked_sub(START_BYTES) else { return &START[at as usize..] };
        if at >= self.length {
            return &[];
        }
        let is_last = at >= self.length - BLOCK;
        let block = if is_last { &self.last } else { &self.block };
        &block[(behind % BLOCK) as usize..]
    }

    /// Where the archive goes on when it has these bytes at `at`.
    pub(super) fn compare(&self, mut at: u32, mut bytes: &[u8]) -> Option<u32> {
        while !bytes.is_empty() {
            let expected = self.piece(at);
            let count = expected.len().min(bytes.len());
            if count == 0 || expected[..count] != bytes[..count] {
                return None;
            }
            at += u32::try_from(count).ok()?;
            bytes = &bytes[count..];
        }
        Some(at)
    }
}
