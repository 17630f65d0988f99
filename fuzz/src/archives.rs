//! What archives and their records are made of.

use std::hash::Hasher;
use std::io::{self, Read};

use siphasher::sip::SipHasher13;
use snapedge::cache::Record;
use snapedge::check::{Flaw, FrameWalk, Unsound, decode};
use snapedge::snapshot::ArchiveName;

const FULL: &str = "snapshot-1000-426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY";
/// What the record of a cached archive begins with.
const FIRST_LINE: &str = "snapedge archive record 1\n";
/// Most bytes that a body of a few may decompress to here, so that no input takes long.
const MOST: u64 = 64 << 20;

fn archive(extension: &str) -> ArchiveName {
    format!("{FULL}.{extension}").parse().expect("a name")
}

/// A body that comes in pieces of this length.
struct Slowly<'a>(usize, &'a [u8]);

impl Read for Slowly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.0.min(buffer.len());
        self.1.read(&mut buffer[..length])
    }
}

fn walk<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(), Flaw> {
    let mut walk = FrameWalk::new();
    pieces.into_iter().try_for_each(|piece| walk.push(piece))?;
    walk.finish()
}

fn flaw(outcome: Result<(), Unsound>) -> Result<(), Flaw> {
    outcome.map_err(|unsound| match unsound {
        Unsound::Flaw(flaw) => flaw,
        other => panic!("nothing was to be read: {other}"),
    })
}

/// The frames of a body are the same in whichever pieces it comes; what the zstd library takes for
/// frames of today and decompresses is one, and nothing passes that is followed by something else.
/// The first byte is the length of the pieces.
pub fn frames(data: &[u8]) {
    let Some((length, body)) = super::pieces(data) else { return };
    let verdict = walk([body]);
    assert_eq!(walk(body.chunks(length)), verdict);
    if verdict.is_ok() {
        assert!(walk([body, b"\0"]).is_err(), "a byte too many");
        assert!(walk([&body[..body.len() - 1]]).is_err(), "a byte too few");
    } else if decompresses(body) {
        panic!("{verdict:?} of what can be decompressed");
    }
}

/// Whether the library takes all of it, where it begins as frames of today do.
fn decompresses(body: &[u8]) -> bool {
    const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    // The library knows formats of before as well, each behind a number of its own.
    let is_of_before = |at: &[u8]| at[1..] == MAGIC[1..] && at[0] != MAGIC[0];
    if !body.starts_with(&MAGIC) || body.windows(4).any(is_of_before) {
        return false;
    }
    let Ok(mut decoder) = zstd::Decoder::with_buffer(body) else { return false };
    if decoder.window_log_max(27).is_err() {
        return false;
    }
    let read = io::copy(&mut decoder.by_ref().take(MOST), &mut io::sink());
    read.is_ok_and(|length| length < MOST) && decoder.finish().is_empty()
}

/// The verdict on a tar file is the same in whichever pieces it comes, whether or not it is
/// compressed; and what passes is read to its end by the `tar` crate as well, but for what is in
/// maps of sparse files and in extended headers, which are not looked into. The first byte is the
/// length of the pieces.
pub fn tar_members(data: &[u8]) {
    let Some((length, tar)) = super::pieces(data) else { return };
    let plain = archive("tar");
    let verdict = flaw(decode(&plain, tar));
    assert_eq!(flaw(decode(&plain, Slowly(length, tar))), verdict);
    let body = zstd::encode_all(tar, 1).expect("a slice is read");
    assert_eq!(flaw(decode(&archive("tar.zst"), &body[..])), verdict, "compressed");
    if verdict.is_ok() && !has_maps(tar) {
        let mut archive = tar::Archive::new(tar);
        let entries = archive.entries().expect("a tar file");
        let paths = entries.map(|entry| entry.expect("a member").path_bytes().into_owned());
        assert!(paths.collect::<Vec<_>>().iter().any(|path| path.ends_with(b"version")));
    }
}

/// Whether a block could be the header of a sparse file (`S`) or an extended one (`x`).
fn has_maps(tar: &[u8]) -> bool {
    tar.chunks(512).any(|block| matches!(block.get(156), Some(b'S' | b'x' | b'g')))
}

/// A record is read as it was written, byte by byte, or not at all. The input is the lines between
/// the first one and the checksum, which is made here: no fuzzer finds one.
pub fn cache_record(data: &[u8]) {
    assert!(Record::decode(data).is_err_and(|error| !error.to_string().is_empty()) || is_own(data));
    let mut record = [FIRST_LINE.as_bytes(), data].concat();
    let mut hasher = SipHasher13::new();
    hasher.write(&record);
    record.extend_from_slice(format!("checksum: {:016x}\n", hasher.finish()).as_bytes());
    if Record::decode(&record).is_ok() {
        assert!(is_own(&record));
    }
}

/// Whether these are the bytes that the record in them is written as.
fn is_own(bytes: &[u8]) -> bool {
    Record::decode(bytes).is_ok_and(|record| record.encode() == bytes)
}
