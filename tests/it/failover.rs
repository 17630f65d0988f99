//! A source that fails is replaced while nothing went down, and never after.

use std::time::Duration;

use super::support::body::Content;
use super::support::client::{Ask, Ended};
use super::support::edge::Edge;
use super::support::origin::{Fault, Origin, Program};
use super::support::{eventually, full};
use tokio::io::AsyncReadExt;

const LENGTH: u64 = 300_000;

/// Two sidecars with different bytes under one name, and the number of a client that is sent to
/// the first one.
struct Pair {
    edge: Edge,
    first: Origin,
    second: Origin,
    name: String,
    client: u8,
}

fn bytes_of_first() -> Vec<u8> {
    Content::new(1, LENGTH).all()
}

fn bytes_of_second() -> Vec<u8> {
    Content::new(2, LENGTH).all()
}

impl Pair {
    async fn new() -> Self {
        let name = full(1000);
        let first = Origin::run(Program::Sidecar, &[(&name, Content::new(1, LENGTH))]).await;
        let second = Origin::run(Program::Sidecar, &[(&name, Content::new(2, LENGTH))]).await;
        let edge = Edge::before(&[&first, &second]).await;
        for client in 1..=100 {
            let answer = edge.ask(Ask::get(format!("/{name}")).from(client)).await;
            if answer.body == bytes_of_first() {
                return Self { edge, first, second, name, client };
            }
        }
        panic!("no client of a hundred is sent to the first origin");
    }

