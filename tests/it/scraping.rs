//! How the index follows what targets do.

use std::time::{Duration, Instant};

use super::support::body::Content;
use super::support::client::Ask;
use super::support::edge::{Edge, config};
use super::support::origin::{Fault, Origin, Program};
use super::support::{eventually, full, incremental};

const SMALL: Content = Content::new(1, 1000);

async fn location(edge: &Edge, path: &str) -> Option<String> {
    let answer = edge.ask(Ask::head(path)).await;
    answer.header("location").map(str::to_owned)
}

async fn becomes(edge: &Edge, path: &str, expected: Option<&str>) {
    let expected = expected.map(|name| format!("/{name}"));
    eventually(&format!("{path} leads to {expected:?}"), || async {
        location(edge, path).await == expected
    })
    .await;
}

const FULL: &str = "/snapshot.tar.bz2";
const INCREMENTAL: &str = "/incremental-snapshot.tar.bz2";

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_target_is_understood_and_auto_finds_out() {
    let (base, newest) = (full(1000), incremental(1000, 1500));
    let archives = [(&*base, SMALL), (&*newest, SMALL)];
    let agave = Origin::run(Program::Agave, &archives).await;
    let sidecar = Origin::run(Program::Sidecar, &archives).await;
    let snapshots = Origin::run(Program::FiredancerSnapshots, &archives).await;
    let rpc = Origin::run(Program::FiredancerRpc(snapshots.address()), &[]).await;
    for (kind, origin) in [
        ("auto", &agave),
        ("rpc", &agave),
        ("auto", &sidecar),
        ("sidecar", &sidecar),
        ("auto", &snapshots),
        ("rpc", &snapshots),
        ("auto", &rpc),
        ("rpc", &rpc),
    ] {
        let text =
            config("", &[&[origin]]).replace("group: a,", &format!("group: a, kind: {kind},"));
        let edge = Edge::start(&text);
        becomes(&edge, FULL, Some(&base)).await;
        becomes(&edge, INCREMENTAL, Some(&newest)).await;
        let answer = edge.get(&format!("/{base}")).await;
        assert!(answer.status == 200 && answer.body == SMALL.all(), "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_target_has_none_and_is_not_down() {
    for program in [Program::Agave, Program::Sidecar, Program::FiredancerSnapshots] {
        let origin = Origin::run(program, &[]).await;
        let other = Origin::run(program, &[(&full(1000), SMALL)]).await;
        let edge = Edge::before(&[&origin, &other]).await;
        origin.add(&full(2000), SMALL);
        becomes(&edge, FULL, Some(&full(2000))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_that_mean_none_are_no_failures() {
    let origin = Origin::run(Program::Agave, &[(&full(1000), SMALL)]).await;
    let edge = Edge::before(&[&origin]).await;
    for status in [202, 400, 403, 404, 405, 500, 503] {
        origin.fail_probes(Fault::Status(status));
        // What was named before is still looked for by its name, and still there: after more
        // probes than a target may fail.
        let before = origin.asked("HEAD", FULL);
        eventually("six more probes", || async { origin.asked("HEAD", FULL) >= before + 6 }).await;
        assert_eq!(location(&edge, FULL).await, Some(format!("/{}", full(1000))), "{status}");
    }
    origin.remove(&full(1000));
    becomes(&edge, FULL, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_fails_three_times_leaves_and_comes_back() {
    for fault in [Fault::StallBeforeHead, Fault::Status(502), Fault::CloseAfter(0)] {
        let bad = Origin::run(Program::Sidecar, &[(&full(2000), SMALL)]).await;
        let good = Origin::run(Program::Sidecar, &[(&full(1000), SMALL)]).await;
        let edge = Edge::before(&[&bad, &good]).await;
        assert_eq!(location(&edge, FULL).await, Some(format!("/{}", full(2000))));
        bad.fail_probes(fault);
        becomes(&edge, FULL, Some(&full(1000))).await;
        bad.fail_probes(None);
        becomes(&edge, FULL, Some(&full(2000))).await;
        bad.stop().await;
        becomes(&edge, FULL, Some(&full(1000))).await;
        bad.restart().await;
        becomes(&edge, FULL, Some(&full(2000))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_that_lead_nowhere_good_are_failures() {
    let elsewhere = Origin::run(Program::Agave, &[(&full(3000), SMALL)]).await;
    let port = elsewhere.address().port();
    for to in [
        // The same machine under another of its addresses is another host.
        format!("http://127.0.0.2:{port}/snapshot.tar.bz2"),
        format!("http://localhost:{port}/snapshot.tar.bz2"),
        format!("//127.0.0.2:{port}/x"),
        "/snapshot.tar.bz2".to_owned(),
        format!("/{}", "x".repeat(2000)),
        "https://127.0.0.1/x".to_owned(),
        "http://".to_owned(),
    ] {
        let bad = Origin::run(Program::Agave, &[(&full(2000), SMALL)]).await;
        let good = Origin::run(Program::Agave, &[(&full(1000), SMALL)]).await;
        let edge = Edge::before(&[&good, &bad]).await;
        assert_eq!(location(&edge, FULL).await, Some(format!("/{}", full(2000))), "{to}");
        bad.fail_probes(Fault::Redirect(to));
        // It fails, and so it leaves with all that it had.
        becomes(&edge, FULL, Some(&full(1000))).await;
    }
    assert_eq!(elsewhere.seen().len(), 0, "another host is never asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_followed_five_times() {
    let origin = Origin::run(Program::Agave, &[]).await;
    origin.fail_probes(Fault::Redirect("/snapshot.tar.bz2".to_owned()));
    let text = config("", &[&[&origin]]).replace("scrape_interval: 100ms", "scrape_interval: 1h");
    let _edge = Edge::start(&text.replace("group: a,", "group: a, kind: rpc,"));
    eventually("the only probe is over", || async {
        origin.asked("HEAD", FULL) >= 6 && origin.handler.state.lock().unwrap().running == 0
    })
    .await;
    // The probe ends with the first of its two short forms that fails.
    let asked = origin.seen().len();
    assert!((6..=14).contains(&asked), "{asked} requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_pair_of_a_node_stays_until_the_new_one_is_whole() {
    let (base, newest) = (full(1000), incremental(1000, 1900));
    let node = Origin::run(Program::Agave, &[(&base, SMALL), (&newest, SMALL)]).await;
    let edge = Edge::before(&[&node]).await;
    // From now on the node says nothing of the old pair: 404 on the incremental short form.
    let next = full(2000);
    node.add(&next, SMALL);
    let parsed = next.parse().expect("valid");
    edge.sees("the new full archive", |view| !view.sources(&parsed).is_empty()).await;
    for _ in 0..3 {
        assert_eq!(location(&edge, FULL).await, Some(format!("/{base}")));
        assert_eq!(location(&edge, INCREMENTAL).await, Some(format!("/{newest}")));
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
    node.add(&incremental(2000, 2100), SMALL);
    becomes(&edge, INCREMENTAL, Some(&incremental(2000, 2100))).await;
    assert_eq!(location(&edge, FULL).await, Some(format!("/{next}")));
    // A name that a client learned before still leads to the bytes.
    assert_eq!(edge.get(&format!("/{newest}")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hold_of_the_old_pair_ends() {
    let archives = [(&*full(1000), SMALL), (&*incremental(1000, 1900), SMALL)];
    let node = Origin::run(Program::Sidecar, &archives).await;
    let text = config("", &[&[&node]]).replace("pair_hold: 1h", "pair_hold: 700ms");
    let edge = Edge::start(&text);
    becomes(&edge, INCREMENTAL, Some(&incremental(1000, 1900))).await;
    let start = Instant::now();
    node.add(&full(2000), SMALL);
    becomes(&edge, FULL, Some(&full(2000))).await;
    assert!(start.elapsed() >= Duration::from_millis(700), "{:?}", start.elapsed());
    assert_eq!(location(&edge, INCREMENTAL).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_are_bounded_in_number_and_time() {
    let hanging = Origin::run(Program::Agave, &[]).await;
    hanging.fail_probes(Fault::StallBeforeHead);
    // One server in many groups, so that its count is that of all probes.
    let port = hanging.address().port();
    let targets: Vec<String> = (0..12).map(|_| format!("'127.0.0.1:{port}'")).collect();
    let good = Origin::run(Program::Agave, &[(&full(1000), SMALL)]).await;
    let mut text = "listen: ['127.0.0.1:0']\nscrape_interval: 100ms\n\
        limits: {probe_timeout: 300ms, probe_concurrency: 2}\ntarget_groups:\n"
        .to_owned();
    for (at, target) in targets.iter().enumerate() {
        text.push_str(&format!("  - {{group: g{at}, static_targets: {{targets: [{target}]}}}}\n"));
    }
    text.push_str(&format!(
        "  - {{group: good, static_targets: {{targets: ['{}']}}}}\n",
        good.address()
    ));
    let edge = Edge::start(&text);
    // Behind twelve that hang, two at a time, each for 300 ms.
    becomes(&edge, FULL, Some(&full(1000))).await;
    eventually("several rounds", || async { hanging.connections() > 12 }).await;
    // A probe that finds out what a target is asks one thing at a time. The origin may still count
    // two that were just given up.
    assert!(hanging.most_at_once() <= 4, "{} at once", hanging.most_at_once());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_probe_ends_by_its_own_deadline_and_not_by_the_next_tick() {
    let slow = Origin::run(Program::Sidecar, &[(&full(1000), SMALL)]).await;
    // Several times slower than the scrape interval, faster than the deadline.
    slow.slow_down(Duration::from_millis(400));
    let edge = Edge::before(&[&slow]).await;
    becomes(&edge, FULL, Some(&full(1000))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_name_is_resolved_and_asked_by_its_name() {
    let origin = Origin::run(Program::Agave, &[(&full(1000), SMALL)]).await;
    let port = origin.address().port();
    let text = format!(
        "listen: ['127.0.0.1:0']\nscrape_interval: 100ms\ntarget_groups:\n  \
         - {{group: a, static_targets: {{targets: ['localhost:{port}']}}}}\n"
    );
    let edge = Edge::start(&text);
    becomes(&edge, FULL, Some(&full(1000))).await;
    assert_eq!(edge.get(&format!("/{}", full(1000))).await.status, 200);
    let hosts: Vec<_> =
        origin.seen().iter().map(|request| request.header("host").map(str::to_owned)).collect();
    assert!(hosts.iter().all(|host| *host == Some(format!("localhost:{port}"))), "{hosts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_archives_move_to_another_port_is_found_there() {
    let archives = [(&*full(1000), SMALL)];
    let first = Origin::run(Program::FiredancerSnapshots, &archives).await;
    let second = Origin::run(Program::FiredancerSnapshots, &[(&full(2000), SMALL)]).await;
    let node = Origin::run(Program::FiredancerRpc(first.address()), &[]).await;
    let edge = Edge::before(&[&node]).await;
    becomes(&edge, FULL, Some(&full(1000))).await;
    first.stop().await;
    node.redirect_to(second.address());
    becomes(&edge, FULL, Some(&full(2000))).await;
    assert_eq!(edge.get(&format!("/{}", full(1000))).await.status, 404);
}
