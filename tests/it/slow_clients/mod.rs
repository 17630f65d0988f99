//! Clients that let wait, and many of them: each bound from both of its sides, and what others
//! notice of them.

mod crowds;
mod floods;
mod heads;
mod log;
mod long_heads;
mod loris;
mod pauses;
mod places;
mod takers;

use std::future::Future;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::support::client::{Answer, read_head};
use super::support::edge::{Edge, config};
use super::support::origin::Origin;
use super::support::{PATIENCE, eventually};

/// Longest that the end of a connection may come after its time, on a machine that is busy.
const MARGIN: Duration = Duration::from_secs(8);

/// An edge before these origins, with these bounds, and more configuration.
async fn bounded(limits: &str, more: &str, origins: &[&Origin]) -> Edge {
    let text = config(more, &[origins]).replace("limits: {", &format!("limits: {{{limits}, "));
    // A thousand clients take longer to be there than a body may drip elsewhere.
    let text = text.replace("read_timeout: 700ms", "read_timeout: 3s");
    let edge = Edge::start(&text);
    for origin in origins {
        edge.knows(origin).await;
    }
    edge
}

/// One of many addresses of this machine.
fn address(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 2, (number % 50 + 1) as u8))
}

/// A connection whose system takes little at once.
async fn narrow(from: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 << 10).expect("a small buffer");
    socket.bind(SocketAddr::new(from, 0)).expect("a local address");
    tokio::time::timeout(PATIENCE, socket.connect(to)).await.expect("in time").expect("connected")
}

fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n")
}

/// Asks on a connection that is kept, and reads the answer.
async fn ask(stream: &mut TcpStream, method: &str, path: &str) -> Answer {
    stream.write_all(request(method, path).as_bytes()).await.expect("sent");
    answer(stream, method == "HEAD").await
}

async fn answer(stream: &mut TcpStream, no_body: bool) -> Answer {
    let mut answer = read_head(stream, no_body).await;
    while !no_body && (answer.body.len() as u64) < answer.length() {
        assert!(stream.read_buf(&mut answer.body).await.expect("readable") > 0, "it ends early");
    }
    answer
}

/// Writes byte by byte with a pause after each, until all are written or the other side is gone.
async fn drip(stream: &mut TcpStream, bytes: &[u8], pause: Duration) -> bool {
    for byte in bytes {
        if stream.write_all(&[*byte]).await.is_err() || ended_within(stream, pause).await {
            return false;
        }
    }
    true
}

/// Whether the other side ends the connection in this time. Nothing else may come from it.
async fn ended_within(stream: &mut TcpStream, time: Duration) -> bool {
    let mut byte = [0];
    match tokio::time::timeout(time, stream.read(&mut byte)).await {
        Err(_) => false,
        Ok(Ok(0)) => true,
        Ok(Ok(_)) => panic!("an answer to half a request"),
        Ok(Err(error)) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            true
        }
    }
}

/// Runs to the end, and tells how long that took; it must be no shorter than `least`, and not much
/// longer.
async fn takes<T>(what: &str, least: Duration, run: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let outcome = tokio::time::timeout(least + MARGIN, run).await;
    let outcome = outcome.unwrap_or_else(|_| panic!("{what}: not at its end after {least:?}"));
    let took = began.elapsed();
    println!("{what}: {:.2} s of {:.2} s", took.as_secs_f64(), least.as_secs_f64());
    assert!(took + Duration::from_millis(100) >= least, "{what}: at its end after {took:?}");
    outcome
}

/// Waits until no connection is counted any more.
async fn empties(edge: &Edge) {
    eventually("all connections are given back", || async {
        (edge.places.open(), edge.places.clients()) == (0, 0)
    })
    .await;
}
