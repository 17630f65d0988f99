//! What becomes of a fetch whose source fails.

use std::collections::BTreeSet;

use super::super::super::support::body::Content;
use super::super::super::support::client::Ended;
use super::super::super::support::origin::{Fault, Origin, Program, modified};
use super::super::super::support::process::Running;
use super::super::super::support::{eventually, full};
use super::super::{
    CachedEdge, HIT, STORED, assert_on_disk, assert_whole, bypass, files, get, head, status,
};
use super::{FULL, fetched, sharing, spawn};

#[tokio::test(flavor = "multi_thread")]
async fn every_reader_of_a_fetch_that_dies_gets_an_error_and_none_a_clean_end() {
    for fault in [Fault::CloseAfter(FULL.len / 2), Fault::ResetAfter(FULL.len / 2)] {
        let name = full(1000);
        let origin = Origin::run(Program::Agave, &[(&name, FULL)]).await;
        let cached = sharing("", &[&origin]).await;
        origin.fail(Fault::Hold(FULL.len / 2));
        let clients = (1..=8).map(|at| {
            let ask = get(&name).from(at);
            let ask = if at % 2 == 0 { ask.with("range", "bytes=7-") } else { ask };
            spawn(&cached.edge, ask)
        });
        let clients: Vec<_> = clients.collect();
        fetched(&cached, &name, FULL.len / 2).await;
        // The connection that holds back ends with the server.
        origin.stop().await;
        for client in clients {
            let answer = client.await.expect("no panic");
            assert!(matches!(answer.status, 200 | 206), "{}", answer.head);
            assert_eq!(answer.ended, Ended::Short, "{}", answer.head);
            let start = if answer.status == 206 { 7 } else { 0 };
            assert!(FULL.matches(start, &answer.body), "what came is right");
        }
        cached.is_idle().await;
        assert_eq!(cached.files(), [""; 0]);

        origin.fail(fault);
        origin.restart().await;
        eventually("it is fetched again", || async {
            let answer = cached.edge.ask(get(&name)).await;
            answer.status == 200 && status(&answer) == STORED
        })
        .await;
        origin.fail(None);
        is_fetched_again(&cached, &name).await;
        assert_on_disk(cached.directory.path(), &name, FULL);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_fetch_is_not_begun_again_at_once() {
    let name = full(1000);
    let origin = Origin::run(Program::Agave, &[(&name, FULL)]).await;
    let cached = sharing("", &[&origin]).await;
    origin.fail(Fault::Status(503));
    assert_eq!(cached.edge.ask(get(&name)).await.status, 502);
    origin.fail(None);
    let next = cached.edge.ask(get(&name)).await;
    assert_whole(&next, FULL);
    assert_eq!(status(&next), bypass("backoff"));
    cached.refill(&name, FULL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_fetch_goes_on_with_the_same_copy() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, FULL)]).await;
    let cached = sharing("", &[&origin]).await;
    let at = FULL.len / 2;
    origin.fail(Fault::CloseOnceAfter(at));
    let clients: Vec<_> = (1..=4).map(|at| spawn(&cached.edge, get(&name).from(at))).collect();
    for client in clients {
        assert_whole(&client.await.expect("no panic"), FULL);
    }
    cached.holds(&name).await;
    assert_on_disk(cached.directory.path(), &name, FULL);
    let seen = origin.seen();
    let gets: Vec<_> =
        seen.iter().filter(|r| r.method == "GET" && r.path().ends_with(&name)).collect();
    assert_eq!(gets.len(), 2);
    assert_eq!(gets[1].header("range"), Some(&*format!("bytes={at}-")));
    let date = httpdate::fmt_http_date(modified());
    assert_eq!(gets[1].header("if-range"), Some(&*date));
    assert_eq!(origin.sent(), FULL.len, "no byte twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_stays_away_for_a_moment_is_waited_for() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, FULL)]).await;
    let cached = sharing("", &[&origin]).await;
    origin.fail(Fault::Hold(FULL.len / 2));
    let client = spawn(&cached.edge, get(&name));
    fetched(&cached, &name, FULL.len / 2).await;
    origin.stop().await;
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    origin.fail(None);
    origin.restart().await;
    assert_whole(&client.await.expect("no panic"), FULL);
    cached.holds(&name).await;
    assert_on_disk(cached.directory.path(), &name, FULL);
}

/// The same name, and the same length: only one byte tells the copies apart, behind the place where
/// the first one breaks off.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_two_sources_are_never_joined() {
    for program in [Program::Sidecar, Program::Agave, Program::FiredancerSnapshots] {
        let name = full(1000);
        let ours = FULL;
        let theirs = Content { odd: Some(FULL.len - 1000), ..FULL };
        let a = Origin::run(program, &[(&name, ours)]).await;
        let b = Origin::run(program, &[(&name, theirs)]).await;
        let cached = sharing("", &[&a, &b]).await;
        // Which of them is asked first is a matter of the client's address.
        for origin in [&a, &b] {
            origin.fail(Fault::Hold(FULL.len / 2));
        }
        let clients: Vec<_> = (1..=6).map(|at| spawn(&cached.edge, get(&name).from(at))).collect();
        fetched(&cached, &name, FULL.len / 2).await;
        let (first, second) = if a.asked("GET", &name) == 1 { (&a, &b) } else { (&b, &a) };
        let rest = if std::ptr::eq(second, &raw const a) { ours } else { theirs };
        second.fail(None);
        first.stop().await;
        let mut tags = BTreeSet::new();
        for client in clients {
            let answer = client.await.expect("no panic");
            assert_eq!(answer.ended, Ended::Short, "{program:?}: {}", answer.head);
            tags.insert(answer.header("etag").expect("a tag").to_owned());
        }
        // Begun anew from the other one, without a client.
        cached.holds(&name).await;
        assert_on_disk(cached.directory.path(), &name, rest);
        let hit = cached.edge.ask(get(&name).from(9)).await;
        assert_whole(&hit, rest);
        assert_eq!(status(&hit), HIT);
        tags.insert(hit.header("etag").expect("a tag").to_owned());
        assert_eq!(tags.len(), 2, "{program:?}: one tag for each copy");
        assert_eq!(second.sent(), FULL.len, "{program:?}: from zero");
        // Who has the start of the first one does not get the rest of the second.
        let resumed = cached.edge.ask(get(&name).from(1).with("range", "bytes=1000-")).await;
        assert!(matches!(resumed.status, 502..=504), "{program:?}: {}", resumed.head);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_changed_meanwhile_is_not_gone_on_with() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, FULL)]).await;
    let cached = sharing("", &[&origin]).await;
    origin.fail(Fault::Hold(FULL.len / 2));
    let client = spawn(&cached.edge, get(&name));
    fetched(&cached, &name, FULL.len / 2).await;
    let newer = Content::framed(3, FULL.len + 1000);
    origin.stop().await;
    origin.fail(None);
    origin.add(&name, newer);
    origin.restart().await;
    let answer = client.await.expect("no panic");
    assert_eq!(answer.ended, Ended::Short);
    assert!(FULL.matches(0, &answer.body));
    eventually("the new copy is cached", || async {
        let answer = cached.edge.ask(get(&name).from(2)).await;
        answer.ended == Ended::Whole && status(&answer) == HIT
    })
    .await;
    assert_on_disk(cached.directory.path(), &name, newer);
}

