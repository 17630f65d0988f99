//! A client that outlives its server.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::world::{INCREMENTAL, World};
use crate::support::PATIENCE;

/// What a client got, as far as it came.
struct Got {
    status: u16,
    /// Where the body begins in the archive.
    start: u64,
    length: Option<u64>,
    hit: bool,
    body: Vec<u8>,
}

impl Got {
    fn parse(mut bytes: Vec<u8>) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let body = bytes.split_off(end);
        let head = String::from_utf8(bytes).expect("text").to_ascii_lowercase();
        let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let place = value("content-range: bytes ");
        let start = place.and_then(|place| place.split_once('-')?.0.parse().ok());
        Some(Self {
            status: status.expect("a status"),
            start: start.unwrap_or(0),
            length: value("content-length: ").and_then(|length| length.parse().ok()),
            hit: value("cache-status: ").is_some_and(|status| status.contains("; hit")),
            body,
        })
    }
}

/// One request on a connection of its own; what came of it, however it ended.
async fn exchange(from: u8, to: SocketAddr, request: &str, most: usize) -> io::Result<Vec<u8>> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(Ipv4Addr::new(127, 0, 1, from).into(), 0))?;
    let mut stream = socket.connect(to).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    while bytes.len() < most && stream.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {}
    Ok(bytes)
}

/// Answers, and those of them out of the cache.
type Counts = (Arc<AtomicU64>, Arc<AtomicU64>);

/// Asks for this and that until the process is killed, and believes nothing.
pub async fn client(
    number: u8,
    to: SocketAddr,
    seed: u64,
    world: Arc<World>,
    end: Arc<AtomicBool>,
    (answers, hits): Counts,
) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    while !end.load(Ordering::Acquire) {
        let name = world.any(&mut random);
        let at = random.next_u64() % INCREMENTAL;
        let (method, range, most) = match random.next_u32() % 8 {
            0 => ("HEAD", String::new(), usize::MAX),
            1 => ("GET", format!("range: bytes={at}-\r\n"), usize::MAX),
            2 => ("GET", format!("range: bytes=-{}\r\n", at + 1), usize::MAX),
            3 => ("GET", String::new(), at as usize),
            _ => ("GET", String::new(), usize::MAX),
        };
        let request =
            format!("{method} /{name} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{range}\r\n");
        let bytes = tokio::time::timeout(PATIENCE, exchange(number, to, &request, most));
        let bytes = bytes.await.expect("an end in time").unwrap_or_default();
        let left = bytes.len() >= most;
        let Some(got) = Got::parse(bytes) else {
            assert!(left || end.load(Ordering::Acquire), "no answer to {request}");
            continue;
        };
        // The newest name is not known before the next probe, and the oldest goes.
        if got.status == 404 {
            continue;
        }
        let text = String::from_utf8_lossy(&got.body[..got.body.len().min(200)]);
        assert!(matches!(got.status, 200 | 206), "{} to {request}{text}", got.status);
        assert!(world.has(&name, got.start, &got.body), "wrong bytes, hit: {}, {request}", got.hit);
        let whole = method == "HEAD" || got.length == Some(got.body.len() as u64);
        assert!(whole || left || end.load(Ordering::Acquire), "cut short: {request}");
        answers.fetch_add(1, Ordering::Relaxed);
        hits.fetch_add(u64::from(got.hit), Ordering::Relaxed);
    }
}
