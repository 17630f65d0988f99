//! The orderly end: it comes with the last of what is under way, and not before.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;

use super::support::body::Content;
use super::support::client::{Ask, Ended};
use super::support::origin::{Fault, Origin, Program};
use super::support::process::Running;
use super::support::{eventually, full, h2};

/// Far longer than any of these tests waits.
const GRACE: &str = "server: {grace_period: 10m}\n";
const CONTENT: Content = Content::new(1, 24 << 20);

async fn assert_ends(running: &mut Running, why: &str) {
    let mut code = None;
    eventually(why, || {
        code = running.ended();
        let ended = code.is_some();
        async move { ended }
    })
    .await;
    assert_eq!(code.and_then(|code| code.code()), Some(0), "{why}: {}", running.log());
    assert!(!running.log().contains("panicked"), "{}", running.log());
}

async fn assert_refuses(address: SocketAddr) {
    eventually("nothing new is accepted", || async {
        tokio::net::TcpStream::connect(address).await.is_err()
    })
    .await;
}

/// An edge before one node, whose archive it knows.
async fn before(origin: &Origin, more: &str) -> Running {
    let config = format!(
        "scrape_interval: 100ms\n{more}target_groups: \
         [{{group: a, static_targets: {{targets: ['{}']}}}}]\n",
        origin.address()
    );
    let running = Running::start(&config).await;
    let (to, path) = (running.address, format!("/{}", full(1000)));
    eventually("the archive is known", || async { Ask::head(&path).send(to).await.status == 200 })
        .await;
    running
}

fn connect(address: SocketAddr, begin: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("accepted");
    stream.write_all(begin.as_bytes()).expect("written");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_under_way_is_waited_for_by_nobody() {
    let silent = "";
    let half = "GET /snapshot.tar.bz2 HTTP/1.1\r\nhost:";
    let kept = "GET /snapshot.tar.bz2 HTTP/1.1\r\nhost: edge\r\n\r\n";
    let none = "target_groups: [{group: a, static_targets: {targets: ['127.0.0.1:1']}}]\n";
    for begin in [None, Some(silent), Some(half), Some(kept)] {
        let mut running = Running::start(&format!("{GRACE}{none}")).await;
        // Signals are listened to once requests are.
        assert_eq!(Ask::get("/snapshot.tar.bz2").send(running.address).await.status, 404);
        let _connection = begin.map(|begin| connect(running.address, begin));
        let began = Instant::now();
        running.signal("-TERM");
        assert_ends(&mut running, "nothing is under way").await;
        assert!(began.elapsed() < Duration::from_secs(60), "{begin:?}");
    }
}

/// From a node past the cache, into the cache, as it grows there, and out of it.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_comes_with_the_last_transfer() {
    let directory = tempfile::tempdir().expect("a directory");
    for (case, cache) in [("", ""), ("exclusive", "exclusive"), ("shared", "shared")] {
        let origin = Origin::run(Program::Agave, &[(&full(1000), CONTENT)]).await;
        let path = directory.path().join(case);
        let cache = match cache {
            "" => String::new(),
            sharing => format!(
                "proxy_snapshot_cache_dir: {}\ncache: {{sharing: {sharing}, verify: length}}\n",
                path.display()
            ),
        };
        let mut running = before(&origin, &format!("{GRACE}{cache}")).await;
        origin.fail(Fault::Hold(CONTENT.len / 2));
        let ask = Ask::get(format!("/{}", full(1000)));
        let (head, mut stream) = ask.begin(running.address).await;
        assert_eq!((head.status, head.length()), (200, CONTENT.len), "{case}");
        running.signal("-TERM");
        assert_refuses(running.address).await;
        assert_eq!(running.ended(), None, "{case}: {}", running.log());
        origin.fail(None);
        let mut body = head.body.clone();
        stream.read_to_end(&mut body).await.expect("readable");
        assert!(CONTENT.matches(0, &body) && body.len() as u64 == CONTENT.len, "{case}");
        assert_ends(&mut running, case).await;
        if !case.is_empty() {
            let kept = std::fs::read(path.join(full(1000))).expect("promoted");
            assert!(CONTENT.matches(0, &kept) && kept.len() as u64 == CONTENT.len, "{case}");
        }
    }
}

