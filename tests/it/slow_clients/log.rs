//! The program where files run out, and what it says of clients that it leaves or does not let in.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::super::support::body::Content;
use super::super::support::client::{connect, read_head};
use super::super::support::eventually;
use super::super::support::full;
use super::super::support::origin::{Origin, Program};
use super::super::support::process::Running;
use super::{MARGIN, address, narrow, request};

const SHORT: &str = "/snapshot.tar.bz2";

pub(super) fn configuration(origin: &Origin, limits: &str) -> String {
    format!(
        "scrape_interval: 100ms\nlimits: {{{limits}}}\n\
         target_groups: [{{group: a, static_targets: {{targets: ['{}']}}}}]\n",
        origin.address()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_run_out_end_no_listener() {
    let origin = Origin::run(Program::Agave, &[(&full(1000), Content::new(1, 1000))]).await;
    let few = ["sh", "-c", "ulimit -Sn 50; ulimit -Hn 100; exec \"$0\" \"$@\""];
    let edge = Running::under(&few, &configuration(&origin, "header_timeout: 1h")).await;
    edge.offers(SHORT).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", edge.id())).expect("limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    let bounds: Vec<&str> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(bounds, ["100", "100"], "as many as may be");
    let warning = "5416 files and sockets may be needed and 100 may be open";
    assert!(edge.log().contains(warning), "{}", edge.log());

    let mut there = Vec::new();
    for at in 0..150 {
        there.push(connect(address(at), edge.address).await);
    }
    eventually("no more are accepted", || async { edge.log().contains("Accept() failed") }).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let said = edge.log().matches("Accept() failed").count();
    assert!(said < 6, "{said} lines in two seconds");
    drop(there);
    edge.offers(SHORT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_are_left_or_refused_are_in_the_log() {
    let name = full(1000);
    let origin = Origin::run(Program::Agave, &[(&name, Content::new(1, 64 << 20))]).await;
    let limits = "per_client_connections: 3, min_send_rate: 1MiB/s, send_timeout: 10s";
    let edge = Running::start(&configuration(&origin, limits)).await;
    edge.offers(SHORT).await;
    let mut reader = narrow(address(0), edge.address).await;
    let download = request("GET", &format!("/{name}"));
    reader.write_all(download.as_bytes()).await.expect("sent");
    assert_eq!(read_head(&mut reader, false).await.status, 200);
    let mut crowd: Vec<TcpStream> = Vec::new();
    for _ in 0..20 {
        crowd.push(connect(address(1), edge.address).await);
    }
    let refused = "connections closed unread, above `limits.max_connections` (4096) or \
                   `limits.per_client_connections` (3), the last one of 127.0.2.2";
    eventually("refusals are told", || async { edge.log().contains(refused) }).await;
    assert_eq!(edge.log().matches("closed unread").count(), 1, "one line for all of them");

    let deadline = tokio::time::Instant::now() + Duration::from_secs(10) + MARGIN;
    let line = loop {
        let log = edge.log();
        if let Some(line) = log.lines().find(|line| line.contains("took too little")) {
            break line.to_owned();
        }
        assert!(tokio::time::Instant::now() < deadline, "{log}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(line.contains(&format!("127.0.2.1 GET /{name} 200 ")), "{line}");
    assert!(line.ends_with("(broken off, the client took too little)"), "{line}");
    let quiet = ["ERROR", "broke off"].iter().all(|word| !edge.log().contains(word));
    assert!(quiet, "nobody else is blamed: {}", edge.log());
}
