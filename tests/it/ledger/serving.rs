//! What a client gets of a directory's archives: every byte, every part, and no path.

use super::*;
use crate::support::{full, h2, incremental};

const FULL: Content = Content::framed(1, 300_000);
const INCREMENTAL: Content = Content::framed(2, 100_000);

/// A full archive with an incremental one on it.
async fn pair(settings: &str) -> (Shelf, Edge, String, String) {
    let (shelf, full, incremental) = (Shelf::new(), full(1000), incremental(1000, 1100));
    shelf.put(&full, FULL);
    shelf.put(&incremental, INCREMENTAL);
    let edge = edge(settings, &shelf, &[&full, &incremental]).await;
    (shelf, edge, full, incremental)
}

#[tokio::test(flavor = "multi_thread")]
async fn short_forms_lead_to_a_pair_that_is_served_byte_by_byte() {
    let (shelf, edge, full, incremental) = pair(QUICK).await;
    for (form, name, content) in [
        ("/snapshot.tar.bz2", &full, FULL),
        ("/incremental-snapshot.tar.bz2", &incremental, INCREMENTAL),
    ] {
        let to = edge.get(form).await;
        assert_eq!((to.status, to.header("location")), (303, Some(&*format!("/{name}"))));
        for path in [format!("/{name}"), format!("/v1/snapshot/{name}")] {
            let whole = edge.get(&path).await;
            assert_whole(&whole, content);
            assert_eq!(whole.header("content-type"), Some("application/zstd"));
            assert_eq!(whole.header("accept-ranges"), Some("bytes"));
            assert!(whole.header("last-modified").is_some(), "{}", whole.head);
            assert!(whole.head.len() < 4096);
            let head = edge.ask(Ask::head(&path)).await;
            assert_eq!((head.status, head.length()), (200, content.len));
            for header in ["etag", "last-modified", "content-type", "cache-status"] {
                assert_eq!(head.header(header), whole.header(header), "{header}");
            }
        }
    }
    // What goes with the name goes to the next listing; nobody reads by the path.
    assert_eq!(edge.get(&format!("/{}", shelf.path().display())).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_exact() {
    let (_shelf, edge, full, _) = pair(QUICK).await;
    for (range, start, end) in [
        ("bytes=0-", 0, 300_000),
        ("bytes=0-0", 0, 1),
        ("bytes=65535-65536", 65_535, 65_537),
        ("bytes=100000-", 100_000, 300_000),
        ("bytes=-5", 299_995, 300_000),
        ("bytes=5-999999999", 5, 300_000),
    ] {
        let part = edge.ask(get(&full).with("range", range)).await;
        assert_eq!((part.status, part.ended), (206, Ended::Whole), "{range}");
        let place = format!("bytes {start}-{}/300000", end - 1);
        assert_eq!(part.header("content-range"), Some(&*place), "{range}");
        assert!(part.body == FULL.bytes(start, end), "{range}");
    }
    let behind = edge.ask(get(&full).with("range", "bytes=300000-")).await;
    assert_eq!(behind.status, 416);
    assert_eq!(behind.header("content-range"), Some("bytes */300000"));

    let parts = edge.ask(get(&full).with("range", "bytes=0-9,200000-200009")).await;
    assert_eq!((parts.status, parts.ended), (206, Ended::Whole));
    let media = parts.header("content-type").expect("a type");
    let boundary = media.strip_prefix("multipart/byteranges; boundary=").expect("parts");
    let mut expected = Vec::new();
    for (start, end) in [(0, 10), (200_000, 200_010)] {
        let place = format!(
            "\r\n--{boundary}\r\nContent-Type: application/zstd\r\nContent-Range: bytes \
             {start}-{}/300000\r\n\r\n",
            end - 1
        );
        expected.extend(place.into_bytes());
        expected.extend(FULL.bytes(start, end));
    }
    expected.extend(format!("\r\n--{boundary}--\r\n").into_bytes());
    assert_eq!(
        String::from_utf8_lossy(&parts.body).to_lowercase(),
        String::from_utf8_lossy(&expected).to_lowercase()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_are_judged_by_the_copy() {
    let (_shelf, edge, full, _) = pair(QUICK).await;
    let known = edge.ask(head(&full)).await;
    let (tag, date) = (known.header("etag").expect("a tag"), known.header("last-modified"));
    let date = date.expect("a date");
    for (header, value, status) in [
        ("if-none-match", tag, 304),
        ("if-none-match", "\"x\"", 200),
        ("if-modified-since", date, 304),
        ("if-modified-since", "Mon, 21 Sep 2015 14:13:20 GMT", 200),
    ] {
        // A 304 has no body, whatever its length is said to be.
        let ask = get(&full).with(header, value).with("connection", "close");
        let (mut answer, mut stream) = ask.begin(edge.address).await;
        stream.read_to_end(&mut answer.body).await.expect("an end");
        assert_eq!(answer.status, status, "{header}: {value}");
        let length = if status == 304 { 0 } else { FULL.len };
        assert!(answer.body == FULL.bytes(0, length), "{header}: {value}");
    }
    let part = |tag: &str| get(&full).with("range", "bytes=7-").with("if-range", tag);
    let rest = edge.ask(part(tag)).await;
    assert_eq!((rest.status, rest.ended), (206, Ended::Whole));
    assert!(rest.body == FULL.bytes(7, FULL.len));
    for other in ["\"00000000000000000000000000000000\"", date] {
        assert_whole(&edge.ask(part(other)).await, FULL);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_gets_all_of_it_as_well() {
    let (_shelf, edge, full, _) = pair(&format!("{QUICK}server: {{h2c: true}}")).await;
    assert_eq!(h2::get(edge.address, &format!("/{full}")).await, FULL.len);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_shows_a_path() {
    let (shelf, edge, full, incremental) = pair(QUICK).await;
    let listing = edge.get("/v1/snapshots").await;
    let text = String::from_utf8(listing.body.clone()).expect("text");
    let elements: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let base = format!("http://{}", edge.address);
    let elements = elements.as_array().expect("an array");
    assert_eq!(elements.len(), 2, "{text}");
    for element in elements {
        assert_eq!(element["target"], base);
        for file in element["files"].as_array().expect("files") {
            let name = file["file_name"].as_str().expect("a name");
            assert_eq!(file["url"], format!("{base}/v1/snapshot/{name}"));
            let size = if name == full { FULL.len } else { INCREMENTAL.len };
            assert_eq!(file["size"], size);
            assert!(file["mod_time"].is_string(), "{text}");
        }
    }
    let directory = shelf.path().file_name().expect("a name").to_str().expect("text").to_owned();
    for path in [
        "/v1/snapshots".to_owned(),
        "/v1/best_snapshots?max=9".to_owned(),
        "/v1/health".to_owned(),
        "/health".to_owned(),
        "/snapshot.tar.bz2".to_owned(),
        format!("/{full}"),
        format!("/{incremental}"),
        format!("/{}", crate::support::full(7)),
        format!("/{directory}"),
    ] {
        let answer = edge.get(&path).await;
        let shown = format!("{}{}", answer.head, String::from_utf8_lossy(&answer.body));
        assert!(!shown.contains(&*shelf.path().to_string_lossy()), "{path}: {shown}");
        assert!(!shown.contains(&directory), "{path}: {shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_is_no_node() {
    let (_shelf, edge, ..) = pair(&format!("{QUICK}rpc_proxy: {{enabled: true}}")).await;
    let call = |method: &str| format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{method}\"}}");
    let answer = edge.ask(Ask::post("/", call("getSlot"))).await;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(text.contains("-32005"), "no node answers: {text}");
    assert_eq!(edge.get("/genesis.tar.bz2").await.status, 404);
    // What the short forms lead to is told.
    let highest = edge.ask(Ask::post("/", call("getHighestSnapshotSlot"))).await;
    let text = String::from_utf8_lossy(&highest.body).into_owned();
    assert!(text.contains("1000") && text.contains("1100"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_it_is_ever_cached() {
    for sharing in ["exclusive", "shared"] {
        let cache = tempfile::tempdir().expect("a directory");
        let settings = format!(
            "{QUICK}proxy_snapshot_cache_dir: '{}'\n\
             cache: {{sharing: {sharing}, min_free_space: 0B, verify: length}}",
            cache.path().display()
        );
        let (_shelf, edge, full, incremental) = pair(&settings).await;
        for ask in
            [get(&full), get(&incremental), get(&full).with("range", "bytes=5-"), head(&full)]
        {
            let answer = edge.ask(ask).await;
            assert_eq!(answer.header("cache-status"), Some(LENT), "{}", answer.head);
            assert_eq!(answer.ended, Ended::Whole);
        }
        let files: Vec<_> = cache
            .path()
            .read_dir()
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name())
            .filter(|name| name != "snapedge.lock" && name != "snapedge.secret")
            .collect();
        assert!(files.is_empty(), "{files:?}");
    }
}
