//! Copies that fail their check, and what takes their place at the same target.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::super::support::body::Content;
use super::super::support::client::Ended;
use super::super::support::edge::{Edge, QUICK};
use super::super::support::eventually;
use super::super::support::full;
use super::super::support::scripted::{Said, Scripted};
use super::super::support::server::Server;

const WHOLE: Content = Content::framed(1, 300_000);
/// The first bytes of the same, as `cp` leaves them for a while.
const HALF: Content = Content { len: 150_000, ..WHOLE };
const SHORT: &str = "/snapshot.tar.bz2";
/// Longer than anything that does not wait takes on a busy machine, and shorter than what does.
const SOON: Duration = Duration::from_millis(2500);

/// One file after the other under one name.
#[derive(Clone, Copy, Debug)]
struct File {
    content: Content,
    /// Bytes as they are listed, where they are.
    size: Option<u64>,
    /// When it changed, as it is listed.
    time: &'static str,
    /// Its tag.
    tag: &'static str,
}

const FILE: File =
    File { content: WHOLE, size: Some(WHOLE.len), time: "2026-09-21T14:13:20.5Z", tag: "\"a\"" };

/// As long as [`WHOLE`], and cut off.
fn cut() -> Content {
    Content { len: WHOLE.len, ..Content::framed(1, 400_000) }
}

async fn target(kind: &str, name: &str, file: &Arc<Mutex<File>>) -> Server<Scripted> {
    let (name, file, is_node) = (name.to_owned(), Arc::clone(file), kind == "rpc");
    Server::script(move |request| {
        let File { content, size, time, tag } = *file.lock().unwrap();
        match request.path() {
            "/v1/snapshots" if !is_node => {
                let file = serde_json::json!(
                    { "file_name": name, "size": size, "mod_time": time });
                let body = serde_json::json!([{ "files": [file] }]).to_string();
                let headers = vec![("content-length", body.len().to_string())];
                Said::Answer("200 OK", headers, body.into_bytes())
            }
            SHORT if is_node => {
                let to = format!("/{name}");
                Said::with("303 See Other", &[("location", &to), ("content-length", "0")])
            }
            path if path.ends_with(&name) && is_node => {
                Said::archive(request, content, &[("etag", tag)])
            }
            path if path.ends_with(&name) => Said::archive(request, content, &[]),
            _ => Said::status("404 Not Found"),
        }
    })
    .await
}

/// Each of these in turn is found out, and the whole file that comes after them is served at once.
async fn check(kind: &str, sharing: &str, bad: &[File], good: File) {
    let what = format!("{kind} {sharing} {bad:?}");
    let (name, directory) = (full(1000), tempfile::tempdir().expect("a directory"));
    let file = Arc::new(Mutex::new(bad[0]));
    let server = target(kind, &name, &file).await;
    let quick = QUICK.replace("probe_timeout: 1s", "probe_timeout: 1s, unknown_name_probe: 5s");
    let edge = Edge::start(&format!(
        "{quick}proxy_snapshot_cache_dir: '{}'\ncache: {{sharing: {sharing}, min_free_space: 0B}}\n\
         target_groups:\n  - {{group: a, kind: {kind}, static_targets: {{targets: ['{}']}}}}\n",
        directory.path().display(),
        server.address()
    ));
    let (parsed, path) = (name.parse().expect("a name"), format!("/{name}"));
    let leads = || async { edge.get(SHORT).await.header("location") == Some(&*path) };
    for bad in bad {
        *file.lock().unwrap() = *bad;
        eventually("it is offered", leads).await;
        // Whoever asks for the first one has it fetched; what he gets of it is another matter.
        eventually("it is found out", || async {
            let view = edge.view();
            let is_gone = view.sources(&parsed).is_empty();
            if !is_gone {
                edge.get(&path).await;
            }
            is_gone
        })
        .await;
        let start = Instant::now();
        assert_eq!(edge.get(&path).await.status, 404, "{what}");
        assert!(start.elapsed() < SOON, "{what}: {:?}", start.elapsed());
        assert_eq!(edge.get(SHORT).await.status, 404, "{what}");
    }
    *file.lock().unwrap() = good;
    eventually("the next copy is offered", leads).await;
    let answer = edge.get(&path).await;
    assert_eq!((answer.status, answer.ended), (200, Ended::Whole), "{what}: {}", answer.head);
    assert!(answer.body == WHOLE.all(), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn distrust_is_of_a_copy_and_another_length_time_or_tag_is_another_copy() {
    let cut = cut();
    for sharing in ["exclusive", "shared"] {
        // Listed while it is copied in, and whole a moment later.
        let half = File { content: HALF, size: Some(HALF.len), ..FILE };
        check("sidecar", sharing, &[half], FILE).await;
        check("rpc", sharing, &[half], FILE).await;
        // As long as before.
        let earlier = File { content: cut, time: "2026-09-21T14:13:20.4Z", ..FILE };
        check("sidecar", sharing, &[earlier], FILE).await;
        check("rpc", sharing, &[File { content: cut, tag: "\"b\"", ..FILE }], FILE).await;
        // Without a length in the listing.
        let (bad, good) = (File { size: None, ..earlier }, File { size: None, ..FILE });
        check("sidecar", sharing, &[bad], good).await;
        // Bad again.
        check("sidecar", sharing, &[half, earlier], FILE).await;
    }
}
