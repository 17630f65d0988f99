//! `/metrics`: what it adds up to, and that it does not grow by what clients send.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use super::super::support::body::Content;
use super::super::support::client::{Ask, Ended, connect};
use super::super::support::origin::{Fault, Origin, Program};
use super::super::support::process::Running;
use super::super::support::{PATIENCE, eventually, full, incremental};
use super::{Samples, config, events, lines, shows};

/// A cache in a directory, and an access log there.
fn with_log(directory: &tempfile::TempDir) -> String {
    let path = directory.path().display();
    format!(
        "log: {{format: json, access: '{path}/access.log'}}\n\
         proxy_snapshot_cache_dir: '{path}/cache'\ncache: {{min_free_space: 0B}}"
    )
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).expect("few")
}

/// All that clients ask for, forty times at once, by some that stay and some that leave.
async fn everything(edge: &Running, name: &str, newer: &str) {
    let mut load = tokio::task::JoinSet::new();
    for round in 0..40_usize {
        let (name, newer, address) = (name.to_owned(), newer.to_owned(), edge.address);
        load.spawn(async move {
            let asks = [
                Ask::get("/snapshot.tar.bz2"),
                Ask::head("/incremental-snapshot.tar.bz2"),
                Ask::get(format!("/{name}")),
                Ask::get(format!("/{name}")).leave_after(1000 + round * 50_000),
                Ask::get(format!("/{newer}")).with("range", format!("bytes={round}-")),
                Ask::get(format!("/{newer}")).with("range", "bytes=9999999-"),
                Ask::head(format!("/{name}")),
                Ask::get("/v1/snapshots"),
                Ask::get("/health"),
                Ask::get(format!("/nothing/{round}?x={round}")),
                Ask::post("/snapshot.tar.bz2", "{}"),
                Ask::get(format!("/{}", full(7))),
            ];
            for ask in asks {
                let leaves = ask.clone().send(address).await.ended == Ended::Left;
                assert!(leaves || ask.path().len() > 1);
            }
        });
    }
    while let Some(done) = load.join_next().await {
        done.expect("no fault");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_bytes_are_those_of_the_access_log_to_the_last_one() {
    let (name, newer) = (full(1000), incremental(1000, 1100));
    let archives = [(&*name, Content::framed(1, 4 << 20)), (&*newer, Content::framed(2, 1 << 20))];
    let origin = Origin::run(Program::Sidecar, &archives).await;
    let directory = tempfile::tempdir().expect("a directory");
    let edge = Running::start(&config(&with_log(&directory), &[&origin])).await;
    edge.offers("/snapshot.tar.bz2").await;

    everything(&edge, &name, &newer).await;
    // One that breaks off by the target's fault.
    origin.fail(Fault::CloseAfter(500_000));
    let parts = Ask::get(format!("/{}", full(1000))).with("range", "bytes=5-").from(9);
    parts.send(edge.address).await;

    let log = directory.path().join("access.log");
    // Until all requests have ended and all lines are written.
    let deadline = Instant::now() + PATIENCE;
    let samples = loop {
        let samples = Samples::of(edge.internal).await;
        let counted = samples.sum("snapedge_requests_total");
        tokio::time::sleep(Duration::from_millis(300)).await;
        let again = Samples::of(edge.internal).await.sum("snapedge_requests_total");
        if again == counted && whole(lines(&log).len()) == counted {
            break samples;
        }
        assert!(Instant::now() < deadline, "{counted} requests, {} lines", lines(&log).len());
    };
    let lines = lines(&log);
    let sum =
        |key: &str| lines.iter().map(|line| line[key].as_i64().expect("a number")).sum::<i64>();
    assert_eq!(sum("bytes"), samples.sum("snapedge_sent_bytes_total"));
    for route in ["short_form", "archive", "api", "health", "other"] {
        let of_route = lines.iter().filter(|line| line["route"] == route);
        let (count, bytes) = of_route.fold((0, 0), |(count, bytes), line| {
            (count + 1, bytes + line["bytes"].as_i64().expect("a number"))
        });
        assert!(count >= 40, "{route}: {count}");
        let label = format!("snapedge_sent_bytes_total{{route=\"{route}\"}}");
        assert_eq!(bytes, samples.get(&label), "{route}");
    }
    for end in ["done", "client_left", "source_failed", "refused"] {
        let count = lines.iter().filter(|line| line["end"] == end).count();
        let label = format!("snapedge_ends_total{{end=\"{end}\"}}");
        assert_eq!(whole(count), samples.get(&label), "{end}");
    }
    assert_eq!(samples.sum("snapedge_ends_total"), whole(lines.len()));
    let left = lines.iter().filter(|line| line["end"] == "client_left").count();
    // Of some the rest was on its way when they left.
    assert!(left >= 10, "{left}");
    assert_eq!(samples.get("snapedge_log_lines_dropped_total{log=\"access\"}"), 0);
    eventually("what came from the target is seen at the next look", || async {
        let samples = Samples::of(edge.internal).await;
        samples.sum("snapedge_target_received_bytes_total") >= 5 << 20
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn series_do_not_grow_by_what_clients_send() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, Content::new(1, 1 << 10))]).await;
    let extra = "log: {access: off}\nrpc_proxy: {enabled: true, per_client_rate: 1000000/s}";
    let edge = Running::start(&config(extra, &[&origin])).await;
    edge.offers("/snapshot.tar.bz2").await;
    let ask = async |number: u32| {
        let [.., high, low] = number.to_be_bytes();
        let client = Ipv4Addr::new(127, 1, high % 4, low);
        let call = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"method{number}"}}"#);
        for ask in [
            Ask::get(format!("/path/{number}?query={number}"))
                .with("user-agent", format!("a{number}")),
            Ask::get(format!("/{name}")).with("range", format!("bytes={}-", number % 1000)),
            Ask::post("/", call),
            Ask::get(format!("/snapshot-{number}-{}.tar.zst", "1".repeat(32))),
        ] {
            ask.sent_from(client).send(edge.address).await;
        }
    };
    for number in 0..50 {
        ask(number).await;
    }
    eventually("a look", || async {
        Samples::of(edge.internal).await.sum("snapedge_offered_slot") > 0
    })
    .await;
    // Of the process there are as many as before in any case.
    let series = async || {
        let samples = Samples::of(edge.internal).await;
        samples.0.into_keys().collect::<BTreeSet<_>>()
    };
    let before = series().await;
    for number in 50..2600 {
        ask(number).await;
    }
    let new: Vec<String> = series().await.difference(&before).cloned().collect();
    assert!(new.is_empty(), "{new:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_targets_and_fills_do_is_counted() {
    let name = full(1000);
    let content = Content::framed(1, 4 << 20);
    let good = Origin::run(Program::Sidecar, &[(&name, content)]).await;
    let bad = Origin::run(Program::Sidecar, &[(&name, content)]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let edge = Running::start(&config(&with_log(&directory), &[&good, &bad])).await;
    edge.offers("/snapshot.tar.bz2").await;
    let samples = Samples::of(edge.internal).await;
    assert_eq!(samples.get("snapedge_ready"), 1);
    bad.fail(Fault::Status(500));
    for client in 1..20 {
        let part = Ask::get(format!("/{name}")).with("range", "bytes=5-99").from(client);
        assert_eq!(part.send(edge.address).await.status, 206);
    }
    assert_eq!(Ask::get(format!("/{name}")).send(edge.address).await.status, 200);
    let failed = |samples: &Samples| samples.get("snapedge_failovers_total{cause=\"status\"}");
    let (good, bad) = (good.address(), bad.address());
    let of = |metric: &str, target| format!("{metric}{{group=\"a\",target=\"{target}\"}}");
    eventually("all of it is counted", || async {
        let samples = Samples::of(edge.internal).await;
        failed(&samples) >= 1
            && samples.get("snapedge_source_failures_total{cause=\"status\"}") == failed(&samples)
            && samples.get("snapedge_fills_started_total") == 1
            && samples.get("snapedge_fills_promoted_total") == 1
            && samples.get("snapedge_cache_archives{group=\"a\",kind=\"full\"}") == 1
            && samples.get("snapedge_cache_bytes") == 4 << 20
            && samples.get(&of("snapedge_target_ejections_total", bad)) >= 1
            && samples.get(&of("snapedge_target_received_bytes_total", good)) >= 4 << 20
            && samples.get(&of("snapedge_target_up", good)) == 1
            && samples.get("snapedge_offered_slot{group=\"a\",kind=\"full\"}") == 1000
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_that_are_not_met_are_no_failures() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, Content::new(1, 1 << 20))]).await;
    let edge = Running::start(&config("log: {access: off}", &[&origin])).await;
    edge.offers("/snapshot.tar.bz2").await;
    let path = format!("/{name}");
    let tag = Ask::head(&*path).send(edge.address).await;
    let tag = tag.header("etag").expect("a tag").to_owned();
    for (method, header, value, status) in [
        ("GET", "if-none-match", &*tag, 304),
        ("HEAD", "if-none-match", &tag, 304),
        ("GET", "if-match", "\"x\"", 412),
        ("HEAD", "if-match", "\"x\"", 412),
        ("GET", "range", "bytes=99999999-", 416),
    ] {
        let ask = Ask::method(method, &*path).with(header, value).with("connection", "close");
        assert_eq!(ask.send(edge.address).await.status, status, "{method} {header}");
    }
    eventually("all of them are done", || async {
        let samples = Samples::of(edge.internal).await;
        let done = samples.get("snapedge_ends_total{end=\"done\"}");
        done >= 6 && done == samples.sum("snapedge_ends_total")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fill_that_no_target_delivers_is_counted_and_told() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, Content::framed(1, 1 << 20))]).await;
    origin.fail(Fault::Status(500));
    let directory = tempfile::tempdir().expect("a directory");
    let extra = format!(
        "log: {{access: off}}\nproxy_snapshot_cache_dir: '{}'\n\
         cache: {{sharing: shared, prefetch: all, min_free_space: 0B}}",
        directory.path().display()
    );
    let edge = Running::start(&config(&extra, &[&origin])).await;
    eventually("it is counted", || async {
        let samples = Samples::of(edge.internal).await;
        samples.get("snapedge_fills_failed_total{reason=\"source_failed\"}") >= 1
            && samples.get("snapedge_source_failures_total{cause=\"status\"}") >= 1
            && samples.sum("snapedge_fills_started_total") == 0
    })
    .await;
    let is_told = |status: &serde_json::Value| {
        events(status).iter().any(|(kind, text)| kind == "fill_failed" && text.contains(&name))
    };
    shows(&edge, "the event", is_told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_and_leaves_at_once_is_no_fault_of_the_program() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, Content::new(1, 1 << 20))]).await;
    let edge = Running::start(&config("log: {access: off}", &[&origin])).await;
    edge.offers("/snapshot.tar.bz2").await;
    let archive = format!("/{name}");
    for round in 0..400 {
        let path =
            ["/snapshot.tar.bz2", "/health", "/v1/snapshots", "/nothing", &archive][round % 5];
        let mut stream = connect(Ipv4Addr::LOCALHOST.into(), edge.address).await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        if round % 2 == 0 {
            // What is unread then resets the connection.
            stream.set_zero_linger().expect("an option");
        }
    }
    eventually("all have ended", || async {
        Samples::of(edge.internal).await.sum("snapedge_ends_total") >= 300
    })
    .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let samples = Samples::of(edge.internal).await;
    for end in ["internal", "source_failed", "refused"] {
        assert_eq!(samples.get(&format!("snapedge_ends_total{{end=\"{end}\"}}")), 0, "{end}");
    }
    let failed = samples.0.keys().filter(|series| series.contains("status=\"5"));
    assert_eq!(failed.collect::<Vec<_>>(), Vec::<&String>::new());
}