/// The next one is asked, from zero; where there is none, everybody is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_falls_silent_is_left() {
    let name = full(1000);
    let theirs = Content { odd: Some(9), ..FULL };
    let origins =
        [FULL, theirs].map(|content| (content, Origin::run(Program::Agave, &[]), name.clone()));
    let mut running = Vec::new();
    for (content, origin, name) in origins {
        let origin = origin.await;
        origin.add(&name, content);
        running.push((content, origin));
    }
    let [(_, a), (_, b)] = &running[..] else { panic!("two of them") };
    let cached = sharing("", &[a, b]).await;
    for origin in [a, b] {
        origin.fail(Fault::StallAfter(FULL.len / 2));
    }
    let client = spawn(&cached.edge, get(&name));
    fetched(&cached, &name, FULL.len / 2).await;
    let (second, content) = if a.asked("GET", &name) == 1 { (b, theirs) } else { (a, FULL) };
    second.fail(None);
    assert_eq!(client.await.expect("no panic").ended, Ended::Short);
    cached.holds(&name).await;
    assert_on_disk(cached.directory.path(), &name, content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_falls_silent_is_gone_on_with_where_that_can_be_done() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, FULL)]).await;
    let cached = sharing("", &[&origin]).await;
    origin.fail(Fault::StallAfter(FULL.len / 2));
    let client = spawn(&cached.edge, get(&name));
    fetched(&cached, &name, FULL.len / 2).await;
    origin.fail(None);
    assert_whole(&client.await.expect("no panic"), FULL);
    cached.holds(&name).await;
    assert_eq!(origin.sent(), FULL.len, "no byte twice");
}

