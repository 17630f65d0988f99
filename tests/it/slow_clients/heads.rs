//! `header_timeout` and `idle_timeout`.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::support::body::Content;
use super::super::support::client::{Ask, Ended, connect, raw};
use super::super::support::edge::Edge;
use super::super::support::full;
use super::super::support::origin::{Origin, Program};
use super::{address, ask, bounded, drip, empties, ended_within, request, takes};

const SHORT: &str = "/snapshot.tar.bz2";
const HEADER: Duration = Duration::from_millis(1500);
const IDLE: Duration = Duration::from_millis(1500);
const PAUSE: Duration = Duration::from_millis(100);

async fn node() -> Origin {
    Origin::run(Program::Agave, &[(&full(1000), Content::new(1, 1000))]).await
}

async fn edge(more: &str, origin: &Origin) -> Edge {
    bounded("header_timeout: 1500ms, idle_timeout: 30s", more, &[origin]).await
}

async fn client(edge: &Edge) -> TcpStream {
    connect(address(0), edge.address).await
}

/// Drips a head that never ends, and then nothing more is heard.
async fn drip_on(stream: &mut TcpStream) {
    let endless = format!("GET {SHORT} HTTP/1.1\r\nx: {}", "y".repeat(1000));
    assert!(!drip(stream, endless.as_bytes(), PAUSE).await, "all of it was taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn header_timeout_is_for_the_whole_head_from_the_connection_on() {
    let origin = node().await;
    let edge = edge("", &origin).await;
    let silent = async {
        let mut stream = client(&edge).await;
        assert!(ended_within(&mut stream, HEADER * 100).await);
    };
    let dripping = async { drip_on(&mut client(&edge).await).await };
    let late = async {
        let mut stream = client(&edge).await;
        assert!(!ended_within(&mut stream, HEADER / 2).await);
        drip_on(&mut stream).await;
    };
    let endless = async {
        let mut stream = client(&edge).await;
        stream.write_all(b"GET / HTTP/1.1\r\n").await.expect("sent");
        while stream.write_all(b"x: y\r\n").await.is_ok() && !ended_within(&mut stream, PAUSE).await
        {
        }
    };
    tokio::join!(
        takes("silent", HEADER, silent),
        takes("dripping", HEADER, dripping),
        takes("silent and then dripping", HEADER, late),
        takes("a head without end", HEADER, endless),
    );
    empties(&edge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn header_timeout_lets_a_head_be_that_is_there_in_time() {
    let origin = node().await;
    let edge = edge("", &origin).await;
    for (version, more) in [("1.1", "host: x\r\nconnection: close\r\n"), ("1.0", "")] {
        let head = format!("GET {SHORT} HTTP/{version}\r\n{more}\r\n");
        let mut stream = client(&edge).await;
        let (first, rest) = head.as_bytes().split_at(8);
        assert!(drip(&mut stream, first, PAUSE).await, "served that fast");
        stream.write_all(rest).await.expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an answer");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.contains(" 303 "), "{version}: {answer}");
    }
    let two = format!("{}{}", request("GET", SHORT), request("GET", SHORT));
    let answer = raw(edge.address, two.as_bytes()).await;
    let answers = String::from_utf8_lossy(&answer).matches(" 303 ").count();
    assert_eq!(answers, 2, "both of two are answered");
    empties(&edge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn header_timeout_of_a_kept_connection_begins_with_the_first_byte() {
    let origin = node().await;
    let edge = edge("", &origin).await;
    let mut stream = client(&edge).await;
    for round in 0..2 {
        assert_eq!(ask(&mut stream, "GET", SHORT).await.status, 303, "{round}");
        assert!(!ended_within(&mut stream, HEADER + HEADER / 3).await, "nothing was begun");
    }
    let (first, rest) = (b"GE", format!("T {SHORT} HTTP/1.1\r\nhost: x\r\n\r\n"));
    assert!(drip(&mut stream, first, HEADER / 4).await);
    stream.write_all(rest.as_bytes()).await.expect("sent");
    assert_eq!(super::answer(&mut stream, false).await.status, 303, "a slow head, but in time");
    takes("dripping the third head", HEADER, drip_on(&mut stream)).await;
    empties(&edge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn header_timeout_bounds_no_body() {
    let name = full(1000);
    let content = Content::new(1, 600_000);
    let origin = Origin::run(Program::Agave, &[(&name, content)]).await;
    origin.slow_to(200_000);
    let limits = "header_timeout: 400ms, idle_timeout: 400ms";
    let more = "rpc_proxy: {enabled: true}";
    let edge = bounded(limits, more, &[&origin]).await;
    let began = Instant::now();
    let download = Ask::get(format!("/{name}")).send(edge.address);
    let post = async {
        // Half of `read_timeout`, within which a body must be there.
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"getHighestSnapshotSlot"}"#;
        let length = body.len();
        let head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
        let head = format!("{head}content-length: {length}\r\n\r\n");
        let mut stream = client(&edge).await;
        stream.write_all(head.as_bytes()).await.expect("sent");
        let (first, rest) = body.as_bytes().split_at(10);
        assert!(drip(&mut stream, first, Duration::from_millis(50)).await);
        stream.write_all(rest).await.expect("sent");
        super::answer(&mut stream, false).await
    };
    let (download, post) = tokio::join!(download, post);
    assert_eq!((post.status, download.status, download.ended), (200, 200, Ended::Whole));
    assert!(download.body == content.all());
    assert!(began.elapsed() > Duration::from_secs(2), "it took much longer than a head may");
    empties(&edge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_timeout_is_for_connections_on_which_nothing_more_is_asked() {
    let origin = node().await;
    let edge = bounded("header_timeout: 30s, idle_timeout: 1500ms", "", &[&origin]).await;
    let mut stream = client(&edge).await;
    for (method, status) in [("GET", 303), ("HEAD", 303), ("GET", 303)] {
        assert_eq!(ask(&mut stream, method, SHORT).await.status, status);
        assert!(!ended_within(&mut stream, IDLE / 2).await, "a pause that is shorter");
    }
    assert_eq!(ask(&mut stream, "GET", "/v1/snapshots").await.status, 200);
    takes("idle", IDLE, async { assert!(ended_within(&mut stream, IDLE * 100).await) }).await;
    let mut silent = client(&edge).await;
    assert!(!ended_within(&mut silent, IDLE * 2).await, "for the first head there is more time");
    drop(silent);
    empties(&edge).await;
}

/// What a client that knows begins HTTP/2 with, and its (empty) settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0snapedge";

/// Reads whatever comes until the other side ends the connection, and sends frames meanwhile.
async fn until_closed(stream: &mut TcpStream, frames: &[u8]) {
    let mut buffer = [0; 1024];
    loop {
        match tokio::time::timeout(PAUSE, stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(_)) => {}
            Err(_) => {
                // It may have ended just now.
                let _ = stream.write_all(frames).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn header_timeout_bounds_what_is_no_request_over_http2() {
    let origin = node().await;
    let edge = edge("server: {h2c: true}", &origin).await;
    let preface = async { assert!(!drip(&mut client(&edge).await, PREFACE, PAUSE).await) };
    let http1 = async { drip_on(&mut client(&edge).await).await };
    let silent = async {
        let mut stream = client(&edge).await;
        stream.write_all(PREFACE).await.expect("sent");
        until_closed(&mut stream, b"").await;
    };
    let frames = async {
        let mut stream = client(&edge).await;
        stream.write_all(PREFACE).await.expect("sent");
        until_closed(&mut stream, PING).await;
    };
    let half = async {
        let mut stream = client(&edge).await;
        stream.write_all(PREFACE).await.expect("sent");
        // The head of a frame of headers of 100 bytes, which then come one by one.
        stream.write_all(b"\0\0\x64\x01\x05\0\0\0\x01").await.expect("sent");
        until_closed(&mut stream, b"\x82").await;
    };
    tokio::join!(
        takes("half a preface", HEADER, preface),
        takes("HTTP/1 where HTTP/2 is known", HEADER, http1),
        takes("nothing after the preface", HEADER, silent),
        takes("no frames but pings", HEADER, frames),
        takes("half a frame", HEADER, half),
    );
    empties(&edge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_timeout_ends_connections_of_http2_that_ask_nothing_more() {
    let origin = node().await;
    let limits = "header_timeout: 30s, idle_timeout: 1500ms";
    let edge = bounded(limits, "server: {h2c: true}", &[&origin]).await;
    let stream = client(&edge).await;
    let (mut sender, mut connection) = h2::client::handshake(stream).await.expect("a handshake");
    let mut pings = connection.ping_pong().expect("pings");
    let connection = tokio::spawn(connection);
    for _ in 0..3 {
        sender = sender.ready().await.expect("still there");
        let ask = http::Request::head(format!("http://x{SHORT}")).body(()).expect("a request");
        let (response, _) = sender.send_request(ask, true).expect("sent");
        assert_eq!(response.await.expect("an answer").status(), 303);
        tokio::time::sleep(IDLE / 2).await;
    }
    let idle = async {
        while pings.ping(h2::Ping::opaque()).await.is_ok() {
            tokio::time::sleep(PAUSE).await;
        }
    };
    takes("nothing but pings after an answer", IDLE / 2, idle).await;
    // How it ends is of no matter.
    let _ = connection.await.expect("no panic");
    empties(&edge).await;
}
