//! All places taken by a few addresses that do little with them.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::super::support::body::Content;
use super::super::support::client::{Ask, Ended, connect, read_head};
use super::super::support::edge::Edge;
use super::super::support::full;
use super::super::support::origin::{Origin, Program};
use super::{address, ask, bounded, empties, eventually, narrow, request};

const SHORT: &str = "/snapshot.tar.bz2";
const PLACES: usize = 64;
const CONTENT: Content = Content::new(1, 12 << 20);

/// What the crowd does with its places.
#[derive(Clone, Copy, Debug)]
enum Crowd {
    /// Nothing.
    Silent,
    /// Half a head.
    Head,
    /// Nothing more after an answer.
    Asked,
    /// The body of a POST that never comes.
    Post,
    /// Nothing of an archive is taken.
    Deaf,
}

impl Crowd {
    async fn come(self, edge: &Edge, from: usize) -> TcpStream {
        let mut stream = narrow(address(from), edge.address).await;
        let post = "POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
        let bytes = match self {
            Self::Silent => String::new(),
            Self::Head => "GET / HT".to_owned(),
            Self::Asked => request("GET", SHORT),
            Self::Post => format!("{post}content-length: 5000\r\n\r\n "),
            Self::Deaf => request("GET", &format!("/{}", full(1000))),
        };
        // There may be no place.
        let _ = stream.write_all(bytes.as_bytes()).await;
        stream
    }
}

/// Four addresses take all places, and as many others come one after the other.
async fn check(crowd: Crowd) {
    let name = full(1000);
    let origin = Origin::run(Program::Agave, &[(&name, CONTENT)]).await;
    let limits =
        format!("max_connections: {PLACES}, header_timeout: 1h, idle_timeout: 1h, per_target: 900");
    let more = "rpc_proxy: {enabled: true}";
    let text =
        super::config(more, &[&[&origin]]).replace("read_timeout: 700ms", "read_timeout: 1m");
    let edge = Edge::start(&text.replace("limits: {", &format!("limits: {{{limits}, ")));
    edge.knows(&origin).await;
    let mut there = Vec::new();
    for at in 0..PLACES {
        there.push(crowd.come(&edge, at % 4).await);
    }
    // The last ones are for short answers: what else is asked there is refused.
    let last = PLACES / 16;
    eventually("all places are taken", || async { edge.places.open() >= PLACES - last }).await;
    let mut honest = Vec::new();
    for at in 0..20 {
        // They are let be for a moment.
        eventually(&format!("{crowd:?}: there is a place"), || async {
            let from = u8::try_from(100 + at).expect("small");
            let answer = Ask::get(format!("/{name}")).from(from);
            let served = tokio::spawn(answer.send(edge.address)).await;
            served.is_ok_and(|answer| (answer.status, answer.ended) == (200, Ended::Whole))
        })
        .await;
        let mut kept = connect(address(10 + at), edge.address).await;
        assert_eq!(ask(&mut kept, "GET", SHORT).await.status, 303, "{crowd:?}");
        honest.push(kept);
    }
    for kept in &mut honest {
        assert_eq!(ask(kept, "HEAD", SHORT).await.status, 303, "{crowd:?}: they are kept");
    }
    assert!(edge.places.open() <= PLACES, "{crowd:?}");
    drop((there, honest));
    empties(&edge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_few_addresses_do_not_keep_the_others_out() {
    tokio::join!(
        check(Crowd::Silent),
        check(Crowd::Head),
        check(Crowd::Asked),
        check(Crowd::Post),
        check(Crowd::Deaf),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_places_answer_short_forms_and_health() {
    let name = full(1000);
    let origin = Origin::run(Program::Agave, &[(&name, CONTENT)]).await;
    let edge = bounded("max_connections: 32", "", &[&origin]).await;
    // One of each address, so that nobody has more than another one.
    let mut there = Vec::new();
    for at in 0..30 {
        let mut stream = connect(address(at), edge.address).await;
        assert_eq!(ask(&mut stream, "GET", SHORT).await.status, 303);
        there.push(stream);
    }
    let mut last = connect(address(40), edge.address).await;
    for (method, path, status) in [
        ("GET", SHORT, 303),
        ("HEAD", "/incremental-snapshot.tar.bz2", 404),
        ("GET", "/health", 200),
        ("GET", "/v1/snapshots", 200),
        ("GET", "/v1/best_snapshots", 200),
    ] {
        assert_eq!(ask(&mut last, method, path).await.status, status, "{method} {path}");
    }
    last.write_all(request("GET", &format!("/{name}")).as_bytes()).await.expect("sent");
    let refused = super::answer(&mut last, false).await;
    assert_eq!(refused.status, 503, "{}", refused.head);
    assert!(refused.header("retry-after").is_some());
    drop(there.pop());
    tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let mut stream = connect(address(41), edge.address).await;
            stream.write_all(request("GET", &format!("/{name}")).as_bytes()).await.expect("sent");
            if read_head(&mut stream, false).await.status == 200 {
                break;
            }
        }
    })
    .await
    .expect("an archive again once there is a place");
}