/// Nothing has gone down to a client whose range waits for its bytes while the fetch breaks off.
#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_waits_for_a_fetch_that_breaks_off_is_answered_all_the_same() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, FULL)]).await;
    let cached = sharing("range_wait: 5s", &[&origin]).await;
    origin.fail(Fault::CloseOnceAfter(0));
    let starts = [1000, 1001, 100_000, FULL.len - 1];
    let ask = |start| get(&name).from(start as u8).with("range", format!("bytes={start}-"));
    let clients = starts.map(|start| (start, spawn(&cached.edge, ask(start))));
    for (start, client) in clients {
        let answer = client.await.expect("no panic");
        assert_eq!((answer.status, answer.ended), (206, Ended::Whole), "{}", answer.head);
        assert!(FULL.matches(start, &answer.body), "from {start} on");
    }
    cached.holds(&name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_brings_a_byte_for_each_connection_is_given_up() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, FULL)]).await;
    let cached = sharing("", &[&origin]).await;
    origin.fail(Fault::Crumble(FULL.len / 2));
    let answer = cached.edge.ask(get(&name)).await;
    assert_eq!(answer.ended, Ended::Short);
    assert!(FULL.matches(0, &answer.body));
    assert!(origin.asked("GET", &name) < 12, "{} requests", origin.asked("GET", &name));
    origin.fail(None);
    cached.refill(&name, FULL).await;
}

/// Whatever a target does, nobody gets a clean end of something else, nothing is left on the disk,
/// and the archive is fetched as soon as the target is well again.
#[tokio::test(flavor = "multi_thread")]
async fn no_fault_of_a_target_is_mistaken_for_an_archive() {
    let (len, pause) = (FULL.len, std::time::Duration::from_millis(10));
    let faults = [
        Fault::StallBeforeHead,
        Fault::CloseBeforeHead,
        Fault::Interim(pause),
        Fault::StallAfter(0),
        Fault::StallAfter(1 << 20),
        Fault::StallAfter(len - 1),
        Fault::CloseAfter(0),
        Fault::CloseAfter(len - 1),
        Fault::ResetAfter(1),
        Fault::Status(500),
        Fault::Status(404),
        Fault::Longer(1),
        Fault::Empty,
        Fault::Html,
        Fault::HtmlOfRightLength,
        Fault::Chunked,
        Fault::CloseDelimited,
        Fault::Encoded,
        Fault::Redirect("/".to_owned()),
    ];
    let mut runs = tokio::task::JoinSet::new();
    for fault in faults {
        runs.spawn(check_fault(fault));
    }
    runs.join_all().await;
}

