//! What each of the checks finds, with archives as nodes write them, real and made here, and with
//! what has happened to such archives.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use tar::EntryType;

use super::{Flaw, FrameWalk, Member, Unsound, decode, looks_inside};
use crate::snapshot::{ArchiveName, Compression};

const HASH: &str = "426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY";
const SLOT: u64 = 1000;
/// Bytes of an account file: a few blocks of zstd.
const ACCOUNTS: usize = 300_000;

fn named(extension: &str) -> ArchiveName {
    format!("snapshot-{SLOT}-{HASH}.{extension}").parse().expect("valid")
}

/// Bytes that nothing compresses.
fn noise(length: usize) -> Vec<u8> {
    let byte = |at: u64| at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    (1..).map(|at: u64| byte(at.wrapping_mul(at) ^ at >> 3)[1]).take(length).collect()
}

/// Bytes that compress well, and are not the same twice.
fn text(length: usize) -> Vec<u8> {
    (0..).flat_map(|line| format!("account {line}, lamports\n").into_bytes()).take(length).collect()
}

/// A tar file, without the mark of its end.
fn members(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        let directory = path.ends_with('/');
        header.set_entry_type(if directory { EntryType::Directory } else { EntryType::Regular });
        header.set_path(path).expect("a short path");
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.extend_from_slice(header.as_bytes());
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar
}

/// The tar file in the archive of [`SLOT`], with noise and text as accounts, without the mark.
fn archive() -> Vec<u8> {
    members(&[
        ("version", b"1.2.0"),
        ("snapshots/", b""),
        ("snapshots/status_cache", &text(2000)),
        ("snapshots/1000/", b""),
        ("snapshots/1000/1000", &text(5000)),
        ("accounts/1000.1", &noise(ACCOUNTS)),
        ("accounts/999.2", &text(ACCOUNTS)),
        ("accounts/998.3", &noise(5000)),
    ])
}

fn ended(mut tar: Vec<u8>) -> Vec<u8> {
    tar.extend_from_slice(&[0; 1024]);
    tar
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checksum {
    /// As nodes write it.
    Absent,
    Present,
}

fn compressed(tar: &[u8], checksum: Checksum) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
    encoder.include_checksum(checksum == Checksum::Present).expect("an encoder");
    encoder.write_all(tar).expect("a vector takes everything");
    encoder.finish().expect("a vector takes everything")
}

/// A whole archive as a body.
fn whole(checksum: Checksum) -> Vec<u8> {
    compressed(&ended(archive()), checksum)
}

/// A block in a body.
#[derive(Clone, Copy, Debug)]
struct Block {
    /// Where its header is.
    at: usize,
    /// 0 as it is, 1 repeated, 2 compressed.
    kind: u32,
    /// Bytes after its header.
    content: usize,
}

/// The blocks of a body that is right, found in the plainest way, for frames without a skippable
/// one among them.
fn blocks(body: &[u8]) -> Vec<Block> {
    let (mut blocks, mut at) = (Vec::new(), 0);
    while at < body.len() {
        let descriptor = body[at + 4];
        let single = usize::from(descriptor >> 5 & 1);
        let sizes = if single == 1 { [1, 2, 4, 8] } else { [0, 2, 4, 8] };
        at += 5 + (1 - single) + sizes[usize::from(descriptor >> 6)];
        let mut last = false;
        while !last {
            let header = u32::from_le_bytes([body[at], body[at + 1], body[at + 2], 0]);
            last = header & 1 == 1;
            let kind = header >> 1 & 3;
            let content = if kind == 1 { 1 } else { header as usize >> 3 };
            blocks.push(Block { at, kind, content });
            at += 3 + content;
        }
        at += usize::from(descriptor & 4);
    }
    blocks
}

/// The first block of its kind that is not near an edge of anything.
fn block_inside(body: &[u8], kind: u32) -> Block {
    let blocks = blocks(body);
    let inside = blocks[1..blocks.len() - 1].iter().find(|block| block.kind == kind);
    *inside.expect("an archive with blocks of every kind")
}

fn frames(body: &[u8]) -> Result<(), Flaw> {
    let mut walk = FrameWalk::new();
    walk.push(body)?;
    walk.finish()
}

