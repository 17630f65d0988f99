//! The frames and blocks of zstd (RFC 8878), followed by their headers alone.
//!
//! ```text
//! frame:      magic number 4 | descriptor 1 | window 0..1, dictionary 0..4, content size 0..8
//!             | block, .. | checksum 0 or 4
//! block:      header 3 | content
//! skippable:  magic number 4 | length 4 | content
//! ```
//!
//! A header says how long its content is, so that all of a body's shape is known without a look at
//! the content. What is in the blocks, and whether the checksum fits them, is for `decode`.

use super::Flaw;
use super::pieces::{Header, Pieces};

const MAGIC: u32 = 0xfd2f_b528;
/// The magic number of a skippable frame, whose last four bits are free.
const SKIPPABLE: u32 = 0x184d_2a50;
/// No block is larger, whatever the window.
const LARGEST_BLOCK: u64 = 128 << 10;
/// The binary logarithm of the largest window, in bytes, that decoders take unless they are told
/// otherwise. Those of validators are not.
pub(super) const WINDOW_LOG_MAX: u32 = 27;
/// What follows the descriptor, at its longest.
const LONGEST_HEADER: usize = 1 + 4 + 8;
/// Bytes of the checksum after the last block.
const CHECKSUM: u64 = 4;

/// Follows a body as it passes, and tells whether it is whole frames and nothing but.
///
/// It allocates nothing, and does nothing for content but to count it.
#[derive(Clone, Debug)]
pub struct FrameWalk {
    pieces: Pieces<LONGEST_HEADER>,
    next: Field,
    /// Whether there was a frame that is not skipped.
    data: bool,
    /// The first flaw. There is no way on after one.
    flaw: Option<Flaw>,
}

/// What is read next.
#[derive(Clone, Copy, Debug)]
enum Field {
    Magic,
    SkippableLength,
    Descriptor,
    /// The rest of a frame's header.
    Demands(Descriptor),
    BlockHeader(Frame),
}

/// What the descriptor says of the frame and of its own header.
#[derive(Clone, Copy, Debug)]
struct Descriptor(u8);

/// What a block's header is measured against.
#[derive(Clone, Copy, Debug)]
struct Frame {
    /// Bytes.
    largest_block: u64,
    /// Bytes after the last block.
    checksum: u64,
}

impl Default for FrameWalk {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameWalk {
    /// A walk at the first byte of a body.
    pub const fn new() -> Self {
        Self { pieces: Pieces::new(), next: Field::Magic, data: false, flaw: None }
    }

    /// The next bytes of the body, in pieces as they come. An error is final.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), Flaw> {
        if let Some(flaw) = self.flaw {
            return Err(flaw);
        }
        while let Some(header) = self.pieces.header(&mut bytes, self.next.length()) {
            match self.step(&header) {
                Ok(next) => self.next = next,
                Err(flaw) => {
                    self.flaw = Some(flaw);
                    return Err(flaw);
                }
            }
        }
        Ok(())
    }

    /// Lets content pass that need not be looked at, at most so many bytes, and tells how many: the
    /// body goes on behind them.
    pub fn leap(&mut self, most: u64) -> u64 {
        self.pieces.leap(most)
    }

    /// The body ends here.
    pub fn finish(&self) -> Result<(), Flaw> {
        if let Some(flaw) = self.flaw {
            return Err(flaw);
        }
        let at = self.pieces.end();
        match (self.next, self.pieces.gathered()) {
            (Field::Magic, Some(0)) if self.data => Ok(()),
            (Field::Magic, Some(0)) => Err(Flaw::NoFrame),
            // Too short for a frame of any kind.
            (Field::Magic, Some(begun)) => Err(Flaw::NotAFrame { at: at - begun as u64 }),
            _ => Err(Flaw::CutShort { at }),
        }
    }

    /// Reads a field and tells which one comes after it.
    fn step(&mut self, header: &Header<LONGEST_HEADER>) -> Result<Field, Flaw> {
        let at = header.at;
        let [a, b, c, d, ..] = header.bytes;
        match self.next {
            Field::Magic => match u32::from_le_bytes([a, b, c, d]) {
                MAGIC => {
                    self.data = true;
                    Ok(Field::Descriptor)
                }
                magic if magic & !0xf == SKIPPABLE => Ok(Field::SkippableLength),
                _ => Err(Flaw::NotAFrame { at }),
            },
            Field::SkippableLength => {
                self.pieces.skip(u32::from_le_bytes([a, b, c, d]).into());
                Ok(Field::Magic)
            }
            Field::Descriptor if Descriptor(a).reserved() => Err(Flaw::ReservedBit { at }),
            Field::Descriptor => Ok(Field::Demands(Descriptor(a))),
            Field::Demands(descriptor) => {
                Ok(Field::BlockHeader(descriptor.frame(&header.bytes, at)?))
            }
            Field::BlockHeader(frame) => self.block(frame, u32::from_le_bytes([a, b, c, 0]), at),
        }
    }

