//! Archives that are read while they are fetched.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use rustix::fs::Advice;
use tokio::runtime::Builder;

use super::{BLOCK, Scene, content, eventually, full, incremental, options, target};
use crate::cache::{
    Abandoned, Archive, End, Ending, Fill, Growing, Options, Reader, Retention, Standing, Store,
};
use crate::check::Flaw;
use crate::clock::Now;
use crate::config::Verify;
use crate::index::{Listed, Worth};
use crate::snapshot::ArchiveName;

/// A fill that others read, and what it will have.
struct Shared {
    fill: Fill,
    growing: Arc<Growing>,
    ending: Ending,
}

fn share(scene: &Scene, name: &ArchiveName, length: usize) -> Shared {
    let reservation = scene.reserve(name, length);
    let (fill, growing, ending) = Fill::begin_shared(reservation, true).expect("a thread");
    Shared { fill, growing, ending }
}

fn reader(growing: &Arc<Growing>) -> Reader {
    Archive::Growing(Arc::clone(growing)).reader()
}

/// What comes next, for as long as anything comes at once.
async fn at_hand(reader: &mut Reader) -> Vec<u8> {
    let mut bytes = Vec::new();
    let pause = Duration::from_millis(50);
    while let Ok(piece) = tokio::time::timeout(pause, reader.next()).await {
        match piece.expect("no fault") {
            Some(piece) => bytes.extend_from_slice(&piece),
            None => break,
        }
    }
    bytes
}

async fn rest(reader: &mut Reader) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(piece) = reader.next().await? {
        assert!(!piece.is_empty());
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

#[tokio::test]
async fn readers_get_what_is_there_and_wait_for_the_rest() {
    let (name, bytes) = (full(1000), content(1, 3 * BLOCK + 5));
    let scene = Scene::new([name]);
    let Shared { mut fill, growing, mut ending } = share(&scene, &name, bytes.len());
    let standing = scene.store.standing(&name);
    assert!(matches!(standing, Standing::Growing(found) if Arc::ptr_eq(&found, &growing)));
    let mut early = reader(&growing);
    assert_eq!(at_hand(&mut early).await, b"");
    // Less than a block goes on when it is told to.
    fill.write(&bytes[..1000]).await.expect("a disk that takes it");
    assert_eq!(at_hand(&mut early).await, b"");
    fill.flush().await.expect("a disk that takes it");
    assert_eq!(at_hand(&mut early).await, bytes[..1000]);
    fill.write(&bytes[1000..2 * BLOCK]).await.expect("a disk that takes it");
    fill.flush().await.expect("a disk that takes it");
    let mut part = reader(&growing);
    part.seek(BLOCK - 10, BLOCK + 10);
    assert_eq!(rest(&mut part).await.expect("there"), bytes[BLOCK - 10..BLOCK + 10]);
    let mut late = reader(&growing);
    assert!(at_hand(&mut late).await == bytes[..2 * BLOCK]);
    assert_eq!(growing.unread_for(std::time::Instant::now()), None);

    // The last of it is shown once it is known to be sound.
    fill.write(&bytes[2 * BLOCK..]).await.expect("a disk that takes it");
    fill.flush().await.expect("a disk that takes it");
    assert!(at_hand(&mut late).await == bytes[2 * BLOCK..3 * BLOCK]);
    fill.finish().await.expect("a disk that takes it");
    assert_eq!(ending.wait().await, Ok(()));
    assert!(rest(&mut late).await.expect("whole") == bytes[3 * BLOCK..]);
    assert!(rest(&mut early).await.expect("whole") == bytes[1000..]);
    assert!(rest(&mut reader(&growing)).await.expect("whole") == bytes);
    let sealed = scene.whole(&name);
    let progress = growing.progress();
    assert!(matches!(progress.end(), Some(End::Whole(found)) if Arc::ptr_eq(found, &sealed)));
    drop((early, late, part));
    assert!(growing.unread_for(std::time::Instant::now()).is_some());
}

#[tokio::test]
async fn a_fill_that_fails_is_an_error_to_every_reader_whatever_is_there() {
    let (name, bytes) = (full(1000), content(1, 2 * BLOCK));
    for why in [Abandoned::SourceFailed, Abandoned::ClientLeft] {
        let scene = Scene::new([name]);
        let Shared { mut fill, growing, mut ending } = share(&scene, &name, bytes.len());
        fill.write(&bytes[..=BLOCK]).await.expect("a disk that takes it");
        let mut readers = [reader(&growing), reader(&growing), reader(&growing)];
        readers[1].seek(100, 200);
        assert!(at_hand(&mut readers[2]).await == bytes[..BLOCK]);
        fill.reason().give(why);
        drop(fill);
        assert_eq!(ending.wait().await, Err(why));
        for reader in &mut readers {
            let error = reader.next().await.expect_err("no clean end").to_string();
            assert_eq!(error, why.to_string());
        }
        // One that comes too late, and one that has all that it wanted.
        assert!(reader(&growing).next().await.is_err());
        let mut nothing = reader(&growing);
        nothing.seek(5, 5);
        assert!(nothing.next().await.expect("nothing to read").is_none());
        assert!(matches!(scene.store.standing(&name), Standing::Absent));
        assert_eq!(scene.files(), [""; 0]);
    }
}

/// Pages that the kernel let go of are brought in from the disk, without a difference.
#[tokio::test]
async fn a_reader_far_behind_reads_from_the_disk() {
    let (name, bytes) = (full(1000), content(1, 4 * BLOCK));
    let scene = Scene::new([name]);
    let Shared { mut fill, growing, .. } = share(&scene, &name, bytes.len());
    fill.write(&bytes[..3 * BLOCK]).await.expect("a disk that takes it");
    eventually("it is written", || {
        (growing.progress().frontier() == 3 * BLOCK as u64).then_some(())
    });
    let file = std::fs::File::open(scene.path(&name, ".snapedge-part")).expect("a file");
    file.sync_all().expect("a disk");
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).expect("advice");
    assert!(at_hand(&mut reader(&growing)).await == bytes[..3 * BLOCK]);
}