    fn ask(&self) -> Ask {
        Ask::get(format!("/{}", self.name)).from(self.client)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_source_delivers_when_the_first_one_does_not() {
    let other = "http://127.0.0.1:1/elsewhere".to_owned();
    let path = format!("/v1/snapshot/{}", full(1000));
    for fault in [
        Fault::StallBeforeHead,
        Fault::Status(500),
        Fault::Status(503),
        Fault::Status(404),
        Fault::Status(202),
        Fault::Status(206),
        Fault::Status(403),
        Fault::Html,
        Fault::HtmlOfRightLength,
        Fault::Empty,
        Fault::Longer(1),
        Fault::Chunked,
        Fault::CloseDelimited,
        Fault::Encoded,
        Fault::Redirect(other),
        Fault::Redirect(path),
    ] {
        let pair = Pair::new().await;
        pair.first.fail(fault.clone());
        let before = pair.first.asked("GET", &pair.name);
        let answer = pair.edge.ask(pair.ask()).await;
        assert_eq!((answer.status, answer.ended), (200, Ended::Whole), "{fault:?}");
        assert!(answer.body == bytes_of_second(), "{fault:?}");
        assert_eq!(pair.first.asked("GET", &pair.name), before + 1, "{fault:?} was met");
        // It rests for a second or so, and then it is this client's source again.
        pair.first.fail(None);
        eventually("the first source comes back", || async {
            pair.edge.ask(pair.ask()).await.body == bytes_of_first()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_is_the_sources_failure() {
    let pair = Pair::new().await;
    pair.first.stop().await;
    for _ in 0..3 {
        let answer = pair.edge.ask(pair.ask()).await;
        assert_eq!((answer.status, answer.ended), (200, Ended::Whole));
        assert!(answer.body == bytes_of_second());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_is_an_error_and_never_a_clean_end() {
    for fault in [
        Fault::CloseAfter(LENGTH / 2),
        Fault::ResetAfter(LENGTH / 2),
        Fault::StallAfter(LENGTH / 2),
        Fault::CloseAfter(1),
        Fault::CloseAfter(LENGTH - 1),
    ] {
        let pair = Pair::new().await;
        pair.first.fail(fault.clone());
        let answer = pair.edge.ask(pair.ask()).await;
        assert_eq!((answer.status, answer.length()), (200, LENGTH), "{fault:?}");
        assert_eq!(answer.ended, Ended::Short, "{fault:?}");
        assert!(bytes_of_first().starts_with(&answer.body), "{fault:?}: bytes were joined");
        let next = pair.edge.ask(pair.ask()).await;
        assert_eq!((next.status, next.ended), (200, Ended::Whole), "the source rests: {fault:?}");
        assert!(next.body == bytes_of_second(), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_fail_the_client_is_told_why() {
    for (fault, status) in [
        (Fault::Status(404), 404),
        (Fault::Status(500), 502),
        (Fault::Longer(7), 502),
        (Fault::Html, 502),
        (Fault::Redirect("/x".to_owned()), 502),
        (Fault::StallBeforeHead, 504),
    ] {
        let pair = Pair::new().await;
        pair.first.fail(fault.clone());
        pair.second.fail(fault.clone());
        let answer = pair.edge.ask(pair.ask()).await;
        assert_eq!((answer.status, answer.ended), (status, Ended::Whole), "{fault:?}");
        assert!(answer.body.len() < 200, "{fault:?}");
    }
    let pair = Pair::new().await;
    pair.first.stop().await;
    pair.second.stop().await;
    assert_eq!(pair.edge.ask(pair.ask()).await.status, 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn gone_on_one_and_broken_on_the_other_is_not_a_404() {
    let pair = Pair::new().await;
    pair.first.fail(Fault::Status(500));
    pair.second.fail(Fault::Status(404));
    assert_eq!(pair.edge.ask(pair.ask()).await.status, 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_targets_own_404_takes_the_source_out_of_the_index() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, Content::new(1, 1000))]).await;
    let edge = Edge::before(&[&origin]).await;
    // No probe may put it back, nor take it out, while this test looks.
    origin.fail_probes(Fault::StallBeforeHead);
    eventually("the last probe is over", || async {
        origin.seen().last().is_some_and(|last| origin.listing_stalls(last))
    })
    .await;
    origin.fail(Fault::Status(404));
    assert_eq!(edge.get(&format!("/{name}")).await.status, 404);
    let parsed = name.parse().expect("valid");
    edge.sees("the source is gone", |view| view.sources(&parsed).is_empty()).await;
    let before = origin.asked("GET", &name);
    assert_eq!(edge.get(&format!("/{name}")).await.status, 404);
    assert_eq!(origin.asked("GET", &name), before, "answered from memory");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_drip_arrives_whole() {
    let name = full(1000);
    let content = Content::new(1, 2000);
    let origin = Origin::run(Program::Agave, &[(&name, content)]).await;
    let edge = Edge::before(&[&origin]).await;
    // Longer in all than the read time-out, which counts silence only.
    origin.fail(Fault::Drip { bytes: 100, pause: Duration::from_millis(60) });
    let answer = edge.get(&format!("/{name}")).await;
    assert_eq!((answer.status, answer.ended), (200, Ended::Whole));
    assert!(answer.body == content.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_is_not_the_targets_fault() {
    let pair = Pair::new().await;
    for _ in 0..5 {
        let answer = pair.edge.ask(pair.ask().leave_after(10_000)).await;
        assert_eq!((answer.status, answer.ended), (200, Ended::Left));
        assert!(bytes_of_first().starts_with(&answer.body));
    }
    // Another client, of which nothing is remembered, is still sent where its address belongs.
    let seen = pair.first.asked("GET", &pair.name);
    for client in 101..=120 {
        pair.edge.ask(Ask::get(format!("/{}", pair.name)).from(client)).await;
    }
    assert!(pair.first.asked("GET", &pair.name) > seen, "the first origin does not rest");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_cut_for_its_slowness_puts_no_target_to_rest() {
    let name = full(1000);
    let content = Content::new(1, 30_000_000);
    let origin = Origin::run(Program::Agave, &[(&name, content)]).await;
    let other = Origin::run(Program::Agave, &[(&name, content)]).await;
    let edge = Edge::before(&[&origin, &other]).await;
    // Both cut what is not read for a while, as Firedancer and Agave do.
    for origin in [&origin, &other] {
        origin.fail(Fault::CutSlowReaders(Duration::from_secs(4)));
    }
    let (head, mut stream) = Ask::get(format!("/{name}")).begin(edge.address).await;
    assert_eq!(head.status, 200);
    let mut received = head.body.len() as u64;
    // The pause is what is tested: longer than both of them wait.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let mut block = vec![0; 1 << 20];
    while let Ok(count @ 1..) = stream.read(&mut block).await {
        received += count as u64;
    }
    assert!(received < content.len, "it was cut, and the end was not clean");
    for origin in [&origin, &other] {
        origin.fail(None);
    }
    let before = (origin.asked("GET", &name), other.asked("GET", &name));
    // So many that one of them is sent to whichever is thought slow by now; none would be to one
    // that rests.
    for client in 1..=200 {
        let ask = Ask::get(format!("/{name}")).from(client).leave_after(1000);
        assert_eq!(edge.ask(ask).await.status, 200);
    }
    assert!(origin.asked("GET", &name) > before.0, "neither of them rests");
    assert!(other.asked("GET", &name) > before.1, "neither of them rests");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_refuses_head_is_answered_for() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, Content::new(1, 1000))]).await;
    let edge = Edge::before(&[&origin]).await;
    origin.fail_heads(405);
    let head = edge.ask(Ask::head(format!("/{name}"))).await;
    let get = edge.get(&format!("/{name}")).await;
    assert_eq!((head.status, head.length()), (200, 1000));
    assert_eq!(head.header("etag"), get.header("etag"));
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_answers_are_no_answer() {
    let pair = Pair::new().await;
    pair.first.fail(Fault::Interim(Duration::from_millis(100)));
    let start = std::time::Instant::now();
    let answer = pair.edge.ask(pair.ask()).await;
    assert_eq!((answer.status, answer.ended), (200, Ended::Whole));
    assert!(answer.head.starts_with("HTTP/1.1 200"), "{}", answer.head);
    assert!(answer.body == bytes_of_second());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
