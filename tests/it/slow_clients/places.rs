//! `max_connections` and `per_client_connections`.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::support::body::Content;
use super::super::support::client::connect;
use super::super::support::edge::Edge;
use super::super::support::eventually;
use super::super::support::full;
use super::super::support::origin::{Origin, Program};
use super::{address, answer, ask, bounded, empties, request};

const SHORT: &str = "/snapshot.tar.bz2";

async fn origin() -> Origin {
    Origin::run(Program::Agave, &[(&full(1000), Content::new(1, 20_000_000))]).await
}

/// A connection that is served, or none where it is closed unread.
async fn served(edge: &Edge, from: usize) -> Option<TcpStream> {
    let mut stream = connect(address(from), edge.address).await;
    // It may be closed before this is written, or read.
    let _ = stream.write_all(request("GET", SHORT).as_bytes()).await;
    let mut first = [0];
    let heard = tokio::time::timeout(Duration::from_secs(10), stream.peek(&mut first)).await;
    match heard.expect("an answer or an end") {
        Ok(1) => {
            assert_eq!(answer(&mut stream, false).await.status, 303);
            Some(stream)
        }
        Ok(_) | Err(_) => None,
    }
}

/// How many of so many more connections are served, and those.
async fn more(edge: &Edge, count: usize, from: impl Fn(usize) -> usize) -> Vec<TcpStream> {
    let mut there = Vec::new();
    for at in 0..count {
        there.extend(served(edge, from(at)).await);
    }
    there
}

#[tokio::test(flavor = "multi_thread")]
async fn max_connections_are_served_and_not_one_more() {
    let origin = origin().await;
    let edge = bounded("max_connections: 40", "", &[&origin]).await;
    let mut there = more(&edge, 90, |at| at).await;
    assert_eq!((there.len(), edge.places.open(), edge.places.clients()), (40, 40, 40));
    there.truncate(33);
    eventually("seven are given back", || async { edge.places.open() == 33 }).await;
    let seven = more(&edge, 20, |at| at).await;
    assert_eq!((seven.len(), edge.places.open()), (7, 40));
    for stream in &mut there {
        assert_eq!(ask(stream, "HEAD", SHORT).await.status, 303, "who is in is served on");
    }
    drop((there, seven));
    empties(&edge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn per_client_connections_are_served_and_not_one_more() {
    let origin = origin().await;
    let edge = bounded("per_client_connections: 10", "", &[&origin]).await;
    let mut one = more(&edge, 25, |_| 1).await;
    assert_eq!((one.len(), edge.places.open(), edge.places.clients()), (10, 10, 1));
    let other = more(&edge, 5, |_| 2).await;
    assert_eq!((other.len(), edge.places.clients()), (5, 2), "another client has its own");
    one.truncate(6);
    eventually("four are given back", || async { edge.places.open() == 11 }).await;
    let four = more(&edge, 9, |_| 1).await;
    assert_eq!(four.len(), 4);
    drop((one, four, other));
    empties(&edge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn max_connections_hold_for_all_that_come_at_once() {
    let enough = snapedge::fd_limit::raise();
    assert!(enough > 3000, "{enough} open files are too few for this test");
    let origin = origin().await;
    let edge = Arc::new(bounded("max_connections: 100", "", &[&origin]).await);
    let one = |at| {
        let edge = Arc::clone(&edge);
        tokio::spawn(async move { served(&edge, at).await })
    };
    let clients: Vec<_> = (0..1000).map(one).collect();
    let mut there = Vec::new();
    for client in clients {
        there.extend(client.await.expect("no panic"));
    }
    assert_eq!((there.len(), edge.places.open()), (100, 100));
    drop(there);
    empties(&edge).await;
}

/// A client that vanishes, each time in another way.
async fn vanish(edge: &Edge, round: usize) {
    let mut stream = connect(address(round), edge.address).await;
    let archive = request("GET", &format!("/{}", full(1000)));
    let bytes = match round % 6 {
        0 => String::new(),
        1 => "GET / HT".to_owned(),
        2 | 3 => archive,
        4 => request("GET", SHORT),
        _ => format!("{}GET /", request("GET", SHORT)),
    };
    // Whether there was a place is of no matter.
    let _ = stream.write_all(bytes.as_bytes()).await;
    if round % 6 > 1 {
        let _ = stream.read(&mut [0; 1000]).await;
    }
    if round.is_multiple_of(2) {
        stream.set_zero_linger().expect("a reset");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn places_come_back_from_clients_that_vanish() {
    let origin = origin().await;
    let edge = bounded("max_connections: 8", "", &[&origin]).await;
    for round in 0..200 {
        vanish(&edge, round).await;
    }
    empties(&edge).await;
    let there = more(&edge, 12, |at| at).await;
    assert_eq!(there.len(), 8, "none is lost");
    drop(there);
    empties(&edge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_says_nothing_and_leaves_costs_no_place() {
    let origin = origin().await;
    let edge = bounded("max_connections: 8, header_timeout: 1h", "", &[&origin]).await;
    for round in 0..300 {
        drop(connect(address(round), edge.address).await);
    }
    empties(&edge).await;
    assert!(served(&edge, 0).await.is_some());
}
