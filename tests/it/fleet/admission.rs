//! The bounds on transfers to clients: their number, for all and for each, and their rate.

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;

use super::{LENGTH, assert_whole, begin, get, hold, holding, release};
use crate::support::body::Content;
use crate::support::client::{Answer, Ask};
use crate::support::edge::Edge;
use crate::support::origin::{Origin, Program};
use crate::support::{eventually, full, incremental};

/// How many of these clients are let in while the others are there; the text of the refusals.
async fn admitted(
    edge: &Edge,
    name: &str,
    clients: impl IntoIterator<Item = u8>,
) -> (Vec<(Answer, tokio::net::TcpStream)>, Vec<Answer>) {
    let begin = |number| {
        let (ask, to) = (get(name).from(number), edge.address);
        tokio::spawn(async move { ask.begin(to).await })
    };
    let clients: Vec<_> = clients.into_iter().map(begin).collect();
    let (mut served, mut refused) = (Vec::new(), Vec::new());
    for client in clients {
        let (answer, stream) = client.await.expect("no panic");
        match answer.status {
            200 => served.push((answer, stream)),
            503 => refused.push(answer),
            status => panic!("{status}"),
        }
    }
    (served, refused)
}

#[track_caller]
fn assert_refused(refused: &[Answer], text: &str) {
    for answer in refused {
        assert_eq!(answer.header("retry-after"), Some("10"), "{}", answer.head);
        let found = String::from_utf8(answer.body.clone()).expect("text");
        assert!(text.starts_with(&found) && !found.is_empty(), "{found}");
    }
}

/// What is never refused.
async fn assert_others_are_served(edge: &Edge, name: &str) {
    for (ask, expected) in [
        (Ask::head(format!("/{name}")), 200),
        (Ask::get("/snapshot.tar.bz2"), 303),
        (Ask::head("/snapshot.tar.bz2"), 303),
        (Ask::get("/health"), 200),
        (Ask::get("/v1/health"), 200),
        (Ask::get("/v1/snapshots"), 200),
        (Ask::get("/v1/best_snapshots"), 200),
        // What is nowhere is 404 and not 503, or validators take it for there.
        (get(&incremental(1, 2)), 404),
    ] {
        let answer = edge.ask(ask.from(1)).await;
        assert_eq!(answer.status, expected, "{}", answer.head);
    }
}

