//! Many slow clients on one cached archive cost neither memory nor threads.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::Advice;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{files, settings, status};
use crate::support::body::Content;
use crate::support::client::{Answer, Ask};
use crate::support::origin::{Origin, Program};
use crate::support::process::Running;
use crate::support::{PATIENCE, eventually, full};

const LENGTH: u64 = 1 << 30;
const CLIENTS: u8 = 200;
const BOUND_KIB: u64 = 128 << 10;
/// Threads that serve.
const THREADS: u64 = 2;
/// And all the others: the main thread, the scraper's, 32 at most that bring pages in, and what
/// else the runtimes keep for files. Far fewer than there are clients.
const MOST_THREADS: u64 = THREADS + 48;

/// Threads that wait for a socket, with what the kernel says of them.
///
/// In `/proc/PID/task/TID/syscall` the kernel names the system call in which a thread sleeps, and
/// the call's arguments. A call that blocks on one socket (`read`, `recvmsg`, `write`, `sendto`,
/// `connect`, `accept`) has that socket's descriptor as its first argument, and one that blocks on
/// several (`poll`, `select`) is told by the kernel function that it sleeps in. What a worker rests
/// in is neither: `epoll_wait` has an epoll instance as its first argument, `futex` an address. A
/// thread that runs, also in a system call, is `running`.
///
/// `None` where the kernel does not tell.
fn waiting_now(process: u32) -> Option<BTreeSet<(u32, String)>> {
    let mut waiting = BTreeSet::new();
    for task in fs::read_dir(format!("/proc/{process}/task")).ok()? {
        let task = task.ok()?;
        // It may end at any time.
        let Ok(call) = fs::read_to_string(task.path().join("syscall")) else { continue };
        let place = fs::read_to_string(task.path().join("wchan")).unwrap_or_default();
        let argument = call.split(' ').nth(1).and_then(|word| word.strip_prefix("0x"));
        let argument = argument.and_then(|word| u64::from_str_radix(word, 16).ok());
        let is_socket = |descriptor: u64| {
            let link = fs::read_link(format!("/proc/{process}/fd/{descriptor}"));
            link.is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
        };
        let polls = ["poll_schedule", "do_poll", "do_sys_poll", "do_select"];
        if argument.is_some_and(is_socket) || polls.iter().any(|poll| place.contains(poll)) {
            let thread = task.file_name().to_string_lossy().parse().ok()?;
            let number = call.split(' ').next().unwrap_or_default();
            waiting.insert((thread, format!("system call {number}, in {place}")));
        }
    }
    fs::read_to_string(format!("/proc/{process}/task/{process}/syscall")).ok()?;
    Some(waiting)
}

/// Threads that wait for a socket whenever they are looked at: one that waits for a client which
/// does not read is found every time, one that waits for a lock in passing is not.
async fn waiting(process: u32) -> Option<BTreeSet<(u32, String)>> {
    let mut always = waiting_now(process)?;
    let mut looks = tokio::time::interval(Duration::from_millis(10));
    for _ in 0..20 {
        looks.tick().await;
        let now = waiting_now(process)?;
        always.retain(|thread| now.contains(thread));
    }
    Some(always)
}

/// The number of threads of a process.
fn threads(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/task")).expect("a running process").count()
}

/// Does something in a thread of its own; returns the thread's number as well.
fn elsewhere<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> (u32, std::thread::JoinHandle<T>) {
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let path = fs::read_link("/proc/thread-self").expect("a link");
        let number = path.file_name().and_then(|name| name.to_str()?.parse().ok());
        tell.send(number.expect("a number")).expect("a listener");
        work()
    });
    (told.recv().expect("a number"), thread)
}

