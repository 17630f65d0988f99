//! The generation before the best one, and the room for it.

use std::time::Duration;

use super::super::super::support::origin::{Origin, Program};
use super::super::super::support::{eventually, full, incremental};
use super::super::{CachedEdge, HIT, assert_whole, get, pair, status};
use super::{FULL, INCREMENTAL, sharing};

/// A client learns the name of an incremental archive, loads the full one for twenty minutes, and
/// then asks for the incremental one, which its origin has long forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_learned_resolves_after_the_origin_forgot_it_until_the_lease_ends() {
    let (base, old, new) = (full(1000), incremental(1000, 1500), incremental(1000, 1600));
    let origin = Origin::run(Program::Agave, &[(&base, FULL), (&old, INCREMENTAL)]).await;
    let cached = sharing("prefetch: all, keep_previous: true, lease: 3s", &[&origin]).await;
    cached.holds(&old).await;
    rotate(&cached, &origin, &old, &new).await;
    cached.holds(&new).await;
    for _ in 0..3 {
        // A reader prolongs the lease.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let late = cached.edge.ask(get(&old)).await;
        assert_whole(&late, INCREMENTAL);
        assert_eq!(status(&late), HIT);
    }
    let part = cached.edge.ask(get(&old).from(7).with("range", "bytes=9-")).await;
    assert_eq!((part.status, status(&part)), (206, HIT));
    eventually("the lease is over", || async {
        cached.files() == [pair(&new), pair(&base)].concat()
    })
    .await;
    assert_eq!(cached.edge.ask(get(&old)).await.status, 404);
    assert_eq!(origin.asked("GET", &old), 1);
}