/// With these limits exactly `expected` of 200 clients are let in, again and again; clients have
/// addresses of their own, or share as many.
async fn check(limits: &str, addresses: u8, expected: usize, text: &str) {
    let name = full(1000);
    let origins = holding(&name, 1).await;
    let limits = format!("{limits}, per_target: 1000, unknown_name_probe: 0s, queue_wait: 100ms");
    let edge = Edge::limited(&limits, "", &[&origins[0]]).await;
    for round in 0..3 {
        hold(&origins);
        let clients = (0..200).map(|number: u8| number % addresses + 1);
        let (served, refused) = admitted(&edge, &name, clients).await;
        assert_eq!((served.len(), refused.len()), (expected, 200 - expected), "round {round}");
        assert_refused(&refused, text);
        assert_eq!(origins[0].transfers().0, expected);
        assert_others_are_served(&edge, &name).await;
        release(&origins);
        if round == 1 {
            drop(served);
        } else {
            for (answer, stream) in served {
                let mut body = answer.body.clone();
                stream.take(LENGTH - body.len() as u64).read_to_end(&mut body).await.expect("all");
                assert_whole(&Answer { body, ..answer }, 1);
            }
        }
        eventually("nobody is left", || async { origins[0].transfers().0 == 0 }).await;
        // The last permits come back with the ends of connections.
        eventually("somebody is let in", || async {
            edge.ask(get(&name).from(1)).await.status == 200
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn max_transfers_is_exact() {
    check("max_transfers: 20", 200, 20, "as many transfers are running as may run at once\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn per_client_transfers_is_exact() {
    let text = "as many transfers are running to this address as may run at once\n";
    check("per_client_transfers: 5", 10, 50, text).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn min_rate_is_what_each_has_of_the_total_rate() {
    let text = "one more transfer would leave too little for those that are running\n";
    check("total_rate: 80MiB/s, min_rate: 5MiB/s", 200, 16, text).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_permit_is_lost_in_200_rounds_of_clients_that_vanish() {
    let name = full(1000);
    let origins = holding(&name, 1).await;
    let limits = "max_transfers: 4, per_client_transfers: 2, per_target: 3, queue_wait: 4s";
    let edge = Edge::limited(limits, "", &[&origins[0]]).await;
    for round in 0..200_u64 {
        let ask = |number| tokio::spawn(get(&name).from(number).send(edge.address));
        let clients: Vec<_> = [1, 1, 1, 2, 2, 3].map(ask).into();
        if round % 2 == 0 {
            eventually("some are served", || async { origins[0].transfers().0 > 0 }).await;
        }
        clients.iter().for_each(tokio::task::JoinHandle::abort);
        if round % 5 == 0 {
            release(&origins);
            hold(&origins);
        }
    }
    // Two of each address, and four in all.
    eventually("all permits are there", || async {
        let (served, refused) = admitted(&edge, &name, [1, 1, 1, 2]).await;
        (served.len(), refused.len()) == (3, 1)
    })
    .await;
    eventually("nobody is left", || async { origins[0].transfers().0 == 0 }).await;
    let clients = super::ask_from(&edge, &name, 11..=14);
    eventually("all slots are there", || async { origins[0].transfers().0 == 3 }).await;
    release(&origins);
    for client in clients {
        assert_whole(&client.await.expect("no panic"), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_from_the_cache_counts_as_well() {
    const LARGE: u64 = 32 << 20;
    let name = full(1000);
    let content = Content::new(1, LARGE);
    let origin = Origin::run(Program::Agave, &[(&name, content)]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let cache = format!(
        "proxy_snapshot_cache_dir: '{}'\n\
         cache: {{sharing: shared, min_free_space: 0B, verify: length}}",
        directory.path().display()
    );
    let edge = Edge::limited("max_transfers: 7", &cache, &[&origin]).await;
    eventually("it is cached", || async {
        let answer = edge.ask(get(&name)).await;
        answer.header("cache-status") == Some("snapedge; hit")
    })
    .await;
    // None of them reads, and so none is done.
    let (served, refused) = admitted(&edge, &name, 1..=200).await;
    assert_eq!((served.len(), refused.len()), (7, 193));
    assert_others_are_served(&edge, &name).await;
    drop(served);
    eventually("the permits are back", || async {
        let answer = edge.ask(get(&name)).await;
        answer.status == 200 && answer.body == content.all()
    })
    .await;
}

/// Reads to the end of a body; when that was, and how many bytes came until `when`.
async fn drain(
    answer: Answer,
    mut stream: tokio::net::TcpStream,
    length: u64,
) -> (Instant, Vec<(Instant, u64)>) {
    let (mut at, mut buffer) = (answer.body.len() as u64, vec![0; 1 << 16]);
    let mut progress = vec![(Instant::now(), at)];
    while at < length {
        let count = stream.read(&mut buffer).await.expect("readable");
        assert!(count > 0, "broke off at {at}");
        at += count as u64;
        progress.push((Instant::now(), at));
    }
    (Instant::now(), progress)
}

#[tokio::test(flavor = "multi_thread")]
async fn total_rate_is_shared_by_all_however_their_bytes_come() {
    const LARGE: u64 = 12 << 20;
    let (best, other) = (full(1000), full(900));
    let (cached, relayed) = (Content::new(1, LARGE), Content::new(2, LARGE));
    let origin = Origin::run(Program::Sidecar, &[(&best, cached), (&other, relayed)]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let cache = format!(
        "proxy_snapshot_cache_dir: '{}'\n\
         cache: {{sharing: shared, min_free_space: 0B, verify: length}}",
        directory.path().display()
    );
    let limits = "total_rate: 16MiB/s, min_rate: 1MiB/s";
    let edge = Edge::limited(limits, &cache, &[&origin]).await;
    eventually("it is cached", || async {
        let answer = edge.ask(get(&best)).await;
        answer.header("cache-status") == Some("snapedge; hit")
    })
    .await;
    let began = Instant::now();
    let (hit, relay) = tokio::join!(begin(&edge, &best, 1), begin(&edge, &other, 2));
    assert_eq!(hit.0.header("cache-status"), Some("snapedge; hit"));
    let bypass = Some("snapedge; fwd=bypass; detail=not-best");
    assert_eq!(relay.0.header("cache-status"), bypass);
    let (hit, relay) = tokio::join!(drain(hit.0, hit.1, LARGE), drain(relay.0, relay.1, LARGE));
    // Two thirds of it come at the rate whatever sockets hold, and what passes at once.
    let least = Duration::from_secs_f64(2.0 * LARGE as f64 * 0.66 / f64::from(16 << 20));
    assert!(began.elapsed() > least, "{:?}", began.elapsed());
    // When one was done, the other had most of it as well: sockets hold a few MiB.
    let first = hit.0.min(relay.0);
    for (_, progress) in [hit, relay] {
        let by_then = progress.iter().filter(|(at, _)| *at <= first).map(|(_, bytes)| *bytes);
        let share = by_then.max().unwrap_or(0);
        assert!(share > LARGE * 2 / 3, "{share} of {LARGE}");
    }
}