#[tokio::test]
async fn a_thread_that_waits_for_a_socket_is_found() {
    let us = std::process::id();
    if waiting(us).await.is_none() {
        println!("not checked: the kernel does not tell in which calls threads wait");
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let mut writer = std::net::TcpStream::connect(address).expect("connected");
    let (peer, _) = listener.accept().expect("a client");
    let (sending, all_sent) = elsewhere(move || writer.write_all(&vec![0; 64 << 20]));
    let (accepting, accepted) = elsewhere(move || listener.accept().map(drop));
    // This one waits for two pipes at once, for which the standard library uses `poll`.
    let mut cat = Command::new("cat");
    cat.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut cat = cat.spawn().expect("cat");
    let input = cat.stdin.take();
    let (polling, polled) = elsewhere(move || cat.wait_with_output());
    // And this one for nothing of the kind.
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let (resting, rested) = elsewhere(move || receiver.recv());

    let all = [sending, accepting, polling];
    let found = async || -> BTreeSet<u32> {
        let found = waiting(us).await.expect("readable as before");
        found.into_iter().map(|(thread, _)| thread).collect()
    };
    eventually("all that wait are found", async || {
        let found = found().await;
        assert!(!found.contains(&resting), "it waits for no socket");
        all.iter().all(|thread| found.contains(thread))
    })
    .await;
    std::net::TcpStream::connect(address).expect("connected");
    accepted.join().expect("a thread").expect("a connection");
    drop(input);
    polled.join().expect("a thread").expect("an end");
    std::io::copy(&mut peer.take(64 << 20), &mut std::io::sink()).expect("readable");
    all_sent.join().expect("a thread").expect("written");
    drop(sender);
    rested.join().expect("a thread").expect_err("nothing was sent");
    let left = found().await;
    assert!(!all.iter().any(|thread| left.contains(thread)));
}

/// The most that was seen of a process since it was first looked at.
#[derive(Default)]
pub(super) struct Peak {
    anonymous: AtomicU64,
    threads: AtomicU64,
}

impl Peak {
    /// KiB of anonymous memory.
    pub(super) fn anonymous(&self) -> u64 {
        self.anonymous.load(Ordering::Relaxed)
    }

    /// Looks until the task is aborted.
    pub(super) async fn watch(self: Arc<Self>, process: Arc<Running>) {
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        loop {
            looks.tick().await;
            self.anonymous.fetch_max(process.anonymous(), Ordering::Relaxed);
            self.threads.fetch_max(threads(process.id()) as u64, Ordering::Relaxed);
        }
    }
}

/// Takes an answer to its end and checks a little of it everywhere; true where it is whole.
async fn take(head: &Answer, mut stream: TcpStream, content: Content) -> bool {
    assert_eq!((head.status, head.length()), (200, content.len), "{}", head.head);
    assert!(content.matches(0, &head.body));
    let mut received = head.body.len() as u64;
    let mut block = vec![0; 1 << 20];
    let mut looked_at = 0;
    while received < content.len {
        let count = stream.read(&mut block).await.expect("readable");
        if count == 0 {
            return false;
        }
        if received >> 24 != looked_at >> 24 || received + (count as u64) == content.len {
            assert!(content.matches(received, &block[..count]), "at {received}");
            looked_at = received;
        }
        received += count as u64;
    }
    true
}

/// A client that has asked, and from where on it has what it was sent.
struct Slow {
    stream: TcpStream,
    at: u64,
}

impl Slow {
    /// Every fourth client wants all of it, and the others a rest of it each.
    async fn begin(number: u8, path: &str, to: SocketAddr, content: Content) -> Self {
        let start = if number.is_multiple_of(4) { 0 } else { u64::from(number) * 5_000_001 };
        let ask = Ask::get(path).from(number).with("range", format!("bytes={start}-"));
        let (answer, stream) = ask.begin(to).await;
        assert_eq!((answer.status, status(&answer)), (206, "snapedge; hit"), "{}", answer.head);
        assert_eq!(answer.length(), content.len - start);
        assert!(content.matches(start, &answer.body));
        Self { stream, at: start + answer.body.len() as u64 }
    }

    async fn take_some(&mut self, most: usize, content: Content) {
        let mut block = vec![0; most];
        let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut block));
        let count = read.await.expect("something in time").expect("readable");
        assert!(count > 0, "broke off at {}", self.at);
        assert!(content.matches(self.at, &block[..count]), "at {}", self.at);
        self.at += count as u64;
    }

    /// Takes a little now and then until it is told to pause.
    async fn dawdle(mut self, content: Content, mut pause: watch::Receiver<bool>) -> Self {
        let mut now_and_then = tokio::time::interval(Duration::from_millis(50));
        while !*pause.borrow_and_update() {
            self.take_some(16 << 10, content).await;
            now_and_then.tick().await;
        }
        self
    }
}

/// What waits in the kernel to be sent, by the port of the client.
fn queued(server: SocketAddr) -> BTreeMap<String, u64> {
    let table = fs::read_to_string("/proc/self/net/tcp").expect("a table");
    let local = format!("0100007F:{:04X}", server.port());
    let queue = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (here, there, _, queues) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let (sending, _) = queues.split_once(':')?;
        let sending = u64::from_str_radix(sending, 16).ok()?;
        (here == local && sending > 0).then(|| (there.to_owned(), sending))
    };
    table.lines().filter_map(queue).collect()
}

/// Waits until nothing moves any more, because every client is to take something and none does.
async fn all_are_stalled(server: SocketAddr) {
    let mut before = BTreeMap::new();
    eventually("every client stalls the server", || {
        let now = queued(server);
        let stalled = now.len() == usize::from(CLIENTS) && now == before;
        before = now;
        async move { stalled }
    })
    .await;
}

