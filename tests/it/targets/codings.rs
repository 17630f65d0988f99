//! Labels of codings and repeated lengths, as careless servers put them on archives.

use super::super::support::body::Content;
use super::super::support::client::{Ask, Ended};
use super::super::support::edge::{Edge, QUICK};
use super::super::support::scripted::{Said, Scripted, listing};
use super::super::support::server::Server;
use super::super::support::{eventually, hash};

const BODY: Content = Content::new(1, 30_000);
const TIME: &str = "2026-09-21T14:13:20Z";

/// A sidecar, or with `kind: rpc` a node, whose archive goes out under these headers.
async fn target(kind: &str, name: &str, more: Vec<(&'static str, String)>) -> Server<Scripted> {
    let (name, kind) = (name.to_owned(), kind.to_owned());
    Server::script(move |request| {
        let more: Vec<_> = more.iter().map(|(key, value)| (*key, &**value)).collect();
        match (&*kind, request.path()) {
            ("sidecar", "/v1/snapshots") => listing(&name, BODY.len, TIME),
            ("rpc", "/snapshot.tar.bz2") => {
                let to = format!("/{name}");
                Said::with("303 See Other", &[("location", &to), ("content-length", "0, 0")])
            }
            (_, path) if path.ends_with(&name) => Said::archive(request, BODY, &more),
            _ => Said::status("404 Not Found"),
        }
    })
    .await
}

async fn edge(kind: &str, extra: &str, name: &str, server: &Server<Scripted>) -> Edge {
    let edge = Edge::start(&format!(
        "{QUICK}{extra}\ntarget_groups:\n  \
         - {{group: a, kind: {kind}, static_targets: {{targets: ['{}']}}}}\n",
        server.address()
    ));
    let name = name.parse().expect("a name");
    edge.sees("the archive", |view| !view.sources(&name).is_empty()).await;
    edge
}

/// Whether GET, HEAD and ranges are served, uncached and into the cache and out of it.
async fn check(extension: &str, more: &[(&'static str, &str)], is_served: bool) {
    let name = format!("snapshot-1000-{}.{extension}", hash(9));
    let more: Vec<_> = more.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
    let all = [("sidecar", ""), ("sidecar", "shared"), ("rpc", ""), ("rpc", "exclusive")];
    // A node's archive that nobody can have is not listed.
    let count = if is_served { all.len() } else { 2 };
    for (kind, mode) in all.into_iter().take(count) {
        let what = format!("{extension} {more:?} {kind} {mode}");
        let directory = tempfile::tempdir().expect("a directory");
        let extra = match mode {
            "" => String::new(),
            sharing => format!(
                "proxy_snapshot_cache_dir: '{}'\n\
                 cache: {{sharing: {sharing}, min_free_space: 0B, verify: length}}",
                directory.path().display()
            ),
        };
        let server = target(kind, &name, more.clone()).await;
        let edge = edge(kind, &extra, &name, &server).await;
        let whole = edge.get(&format!("/{name}")).await;
        if !is_served {
            assert_eq!((whole.status, whole.ended), (502, Ended::Whole), "{what}");
            continue;
        }
        assert_eq!((whole.status, whole.ended), (200, Ended::Whole), "{what}: {}", whole.head);
        assert!(whole.body == BODY.all(), "{what}");
        let head = edge.ask(Ask::head(format!("/{name}"))).await;
        let part = edge.ask(Ask::get(format!("/{name}")).with("range", "bytes=5-9")).await;
        assert_eq!((head.status, head.length()), (200, BODY.len), "{what}");
        assert_eq!((part.status, &*part.body), (206, &*BODY.bytes(5, 10)), "{what}");
        for answer in [&whole, &head, &part] {
            assert_eq!(answer.header("content-encoding"), None, "{what}: {}", answer.head);
        }
        if !mode.is_empty() {
            eventually("it is cached", || async {
                let head = edge.ask(Ask::head(format!("/{name}"))).await;
                head.header("cache-status") == Some("snapedge; hit")
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_label_of_an_archives_own_compression_is_dropped() {
    for (extension, label) in [
        ("tar.zst", "zstd"),
        ("tar.zst", "ZSTD"),
        ("tar.zst", "identity, zstd"),
        ("tar.gz", "gzip"),
        ("tar.gz", "x-gzip"),
        ("tar.bz2", "bzip2"),
        ("tar.bz2", "x-bzip2"),
        ("tar.xz", "xz"),
        ("tar.lz4", "lz4"),
        ("tar", "identity"),
    ] {
        check(extension, &[("content-encoding", label)], true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_that_does_not_agree_with_the_name_is_refused() {
    for (extension, label) in [
        ("tar.zst", "gzip"),
        ("tar.zst", "zstd, zstd"),
        ("tar.zst", "br"),
        ("tar.gz", "zstd"),
        ("tar", "gzip"),
    ] {
        check(extension, &[("content-encoding", label)], false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_that_is_said_twice_is_one_and_two_lengths_are_none() {
    check("tar.zst", &[("content-length", "=, =")], true).await;
    check("tar.zst", &[("content-length", "="), ("content-length", "=")], true).await;
    check("tar.zst", &[("content-length", "=, +")], false).await;
    check("tar.zst", &[("content-length", "="), ("content-length", "+")], false).await;
}