#[tokio::test]
async fn one_that_was_overtaken_is_finished_for_its_readers_and_goes_then() {
    let [old, new] = [incremental(1000, 1500), incremental(1000, 1600)];
    let bytes = content(1, 2 * BLOCK);
    let scene = Scene::new([old]);
    let Shared { mut fill, growing, mut ending } = share(&scene, &old, bytes.len());
    fill.write(&bytes[..BLOCK]).await.expect("a disk that takes it");
    let mut slow = reader(&growing);
    scene.worths.set_best([new]);
    scene.cache(&new, &content(2, 10)).await;
    fill.write(&bytes[BLOCK..]).await.expect("it goes on");
    fill.finish().await.expect("it goes on");
    assert_eq!(ending.wait().await, Ok(()));
    assert_eq!(scene.store.names(), [new], "there is a newer one");
    assert!(rest(&mut slow).await.expect("whole") == bytes);
    assert_eq!(scene.files(), ["", ".snapedge"].map(|ending| format!("{new}{ending}")));
}

/// A store that looks into archives.
fn checking(verify: Verify) -> Scene {
    let scene = Scene::new([full(1000)]);
    let Scene { worths, store, directory } = scene;
    drop(store);
    let mut options = options(directory.path(), &worths);
    options.settings.verify = verify;
    let store = Store::open(&options, Now::read()).expect("a store");
    Scene { worths, store, directory }
}

/// A frame of noise, of so many bytes in blocks of a kilobyte.
fn frame(length: usize) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x38];
    let noise = content(1, 1 << 10);
    while frame.len() < length {
        let size = (length - frame.len() - 3).min(1 << 10);
        let last = u64::from(frame.len() + 3 + size == length);
        frame.extend_from_slice(&((size as u64) << 3 | last).to_le_bytes()[..3]);
        frame.extend_from_slice(&noise[..size]);
    }
    frame
}

#[tokio::test]
async fn what_is_not_sound_is_shown_to_nobody_in_full_and_its_source_set_aside() {
    let name = full(1000);
    let good = frame(2 * BLOCK);
    let mut cut = frame(2 * BLOCK + 2000);
    cut.truncate(good.len());
    for (verify, bytes, flaw) in [
        (Verify::Length, &cut, None),
        (Verify::Frames, &good, None),
        (Verify::Frames, &cut, Some(Flaw::CutShort { at: good.len() as u64 })),
        (Verify::Decode, &good, Some(Flaw::NotAMember { at: 0 })),
    ] {
        let scene = checking(verify);
        let Shared { mut fill, growing, mut ending } = share(&scene, &name, bytes.len());
        let mut following = reader(&growing);
        let follower = tokio::spawn(async move { rest(&mut following).await });
        // What is wrong may be noticed in the middle.
        let written = fill.write(bytes).await;
        if written.is_ok() {
            let _ = fill.finish().await;
        } else {
            drop(fill);
        }
        let expected = flaw.map_or(Ok(()), |flaw| Err(Abandoned::Unsound(flaw)));
        assert_eq!(ending.wait().await, expected, "{verify:?}");
        let read = follower.await.expect("no panic");
        assert_eq!(read.is_ok(), flaw.is_none(), "{verify:?}");
        let now = std::time::Instant::now();
        let listed = |name, size: usize| Listed {
            name,
            size: u64::try_from(size).ok(),
            modified: None,
            tag: None,
            location: None,
        };
        let (same, other) = (listed(name, bytes.len()), listed(name, bytes.len() + 1));
        let aside = scene.store.is_distrusted(&target("main"), &same, now);
        assert_eq!(aside, flaw.is_some(), "{verify:?}");
        let later = now + Duration::from_secs(3601);
        assert!(!scene.store.is_distrusted(&target("main"), &same, later), "not for ever");
        assert!(!scene.store.is_distrusted(&target("main"), &other, now), "of this copy");
        let third = listed(full(2000), bytes.len());
        assert!(!scene.store.is_distrusted(&target("main"), &third, now), "for this name");
        assert_eq!(scene.store.names().len(), usize::from(flaw.is_none()), "{verify:?}");
    }
}

