//! What a store finds when it opens a directory, and what it makes of it.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{CWD, FileType, Mode};

use super::{
    HASH, Scene, Worths, announced, content, files, full, incremental, open, options, target,
};
use crate::cache::{Announced, OpenError, Record, Standing, Store};
use crate::clock::Now;

const ARCHIVE: &[u8] = b"the bytes of an archive";
/// Outside of the directory, what links lead to.
const OUTSIDE: &str = "outside";

/// What can be under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Thing {
    File(Vec<u8>),
    Directory,
    /// A symbolic link to a file with these bytes, outside of the directory.
    Link(Vec<u8>),
    /// A symbolic link to nothing.
    Dangling,
    Fifo,
}

use Thing::{Dangling, Directory, Fifo, File, Link};

impl Thing {
    fn put(&self, path: &Path) {
        match self {
            File(bytes) => std::fs::write(path, bytes).expect("a file"),
            Directory => {
                std::fs::create_dir(path).expect("a directory");
                std::fs::write(path.join(full(1).to_string()), ARCHIVE).expect("a file");
            }
            Link(bytes) => {
                let outside = path.parent().and_then(Path::parent).expect("a parent").join(OUTSIDE);
                std::fs::write(&outside, bytes).expect("a file");
                symlink(outside, path).expect("a link");
            }
            Dangling => symlink("nowhere", path).expect("a link"),
            Fifo => {
                let mode = Mode::RUSR | Mode::WUSR;
                rustix::fs::mknodat(CWD, path, FileType::Fifo, mode, 0).expect("a fifo");
            }
        }
    }

    /// What is there, which must be all that was put there.
    fn at(path: &Path) -> Self {
        let kind = path.symlink_metadata().expect("something").file_type();
        if kind.is_symlink() {
            return std::fs::read(path).map_or(Dangling, Link);
        }
        if kind.is_dir() {
            assert_eq!(files(path), [full(1).to_string()]);
            return Directory;
        }
        if kind.is_file() { File(std::fs::read(path).expect("a file")) } else { Fifo }
    }
}

fn archive() -> Thing {
    File(ARCHIVE.to_vec())
}

/// The record of the archive, with changes.
fn record(change: impl FnOnce(&mut Record)) -> Thing {
    let Announced { target, length, copy, modified, .. } = announced("main", ARCHIVE.len());
    let sealed = UNIX_EPOCH + Duration::from_secs(1_790_000_400);
    let mut record = Record { name: full(1000), target, length, copy, modified, sealed };
    change(&mut record);
    File(record.encode())
}

fn right() -> Thing {
    record(|_| {})
}

/// The bytes of the right record, with changes.
fn damaged(change: impl FnOnce(&mut Vec<u8>)) -> Thing {
    let File(mut bytes) = right() else { unreachable!("a record is a file") };
    change(&mut bytes);
    File(bytes)
}

fn listing(directory: &Path) -> BTreeMap<String, Thing> {
    files(directory)
        .into_iter()
        .map(|name| (name.clone(), Thing::at(&directory.join(name))))
        .collect()
}

/// Opens a directory with these things, each under the archive's name with an ending. What has one
/// of the endings of `left` stays untouched, and everything else goes.
#[track_caller]
fn check(what: &str, things: &[(&str, Thing)], left: &[&str], adopted: bool) {
    let (outer, name) = (tempfile::tempdir().expect("a directory"), full(1000));
    let directory = outer.path().join("cache");
    std::fs::create_dir(&directory).expect("a directory");
    for (ending, thing) in things {
        thing.put(&directory.join(format!("{name}{ending}")));
    }
    let mut expected = listing(&directory);
    expected.retain(|file, _| left.iter().any(|ending| *file == format!("{name}{ending}")));
    assert_eq!(expected.len(), left.len(), "{what}: what is left was there");
    let outside = std::fs::read(outer.path().join(OUTSIDE)).ok();
    // Twice: what was found once is found in the same way again.
    for _ in 0..2 {
        let store = open(&directory, &Worths::default(), Now::read());
        assert_eq!(listing(&directory), expected, "{what}");
        assert_eq!(std::fs::read(outer.path().join(OUTSIDE)).ok(), outside, "{what}");
        assert_eq!(store.names(), if adopted { vec![name] } else { vec![] }, "{what}");
        assert_eq!(store.held().borrow().len(), usize::from(adopted), "{what}");
        match store.standing(&name) {
            Standing::Whole(sealed) => {
                assert!(adopted, "{what}");
                assert_eq!(File(sealed.record().encode()), right(), "{what}");
            }
            standing => assert!(!adopted && matches!(standing, Standing::Absent), "{what}"),
        }
    }
}

