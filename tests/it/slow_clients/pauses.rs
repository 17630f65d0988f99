//! `send_timeout`: clients that take nothing for a while, since they unpack as they read.

use std::time::Duration;

use tempfile::TempDir;
use tokio::time::timeout;

use super::super::support::body::Content;
use super::super::support::edge::{Edge, QUICK, config};
use super::super::support::eventually;
use super::super::support::origin::{Origin, Program};
use super::super::support::{full, incremental};
use super::MARGIN;
use super::takers::{LARGE, Outcome, Taker, cached, http1, http2};

/// More than any system takes over, again and again.
const EVERY: u64 = LARGE.len / 4;
const PAUSES: &[Duration] =
    &[Duration::from_secs(11), Duration::from_secs(3), Duration::from_secs(3)];
const PATIENT: &str = "min_send_rate: 256KiB/s, send_timeout: 20s";
/// The same length, and whole: what is in a directory is looked through.
const FRAMED: Content = Content::framed(1, LARGE.len);
const SHORT: Duration = Duration::from_secs(4);
const IMPATIENT: &str = "min_send_rate: 256KiB/s, send_timeout: 4s";

/// An edge that has archives in one way, and two of these: for a client of each protocol.
struct Mode {
    what: &'static str,
    edge: Edge,
    paths: [String; 2],
    origin: Option<Origin>,
    _directory: Option<TempDir>,
}

fn bounded(limits: &str, extra: &str, origins: &[&Origin]) -> Edge {
    let text = config(&format!("server: {{h2c: true}}\n{extra}"), &[origins]);
    Edge::start(&text.replace("limits: {", &format!("limits: {{{limits}, ")))
}

/// An edge before a node of two archives, with a cache or without one.
async fn before_a_node(what: &'static str, limits: &str, cache: Option<&str>) -> Mode {
    let names = [full(1000), incremental(1000, 1500)];
    let archives = [(&*names[0], LARGE), (&*names[1], LARGE)];
    let origin = Origin::run(Program::Sidecar, &archives).await;
    let directory = tempfile::tempdir().expect("a directory");
    let extra = cache.map_or_else(String::new, |cache| {
        format!(
            "proxy_snapshot_cache_dir: '{}'\ncache: {{min_free_space: 0B, verify: length{cache}}}",
            directory.path().display()
        )
    });
    let edge = bounded(limits, &extra, &[&origin]);
    edge.knows(&origin).await;
    let paths = names.map(|name| format!("/{name}"));
    Mode { what, edge, paths, origin: Some(origin), _directory: Some(directory) }
}

/// The same once both are in the cache, and no longer the best where `newer` ones come.
async fn of_a_cache(what: &'static str, limits: &str, newer: bool) -> Mode {
    let settings = if newer { ", sharing: shared, keep_previous: true" } else { "" };
    let mode = before_a_node(what, limits, Some(settings)).await;
    for path in &mode.paths {
        cached(&mode.edge, &path[1..]).await;
    }
    if newer {
        let origin = mode.origin.as_ref().expect("there is one");
        for name in [full(2000), incremental(2000, 2500)] {
            origin.add(&name, Content::new(2, 1000));
            mode.edge.knows(origin).await;
        }
        for name in [full(2000), incremental(2000, 2500)] {
            cached(&mode.edge, &name).await;
        }
        for path in &mode.paths {
            origin.remove(&path[1..]);
        }
    }
    mode
}

async fn of_a_directory(limits: &str) -> Mode {
    let names = [full(1000), incremental(1000, 1500)];
    let directory = tempfile::tempdir().expect("a directory");
    for name in &names {
        std::fs::write(directory.path().join(name), FRAMED.all()).expect("written");
    }
    let text = format!(
        "server: {{h2c: true}}\n{}\
         target_groups:\n  - {{group: a, ledger_targets: {{paths: ['{}']}}}}\n",
        QUICK.replace("limits: {", &format!("limits: {{{limits}, ")),
        directory.path().display()
    );
    let edge = Edge::start(&text);
    let paths = names.map(|name| format!("/{name}"));
    let what = "out of a directory";
    for path in &paths {
        eventually("the archive is offered", || async {
            edge.ask(super::super::support::client::Ask::head(path)).await.status == 200
        })
        .await;
    }
    Mode { what, edge, paths, origin: None, _directory: Some(directory) }
}

/// Each way in which an archive comes to a client.
async fn modes(limits: &str) -> Vec<Mode> {
    let growing = before_a_node("growing", limits, Some(", sharing: shared")).await;
    if let Some(origin) = &growing.origin {
        origin.slow_to(LARGE.len / 3);
    }
    vec![
        before_a_node("carried", limits, None).await,
        before_a_node("filling", limits, Some("")).await,
        growing,
        of_a_cache("cached", limits, false).await,
        of_a_cache("of the generation before", limits, true).await,
        of_a_directory(limits).await,
    ]
}

/// What becomes of such a client of each protocol, in each mode.
async fn outcomes(limits: &str, taker: Taker) -> Vec<(String, Outcome)> {
    let mut running = Vec::new();
    let modes = modes(limits).await;
    for mode in &modes {
        let ([first, second], to) = (mode.paths.clone(), mode.edge.address);
        let http1 = tokio::spawn(async move { http1(to, &first, taker).await });
        running.push((format!("{}, HTTP/1", mode.what), http1));
        let http2 = tokio::spawn(async move { http2(to, &second, taker).await });
        running.push((format!("{}, HTTP/2", mode.what), http2));
    }
    let mut outcomes = Vec::new();
    for (what, run) in running {
        let outcome = timeout(Duration::from_secs(60), run).await.expect("it ends in time");
        let outcome = outcome.expect("no panic");
        println!("{what}: {} bytes, {:.1} s", outcome.bytes, outcome.after.as_secs_f64());
        outcomes.push((what, outcome));
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_pause_for_send_timeout_again_and_again() {
    let pauses: Duration = PAUSES.iter().sum();
    for (what, outcome) in outcomes(PATIENT, Taker::Pausing(EVERY, PAUSES)).await {
        let Outcome { bytes, after } = outcome;
        assert_eq!(bytes, LARGE.len, "{what}: left after {after:?}");
        assert!(after >= pauses, "{what}: it paused for {pauses:?} and not {after:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_pauses_for_longer_than_send_timeout_is_left() {
    for (what, Outcome { bytes, after }) in outcomes(IMPATIENT, Taker::Nothing).await {
        assert!(bytes < LARGE.len, "{what}: all of it");
        assert!(after + Duration::from_millis(500) > SHORT, "{what}: after {after:?}");
        assert!(after < SHORT * 3 / 2 + MARGIN, "{what}: after {after:?}");
    }
}
