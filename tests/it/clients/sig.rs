//! Sig v2 of Syndica (`v2/components/snapshot/download.zig`, as of July 2026): HEAD of a name that
//! it learned by gossip, then GET from up to sixteen servers at once, of which the fastest is kept.

use std::net::SocketAddr;
use std::time::Duration;

use super::super::support::client::{Answer, Ended};
use super::super::support::origin::Program;
use super::super::support::{eventually, full};
use super::{
    Cache, FULL, INCREMENTAL, PROGRAMS, Stage, Wire, assert_archive, caching, full_name, new_name,
};

/// Of each operation on a socket.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The buffer for an answer's head.
const MAX_HEAD: usize = 4096;

/// No more than these three lines.
fn request(method: &str, name: &str, to: SocketAddr) -> String {
    format!("{method} /{name} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n")
}

/// The length of an answer that it takes; it looks for "200" in the status line, and no further.
#[track_caller]
fn accepted(answer: &Answer) -> u64 {
    assert!(answer.head.len() <= MAX_HEAD, "{} bytes", answer.head.len());
    let status = answer.head.split("\r\n").next().unwrap_or_default();
    assert!(status.contains("200"), "{status}");
    let length = answer.length();
    assert_ne!(length, 0, "{}", answer.head);
    length
}

#[tokio::test(flavor = "multi_thread")]
async fn sig_probes_and_downloads() {
    for stage in Stage::each(&PROGRAMS).await {
        let to = stage.edge.address;
        for (name, content) in [(full_name(), FULL), (new_name(), INCREMENTAL)] {
            let mut probe = stage.wire().await;
            let head = probe.ask(&request("HEAD", &name, to)).await;
            assert_eq!(accepted(&head), content.len, "{}", stage.what);
            assert!(probe.longest_wait < TIMEOUT);
            probe.ends().await;
            let mut wire = stage.wire().await;
            let answer = wire.ask(&request("GET", &name, to)).await;
            assert_eq!(accepted(&answer), content.len, "{}", stage.what);
            assert_archive(&answer, content, &stage.what);
            assert!(wire.longest_wait < TIMEOUT);
            wire.ends().await;
        }
        stage.assert_from_cache_where_warm();
    }
}

/// What it was told by gossip and is not there any more is refused at once.
#[tokio::test(flavor = "multi_thread")]
async fn sig_is_refused_what_is_not_there() {
    let stage = Stage::new(Program::Agave, Cache::Off).await;
    let mut wire = stage.wire().await;
    let answer = wire.ask(&request("HEAD", &full(999), stage.edge.address)).await;
    let status = answer.head.split("\r\n").next().unwrap_or_default();
    assert!(!status.contains("200"), "{status}");
    assert!((400..500).contains(&answer.status) && wire.longest_wait < TIMEOUT);
}

/// Fifteen of sixteen leave at a tenth, on purpose. The first of them may be the one whose bytes
/// were on their way into the cache.
#[tokio::test(flavor = "multi_thread")]
async fn a_race_of_sig_harms_nobody() {
    let directory = tempfile::tempdir().expect("a directory");
    for (sharing, more) in [("exclusive", ""), ("shared", ", sharing: shared")] {
        let disk = caching(&directory.path().join(sharing), more);
        let name = full_name();
        let stage = Stage::with(&disk, Program::Agave, Cache::Off, &[(&name, FULL)]).await;
        let to = stage.edge.address;
        let racers: Vec<_> = (1..=16)
            .map(|number| {
                let name = name.clone();
                tokio::spawn(async move {
                    let mut wire = Wire::from(number, to).await;
                    let mut answer = wire.begin(&request("GET", &name, to)).await;
                    assert_eq!(accepted(&answer), FULL.len);
                    let wanted = if number == 16 { FULL.len } else { FULL.len / 10 };
                    wire.read_to(&mut answer, wanted).await;
                    assert!(wire.longest_wait < TIMEOUT);
                    answer
                })
            })
            .collect();
        for racer in racers {
            let answer = racer.await.expect("no panic");
            assert_eq!(answer.ended, Ended::Whole, "as much as was wanted");
            assert!(FULL.matches(0, &answer.body), "{sharing}");
        }
        eventually("the archive is cached all the same", || async {
            let answer = stage.wire().await.ask(&request("GET", &name, to)).await;
            assert_archive(&answer, FULL, sharing);
            answer.header("cache-status") == Some("snapedge; hit")
        })
        .await;
    }
}
