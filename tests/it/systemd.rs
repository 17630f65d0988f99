//! What a service manager sees of the process: systemd's protocol, with this test in its place.

use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::support::body::Content;
use super::support::client::Ask;
use super::support::origin::{Origin, Program};
use super::support::process::{File, PROGRAM, free};
use super::support::{PATIENCE, full};

/// The process, killed when the test is over.
struct Managed(Child);

impl Drop for Managed {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Managed {
    fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
    }
}

/// The manager's end, and what it heard so far.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    /// Waits for a word that begins so, and tells it.
    fn hears(&mut self, begin: &str) -> String {
        let until = Instant::now() + PATIENCE;
        let mut bytes = [0; 4096];
        while Instant::now() < until {
            if let Some(at) = self.heard.iter().position(|word| word.starts_with(begin)) {
                return self.heard.drain(..=at).next_back().expect("it is there");
            }
            if let Ok(length) = self.socket.recv(&mut bytes) {
                let text = std::str::from_utf8(&bytes[..length]).expect("text");
                self.heard.extend(text.lines().map(str::to_owned));
            }
        }
        panic!("no `{begin}` among {:?}", self.heard);
    }
}

async fn origin() -> Origin {
    Origin::run(Program::Agave, &[(&full(1000), Content::new(1, 1000))]).await
}

fn config(origin: &Origin, more: &str) -> String {
    let address = free();
    format!(
        "internal_listen: '{address}'\nscrape_interval: 100ms\n{more}target_groups: [{{group: a, \
         static_targets: {{targets: ['{}']}}}}]\n",
        origin.address()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manager_hears_when_it_is_ready_reloads_and_stops() {
    let origin = origin().await;
    let listen = format!("listen: ['{}']\n", free());
    let file = File::new(&config(&origin, &listen));
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("an option");
    let mut manager = Manager { socket, heard: Vec::new() };
    let child = Command::new(PROGRAM)
        .args(["-c", file.path.to_str().expect("text")])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "1000000")
        .stderr(Stdio::null())
        .spawn();
    let child = Managed(child.expect("the program runs"));
    manager.hears("READY=1");
    assert!(!origin.seen().is_empty(), "after the first probes");
    // Again and again.
    for _ in 0..3 {
        manager.hears("WATCHDOG=1");
    }
    let status = manager.hears("STATUS=");
    assert!(status.contains("1000"), "{status}");
    child.signal("-HUP");
    manager.hears("RELOADING=1");
    manager.hears("MONOTONIC_USEC=");
    manager.hears("READY=1");
    // Of a reload that changes nothing, too.
    std::fs::write(&file.path, "nonsense").expect("written");
    child.signal("-HUP");
    manager.hears("RELOADING=1");
    manager.hears("READY=1");
    child.signal("-TERM");
    manager.hears("STOPPING=1");
    manager.hears("EXTEND_TIMEOUT_USEC=");
}

/// Nobody is refused before the process is there, nor while another one takes its place.
#[tokio::test(flavor = "multi_thread")]
async fn sockets_of_the_manager_are_listened_on() {
    let origin = origin().await;
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("bound");
    let file = File::new(&config(&origin, &format!("listen: ['{address}']\n")));
    let early = tokio::spawn(async move { Ask::get("/health").send(address).await.status });
    let mut early = Some(early);
    for _ in 0..2 {
        let passed = socket.try_clone().expect("another one");
        // As the manager does it: the third descriptor, and whose it is.
        let script = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"";
        let child = Command::new("sh")
            .args(["-c", script, "sh", PROGRAM, "-c", file.path.to_str().expect("text")])
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(passed)))
            .stderr(Stdio::null())
            .spawn();
        let child = Managed(child.expect("the program runs"));
        assert_eq!(Ask::get("/health").send(address).await.status, 200);
        // Before the kill, which would take the answer along.
        if let Some(early) = early.take() {
            assert_eq!(early.await.expect("no panic"), 200, "who came before it was served");
        }
        drop(child);
    }
}
