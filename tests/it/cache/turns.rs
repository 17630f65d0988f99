//! Clients that break off what fills the cache, and whose turn comes next.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::super::support::body::Content;
use super::super::support::client::Answer;
use super::super::support::edge::Edge;
use super::super::support::origin::{Fault, Origin, Program};
use super::super::support::{full, h2, incremental};
use super::{CachedEdge, STORED, assert_whole, bypass, get, head, settings, status};

/// So large that no socket holds all of it.
const LARGE: Content = Content::new(1, 48 << 20);
const HELD: u64 = 100_000;

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    /// What it did not read is lost.
    Closes,
    Resets,
    /// Having read all that came.
    Quietly,
}

fn leave(stream: TcpStream, how: Leaves) {
    match how {
        Leaves::Closes => {}
        Leaves::Resets => stream.set_zero_linger().expect("an option"),
        Leaves::Quietly => {
            let mut buffer = vec![0; 1 << 16];
            while stream.try_read(&mut buffer).is_ok_and(|count| count > 0) {}
        }
    }
    drop(stream);
}

async fn begin(edge: &Edge, name: &str, number: u8) -> (Answer, TcpStream) {
    get(name).from(number).begin(edge.address).await
}

/// An edge with the times that it has unless told otherwise.
async fn patient(directory: &Path, origin: &Origin) -> Edge {
    let edge = Edge::start(&format!(
        "listen: ['127.0.0.1:0']\nscrape_interval: 100ms\n{}\n\
         target_groups: [{{group: a, static_targets: {{targets: ['{}']}}}}]\n",
        settings(directory),
        origin.address()
    ));
    edge.knows(origin).await;
    edge
}

#[tokio::test(flavor = "multi_thread")]
async fn who_breaks_off_and_asks_again_fills_the_cache() {
    for (name, program) in [
        (full(1000), Program::Sidecar),
        (full(1000), Program::Agave),
        (incremental(900, 1000), Program::Sidecar),
    ] {
        let base = full(900);
        // What an incremental archive is offered with.
        let archives = [(&*name, LARGE), (&*base, Content::new(2, 1000))];
        let archives = if name == full(1000) { &archives[..1] } else { &archives[..] };
        let origin = Origin::run(program, archives).await;
        let directory = tempfile::tempdir().expect("a directory");
        let edge = patient(directory.path(), &origin).await;
        let cached = CachedEdge { edge, directory };
        for (round, how) in [Leaves::Closes, Leaves::Resets, Leaves::Quietly].iter().enumerate() {
            // The target is waited for when the client leaves, or the client is.
            origin.fail((round.is_multiple_of(2)).then_some(Fault::Hold(HELD)));
            for number in [1, 1, 2, 3, 3] {
                let (answer, stream) = begin(&cached.edge, &name, number).await;
                assert_eq!(status(&answer), STORED, "{name} {how:?} {number}: {}", answer.head);
                leave(stream, *how);
            }
        }
        origin.fail(None);
        let answer = cached.edge.ask(get(&name).from(4)).await;
        assert_whole(&answer, LARGE);
        assert_eq!(status(&answer), STORED);
        cached.holds(&name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_breaks_off_over_http_2_makes_room_as_well() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, LARGE)]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let extra = format!("{}\nserver: {{h2c: true}}", settings(directory.path()));
    let edge = Edge::with(&extra, &[&origin]).await;
    for _ in 0..3 {
        drop(h2::begin(edge.address, &format!("/{name}")).await);
        let (answer, stream) = get(&name).begin(edge.address).await;
        assert_eq!(status(&answer), STORED);
        drop(stream);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_does_not_come_is_not_waited_for() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, LARGE)]).await;
    origin.fail(Fault::Hold(HELD));
    let cached = CachedEdge::limited("per_target: 20", &[&origin]).await;
    let (answer, held) = begin(&cached.edge, &name, 1).await;
    assert_eq!(status(&answer), STORED);
    // Another client, the same one, and a client of parts.
    for number in [2, 1] {
        let asked = Instant::now();
        let (answer, stream) = begin(&cached.edge, &name, number).await;
        assert_eq!(status(&answer), bypass("filling"), "client {number}");
        assert!(asked.elapsed() < Duration::from_secs(5), "client {number}");
        drop(stream);
    }
    origin.fail(None);
    let part = cached.edge.ask(get(&name).from(3).with("range", "bytes=5-9")).await;
    assert_eq!((part.status, status(&part)), (206, &*bypass("filling")));
    assert_eq!(status(&cached.edge.ask(head(&name)).await), bypass("head"));
    // What was asked past the cache has taken nothing of it.
    drop(held);
    let answer = cached.edge.ask(get(&name).from(2)).await;
    assert_whole(&answer, LARGE);
    cached.holds(&name).await;
}

/// The first connection begins with everything and is left for parts, which fill nothing: each
/// byte would be read twice.
#[tokio::test(flavor = "multi_thread")]
async fn parts_fill_nothing_and_keep_nobody_from_it() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, LARGE)]).await;
    let cached = CachedEdge::limited("per_target: 20", &[&origin]).await;
    let (answer, stream) = begin(&cached.edge, &name, 1).await;
    assert_eq!(status(&answer), STORED);
    drop(stream);
    for part in 0..4 {
        let range = format!("bytes={}-{}", part * 1000, part * 1000 + 999);
        let answer = cached.edge.ask(get(&name).from(1).with("range", range)).await;
        let known = [bypass("range"), bypass("filling")];
        assert!(known.iter().any(|known| known == status(&answer)), "{}", answer.head);
        assert_eq!(answer.body, LARGE.bytes(part * 1000, part * 1000 + 1000));
    }
    assert_eq!(origin.asked("GET", &name), 5, "no byte of a part was asked for twice");
    let answer = cached.edge.ask(get(&name).from(2)).await;
    assert_whole(&answer, LARGE);
    assert_eq!(status(&answer), STORED);
    cached.holds(&name).await;
}
