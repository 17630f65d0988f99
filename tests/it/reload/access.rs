//! Credentials and certificates that are exchanged: what is under way goes on, what comes after
//! uses the new ones.

use super::*;
use crate::support::origin::{Fault, Program};
use crate::support::tls::{Authority, Front};
use crate::support::{eventually, full};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_exchanged() {
    let origin = Origin::run(Program::Sidecar, &[(&full(1000), BODY)]).await;
    origin.demand("Bearer one");
    let with = |token: &str| {
        config("", &[group("a", &[&origin], &format!("bearer_auth: {{token: {token}}}"))])
    };
    let edge = Edge::start(&with("one"));
    edge.knows(&origin).await;
    let ask = Ask::get(format!("/{}", full(1000)));
    origin.fail(Fault::Hold(BODY.len / 2));
    let download = Download::begin(&ask, edge.address).await;
    origin.demand("Bearer two");
    edge.reload(&with("two")).await.expect("taken");
    origin.fail(None);
    // At once, whatever a probe has found by then.
    let whole = edge.ask(ask).await;
    assert_eq!(whole.status, 200, "{}", whole.head);
    assert!(whole.body == BODY.all());
    download.finish().await;
    eventually("probes use it as well", || async {
        let seen = origin.seen();
        let mut listings = seen.iter().filter(|request| request.path() == "/v1/snapshots");
        listings.next_back().is_some_and(|last| last.header("authorization") == Some("Bearer two"))
    })
    .await;
}

/// The file is the same, and what it holds is another authority.
#[tokio::test(flavor = "multi_thread")]
async fn an_authority_is_exchanged() {
    let origin = Origin::run(Program::Sidecar, &[(&full(1000), BODY)]).await;
    let (old, new) = (Authority::new(), Authority::new());
    let front = Front::before(origin.address(), old.issue(&["127.0.0.1"]).server()).await;
    let directory = tempfile::tempdir().expect("a directory");
    let trusted = directory.path().join("ca.pem");
    std::fs::copy(old.path(), &trusted).expect("copied");
    let text = format!(
        "{QUICK}target_groups:\n  - {{group: a, scheme: https, tls_config: {{ca_file: '{}'}}, \
         static_targets: {{targets: ['{}']}}}}\n",
        trusted.display(),
        front.address
    );
    let edge = Edge::start(&text);
    let is_listed = |view: &snapedge::index::View| {
        !view.sources(&full(1000).parse().expect("a name")).is_empty()
    };
    edge.sees("the archive is listed", is_listed).await;
    let ask = Ask::get(format!("/{}", full(1000)));
    origin.fail(Fault::Hold(BODY.len / 2));
    let download = Download::begin(&ask, edge.address).await;
    front.speak(new.issue(&["127.0.0.1"]).server());
    std::fs::copy(new.path(), &trusted).expect("copied");
    edge.reload(&text).await.expect("taken");
    origin.fail(None);
    let whole = edge.ask(ask.clone()).await;
    assert!(whole.status == 200 && whole.body == BODY.all(), "{}", whole.head);
    download.finish().await;
    // And the old one is not trusted any more.
    front.speak(old.issue(&["127.0.0.1"]).server());
    let refused = edge.ask(ask).await;
    assert_eq!(refused.status, 502, "{}", refused.head);
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_are_spoken_to_by_another_scheme() {
    let origin = Origin::run(Program::Agave, &[(&full(1000), BODY)]).await;
    let authority = Authority::new();
    let front = Front::before(origin.address(), authority.issue(&["127.0.0.1"]).server()).await;
    let text = |address: SocketAddr, keys: &str| {
        let targets = format!("static_targets: {{targets: ['{address}']}}");
        config("", &[format!("  - {{group: a, {targets}, {keys}}}\n")])
    };
    let edge = Edge::start(&text(origin.address(), ""));
    edge.knows(&origin).await;
    let tls = format!("scheme: https, tls_config: {{{}}}", authority.trusted());
    edge.reload(&text(front.address, &tls)).await.expect("taken");
    let name = full(1000).parse().expect("a name");
    edge.sees("it is reached in the other way", |view| {
        let sources = view.sources(&name);
        let scheme = |source: &snapedge::index::Source| {
            source.listed.location.as_ref().map(|location| location.scheme)
        };
        sources.len() == 1 && scheme(&sources[0]) == Some("https")
    })
    .await;
    let whole = edge.get(&format!("/{}", full(1000))).await;
    assert!(whole.status == 200 && whole.body == BODY.all(), "{}", whole.head);
}
