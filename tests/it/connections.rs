//! What a client may do with a connection: ask for several things at once, close its side, and name
//! fields that go no further.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::PATIENCE;
use super::support::client::raw;
use super::support::edge::Edge;
use super::support::full;
use super::support::scene::{CONTENT, Place, Scene};
use super::support::speaker::{Say, SpeakerNode, config};

/// Long enough for what was sent to be read, and for a request to be where it waits.
const PAUSE: Duration = Duration::from_millis(50);

/// A head of a request, with these fields.
fn head(method: &str, path: &str, fields: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: edge\r\n{fields}\r\n")
}

fn post(body: &str) -> String {
    let fields = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    head("POST", "/", &fields) + body
}

/// The answers in what came, of which those at `bare` have no body, and what is behind them.
fn answers<'a>(mut came: &'a [u8], bare: &[bool]) -> (Vec<(u16, &'a [u8])>, &'a [u8]) {
    let mut answers = Vec::new();
    for is_bare in bare {
        let Some(end) = came.windows(4).position(|window| window == b"\r\n\r\n") else { break };
        let (head, rest) = came.split_at(end + 4);
        let head = std::str::from_utf8(head).expect("a head");
        let status = head[9..12].parse().expect("a status");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length = length.filter(|_| !is_bare).map_or(0, |length| length.parse().unwrap());
        let (body, rest) = rest.split_at_checked(length).unwrap_or((rest, b""));
        answers.push((status, body));
        came = rest;
    }
    (answers, came)
}

/// Sends these pieces, one after the other, and then no more; all that comes back until the
/// connection ends.
async fn say(edge: &Edge, pieces: &[&[u8]]) -> Vec<u8> {
    let mut stream = TcpStream::connect(edge.address).await.expect("connected");
    for piece in pieces {
        // One that was answered to its end may be closed by now.
        let _ = stream.write_all(piece).await;
        tokio::time::sleep(PAUSE).await;
    }
    let _ = stream.shutdown().await;
    let mut came = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut came));
    let _ = read.await.expect("the connection ends in time");
    came
}