    fn block(&mut self, frame: Frame, header: u32, at: u64) -> Result<Field, Flaw> {
        let (last, kind, size) = (header & 1 == 1, header >> 1 & 3, u64::from(header >> 3));
        if kind == 3 {
            return Err(Flaw::ReservedBlock { at });
        }
        if size > frame.largest_block {
            return Err(Flaw::LargeBlock { at });
        }
        // One byte that is repeated, or as many as there are.
        let content = if kind == 1 { 1 } else { size };
        if last {
            self.pieces.skip(content + frame.checksum);
            return Ok(Field::Magic);
        }
        self.pieces.skip(content);
        Ok(Field::BlockHeader(frame))
    }
}

impl Field {
    const fn length(self) -> usize {
        match self {
            Self::Magic | Self::SkippableLength => 4,
            Self::Descriptor => 1,
            Self::Demands(descriptor) => {
                descriptor.window() + descriptor.dictionary() + descriptor.content_size()
            }
            Self::BlockHeader(_) => 3,
        }
    }
}

impl Descriptor {
    const fn reserved(self) -> bool {
        self.0 & 0x08 != 0
    }

    const fn single_segment(self) -> bool {
        self.0 & 0x20 != 0
    }

    /// Bytes of the window's size: without them the window is the content.
    const fn window(self) -> usize {
        if self.single_segment() { 0 } else { 1 }
    }

    /// Bytes of the dictionary's identifier.
    const fn dictionary(self) -> usize {
        [0, 1, 2, 4][(self.0 & 3) as usize]
    }

    /// Bytes of the content's size.
    const fn content_size(self) -> usize {
        match self.0 >> 6 {
            0 if self.single_segment() => 1,
            0 => 0,
            1 => 2,
            2 => 4,
            _ => 8,
        }
    }

    const fn checksum(self) -> u64 {
        if self.0 & 0x04 == 0 { 0 } else { CHECKSUM }
    }

    /// What is measured against the rest of the frame's header.
    fn frame(self, demands: &[u8], at: u64) -> Result<Frame, Flaw> {
        let (window, rest) = demands.split_at(self.window());
        let (dictionary, rest) = rest.split_at(self.dictionary());
        // Zero says that there is no dictionary, or that the reader knows which.
        if dictionary.iter().any(|byte| *byte != 0) {
            return Err(Flaw::Dictionary { at });
        }
        let window = match window {
            [] => content_size(&rest[..self.content_size()]),
            [byte, ..] => window_size(*byte),
        };
        if window > 1 << WINDOW_LOG_MAX {
            return Err(Flaw::Window { at });
        }
        Ok(Frame { largest_block: window.min(LARGEST_BLOCK), checksum: self.checksum() })
    }
}

fn window_size(byte: u8) -> u64 {
    let base = 1 << (10 + (byte >> 3));
    base + base / 8 * u64::from(byte & 7)
}