/// Kept until the next one is complete and the lease is over, over a restart as well.
#[tokio::test]
async fn a_lease_is_kept_over_a_restart() {
    let [old, new] = [incremental(1000, 1500), incremental(1000, 1600)];
    let lease = Duration::from_secs(60);
    let Scene { worths, store, directory } = Scene::new([old]);
    drop(store);
    let keeping = || {
        let mut options = options(directory.path(), &worths);
        options.settings.retention = Retention::Leased(lease);
        options
    };
    let store = Store::open(&keeping(), Now::read()).expect("a store");
    let scene =
        Scene { worths: worths.clone(), store, directory: tempfile::tempdir().expect("one") };
    scene.cache(&old, &content(1, 10)).await;
    worths.set([(old, "main", Worth::Superseded), (new, "main", Worth::Best)]);
    let start = std::time::Instant::now();
    assert_eq!(scene.store.expire(start), None, "there is no newer one");
    scene.cache(&new, &content(2, 10)).await;
    let end = scene.store.expire(start).expect("a lease");
    assert!(end <= start + lease);
    assert_eq!(scene.store.names(), [old, new]);
    drop(scene);
    let store = open_keeping(keeping);
    let start = std::time::Instant::now();
    assert_eq!(store.expire(start), Some(start + lease), "it begins anew");
    assert_eq!(store.expire(start + lease), None);
    assert_eq!(store.names(), [new]);
}

fn open_keeping(options: impl Fn() -> Options) -> Store {
    eventually("the directory is free", || Store::open(&options(), Now::read()).ok())
}

/// What happens to a fill and two readers of it.
#[derive(Clone, Debug)]
enum Op {
    Write(usize),
    Flush,
    /// One of the readers goes there.
    Seek(usize, usize, usize),
    /// One of the readers takes a piece, where there is one.
    Read(usize),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let place = || 0..3 * BLOCK;
    let op = prop_oneof![
        4 => (1..BLOCK).prop_map(Op::Write),
        2 => Just(Op::Flush),
        2 => (0..2_usize, place(), place()).prop_map(|(at, start, end)| Op::Seek(at, start, end)),
        6 => (0..2_usize).prop_map(Op::Read),
    ];
    prop::collection::vec(op, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        max_shrink_time: 60_000,
        ..ProptestConfig::default()
    })]

    /// Whatever a reader gets is what was written there, in order, and nothing is left out.
    #[test]
    fn readers_see_the_bytes_that_were_written(ops in ops(), length in 1..3 * BLOCK, ends: bool) {
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let (name, bytes) = (full(1000), content(1, length));
            let scene = Scene::new([name]);
            let Shared { mut fill, growing, mut ending } = share(&scene, &name, length);
            let mut readers = [0, 1].map(|_| (reader(&growing), 0..length));
            let mut written = 0;
            for op in ops {
                match op {
                    Op::Write(count) => {
                        let end = (written + count).min(length);
                        fill.write(&bytes[written..end]).await.expect("a disk that takes it");
                        written = end;
                    }
                    Op::Flush => fill.flush().await.expect("a disk that takes it"),
                    Op::Seek(at, start, end) => {
                        let (start, end) = (start.min(length), end.min(length));
                        readers[at].0.seek(start, end);
                        readers[at].1 = start..end.max(start);
                    }
                    Op::Read(at) => {
                        let (reader, rest) = &mut readers[at];
                        let soon = Duration::from_millis(1);
                        if let Ok(piece) = tokio::time::timeout(soon, reader.next()).await {
                            take(piece.expect("no fault"), rest, &bytes);
                        }
                    }
                }
            }
            if !ends {
                drop(fill);
                ending.wait().await.expect_err("it was abandoned");
                for (mut reader, rest) in readers {
                    assert!(rest.is_empty() || reader.next().await.is_err(), "a clean end");
                }
                return;
            }
            fill.write(&bytes[written..]).await.expect("a disk that takes it");
            fill.finish().await.expect("a disk that takes it");
            for (mut reader, mut rest) in readers {
                while !rest.is_empty() {
                    take(reader.next().await.expect("no fault"), &mut rest, &bytes);
                }
                assert!(reader.next().await.expect("no fault").is_none());
            }
            assert_eq!(ending.wait().await, Ok(()));
        });
    }
}

/// Compares a piece with what has to come next; its absence with the end.
#[track_caller]
fn take(piece: Option<Bytes>, rest: &mut std::ops::Range<usize>, bytes: &[u8]) {
    let Some(piece) = piece else { return assert_eq!(rest.start, rest.end, "it ends early") };
    let end = rest.start + piece.len();
    assert!(end <= rest.end && bytes[rest.start..end] == piece, "other bytes at {}", rest.start);
    rest.start = end;
}
