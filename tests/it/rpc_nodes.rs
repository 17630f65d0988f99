//! JSON-RPC, health and the genesis archive, from nodes that are broken, slow or hostile.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use snapedge::access::Fault;

use super::support::client::{Answer, Ask};
use super::support::edge::Edge;
use super::support::server::{Request, head};
use super::support::speaker::{Say, SpeakerNode, asked, config};
use super::support::tls::{Authority, Front};
use super::support::{eventually, full};

const ON: &str = "rpc_proxy: {enabled: true}";
/// Addresses of clients that together meet every node first.
const CLIENTS: u8 = 20;

fn call(method: &str, id: impl Into<Value>) -> Value {
    // Unlike any other one, so that its answer is not known from before.
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let params = json!([CALLS.fetch_add(1, Ordering::Relaxed)]);
    json!({ "jsonrpc": "2.0", "id": id.into(), "method": method, "params": params })
}

fn json_of(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

async fn post_from(edge: &Edge, client: u8, body: impl ToString) -> Value {
    let answer = edge.ask(Ask::post("/", body.to_string()).from(client)).await;
    assert_eq!(answer.status, 200, "{}", answer.head);
    json_of(&answer)
}

async fn post(edge: &Edge, body: impl ToString) -> Value {
    post_from(edge, 0, body).await
}

/// A node that tells its name whatever it is asked.
async fn named(name: &'static str) -> SpeakerNode {
    SpeakerNode::run(&full(1000), move |request| Say::result(request, name)).await
}

/// Waits until all nodes are listed: before that the place of each was filled.
async fn listed(edge: &Edge, nodes: &[&SpeakerNode]) {
    let name = full(1000).parse().expect("a name");
    let all = nodes.len();
    edge.sees("all nodes are listed", |view| view.sources(&name).len() == all).await;
}

async fn edge_before(extra: &str, nodes: &[&SpeakerNode]) -> Edge {
    let edge = Edge::start(&config(extra, &[nodes]));
    listed(&edge, nodes).await;
    edge
}

/// A client whose calls go to the node of this name first.
async fn client_of(edge: &Edge, name: &str) -> u8 {
    for client in 0..CLIENTS {
        if post_from(edge, client, call("getSlot", 1)).await["result"] == name {
            return client;
        }
    }
    panic!("no client of `{name}`");
}

fn unhealthy(id: impl Into<Value>) -> Value {
    let data = json!({ "numSlotsBehind": null });
    let error = json!({ "code": -32005, "message": "Node is unhealthy", "data": data });
    json!({ "jsonrpc": "2.0", "error": error, "id": id.into() })
}

type Script = fn(&Request) -> Say;

/// Ways to answer a POST that are no answers, each once and of two nodes.
fn no_answers() -> Vec<(&'static str, Script)> {
    vec![
        ("a page", |_| Say::ok("<html>")),
        ("nothing", |_| Say::ok("")),
        ("an empty object", |_| Say::ok("{}")),
        ("another id", |_| Say::ok(r#"{"jsonrpc":"2.0","result":1,"id":5}"#)),
        ("no id", |_| Say::ok(r#"{"jsonrpc":"2.0","result":1}"#)),
        ("a list", |_| Say::ok(r#"[{"jsonrpc":"2.0","result":1,"id":0}]"#)),
        ("an array in place of the object", |_| Say::ok(r#"[0,"bad"]"#)),
        ("neither result nor error", |_| Say::ok(r#"{"jsonrpc":"2.0","id":0}"#)),
        ("two results", |_| Say::ok(r#"{"id":0,"result":1,"result":2}"#)),
        ("more behind the answer", |_| Say::ok(r#"{"id":0,"result":1}{"id":0,"result":2}"#)),
        ("an encoding", |_| {
            let gzip = vec![("content-encoding", "gzip".to_owned())];
            Say::Answer(200, gzip, vec![0x1f, 0x8b, 8, 0])
        }),
        ("a redirect", |_| Say::Answer(307, vec![("location", "/".to_owned())], Vec::new())),
        ("an error of the server", |request| {
            let Say::Answer(_, _, body) = Say::result(request, "bad") else { panic!() };
            Say::status(500, body)
        }),
        ("too many requests", |_| Say::status(429, "")),
        ("no content", |_| Say::status(204, "")),
        ("a switch of protocols", |_| {
            Say::Raw(head("101 Switching", &[("upgrade", "x".to_owned())]))
        }),
        ("no HTTP", |_| Say::Raw(b"SSH-2.0-x\r\n".to_vec())),
        ("a short body", |_| {
            let mut bytes = head("200 OK", &[("content-length", "100".to_owned())]);
            bytes.extend(br#"{"jsonrpc":"2.0","result":"bad","id":0}"#);
            Say::Raw(bytes)
        }),
        ("the end", |_| Say::Nothing),
        ("a length beyond all", |_| {
            let length = ("content-length", (1_u64 << 50).to_string());
            Say::Endless(head("200 OK", &[length]), vec![b' '; 1 << 16], Duration::ZERO)
        }),
        ("no end", |_| {
            let chunked = ("transfer-encoding", "chunked".to_owned());
            let chunk = [b"10000\r\n".to_vec(), vec![b' '; 1 << 16], b"\r\n".to_vec()].concat();
            Say::Endless(head("200 OK", &[chunked]), chunk, Duration::ZERO)
        }),
        ("a head without end", |_| {
            Say::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), b"a: b\r\n".to_vec(), Duration::ZERO)
        }),
        ("hints", |_| {
            let hint = head("103 Early Hints", &[("link", "x".to_owned())]);
            Say::Endless(Vec::new(), hint, Duration::from_millis(20))
        }),
        ("a byte now and then", |_| {
            let length = ("content-length", "1000".to_owned());
            Say::Endless(head("200 OK", &[length]), b" ".to_vec(), Duration::from_millis(50))
        }),
        ("silence", |_| Say::Late(Duration::from_secs(3600), Box::new(Say::Nothing))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_node_says_the_next_one_answers_and_without_one_the_client_is_told() {
    for (what, say) in no_answers() {
        let (bad, good) = (named("bad").await, named("good").await);
        let edge = edge_before(ON, &[&bad, &good]).await;
        let client = client_of(&edge, "bad").await;
        bad.say(say);
        let before = (bad.posts(), Instant::now());
        assert_eq!(post_from(&edge, client, call("getSlot", 1)).await["result"], "good", "{what}");
        assert!(bad.posts() > before.0, "it was asked: {what}");
        assert!(before.1.elapsed() < Duration::from_secs(3), "{what}");
        good.say(say);
        let answer = post_from(&edge, client, call("getSlot", "x")).await;
        let error = &answer["error"]["code"];
        assert!(*error == -32005 || *error == -32603, "{what}: {answer}");
        assert_eq!(answer["id"], "x", "{what}");
        assert!(before.1.elapsed() < Duration::from_secs(6), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_fails_in_calls_rests_though_its_probes_are_well() {
    let (bad, good) = (named("bad").await, named("good").await);
    let edge = edge_before(ON, &[&bad, &good]).await;
    let client = client_of(&edge, "bad").await;
    bad.say(|_| Say::Nothing);
    assert_eq!(post_from(&edge, client, call("getSlot", 1)).await["result"], "good");
    let asked = bad.posts();
    for _ in 0..5 {
        assert_eq!(post_from(&edge, client, call("getSlot", 1)).await["result"], "good");
    }
    assert_eq!(bad.posts(), asked, "it rests");
    bad.say(|request| Say::result(request, "bad"));
    eventually("it is asked again", || async {
        post_from(&edge, client, call("getSlot", 1)).await["result"] == "bad"
    })
    .await;
}

/// What a client can bring about must not take a node from the others.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_question_is_not_the_nodes_fault() {
    let no_batches =
        r#"{"jsonrpc":"2.0","error":{"code":-32600,"message":"no batches"},"id":null}"#;
    let large = format!(r#"{{"jsonrpc":"2.0","result":"{}","id":0}}"#, "x".repeat(16 << 20));
    let unknown = r#"{"jsonrpc":"2.0","error":{"code":-32601,"message":"what?"},"id":0}"#;
    let refused = json!({ "code": -32600, "message": "no batches" });
    let too_long = json!({ "code": -32600, "message": "Request body is too large" });
    let too_large = json!({ "code": -32603, "message": "Answer is too large" });
    for (status, says, expected) in [
        (200, no_batches, &refused),
        (400, no_batches, &refused),
        (413, "Payload Too Large", &too_long),
        (200, &*large, &too_large),
        (400, unknown, &json!({ "code": -32601, "message": "what?" })),
        (404, unknown, &json!({ "code": -32601, "message": "what?" })),
    ] {
        let (first, second) = (named("first").await, named("second").await);
        let edge = edge_before(ON, &[&first, &second]).await;
        let client = client_of(&edge, "first").await;
        for node in [&first, &second] {
            let (says, name) = (
                says.to_owned(),
                if node.address() == first.address() { "first" } else { "second" },
            );
            node.say(move |request| match asked(request)["method"].as_str() {
                Some("getSlot") => Say::result(request, name),
                _ => Say::status(status, says.clone()),
            });
        }
        let answer = post_from(&edge, client, call("getVersion", 7)).await;
        assert_eq!(answer, json!({ "jsonrpc": "2.0", "error": expected, "id": 7 }), "{status}");
        let next = post_from(&edge, client, call("getSlot", 1)).await;
        assert_eq!(next["result"], "first", "it does not rest after {status} {expected}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_one_node_refuses_is_put_to_the_next() {
    let (first, second) = (named("first").await, named("second").await);
    let edge = edge_before(ON, &[&first, &second]).await;
    let client = client_of(&edge, "first").await;
    first.say(|request| match asked(request) {
        Value::Array(_) => {
            Say::ok(r#"{"jsonrpc":"2.0","error":{"code":-32600,"message":"x"},"id":null}"#)
        }
        _ => Say::result(request, "first"),
    });
    let batch = json!([call("getSlot", 1), call("getVersion", 2)]);
    let answer = post_from(&edge, client, batch).await;
    assert_eq!((&answer[0]["result"], &answer[1]["result"]), (&json!("second"), &json!("second")));
    let alone = post_from(&edge, client, call("getSlot", 1)).await;
    assert_eq!(alone["result"], "first");
}

/// A server may close a connection that was kept in the very moment in which it is used.
#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_breaks_costs_no_client_anything() {
    let node = named("only").await;
    let edge = edge_before(ON, &[&node]).await;
    let broken = AtomicBool::new(false);
    node.say(move |request| {
        if broken.swap(true, Ordering::Relaxed) {
            Say::result(request, "only")
        } else {
            Say::Nothing
        }
    });
    assert_eq!(post(&edge, call("getSlot", 1)).await["result"], "only");
    assert_eq!(node.posts(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_node_and_this_process_apart_is_counted() {
    let node = named("only").await;
    let text = config(ON, &[&[&node]]).replace("kind: rpc,", "kind: rpc, bearer_auth: {token: x},");
    let edge = Edge::start(&text);
    listed(&edge, &[&node]).await;
    let count = |fault| edge.accesses.of("a").expect("the group").faults.of(fault);
    node.say(|request| Say::status(if request.method == "POST" { 401 } else { 403 }, ""));
    assert_eq!(post(&edge, call("getSlot", 1)).await, unhealthy(1));
    assert_eq!(count(Fault::Credentials), 1);
    assert_eq!(edge.get("/genesis.tar.bz2").await.status, 502);
    assert_eq!(count(Fault::Credentials), 2);

    let (trusted, foreign) = (Authority::new(), Authority::new());
    let front = Front::before(node.address(), trusted.issue(&["127.0.0.1"]).server()).await;
    let text = config(ON, &[&[&node]])
        .replace(&node.address().to_string(), &front.address.to_string())
        .replace(
            "kind: rpc,",
            &format!("kind: rpc, scheme: https, tls_config: {{{}}},", trusted.trusted()),
        )
        .replace("scrape_interval: 100ms", "scrape_interval: 1h");
    let edge = Edge::start(&text);
    listed(&edge, &[&node]).await;
    front.speak(foreign.issue(&["127.0.0.1"]).server());
    node.say(|_| Say::Nothing);
    let count = |fault| edge.accesses.of("a").expect("the group").faults.of(fault);
    eventually("no connection of before is left", || async {
        assert_eq!(post(&edge, call("getSlot", 1)).await, unhealthy(1));
        count(Fault::UnknownIssuer) > 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_the_nodes_word_and_our_own_without_one() {
    let node = named("only").await;
    let edge = edge_before(ON, &[&node]).await;
    for (says, expected) in [
        ("ok", "ok"),
        ("behind", "behind"),
        ("behind\n", "behind"),
        ("unknown", "unknown"),
        ("transaction status behind", "behind"),
        // No word of a node: what is told of the archives is told then.
        ("<html>", "ok"),
        ("", "ok"),
    ] {
        node.say(move |request| {
            assert_eq!((&*request.method, request.path()), ("GET", "/health"));
            Say::ok(says)
        });
        // Its word of before is believed for a moment.
        eventually(says, || async { edge.get("/health").await.body == expected.as_bytes() }).await;
        let answer = edge.get("/health").await;
        assert_eq!((answer.status, &*answer.body), (200, expected.as_bytes()), "{says}");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        let heads = edge.ask(Ask::head("/health")).await;
        assert_eq!((heads.status, heads.length()), (200, expected.len() as u64), "{says}");
    }
    for status in [404, 500, 503] {
        node.say(move |_| Say::status(status, "behind"));
        assert_eq!(edge.get("/health").await.body, b"ok", "{status}");
    }
    node.say(|_| Say::Late(Duration::from_secs(3600), Box::new(Say::Nothing)));
    let began = Instant::now();
    assert_eq!(edge.get("/health").await.body, b"ok");
    assert!(began.elapsed() < Duration::from_secs(2));
    let answer = edge.ask(Ask::post("/health", "")).await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));

    // Without `rpc_proxy` no node is asked.
    let before = node.seen().len();
    let edge = edge_before("", &[&node]).await;
    assert_eq!(edge.get("/health").await.body, b"ok");
    assert_eq!(node.seen().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_genesis_archive_is_a_file_of_known_length_and_no_page() {
    let node = named("only").await;
    let edge = edge_before(ON, &[&node]).await;
    let with =
        |name, value: &str| Say::Answer(200, vec![(name, value.to_owned())], b"BZh".to_vec());
    let bad: [(&str, Script); 7] = [
        ("a page", |_| {
            Say::Answer(200, vec![("content-type", "Text/HTML; x".into())], b"x".into())
        }),
        ("an encoding", |_| {
            Say::Answer(200, vec![("content-encoding", "gzip".into())], b"x".into())
        }),
        ("no length", |_| Say::Raw(b"HTTP/1.1 200 OK\r\n\r\nBZh".to_vec())),
        ("no bytes", |_| Say::ok("")),
        ("too few bytes", |_| {
            Say::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nBZh".to_vec())
        }),
        ("a redirect", |_| Say::Answer(302, vec![("location", "/x".into())], Vec::new())),
        ("no success", |_| Say::status(503, "BZh")),
    ];
    for (what, say) in bad {
        node.say(say);
        for ask in [Ask::get("/genesis.tar.bz2"), Ask::head("/genesis.tar.bz2")] {
            assert_eq!(edge.ask(ask).await.status, 502, "{what}");
        }
    }
    node.say(move |_| with("content-type", "application/octet-stream"));
    let answer = edge.get("/genesis.tar.bz2").await;
    assert_eq!((answer.status, &*answer.body), (200, &b"BZh"[..]));
    assert_eq!(answer.header("content-encoding"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_group_the_nodes_are_asked_that_hold_what_is_offered() {
    let newer = SpeakerNode::run(&full(2000), |request| Say::result(request, "newer")).await;
    let older = SpeakerNode::run(&full(1000), |request| Say::result(request, "older")).await;
    let text = config(ON, &[&[&older], &[&newer]]);
    let edge = Edge::start(&text);
    let names = [full(1000), full(2000)].map(|name| name.parse().expect("a name"));
    edge.sees("both", |view| names.iter().all(|name| !view.sources(name).is_empty())).await;
    for client in 0..CLIENTS {
        let answer = post_from(&edge, client, call("getSlot", 1)).await;
        assert_eq!(answer["result"], "newer", "short forms lead to its archive");
    }
    let of = async |edge: &Edge, path: &str| {
        json_of(&edge.ask(Ask::post(path, call("getSlot", 1).to_string())).await)["result"].clone()
    };
    assert_eq!(of(&edge, "/?group=a").await, "older");
    let edge = Edge::start(&text.replace(ON, &format!("{ON}\ndefault_group: a")));
    edge.sees("both", |view| names.iter().all(|name| !view.sources(name).is_empty())).await;
    assert_eq!(of(&edge, "/").await, "older");
    assert_eq!(of(&edge, "/?group=b").await, "newer");
}
