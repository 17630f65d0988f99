//! The snapshot finders in Go: maestroi's (as of August 2026), and Overclock's, which mithril has
//! inside it. They speak HTTP with `net/http`, whose bytes were recorded from Go 1.26.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::super::support::client::{Answer, Ended};
use super::super::support::eventually;
use super::super::support::origin::Program;
use super::{
    Cache, FULL, INCREMENTAL, PROGRAMS, SHORT_FULL, SHORT_INCREMENTAL, Stage, Wire, ZSTD_FORMS,
    assert_archive, assert_part, assert_untouched, full_name, location, new_name,
};

/// A file that is smaller is none to maestroi's.
const SMALLEST: u64 = 1 << 20;
/// Overclock's, for a connection and the head of an answer together.
const PROBE_TIMEOUT: Duration = Duration::from_millis(600);
/// What an answer may take here where a program wants it in [`PROBE_TIMEOUT`]: this machine may be
/// busy with other tests. That nobody upstream is asked is what makes it hold.
const GENEROUS: Duration = Duration::from_secs(2);

/// What `net/http` sends. After a redirect it names where it comes from; it says that it takes gzip
/// unless it asks for a range, or for the head alone.
struct GoRequest<'a> {
    method: &'a str,
    path: &'a str,
    range: Option<&'a str>,
    /// Path that redirected here.
    from: Option<&'a str>,
}

impl GoRequest<'_> {
    fn bytes(&self, to: SocketAddr) -> String {
        let Self { method, path, range, from } = self;
        let mut text =
            format!("{method} {path} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: Go-http-client/1.1\r\n");
        if let Some(range) = range {
            text.push_str(&format!("Range: {range}\r\n"));
        }
        if let Some(from) = from {
            text.push_str(&format!("Referer: http://{to}{from}\r\n"));
        }
        if *method == "GET" && range.is_none() {
            text.push_str("Accept-Encoding: gzip\r\n");
        }
        text + "\r\n"
    }
}

/// Follows redirects on the same connection, as `http.Client` does; the path of the last answer is
/// what it calls its URL.
async fn follow(
    wire: &mut Wire,
    to: SocketAddr,
    method: &str,
    path: &str,
    range: Option<&str>,
) -> (Answer, String) {
    let first = GoRequest { method, path, range, from: None };
    let answer = wire.ask(&first.bytes(to)).await;
    if !(300..400).contains(&answer.status) {
        return (answer, path.to_owned());
    }
    let next = location(&answer);
    let second = GoRequest { method, path: &next, range, from: Some(path) };
    let answer = wire.ask(&second.bytes(to)).await;
    (answer, next)
}

