//! The snapshot finders in Python: c29r3's with its many forks (`snapshot-finder.py`, 0.2.6 and
//! 0.4), and 1dad-io's (0.4.0, and the versions that download by themselves). They speak HTTP with
//! `requests`, whose bytes were recorded from version 2.34.2.

use std::net::SocketAddr;
use std::time::Duration;

use super::super::support::client::{Answer, Ended};
use super::super::support::origin::Program;
use super::{
    Cache, FULL, INCREMENTAL, PROGRAMS, SHORT_FULL, SHORT_INCREMENTAL, Stage, Wire, assert_archive,
    caching, full_name, location, new_name, wget,
};

/// Of a HEAD. The limit on what it took is 40 to 100 ms on an idle machine, which this is none:
/// that nobody upstream is asked is what makes it hold.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Of each read of a download.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

fn head(path: &str, to: SocketAddr) -> String {
    format!(
        "HEAD {path} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: python-requests/2.34.2\r\n\
         Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\n\
         Content-Type: application/json\r\n\r\n"
    )
}

fn get(path: &str, to: SocketAddr) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: python-requests/2.34.2\r\n\
         Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n"
    )
}

/// HEAD on a short name; every request of these programs has a connection of its own.
async fn probe(form: &str, to: SocketAddr) -> Answer {
    let mut wire = Wire::to(to).await;
    let answer = wire.ask(&head(form, to)).await;
    assert!(wire.longest_wait < TIMEOUT, "{form}: {:?}", wire.longest_wait);
    answer
}

/// c29r3's test is `'location' in str(r.headers)`: the header's name as it came, in lower case.
/// Then it splits at every dash and takes what is where it expects the slots.
#[track_caller]
fn split_at_dashes(answer: &Answer) -> Vec<String> {
    let names: Vec<&str> =
        answer.head.split("\r\n").filter_map(|line| line.split(':').next()).collect();
    assert!(names.contains(&"location"), "in lower case: {}", answer.head);
    let location = location(answer);
    assert!(location.starts_with('/'), "it is put behind `http://ip:port`: {location}");
    assert!(!location.ends_with("tar") && !location.contains(['?', '#']), "{location}");
    location.split('-').map(str::to_owned).collect()
}

#[track_caller]
fn slot(parts: &[String], at: usize) -> u64 {
    parts.get(at).and_then(|part| part.parse().ok()).unwrap_or_else(|| panic!("{at} of {parts:?}"))
}

/// `requests.get` follows redirects on the same connection. It reads for some seconds, and leaves.
async fn test_speed(to: SocketAddr, bytes: u64) -> Answer {
    let mut wire = Wire::to(to).await;
    let first = wire.ask(&get(SHORT_FULL, to)).await;
    let mut answer = wire.begin(&get(&location(&first), to)).await;
    assert!(answer.status < 400, "{}", answer.head);
    wire.read_to(&mut answer, bytes).await;
    assert_eq!(answer.ended, Ended::Whole, "as much as was read");
    assert!(wire.longest_wait < READ_TIMEOUT);
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn c29r3_finds_tests_and_downloads() {
    for stage in Stage::each(&PROGRAMS).await {
        let to = stage.edge.address;
        let incremental = probe(SHORT_INCREMENTAL, to).await;
        let parts = split_at_dashes(&incremental);
        assert_eq!((slot(&parts, 2), slot(&parts, 3)), (1000, 1500), "{}", stage.what);
        let full = probe(SHORT_FULL, to).await;
        assert_eq!(slot(&split_at_dashes(&full), 1), 1000, "{}", stage.what);
        stage.assert_from_memory();

        for _ in 0..3 {
            let sample = test_speed(to, FULL.len / 3).await;
            assert!(FULL.matches(0, &sample.body), "{}", stage.what);
        }
        // By the name that it was led to, with wget, whose exit code it does not look at: what came
        // is renamed to the archive's name, whatever it is. Reversed, so that the full one is
        // first.
        for (probe, content) in [(&full, FULL), (&incremental, INCREMENTAL)] {
            let mut wire = stage.wire().await;
            let answer = wire.ask(&wget::get(&location(probe), to, None)).await;
            assert_archive(&answer, content, &stage.what);
        }
        // As 0.2.6 does, by the short name and under the name of before.
        let mut wire = stage.wire().await;
        let first = wire.ask(&get(SHORT_INCREMENTAL, to)).await;
        assert_eq!(location(&first), location(&incremental));
        let answer = wire.ask(&get(&location(&first), to)).await;
        assert_archive(&answer, INCREMENTAL, &stage.what);
        stage.assert_from_cache_where_warm();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c29r3_is_told_when_there_is_nothing() {
    let name = full_name();
    let stage = Stage::with("", Program::Agave, Cache::Off, &[(&name, FULL)]).await;
    let answer = probe(SHORT_INCREMENTAL, stage.edge.address).await;
    assert_eq!(answer.status, 404);
    assert!(!answer.head.contains("location"), "{}", answer.head);
    stage.assert_from_memory();
}

/// Speed tests that begin the transfer into the cache and leave it, fifteen in a row.
#[tokio::test(flavor = "multi_thread")]
async fn speed_tests_leave_nothing_broken() {
    let directory = tempfile::tempdir().expect("a directory");
    for (sharing, more) in [("exclusive", ""), ("shared", ", sharing: shared")] {
        let disk = caching(&directory.path().join(sharing), more);
        let name = full_name();
        let stage = Stage::with(&disk, Program::Sidecar, Cache::Off, &[(&name, FULL)]).await;
        let to = stage.edge.address;
        for round in 1..=15 {
            let sample = test_speed(to, round * 1000).await;
            assert!(FULL.matches(0, &sample.body), "{sharing}");
        }
        let mut wire = stage.wire().await;
        let answer = wire.ask(&wget::get(&format!("/{name}"), to, None)).await;
        assert_archive(&answer, FULL, sharing);
    }
}

/// 1dad-io takes the name from the path of the location, whatever its case, and looks whether it is
/// still there before it begins.
#[tokio::test(flavor = "multi_thread")]
async fn one_dad_finds_checks_and_downloads() {
    for stage in Stage::each(&PROGRAMS).await {
        let to = stage.edge.address;
        let incremental = probe(SHORT_INCREMENTAL, to).await;
        let full = probe(SHORT_FULL, to).await;
        stage.assert_from_memory();
        for (answer, name) in [(&full, full_name()), (&incremental, new_name())] {
            let location = location(answer);
            assert_eq!(location.rsplit('/').next(), Some(&*name), "{}", stage.what);
            // `http://{address}{location}`.
            assert_eq!(location, format!("/{name}"));
        }
        let sample = test_speed(to, FULL.len / 2).await;
        assert!(FULL.matches(0, &sample.body), "{}", stage.what);
        for (name, content) in [(full_name(), FULL), (new_name(), INCREMENTAL)] {
            let path = format!("/{name}");
            let still_there = stage.wire().await.ask(&head(&path, to)).await;
            assert!(still_there.status < 400, "{}", still_there.head);
            assert_eq!(still_there.status, 200, "it follows nothing here");
            assert_eq!(still_there.length(), content.len);
            let mut wire = stage.wire().await;
            let answer = wire.ask(&get(&path, to)).await;
            assert_archive(&answer, content, &stage.what);
            assert!(wire.longest_wait < READ_TIMEOUT, "{}", stage.what);
        }
        stage.assert_from_cache_where_warm();
    }
}
