//! What is in a refresh's way: a full disk, a slow one, a name that is taken, or a better archive.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::{CWD, FileType, Mode};
use tempfile::TempDir;

use super::{
    BLOCK, Scene, Worths, announced, content, eventually, files, full, open, options, target,
};
use crate::cache::{Abandoned, Announced, Fill, Refusal, Reservation, Standing, Store};
use crate::clock::Now;
use crate::index::Worth;

/// Blocks that wait for a disk, as many as there may be, with the one that is being written and the
/// one that is being collected.
const BLOCKS_IN_MEMORY: usize = 10;

fn mkfifo(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a fifo");
}

#[track_caller]
fn check_space(min_free_space: u64, length: u64, fits: bool) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open_with(directory.path(), min_free_space, &Worths::default());
    match reserve(&store, 1000, length) {
        Ok(_) => assert!(fits, "{length} bytes, {min_free_space} kept"),
        Err(refusal) => {
            assert!(!fits, "{refusal}");
            let text = refusal.to_string();
            let begin = format!(
                "it needs {length} bytes and `cache.min_free_space` keeps {min_free_space}, but "
            );
            assert!(text.starts_with(&begin), "{text}");
            let Refusal::NoSpace { needed, available, kept } = refusal else { panic!("{refusal}") };
            assert_eq!((needed, kept), (length, min_free_space));
            assert!(available < needed.saturating_add(kept));
        }
    }
    assert_eq!(files(directory.path()), [""; 0]);
    assert!(matches!(store.standing(&full(1000)), Standing::Absent));
}

#[test]
fn what_the_disk_has_no_room_for_is_refused() {
    let available = free(&std::env::temp_dir());
    check_space(0, 1, true);
    check_space(available / 2, 1, true);
    check_space(2 * available, 1, false);
    check_space(0, 2 * available, false);
    check_space(available / 4 * 3, available / 4 * 3, false);
    // The sum is more than there are numbers for.
    check_space(u64::MAX, 1, false);
    check_space(1, u64::MAX, false);
    check_space(u64::MAX, u64::MAX, false);
}

/// A directory on a file system that sets nothing aside, where there is one.
fn in_memory() -> Option<TempDir> {
    let memory = Path::new("/dev/shm");
    memory.is_dir().then(|| tempfile::tempdir_in(memory).expect("a directory"))
}

fn free(directory: &Path) -> u64 {
    let space = rustix::fs::statvfs(directory).expect("a file system");
    space.f_bavail * space.f_frsize
}

fn reserve(store: &Store, slot: u64, length: u64) -> Result<Reservation, Refusal> {
    let claim = store.claim(&full(slot), &target("main")).expect("the right to fetch");
    claim.reserve(Announced { length, ..announced("main", 0) })
}

fn open_with(directory: &Path, min_free_space: u64, worths: &Worths) -> Store {
    let mut options = options(directory, worths);
    options.settings.min_free_space = min_free_space;
    Store::open(&options, Now::read()).expect("a store")
}

#[test]
fn what_one_fill_is_promised_is_not_free_for_another() {
    let Some(directory) = in_memory() else { return };
    let store = open_with(directory.path(), 0, &Worths::default());
    let most = free(directory.path()) / 8 * 5;
    let first = reserve(&store, 1, most).expect("room for one");
    let refusal = reserve(&store, 2, most).expect_err("no room for two");
    assert!(matches!(refusal, Refusal::NoSpace { available, .. } if available < most), "{refusal}");
    drop(first);
    drop(reserve(&store, 2, most).expect("room after the first"));
}

/// What the file system has set aside is no longer free, and so not to be counted again.
#[test]
fn what_is_set_aside_is_counted_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let part = free(directory.path()) / 16;
    let store = open_with(directory.path(), 13 * part, &Worths::default());
    let _first = reserve(&store, 1, 2 * part).expect("room for one");
    reserve(&store, 2, 1).expect("room for a little one");
    reserve(&store, 3, 2 * part).expect_err("no room for two");
}

/// What has been written is no longer free, and so not to be counted again.
#[tokio::test]
async fn what_is_written_is_counted_once() {
    const PART: u64 = 4 << 20;
    let Some(directory) = in_memory() else { return };
    let worths = Worths::default();
    worths.set_best([full(1)]);
    let kept = free(directory.path()).saturating_sub(10 * PART);
    let store = open_with(directory.path(), kept, &worths);
    let mut fill = Fill::begin(reserve(&store, 1, 6 * PART).expect("room")).expect("a thread");
    for at in 0..20 {
        fill.write(content(at, BLOCK)).await.expect("a disk that takes it");
    }
    let part = directory.path().join(format!("{}.snapedge-part", full(1)));
    eventually("five parts are written", || {
        (part.metadata().expect("a file").len() == 5 * PART).then_some(())
    });
    // The last block is counted as written soon after it is in the file.
    eventually("room for two parts more", || reserve(&store, 2, 2 * PART).ok());
    reserve(&store, 3, 5 * PART).expect_err("no room for all the rest");
}

