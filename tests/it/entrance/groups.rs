//! Two clusters in one process: by path, by host and by listener.

use super::*;
use crate::support::client::{Answer, Ask};

/// `a` has slot 1000, `b` slot 2000 and an incremental archive on it.
async fn origins() -> (Origin, Origin) {
    let content = |seed| Content::new(seed, 1000);
    let a = Origin::run(Program::Agave, &[(&full(1000), content(1))]).await;
    let newer = incremental(2000, 2100);
    let b = Origin::run(Program::Agave, &[(&full(2000), content(2)), (&newer, content(3))]).await;
    (a, b)
}

async fn edge(listen: &str, extra: &str, a: &Origin, b: &Origin) -> Edge {
    let text = config(extra, &[&[a], &[b]]);
    let edge = Edge::start(&text.replacen("['127.0.0.1:0']", listen, 1));
    edge.knows(a).await;
    edge.knows(b).await;
    edge
}

fn leads_to(answer: &Answer) -> Option<&str> {
    answer.header("location").filter(|_| answer.status == 303)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_names_a_group_and_its_redirects_stay_below_it() {
    let (a, b) = origins().await;
    let edge = edge("['127.0.0.1:0']", "rpc_proxy: {enabled: true}", &a, &b).await;
    for (path, location) in [
        ("/a/snapshot.tar.bz2", Some(format!("/a/{}", full(1000)))),
        ("/b/snapshot.tar.zst", Some(format!("/b/{}", full(2000)))),
        ("//b//snapshot.tar.bz2/", Some(format!("/b/{}", full(2000)))),
        ("/b/incremental-snapshot.tar.bz2", Some(format!("/b/{}", incremental(2000, 2100)))),
        ("/a/incremental-snapshot.tar.bz2", None),
        ("/a/v1/snapshot.tar.bz2", Some(format!("/a/v1/snapshot/{}", full(1000)))),
        ("/c/snapshot.tar.bz2", None),
        // The root is as it was: relative, and exactly one name.
        ("/snapshot.tar.bz2", Some(format!("/{}", full(2000)))),
        ("/snapshot.tar.bz2?group=a", Some(format!("/{}", full(1000)))),
    ] {
        for ask in [Ask::get(path), Ask::head(path)] {
            let answer = edge.ask(ask).await;
            assert_eq!(leads_to(&answer), location.as_deref(), "{path}");
            if let (Some(location), false) = (&location, answer.body.is_empty()) {
                assert_eq!(answer.body, location.as_bytes(), "repeated");
            }
        }
    }
    // What a redirect leads to is there, and nothing of another group.
    for (path, status) in [
        (format!("/a/{}", full(1000)), 200),
        (format!("/a/v1/snapshot/{}", full(1000)), 200),
        (format!("/b/{}", full(1000)), 404),
        (format!("/a/{}", full(2000)), 404),
        (format!("/{}", full(1000)), 200),
        (format!("/c/{}", full(1000)), 404),
        (format!("/a/b/{}", full(1000)), 404),
    ] {
        assert_eq!(edge.get(&path).await.status, status, "{path}");
    }
    let listed = |path: &'static str| {
        let edge = &edge;
        async move { String::from_utf8(edge.get(path).await.body).expect("text") }
    };
    let of_a = listed("/a/v1/snapshots").await;
    assert!(of_a.contains(&full(1000)) && !of_a.contains(&full(2000)), "{of_a}");
    assert!(listed("/b/v1/health").await.contains("\"MaxSnapshot\":2100"));
    assert!(listed("/a/v1/health").await.contains("\"MaxSnapshot\":1000"));
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"getHighestSnapshotSlot"}"#;
    for (path, slot) in [("/a/", "1000"), ("/a", "1000"), ("/b/", "2000"), ("/", "2000")] {
        let answer = edge.ask(Ask::post(path, call)).await;
        let text = String::from_utf8(answer.body).expect("text");
        assert!(text.contains(&format!("\"full\":{slot}")), "{path}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_and_a_listener_stand_for_a_group() {
    let (a, b) = origins().await;
    let listen = "['127.0.0.1:0', {address: '127.0.0.1:0', group: a}]";
    // Two addresses of port 0 would be the same entry: the second is another address.
    let listen = listen.replacen("{address: '127.0.0.1:0'", "{address: '127.0.0.2:0'", 1);
    let edge = edge(&listen, "hosts: {a.example: a, b.example: b}", &a, &b).await;
    let [any, only_a] = [edge.addresses[0], edge.addresses[1]];
    let plain = |slot| format!("/{}", full(slot));
    for (to, host, query, expected) in [
        (any, None, "", plain(2000)),
        (any, Some("a.example"), "", plain(1000)),
        (any, Some("A.Example:80"), "", plain(1000)),
        (any, Some("other.example"), "", plain(2000)),
        // Where the redirect leads to has no query: the path names the group from there on.
        (any, Some("a.example"), "?group=b", format!("/b{}", plain(2000))),
        (only_a, None, "", plain(1000)),
        (only_a, Some("b.example"), "", plain(2000)),
        (only_a, None, "?group=b", format!("/b{}", plain(2000))),
        (only_a, None, "?group=a", plain(1000)),
    ] {
        let host = host.map_or(to.to_string(), str::to_owned);
        let request = format!(
            "GET /snapshot.tar.bz2{query} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        );
        let answer = crate::support::client::last(to, request.as_bytes()).await;
        let answer = String::from_utf8(answer).expect("text");
        assert!(answer.contains(&format!("location: {expected}\r\n")), "{host} {query}: {answer}");
    }
    let of_a = Ask::get("/v1/snapshots").send(only_a).await;
    let of_a = String::from_utf8(of_a.body).expect("text");
    assert!(of_a.contains(&full(1000)) && !of_a.contains(&full(2000)), "{of_a}");
    let of_b = Ask::get("/v1/snapshots?group=b").send(only_a).await;
    let of_b = String::from_utf8(of_b.body).expect("text");
    assert!(of_b.contains(&format!("/b/v1/snapshot/{}", full(2000))), "{of_b}");
    assert_eq!(Ask::get(plain(2000)).send(only_a).await.status, 404);
    assert_eq!(Ask::get(format!("/b{}", plain(2000))).send(only_a).await.status, 200);
    assert_eq!(Ask::get(plain(1000)).send(only_a).await.status, 200);
}

/// Where archives are not carried a redirect leads to the target, wherever it was asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_redirector_leads_to_the_targets_of_the_group() {
    let (a, b) = origins().await;
    let edge = edge("['127.0.0.1:0']", "proxy_snapshot_downloads: false", &a, &b).await;
    let answer = edge.get("/a/snapshot.tar.bz2").await;
    let expected = format!("http://{}/{}", a.address(), full(1000));
    assert_eq!(leads_to(&answer), Some(&*expected));
    assert_eq!(edge.get(&format!("/a/{}", full(1000))).await.status, 307);
    assert_eq!(edge.get(&format!("/a/{}", full(2000))).await.status, 404);
}
