//! `agave-validator` 3.0.10 as it started from a node that it knew: what it sent and what that node
//! answered, both recorded. Later and earlier versions send the same and know other forms of
//! archives.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::support::body::Content;
use super::super::support::client::{Answer, Ask, Ended, connect, read_head};
use super::super::support::edge::Edge;
use super::super::support::eventually;
use super::super::support::origin::{GENESIS_HASH, Origin, Program};
use super::super::support::server::without_date;
use super::{Cache, Stage, Wire, assert_archive, caching, probed};

const ANSWERS: &str = include_str!("../../data/agave/node-answers.txt");
const TRACE: &str = include_str!("../../data/agave/client-trace.txt");
const FULL: &str = "snapshot-1000-426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY.tar.zst";
const LATER: &str =
    "incremental-snapshot-1000-1200-8vQepw761FeA5b4iboDRDtN4o1vM6qcS4SD8E19FcYeC.tar.zst";
/// The incremental archive that the recorded client asked for.
const NEWEST: &str =
    "incremental-snapshot-1000-1200-EbSgwmnkMGXDBaL55CHDArYfANEFVqjPQ4HXFpRwCLVK.tar.zst";
const REAL_FULL: &[u8] = include_bytes!(
    "../../data/agave/snapshot-1000-426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY.tar.zst"
);
const RECORDED: &str = "snapshot-600-Gw4ydXqwW9ZyDwfRTC5XRinDdZxGkXohGkhKbDCtCXxt.tar.zst";

/// One recorded exchange: the words of the curl command, and what it printed.
struct Exchange<'a> {
    words: Vec<&'a str>,
    printed: &'a str,
}

fn exchanges() -> Vec<Exchange<'static>> {
    let exchange = |block: &'static str| {
        let (command, printed) = block.split_once('\n')?;
        Some(Exchange { words: command.split(' ').collect(), printed })
    };
    ANSWERS.split("## ").filter_map(exchange).collect()
}

