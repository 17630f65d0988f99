//! Names that no target listed yet: who is asked for them, how often, and what becomes of that.

mod floods;

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::support::body::Content;
use super::support::client::{Answer, Ask, Ended};
use super::support::edge::{Edge, config};
use super::support::origin::{Fault, Origin, Program};
use super::support::{eventually, full, incremental};

const SMALL: Content = Content::new(1, 1000);
const BODY: Content = Content::framed(2, 300_000);
/// Long beside every time that is measured here, and shorter than a test may take.
const PATIENT: &str = "5s";
/// Longer than what is answered without waiting takes on a busy machine.
const SOON: Duration = Duration::from_millis(2500);

/// Probes once, and then not before the test is over.
fn once(patience: &str, extra: &str, groups: &[&[&Origin]]) -> String {
    config(extra, groups)
        .replace("scrape_interval: 100ms", "scrape_interval: 1h")
        .replace("probe_timeout: 1s", &format!("probe_timeout: 5s, unknown_name_probe: {patience}"))
}

/// An edge that has probed these once.
async fn edge(patience: &str, extra: &str, origins: &[&Origin]) -> Edge {
    let edge = Edge::start(&once(patience, extra, &[origins]));
    for origin in origins {
        edge.knows(origin).await;
    }
    edge
}

async fn origin(program: Program) -> Origin {
    Origin::run(program, &[(&full(5000), SMALL), (&incremental(5000, 6000), SMALL)]).await
}

async fn location(edge: &Edge, path: &str) -> Option<String> {
    edge.ask(Ask::head(path)).await.header("location").map(str::to_owned)
}

/// How many requests for anything but probes' questions came since `seen` of them had come.
fn heard(origin: &Origin, seen: usize) -> Vec<String> {
    let requests = origin.seen().split_off(seen);
    requests.iter().map(|request| format!("{} {}", request.method, request.path())).collect()
}

fn is_whole(answer: &Answer) -> bool {
    answer.status == 200 && answer.body == BODY.all() && answer.ended == Ended::Whole
}

