//! A stream that comes in pieces of any size, as headers to look at and content to pass over.

/// Where a stream is, and what was gathered of its next header, which has at most `N` bytes.
#[derive(Clone, Debug)]
pub(super) struct Pieces<const N: usize> {
    /// Bytes that have passed.
    passed: u64,
    /// Bytes of content before the next header.
    content: u64,
    header: [u8; N],
    gathered: usize,
}

/// A header that is complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header<const N: usize> {
    /// Bytes of the stream before it.
    pub(super) at: u64,
    /// The header, and zeros after it.
    pub(super) bytes: [u8; N],
}

impl<const N: usize> Pieces<N> {
    pub(super) const fn new() -> Self {
        Self { passed: 0, content: 0, header: [0; N], gathered: 0 }
    }

    /// Bytes of the stream so far.
    pub(super) const fn end(&self) -> u64 {
        self.passed
    }

    /// Bytes that are there of the next header, none where its place is not reached.
    pub(super) const fn gathered(&self) -> Option<usize> {
        if self.content == 0 { Some(self.gathered) } else { None }
    }

    /// Lets content pass that nobody reads, at most so many bytes, and tells how many.
    pub(super) fn leap(&mut self, most: u64) -> u64 {
        let content = self.content.min(most);
        self.content -= content;
        self.passed += content;
        content
    }

    /// What comes next is content of so many bytes.
    pub(super) const fn skip(&mut self, content: u64) {
        self.content = content;
    }

    /// Lets a piece pass that has no header in it.
    pub(super) const fn pass(&mut self, piece: &[u8]) {
        self.passed += piece.len() as u64;
    }

    /// The next header, which has `length` bytes, once they are there. Takes what it needs from the
    /// front of `piece`, and all of it where that is not enough.
    pub(super) fn header(&mut self, piece: &mut &[u8], length: usize) -> Option<Header<N>> {
        let content = usize::try_from(self.content).unwrap_or(usize::MAX).min(piece.len());
        self.content -= content as u64;
        self.passed += content as u64;
        *piece = &piece[content..];
        let missing = (length - self.gathered).min(piece.len());
        let (taken, rest) = piece.split_at(missing);
        self.header[self.gathered..self.gathered + missing].copy_from_slice(taken);
        self.gathered += missing;
        self.passed += missing as u64;
        *piece = rest;
        if self.gathered < length {
            return None;
        }
        self.gathered = 0;
        let bytes = std::mem::replace(&mut self.header, [0; N]);
        Some(Header { at: self.passed - length as u64, bytes })
    }
}
