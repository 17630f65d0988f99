//! JSON-RPC that many ask: a node hears of it once, and a client asks as often as it may.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::support::client::{Answer, Ask};
use super::support::edge::Edge;
use super::support::server::Request;
use super::support::speaker::{Say, SpeakerNode, asked, config};
use super::support::{eventually, full};

/// More calls than any of these tests makes.
const ANY_RATE: &str = "rpc_proxy: {enabled: true, per_client_rate: 1000000/s}";
/// Long enough for all requests of a test to come meanwhile.
const PAUSE: Duration = Duration::from_millis(600);

async fn edge_before(extra: &str, nodes: &[&SpeakerNode]) -> Edge {
    let edge = Edge::start(&config(extra, &[nodes]));
    for node in nodes {
        let (name, authority) = (full(1000).parse().expect("a name"), node.address().to_string());
        edge.sees("the node is listed", |view| {
            view.sources(&name).iter().any(|source| *source.target.authority == *authority)
        })
        .await;
    }
    edge
}

/// A node that takes its time, and answers the method's name with so many bytes behind it.
async fn slow(bytes: usize) -> SpeakerNode {
    SpeakerNode::run(&full(1000), move |request| {
        let method = asked(request)["method"].as_str().unwrap_or_default().to_owned();
        Say::Late(PAUSE, Box::new(Say::result(request, method + &"-".repeat(bytes))))
    })
    .await
}

fn call(method: &str, id: impl Into<Value>) -> Value {
    json!({ "jsonrpc": "2.0", "id": id.into(), "method": method })
}

