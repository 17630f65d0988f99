//! What a client can ask of a cached archive, and of an archive that only the cache has.

use serde_json::Value;

use super::super::support::body::Content;
use super::super::support::client::{Answer, Ask, Ended};
use super::super::support::origin::{Origin, Program};
use super::super::support::{full, incremental};
use super::{CachedEdge, HIT, STORED, assert_whole, get, head, status};

/// Several slices of what is sent at once, and no multiple of them.
const CONTENT: Content = Content::new(7, 5_000_000);

/// An archive in the cache, and whose origin is stopped: what is answered comes from the cache.
struct Scene {
    cached: CachedEdge,
    name: String,
    tag: String,
}

impl Scene {
    async fn new(program: Program) -> Self {
        let name = full(1000);
        let origin = Origin::run(program, &[(&name, CONTENT)]).await;
        let cached = CachedEdge::before(&[&origin]).await;
        cached.fill(&name, CONTENT).await;
        origin.stop().await;
        let answer = cached.edge.ask(head(&name)).await;
        let tag = answer.header("etag").expect("a tag").to_owned();
        Self { cached, name, tag }
    }

    async fn ask(&self, headers: &[(&str, &str)]) -> Answer {
        let mut ask = get(&self.name);
        for (name, value) in headers {
            ask = ask.with(name, *value);
        }
        let answer = self.cached.edge.ask(ask).await;
        assert_eq!((status(&answer), answer.ended), (HIT, Ended::Whole), "{headers:?}");
        assert_eq!(answer.header("etag"), Some(&*self.tag), "{headers:?}");
        assert!(answer.head.len() < 4096, "{headers:?}");
        answer
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_are_judged_on_a_hit() {
    // A sidecar tells when an archive was changed last.
    let scene = Scene::new(Program::Sidecar).await;
    let weak = format!("W/{}", scene.tag);
    let listed = format!("\"x\", {}", scene.tag);
    let (before, at, after) = (
        "Mon, 21 Sep 2026 14:13:19 GMT",
        "Mon, 21 Sep 2026 14:13:20 GMT",
        "Mon, 21 Sep 2026 14:13:21 GMT",
    );
    for (headers, expected) in [
        (vec![("if-none-match", &*scene.tag)], 304),
        (vec![("if-none-match", &*weak)], 304),
        (vec![("if-none-match", &*listed)], 304),
        (vec![("if-none-match", "*")], 304),
        (vec![("if-none-match", "\"x\"")], 200),
        (vec![("if-modified-since", at)], 304),
        (vec![("if-modified-since", after)], 304),
        (vec![("if-modified-since", before)], 200),
        (vec![("if-modified-since", "yesterday")], 200),
        // The tag decides where there is one.
        (vec![("if-none-match", "\"x\""), ("if-modified-since", at)], 200),
        // Before the range.
        (vec![("if-none-match", &*scene.tag), ("range", "bytes=0-9")], 304),
        (vec![("if-none-match", "\"x\""), ("range", "bytes=0-9")], 206),
    ] {
        let answer = match expected {
            304 => scene.not_modified(&headers).await,
            _ => scene.ask(&headers).await,
        };
        assert_eq!(answer.status, expected, "{headers:?}");
        let length = match expected {
            200 => CONTENT.len,
            206 => 10,
            _ => 0,
        };
        assert!(answer.body == CONTENT.bytes(0, length), "{headers:?}");
    }
}

impl Scene {
    /// An answer without a body. What comes after it on the connection is the next answer.
    async fn not_modified(&self, headers: &[(&str, &str)]) -> Answer {
        let mut ask = get(&self.name);
        for (name, value) in headers {
            ask = ask.with(name, *value);
        }
        let to = self.cached.edge.address;
        let (answer, mut stream) = ask.with("connection", "close").begin(to).await;
        let mut rest = answer.body.clone();
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await.expect("an end");
        assert_eq!(rest, b"", "{headers:?}");
        assert_eq!((status(&answer), answer.header("etag")), (HIT, Some(&*self.tag)));
        answer
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_that_is_met_does_not_keep_an_archive_from_being_fetched() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, CONTENT)]).await;
    let cached = CachedEdge::before(&[&origin]).await;
    let cold = cached.edge.ask(head(&name)).await;
    let tag = cold.header("etag").expect("a tag");
    let answer = cached.edge.ask(get(&name).with("if-match", tag)).await;
    assert_whole(&answer, CONTENT);
    assert_eq!(status(&answer), STORED);
    cached.holds(&name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn single_ranges_come_out_of_the_cache() {
    // A node, which knows no ranges: it is the cache that does.
    let scene = Scene::new(Program::Agave).await;
    let len = CONTENT.len;
    for (range, start, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, len),
        ("bytes=4999999-", len - 1, len),
        ("bytes=4999999-9999999999", len - 1, len),
        // Around the end of a slice.
        ("bytes=2097151-2097152", 2_097_151, 2_097_153),
        ("bytes=2097152-", 2_097_152, len),
        ("bytes=1-4999998", 1, len - 1),
        ("bytes=-1", len - 1, len),
        ("bytes=-3000000", 2_000_000, len),
        ("bytes=-9999999", 0, len),
        ("bytes=10-19,6000000-", 10, 20),
    ] {
        let answer = scene.ask(&[("range", range)]).await;
        assert_eq!((answer.status, answer.length()), (206, end - start), "{range}");
        let place = format!("bytes {start}-{}/{len}", end - 1);
        assert_eq!(answer.header("content-range"), Some(&*place), "{range}");
        assert_eq!(answer.header("content-type"), Some("application/zstd"), "{range}");
        assert!(answer.body == CONTENT.bytes(start, end), "{range}");
    }
    for range in ["bytes=5000000-", "bytes=5000000-5000001", "bytes=6000000-,7000000-8000000"] {
        let answer = scene.ask(&[("range", range)]).await;
        assert_eq!((answer.status, answer.length()), (416, 0), "{range}");
        assert_eq!(answer.header("content-range"), Some("bytes */5000000"), "{range}");
        assert_eq!(answer.body, b"", "{range}");
    }
    for range in ["bytes=5-4", "bytes=x", "lines=1-2", "bytes=1-2,x", "bytes=-0", "bytes=0-,0-"] {
        let answer = scene.ask(&[("range", range)]).await;
        assert_whole(&answer, CONTENT);
    }
    // A range means nothing on a HEAD.
    let head = scene.cached.edge.ask(head(&scene.name).with("range", "bytes=0-9")).await;
    assert_eq!((head.status, head.length(), status(&head)), (200, CONTENT.len, HIT));
}

/// The parts of a body in parts, each with its place; panics where it is not well formed.
fn parts(answer: &Answer, range: &str) -> Vec<(u64, Vec<u8>)> {
    let media = answer.header("content-type").expect("a type");
    let boundary = media.strip_prefix("multipart/byteranges; boundary=").expect("a boundary");
    let mut rest = &answer.body[..];
    let mut parts = Vec::new();
    loop {
        let line = format!("\r\n--{boundary}");
        let behind = rest.strip_prefix(line.as_bytes());
        rest = behind.unwrap_or_else(|| panic!("no boundary behind part {}: {range}", parts.len()));
        if rest == b"--\r\n" {
            return parts;
        }
        let end = rest.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8(rest[..end].to_vec()).expect("text").to_ascii_lowercase();
        assert!(head.contains("content-type: application/zstd"), "{head}");
        let place = head.split("content-range: bytes ").nth(1).expect("a place");
        let (place, total) = place.trim().split_once('/').expect("a total");
        assert_eq!(total, CONTENT.len.to_string());
        let (first, last) = place.split_once('-').expect("two positions");
        let first: u64 = first.parse().expect("a number");
        let last: u64 = last.parse().expect("a number");
        let (body, behind) = rest[end + 4..].split_at((last + 1 - first) as usize);
        parts.push((first, body.to_vec()));
        rest = behind;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_ranges_come_out_of_the_cache_in_parts() {
    let scene = Scene::new(Program::Agave).await;
    let len = CONTENT.len;
    for (range, expected) in [
        ("bytes=0-0,-1", vec![(0, 1), (len - 1, len)]),
        ("bytes=0-99,100-199", vec![(0, 100), (100, 200)]),
        ("bytes=4000000-4000099,0-99", vec![(4_000_000, 4_000_100), (0, 100)]),
        ("bytes=0-9,9000000-,20-29", vec![(0, 10), (20, 30)]),
        // Over the ends of slices.
        ("bytes=2097000-2097300,4194000-", vec![(2_097_000, 2_097_301), (4_194_000, len)]),
        ("bytes=2000000-4999999,0-9", vec![(2_000_000, len), (0, 10)]),
        // Some bytes twice: all of it is sent, and every byte once.
        ("bytes=0-99,50-149", vec![(0, 100), (50, 150)]),
        ("bytes=5-9,5-9", vec![(5, 10), (5, 10)]),
        ("bytes=10-20,0-3000000", vec![(10, 21), (0, 3_000_001)]),
        ("bytes=0-3000000,10-20", vec![(0, 3_000_001), (10, 21)]),
        ("bytes=50-99,0-60", vec![(50, 100), (0, 61)]),
    ] {
        let answer = scene.ask(&[("range", range)]).await;
        if overlap(&expected) {
            assert_whole(&answer, CONTENT);
            continue;
        }
        assert_eq!(answer.status, 206, "{range}");
        let found = parts(&answer, range);
        let places: Vec<(u64, u64)> =
            found.iter().map(|(start, body)| (*start, start + body.len() as u64)).collect();
        assert_eq!(places, expected, "{range}");
        for (start, body) in &found {
            assert!(CONTENT.matches(*start, body), "{range} at {start}");
        }
        assert_eq!(answer.header("content-range"), None, "{range}");
    }
}

fn overlap(ranges: &[(u64, u64)]) -> bool {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    sorted.windows(2).any(|pair| pair[1].0 < pair[0].1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_sent_under_its_condition_only() {
    let scene = Scene::new(Program::Sidecar).await;
    let weak = format!("W/{}", scene.tag);
    for (condition, holds) in [
        (&*scene.tag, true),
        (&*weak, false),
        ("\"another\"", false),
        // A date never holds: another copy can be of the same second.
        ("Mon, 21 Sep 2026 14:13:20 GMT", false),
        ("nonsense", false),
    ] {
        for (range, start, end) in
            [("bytes=1000-1999", 1000, 2000), ("bytes=-5", CONTENT.len - 5, CONTENT.len)]
        {
            let answer = scene.ask(&[("range", range), ("if-range", condition)]).await;
            if holds {
                assert_eq!(answer.status, 206, "{condition}");
                assert!(answer.body == CONTENT.bytes(start, end), "{condition}");
            } else {
                assert_whole(&answer, CONTENT);
            }
        }
        // Not even that nothing is there is said about another copy.
        let behind = scene.ask(&[("range", "bytes=6000000-"), ("if-range", condition)]).await;
        assert_eq!(behind.status, if holds { 416 } else { 200 }, "{condition}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_has_one_head_however_it_comes() {
    for program in [Program::Sidecar, Program::Agave] {
        let name = full(1000);
        let origin = Origin::run(program, &[(&name, CONTENT)]).await;
        let cached = CachedEdge::before(&[&origin]).await;
        let part = || get(&name).with("range", "bytes=0-9");
        let mut answers = vec![
            cached.edge.ask(head(&name)).await,
            cached.edge.ask(part()).await,
            cached.edge.ask(get(&name)).await,
        ];
        cached.holds(&name).await;
        let hits = [head(&name), part(), get(&name)];
        for ask in hits {
            let hit = cached.edge.ask(ask).await;
            assert_eq!((status(&hit), hit.header("accept-ranges")), (HIT, Some("bytes")));
            answers.push(hit);
        }
        for answer in &answers {
            for header in ["etag", "last-modified", "content-type"] {
                assert_eq!(answer.header(header), answers[0].header(header), "{}", answer.head);
            }
            assert_eq!(answer.header("content-encoding"), None);
            // A copy is no older for a cache behind it: the name stands for these bytes.
            assert_eq!(answer.header("age"), None, "{}", answer.head);
            assert!(answer.head.len() < 4096);
        }
        let dated = answers[0].header("last-modified").is_some();
        assert_eq!(dated, program == Program::Sidecar);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tracker_api_lists_what_only_the_cache_has() {
    let (full, incremental) = (full(1000), incremental(1000, 1500));
    let archives = [(&*full, CONTENT), (&*incremental, CONTENT)];
    let origin = Origin::run(Program::Agave, &archives).await;
    let cached = CachedEdge::before(&[&origin]).await;
    for (name, content) in archives {
        cached.fill(name, content).await;
    }
    origin.stop().await;
    let edge = &cached.edge;
    edge.sees("no target is left", |view| {
        archives.iter().all(|(name, _)| view.sources(&name.parse().expect("valid")).is_empty())
    })
    .await;
    for (path, newest) in [
        ("/v1/snapshots", vec![vec![&incremental, &full], vec![&full]]),
        ("/v1/best_snapshots", vec![vec![&incremental, &full]]),
        ("/v1/best_snapshots?max=2", vec![vec![&incremental, &full], vec![&full]]),
    ] {
        let answer = edge.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        let listing: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let elements = listing.as_array().expect("an array");
        let names: Vec<Vec<&str>> = elements.iter().map(|element| file_names(element)).collect();
        assert_eq!(names, newest, "{path}");
        for file in elements.iter().flat_map(|element| element["files"].as_array().expect("files"))
        {
            assert_eq!(file["size"], CONTENT.len, "{path}");
            let url = file["url"].as_str().expect("a URL");
            let base = format!("http://{}", edge.address);
            let answer = edge.get(url.strip_prefix(&base).expect("its own URL")).await;
            assert_whole(&answer, CONTENT);
            assert_eq!(status(&answer), HIT, "{url}");
        }
    }
    let health = edge.ask(Ask::get("/v1/health")).await;
    let health: Value = serde_json::from_slice(&health.body).expect("JSON");
    assert_eq!(health["MaxSnapshot"], 1500);
}

fn file_names(element: &Value) -> Vec<&str> {
    let files = element["files"].as_array().expect("files");
    files.iter().map(|file| file["file_name"].as_str().expect("a name")).collect()
}
