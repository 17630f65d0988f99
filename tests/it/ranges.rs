//! Parts of archives, as each kind of upstream knows them.

use super::support::body::Content;
use super::support::client::{Ask, Ended};
use super::support::edge::Edge;
use super::support::origin::{Fault, Origin, Program};
use super::support::{full, incremental};

const CONTENT: Content = Content::new(5, 100_000);

fn ranged(name: &str, range: &str) -> Ask {
    Ask::get(format!("/{name}")).with("range", range)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_ignores_ranges_and_so_the_client_gets_all() {
    let name = full(1000);
    let origin = Origin::run(Program::Agave, &[(&name, CONTENT)]).await;
    let edge = Edge::before(&[&origin]).await;
    for range in ["bytes=0-99", "bytes=5000-", "bytes=-5", "bytes=0-1,5-6", "bytes=200000-"] {
        let answer = edge.ask(ranged(&name, range)).await;
        assert_eq!((answer.status, answer.length()), (200, CONTENT.len), "{range}");
        assert_eq!(answer.header("content-range"), None, "{range}");
        assert!(answer.body == CONTENT.all(), "{range}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_and_firedancer_answer_single_ranges() {
    for program in [Program::Sidecar, Program::FiredancerSnapshots] {
        let name = full(1000);
        let origin = Origin::run(program, &[(&name, CONTENT)]).await;
        let edge = Edge::before(&[&origin]).await;
        for (range, start, end) in [
            ("bytes=0-99", 0, 100),
            ("bytes=99999-", 99_999, 100_000),
            ("bytes=50000-", 50_000, 100_000),
            ("bytes=-1000", 99_000, 100_000),
            ("bytes=0-999999999", 0, 100_000),
            ("bytes=10-10", 10, 11),
        ] {
            let answer = edge.ask(ranged(&name, range)).await;
            assert_eq!((answer.status, answer.ended), (206, Ended::Whole), "{program:?} {range}");
            let place = format!("bytes {start}-{}/{}", end - 1, CONTENT.len);
            assert_eq!(answer.header("content-range"), Some(&*place), "{program:?} {range}");
            assert_eq!(answer.length(), end - start, "{program:?} {range}");
            assert_eq!(answer.header("accept-ranges"), Some("bytes"));
            assert!(answer.body == CONTENT.bytes(start, end), "{program:?} {range}");
            assert!(answer.head.len() < 4096);
        }
        for range in ["bytes=100000-", "bytes=200000-300000"] {
            let answer = edge.ask(ranged(&name, range)).await;
            assert_eq!((answer.status, answer.length()), (416, 0), "{program:?} {range}");
            assert_eq!(answer.header("content-range"), Some("bytes */100000"));
        }
        for range in ["bytes=5-4", "bytes=x", "lines=1-2", "bytes=1-2,x", "bytes=-0"] {
            let answer = edge.ask(ranged(&name, range)).await;
            assert_eq!(answer.status, 200, "bad syntax is ignored: {program:?} {range}");
            assert!(answer.body == CONTENT.all(), "{program:?} {range}");
        }
        // A range means nothing on a HEAD.
        let head = edge.ask(Ask::head(format!("/{name}")).with("range", "bytes=0-9")).await;
        assert_eq!((head.status, head.length()), (200, CONTENT.len), "{program:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_ranges_come_in_parts_or_as_a_whole() {
    let name = full(1000);
    let sidecar = Origin::run(Program::Sidecar, &[(&name, CONTENT)]).await;
    let edge = Edge::before(&[&sidecar]).await;
    let answer = edge.ask(ranged(&name, "bytes=0-1,99998-")).await;
    assert_eq!((answer.status, answer.ended), (206, Ended::Whole));
    let media = "multipart/byteranges; boundary=BOUNDARY";
    assert_eq!(answer.header("content-type"), Some(media));
    let mut expected = b"--BOUNDARY\r\ncontent-range: bytes 0-1/100000\r\n\r\n".to_vec();
    expected.extend(CONTENT.bytes(0, 2));
    expected.extend(b"\r\n--BOUNDARY\r\ncontent-range: bytes 99998-99999/100000\r\n\r\n");
    expected.extend(CONTENT.bytes(99_998, 100_000));
    expected.extend(b"\r\n--BOUNDARY--\r\n");
    assert!(answer.body == expected, "{}", String::from_utf8_lossy(&answer.body));

    // Firedancer answers 400 to several ranges, which is not what the client did wrong.
    let name = incremental(1000, 1500);
    let archives = [(&*full(1000), CONTENT), (&*name, CONTENT)];
    let firedancer = Origin::run(Program::FiredancerSnapshots, &archives).await;
    let edge = Edge::before(&[&firedancer]).await;
    for _ in 0..2 {
        let answer = edge.ask(ranged(&name, "bytes=0-1,99998-")).await;
        assert_eq!((answer.status, answer.length()), (200, CONTENT.len));
        assert!(answer.body == CONTENT.all());
        // Also for a client that was given this copy before.
        assert_eq!(edge.get(&format!("/{name}")).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_reaches_the_target_in_its_plainest_spelling() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, CONTENT)]).await;
    let edge = Edge::before(&[&origin]).await;
    for (asked, forwarded) in [
        ("BYTES = 5-9", Some("bytes=5-9")),
        ("bytes=0-99999999999999999999", Some("bytes=0-9223372036854775807")),
        ("bytes=0-0 , -1", Some("bytes=0-0,-1")),
        ("bytes=-0", None),
        ("bytes=9-5", None),
    ] {
        edge.ask(ranged(&name, asked)).await;
        let seen = origin.seen().into_iter().rev();
        let mut downloads =
            seen.filter(|request| request.method == "GET" && request.path().ends_with(&name));
        let request = downloads.next().expect("a download");
        assert_eq!(request.header("range"), forwarded, "{asked}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_is_judged_against_the_copy() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, CONTENT)]).await;
    let edge = Edge::before(&[&origin]).await;
    let first = edge.get(&format!("/{name}")).await;
    let tag = first.header("etag").expect("a tag").to_owned();
    let date = first.header("last-modified").expect("a date").to_owned();
    for (condition, status) in [
        (tag.clone(), 206),
        // Another copy can be of the same second.
        (date, 200),
        (format!("W/{tag}"), 200),
        ("\"another\"".to_owned(), 200),
        ("Mon, 21 Sep 2026 14:13:21 GMT".to_owned(), 200),
        ("nonsense".to_owned(), 200),
    ] {
        let answer = edge.ask(ranged(&name, "bytes=1000-").with("if-range", &condition)).await;
        assert_eq!(answer.status, status, "{condition}");
        let expected = if status == 206 { CONTENT.bytes(1000, 100_000) } else { CONTENT.all() };
        assert!(answer.body == expected, "{condition}");
        assert_eq!(answer.header("etag"), Some(&*tag), "{condition}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_part_is_the_sources_failure() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, CONTENT)]).await;
    let edge = Edge::before(&[&origin]).await;
    origin.fail(Fault::WrongRange);
    assert_eq!(edge.ask(ranged(&name, "bytes=0-4")).await.status, 502);
    assert_eq!(edge.get(&format!("/{name}")).await.status, 200);
}
