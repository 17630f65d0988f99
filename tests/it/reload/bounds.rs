//! Bounds that are lowered below what is in use, or raised for those who wait.

use std::time::Duration;

use super::*;
use crate::support::origin::{Fault, Program};
use crate::support::{eventually, full};

/// A configuration whose requests do not wait long for a place.
fn bounded(limits: &str, origin: &Origin) -> String {
    limited(&format!("queue_wait: 200ms, {limits}"), "", &[group("a", &[origin], "")])
}

async fn origin() -> Origin {
    Origin::run(Program::Sidecar, &[(&full(1000), BODY)]).await
}

fn get(client: u8) -> Ask {
    Ask::get(format!("/{}", full(1000))).from(client)
}

/// So many downloads of as many clients, which come to half.
async fn begun(edge: &Edge, origin: &Origin, count: u8) -> Vec<Download> {
    origin.fail(Fault::Hold(BODY.len / 2));
    let mut downloads = Vec::new();
    for client in 1..=count {
        downloads.push(Download::begin(&get(client), edge.address).await);
    }
    downloads
}

/// Each bound: three are under way, and no more are let in until all but one have ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_bound_below_what_is_in_use_refuses_new_ones_until_the_old_are_done() {
    for (wide, narrow) in [
        ("per_target: 8", "per_target: 2"),
        ("per_target: 8, max_transfers: 8", "per_target: 8, max_transfers: 2"),
        (
            "per_target: 8, total_rate: 1GiB/s, min_rate: 100MiB/s",
            "per_target: 8, total_rate: 200MiB/s, min_rate: 100MiB/s",
        ),
    ] {
        let origin = origin().await;
        let edge = Edge::start(&bounded(wide, &origin));
        edge.knows(&origin).await;
        let mut downloads = begun(&edge, &origin, 3).await;
        assert_eq!(edge.ask(get(9).leave_after(1)).await.status, 200, "{wide}");
        edge.reload(&bounded(narrow, &origin)).await.expect("taken");
        for left in [3, 2] {
            let refused = edge.ask(get(9).leave_after(1)).await;
            assert_eq!(refused.status, 503, "{narrow}, {left} are left");
            drop(downloads.pop());
            let left = downloads.len();
            eventually("it is given back", || async { origin.transfers().0 <= left }).await;
        }
        eventually("there is room again", || async {
            edge.ask(get(9).leave_after(1)).await.status == 200
        })
        .await;
        origin.fail(None);
        for download in downloads {
            download.finish().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_let_in_when_a_bound_is_raised() {
    for (narrow, wide) in [
        ("per_target: 1", "per_target: 2"),
        ("per_target: 8, max_transfers: 2", "per_target: 8, max_transfers: 8"),
    ] {
        let origin = origin().await;
        let patient =
            |limits: &str| bounded(limits, &origin).replace("queue_wait: 200ms", "queue_wait: 20s");
        let edge = Edge::start(&patient(narrow));
        edge.knows(&origin).await;
        let _downloads = begun(&edge, &origin, if narrow.contains("max") { 2 } else { 1 }).await;
        let address = edge.address;
        let waiting = tokio::spawn(async move { get(9).leave_after(1).send(address).await.status });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!waiting.is_finished(), "{narrow}");
        edge.reload(&patient(wide)).await.expect("taken");
        let let_in = tokio::time::timeout(Duration::from_secs(5), waiting).await;
        assert_eq!(let_in.expect("long before its patience ends").expect("no panic"), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_above_a_lowered_bound_stay_and_no_more_come() {
    let origin = origin().await;
    let edge = Edge::start(&bounded("max_connections: 64", &origin));
    edge.knows(&origin).await;
    let downloads = begun(&edge, &origin, 3).await;
    edge.reload(&bounded("max_connections: 2", &origin)).await.expect("taken");
    let mut refused = TcpStream::connect(edge.address).await.expect("the system takes it");
    let mut nothing = Vec::new();
    let _ = refused.read_to_end(&mut nothing).await;
    assert!(nothing.is_empty(), "closed unread");
    origin.fail(None);
    for download in downloads {
        download.finish().await;
    }
    eventually("there is room again", || async { edge.places.open() < 2 }).await;
    assert_eq!(edge.ask(get(9).leave_after(1)).await.status, 200);
}

/// What is under way is held to it as well: it is one rate for all.
#[tokio::test(flavor = "multi_thread")]
async fn a_rate_is_changed_for_all() {
    let origin = origin().await;
    let rate = |rate: &str| bounded(&format!("min_rate: 1MiB/s{rate}"), &origin);
    let edge = Edge::start(&rate(", total_rate: 2MiB/s"));
    edge.knows(&origin).await;
    let begun = std::time::Instant::now();
    let download = Download::begin(&get(1), edge.address).await;
    edge.reload(&rate("")).await.expect("taken");
    download.finish().await;
    assert!(begun.elapsed() < Duration::from_secs(6), "12 s at the rate of before");
}
