//! The access log: what a line tells, and that nobody waits for it.

use std::process::Command;
use std::time::Duration;

use super::super::support::body::Content;
use super::super::support::client::Ask;
use super::super::support::origin::{Origin, Program};
use super::super::support::process::Running;
use super::super::support::{eventually, full};
use super::{Samples, config, lines};

#[tokio::test(flavor = "multi_thread")]
async fn a_line_tells_who_asked_for_what_and_what_came_of_it() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, Content::new(1, 1 << 20))]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("access.log");
    let extra = format!("log: {{format: json, access: '{}'}}", log.display());
    let edge = Running::start(&config(&extra, &[&origin])).await;
    edge.offers("/snapshot.tar.bz2").await;
    let ask =
        Ask::get(format!("/{name}?x=1")).with("range", "bytes=5-9").with("user-agent", "a\"b");
    let answer = ask.from(7).send(edge.address).await;
    assert_eq!(answer.status, 206);
    let id = answer.header("x-request-id").expect("an id").to_owned();
    eventually("the line", || async {
        lines(&log).iter().any(|line| line["path"] == format!("/{name}"))
    })
    .await;
    let lines = lines(&log);
    let line = lines.iter().find(|line| line["request_id"] == *id).expect("its line");
    for (key, expected) in [
        ("client", "127.0.1.7".to_owned()),
        ("method", "GET".to_owned()),
        ("path", format!("/{name}")),
        ("query", "x=1".to_owned()),
        ("route", "archive".to_owned()),
        ("range", "bytes=5-9".to_owned()),
        ("user_agent", "a\"b".to_owned()),
        ("upstream", origin.address().to_string()),
        ("cache", "snapedge; fwd=bypass; detail=off".to_owned()),
        ("end", "done".to_owned()),
    ] {
        assert_eq!(line[key], *expected, "{key} of {line}");
    }
    assert_eq!((&line["status"], &line["bytes"]), (&206.into(), &5.into()));
    let tag = answer.header("etag").expect("a tag").trim_matches('"');
    assert_eq!(line["copy"], *tag);
    for key in ["time", "duration", "first_byte", "rate"] {
        assert!(!line[key].is_null(), "{key} of {line}");
    }
    // The target was told the id as well.
    let seen = origin.seen();
    let told = seen.iter().filter_map(|request| request.header("x-request-id"));
    assert_eq!(told.collect::<Vec<_>>(), [&*id]);
    // Each answer has one of its own, whatever it is.
    let mut ids = vec![id];
    for path in ["/snapshot.tar.bz2", "/nothing", "/v1/snapshots", "/health"] {
        let answer = Ask::get(path).with("x-request-id", "mine").send(edge.address).await;
        ids.push(answer.header("x-request-id").expect(path).to_owned());
    }
    // What the client calls it, as an edge before this one does, is there as well.
    eventually("the client's id", || async {
        super::lines(&log).iter().any(|line| line["received_request_id"] == "mine")
    })
    .await;
    ids.sort();
    ids.dedup();
    assert!(ids.len() == 5 && !ids.contains(&"mine".to_owned()), "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_renamed_is_opened_anew() {
    let origin = Origin::run(Program::Sidecar, &[(&full(1000), Content::new(1, 1000))]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let (log, old) = (directory.path().join("access.log"), directory.path().join("access.log.1"));
    let extra = format!("log: {{format: json, access: '{}'}}", log.display());
    let edge = Running::start(&config(&extra, &[&origin])).await;
    edge.offers("/snapshot.tar.bz2").await;
    let has = |path: std::path::PathBuf, asked: &'static str| async move {
        path.exists() && lines(&path).iter().any(|line| line["path"] == asked)
    };
    Ask::get("/one").send(edge.address).await;
    eventually("the first line", || has(log.clone(), "/one")).await;
    std::fs::rename(&log, &old).expect("renamed");
    Ask::get("/two").send(edge.address).await;
    eventually("a line in the old file", || has(old.clone(), "/two")).await;
    edge.signal("-USR1");
    eventually("a new file", || async { log.exists() }).await;
    Ask::get("/three").send(edge.address).await;
    eventually("a line in the new file", || has(log.clone(), "/three")).await;
    assert!(!lines(&old).iter().any(|line| line["path"] == "/three"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_that_nobody_reads_costs_nobody_a_request() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, Content::new(1, 1000))]).await;
    // The log goes into a pipe whose reader sleeps.
    let directory = tempfile::tempdir().expect("a directory");
    let script = directory.path().join("run");
    // It ends with the edge and has nothing of the test's own open: whoever waits for the end of
    // what a test prints would wait for it.
    let text = r#"
        mkfifo "$3.pipe"
        (while kill -0 $$; do sleep 1; done) < "$3.pipe" > /dev/null 2>&1 &
        exec "$@" 2> "$3.pipe"
    "#;
    std::fs::write(&script, text).expect("written");
    let script = script.to_str().expect("a path").to_owned();
    let edge = Running::under(&["sh", &script], &config("", &[&origin])).await;
    edge.offers("/snapshot.tar.bz2").await;
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (address, name) = (edge.address, name.clone());
        load.spawn(async move {
            for round in 0..500 {
                let path = if round % 2 == 0 {
                    "/snapshot.tar.bz2".to_owned()
                } else {
                    format!("/{name}")
                };
                let answer = Ask::get(path).send(address).await;
                assert!(matches!(answer.status, 303 | 200), "{}", answer.head);
            }
        });
    }
    while let Some(done) = load.join_next().await {
        done.expect("all are answered");
    }
    let dropped = Samples::of(edge.internal).await;
    let dropped = dropped.get("snapedge_log_lines_dropped_total{log=\"process\"}");
    assert!(dropped > 0, "a pipe holds less than this");
    // Nor does the end wait for it.
    let (mut edge, begun) = (edge, std::time::Instant::now());
    edge.signal("-TERM");
    while edge.ended().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(10), "it ends");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_log_that_cannot_be_written_is_an_error_at_the_start_that_names_the_key() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("snapedge.yaml");
    let text = "listen: ['127.0.0.1:0']\ninternal_listen: off\nlog: {access: /nowhere/at/all}\n\
                target_groups: [{group: a, static_targets: {targets: ['127.0.0.1:1']}}]\n";
    std::fs::write(&file, text).expect("written");
    let mut program = Command::new(super::super::support::process::PROGRAM);
    let done = program.arg("-c").arg(&file).output().expect("it runs");
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("`log.access`") && said.contains("/nowhere/at/all"), "{said}");
}