fn decoded(body: &[u8], extension: &str) -> Result<(), Flaw> {
    match decode(&named(extension), body) {
        Ok(()) => Ok(()),
        Err(Unsound::Flaw(flaw)) => Err(flaw),
        Err(why) => panic!("not a flaw: {why:?}"),
    }
}

/// What a check says of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    /// There is nothing wrong with it.
    Accepted,
    /// The same, and it is wrong.
    NotFound,
    /// This is wrong.
    Found(Flaw),
    /// It does not decompress, wherever the decoder notices.
    Garbled,
}
use Says::{Accepted, Found, Garbled, NotFound};

#[track_caller]
fn check(body: &[u8], in_frames: Says, in_decode: Says) {
    let says = |outcome, whole| match outcome {
        Ok(()) => whole,
        Err(Flaw::Garbled { .. }) => Garbled,
        Err(flaw) => Found(flaw),
    };
    let whole = if in_decode == Accepted { Accepted } else { NotFound };
    assert_eq!(says(frames(body), whole), in_frames, "by its frames");
    assert_eq!(says(decoded(body, "tar.zst"), whole), in_decode, "decoded");
}

/// What is found by both, as the same.
#[track_caller]
fn check_both(body: &[u8], flaw: Flaw) {
    check(body, Found(flaw), Found(flaw));
}

#[track_caller]
fn check_tar(tar: &[u8], flaw: Flaw) {
    check(&compressed(tar, Checksum::Absent), NotFound, Found(flaw));
    assert_eq!(decoded(tar, "tar"), Err(flaw), "as it is");
}

/// Where a tar file ends, in an error.
fn at(tar: &[u8]) -> u64 {
    tar.len() as u64
}

#[test]
fn a_real_archive_is_accepted() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/agave");
    let mut kinds = BTreeSet::new();
    for entry in fs::read_dir(data).expect("a folder of the package") {
        let path = entry.expect("an entry").path();
        let file = path.file_name().and_then(|name| name.to_str()).expect("plain");
        let Ok(name) = file.parse::<ArchiveName>() else { continue };
        let body = fs::read(&path).expect("a readable file");
        assert_eq!(frames(&body), Ok(()), "{name}");
        decode(&name, &body[..]).expect("a real archive");
        let other = format!("snapshot-{}-{HASH}.tar.zst", name.slot().0 + 1);
        let outcome = decode(&other.parse().expect("valid"), &body[..]);
        assert!(matches!(outcome, Err(Unsound::Flaw(Flaw::Missing { member: Member::Bank, .. }))));
        kinds.insert(name.is_full());
    }
    assert_eq!(kinds, BTreeSet::from([false, true]), "a full and an incremental one");
}

#[test]
fn an_archive_of_one_frame_is_accepted() {
    for checksum in [Checksum::Absent, Checksum::Present] {
        check(&whole(checksum), Accepted, Accepted);
    }
    assert_eq!(decoded(&ended(archive()), "tar"), Ok(()));
}

#[test]
fn an_archive_in_two_frames_is_accepted() {
    let tar = ended(archive());
    for cut in [100, 512, 200_000, tar.len() - 700] {
        let [first, second] = [&tar[..cut], &tar[cut..]];
        let parts = [compressed(first, Checksum::Present), compressed(second, Checksum::Absent)];
        check(&parts.concat(), Accepted, Accepted);
    }
}