fn is_listed(edge: &Edge, name: &str) -> bool {
    !edge.view().sources(&name.parse().expect("valid")).is_empty()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_since_the_last_probe_is_served_and_known_from_then_on() {
    for program in [Program::Agave, Program::Sidecar, Program::FiredancerSnapshots] {
        for (method, style) in [("GET", "/"), ("HEAD", "/"), ("GET", "/v1/snapshot/")] {
            let origin = origin(program).await;
            let edge = edge(PATIENT, "", &[&origin]).await;
            let (name, short) = (incremental(5000, 6100), "/incremental-snapshot.tar.bz2");
            origin.add(&name, BODY);
            assert!(!is_listed(&edge, &name));
            let answer = edge.ask(Ask::method(method, format!("{style}{name}"))).await;
            assert_eq!((answer.status, answer.length()), (200, BODY.len), "{program:?} {method}");
            assert!(method == "HEAD" || is_whole(&answer), "{program:?}");
            // One look, and what the client asked.
            assert_eq!(origin.asked("GET", &name), usize::from(method == "GET"));
            assert_eq!(origin.asked("HEAD", &name), 1 + usize::from(method == "HEAD"));
            assert!(is_listed(&edge, &name));
            assert_eq!(location(&edge, short).await, Some(format!("/{name}")), "{program:?}");
            let listing = String::from_utf8(edge.get("/v1/snapshots").await.body).unwrap();
            assert!(listing.contains(&format!("\"{name}\"")), "{listing}");
            assert!(listing.contains(&format!("\"size\":{}", BODY.len)), "{listing}");
            // From now on it is a name as any other.
            assert!(is_whole(&edge.get(&format!("/{name}")).await));
            assert_eq!(
                (edge.probes.begun(), edge.probes.found(), edge.probes.refused()),
                (1, 1, 0)
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_found_obeys_the_rules_of_the_best_pair() {
    let origin = origin(Program::Agave).await;
    let edge = edge(PATIENT, "", &[&origin]).await;
    let (base, newest) = (full(7000), incremental(7000, 7100));
    origin.add(&base, BODY);
    assert!(is_whole(&edge.get(&format!("/{base}")).await));
    let best = location(&edge, "/snapshot.tar.bz2").await;
    assert_eq!(best, Some(format!("/{}", full(5000))), "it waits for its first incremental one");
    origin.add(&newest, BODY);
    assert!(is_whole(&edge.get(&format!("/{newest}")).await));
    assert_eq!(location(&edge, "/snapshot.tar.bz2").await, Some(format!("/{base}")));
    assert_eq!(location(&edge, "/incremental-snapshot.tar.bz2").await, Some(format!("/{newest}")));
    // An incremental archive whose base nobody has is served as well, and leads nobody anywhere.
    let stray = incremental(7050, 7200);
    origin.add(&stray, BODY);
    assert!(is_whole(&edge.get(&format!("/{stray}")).await));
    assert_eq!(location(&edge, "/incremental-snapshot.tar.bz2").await, Some(format!("/{newest}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_found_is_cached_as_any_other_best_archive() {
    for sharing in ["exclusive", "shared"] {
        let directory = tempfile::tempdir().expect("a directory");
        let cached = format!(
            "proxy_snapshot_cache_dir: '{}'\ncache: {{sharing: {sharing}, min_free_space: 0B}}",
            directory.path().display()
        );
        let origin = origin(Program::Sidecar).await;
        let edge = edge(PATIENT, &cached, &[&origin]).await;
        let name = incremental(5000, 6100);
        origin.add(&name, BODY);
        let path = format!("/{name}");
        assert!(is_whole(&edge.get(&path).await), "{sharing}");
        eventually("it is cached", || async {
            let head = edge.ask(Ask::head(&path)).await;
            head.header("cache-status") == Some("snapedge; hit")
        })
        .await;
        assert_eq!(origin.asked("GET", &name), 1, "{sharing}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_proxying_an_unknown_name_leads_to_the_target_that_has_it() {
    let (one, other) = (origin(Program::Agave).await, origin(Program::Sidecar).await);
    let edge = edge(PATIENT, "proxy_snapshot_downloads: false\n", &[&one, &other]).await;
    let name = incremental(5000, 6100);
    other.add(&name, BODY);
    for ask in [Ask::get(format!("/{name}")), Ask::head(format!("/v1/snapshot/{name}"))] {
        let answer = edge.ask(ask).await;
        let url = format!("http://{}/v1/snapshot/{name}", other.address());
        assert_eq!((answer.status, answer.header("location")), (307, Some(&*url)));
    }
    assert_eq!((one.asked("HEAD", &name), other.asked("HEAD", &name)), (1, 1));
    assert_eq!(edge.get(&format!("/{}", incremental(5000, 6200))).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_is_asked_once_for_everybody_who_waits_and_not_again_at_once() {
    let origins = [
        origin(Program::Agave).await,
        origin(Program::Sidecar).await,
        origin(Program::FiredancerSnapshots).await,
    ];
    let edge = edge(PATIENT, "", &[&origins[0], &origins[1], &origins[2]]).await;
    for origin in &origins {
        // So that all of them come while it is looked for.
        origin.slow_down(Duration::from_secs(1));
    }
    let name = incremental(5000, 6100);
    let mut clients = JoinSet::new();
    let start = Instant::now();
    for number in 0..50 {
        let (address, path) = (edge.address, format!("/{name}"));
        let ask = if number % 2 == 0 { Ask::get(path) } else { Ask::head(path) };
        clients.spawn(ask.from(number % 7 + 1).send(address));
    }
    for answer in clients.join_all().await {
        assert_eq!((answer.status, answer.length()), (404, 0));
    }
    assert!(start.elapsed() < Duration::from_secs(1) + SOON, "{:?}", start.elapsed());
    assert_eq!(edge.get(&format!("/{name}")).await.status, 404);
    let asked = origins.iter().map(|o| (o.asked("HEAD", &name), o.asked("GET", &name)));
    assert_eq!(asked.collect::<Vec<_>>(), [(1, 0); 3]);
    assert_eq!((edge.probes.begun(), edge.probes.found()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_target_does_not_delay_what_another_one_has() {
    let (silent, good) = (origin(Program::Agave).await, origin(Program::Sidecar).await);
    let edge = edge(PATIENT, "", &[&silent, &good]).await;
    silent.fail_probes(Fault::StallBeforeHead);
    for slot in 6100..6104 {
        let name = incremental(5000, slot);
        good.add(&name, BODY);
        let start = Instant::now();
        assert!(is_whole(&edge.get(&format!("/{name}")).await));
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        assert_eq!(silent.asked("HEAD", &name), 1);
    }
    eventually("it is left alone", || async { running(&silent) == 0 }).await;
}

fn running(origin: &Origin) -> usize {
    origin.handler.state.lock().unwrap().running
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_in_a_404_after_the_time_that_is_given() {
    let silent = origin(Program::Agave).await;
    let edge = edge("700ms", "", &[&silent]).await;
    silent.fail_probes(Fault::StallBeforeHead);
    let name = incremental(5000, 6100);
    let start = Instant::now();
    assert_eq!(edge.get(&format!("/{name}")).await.status, 404);
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(700) && took < Duration::from_millis(700) + SOON);
    assert_eq!(silent.asked("HEAD", &name), 1);
    eventually("it is left alone", || async { running(&silent) == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_followed_as_often_as_those_of_probes() {
    let origin = origin(Program::Agave).await;
    let edge = edge(PATIENT, "", &[&origin]).await;
    let name = incremental(5000, 6100);
    origin.fail_probes(Fault::Redirect(format!("/{name}")));
    assert_eq!(edge.get(&format!("/{name}")).await.status, 404);
    assert_eq!(origin.asked("HEAD", &name), 6, "once, and five times more");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_time_for_it_nobody_is_asked() {
    let origin = origin(Program::Agave).await;
    let edge = edge("0s", "", &[&origin]).await;
    let (name, seen) = (incremental(5000, 6100), origin.seen().len());
    origin.add(&name, BODY);
    assert_eq!(edge.get(&format!("/{name}")).await.status, 404);
    assert_eq!(edge.ask(Ask::head(format!("/v1/snapshot/{name}"))).await.status, 404);
    assert_eq!(heard(&origin, seen), [""; 0]);
    assert_eq!(edge.probes.begun(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_new_is_404_at_once_and_no_target_hears_of_it() {
    let origin = origin(Program::Agave).await;
    let edge = edge(PATIENT, "", &[&origin]).await;
    origin.fail_probes(Fault::StallBeforeHead);
    let seen = origin.seen().len();
    let mut names = vec![full(3999), incremental(4000, 4999), incremental(5000, 4999)];
    for known in [full(5000), incremental(5000, 6000)] {
        for extension in ["tar.lz4", "tar.bz2", "tar.gz", "tar.xz", "tar"] {
            names.push(known.replace("tar.zst", extension));
        }
    }
    let new = incremental(5000, 6100);
    names.extend([
        format!("{new}.part"),
        new.replace("tar.zst", "tar.zs"),
        new.replace("6100", "06100"),
        new.replace("5000", "7000"),
        format!("tmp-{new}"),
    ]);
    let start = Instant::now();
    for name in &names {
        for ask in [Ask::get(format!("/{name}")), Ask::head(format!("/v1/snapshot/{name}"))] {
            let answer = edge.ask(ask).await;
            assert_eq!((answer.status, answer.length()), (404, 0), "{name}");
        }
    }
    assert!(start.elapsed() < SOON, "{:?} for {} names", start.elapsed(), names.len());
    assert_eq!(heard(&origin, seen), [""; 0]);
    assert_eq!((edge.probes.begun(), edge.probes.refused()), (0, 0));
    // A little older is what another node of the fleet may have made.
    origin.fail_probes(None);
    let late = incremental(5000, 5990);
    origin.add(&late, BODY);
    assert!(is_whole(&edge.get(&format!("/{late}")).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_no_archive_are_none() {
    let name = incremental(5000, 6100);
    let elsewhere = Origin::run(Program::Agave, &[(&name, BODY)]).await;
    let port = elsewhere.address().port();
    let faults = [
        Fault::Status(202),
        Fault::Status(403),
        Fault::Status(405),
        Fault::Status(500),
        Fault::Text(200),
        Fault::Text(202),
        Fault::Html,
        Fault::HtmlOfRightLength,
        Fault::Encoded,
        Fault::Empty,
        Fault::Chunked,
        Fault::CloseDelimited,
        Fault::CloseBeforeHead,
        // As the gossip client does: whatever is asked, it leads to what is there now.
        Fault::Redirect(format!("/{}", incremental(5000, 6000))),
        Fault::Redirect(format!("http://127.0.0.1:{port}/{}", incremental(5000, 6000))),
        // To itself, to another host and to nowhere.
        Fault::Redirect(format!("/{name}")),
        Fault::Redirect(format!("http://127.0.0.2:{port}/{name}")),
        Fault::Redirect(String::new()),
    ];
    for fault in faults {
        let origin = origin(Program::Agave).await;
        let edge = edge(PATIENT, "", &[&origin]).await;
        origin.fail_probes(fault.clone());
        for ask in [Ask::get(format!("/{name}")), Ask::head(format!("/{name}"))] {
            let start = Instant::now();
            assert_eq!(edge.ask(ask).await.status, 404, "{fault:?}");
            assert!(start.elapsed() < SOON, "{fault:?}: {:?}", start.elapsed());
        }
        assert!(!is_listed(&edge, &name), "{fault:?}");
        assert!(origin.asked("HEAD", &name) >= 1, "{fault:?}");
        assert_eq!(origin.asked("GET", &name), 0, "{fault:?}");
    }
    assert_eq!(elsewhere.seen().len(), 0, "another host and another name are never asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_closes_on_head_does_not_have_it_and_one_that_leads_on_does() {
    let snapshots = origin(Program::FiredancerSnapshots).await;
    let rpc = Origin::run(Program::FiredancerRpc(snapshots.address()), &[]).await;
    let edge = edge(PATIENT, "", &[&rpc]).await;
    edge.sees("what it leads to", |view| view.entries().len() == 2).await;
    let name = incremental(5000, 6100);
    snapshots.add(&name, BODY);
    assert_eq!(edge.get(&format!("/{name}")).await.status, 404);
    assert_eq!((rpc.asked("HEAD", &name), rpc.asked("GET", &name)), (1, 0));
    // The same name on another port of the same host is that archive.
    let front = origin(Program::Agave).await;
    let edge = self::edge(PATIENT, "", &[&front]).await;
    front.fail_probes(Fault::Redirect(format!("http://{}/{name}", snapshots.address())));
    assert!(is_whole(&edge.get(&format!("/{name}")).await));
    assert_eq!((front.asked("GET", &name), snapshots.asked("GET", &name)), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_found_and_then_gone_fails_as_any_other_source() {
    let origin = origin(Program::Sidecar).await;
    let edge = edge(PATIENT, "", &[&origin]).await;
    let name = incremental(5000, 6100);
    origin.add(&name, BODY);
    origin.fail(Fault::Status(404));
    assert_eq!(edge.get(&format!("/{name}")).await.status, 404);
    assert_eq!((origin.asked("HEAD", &name), origin.asked("GET", &name)), (1, 1));
    let parsed = name.parse().expect("valid");
    edge.sees("it is gone again", |view| view.sources(&parsed).is_empty()).await;
    assert_eq!(edge.get(&format!("/{name}")).await.status, 404);
    assert_eq!((origin.asked("HEAD", &name), origin.asked("GET", &name)), (1, 1), "not at once");
    origin.fail(Fault::Status(503));
    eventually("it is looked for again", || async {
        edge.get(&format!("/{name}")).await.status == 502
    })
    .await;
    assert_eq!(origin.asked("HEAD", &name), 2);
    // For the client, and by the edge itself to see whether it can be had.
    assert!((2..=3).contains(&origin.asked("GET", &name)));
    assert!(is_listed(&edge, &name));
    origin.fail(None);
    assert!(is_whole(&edge.get(&format!("/{name}")).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_whose_probe_failed_is_not_asked() {
    let (good, bad) = (origin(Program::Agave).await, origin(Program::Agave).await);
    bad.stop().await;
    let edge = edge(PATIENT, "", &[&good]).await;
    drop(edge);
    let edge = Edge::start(&once(PATIENT, "", &[&[&good, &bad]]));
    edge.knows(&good).await;
    // It ends when both were heard of.
    assert_eq!(edge.get(&format!("/{}", incremental(5000, 6100))).await.status, 404);
    bad.restart().await;
    let name = incremental(5000, 6200);
    bad.add(&name, BODY);
    assert_eq!(edge.get(&format!("/{name}")).await.status, 404);
    assert_eq!((good.asked("HEAD", &name), bad.seen().len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_start_a_name_waits_for_the_first_probe() {
    for program in [Program::Agave, Program::Sidecar] {
        let origin = origin(program).await;
        origin.add(&incremental(5000, 5900), BODY);
        origin.slow_down(Duration::from_millis(200));
        let edge = Edge::start(&once(PATIENT, "", &[&[&origin]]));
        // Older than what the short forms lead to, and asked before anything is known.
        eventually("the first probe has begun", || async { !origin.seen().is_empty() }).await;
        let answer = edge.get(&format!("/{}", incremental(5000, 5900))).await;
        assert!(is_whole(&answer), "{program:?}: {}", answer.head);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_in_front_of_the_api_is_in_front_of_the_name() {
    let origin = origin(Program::Agave).await;
    let text = once(PATIENT, "", &[&[&origin]]);
    let text = text.replace("group: a,", "group: a, kind: rpc, api_path: /solana,");
    let edge = Edge::start(&text);
    let name = incremental(5000, 6100);
    assert_eq!(edge.get(&format!("/{name}")).await.status, 404);
    let asked = heard(&origin, 0);
    assert!(asked.contains(&format!("HEAD /solana/{name}")), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_group_is_asked_with_its_own_credentials() {
    let (one, other) = (origin(Program::Agave).await, origin(Program::Sidecar).await);
    one.demand("Bearer of-one");
    other.demand("Bearer of-other");
    let text = once(PATIENT, "", &[&[&one], &[&other]])
        .replace("group: a,", "group: a, bearer_auth: {token: of-one},")
        .replace("group: b,", "group: b, bearer_auth: {token: of-other},");
    let edge = Edge::start(&text);
    edge.knows(&one).await;
    edge.knows(&other).await;
    let name = incremental(5000, 6100);
    other.add(&name, BODY);
    assert!(is_whole(&edge.get(&format!("/{name}")).await));
    for (origin, token) in [(&one, "Bearer of-one"), (&other, "Bearer of-other")] {
        assert_eq!(origin.asked("HEAD", &name), 1);
        let said: Vec<_> =
            origin.seen().iter().map(|r| r.header("authorization").map(str::to_owned)).collect();
        assert!(said.iter().all(|said| said.as_deref() == Some(token)), "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_leaves_the_look_to_others() {
    let origin = origin(Program::Agave).await;
    let edge = edge(PATIENT, "", &[&origin]).await;
    let name = incremental(5000, 6100);
    origin.add(&name, BODY);
    origin.slow_down(Duration::from_millis(500));
    let address = edge.address;
    let path = format!("/{name}");
    let client = tokio::spawn(async move { Ask::get(path).begin(address).await });
    eventually("it is looked for", || async { origin.asked("HEAD", &name) == 1 }).await;
    client.abort();
    let parsed = name.parse().expect("valid");
    edge.sees("it is found", |view| !view.sources(&parsed).is_empty()).await;
    assert_eq!((edge.probes.begun(), edge.probes.found()), (1, 1));
}
