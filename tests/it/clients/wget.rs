//! wget, with and without `--continue`: its bytes were recorded from 1.21.3, what it does with an
//! answer is in its `src/http.c`.
//!
//! After a body that broke off it asks for the rest, on a new connection and without `if-range`. To
//! a 200 it skips what it has and takes the rest, without a look at whether both are of one copy.

use std::net::SocketAddr;

use super::super::support::body::Content;
use super::super::support::client::{Answer, Ended};
use super::super::support::edge::Edge;
use super::super::support::origin::{Fault, Origin, Program};
use super::{
    Cache, FULL, INCREMENTAL, PROGRAMS, SHORT_FULL, SHORT_INCREMENTAL, Stage, Wire, assert_archive,
    assert_part, full_name, location, new_name, probed_once,
};

/// `wget [--continue] http://to/path`; `from` is how much of the file it has.
pub fn get(path: &str, to: SocketAddr, from: Option<u64>) -> String {
    let range = from.map(|from| format!("Range: bytes={from}-\r\n")).unwrap_or_default();
    format!(
        "GET {path} HTTP/1.1\r\nHost: {to}\r\n{range}User-Agent: Wget/1.21.3\r\nAccept: */*\r\n\
         Accept-Encoding: identity\r\nConnection: Keep-Alive\r\n\r\n"
    )
}

/// What it has after it asked for the rest, as it judges; `None` where it gives up or tries again.
fn resume(mut file: Vec<u8>, answer: &Answer) -> Option<Vec<u8>> {
    let have = file.len() as u64;
    match answer.status {
        206 => {
            let place = answer.header("content-range").expect("a place");
            let start = place.strip_prefix("bytes ").and_then(|place| place.split('-').next());
            assert_eq!(start.and_then(|start| start.parse().ok()), Some(have), "{place}");
            file.extend(&answer.body);
        }
        // "The file is already fully retrieved."
        416 => {}
        200 if answer.length() <= have => {}
        200 => file.extend(&answer.body[file.len()..]),
        _ => return None,
    }
    Some(file)
}

/// The short name, and what it leads to on the same connection. The name of the file is the last
/// part of the final URL (`--trust-server-names`), with what would stand behind a question mark.
async fn follow(wire: &mut Wire, form: &str, to: SocketAddr) -> (Answer, String) {
    let first = wire.ask(&get(form, to, None)).await;
    let path = location(&first);
    assert!(path.starts_with('/') && !path.contains('?'), "{path}");
    (wire.begin(&get(&path, to, None)).await, path)
}

#[tokio::test(flavor = "multi_thread")]
async fn wget_follows_and_saves_under_the_archives_name() {
    for stage in Stage::each(&PROGRAMS).await {
        let to = stage.edge.address;
        for (form, name, content) in
            [(SHORT_FULL, full_name(), FULL), (SHORT_INCREMENTAL, new_name(), INCREMENTAL)]
        {
            let mut wire = stage.wire().await;
            let (mut answer, path) = follow(&mut wire, form, to).await;
            wire.finish(&mut answer).await;
            assert_archive(&answer, content, &stage.what);
            assert_eq!(path.rsplit('/').next(), Some(&*name));
        }
        stage.assert_from_cache_where_warm();
    }
}

/// The target breaks off, and so does the body; the client's next connection gets the rest.
#[tokio::test(flavor = "multi_thread")]
async fn wget_goes_on_where_a_body_broke_off() {
    for program in PROGRAMS {
        let stage = Stage::new(program, Cache::Off).await;
        let to = stage.edge.address;
        stage.origin.fail(Fault::CloseOnceAfter(FULL.len / 2));
        let mut wire = stage.wire().await;
        let (mut answer, path) = follow(&mut wire, SHORT_FULL, to).await;
        wire.finish(&mut answer).await;
        assert_eq!(answer.ended, Ended::Short, "never a clean end: {program:?}");
        let file = answer.body;
        assert!(!file.is_empty() && FULL.matches(0, &file), "{program:?}");
        let mut wire = stage.wire().await;
        let rest = wire.ask(&get(&path, to, Some(file.len() as u64))).await;
        let expected = if program == Program::Agave { 200 } else { 206 };
        assert_eq!((rest.status, rest.ended), (expected, Ended::Whole), "{program:?}");
        assert!(resume(file, &rest) == Some(FULL.all()), "{program:?}");
    }
}

