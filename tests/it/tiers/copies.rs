//! Nodes whose archives of one name differ, behind several edges.

use super::super::support::body::Content;
use super::super::support::client::Ask;
use super::super::support::full;
use super::super::support::origin::{Origin, Program};
use super::{Fleet, Member};

/// What an edge lists is true of whichever copy it hands out: one that stands behind it would take
/// an archive of another length for none.
#[tokio::test(flavor = "multi_thread")]
async fn copies_of_several_lengths_come_through_two_edges() {
    let name = full(1000);
    let (short, long) = (Content::framed(1, 300_000), Content::framed(2, 400_000));
    let one = Origin::run(Program::Sidecar, &[(&name, short)]).await;
    let other = Origin::run(Program::Sidecar, &[(&name, long)]).await;
    let nodes = [&one, &other];
    for balance in ["per_client", "round_robin", "pinned"] {
        for cache in ["", "cache: {sharing: shared, prefetch: all, min_free_space: 0B}"] {
            let directory = tempfile::tempdir().expect("a directory");
            let extra = match cache {
                "" => String::new(),
                keys => {
                    let path = directory.path().join("{}");
                    format!("{keys}\nproxy_snapshot_cache_dir: '{}'", path.display())
                }
            };
            let members =
                [Member { nodes: &nodes, edges: vec![] }, Member { nodes: &[], edges: vec![0] }];
            let fleet = Fleet::of(&members, &format!("balance: {balance}"), &extra);
            let archive = name.parse().expect("a name");
            fleet.edges[0].sees("both copies", |view| view.sources(&archive).len() == 2).await;
            fleet.edges[1].sees("the archive", |view| !view.sources(&archive).is_empty()).await;
            for client in 1..12 {
                let ask = Ask::get(format!("/{name}")).from(client);
                let answer = fleet.edges[1].ask(ask).await;
                assert_eq!(answer.status, 200, "{balance} {cache}: {}", answer.head);
                let is_one = answer.body == short.all() || answer.body == long.all();
                assert!(is_one, "{balance}: {} bytes", answer.body.len());
            }
        }
    }
}
