//! Files that are being written under their final name, or were, by somebody who was stopped: they
//! are not offered, and no client gets a clean answer of a part.

use std::io::Write;

use super::*;
use crate::support::process::Running;
use crate::support::{full, incremental};

const CONTENT: Content = Content::framed(5, 900_000);

/// A whole archive of an older slot, and what is served meanwhile.
async fn before(shelf: &Shelf) -> Running {
    shelf.put(&full(1000), CONTENT);
    let running = Running::start(&config("scrape_interval: 100ms", &[shelf.path()], &[])).await;
    offers(&running, 1000).await;
    running
}

async fn offers(running: &Running, slot: u64) {
    let expected = format!("/{}", full(slot));
    eventually("it is offered", || async {
        let answer = Ask::get("/snapshot.tar.bz2").send(running.address).await;
        answer.header("location") == Some(&*expected)
    })
    .await;
}

/// Waits until a few listings have passed, which another archive tells.
async fn later(running: &Running, shelf: &Shelf, slot: u64) {
    for more in 0..3 {
        let name = incremental(1000, slot + more);
        shelf.put(&name, CONTENT);
        eventually("it is listed", || async {
            head(&name).send(running.address).await.status == 200
        })
        .await;
    }
}

async fn assert_not_served(running: &Running, name: &str, case: &str) {
    for ask in [get(name), head(name), get(name).with("range", "bytes=0-9")] {
        let answer = ask.send(running.address).await;
        assert_eq!((answer.status, answer.body.len()), (404, 0), "{case}: {}", answer.head);
    }
    let answer = Ask::get("/snapshot.tar.bz2").send(running.address).await;
    assert_eq!(answer.header("location"), Some(&*format!("/{}", full(1000))), "{case}");
}

/// Bytes as they are found on the disk when a program was stopped.
fn leftovers() -> Vec<(&'static str, Vec<u8>)> {
    let all = CONTENT.all();
    let (cut, block) = (all.len() / 2 + 77, 131_075 * 3 + 6);
    let holed = |from: usize, to: usize| {
        let mut bytes = all.clone();
        bytes[from..to].fill(0);
        bytes
    };
    vec![
        ("`curl`, `wget` or `cp`, killed", all[..cut].to_vec()),
        ("the last byte is missing", all[..all.len() - 1].to_vec()),
        ("it ends where a block does", all[..block].to_vec()),
        ("one byte", all[..1].to_vec()),
        ("the room is set aside and the end has not come", holed(cut, all.len())),
        ("parts are missing within it", holed(200_000, 500_000)),
        ("nothing but zeros", vec![0; all.len()]),
        ("a page", b"<html>404 Not Found</html>".to_vec()),
        ("something behind it", [&all[..], &[0; 512]].concat()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_whole_is_not_offered_and_is_named_in_the_log() {
    let shelf = Shelf::new();
    let running = before(&shelf).await;
    let cases = leftovers();
    let names: Vec<String> = (2000..).take(cases.len()).map(full).collect();
    for (name, (_, bytes)) in names.iter().zip(&cases) {
        std::fs::write(shelf.at(name), bytes).expect("written");
    }
    for (name, (case, _)) in names.iter().zip(&cases) {
        let said = format!("has {name}, which is not served: damaged, copy it again: ");
        eventually(case, || async { running.log().contains(&said) }).await;
        assert_not_served(&running, name, case).await;
    }
    later(&running, &shelf, 2000).await;
    for (name, (case, _)) in names.iter().zip(&cases) {
        assert_not_served(&running, name, case).await;
        assert_eq!(running.log().matches(&format!("has {name}, which")).count(), 1, "{case}");
    }
    // Each of them is offered once it is whole.
    let last = names.last().expect("a name");
    std::fs::write(shelf.at(last), CONTENT.all()).expect("written");
    eventually("it is served", || async { head(last).send(running.address).await.status == 200 })
        .await;
    assert_whole(&get(last).send(running.address).await, CONTENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_downloader_has_notes_of_is_not_offered() {
    let shelf = Shelf::new();
    let running = before(&shelf).await;
    let endings = [".aria2", ".st", ".part", ".crdownload", ".lftp-pget-status"];
    let names: Vec<String> = (2000..).take(endings.len()).map(full).collect();
    for (name, ending) in names.iter().zip(endings) {
        // The notes come first: whole as it looks, the downloader knows better.
        std::fs::write(shelf.at(&format!("{name}{ending}")), b"notes").expect("written");
        shelf.put(name, CONTENT);
    }
    later(&running, &shelf, 2000).await;
    for (name, ending) in names.iter().zip(endings) {
        assert_not_served(&running, name, ending).await;
        let said =
            format!("has {name}, which is not served: unfinished: there is a file of its name");
        assert_eq!(running.log().matches(&said).count(), 1, "{ending}");
    }
    std::fs::remove_file(shelf.at(&format!("{}{}", names[1], endings[1]))).expect("removed");
    eventually("it is served", || async {
        head(&names[1]).send(running.address).await.status == 200
    })
    .await;
}

/// As `rsync --inplace` and `cp` do, in a form whose bytes tell nothing as well.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_written_is_offered_when_nobody_writes_it_any_more() {
    let shelf = Shelf::new();
    let running = before(&shelf).await;
    for (slot, ending) in [(2000, "tar.zst"), (3000, "tar.lz4"), (4000, "tar")] {
        let name = full(slot).replace("tar.zst", ending);
        let mut file = File::create(shelf.at(&name)).expect("made");
        let all = CONTENT.all();
        let (mut written, slot) = (0, slot * 10);
        // Some of it in each interval.
        for part in all.chunks(all.len() / 12 + 1) {
            file.write_all(part).expect("written");
            written += part.len();
            if written < all.len() {
                let answer = head(&name).send(running.address).await;
                assert_eq!(answer.status, 404, "{ending}: {written} bytes: {}", answer.head);
            }
            let other = incremental(1000, slot + written as u64 % 1000);
            shelf.put(&other, Content::framed(1, 1000));
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        drop(file);
        eventually("it is served", || async {
            head(&name).send(running.address).await.status == 200
        })
        .await;
        assert_whole(&get(&name).send(running.address).await, CONTENT);
    }
}

/// Over an archive that was offered a moment ago.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_written_over_is_gone_until_it_is_whole_again() {
    let (shelf, name) = (Shelf::new(), full(2000));
    let running = before(&shelf).await;
    shelf.put(&name, CONTENT);
    offers(&running, 2000).await;
    let other = Content::framed(6, CONTENT.len);
    for end in [other.len / 2, 0, other.len - 1] {
        std::fs::write(shelf.at(&name), other.bytes(0, end)).expect("written");
        // At once, whatever the last listing says.
        assert_eq!(get(&name).send(running.address).await.status, 404, "{end}");
        offers(&running, 1000).await;
    }
    std::fs::write(shelf.at(&name), other.all()).expect("written");
    offers(&running, 2000).await;
    assert_whole(&get(&name).from(9).send(running.address).await, other);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_not_looked_at_where_that_is_not_wanted() {
    let (shelf, name) = (Shelf::new(), full(1000));
    std::fs::write(shelf.at(&name), CONTENT.bytes(0, 1000)).expect("written");
    let settings = "scrape_interval: 100ms\ncache: {verify: length}";
    let running = Running::start(&config(settings, &[shelf.path()], &[])).await;
    offers(&running, 1000).await;
    assert_eq!(get(&name).send(running.address).await.length(), 1000);
}