fn json_of(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

/// What a node was asked, one entry for each call.
fn calls(node: &SpeakerNode) -> Vec<Value> {
    let posts = node.seen().into_iter().filter(|request| request.method == "POST");
    let calls = |request: Request| match asked(&request) {
        Value::Array(calls) => calls,
        call => vec![call],
    };
    posts.flat_map(calls).collect()
}

/// The same call of so many at once, each under an id of its own.
async fn ask_at_once(edge: &Edge, method: &'static str, count: u16) -> Vec<(u16, Answer)> {
    let mut asking = tokio::task::JoinSet::new();
    for id in 0..count {
        let ask = Ask::post("/", call(method, id).to_string()).from(1 + (id % 8) as u8);
        let to = edge.address;
        asking.spawn(async move { (id, ask.send(to).await) });
    }
    asking.join_all().await
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_made_at_once_are_one() {
    // Of what is remembered, of what is not, and of what is large.
    for (method, bytes) in [("getSlot", 0), ("getEpochInfo", 0), ("getClusterNodes", 100_000)] {
        let node = slow(bytes).await;
        let edge = edge_before(ANY_RATE, &[&node]).await;
        let answers = ask_at_once(&edge, method, 200).await;
        let expected = method.to_owned() + &"-".repeat(bytes);
        for (id, answer) in answers {
            assert_eq!(answer.status, 200, "{method}");
            let answer = json_of(&answer);
            assert_eq!((&answer["id"], &answer["result"]), (&json!(id), &json!(expected)));
        }
        assert_eq!(calls(&node).len(), 1, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_remembered_is_not_asked_again_and_the_rest_is() {
    let node = SpeakerNode::run(&full(1000), |request| Say::result(request, 7)).await;
    let edge = edge_before(ANY_RATE, &[&node]).await;
    for (method, expected) in [
        ("getGenesisHash", 1..=1),
        ("getVersion", 1..=1),
        ("getIdentity", 1..=1),
        // It may be that 400 ms pass meanwhile.
        ("getSlot", 1..=3),
        ("getHealth", 1..=3),
        ("getEpochInfo", 12..=12),
    ] {
        for id in 0..12 {
            let answer = edge.ask(Ask::post("/", call(method, id).to_string())).await;
            assert_eq!(json_of(&answer), json!({ "jsonrpc": "2.0", "result": 7, "id": id }));
        }
        let asked = calls(&node).iter().filter(|call| call["method"] == method).count();
        assert!(expected.contains(&asked), "{method}: {asked}");
    }
    // A slot is another one soon.
    node.say(|request| Say::result(request, 8));
    eventually("the slot is the node's again", || async {
        let answer = edge.ask(Ask::post("/", call("getSlot", 1).to_string())).await;
        json_of(&answer)["result"] == 8
    })
    .await;
    // In a batch what is known is not asked, and what is there twice is asked once.
    let before = calls(&node).len();
    let batch = json!([
        call("getVersion", 1),
        call("getEpochInfo", 2),
        call("getEpochInfo", 3),
        call("getIdentity", 4),
    ]);
    let answer = json_of(&edge.ask(Ask::post("/", batch.to_string())).await);
    let results: Vec<&Value> =
        answer.as_array().into_iter().flatten().map(|it| &it["result"]).collect();
    assert_eq!(results, [7, 8, 8, 7]);
    assert_eq!(calls(&node).len() - before, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_s_page_about_its_health_is_asked_for_once() {
    let node =
        SpeakerNode::run(&full(1000), |_| Say::Late(PAUSE, Box::new(Say::ok("behind")))).await;
    let edge = edge_before(ANY_RATE, &[&node]).await;
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..100_u8 {
        let (ask, to) = (Ask::get("/health").from(1 + number % 8), edge.address);
        asking.spawn(async move { ask.send(to).await });
    }
    for answer in asking.join_all().await {
        assert_eq!((answer.status, &answer.body[..]), (200, &b"behind"[..]));
    }
    let asked = node.seen().iter().filter(|request| request.path() == "/health").count();
    assert_eq!(asked, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_asked_for_each() {
    let node = slow(0).await;
    let edge = edge_before(ANY_RATE, &[&node]).await;
    let with = |params: Value| {
        let mut call = call("getSlot", 1);
        call["params"] = params;
        call
    };
    let bodies = [
        call("getSlot", 1),
        with(json!([{ "commitment": "finalized" }])),
        with(json!([])),
        call("getEpochInfo", 1),
    ];
    let mut asking = tokio::task::JoinSet::new();
    for body in bodies {
        let (ask, to) = (Ask::post("/", body.to_string()), edge.address);
        asking.spawn(async move { ask.send(to).await });
    }
    for answer in asking.join_all().await {
        assert_eq!(answer.status, 200);
    }
    assert_eq!(calls(&node).len(), 4);
}

/// Whoever has asked for all leaves before there is an answer.
#[tokio::test(flavor = "multi_thread")]
async fn those_who_wait_for_a_client_that_leaves_get_their_answer() {
    let node = slow(0).await;
    let edge = edge_before(ANY_RATE, &[&node]).await;
    let body = call("getEpochInfo", 1).to_string();
    let mut first = TcpStream::connect(edge.address).await.expect("connected");
    let head =
        format!("POST / HTTP/1.1\r\nhost: edge\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    first.write_all(head.as_bytes()).await.expect("written");
    eventually("the node is asked", || async { node.posts() == 1 }).await;
    let others = ask_at_once(&edge, "getEpochInfo", 20);
    let leave = async {
        tokio::time::sleep(PAUSE / 4).await;
        drop(first);
    };
    let (others, ()) = tokio::join!(others, leave);
    for (id, answer) in others {
        assert_eq!(json_of(&answer)["result"], "getEpochInfo", "{id}");
    }
    assert!(node.posts() <= 2, "{}", node.posts());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_asks_as_often_as_it_may_and_others_all_the_same() {
    let node = SpeakerNode::run(&full(1000), |request| Say::result(request, 7)).await;
    let edge = edge_before("rpc_proxy: {enabled: true, per_client_rate: 10/s}", &[&node]).await;
    let ask = |id: u32, from: u8| {
        edge.ask(Ask::post("/", call("getHighestSnapshotSlot", id).to_string()).from(from))
    };
    let mut statuses = Vec::new();
    for id in 0..40 {
        statuses.push(ask(id, 1).await);
    }
    let through = statuses.iter().filter(|answer| answer.status == 200).count();
    assert!((10..40).contains(&through), "{through}");
    let refused = statuses.iter().find(|answer| answer.status == 429).expect("one too many");
    assert_eq!(refused.header("retry-after"), Some("1"), "{}", refused.head);
    assert_eq!(json_of(refused)["error"]["code"], 429);
    assert_eq!(json_of(refused)["jsonrpc"], "2.0");
    assert_eq!(ask(1, 2).await.status, 200, "another client");
    // Each call of a batch counts.
    let batch: Value = (0..10).map(|id| call("getVersion", id)).collect();
    let batches = [3, 3].map(|from| edge.ask(Ask::post("/", batch.to_string()).from(from)));
    let [first, second] = batches;
    assert_eq!((first.await.status, second.await.status), (200, 429));
    // What is no call is not counted.
    assert_eq!(edge.ask(Ask::get("/health").from(3)).await.status, 200);
    eventually("it may ask again", || async { ask(1, 1).await.status == 200 }).await;
}

/// Bodies that drip from a few addresses keep no place from anybody.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_drip_take_no_place() {
    let node = SpeakerNode::run(&full(1000), |request| Say::result(request, 7)).await;
    let rate = "rpc_proxy: {enabled: true, max_body: 1MiB, per_client_rate: 1000000/s}";
    let edge = edge_before(rate, &[&node]).await;
    let mut dripping = Vec::new();
    for number in 0..1100_u16 {
        let from = 100 + (number % 8) as u8;
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 2, from], 0).into()).expect("an address");
        let mut stream = socket.connect(edge.address).await.expect("connected");
        // Small ones and such as would take room, were they there.
        let length = if number % 2 == 0 { 500 } else { 900_000 };
        let head =
            format!("POST / HTTP/1.1\r\nhost: e\r\ncontent-length: {length}\r\n\r\n{{\"json");
        stream.write_all(head.as_bytes()).await.expect("written");
        dripping.push(stream);
    }
    for id in 0..20 {
        for ask in [
            Ask::post("/", call("getSlot", id).to_string()),
            Ask::get("/health"),
            Ask::get("/snapshot.tar.bz2"),
        ] {
            let answer = tokio::time::timeout(Duration::from_secs(2), edge.ask(ask)).await;
            let answer = answer.expect("at once");
            assert!([200, 303].contains(&answer.status), "{}", answer.head);
        }
    }
    assert_eq!(dripping.len(), 1100);
}