/// A target that does not answer for a while is no reason to give up what comes from it.
#[tokio::test]
async fn a_fill_of_what_may_still_be_the_best_goes_on() {
    let (name, scene) = (full(1000), Scene::new([full(1000)]));
    let bytes = content(1, 2 * BLOCK + 1);
    let mut fill = scene.begin(&name, bytes.len());
    scene.worths.set([(name, "main", Worth::Doubtful)]);
    fill.write(bytes.clone()).await.expect("it may be the best");
    fill.finish().await.expect("it may be the best");
    scene.whole(&name);
    assert!(std::fs::read(scene.path(&name, "")).expect("a file") == bytes);
}

#[tokio::test]
async fn a_fill_of_what_is_no_longer_the_best_is_abandoned_early() {
    let (name, scene) = (full(1000), Scene::new([full(1000)]));
    let block = content(1, BLOCK);
    let mut fill = scene.begin(&name, 1000 * BLOCK);
    for _ in 0..2 {
        fill.write(block.clone()).await.expect("it is still the best");
    }
    scene.worths.set_best([]);
    let mut blocks = 0;
    let why = loop {
        match fill.write(block.clone()).await {
            Ok(()) => blocks += 1,
            Err(why) => break why,
        }
        assert!(blocks <= BLOCKS_IN_MEMORY, "it goes on");
    };
    assert_eq!((why, fill.reason().given()), (Abandoned::NotBest, Some(Abandoned::NotBest)));
    // The fill is still in somebody's hands; the name and the room are not.
    scene.absent(&name);
    assert_eq!(scene.files(), [""; 0]);
    assert!(scene.store.claim(&name, &target("main")).is_some());
}

/// What takes a name that a refresh needs.
const TAKERS: [fn(&Path); 5] = [
    |path| std::fs::write(path, b"not ours").expect("a file"),
    |path| {
        std::fs::create_dir(path).expect("a directory");
        std::fs::write(path.join("file"), b"not ours").expect("a file");
    },
    |path| symlink("/etc/hostname", path).expect("a link"),
    |path| symlink("nowhere", path).expect("a link"),
    mkfifo,
];

#[tokio::test]
async fn an_archive_name_that_is_taken_is_refused_and_left_alone() {
    for taken in TAKERS {
        let (name, scene) = (full(1000), Scene::new([full(1000)]));
        let path = scene.path(&name, "");
        taken(&path);
        let before = path.symlink_metadata().expect("something");
        let claim = scene.store.claim(&name, &target("main")).expect("the right to fetch");
        let refusal = claim.reserve(announced("main", 5)).expect_err("a taken name");
        assert!(matches!(&refusal, Refusal::NameTaken(at) if *at == path), "{refusal}");
        assert!(refusal.to_string().contains(&format!("`{}`", path.display())), "{refusal}");
        let after = path.symlink_metadata().expect("the same");
        assert_eq!((after.file_type(), after.len()), (before.file_type(), before.len()));
        assert_eq!(scene.files(), [name.to_string()]);
        assert!(scene.store.claim(&name, &target("main")).is_some(), "the name is free");
    }
}

#[tokio::test]
async fn an_archive_name_that_is_taken_meanwhile_is_left_alone() {
    for taken in TAKERS {
        let (name, scene) = (full(1000), Scene::new([full(1000)]));
        let path = scene.path(&name, "");
        let mut fill = scene.begin(&name, 8);
        taken(&path);
        let before = path.symlink_metadata().expect("something");
        fill.write(Bytes::from_static(b"THE BODY")).await.expect("a disk that takes it");
        fill.finish().await.expect("a disk that takes it");
        scene.absent(&name);
        let after = path.symlink_metadata().expect("the same");
        assert_eq!((after.file_type(), after.len()), (before.file_type(), before.len()));
        if after.is_file() {
            assert_eq!(std::fs::read(&path).expect("a file"), b"not ours");
        }
        // With a record it would look like ours to the next process.
        assert_eq!(scene.files(), [name.to_string()]);
    }
}

