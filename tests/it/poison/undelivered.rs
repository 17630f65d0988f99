//! Archives that targets list and do not deliver.

use std::time::Duration;

use tokio::task::JoinSet;

use super::*;
use crate::support::client::Ended;
use crate::support::origin::Fault;
use crate::support::process::Running;
use crate::support::{full, incremental};

/// How an edge may carry archives: without a cache, or with these settings of one.
const MODES: [Option<&str>; 4] = [
    None,
    Some(""),
    Some(", sharing: shared"),
    Some(", sharing: shared, prefetch: all, publish: promoted, keep_previous: true"),
];

/// How long it is watched that something does not happen.
const WATCHED: Duration = Duration::from_secs(4);

/// Slots of a full archive, of two incremental ones on it, and of a pair after that.
const BASE: u64 = 1000;
const FIRST: u64 = 1100;
const SECOND: u64 = 1200;
const NEXT: u64 = 1300;
const LAST: u64 = 1400;

fn faults() -> Vec<Fault> {
    vec![
        Fault::Status(500),
        Fault::Status(502),
        Fault::Status(503),
        Fault::Later(429),
        Fault::Later(503),
        Fault::Status(403),
        Fault::StallBeforeHead,
        Fault::CloseBeforeHead,
        Fault::Longer(7),
        Fault::Html,
        Fault::Empty,
        Fault::Chunked,
        Fault::Encoded,
        Fault::Redirect("/elsewhere".to_owned()),
        Fault::CloseAfter(0),
        Fault::CloseAfter(1),
        Fault::ResetAfter(1),
        Fault::StallAfter(1),
        Fault::CloseAfter(40_000),
    ]
}

fn content_of(name: &str) -> Content {
    if name.starts_with('i') { INCREMENTAL } else { FULL }
}

/// Downloads what a short name leads to; whether all of it came, and what it is.
async fn download(edge: &Edge, form: &str) -> Option<String> {
    let name = location(edge, form).await?;
    let answer = edge.get(&format!("/{name}")).await;
    let is_whole = (answer.status, answer.ended) == (200, Ended::Whole);
    assert!(!is_whole || answer.body == content_of(&name).all(), "{name}: other bytes");
    is_whole.then_some(name)
}

/// What the list of the best tells first.
async fn first_of_the_best(edge: &Edge, query: &str) -> String {
    let answer = edge.get(&format!("/v1/best_snapshots{query}")).await;
    let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    body[0]["files"][0]["file_name"].as_str().expect("a name").to_owned()
}

/// Clients that ask again and again get this pair before long, and all of it, and everything
/// recommends it.
async fn delivers(edge: &Edge, base: &str, tip: &str, what: &str) {
    eventually(&format!("{what}: {tip} is delivered"), || async {
        let full = download(edge, FULL_FORM).await;
        let incremental = download(edge, INCREMENTAL_FORM).await;
        full.as_deref() == Some(base) && incremental.as_deref() == Some(tip)
    })
    .await;
    offers(edge, base, Some(tip)).await;
    for query in ["", "?group=a"] {
        assert_eq!(first_of_the_best(edge, query).await, tip, "{what} {query}");
    }
    assert_eq!(newest(edge).await, tip.parse::<Name>().expect("a name").slot().0, "{what}");
}

type Name = snapedge::snapshot::ArchiveName;

