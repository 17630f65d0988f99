//! Requests that nobody honest makes.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::support::body::Content;
use super::support::client::{Ask, last, raw};
use super::support::edge::Edge;
use super::support::origin::{Origin, Program};
use super::support::{full, hash};

#[tokio::test(flavor = "multi_thread")]
async fn almost_names_are_404_and_no_upstream_hears_of_them() {
    let name = full(1000);
    let origin = Origin::run(Program::Agave, &[(&name, Content::new(1, 1000))]).await;
    let edge = Edge::before(&[&origin]).await;
    let hash = hash(1);
    let paths = [
        format!("/snapshot-1000-{hash}.tar.zst.part"),
        format!("/snapshot-1000-{hash}.tar.zs"),
        format!("/snapshot-1000-{hash}.TAR.ZST"),
        format!("/snapshot-01000-{hash}.tar.zst"),
        format!("/snapshot-+1000-{hash}.tar.zst"),
        format!("/snapshot-18446744073709551616-{hash}.tar.zst"),
        format!("/snapshot-{}-{hash}.tar.zst", "9".repeat(500)),
        "/snapshot-1000-0OIl.tar.zst".to_owned(),
        format!("/snapshot-1000-{}.tar.zst", "z".repeat(44)),
        format!("/snapshot-1000-{}.tar.zst", &hash[1..]),
        format!("/incremental-snapshot-1000-1000-{hash}.tar.zst"),
        format!("/incremental-snapshot-1001-1000-{hash}.tar.zst"),
        format!("/incremental-snapshot-1000-{hash}.tar.zst"),
        format!("/tmp-snapshot-1000-{hash}.tar.zst"),
        format!("/../{name}"),
        format!("/./{name}"),
        format!("//.//{name}"),
        format!("/%2F{name}"),
        format!("/x/../{name}"),
        format!("/v1/snapshot/../../{name}"),
        format!("/v1/snapshot/..%2f..%2f{name}"),
        format!("/%2e%2e/{name}"),
        format!("/v1%2Fsnapshot%2F{name}"),
        format!("/{name}%00"),
        format!("/{name}%0d%0aX: y"),
        format!("/{name}/."),
        format!("/{name}%2F"),
        format!("/{name};x"),
        "/..%2f..%2fetc%2fpasswd".to_owned(),
        "/../../../../etc/passwd".to_owned(),
        format!("/{}", "a".repeat(8192)),
        format!("/snapshot-{}", "1-".repeat(4000)),
        format!("/v1/snapshot/{}", "x".repeat(8192)),
    ];
    let before = origin.seen().len();
    for path in &paths {
        let path = path.replace(' ', "%20");
        for ask in [Ask::get(&path), Ask::head(&path)] {
            let answer = edge.ask(ask).await;
            assert_eq!((answer.status, answer.length()), (404, 0), "{path}");
        }
    }
    let asked = origin.seen().split_off(before);
    for request in asked {
        let known = ["/v1/snapshots", "/snapshot.tar.bz2", "/incremental-snapshot.tar.bz2"];
        let own_probe = known.contains(&request.path()) || request.path() == format!("/{name}");
        assert!(own_probe && !(request.method == "GET" && request.path().contains("-1000-")));
    }
    assert_eq!(edge.get(&format!("/{name}")).await.status, 200, "still at work");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_nobody_asked_for_is_refused_and_not_forwarded() {
    let name = full(1000);
    let origin = Origin::run(Program::Agave, &[(&name, Content::new(1, 1000))]).await;
    let edge = Edge::before(&[&origin]).await;
    let host = edge.address;
    let smuggled = format!("GET /{name} HTTP/1.1\r\nhost: x\r\n\r\n");
    for (method, status) in [("GET", "400"), ("POST", "405")] {
        let request = format!(
            "{method} /{name} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\n\r\n{smuggled}",
            smuggled.len()
        );
        let answer = String::from_utf8_lossy(&raw(host, request.as_bytes()).await).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "the body is no request: {answer}");
    }
    assert_eq!(origin.asked("GET", &name), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_and_odd_hosts_are_served() {
    let name = full(1000);
    let origin = Origin::run(Program::Agave, &[(&name, Content::new(1, 10))]).await;
    let edge = Edge::before(&[&origin]).await;
    let requests = [
        "GET /snapshot.tar.bz2 HTTP/1.0\r\n\r\n".to_owned(),
        "GET /snapshot.tar.bz2 HTTP/1.1\r\nhost: 10.1.2.3\r\nconnection: close\r\n\r\n".to_owned(),
        "GET /snapshot.tar.bz2 HTTP/1.1\r\nHost: Any.Name:1\r\nconnection: close\r\n\r\n"
            .to_owned(),
        "GET http://any/snapshot.tar.bz2 HTTP/1.1\r\nhost: any\r\nconnection: close\r\n\r\n"
            .to_owned(),
    ];
    for request in requests {
        let answer =
            String::from_utf8_lossy(&last(edge.address, request.as_bytes()).await).into_owned();
        let location = format!("\r\nlocation: /{name}\r\n");
        assert!(answer.contains(" 303 ") && answer.contains(&location), "{request}{answer}");
    }
    let request = format!("GET /{name} HTTP/1.0\r\n\r\n");
    let answer = last(edge.address, request.as_bytes()).await;
    assert!(answer.ends_with(&Content::new(1, 10).all()), "{}", String::from_utf8_lossy(&answer));
    let listing = last(edge.address, b"GET /v1/snapshots HTTP/1.0\r\n\r\n").await;
    let own = format!("\"target\":\"http://{}\"", edge.address);
    assert!(String::from_utf8_lossy(&listing).contains(&own));
    for host in ["a b", "<script>", "user@host", "\"x"] {
        let request =
            format!("GET /v1/snapshots HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let answer = last(edge.address, request.as_bytes()).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(!answer.contains(" 200 "), "nothing of `{host}` is shown: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_host_is_not_repeated() {
    let origin = Origin::run(Program::Sidecar, &[(&full(1000), Content::new(1, 10))]).await;
    let edge = Edge::before(&[&origin]).await;
    for (length, status) in [(255, "200"), (300, "400"), (20_000, "400"), (100_000, "431")] {
        let host = "a".repeat(length);
        let request =
            format!("GET /v1/snapshots HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let answer = last(edge.address, request.as_bytes()).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{length}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn arbitrary_bytes_end_in_an_answer_or_a_closed_connection() {
    let name = full(1000);
    let origin = Origin::run(Program::Agave, &[(&name, Content::new(1, 10))]).await;
    let edge = Edge::before(&[&origin]).await;
    let address = edge.address;
    let runtime = tokio::runtime::Handle::current();
    let property = move || {
        let mut runner = TestRunner::new(Config { cases: 200, ..Config::default() });
        let bytes = prop::collection::vec(any::<u8>(), 0..300);
        let case = (any::<bool>(), bytes, ".{0,40}");
        let outcome = runner.run(&case, |(as_path, bytes, text)| {
            let request = if as_path {
                let mut request = b"GET /".to_vec();
                request.extend(&bytes);
                request.extend(format!(" HTTP/1.1\r\nhost: x\r\nrange: {text}\r\n\r\n").as_bytes());
                request
            } else {
                bytes
            };
            let answer = runtime.block_on(raw(address, &request));
            let answer = String::from_utf8_lossy(&answer);
            prop_assert!(answer.is_empty() || answer.starts_with("HTTP/1."), "{}", answer);
            prop_assert!(!answer.contains(" 500 "), "{}", answer);
            Ok(())
        });
        outcome.expect("holds");
    };
    tokio::task::spawn_blocking(property).await.expect("no panic");
    assert_eq!(edge.get(&format!("/{name}")).await.status, 200, "still at work");
}
