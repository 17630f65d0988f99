//! Upgrades again and again, with kills of either process at random.

use std::path::PathBuf;
use std::{env, io};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::*;
use crate::support::client::Ended;

/// How many upgrades there are, unless the environment says so.
const UPGRADES: u64 = 6;

/// Asks for a part: whether all of it came, and how it ended otherwise. No byte is ever wrong.
async fn ask(to: SocketAddr, at: u64) -> io::Result<()> {
    let end = (at + 200_000).min(CONTENT.len - 1);
    let request = format!(
        "GET /{} HTTP/1.1\r\nhost: a\r\nrange: bytes={at}-{end}\r\nconnection: close\r\n\r\n",
        full(1000)
    );
    let stream = tokio::net::TcpStream::connect(to).await?;
    let answer = crate::support::tls_client::raw_exchange(stream, &request).await?;
    let right = CONTENT.matches(at, &answer.body);
    assert!(answer.status != 206 || right, "a wrong byte at {at}: {}", answer.head);
    let is_whole = answer.ended == Ended::Whole && answer.status == 206;
    let told = || format!("{:?} after {} bytes: {}", answer.ended, answer.body.len(), answer.head);
    is_whole.then_some(()).ok_or_else(|| io::Error::other(told()))
}

/// Whether anybody answers, who may be busy with what another one had.
async fn answers(to: SocketAddr) -> bool {
    for _ in 0..10 {
        let answered = tokio::time::timeout(Duration::from_secs(2), ask(to, 0)).await;
        if answered.is_ok_and(|answer| answer.is_ok()) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    false
}

/// What clients count, and what they may have lost requests by.
#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    /// Whether somebody was killed in whose place nobody answers yet.
    killed: AtomicBool,
    kills: AtomicUsize,
    asked: AtomicUsize,
    lost: AtomicUsize,
}

impl Counts {
    fn kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
        self.kills.fetch_add(1, Ordering::SeqCst);
    }

    /// Asks until it is enough, and loses nothing but with those who are killed.
    async fn load(self: Arc<Self>, to: SocketAddr, number: u64) {
        let mut random = ChaCha8Rng::seed_from_u64(number);
        while !self.stop.load(Ordering::Relaxed) {
            let at = random.next_u64() % CONTENT.len;
            let before = (self.killed.load(Ordering::SeqCst), self.kills.load(Ordering::SeqCst));
            let answered = ask(to, at).await;
            self.asked.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = answered {
                let is_of_kill = before.0 || before.1 != self.kills.load(Ordering::SeqCst);
                assert!(is_of_kill, "lost without a kill, at {at}: {error}");
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// A process, however it was started.
enum One {
    First(Running),
    Later(Next),
}

impl One {
    fn kill(&self) {
        match self {
            Self::First(one) => one.signal("-KILL"),
            Self::Later(one) => one.signal("-KILL"),
        }
    }

    fn log(&self) -> String {
        match self {
            Self::First(one) => one.log(),
            Self::Later(one) => one.log(),
        }
    }
}

/// The processes, of which one serves.
struct Processes {
    to: SocketAddr,
    file: PathBuf,
    serving: One,
    /// They end by themselves, with what they have under way.
    retired: Vec<One>,
    counts: Arc<Counts>,
}

impl Processes {
    /// The new one is killed at any time.
    async fn kill_new(&mut self, pause: Duration) {
        let next = Next::of(&self.file);
        tokio::time::sleep(pause).await;
        self.counts.kill();
        next.signal("-KILL");
        drop(next);
        // It may have been the only one by then.
        if !answers(self.to).await {
            self.serving.kill();
            self.begin().await;
        }
    }

    /// The old one is killed at any time: the new one goes on by itself.
    async fn kill_old(&mut self, pause: Duration) {
        let mut next = Next::of(&self.file);
        tokio::time::sleep(pause).await;
        self.counts.kill();
        self.serving.kill();
        eventually("the new one takes over, or could not ask", || {
            let ended = next.child.try_wait().expect("a child").is_some();
            let took = next.log().contains("took over after");
            async move { took || ended }
        })
        .await;
        if next.child.try_wait().expect("a child").is_some() {
            self.begin().await;
        } else {
            self.serving = One::Later(next);
        }
    }

    async fn upgrade(&mut self, pause: Duration) {
        let next = Next::of(&self.file);
        next.takes_over().await;
        tokio::time::sleep(pause).await;
        self.retired.push(std::mem::replace(&mut self.serving, One::Later(next)));
    }

    /// One begins by itself, where nobody was left.
    async fn begin(&mut self) {
        let to = self.to;
        for _ in 0..20 {
            let mut next = Next::start(&self.file, &[]);
            let mut ended = false;
            eventually("it answers, or ends", || {
                ended = next.child.try_wait().expect("a child").is_some();
                async move { ended || ask(to, 0).await.is_ok() }
            })
            .await;
            if !ended {
                self.serving = One::Later(next);
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("none begins");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_and_kills_lose_nothing_but_what_the_killed_had() {
    let count = env::var("SNAPEDGE_UPGRADES").ok().and_then(|count| count.parse().ok());
    let count = count.unwrap_or(UPGRADES);
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let directory = tempfile::tempdir().expect("a directory");
    let origin = Origin::run(Program::Sidecar, &[(&full(1000), CONTENT)]).await;
    let first = Running::start(&config(&origin, &cached(directory.path()))).await;
    first.offers("/snapshot.tar.bz2").await;
    // Of its own: that of a process of a test goes with it.
    let (to, file) = (first.address, directory.path().join("snapedge.yaml"));
    fs::copy(first.file(), &file).expect("copied");
    let counts = Arc::<Counts>::default();
    let clients: Vec<_> =
        (0..4).map(|number| tokio::spawn(Arc::clone(&counts).load(to, number))).collect();
    let (serving, retired) = (One::First(first), Vec::new());
    let mut processes = Processes { to, file, serving, retired, counts: Arc::clone(&counts) };
    let mut of_each = [0; 3];
    for _ in 0..count {
        let kind = (random.next_u64() % 3) as usize;
        let pause = Duration::from_millis(random.next_u64() % 300);
        of_each[kind] += 1;
        match kind {
            0 => processes.kill_new(pause).await,
            1 => processes.kill_old(pause).await,
            _ => processes.upgrade(pause).await,
        }
        assert!(answers(to).await, "{}", processes.serving.log());
        counts.killed.store(false, Ordering::SeqCst);
        if clients.iter().any(JoinHandle::is_finished) {
            let logs = processes.retired.iter().map(One::log).collect::<String>();
            println!("{of_each:?}\n{logs}{}", processes.serving.log());
            break;
        }
    }
    counts.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("nothing was lost");
    }
    drop(processes);
    println!(
        "new and old ones killed, and none: {of_each:?}; {} requests, {} lost with the killed",
        counts.asked.load(Ordering::Relaxed),
        counts.lost.load(Ordering::Relaxed)
    );
    // What is left of all of it is whole.
    let kept = fs::read(directory.path().join(full(1000)));
    assert!(kept.is_err() || kept.is_ok_and(|kept| CONTENT.matches(0, &kept)));
}