#[test]
fn skippable_frames_around_an_archive_are_accepted() {
    let skippable = [0x5b, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    let body = whole(Checksum::Absent);
    check(&[&skippable, &body[..]].concat(), Accepted, Accepted);
    check(&[&body[..], &skippable].concat(), Accepted, Accepted);
    check(&[&skippable, &body[..], &skippable, &skippable].concat(), Accepted, Accepted);
}

#[test]
fn an_account_file_that_is_mostly_zeros_is_accepted() {
    let mut account = noise(1000);
    account.resize(4 << 20, 0);
    let mut tar = archive();
    for _ in 0..8 {
        tar.extend(members(&[("accounts/900.1", &account)]));
    }
    let body = compressed(&ended(tar), Checksum::Absent);
    check(&body, Accepted, Accepted);
}

#[test]
fn an_account_file_with_holes_is_accepted() {
    let mut tar = tar::Builder::new(archive());
    let mut file = tempfile::tempfile().expect("a file");
    // More holes than one header has room for.
    for hole in 1..=9 {
        file.seek(SeekFrom::Start(hole << 18)).expect("a file");
        file.write_all(&noise(5000)).expect("a file");
    }
    file.rewind().expect("a file");
    tar.append_file("accounts/900.1", &mut file).expect("a vector takes everything");
    let tar = tar.into_inner().expect("a vector takes everything");
    check(&compressed(&tar, Checksum::Absent), Accepted, Accepted);
    assert_eq!(decoded(&tar, "tar"), Ok(()));
}

#[test]
fn a_body_that_ends_early_is_found_by_both() {
    let body = whole(Checksum::Absent);
    let last = blocks(&body).last().expect("a block").at;
    for end in [body.len() - 1, last + 1, last, body.len() - 4096, body.len() / 2, 6, 5, 4] {
        check_both(&body[..end], Flaw::CutShort { at: end as u64 });
    }
    check_both(&[], Flaw::NoFrame);
    check_both(&body[..3], Flaw::NotAFrame { at: 0 });
}

#[test]
fn a_body_that_ends_with_a_frame_before_the_last_is_found_by_decode() {
    let tar = ended(archive());
    let cut = members(&[("version", b"1.2.0")]).len();
    let first = compressed(&tar[..cut], Checksum::Present);
    check(&first, NotFound, Found(Flaw::NoEnd { at: cut as u64 }));
    let first = compressed(&tar[..200_000], Checksum::Present);
    check(&first, NotFound, Found(Flaw::TarCutShort { at: 200_000 }));
}

#[test]
fn a_tail_of_zeros_is_found_by_both() {
    let body = whole(Checksum::Absent);
    let whole = body.len() as u64;
    let filled = |begin: usize| [&body[..begin], &vec![0; body.len() - begin]].concat();
    let found = Found(Flaw::CutShort { at: whole });
    check(&filled(blocks(&body).last().expect("a block").at), found, found);
    check(&filled(body.len() / 2), found, found);
    // The decoder is there first where a block that is compressed loses its end.
    check(&filled(100), found, Garbled);
    let found = Found(Flaw::NotAFrame { at: whole });
    let longer = |zeros: usize| [&body[..], &vec![0; zeros]].concat();
    for zeros in [4, 512, 4096] {
        check(&longer(zeros), found, found);
    }
    check(&longer(1), found, Garbled);
    check(&longer(3), found, Garbled);
    check_both(&vec![0; body.len()], Flaw::NotAFrame { at: 0 });
}

#[test]
fn a_tail_of_zeros_inside_the_last_block_is_found_by_decode() {
    let mut body = whole(Checksum::Absent);
    let last = *blocks(&body).last().expect("a block");
    assert!(last.content > 100);
    let length = body.len();
    body[length - 100..].fill(0);
    check(&body, NotFound, Garbled);
}

#[test]
fn a_page_of_the_right_length_is_found_by_both() {
    let body = whole(Checksum::Absent);
    let mut page = b"<!DOCTYPE html><html><title>502 Bad Gateway</title>".repeat(body.len() / 50);
    page.truncate(body.len());
    check_both(&page, Flaw::NotAFrame { at: 0 });
    // Or after a while, when the source had begun.
    let mut body = body;
    let second = blocks(&body)[1].at;
    body[second..].copy_from_slice(&page[second..]);
    body[second..second + 15].copy_from_slice(&page[..15]);
    check_both(&body, Flaw::LargeBlock { at: second as u64 });
}

#[test]
fn a_block_that_is_missing_is_found_by_decode() {
    let mut body = whole(Checksum::Absent);
    let block = block_inside(&body, 0);
    body.drain(block.at..block.at + 3 + block.content);
    assert_eq!(frames(&body), Ok(()));
    assert!(decoded(&body, "tar.zst").is_err());
}

#[test]
fn two_archives_in_one_are_found_by_decode() {
    let tar = ended(archive());
    let body = compressed(&tar, Checksum::Absent);
    let flaw = Flaw::AfterEnd { at: at(&tar) };
    check(&[&body[..], &body].concat(), NotFound, Found(flaw));
    check_tar(&[&tar[..], &tar].concat(), flaw);
}

#[test]
fn a_wrong_checksum_is_found_by_decode() {
    let mut body = whole(Checksum::Present);
    let last = body.len() - 1;
    body[last] ^= 1;
    check(&body, NotFound, Garbled);
}

#[test]
fn a_changed_block_is_found_by_decode_with_a_checksum() {
    for kind in [0, 2] {
        let mut body = whole(Checksum::Present);
        let block = block_inside(&body, kind);
        body[block.at + 3 + block.content / 2] ^= 4;
        assert_eq!(frames(&body), Ok(()));
        assert!(decoded(&body, "tar.zst").is_err(), "{block:?}");
    }
}

#[test]
fn a_changed_account_is_not_found_without_a_checksum() {
    let mut body = whole(Checksum::Absent);
    let block = block_inside(&body, 0);
    body[block.at + 3 + block.content / 2] ^= 4;
    check(&body, NotFound, NotFound);
}

#[test]
fn a_changed_length_of_a_block_is_found_by_both() {
    let body = whole(Checksum::Absent);
    let block = block_inside(&body, 0);
    // The first three bits are whether it is the last one, and its kind.
    for bit in 3..24 {
        let mut body = body.clone();
        body[block.at + bit / 8] ^= 1 << (bit % 8);
        assert!(frames(&body).is_err(), "bit {bit}");
        assert!(decoded(&body, "tar.zst").is_err(), "bit {bit}");
    }
}

#[test]
fn a_tar_without_the_mark_of_its_end_is_found_by_decode() {
    let tar = archive();
    check_tar(&tar, Flaw::NoEnd { at: at(&tar) });
    let half = [&tar[..], &[0; 512]].concat();
    check_tar(&half, Flaw::NoEnd { at: at(&half) });
}

#[test]
fn a_tar_that_ends_inside_a_member_is_found_by_decode() {
    let tar = archive();
    let cut = &tar[..tar.len() - 512];
    check_tar(cut, Flaw::TarCutShort { at: at(cut) });
}

#[test]
fn the_archive_of_another_slot_is_found_by_decode() {
    let start = members(&[("version", b"1.2.0"), ("snapshots/status_cache", b"")]);
    let bank = members(&[("snapshots/1001/1001", b"bank")]);
    let flaw = Flaw::Missing { member: Member::Bank, at: at(&start) };
    check_tar(&ended([start, bank].concat()), flaw);
}

#[test]
fn an_archive_without_its_version_is_found_by_decode() {
    let bank = members(&[("snapshots/status_cache", b""), ("snapshots/1000/1000", b"bank")]);
    let accounts = members(&[("accounts/1.1", b"accounts")]);
    let flaw = Flaw::Missing { member: Member::Version, at: at(&bank) };
    check_tar(&ended([bank, accounts].concat()), flaw);
}

#[test]
fn another_tar_is_found_by_decode() {
    let flaw = Flaw::Missing { member: Member::Version, at: 512 };
    let source = members(&[("project/", b""), ("project/Cargo.toml", b"[package]")]);
    check_tar(&ended(source), flaw);
    check_tar(&[0; 10 << 10], Flaw::Missing { member: Member::Version, at: 0 });
}

#[test]
fn what_is_compressed_and_no_tar_is_found_by_decode() {
    check_tar(&text(5000), Flaw::NotAMember { at: 0 });
    check_tar(b"", Flaw::NoEnd { at: 0 });
}

#[test]
fn other_compressions_pass_unread() {
    struct Unread;
    impl std::io::Read for Unread {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            panic!("it is read");
        }
    }
    for compression in Compression::ALL {
        let name = named(compression.extension());
        if !looks_inside(&name) {
            decode(&name, Unread).expect("nothing to say");
        }
    }
    let inside = |compression: &Compression| looks_inside(&named(compression.extension()));
    let inside: Vec<Compression> = Compression::ALL.into_iter().filter(inside).collect();
    assert_eq!(inside, [Compression::None, Compression::Zstd]);
}

