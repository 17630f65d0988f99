//! Bodies that need neither a file nor memory: every byte follows from a seed and its position.

/// `len` bytes of a sequence, or of a recorded file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    pub seed: u64,
    pub len: u64,
    pub recorded: Option<&'static [u8]>,
}

impl Content {
    pub const fn new(seed: u64, len: u64) -> Self {
        Self { seed, len, recorded: None }
    }

    /// The bytes of a file that is part of the tests.
    pub const fn recorded(bytes: &'static [u8]) -> Self {
        Self { seed: 0, len: bytes.len() as u64, recorded: Some(bytes) }
    }

    /// Writes the bytes from `offset` on into `buffer`.
    pub fn fill(&self, offset: u64, buffer: &mut [u8]) {
        if let Some(bytes) = self.recorded {
            let start = offset as usize;
            return buffer.copy_from_slice(&bytes[start..start + buffer.len()]);
        }
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
