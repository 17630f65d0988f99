//! JSON-RPC and the genesis archive, before nodes that answer both.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::clients::agave::recorded;
use super::support::body::Content;
use super::support::client::{Answer, Ask, connect, read_head};
use super::support::edge::{Edge, config};
use super::support::eventually;
use super::support::origin::{Fault, GENESIS_HASH, Origin, Program};
use super::support::{full, incremental};

const ON: &str = "rpc_proxy: {enabled: true}";

async fn node(archives: &[&str]) -> Origin {
    let archives: Vec<(&str, Content)> =
        archives.iter().map(|name| (*name, Content::new(1, 1000))).collect();
    Origin::run(Program::Agave, &archives).await
}

fn json_of(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

fn call(method: &str, id: impl Into<Value>) -> Value {
    json!({ "jsonrpc": "2.0", "id": id.into(), "method": method })
}

async fn post(edge: &Edge, body: impl ToString) -> Value {
    let answer = edge.ask(Ask::post("/", body.to_string())).await;
    assert_eq!(answer.status, 200, "{}", answer.head);
    assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
    json_of(&answer)
}

/// Waits until a node is asked and answers.
async fn answers(edge: &Edge) {
    eventually("a node that answers", || async {
        post(edge, call("getVersion", 1)).await["result"].is_object()
    })
    .await;
}

/// How many of the origin's requests were POSTs.
fn posts(origin: &Origin) -> usize {
    origin.seen().iter().filter(|request| request.method == "POST").count()
}

/// One answer in a connection that is kept.
async fn next(stream: &mut TcpStream, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = read_head(stream, false).await;
    while (answer.body.len() as u64) < answer.length() {
        assert!(stream.read_buf(&mut answer.body).await.expect("readable") > 0);
    }
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validator_can_start_from_an_edge() {
    let names = [full(1000), incremental(1000, 1500)];
    let names = [&*names[0], &*names[1]];
    let (first, second) = (node(&names).await, node(&names).await);
    let edge = Edge::with(ON, &[&first, &second]).await;
    answers(&edge).await;
    for round in ["both are there", "the first is dead", "the second has to do"] {
        drop(connect([127, 0, 0, 1].into(), edge.address).await);
        let address = edge.address.to_string();
        let calls: Vec<String> =
            recorded(2).iter().map(|call| call.replace("NODE", &address)).collect();
        assert_eq!(calls.len(), 3);
        let mut stream = connect([127, 0, 0, 1].into(), edge.address).await;
        let version = json_of(&next(&mut stream, &calls[0]).await);
        assert_eq!(version["result"], json!({ "solana-core": "3.0.10" }), "{round}: {version}");
        assert_eq!(version["id"], 0);

        let ask = recorded(3)[0].replace("NODE", &address);
        let mut other = connect([127, 0, 0, 1].into(), edge.address).await;
        let genesis = next(&mut other, &format!("{}\r\n\r\n", ask.trim_end())).await;
        assert_eq!((genesis.status, genesis.length()), (200, 328_348), "{round}");
        assert!(genesis.body == Content::new(1, 328_348).all());

        let hash = json_of(&next(&mut stream, &calls[1]).await);
        assert_eq!((&hash["result"], &hash["id"]), (&json!(GENESIS_HASH), &json!(1)), "{round}");
        let slot = json_of(&next(&mut stream, &calls[2]).await);
        assert_eq!((&slot["result"], &slot["id"]), (&json!(1010), &json!(2)), "{round}");
        for name in names {
            let answer = edge.get(&format!("/{name}")).await;
            assert_eq!((answer.status, answer.body.len()), (200, 1000), "{round}");
        }
        // At once, and again when the probes have found out.
        first.stop().await;
        if round != "both are there" {
            second.restart().await;
        }
    }
    second.stop().await;
    // Of what was not asked before: what a node said of itself is believed for a minute.
    let answer = post(&edge, call("getEpochInfo", 4)).await;
    let error = json!({
        "code": -32005, "message": "Node is unhealthy", "data": { "numSlotsBehind": null },
    });
    assert_eq!(answer, json!({ "jsonrpc": "2.0", "error": error, "id": 4 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_listed_reaches_a_node() {
    let origin = node(&[&full(1000)]).await;
    let edge = Edge::with("rpc_proxy: {enabled: true, methods: [getVersion]}", &[&origin]).await;
    answers(&edge).await;
    let before = posts(&origin);
    for method in ["getSlot", "getHighestSnapshotSlot", "getversion", "", "getVersion "] {
        for id in [json!(7), json!("seven"), Value::Null] {
            let error = json!({ "code": -32601, "message": "Method not found" });
            let expected = json!({ "jsonrpc": "2.0", "error": error, "id": id });
            assert_eq!(post(&edge, call(method, id)).await, expected, "{method}");
        }
    }
    for (body, code) in [
        ("{", -32700),
        ("", -32700),
        ("getVersion", -32700),
        ("[]", -32600),
        ("3", -32600),
        (r#"{"id":1,"method":"getVersion"}"#, -32600),
    ] {
        assert_eq!(post(&edge, body).await["error"]["code"], code, "{body}");
    }
    assert_eq!(posts(&origin), before, "not a word to the node");
    let request = origin.seen().into_iter().find(|request| request.method == "POST");
    let request = request.expect("it was asked");
    assert_eq!((&*request.target, request.header("cookie")), ("/", None));
    assert_eq!(request.header("content-type"), Some("application/json"));
    for method in ["GET", "HEAD", "PUT", "OPTIONS"] {
        let answer = edge.ask(Ask::method(method, "/")).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{method}");
    }
    assert_eq!(edge.ask(Ask::post("/?group=c", "{}")).await.status, 404);
    let answer = edge.ask(Ask::post("/genesis.tar.bz2", "")).await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));
    assert_eq!(edge.get("/health").await.body, b"ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_and_batches_come_back_as_they_were_sent() {
    let origin = node(&[&full(1000), &incremental(1000, 1200)]).await;
    let edge = Edge::with("rpc_proxy: {enabled: true, max_batch: 6}", &[&origin]).await;
    answers(&edge).await;
    for id in [json!(0), json!(u64::MAX), json!(-3), json!(1.5), json!("a\"b"), Value::Null] {
        let answer = post(&edge, call("getSlot", id.clone())).await;
        assert_eq!(answer, json!({ "jsonrpc": "2.0", "result": 1010, "id": id }));
    }
    let before = posts(&origin);
    let notification = json!({ "jsonrpc": "2.0", "method": "getSlot" });
    for body in [notification.clone(), json!([notification, notification])] {
        let answer = edge.ask(Ask::post("/", body.to_string())).await;
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{body}");
    }
    assert_eq!(posts(&origin), before);

    let batch = json!([
        call("getSlot", "same"),
        call("getHighestSnapshotSlot", "same"),
        notification,
        call("getBalance", 3),
        call("getEpochInfo", "same"),
        5,
    ]);
    let answer = edge.ask(Ask::post("/", batch.to_string())).await;
    assert!(String::from_utf8_lossy(&answer.body).contains(":18446744073709551615"));
    let not_found = json!({ "code": -32601, "message": "Method not found" });
    let invalid = json!({ "code": -32600, "message": "Invalid request" });
    let slots = json!({ "full": 1000, "incremental": 1200 });
    let epoch = json!({ "epoch": u64::MAX, "absoluteSlot": 7 });
    let expected = json!([
        { "jsonrpc": "2.0", "result": 1010, "id": "same" },
        { "jsonrpc": "2.0", "result": slots, "id": "same" },
        { "jsonrpc": "2.0", "error": not_found, "id": 3 },
        { "jsonrpc": "2.0", "result": epoch, "id": "same" },
        { "jsonrpc": "2.0", "error": invalid, "id": null },
    ]);
    assert_eq!(json_of(&answer), expected);
    assert_eq!(posts(&origin), before + 1, "one question for all of them");

    let large: Vec<Value> = (0..7).map(|id| call("getSlot", id)).collect();
    let answer = post(&edge, Value::from(large)).await;
    assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(-32600), &Value::Null));
    assert_eq!(posts(&origin), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_bounded_in_size_and_time() {
    let origin = node(&[&full(1000)]).await;
    let edge = Edge::with("rpc_proxy: {enabled: true, max_body: 1000B}", &[&origin]).await;
    answers(&edge).await;
    let padded = |length: usize| {
        let body = call("getSlot", 1).to_string();
        format!("{body}{}", " ".repeat(length - body.len()))
    };
    assert_eq!(post(&edge, padded(1000)).await["result"], 1010);
    for length in [1001, 60_000, 3 << 20] {
        let answer = edge.ask(Ask::post("/", padded(length))).await;
        assert_eq!(answer.status, 413, "{length}");
        let answer = json_of(&answer);
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(-32600), &Value::Null));
    }
    for (length, status) in [(1000, 100), (1001, 413)] {
        let waits = Ask::post("/", padded(length)).with("expect", "100-continue");
        let (first, _) = waits.begin(edge.address).await;
        assert_eq!(first.status, status, "{}", first.head);
    }

    let chunked = |body: &str| {
        let size = body.len();
        format!(
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{size:x}\r\n{body}\r\n\
             0\r\n\r\n"
        )
    };
    let mut stream = connect([127, 0, 0, 1].into(), edge.address).await;
    for (body, status) in [(padded(1000), 200), (padded(200), 200), (padded(1001), 413)] {
        assert_eq!(next(&mut stream, &chunked(&body)).await.status, status, "{}", body.len());
    }

    // Silence in the middle of a body.
    let mut stream = connect([127, 0, 0, 1].into(), edge.address).await;
    let half = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 60\r\n\r\n{\"jsonrpc\":";
    let answer = next(&mut stream, half).await;
    assert_eq!(answer.status, 408, "{}", answer.head);
    assert_eq!(json_of(&answer)["error"]["code"], -32600);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_highest_slots_are_those_that_the_short_forms_lead_to() {
    let (behind, ahead) =
        (node(&[&full(1000), &incremental(1000, 1200)]).await, node(&[&full(2000)]).await);
    let empty = Edge::start(&config(ON, &[&[&node(&[]).await]]));
    let no_snapshot = json!({ "code": -32008, "message": "No snapshot" });
    let answer = post(&empty, call("getHighestSnapshotSlot", 1)).await;
    assert_eq!(answer, json!({ "jsonrpc": "2.0", "error": no_snapshot, "id": 1 }));

    let edge = Edge::start(&config(ON, &[&[&behind], &[&ahead]]));
    edge.knows(&behind).await;
    edge.knows(&ahead).await;
    // The second node's full archive has no incremental one: a group of its own offers it, the
    // group of both would not.
    let both = Edge::with(ON, &[&behind, &ahead]).await;
    for (edge, group) in [(&edge, ""), (&edge, "?group=a"), (&edge, "?group=b"), (&both, "")] {
        let ask = Ask::post(format!("/{group}"), call("getHighestSnapshotSlot", 1).to_string());
        let told = json_of(&edge.ask(ask).await)["result"].clone();
        let mut led = json!({ "full": null, "incremental": null });
        for (key, form) in [("full", "snapshot"), ("incremental", "incremental-snapshot")] {
            let answer = edge.get(&format!("/{form}.tar.bz2{group}")).await;
            let Some(location) = answer.header("location") else { continue };
            let at = if key == "full" { 1 } else { 3 };
            let slot: u64 = location.split('-').nth(at).expect("a slot").parse().expect("one");
            led[key] = slot.into();
        }
        assert_eq!(told, led, "{group}");
    }
    let told = post(&both, call("getHighestSnapshotSlot", 1)).await["result"].clone();
    assert_eq!(told, json!({ "full": 1000, "incremental": 1200 }), "not what a node would say");
    let never_asked = |origin: &Origin| {
        let highest = |body: &[u8]| String::from_utf8_lossy(body).contains("getHighest");
        origin.seen().iter().all(|request| !highest(&request.body))
    };
    assert!(never_asked(&behind) && never_asked(&ahead));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_node_answers_where_one_does_not() {
    let names = [full(1000)];
    let (first, second) = (node(&[&names[0]]).await, node(&[&names[0]]).await);
    first.begin_at(100);
    second.begin_at(200);
    let edge = Edge::with(ON, &[&first, &second]).await;
    answers(&edge).await;
    // Both are in use: each client stays with one of them.
    let identity = async |client: u8| {
        let ask = Ask::post("/", call("getIdentity", 1).to_string()).from(client);
        json_of(&edge.ask(ask).await)["result"]["identity"].as_str().map(str::to_owned)
    };
    eventually("both are asked", || async {
        let mut found = Vec::new();
        for client in 0..20 {
            found.push(identity(client).await);
        }
        found.contains(&Some("100".to_owned())) && found.contains(&Some("200".to_owned()))
    })
    .await;
    // What a node answers with an error is its answer.
    let says = r#"{"jsonrpc":"2.0","error":{"code":-32005,"message":"behind","data":1},"id":0}"#;
    second.say(says);
    first.stop().await;
    let answer = post(&edge, call("getHealth", "h")).await;
    let error = json!({ "code": -32005, "message": "behind", "data": 1 });
    assert_eq!(answer, json!({ "jsonrpc": "2.0", "error": error, "id": "h" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_nodes_that_answered_their_last_probe_are_asked() {
    let origin = node(&[&full(1000)]).await;
    let name = full(900);
    let sidecar = Origin::run(Program::Sidecar, &[(&name, Content::new(1, 10))]).await;
    let edge = Edge::start(&config(ON, &[&[&sidecar], &[&origin]]));
    edge.knows(&origin).await;
    edge.knows(&sidecar).await;
    answers(&edge).await;
    let body = call("getVersion", 1).to_string();
    for (group, expected) in [("b", true), ("a", false)] {
        let answer = edge.ask(Ask::post(format!("/?group={group}"), body.clone())).await;
        assert_eq!(json_of(&answer)["result"].is_object(), expected, "{group}");
    }
    assert_eq!(edge.get("/genesis.tar.bz2?group=a").await.status, 404);
    assert_eq!(edge.get("/genesis.tar.bz2?group=c").await.status, 404);
    assert_eq!(posts(&sidecar), 0);

    origin.fail_probes(Fault::Status(502));
    eventually("the node is left alone", || async {
        let before = posts(&origin);
        post(&edge, call("getVersion", 1)).await;
        posts(&origin) == before
    })
    .await;
    origin.fail_probes(None);
    answers(&edge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_genesis_archive_is_passed_on_whole_or_not_at_all() {
    let (without, with) = (node(&[&full(1000)]).await, node(&[&full(1000)]).await);
    without.begin_at(0);
    with.begin_at(0);
    let edge = Edge::with(ON, &[&without, &with]).await;
    answers(&edge).await;
    assert_eq!(edge.get("/genesis.tar.bz2").await.status, 404, "no node has it");
    with.begin_at((10 << 20) + 1);
    assert_eq!(edge.get("/genesis.tar.bz2").await.status, 502, "it is too large");
    with.begin_at(10 << 20);
    let get = edge.get("/genesis.tar.bz2").await;
    assert_eq!((get.status, get.length()), (200, 10 << 20));
    assert!(get.body == Content::new(1, 10 << 20).all());
    let head = edge.ask(Ask::head("/genesis.tar.bz2")).await;
    assert_eq!((head.status, head.length(), head.body.len()), (200, 10 << 20, 0));
    let asked = with.asked("GET", "genesis.tar.bz2");
    without.stop().await;
    with.stop().await;
    let ranged = edge.ask(Ask::get("/genesis.tar.bz2").with("range", "bytes=5-9")).await;
    assert_eq!((ranged.status, ranged.length()), (200, 10 << 20), "ranges are not looked at");
    assert_eq!(with.asked("GET", "genesis.tar.bz2"), asked, "it is remembered");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_told_who_asks_as_for_downloads() {
    let origin = node(&[&full(1000)]).await;
    origin.demand("Bearer secret");
    let text = config(ON, &[&[&origin]]);
    let text = text.replace("{group: a,", "{group: a, bearer_auth: {token: secret},");
    let edge = Edge::start(&text);
    edge.knows(&origin).await;
    answers(&edge).await;
    let ask = Ask::post("/", call("getSlot", 1).to_string()).with("authorization", "Bearer mine");
    assert_eq!(json_of(&edge.ask(ask).await)["result"], 1010);
    assert_eq!(edge.get("/genesis.tar.bz2").await.status, 200);
}
