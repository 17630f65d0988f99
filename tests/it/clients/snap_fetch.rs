//! snap-fetch of Pipe Network (`src/main.rs`, 2025): HEAD for the length, then parts of it, many at
//! once. Over HTTP/1.1 its bytes are those of reqwest with default features.

use std::net::SocketAddr;
use std::time::Duration;

use super::super::support::body::Content;
use super::super::support::client::{Answer, Ended};
use super::super::support::origin::Program;
use super::{Cache, Stage, Wire, full_name};

/// As many parts as are asked for at once.
const PARTS: u64 = 100;
const CONTENT: Content = Content::new(3, 2_000_050);
/// Tries for each part.
const MAX_RETRIES: u32 = 3;

fn request(method: &str, path: &str, range: Option<(u64, u64)>, to: SocketAddr) -> String {
    let range = range.map(|(start, end)| format!("range: bytes={start}-{}\r\n", end - 1));
    let range = range.unwrap_or_default();
    format!("{method} {path} HTTP/1.1\r\n{range}accept: */*\r\nhost: {to}\r\n\r\n")
}

/// 206 with as many bytes as were asked for is all that it takes.
fn takes(answer: &Answer, start: u64, end: u64) -> bool {
    answer.status == 206 && answer.ended == Ended::Whole && answer.body.len() as u64 == end - start
}

/// A part, tried again after a rest that doubles.
async fn part(path: String, start: u64, end: u64, to: SocketAddr) -> Vec<u8> {
    let mut refused = Vec::new();
    for attempt in 1..=MAX_RETRIES {
        let mut wire = Wire::to(to).await;
        let answer = wire.ask(&request("GET", &path, Some((start, end)), to)).await;
        if takes(&answer, start, end) {
            return answer.body;
        }
        assert_eq!(answer.status, 503, "nothing but too many at once: {}", answer.head);
        refused.push(answer.head);
        tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
    }
    panic!("it gives up: {refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn snap_fetch_gets_a_hundred_parts_at_once() {
    for (program, cache) in [
        (Program::Agave, Cache::Warm),
        (Program::Sidecar, Cache::Warm),
        (Program::Sidecar, Cache::Off),
        (Program::FiredancerSnapshots, Cache::Off),
    ] {
        let name = full_name();
        let other = super::new_name();
        let archives = [(&*name, CONTENT), (&*other, super::INCREMENTAL)];
        let stage = Stage::with("", program, cache, &archives).await;
        let to = stage.edge.address;
        let path = format!("/{name}");
        let head = stage.wire().await.ask(&request("HEAD", &path, None, to)).await;
        assert_eq!((head.status, head.length()), (200, CONTENT.len), "{}", stage.what);
        let size = CONTENT.len.div_ceil(PARTS);
        let parts: Vec<_> = (0..CONTENT.len)
            .step_by(size as usize)
            .map(|start| {
                let end = (start + size).min(CONTENT.len);
                tokio::spawn(part(path.clone(), start, end, to))
            })
            .collect();
        assert_eq!(parts.len() as u64, PARTS);
        let mut file = Vec::new();
        for part in parts {
            file.extend(part.await.expect("taken"));
        }
        assert!(file == CONTENT.all(), "{}", stage.what);
        stage.assert_from_cache_where_warm();
    }
}

/// Where the target knows no ranges and nothing is cached, it is told so by a 200, which it
/// refuses, and its `--no-range` works.
#[tokio::test(flavor = "multi_thread")]
async fn snap_fetch_is_never_given_a_part_that_is_none() {
    let stage = Stage::new(Program::Agave, Cache::Off).await;
    let to = stage.edge.address;
    let path = format!("/{}", full_name());
    let mut wire = stage.wire().await;
    let answer = wire.ask(&request("GET", &path, Some((1000, 2000)), to)).await;
    assert!(!takes(&answer, 1000, 2000));
    super::assert_archive(&answer, super::FULL, "to a range");
    let answer = wire.ask(&request("GET", &path, None, to)).await;
    super::assert_archive(&answer, super::FULL, "--no-range");
}
