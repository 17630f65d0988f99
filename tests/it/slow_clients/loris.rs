//! A thousand slow clients at once, and what others notice of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::super::support::body::Content;
use super::super::support::client::{Answer, Ask, Ended};
use super::super::support::edge::Edge;
use super::super::support::eventually;
use super::super::support::origin::{Origin, Program};
use super::super::support::{full, incremental};
use super::{MARGIN, address, bounded, empties, narrow, request};

const CLIENTS: usize = 1000;
/// What one of Firedancer's requests may take, and the HEAD of a finder.
const DEADLINE: Duration = Duration::from_secs(1);
const HEADER: Duration = Duration::from_secs(3);
/// What a client may be behind: `send_timeout`.
const WINDOW: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(300);
const FULL: Content = Content::new(1, 16 << 20);
const NOT_BEST: Content = Content::new(2, 8 << 20);

/// What a slow client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loris {
    Silent,
    /// A head, byte by byte.
    Head,
    /// One header after the other.
    Endless,
    /// The body of a POST, byte by byte.
    Body,
    /// Nothing of an archive is taken.
    Deaf,
    /// A KiB of it in each second.
    Sipping,
}
use Loris::{Body, Deaf, Endless, Head, Silent, Sipping};

impl Loris {
    const ALL: [Self; 10] =
        [Silent, Silent, Head, Head, Endless, Endless, Body, Body, Deaf, Sipping];

    fn begin(self, archive: &str) -> Vec<u8> {
        let post = "POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
        match self {
            Silent | Head => Vec::new(),
            Endless => b"GET /snapshot.tar.bz2 HTTP/1.1\r\nhost: x\r\n".to_vec(),
            Body => format!("{post}content-length: 5000\r\n\r\n").into_bytes(),
            Deaf | Sipping => request("GET", archive).into_bytes(),
        }
    }

    fn piece(self) -> &'static [u8] {
        match self {
            Head => b"G",
            Endless => b"x: y\r\n",
            Body => b" ",
            Silent | Deaf | Sipping => b"",
        }
    }

    /// Stays for as long as it may.
    async fn stay(self, from: IpAddr, to: SocketAddr, archive: String) {
        let mut stream = narrow(from, to).await;
        stream.write_all(&self.begin(&archive)).await.expect("sent");
        let mut buffer = [0; 300];
        loop {
            sleep(PAUSE).await;
            let over = stream.write_all(self.piece()).await.is_err() || is_over(&stream);
            if over {
                return;
            }
            if self != Deaf {
                // What is there; nothing is no reason to wait.
                let _ = timeout(Duration::from_millis(1), stream.read(&mut buffer)).await;
            }
        }
    }
}

/// Whether the other side has closed the connection, whatever there is still to be read.
fn is_over(stream: &TcpStream) -> bool {
    matches!(stream.take_error(), Ok(Some(_)) | Err(_)) || {
        let ready = std::pin::pin!(stream.ready(tokio::io::Interest::READABLE));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match ready.poll(&mut context) {
            std::task::Poll::Ready(Ok(state)) => state.is_read_closed(),
            std::task::Poll::Ready(Err(_)) => true,
            std::task::Poll::Pending => false,
        }
    }
}

/// What honest clients do meanwhile, again and again.
struct Others {
    edge: Arc<Edge>,
    over: AtomicBool,
    served: AtomicUsize,
    downloads: AtomicUsize,
    longest: std::sync::Mutex<Duration>,
}

impl Others {
    async fn ask(&self, ask: Ask, status: u16) {
        let what = format!("{ask:?}");
        let began = Instant::now();
        let answer = ask.send(self.edge.address).await;
        let took = began.elapsed();
        assert_eq!((answer.status, answer.ended), (status, Ended::Whole), "{what}");
        assert!(took < DEADLINE, "{what} took {took:?}");
        self.served.fetch_add(1, Ordering::Relaxed);
        let mut longest = self.longest.lock().unwrap();
        *longest = took.max(*longest);
    }

