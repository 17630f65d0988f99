//! Directories together with targets on the network: what is here is not asked for there.

use super::*;
use crate::support::origin::Program;
use crate::support::{full, incremental};

const HERE: Content = Content::framed(1, 300_000);
const THERE: Content = Content::framed(2, 300_000);

/// The same name in a directory and on an origin, in two copies.
async fn both(settings: &str) -> (Shelf, Origin, Edge, String) {
    let (shelf, name) = (Shelf::new(), full(1000));
    shelf.put(&name, HERE);
    let origin = Origin::run(Program::Sidecar, &[(&name, THERE)]).await;
    let edge = Edge::start(&config(settings, &[shelf.path()], &[&origin]));
    lists(&edge, &name, shelf.path()).await;
    edge.knows(&origin).await;
    (shelf, origin, edge, name)
}

fn cached(directory: &Path, more: &str) -> String {
    let settings = "min_free_space: 0B, verify: length";
    format!(
        "{QUICK}proxy_snapshot_cache_dir: '{}'\ncache: {{{settings}{more}}}",
        directory.display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_is_asked_when_the_file_has_gone_and_not_before() {
    // Whether that was listed or is met by the request.
    for settings in [LISTED_ONCE, QUICK] {
        let (shelf, origin, edge, name) = both(settings).await;
        for client in 1..=20 {
            assert_whole(&edge.ask(get(&name).from(client)).await, HERE);
            edge.settles().await;
            let part = edge.ask(get(&name).from(client).with("range", "bytes=7-99")).await;
            assert!(part.body == HERE.bytes(7, 100), "{}", part.head);
            assert_eq!(edge.ask(head(&name).from(client)).await.length(), HERE.len);
        }
        assert_eq!(origin.asked("GET", &name), 0);
        shelf.take(&name);
        let answer = edge.ask(get(&name).from(30)).await;
        assert_eq!((answer.status, answer.ended), (200, Ended::Whole), "{}", answer.head);
        assert!(answer.body == THERE.all());
        assert_eq!(origin.asked("GET", &name), 1);
        // Who has bytes of the file gets none of the other copy.
        edge.settles().await;
        let blind = edge.ask(get(&name).from(1).with("range", "bytes=7-")).await;
        assert_eq!(blind.status, 503, "{}", blind.head);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_directory_is_asked_when_the_file_has_gone() {
    let (first, second, name) = (Shelf::new(), Shelf::new(), full(1000));
    first.put(&name, HERE);
    second.put(&name, THERE);
    let paths = [first.path(), second.path()];
    let edge = Edge::start(&config(LISTED_ONCE, &paths, &[]));
    lists(&edge, &name, first.path()).await;
    lists(&edge, &name, second.path()).await;
    let one = edge.ask(get(&name)).await.body;
    // Both in one order for everybody.
    let (used, other) = if one == HERE.all() { (&first, THERE) } else { (&second, HERE) };
    used.take(&name);
    assert_whole(&edge.ask(get(&name).from(2)).await, other);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_keeps_the_copy_of_the_network_that_it_began() {
    let (shelf, name) = (Shelf::new(), full(1000));
    let origin = Origin::run(Program::Sidecar, &[(&name, THERE)]).await;
    let edge = Edge::start(&config(QUICK, &[shelf.path()], &[&origin]));
    edge.knows(&origin).await;
    let begun = edge.ask(get(&name)).await;
    assert!(begun.body == THERE.all());
    let tag = begun.header("etag").expect("a tag").to_owned();
    let part = |range: &str| get(&name).from(3).with("range", format!("bytes={range}"));
    assert_eq!(edge.ask(part("0-6")).await.status, 206);
    shelf.put(&name, HERE);
    lists(&edge, &name, shelf.path()).await;
    let blind = edge.ask(part("7-")).await;
    assert_eq!(blind.status, 206);
    assert!(blind.body == THERE.bytes(7, THERE.len));
    let bound = get(&name).from(2).with("range", "bytes=7-").with("if-range", tag);
    let bound = edge.ask(bound).await;
    assert_eq!(bound.status, 206);
    assert!(bound.body == THERE.bytes(7, THERE.len));
    // Who begins anew gets what is here.
    assert_whole(&edge.ask(get(&name)).await, HERE);
    let rest = edge.ask(get(&name).with("range", "bytes=7-")).await;
    assert!((rest.status, rest.body) == (206, HERE.bytes(7, HERE.len)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_best_archive_in_the_cache_comes_before_the_file() {
    let (shelf, name) = (Shelf::new(), full(1000));
    let cache = tempfile::tempdir().expect("a directory");
    let origin = Origin::run(Program::Sidecar, &[(&name, THERE)]).await;
    let edge = Edge::start(&config(&cached(cache.path(), ""), &[shelf.path()], &[&origin]));
    edge.knows(&origin).await;
    eventually("it is cached", || async {
        let answer = edge.ask(get(&name)).await;
        answer.header("cache-status") == Some("snapedge; hit")
    })
    .await;
    shelf.put(&name, HERE);
    lists(&edge, &name, shelf.path()).await;
    let answer = edge.ask(get(&name)).await;
    assert_eq!(answer.header("cache-status"), Some("snapedge; hit"));
    assert!(answer.body == THERE.all());
    // When it is no longer the best, the file is there for everybody.
    shelf.put(&full(2000), HERE);
    lists(&edge, &full(2000), shelf.path()).await;
    assert_whole(&edge.ask(get(&name)).await, HERE);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_is_filled_from_the_network_when_the_file_has_gone() {
    for sharing in ["exclusive", "shared"] {
        let cache = tempfile::tempdir().expect("a directory");
        let settings = cached(cache.path(), &format!(", sharing: {sharing}"));
        let (shelf, origin, edge, name) = both(&settings).await;
        assert_whole(&edge.ask(get(&name)).await, HERE);
        shelf.take(&name);
        eventually("the other copy is cached", || async {
            let answer = edge.ask(get(&name).from(2)).await;
            assert_eq!((answer.status, answer.ended), (200, Ended::Whole), "{}", answer.head);
            assert!(answer.body == THERE.all(), "{}", answer.head);
            answer.header("cache-status") == Some("snapedge; hit")
        })
        .await;
        assert!(origin.asked("GET", &name) > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_fetched_ahead_that_is_here_and_it_is_offered_at_once() {
    let (shelf, cache) = (Shelf::new(), tempfile::tempdir().expect("a directory"));
    let (old, base) = (full(1000), incremental(1000, 1100));
    let (new, tip) = (full(2000), incremental(2000, 2100));
    let origin = Origin::run(Program::Sidecar, &[(&old, THERE), (&base, THERE)]).await;
    let more = ", sharing: shared, prefetch: all, publish: promoted";
    let edge = Edge::start(&config(&cached(cache.path(), more), &[shelf.path()], &[&origin]));
    let leads_to = async |full: &str, incremental: &str| {
        eventually("short names lead to the pair", || async {
            let one = edge.ask(Ask::head("/snapshot.tar.bz2")).await;
            let two = edge.ask(Ask::head("/incremental-snapshot.tar.bz2")).await;
            one.header("location") == Some(&*format!("/{full}"))
                && two.header("location") == Some(&*format!("/{incremental}"))
        })
        .await;
    };
    leads_to(&old, &base).await;
    for name in [&old, &base] {
        eventually("it is fetched ahead", || async {
            let answer = edge.ask(head(name)).await;
            answer.header("cache-status") == Some("snapedge; hit")
        })
        .await;
    }
    // The directory has both of the new ones, the origin as well.
    for name in [&new, &tip] {
        shelf.put(name, HERE);
        lists(&edge, name, shelf.path()).await;
    }
    origin.add(&new, THERE);
    origin.add(&tip, THERE);
    edge.knows(&origin).await;
    leads_to(&new, &tip).await;
    assert_whole(&edge.ask(get(&new)).await, HERE);
    // What the directory lacks is fetched, by the same task, and nothing else was.
    let newest = incremental(2000, 2200);
    origin.add(&newest, THERE);
    leads_to(&new, &newest).await;
    eventually("it is fetched ahead", || async {
        let answer = edge.ask(head(&newest)).await;
        answer.header("cache-status") == Some("snapedge; hit")
    })
    .await;
    assert_eq!((origin.asked("GET", &new), origin.asked("GET", &tip)), (0, 0));
}
