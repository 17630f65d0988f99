//! One directory belongs to one process.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use super::config;
use crate::cache::{assert_whole, status};
use crate::support::body::Content;
use crate::support::client::Ask;
use crate::support::origin::{Fault, Origin, Program};
use crate::support::process::{File, PROGRAM, Running};
use crate::support::{eventually, full, incremental};

/// Everything about every file: inode, change and modification in nanoseconds, bytes.
fn everything(directory: &Path) -> Vec<(String, u64, [i64; 4], Vec<u8>)> {
    let entries = directory.read_dir().expect("a directory");
    let mut all: Vec<_> = entries
        .map(|entry| {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("text");
            let data = entry.metadata().expect("metadata");
            let times = [data.mtime(), data.mtime_nsec(), data.ctime(), data.ctime_nsec()];
            (name, data.ino(), times, fs::read(entry.path()).expect("a file"))
        })
        .collect();
    all.sort();
    all
}

/// Runs the program until it ends by itself, and returns its exit code and what it said.
async fn run(config: &str) -> (Option<i32>, String) {
    let file = File::new(&format!("listen: ['127.0.0.1:0']\n{config}"));
    let path = file.path.to_str().expect("a path");
    let log = fs::File::create(file.path.with_extension("log")).expect("a log");
    let mut child = Command::new(PROGRAM)
        .args(["-c", path])
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the program runs");
    let mut ended = None;
    for _ in 0..500 {
        ended = child.try_wait().expect("a child");
        if ended.is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    // One that goes on is no reason to leave it behind.
    let _ = child.kill();
    let _ = child.wait();
    let said = fs::read_to_string(file.path.with_extension("log")).expect("a log");
    (ended.and_then(|ended| ended.code()), said)
}

/// While the first one has an archive and is fetching another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_directory_ends_with_1_and_harms_nothing() {
    const LENGTH: u64 = 3 << 20;
    let (cached, fetched) = (full(1000), incremental(1000, 1001));
    let contents = [Content::new(1, LENGTH), Content::new(2, LENGTH)];
    let archives = [(&*cached, contents[0]), (&*fetched, contents[1])];
    let origin = [Origin::run(Program::Sidecar, &archives).await];
    let parent = tempfile::tempdir().expect("a directory");
    let directory = parent.path().join("cache");
    let first = Running::start(&config(&directory, "exclusive", &origin)).await;
    let is_hit = async |name: &str| {
        status(&Ask::head(format!("/{name}")).send(first.address).await) == "snapedge; hit"
    };
    eventually("the archive is cached", async || {
        Ask::get(format!("/{cached}")).send(first.address).await;
        is_hit(&cached).await
    })
    .await;
    origin[0].fail(Fault::StallAfter((5 << 20) / 2));
    let fetching = Ask::get(format!("/{fetched}")).begin(first.address).await;
    let part = directory.join(format!("{fetched}.snapedge-part"));
    eventually("the other one is on its way", || {
        let there = part.metadata().is_ok_and(|part| part.len() == 2 << 20);
        async move { there }
    })
    .await;

    let before = everything(&directory);
    let expected = "the lock, the secret, an archive with its record, a part of another one";
    assert_eq!(before.len(), 5, "{expected}");
    let link = parent.path().join("link");
    symlink(&directory, &link).expect("a link");
    for path in [&directory, &link] {
        let (code, said) = run(&config(path, "exclusive", &origin)).await;
        assert_eq!(code, Some(1), "{said}");
        for word in [path.to_str().expect("text"), "another process", "proxy_snapshot_cache_dir"] {
            assert!(said.contains(word), "no {word} in {said}");
        }
        assert!(everything(&directory) == before, "{said}");
    }

    let answer = Ask::get(format!("/{cached}")).send(first.address).await;
    assert_eq!(status(&answer), "snapedge; hit");
    assert_whole(&answer, contents[0]);
    origin[0].fail(None);
    drop(fetching);
    eventually("the other one is cached as well", async || {
        Ask::get(format!("/{fetched}")).send(first.address).await;
        is_hit(&fetched).await
    })
    .await;
}