fn content_size(field: &[u8]) -> u64 {
    let value = field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
    // What would fit one byte is not written in two.
    if field.len() == 2 { value + 256 } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Neither single segment nor anything else; a window of 1 KiB.
    const HEADER: [u8; 6] = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x00];
    const RAW: u32 = 0;
    const REPEATED: u32 = 1;
    const COMPRESSED: u32 = 2;
    const RESERVED: u32 = 3;

    /// A frame's header after the magic number.
    fn header(rest: &[u8]) -> Vec<u8> {
        [&HEADER[..4], rest].concat()
    }

    /// A block that is not the last one.
    fn block(kind: u32, size: u32, content: usize) -> Vec<u8> {
        let header = (size << 3 | kind << 1).to_le_bytes();
        [&header[..3], &vec![0xaa; content]].concat()
    }

    fn last(kind: u32, size: u32, content: usize) -> Vec<u8> {
        let mut block = block(kind, size, content);
        block[0] |= 1;
        block
    }

    fn frame() -> Vec<u8> {
        [&HEADER[..], &last(RAW, 5, 5)].concat()
    }

    fn skippable(last_bits: u8, length: usize) -> Vec<u8> {
        let size = u32::try_from(length).unwrap().to_le_bytes();
        [&[0x50 | last_bits, 0x2a, 0x4d, 0x18], &size[..], &vec![0; length]].concat()
    }

    fn walk(body: &[u8], piece: usize) -> Result<(), Flaw> {
        let mut walk = FrameWalk::new();
        body.chunks(piece).try_for_each(|piece| walk.push(piece))?;
        walk.finish()
    }

    #[track_caller]
    fn check(parts: &[&[u8]], expected: Result<(), Flaw>) {
        let body = parts.concat();
        assert_eq!(walk(&body, body.len().max(1)), expected, "in one piece");
        for piece in [1, 2, 3, 5, 7] {
            assert_eq!(walk(&body, piece), expected, "in pieces of {piece}");
        }
        if expected.is_err() {
            return;
        }
        let found = [
            walk(&[&body[..], &[0]].concat(), 3),
            walk(&[&body[..], &[0; 100]].concat(), 3),
            walk(&[&body[..], b"<html>"].concat(), 3),
        ];
        assert!(found.iter().all(Result::is_err), "with something after it: {found:?}");
    }

    /// A frame of one block, with this header after the magic number.
    #[track_caller]
    fn check_header(rest: &[u8], size: u32, expected: Result<(), Flaw>) {
        let checksum: &[u8] = if rest[0] & 4 == 0 { &[] } else { &[1, 2, 3, 4] };
        check(&[&header(rest), &last(RAW, size, size as usize), checksum], expected);
    }

    #[test]
    fn headers_of_every_shape() {
        // No content size, and every size of the dictionary's identifier, which says none.
        check_header(&[0x00, 0], 1024, Ok(()));
        check_header(&[0x01, 0, 0], 1024, Ok(()));
        check_header(&[0x02, 0, 0, 0], 1024, Ok(()));
        check_header(&[0x03, 0, 0, 0, 0, 0], 1024, Ok(()));
        // Content sizes of 2, 4 and 8 bytes beside a window, with a checksum and with an
        // identifier.
        check_header(&[0x40, 0, 9, 9], 1024, Ok(()));
        check_header(&[0x84, 0, 9, 9, 9, 9], 1024, Ok(()));
        check_header(&[0xc7, 0, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9], 1024, Ok(()));
        // The bit that nobody uses.
        check_header(&[0x10, 0], 1024, Ok(()));
        // In one segment: the content's size in 1, 2, 4 and 8 bytes, and no window.
        check_header(&[0x20, 0], 0, Ok(()));
        check_header(&[0x20, 255], 255, Ok(()));
        check_header(&[0x61, 0, 1, 0], 257, Ok(()));
        check_header(&[0xa0, 0, 4, 0, 0], 1024, Ok(()));
        check_header(&[0xe4, 0, 4, 0, 0, 0, 0, 0, 0], 1024, Ok(()));
    }

    #[test]
    fn headers_that_nobody_can_read() {
        check_header(&[0x08, 0], 5, Err(Flaw::ReservedBit { at: 4 }));
        check_header(&[0x01, 0, 1], 5, Err(Flaw::Dictionary { at: 5 }));
        check_header(&[0x22, 0, 1, 9], 5, Err(Flaw::Dictionary { at: 5 }));
        check_header(&[0x03, 0, 0, 0, 0, 1], 5, Err(Flaw::Dictionary { at: 5 }));
        // 128 MiB, an eighth more, and what is there at most.
        check_header(&[0x00, 17 << 3], 5, Ok(()));
        check_header(&[0x00, 17 << 3 | 1], 5, Err(Flaw::Window { at: 5 }));
        check_header(&[0x00, 255], 5, Err(Flaw::Window { at: 5 }));
        check_header(&[0xa0, 0, 0, 0, 8], 5, Ok(()));
        check_header(&[0xa0, 1, 0, 0, 8], 5, Err(Flaw::Window { at: 5 }));
        check_header(&[0xe0, 255, 255, 255, 255, 255, 255, 255, 255], 5, {
            Err(Flaw::Window { at: 5 })
        });
        // Formats before the first one that is still written, and its dictionaries.
        for magic in [[0x27, 0xb5, 0x2f, 0xfd], [0x1e, 0xb5, 0x2f, 0xfd], [0x37, 0xa4, 0x30, 0xec]]
        {
            check(&[&magic, &frame()[4..]], Err(Flaw::NotAFrame { at: 0 }));
        }
    }

    #[test]
    fn blocks_are_no_larger_than_their_frame_allows() {
        let large = Err(Flaw::LargeBlock { at: 6 });
        // The window, with its eighths: 1024 + 7 * 128.
        for kind in [RAW, REPEATED, COMPRESSED] {
            let block = |size| last(kind, size, if kind == REPEATED { 1 } else { size as usize });
            check(&[&HEADER, &block(1024)], Ok(()));
            check(&[&HEADER, &block(1025)], large);
            check(&[&header(&[0x00, 7]), &block(1920)], Ok(()));
            check(&[&header(&[0x00, 7]), &block(1921)], large);
            // One segment: its content.
            check(&[&header(&[0x20, 9]), &block(9)], Ok(()));
            check(&[&header(&[0x20, 9]), &block(10)], large);
            // 128 KiB in any case.
            check(&[&header(&[0x00, 17 << 3]), &block(128 << 10)], Ok(()));
            check(&[&header(&[0x00, 17 << 3]), &block((128 << 10) + 1)], large);
        }
    }

    #[test]
    fn blocks_of_every_kind_follow_each_other() {
        let blocks = [block(RAW, 7, 7), block(REPEATED, 1000, 1), block(COMPRESSED, 300, 300)];
        let blocks = blocks.concat();
        let nothing = [block(RAW, 0, 0), block(COMPRESSED, 0, 0)].concat();
        check(&[&HEADER, &blocks, &last(RAW, 3, 3)], Ok(()));
        check(&[&HEADER, &blocks, &last(REPEATED, 1024, 1)], Ok(()));
        check(&[&HEADER, &nothing, &blocks, &nothing, &last(COMPRESSED, 2, 2)], Ok(()));
        let at = (HEADER.len() + blocks.len()) as u64;
        let reserved = Err(Flaw::ReservedBlock { at });
        check(&[&HEADER, &blocks, &last(RESERVED, 3, 3)], reserved);
        check(&[&HEADER, &blocks, &block(RESERVED, 0, 0)], reserved);
    }

    #[test]
    fn frames_follow_each_other() {
        let with_checksum = [&header(&[0x04, 0]), &last(RAW, 5, 5)[..], &[1, 2, 3, 4]].concat();
        check(&[&frame(), &frame()], Ok(()));
        check(&[&with_checksum, &frame(), &with_checksum], Ok(()));
        check(&[&frame(), &frame()[..3]], Err(Flaw::NotAFrame { at: 14 }));
        check(&[&frame(), &[0]], Err(Flaw::NotAFrame { at: 14 }));
        check(&[&frame(), &[0; 4]], Err(Flaw::NotAFrame { at: 14 }));
        check(&[&with_checksum, &[0; 100]], Err(Flaw::NotAFrame { at: 18 }));
        // Not after a checksum that is not there.
        check(&[&with_checksum[..14], &frame()], Err(Flaw::NotAFrame { at: 18 }));
        check(&[&with_checksum, &[0; 4], &frame()], Err(Flaw::NotAFrame { at: 18 }));
    }

    #[test]
    fn skippable_frames_are_no_data() {
        for bits in 0..16 {
            check(&[&skippable(bits, 9), &frame()], Ok(()));
        }
        check(&[&frame(), &skippable(0, 0), &skippable(15, 300), &frame(), &skippable(7, 1)], {
            Ok(())
        });
        check(&[&[0x60, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]], Err(Flaw::NotAFrame { at: 0 }));
        check(&[&[0x4f, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]], Err(Flaw::NotAFrame { at: 0 }));
        check(&[&frame(), &skippable(0, 9)[..16]], Err(Flaw::CutShort { at: 30 }));
        // As long as it gets.
        check(&[&frame(), &[0x50, 0x2a, 0x4d, 0x18], &[255; 4]], Err(Flaw::CutShort { at: 22 }));
        let alone = walk(&[skippable(0, 9), skippable(1, 0)].concat(), 3);
        assert_eq!(alone, Err(Flaw::NoFrame));
        assert_eq!(walk(&[], 1), Err(Flaw::NoFrame));
    }

    #[test]
    fn a_body_that_is_cut_ends_too_early_wherever_that_is() {
        let whole = [
            &header(&[0x47, 0, 0, 0, 0, 0, 9, 9])[..],
            &block(RAW, 7, 7),
            &block(REPEATED, 1000, 1),
            &last(COMPRESSED, 6, 6),
            &[1, 2, 3, 4],
        ];
        let whole = whole.concat();
        check(&[&whole], Ok(()));
        for end in 4..whole.len() {
            check(&[&whole[..end]], Err(Flaw::CutShort { at: end as u64 }));
        }
        for end in 1..4 {
            assert_eq!(walk(&whole[..end], 1), Err(Flaw::NotAFrame { at: 0 }));
        }
    }

    #[test]
    fn an_error_is_final() {
        let mut walk = FrameWalk::default();
        let flaw = Err(Flaw::NotAFrame { at: 14 });
        assert_eq!(walk.push(&[&frame()[..], b"oops"].concat()), flaw);
        assert_eq!(walk.push(&frame()), flaw);
        assert_eq!(walk.push(&[]), flaw);
        assert_eq!(walk.finish(), flaw);
    }
}
