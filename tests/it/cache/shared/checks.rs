//! Archives that are none: nobody gets all of one, and its source is not asked again.

use super::super::super::support::body::Content;
use super::super::super::support::client::{Ask, Ended};
use super::super::super::support::origin::{Origin, Program};
use super::super::super::support::{eventually, full};
use super::super::{HIT, STORED, assert_on_disk, assert_whole, get, status};
use super::{FULL, sharing};

/// A real one.
const ARCHIVE: &[u8] = include_bytes!(
    "../../../data/agave/snapshot-1000-426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY.tar.zst"
);
const NAME: &str = "snapshot-1000-426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY.tar.zst";

/// The frame of a longer archive, cut to the length of the right one.
const CUT: Content = Content { frame: Some(FULL.len + 500_000), ..FULL };

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_sound_is_not_kept_and_another_source_is_used() {
    let name = full(1000);
    let bad = Origin::run(Program::Agave, &[(&name, CUT)]).await;
    let cached = sharing("", &[&bad]).await;
    let first = cached.edge.ask(get(&name)).await;
    assert_eq!((first.status, first.ended), (200, Ended::Short), "{}", first.head);
    assert!(first.body.len() < CUT.len as usize, "nobody gets all of it");
    cached.is_idle().await;
    // There is no other source, and this one is none.
    let again = cached.edge.ask(get(&name)).await;
    assert!(matches!(again.status, 502 | 404), "{}", again.head);
    eventually("it counts as not there", || async {
        cached.edge.ask(Ask::head("/snapshot.tar.bz2")).await.status == 404
    })
    .await;
    assert_eq!(cached.edge.ask(get(&name)).await.status, 404);
    assert_eq!((bad.asked("GET", &name), cached.files().len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_source_takes_over_without_a_client() {
    let name = full(1000);
    let bad = Origin::run(Program::Agave, &[(&name, CUT)]).await;
    let good = Origin::run(Program::Agave, &[(&name, FULL)]).await;
    let cached = sharing("prefetch: all", &[&bad, &good]).await;
    cached.holds(&name).await;
    assert_on_disk(cached.directory.path(), &name, FULL);
    assert!(bad.asked("GET", &name) <= 1);
    assert_eq!(good.asked("GET", &name), 1);
    for at in 1..=8 {
        let answer = cached.edge.ask(get(&name).from(at)).await;
        assert_whole(&answer, FULL);
        assert_eq!(status(&answer), HIT);
    }
    assert!(bad.asked("GET", &name) <= 1, "it is not asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_level_finds_what_it_promises() {
    let page = Content::recorded(PAGE);
    for (level, content, sound) in [
        ("length", CUT, true),
        ("length", page, true),
        ("frames", CUT, false),
        ("frames", page, false),
        ("frames", FULL, true),
        // A frame of noise is no tar.
        ("decode", FULL, false),
        ("decode", Content::recorded(ARCHIVE), true),
    ] {
        let origin = Origin::run(Program::Agave, &[(NAME, content)]).await;
        let cached = sharing(&format!("verify: {level}"), &[&origin]).await;
        let answer = cached.edge.ask(get(NAME)).await;
        if sound {
            assert_whole(&answer, content);
            assert_eq!(status(&answer), STORED);
            cached.holds(NAME).await;
        } else {
            // Where it was found before the client read any of it, there is nothing to break off.
            let found = (answer.status, answer.ended);
            let expected = [(200, Ended::Short), (502, Ended::Whole)];
            assert!(expected.contains(&found), "{found:?} {level} {content:?}");
            eventually("it is removed", || async { cached.files().is_empty() }).await;
        }
    }
}

const PAGE: &[u8] = b"<!doctype html><html><body>The archive you look for has moved.</body></html>";

/// In the exclusive mode the client that fills gets what the target sends; what is kept is sound.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_fills_the_cache_gets_its_bytes_and_the_cache_does_not() {
    let name = full(1000);
    let bad = Origin::run(Program::Agave, &[(&name, CUT)]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let settings = format!(
        "proxy_snapshot_cache_dir: '{}'\ncache: {{min_free_space: 0B}}",
        directory.path().display()
    );
    let edge = super::Edge::with(&settings, &[&bad]).await;
    let cached = super::CachedEdge { edge, directory };
    let first = cached.edge.ask(get(&name)).await;
    assert_whole(&first, CUT);
    cached.is_idle().await;
    assert_eq!(cached.files(), [""; 0]);
    eventually("it counts as not there", || async {
        cached.edge.ask(Ask::head("/snapshot.tar.bz2")).await.status == 404
    })
    .await;
    assert_eq!(cached.edge.ask(get(&name)).await.status, 404);
}

/// One target makes things up, and the short names lead to what others have.
#[tokio::test(flavor = "multi_thread")]
async fn short_names_do_not_lead_to_what_is_not_sound() {
    let (older, newer) = (full(1000), full(2000));
    let good = Origin::run(Program::Agave, &[(&older, FULL)]).await;
    let bad = Origin::run(Program::Agave, &[(&newer, CUT)]).await;
    let cached = sharing("prefetch: all", &[&good, &bad]).await;
    eventually("they lead to what is sound", || async {
        let answer = cached.edge.ask(Ask::head("/snapshot.tar.bz2")).await;
        answer.header("location") == Some(&*format!("/{older}"))
    })
    .await;
    cached.holds(&older).await;
    assert_whole(&cached.edge.ask(get(&older)).await, FULL);
    assert_eq!(cached.edge.ask(get(&newer)).await.status, 404);
    assert_eq!(bad.asked("GET", &newer), 1);
}
