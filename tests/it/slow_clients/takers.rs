//! `min_send_rate`: clients that take too little, and those that only have nothing to take.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::super::support::body::Content;
use super::super::support::client::read_head;
use super::super::support::edge::Edge;
use super::super::support::eventually;
use super::super::support::full;
use super::super::support::origin::{Origin, Program};
use super::{MARGIN, address, bounded, empties, narrow, request};

/// What a client may be behind, in time: `send_timeout`.
const WINDOW: Duration = Duration::from_secs(10);
/// More than all systems between the two take over.
pub(super) const LARGE: Content = Content::new(1, 24 << 20);
const LIMITS: &str = "min_send_rate: 256KiB/s, send_timeout: 10s";

/// What a client takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Taker {
    /// Nothing but the head.
    Nothing,
    /// So many bytes in each second.
    PerSecond(usize),
    /// Nothing for a while after the first bytes, and then everything.
    AllAfter(Duration),
    /// A pause after every so many bytes, and in between as fast as it can.
    Pausing(u64, &'static [Duration]),
}

impl Taker {
    /// The pause between having had `before` and `after` bytes.
    fn pause(self, before: u64, after: u64) -> Duration {
        let Self::Pausing(every, pauses) = self else { return Duration::ZERO };
        let number = usize::try_from(after / every).expect("small");
        let pause = pauses.get(number.wrapping_sub(1)).filter(|_| before / every < after / every);
        pause.copied().unwrap_or_default()
    }
}

/// How it ended: after so many bytes of the body, and so long after the head.
pub(super) struct Outcome {
    pub(super) bytes: u64,
    pub(super) after: Duration,
}

/// A client that speaks HTTP/1.
pub(super) async fn http1(to: SocketAddr, path: &str, taker: Taker) -> Outcome {
    let mut stream = narrow(address(1), to).await;
    stream.write_all(request("GET", path).as_bytes()).await.expect("sent");
    let head = read_head(&mut stream, false).await;
    assert_eq!(head.status, 200, "{}", head.head);
    let (began, mut bytes) = (Instant::now(), head.body.len() as u64);
    let mut buffer = vec![0; 16 << 10];
    match taker {
        Taker::Nothing => is_reset(&stream).await,
        Taker::AllAfter(pause) => sleep(pause).await,
        Taker::PerSecond(_) | Taker::Pausing(..) => {}
    }
    loop {
        let count = stream.read(&mut buffer).await.unwrap_or(0);
        bytes += count as u64;
        sleep(taker.pause(bytes - count as u64, bytes)).await;
        if count == 0 || bytes == head.length() {
            return Outcome { bytes, after: began.elapsed() };
        }
        if let Taker::PerSecond(rate) = taker {
            sleep(Duration::from_secs_f64(count as f64 / rate as f64)).await;
        }
    }
}

/// Waits until the other side has closed a connection of which nothing is read: the system refuses
/// what is written then.
async fn is_reset(stream: &TcpStream) {
    loop {
        sleep(Duration::from_millis(50)).await;
        let state = stream.ready(tokio::io::Interest::READABLE).await.expect("a state");
        if state.is_read_closed() {
            return;
        }
    }
}

/// A client that speaks HTTP/2, and opens its windows by what it takes.
pub(super) async fn http2(to: SocketAddr, path: &str, taker: Taker) -> Outcome {
    let stream = narrow(address(2), to).await;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 20);
    let (sender, connection) = builder.handshake::<_, Bytes>(stream).await.expect("a handshake");
    let connection = tokio::spawn(connection);
    let mut sender = sender.ready().await.expect("ready");
    let request = http::Request::get(format!("http://{to}{path}")).body(()).expect("a request");
    let (response, _) = sender.send_request(request, true).expect("sent");
    let response = response.await.expect("an answer");
    assert_eq!(response.status(), 200);
    let length: u64 = response.headers()["content-length"].to_str().unwrap().parse().unwrap();
    let (began, mut bytes, mut body) = (Instant::now(), 0, response.into_body());
    match taker {
        Taker::Nothing => {
            // How it ends is of no matter.
            let _ = connection.await.expect("no panic");
            return Outcome { bytes, after: began.elapsed() };
        }
        Taker::AllAfter(pause) => sleep(pause).await,
        Taker::PerSecond(_) | Taker::Pausing(..) => {}
    }
    while let Some(Ok(piece)) = body.data().await {
        bytes += piece.len() as u64;
        sleep(taker.pause(bytes - piece.len() as u64, bytes)).await;
        if let Taker::PerSecond(rate) = taker {
            sleep(Duration::from_secs_f64(piece.len() as f64 / rate as f64)).await;
        }
        // What came before the end is still there to be taken after it.
        let over = bytes < length && connection.is_finished();
        if over || body.flow_control().release_capacity(piece.len()).is_err() {
            break;
        }
    }
    Outcome { bytes, after: began.elapsed() }
}