/// Megabytes are with the system when the last request is over, and the client says more meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_bytes_are_waited_for_over_http_2_as_well() {
    for round in 0..3 {
        let origin = Origin::run(Program::Agave, &[(&full(1000), CONTENT)]).await;
        let h2c = "server: {grace_period: 10m, h2c: true}\n";
        let mut running = before(&origin, h2c).await;
        let to = running.address;
        let download =
            tokio::spawn(
                async move { h2::get_slowly(to, &format!("/{}", full(1000)), 8 << 20).await },
            );
        tokio::time::sleep(Duration::from_millis(300 + 400 * round)).await;
        running.signal("-TERM");
        let (body, ended) = download.await.expect("no panic");
        assert_eq!((body.len() as u64, ended), (CONTENT.len, Ended::Whole), "{}", running.log());
        assert!(CONTENT.matches(0, &body));
        assert_ends(&mut running, "all of it was taken").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_end_is_broken_off() {
    let again = |signal| (GRACE, Some(signal), "told again, 1 requests break off");
    let over = "`server.grace_period` is over, 1 requests break off";
    let cases = [again("-TERM"), again("-INT"), ("server: {grace_period: 300ms}\n", None, over)];
    for (grace, second, said) in cases {
        let origin = Origin::run(Program::Agave, &[(&full(1000), CONTENT)]).await;
        let mut running = before(&origin, grace).await;
        origin.fail(Fault::Hold(CONTENT.len / 2));
        let ask = Ask::get(format!("/{}", full(1000)));
        let (head, mut stream) = ask.begin(running.address).await;
        assert_eq!(head.status, 200);
        running.signal("-TERM");
        assert_refuses(running.address).await;
        if let Some(second) = second {
            assert_eq!(running.ended(), None, "{}", running.log());
            running.signal(second);
        }
        assert_ends(&mut running, said).await;
        assert!(running.log().contains(said), "{}", running.log());
        let mut body = head.body.clone();
        // Reset or closed, in any case short of its length.
        let _ = stream.read_to_end(&mut body).await;
        assert!((body.len() as u64) < CONTENT.len);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_port_is_listened_on_in_both_families() {
    let pairs =
        [["0.0.0.0", "[::]"], ["[::]", "0.0.0.0"], ["127.0.0.1", "[::]"], ["[::1]", "0.0.0.0"]];
    for hosts in pairs {
        let socket = std::net::TcpListener::bind("[::]:0").expect("a port");
        let port = socket.local_addr().expect("bound").port();
        drop(socket);
        let listen = hosts.map(|host| format!("'{host}:{port}'")).join(", ");
        let text = format!(
            "listen: [{listen}]\n\
             target_groups: [{{group: a, static_targets: {{targets: ['127.0.0.1:1']}}}}]\n"
        );
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut running = Running::listening(&text, address).await;
        for host in ["127.0.0.1", "[::1]"] {
            let mut stream = TcpStream::connect(format!("{host}:{port}")).expect("accepted");
            let request =
                format!("GET /health HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).expect("written");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("readable");
            assert!(answer.starts_with("HTTP/1.1 200"), "{hosts:?}: {answer}");
        }
        running.signal("-TERM");
        assert_ends(&mut running, &listen).await;
    }
}

/// Balancers see it before clients do.
#[tokio::test(flavor = "multi_thread")]
async fn readiness_goes_down_before_anything_is_refused() {
    let origin = Origin::run(Program::Agave, &[(&full(1000), CONTENT)]).await;
    let wait = "server: {drain_delay: 2s, grace_period: 10m}\n";
    let mut running = before(&origin, wait).await;
    let ready = |to: SocketAddr| async move { Ask::get("/readyz").send(to).await.status };
    assert_eq!(ready(running.internal).await, 200);
    running.signal("-TERM");
    eventually("it is not ready any more", || async { ready(running.internal).await == 503 }).await;
    let answer = Ask::get("/snapshot.tar.bz2").send(running.address).await;
    assert_eq!(answer.status, 303, "what comes is served meanwhile");
    assert!(running.log().contains("accepting for `server.drain_delay`"), "{}", running.log());
    assert_refuses(running.address).await;
    assert_ends(&mut running, "nothing is under way").await;
    // Whoever says it again does not wait for that.
    let mut running = before(&origin, "server: {drain_delay: 10m}\n").await;
    running.signal("-TERM");
    eventually("it is not ready any more", || async { ready(running.internal).await == 503 }).await;
    running.signal("-TERM");
    assert_ends(&mut running, "told again").await;
}

/// Names of what is in a directory and begins as archives do, or is on its way to one.
fn archives_in(directory: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name.contains("snapshot-")).collect()
}

fn shared(directory: &std::path::Path, more: &str) -> String {
    format!(
        "proxy_snapshot_cache_dir: {}\n\
         cache: {{sharing: shared, prefetch: all, verify: length{more}}}\n",
        directory.display()
    )
}

/// At a rate at which it would take minutes.
const SLOWLY: u64 = 100 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_nobody_reads_ends_at_once_and_leaves_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    for fault in [None, Some(Fault::StallAfter(1 << 20)), Some(Fault::StallBeforeHead)] {
        let origin = Origin::run(Program::Agave, &[(&full(1000), CONTENT)]).await;
        origin.slow_to(SLOWLY);
        let waits = fault == Some(Fault::StallBeforeHead);
        origin.fail(fault.clone());
        let config = format!("{GRACE}{}", shared(directory.path(), ""));
        let mut running = before(&origin, &config).await;
        eventually("it is fetched", || async {
            origin.asked("GET", &full(1000)) > 0
                && (waits || !archives_in(directory.path()).is_empty())
        })
        .await;
        let began = Instant::now();
        running.signal("-TERM");
        assert_ends(&mut running, "nobody reads").await;
        assert!(began.elapsed() < Duration::from_secs(60), "{fault:?}");
        assert_eq!(archives_in(directory.path()), Vec::<String>::new(), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_ends_with_its_last_reader() {
    let directory = tempfile::tempdir().expect("a directory");
    let origin = Origin::run(Program::Agave, &[(&full(1000), CONTENT)]).await;
    origin.slow_to(SLOWLY);
    let config = format!("{GRACE}{}", shared(directory.path(), ""));
    let mut running = before(&origin, &config).await;
    let ask = Ask::get(format!("/{}", full(1000)));
    let (head, stream) = ask.begin(running.address).await;
    assert_eq!(head.status, 200);
    running.signal("-TERM");
    assert_refuses(running.address).await;
    assert_eq!(running.ended(), None, "somebody reads: {}", running.log());
    drop(stream);
    assert_ends(&mut running, "the reader has left").await;
    assert_eq!(archives_in(directory.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_is_finished_where_that_is_wanted() {
    let directory = tempfile::tempdir().expect("a directory");
    let origin = Origin::run(Program::Agave, &[(&full(1000), CONTENT)]).await;
    origin.fail(Fault::Hold(CONTENT.len / 2));
    let config = format!("{GRACE}{}", shared(directory.path(), ", finish_on_stop: true"));
    let mut running = before(&origin, &config).await;
    eventually("it is fetched", || async { !archives_in(directory.path()).is_empty() }).await;
    running.signal("-TERM");
    assert_refuses(running.address).await;
    eventually("it is said", || async {
        running.log().contains("and what fills the cache (`cache.finish_on_stop`)")
    })
    .await;
    assert_eq!(running.ended(), None, "{}", running.log());
    origin.fail(None);
    assert_ends(&mut running, "it is whole").await;
    let kept = std::fs::read(directory.path().join(full(1000))).expect("promoted");
    assert!(CONTENT.matches(0, &kept) && kept.len() as u64 == CONTENT.len);
}