#[test]
fn what_is_whole_is_adopted() {
    check("nothing", &[], &[], false);
    let whole = [("", archive()), (".snapedge", right())];
    check("an archive and its record", &whole, &["", ".snapedge"], true);
    let leftovers = [
        ("", archive()),
        (".snapedge", right()),
        (".snapedge-part", archive()),
        (".snapedge-new", right()),
    ];
    check("with leftovers of a refresh", &leftovers, &["", ".snapedge"], true);
}

#[test]
fn archives_of_another_length_are_swept() {
    let mut longer = ARCHIVE.to_vec();
    longer.push(b'\n');
    let bodies = [
        ("one byte less", ARCHIVE[1..].to_vec()),
        ("one byte more", longer),
        ("half", ARCHIVE[..ARCHIVE.len() / 2].to_vec()),
        ("empty", Vec::new()),
        ("far longer", ARCHIVE.repeat(1000)),
    ];
    for (what, bytes) in bodies {
        check(what, &[("", File(bytes)), (".snapedge", right())], &[], false);
    }
}

#[test]
fn archives_whose_record_is_damaged_are_swept() {
    let broken = |what: &str, record: Thing| {
        check(what, &[("", archive()), (".snapedge", record.clone())], &[], false);
        check(what, &[(".snapedge", record)], &[], false);
    };
    let File(bytes) = right() else { unreachable!("a record is a file") };
    for at in (0..bytes.len()).step_by(7) {
        broken(&format!("bit of byte {at}"), damaged(|bytes| bytes[at] ^= 1 << (at % 8)));
        broken(&format!("cut at {at}"), damaged(|bytes| bytes.truncate(at)));
    }
    broken("without its last byte", damaged(|bytes| bytes.truncate(bytes.len() - 1)));
    broken("with a byte more", damaged(|bytes| bytes.push(b'\n')));
    broken("twice", damaged(|bytes| bytes.extend(bytes.clone())));
    broken("zeros", damaged(|bytes| bytes.fill(0)));
    broken("not text", damaged(|bytes| bytes.fill(0xff)));
    broken("far too long", File(bytes.repeat(1000)));
    broken("a first line and no more", File(b"snapedge archive record 2\n".to_vec()));
    broken("something else", File(b"<html>".to_vec()));
}

/// Whoever goes back to that version finds its archives again.
#[test]
fn archives_of_another_version_are_left_for_it() {
    for version in ["record 0\n", "record 2\n", "record 10\n"] {
        let File(bytes) = right() else { unreachable!("a record is a file") };
        let text = String::from_utf8(bytes).expect("text");
        let other = File(text.replace("record 1\n", version).into_bytes());
        let both = [("", archive()), (".snapedge", other.clone())];
        check(version, &both, &["", ".snapedge"], false);
        let longer = [("", File(ARCHIVE.repeat(2))), (".snapedge", other.clone())];
        check(version, &longer, &["", ".snapedge"], false);
        check(version, &[(".snapedge", other.clone())], &[], false);
        check(version, &[("", Directory), (".snapedge", other)], &[""], false);
    }
}

#[test]
fn archives_whose_record_is_about_something_else_are_swept() {
    let other = |what: &str, record: Thing| {
        check(what, &[("", archive()), (".snapedge", record.clone())], &[], false);
        check(what, &[(".snapedge", record)], &[], false);
    };
    other("another slot", record(|record| record.name = full(1001)));
    other("an incremental one", record(|record| record.name = incremental(1, 1000)));
    let name = format!("snapshot-1000-{HASH}.tar").parse().expect("valid");
    other("another compression", record(|record| record.name = name));
    other("another length", record(|record| record.length += 1));
    other("the longest length", record(|record| record.length = u64::MAX));
}

#[test]
fn an_archive_without_a_record_is_not_ours() {
    for thing in [archive(), File(Vec::new()), Directory, Link(ARCHIVE.to_vec()), Dangling, Fifo] {
        let what = format!("{thing:?}");
        check(&what, &[("", thing.clone())], &[""], false);
        let leftovers = [("", thing), (".snapedge-part", archive()), (".snapedge-new", right())];
        check(&what, &leftovers, &[""], false);
    }
}

#[test]
fn what_is_no_file_under_an_archives_name_loses_its_record_only() {
    for thing in [Directory, Link(ARCHIVE.to_vec()), Dangling, Fifo] {
        let what = format!("{thing:?}");
        check(&what, &[("", thing.clone()), (".snapedge", right())], &[""], false);
        check(&what, &[("", thing), (".snapedge", File(Vec::new()))], &[""], false);
    }
}