/// Walks over a body in pieces of these sizes, over and over.
fn frames_in_pieces(body: &[u8], pieces: &[usize]) -> Result<(), Flaw> {
    let mut walk = FrameWalk::new();
    let mut rest = body;
    for piece in pieces.iter().cycle() {
        let (piece, after) = rest.split_at(rest.len().min(*piece));
        walk.push(piece)?;
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    walk.finish()
}

/// A few parts of at most so many bytes.
fn content(longest: usize) -> impl Strategy<Value = Vec<u8>> {
    let noise = (0..longest).prop_map(noise);
    let text = (0..longest).prop_map(text);
    let zeros = (0..longest).prop_map(|length| vec![0; length]);
    let part = prop_oneof![vec(any::<u8>(), 0..100), noise, text, zeros];
    vec(part, 0..3).prop_map(|parts| parts.concat())
}

/// A body of one frame, in every form that the encoder has.
fn frame(longest: usize) -> impl Strategy<Value = Vec<u8>> {
    let level = prop_oneof![Just(1), Just(3), Just(19)];
    let window = prop_oneof![Just(None), (10..20_u32).prop_map(Some)];
    let form = (level, window, any::<bool>(), any::<bool>());
    (content(longest), form).prop_map(|(content, (level, window, checksum, size))| {
        let mut encoder = zstd::Encoder::new(Vec::new(), level).expect("an encoder");
        encoder.include_checksum(checksum).expect("an encoder");
        encoder.include_contentsize(size).expect("an encoder");
        // Also without the size in the frame, so that level 19 takes no more than it needs.
        encoder.set_pledged_src_size(Some(content.len() as u64)).expect("an encoder");
        if let Some(log) = window {
            encoder.window_log(log).expect("an encoder");
        }
        encoder.write_all(&content).expect("a vector takes everything");
        encoder.finish().expect("a vector takes everything")
    })
}

fn pieces() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![vec(1..10_usize, 1..10), vec(1..100_000_usize, 1..10)]
}

