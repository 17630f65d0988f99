//! Bodies that need neither a file nor memory: every byte follows from a seed and its position.

/// `len` bytes of a sequence, or of a recorded file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    pub seed: u64,
    pub len: u64,
    pub recorded: Option<&'static [u8]>,
    /// Bytes of the zstd frame that these are the first `len` of.
    pub frame: Option<u64>,
    /// Where one byte is another one.
    pub odd: Option<u64>,
}

/// The start of a frame with a window of 128 KiB (RFC 8878, 3.1.1).
const FRAME: [u8; 6] = [0x28, 0xb5, 0x2f, 0xfd, 0, 0x38];
/// Most bytes of a block, and of its header.
const FRAME_BLOCK: u64 = 128 << 10;
const BLOCK_HEADER: u64 = 3;

impl Content {
    pub const fn new(seed: u64, len: u64) -> Self {
        Self { seed, len, recorded: None, frame: None, odd: None }
    }

    /// The bytes of a file that is part of the tests.
    pub const fn recorded(bytes: &'static [u8]) -> Self {
        Self { seed: 0, len: bytes.len() as u64, recorded: Some(bytes), frame: None, odd: None }
    }

    /// A zstd frame of `len` bytes, of raw blocks whose bytes are those of the sequence.
    pub const fn framed(seed: u64, len: u64) -> Self {
        let last = (len - FRAME.len() as u64) % (FRAME_BLOCK + BLOCK_HEADER);
        assert!(last == 0 || last >= BLOCK_HEADER, "no room for the header of the last block");
        Self { seed, len, recorded: None, frame: Some(len), odd: None }
    }

    /// Writes the bytes from `offset` on into `buffer`.
    pub fn fill(&self, offset: u64, buffer: &mut [u8]) {
        if let Some(bytes) = self.recorded {
            let start = offset as usize;
            return buffer.copy_from_slice(&bytes[start..start + buffer.len()]);
        }
        self.noise(offset, buffer);
        if let Some(total) = self.frame {
            headers(total, offset, buffer);
        }
        let odd = self.odd.and_then(|odd| odd.checked_sub(offset));
        if let Some(byte) = odd.and_then(|odd| buffer.get_mut(odd as usize)) {
            *byte = !*byte;
        }
    }

    fn noise(&self, offset: u64, buffer: &mut [u8]) {
        let mut word = offset / 8;
        let mut skip = (offset % 8) as usize;
        let mut rest = buffer;
        while !rest.is_empty() {
            let bytes = mix(self.seed.wrapping_mul(0x9e37_79b9).wrapping_add(word)).to_le_bytes();
            let count = (8 - skip).min(rest.len());
            let (head, tail) = rest.split_at_mut(count);
            head.copy_from_slice(&bytes[skip..skip + count]);
            rest = tail;
            word += 1;
            skip = 0;
        }
    }

    /// The bytes `start..end`.
    pub fn bytes(&self, start: u64, end: u64) -> Vec<u8> {
        let mut buffer = vec![0; (end - start) as usize];
        self.fill(start, &mut buffer);
        buffer
    }

    pub fn all(&self) -> Vec<u8> {
        self.bytes(0, self.len)
    }

    /// True when `bytes` are those at `offset`.
    pub fn matches(&self, offset: u64, bytes: &[u8]) -> bool {
        let mut expected = vec![0; bytes.len()];
        self.fill(offset, &mut expected);
        expected == bytes
    }
}

/// Puts the headers of a frame of `total` bytes over the bytes from `offset` on.
fn headers(total: u64, offset: u64, buffer: &mut [u8]) {
    let end = offset + buffer.len() as u64;
    let mut put = |at: u64, header: &[u8]| {
        for (position, byte) in (at..).zip(header) {
            if (offset..end).contains(&position) {
                buffer[(position - offset) as usize] = *byte;
            }
        }
    };
    put(0, &FRAME);
    let start = FRAME.len() as u64;
    let step = FRAME_BLOCK + BLOCK_HEADER;
    let mut at = start + offset.saturating_sub(start) / step * step;
    while at < end && at < total {
        let size = FRAME_BLOCK.min(total - at - BLOCK_HEADER);
        let last = u64::from(at + BLOCK_HEADER + size == total);
        put(at, &(size << 3 | last).to_le_bytes()[..3]);
        at += step;
    }
}

/// The finalizer of splitmix64.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[test]
fn content_is_the_same_however_it_is_cut() {
    let content = Content::new(7, 1000);
    let all = content.all();
    for (start, end) in [(0, 1), (1, 9), (7, 8), (8, 16), (3, 997), (999, 1000)] {
        assert_eq!(content.bytes(start, end), all[start as usize..end as usize]);
    }
    assert!(content.matches(500, &all[500..600]));
    assert!(!content.matches(501, &all[500..600]));
    assert_ne!(all, Content::new(8, 1000).all());
}

#[test]
fn framed_content_is_a_frame_however_it_is_cut() {
    for len in [9, 1000, 131_081, 131_084, 400_000] {
        let content = Content::framed(7, len);
        let all = content.all();
        let decoded = zstd::decode_all(&all[..]).expect("a frame");
        let blocks = (len - 6).div_ceil(FRAME_BLOCK + BLOCK_HEADER);
        assert_eq!(decoded.len() as u64, len - 6 - 3 * blocks);
        for (start, end) in [(0, 1), (5, 9), (3, len), (len - 1, len), (len / 2, len / 2 + 7)] {
            let end = end.min(len);
            assert!(content.bytes(start, end) == all[start as usize..end as usize]);
        }
    }
}
