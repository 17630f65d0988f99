//! `solana-cluster fetch` and the tracker that scrapes sidecars (rpcpool/solana-cluster, branch
//! triton, December 2024): `internal/cmd/fetch`, `internal/fetch`, `internal/scraper`. They ask for
//! JSON with resty v1.12 and for archives with `net/http` of Go 1.26, both recorded.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use super::super::support::client::Answer;
use super::super::support::origin::Program;
use super::{
    Cache, FULL, INCREMENTAL, PROGRAMS, SHORT_FULL, SHORT_INCREMENTAL, Stage, Wire, assert_archive,
    full_name, location, new_name,
};

/// `--request-timeout`: for the head of each answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

fn ask_json(path: &str, to: SocketAddr) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {to}\r\n\
         User-Agent: go-resty/1.12.0 (https://github.com/go-resty/resty)\r\n\
         Accept: application/json\r\nAccept-Encoding: gzip\r\n\r\n"
    )
}

fn ask_archive(path: &str, to: SocketAddr) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: Go-http-client/1.1\r\n\
         Accept-Encoding: gzip\r\n\r\n"
    )
}

/// resty reads JSON into what it was given only where the type says that it is JSON.
async fn sources(wire: &mut Wire, path: &str, to: SocketAddr) -> Vec<Value> {
    let answer = wire.ask(&ask_json(path, to)).await;
    assert_eq!(answer.status, 200, "{}", answer.head);
    assert!(wire.longest_wait < REQUEST_TIMEOUT);
    let media = answer.header("content-type").expect("a type");
    assert!(media.starts_with("application/json"), "{media}");
    serde_json::from_slice(&answer.body).expect("an array of JSON")
}

/// The archives of an element, the base of each as Go reads it (0 where it is left out).
fn files(source: &Value) -> Vec<(String, u64)> {
    let files = source["files"].as_array().expect("files");
    let base = |file: &Value| file.get("base_slot").map_or(0, |base| base.as_u64().expect("u64"));
    let name = |file: &Value| file["file_name"].as_str().expect("a name").to_owned();
    files.iter().map(|file| (name(file), base(file))).collect()
}

/// `DownloadSnapshotFile`: exactly 200, a known length, and a time that `http.TimeFormat` reads,
/// where there is one.
async fn download(target: String, name: String) -> Answer {
    // What resty's host URL is put before; the scheme must be there and no slash at the end.
    let authority = target.strip_prefix("http://").expect("a scheme");
    let to: SocketAddr = authority.parse().expect("host and port and nothing else");
    let mut wire = Wire::to(to).await;
    let mut answer = wire.begin(&ask_archive(&format!("/v1/snapshot/{name}"), to)).await;
    assert!(wire.longest_wait < REQUEST_TIMEOUT);
    assert_eq!(answer.status, 200, "{}", answer.head);
    if let Some(time) = answer.header("last-modified") {
        httpdate::parse_http_date(time).expect("a time");
    }
    wire.finish(&mut answer).await;
    answer
}

/// The full archive, then the newest incremental one on it, as `fetch` does since it can take long.
#[tokio::test(flavor = "multi_thread")]
async fn fetch_gets_a_pair_by_way_of_the_tracker_api() {
    for stage in Stage::each(&PROGRAMS).await {
        let to = stage.edge.address;
        let mut wire = stage.wire().await;
        let found = sources(&mut wire, "/v1/best_snapshots?group=a&max=-1", to).await;
        let best = found.first().expect("a best one");
        assert_eq!((&best["slot"], &best["base_slot"]), (&1500.into(), &1000.into()));
        assert_eq!(files(best), [(new_name(), 1000), (full_name(), 0)], "{}", stage.what);
        let target = best["target"].as_str().expect("a target").to_owned();
        stage.assert_from_memory();
        for (name, _) in files(best).into_iter().filter(|(_, base)| *base == 0) {
            let answer = download(target.clone(), name).await;
            assert_archive(&answer, FULL, &stage.what);
            // Of a target that told it, from the target and from the cache.
            let told = stage.what.starts_with("Sidecar").then_some("Mon, 21 Sep 2026 14:13:20 GMT");
            assert_eq!(answer.header("last-modified"), told, "{}", stage.what);
        }
        let path = "/v1/snapshots?group=a&slot=1000";
        let on_it = sources(&mut wire, path, to).await.remove(0);
        for (name, _) in files(&on_it).into_iter().filter(|(_, base)| *base != 0) {
            assert_archive(&download(target.clone(), name).await, INCREMENTAL, &stage.what);
        }
        stage.assert_from_cache_where_warm();
    }
}

