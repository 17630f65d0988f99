//! What the log of a process says of directories.

use std::os::unix::fs::symlink;

use super::*;
use crate::support::full;
use crate::support::process::Running;

const CONTENT: Content = Content::framed(3, 50_000);

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_directory_is_said_when_it_begins_and_when_it_ends() {
    let (shelf, other) = (Shelf::new(), Shelf::new());
    let late = shelf.at("snapshots");
    let paths = [late.as_path(), other.path()];
    let running = Running::start(&config("scrape_interval: 100ms", &paths, &[])).await;
    let serves = async |name: &str| {
        eventually("the archive is there", || async {
            head(name).send(running.address).await.status == 200
        })
        .await;
    };
    let logs = async |text: &str| {
        eventually(text, || async { running.log().contains(text) }).await;
    };
    let target = format!("target {} in `a`", late.display());
    let fails = format!("cannot list {target}: cannot open the directory: No such file");
    logs(&fails).await;
    // Each of these takes a listing of the other directory.
    for slot in 1..=5 {
        other.put(&full(slot), CONTENT);
        serves(&full(slot)).await;
    }
    std::fs::create_dir(&late).expect("made");
    put(&late, &full(1000), CONTENT);
    serves(&full(1000)).await;
    let again = format!("{target} can be listed again");
    logs(&again).await;

    let (link, outside) = (full(2000), other.at(&full(1)));
    symlink(&outside, late.join(&link)).expect("a link");
    let refused = format!("{target} has {link}, which is not served: a symbolic link");
    logs(&refused).await;
    for slot in 6..=9 {
        other.put(&full(slot), CONTENT);
        serves(&full(slot)).await;
    }
    assert_eq!(get(&link).send(running.address).await.status, 404);

    std::fs::remove_dir_all(&late).expect("removed");
    eventually("a second time", || async { running.log().matches(&fails).count() == 2 }).await;
    assert_eq!(get(&full(1000)).send(running.address).await.status, 404);
    let log = running.kill();
    for (text, times) in [(fails, 2), (again, 1), (refused, 1)] {
        assert_eq!(log.matches(&text).count(), times, "`{text}` in\n{log}");
    }
    assert!(!log.contains("panicked"), "{log}");
}