/// The origin forgets the one as it makes the other.
async fn rotate(cached: &CachedEdge, origin: &Origin, old: &str, new: &str) {
    origin.add(new, INCREMENTAL);
    origin.remove(old);
    cached.edge.knows(origin).await;
    let gone = old.parse().expect("a name");
    cached.edge.sees("the old one is gone", |view| view.sources(&gone).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_stays_until_the_next_one_is_complete_however_long_that_takes() {
    let (old, new) = (full(1000), full(2000));
    let origin = Origin::run(Program::Agave, &[(&old, FULL)]).await;
    let cached = sharing("keep_previous: true, lease: 0s", &[&origin]).await;
    assert_whole(&cached.edge.ask(get(&old)).await, FULL);
    cached.holds(&old).await;
    origin.add(&new, FULL);
    origin.remove(&old);
    cached.edge.knows(&origin).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let kept = cached.edge.ask(get(&old)).await;
    assert_whole(&kept, FULL);
    assert_eq!(status(&kept), HIT, "nobody has fetched the new one");
    assert_whole(&cached.edge.ask(get(&new)).await, FULL);
    cached.holds(&new).await;
    eventually("the old one goes", || async { cached.files() == pair(&new) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_takes_no_more_than_it_may() {
    let base = full(1000);
    let names: Vec<String> = (15..=18).map(|at| incremental(1000, at * 100)).collect();
    let origin = Origin::run(Program::Agave, &[(&base, FULL), (&names[0], INCREMENTAL)]).await;
    let most = FULL.len + 2 * INCREMENTAL.len + INCREMENTAL.len / 2;
    let more = format!("prefetch: all, keep_previous: true, max_size: {most}B");
    let cached = sharing(&more, &[&origin]).await;
    cached.holds(&base).await;
    cached.holds(&names[0]).await;
    for (old, new) in names.iter().zip(&names[1..]) {
        rotate(&cached, &origin, old, new).await;
        cached.holds(new).await;
        assert_eq!(cached.files(), [pair(old), pair(new), pair(&base)].concat());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_for_the_cache_is_carried_past_it() {
    let name = full(1000);
    let origin = Origin::run(Program::Agave, &[(&name, FULL)]).await;
    let cached = sharing(&format!("max_size: {}B", FULL.len - 1), &[&origin]).await;
    for _ in 0..2 {
        let answer = cached.edge.ask(get(&name)).await;
        assert_whole(&answer, FULL);
        assert_eq!(status(&answer), super::super::bypass("no-space"));
    }
    assert_eq!(cached.files(), [""; 0]);
}

/// It is newer than what is fetched, and what is fetched has a reader.
#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_is_overtaken_is_finished_for_its_readers() {
    use super::super::super::support::origin::Fault;
    let (base, old, new) = (full(1000), incremental(1000, 1500), incremental(1000, 1600));
    let origin = Origin::run(Program::Agave, &[(&base, FULL), (&old, INCREMENTAL)]).await;
    let cached = sharing("", &[&origin]).await;
    origin.fail(Fault::Hold(INCREMENTAL.len / 2));
    let reader = super::spawn(&cached.edge, get(&old));
    super::fetched(&cached, &old, 1).await;
    rotate(&cached, &origin, &old, &new).await;
    origin.fail(None);
    let late = cached.edge.ask(get(&old).from(2)).await;
    assert_whole(&late, INCREMENTAL);
    assert_whole(&reader.await.expect("no panic"), INCREMENTAL);
    assert_whole(&cached.edge.ask(get(&new)).await, INCREMENTAL);
    cached.holds(&new).await;
    eventually("the old one made way", || async { cached.files() == pair(&new) }).await;
}

/// The old incremental archive is all that a client can go on with that loads the old full one.
#[tokio::test(flavor = "multi_thread")]
async fn the_old_pair_stays_until_both_halves_of_the_new_one_are_complete() {
    use super::super::super::support::origin::Fault;
    let (old_full, old) = (full(1000), incremental(1000, 1500));
    let (new_full, new) = (full(2000), incremental(2000, 2500));
    let origin = Origin::run(Program::Agave, &[(&old_full, FULL), (&old, INCREMENTAL)]).await;
    let cached = sharing("prefetch: all, keep_previous: true, lease: 0s", &[&origin]).await;
    cached.holds(&old).await;
    cached.holds(&old_full).await;
    origin.fail(Fault::Hold(INCREMENTAL.len / 2));
    origin.add(&new_full, FULL);
    origin.add(&new, INCREMENTAL);
    origin.remove(&old);
    super::fetched(&cached, &new, 1).await;
    origin.fail(Fault::Hold(FULL.len / 2));
    cached.holds(&new).await;
    super::fetched(&cached, &new_full, 1).await;
    for (name, content) in [(&old, INCREMENTAL), (&old_full, FULL)] {
        let kept = cached.edge.ask(get(name)).await;
        assert_whole(&kept, content);
        assert_eq!(status(&kept), HIT);
    }
    origin.fail(None);
    cached.holds(&new_full).await;
    eventually("the old pair goes", || async {
        cached.files() == [pair(&new), pair(&new_full)].concat()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_for_what_could_not_be_kept_anyway() {
    let (base, large) = (full(1000), full(2000));
    let (old, new) = (incremental(1000, 1500), incremental(1000, 1600));
    let origin = Origin::run(Program::Sidecar, &[(&base, FULL), (&old, INCREMENTAL)]).await;
    let most = FULL.len + 3 * INCREMENTAL.len;
    let more = format!("prefetch: all, keep_previous: true, max_size: {most}B");
    let cached = sharing(&more, &[&origin]).await;
    cached.holds(&base).await;
    cached.holds(&old).await;
    rotate(&cached, &origin, &old, &new).await;
    cached.holds(&new).await;
    let before = [pair(&old), pair(&new), pair(&base)].concat();
    assert_eq!(cached.files(), before);
    origin.add(&large, super::super::super::support::body::Content::framed(3, 2 * most));
    origin.add(&incremental(2000, 2500), INCREMENTAL);
    cached.holds(&incremental(2000, 2500)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(origin.asked("GET", &large), 0, "it is not even asked for");
    assert!(before.iter().all(|file| cached.files().contains(file)), "{:?}", cached.files());
}
