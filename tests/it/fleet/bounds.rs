//! The bound on transfers from one target, and those who wait for one.

use std::time::{Duration, Instant};

use super::{ask_from, assert_whole, begin, get, hold, holding, release, transfers};
use crate::support::body::Content;
use crate::support::client::Ask;
use crate::support::edge::Edge;
use crate::support::origin::{Fault, Origin, Program};
use crate::support::{eventually, full};

const MORE: &str = "per_client_transfers: 1000, queue_wait: 60s";

#[tokio::test(flavor = "multi_thread")]
async fn each_target_carries_four_of_200_clients_and_the_others_wait_for_their_turn() {
    let name = full(1000);
    let origins = holding(&name, 2).await;
    let edge = Edge::limited(MORE, "", &origins.iter().collect::<Vec<_>>()).await;
    let clients = ask_from(&edge, &name, 1..=200);
    eventually("both carry what they may", || async { transfers(&origins) == [(4, 4), (4, 4)] })
        .await;
    // None of these is a transfer.
    for ask in [Ask::head(format!("/{name}")), Ask::get("/snapshot.tar.bz2"), Ask::get("/health")] {
        let answer = edge.ask(ask).await;
        assert!(matches!(answer.status, 200 | 303), "{}", answer.head);
    }
    release(&origins);
    let mut from = [0, 0];
    for client in clients {
        from[assert_whole(&client.await.expect("no panic"), 2)] += 1;
    }
    assert_eq!(transfers(&origins), [(0, 4), (0, 4)], "never more, and none is left");
    assert!(from.iter().all(|count| *count >= 4), "{from:?}");
    let asked: usize = origins.iter().map(|origin| origin.asked("GET", &name)).sum();
    assert_eq!(asked, 200, "nobody asked twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_waited_long_enough_is_told_when_to_come_back() {
    let name = full(1000);
    let origins = holding(&name, 1).await;
    let edge = Edge::limited("per_target: 2, queue_wait: 300ms", "", &[&origins[0]]).await;
    let clients = ask_from(&edge, &name, 1..=2);
    eventually("both are served", || async { origins[0].transfers().0 == 2 }).await;
    let began = Instant::now();
    let refused = edge.ask(get(&name).from(3)).await;
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("10")));
    let text = String::from_utf8(refused.body).expect("text");
    let expected = "every target that holds this archive carries as many transfers as it may\n";
    assert_eq!(text, expected);
    assert_eq!(edge.ask(Ask::head(format!("/{name}"))).await.status, 200);
    release(&origins);
    for client in clients {
        assert_whole(&client.await.expect("no panic"), 1);
    }
    assert_whole(&edge.ask(get(&name).from(3)).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_slot_is_lost_in_200_rounds_of_clients_that_vanish() {
    let name = full(1000);
    let origins = holding(&name, 1).await;
    let limits = format!("per_target: 4, {MORE}");
    let edge = Edge::limited(&limits, "", &[&origins[0]]).await;
    for round in 0..200_u64 {
        let mut served = Vec::new();
        for client in 1..=4 {
            served.push(begin(&edge, &name, client).await);
        }
        // These two get no head, and are gone before there is one.
        let waiting = ask_from(&edge, &name, 5..=6);
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
        // In one of three rounds the transfers end by themselves, at the same time.
        if round % 3 == 0 {
            release(&origins);
            hold(&origins);
        }
        drop(served);
    }
    eventually("nobody is left", || async { origins[0].transfers().0 == 0 }).await;
    // Connections that were left were counted until the origin saw that.
    origins[0].forget_most();
    let clients = ask_from(&edge, &name, 1..=9);
    eventually("all slots are there", || async { origins[0].transfers().0 == 4 }).await;
    release(&origins);
    for client in clients {
        assert_whole(&client.await.expect("no panic"), 1);
    }
    assert_eq!(origins[0].transfers(), (0, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_waits_for_the_copy_that_it_belongs_to() {
    let name = full(1000);
    let origins = holding(&name, 2).await;
    let edge =
        Edge::limited("per_target: 1, queue_wait: 60s", "", &[&origins[0], &origins[1]]).await;
    let (_, first) = begin(&edge, &name, 1).await;
    eventually("one is busy", || async { transfers(&origins).iter().any(|(now, _)| *now == 1) })
        .await;
    let busy = usize::from(origins[1].transfers().0 == 1);
    let part = get(&name).from(1).with("range", "bytes=100-199");
    let part = tokio::spawn(part.send(edge.address));
    // Another client gets the copy that is free.
    let other = begin(&edge, &name, 2).await;
    assert_eq!(transfers(&origins), [(1, 1), (1, 1)]);
    release(&origins[busy..=busy]);
    drop(first);
    let part = part.await.expect("no panic");
    assert_eq!(part.status, 206, "{}", part.head);
    assert_eq!(part.body, Content::new(busy as u64, super::LENGTH).bytes(100, 200));
    assert_eq!(origins[1 - busy].asked("GET", &name), 1);
    drop(other);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_waits_for_the_copy_that_it_names() {
    let name = full(1000);
    let origins = holding(&name, 2).await;
    let limits = "per_target: 1, queue_wait: 60s";
    let edge = Edge::limited(limits, "", &[&origins[0], &origins[1]]).await;
    let (first, held) = begin(&edge, &name, 1).await;
    let busy = usize::from(origins[1].transfers().0 == 1);
    let part = get(&name).from(2).with("range", "bytes=100-199");
    let part = part.with("if-range", first.header("etag").expect("a tag"));
    let part = tokio::spawn(part.send(edge.address));
    // Somebody else is served meanwhile, by the other one.
    let (other, _stream) = begin(&edge, &name, 3).await;
    assert_ne!(first.header("etag"), other.header("etag"));
    assert!(!part.is_finished());
    release(&origins[busy..=busy]);
    drop(held);
    let part = part.await.expect("no panic");
    assert_eq!(part.status, 206, "{}", part.head);
    assert_eq!(part.body, Content::new(busy as u64, super::LENGTH).bytes(100, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_copy_that_is_gone_is_refused_at_once() {
    let name = full(1000);
    let origins = holding(&name, 2).await;
    let limits = "per_target: 1, queue_wait: 60s";
    let edge = Edge::limited(limits, "", &[&origins[0], &origins[1]]).await;
    let (_, held) = begin(&edge, &name, 1).await;
    let begun = usize::from(origins[1].transfers().0 == 1);
    release(&origins);
    drop(held);
    origins[begun].remove(&name);
    edge.sees("one of them", |view| view.sources(&name.parse().unwrap()).len() == 1).await;
    let asked = Instant::now();
    let part = edge.ask(get(&name).from(1).with("range", "bytes=100-199")).await;
    assert_eq!(part.status, 503);
    let text = String::from_utf8(part.body).expect("text");
    assert!(text.starts_with("the copy of this archive that the download began with"), "{text}");
    assert!(asked.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_into_the_cache_takes_a_slot_like_any_other() {
    let (name, other) = (full(1000), full(900));
    let content = Content::new(7, super::LENGTH);
    let origin = Origin::run(Program::Sidecar, &[(&name, content), (&other, content)]).await;
    origin.fail(Fault::Hold(super::HELD));
    let directory = tempfile::tempdir().expect("a directory");
    let cache = format!(
        "proxy_snapshot_cache_dir: '{}'\n\
         cache: {{sharing: shared, min_free_space: 0B, verify: length}}",
        directory.path().display()
    );
    let edge = Edge::limited("per_target: 1, queue_wait: 300ms", &cache, &[&origin]).await;
    let clients = ask_from(&edge, &name, 1..=20);
    eventually("it is fetched once", || async { origin.transfers().0 == 1 }).await;
    assert_eq!(edge.ask(get(&other).from(30)).await.status, 503);
    origin.fail(None);
    for client in clients {
        let answer = client.await.expect("no panic");
        assert_eq!(answer.status, 200, "{}", answer.head);
        assert!(answer.body == content.all());
    }
    let answer = edge.ask(get(&other).from(30)).await;
    assert_eq!(answer.status, 200, "{}", answer.head);
    assert_eq!(origin.transfers(), (0, 1));
    // And the other way round.
    let newer = full(1100);
    origin.add(&newer, content);
    edge.knows(&origin).await;
    origin.fail(Fault::Hold(super::HELD));
    let (_, held) = begin(&edge, &other, 31).await;
    let refused = edge.ask(get(&newer).from(32)).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("10")));
    // It still waits, for everyone, and nobody gets it past the cache meanwhile.
    drop(held);
    origin.fail(None);
    eventually("it is fetched", || async {
        let answer = edge.ask(get(&newer).from(32)).await;
        let status = answer.header("cache-status").unwrap_or_default().to_owned();
        assert!(!status.contains("bypass"), "{status}");
        answer.status == 200
    })
    .await;
    assert_eq!(origin.asked("GET", &newer), 1);
}
