//! The cost of one client's request for the nodes behind several edges.

use std::time::Instant;

use super::super::support::body::Content;
use super::super::support::client::Ask;
use super::super::support::origin::{Fault, Origin, Program};
use super::super::support::{PATIENCE, eventually, full};
use super::Fleet;

#[tokio::test(flavor = "multi_thread")]
async fn one_get_is_one_transfer_whoever_lists_whom() {
    let name = full(1000);
    let content = Content::new(1, 300_000);
    for count in [1, 2, 4] {
        let node = Origin::run(Program::Sidecar, &[(&name, content)]).await;
        let fleet = Fleet::clique(count, &node, "balance: round_robin", "");
        fleet.lists(&name, count).await;
        for (number, edge) in fleet.edges.iter().enumerate() {
            for _ in 0..count {
                let before = node.asked("GET", &name);
                let answer = edge.get(&format!("/{name}")).await;
                assert!(answer.status == 200 && answer.body == content.all(), "{}", answer.head);
                assert_eq!(node.asked("GET", &name), before + 1, "{count} edges, {number}");
            }
        }
        assert_eq!(node.sent(), content.len * (count * count) as u64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_node_fails_to_deliver_is_asked_for_once_or_twice_by_each_edge() {
    let name = full(1000);
    for fault in [Fault::Status(500), Fault::CloseBeforeHead, Fault::Html] {
        for count in [1, 2, 4] {
            let node = Origin::run(Program::Sidecar, &[(&name, Content::new(1, 300_000))]).await;
            let fleet = Fleet::clique(count, &node, "balance: per_client", "");
            fleet.lists(&name, count).await;
            node.fail(fault.clone());
            let answer = fleet.edges[0].get(&format!("/{name}")).await;
            assert_eq!(answer.status, 502, "{}", answer.head);
            let asked = node.asked("GET", &name);
            // And once by each edge itself, which need not have happened yet.
            assert!((1..=3 * count).contains(&asked), "{count} edges: {asked} requests");
            assert_eq!(node.sent(), 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_in_a_body_is_not_asked_for_by_way_of_others() {
    let name = full(1000);
    let content = Content::new(1, 3_000_000);
    let node = Origin::run(Program::Sidecar, &[(&name, content)]).await;
    let fleet = Fleet::clique(2, &node, "balance: per_client", "");
    fleet.lists(&name, 2).await;
    node.fail(Fault::CloseAfter(1_000_000));
    let answer = fleet.edges[0].get(&format!("/{name}")).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.len() <= 1_000_000 && node.asked("GET", &name) == 1);
    node.stop().await;
    let begun = Instant::now();
    let answer = fleet.edges[0].get(&format!("/{name}")).await;
    assert!([404, 502].contains(&answer.status), "{}", answer.head);
    assert!(begun.elapsed() < PATIENCE / 3);
}

/// Nobody waits for a look of somebody who waits for him.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_name_is_looked_for_once_by_each_edge() {
    let name = full(1000);
    let node = Origin::run(Program::Sidecar, &[(&name, Content::new(1, 1000))]).await;
    let fleet = Fleet::clique(4, &node, "balance: per_client", "");
    fleet.lists(&name, 4).await;
    let unknown = full(1001);
    let answer = fleet.edges[0].get(&format!("/{unknown}")).await;
    assert_eq!(answer.status, 404);
    let asked = node.asked("HEAD", &unknown);
    assert!((1..=4).contains(&asked), "{asked} looks");
}

/// Two caches that fetch ahead from each other and from a node get what there is, and neither waits
/// for the other.
#[tokio::test(flavor = "multi_thread")]
async fn caches_that_fetch_from_each_other_do_not_wait_for_each_other() {
    let names = [full(1000), full(2000), full(3000)];
    let content = Content::framed(1, 600_000);
    let node = Origin::run(Program::Sidecar, &[(&names[0], content)]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let extra = format!(
        "proxy_snapshot_cache_dir: '{}/{{}}'\n\
         cache: {{sharing: shared, prefetch: all, min_free_space: 0B}}",
        directory.path().display()
    );
    let fleet = Fleet::clique(2, &node, "balance: round_robin", &extra);
    for name in &names {
        node.add(name, content);
        for edge in &fleet.edges {
            eventually("it is cached", || async {
                let answer = edge.ask(Ask::head(format!("/{name}"))).await;
                answer.header("cache-status") == Some("snapedge; hit")
            })
            .await;
        }
        let asked = node.asked("GET", name);
        assert!((1..=4).contains(&asked), "{asked} transfers");
    }
}

/// Questions for nodes, which edges pass on to each other.
#[tokio::test(flavor = "multi_thread")]
async fn questions_for_nodes_do_not_go_round() {
    let name = full(1000);
    let node = Origin::run(Program::Agave, &[(&name, Content::new(1, 1000))]).await;
    let fleet = Fleet::clique(3, &node, "kind: rpc", "rpc_proxy: {enabled: true}");
    fleet.lists(&name, 3).await;
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"getSlot"}"#;
    let edge = &fleet.edges[0];
    let posts = || node.seen().iter().filter(|request| request.method == "POST").count();
    for number in 1..6 {
        let answer = edge.ask(Ask::post("/", call).from(number)).await;
        assert!(String::from_utf8_lossy(&answer.body).contains("result"), "{}", answer.head);
    }
    assert!(posts() <= 5, "{} questions", posts());
    node.stop().await;
    eventually("nobody is asked any more", || async {
        let answer = edge.ask(Ask::post("/", call)).await;
        String::from_utf8_lossy(&answer.body).contains("-32005")
    })
    .await;
    assert!([404, 502].contains(&edge.get("/genesis.tar.bz2").await.status));
}