/// The versions before that download all files of the chain side by side.
#[tokio::test(flavor = "multi_thread")]
async fn fetch_gets_all_files_of_a_chain_at_once() {
    for stage in Stage::each(&[Program::Agave, Program::Sidecar]).await {
        let to = stage.edge.address;
        let path = "/v1/best_snapshots?group=a&max=-1";
        let best = sources(&mut stage.wire().await, path, to).await.remove(0);
        let target = best["target"].as_str().expect("a target").to_owned();
        let downloads: Vec<_> = files(&best)
            .into_iter()
            .map(|(name, base)| (base, tokio::spawn(download(target.clone(), name))))
            .collect();
        assert_eq!(downloads.len(), 2);
        for (base, answer) in downloads {
            let content = if base == 0 { FULL } else { INCREMENTAL };
            assert_archive(&answer.await.expect("no panic"), content, &stage.what);
        }
        stage.assert_from_cache_where_warm();
    }
}

/// A tracker that has this edge among its sidecars: the list, and archives under the names in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_tracker_scrapes_an_edge_as_a_sidecar() {
    for stage in Stage::each(&PROGRAMS).await {
        let to = stage.edge.address;
        let mut wire = stage.wire().await;
        for _ in 0..3 {
            let infos = sources(&mut wire, "/v1/snapshots", to).await;
            let slots: Vec<(&Value, &Value)> =
                infos.iter().map(|info| (&info["slot"], &info["base_slot"])).collect();
            let expected = [(1500.into(), 1000.into()), (1000.into(), 1000.into())];
            assert_eq!(
                slots,
                expected.each_ref().map(|(slot, base): &(Value, Value)| (slot, base))
            );
            for file in infos.iter().flat_map(|info| info["files"].as_array().expect("files")) {
                assert_eq!(file["ext"], ".tar.zst", "with the dot");
                assert!(file["hash"].as_str().is_some_and(|hash| hash.len() >= 32));
                assert!(file["size"].as_u64().is_some(), "{file}");
            }
        }
        stage.assert_from_memory();
    }
}

/// Targets that it was given as URLs it asks as a finder does, and follows nothing: `headSnapshot`
/// of `internal/scraper/prober.go`.
#[tokio::test(flavor = "multi_thread")]
async fn a_tracker_probes_an_edge_as_a_node() {
    for stage in Stage::each(&PROGRAMS).await {
        let to = stage.edge.address;
        let mut wire = stage.wire().await;
        for (form, name) in [(SHORT_FULL, full_name()), (SHORT_INCREMENTAL, new_name())] {
            let request = format!(
                "HEAD {form} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: Go-http-client/1.1\r\n\r\n"
            );
            let answer = wire.ask(&request).await;
            assert_eq!(location(&answer), format!("/{name}"), "{}", stage.what);
        }
        stage.assert_from_memory();
    }
}

/// Where there is nothing, an empty list: `null` and an error are another thing to Go.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_group_is_an_empty_list() {
    let stage = Stage::new(Program::Sidecar, Cache::Off).await;
    let to = stage.edge.address;
    let mut wire = stage.wire().await;
    for path in ["/v1/best_snapshots?group=b&max=-1", "/v1/snapshots?group=b&slot=1000"] {
        let answer = wire.ask(&ask_json(path, to)).await;
        assert_eq!((answer.status, &*answer.body), (200, &b"[]"[..]), "{path}");
    }
}
