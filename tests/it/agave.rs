//! A real node's recorded answers and a real client's recorded requests.

use super::support::body::Content;
use super::support::client::{Ask, connect, read_head};
use super::support::edge::Edge;
use super::support::origin::{Origin, Program};
use super::support::server::without_date;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ANSWERS: &str = include_str!("../data/agave/node-answers.txt");
const TRACE: &str = include_str!("../data/agave/client-trace.txt");
const FULL: &str = "snapshot-1000-426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY.tar.zst";
const LATER: &str =
    "incremental-snapshot-1000-1200-8vQepw761FeA5b4iboDRDtN4o1vM6qcS4SD8E19FcYeC.tar.zst";
const REAL_FULL: &[u8] = include_bytes!(
    "../data/agave/snapshot-1000-426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY.tar.zst"
);
const RECORDED: &str = "snapshot-600-Gw4ydXqwW9ZyDwfRTC5XRinDdZxGkXohGkhKbDCtCXxt.tar.zst";

/// One recorded exchange: the words of the curl command, and what it printed.
struct Exchange<'a> {
    words: Vec<&'a str>,
    printed: &'a str,
}

fn recorded() -> Vec<Exchange<'static>> {
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
    for exchange in recorded() {
        let Some((ask, url)) = exchange.ask() else { continue };
        let node = if exchange.words.contains(&"later,") { &later } else { &origin };
        let answer = ask.send(node.address()).await;
        let (head, body) =
            exchange.printed.split_once("\r\n\r\n").unwrap_or((exchange.printed, ""));
        let recorded = without_date(&head.replace('\r', "").replace('\n', "\r\n"));
        let (status, mut headers) = without_date(&answer.head);
        if node.address() == later.address() {
            // The recording shows no more than these two lines.
            headers.retain(|name, _| name == "location");
        }
        assert_eq!((status, headers), recorded, "{:?}", exchange.words);
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

/// The requests of one connection of the recorded client, byte for byte.
fn connection(number: usize) -> Vec<String> {
    let start = format!("connection {number}");
    let block = TRACE.split("\n\n").skip_while(|block| !block.starts_with(&start));
    let mut requests: Vec<String> = Vec::new();
    for (at, block) in block.enumerate() {
        if at > 0 && block.starts_with("connection ") {
            break;
        }
        let lines: Vec<&str> =
            block.lines().filter(|line| !line.starts_with("connection")).collect();
        requests.push(lines.join("\r\n") + "\r\n\r\n");
    }
    requests
}

/// The archives are real ones, of a real node; the client asks for them as it did then.
#[tokio::test(flavor = "multi_thread")]
async fn the_recorded_client_gets_its_archives() {
    let newest =
        "incremental-snapshot-1000-1200-EbSgwmnkMGXDBaL55CHDArYfANEFVqjPQ4HXFpRwCLVK.tar.zst";
    let (full, incremental) = (Content::recorded(REAL_FULL), Content::new(2, 52_286));
    let node = Origin::run(Program::Agave, &[(FULL, full), (newest, incremental)]).await;
    let edge = Edge::before(&[&node]).await;

    // Connection 1 is a look at whether the port is open.
    drop(connect([127, 0, 0, 1].into(), edge.address).await);
    // Connections 2 and 3 are JSON-RPC and the genesis archive, which this edge does not have: a
    // clear no, and not a word to the node.
    let calls = connection(2);
    let body = calls[1].lines().next().expect("a body");
    let genesis = connection(3);
    for (request, start) in [
        (format!("{}{body}", calls[0]), "POST / HTTP/1.1\r\n"),
        (genesis[0].clone(), "GET /genesis.tar.bz2 HTTP/1.1\r\n"),
    ] {
        assert!(request.starts_with(start), "{request}");
        let mut stream = connect([127, 0, 0, 1].into(), edge.address).await;
        stream.write_all(request.as_bytes()).await.expect("sent");
        assert_eq!(read_head(&mut stream, false).await.status, 404, "{start}");
    }
    let asked = node.seen();
    assert!(asked.iter().all(|request| request.method != "POST"));
    assert!(asked.iter().all(|request| request.path() != "/genesis.tar.bz2"));
    for (number, content) in [(4, full), (5, incremental)] {
        let requests = connection(number);
        assert_eq!(requests.len(), 1, "connection {number}");
        let request = requests[0].replace("NODE", &edge.address.to_string());
        assert!(request.starts_with("GET /") && request.contains("gzip, br, deflate"));
        let mut stream = connect([127, 0, 0, 1].into(), edge.address).await;
        stream.write_all(request.as_bytes()).await.expect("sent");
        let answer = read_head(&mut stream, false).await;
        assert_eq!((answer.status, answer.length()), (200, content.len));
        assert!(!answer.headers.contains_key("content-encoding"));
        let mut body = answer.body;
        while (body.len() as u64) < content.len {
            assert!(stream.read_buf(&mut body).await.expect("readable") > 0);
        }
        assert!(body == content.all());
        if content == full {
            check_unpacks(&body);
        }
        // What it tries after a failure, in the same connection: fast 404s.
        for extension in ["tar.lz4", "tar.gz", "tar.bz2", "tar"] {
            let again = request.replace("tar.zst", extension);
            stream.write_all(again.as_bytes()).await.expect("sent");
            assert_eq!(read_head(&mut stream, false).await.status, 404, "{extension}");
        }
    }
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
