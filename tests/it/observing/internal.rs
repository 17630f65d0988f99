//! Who may look, and where.

use std::net::{IpAddr, Ipv4Addr};

use tokio::io::AsyncWriteExt;

use super::super::support::body::Content;
use super::super::support::client::{Ask, connect, last};
use super::super::support::full;
use super::super::support::origin::{Origin, Program};
use super::super::support::process::Running;
use super::config;

const PAGES: [&str; 6] = ["/", "/status", "/metrics", "/healthz", "/readyz", "/reload"];

async fn running() -> (Origin, Running) {
    let origin = Origin::run(Program::Sidecar, &[(&full(1000), Content::new(1, 1000))]).await;
    let edge = Running::start(&config("internal_hosts: [Edge.Example]", &[&origin])).await;
    edge.offers("/snapshot.tar.bz2").await;
    (origin, edge)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_it_is_on_the_public_listener() {
    let (_origin, edge) = running().await;
    for path in PAGES {
        for slashes in ["", "/"] {
            let path = format!("{slashes}{path}");
            for ask in [Ask::get(&*path), Ask::head(&*path), Ask::post(&*path, "")] {
                let answer = ask.clone().send(edge.address).await;
                assert!(matches!(answer.status, 404 | 405), "{ask:?}: {}", answer.head);
            }
        }
    }
    assert!(!edge.log().contains("reloaded"), "{}", edge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_are_refused_and_do_nothing() {
    let (_origin, edge) = running().await;
    let port = edge.internal.port();
    let ask = async |method: &str, path: &str, host: &str, more: &str| {
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
        let request = format!("{head}content-length: 0\r\n{more}\r\n");
        let answer = last(edge.internal, request.as_bytes()).await;
        let answer = String::from_utf8(answer).expect("text");
        answer.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok()).expect("a status")
    };
    let own = format!("127.0.0.1:{port}");
    for (method, path) in
        [("GET", "/"), ("GET", "/status"), ("GET", "/metrics"), ("POST", "/reload")]
    {
        assert_eq!(ask(method, path, &own, "").await, 200, "{path}");
        assert_eq!(ask(method, path, "edge.example:1", "").await, 200, "{path}");
        // A name that somebody else has lead here.
        for host in ["evil.example", &format!("evil.example:{port}"), ""] {
            assert_eq!(ask(method, path, host, "").await, 403, "{path} {host}");
        }
        for origin in ["http://evil.example", "null", "http://127.0.0.1:1"] {
            let more = format!("origin: {origin}\r\n");
            assert_eq!(ask(method, path, &own, &more).await, 403, "{path} {origin}");
        }
        let more = "sec-fetch-site: cross-site\r\nsec-fetch-mode: no-cors\r\n";
        assert_eq!(ask(method, path, &own, more).await, 403, "{path}");
        let more = format!("origin: http://{own}\r\n");
        assert_eq!(ask(method, path, &own, &more).await, 200, "{path}");
    }
    // Whatever asks whether the process is well does so under any name.
    for path in ["/healthz", "/readyz"] {
        assert_eq!(ask("GET", path, "evil.example", "").await, 200, "{path}");
    }
    let reloads = edge.log().matches("was reloaded").count();
    assert_eq!(reloads, 3, "by the three that may: {}", edge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_say_what_a_browser_may_do_with_them() {
    let (_origin, edge) = running().await;
    for path in PAGES {
        let head = Ask::head(path).send(edge.internal).await;
        assert_eq!(head.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(head.header("cross-origin-resource-policy"), Some("same-origin"), "{path}");
        assert_eq!(head.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(head.header("access-control-allow-origin"), None, "{path}");
    }
    let page = Ask::get("/").send(edge.internal).await;
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none';"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    let text = String::from_utf8(page.body).expect("text");
    for outside in ["http://", "https://", "src=", "@import", "url(", " style=", " onclick="] {
        assert!(!text.replace("http://www.w3.org", "").contains(outside), "{outside}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_holds_connections_shuts_nobody_out() {
    let (_origin, edge) = running().await;
    let mut held = Vec::new();
    for number in 0..200 {
        let mut stream = connect(IpAddr::V4(Ipv4Addr::LOCALHOST), edge.internal).await;
        if number % 2 == 0 {
            stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: loc").await.expect("sent");
        }
        held.push(stream);
        if number % 10 == 0 {
            for path in ["/healthz", "/metrics", "/status"] {
                assert_eq!(Ask::get(path).send(edge.internal).await.status, 200, "{number} {path}");
            }
        }
    }
    assert_eq!(Ask::post("/reload", "").send(edge.internal).await.status, 200);
    let said = edge.log().matches("made room").count();
    assert!((1..4).contains(&said), "{said} lines: {}", edge.log());
}
