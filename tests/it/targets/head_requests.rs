//! HEAD for an archive: what a target answers to it confirms a listing or says nothing, and what
//! a client is told by it holds for the GET that follows.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use super::super::support::body::Content;
use super::super::support::client::{Answer, Ask, Ended};
use super::super::support::edge::{Edge, QUICK};
use super::super::support::eventually;
use super::super::support::full;
use super::super::support::origin::{Origin, Program};
use super::super::support::scripted::{Said, Scripted, listing};
use super::super::support::server::{Request, Server};

const BODY: Content = Content::framed(1, 300_000);
const TIME: &str = "2026-09-21T14:13:20Z";
const DATE: &str = "Mon, 21 Sep 2026 14:13:20 GMT";
const SHORT: &str = "/snapshot.tar.bz2";

/// What servers answer to HEAD that serve a GET of the same well.
fn useless() -> Vec<Said> {
    let with = Said::with;
    vec![
        Said::status("404 Not Found"),
        Said::status("403 Forbidden"),
        Said::status("405 Method Not Allowed"),
        Said::status("410 Gone"),
        Said::status("500 Internal Server Error"),
        Said::status("503 Service Unavailable"),
        Said::status("204 No Content"),
        Said::Silence,
        Said::Closed,
        with("200 OK", &[]),
        with("200 OK", &[("transfer-encoding", "chunked")]),
        with("200 OK", &[("content-length", "0")]),
        with("200 OK", &[("content-length", "299999, 300000")]),
        with("200 OK", &[("content-length", "300000"), ("content-type", "text/html")]),
        with("302 Found", &[("location", "http://127.0.0.9/elsewhere"), ("content-length", "0")]),
        with("304 Not Modified", &[]),
    ]
}

/// One target with one archive, whose answers to HEAD for it change.
struct Stage {
    server: Server<Scripted>,
    way: Arc<Mutex<Said>>,
    name: String,
}

impl Stage {
    async fn sidecar() -> Self {
        let name = full(1000);
        let path = format!("/v1/snapshot/{name}");
        Self::with(name.clone(), path, move |request| match request.path() {
            "/v1/snapshots" => listing(&name, BODY.len, TIME),
            _ => Said::status("404 Not Found"),
        })
        .await
    }

    async fn node() -> Self {
        let name = full(1000);
        let to = format!("/{name}");
        Self::with(name, to.clone(), move |request| match request.path() {
            SHORT => Said::with("303 See Other", &[("location", &to), ("content-length", "0")]),
            _ => Said::status("404 Not Found"),
        })
        .await
    }

    async fn with(
        name: String,
        path: String,
        rest: impl Fn(&Request) -> Said + Send + Sync + 'static,
    ) -> Self {
        let way = Arc::new(Mutex::new(Said::status("404 Not Found")));
        let heads = Arc::clone(&way);
        let server = Server::script(move |request| {
            let dated = [("last-modified", DATE), ("accept-ranges", "bytes")];
            match (request.path() == path, &*request.method) {
                (true, "HEAD") => heads.lock().unwrap().clone(),
                (true, _) => Said::archive(request, BODY, &dated),
                (false, _) => rest(request),
            }
        });
        Self { server: server.await, way, name }
    }

    async fn edge(&self, kind: &str, extra: &str) -> Edge {
        let target = self.server.address();
        let edge = Edge::start(&format!(
            "{QUICK}{extra}\ntarget_groups:\n  \
             - {{group: a, kind: {kind}, static_targets: {{targets: ['{target}']}}}}\n"
        ));
        let name = self.name.parse().expect("a name");
        edge.sees("the archive", |view| !view.sources(&name).is_empty()).await;
        edge
    }
}

fn cached(directory: &tempfile::TempDir, sharing: &str) -> String {
    format!(
        "proxy_snapshot_cache_dir: '{}'\ncache: {{sharing: {sharing}, min_free_space: 0B}}",
        directory.path().display()
    )
}

fn assert_head(answer: &Answer, what: &str) {
    assert_eq!((answer.status, answer.ended), (200, Ended::Whole), "{what}: {}", answer.head);
    assert_eq!(answer.length(), BODY.len, "{what}: {}", answer.head);
    assert_eq!(answer.headers.get("last-modified").map(String::as_str), Some(DATE), "{what}");
}

