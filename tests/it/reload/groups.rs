//! Groups and targets that come, go and are called otherwise.

use std::time::Duration;

use super::*;
use crate::support::origin::Program;
use crate::support::{eventually, full, incremental};

async fn status(edge: &Edge, path: &str) -> u16 {
    edge.get(path).await.status
}

/// The status of the head of an archive, or of a short form.
async fn head(edge: &Edge, path: &str) -> u16 {
    edge.ask(Ask::head(path)).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_gone_gives_its_archives_up_and_one_that_comes_is_asked() {
    let [one, two] = [1000, 2000].map(full);
    let a = Origin::run(Program::Agave, &[(&one, BODY)]).await;
    let b = Origin::run(Program::Sidecar, &[(&two, BODY)]).await;
    let (in_a, in_b) = (group("a", &[&a], ""), group("b", &[&b], ""));
    let edge = Edge::start(&config("", std::slice::from_ref(&in_a)));
    edge.knows(&a).await;
    assert_eq!(status(&edge, "/snapshot.tar.bz2?group=b").await, 404, "no such group");
    edge.reload(&config("", &[in_a.clone(), in_b.clone()])).await.expect("taken");
    assert_eq!(head(&edge, &format!("/{one}")).await, 200, "what was there stays");
    edge.knows(&b).await;
    let best = edge.get("/snapshot.tar.bz2").await;
    assert_eq!((best.status, leads_to(&best)), (303, &*two));
    edge.reload(&config("", std::slice::from_ref(&in_a))).await.expect("taken");
    // At once, and not when somebody notices.
    assert_eq!(status(&edge, "/snapshot.tar.bz2?group=b").await, 404);
    assert_eq!(head(&edge, &format!("/{two}")).await, 404);
    let listed = edge.get("/v1/snapshots").await;
    assert!(!String::from_utf8_lossy(&listed.body).contains(&two));
    let best = edge.get("/snapshot.tar.bz2").await;
    assert_eq!((best.status, leads_to(&best)), (303, &*one));
    let asked = b.seen().len();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(b.seen().len(), asked, "nobody asks it any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_come_and_go_and_slots_do_not_go_back() {
    let [old, new] = [1000, 2000].map(full);
    let behind = Origin::run(Program::Agave, &[(&old, BODY)]).await;
    let ahead = Origin::run(Program::Sidecar, &[(&new, BODY), (&old, BODY)]).await;
    let edge = Edge::start(&config("", &[group("a", &[&behind, &ahead], "trusted: true")]));
    edge.knows(&ahead).await;
    edge.knows(&behind).await;
    let best = async || leads_to(&edge.get("/snapshot.tar.bz2").await).to_owned();
    assert_eq!(best().await, new);
    edge.reload(&config("", &[group("a", &[&behind], "trusted: true")])).await.expect("taken");
    assert_eq!(head(&edge, &format!("/{new}")).await, 404, "its only target is gone");
    let asked = ahead.seen().len();
    edge.reload(&config("", &[group("a", &[&ahead], "trusted: true")])).await.expect("taken");
    eventually("the new one is asked", || async { ahead.seen().len() > asked }).await;
    edge.knows(&ahead).await;
    assert_eq!(best().await, new);
    // What did not change is not asked anew: no probe more than the interval asks for.
    let before = ahead.seen().len();
    let hourly = config("", &[group("a", &[&ahead], "trusted: true")])
        .replace("scrape_interval: 100ms", "scrape_interval: 1h");
    edge.reload(&hourly).await.expect("taken");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let settled = ahead.seen().len();
    for _ in 0..10 {
        edge.reload(&hourly).await.expect("taken");
    }
    assert_eq!(ahead.seen().len(), settled, "after {before}");
    // And a shorter one does not wait for the longer one to be over.
    edge.reload(&config("", &[group("a", &[&ahead], "trusted: true")])).await.expect("taken");
    eventually("it is asked again", || async { ahead.seen().len() > settled + 2 }).await;
}

/// Past a cache, into one, and out of a growing file.
#[tokio::test(flavor = "multi_thread")]
async fn a_download_goes_on_through_a_reload_that_removes_its_group() {
    let directory = tempfile::tempdir().expect("a directory");
    for case in ["", "exclusive", "shared"] {
        let name = full(1000);
        let [a, b] = [1, 2].map(|_| Program::Agave);
        let a = Origin::run(a, &[(&name, BODY)]).await;
        let b = Origin::run(b, &[(&full(2000), BODY)]).await;
        let path = directory.path().join(format!("of-{case}"));
        let cache = match case {
            "" => String::new(),
            sharing => cached(&path, sharing),
        };
        let (in_a, in_b) = (group("a", &[&a], ""), group("b", &[&b], ""));
        let edge = Edge::start(&config(&cache, &[in_a, in_b.clone()]));
        edge.knows(&a).await;
        edge.knows(&b).await;
        // Slow enough to be in the middle for as long as the test asks for other things.
        a.slow_to(BODY.len / seconds());
        let download = Download::begin(&Ask::get(format!("/{name}")), edge.address).await;
        edge.reload(&config(&cache, std::slice::from_ref(&in_b))).await.expect("taken");
        assert_eq!(status(&edge, "/snapshot.tar.bz2?group=a").await, 404, "{case}");
        download.finish().await;
        // And leaves nothing behind.
        let path_of = format!("/{name}");
        eventually("it is not there any more", || async { head(&edge, &path_of).await == 404 })
            .await;
        if !case.is_empty() {
            let file = path.join(&name);
            eventually("its file is gone", || async { !file.exists() }).await;
        }
        assert_eq!(a.transfers().0, 0, "{case}");
    }
}

/// How long a download takes.
fn seconds() -> u64 {
    let seconds = std::env::var("SNAPEDGE_RELOAD_SECONDS").ok();
    seconds.and_then(|seconds| seconds.parse().ok()).unwrap_or(2)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_renamed_keeps_what_is_cached_of_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let (name, next) = (full(1000), incremental(1000, 1100));
    let origin = Origin::run(Program::Agave, &[(&name, BODY), (&next, BODY)]).await;
    let cache = cached(directory.path(), "exclusive");
    let edge = Edge::start(&config(&cache, &[group("a", &[&origin], "")]));
    edge.knows(&origin).await;
    assert_eq!(status(&edge, &format!("/{name}")).await, 200);
    eventually("it is cached", || is_hit(&edge, &name)).await;
    edge.reload(&config(&cache, &[group("main", &[&origin], "")])).await.expect("taken");
    assert_eq!(status(&edge, "/snapshot.tar.bz2?group=a").await, 404);
    eventually("its targets are known by the new name", || async {
        status(&edge, "/snapshot.tar.bz2?group=main").await == 303
    })
    .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(is_hit(&edge, &name).await, "nobody has to fetch it again");
    // Where nobody has it any more, it goes.
    let other = Origin::run(Program::Agave, &[(&full(2000), BODY)]).await;
    edge.reload(&config(&cache, &[group("other", &[&other], "")])).await.expect("taken");
    let file = directory.path().join(&name);
    eventually("its file is gone", || async { !file.exists() }).await;
}

/// A node names its newest pair alone, and goes on serving what it named before.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_of_a_target_outlives_a_change_of_its_group() {
    let (old, new) = (full(1000), full(2000));
    let next = incremental(1000, 1100);
    let node = Origin::run(Program::Agave, &[(&old, BODY), (&next, BODY)]).await;
    let other = Origin::run(Program::Agave, &[(&old, BODY), (&next, BODY)]).await;
    let of = |origins: &[&Origin], more: &str| config("", &[group("a", origins, more)]);
    let edge = Edge::start(&of(&[&node], ""));
    edge.knows(&node).await;
    node.add(&new, BODY);
    edge.knows(&node).await;
    let is_there = async || {
        let best = edge.get("/incremental-snapshot.tar.bz2").await;
        (leads_to(&best) == next, head(&edge, &format!("/{old}")).await == 200)
    };
    assert_eq!(is_there().await, (true, true), "an old pair is held");
    for text in [
        of(&[&node, &other], ""),
        of(&[&node], "trusted: true"),
        of(&[&node], "balance: pinned"),
        of(&[&node], "bearer_auth: {token: one}"),
        of(&[&node], "bearer_auth: {token: two}"),
        of(&[&node], "").replace("connect_timeout: 500ms", "connect_timeout: 600ms"),
    ] {
        edge.reload(&text).await.expect("taken");
        let asked = node.seen().len();
        eventually("it is asked", || async { node.seen().len() > asked + 4 }).await;
        assert_eq!(is_there().await, (true, true), "{text}");
    }
}

/// A group under a new name that does not work yet takes nothing out of the cache.
#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_a_renamed_group_costs_nothing_of_what_is_cached() {
    let directory = tempfile::tempdir().expect("a directory");
    let name = full(1000);
    let origin = Origin::run(Program::Agave, &[(&name, BODY)]).await;
    let cache = cached(directory.path(), "exclusive");
    let edge = Edge::start(&config(&cache, &[group("a", &[&origin], "")]));
    edge.knows(&origin).await;
    assert_eq!(status(&edge, &format!("/{name}")).await, 200);
    let file = directory.path().join(&name);
    eventually("it is cached", || async { file.exists() }).await;
    let mistaken = group("main", &[&origin], "api_path: /nowhere");
    edge.reload(&config(&cache, &[mistaken])).await.expect("taken");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(file.exists(), "although all its targets have failed");
    edge.reload(&config(&cache, &[group("main", &[&origin], "")])).await.expect("taken");
    eventually("it is a hit again", || is_hit(&edge, &name)).await;
}