/// Something that often looks like a body for a while, and sometimes is one.
fn nearly_a_body() -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), vec(any::<u8>(), 0..6));
    // Where there is less content there are more changes in headers.
    let changed = (frame(300), vec(change, 0..4)).prop_map(|(mut body, changes)| {
        for (at, with) in changes {
            let at = at.index(body.len());
            let end = body.len().min(at + with.len());
            body.splice(at..end, with);
        }
        body
    });
    prop_oneof![4 => changed, 1 => vec(any::<u8>(), 0..200)]
}

/// Bytes of a few blocks.
const BLOCKS: usize = 150_000;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_an_encoder_writes_is_accepted(body in vec(frame(BLOCKS), 1..3), pieces in pieces()) {
        prop_assert_eq!(frames_in_pieces(&body.concat(), &pieces), Ok(()));
    }

    #[test]
    fn a_frame_that_is_cut_anywhere_is_found(
        body in frame(BLOCKS),
        end: prop::sample::Index,
        pieces in pieces(),
    ) {
        let end = end.index(body.len());
        prop_assert!(frames_in_pieces(&body[..end], &pieces).is_err(), "cut at {}", end);
    }

    #[test]
    fn zeros_from_before_the_last_block_on_are_found(
        mut body in frame(BLOCKS),
        begin: prop::sample::Index,
        pieces in pieces(),
    ) {
        let last = blocks(&body).last().expect("a block").at;
        body[begin.index(last + 1)..].fill(0);
        prop_assert!(frames_in_pieces(&body, &pieces).is_err());
    }

    #[test]
    fn zeros_after_the_last_frame_are_found(
        mut body in frame(BLOCKS),
        zeros in 1..1000_usize,
        pieces in pieces(),
    ) {
        body.resize(body.len() + zeros, 0);
        prop_assert!(frames_in_pieces(&body, &pieces).is_err());
    }
}

proptest! {
    #[test]
    fn the_verdict_does_not_depend_on_the_pieces(body in nearly_a_body(), pieces in pieces()) {
        prop_assert_eq!(frames(&body), frames_in_pieces(&body, &pieces));
    }

    #[test]
    fn what_a_decoder_takes_is_accepted(body in nearly_a_body()) {
        // Not all at once, which would let the decoder take a way on which it looks at less.
        let mut decoder = zstd::Decoder::with_buffer(&body[..]).expect("a decoder");
        let (mut piece, mut takes) = ([0; 7], true);
        loop {
            match std::io::Read::read(&mut decoder, &mut piece) {
                Ok(0) => break,
                Ok(_) => {}
                Err(_) => { takes = false; break }
            }
        }
        if takes {
            prop_assert!(matches!(frames(&body), Ok(()) | Err(Flaw::NoFrame)));
        }
    }

    #[test]
    fn decoding_never_panics(body in nearly_a_body(), extension in "tar|tar\\.zst") {
        let _ = decode(&named(&extension), &body[..]);
    }
}
