//! nginx with `slice` before the edge: its requests were recorded from 1.22.1, what it does with
//! the answers is in its `ngx_http_slice_filter_module.c`.
//!
//! It asks for the parts of a file one after the other, each on a connection of its own, without
//! `if-range`. Of each answer it compares `etag` with that of the first one, and breaks its client
//! off where they differ. All of its clients come from one address. What it does with a real one in
//! front can be seen so: two nodes, `curl -o file` through nginx, one of the two is killed, then
//! `curl -C -` and `curl` again.
//!
//! ```text
//! proxy_cache_path /tmp/slices keys_zone=slices:1m;
//! server {
//!   listen 127.0.0.1:8080;
//!   location / {
//!     slice 1m;
//!     proxy_cache slices;
//!     proxy_cache_key $uri$slice_range;
//!     proxy_cache_valid 200 206 20s;
//!     proxy_set_header Range $slice_range;
//!     proxy_http_version 1.1;
//!     proxy_pass http://127.0.0.1:8458;
//!   }
//! }
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::super::support::body::Content;
use super::super::support::client::Answer;
use super::super::support::edge::Edge;
use super::super::support::full;
use super::super::support::origin::{Origin, Program};
use super::Wire;

const SLICE: u64 = 100_000;
const SLICES: u64 = 12;
const LENGTH: u64 = SLICE * SLICES - 7;
/// Longest that a download may be refused after the death of a node, where it begins anew.
const A_MINUTE: Duration = Duration::from_secs(60);

fn get(name: &str, slice: u64, to: SocketAddr) -> String {
    let (first, last) = (slice * SLICE, slice * SLICE + SLICE - 1);
    format!(
        "GET /{name} HTTP/1.1\r\nRange: bytes={first}-{last}\r\nHost: {to}\r\n\
         Connection: close\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n"
    )
}

/// How a client of nginx fares.
#[derive(Debug, PartialEq, Eq)]
enum Fares {
    /// It has all of it.
    Done,
    /// An error came in place of the file.
    Refused(u16),
    /// It was broken off, with so many slices.
    Broken(u64),
}

/// What nginx gives a client from a slice on, and what comes after `each` of them.
async fn download(
    edge: &Edge,
    name: &str,
    from: u64,
    file: &mut Vec<u8>,
    mut each: impl AsyncFnMut(u64, &Answer),
) -> Fares {
    let mut tag: Option<String> = None;
    for slice in from..SLICES {
        let mut wire = Wire::from(7, edge.address).await;
        let answer = wire.ask(&get(name, slice, edge.address)).await;
        let found = answer.header("etag").map(str::to_owned);
        if answer.status != 206 || tag.as_ref().is_some_and(|tag| Some(tag) != found.as_ref()) {
            return if slice == from {
                Fares::Refused(answer.status)
            } else {
                Fares::Broken(slice)
            };
        }
        tag = found;
        file.extend(&answer.body);
        each(slice, &answer).await;
    }
    Fares::Done
}

fn content(node: usize) -> Content {
    Content::new(node as u64 + 1, LENGTH)
}

async fn nothing(_: u64, _: &Answer) {}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_goes_on_with_the_other_copy_after_its_node_died() {
    let name = full(1000);
    let nodes = [
        Origin::run(Program::Sidecar, &[(&name, content(0))]).await,
        Origin::run(Program::Sidecar, &[(&name, content(1))]).await,
    ];
    let edge = Edge::before(&[&nodes[0], &nodes[1]]).await;
    let mut own = 0;
    let mut file = Vec::new();
    let fares = download(&edge, &name, 0, &mut file, async |slice, answer: &Answer| {
        if slice == 5 {
            let start = slice * SLICE;
            own = (0..2).position(|node| content(node).matches(start, &answer.body)).expect("one");
            nodes[own].stop().await;
        }
    })
    .await;
    assert_eq!(fares, Fares::Broken(6));
    assert!(file == content(own).bytes(0, 6 * SLICE));
    // The client has that much and goes on, as `curl -C -` does: nginx asks from a slice on.
    for slice in [3, 5, 6] {
        let fares = download(&edge, &name, slice, &mut Vec::new(), nothing).await;
        assert_eq!(fares, Fares::Refused(503), "from slice {slice}");
    }
    // Whoever begins has all of the other copy within a minute.
    let died = Instant::now();
    let mut anew = Vec::new();
    while download(&edge, &name, 0, &mut anew, nothing).await != Fares::Done {
        assert!(died.elapsed() < A_MINUTE, "it does not heal");
        anew.clear();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("all of the other copy after {:?}", died.elapsed());
    assert!(anew == content(1 - own).all());
    // The one that is half-way is still not given bytes of that.
    for slice in [3, 5, 6] {
        let fares = download(&edge, &name, slice, &mut Vec::new(), nothing).await;
        assert_eq!(fares, Fares::Refused(503), "from slice {slice}");
    }
}

/// Two clients of nginx at once, at different places, of which each goes on where it is.
#[tokio::test(flavor = "multi_thread")]
async fn two_clients_of_nginx_get_each_all_of_one_copy() {
    let name = full(1000);
    let nodes = [
        Origin::run(Program::Sidecar, &[(&name, content(0))]).await,
        Origin::run(Program::Sidecar, &[(&name, content(1))]).await,
    ];
    let edge = Edge::before(&[&nodes[0], &nodes[1]]).await;
    for round in 0..10 {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let (edge, name) = (&edge, &name);
        let pause = async |_: u64, _: &Answer| tokio::time::sleep(Duration::from_millis(3)).await;
        let late = async {
            tokio::time::sleep(Duration::from_millis(round * 7)).await;
            download(edge, name, 0, &mut second, nothing).await
        };
        let fares = tokio::join!(download(edge, name, 0, &mut first, pause), late);
        assert_eq!(fares, (Fares::Done, Fares::Done));
        for file in [first, second] {
            assert!((0..2).any(|node| content(node).all() == file), "a mixture");
        }
    }
}