#[test]
fn what_is_no_file_under_a_records_name_is_no_record() {
    let File(bytes) = right() else { unreachable!("a record is a file") };
    for thing in [Directory, Link(bytes), Dangling, Fifo] {
        let what = format!("{thing:?}");
        check(&what, &[(".snapedge", thing.clone())], &[".snapedge"], false);
        let both = [("", archive()), (".snapedge", thing.clone())];
        check(&what, &both, &["", ".snapedge"], false);
        let both = [("", Directory), (".snapedge", thing)];
        check(&what, &both, &["", ".snapedge"], false);
    }
}

#[test]
fn leftovers_of_a_refresh_are_swept_where_they_are_files() {
    for ending in [".snapedge-part", ".snapedge-new"] {
        for thing in [File(Vec::new()), archive(), right()] {
            check(&format!("{ending} {thing:?}"), &[(ending, thing)], &[], false);
        }
        for thing in [Directory, Link(ARCHIVE.to_vec()), Dangling, Fifo] {
            check(&format!("{ending} {thing:?}"), &[(ending, thing)], &[ending], false);
        }
    }
}

#[test]
fn a_record_without_an_archive_is_swept() {
    check("alone", &[(".snapedge", right())], &[], false);
    check("empty", &[(".snapedge", File(Vec::new()))], &[], false);
}

/// The directory after each step of a refresh, and of a removal, as `mod.rs` tells them.
#[test]
fn a_crash_leaves_an_archive_or_nothing() {
    let part = |length: usize| (".snapedge-part", File(ARCHIVE[..length].to_vec()));
    let new = |length: usize| (".snapedge-new", damaged(|bytes| bytes.truncate(length)));
    let all = ARCHIVE.len();
    let nothing: [&[(&str, Thing)]; 8] = [
        &[part(0)],
        &[part(all / 2)],
        &[part(all)],
        &[part(all), new(0)],
        &[part(all), new(100)],
        &[part(all), new(usize::MAX)],
        &[part(all), (".snapedge", right())],
        // Removed, but for the record.
        &[(".snapedge", right())],
    ];
    for things in nothing {
        check(&format!("{things:?}"), things, &[], false);
    }
    let whole = [("", archive()), (".snapedge", right())];
    check("sealed", &whole, &["", ".snapedge"], true);
}

#[test]
fn files_that_are_not_ours_are_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let name = full(1000).to_string();
    archive().put(&path(&name));
    right().put(&path(&format!("{name}.snapedge")));
    for number in 0..1000 {
        let bytes = File(number.to_string().into_bytes());
        bytes.put(&path(&match number % 5 {
            0 => format!("{number}.txt"),
            // Somebody else's archives, and downloads of other programs.
            1 => full(2000 + number).to_string(),
            2 => format!("{}.part", full(2000 + number)),
            3 => format!("tmp-{}", full(2000 + number)),
            _ => format!("{number}.snapedge"),
        }));
    }
    Directory.put(&path("remote"));
    Dangling.put(&path("latest"));
    Fifo.put(&path("fifo"));
    File(b"kept".to_vec()).put(&path("snapedge.lock"));
    let before = listing(directory.path());
    assert_eq!(before.len(), 1005);
    let store = open(directory.path(), &Worths::default(), Now::read());
    assert_eq!(store.names(), [full(1000)]);
    assert!(store.remove(&full(1000)));
    drop(store);
    let mut left = before;
    left.retain(|file, _| !file.starts_with(&name));
    assert_eq!(listing(directory.path()), left);
    assert_eq!(Thing::at(&path("snapedge.lock")), File(b"kept".to_vec()));
}

#[test]
fn every_archive_is_adopted_whichever_is_the_best() {
    let directory = tempfile::tempdir().expect("a directory");
    let names = [full(1000), incremental(1000, 1500), full(2000)];
    for (name, group) in names.iter().zip(["main", "other", "other"]) {
        archive().put(&directory.path().join(name.to_string()));
        let of = |record: &mut Record| (record.name, record.target) = (*name, target(group));
        record(of).put(&directory.path().join(format!("{name}.snapedge")));
    }
    let now = Now::read();
    let store = open(directory.path(), &Worths::default(), now);
    assert_eq!(store.names(), names);
    let held = store.held();
    for (held, name) in held.borrow().iter().zip(names) {
        assert_eq!((held.name, held.size, held.since), (name, ARCHIVE.len() as u64, now));
        assert_eq!(held.modified, announced("main", 0).modified);
    }
    assert_eq!(held.borrow().last().map(|held| held.target.clone()), Some(target("other")));
}