/// After each of them the archive is as it was: at once, and for everybody.
async fn a_listing_stands(stage: &Stage, edge: &Edge, what: &str) {
    let path = format!("/{}", stage.name);
    for way in useless() {
        let what = format!("{what} {way:?}");
        *stage.way.lock().unwrap() = way;
        let head = edge.ask(Ask::head(&path)).await;
        assert_head(&head, &what);
        let conditional = Ask::head(&path).from(2).with("range", "bytes=5-");
        let conditional = conditional.with("if-range", "\"another\"");
        assert_head(&edge.ask(conditional).await, &what);
        let short = edge.get(SHORT).await;
        assert_eq!(short.header("location"), Some(&*path), "{what}");
        let part = edge.ask(Ask::get(&path).with("range", "bytes=7-9")).await;
        assert_eq!((part.status, &*part.body), (206, &*BODY.bytes(7, 10)), "{what}");
        assert_eq!(part.header("etag"), head.header("etag"), "{what}");
        assert_ne!(head.header("accept-ranges"), Some("none"), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_is_no_evidence_against_what_a_sidecar_lists() {
    let stage = Stage::sidecar().await;
    for sharing in ["", "exclusive", "shared"] {
        let directory = tempfile::tempdir().expect("a directory");
        let extra = if sharing.is_empty() { String::new() } else { cached(&directory, sharing) };
        let edge = stage.edge("sidecar", &extra).await;
        a_listing_stands(&stage, &edge, &format!("sidecar {sharing}")).await;
        let whole = edge.get(&format!("/{}", stage.name)).await;
        assert!(whole.status == 200 && whole.body == BODY.all(), "{sharing}: {}", whole.head);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_is_no_evidence_against_what_a_node_leads_to() {
    for way in useless() {
        let stage = Stage::node().await;
        *stage.way.lock().unwrap() = way.clone();
        let edge = stage.edge("rpc", "").await;
        let name = stage.name.parse().expect("a name");
        let view = edge.view();
        let sizes: Vec<_> = view.sources(&name).iter().map(|source| source.listed.size).collect();
        assert_eq!(sizes, [Some(BODY.len)], "{way:?}");
        assert_head(&edge.ask(Ask::head(format!("/{}", stage.name))).await, &format!("{way:?}"));
        let whole = edge.get(&format!("/{}", stage.name)).await;
        assert!(whole.status == 200 && whole.body == BODY.all(), "{way:?}: {}", whole.head);
    }
    let stage = Stage::node().await;
    let edge = stage.edge("rpc", "").await;
    a_listing_stands(&stage, &edge, "node").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sidecar_lists_since_is_found_although_its_heads_are_useless() {
    for way in useless() {
        let (name, said) = (full(1000), way.clone());
        // The one probe finds nothing.
        let hidden = Arc::new(Mutex::new(true));
        let (path, seen) = (format!("/v1/snapshot/{name}"), Arc::clone(&hidden));
        let listed = name.clone();
        let server = Server::script(move |request| match (request.path(), &*request.method) {
            ("/v1/snapshots", _) if *seen.lock().unwrap() => {
                Said::Answer("200 OK", vec![("content-length", "2".to_owned())], b"[]".to_vec())
            }
            ("/v1/snapshots", _) => listing(&listed, BODY.len, TIME),
            (asked, "HEAD") if asked == path => said.clone(),
            (asked, _) if asked == path => Said::archive(request, BODY, &[]),
            _ => Said::status("404 Not Found"),
        });
        let server = server.await;
        let edge = Edge::start(&once(server.address()));
        eventually("the probe is over", || async { server.heard("GET", "/v1/snapshots") > 0 })
            .await;
        *hidden.lock().unwrap() = false;
        let whole = edge.get(&format!("/{name}")).await;
        assert!(whole.status == 200 && whole.body == BODY.all(), "{way:?}: {}", whole.head);
    }
}

/// A sidecar that is probed once.
fn once(target: SocketAddr) -> String {
    let quick = QUICK.replace("scrape_interval: 100ms", "scrape_interval: 1h");
    let quick = quick.replace("probe_timeout: 1s", "probe_timeout: 1s, unknown_name_probe: 5s");
    format!(
        "{quick}target_groups:\n  \
         - {{group: a, kind: sidecar, static_targets: {{targets: ['{target}']}}}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_get_takes_an_archive_away() {
    for gone in ["404 Not Found", "410 Gone"] {
        let name = full(1000);
        let (path, listed) = (format!("/v1/snapshot/{name}"), name.clone());
        let server = Server::script(move |request| match request.path() {
            "/v1/snapshots" => listing(&listed, BODY.len, TIME),
            asked if asked == path => Said::status(gone),
            _ => Said::status("404 Not Found"),
        });
        let server = server.await;
        let edge = Edge::start(&once(server.address()));
        let parsed = name.parse().expect("a name");
        edge.sees("the archive", |view| !view.sources(&parsed).is_empty()).await;
        for _ in 0..3 {
            assert_head(&edge.ask(Ask::head(format!("/{name}"))).await, gone);
        }
        assert!(!edge.view().sources(&parsed).is_empty(), "{gone}");
        assert_eq!(edge.get(&format!("/{name}")).await.status, 404, "{gone}");
        edge.sees("it is gone", |view| view.sources(&parsed).is_empty()).await;
        assert_eq!(edge.ask(Ask::head(format!("/{name}"))).await.status, 404, "{gone}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_serves_ranges_without_saying_so_is_found_out() {
    let name = full(1000);
    let (path, listed) = (format!("/v1/snapshot/{name}"), name.clone());
    let server = Server::script(move |request| match request.path() {
        "/v1/snapshots" => listing(&listed, BODY.len, TIME),
        asked if asked == path => Said::archive(request, BODY, &[]),
        _ => Said::status("404 Not Found"),
    });
    let server = server.await;
    let edge = Edge::start(&once(server.address()));
    let parsed = name.parse().expect("a name");
    edge.sees("the archive", |view| !view.sources(&parsed).is_empty()).await;
    let path = format!("/{name}");
    let part = edge.ask(Ask::get(&path).with("range", "bytes=7-9")).await;
    assert_eq!((part.status, part.header("accept-ranges")), (206, Some("bytes")));
    for ask in [Ask::head(&path), Ask::get(&path)] {
        let whole = edge.ask(ask).await;
        assert_eq!((whole.status, whole.header("accept-ranges")), (200, Some("bytes")));
    }
}

/// In every mode, cold, growing and cached, before a program that serves ranges and one that does
/// not.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_head_says_of_ranges_is_what_a_range_then_gets() {
    let name = full(1000);
    let path = format!("/{name}");
    for program in [Program::Agave, Program::Sidecar, Program::FiredancerSnapshots] {
        for mode in ["", "exclusive", "shared", "local"] {
            let (what, directory) = (format!("{program:?} {mode}"), tempfile::tempdir().unwrap());
            let origin = Origin::run(program, &[(&name, BODY)]).await;
            let edge = match mode {
                "" => Edge::before(&[&origin]).await,
                "local" => {
                    std::fs::write(directory.path().join(&name), BODY.all()).expect("a file");
                    let text = format!(
                        "{QUICK}target_groups:\n  - {{group: a, ledger_targets: \
                         {{paths: ['{}']}}}}\n",
                        directory.path().display()
                    );
                    let edge = Edge::start(&text);
                    let parsed = name.parse().expect("a name");
                    edge.sees("the file", |view| !view.sources(&parsed).is_empty()).await;
                    edge
                }
                sharing => Edge::with(&cached(&directory, sharing), &[&origin]).await,
            };
            for turn in ["cold", "again", "after a GET"] {
                let head = edge.ask(Ask::head(&path)).await;
                let said = head.header("accept-ranges").expect("it is known").to_owned();
                let part = edge.ask(Ask::get(&path).with("range", "bytes=7-9")).await;
                let served = if part.status == 206 { "bytes" } else { "none" };
                assert_eq!(said, served, "{what} {turn}: {}", part.head);
                assert_eq!(head.header("etag"), part.header("etag"), "{what} {turn}");
                if mode == "shared" {
                    assert_eq!(part.status, 206, "{what} {turn}: {}", part.head);
                }
                if turn == "again" {
                    let whole = edge.get(&path).await;
                    assert!(whole.status == 200 && whole.body == BODY.all(), "{what}");
                    if !mode.is_empty() {
                        eventually("it is cached", || async {
                            let head = edge.ask(Ask::head(&path)).await;
                            let status = head.header("cache-status").unwrap_or_default();
                            status.starts_with("snapedge; hit")
                        })
                        .await;
                    }
                }
            }
        }
    }
}
