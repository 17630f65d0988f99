//! The log of edges that list themselves, and of requests that come round.

use super::super::support::body::Content;
use super::super::support::client::Ask;
use super::super::support::origin::{Origin, Program};
use super::super::support::process::Running;
use super::super::support::{eventually, full};

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_lists_itself_and_requests_that_come_round_are_said_once() {
    let name = full(1000);
    let node = Origin::run(Program::Sidecar, &[(&name, Content::new(1, 1000))]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("targets");
    std::fs::write(&file, format!("{}\n", node.address())).expect("a file");
    let running = Running::start(&format!(
        "edge_id: berlin\nscrape_interval: 100ms\n\
         target_groups: [{{group: a, file_targets: {{path: '{}'}}}}]\n",
        file.display()
    ))
    .await;
    let itself = running.address;
    std::fs::write(&file, format!("{}\n{itself}\n", node.address())).expect("a file");
    let advice = "the target is this edge itself, leave it out of its targets";
    eventually("the log says it", || async { running.log().contains(advice) }).await;
    eventually("the archive is known", || async {
        Ask::head(format!("/{name}")).send(itself).await.status == 200
    })
    .await;
    for _ in 0..20 {
        let ask = Ask::get(format!("/{name}")).with("cdn-loop", "snapedge-berlin");
        assert_eq!(ask.send(itself).await.status, 508);
    }
    let probes = node.asked("GET", "/v1/snapshots");
    eventually("it was asked again", || async { node.asked("GET", "/v1/snapshots") > probes + 3 })
        .await;
    let log = running.kill();
    assert_eq!(log.matches(advice).count(), 1, "{log}");
    assert_eq!(log.matches("refused with 508").count(), 1, "{log}");
}
