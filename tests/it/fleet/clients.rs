//! Bounds that count clients, and only then their connections.

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::{LENGTH, begin, get, holding, release};
use crate::support::body::Content;
use crate::support::client::Answer;
use crate::support::edge::Edge;
use crate::support::origin::{Origin, Program};
use crate::support::{eventually, full, h2, incremental};

/// Where the archives come from that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Targets,
    Exclusive,
    Shared,
}

/// An edge before a sidecar with these archives, and what has to live as long.
async fn edge(
    way: Way,
    limits: &str,
    archives: &[(&str, Content)],
) -> (Edge, Origin, tempfile::TempDir) {
    let origin = Origin::run(Program::Sidecar, archives).await;
    let directory = tempfile::tempdir().expect("a directory");
    let sharing = if way == Way::Shared { "shared" } else { "exclusive" };
    let cache = match way {
        Way::Targets => String::new(),
        Way::Exclusive | Way::Shared => format!(
            "proxy_snapshot_cache_dir: '{}'\n\
             cache: {{sharing: {sharing}, min_free_space: 0B, verify: length}}\n",
            directory.path().display()
        ),
    };
    let extra = format!("{cache}server: {{h2c: true}}");
    let edge = Edge::limited(limits, &extra, &[&origin]).await;
    if way != Way::Targets {
        for (name, _) in archives {
            eventually("it is cached", || async {
                let status = edge.ask(get(name)).await.header("cache-status").map(str::to_owned);
                status.as_deref() == Some("snapedge; hit")
            })
            .await;
        }
    }
    (edge, origin, directory)
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_parts_of_each_of_two_files_wait_for_each_other() {
    let (name, other) = (full(1000), incremental(1000, 1100));
    let contents = [Content::new(1, LENGTH), Content::new(2, LENGTH)];
    let archives = [(&*name, contents[0]), (&*other, contents[1])];
    for way in [Way::Targets, Way::Exclusive, Way::Shared] {
        let limits = "per_client_transfers: 8, per_target: 1000, queue_wait: 60s";
        let (edge, origin, _directory) = edge(way, limits, &archives).await;
        let part = |at: u64| {
            let ask = get(if at.is_multiple_of(2) { &name } else { &other }).from(1);
            let range = format!("bytes={}-{}", at * 1000, at * 1000 + 999);
            tokio::spawn(ask.with("range", range).send(edge.address))
        };
        let parts: Vec<_> = (0..100).map(part).collect();
        for (at, part) in (0_u64..).zip(parts) {
            let answer = part.await.expect("no panic");
            assert_eq!(answer.status, 206, "{way:?} {}", answer.head);
            let content = contents[usize::from(!at.is_multiple_of(2))];
            assert_eq!(answer.body, content.bytes(at * 1000, at * 1000 + 1000), "{way:?}");
        }
        if way == Way::Targets {
            assert!(origin.transfers().1 <= 8, "{:?}", origin.transfers());
        }
    }
}

/// Streams of one connection are as many transfers.
#[tokio::test(flavor = "multi_thread")]
async fn streams_over_http_2_wait_for_each_other() {
    let name = full(1000);
    for way in [Way::Targets, Way::Shared] {
        let limits = "per_client_transfers: 2, per_target: 1000, queue_wait: 60s";
        let archives = [(&*name, Content::new(1, LENGTH))];
        let (edge, origin, _directory) = edge(way, limits, &archives).await;
        let path = format!("/{name}");
        let take = |_| {
            let (to, path) = (edge.address, path.clone());
            tokio::spawn(async move { h2::get(to, &path).await })
        };
        for taken in (0..20).map(take).collect::<Vec<_>>() {
            assert_eq!(taken.await.expect("no panic"), LENGTH);
        }
        assert!(origin.transfers().1 <= 2, "{:?}", origin.transfers());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_too_long_for_its_own_transfers_is_refused() {
    let name = full(1000);
    for (wait, least) in [("0s", 0), ("300ms", 300)] {
        let origins = holding(&name, 1).await;
        let limits = format!("per_client_transfers: 2, queue_wait: {wait}");
        let edge = Edge::limited(&limits, "", &[&origins[0]]).await;
        let held = [begin(&edge, &name, 1).await, begin(&edge, &name, 1).await];
        for range in [None, Some("bytes=0-99"), Some("bytes=100-199")] {
            let ask = get(&name).from(1);
            let ask = if let Some(range) = range { ask.with("range", range) } else { ask };
            let began = Instant::now();
            let refused = edge.ask(ask).await;
            assert!(began.elapsed() >= Duration::from_millis(least), "{wait}");
            assert_eq!((refused.status, refused.header("retry-after")), (503, Some("10")));
            let text = String::from_utf8(refused.body).expect("text");
            let expected = "as many transfers are running to this address as may run at once\n";
            assert_eq!(text, expected);
        }
        // Others do not wait with it.
        let other = begin(&edge, &name, 2).await;
        assert_eq!(other.0.status, 200);
        release(&origins);
        drop((held, other));
    }
}

/// How many of so many transfers are let in that one client begins.
async fn taken_by_one(edge: &Edge, name: &str, count: usize) -> Vec<(Answer, TcpStream)> {
    let ask = |_| {
        let (ask, to) = (get(name).from(1), edge.address);
        tokio::spawn(async move { ask.begin(to).await })
    };
    let mut served = Vec::new();
    for begun in (0..count).map(ask).collect::<Vec<_>>() {
        let begun = begun.await.expect("no panic");
        if begun.0.status == 200 {
            served.push(begun);
        }
    }
    served
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_with_many_connections_leaves_places_to_others() {
    let name = full(1000);
    for (limits, most) in [
        // Alone it has all of the rate.
        ("total_rate: 160MiB/s, min_rate: 10MiB/s", 16),
        ("total_rate: 160MiB/s, min_rate: 10MiB/s, max_transfers: 24", 12),
        ("max_transfers: 16", 8),
        ("max_transfers: 16, per_client_transfers: 5", 5),
    ] {
        let origins = holding(&name, 1).await;
        let limits = format!("{limits}, per_target: 1000, queue_wait: 100ms");
        let edge = Edge::limited(&limits, "", &[&origins[0]]).await;
        let taken = taken_by_one(&edge, &name, 40).await;
        assert_eq!(taken.len(), most, "{limits}");
        let mut others = Vec::new();
        for number in 2..=5 {
            let other = begin(&edge, &name, number).await;
            assert_eq!(other.0.status, 200, "{limits}: client {number}");
            others.push(other);
        }
        let part = get(&name).from(2).with("range", "bytes=0-99").begin(edge.address).await;
        // An origin that holds archives back sends all of them.
        assert!(matches!(part.0.status, 200 | 206), "{limits}: {}", part.0.head);
        // And it has no more than before, with or without a place that came free.
        drop(others.pop());
        assert!(taken_by_one(&edge, &name, 8).await.is_empty(), "{limits}");
        release(&origins);
    }
}

/// Reads without an end; counts what came.
async fn drain(stream: TcpStream, came: std::sync::Arc<std::sync::atomic::AtomicU64>) {
    let (mut stream, mut buffer) = (stream, vec![0; 1 << 16]);
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        came.fetch_add(count as u64, std::sync::atomic::Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_is_shared_by_clients_and_not_by_connections() {
    const LARGE: u64 = 24 << 20;
    let (cached, carried) = (full(1000), full(900));
    let archives = [(&*cached, Content::new(1, LARGE)), (&*carried, Content::new(2, LARGE))];
    let origin = Origin::run(Program::Sidecar, &archives).await;
    let directory = tempfile::tempdir().expect("a directory");
    let cache = format!(
        "proxy_snapshot_cache_dir: '{}'\n\
         cache: {{sharing: shared, min_free_space: 0B, verify: length}}",
        directory.path().display()
    );
    let limits = "total_rate: 24MiB/s, min_rate: 1MiB/s, per_target: 100";
    let edge = Edge::limited(limits, &cache, &[&origin]).await;
    eventually("it is cached", || async {
        let status = edge.ask(get(&cached)).await.header("cache-status").map(str::to_owned);
        status.as_deref() == Some("snapedge; hit")
    })
    .await;
    for (greedy, modest) in [(&cached, &carried), (&carried, &cached)] {
        let came = std::sync::Arc::<std::sync::atomic::AtomicU64>::default();
        let mut readers = tokio::task::JoinSet::new();
        for (_, stream) in taken_by_one(&edge, greedy, 12).await {
            readers.spawn(drain(stream, std::sync::Arc::clone(&came)));
        }
        assert_eq!(readers.len(), 12);
        let before = came.load(std::sync::atomic::Ordering::Relaxed);
        let whole = edge.ask(get(modest).from(2)).await;
        assert_eq!((whole.status, whole.body.len() as u64), (200, LARGE));
        let beside = came.load(std::sync::atomic::Ordering::Relaxed) - before;
        // As much as the other one, and what sockets held.
        assert!(beside < LARGE * 2, "{} MiB came beside it", beside >> 20);
        readers.shutdown().await;
    }
}