/// One node has a pair, and then lists a newer archive that it does not deliver, and delivers it in
/// the end.
async fn check(mode: Option<&'static str>, program: Program, fault: Fault, is_full: bool) {
    let what = format!("{mode:?}, {program:?}, {fault:?}, full: {is_full}");
    let (base, first) = (full(BASE), incremental(BASE, FIRST));
    let archives = [&base, &first].map(|name| (name.as_str(), content_of(name)));
    let origin = Origin::run(program, &archives).await;
    let directory = tempfile::tempdir().expect("a directory");
    let settings = mode.map(|mode| cached::settings(directory.path(), mode));
    let edge = Edge::with(&settings.unwrap_or_default(), &[&origin]).await;
    delivers(&edge, &base, &first, &what).await;
    let (new_base, new_tip) = if is_full {
        (full(NEXT), incremental(NEXT, LAST))
    } else {
        (base.clone(), incremental(BASE, SECOND))
    };
    origin.fail_one(if is_full { &new_base } else { &new_tip }, fault);
    if is_full {
        origin.add(&new_base, FULL);
    }
    origin.add(&new_tip, INCREMENTAL);
    edge.knows(&origin).await;
    delivers(&edge, &base, &first, &what).await;
    origin.fail(None);
    delivers(&edge, &new_base, &new_tip, &what).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn short_names_go_back_from_what_nobody_delivers_and_forward_again() {
    let mut running = JoinSet::new();
    for (at, fault) in faults().into_iter().enumerate() {
        // A few at once, so that nobody is slow because of the others.
        if running.len() == 6 {
            running.join_next().await.expect("a case").expect("no panic");
        }
        let program = if at % 5 == 4 { Program::Agave } else { Program::Sidecar };
        running.spawn(check(MODES[at % MODES.len()], program, fault, at % 3 == 0));
    }
    while let Some(case) = running.join_next().await {
        case.expect("no panic");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_left_keeps_an_archive_and_another_group_is_asked() {
    let (base, first, second) = (full(BASE), incremental(BASE, FIRST), incremental(BASE, SECOND));
    let one = origin(&[&base, &first, &second]).await;
    let two = origin(&[&base, &first, &second]).await;
    for groups in [vec![vec![&one, &two]], vec![vec![&one], vec![&two]]] {
        let groups: Vec<&[&Origin]> = groups.iter().map(Vec::as_slice).collect();
        let edge = Edge::start(&crate::support::edge::config("", &groups));
        edge.knows(&one).await;
        edge.knows(&two).await;
        one.fail_one(&second, Fault::Status(500));
        for number in 1..=20 {
            let answer = edge.ask(Ask::get(format!("/{second}")).from(number)).await;
            assert_eq!((answer.status, answer.ended), (200, Ended::Whole));
        }
        offers(&edge, &base, Some(&second)).await;
        two.fail_one(&second, Fault::Later(503));
        delivers(&edge, &base, &first, "both fail").await;
        two.fail(None);
        delivers(&edge, &base, &second, "one delivers again").await;
        one.fail(None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_has_nothing_else_does_not_lead_the_others_astray() {
    let (base, first) = (full(BASE), incremental(BASE, FIRST));
    let (new_base, new_tip) = (full(NEXT), incremental(NEXT, LAST));
    let one = origin(&[&base, &first]).await;
    let two = origin(&[&new_base, &new_tip]).await;
    two.fail_one(&new_tip, Fault::CloseBeforeHead);
    let edge = Edge::start(&crate::support::edge::config("", &[&[&one], &[&two]]));
    edge.knows(&one).await;
    edge.knows(&two).await;
    delivers(&edge, &base, &first, "the group that can").await;
    // By its name it is offered as before: a try is better than nothing.
    let path = format!("{INCREMENTAL_FORM}?group=b");
    assert_eq!(location(&edge, &path).await.as_deref(), Some(&*new_tip));
    assert_eq!(first_of_the_best(&edge, "?group=b").await, new_tip);
    two.fail(None);
    offers(&edge, &new_base, Some(&new_tip)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_goes_on_where_the_node_does_not_deliver() {
    let (base, first, second) = (full(BASE), incremental(BASE, FIRST), incremental(BASE, SECOND));
    let node = origin(&[&base, &second]).await;
    node.fail(Fault::CloseBeforeHead);
    let shelf = tempfile::tempdir().expect("a directory");
    for name in [&base, &first] {
        let unfinished = shelf.path().join("tmp");
        fs::write(&unfinished, content_of(name).all()).expect("written");
        fs::rename(unfinished, shelf.path().join(name)).expect("renamed");
    }
    let config = format!(
        "{}target_groups: [{{group: a, static_targets: {{targets: ['{}']}}, \
         ledger_targets: {{paths: ['{}']}}}}]\n",
        crate::support::edge::QUICK,
        node.address(),
        shelf.path().display()
    );
    let edge = Edge::start(&config);
    offers(&edge, &base, Some(&second)).await;
    delivers(&edge, &base, &first, "the directory").await;
    node.fail(None);
    delivers(&edge, &base, &second, "the node").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_refuses_connections_delivers_nothing() {
    let (base, first, second) = (full(BASE), incremental(BASE, FIRST), incremental(BASE, SECOND));
    let (one, two) = (origin(&[&base, &first]).await, origin(&[&base, &second]).await);
    let edge = Edge::limited("probe_failures: 1000", "", &[&one, &two]).await;
    offers(&edge, &base, Some(&second)).await;
    two.stop().await;
    delivers(&edge, &base, &first, "refused").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nothing_else_it_stays_offered() {
    let (base, first) = (full(BASE), incremental(BASE, FIRST));
    for name in [&base, &first] {
        let origin = origin(&[&base, &first]).await;
        origin.fail_one(name, Fault::Status(500));
        let edge = Edge::before(&[&origin]).await;
        assert_eq!(edge.get(&format!("/{name}")).await.status, 502);
        let parsed = name.parse().expect("a name");
        edge.sees("it is known not to come", |view| view.is_undelivered(&parsed)).await;
        offers(&edge, &base, Some(&first)).await;
        origin.fail(None);
        let answer = edge.get(&format!("/{name}")).await;
        assert_eq!((answer.status, answer.ended), (200, Ended::Whole), "clients go on to try");
        edge.sees("what came can be had", |view| !view.is_undelivered(&parsed)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_copy_is_offered_at_once() {
    let (base, first, second) = (full(BASE), incremental(BASE, FIRST), incremental(BASE, SECOND));
    let origin = origin(&[&base, &first, &second]).await;
    origin.fail_one(&second, Fault::Status(500));
    let edge = Edge::before(&[&origin]).await;
    delivers(&edge, &base, &first, "it fails").await;
    // By what is listed, before anybody knows whether that is better.
    origin.add(&second, Content::framed(2, 50_001));
    offers(&edge, &base, Some(&second)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_edge_tries_by_itself_now_and_then() {
    let (base, first, second) = (full(BASE), incremental(BASE, FIRST), incremental(BASE, SECOND));
    let origin = origin(&[&base, &first, &second]).await;
    origin.fail_one(&second, Fault::Status(500));
    let edge = Edge::before(&[&origin]).await;
    delivers(&edge, &base, &first, "it fails").await;
    let before = origin.asked("GET", &second);
    eventually("it is tried again", || async { origin.asked("GET", &second) > before }).await;
    tokio::time::sleep(WATCHED).await;
    assert_eq!(origin.asked("GET", &second), before + 1, "and not all the time");
    let tries = origin.seen();
    let last = tries.iter().rfind(|request| request.path().ends_with(&second));
    let last = last.expect("it was asked for");
    assert!(last.header("cdn-loop").is_some_and(|value| value.starts_with("snapedge-")));
    assert_eq!(last.header("x-forwarded-for"), None, "for nobody's request");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_carrying_nothing_is_known() {
    let (base, first) = (full(BASE), incremental(BASE, FIRST));
    let origin = origin(&[&full(900), &base, &first]).await;
    origin.fail(Fault::Status(500));
    let edge = Edge::with("proxy_snapshot_downloads: false", &[&origin]).await;
    for form in [FULL_FORM, INCREMENTAL_FORM] {
        assert_eq!(edge.get(form).await.status, 303);
    }
    assert_eq!(edge.get(&format!("/{first}")).await.status, 307);
    offers(&edge, &base, Some(&first)).await;
    assert_eq!(origin.asked("GET", &first), 0);
}

/// For a while nothing leads elsewhere.
async fn stays(edge: &Edge, base: &str, tip: &str) {
    let until = tokio::time::Instant::now() + WATCHED;
    while tokio::time::Instant::now() < until {
        assert_eq!(location(edge, FULL_FORM).await.as_deref(), Some(base));
        assert_eq!(location(edge, INCREMENTAL_FORM).await.as_deref(), Some(tip));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_requests_take_nothing_from_others() {
    let (base, first, second) = (full(BASE), incremental(BASE, FIRST), incremental(BASE, SECOND));
    let origin = origin(&[&base, &first, &second]).await;
    origin.fail(Fault::StatusOfParts(500));
    let edge = Edge::before(&[&origin]).await;
    let path = format!("/{second}");
    let attack = async {
        for number in (1..=100).cycle() {
            for range in ["bytes=0-0", "bytes=5-", "bytes=-1", "bytes=0-1,4-5", "bytes=9-8"] {
                let odd = Ask::get(path.clone()).from(number).with("range", range);
                edge.ask(odd.with("if-match", "\"x\"").with("x-long", "y".repeat(20_000))).await;
                edge.ask(Ask::get(path.clone()).from(number).with("range", range)).await;
            }
            edge.ask(Ask::get(path.clone()).from(number).leave_after(1)).await;
        }
    };
    tokio::select! {
        () = stays(&edge, &base, &second) => {}
        () = attack => unreachable!("it never ends"),
    }
    assert!(origin.asked("GET", &second) > 20, "the target was asked");
    let answer = edge.ask(Ask::get(path).from(101)).await;
    assert_eq!((answer.status, answer.ended), (200, Ended::Whole));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_all_that_a_node_carries_takes_nothing_from_its_listing() {
    const HUGE: Content = Content::framed(9, 64 << 20);
    let (base, first, second) = (full(BASE), incremental(BASE, FIRST), incremental(BASE, SECOND));
    let node = origin(&[&first, &second]).await;
    node.add(&base, HUGE);
    node.carry_at_most(2);
    let edge = Edge::before(&[&node]).await;
    let whole = |number| Ask::get(format!("/{base}")).from(number);
    let held = [whole(1).begin(edge.address).await, whole(2).begin(edge.address).await];
    assert!(held.iter().all(|(answer, _)| answer.status == 200));
    let path = format!("/{second}");
    let attack = async {
        for number in (3..=100).cycle() {
            let answer = edge.ask(Ask::get(path.clone()).from(number)).await;
            assert!([502, 503].contains(&answer.status), "{}", answer.status);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = stays(&edge, &base, &second) => {}
        () = attack => unreachable!("it never ends"),
    }
    drop(held);
    eventually("it is delivered", || async {
        edge.ask(Ask::get(path.clone()).from(101)).await.status == 200
    })
    .await;
    // What is broken while others are served is found out all the same.
    let held = whole(102).begin(edge.address).await;
    node.fail_one(&second, Fault::Status(503));
    eventually("names go back", || async {
        edge.get(&path).await;
        location(&edge, INCREMENTAL_FORM).await.as_deref() == Some(&*first)
    })
    .await;
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_one_line_when_names_go_back_and_one_when_they_come_forward() {
    let (base, first, second) = (full(BASE), incremental(BASE, FIRST), incremental(BASE, SECOND));
    let origin = origin(&[&base, &first, &second]).await;
    origin.fail_one(&second, Fault::Status(500));
    let targets = Targets::of(&[&origin]);
    let running = Running::start(&targets.config_of_process("")).await;
    let back = format!(
        "{second} is not delivered by target {} in `a` (status 500 instead of an archive): short \
         names go back to what can be had",
        origin.address()
    );
    eventually("they go back", || async {
        Ask::get(format!("/{second}")).send(running.address).await;
        running.log().contains(&back)
    })
    .await;
    for _ in 0..10 {
        assert_eq!(Ask::get(format!("/{second}")).send(running.address).await.status, 502);
    }
    origin.fail(None);
    let forward = format!("{second} can be had again");
    eventually("they come forward", || async { running.log().contains(&forward) }).await;
    let log = running.kill();
    assert_eq!(log.matches("is not delivered by").count(), 1, "{log}");
    assert_eq!(log.matches("can be had again").count(), 1, "{log}");
}
