//! `snapedge status`: the same in the terminal, and as a check.

use std::process::{Command, Output};

use serde_json::Value;

use super::super::support::body::Content;
use super::super::support::client::Ask;
use super::super::support::origin::{Fault, Origin, Program};
use super::super::support::process::{PROGRAM, Running};
use super::super::support::{eventually, full};
use super::{config, shows};

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).arg("status").args(arguments).output().expect("it runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_how_an_edge_is_by_its_exit_code_and_in_plain_lines() {
    let origin = Origin::run(Program::Sidecar, &[(&full(1000), Content::new(1, 1000))]).await;
    let edge = Running::start(&config("", &[&origin])).await;
    edge.offers("/snapshot.tar.bz2").await;
    shows(&edge, "all is well", |status| status["health"] == "healthy").await;
    let internal = edge.internal.to_string();
    let file = edge.file().to_str().expect("a path").to_owned();
    for arguments in [["--connect", &internal], ["-c", &file]] {
        let done = tokio::task::block_in_place(|| run(&arguments));
        let said = String::from_utf8(done.stdout).expect("text");
        assert_eq!(done.status.code(), Some(0), "{said}");
        assert!(said.starts_with("healthy: "), "{said}");
        assert!(!said.contains(['\u{1b}', '\r']), "{said:?}");
        assert!(said.contains(&full(1000)), "{said}");
    }
    // As it is at one time, which the next look replaces.
    eventually("the same as /status", || async {
        let before = Ask::get("/status").send(edge.internal).await.body;
        let done = tokio::task::block_in_place(|| run(&["--json", "--connect", &internal]));
        let told = done.stdout.strip_suffix(b"\n").unwrap_or(&done.stdout);
        serde_json::from_slice::<Value>(told).is_ok() && told == before
    })
    .await;
    origin.fail_probes(Fault::Status(500));
    shows(&edge, "something is wrong", |status| status["health"] == "degraded").await;
    let done = tokio::task::block_in_place(|| run(&["--connect", &internal]));
    assert_eq!(done.status.code(), Some(1));
    assert!(done.stdout.starts_with(b"degraded: "));
    drop(edge);
    let done = tokio::task::block_in_place(|| run(&["--connect", &internal]));
    assert_eq!(done.status.code(), Some(2));
}

#[test]
fn bad_usage_is_64_and_names_the_fix() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("snapedge.yaml");
    let text = "internal_listen: off\n\
                target_groups: [{group: a, static_targets: {targets: ['127.0.0.1:1']}}]\n";
    std::fs::write(&file, text).expect("written");
    let file = file.to_str().expect("a path");
    for (arguments, words) in [
        (&["-c", file][..], "internal_listen"),
        (&["-c", "/nowhere.yaml"], "/nowhere.yaml"),
        (&["--connect", "not an address"], "not an address"),
        (&["-c", file, "--connect", "127.0.0.1:1"], "--connect"),
    ] {
        let done = run(arguments);
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(64), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}
