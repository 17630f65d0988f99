//! Firedancer, of all three generations: how it finds out what a server has
//! (`src/discof/restore/utils/fd_ssresolve.c` and, before v1.0, `fd_http_resolver.c`), and how it
//! downloads (`fd_sshttp.c`). Read at v0.820, v1.0.0, v1.1.4 and v26.08.1.
//!
//! It drops a server for all of its run when one of these rules is not kept. That over TLS it wants
//! version 1.3 and `http/1.1` is not shown here.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::super::support::body::Content;
use super::super::support::client::{Answer, Ended};
use super::super::support::edge::Edge;
use super::super::support::origin::{Origin, Program};
use super::super::support::{full, incremental};
use super::{
    Cache, FULL, INCREMENTAL, PROGRAMS, SHORT_FULL, SHORT_INCREMENTAL, Stage, Wire, full_name,
    new_name, probed_once,
};

/// Within which both short names must be resolved.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(2);
/// `FD_SSHTTP_DEADLINE_NANOS`: from the request to the end of the head, for each hop.
const HEAD_DEADLINE: Duration = Duration::from_secs(1);
const MAX_HOPS: usize = 4;
/// Of a head (`USHORT_MAX`), and its headers.
const MAX_HEAD: usize = 65_535;
const MAX_HEADERS: usize = 128;
const MAX_SLOT: u64 = 10_000_000_000;

