//! What clients are answered by, and the rest of what is configured.

use std::time::Duration;

use super::*;
use crate::support::h2;
use crate::support::origin::Program;
use crate::support::process::Running;
use crate::support::{eventually, full};

async fn origin() -> Origin {
    Origin::run(Program::Agave, &[(&full(1000), BODY)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_follow_what_is_configured_now() {
    let origin = origin().await;
    let text = |extra: &str| {
        config(
            extra,
            &[group("a", &[&origin], ""), group("b", &[], "ledger_targets: {paths: [/x]}")],
        )
        .replace("static_targets: {targets: []}, ", "")
    };
    let edge = Edge::start(&text(""));
    edge.knows(&origin).await;
    let (path, best) = (format!("/{}", full(1000)), "/snapshot.tar.bz2");
    let tag = async || edge.ask(Ask::head(&path)).await.header("etag").map(str::to_owned);
    let before = tag().await;
    // Whom a short form asks for.
    edge.reload(&text("default_group: b")).await.expect("taken");
    assert_eq!(edge.get(best).await.status, 404);
    edge.reload(&text("default_group: a")).await.expect("taken");
    assert_eq!(edge.get(best).await.status, 303);
    // What URLs are shown.
    edge.reload(&text("public_url: https://mirror.example")).await.expect("taken");
    let shown = String::from_utf8(edge.get("/v1/snapshots").await.body).expect("text");
    assert!(shown.contains("https://mirror.example"), "{shown}");
    // What copies are called.
    assert_eq!(tag().await, before);
    edge.reload(&text(&format!("etag_secret: '{}'", "0".repeat(32)))).await.expect("taken");
    assert_ne!(tag().await, before);
    edge.reload(&text("")).await.expect("taken");
    assert_eq!(tag().await, before, "and back");
    // Who the edge is to others.
    edge.reload(&text("edge_id: renamed")).await.expect("taken");
    let looped = Ask::get(best).with("cdn-loop", "snapedge-renamed");
    assert_eq!(edge.ask(looped.clone()).await.status, 508);
    edge.reload(&text("edge_id: other")).await.expect("taken");
    assert_ne!(edge.ask(looped).await.status, 508);
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_are_carried_or_redirected_to() {
    let (origin, directory) = (origin().await, tempfile::tempdir().expect("a directory"));
    let cache = cached(directory.path(), "exclusive");
    let text = |extra: &str| config(&format!("{cache}\n{extra}"), &[group("a", &[&origin], "")]);
    let redirecting = text("proxy_snapshot_downloads: false");
    let edge = Edge::start(&redirecting);
    edge.knows(&origin).await;
    let path = format!("/{}", full(1000));
    for _ in 0..2 {
        assert_eq!(edge.get(&path).await.status, 307);
        edge.reload(&text("")).await.expect("taken");
        let whole = edge.get(&path).await;
        assert!(whole.status == 200 && whole.body == BODY.all());
        eventually("it is cached", || async { is_hit(&edge, &full(1000)).await }).await;
        edge.reload(&redirecting).await.expect("taken");
    }
}

/// From one way to fill the cache to the other, in the middle of a fill.
#[tokio::test(flavor = "multi_thread")]
async fn fills_are_shared_or_not() {
    for order in [["exclusive", "shared"], ["shared", "exclusive"]] {
        let (origin, directory) = (origin().await, tempfile::tempdir().expect("a directory"));
        let text = |sharing: &str| {
            config(&cached(directory.path(), sharing), &[group("a", &[&origin], "")])
        };
        let edge = Edge::start(&text(order[0]));
        edge.knows(&origin).await;
        let ask = Ask::get(format!("/{}", full(1000)));
        origin.fail(crate::support::origin::Fault::Hold(BODY.len / 2));
        let first = Download::begin(&ask, edge.address).await;
        edge.reload(&text(order[1])).await.expect("taken");
        let second = Download::begin(&ask.clone().from(2), edge.address).await;
        origin.fail(None);
        first.finish().await;
        second.finish().await;
        eventually("it is cached", || async { is_hit(&edge, &full(1000)).await }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nodes_are_asked_for_clients() {
    let origin = origin().await;
    let text = |extra: &str| config(extra, &[group("a", &[&origin], "")]);
    let edge = Edge::start(&text(""));
    edge.knows(&origin).await;
    let call = |method: &str| {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#);
        let ask = Ask::post("/", body);
        async {
            let answer = edge.ask(ask).await;
            format!("{}{}", answer.head, String::from_utf8_lossy(&answer.body))
        }
    };
    assert!(!call("getSlot").await.contains("result"));
    edge.reload(&text("rpc_proxy: {enabled: true, methods: [getSlot]}")).await.expect("taken");
    let said = call("getSlot").await;
    assert!(said.contains("result"), "{said}");
    assert!(call("getHealth").await.contains("error"));
    edge.reload(&text("rpc_proxy: {enabled: true, methods: [getHealth], per_client_rate: 1/s}"))
        .await
        .expect("taken");
    assert!(call("getSlot").await.contains("error"));
    let said = [call("getHealth").await, call("getHealth").await, call("getHealth").await];
    assert!(said.iter().any(|said| said.contains("error")), "one a second: {said:?}");
    edge.reload(&text("")).await.expect("taken");
    assert!(!call("getHealth").await.contains("result"));
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_is_spoken_or_not() {
    let origin = origin().await;
    let text = |extra: &str| config(extra, &[group("a", &[&origin], "")]);
    let edge = Edge::start(&text(""));
    edge.knows(&origin).await;
    let speaks = async || {
        // Where it is not spoken, this panics.
        let asked = tokio::spawn(h2::send(Ask::head("/snapshot.tar.bz2"), edge.address));
        let answered = tokio::time::timeout(Duration::from_secs(5), asked).await;
        answered.is_ok_and(|answer| answer.is_ok_and(|answer| answer.status == 303))
    };
    assert!(!speaks().await);
    edge.reload(&text("server: {h2c: true}")).await.expect("taken");
    assert!(speaks().await);
    edge.reload(&text("")).await.expect("taken");
    assert!(!speaks().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_more_or_less() {
    let origin = origin().await;
    let text = |level: &str| {
        let group = group("a", &[&origin], "");
        format!("scrape_interval: 100ms\nlog: {{level: {level}}}\ntarget_groups:\n{group}")
    };
    let running = Running::start(&text("warn")).await;
    let lines = async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        running.log().matches("was reloaded").count()
    };
    for (level, expected) in [("warn", 0), ("info", 1), ("error", 1), ("debug", 2), ("warn", 2)] {
        running.rewrite(&text(level));
        assert_eq!(running.reload().await.0, 200);
        assert_eq!(lines().await, expected, "{level}");
    }
    // Whether requests are written down does not depend on it.
    Ask::get("/v1/health?one").send(running.address).await;
    eventually("the request", || async { running.log().contains("/v1/health?one") }).await;
}
