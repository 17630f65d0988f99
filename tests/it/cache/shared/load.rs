//! Many clients of one archive that nobody has fetched before.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::super::super::support::body::Content;
use super::super::super::support::client::{Answer, Ask};
use super::super::super::support::edge::{Edge, config};
use super::super::super::support::h2;
use super::super::super::support::origin::{Fault, Origin, Program};
use super::super::super::support::process::Running;
use super::super::super::support::{eventually, full};
use super::super::load::Peak;
use super::super::{CachedEdge, get, status};
use super::settings;

const LENGTH: u64 = 1 << 30;
const BOUND_KIB: u64 = 128 << 10;

/// What a client does.
#[derive(Clone, Copy, Debug)]
enum Habit {
    /// Takes all of it, as fast as it comes.
    All,
    /// Takes these bytes.
    Range(u64, u64),
    /// Leaves after so many bytes.
    Leaves(u64),
    /// Takes so many bytes per second, until the others are done.
    Slow(u64),
}

/// 32 of them.
fn habits() -> Vec<Habit> {
    const MIB: u64 = 1 << 20;
    let mut habits = vec![Habit::All; 10];
    habits.extend([1, 5, 20].map(|rate| Habit::Slow(rate * MIB)));
    habits.extend((0..6).map(|at| Habit::Leaves((at * 40 + 1) * MIB)));
    habits.extend((0..13).map(|at| {
        let start = at * 77 * MIB + 12_345;
        Habit::Range(start, start + (at + 1) * 3 * MIB / 2 + at)
    }));
    habits
}

/// Reads until `wanted` bytes are there, the end, or `stop`; every byte is compared.
async fn take(
    mut stream: TcpStream,
    mut at: u64,
    head: &[u8],
    wanted: u64,
    rate: Option<u64>,
    oracle: &[u8],
    stop: &AtomicBool,
) -> u64 {
    let right = |at: u64, bytes: &[u8]| oracle[at as usize..at as usize + bytes.len()] == *bytes;
    assert!(right(at, head), "at {at}");
    let (began, mut taken) = (Instant::now(), head.len() as u64);
    at += taken;
    let mut block = vec![0; 256 << 10];
    while taken < wanted && !stop.load(Ordering::Relaxed) {
        let most = block.len().min((wanted - taken) as usize);
        let count = stream.read(&mut block[..most]).await.expect("readable");
        if count == 0 {
            break;
        }
        assert!(right(at, &block[..count]), "at {at}");
        at += count as u64;
        taken += count as u64;
        if let Some(rate) = rate {
            let due = began + Duration::from_secs_f64(taken as f64 / rate as f64);
            tokio::time::sleep_until(due.into()).await;
        }
    }
    taken
}

