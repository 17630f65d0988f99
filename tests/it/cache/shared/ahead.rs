//! Fetching before anybody asks, and offering only what was fetched.

use std::time::Duration;

use super::super::super::support::client::Ask;
use super::super::super::support::edge::{Edge, config};
use super::super::super::support::origin::{Fault, Origin, Program};
use super::super::super::support::{eventually, full, incremental};
use super::super::{CachedEdge, HIT, assert_on_disk, assert_whole, get, pair, status};
use super::{COLLAPSED, FULL, INCREMENTAL, fetched, settings, sharing};

/// The archives that were downloaded from an origin, in order.
fn downloads(origin: &Origin) -> Vec<String> {
    let seen = origin.seen();
    let archive =
        |path: &str| path.rsplit('/').next().filter(|name| name.contains('-')).map(str::to_owned);
    seen.iter().filter(|r| r.method == "GET").filter_map(|r| archive(r.path())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_is_fetched_without_a_client_and_incrementals_first() {
    let (base, old, new) = (full(1000), incremental(1000, 1500), incremental(1000, 1600));
    let origin = Origin::run(Program::Sidecar, &[(&base, FULL), (&old, INCREMENTAL)]).await;
    let cached = sharing("prefetch: all", &[&origin]).await;
    cached.holds(&old).await;
    cached.holds(&base).await;
    assert_eq!(downloads(&origin), [old.clone(), base.clone()]);
    origin.add(&new, INCREMENTAL);
    cached.holds(&new).await;
    assert_eq!(downloads(&origin), [old, base.clone(), new.clone()]);
    assert_eq!(cached.files(), [pair(&new), pair(&base)].concat(), "the old one made way");
}

#[tokio::test(flavor = "multi_thread")]
async fn full_archives_can_be_left_to_clients() {
    let (base, on_it) = (full(1000), incremental(1000, 1500));
    let origin = Origin::run(Program::Sidecar, &[(&base, FULL), (&on_it, INCREMENTAL)]).await;
    let cached = sharing("prefetch: incremental", &[&origin]).await;
    cached.holds(&on_it).await;
    assert_eq!(downloads(&origin), std::slice::from_ref(&on_it));
    assert_whole(&cached.edge.ask(get(&base)).await, FULL);
    cached.holds(&base).await;
    assert_eq!(downloads(&origin), [on_it, base]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_archive_is_fetched_ahead_at_a_time() {
    let (first, second) = (full(1000), full(1200));
    let a = Origin::run(Program::Sidecar, &[(&first, FULL)]).await;
    let b = Origin::run(Program::Sidecar, &[(&second, FULL)]).await;
    for origin in [&a, &b] {
        origin.fail(Fault::Hold(FULL.len / 2));
    }
    let directory = tempfile::tempdir().expect("a directory");
    let text = config(&settings(directory.path(), "prefetch: all"), &[&[&a], &[&b]]);
    let cached = CachedEdge { edge: Edge::start(&text), directory };
    eventually("one is begun", || async { !cached.files().is_empty() }).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(downloads(&a).len() + downloads(&b).len(), 1);
    for origin in [&a, &b] {
        origin.fail(None);
    }
    cached.holds(&first).await;
    cached.holds(&second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_of_fetching_ahead_is_bounded_until_somebody_reads() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, FULL)]).await;
    // More than four seconds, and a second is a quarter.
    let cached = sharing("prefetch: all, prefetch_rate: 1MiB/s", &[&origin]).await;
    fetched(&cached, &name, 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let part = cached.directory.path().join(super::super::beside(&name, "-part"));
    let length = part.metadata().expect("it is not done").len();
    assert!(length < FULL.len / 2, "{length} after a second");
    let answer = cached.edge.ask(get(&name)).await;
    assert_whole(&answer, FULL);
    assert_eq!(status(&answer), COLLAPSED);
    cached.holds(&name).await;
    assert_eq!(origin.asked("GET", &name), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn short_forms_keep_to_the_old_pair_until_the_new_one_is_in_the_cache() {
    let (old_full, old) = (full(1000), incremental(1000, 1500));
    let (new_full, new) = (full(2000), incremental(2000, 2500));
    let origin = Origin::run(Program::Sidecar, &[(&old_full, FULL), (&old, INCREMENTAL)]).await;
    let cached = sharing("prefetch: all, publish: promoted", &[&origin]).await;
    let location = async |form: &str| {
        let answer = cached.edge.ask(Ask::head(form)).await;
        answer.header("location").map(str::to_owned).unwrap_or_default()
    };
    let pair_now = async || {
        let full = location("/snapshot.tar.bz2").await;
        (full, location("/incremental-snapshot.tar.bz2").await)
    };
    let as_locations =
        |full: &str, incremental: &str| (format!("/{full}"), format!("/{incremental}"));
    // There is nothing older to keep to.
    assert_eq!(pair_now().await, as_locations(&old_full, &old));
    cached.holds(&old).await;
    cached.holds(&old_full).await;

    origin.fail(Fault::Hold(INCREMENTAL.len / 2));
    origin.add(&new_full, FULL);
    origin.add(&new, INCREMENTAL);
    fetched(&cached, &new, 1).await;
    assert_eq!(pair_now().await, as_locations(&old_full, &old), "the incremental one comes");
    // The new names are known all the same.
    assert_eq!(cached.edge.ask(Ask::head(format!("/{new}"))).await.status, 200);
    assert_eq!(status(&cached.edge.ask(get(&old)).await), HIT, "the old pair stays");
    origin.fail(Fault::Hold(FULL.len / 2));
    fetched(&cached, &new_full, 1).await;
    assert_eq!(pair_now().await, as_locations(&old_full, &old), "the full one comes");
    assert_eq!(status(&cached.edge.ask(get(&old_full)).await), HIT, "the old pair stays");
    origin.fail(None);
    eventually("the new pair is offered", || async {
        pair_now().await == as_locations(&new_full, &new)
    })
    .await;
    assert_on_disk(cached.directory.path(), &new_full, FULL);
    assert_on_disk(cached.directory.path(), &new, INCREMENTAL);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_fetched_ahead_is_tried_again_with_rests() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, FULL)]).await;
    origin.fail(Fault::Status(500));
    let cached = sharing("prefetch: all", &[&origin]).await;
    eventually("it is tried twice", || async { origin.asked("GET", &name) >= 2 }).await;
    assert!(origin.asked("GET", &name) < 5, "{}", origin.asked("GET", &name));
    origin.fail(None);
    cached.holds(&name).await;
}

/// New archives appear faster than they can be fetched.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_overtaken_while_it_was_fetched_is_offered_all_the_same() {
    let base = full(1000);
    let names: Vec<String> = (15..=19).map(|at| incremental(1000, at * 100)).collect();
    let origin = Origin::run(Program::Agave, &[(&base, FULL), (&names[0], INCREMENTAL)]).await;
    let cached = sharing("prefetch: all, publish: promoted", &[&origin]).await;
    cached.holds(&base).await;
    cached.holds(&names[0]).await;
    for pair in names[1..].chunks(2) {
        let [fetched_one, newest] = pair else { panic!("pairs: {names:?}") };
        origin.fail(Fault::Hold(INCREMENTAL.len / 2));
        origin.add(fetched_one, INCREMENTAL);
        fetched(&cached, fetched_one, 1).await;
        origin.add(newest, INCREMENTAL);
        cached.edge.knows(&origin).await;
        origin.fail(None);
        eventually("what was fetched is offered", || async {
            let answer = cached.edge.ask(Ask::head("/incremental-snapshot.tar.bz2")).await;
            answer.header("location") == Some(&*format!("/{fetched_one}"))
        })
        .await;
        eventually("and then what is newer", || async {
            let answer = cached.edge.ask(Ask::head("/incremental-snapshot.tar.bz2")).await;
            answer.header("location") == Some(&*format!("/{newest}"))
        })
        .await;
    }
}

/// Regions of one cluster: the same names, of which the cache has one copy.
#[tokio::test(flavor = "multi_thread")]
async fn groups_that_list_the_same_archives_share_what_was_fetched() {
    let pairs: Vec<_> =
        (1..=3).map(|at| (full(at * 1000), incremental(at * 1000, at * 1000 + 500))).collect();
    let a = Origin::run(Program::Sidecar, &[]).await;
    let b = Origin::run(Program::Sidecar, &[]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let more = settings(directory.path(), "prefetch: all, publish: promoted");
    let cached = CachedEdge { edge: Edge::start(&config(&more, &[&[&a], &[&b]])), directory };
    for (full, incremental) in &pairs {
        for origin in [&a, &b] {
            origin.add(full, FULL);
            origin.add(incremental, INCREMENTAL);
        }
        for group in ["a", "b"] {
            eventually("both lead to what is new", || async {
                let form = format!("/incremental-snapshot.tar.bz2?group={group}");
                let answer = cached.edge.ask(Ask::head(form)).await;
                answer.header("location") == Some(&*format!("/{incremental}"))
            })
            .await;
        }
        cached.holds(full).await;
        cached.holds(incremental).await;
        assert_eq!(a.asked("GET", full) + b.asked("GET", full), 1);
    }
}

/// With room for one generation, the one that is offered makes way: it can be had from its target.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_offered_makes_way_where_there_is_no_room_for_two() {
    let (old, new) = (full(1000), full(2000));
    let origin = Origin::run(Program::Sidecar, &[(&old, FULL)]).await;
    let most = FULL.len * 3 / 2;
    let more = format!("prefetch: all, publish: promoted, max_size: {most}B");
    let cached = sharing(&more, &[&origin]).await;
    cached.holds(&old).await;
    origin.add(&new, FULL);
    cached.holds(&new).await;
    eventually("the new one is offered", || async {
        let answer = cached.edge.ask(Ask::head("/snapshot.tar.bz2")).await;
        answer.header("location") == Some(&*format!("/{new}"))
    })
    .await;
    assert_eq!(cached.files(), pair(&new));
}
