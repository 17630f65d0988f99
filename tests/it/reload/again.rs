//! Reloads again and again, under load: nothing is lost by it, and nothing is left of it.
//!
//! `SNAPEDGE_RELOADS` is how many there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use super::*;
use crate::support::origin::Program;
use crate::support::process::Running;
use crate::support::{eventually, full, incremental};

/// Small, so that many are downloaded in a second.
const SMALL: Content = Content::framed(3, 1 << 20);
/// How many there are unless somebody says.
const FEW: usize = 100;
/// After how many, and during as many more, it is seen what a process takes.
const SETTLED: usize = 10;

fn reloads() -> usize {
    let count = std::env::var("SNAPEDGE_RELOADS").ok();
    count.and_then(|count| count.parse().ok()).unwrap_or(FEW)
}

/// The configurations that follow each other, and what is said to each of them.
fn cases(steady: &Origin, passing: &Origin) -> Vec<(String, u16)> {
    let always = group("a", &[steady], "");
    let limits = |more: &str| format!("limits: {{per_target: 100, probe_timeout: 2s{more}}}");
    let good = |interval: &str, limits: &str, groups: &str| {
        format!("scrape_interval: {interval}\n{limits}\ntarget_groups:\n{groups}")
    };
    let with = |more: &str| always.clone() + &group("b", &[passing], more);
    vec![
        (good("100ms", &limits(""), &always), 200),
        (good("100ms", &limits(", total_rate: 10GiB/s, queue_wait: 5s"), &with("")), 200),
        ("nonsense: 1\n".to_owned(), 500),
        (good("150ms", &limits(""), &with("bearer_auth: {token: one}")), 200),
        (good("100ms", &limits(""), &always) + "server: {threads: 3}\n", 409),
        (good("100ms", &limits(", max_transfers: 500"), &with("bearer_auth: {token: two}")), 200),
        (good("100ms", &limits(""), &with("api_path: /else")), 200),
        (good("100ms", &limits(""), &(always.clone() + &group("c", &[passing], ""))), 200),
    ]
}

/// What clients ask, over and over, until told to stop.
async fn ask_on(to: SocketAddr, client: u8, stop: Arc<AtomicBool>, asked: Arc<AtomicU64>) {
    let (name, next) = (full(1000), incremental(1000, 1100));
    while !stop.load(Ordering::Relaxed) {
        for (ask, status, leads, body) in [
            (Ask::get("/snapshot.tar.bz2?group=a"), 303, &*name, false),
            (Ask::get(format!("/{name}")), 200, "", true),
            (Ask::get("/incremental-snapshot.tar.bz2?group=a"), 303, &*next, false),
            (Ask::get(format!("/{next}")), 200, "", true),
            (Ask::get("/v1/snapshots"), 200, "", false),
        ] {
            let path = ask.path().to_owned();
            let answer = ask.from(client).send(to).await;
            assert_eq!(answer.status, status, "{path}: {}", answer.head);
            assert_eq!(leads_to(&answer), leads, "{path}");
            assert!(!body || answer.body == SMALL.all(), "{path}: {} bytes", answer.body.len());
            asked.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What a process has: descriptors, threads, and bytes of anonymous memory.
fn taken(running: &Running) -> (usize, usize, u64) {
    (running.descriptors(), running.threads(), running.memory())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_reloads_lose_nothing_and_leave_nothing() {
    let (name, next) = (full(1000), incremental(1000, 1100));
    let steady = Origin::run(Program::Agave, &[(&name, SMALL), (&next, SMALL)]).await;
    let passing = Origin::run(Program::Sidecar, &[(&full(500), SMALL)]).await;
    let cases = cases(&steady, &passing);
    let running = Running::start(&cases[0].0).await;
    running.offers("/incremental-snapshot.tar.bz2?group=a").await;
    let (stop, asked) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let mut clients = JoinSet::new();
    for client in 1..=4 {
        let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
        clients.spawn(ask_on(running.address, client, stop, asked));
    }
    let mut early: Option<(usize, usize, u64)> = None;
    for count in 0..reloads() {
        let (text, expected) = &cases[count % cases.len()];
        running.rewrite(text);
        let (status, said) = running.reload().await;
        assert_eq!(status, *expected, "{count}: {said}");
        if (SETTLED..=2 * SETTLED).contains(&(count + 1)) {
            let (now, most) = (taken(&running), early.unwrap_or_default());
            early = Some((now.0.max(most.0), now.1.max(most.1), now.2.max(most.2)));
        }
    }
    running.rewrite(&cases[0].0);
    assert_eq!(running.reload().await.0, 200);
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.expect("every answer was right");
    }
    let early = early.expect("there were so many");
    let mut last = taken(&running);
    eventually("what was taken comes back", || {
        last = taken(&running);
        let comes = last.0 <= early.0 && last.1 <= early.1 && last.2 <= early.2 * 105 / 100;
        async move { comes }
    })
    .await;
    println!(
        "{} reloads, {} answers; descriptors, threads and bytes {early:?}, then {last:?}",
        reloads(),
        asked.load(Ordering::Relaxed)
    );
    assert!(!running.log().contains("panicked"), "{}", running.log());
}

/// Of tasks there are as many after as before.
#[tokio::test(flavor = "multi_thread")]
async fn no_task_is_left_over() {
    let steady = Origin::run(Program::Agave, &[(&full(1000), SMALL)]).await;
    let passing = Origin::run(Program::Sidecar, &[(&full(500), SMALL)]).await;
    let good = |(text, status): (String, u16)| (status == 200).then_some(text);
    let cases: Vec<String> = cases(&steady, &passing).into_iter().filter_map(good).collect();
    let with_address = |text: &str| format!("listen: ['127.0.0.1:0']\n{text}");
    let edge = Edge::start(&with_address(&cases[0]));
    edge.knows(&steady).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let mut before = None;
    for count in 0..reloads() {
        edge.reload(&with_address(&cases[count % cases.len()])).await.expect("taken");
        if count + 1 == SETTLED {
            edge.reload(&with_address(&cases[0])).await.expect("taken");
            before = Some(quiet(&tasks).await);
        }
    }
    edge.reload(&with_address(&cases[0])).await.expect("taken");
    let before = before.expect("there were so many");
    eventually("each has ended", || async { quiet(&tasks).await <= before }).await;
    println!("{before} tasks");
}

/// The fewest tasks of a second: connections come and go.
async fn quiet(tasks: &impl Fn() -> usize) -> usize {
    let mut fewest = usize::MAX;
    for _ in 0..50 {
        fewest = fewest.min(tasks());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fewest
}
