//! Who may ask for what, and how often.

use std::fs;

use super::*;
use crate::support::client::Ask;
use crate::support::process::Running;

async fn origin() -> Origin {
    let (full, newer) = (full(1000), incremental(1000, 1100));
    let content = Content::new(1, 1000);
    Origin::run(Program::Agave, &[(&full, content), (&newer, content)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_are_let_in_or_not_by_what_they_ask_for() {
    let origin = origin().await;
    let extra = "access: {all: {deny: [127.0.1.1]}, archives: {allow: [127.0.1.2, 127.0.1.3]}, \
                 rpc: {deny: [127.0.1.3]}}\nrpc_proxy: {enabled: true}";
    let edge = Edge::with(extra, &[&origin]).await;
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"getSlot"}"#;
    let archive = format!("/{}", full(1000));
    for (from, expected) in [
        (1, [403, 403, 403, 403, 403]),
        (2, [303, 200, 200, 200, 200]),
        (3, [303, 200, 200, 200, 403]),
        (4, [403, 403, 200, 200, 200]),
    ] {
        let asks = [
            Ask::get("/snapshot.tar.bz2"),
            Ask::get(&archive),
            Ask::get("/v1/snapshots"),
            Ask::get("/health"),
            Ask::post("/", call),
        ];
        for (ask, expected) in asks.into_iter().zip(expected) {
            let what = format!("{} of {from}", ask.path());
            let answer = edge.ask(ask.from(from)).await;
            assert_eq!(answer.status, expected, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_in_a_file_is_read_again() {
    let (origin, directory) = (origin().await, tempfile::tempdir().expect("a directory"));
    let path = directory.path().join("denied");
    fs::write(&path, "127.0.1.1\n").expect("written");
    let text = format!(
        "scrape_interval: 100ms\naccess: {{all: {{deny_file: '{}'}}}}\ntarget_groups: [{{group: a, \
         static_targets: {{targets: ['{}']}}}}]\n",
        path.display(),
        origin.address()
    );
    let running = Running::start(&text).await;
    let denied = |from| {
        let to = running.address;
        async move { Ask::get("/health").from(from).send(to).await.status == 403 }
    };
    assert!(denied(1).await && !denied(2).await);
    fs::write(&path, "127.0.1.2 # him too\n").expect("written");
    eventually("the list is read again", || async { denied(2).await && !denied(1).await }).await;
    fs::write(&path, "127.0.1.1\nnonsense\n").expect("written");
    eventually("what is wrong is told", || async {
        running.log().contains("line 2: `nonsense` is no network")
    })
    .await;
    assert!(denied(2).await && !denied(1).await, "the list of before stays");
    // The file of the configuration is looked at by a reload alone.
    running.write("nonsense");
    fs::write(&path, "127.0.1.3\n").expect("written");
    eventually("the list is read again", || async { denied(3).await }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_often_is_told_when_to_come_again() {
    let origin = origin().await;
    let edge = Edge::limited("requests: 5/s", "", &[&origin]).await;
    let mut refused = None;
    for _ in 0..20 {
        let answer = edge.ask(Ask::get("/snapshot.tar.bz2").from(1)).await;
        if answer.status == 429 {
            refused = Some(answer);
        }
    }
    let refused = refused.expect("the bound is met");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.header("cache-control"), Some("no-store"));
    assert_eq!(edge.ask(Ask::get("/snapshot.tar.bz2").from(2)).await.status, 303, "another one");
    eventually("it is let in again", || async {
        edge.ask(Ask::get("/snapshot.tar.bz2").from(1)).await.status == 303
    })
    .await;
}