/// The names beside the archive's are ours, but a directory cannot be replaced.
#[tokio::test]
async fn a_directory_under_a_name_that_a_refresh_needs_ends_it() {
    for ending in [".snapedge-part", ".snapedge-new", ".snapedge"] {
        let (name, scene) = (full(1000), Scene::new([full(1000)]));
        let path = scene.path(&name, ending);
        TAKERS[1](&path);
        let claim = scene.store.claim(&name, &target("main")).expect("the right to fetch");
        match claim.reserve(announced("main", 8)) {
            Ok(reservation) => {
                assert_ne!(ending, ".snapedge-part");
                let mut fill = Fill::begin(reservation).expect("a thread");
                fill.write(Bytes::from_static(b"THE BODY")).await.expect("a disk that takes it");
                fill.finish().await.expect("a disk that takes it");
            }
            Err(refusal) => {
                assert_eq!(ending, ".snapedge-part");
                assert!(matches!(refusal, Refusal::Disk(_)), "{refusal}");
            }
        }
        scene.absent(&name);
        assert_eq!(scene.files(), [format!("{name}{ending}")]);
        assert_eq!(std::fs::read(path.join("file")).expect("a file"), b"not ours");
        std::fs::remove_dir_all(&path).expect("a directory");
        scene.cache(&name, &content(1, 5)).await;
    }
}

/// A removal that failed is made good, or the name would never be fetched again.
#[tokio::test]
async fn what_an_earlier_refresh_left_is_in_nobodys_way() {
    for ending in [".snapedge-part", ".snapedge-new", ".snapedge"] {
        let (name, scene) = (full(1000), Scene::new([full(1000)]));
        std::fs::write(scene.path(&name, ending), [b'x'; 100]).expect("a file");
        let bytes = content(1, 50);
        scene.cache(&name, &bytes).await;
        assert_eq!(std::fs::read(scene.path(&name, "")).expect("a file"), bytes, "{ending}");
        assert_eq!(scene.files(), ["", ".snapedge"].map(|ending| format!("{name}{ending}")));
        let Scene { worths, store, directory } = scene;
        drop(store);
        assert_eq!(open(directory.path(), &worths, Now::read()).names(), [name], "{ending}");
    }
}

/// A disk that stands still until it is let go on.
#[derive(Clone, Default)]
struct Disk(Arc<(Mutex<bool>, Condvar)>);

impl Disk {
    fn scene(&self) -> Scene {
        let disk = self.clone();
        // The writer asks this before each block.
        Scene::asking(Arc::new(move |_, _| {
            let (goes_on, changed) = &*disk.0;
            let goes_on = goes_on.lock().expect("no panic");
            drop(changed.wait_while(goes_on, |goes_on| !*goes_on).expect("no panic"));
            Worth::Best
        }))
    }

    fn goes_on(&self) {
        let (goes_on, changed) = &*self.0;
        *goes_on.lock().expect("no panic") = true;
        changed.notify_all();
    }
}

/// A disk that stands still makes the client's side wait, and does not fill the memory.
#[tokio::test]
async fn only_so_many_blocks_wait_for_a_disk_that_stands_still() {
    let (name, disk) = (full(1000), Disk::default());
    let scene = disk.scene();
    let (block, mut fill) = (content(1, BLOCK), scene.begin(&name, 1000 * BLOCK));
    let mut blocks = 0;
    while let Ok(written) =
        tokio::time::timeout(Duration::from_millis(50), fill.write(block.clone())).await
    {
        written.expect("it is the best");
        blocks += 1;
        assert!(blocks < BLOCKS_IN_MEMORY, "memory without bound");
    }
    assert_eq!(fill.reason().given(), None, "it waits");
    assert!(matches!(scene.store.standing(&name), Standing::Filling(_)));
    fill.reason().give(Abandoned::Slow);
    let reason = fill.reason();
    drop(fill);
    disk.goes_on();
    scene.absent(&name);
    assert_eq!((reason.given(), scene.files()), (Some(Abandoned::Slow), Vec::new()));
}

/// A piece that was given up half-way is missing in the middle, whatever is written behind it.
#[tokio::test]
async fn a_write_that_was_given_up_leads_to_no_archive() {
    let (name, disk) = (full(1000), Disk::default());
    let scene = disk.scene();
    let (block, blocks) = (content(1, BLOCK), BLOCKS_IN_MEMORY + 2);
    let mut fill = scene.begin(&name, blocks * BLOCK);
    for at in 0..blocks {
        let write = fill.write(block.clone());
        if at < BLOCKS_IN_MEMORY - 2 {
            write.await.expect("a queue with room");
        } else if at < BLOCKS_IN_MEMORY {
            let _ = tokio::time::timeout(Duration::from_millis(20), write).await;
        } else {
            break;
        }
    }
    disk.goes_on();
    for _ in BLOCKS_IN_MEMORY..blocks {
        fill.write(block.clone()).await.expect("a queue with room");
    }
    fill.finish().await.expect("as many bytes as were announced");
    scene.absent(&name);
    assert_eq!(scene.files(), [""; 0]);
}
