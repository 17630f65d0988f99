//! Access lines, and lines of malformed requests.

use super::*;
use crate::support::body::Content;
use crate::support::client::{Ask, connect, raw};
use crate::support::full;
use crate::support::origin::{Origin, Program};

const NOBODY: &str = "target_groups: [{group: a, static_targets: {targets: ['127.0.0.1:1']}}]\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_told_with_query_range_agent_and_cache() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, Content::new(1, 1000))]).await;
    let edge = Running::start(&format!(
        "scrape_interval: 100ms\n\
         target_groups: [{{group: a, static_targets: {{targets: ['{}']}}}}]\n",
        origin.address()
    ))
    .await;
    eventually("the archive is known", || async {
        Ask::head(format!("/{name}")).send(edge.address).await.status == 200
    })
    .await;
    let ask = Ask::get(format!("/{name}?x=1")).with("range", "bytes=0-9");
    let answer = ask.with("user-agent", "aria2/1.37.0").send(edge.address).await;
    assert_eq!(answer.status, 206);
    let cache = format!("cache \"{}\"", answer.header("cache-status").expect("there"));
    let told = line(&edge, &[&format!("GET /{name}?x=1 206 10 bytes ")]).await;
    let parts = [" range \"bytes=0-9\"", " agent \"aria2/1.37.0\"", &cache];
    assert!(parts.iter().all(|part| told.contains(part)), "{told}");
    Ask::get("/v1/best_snapshots?max=3&group=a").send(edge.address).await;
    line(&edge, &["GET /v1/best_snapshots?max=3&group=a 200 "]).await;

    // Nobody else's line, and no end of one.
    for (path, agent) in [
        ("/a", "x\" cache \"snapedge; hit"),
        ("/b?\u{2028}127.0.0.1", "\u{1b}[31m\u{202e}"),
        ("/c", "back\\slash\ttab"),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nuser-agent: {agent}\r\n\r\n");
        raw(edge.address, request.as_bytes()).await;
    }
    let endless = Ask::get(format!("/{}?{}", "p".repeat(5000), "q".repeat(5000)));
    endless.with("user-agent", "u".repeat(5000)).send(edge.address).await;
    line(&edge, &["GET /ppp", "..."]).await;
    let log = edge.kill();
    assert!(log.contains(r#"agent "x\" cache \"snapedge; hit""#), "{log}");
    assert!(log.contains(r#"agent "back\\slash\ttab""#), "{log}");
    for line in log.lines() {
        assert!(
            line.len() < 1000 && line.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
            "{line}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_told_now_and_then_with_the_address() {
    for (sent, becomes) in [
        (&b"GARBAGE\r\n\r\n"[..], "answered with 400"),
        (b"GET / HTTP/9.9\r\nhost: x\r\n\r\n", "answered with 400"),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", "answered with 400"),
        // A greeting of TLS.
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n", "answered with 400"),
        (b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n", "answered with 405"),
        (b"GET / HTTP/1.1\r\nhos", "ended within its head"),
    ] {
        let edge = Running::start(NOBODY).await;
        for _ in 0..30 {
            raw(edge.address, sent).await;
        }
        let shown = String::from_utf8_lossy(sent);
        let told = line(&edge, &["malformed requests: 1, the last one of 127.0.0.1, "]).await;
        assert!(told.contains(becomes), "{shown}: {told}");
        // Who connects and goes again, or asks for something, sends nothing of that kind.
        drop(connect([127, 0, 0, 1].into(), edge.address).await);
        assert_eq!(Ask::get("/health").send(edge.address).await.status, 200);
        line(&edge, &["GET /health 200"]).await;
        let log = edge.kill();
        assert_eq!(log.matches("malformed").count(), 1, "{shown}: {log}");
        assert!(!log.contains("ERROR"), "{shown}: {log}");
    }
}
