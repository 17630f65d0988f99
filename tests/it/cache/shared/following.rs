//! Who begins a fetch, who follows it, and what a range waits for.

use std::time::Duration;

use super::super::super::support::body::Content;
use super::super::super::support::client::{Ask, Ended};
use super::super::super::support::origin::{Fault, Origin, Program};
use super::super::super::support::{eventually, full, incremental};
use super::super::{HIT, STORED, assert_on_disk, assert_whole, bypass, get, head, pair, status};
use super::{COLLAPSED, FULL, INCREMENTAL, fetched, sharing, spawn};

#[tokio::test(flavor = "multi_thread")]
async fn one_fetch_serves_everybody_as_it_grows() {
    let name = full(1000);
    let origin = Origin::run(Program::Agave, &[(&name, FULL)]).await;
    let cached = sharing("", &[&origin]).await;
    origin.fail(Fault::Hold(FULL.len / 2));
    let first = spawn(&cached.edge, get(&name).from(1));
    fetched(&cached, &name, FULL.len / 2).await;
    let others: Vec<_> = (2..=8).map(|at| spawn(&cached.edge, get(&name).from(at))).collect();
    let answer = cached.edge.ask(head(&name)).await;
    assert_eq!((answer.status, answer.length(), status(&answer)), (200, FULL.len, COLLAPSED));
    // Bytes that are there, while the rest is not.
    for (range, start, end) in [("0-99", 0, 100), ("1000000-1000999", 1_000_000, 1_001_000)] {
        let part = cached.edge.ask(get(&name).with("range", format!("bytes={range}"))).await;
        assert_eq!((part.status, status(&part)), (206, COLLAPSED), "{}", part.head);
        assert!(part.body == FULL.bytes(start, end), "{range}");
    }
    let several = get(&name).with("range", "bytes=500-509,1000-1009");
    let several = cached.edge.ask(several).await;
    assert_eq!((several.status, several.ended), (206, Ended::Whole));
    assert!(several.body.windows(10).any(|bytes| bytes == FULL.bytes(1000, 1010)));
    assert_eq!(origin.asked("GET", &name), 1);

    origin.fail(None);
    let first = first.await.expect("no panic");
    assert_whole(&first, FULL);
    assert_eq!(status(&first), STORED);
    for other in others {
        let other = other.await.expect("no panic");
        assert_whole(&other, FULL);
        assert_eq!((status(&other), other.header("etag")), (COLLAPSED, first.header("etag")));
    }
    cached.holds(&name).await;
    assert_on_disk(cached.directory.path(), &name, FULL);
    assert_eq!((origin.asked("GET", &name), cached.files()), (1, pair(&name)));
    let hit = cached.edge.ask(get(&name)).await;
    assert_whole(&hit, FULL);
    assert_eq!((status(&hit), hit.header("etag")), (HIT, first.header("etag")));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_come_at_once_begin_one_fetch() {
    let name = full(1000);
    let contents = [Content::framed(1, FULL.len), Content::framed(2, FULL.len)];
    let a = Origin::run(Program::Sidecar, &[(&name, contents[0])]).await;
    let b = Origin::run(Program::Sidecar, &[(&name, contents[1])]).await;
    let cached = sharing("", &[&a, &b]).await;
    let asks = (1..=40).map(|at| {
        let ask = get(&name).from(at);
        if at % 3 == 0 { ask.with("range", "bytes=10-") } else { ask }
    });
    let clients: Vec<_> = asks.map(|ask| spawn(&cached.edge, ask)).collect();
    let mut tags = std::collections::BTreeSet::new();
    for client in clients {
        let answer = client.await.expect("no panic");
        assert_eq!(answer.ended, Ended::Whole, "{}", answer.head);
        tags.insert(answer.header("etag").expect("a tag").to_owned());
    }
    assert_eq!(tags.len(), 1, "all of one copy");
    assert_eq!(a.asked("GET", &name) + b.asked("GET", &name), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_get_of_the_best_begins_a_fetch() {
    let (old, new) = (full(1000), full(2000));
    let origin = Origin::run(Program::Sidecar, &[(&old, FULL), (&new, FULL)]).await;
    let cached = sharing("", &[&origin]).await;
    let cold = cached.edge.ask(head(&new)).await;
    assert_eq!((cold.status, cold.length(), status(&cold)), (200, FULL.len, &*bypass("head")));
    let stale = cached.edge.ask(get(&old)).await;
    assert_whole(&stale, FULL);
    assert_eq!(status(&stale), bypass("not-best"));
    let part = cached.edge.ask(get(&old).with("range", "bytes=5-")).await;
    assert_eq!((part.status, status(&part)), (206, &*bypass("not-best")));
    assert_eq!(cached.files(), [""; 0]);
    let best = cached.edge.ask(get(&new)).await;
    assert_whole(&best, FULL);
    assert_eq!(status(&best), STORED);
    cached.holds(&new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_on_a_cold_archive_begins_a_fetch_and_waits_for_its_own_bytes() {
    for (range, start, end) in
        [("0-", 0, FULL.len), ("100-199", 100, 200), ("-7", FULL.len - 7, FULL.len)]
    {
        let name = full(1000);
        let origin = Origin::run(Program::Agave, &[(&name, FULL)]).await;
        let cached = sharing("", &[&origin]).await;
        let part = cached.edge.ask(get(&name).with("range", format!("bytes={range}"))).await;
        assert_eq!((part.status, status(&part)), (206, STORED), "{range}: {}", part.head);
        assert!(part.body == FULL.bytes(start, end), "{range}");
        cached.holds(&name).await;
        assert_eq!(origin.asked("GET", &name), 1, "{range}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_will_not_be_there_in_time_goes_to_a_source_that_knows_ranges() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, FULL)]).await;
    let cached = sharing("range_wait: 300ms", &[&origin]).await;
    // A megabyte per second: the end is seconds away.
    origin.slow_to(1_000_000);
    let first = spawn(&cached.edge, get(&name).from(1));
    fetched(&cached, &name, 300_000).await;
    let far = FULL.len - 1000;
    let part = cached.edge.ask(get(&name).from(2).with("range", format!("bytes={far}-"))).await;
    assert_eq!((part.status, status(&part)), (206, &*bypass("range")), "{}", part.head);
    assert!(part.body == FULL.bytes(far, FULL.len));
    assert_eq!(origin.asked("GET", &name), 2);
    // What is near is waited for.
    let near = cached.edge.ask(get(&name).from(3).with("range", "bytes=400000-400009")).await;
    assert_eq!((near.status, status(&near)), (206, COLLAPSED));
    assert!(near.body == FULL.bytes(400_000, 400_010));
    let behind = get(&name).from(4).with("range", format!("bytes={}-", FULL.len));
    assert_eq!(cached.edge.ask(behind).await.status, 416);
    let first = first.await.expect("no panic");
    assert_whole(&first, FULL);
    assert_eq!(first.header("etag"), part.header("etag"), "one copy for everyone");
}

/// A node would send all of it, and once is enough.
#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_no_source_knows_is_answered_with_everything_from_the_fetch() {
    let name = full(1000);
    let origin = Origin::run(Program::Agave, &[(&name, FULL)]).await;
    let cached = sharing("range_wait: 300ms", &[&origin]).await;
    origin.slow_to(2_000_000);
    let first = spawn(&cached.edge, get(&name).from(1));
    fetched(&cached, &name, 300_000).await;
    let rest = get(&name).from(2).with("range", format!("bytes={}-", FULL.len - 1000));
    let rest = cached.edge.ask(rest).await;
    assert_whole(&rest, FULL);
    assert_eq!(status(&rest), COLLAPSED);
    assert_whole(&first.await.expect("no panic"), FULL);
    assert_eq!(origin.asked("GET", &name), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_takes_nothing_with_it() {
    let (name, on_it) = (full(1000), incremental(1000, 1500));
    let origin = Origin::run(Program::Agave, &[(&name, FULL), (&on_it, INCREMENTAL)]).await;
    let cached = sharing("", &[&origin]).await;
    for name in [&name, &on_it] {
        let left = cached.edge.ask(get(name).leave_after(1)).await;
        assert_eq!((left.status, status(&left)), (200, STORED));
        cached.holds(name).await;
        assert_eq!(origin.asked("GET", name), 1);
    }
    assert_on_disk(cached.directory.path(), &name, FULL);
}

/// A finder reads for some seconds and leaves, and is followed by the next one.
#[tokio::test(flavor = "multi_thread")]
async fn speed_tests_do_not_begin_a_transfer_each() {
    for more in ["", "finish_abandoned: false"] {
        let name = full(1000);
        let origin = Origin::run(Program::Agave, &[(&name, FULL)]).await;
        let cached = sharing(more, &[&origin]).await;
        origin.fail(Fault::Hold(FULL.len / 2));
        for at in 1..=10 {
            let left = cached.edge.ask(get(&name).from(at).leave_after(100_000)).await;
            assert_eq!((left.status, left.ended), (200, Ended::Left));
        }
        assert_eq!(origin.asked("GET", &name), 1, "{more}");
        origin.fail(None);
        cached.holds(&name).await;
        assert_eq!(origin.asked("GET", &name), 1, "{more}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_is_not_to_be_finished_ends_without_readers() {
    let name = full(1000);
    let content = Content::framed(1, 16_000_000);
    let origin = Origin::run(Program::Sidecar, &[(&name, content)]).await;
    let cached = sharing("finish_abandoned: false", &[&origin]).await;
    origin.slow_to(500_000);
    let (_, reader) = get(&name).begin(cached.edge.address).await;
    let left = cached.edge.ask(get(&name).from(2).leave_after(100_000)).await;
    assert_eq!(left.ended, Ended::Left);
    // One that reads nothing is a reader.
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(cached.files(), [super::super::beside(&name, "-part")]);
    drop(reader);
    eventually("nothing is left", || async { cached.files().is_empty() }).await;
    origin.slow_to(u64::MAX);
    let again = cached.edge.ask(get(&name)).await;
    assert_whole(&again, content);
    assert_eq!((status(&again), origin.asked("GET", &name)), (STORED, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_are_about_the_copy_that_is_fetched() {
    let name = full(1000);
    let origin = Origin::run(Program::Agave, &[(&name, FULL)]).await;
    let cached = sharing("", &[&origin]).await;
    origin.fail(Fault::Hold(FULL.len / 2));
    let begun = cached.edge.ask(get(&name).leave_after(1000)).await;
    let tag = begun.header("etag").expect("a tag").to_owned();
    fetched(&cached, &name, FULL.len / 2).await;
    let ask = |name: &str, condition: &str| {
        let ask = get(name).with("if-range", condition).with("range", "bytes=1000-1999");
        cached.edge.ask(ask.leave_after(1000))
    };
    let part = ask(&name, &tag).await;
    assert_eq!((part.status, status(&part)), (206, COLLAPSED));
    assert!(part.body == FULL.bytes(1000, 2000));
    let whole = ask(&name, "\"another\"").await;
    assert_eq!((whole.status, whole.length()), (200, FULL.len));
    let same = cached
        .edge
        .ask(Ask::get(format!("/{name}")).with("if-none-match", tag).leave_after(0))
        .await;
    assert_eq!((same.status, same.body.len()), (304, 0));
    origin.fail(None);
}