impl Exchange<'_> {
    fn ask(&self) -> Option<(Ask, String)> {
        let url = self.words.iter().find_map(|word| word.strip_prefix("http://NODE"))?;
        let method = match self.words.iter().position(|word| *word == "-X") {
            Some(at) => self.words[at + 1],
            None if self.words.contains(&"-I") => "HEAD",
            None => "GET",
        };
        let method = ["GET", "HEAD", "POST"].into_iter().find(|known| *known == method)?;
        let ask = match self.words.iter().position(|word| *word == "-r") {
            Some(at) => {
                Ask::method(method, url).with("range", format!("bytes={}", self.words[at + 1]))
            }
            None => Ask::method(method, url),
        };
        Some((ask, url.to_owned()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_test_origin_answers_as_the_recorded_node_did() {
    let origin = Origin::run(Program::Agave, &[(RECORDED, Content::new(1, 362_593))]).await;
    let later = [(FULL, 1), (LATER, 2)].map(|(name, seed)| (name, Content::new(seed, 100)));
    let later = Origin::run(Program::Agave, &later).await;
    let mut compared = 0;
    for exchange in exchanges() {
        let Some((ask, url)) = exchange.ask() else { continue };
        let node = if exchange.words.contains(&"later,") { &later } else { &origin };
        let answer = ask.send(node.address()).await;
        let (head, body) =
            exchange.printed.split_once("\r\n\r\n").unwrap_or((exchange.printed, ""));
        let expected = without_date(&head.replace('\r', "").replace('\n', "\r\n"));
        let (status, mut headers) = without_date(&answer.head);
        if node.address() == later.address() {
            // The recording shows no more than these two lines.
            headers.retain(|name, _| name == "location");
        }
        assert_eq!((status, headers), expected, "{:?}", exchange.words);
        // `-i` printed the body too, but for that of the genesis archive and the like.
        if exchange.words.contains(&"-i") {
            let answered = String::from_utf8_lossy(&answer.body).into_owned();
            assert_eq!(answered.trim_end(), body.trim_end(), "{url}");
        }
        compared += 1;
    }
    assert_eq!(compared, 16, "every recorded answer that names a request");

    let newest = incremental_1600(&later).await;
    assert_eq!(newest, r#"{"id":1,"jsonrpc":"2.0","result":{"full":1000,"incremental":1600}}"#);
}

/// The last recorded exchange, in the order of keys that this origin writes.
async fn incremental_1600(node: &Origin) -> String {
    let name =
        "incremental-snapshot-1000-1600-7CttuKjpBP2FQxgHk9gs2933HWHkUFLa12HydsGFAVvh.tar.zst";
    node.add(name, Content::new(3, 100));
    let request = r#"{"jsonrpc":"2.0","id":1,"method":"getHighestSnapshotSlot"}"#;
    let mut stream = connect([127, 0, 0, 1].into(), node.address()).await;
    let head = format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n", request.len());
    stream.write_all((head + request).as_bytes()).await.expect("sent");
    let answer = read_head(&mut stream, false).await;
    let mut body = answer.body.clone();
    while (body.len() as u64) < answer.length() {
        stream.read_buf(&mut body).await.expect("readable");
    }
    String::from_utf8(body).expect("text")
}

/// The requests of one connection of the recorded client, byte for byte; `NODE` stands for the
/// address of the node.
pub fn recorded(number: usize) -> Vec<String> {
    let start = format!("connection {number}");
    let lines = TRACE.lines().skip_while(|line| !line.starts_with(&start)).skip(1);
    let mut requests: Vec<String> = Vec::new();
    for line in lines.take_while(|line| !line.starts_with("connection ")) {
        if line.starts_with("POST ") || line.starts_with("GET ") {
            requests.push(String::new());
        }
        let Some(request) = requests.last_mut() else { continue };
        if !request.contains("\r\n\r\n") {
            request.push_str(&format!("{line}\r\n"));
        } else if line.starts_with('{') {
            // A body, which has no end of a line after it.
            request.push_str(line);
        }
    }
    // The recording ends where the last head does.
    for request in requests.iter_mut().filter(|request| !request.contains("\r\n\r\n")) {
        request.push_str("\r\n");
    }
    requests
}

/// The same to this node.
fn sent_to(node: SocketAddr, number: usize) -> Vec<String> {
    let requests = recorded(number).into_iter();
    requests.map(|request| request.replace("NODE", &node.to_string())).collect()
}

#[test]
fn the_recording_is_read_as_it_was_sent() {
    let requests: Vec<usize> = (1..=5).map(|number| recorded(number).len()).collect();
    assert_eq!(requests, [0, 3, 1, 1, 1]);
    for call in recorded(2) {
        let (head, body) = call.split_once("\r\n\r\n").expect("a head and a body");
        let length = format!("content-length: {}", body.len());
        assert_eq!(head.split("\r\n").last(), Some(&*length));
    }
    let host = "accept: */*\r\naccept-encoding: gzip, br, deflate\r\nhost: NODE\r\n\r\n";
    assert_eq!(recorded(5)[0], format!("GET /{NEWEST} HTTP/1.1\r\n{host}"));
    assert_eq!(recorded(3)[0], format!("GET /genesis.tar.bz2 HTTP/1.1\r\n{host}"));
}

/// An answer that `reqwest` gives to a validator as one with a file: any status below 400 is good
/// to it, so that nothing but the file may have one.
#[track_caller]
fn assert_file(answer: &Answer, wire: &Wire, content: Content) {
    assert_archive(answer, content, "a file");
    assert!(wire.longest_wait < READ_TIMEOUT);
}

/// The result of a call whose answer has its number.
#[track_caller]
fn result(answer: &Answer, id: u64) -> Value {
    assert_eq!((answer.status, answer.ended), (200, Ended::Whole), "{}", answer.head);
    super::assert_untouched(answer);
    let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!((&answer["jsonrpc"], &answer["id"]), (&"2.0".into(), &id.into()), "{answer}");
    answer["result"].clone()
}

/// The connections up to the downloads: calls in one that is kept, and the genesis archive in
/// another one between the first call and the second. What it does with the results is what it
/// compares and parses them as.
async fn introduce(to: SocketAddr) {
    // Is the port open, and how far away is it?
    drop(connect([127, 0, 0, 1].into(), to).await);
    let calls = sent_to(to, 2);
    let mut wire = Wire::to(to).await;
    let version = result(&wire.ask(&calls[0]).await, 0);
    let version = version["solana-core"].as_str().expect("a version");
    assert_eq!(version.split('.').filter(|part| part.parse::<u32>().is_ok()).count(), 3);
    let mut other = Wire::to(to).await;
    let genesis = other.ask(&sent_to(to, 3)[0]).await;
    assert_file(&genesis, &other, GENESIS);
    let hash = result(&wire.ask(&calls[1]).await, 1);
    assert_eq!(hash, GENESIS_HASH, "of the genesis archive that it has");
    assert!(result(&wire.ask(&calls[2]).await, 2).is_u64(), "a slot");
    assert!(wire.longest_wait < CALL_TIMEOUT);
}

/// Of `getVersion`, and of each read.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// What the origins have, of as many bytes as the recorded one.
const GENESIS: Content = Content::new(1, 328_348);

/// An edge that passes on what only a node can answer, once a node is there to answer it.
async fn with_nodes(cache: Cache, archives: &[(&str, Content)]) -> Stage {
    let mut stage =
        Stage::with("rpc_proxy: {enabled: true}", Program::Agave, cache, archives).await;
    let to = stage.edge.address;
    eventually("a node that answers", || async {
        let answer = Wire::to(to).await.ask(&sent_to(to, 2)[0]).await;
        String::from_utf8_lossy(&answer.body).contains("solana-core")
    })
    .await;
    stage.probes = stage.origin.connections();
    stage
}

/// The whole sequence in its order; the archives are real ones, of a real node, and are asked for
/// by the bytes of a real validator.
#[tokio::test(flavor = "multi_thread")]
async fn the_recorded_validator_starts_from_an_edge() {
    for cache in [Cache::Off, Cache::Warm] {
        let (full, incremental) = (Content::recorded(REAL_FULL), Content::new(2, 52_286));
        let stage = with_nodes(cache, &[(FULL, full), (NEWEST, incremental)]).await;
        let to = stage.edge.address;
        introduce(to).await;
        let asked = stage.asked_upstream();
        for (number, content) in [(4, full), (5, incremental)] {
            let requests = sent_to(to, number);
            assert!(requests.len() == 1 && requests[0].contains("gzip, br, deflate"));
            let mut wire = stage.wire().await;
            let answer = wire.ask(&requests[0]).await;
            assert_file(&answer, &wire, content);
            if content == full {
                check_unpacks(&answer.body);
            }
        }
        let downloads = stage.asked_upstream() - asked;
        assert_eq!(downloads, if cache == Cache::Warm { 0 } else { 2 }, "{}", stage.what);
    }
}

/// After any failure, one of its own making included, it asks for the same archive in its other
/// forms: two with version 3, five before. Each is a clear no at once, and not a word to a node.
#[tokio::test(flavor = "multi_thread")]
async fn the_forms_that_a_validator_tries_are_refused_at_once() {
    let (full, incremental) = (Content::recorded(REAL_FULL), Content::new(2, 52_286));
    let archives = [(FULL, full), (NEWEST, incremental)];
    let stage = Stage::with("", Program::Agave, Cache::Off, &archives).await;
    let to = stage.edge.address;
    for number in [4, 5] {
        let mut wire = stage.wire().await;
        for extension in ["tar.lz4", "tar.gz", "tar.bz2", "tar"] {
            let request = sent_to(to, number)[0].replace("tar.zst", extension);
            let answer = wire.ask(&request).await;
            assert_eq!((answer.status, &*answer.body), (404, &b""[..]), "{extension}");
        }
        assert!(wire.longest_wait < Duration::from_secs(1), "{:?}", wire.longest_wait);
    }
    // What an edge does not have that only passes on archives is a clear no, too.
    for (number, start) in [(2, "POST / "), (3, "GET /genesis.tar.bz2 ")] {
        let request = &sent_to(to, number)[0];
        assert!(request.starts_with(start), "{request}");
        assert_eq!(stage.wire().await.begin(request).await.status, 404, "{start}");
    }
    stage.assert_from_memory();
}

/// It picks both names before it loads the full archive, for which it may need twenty minutes, and
/// asks for the incremental one after that. The node has four newer ones by then and not this one.
#[tokio::test(flavor = "multi_thread")]
async fn the_incremental_archive_that_a_validator_picked_is_there_after_the_full_one() {
    let (full, incremental) = (Content::framed(1, 4_000_000), Content::framed(2, 52_286));
    let node = Origin::run(Program::Agave, &[(FULL, full), (NEWEST, incremental)]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let keeping = caching(
        directory.path(),
        ", sharing: shared, prefetch: incremental, keep_previous: true, lease: 1m",
    );
    let edge = Edge::start(&probed("100ms", &keeping, &[&node]));
    edge.knows(&node).await;
    let to = edge.address;
    eventually("what is new is fetched", || async {
        let head = Ask::head(format!("/{NEWEST}"));
        edge.ask(head).await.header("cache-status") == Some("snapedge; hit")
    })
    .await;
    node.slow_to(8_000_000);
    let mut wire = Wire::to(to).await;
    let mut answer = wire.begin(&sent_to(to, 4)[0]).await;
    // Meanwhile.
    let mut before = NEWEST.to_owned();
    for slot in [1300, 1400, 1500, 1600] {
        let name = super::incremental(1000, slot);
        node.add(&name, incremental);
        node.remove(&before);
        edge.knows(&node).await;
        before = name;
    }
    let gone = NEWEST.parse().expect("a name");
    let authority = node.address().to_string();
    edge.sees("the node has it no more", |view| {
        view.sources(&gone).iter().all(|source| *source.target.authority != *authority)
    })
    .await;
    wire.finish(&mut answer).await;
    assert_file(&answer, &wire, full);
    let mut wire = Wire::to(to).await;
    let answer = wire.ask(&sent_to(to, 5)[0]).await;
    assert_file(&answer, &wire, incremental);
    assert_eq!(node.asked("GET", NEWEST), 1, "once, and long ago");
}

/// What a validator does next: it unpacks what it was given.
fn check_unpacks(archive: &[u8]) {
    let mut tar = tar::Archive::new(zstd::Decoder::new(archive).expect("zstd"));
    let entries = tar.entries().expect("a tar file").map(|entry| entry.expect("a whole entry"));
    let names: Vec<String> =
        entries.map(|entry| entry.path().expect("a path").display().to_string()).collect();
    assert_eq!(names[..2], ["version", "snapshots/"]);
    assert_eq!(names[2..5], ["snapshots/status_cache", "snapshots/1000", "snapshots/1000/1000"]);
    assert!(names[5..].iter().all(|name| name.starts_with("accounts/")), "{names:?}");
}
