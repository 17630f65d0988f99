//! JSON-RPC, asked by clients that are odd, slow or hostile.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::support::client::{Answer, Ask, connect, raw, read_head};
use super::support::edge::Edge;
use super::support::speaker::{Say, SpeakerNode, asked, config};
use super::support::{eventually, full, h2};

const ON: &str = "rpc_proxy: {enabled: true}";

fn json_of(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

fn call(method: &str, id: impl Into<Value>) -> Value {
    json!({ "jsonrpc": "2.0", "id": id.into(), "method": method })
}

async fn edge_before(extra: &str, node: &SpeakerNode) -> Edge {
    let edge = Edge::start(&config(extra, &[&[node]]));
    let name = full(1000).parse().expect("a name");
    edge.sees("the node is listed", |view| !view.sources(&name).is_empty()).await;
    edge
}

/// A node that answers every call with its own name for the method.
async fn echo() -> SpeakerNode {
    SpeakerNode::run(&full(1000), |request| {
        let method = asked(request)["method"].clone();
        Say::result(request, method)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_judged_is_what_a_node_is_asked() {
    let node = echo().await;
    let edge = edge_before("rpc_proxy: {enabled: true, methods: [getSlot]}", &node).await;
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for (body, expected) in [
        // A name is compared after its escapes are undone, and goes on without them.
        (r#"{"jsonrpc":"2.0","id":1,"method":"get\u0053lot"}"#.to_owned(), None),
        (r#"{"jsonrpc":"2.0","id":1,"method":"getSlot\u0000"}"#.to_owned(), Some(-32601)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"\ud800"}"#.to_owned(), Some(-32600)),
        // Of a key that comes twice two readers could take one each.
        (r#"{"jsonrpc":"2.0","id":1,"method":"getSlot","method":"stop"}"#.to_owned(), Some(-32600)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"stop","method":"getSlot"}"#.to_owned(), Some(-32600)),
        (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"getSlot"}"#.to_owned(), Some(-32600)),
        (r#"{"jsonrpc":"2.0","id":1,"method":["getSlot"]}"#.to_owned(), Some(-32600)),
        (r#"["2.0",1,"getSlot",[]]"#.to_owned(), Some(-32600)),
        (r#"[["2.0",1,"getSlot"]]"#.to_owned(), Some(-32600)),
        (format!(r#"{{"jsonrpc":"2.0","id":1,"method":"getSlot","params":{}}}"#, deep(64)), None),
        (
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"getSlot","params":{}}}"#, deep(20_000)),
            Some(-32600),
        ),
        (format!(r#"{{"jsonrpc":"2.0","method":"getSlot","id":{}}}"#, deep(20_000)), Some(-32600)),
        (deep(20_000), Some(-32600)),
        (deep(20_000)[1..].to_owned(), Some(-32700)),
    ] {
        let before = node.posts();
        let answer = edge.ask(Ask::post("/", body.clone())).await;
        assert_eq!(answer.status, 200);
        let mut answer = json_of(&answer);
        if let Value::Array(answers) = &answer {
            answer = answers[0].clone();
        }
        let shown = &body[..body.len().min(90)];
        let code = answer["error"]["code"].as_i64();
        assert_eq!(code, expected, "{shown}: {answer}");
        let asked = usize::from(expected.is_none());
        assert_eq!(node.posts() - before, asked, "{shown}");
    }
    for request in node.seen() {
        assert_eq!(asked(&request)["method"], "getSlot");
    }
    let mut broken = br#"{"jsonrpc":"2.0","id":"x","method":"getSlot"}"#.to_vec();
    broken[23] = 0xff;
    let answer = edge.ask(Ask::post("/", broken)).await;
    assert_eq!(json_of(&answer)["error"]["code"], -32700, "no UTF-8");
    let gzip = Ask::post("/", [0x1f, 0x8b, 8, 0, 0]).with("content-encoding", "gzip");
    assert_eq!(json_of(&edge.ask(gzip).await)["error"]["code"], -32700);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_comes_back_byte_by_byte() {
    let node = echo().await;
    let edge = edge_before(ON, &node).await;
    let long = format!("\"{}\"", "x".repeat(40_000));
    for id in [
        "0",
        "-0",
        "1.10",
        "1e2",
        "1E+400",
        "18446744073709551616",
        "123456789012345678901234567890.000",
        "null",
        r#""""#,
        r#""\u0041\ud83d\ude00\/""#,
        &*long,
    ] {
        for (method, is_result) in [("getSlot", true), ("stop", false)] {
            let body = format!(r#"{{"jsonrpc":"2.0","method":"{method}","id":{id}}}"#);
            let answer = edge.ask(Ask::post("/", body)).await;
            let text = String::from_utf8(answer.body).expect("text");
            let shown = &id[..id.len().min(50)];
            assert!(text.ends_with(&format!(",\"id\":{id}}}")), "{shown}: {text:.200}");
            assert_eq!(text.starts_with(r#"{"jsonrpc":"2.0","result":"#), is_result, "{shown}");
        }
    }
    // What a node hears is no longer for that.
    for request in node.seen() {
        assert!(request.body.len() < 100);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_not_longer_than_the_request() {
    let node = echo().await;
    let edge = edge_before(ON, &node).await;
    // Numbers that another writer would spell out.
    let numbers = vec!["1e9"; 10_000].join(",");
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"getSlot","params":[{numbers}]}}"#);
    let answer = edge.ask(Ask::post("/", body.clone())).await;
    assert_eq!(json_of(&answer)["result"], "getSlot");
    let seen = node.seen();
    assert!(seen[0].body.len() <= body.len(), "{} > {}", seen[0].body.len(), body.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_ends_where_all_agree_that_it_ends() {
    let node = echo().await;
    let edge = edge_before(ON, &node).await;
    let inner = call("getVersion", 2).to_string();
    let hidden =
        format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{inner}", inner.len());
    let body = call("getSlot", 1).to_string();
    let (length, hex) = (body.len(), format!("{:x}", body.len()));
    for (heads, sent, status) in [
        // Both: the chunks count, and the connection ends.
        (
            format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n"),
            format!("{hex}\r\n{body}\r\n0\r\n\r\n{hidden}"),
            "200",
        ),
        (format!("content-length: {length}\r\ncontent-length: 5\r\n"), body.clone(), "400"),
        (format!("content-length: +{length}\r\n"), body.clone(), "400"),
        ("transfer-encoding: chunked, gzip\r\n".to_owned(), body.clone(), "400"),
        (
            "transfer-encoding: chunked\r\n".to_owned(),
            format!("zz\r\n{body}\r\n0\r\n\r\n{hidden}"),
            "400",
        ),
    ] {
        let request = format!("POST / HTTP/1.1\r\nhost: x\r\n{heads}\r\n{sent}");
        let answer = raw(edge.address, request.as_bytes()).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{heads}{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{heads}{answer}");
        let ends = answer.to_ascii_lowercase().contains("connection: close");
        assert!(ends, "nobody knows what comes next: {heads}{answer}");
    }
    for request in node.seen() {
        assert_eq!(asked(&request)["method"], "getSlot", "what was hidden is no request");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_http_1_0_gets_no_interim_answer() {
    let node = echo().await;
    let edge = edge_before(ON, &node).await;
    let body = call("getSlot", 1).to_string();
    let request = |version: &str, expect: &str| {
        let length = body.len();
        format!(
            "POST / HTTP/{version}\r\nhost: x\r\nexpect: {expect}\r\nconnection: close\r\n\
             content-length: {length}\r\n\r\n{body}"
        )
    };
    for (version, expect, interim) in [
        ("1.1", "100-continue", true),
        ("1.1", "100-Continue", true),
        ("1.0", "100-continue", false),
        ("1.1", "x", false),
    ] {
        let answer = raw(edge.address, request(version, expect).as_bytes()).await;
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(answer.contains(" 100 "), interim, "{version} {expect}: {answer}");
        assert!(answer.contains(" 200 ") && answer.ends_with("\"id\":1}"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_asks_as_http_1_does() {
    let node = echo().await;
    let edge = edge_before(&format!("{ON}\nserver: {{h2c: true}}"), &node).await;
    let body = call("getSlot", 1).to_string();
    for expects in [false, true] {
        let mut ask = Ask::post("/", body.clone());
        if expects {
            ask = ask.with("expect", "100-continue");
        }
        let answer = h2::send(ask, edge.address).await;
        assert_eq!((answer.status, &json_of(&answer)["result"]), (200, &json!("getSlot")));
    }
    let answer = h2::send(Ask::post("/", " ".repeat(60_000)), edge.address).await;
    assert_eq!(answer.status, 413, "{}", String::from_utf8_lossy(&answer.body));
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_first_probe_a_call_is_told_that_no_node_is_well() {
    let node = echo().await;
    let text = config(ON, &[&[&node]]).replace(ON, &format!("{ON}\ndefault_group: a"));
    let edge = Edge::start_unprobed(&text);
    let batch = json!([call("getSlot", 1), call("getHighestSnapshotSlot", "2"), call("stop", 3)]);
    for (path, status) in [("/", 200), ("/?group=a", 200), ("/?group=b", 404)] {
        let answer = edge.ask(Ask::post(path, batch.to_string())).await;
        assert_eq!(answer.status, status, "{path}");
        if status == 200 {
            let answer = json_of(&answer);
            let found: Vec<_> = answer
                .as_array()
                .expect("a batch")
                .iter()
                .map(|answer| (answer["error"]["code"].clone(), answer["id"].clone()))
                .collect();
            let expected = [(-32005, json!(1)), (-32008, json!("2")), (-32601, json!(3))]
                .map(|(code, id)| (json!(code), id));
            assert_eq!(found, expected, "{path}");
        }
    }
    assert_eq!(edge.get("/health").await.body, b"unknown");
    assert_eq!(edge.get("/genesis.tar.bz2").await.status, 404);
}

/// Bytes of an answer that no buffer of a connection takes in.
const LARGE: usize = 12 << 20;

/// Asks for a large answer and takes nothing of it.
async fn ask_and_sleep(edge: &Edge, client: u8) -> TcpStream {
    let mut stream = connect([127, 0, 1, client].into(), edge.address).await;
    ask_for_large(&mut stream).await;
    stream
}

async fn ask_for_large(stream: &mut TcpStream) {
    // Unlike any other one, or a node would be asked once for all of them.
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let mut body = call("getClusterNodes", 1);
    body["params"] = json!([CALLS.fetch_add(1, Ordering::Relaxed)]);
    let body = body.to_string();
    let length = body.len();
    let request = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.expect("sent");
}

async fn large() -> SpeakerNode {
    let result = "x".repeat(LARGE);
    SpeakerNode::run(&full(1000), move |request| match asked(request)["method"].as_str() {
        Some("getClusterNodes") => Say::result(request, &*result),
        _ => Say::result(request, "small"),
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_takes_hold_a_bounded_memory() {
    let node = large().await;
    let edge = edge_before(ON, &node).await;
    let ask = async |client: u8, method: &str| {
        let ask = Ask::post("/", call(method, 1).to_string()).from(client);
        json_of(&edge.ask(ask).await)
    };
    let mut sleepers = Vec::new();
    // One client has its share, and not more.
    for _ in 0..3 {
        sleepers.push(ask_and_sleep(&edge, 1).await);
    }
    eventually("the first answer is there", || async { node.posts() > 0 }).await;
    // Once its answers are there, which takes a while where much else runs.
    eventually("its share is taken", || async {
        ask(1, "getClusterNodes").await["error"]["code"] == -32005
    })
    .await;
    assert_eq!(ask(1, "getSlot").await["result"], "small");
    assert_eq!(ask(2, "getClusterNodes").await["result"].as_str().map(str::len), Some(LARGE));
    // All together have theirs.
    for client in 2..10 {
        sleepers.push(ask_and_sleep(&edge, client).await);
    }
    // By a few more, where some of those were refused since too many were made ready at once.
    let mut others = 21..60;
    while ask(20, "getClusterNodes").await["error"]["code"] != -32005 {
        let other = others.next().expect("all is taken by then");
        sleepers.push(ask_and_sleep(&edge, other).await);
    }
    assert_eq!(ask(20, "getSlot").await["result"], "small", "what is small is always answered");
    drop(sleepers);
    eventually("what was taken is free", || async {
        ask(1, "getClusterNodes").await["result"].is_string()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_its_answer_too_slowly_is_left() {
    let node = large().await;
    let text = config(ON, &[&[&node]]);
    let limits = "limits: {send_timeout: 1s, min_send_rate: 100MiB/s, ";
    let edge = Edge::start(&text.replace("limits: {", limits));
    let name = full(1000).parse().expect("a name");
    edge.sees("the node is listed", |view| !view.sources(&name).is_empty()).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    // A small one, so that what is taken is missed at once.
    socket.set_recv_buffer_size(64 << 10).expect("an option");
    let mut stream = socket.connect(edge.address).await.expect("connected");
    ask_for_large(&mut stream).await;
    let answer = read_head(&mut stream, false).await;
    assert_eq!(answer.status, 200);
    // So fast that no piece takes 1 s (the system waits for a third of its buffer, a megabyte and
    // more), and so slowly that all of it takes several.
    let (began, mut taken) = (Instant::now(), answer.body.len());
    let mut piece = vec![0; 32 << 10];
    while (taken as u64) < answer.length() {
        if began.elapsed() < Duration::from_millis(2500) {
            tokio::time::sleep(Duration::from_millis(11)).await;
        }
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => break,
            Ok(count) => taken += count,
        }
    }
    assert!((taken as u64) < answer.length(), "short of its length");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_does_not_have_all_the_questions() {
    let node = SpeakerNode::run(&full(1000), |request| {
        let slow = asked(request)["method"] == "getClusterNodes";
        let pause = Duration::from_millis(if slow { 600 } else { 0 });
        Say::Late(pause, Box::new(Say::result(request, "done")))
    })
    .await;
    let edge = edge_before(ON, &node).await;
    let mut sleepers = Vec::new();
    for _ in 0..100 {
        sleepers.push(ask_and_sleep(&edge, 1).await);
    }
    eventually("they are asked", || async { node.posts() >= 8 }).await;
    let began = Instant::now();
    let ask = Ask::post("/", call("getSlot", 1).to_string()).from(2);
    assert_eq!(json_of(&edge.ask(ask).await)["result"], "done");
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
}
