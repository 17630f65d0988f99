//! Many clients before a few targets: who is sent where, and how many at once.

mod admission;
mod bounds;
mod choice;
mod clients;
mod hostages;

use tokio::net::TcpStream;

use super::support::body::Content;
use super::support::client::{Answer, Ask, Ended};
use super::support::edge::Edge;
use super::support::origin::{Fault, Origin, Program};

/// Bytes of an archive that is held in the middle, and where.
const LENGTH: u64 = 512 << 10;
const HELD: u64 = 64 << 10;

fn get(name: &str) -> Ask {
    Ask::get(format!("/{name}"))
}

/// An edge that chooses in this way.
async fn balanced(balance: &str, limits: &str, origins: &[Origin]) -> Edge {
    let targets: Vec<String> =
        origins.iter().map(|origin| format!("'{}'", origin.address())).collect();
    let config = format!(
        "listen: ['127.0.0.1:0']\nscrape_interval: 100ms\nlimits: {{{limits}}}\n\
         target_groups: [{{group: a, balance: {balance}, static_targets: {{targets: [{}]}}}}]\n",
        targets.join(", ")
    );
    let edge = Edge::start(&config);
    for origin in origins {
        edge.knows(origin).await;
    }
    edge
}

/// As many origins with one archive, each with a copy of its own, which they send half of.
async fn holding(name: &str, count: u64) -> Vec<Origin> {
    let mut origins = Vec::new();
    for seed in 0..count {
        let content = Content::new(seed, LENGTH);
        let origin = Origin::run(Program::Sidecar, &[(name, content)]).await;
        origin.fail(Fault::Hold(HELD));
        origins.push(origin);
    }
    origins
}

fn release(origins: &[Origin]) {
    for origin in origins {
        origin.fail(None);
    }
}

/// The same for all requests that come from now on.
fn hold(origins: &[Origin]) {
    for origin in origins {
        origin.fail(Fault::Hold(HELD));
    }
}

/// Archives that are being sent by each of them, and the most that ever were.
fn transfers(origins: &[Origin]) -> Vec<(usize, usize)> {
    origins.iter().map(Origin::transfers).collect()
}

/// Clients from addresses of their own that ask for an archive; their answers, later.
fn ask_from(
    edge: &Edge,
    name: &str,
    numbers: std::ops::RangeInclusive<u8>,
) -> Vec<tokio::task::JoinHandle<Answer>> {
    let ask = |number| tokio::spawn(get(name).from(number).send(edge.address));
    numbers.map(ask).collect()
}

/// The answer is all of the copy of one origin; which one.
#[track_caller]
fn assert_whole(answer: &Answer, origins: usize) -> usize {
    assert_eq!((answer.status, answer.ended), (200, Ended::Whole), "{}", answer.head);
    let is_copy = |seed: &usize| answer.body == Content::new(*seed as u64, LENGTH).all();
    (0..origins).find(is_copy).expect("the bytes of one copy")
}

/// A client that begins a download and reads no further than its head.
async fn begin(edge: &Edge, name: &str, number: u8) -> (Answer, TcpStream) {
    get(name).from(number).begin(edge.address).await
}