/// The host is an address without its port, also where a name is configured.
fn request(method: &str, path: &str, to: SocketAddr) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nUser-Agent: Firedancer\r\nAccept: */*\r\n\
         Accept-Encoding: identity\r\nHost: {}\r\n\r\n",
        to.ip()
    )
}

/// What a name tells it: `fd_ssarchive_parse_filename`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Resolved {
    slot: u64,
    base: Option<u64>,
}

fn parse_name(name: &str) -> Option<Resolved> {
    let (incremental, rest) = match name.strip_prefix("incremental-snapshot-") {
        Some(rest) => (true, rest),
        None => (false, name.strip_prefix("snapshot-")?),
    };
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse());
    let (first, rest) = rest.split_once('-')?;
    let first: u64 = number(first)?.ok()?;
    let (slot, base, rest) = if incremental {
        let (second, rest) = rest.split_once('-')?;
        (number(second)?.ok()?, Some(first), rest)
    } else {
        (first, None, rest)
    };
    let mut hash = [0; 32];
    let length = bs58::decode(rest.strip_suffix(".tar.zst")?).onto(&mut hash[..]).ok()?;
    (length == hash.len() && slot < MAX_SLOT).then_some(Resolved { slot, base })
}

/// The headers as picohttpparser gives them, which it must be able to.
fn headers(answer: &Answer) -> Vec<(&str, &str)> {
    assert!(answer.head.len() <= MAX_HEAD, "{} bytes", answer.head.len());
    let lines = answer.head.trim_end_matches("\r\n").split("\r\n").skip(1);
    let header = |line| {
        let (name, value): (&str, &str) = str::split_once(line, ':').expect("a header");
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_!#$%&'*+.^`|~".contains(&byte);
        assert!(!name.is_empty() && name.bytes().all(token), "{line}");
        (name, value.trim_matches([' ', '\t']))
    };
    let headers: Vec<_> = lines.map(header).collect();
    assert!(headers.len() <= MAX_HEADERS, "{}", answer.head);
    headers
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    let found = headers(answer).into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value)
}

/// Where it goes on: nowhere but to another path of the same server that is an archive's name.
fn redirect(answer: &Answer, statuses: &[u16]) -> (String, Resolved) {
    assert!(statuses.contains(&answer.status), "{}", answer.head);
    let location = header(answer, "location").expect("a location");
    let name = location.strip_prefix('/').expect("a path of this server");
    let resolved = parse_name(name).unwrap_or_else(|| panic!("no archive's name: {location}"));
    (location.to_owned(), resolved)
}

/// One of the two questions, on a connection of its own.
async fn resolve(method: &str, form: &str, to: SocketAddr) -> Resolved {
    let asked = Instant::now();
    let mut wire = Wire::to(to).await;
    let answer = wire.begin(&request(method, form, to)).await;
    assert!(asked.elapsed() < RESOLVE_DEADLINE, "{form}: {:?}", asked.elapsed());
    // GET takes a 304 for a redirect as well, if it has a location.
    redirect(&answer, &[301, 302, 303, 307, 308]).1
}

/// What is done every five seconds, for each server: both questions at once.
async fn discover(method: &str, to: SocketAddr) -> (Resolved, Resolved) {
    let full = resolve(method, SHORT_FULL, to);
    let (full, incremental) = tokio::join!(full, resolve(method, SHORT_INCREMENTAL, to));
    assert_eq!(full.base, None, "a full archive");
    assert_eq!(incremental.base, Some(full.slot), "one on it");
    (full, incremental)
}

/// A download, with every hop on a connection of its own.
async fn download(path: &str, resolved: Resolved, to: SocketAddr) -> Answer {
    let (mut path, mut named) = (path.to_owned(), parse_name(&path[1..]));
    for _ in 0..=MAX_HOPS {
        let mut wire = Wire::to(to).await;
        let asked = Instant::now();
        let mut answer = wire.begin(&request("GET", &path, to)).await;
        assert!(asked.elapsed() < HEAD_DEADLINE, "{path}: {:?}", asked.elapsed());
        if answer.status != 200 {
            let (location, found) = redirect(&answer, &[301, 302, 303, 304, 307, 308]);
            (path, named) = (location, Some(found));
            continue;
        }
        let named = named.expect("a name, from the path or the redirect");
        assert_eq!(named.base.is_some(), resolved.base.is_some(), "of the kind that was asked for");
        assert!(named.slot >= resolved.slot, "older than it said before: {named:?}");
        assert_eq!(header(&answer, "transfer-encoding"), None, "{}", answer.head);
        let length = header(&answer, "content-length").expect("a length");
        assert!(length.bytes().all(|byte| byte.is_ascii_digit()), "{length}");
        assert_ne!(length.parse(), Ok(0));
        wire.finish(&mut answer).await;
        return answer;
    }
    panic!("more than {MAX_HOPS} hops: {path}");
}

#[track_caller]
fn assert_bytes(answer: &Answer, content: Content, what: &str) {
    assert_eq!(answer.ended, Ended::Whole, "{what}");
    assert!(answer.body == content.all(), "{what}: other bytes");
}

/// v1.1 and v26.08: HEAD on both short names, then GET of the short name and where it leads.
#[tokio::test(flavor = "multi_thread")]
async fn firedancer_1_1_resolves_by_head_and_follows_the_short_name() {
    for stage in Stage::each(&PROGRAMS).await {
        let to = stage.edge.address;
        let mut before = None;
        for _ in 0..3 {
            let found = discover("HEAD", to).await;
            assert!(before.is_none_or(|before| before == found), "{}", stage.what);
            before = Some(found);
        }
        stage.assert_from_memory();
        let (full, incremental) = before.expect("resolved");
        let answer = download(SHORT_FULL, full, to).await;
        assert_bytes(&answer, FULL, &stage.what);
        let answer = download(SHORT_INCREMENTAL, incremental, to).await;
        assert_bytes(&answer, INCREMENTAL, &stage.what);
        stage.assert_from_cache_where_warm();
    }
}

/// v1.0: HEAD on both short names, then GET of the name that it learned.
#[tokio::test(flavor = "multi_thread")]
async fn firedancer_1_0_gets_the_names_that_it_resolved() {
    for stage in Stage::each(&PROGRAMS).await {
        let to = stage.edge.address;
        let (full, incremental) = discover("HEAD", to).await;
        stage.assert_from_memory();
        let answer = download(&format!("/{}", full_name()), full, to).await;
        assert_bytes(&answer, FULL, &stage.what);
        let answer = download(&format!("/{}", new_name()), incremental, to).await;
        assert_bytes(&answer, INCREMENTAL, &stage.what);
        stage.assert_from_cache_where_warm();
    }
}

/// v0.8: the probe is a GET, of which no more than the head is read.
#[tokio::test(flavor = "multi_thread")]
async fn firedancer_0_8_probes_with_get() {
    for stage in Stage::each(&PROGRAMS).await {
        let to = stage.edge.address;
        let (full, incremental) = discover("GET", to).await;
        assert_eq!((full.slot, incremental.slot), (1000, 1500), "{}", stage.what);
        stage.assert_from_memory();
        let answer = download(SHORT_FULL, full, to).await;
        assert_bytes(&answer, FULL, &stage.what);
        let answer = download(SHORT_INCREMENTAL, incremental, to).await;
        assert_bytes(&answer, INCREMENTAL, &stage.what);
        stage.assert_from_cache_where_warm();
    }
}

/// The names that it learned are still there when newer ones have taken their place, and no later
/// round leads back, or to one half of a pair, or nowhere. A new full archive has no incremental
/// one on it for a while, and a server without one is no server to it.
#[tokio::test(flavor = "multi_thread")]
async fn what_firedancer_resolves_never_goes_back_and_always_is_a_pair() {
    let (old_full, old) = (full(1000), incremental(1000, 1500));
    let origin = Origin::run(Program::Agave, &[(&old_full, FULL), (&old, INCREMENTAL)]).await;
    let edge = Edge::before(&[&origin]).await;
    let to = edge.address;
    let first = discover("HEAD", to).await;
    let mut last = first;
    for (added, slots) in [
        (incremental(1000, 1600), (1000, 1600)),
        (full(2000), (1000, 1600)),
        (incremental(2000, 2100), (2000, 2100)),
        (incremental(2000, 2200), (2000, 2200)),
    ] {
        let content = if added.starts_with('i') { INCREMENTAL } else { FULL };
        origin.add(&added, content);
        edge.knows(&origin).await;
        let found = discover("HEAD", to).await;
        assert_eq!((found.0.slot, found.1.slot), slots, "after {added}");
        assert!(found.0.slot >= last.0.slot && found.1.slot >= last.1.slot, "{found:?}");
        // The short name leads to no less than was resolved a moment ago, in an older round too.
        assert_bytes(&download(SHORT_FULL, last.0, to).await, FULL, &added);
        assert_bytes(&download(SHORT_INCREMENTAL, last.1, to).await, INCREMENTAL, &added);
        last = found;
    }
    let answer = download(&format!("/{old}"), first.1, to).await;
    assert_bytes(&answer, INCREMENTAL, "learned at the start");
    // It goes back where what was newer cannot be had any more, and only to what can.
    origin.remove(&incremental(2000, 2200));
    let gone = incremental(2000, 2200).parse().expect("a name");
    edge.sees("it is gone", |view| view.sources(&gone).is_empty()).await;
    let found = discover("HEAD", to).await;
    assert_eq!((found.0.slot, found.1.slot), (2000, 2100));
}

/// A second is all that an answer may take, a target that refuses connections included.
#[tokio::test(flavor = "multi_thread")]
async fn firedancer_is_answered_in_time_though_a_target_is_gone() {
    let (base, new) = (full_name(), new_name());
    let archives = [(&*base, FULL), (&*new, INCREMENTAL)];
    let dead = Origin::run(Program::Agave, &archives).await;
    let alive = Origin::run(Program::Agave, &archives).await;
    let edge = Edge::start(&probed_once("", &[&dead, &alive]));
    edge.knows(&dead).await;
    edge.knows(&alive).await;
    dead.stop().await;
    let (full, incremental) = discover("HEAD", edge.address).await;
    assert_bytes(&download(SHORT_FULL, full, edge.address).await, FULL, "short");
    let path = format!("/{new}");
    assert_bytes(&download(&path, incremental, edge.address).await, INCREMENTAL, "concrete");
}

/// Where there is nothing, a clear no; a server with a full archive alone is none to it either.
#[tokio::test(flavor = "multi_thread")]
async fn firedancer_is_told_when_there_is_nothing() {
    let name = full_name();
    let stage = Stage::with("", Program::Agave, Cache::Off, &[(&name, FULL)]).await;
    let to = stage.edge.address;
    assert_eq!(resolve("HEAD", SHORT_FULL, to).await, Resolved { slot: 1000, base: None });
    for method in ["HEAD", "GET"] {
        let answer = stage.wire().await.begin(&request(method, SHORT_INCREMENTAL, to)).await;
        assert_eq!((answer.status, header(&answer, "location")), (404, None), "{method}");
    }
    stage.assert_from_memory();
}
