//! Floods of frames of HTTP/2 that ask for nothing, and clients that need many.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::support::body::Content;
use super::super::support::client::connect;
use super::super::support::full;
use super::super::support::h2;
use super::super::support::origin::{Origin, Program};
use super::{PATIENCE, address, bounded, empties};

const SHORT: &str = "/snapshot.tar.bz2";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// GET of that path, as the first stream asks for it: literal fields that are not indexed.
const REQUEST: &[u8] = b"\0\0\x18\x01\x05\0\0\0\x01\x82\x86\x04\x11/snapshot.tar.bz2\x01\x01x";
/// Frames in one piece of a flood.
const PIECE: usize = 500;
/// Far more than a client may send at once.
const MOST: usize = 40_000;

/// Reads frames until the connection ends: the code of the farewell, where there is one.
async fn farewell(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<u32> {
    let mut code = None;
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).await.is_err() {
            return code;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        if stream.read_exact(&mut payload).await.is_err() {
            return code;
        }
        if head[3] == 7 {
            code = Some(u32::from_be_bytes(payload[4..8].try_into().expect("four bytes")));
        }
    }
}

/// Sends a kind of frame again and again; after how many the connection ends, and how.
async fn flood(stream: TcpStream, first: &[u8], frame: &[u8]) -> (usize, Option<u32>) {
    let (mut reader, mut writer) = stream.into_split();
    let reading = tokio::spawn(async move { farewell(&mut reader).await });
    writer.write_all(PREFACE).await.expect("sent");
    writer.write_all(first).await.expect("sent");
    let piece = frame.repeat(PIECE);
    let mut sent = 0;
    while !reading.is_finished() && sent < MOST && writer.write_all(&piece).await.is_ok() {
        sent += PIECE;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let code = tokio::time::timeout(PATIENCE, reading).await.expect("it ends in time");
    (sent, code.expect("no panic"))
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_frames_without_requests_end_with_enhance_your_calm() {
    let origin = Origin::run(Program::Agave, &[(&full(1000), Content::new(1, 1000))]).await;
    let edge = bounded("header_timeout: 30s", "server: {h2c: true}", &[&origin]).await;
    let frames: [(&str, &[u8]); 8] = [
        ("windows of the connection", b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01"),
        ("priorities", b"\0\0\x05\x02\0\0\0\0\x03\0\0\0\0\x10"),
        ("an unknown kind", b"\0\0\x04\x4d\0\0\0\0\0abcd"),
        ("another unknown kind", b"\0\0\0\xfe\0\0\0\0\0"),
        ("pings", b"\0\0\x08\x06\0\0\0\0\0snapedge"),
        ("answers to pings", b"\0\0\x08\x06\x01\0\0\0\0snapedge"),
        ("settings", b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64"),
        ("no settings", b"\0\0\0\x04\0\0\0\0\0"),
    ];
    for (what, frame) in frames {
        for (when, first) in [("at once", &b""[..]), ("after a request", REQUEST)] {
            let stream = connect(address(1), edge.address).await;
            let (sent, code) = flood(stream, first, frame).await;
            println!("{what} {when}: {code:?} after {sent} frames");
            assert_eq!(code, Some(0xb), "{what} {when}: after {sent} frames");
            assert!(sent < MOST, "{what} {when}");
        }
    }
    empties(&edge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_small_windows_may_send_the_frames_that_it_needs() {
    let name = full(1000);
    let content = Content::new(1, 2 << 20);
    let origin = Origin::run(Program::Sidecar, &[(&name, content)]).await;
    let edge = bounded("header_timeout: 30s", "server: {h2c: true}", &[&origin]).await;
    assert_eq!(h2::get(edge.address, &format!("/{name}")).await, content.len);
    let stream = connect(address(1), edge.address).await;
    // Windows of one byte are answered by frames of one byte, which are this client's own wish.
    let mut client = ::h2::client::Builder::new();
    client.data_frame_budget(usize::MAX);
    let (sender, connection) = client.handshake::<_, bytes::Bytes>(stream).await.expect("h2");
    let connection = tokio::spawn(connection);
    let mut sender = sender.ready().await.expect("ready");
    // Each piece is acknowledged as soon as it is there.
    let ask = http::Request::get(format!("http://x/{name}")).body(()).expect("a request");
    let (response, _) = sender.send_request(ask, true).expect("sent");
    let (mut body, mut taken) = (response.await.expect("an answer").into_body(), 0);
    while let Some(piece) = body.data().await {
        let length = piece.expect("a piece").len();
        for _ in 0..length {
            body.flow_control().release_capacity(1).expect("within the window");
        }
        taken += length as u64;
    }
    assert_eq!(taken, content.len);
    for _ in 0..500 {
        sender = sender.ready().await.expect("still there");
        let ask = http::Request::head(format!("http://x{SHORT}")).body(()).expect("a request");
        let (response, _) = sender.send_request(ask, true).expect("sent");
        assert_eq!(response.await.expect("an answer").status(), 303);
    }
    drop(sender);
    // How it ends is of no matter.
    let _ = connection.await.expect("no panic");
    empties(&edge).await;
}
