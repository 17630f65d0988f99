//! Slashes that mean nothing, before, within and after the path of everything that is served.

use super::support::body::Content;
use super::support::client::{Answer, Ask};
use super::support::edge::Edge;
use super::support::origin::{Origin, Program};
use super::support::{full, h2, incremental};

/// What is served under each path, `{full}` and `{new}` being the archives.
const PATHS: [&str; 9] = [
    "/snapshot.tar.bz2",
    "/incremental-snapshot.tar.zst",
    "/v1/snapshot.tar.zst",
    "/v1/incremental-snapshot.tar.bz2",
    "/{full}",
    "/v1/snapshot/{new}",
    "/v1/best_snapshots?max=2",
    "/v1/health",
    "/health",
];

/// The same path with slashes that mean nothing.
fn others(path: &str) -> Vec<String> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    let wide = path.replace('/', "//");
    [
        format!("/{path}"),
        format!("{path}/"),
        format!("{wide}//"),
        format!("{}{path}", "/".repeat(15)),
    ]
    .map(|path| format!("{path}{query}"))
    .into()
}

/// Without what tells of the moment.
fn essence(answer: &Answer) -> (u16, Vec<(String, String)>, Vec<u8>) {
    // The time of a probe is in JSON, in as many digits as it takes.
    let is_json = answer.header("content-type").is_some_and(|media| media.contains("json"));
    let moment = if is_json {
        &["date", "x-request-id", "content-length"][..]
    } else {
        &["date", "x-request-id"]
    };
    let headers = answer.headers.iter().filter(|(name, _)| !moment.contains(&name.as_str()));
    let headers = headers.map(|(name, value)| (name.clone(), value.clone())).collect();
    let body = if is_json { Vec::new() } else { answer.body.clone() };
    (answer.status, headers, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn slashes_that_mean_nothing_change_no_answer() {
    let (best, newest) = (full(1000), incremental(1000, 1500));
    let (content, other) = (Content::new(1, 7000), Content::new(2, 500));
    let archives = [(&*best, content), (&*newest, other)];
    let origin = Origin::run(Program::Sidecar, &archives).await;
    for mode in ["", "proxy_snapshot_downloads: false", "rpc_proxy: {enabled: true}"] {
        let edge = Edge::with(mode, &[&origin]).await;
        for path in PATHS {
            let path = path.replace("{full}", &best).replace("{new}", &newest);
            for ask in [Ask::get as fn(String) -> Ask, Ask::head] {
                let plain = edge.ask(ask(path.clone())).await;
                assert!(plain.status < 400, "{mode} {path}: {}", plain.head);
                for other in others(&path) {
                    let answer = edge.ask(ask(other.clone())).await;
                    assert_eq!(essence(&answer), essence(&plain), "{mode} {other}");
                }
            }
        }
        for path in [
            format!("/./{best}"),
            format!("//../{best}"),
            format!("//{best}/."),
            format!("/%2F{best}"),
            format!("/{best}%2F"),
            format!("/v1/snapshot//..//{best}"),
            format!("/v1//snapshots//{best}"),
            "//v1//".to_owned(),
            "//.//snapshot.tar.bz2".to_owned(),
        ] {
            assert_eq!(edge.get(&path).await.status, 404, "{mode} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slashes_that_mean_nothing_do_not_over_http_2_or_out_of_the_cache() {
    let name = full(1000);
    let content = Content::new(1, 7000);
    let origin = Origin::run(Program::Sidecar, &[(&name, content)]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let settings = format!(
        "server: {{h2c: true}}\nproxy_snapshot_cache_dir: '{}'\n\
         cache: {{min_free_space: 0B, verify: length}}",
        directory.path().display()
    );
    let edge = Edge::with(&settings, &[&origin]).await;
    for path in [format!("//{name}"), format!("/v1//snapshot/{name}/"), format!("//{name}//")] {
        assert_eq!(h2::get(edge.address, &path).await, content.len, "{path}");
        let answer = edge.ask(Ask::get(&path).with("range", "bytes=7-9")).await;
        assert_eq!((answer.status, answer.body), (206, content.bytes(7, 10)), "{path}");
    }
}

/// A node's JSON-RPC and its genesis archive, which a base URL with a slash asks for as well.
#[tokio::test(flavor = "multi_thread")]
async fn slashes_that_mean_nothing_do_not_before_a_node() {
    let node = Origin::run(Program::Agave, &[(&full(1000), Content::new(1, 100))]).await;
    let edge = Edge::with("rpc_proxy: {enabled: true}", &[&node]).await;
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"getHighestSnapshotSlot"}"#;
    for path in ["/", "//", "///"] {
        let answer = edge.ask(Ask::post(path, call)).await;
        assert!(String::from_utf8_lossy(&answer.body).contains("1000"), "{path}: {}", answer.head);
        assert_eq!(edge.get(path).await.status, 405, "{path}");
    }
    let plain = edge.get("/genesis.tar.bz2").await;
    assert_eq!(plain.status, 200);
    for path in ["//genesis.tar.bz2", "/genesis.tar.bz2/"] {
        assert_eq!(edge.get(path).await.body, plain.body, "{path}");
    }
}
