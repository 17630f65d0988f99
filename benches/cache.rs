//! The archive cache without a network: looking an archive up, reading it, filling it.
//!
//! Archives lie in the build's directory for temporary files, so that their file system is a disk,
//! and are read from the page cache. What is handed out is a view of memory that nobody has looked
//! at; "copied" reads it too, as sending it would.

#![allow(missing_docs, reason = "`criterion_group!` makes a public function without any")]
#![allow(clippy::expect_used, reason = "a benchmark that cannot set itself up has failed")]

use std::hint::black_box;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use snapedge::cache::{
    Announced, Fill, Options, Retention, SLICE, Sealed, SealedReader, Standing, Store,
    StoreSettings,
};
use snapedge::clock::Now;
use snapedge::config::Verify;
use snapedge::index::CopyId;
use snapedge::index::{TargetId, Worth};
use snapedge::snapshot::{ArchiveHash, ArchiveName, Compression, Slot};

const GROUP: &str = "mainnet";
const HASH: ArchiveHash = ArchiveHash::new([7; 32]);
const FULL: ArchiveName = ArchiveName::full(Slot(300_000_000), HASH, Compression::Zstd);

/// Bytes of the archive that is read.
const LENGTH: u64 = 256 << 20;
/// Bytes of the archive that is filled again and again.
const FILLED: u64 = 64 << 20;
/// Bytes of what comes from a source at once.
const PIECE: usize = 64 << 10;
/// Bytes of a part.
const PART: usize = 1 << 20;

fn incremental() -> ArchiveName {
    ArchiveName::incremental(Slot(300_000_000), Slot(300_000_100), HASH, Compression::Zstd)
        .expect("in order")
}

fn open(directory: &Path) -> Store {
    let options = Options {
        directory: directory.to_owned(),
        settings: StoreSettings {
            min_free_space: 0,
            max_size: None,
            retention: Retention::UntilRefresh,
            verify: Verify::Length,
        },
        appraise: Arc::new(|_, _| Worth::Best),
        successor: Arc::new(|_| None),
    };
    Store::open(&options, Now::read()).expect("a usable directory")
}

/// Fills the store as a request does, and waits until the archive is found.
async fn fill(store: &Store, name: ArchiveName, length: u64, piece: &Bytes) {
    let target = TargetId { group: GROUP.into(), authority: "10.0.0.1:8899".into() };
    let copy = CopyId::new(&target.authority, length, None);
    let claim = store.claim(&name, &target).expect("nobody else has it");
    let announced = Announced { target, length, copy, modified: None, listed: None, tag: None };
    let begin = move || Fill::begin(claim.reserve(announced).expect("room")).expect("a thread");
    let mut fill = tokio::task::spawn_blocking(begin).await.expect("no panic");
    for _ in 0..length / PIECE as u64 {
        fill.write(piece.clone()).await.expect("written");
    }
    fill.finish().await.expect("complete");
    let mut held = store.held();
    held.wait_for(|held| held.iter().any(|held| held.name == name)).await.expect("found");
}

/// A store with the two archives of a pair, on a runtime like that of a small server.
struct Scene {
    runtime: Runtime,
    store: Store,
    piece: Bytes,
    directory: TempDir,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let mut piece = vec![0; PIECE];
        ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut piece);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let store = open(directory.path());
        let scene = Self { runtime, store, piece: piece.into(), directory };
        for (name, length) in [(FULL, LENGTH), (incremental(), FILLED)] {
            scene.runtime.block_on(fill(&scene.store, name, length, &scene.piece));
        }
        scene
    }

    /// Reads on a thread of the runtime, as a server does.
    fn read(&self, sealed: &Arc<Sealed>, range: Range<usize>, each: fn(&[u8])) {
        let reader = sealed.reader();
        self.runtime.block_on(async {
            tokio::spawn(read(reader, range, each)).await.expect("no panic");
        });
    }
}

fn whole(store: &Store) -> Arc<Sealed> {
    match store.standing(&FULL) {
        Standing::Whole(sealed) => sealed,
        standing => unreachable!("it was filled, and is {standing:?}"),
    }
}