/// `wget --continue` on what is there already: in part, but for one byte, and all of it.
#[tokio::test(flavor = "multi_thread")]
async fn wget_continues_what_it_has() {
    for stage in Stage::each(&PROGRAMS).await {
        let to = stage.edge.address;
        let path = format!("/{}", full_name());
        for have in [1, FULL.len / 3, FULL.len - 1, FULL.len] {
            let mut wire = stage.wire().await;
            let rest = wire.ask(&get(&path, to, Some(have))).await;
            if !stage.has_ranges() {
                assert_eq!(rest.status, 200, "{}", stage.what);
            } else if have == FULL.len {
                assert_eq!(rest.status, 416, "{}", stage.what);
                let total = format!("bytes */{}", FULL.len);
                assert_eq!(rest.header("content-range"), Some(&*total));
            } else {
                assert_part(&rest, have, FULL.len, FULL.len);
            }
            assert!(resume(FULL.bytes(0, have), &rest) == Some(FULL.all()), "{}", stage.what);
        }
        stage.assert_from_cache_where_warm();
    }
}

/// Two nodes have the same name and other bytes. Whatever becomes of the one that a file began
/// with, it is never finished with bytes of the other.
#[tokio::test(flavor = "multi_thread")]
async fn wget_never_splices_two_copies() {
    for (program, has_ranges) in [(Program::Agave, false), (Program::Sidecar, true)] {
        let name = full_name();
        let copies = [FULL, Content { seed: 7, ..FULL }];
        let a = Origin::run(program, &[(&name, copies[0])]).await;
        let b = Origin::run(program, &[(&name, copies[1])]).await;
        let edge = Edge::start(&probed_once("", &[&a, &b]));
        edge.knows(&a).await;
        edge.knows(&b).await;
        let to = edge.address;
        let path = format!("/{name}");
        let mut began = [0; 2];
        for number in 1..=10 {
            let mut wire = Wire::from(number, to).await;
            let mut answer = wire.begin(&get(&path, to, None)).await;
            wire.read_to(&mut answer, FULL.len / 4).await;
            drop(wire);
            let file = answer.body;
            let whose = copies.iter().position(|copy| copy.matches(0, &file)).expect("a copy");
            began[whose] += 1;
            let mut wire = Wire::from(number, to).await;
            let rest = wire.ask(&get(&path, to, Some(file.len() as u64))).await;
            assert_eq!(rest.status, if has_ranges { 206 } else { 200 }, "{program:?}");
            let got = resume(file.clone(), &rest).expect("taken");
            assert!(got == copies[whose].all(), "{program:?}: a mixture");
            // And when the copy of a file that it does not have all of cannot be had any more.
            let mut wire = Wire::from(number, to).await;
            let mut answer = wire.begin(&get(&path, to, None)).await;
            wire.read_to(&mut answer, FULL.len / 4).await;
            drop(wire);
            let file = answer.body;
            let whose = copies.iter().position(|copy| copy.matches(0, &file)).expect("a copy");
            let source = [&a, &b][whose];
            source.stop().await;
            let mut wire = Wire::from(number, to).await;
            let rest = wire.ask(&get(&path, to, Some(file.len() as u64))).await;
            assert!(resume(file, &rest).is_none(), "{program:?}: {}", rest.head);
            source.restart().await;
        }
        assert!(began[0] > 0 && began[1] > 0, "both were used: {began:?}");
    }
}