async fn is_hit(path: &str, to: SocketAddr) -> bool {
    status(&Ask::head(path).send(to).await) == "snapedge; hit"
}

/// Fetches the archive until it is cached, which a disk that is busy with something else may
/// prevent, and forgets its pages, so that clients have to wait for the disk.
async fn fill(process: &Running, path: &str, directory: &Path, content: Content) {
    eventually("the archive is known", || async {
        Ask::head(path).send(process.address).await.status == 200
    })
    .await;
    for _ in 0..3 {
        let (head, stream) = Ask::get(path).begin(process.address).await;
        assert!(take(&head, stream, content).await, "cut short");
        eventually("the fill has ended", async || {
            !files(directory).iter().any(|file| file.ends_with("-part"))
        })
        .await;
        if is_hit(path, process.address).await {
            break;
        }
    }
    assert!(is_hit(path, process.address).await, "{}", process.log());
    let file = fs::File::open(directory.join(path.trim_start_matches('/'))).expect("an archive");
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).expect("advice");
}

/// All slow clients. Half of them take nothing at all.
struct Crowd {
    idle: Vec<Slow>,
    dawdling: JoinSet<Slow>,
    pausing: watch::Sender<bool>,
}

impl Crowd {
    async fn begin(path: &str, to: SocketAddr, content: Content) -> Self {
        let mut crowd =
            Self { idle: Vec::new(), dawdling: JoinSet::new(), pausing: watch::Sender::new(false) };
        for number in 1..=CLIENTS {
            let client = Slow::begin(number, path, to, content).await;
            if number.is_multiple_of(2) {
                crowd.idle.push(client);
            } else {
                crowd.dawdling.spawn(client.dawdle(content, crowd.pausing.subscribe()));
            }
        }
        crowd
    }

    /// From here on nobody takes anything.
    async fn pause(self) -> Vec<Slow> {
        self.pausing.send_replace(true);
        let mut all = self.dawdling.join_all().await;
        all.extend(self.idle);
        all
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_slow_clients_cost_neither_memory_nor_threads() {
    let began = Instant::now();
    let (name, content) = (full(1000), Content::new(1, LENGTH));
    let origin = Origin::run(Program::Agave, &[(&name, content)]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let config = format!(
        "scrape_interval: 200ms\nserver: {{threads: {THREADS}}}\n{}\ntarget_groups: \
         [{{group: a, static_targets: {{targets: ['{}']}}}}]\n",
        settings(directory.path()),
        origin.address()
    );
    let process = Arc::new(Running::start(&config).await);
    let (address, path) = (process.address, format!("/{name}"));
    let peak = Arc::<Peak>::default();
    let watching = tokio::spawn(Arc::clone(&peak).watch(Arc::clone(&process)));
    fill(&process, &path, directory.path(), content).await;
    let (filled, fills) = (began.elapsed(), origin.asked("GET", &name));
    let before = process.anonymous();

    let crowd = Crowd::begin(&path, address, content).await;
    let (head, stream) = Ask::get(&path).from(CLIENTS + 1).begin(address).await;
    assert_eq!(status(&head), "snapedge; hit");
    let fast = async {
        let began = Instant::now();
        let whole = tokio::spawn(async move { take(&head, stream, content).await }).await;
        assert!(whole.expect("no complaint"), "cut short");
        began.elapsed()
    };
    let (taken, meanwhile) = tokio::join!(fast, waiting(process.id()));
    let mut clients = crowd.pause().await;
    assert_eq!(clients.len(), usize::from(CLIENTS));
    all_are_stalled(address).await;
    let stalled = waiting(process.id()).await;
    for client in &mut clients {
        client.take_some(256 << 10, content).await;
    }
    watching.abort();
    // It was aborted.
    let _ = watching.await;

    let anonymous = peak.anonymous.load(Ordering::Relaxed);
    let most = peak.threads.load(Ordering::Relaxed);
    println!(
        "filled in {filled:.1?}; {before} KiB anonymous memory before the clients, at most \
         {anonymous} KiB; at most {most} threads; 1 GiB to the fast client in {taken:.1?}; all in \
         {:.1?}",
        began.elapsed()
    );
    if meanwhile.is_none() || stalled.is_none() {
        println!("threads not checked: the kernel does not tell in which calls they wait");
    }
    assert_eq!(meanwhile.unwrap_or_default(), BTreeSet::new(), "while one client is fast");
    assert_eq!(stalled.unwrap_or_default(), BTreeSet::new(), "while all clients are stalled");
    assert_eq!(origin.asked("GET", &name), fills, "everything came out of the cache");
    assert!(anonymous < BOUND_KIB, "{anonymous} KiB");
    assert!(most <= MOST_THREADS, "{most} threads");
}