async fn read(mut reader: SealedReader, range: Range<usize>, each: fn(&[u8])) {
    reader.seek(range.start, range.end);
    let mut rest = range.len();
    while let Some(slice) = reader.next().await.expect("readable") {
        rest -= slice.len();
        each(&slice);
    }
    assert_eq!(rest, 0, "all of it");
}

/// What a slice costs that is only handed on.
fn hand_out(slice: &[u8]) {
    black_box(slice);
}

/// What a slice costs that is read into a buffer in the processor's cache.
fn copy_out(slice: &[u8]) {
    let mut buffer = [0; 16 << 10];
    for part in slice.chunks(buffer.len()) {
        buffer[..part.len()].copy_from_slice(part);
        black_box(&mut buffer);
    }
}

fn finding(criterion: &mut Criterion, scene: &Scene) {
    let sealed = whole(&scene.store);
    let mut measured = criterion.benchmark_group("two archives");
    measured.bench_function("look-up", |b| b.iter(|| scene.store.standing(black_box(&FULL))));
    measured.bench_function("look-up of one that is not there", |b| {
        let other = ArchiveName::full(Slot(1), HASH, Compression::Zstd);
        b.iter(|| scene.store.standing(black_box(&other)));
    });
    measured.bench_function("opening a reader", |b| b.iter(|| sealed.reader()));
    measured.finish();
}

fn reading(criterion: &mut Criterion, scene: &Scene) {
    let sealed = whole(&scene.store);
    let length = usize::try_from(LENGTH).expect("an address");
    let mut measured = criterion.benchmark_group("256 MiB in the page cache");
    measured.throughput(Throughput::Bytes(LENGTH));
    measured.bench_function(format!("whole, in slices of {} MiB", SLICE >> 20), |b| {
        b.iter(|| scene.read(&sealed, 0..length, hand_out));
    });
    measured.bench_function("whole, copied", |b| {
        b.iter(|| scene.read(&sealed, 0..length, copy_out));
    });
    measured.throughput(Throughput::Bytes(PART as u64));
    let mut random = ChaCha8Rng::seed_from_u64(2);
    measured.bench_function("1 MiB somewhere, copied", |b| {
        b.iter(|| {
            let start = usize::try_from(random.next_u32()).expect("an address") % (length - PART);
            scene.read(&sealed, start..start + PART, copy_out);
        });
    });
    measured.finish();
}

/// The first reader after a start finds no page in the mapping, though all are in memory.
fn reading_first(criterion: &mut Criterion, scene: Scene) {
    let Scene { runtime, store, directory, .. } = scene;
    drop(store);
    let length = usize::try_from(LENGTH).expect("an address");
    let mut measured = criterion.benchmark_group("256 MiB in the page cache");
    measured.throughput(Throughput::Bytes(LENGTH));
    measured.bench_function("whole, by the first reader", |b| {
        b.iter_custom(|times| {
            let mut spent = Duration::ZERO;
            for _ in 0..times {
                let store = open(directory.path());
                let reader = whole(&store).reader();
                let began = Instant::now();
                runtime.block_on(async {
                    tokio::spawn(read(reader, 0..length, hand_out)).await.expect("no panic");
                });
                spent += began.elapsed();
            }
            spent
        });
    });
    measured.finish();
}

/// From the claim to the moment the archive is found, the disk's `fsync` included.
fn filling(criterion: &mut Criterion, scene: &Scene) {
    let name = incremental();
    let mut measured = criterion.benchmark_group("64 MiB from a source");
    measured.throughput(Throughput::Bytes(FILLED)).sample_size(10);
    measured.bench_function("fill, in pieces of 64 KiB", |b| {
        b.iter_custom(|times| {
            let mut spent = Duration::ZERO;
            for _ in 0..times {
                assert!(scene.store.remove(&name), "it was filled before");
                let began = Instant::now();
                scene.runtime.block_on(fill(&scene.store, name, FILLED, &scene.piece));
                spent += began.elapsed();
            }
            spent
        });
    });
    measured.finish();
}

fn benches(criterion: &mut Criterion) {
    let scene = Scene::new();
    finding(criterion, &scene);
    reading(criterion, &scene);
    filling(criterion, &scene);
    reading_first(criterion, scene);
}

fn brief() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! {
    name = cache;
    config = brief();
    targets = benches
}
criterion_main!(cache);