    async fn short_forms(self: Arc<Self>) {
        while !self.over.load(Ordering::Relaxed) {
            for path in ["/snapshot.tar.bz2", "/v1/incremental-snapshot.tar.zst"] {
                self.ask(Ask::get(path), 303).await;
                self.ask(Ask::head(path), 303).await;
            }
            for path in ["/v1/snapshots", "/v1/best_snapshots", "/health"] {
                self.ask(Ask::get(path), 200).await;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn downloads(self: Arc<Self>, path: String, content: Content, status: &'static str) {
        while !self.over.load(Ordering::Relaxed) {
            let answer: Answer = Ask::get(&path).send(self.edge.address).await;
            assert_eq!((answer.status, answer.ended), (200, Ended::Whole), "{}", answer.head);
            assert_eq!(answer.header("cache-status"), Some(status), "{}", answer.head);
            assert!(answer.body == content.all(), "other bytes of {path}");
            self.downloads.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Until when the last of each kind was there.
async fn are_gone_in_time(slow: Vec<(Loris, JoinHandle<Duration>)>) -> BTreeMap<String, Duration> {
    let mut last = BTreeMap::new();
    for (loris, run) in slow {
        let after = run.await.expect("no panic");
        let bound = if matches!(loris, Deaf | Sipping) { WINDOW } else { HEADER };
        assert!(after < bound + MARGIN, "{loris:?} was there for {after:?}");
        let longest: &mut Duration = last.entry(format!("{loris:?}")).or_default();
        *longest = after.max(*longest);
    }
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_slow_clients_leave_others_served_in_time() {
    let enough = snapedge::fd_limit::raise();
    assert!(enough > 4000, "{enough} open files are too few for this test");
    let (old, best, newest) = (full(500), full(1000), incremental(1000, 1500));
    let archives = [(&*old, NOT_BEST), (&*best, FULL), (&*newest, Content::new(3, 1000))];
    let origin = Origin::run(Program::Sidecar, &archives).await;
    // What answers the bodies of POST.
    let node = Origin::run(Program::Agave, &[]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let more = format!(
        "rpc_proxy: {{enabled: true}}\nproxy_snapshot_cache_dir: '{}'\n\
         cache: {{min_free_space: 0B, verify: length}}",
        directory.path().display()
    );
    let limits = "header_timeout: 3s, idle_timeout: 3s, send_timeout: 10s, min_send_rate: 64KiB/s";
    let edge = Arc::new(bounded(limits, &more, &[&origin, &node]).await);
    let hit = "snapedge; hit";
    eventually("the archive is cached", || async {
        edge.get(&format!("/{best}")).await.header("cache-status") == Some(hit)
    })
    .await;
    empties(&edge).await;

    let began = Instant::now();
    let slow: Vec<(Loris, JoinHandle<Duration>)> = (0..CLIENTS)
        .map(|at| {
            let loris = Loris::ALL[at % Loris::ALL.len()];
            let stay = loris.stay(address(at), edge.address, format!("/{best}"));
            let run = async move {
                stay.await;
                began.elapsed()
            };
            (loris, tokio::spawn(run))
        })
        .collect();
    eventually("all are there", || async { edge.places.open() >= CLIENTS }).await;
    println!("{} connections after {:?}", edge.places.open(), began.elapsed());
    let others = Arc::new(Others {
        edge: Arc::clone(&edge),
        over: AtomicBool::new(false),
        served: AtomicUsize::new(0),
        downloads: AtomicUsize::new(0),
        longest: std::sync::Mutex::default(),
    });
    let bypass = "snapedge; fwd=bypass; detail=not-best";
    let honest = [
        tokio::spawn(Arc::clone(&others).short_forms()),
        tokio::spawn(Arc::clone(&others).short_forms()),
        tokio::spawn(Arc::clone(&others).downloads(format!("/{best}"), FULL, hit)),
        tokio::spawn(Arc::clone(&others).downloads(format!("/{old}"), NOT_BEST, bypass)),
    ];
    let last = are_gone_in_time(slow).await;
    others.over.store(true, Ordering::Relaxed);
    for run in honest {
        run.await.expect("all were served in time");
    }
    let (served, downloads) =
        (others.served.load(Ordering::Relaxed), others.downloads.load(Ordering::Relaxed));
    let longest = *others.longest.lock().unwrap();
    println!("gone after {last:?}");
    println!("meanwhile {served} answers, the slowest in {longest:?}, and {downloads} downloads");
    assert!(served > 100 && downloads > 3);
    empties(&edge).await;
}
