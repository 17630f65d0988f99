//! Which files of a directory are archives, and when that is noticed.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::time::UNIX_EPOCH;

use super::*;
use crate::support::full;

const CONTENT: Content = Content::framed(3, 50_000);
/// What nobody may read by the edge.
const SECRET: Content = Content::framed(4, 50_000);

fn pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().expect("mkfifo");
    assert!(made.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_appears_is_found_and_what_is_removed_is_forgotten() {
    let (shelf, old, new) = (Shelf::new(), full(1000), full(2000));
    shelf.put(&old, CONTENT);
    let edge = edge(QUICK, &shelf, &[&old]).await;
    assert_eq!(edge.get(&format!("/{new}")).await.status, 404);
    shelf.put(&new, CONTENT);
    lists(&edge, &new, shelf.path()).await;
    assert_eq!(edge.get("/snapshot.tar.bz2").await.header("location"), Some(&*format!("/{new}")));
    assert_whole(&edge.ask(get(&new)).await, CONTENT);
    shelf.take(&new);
    forgets(&edge, &new).await;
    assert_eq!(edge.ask(get(&new)).await.status, 404);
    assert_eq!(edge.get("/snapshot.tar.bz2").await.header("location"), Some(&*format!("/{old}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_regular_files_with_an_archives_name_are_served() {
    let (shelf, outside, good) = (Shelf::new(), Shelf::new(), full(1000));
    outside.put("secret", SECRET);
    let strange: Vec<String> = (2000..=2005).map(full).collect();
    symlink(outside.at("secret"), shelf.at(&strange[0])).expect("a link");
    symlink(&good, shelf.at(&strange[1])).expect("a link");
    std::fs::create_dir(shelf.at(&strange[2])).expect("a directory");
    pipe(&shelf.at(&strange[3]));
    let _socket = UnixListener::bind(shelf.at(&strange[4])).expect("a socket");
    std::fs::write(shelf.at(&strange[5]), b"").expect("written");
    let unfinished = format!("tmp-{}", full(3000));
    std::fs::write(shelf.at(&unfinished), CONTENT.all()).expect("written");
    shelf.put(&good, CONTENT);
    let edge = edge(QUICK, &shelf, &[&good]).await;
    for name in &strange {
        assert_eq!(edge.ask(get(name)).await.status, 404, "{name}");
        assert!(edge.view().sources(&name.parse().expect("a name")).is_empty(), "{name}");
    }
    assert_eq!(edge.get(&format!("/{unfinished}")).await.status, 404);
    assert_eq!(edge.get(&format!("/{}", full(3000))).await.status, 404);
    assert_eq!(edge.get("/snapshot.tar.bz2").await.header("location"), Some(&*format!("/{good}")));
    assert_whole(&edge.ask(get(&good)).await, CONTENT);
    // They are no obstacle to the real ones.
    std::fs::remove_file(shelf.at(&strange[3])).expect("removed");
    shelf.put(&strange[3], CONTENT);
    lists(&edge, &strange[3], shelf.path()).await;
    assert_whole(&edge.ask(get(&strange[3])).await, CONTENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_swapped_between_listing_and_opening_is_not_followed() {
    let (shelf, outside) = (Shelf::new(), Shelf::new());
    outside.put("secret", SECRET);
    let names: Vec<String> = (1000..1005).map(full).collect();
    for name in &names {
        shelf.put(name, CONTENT);
    }
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let edge = edge(LISTED_ONCE, &shelf, &all).await;
    for name in &names[..4] {
        shelf.take(name);
    }
    symlink(outside.at("secret"), shelf.at(&names[0])).expect("a link");
    symlink(shelf.at(&names[4]), shelf.at(&names[1])).expect("a link");
    std::fs::create_dir(shelf.at(&names[2])).expect("a directory");
    pipe(&shelf.at(&names[3]));
    for name in &names[..4] {
        for ask in [get(name), get(name).with("range", "bytes=5-"), head(name)] {
            let answer = edge.ask(ask).await;
            assert_eq!((answer.status, answer.body.len()), (404, 0), "{name}");
        }
        // That was said to the index, though nothing was listed again.
        forgets(&edge, name).await;
    }
    assert_whole(&edge.ask(get(&names[4])).await, CONTENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_may_come_late_and_go_and_come_back() {
    let (shelf, name) = (Shelf::new(), full(1000));
    let (late, away) = (shelf.at("snapshots"), shelf.at("away"));
    let edge = Edge::start(&config(QUICK, &[&late], &[]));
    assert_eq!(edge.get("/snapshot.tar.bz2").await.status, 404);
    std::fs::create_dir(&late).expect("made");
    put(&late, &name, CONTENT);
    lists(&edge, &name, &late).await;
    assert_whole(&edge.ask(get(&name)).await, CONTENT);

    std::fs::rename(&late, &away).expect("renamed");
    forgets(&edge, &name).await;
    assert_eq!(edge.ask(get(&name)).await.status, 404);
    std::fs::rename(&away, &late).expect("renamed");
    lists(&edge, &name, &late).await;
    assert_whole(&edge.ask(get(&name)).await, CONTENT);

    // Something else in its place.
    std::fs::rename(&late, &away).expect("renamed");
    std::fs::write(&late, b"no directory").expect("written");
    forgets(&edge, &name).await;
    std::fs::remove_file(&late).expect("removed");
    std::fs::rename(&away, &late).expect("renamed");
    lists(&edge, &name, &late).await;
    assert_whole(&edge.ask(get(&name)).await, CONTENT);
}

/// Such a time is one that no header can tell; how far ahead of us one can be is the file system's
/// choice.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_before_1970_is_served_without_its_time() {
    let (shelf, name) = (Shelf::new(), full(1000));
    shelf.put(&name, CONTENT);
    let file = File::options().write(true).open(shelf.at(&name)).expect("open");
    file.set_modified(UNIX_EPOCH - Duration::from_secs(1 << 30)).expect("set");
    let edge = edge(QUICK, &shelf, &[&name]).await;
    let answer = edge.ask(get(&name)).await;
    assert_whole(&answer, CONTENT);
    assert_eq!(answer.header("last-modified"), None, "{}", answer.head);
    assert!(answer.header("etag").is_some(), "{}", answer.head);
    assert_eq!(edge.get("/v1/snapshots").await.status, 200);
}
