//! Archives that no origin has any more leave all tiers.

use super::super::support::body::Content;
use super::super::support::client::Ask;
use super::super::support::edge::Edge;
use super::super::support::origin::{Origin, Program};
use super::super::support::{eventually, full, incremental};
use super::{Fleet, Member};

/// Nothing of the archive is told of or given any more, in whatever way it is asked for.
async fn forgets(edge: &Edge, names: &[String]) {
    eventually("the edge forgets", || async {
        edge.ask(Ask::head("/snapshot.tar.bz2")).await.status == 404
            && edge.get("/v1/snapshots").await.body == b"[]"
    })
    .await;
    for form in ["/incremental-snapshot.tar.zst", "/v1/snapshot.tar.bz2"] {
        assert_eq!(edge.get(form).await.status, 404, "{form}");
    }
    assert_eq!(edge.get("/v1/best_snapshots?max=9").await.body, b"[]");
    assert_eq!(edge.get("/v1/health").await.status, 500);
    assert_eq!(edge.get("/health").await.body, b"unknown");
    for name in names {
        for ask in [Ask::get(format!("/{name}")), Ask::head(format!("/v1/snapshot/{name}"))] {
            assert_eq!(edge.ask(ask).await.status, 404, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn edges_that_list_each_other_forget_what_no_node_has() {
    let names = [full(1000), incremental(1000, 1500)];
    let archives: Vec<_> = names.iter().map(|name| (name.as_str(), Content::new(1, 900))).collect();
    for (program, group) in [
        (Program::Sidecar, "balance: per_client"),
        (Program::Agave, "balance: round_robin"),
        (Program::Agave, "kind: rpc"),
    ] {
        for count in [1, 2, 3, 4] {
            let node = Origin::run(program, &archives).await;
            let fleet = Fleet::clique(count, &node, group, "");
            // The node, and every edge but itself.
            fleet.lists(&names[0], count).await;
            for edge in &fleet.edges {
                let location = edge.get("/snapshot.tar.bz2").await;
                assert_eq!(location.header("location"), Some(&*format!("/{}", names[0])));
            }
            node.stop().await;
            for edge in &fleet.edges {
                forgets(edge, &names).await;
            }
            node.restart().await;
            fleet.lists(&names[1], count).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tiers_forget_what_the_node_behind_the_last_one_had() {
    let names = [full(1000), incremental(1000, 1500)];
    let archives: Vec<_> = names.iter().map(|name| (name.as_str(), Content::new(1, 900))).collect();
    let node = Origin::run(Program::Sidecar, &archives).await;
    let nodes = [&node];
    let member = |asks_node: bool, edges: &[usize]| Member {
        nodes: if asks_node { &nodes[..] } else { &[] },
        edges: edges.to_vec(),
    };
    let behind = |edges: &[usize]| member(false, edges);
    // A chain of six, of which the last one is too far.
    let chain: Vec<Member> = (0..6_usize)
        .map(|at| member(at == 0, &at.checked_sub(1).into_iter().collect::<Vec<_>>()))
        .collect();
    // A ring, and one more that asks two of it.
    let ring = vec![
        member(true, &[1, 3]),
        behind(&[0, 2]),
        behind(&[1, 3]),
        behind(&[2, 0]),
        behind(&[2, 3]),
    ];
    // Pairs of two tiers, each of which asks its twin as well.
    let pairs =
        vec![member(true, &[1]), member(true, &[0]), behind(&[0, 1, 3]), behind(&[0, 1, 2])];
    for (members, seen) in [(chain, 5), (ring, 5), (pairs, 4)] {
        let fleet = Fleet::of(&members, "balance: per_client", "");
        for edge in &fleet.edges[..seen] {
            eventually("all tiers list it", || async {
                edge.ask(Ask::head("/incremental-snapshot.tar.bz2")).await.status == 303
            })
            .await;
            let answer = edge.get(&format!("/{}", names[1])).await;
            assert_eq!((answer.status, answer.body.len()), (200, 900));
        }
        for edge in &fleet.edges[seen..] {
            assert_eq!(edge.get("/snapshot.tar.bz2").await.status, 404, "too far");
        }
        node.remove(&names[0]);
        node.remove(&names[1]);
        for edge in &fleet.edges {
            forgets(edge, &names).await;
        }
        for (name, content) in &archives {
            node.add(name, *content);
        }
    }
}

/// An edge goes on serving its cache, to others as well, and no two caches keep each other's
/// archives once there is something newer.
#[tokio::test(flavor = "multi_thread")]
async fn caches_that_list_each_other_serve_what_they_have_and_move_on() {
    let (old, new) = (full(1000), full(2000));
    let content = Content::new(1, 9000);
    let node = Origin::run(Program::Sidecar, &[(&old, content)]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let extra = format!(
        "pair_hold: 0s\nproxy_snapshot_cache_dir: '{}/{{}}'\n\
         cache: {{min_free_space: 0B, verify: length}}",
        directory.path().display()
    );
    let members =
        [Member { nodes: &[&node], edges: vec![1] }, Member { nodes: &[&node], edges: vec![0] }];
    let fleet = Fleet::of(&members, "balance: per_client", &extra);
    fleet.lists(&old, 2).await;
    let [a, b] = &fleet.edges[..] else { panic!("two edges") };
    eventually("the first one has it", || async {
        let answer = a.get(&format!("/{old}")).await;
        assert_eq!(answer.body.len(), 9000);
        answer.header("cache-status") == Some("snapedge; hit")
    })
    .await;
    node.stop().await;
    for edge in [a, b] {
        edge.sees("the node is gone", |view| {
            let mut sources = view.sources(&old.parse().unwrap()).iter();
            sources.all(|source| *source.target.authority != *node.address().to_string())
        })
        .await;
    }
    for edge in [a, b] {
        let answer = edge.get(&format!("/{old}")).await;
        assert_eq!((answer.status, answer.body.len()), (200, 9000), "{}", answer.head);
    }
    node.remove(&old);
    node.add(&new, content);
    node.restart().await;
    for edge in [a, b] {
        eventually("only what the node has is told of", || async {
            let list = edge.get("/v1/snapshots").await.body;
            let list = String::from_utf8(list).expect("text");
            list.contains(&new) && !list.contains(&old)
        })
        .await;
    }
}
