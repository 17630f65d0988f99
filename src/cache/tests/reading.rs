//! Readers of a complete archive: every byte, in large slices, from anywhere, whatever happens to
//! the archive meanwhile.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::runtime::Builder;

use super::{SLICE, Scene, content, full};
use crate::cache::{SLICE as SLICE_IN_BYTES, Sealed, SealedReader};

/// Around every size at which the number of slices, or of pages, changes.
const LENGTHS: [usize; 12] = [
    1,
    2,
    3,
    4095,
    4096,
    4097,
    SLICE - 1,
    SLICE,
    SLICE + 1,
    2 * SLICE - 1,
    3 * SLICE,
    3 * SLICE + 4097,
];
const MIN_SLICE: usize = 1 << 20;

/// Reads to the end. Every slice but the last is a large one, and none is empty.
async fn read(reader: &mut SealedReader) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut last = MIN_SLICE;
    while let Some(slice) = reader.next().await.expect("a disk that reads") {
        assert!(last >= MIN_SLICE, "a slice of {last} bytes that is not the last");
        assert!(!slice.is_empty());
        bytes.extend_from_slice(&slice);
        last = slice.len();
    }
    bytes
}

/// Reads what is left as one slice would be cut out of the whole.
async fn check(reader: &mut SealedReader, bytes: &Bytes, range: Range<usize>) {
    let end = range.end.min(bytes.len());
    let expected = &bytes[range.start.min(end)..end];
    assert!(read(reader).await == expected, "{range:?} of {}", bytes.len());
    assert_eq!(reader.next().await.expect("a disk that reads"), None, "the end is the end");
}

async fn scene(length: usize) -> (Scene, Arc<Sealed>, Bytes) {
    let (scene, bytes) = (Scene::new([full(1000)]), content(1, length));
    let sealed = scene.cache(&full(1000), &bytes).await;
    (scene, sealed, bytes)
}

#[test]
fn a_slice_is_at_least_a_mebibyte() {
    assert_eq!(usize::try_from(SLICE_IN_BYTES), Ok(SLICE));
    const { assert!(SLICE >= MIN_SLICE) };
}

#[tokio::test]
async fn every_byte_is_read_and_every_range() {
    for length in LENGTHS {
        let (_scene, sealed, bytes) = scene(length).await;
        let mut reader = sealed.reader();
        assert!(Arc::ptr_eq(reader.sealed(), &sealed));
        check(&mut reader, &bytes, 0..length).await;
        let edges = [0, 1, length / 2, SLICE - 1, SLICE, SLICE + 1, length - 1, length, length + 1];
        for start in edges {
            for end in edges.into_iter().chain([usize::MAX]) {
                reader.seek(start, end);
                check(&mut reader, &bytes, start..end.max(start)).await;
            }
        }
        reader.seek(usize::MAX, usize::MAX);
        check(&mut reader, &bytes, usize::MAX..usize::MAX).await;
        reader.seek(usize::MAX, 0);
        assert_eq!(reader.next().await.expect("a disk that reads"), None, "an empty range");
    }
}

/// What a client may do to a reader.
#[derive(Clone, Debug)]
enum Step {
    Seek(Range<usize>),
    /// So many slices.
    Next(usize),
    /// A read that is given up while its slice is brought in.
    GiveUp,
}

fn steps(length: usize) -> impl Strategy<Value = Vec<Step>> {
    let place = prop_oneof![
        0..=length + 2,
        prop::sample::select(vec![0, SLICE - 1, SLICE, SLICE + 1, length, usize::MAX]),
    ];
    let seek = (place.clone(), place).prop_map(|(start, end)| Step::Seek(start..end));
    let step =
        prop_oneof![3 => seek, 3 => (1..4_usize).prop_map(Step::Next), 1 => Just(Step::GiveUp)];
    prop::collection::vec(step, 1..20)
}

async fn walk(sealed: &Arc<Sealed>, bytes: &Bytes, steps: Vec<Step>) {
    let mut reader = sealed.reader();
    let mut rest = 0..bytes.len();
    for step in steps {
        match step {
            Step::Seek(range) => {
                reader.seek(range.start, range.end);
                rest = range.start.min(bytes.len())..range.end.min(bytes.len());
            }
            Step::Next(slices) => {
                for _ in 0..slices {
                    let slice = reader.next().await.expect("a disk that reads");
                    let expected = rest.start..rest.end.min(rest.start.saturating_add(SLICE));
                    if expected.is_empty() {
                        assert_eq!(slice, None);
                    } else {
                        rest.start = expected.end;
                        assert!(slice.expect("a slice") == bytes[expected.clone()], "{expected:?}");
                    }
                }
            }
            Step::GiveUp => {
                // What was there at once counts as read.
                let read = tokio::time::timeout(Duration::ZERO, reader.next()).await;
                let read = read.map_or(None, |read| read.expect("a disk that reads"));
                if let Some(slice) = read {
                    assert!(slice == bytes[rest.start..rest.start + slice.len()]);
                    rest.start += slice.len();
                }
            }
        }
    }
    check_rest(&mut reader, bytes, rest).await;
}

async fn check_rest(reader: &mut SealedReader, bytes: &Bytes, rest: Range<usize>) {
    let expected = if rest.is_empty() { &[] } else { &bytes[rest.clone()] };
    assert!(read(reader).await == expected, "{rest:?}");
}

#[test]
fn any_walk_through_an_archive_reads_what_is_there() {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build();
    let runtime = runtime.expect("a runtime");
    let length = 2 * SLICE + 12_345;
    let (_scene, sealed, bytes) = runtime.block_on(scene(length));
    proptest!(ProptestConfig::with_cases(64), |(steps in steps(length))| {
        runtime.block_on(walk(&sealed, &bytes, steps));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_read_at_once() {
    let length = 2 * SLICE + 1;
    let (_scene, sealed, bytes) = scene(length).await;
    let readers: Vec<_> = (0..100_usize)
        .map(|number| {
            let (mut reader, bytes) = (sealed.reader(), bytes.clone());
            tokio::spawn(async move {
                let range = number * 1000..length - number * 2000;
                reader.seek(range.start, range.end);
                check(&mut reader, &bytes, range).await;
            })
        })
        .collect();
    for reader in readers {
        reader.await.expect("the right bytes");
    }
}

#[tokio::test]
async fn what_is_removed_is_read_to_its_end() {
    let name = full(1000);
    let (scene, sealed, bytes) = scene(3 * SLICE + 5).await;
    let mut readers = [sealed.reader(), sealed.reader(), sealed.reader()];
    let first = readers[0].next().await.expect("a disk that reads").expect("a slice");
    readers[1].seek(2 * SLICE, usize::MAX);
    assert!(scene.store.remove(&name));
    assert_eq!(scene.files(), [""; 0]);
    // Another copy comes in its place, and the store goes.
    scene.absent(&name);
    let other = content(2, bytes.len());
    let mut reader_of_other = scene.cache(&name, &other).await.reader();
    drop((sealed, scene));
    check(&mut readers[0], &bytes, first.len()..bytes.len()).await;
    check(&mut readers[1], &bytes, 2 * SLICE..bytes.len()).await;
    check(&mut readers[2], &bytes, 0..bytes.len()).await;
    check(&mut reader_of_other, &other, 0..other.len()).await;
    // What was handed out stays as it was, also without its reader.
    drop(readers);
    assert!(first == bytes[..first.len()]);
}
