//! Which of several targets a client is sent to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{LENGTH, ask_from, assert_whole, balanced, get, holding, release, transfers};
use crate::support::body::Content;
use crate::support::client::Ask;
use crate::support::edge::Edge;
use crate::support::origin::{Fault, Origin, Program};
use crate::support::{eventually, full};

const DOWNLOADS: usize = 500;
/// Fewer than the slots of two targets, so that what each one gets is a matter of choice.
const WORKERS: u8 = 6;

/// Good, slow, flapping and dead.
async fn four(name: &str) -> [Origin; 4] {
    let run =
        async |seed| Origin::run(Program::Sidecar, &[(name, Content::new(seed, LENGTH))]).await;
    let origins = [run(0).await, run(1).await, run(2).await, run(3).await];
    origins[1].slow_to(1 << 20);
    origins[3].fail(Fault::CloseBeforeHead);
    origins
}

/// Downloads by clients of many addresses, side by side; how many came from each of four origins.
async fn download(edge: &Edge, name: &str) -> [usize; 4] {
    let left = Arc::new(AtomicUsize::new(DOWNLOADS));
    let counts = Arc::new([const { AtomicUsize::new(0) }; 4]);
    let work = |worker: u8| {
        let (left, counts) = (Arc::clone(&left), Arc::clone(&counts));
        let (name, to) = (name.to_owned(), edge.address);
        tokio::spawn(async move {
            let take = |left: usize| left.checked_sub(1);
            let mut client = worker;
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                let answer = get(&name).from(client).send(to).await;
                counts[assert_whole(&answer, 4)].fetch_add(1, Ordering::Relaxed);
                client = client.wrapping_add(WORKERS).max(1);
            }
        })
    };
    let workers: Vec<_> = (1..=WORKERS).map(work).collect();
    for worker in workers {
        worker.await.expect("no download failed");
    }
    [0, 1, 2, 3].map(|at| counts[at].load(Ordering::Relaxed))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_download_fails_while_one_of_four_targets_is_good() {
    for balance in ["per_client", "least_loaded", "round_robin"] {
        let name = full(1000);
        let origins = four(&name).await;
        let [_, _, flapping, dead] = &origins;
        let edge = balanced(balance, "queue_wait: 60s", &origins).await;
        let began = Instant::now();
        let flaps = async {
            for fault in [Fault::Status(503), Fault::CloseBeforeHead, Fault::Empty].iter().cycle() {
                flapping.fail(fault.clone());
                tokio::time::sleep(Duration::from_millis(100)).await;
                flapping.fail(None);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let counts = tokio::select! {
            counts = download(&edge, &name) => counts,
            () = flaps => unreachable!("it never ends"),
        };
        assert_eq!(counts.iter().sum::<usize>(), DOWNLOADS);
        assert!(counts[1] < DOWNLOADS / 4, "{balance}: the slow one got {counts:?}");
        assert!(counts[0] > DOWNLOADS / 4, "{balance}: the good one got {counts:?}");
        assert_eq!(counts[3], 0, "{balance}");
        // The first rest begins with as many as it may carry at once. After each rest, of 1, 2, 4
        // and so on seconds, it is given one.
        let rests = (began.elapsed().as_secs() + 1).ilog2() + 1;
        let tries = dead.asked("GET", &name);
        assert!(tries <= 4 + rests as usize, "{balance}: {tries} in {:?}", began.elapsed());
        assert!(tries > 0, "{balance}: it was not even tried");
        println!(
            "{balance}: good, slow, flapping, dead: {counts:?}; the dead was tried {tries} times"
        );
    }
}

/// How many of twenty clients each of two targets got, all of them at the same time.
async fn spread(balance: &str) -> Vec<usize> {
    let name = full(1000);
    let origins = holding(&name, 2).await;
    let edge = balanced(balance, "per_target: 20, connect_timeout: 5s", &origins).await;
    let mut clients = Vec::new();
    for number in 1..=20 {
        clients.extend(ask_from(&edge, &name, number..=number));
        eventually("it is served", || async {
            transfers(&origins).iter().map(|(now, _)| *now).sum::<usize>() == usize::from(number)
        })
        .await;
    }
    let counts = transfers(&origins).iter().map(|(now, _)| *now).collect();
    release(&origins);
    for client in clients {
        assert_whole(&client.await.expect("no panic"), 2);
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn pinned_is_one_for_everyone() {
    let mut counts = spread("pinned").await;
    counts.sort_unstable();
    assert_eq!(counts, [0, 20]);
}

#[tokio::test(flavor = "multi_thread")]
async fn least_loaded_and_round_robin_are_even() {
    assert_eq!(spread("least_loaded").await, [10, 10]);
    assert_eq!(spread("round_robin").await, [10, 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_the_copy_whose_length_it_was_told() {
    for balance in ["per_client", "least_loaded", "round_robin"] {
        let name = full(1000);
        let origins = holding(&name, 3).await;
        release(&origins);
        let edge = balanced(balance, "per_target: 20", &origins).await;
        for number in 1..=10 {
            let head = edge.ask(Ask::head(format!("/{name}")).from(number)).await;
            let tag = head.header("etag").expect("a tag").to_owned();
            let part = |start: u64| {
                let range = format!("bytes={start}-{}", start + 99);
                tokio::spawn(get(&name).from(number).with("range", range).send(edge.address))
            };
            let parts: Vec<_> = (0..8).map(|at| part(at * 1000)).collect();
            for part in parts {
                let part = part.await.expect("no panic");
                assert_eq!((part.status, part.header("etag")), (206, Some(&*tag)), "{balance}");
            }
            let head = edge.ask(Ask::head(format!("/{name}")).from(number + 100)).await;
            let whole = edge.ask(get(&name).from(number + 100)).await;
            assert_eq!(whole.header("etag"), head.header("etag"), "{balance}");
            assert_eq!(whole.length(), head.length());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_target_at_its_bound_is_waited_for() {
    let name = full(1000);
    let origins = holding(&name, 2).await;
    let edge = balanced("pinned", "per_target: 2, queue_wait: 60s", &origins).await;
    let clients = ask_from(&edge, &name, 1..=10);
    eventually("two are served", || async {
        transfers(&origins).iter().map(|(now, _)| *now).sum::<usize>() == 2
    })
    .await;
    release(&origins);
    let mut from = Vec::new();
    for client in clients {
        from.push(assert_whole(&client.await.expect("no panic"), 2));
    }
    from.dedup();
    assert_eq!(from.len(), 1, "all from one copy");
    // When it is gone, the other one is for everyone.
    origins[from[0]].stop().await;
    let clients = ask_from(&edge, &name, 11..=20);
    for client in clients {
        assert_eq!(assert_whole(&client.await.expect("no panic"), 2), 1 - from[0]);
    }
}