async fn check_fault(fault: Fault) {
    let name = full(1000);
    let origin = Origin::run(Program::Agave, &[(&name, FULL)]).await;
    let cached = sharing("", &[&origin]).await;
    origin.fail(fault.clone());
    let asks = [get(&name), get(&name).from(2), get(&name).from(3).with("range", "bytes=7-")];
    for client in asks.map(|ask| spawn(&cached.edge, ask)) {
        let answer = client.await.expect("no panic");
        let start = if answer.status == 206 { 7 } else { 0 };
        match answer.status {
            200 | 206 => {
                assert_eq!(answer.ended, Ended::Short, "{fault:?}: {}", answer.head);
                assert!(FULL.matches(start, &answer.body), "{fault:?}");
            }
            status => assert!(matches!(status, 404 | 502 | 504), "{fault:?}: {status}"),
        }
    }
    cached.is_idle().await;
    assert_eq!(cached.files(), [""; 0], "{fault:?}");
    origin.fail(None);
    is_fetched_again(&cached, &name).await;
    assert_on_disk(cached.directory.path(), &name, FULL);
}

/// What was begun under a fault may still fail, a target that said that it is gone is asked again
/// by the next probe, and past the cache clients are served meanwhile.
async fn is_fetched_again(cached: &CachedEdge, name: &str) {
    eventually("it is fetched again", || async {
        let answer = cached.edge.ask(get(name)).await;
        assert!(answer.status != 200 || FULL.matches(0, &answer.body), "{}", answer.head);
        status(&answer) == HIT && answer.ended == Ended::Whole
    })
    .await;
}

/// A disk that takes no more in the middle.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_fails_is_an_error_to_every_reader_and_not_to_the_next_client() {
    let name = full(1000);
    let content = Content::framed(1, 50_000_000);
    let origin = Origin::run(Program::Agave, &[(&name, content)]).await;
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let config = format!(
        "scrape_interval: 100ms\n{}\ntarget_groups: \
         [{{group: a, static_targets: {{targets: ['{}']}}}}]\n",
        super::settings(directory.path(), ""),
        origin.address()
    );
    // Files of 4 MiB at most: beyond that, a write fails.
    let limited = ["bash", "-c", "trap '' XFSZ; ulimit -f 4096; exec \"$@\"", "bash"];
    let running = Running::under(&limited, &config).await;
    let to = running.address;
    eventually("the archive is known", || async { head(&name).send(to).await.status == 200 }).await;
    let clients: Vec<_> = (1..=4).map(|at| tokio::spawn(get(&name).from(at).send(to))).collect();
    for client in clients {
        let answer = client.await.expect("no panic");
        assert!(content.matches(0, &answer.body));
        assert!(
            answer.ended == Ended::Short || status(&answer) == bypass("disk"),
            "{}",
            answer.head
        );
    }
    let next = get(&name).from(9).send(to).await;
    assert_whole(&next, content);
    assert_eq!(status(&next), bypass("disk"));
    assert_eq!(files(directory.path()), [""; 0]);
    assert!(running.log().contains("the disk fails: File too large"), "{}", running.log());
}

/// Transfers get the grace period, also those that nobody but a reader of the cache waits for.
#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_goes_on_while_the_process_ends() {
    let name = full(1000);
    let origin = Origin::run(Program::Agave, &[(&name, FULL)]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let config = format!(
        "scrape_interval: 100ms\nserver: {{grace_period: 4s}}\n{}\ntarget_groups: \
         [{{group: a, static_targets: {{targets: ['{}']}}}}]\n",
        super::settings(directory.path(), ""),
        origin.address()
    );
    let mut running = Running::start(&config).await;
    let to = running.address;
    eventually("the archive is known", || async { head(&name).send(to).await.status == 200 }).await;
    origin.fail(Fault::Hold(FULL.len / 2));
    let client = tokio::spawn(get(&name).send(to));
    eventually("it is fetched", || async { origin.sent() >= FULL.len / 2 }).await;
    running.signal("-TERM");
    eventually("nothing new is accepted", || async {
        tokio::net::TcpStream::connect(to).await.is_err()
    })
    .await;
    origin.fail(None);
    assert_whole(&client.await.expect("no panic"), FULL);
    eventually("the process ends", || {
        let ended = running.ended().is_some();
        async move { ended }
    })
    .await;
    assert!(!running.log().contains("panicked"), "{}", running.log());
    assert_on_disk(directory.path(), &name, FULL);
}