/// `^…-<slots>-<hash>\.tar\.(zst|bz2)$`, and the name is what stands behind the last slash.
#[track_caller]
fn assert_named(url: &str, name: &str) {
    assert_eq!(url.rsplit('/').next(), Some(name));
    assert!(name.ends_with(".tar.zst") || name.ends_with(".tar.bz2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn maestroi_checks_tests_and_downloads() {
    for stage in Stage::each(&PROGRAMS).await {
        let to = stage.edge.address;
        let mut wire = stage.wire().await;
        let ask = GoRequest { method: "GET", path: "/health", range: None, from: None };
        let health = wire.ask(&ask.bytes(to)).await;
        assert_eq!((health.status, &*health.body), (200, &b"ok"[..]), "{}", stage.what);
        assert_untouched(&health);
        // HEAD of both spellings, the end of the chain must be a 200.
        for form in [SHORT_FULL, ZSTD_FORMS[0], ZSTD_FORMS[1], SHORT_INCREMENTAL] {
            let (name, content) = if form.contains("incremental") {
                (new_name(), INCREMENTAL)
            } else {
                (full_name(), FULL)
            };
            let (answer, url) = follow(&mut wire, to, "HEAD", form, None).await;
            assert_eq!((answer.status, answer.length()), (200, content.len), "{}", stage.what);
            assert_untouched(&answer);
            assert_named(&url, &name);
        }
        // The speed test wants a part, and where it gets none it tries without.
        let whole_megabytes = Some("bytes=0-268435455");
        let (answer, _) = follow(&mut wire, to, "GET", SHORT_FULL, whole_megabytes).await;
        if stage.has_ranges() {
            assert_part(&answer, 0, FULL.len, FULL.len);
            assert!(answer.body == FULL.all(), "{}", stage.what);
        } else {
            assert_archive(&answer, FULL, &stage.what);
        }
        for (form, name, content) in
            [(SHORT_FULL, full_name(), FULL), (SHORT_INCREMENTAL, new_name(), INCREMENTAL)]
        {
            let (answer, url) = follow(&mut wire, to, "GET", form, None).await;
            // What it is called: by `content-disposition`, which is not there, or by its URL.
            assert_archive(&answer, content, &stage.what);
            assert_named(&url, &name);
        }
        const { assert!(FULL.len >= SMALLEST) };
        stage.assert_from_cache_where_warm();
    }
}

/// What it asks an RPC node for besides: where the archives are, which must be what is offered.
#[tokio::test(flavor = "multi_thread")]
async fn maestroi_is_told_the_slots_that_are_offered() {
    let names = [full_name(), new_name()];
    let archives = [(&*names[0], FULL), (&*names[1], INCREMENTAL)];
    let more = "rpc_proxy: {enabled: true}";
    let stage = Stage::with(more, Program::Agave, Cache::Off, &archives).await;
    let to = stage.edge.address;
    let mut wire = stage.wire().await;
    for (method, expected) in [
        ("getHighestSnapshotSlot", serde_json::json!({ "full": 1000, "incremental": 1500 })),
        ("getSlot", serde_json::json!(1010)),
    ] {
        let body = format!(r#"{{"id":1,"jsonrpc":"2.0","method":"{method}","params":[]}}"#);
        let request = format!(
            "POST / HTTP/1.1\r\nHost: {to}\r\nUser-Agent: Go-http-client/1.1\r\n\
             Content-Length: {}\r\nContent-Type: application/json\r\n\
             Accept-Encoding: gzip\r\n\r\n{body}",
            body.len()
        );
        eventually("a node answers", || async {
            let answer = stage.wire().await.ask(&request).await;
            answer.status == 200 && String::from_utf8_lossy(&answer.body).contains("result")
        })
        .await;
        let answer = wire.ask(&request).await;
        assert_eq!((answer.status, answer.ended), (200, Ended::Whole), "{method}");
        assert_untouched(&answer);
        let answer: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!((&answer["result"], &answer["id"]), (&expected, &serde_json::json!(1)));
    }
}

/// Overclock's follows nothing, and asks for `.tar.zst` first. A 200 is a mistake to it, and so is
/// a redirect for a form that is no archive's.
#[tokio::test(flavor = "multi_thread")]
async fn overclock_wants_redirects_and_nothing_else() {
    const { assert!(PROBE_TIMEOUT.as_millis() < GENEROUS.as_millis()) };
    for stage in Stage::each(&PROGRAMS).await {
        let to = stage.edge.address;
        for (kind, name, content) in
            [("", full_name(), FULL), ("incremental-", new_name(), INCREMENTAL)]
        {
            for extension in ["tar.zst", "tar.bz2", "tar.gz", "tar.xz"] {
                let path = format!("/{kind}snapshot.{extension}");
                let asked = Instant::now();
                let ask = GoRequest { method: "HEAD", path: &path, range: None, from: None };
                let answer = stage.wire().await.ask(&ask.bytes(to)).await;
                assert!(asked.elapsed() < GENEROUS, "{path}: {:?}", asked.elapsed());
                if ["tar.zst", "tar.bz2"].contains(&extension) {
                    assert_eq!(location(&answer), format!("/{name}"), "{}", stage.what);
                } else {
                    assert!((400..500).contains(&answer.status), "{path}: {}", answer.head);
                }
            }
            if kind.is_empty() {
                stage.assert_from_memory();
            }
            // A sample of the speed, and then all of it, by name.
            let path = format!("/{name}");
            let mut wire = stage.wire().await;
            let sample = Some("bytes=0-9999");
            let ask = GoRequest { method: "GET", path: &path, range: sample, from: None };
            let answer = wire.ask(&ask.bytes(to)).await;
            if stage.has_ranges() {
                assert_part(&answer, 0, 10_000, content.len);
            } else {
                assert_eq!(answer.status, 200, "{}", stage.what);
            }
            assert!(content.matches(0, &answer.body), "{}", stage.what);
            let ask = GoRequest { method: "GET", path: &path, range: None, from: None };
            assert_archive(&wire.ask(&ask.bytes(to)).await, content, &stage.what);
        }
        stage.assert_from_cache_where_warm();
    }
}
