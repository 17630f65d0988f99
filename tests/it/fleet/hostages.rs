//! Clients that take next to nothing of what they hold, and those who wait for it.
//!
//! `SNAPEDGE_HOSTAGES` is for how many seconds the attacks go on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::{get, transfers};
use crate::support::body::Content;
use crate::support::client::{Ask, Ended};
use crate::support::edge::Edge;
use crate::support::origin::{Origin, Program};
use crate::support::{eventually, full};

/// So large that no socket holds all of it.
const LARGE: u64 = 40 << 20;
/// What a hostage taker reads in one second.
const TAKEN: usize = 75_000;

fn seconds() -> u64 {
    std::env::var("SNAPEDGE_HOSTAGES").ok().and_then(|text| text.parse().ok()).unwrap_or(4)
}

/// As many origins with a copy each of the same archive, and of an older one.
async fn nodes(names: [&str; 2], count: u64) -> Vec<Origin> {
    let mut origins = Vec::new();
    for seed in 0..count {
        let archives = names.map(|name| (name, Content::new(seed, LARGE)));
        origins.push(Origin::run(Program::Sidecar, &archives).await);
    }
    origins
}

/// A connection that holds little by itself.
async fn connect(number: u8, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(16 << 10)?;
    socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 1, number)), 0))?;
    socket.connect(to).await
}