/// One client of each kind over both protocols, all at once: which are left, and when.
async fn check(what: &str, edge: &Edge, path: &str) {
    let one = |taker, multiplexed| {
        let (to, path) = (edge.address, path.to_owned());
        tokio::spawn(async move {
            let longest = WINDOW * 2 + MARGIN;
            let run = async {
                if multiplexed {
                    http2(to, &path, taker).await
                } else {
                    http1(to, &path, taker).await
                }
            };
            timeout(longest, run).await.expect("it ends in time")
        })
    };
    let slow = [Taker::Nothing, Taker::PerSecond(32 << 10)];
    let good = [Taker::AllAfter(WINDOW / 2), Taker::PerSecond(8 << 20)];
    let all = slow.iter().chain(&good).flat_map(|taker| [(*taker, false), (*taker, true)]);
    let running: Vec<_> = all.map(|(taker, h2)| (taker, h2, one(taker, h2))).collect();
    for (at, (taker, multiplexed, run)) in running.into_iter().enumerate() {
        let outcome = run.await.expect("no panic");
        let (bytes, after) = (outcome.bytes, outcome.after);
        let protocol = if multiplexed { "HTTP/2" } else { "HTTP/1" };
        println!("{what}, {protocol}, {taker:?}: {bytes} bytes, {:.1} s", after.as_secs_f64());
        if at < slow.len() * 2 {
            assert!(bytes < LARGE.len, "{what}, {protocol}, {taker:?}: all of it");
            assert!(after + Duration::from_millis(500) > WINDOW, "{what}, {taker:?}: {after:?}");
            assert!(after < WINDOW * 3 / 2 + MARGIN, "{what}, {taker:?}: {after:?}");
        } else {
            assert_eq!(bytes, LARGE.len, "{what}, {protocol}, {taker:?}: after {after:?}");
        }
    }
}

fn cache(directory: &Path, more: &str) -> String {
    format!(
        "server: {{h2c: true}}\nproxy_snapshot_cache_dir: '{}'\n\
         cache: {{min_free_space: 0B, verify: length{more}}}",
        directory.display()
    )
}

async fn of_what_is_carried() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, LARGE)]).await;
    let edge =
        bounded(&format!("{LIMITS}, per_target: 8"), "server: {h2c: true}", &[&origin]).await;
    check("carried", &edge, &format!("/{name}")).await;
    empties(&edge).await;
}

async fn of_what_is_cached() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, LARGE)]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let edge = bounded(LIMITS, &cache(directory.path(), ""), &[&origin]).await;
    cached(&edge, &name).await;
    check("cached", &edge, &format!("/{name}")).await;
    empties(&edge).await;
}

async fn of_what_grows() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, LARGE)]).await;
    // Twelve seconds, in which each of the slow ones is left.
    origin.slow_to(LARGE.len / 12);
    let directory = tempfile::tempdir().expect("a directory");
    let settings = cache(directory.path(), ", sharing: shared");
    let edge = bounded(LIMITS, &settings, &[&origin]).await;
    check("growing", &edge, &format!("/{name}")).await;
    assert_eq!(origin.asked("GET", &name), 1);
    empties(&edge).await;
}

/// The three at once, since each takes longer than a window.
#[tokio::test(flavor = "multi_thread")]
async fn min_send_rate_is_for_what_is_carried_and_cached_and_growing() {
    tokio::join!(of_what_is_carried(), of_what_is_cached(), of_what_grows());
}

/// Waits until an archive is served from the cache.
pub(super) async fn cached(edge: &Edge, name: &str) {
    eventually("the archive is cached", || async {
        let answer = edge.get(&format!("/{name}")).await;
        answer.header("cache-status") == Some("snapedge; hit")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn min_send_rate_does_not_count_what_the_target_lets_wait_for() {
    let name = full(1000);
    let content = Content::new(1, 3 << 20);
    let origin = Origin::run(Program::Sidecar, &[(&name, content)]).await;
    // A quarter of what clients must take, for longer than a window.
    origin.slow_to(content.len / 12);
    let directory = tempfile::tempdir().expect("a directory");
    let limits = "min_send_rate: 1MiB/s, send_timeout: 10s";
    let carries = bounded(limits, "server: {h2c: true}", &[&origin]).await;
    let settings = cache(directory.path(), ", sharing: shared");
    let shares = bounded(limits, &settings, &[&origin]).await;
    let path = format!("/{name}");
    let at_once = Taker::AllAfter(Duration::ZERO);
    let (a, b, c, d) = tokio::join!(
        http1(carries.address, &path, at_once),
        http1(shares.address, &path, at_once),
        http2(carries.address, &path, at_once),
        http2(shares.address, &path, at_once),
    );
    for Outcome { bytes, after } in [a, b, c, d] {
        assert_eq!(bytes, content.len);
        assert!(after > WINDOW, "it took longer than a window: {after:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_left_gives_back_what_it_held() {
    let (old, new) = (full(1000), full(2000));
    let origin = Origin::run(Program::Sidecar, &[(&old, LARGE)]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let edge = Arc::new(bounded(LIMITS, &cache(directory.path(), ""), &[&origin]).await);
    cached(&edge, &old).await;
    let (to, path) = (edge.address, format!("/{old}"));
    let reader = tokio::spawn(async move { http1(to, &path, Taker::Nothing).await });
    eventually("the reader is served", || async { edge.places.open() == 1 }).await;
    origin.remove(&old);
    origin.add(&new, Content::new(2, 1000));
    edge.knows(&origin).await;
    cached(&edge, &new).await;
    let deleted = format!("{} (deleted)", directory.path().join(&old).display());
    let held = || std::fs::read_to_string("/proc/self/maps").expect("maps").contains(&deleted);
    assert!(held(), "the reader holds what was removed");
    let outcome = timeout(WINDOW + MARGIN, reader).await.expect("it is left").expect("no panic");
    assert!(outcome.bytes < LARGE.len);
    eventually("the space is given back", || async { !held() }).await;
    empties(&edge).await;
}
