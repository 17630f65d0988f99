//! The store against a real directory: how archives get into it, what it finds when it starts, and
//! what its readers get. `model.rs` compares all of it with a plain map.

mod beside;
mod directory;
mod filling;
mod growing;
mod meddling;
mod model;
mod obstacles;
mod reading;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use tempfile::TempDir;

use super::{
    Announced, Appraise, Fill, OpenError, Options, Reservation, Retention, Sealed, Standing, Store,
    StoreSettings,
};
use crate::clock::Now;
use crate::config::Verify;
use crate::index::{CopyId, TargetId, Worth};
use crate::snapshot::ArchiveName;

const HASH: &str = "426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY";
/// The groups of the configuration.
const GROUPS: [&str; 2] = ["main", "other"];
/// Bytes that a fill writes at once.
const BLOCK: usize = 1 << 20;
/// Bytes that a reader gets at once.
const SLICE: usize = 2 << 20;
/// How long anything may take that happens in another thread.
const PATIENCE: Duration = Duration::from_secs(30);

fn full(slot: u64) -> ArchiveName {
    format!("snapshot-{slot}-{HASH}.tar.zst").parse().expect("valid")
}

fn incremental(base: u64, slot: u64) -> ArchiveName {
    format!("incremental-snapshot-{base}-{slot}-{HASH}.tar.zst").parse().expect("valid")
}

/// Bytes of which no two stretches are alike, of one seed or of two.
fn content(seed: u32, length: usize) -> Bytes {
    let first = u64::from(seed) << 32;
    let byte = |at: u64| (first + at).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0];
    (first..).take(length).map(|at| byte(at - first)).collect()
}

fn target(group: &str) -> TargetId {
    TargetId { group: group.into(), authority: "10.0.0.1:8899".into() }
}

/// The copy that [`target`] has of an archive of so many bytes.
fn announced(group: &str, length: usize) -> Announced {
    let (target, length) = (target(group), length as u64);
    let modified = Some(UNIX_EPOCH + Duration::from_secs(1_790_000_000));
    let copy = CopyId::new(&target.authority, length, modified);
    Announced { target, length, copy, modified, listed: None, tag: None }
}

/// Polls until there is something, at most for [`PATIENCE`].
#[track_caller]
fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// What archives are worth to a group, which the store asks for: nothing, unless it is said here.
#[derive(Clone, Default)]
struct Worths(Arc<Mutex<BTreeMap<(ArchiveName, String), Worth>>>);

impl Worths {
    fn set(&self, worths: impl IntoIterator<Item = (ArchiveName, &'static str, Worth)>) {
        let worths = worths.into_iter().map(|(name, group, worth)| ((name, group.into()), worth));
        *self.0.lock().expect("no panic") = worths.collect();
    }

    /// Makes these the best ones of the main group.
    fn set_best(&self, names: impl IntoIterator<Item = ArchiveName>) {
        self.set(names.into_iter().map(|name| (name, "main", Worth::Best)));
    }

    fn of(&self, name: &ArchiveName, group: &str) -> Worth {
        let worths = self.0.lock().expect("no panic");
        worths.get(&(*name, group.to_owned())).copied().unwrap_or(Worth::Superseded)
    }
}

fn options(directory: &Path, worths: &Worths) -> Options {
    let worths = worths.clone();
    Options {
        directory: directory.to_owned(),
        settings: StoreSettings {
            min_free_space: 0,
            max_size: None,
            retention: Retention::UntilRefresh,
            verify: Verify::Length,
        },
        appraise: Arc::new(move |name, group| worths.of(name, group)),
        successor: Arc::new(|_| None),
    }
}

/// Opens a directory whose last store may still be ending its fills in their threads.
#[track_caller]
fn open(directory: &Path, worths: &Worths, now: Now) -> Store {
    eventually("the directory is free", || match Store::open(&options(directory, worths), now) {
        Ok(store) => Some(store),
        Err(OpenError::InUse(_)) => None,
        Err(error) => panic!("{error}: {error:?}"),
    })
}

/// The names of all files but the lock, in order.
fn files(directory: &Path) -> Vec<String> {
    let entries = directory.read_dir().expect("a directory");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.expect("an entry").file_name().into_string().expect("text")
    };
    let mut names: Vec<String> = entries.map(name).filter(|name| name != "snapedge.lock").collect();
    names.sort();
    names
}

/// A store in a directory of its own.
struct Scene {
    worths: Worths,
    store: Store,
    directory: TempDir,
}

impl Scene {
    /// Where these archives are the best ones.
    fn new(best: impl IntoIterator<Item = ArchiveName>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let worths = Worths::default();
        worths.set_best(best);
        let store = open(directory.path(), &worths, Now::read());
        Self { worths, store, directory }
    }

    /// Where this tells what an archive is worth.
    fn asking(appraise: Appraise) -> Self {
        let (directory, worths) = (tempfile::tempdir().expect("a directory"), Worths::default());
        let options = Options { appraise, ..options(directory.path(), &worths) };
        let store = Store::open(&options, Now::read()).expect("a store");
        Self { worths, store, directory }
    }

    fn files(&self) -> Vec<String> {
        files(self.directory.path())
    }

    /// The path of an archive's file, or with its ending of one beside it.
    fn path(&self, name: &ArchiveName, ending: &str) -> PathBuf {
        self.directory.path().join(format!("{name}{ending}"))
    }

    #[track_caller]
    fn reserve(&self, name: &ArchiveName, length: usize) -> Reservation {
        let claim = self.store.claim(name, &target("main")).expect("the right to fetch");
        claim.reserve(announced("main", length)).expect("room")
    }

    #[track_caller]
    fn begin(&self, name: &ArchiveName, length: usize) -> Fill {
        Fill::begin(self.reserve(name, length)).expect("a thread")
    }

    /// Fetches an archive in pieces of an odd size.
    async fn cache(&self, name: &ArchiveName, bytes: &Bytes) -> Arc<Sealed> {
        let mut fill = self.begin(name, bytes.len());
        for piece in bytes.chunks(70_001) {
            fill.write(piece).await.expect("a disk that takes it");
        }
        fill.finish().await.expect("a disk that takes it");
        self.whole(name)
    }

    /// Waits until an archive is there.
    #[track_caller]
    fn whole(&self, name: &ArchiveName) -> Arc<Sealed> {
        eventually("the archive is sealed", || match self.store.standing(name) {
            Standing::Whole(sealed) => Some(sealed),
            Standing::Filling(_) | Standing::Growing(_) => None,
            Standing::Absent => panic!("{name} was abandoned"),
        })
    }

    /// Waits until a fill has been abandoned.
    #[track_caller]
    fn absent(&self, name: &ArchiveName) {
        eventually("the fill is abandoned", || match self.store.standing(name) {
            Standing::Absent => Some(()),
            Standing::Filling(_) | Standing::Growing(_) => None,
            Standing::Whole(_) => panic!("{name} was sealed"),
        });
    }
}