/// Asks for an archive, takes a little of it, and asks again when it is left.
async fn take_hostage(to: SocketAddr, number: u8, path: String, range: Option<String>) {
    let range = range.map(|range| format!("range: bytes={range}\r\n")).unwrap_or_default();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {to}\r\n{range}\r\n");
    let mut buffer = [0; TAKEN / 10];
    loop {
        let Ok(mut stream) = connect(number, to).await else { continue };
        if stream.write_all(request.as_bytes()).await.is_ok() {
            while let Ok(1..) = stream.read(&mut buffer).await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Honest clients, one after the other, for as long as the attack goes on; none of them waits
/// longer than it may, or gets less than everything.
async fn are_served(edge: &Edge, name: &str, wait: Duration) {
    let (began, mut served, mut longest) = (Instant::now(), 0, Duration::ZERO);
    while began.elapsed() < Duration::from_secs(seconds()) {
        let number = 10 + u8::try_from(served % 100).expect("below 100");
        let asked = Instant::now();
        let (answer, mut stream) = get(name).from(number).begin(edge.address).await;
        longest = longest.max(asked.elapsed());
        assert_eq!(answer.status, 200, "after {served}: {}", answer.head);
        let mut rest = Vec::new();
        let left = LARGE - answer.body.len() as u64;
        (&mut stream).take(left).read_to_end(&mut rest).await.expect("all of it");
        assert_eq!(rest.len() as u64, left, "after {served}");
        served += 1;
    }
    println!("{served} honest clients, the longest wait was {longest:?}");
    assert!(served > 0 && longest < wait + Duration::from_secs(1), "{longest:?}");
}

/// Twelve connections of one address, before three nodes of which each carries four.
async fn attack(extra: &str, name: &str, wanted: &str, range: Option<&str>) {
    let origins = nodes([name, wanted], 3).await;
    let all: Vec<&Origin> = origins.iter().collect();
    let edge = Edge::limited("per_target: 4", extra, &all).await;
    let mut attack = JoinSet::new();
    for _ in 0..12 {
        let range = range.map(str::to_owned);
        attack.spawn(take_hostage(edge.address, 1, format!("/{name}"), range));
    }
    if extra.is_empty() && range.is_none() {
        eventually("all slots are held", || async {
            transfers(&origins).iter().map(|(now, _)| now).sum::<usize>() == 12
        })
        .await;
    }
    are_served(&edge, wanted, Duration::from_secs(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_that_are_held_by_one_address_are_given_to_others() {
    let name = full(1000);
    attack("", &name, &name, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_are_those_that_are_held_by_parts() {
    let (name, other) = (full(1000), full(900));
    attack("", &name, &other, Some("1000-")).await;
}

fn cache(sharing: &str, directory: &tempfile::TempDir) -> String {
    format!(
        "proxy_snapshot_cache_dir: '{}'\n\
         cache: {{sharing: {sharing}, min_free_space: 0B, verify: length}}",
        directory.path().display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn so_are_those_beside_a_cache() {
    let (name, other) = (full(1000), full(900));
    for (sharing, wanted) in [("shared", &name), ("exclusive", &other), ("shared", &other)] {
        let directory = tempfile::tempdir().expect("a directory");
        attack(&cache(sharing, &directory), &name, wanted, None).await;
    }
}

/// Streams that stand still, beside each other on one connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_ended_and_not_those_beside_it() {
    let name = full(1000);
    let origins = nodes([&name, &full(900)], 1).await;
    let edge = Edge::limited("per_target: 4", "server: {h2c: true}", &[&origins[0]]).await;
    let stream = TcpStream::connect(edge.address).await.expect("connected");
    let (mut sender, connection) = h2::client::handshake(stream).await.expect("a handshake");
    tokio::spawn(connection);
    let mut bodies = Vec::new();
    let ask = |method: &str, sender: &mut h2::client::SendRequest<bytes::Bytes>| {
        let request = http::Request::builder().method(method);
        let request = request.uri(format!("http://{}/{name}", edge.address)).body(());
        sender.send_request(request.expect("a request"), true).expect("sent").0
    };
    for _ in 0..4 {
        sender = sender.ready().await.expect("ready");
        let answer = ask("GET", &mut sender).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        bodies.push(answer.into_body());
    }
    let answer = edge.ask(get(&name).from(2)).await;
    assert_eq!((answer.status, answer.ended), (200, Ended::Whole), "{}", answer.head);
    // One was enough.
    let ended = Arc::<AtomicUsize>::default();
    let mut readers = JoinSet::new();
    for mut body in bodies {
        let ended = Arc::clone(&ended);
        readers.spawn(async move {
            loop {
                match body.data().await {
                    Some(Ok(piece)) => body.flow_control().release_capacity(piece.len()).unwrap(),
                    Some(Err(_)) => return ended.fetch_add(1, Ordering::Relaxed),
                    None => return 0,
                }
            }
        });
    }
    sender = sender.ready().await.expect("ready");
    let head = ask("HEAD", &mut sender).await.expect("the connection is there");
    assert_eq!(head.status(), 200);
    while let Some(reader) = readers.join_next().await {
        reader.expect("no panic");
    }
    assert_eq!(ended.load(Ordering::Relaxed), 1);
}

/// Nobody is ended for what is not its doing: a node that is slow, or that nobody else waits for.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_slow_without_its_doing_or_alone_is_left_in_peace() {
    let name = full(1000);
    let origins = nodes([&name, &full(900)], 1).await;
    origins[0].slow_to(LARGE / 8);
    let edge = Edge::limited("per_target: 1, queue_wait: 6s", "", &[&origins[0]]).await;
    let whole = tokio::spawn(get(&name).from(1).send(edge.address));
    eventually("it is served", || async { origins[0].transfers().0 == 1 }).await;
    let waiting = edge.ask(get(&name).from(2)).await;
    assert_eq!(waiting.status, 503, "it waited in vain");
    let whole = whole.await.expect("no panic");
    assert_eq!((whole.status, whole.ended), (200, Ended::Whole), "{}", whole.head);
    assert_eq!(edge.ask(Ask::head(format!("/{name}"))).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_first_client_does_not_keep_the_cache_empty() {
    let name = full(1000);
    for stalls in [true, false] {
        let origins = nodes([&name, &full(900)], 1).await;
        let directory = tempfile::tempdir().expect("a directory");
        let edge =
            Edge::limited("per_target: 4", &cache("exclusive", &directory), &[&origins[0]]).await;
        let status = |answer: &crate::support::client::Answer| {
            answer.header("cache-status").unwrap_or_default().to_owned()
        };
        // It takes nothing, or next to nothing.
        let mut slow = JoinSet::new();
        let (first, stream) = get(&name).from(1).begin(edge.address).await;
        assert_eq!(status(&first), "snapedge; fwd=miss; stored");
        slow.spawn(async move {
            let (mut stream, mut buffer) = (stream, [0; TAKEN / 10]);
            while !stalls && matches!(stream.read(&mut buffer).await, Ok(1..)) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            std::future::pending::<()>().await;
        });
        let second = edge.ask(get(&name).from(2)).await;
        assert_eq!(status(&second), "snapedge; fwd=bypass; detail=filling");
        eventually("another one fills the cache", || async {
            let answer = edge.ask(get(&name).from(3)).await;
            assert_eq!((answer.status, answer.ended), (200, Ended::Whole), "{}", answer.head);
            status(&answer) == "snapedge; hit"
        })
        .await;
    }
}
