//! An archive decompressed, for nothing but to see whether that can be done.
//!
//! Every client does the same with what it gets, and some of them notice late: what is found here
//! is not found by thousands of them.

use std::io::{self, ErrorKind, Read};

use super::frames::WINDOW_LOG_MAX;
use super::members::MemberWalk;
use super::{Flaw, FrameWalk};
use crate::snapshot::{ArchiveName, Compression};

/// Bytes that are decompressed at once: what the decoder has after each block.
const PIECE: usize = 128 << 10;

/// How much an archive may decompress to, so that a body cannot keep a thread busy for days: a
/// block of 4 bytes can stand for 128 KiB.
///
/// Archives have the ratio of accounts, from 3 to 8. Those of nodes that wrote account files of
/// 4 MiB with hardly anything in them can have one of thousands, but only as long as the node has
/// hardly any accounts; then there are few files. So there is an amount that is always free, which
/// takes seconds, and above it a ratio that nothing comes near that is full of accounts.
const BOUND: Bound = Bound { free: 16 << 30, per_byte: 256 };

#[derive(Clone, Copy, Debug)]
struct Bound {
    /// Bytes that any body may decompress to.
    free: u64,
    /// Bytes that are added by each byte of the body.
    per_byte: u64,
}

/// Why a body does not pass.
#[derive(Debug, thiserror::Error)]
pub enum Unsound {
    /// The bytes are not a whole archive.
    #[error(transparent)]
    Flaw(#[from] Flaw),
    /// The reader that the bytes came from failed, and nothing is known of them.
    #[error("cannot read the archive")]
    Reader(#[source] io::Error),
    /// The decoder could not be set up, and nothing is known of the bytes.
    #[error("cannot set the zstd decoder up")]
    Decoder(#[source] io::Error),
}

/// Whether [`decode`] does anything for an archive of this name. Nodes of today write zstd only.
pub const fn looks_inside(name: &ArchiveName) -> bool {
    matches!(name.compression(), Compression::Zstd | Compression::None)
}

/// Reads a body to its end, decompresses it, and follows the tar file in it to the end of that.
/// Blocks. An archive that [`looks_inside`] is false for passes unread.
///
/// It takes memory for the window that the body demands, at most 128 MiB, whatever is in it.
pub fn decode(name: &ArchiveName, body: impl Read) -> Result<(), Unsound> {
    decode_within(name, body, BOUND)
}

fn decode_within(name: &ArchiveName, body: impl Read, bound: Bound) -> Result<(), Unsound> {
    let members = MemberWalk::new(name);
    match name.compression() {
        Compression::Zstd => {
            let mut body = Body { reader: body, walk: FrameWalk::new(), read: 0, stopped: None };
            let outcome = follow_zstd(members, &mut body, bound);
            // What stopped the body is the cause of whatever the decoder says about it.
            body.stopped.map_or(outcome, Err)
        }
        Compression::None => follow_plain(members, body),
        _ => Ok(()),
    }
}

fn follow_plain(mut members: MemberWalk, mut body: impl Read) -> Result<(), Unsound> {
    let mut piece = vec![0; PIECE];
    loop {
        match read(&mut body, &mut piece).map_err(Unsound::Reader)? {
            0 => return Ok(members.finish()?),
            length => members.push(&piece[..length])?,
        }
    }
}

fn follow_zstd(
    mut members: MemberWalk,
    body: &mut Body<impl Read>,
    bound: Bound,
) -> Result<(), Unsound> {
    let mut decoder = zstd::Decoder::new(body).map_err(Unsound::Decoder)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(Unsound::Decoder)?;
    let mut piece = vec![0; PIECE];
    let mut total = 0;
    loop {
        let length = decoder.read(&mut piece);
        let buffer = decoder.get_ref();
        let read = buffer.get_ref().read;
        let Ok(length) = length else {
            return Err(Flaw::Garbled { at: read - buffer.buffer().len() as u64 }.into());
        };
        if length == 0 {
            return Ok(members.finish()?);
        }
        total += length as u64;
        if total > bound.free.saturating_add(bound.per_byte.saturating_mul(read)) {
            return Err(Flaw::Inflated { at: read }.into());
        }
        members.push(&piece[..length])?;
    }
}

/// A body on its way to the decoder, which makes one error of everything that goes wrong.
struct Body<R> {
    reader: R,
    /// Says exactly what the decoder says in general, and knows only the format of today.
    walk: FrameWalk,
    /// Bytes.
    read: u64,
    /// Why it does not go on.
    stopped: Option<Unsound>,
}

impl<R: Read> Body<R> {
    fn next(&mut self, buffer: &mut [u8]) -> Result<usize, Unsound> {
        let length = read(&mut self.reader, buffer).map_err(Unsound::Reader)?;
        self.walk.push(&buffer[..length])?;
        if length == 0 {
            self.walk.finish()?;
        }
        self.read += length as u64;
        Ok(length)
    }
}

impl<R: Read> Read for Body<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.next(buffer).map_err(|why| {
            self.stopped = Some(why);
            ErrorKind::Other.into()
        })
    }
}

/// Reads once, or again where that was interrupted: the decoder would give up.
fn read(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY";
    /// Written by a node.
    const BODY: &[u8] = include_bytes!(
        "../../tests/data/agave/\
         snapshot-1000-426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY.tar.zst"
    );

    fn named(extension: &str) -> ArchiveName {
        format!("snapshot-1000-{HASH}.{extension}").parse().unwrap()
    }

    fn tar() -> Vec<u8> {
        zstd::decode_all(BODY).unwrap()
    }

    fn flaw(outcome: Result<(), Unsound>) -> Result<(), Flaw> {
        outcome.map_err(|why| match why {
            Unsound::Flaw(flaw) => flaw,
            why => panic!("not a flaw: {why:?}"),
        })
    }

    /// Bytes in small pieces with interruptions, and then this.
    struct Faulty<'a> {
        bytes: &'a [u8],
        interrupted: bool,
        end: Option<ErrorKind>,
    }