#[tokio::test]
async fn an_archive_of_no_bytes_can_be_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |ending: &str| directory.path().join(format!("{}{ending}", full(1000)));
    File(Vec::new()).put(&path(""));
    record(|record| record.length = 0).put(&path(".snapedge"));
    let store = open(directory.path(), &Worths::default(), Now::read());
    let Standing::Whole(sealed) = store.standing(&full(1000)) else { panic!("not adopted") };
    let mut reader = sealed.reader();
    assert_eq!(reader.next().await.expect("a disk that reads"), None);
    reader.seek(0, usize::MAX);
    assert_eq!(reader.next().await.expect("a disk that reads"), None);
}

/// The text of an error and of what caused it.
fn chain(error: &OpenError) -> String {
    let cause = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{cause}")
}

#[tokio::test]
async fn a_second_store_is_refused_and_harms_nothing() {
    let (cached, fetched) = (full(1000), incremental(1000, 1500));
    let scene = Scene::new([cached, fetched]);
    let bytes = content(1, 3 << 20);
    scene.cache(&cached, &bytes).await;
    let mut fill = scene.begin(&fetched, bytes.len());
    fill.write(bytes.slice(..2 << 20)).await.expect("a disk that takes it");
    let before = scene.files();
    let path = scene.directory.path();
    let second = || Store::open(&options(path, &Worths::default()), Now::read());
    for _ in 0..3 {
        let error = second().expect_err("the directory is in use");
        assert!(matches!(&error, OpenError::InUse(directory) if directory == path), "{error}");
        let text = error.to_string();
        assert!(text.contains(&format!("`{}`", path.display())), "{text}");
        assert!(text.contains("`proxy_snapshot_cache_dir`"), "{text}");
    }
    assert_eq!(scene.files(), before);
    fill.write(bytes.slice(2 << 20..)).await.expect("a disk that takes it");
    fill.finish().await.expect("a disk that takes it");
    for name in [cached, fetched] {
        scene.whole(&name);
        assert!(std::fs::read(scene.path(&name, "")).expect("a file") == bytes, "{name}");
    }
    let Scene { store, directory, worths } = scene;
    drop(store);
    assert_eq!(open(directory.path(), &worths, Now::read()).names(), [cached, fetched]);
}

/// A reader is no user of the directory, and does not keep it locked.
#[tokio::test]
async fn the_directory_is_free_while_what_was_in_it_is_read() {
    let scene = Scene::new([full(1000)]);
    let bytes = content(1, 5 << 20);
    let mut reader = scene.cache(&full(1000), &bytes).await.reader();
    let first = reader.next().await.expect("a disk that reads").expect("a slice");
    let Scene { store, directory, worths } = scene;
    drop(store);
    let again = open(directory.path(), &worths, Now::read());
    assert!(again.remove(&full(1000)));
    let mut read = first.to_vec();
    while let Some(slice) = reader.next().await.expect("a disk that reads") {
        read.extend_from_slice(&slice);
    }
    assert!(read == bytes);
}

#[test]
fn a_directory_that_is_not_there_is_made() {
    let outer = tempfile::tempdir().expect("a directory");
    let directory = outer.path().join("a/b/c");
    let store = open(&directory, &Worths::default(), Now::read());
    assert_eq!(store.names(), []);
    assert!(directory.join("snapedge.lock").is_file());
}

#[track_caller]
fn check_unusable(directory: &Path, says: &str) {
    let error = Store::open(&options(directory, &Worths::default()), Now::read());
    let error = error.expect_err("a directory that cannot be used");
    let text = chain(&error);
    assert!(matches!(&error, OpenError::Io { directory: at, .. } if at == directory), "{text}");
    assert!(text.contains(&format!("`{}`", directory.display())), "{text}");
    assert!(text.contains("`proxy_snapshot_cache_dir`"), "{text}");
    assert!(text.contains(says), "{text}");
}

#[test]
fn a_directory_that_cannot_be_used_is_an_error_with_its_path() {
    let outer = tempfile::tempdir().expect("a directory");
    let path = |name: &str| -> PathBuf { outer.path().join(name) };
    archive().put(&path("file"));
    check_unusable(&path("file"), "File exists");
    check_unusable(&path("file/below"), "Not a directory");
    check_unusable(&path("file/far/below"), "Not a directory");
    Dangling.put(&path("link"));
    check_unusable(&path("link"), "File exists");
    // The lock is taken of a file that is in the directory, and of nothing else.
    std::fs::create_dir(path("cache")).expect("a directory");
    Directory.put(&path("cache/snapedge.lock"));
    check_unusable(&path("cache"), "Is a directory");
    std::fs::remove_dir_all(path("cache/snapedge.lock")).expect("a directory");
    Dangling.put(&path("cache/snapedge.lock"));
    check_unusable(&path("cache"), "symbolic link");
    assert_eq!(Thing::at(&path("file")), archive());
    assert!(!path("cache/nowhere").exists());
}