/// The same, while what holds an archive up goes away.
async fn say_to(scene: &Scene, pieces: &[&[u8]]) -> Vec<u8> {
    let free = async {
        tokio::time::sleep(3 * PAUSE).await;
        scene.origin.fail(None);
    };
    tokio::join!(say(&scene.edge, pieces), free).0
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_at_once_is_answered_one_after_the_other() {
    for place in Place::ALL {
        for cuts in [&[][..], &[70], &[1, 100, 300], &[40, 41, 42, 160]] {
            let scene = Scene::new(place).await;
            let archive = format!("/{}", scene.name);
            let requests = [
                head("GET", &archive, ""),
                head("HEAD", &archive, ""),
                head("GET", "/nothing", ""),
                head("GET", &archive, "range: bytes=10-19\r\n"),
                head("GET", "/health", ""),
                head("GET", &archive, ""),
            ];
            let text = requests.concat();
            let bounds: Vec<usize> = [&[0], cuts, &[text.len()]].concat();
            let pieces: Vec<&[u8]> =
                bounds.windows(2).map(|bound| &text.as_bytes()[bound[0]..bound[1]]).collect();
            let came = say_to(&scene, &pieces).await;
            let bare = requests.each_ref().map(|request| request.starts_with("HEAD"));
            let (answers, rest) = answers(&came, &bare);
            let statuses: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
            assert_eq!(statuses, [200, 200, 404, 206, 200, 200], "{place:?} {cuts:?}");
            assert!(answers[0].1 == CONTENT.all(), "{place:?}");
            assert!(answers[3].1 == CONTENT.bytes(10, 20), "{place:?}");
            assert!(answers[5].1 == CONTENT.all(), "{place:?}");
            assert!(rest.is_empty(), "{place:?}: {rest:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_understood_costs_nothing_of_what_was_asked_before() {
    let scene = Scene::new(Place::Target).await;
    let first = head("GET", &format!("/{}", scene.name), "");
    let long = head("GET", "/health", &format!("x: {}\r\n", "y".repeat(100_000)));
    for (next, status) in [
        ("nonsense\r\n\r\n".to_owned(), Some(400)),
        (head("GET", "/health", "content-length: x\r\n"), Some(400)),
        (long, Some(431)),
        // With what is behind it, it has no end.
        ("GET /health HTTP/1.1\r\n".to_owned(), None),
    ] {
        let mut stream = TcpStream::connect(scene.edge.address).await.expect("connected");
        stream.write_all(first.as_bytes()).await.expect("sent");
        let _ = stream.write_all(next.as_bytes()).await;
        stream.shutdown().await.expect("open");
        let mut came = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut came));
        let _ = read.await.expect("the connection ends in time");
        let (answers, _) = answers(&came, &[false, false]);
        let next: String = next.chars().take(40).collect();
        assert_eq!(answers.first().map(|(status, _)| *status), Some(200), "{next}");
        assert!(answers[0].1 == CONTENT.all(), "{next}");
        assert_eq!(answers.get(1).map(|(status, _)| *status), status, "{next}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_behind_a_body_is_the_next_request() {
    let node = SpeakerNode::run(&full(1000), |request| Say::result(request, "said")).await;
    let edge = Edge::start(&config("rpc_proxy: {enabled: true}", &[&[&node]]));
    let call = |id| post(&json!({ "jsonrpc": "2.0", "id": id, "method": "getSlot" }).to_string());
    let name = full(1000).parse().expect("a name");
    edge.sees("the node", |view| !view.sources(&name).is_empty()).await;
    let calls = [call(1), head("GET", "/health", ""), call(2), call(3)];
    let last = head("GET", "/nothing", "connection: close\r\n");
    let text = calls.concat() + &last;
    for cut in [0, 30, 150, 190, 260, 400] {
        let (first, rest) = text.as_bytes().split_at(cut);
        let came = say(&edge, &[first, rest]).await;
        let (answers, rest) = answers(&came, &[false; 5]);
        let statuses: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
        assert_eq!(statuses, [200, 200, 200, 200, 404], "{cut}");
        for (at, id) in [(0, 1), (2, 2), (3, 3)] {
            let answer: serde_json::Value = serde_json::from_slice(answers[at].1).expect("JSON");
            assert_eq!(answer["id"], id, "{cut}");
        }
        assert!(rest.is_empty(), "{cut}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_closed_its_side_is_answered() {
    for place in Place::ALL {
        let scene = Scene::new(place).await;
        let archive = format!("/{}", scene.name);
        for (method, fields, body) in [
            ("HEAD", "", Vec::new()),
            ("GET", "range: bytes=5-99\r\n", CONTENT.bytes(5, 100)),
            ("GET", "", CONTENT.all()),
        ] {
            let request = head(method, &archive, fields);
            let came = raw(scene.edge.address, request.as_bytes()).await;
            let (answers, _) = answers(&came, &[method == "HEAD"]);
            let [(status, got)] = answers[..] else { panic!("{place:?} {method}: no answer") };
            assert!(matches!(status, 200 | 206), "{place:?} {method}: {status}");
            assert!(got == body, "{place:?} {method} {fields}");
            scene.origin.fail(None);
        }
        for path in ["/snapshot.tar.bz2", "/v1/snapshots", "/v1/best_snapshots", "/health"] {
            let came = raw(scene.edge.address, head("GET", path, "").as_bytes()).await;
            let (answers, _) = answers(&came, &[false]);
            assert!(matches!(answers[..], [(200 | 303, _)]), "{place:?} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_answers_a_client_that_has_closed_its_side() {
    let late = |request: &_| Say::Late(2 * PAUSE, Box::new(Say::result(request, "said")));
    let node = SpeakerNode::run(&full(1000), late).await;
    let edge = Edge::start(&config("rpc_proxy: {enabled: true}", &[&[&node]]));
    let name = full(1000).parse().expect("a name");
    edge.sees("the node", |view| !view.sources(&name).is_empty()).await;
    let call = post(r#"{"jsonrpc":"2.0","id":1,"method":"getSlot"}"#);
    let came = raw(edge.address, call.as_bytes()).await;
    let (answers, _) = answers(&came, &[false]);
    assert!(matches!(answers[..], [(200, _)]), "{came:?}");
}

/// What a proxy must not pass on is nothing that it would pass on anyway.
#[tokio::test(flavor = "multi_thread")]
async fn fields_that_a_client_names_as_its_own_go_no_further_and_break_nothing() {
    for place in [Place::Target, Place::Fill, Place::Order, Place::Cached, Place::Directory] {
        for named in [
            "close, x-forwarded-for",
            "close, X-Forwarded-For, x-forwarded-proto, x-forwarded-host, forwarded",
            "close, host",
            "close, content-length, range, etag",
            "close, :path, :authority",
            "close, \"x-forwarded-for\"",
            "close, x secret, , ;",
            "close, x-secret",
            "close, upgrade",
            "close, cdn-loop, via",
        ] {
            let scene = Scene::new(place).await;
            let fields = format!(
                "connection: {named}\r\nx-secret: here\r\nupgrade: h2c\r\nrange: bytes=0-\r\n"
            );
            let request = head("GET", &format!("/{}", scene.name), &fields);
            let came = say(&scene.edge, &[request.as_bytes()]).await;
            let (answers, _) = answers(&came, &[false]);
            let [(206, body)] = answers[..] else { panic!("{place:?} {named}: {came:?}") };
            assert!(body == CONTENT.all(), "{place:?} {named}");
            if place == Place::Target {
                let seen = scene.origin.seen();
                let last = seen.iter().rfind(|request| request.path().ends_with(&scene.name));
                let last = last.expect("asked");
                assert_eq!(last.header("x-secret"), None, "{named}");
                assert_eq!(last.header("x-forwarded-for"), Some("127.0.0.1"), "{named}");
                assert!(last.header("cdn-loop").is_some(), "{named}");
                assert_eq!(last.header("host"), Some(&*scene.origin.address().to_string()));
            }
        }
    }
}