/// One client, to its end.
async fn client(
    number: u8,
    habit: Habit,
    name: String,
    to: SocketAddr,
    oracle: Arc<Vec<u8>>,
    done: Arc<AtomicBool>,
) -> (Habit, u16) {
    let ask = Ask::get(format!("/{name}")).from(number);
    let ask = match habit {
        Habit::Range(start, end) => ask.with("range", format!("bytes={start}-{}", end - 1)),
        _ => ask,
    };
    let (answer, stream) = ask.begin(to).await;
    let never = AtomicBool::new(false);
    let (start, wanted, rate, stop) = match habit {
        Habit::Range(start, end) if answer.status == 206 => {
            let place = format!("bytes {start}-{}/{LENGTH}", end - 1);
            assert_eq!(answer.header("content-range"), Some(&*place));
            (start, end - start, None, &never)
        }
        Habit::All | Habit::Range(..) => (0, LENGTH, None, &never),
        Habit::Leaves(bytes) => (0, bytes, None, &never),
        Habit::Slow(rate) => (0, LENGTH, Some(rate), &*done),
    };
    let length = if answer.status == 206 { wanted } else { LENGTH };
    assert_eq!(answer.length(), length, "{habit:?}: {}", answer.head);
    let taken = take(stream, start, &answer.body, wanted, rate, &oracle, stop).await;
    if !matches!(habit, Habit::Slow(_)) {
        assert_eq!(taken.min(wanted), wanted, "{habit:?} broke off: {}", answer.head);
    }
    (habit, answer.status)
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_two_clients_cost_the_origin_one_archive() {
    let (name, content) = (full(1000), Content::framed(1, LENGTH));
    let oracle = Arc::new(content.all());
    // Nodes know no ranges. Sidecars do; there, ranges are to wait for the fetch as well.
    for (program, more) in [(Program::Agave, ""), (Program::Sidecar, "range_wait: 30s")] {
        let origins = [
            Origin::run(program, &[(&name, content)]).await,
            Origin::run(program, &[(&name, content)]).await,
        ];
        let directory = tempfile::tempdir().expect("a directory");
        let targets = origins.each_ref().map(|origin| format!("'{}'", origin.address())).join(", ");
        let config = format!(
            "scrape_interval: 200ms\n{}\ntarget_groups: \
             [{{group: a, static_targets: {{targets: [{targets}]}}}}]\n",
            settings(directory.path(), more)
        );
        let process = Arc::new(Running::start(&config).await);
        let address = process.address;
        eventually("the archive is known", || async {
            Ask::head(format!("/{name}")).send(address).await.status == 200
        })
        .await;
        let peak = Arc::<Peak>::default();
        let watching = tokio::spawn(Arc::clone(&peak).watch(Arc::clone(&process)));
        let (began, done) = (Instant::now(), Arc::<AtomicBool>::default());
        let mut clients = JoinSet::new();
        let mut slow = JoinSet::new();
        for (number, habit) in (1..).zip(habits()) {
            let set = if matches!(habit, Habit::Slow(_)) { &mut slow } else { &mut clients };
            let (oracle, done) = (Arc::clone(&oracle), Arc::clone(&done));
            set.spawn(client(number, habit, name.clone(), address, oracle, done));
        }
        let statuses = clients.join_all().await;
        done.store(true, Ordering::Relaxed);
        slow.join_all().await;
        watching.abort();
        // It was aborted.
        let _ = watching.await;

        let sent: u64 = origins.iter().map(Origin::sent).sum();
        let parts = statuses.iter().filter(|(_, status)| *status == 206).count();
        let anonymous = peak.anonymous();
        println!(
            "{program:?}: {:.3} times the archive from all origins, {parts} parts, at most \
             {anonymous} KiB anonymous memory, {:.1?}",
            sent as f64 / LENGTH as f64,
            began.elapsed()
        );
        assert!(sent as f64 <= 1.01 * LENGTH as f64, "{sent} bytes");
        assert!(anonymous < BOUND_KIB, "{anonymous} KiB");
        if program == Program::Sidecar {
            assert_eq!(parts, 13, "every range: {statuses:?}");
        }
    }
}

/// More than the sockets between the edge and a client that reads nothing can hold.
const MEDIUM: u64 = 64 << 20;

/// `benches/shared_fill` measures what this costs; that it costs nothing but that is shown here.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_client_that_takes_nothing_holds_up_nobody() {
    for over_h2 in [false, true] {
        let (name, content) = (full(1000), Content::framed(1, MEDIUM));
        let path = format!("/{name}");
        let origin = Origin::run(Program::Agave, &[(&name, content)]).await;
        let directory = tempfile::tempdir().expect("a directory");
        let extra = format!("server: {{h2c: true}}\n{}", settings(directory.path(), ""));
        let edge = Edge::start(&config(&extra, &[&[&origin]]));
        edge.knows(&origin).await;
        let cached = CachedEdge { edge, directory };
        let to = cached.edge.address;
        let stalled = if over_h2 {
            Stalled::H2(h2::begin(to, &path).await)
        } else {
            let (head, stream) = Ask::get(&path).begin(to).await;
            assert_eq!(status(&head), super::super::STORED);
            Stalled::H1(head, stream)
        };
        if over_h2 {
            assert_eq!(h2::get(to, &path).await, MEDIUM);
        }
        super::super::assert_whole(&cached.edge.ask(get(&name).from(2)).await, content);
        cached.holds(&name).await;
        assert_eq!((origin.asked("GET", &name), origin.sent()), (1, MEDIUM), "h2 {over_h2}");
        // It gets all of it in the end.
        assert_eq!(stalled.take(&content.all()).await, MEDIUM, "h2 {over_h2}");
    }
}

/// A client that has taken nothing but the head.
enum Stalled {
    H1(Answer, TcpStream),
    H2(h2::Begun),
}

impl Stalled {
    async fn take(self, oracle: &[u8]) -> u64 {
        match self {
            Self::H1(head, stream) => {
                let never = AtomicBool::new(false);
                take(stream, 0, &head.body, MEDIUM, None, oracle, &never).await
            }
            Self::H2(begun) => begun.take().await,
        }
    }
}

/// Seconds of processor time that a process has used.
fn processor_time(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("a process");
    let (_, fields) = stat.rsplit_once(')').expect("fields");
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    // `utime` and `stime`, of 100 ticks per second (proc(5)).
    (ticks(11) + ticks(12)) / 100.0
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_that_wait_cost_no_processor_time() {
    let (name, content) = (full(1000), Content::framed(1, 8 << 20));
    let origin = Origin::run(Program::Sidecar, &[(&name, content)]).await;
    origin.fail(Fault::StallAfter(content.len / 2));
    let directory = tempfile::tempdir().expect("a directory");
    let config = format!(
        "scrape_interval: 1m\nlimits: {{read_timeout: 60s}}\n{}\ntarget_groups: \
         [{{group: a, static_targets: {{targets: ['{}']}}}}]\n",
        settings(directory.path(), ""),
        origin.address()
    );
    let process = Running::start(&config).await;
    let address = process.address;
    eventually("the archive is known", || async {
        Ask::head(format!("/{name}")).send(address).await.status == 200
    })
    .await;
    let mut followers: Vec<(Answer, TcpStream)> = Vec::new();
    for number in 1..=100 {
        followers.push(get(&name).from(number).begin(address).await);
    }
    let mut block = vec![0; 1 << 20];
    for (head, stream) in &mut followers {
        let mut left = (content.len / 2) as usize - head.body.len();
        while left > 0 {
            let most = left.min(block.len());
            left -= stream.read(&mut block[..most]).await.expect("readable");
        }
    }
    let (before, began) = (processor_time(process.id()), Instant::now());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let used = (processor_time(process.id()) - before) / began.elapsed().as_secs_f64();
    println!("100 followers that wait use {:.2} % of a processor", used * 100.0);
    assert!(used < 0.05, "{used}");
    assert_eq!(origin.asked("GET", &name), 1);
}