    impl Read for Faulty<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.interrupted = !self.interrupted;
            if self.interrupted {
                return Err(ErrorKind::Interrupted.into());
            }
            let length = buffer.len().min(1000);
            match (self.bytes.read(&mut buffer[..length])?, self.end) {
                (0, Some(kind)) => Err(kind.into()),
                (read, _) => Ok(read),
            }
        }
    }

    fn faulty(bytes: &[u8], end: Option<ErrorKind>) -> Faulty<'_> {
        Faulty { bytes, interrupted: false, end }
    }

    #[test]
    fn an_error_of_the_reader_is_no_flaw() {
        let tar = tar();
        for (extension, bytes) in [("tar.zst", BODY), ("tar", &tar[..])] {
            let name = named(extension);
            decode(&name, faulty(bytes, None)).expect("whole, whatever the pieces");
            for end in [0, 3, 20, 600, bytes.len() / 2, bytes.len() - 1, bytes.len()] {
                let kinds = [ErrorKind::TimedOut, ErrorKind::UnexpectedEof, ErrorKind::Other];
                for kind in kinds {
                    match decode(&name, faulty(&bytes[..end], Some(kind))) {
                        Err(Unsound::Reader(error)) => assert_eq!(error.kind(), kind),
                        outcome => panic!("{extension} up to {end}: {outcome:?}"),
                    }
                }
            }
        }
    }

    #[test]
    fn a_flaw_before_an_error_of_the_reader_is_a_flaw() {
        let bytes = [&[0; 2000], BODY].concat();
        let outcome = decode(&named("tar.zst"), faulty(&bytes, Some(ErrorKind::TimedOut)));
        assert_eq!(flaw(outcome), Err(Flaw::NotAFrame { at: 0 }));
    }

    #[test]
    fn windows_are_no_larger_than_clients_take() {
        let check = |log: u32, expected| {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
            encoder.long_distance_matching(true).unwrap();
            encoder.window_log(log).unwrap();
            io::copy(&mut &tar()[..], &mut encoder).unwrap();
            let body = encoder.finish().unwrap();
            assert_eq!(flaw(decode(&named("tar.zst"), &body[..])), expected);
        };
        check(27, Ok(()));
        check(28, Err(Flaw::Window { at: 5 }));
    }

    #[test]
    fn what_inflates_too_much_is_refused_in_time() {
        let within = |free, per_byte| Bound { free, per_byte };
        let real = |bound| flaw(decode_within(&named("tar.zst"), BODY, bound));
        assert_eq!(real(within(0, 6)), Ok(()), "accounts do not compress more than this");
        assert!(matches!(real(within(0, 1)), Err(Flaw::Inflated { .. })));

        // An account file of 64 MiB of zeros, in a body of a few KiB.
        let mut header = tar::Header::new_gnu();
        header.set_path("accounts/1000.1").unwrap();
        header.set_size(64 << 20);
        header.set_cksum();
        let mut tar = tar();
        tar.truncate(tar.len() - 1024);
        tar.extend_from_slice(header.as_bytes());
        tar.resize(tar.len() + (64 << 20) + 1024, 0);
        let body = zstd::encode_all(&tar[..], 1).unwrap();
        let zeros = |bound| flaw(decode_within(&named("tar.zst"), &body[..], bound));
        assert_eq!(zeros(within(64 << 20, 6)), Ok(()));
        assert_eq!(zeros(BOUND), Ok(()));
        assert_eq!(zeros(within(u64::MAX, u64::MAX)), Ok(()));
        let at = body.len() as u64;
        assert_eq!(zeros(within(32 << 20, 6)), Err(Flaw::Inflated { at }));
        // There is nothing to inflate in what is not compressed.
        let nothing = within(0, 0);
        assert_eq!(flaw(decode_within(&named("tar"), &tar[..], nothing)), Ok(()));
    }
}
