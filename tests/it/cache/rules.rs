//! What the cache promises, rule by rule. Rule 7 is in `faults.rs`.

use std::path::Path;

use tokio::io::AsyncReadExt;

use super::super::support::body::Content;
use super::super::support::client::{Answer, Ask, Ended};
use super::super::support::edge::{Edge, config};
use super::super::support::origin::{Fault, Origin, Program};
use super::super::support::process::Running;
use super::super::support::{eventually, full, incremental};
use super::{
    CachedEdge, HIT, STORED, assert_on_disk, assert_whole, beside, bypass, files, get, head, pair,
    process, settings, status,
};

/// More than one block of what is written at once, and no multiple of it.
const FULL: Content = Content::new(1, 2_500_000);
const INCREMENTAL: Content = Content::new(2, 100_000);

/// A request under way in a task of its own.
fn spawn(edge: &Edge, ask: Ask) -> tokio::task::JoinHandle<Answer> {
    tokio::spawn(ask.send(edge.address))
}

/// Waits until an archive is being fetched, and some of it is on disk.
async fn begins(directory: &Path, name: &str) {
    let path = directory.join(format!("{name}.snapedge-part"));
    eventually("some of the archive is on disk", || async {
        path.metadata().is_ok_and(|metadata| metadata.len() > 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_1_the_current_best_is_served_from_the_cache() {
    let (full, old, new) = (full(1000), incremental(1000, 1500), incremental(1000, 1600));
    let origin = Origin::run(Program::Agave, &[(&full, FULL), (&old, INCREMENTAL)]).await;
    let cached = CachedEdge::before(&[&origin]).await;
    for (name, content) in [(&full, FULL), (&old, INCREMENTAL)] {
        let first = cached.edge.ask(get(name)).await;
        assert_whole(&first, content);
        assert_eq!(status(&first), STORED);
        cached.holds(name).await;
        for path in [format!("/{name}"), format!("/v1/snapshot/{name}")] {
            let answer = cached.edge.get(&path).await;
            assert_whole(&answer, content);
            assert_eq!(status(&answer), HIT, "{path}");
        }
        assert_eq!(origin.asked("GET", name), 1, "once for all of them");
        assert_on_disk(cached.directory.path(), name, content);
    }
    assert_eq!(cached.files(), [pair(&old), pair(&full)].concat());

    // What short names no longer lead to is not served from the cache, even while it is there.
    let half = cached.edge.ask(get(&old).from(3).leave_after(1000)).await;
    assert_eq!((half.status, status(&half)), (200, HIT));
    origin.add(&new, FULL);
    cached.edge.knows(&origin).await;
    let answer = cached.edge.ask(get(&old)).await;
    assert_whole(&answer, INCREMENTAL);
    assert_eq!((status(&answer), origin.asked("GET", &old)), (&*bypass("not-best"), 2));
    assert_eq!(cached.files(), [pair(&old), pair(&full)].concat());
    assert_eq!(status(&cached.edge.ask(get(&full)).await), HIT, "the other one stays");

    // Except to those who have the start of it, while it is there.
    let rest = get(&old).with("range", "bytes=1000-");
    let begun = cached.edge.ask(rest.clone().from(3)).await;
    assert_eq!((begun.status, status(&begun)), (206, HIT));
    assert!(begun.body == INCREMENTAL.bytes(1000, INCREMENTAL.len));
    assert_eq!(status(&cached.edge.ask(rest.from(9)).await), bypass("not-best"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_2_stale_archives_go_before_the_refresh_and_their_readers_finish() {
    // More than the sockets between the edge and a client that reads nothing can hold.
    let large = Content::new(3, 48 << 20);
    let (old, new) = (full(1000), full(2000));
    let origin = Origin::run(Program::Agave, &[(&old, large)]).await;
    let cached = CachedEdge::before(&[&origin]).await;
    cached.fill(&old, large).await;
    let (reader, mut stream) = get(&old).begin(cached.edge.address).await;
    assert_eq!((reader.status, status(&reader)), (200, HIT));

    origin.add(&new, FULL);
    cached.edge.knows(&origin).await;
    assert_eq!(cached.files(), pair(&old), "nobody has asked for the new one");
    origin.fail(Fault::Hold(FULL.len / 2));
    let refresh = spawn(&cached.edge, get(&new));
    begins(cached.directory.path(), &new).await;
    assert_eq!(cached.files(), [beside(&new, "-part")], "the old one went first");
    origin.fail(None);
    assert_whole(&refresh.await.expect("no panic"), FULL);
    cached.holds(&new).await;
    assert_eq!(cached.files(), pair(&new));
    origin.stop().await;

    let mut body = reader.body;
    while (body.len() as u64) < large.len {
        let count = stream.read_buf(&mut body).await.expect("readable");
        assert!(count > 0, "broke off after {} bytes", body.len());
    }
    assert!(body == large.all(), "the reader has all of the old one");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_2_each_group_keeps_its_own_best() {
    let (first, second, newer) = (full(1000), full(1200), full(3000));
    let a = Origin::run(Program::Agave, &[(&first, FULL)]).await;
    let b = Origin::run(Program::Agave, &[(&second, INCREMENTAL)]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let edge = Edge::start(&config(&settings(directory.path()), &[&[&a], &[&b]]));
    edge.knows(&a).await;
    edge.knows(&b).await;
    let cached = CachedEdge { edge, directory };
    cached.fill(&first, FULL).await;
    cached.fill(&second, INCREMENTAL).await;
    assert_eq!(cached.files(), [pair(&first), pair(&second)].concat());
    b.add(&newer, FULL);
    cached.edge.knows(&b).await;
    cached.fill(&newer, FULL).await;
    assert_eq!(cached.files(), [pair(&first), pair(&newer)].concat());
    assert_eq!(status(&cached.edge.ask(head(&first)).await), HIT);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_3_one_request_refreshes_and_the_others_stream_past() {
    let name = full(1000);
    let contents = [Content::new(1, FULL.len), Content::new(2, FULL.len)];
    let a = Origin::run(Program::Sidecar, &[(&name, contents[0])]).await;
    let b = Origin::run(Program::Sidecar, &[(&name, contents[1])]).await;
    // As many as there are clients; what becomes of more is a matter of the bound.
    let cached = CachedEdge::limited("per_target: 8", &[&a, &b]).await;
    let asked = || [a.asked("GET", &name), b.asked("GET", &name)];
    for origin in [&a, &b] {
        origin.fail(Fault::Hold(FULL.len / 2));
    }
    let clients: Vec<_> = (1..=8).map(|at| spawn(&cached.edge, get(&name).from(at))).collect();
    eventually("all are under way", || async { asked().iter().sum::<usize>() == 8 }).await;
    begins(cached.directory.path(), &name).await;
    assert_eq!(cached.files(), [beside(&name, "-part")]);
    assert!(
        asked().contains(&8),
        "all from one source, or the bytes could be mixed: {:?}",
        asked()
    );
    for origin in [&a, &b] {
        origin.fail(None);
    }

    let mut statuses = Vec::new();
    let content = contents[usize::from(asked()[0] == 0)];
    for client in clients {
        let answer = client.await.expect("no panic");
        assert_whole(&answer, content);
        statuses.push(status(&answer).to_owned());
    }
    statuses.sort();
    let mut expected = vec![bypass("filling"); 7];
    expected.push(STORED.to_owned());
    assert_eq!(statuses, expected);
    cached.holds(&name).await;
    assert_eq!(cached.files(), pair(&name));
    assert_on_disk(cached.directory.path(), &name, content);
    assert_whole(&cached.edge.ask(get(&name).from(9)).await, content);
    assert_eq!(asked().iter().sum::<usize>(), 8, "the ninth was served from the cache");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_4_head_asks_for_no_archive() {
    let name = full(1000);
    // Its probes ask neither GET nor HEAD of an archive.
    let origin = Origin::run(Program::Sidecar, &[(&name, FULL)]).await;
    let cached = CachedEdge::before(&[&origin]).await;
    let cold = cached.edge.ask(head(&name)).await;
    assert_eq!((cold.status, cold.length(), status(&cold)), (200, FULL.len, &*bypass("head")));
    assert_eq!((origin.asked("HEAD", &name), origin.asked("GET", &name)), (1, 0));
    assert_eq!(cached.files(), [""; 0], "no fill was begun");

    origin.fail(Fault::Hold(FULL.len / 2));
    let filler = spawn(&cached.edge, get(&name));
    begins(cached.directory.path(), &name).await;
    let meanwhile = cached.edge.ask(head(&name)).await;
    assert_eq!((meanwhile.length(), status(&meanwhile)), (FULL.len, &*bypass("head")));
    origin.fail(None);
    assert_whole(&filler.await.expect("no panic"), FULL);
    cached.holds(&name).await;
    assert_eq!(origin.asked("GET", &name), 1);

    origin.stop().await;
    let warm = cached.edge.ask(head(&name)).await;
    assert_eq!((warm.status, warm.length(), status(&warm)), (200, FULL.len, HIT));
    assert_eq!(warm.header("accept-ranges"), Some("bytes"));
    assert_eq!(warm.header("content-type"), Some("application/zstd"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_5_a_range_on_a_miss_passes_the_cache_by() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, FULL)]).await;
    let cached = CachedEdge::before(&[&origin]).await;
    for (range, start) in [("bytes=0-", 0), ("bytes=1000-", 1000), ("bytes=-7", FULL.len - 7)] {
        let answer = cached.edge.ask(get(&name).with("range", range)).await;
        assert_eq!((answer.status, status(&answer)), (206, &*bypass("range")), "{range}");
        assert!(answer.body == FULL.bytes(start, FULL.len), "{range}");
        let seen = origin.seen().into_iter().rev().find(|request| request.path().ends_with(&name));
        assert_eq!(seen.expect("a download").header("range"), Some(range), "as it is");
        assert_eq!(cached.files(), [""; 0], "{range}");
    }
    let several = cached.edge.ask(get(&name).with("range", "bytes=0-1,5-6")).await;
    assert_eq!((several.status, status(&several)), (206, &*bypass("range")));
    let behind = get(&name).with("range", format!("bytes={}-", FULL.len));
    assert_eq!(cached.edge.ask(behind).await.status, 416);
    assert_eq!(cached.files(), [""; 0]);
    // A range that is none is a request for all of it.
    let answer = cached.edge.ask(get(&name).with("range", "lines=1-2")).await;
    assert_whole(&answer, FULL);
    assert_eq!(status(&answer), STORED);
    cached.holds(&name).await;

    // A node ignores ranges, and sends all: still nothing is cached.
    let node = Origin::run(Program::Agave, &[(&name, FULL)]).await;
    let cached = CachedEdge::before(&[&node]).await;
    let answer = cached.edge.ask(get(&name).with("range", "bytes=0-99")).await;
    assert_whole(&answer, FULL);
    assert_eq!((status(&answer), cached.files().len()), (&*bypass("range"), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_6_only_a_whole_archive_gets_its_name() {
    let name = full(1000);
    let origin = Origin::run(Program::Agave, &[(&name, FULL)]).await;
    let cached = CachedEdge::before(&[&origin]).await;
    origin.fail(Fault::Hold(FULL.len - 1000));
    let filler = spawn(&cached.edge, get(&name));
    begins(cached.directory.path(), &name).await;
    // All the while that bytes come, and are written.
    let written = || {
        let part = cached.directory.path().join(beside(&name, "-part"));
        part.metadata().expect("an unfinished file").len()
    };
    eventually("all whole blocks are on disk", || async {
        assert_eq!(cached.files(), [beside(&name, "-part")]);
        written() == 2 << 20
    })
    .await;
    assert_eq!(status(&cached.edge.ask(head(&name)).await), bypass("head"), "it is not found");
    assert_eq!(cached.files(), [beside(&name, "-part")]);
    assert!(!filler.is_finished());
    origin.fail(None);
    assert_whole(&filler.await.expect("no panic"), FULL);
    cached.holds(&name).await;
    assert_eq!(cached.files(), pair(&name));
    assert_on_disk(cached.directory.path(), &name, FULL);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_8_after_a_failed_refresh_the_cache_is_empty_and_the_next_get_fills_it() {
    let (old, new) = (full(1000), full(2000));
    let origin = Origin::run(Program::Agave, &[(&old, INCREMENTAL)]).await;
    let cached = CachedEdge::before(&[&origin]).await;
    cached.fill(&old, INCREMENTAL).await;
    origin.add(&new, FULL);
    cached.edge.knows(&origin).await;
    origin.fail(Fault::CloseAfter(FULL.len / 2));
    let broken = cached.edge.ask(get(&new)).await;
    assert_eq!((status(&broken), broken.ended), (STORED, Ended::Short));
    cached.is_idle().await;
    assert_eq!(cached.files(), [""; 0], "the old one is gone, and the new one did not come");
    origin.fail(None);
    cached.refill(&new, FULL).await;
    assert_eq!(cached.files(), pair(&new));
    assert_on_disk(cached.directory.path(), &new, FULL);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_9_what_is_not_the_best_is_never_cached() {
    let (old, new, newest) = (full(1000), full(2000), full(3000));
    let origin = Origin::run(Program::Sidecar, &[(&old, INCREMENTAL), (&new, FULL)]).await;
    let cached = CachedEdge::before(&[&origin]).await;
    for asked in 1..=2 {
        let answer = cached.edge.ask(get(&old)).await;
        assert_whole(&answer, INCREMENTAL);
        assert_eq!(status(&answer), bypass("not-best"));
        assert_eq!((origin.asked("GET", &old), cached.files().len()), (asked, 0));
    }
    // Nor what was the best when it was asked for.
    origin.fail(Fault::Hold(FULL.len / 2));
    let overtaken = spawn(&cached.edge, get(&new));
    begins(cached.directory.path(), &new).await;
    origin.add(&newest, INCREMENTAL);
    cached.edge.knows(&origin).await;
    origin.fail(None);
    let overtaken = overtaken.await.expect("no panic");
    assert_whole(&overtaken, FULL);
    assert_eq!(status(&overtaken), STORED, "so it seemed");
    cached.is_idle().await;
    assert_eq!(cached.files(), [""; 0]);
    cached.fill(&newest, INCREMENTAL).await;
    assert_eq!(cached.files(), pair(&newest));
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_10_what_is_whole_is_found_again_after_a_crash() {
    let (whole, broken) = (full(1000), incremental(1000, 1500));
    let origin = Origin::run(Program::Agave, &[(&whole, FULL), (&broken, FULL)]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    std::fs::write(path.join("foreign"), "theirs").expect("written");
    let config = process(path, "0B", &origin);
    let first = Running::start(&config).await;
    let cached = |to, name: &str| {
        let ask = head(name);
        async move { status(&ask.send(to).await) == HIT }
    };
    let known = |to, name: &str| {
        let ask = head(name);
        async move { ask.send(to).await.status == 200 }
    };
    eventually("both are known", || known(first.address, &broken)).await;
    let tag = get(&whole).send(first.address).await.header("etag").map(str::to_owned);
    eventually("one is cached", || cached(first.address, &whole)).await;
    origin.fail(Fault::Hold(FULL.len / 2));
    let (_, half) = get(&broken).begin(first.address).await;
    begins(path, &broken).await;
    first.kill();
    drop(half);
    let part = beside(&broken, "-part");
    let left = [vec!["foreign".to_owned(), part], pair(&whole)].concat();
    assert_eq!(files(path), left, "the crash came in between");

    origin.fail(None);
    origin.stop().await;
    let second = Running::start(&config).await;
    eventually("it is found again", || cached(second.address, &whole)).await;
    assert_eq!(files(path), [vec!["foreign".to_owned()], pair(&whole)].concat());
    assert_eq!(std::fs::read(path.join("foreign")).expect("readable"), b"theirs");
    eventually("short names lead to it", || async {
        let short = Ask::get("/snapshot.tar.zst").send(second.address).await;
        short.header("location") == Some(&*format!("/{whole}"))
    })
    .await;
    let again = get(&whole).send(second.address).await;
    assert_whole(&again, FULL);
    assert_eq!((status(&again), again.header("etag")), (HIT, tag.as_deref()));

    origin.restart().await;
    eventually("the other one is known", || known(second.address, &broken)).await;
    assert_whole(&get(&broken).send(second.address).await, FULL);
    eventually("the other one is cached", || cached(second.address, &broken)).await;
    let log = second.kill();
    assert!(log.contains(&format!("adopted {whole}")), "{log}");
    assert!(log.contains("swept `"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_10_a_cached_pair_is_offered_when_every_target_is_dead() {
    let (full, incremental) = (full(1000), incremental(1000, 1500));
    let archives = [(&*full, FULL), (&*incremental, INCREMENTAL)];
    let origin = Origin::run(Program::Agave, &archives).await;
    let cached = CachedEdge::before(&[&origin]).await;
    for (name, content) in archives {
        cached.fill(name, content).await;
    }
    origin.stop().await;
    cached
        .edge
        .sees("no target is left", |view| {
            archives.iter().all(|(name, _)| view.sources(&name.parse().expect("valid")).is_empty())
        })
        .await;
    for (short, name, content) in [
        ("/snapshot.tar.bz2", &full, FULL),
        ("/snapshot.tar.zst", &full, FULL),
        ("/incremental-snapshot.tar.bz2", &incremental, INCREMENTAL),
        ("/incremental-snapshot.tar.zst", &incremental, INCREMENTAL),
    ] {
        let answer = cached.edge.get(short).await;
        assert_eq!(answer.status, 303, "{short}");
        let location = answer.header("location").expect("a location");
        assert_eq!(location, format!("/{name}"));
        let answer = cached.edge.get(location).await;
        assert_whole(&answer, content);
        assert_eq!(status(&answer), HIT);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_10_what_the_cache_holds_is_not_gone_back_from() {
    let (old, new) = (full(1000), full(2000));
    let a = Origin::run(Program::Agave, &[(&new, FULL)]).await;
    let b = Origin::run(Program::Agave, &[(&old, INCREMENTAL)]).await;
    let cached = CachedEdge::before(&[&a, &b]).await;
    cached.fill(&new, FULL).await;
    a.stop().await;
    cached
        .edge
        .sees("the better target is gone", |view| {
            view.sources(&new.parse().expect("valid")).is_empty()
        })
        .await;
    let short = cached.edge.get("/snapshot.tar.zst").await;
    assert_eq!(short.header("location"), Some(&*format!("/{new}")));
    let answer = cached.edge.ask(get(&new)).await;
    assert_whole(&answer, FULL);
    assert_eq!(status(&answer), HIT);
    assert_eq!(status(&cached.edge.ask(get(&old)).await), bypass("not-best"));
    assert_eq!(cached.files(), pair(&new));
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_11_what_the_disk_cannot_hold_is_streamed() {
    let name = full(1000);
    let origin = Origin::run(Program::Agave, &[(&name, FULL)]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let tight = Running::start(&process(directory.path(), "1024TiB", &origin)).await;
    eventually("the archive is known", || async {
        head(&name).send(tight.address).await.status == 200
    })
    .await;
    for asked in 1..=2 {
        let answer = get(&name).send(tight.address).await;
        assert_whole(&answer, FULL);
        assert_eq!(status(&answer), bypass("no-space"));
        assert_eq!((origin.asked("GET", &name), files(directory.path()).len()), (asked, 0));
    }
    let log = tight.kill();
    let why = format!("refresh of {name} refused: it needs {} bytes", FULL.len);
    assert!(log.contains(&why) && log.contains("`cache.min_free_space` keeps"), "{log}");
}
