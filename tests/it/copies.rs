//! The same name on two origins is not the same bytes, and nobody ever gets a mixture.

use std::collections::BTreeSet;
use std::time::Duration;

use super::support::body::Content;
use super::support::client::{Ask, Ended};
use super::support::edge::Edge;
use super::support::origin::{Fault, Origin, Program};
use super::support::{eventually, full};

const LENGTH: u64 = 200_000;

async fn two_copies() -> (Origin, Origin, Edge, String) {
    let name = full(1000);
    let a = Origin::run(Program::Sidecar, &[(&name, Content::new(1, LENGTH))]).await;
    let b = Origin::run(Program::Sidecar, &[(&name, Content::new(2, LENGTH))]).await;
    let edge = Edge::before(&[&a, &b]).await;
    (a, b, edge, name)
}

/// Which of the two copies a file is; panics for a mixture.
fn whose(file: &[u8]) -> u64 {
    let copies = [1, 2].into_iter().find(|seed| file == Content::new(*seed, LENGTH).all());
    copies.expect("one origin's bytes, all of them")
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_broken_and_resumed_downloads_are_all_of_one_copy() {
    let (_a, _b, edge, name) = two_copies().await;
    let mut seen = BTreeSet::new();
    for round in 0..10_u64 {
        for client in 1..=20_u8 {
            // Somewhere else in each of them, both ends included.
            let at = (round * 20 + u64::from(client)) * 997 % (LENGTH - 2) + 1;
            let path = format!("/{name}");
            let cut = Ask::get(&path).from(client).leave_after(at as usize);
            let mut file = edge.ask(cut).await.body;
            file.truncate(at as usize);
            let rest = Ask::get(&path).from(client).with("range", format!("bytes={at}-"));
            let rest = edge.ask(rest).await;
            assert_eq!((rest.status, rest.ended), (206, Ended::Whole), "client {client} at {at}");
            file.extend(rest.body);
            seen.insert(whose(&file));
        }
    }
    assert_eq!(seen.len(), 2, "both origins were used");
}

#[tokio::test(flavor = "multi_thread")]
async fn aria2_style_ranges_of_one_client_are_all_of_one_copy() {
    let (_a, _b, edge, name) = two_copies().await;
    for client in 1..=20 {
        let mut file = Vec::new();
        for start in (0..LENGTH).step_by(12_500) {
            let range = format!("bytes={start}-{}", start + 12_499);
            let ask = Ask::get(format!("/{name}")).from(client).with("range", range);
            let answer = edge.ask(ask).await;
            assert_eq!(answer.status, 206);
            file.extend(answer.body);
        }
        whose(&file);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blind_resume_is_refused_when_its_copy_is_gone() {
    let (a, b, edge, name) = two_copies().await;
    let path = format!("/{name}");
    for client in 1..=8 {
        let half = edge.ask(Ask::get(&path).from(client).leave_after(1000)).await;
        let tag = half.header("etag").expect("a tag").to_owned();
        let of_a = Content::new(1, LENGTH).matches(0, &half.body);
        let source = if of_a { &a } else { &b };
        source.stop().await;
        let rest = Ask::get(&path).from(client).with("range", "bytes=1000-");
        let refused = edge.ask(rest.clone()).await;
        assert_eq!(refused.status, 503, "not the other copy's bytes, in no form");
        assert!(refused.header("retry-after").is_some());
        // Who says which copy it has can be told that it is gone: by all of the other one.
        let whole = edge.ask(rest.clone().with("if-range", &tag)).await;
        assert_eq!((whole.status, whole.length()), (200, LENGTH));
        assert_eq!(whose(&whole.body), if of_a { 2 } else { 1 });
        // And who starts over has a copy that can be resumed again.
        let other = edge.ask(Ask::get(&path).from(client).leave_after(1000)).await;
        let mut file = other.body;
        file.truncate(1000);
        let rest = edge.ask(rest).await;
        assert_eq!(rest.status, 206);
        file.extend(rest.body);
        assert_eq!(whose(&file), if of_a { 2 } else { 1 });
        source.restart().await;
        eventually("both are back", || async {
            let parsed = name.parse().expect("valid");
            edge.view().sources(&parsed).len() == 2
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn head_and_get_tell_the_same_copy() {
    let name = full(1000);
    let a = Origin::run(Program::Agave, &[(&name, Content::new(1, LENGTH))]).await;
    let b = Origin::run(Program::Agave, &[(&name, Content::new(2, LENGTH + 1))]).await;
    let edge = Edge::before(&[&a, &b]).await;
    let mut lengths = BTreeSet::new();
    for client in 1..=20 {
        let head = edge.ask(Ask::head(format!("/{name}")).from(client)).await;
        let get = edge.ask(Ask::get(format!("/{name}")).from(client)).await;
        assert_eq!(head.length(), get.length());
        assert_eq!(head.header("etag"), get.header("etag"));
        lengths.insert(get.length());
    }
    assert_eq!(lengths.len(), 2, "both origins were used");
}

/// Bytes `start..end` of one of the two copies; which one is the answer.
async fn part(edge: &Edge, name: &str, client: u8, start: u64, end: u64) -> (u16, u64) {
    let range = format!("bytes={start}-{}", end - 1);
    let answer = edge.ask(Ask::get(format!("/{name}")).from(client).with("range", range)).await;
    let is = |seed: &u64| Content::new(*seed, LENGTH).bytes(start, end) == answer.body;
    (answer.status, [1, 2].into_iter().find(is).unwrap_or(0))
}

/// A client that is sent to the first copy, where nothing is wrong. It has had all of it.
async fn client_of_first(edge: &Edge, name: &str) -> u8 {
    for client in 1..=100 {
        let whole = edge.ask(Ask::get(format!("/{name}")).from(client)).await;
        if whose(&whole.body) == 1 {
            return client;
        }
    }
    panic!("no client of a hundred is sent to the first copy");
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_stay_on_the_copy_that_a_failure_led_to() {
    let (a, b, edge, name) = two_copies().await;
    let client = client_of_first(&edge, &name).await;
    // A fails once; the client starts over, and is given a part of B.
    a.fail(Fault::Status(500));
    b.fail(Fault::CloseAfter(90_000));
    let half = edge.ask(Ask::get(format!("/{name}")).from(client)).await;
    let tag = half.header("etag").expect("a tag").to_owned();
    assert!(half.body == Content::new(2, LENGTH).bytes(0, 90_000));
    a.fail(None);
    b.fail(None);
    // A has rested, and is this address' first choice again.
    let before = a.asked("GET", &name);
    eventually("A is back", || async {
        for other in 130..=160 {
            edge.ask(Ask::get(format!("/{name}")).from(other).leave_after(1)).await;
        }
        a.asked("GET", &name) > before
    })
    .await;
    for (start, end) in [(100_000, 100_100), (10, 100), (150_000, 150_001), (100_000, 100_100)] {
        assert_eq!(part(&edge, &name, client, start, end).await, (206, 2), "{start}-{end}");
    }
    let careful = Ask::get(format!("/{name}")).from(client).with("range", "bytes=1000-");
    let careful = edge.ask(careful.with("if-range", &tag)).await;
    assert_eq!(careful.status, 206, "a tag leads to its copy");
    assert!(careful.body == Content::new(2, LENGTH).bytes(1000, LENGTH));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_old_transfer_does_not_change_the_copy() {
    let (a, b, edge, name) = two_copies().await;
    let client = client_of_first(&edge, &name).await;
    let path = format!("/{name}");
    // A transfer of A that hangs for a while and then breaks off.
    a.fail(Fault::StallAfter(1000));
    let sent = a.sent();
    let old = tokio::spawn(Ask::get(&path).from(client).send(edge.address));
    eventually("A was asked", || async { a.sent() > sent }).await;
    // Meanwhile the client gave up on it and begins afresh, which leads to B and breaks off too.
    a.fail(Fault::Status(500));
    b.fail(Fault::CloseAfter(90_000));
    let half = edge.ask(Ask::get(&path).from(client)).await.body;
    assert!(half == Content::new(2, LENGTH).bytes(0, 90_000));
    assert_eq!(old.await.expect("no panic").ended, Ended::Short);
    a.fail(None);
    b.fail(None);
    assert_eq!(part(&edge, &name, client, 90_000, 91_000).await, (206, 2));
    assert_eq!(part(&edge, &name, client, 150_000, 151_000).await, (206, 2));
    // What goes on just where A ended may be of either.
    assert_eq!(part(&edge, &name, client, 1000, 2000).await.0, 503);
    b.stop().await;
    assert_eq!(part(&edge, &name, client, 150_000, 151_000).await.0, 503, "out of reach");
    b.restart().await;
    b.remove(&name);
    assert_eq!(part(&edge, &name, client, 150_000, 151_000).await.0, 503, "gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_asked_side_by_side_are_of_one_copy_though_its_source_fails_some() {
    let (a, b, edge, name) = two_copies().await;
    a.fail(Fault::EverySecond);
    // All parts are under way before the first one is answered.
    a.slow_down(Duration::from_millis(100));
    b.slow_down(Duration::from_millis(100));
    for client in 1..=20 {
        // Nothing is remembered of these clients, and all of their parts are asked at once.
        let parts: Vec<_> = (0..8)
            .map(|at| {
                let range = format!("bytes={}-{}", at * 25_000, at * 25_000 + 24_999);
                let ask = Ask::get(format!("/{name}")).from(client).with("range", range);
                tokio::spawn(ask.send(edge.address))
            })
            .collect();
        let mut copies = BTreeSet::new();
        for (at, part) in (0..).zip(parts) {
            let answer = part.await.expect("no panic");
            if answer.status == 206 && answer.ended == Ended::Whole {
                let offset = at * 25_000;
                let is = |seed: &u64| Content::new(*seed, LENGTH).matches(offset, &answer.body);
                copies.insert([1, 2].into_iter().find(is).expect("one origin's bytes"));
            }
        }
        assert_eq!(copies.len(), 1, "client {client}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resting_target_is_still_the_one_to_resume_from() {
    let name = full(1000);
    let mut origins = Vec::new();
    for seed in 1..=10 {
        let content = Content::new(seed, LENGTH);
        origins.push(Origin::run(Program::Sidecar, &[(&name, content)]).await);
    }
    let edge = Edge::before(&origins.iter().collect::<Vec<_>>()).await;
    let path = format!("/{name}");
    let half = edge.ask(Ask::get(&path).from(1).leave_after(1000)).await;
    let own = (1..=10).find(|seed| Content::new(*seed, LENGTH).matches(0, &half.body));
    let own = own.expect("one of them");
    let origin = &origins[usize::try_from(own - 1).expect("small")];
    // It fails for somebody else, so it is the last of ten in every order.
    origin.fail(Fault::Status(500));
    eventually("it failed", || async {
        for client in 100..=150 {
            edge.ask(Ask::get(&path).from(client).leave_after(1)).await;
        }
        origin.asked("GET", &name) > 1
    })
    .await;
    origin.fail(None);
    let rest = edge.ask(Ask::get(&path).from(1).with("range", "bytes=1000-")).await;
    assert_eq!(rest.status, 206);
    assert!(rest.body == Content::new(own, LENGTH).bytes(1000, LENGTH));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_short_form_goes_on_with_the_archive_it_began_with() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, Content::new(1, LENGTH))]).await;
    let edge = Edge::before(&[&origin]).await;
    let short = "/snapshot.tar.bz2";
    edge.ask(Ask::get(format!("/{name}")).from(1).leave_after(1000)).await;
    origin.add(&full(2000), Content::new(2, LENGTH));
    edge.knows(&origin).await;
    let location = |ask: Ask| async { edge.ask(ask).await.header("location").map(str::to_owned) };
    let (old, new) = (format!("/{name}"), format!("/{}", full(2000)));
    let part = Ask::get(short).with("range", "bytes=1000-1999");
    assert_eq!(location(part.clone().from(1)).await, Some(old), "as aria2 retries");
    assert_eq!(location(part.clone().from(2)).await, Some(new.clone()), "who began nothing");
    assert_eq!(location(Ask::get(short).from(1)).await, Some(new.clone()), "who starts over");
    origin.remove(&name);
    eventually("the old one is gone", || async {
        edge.view().sources(&name.parse().expect("valid")).is_empty()
    })
    .await;
    assert_eq!(location(part.from(1)).await, Some(new));
}
