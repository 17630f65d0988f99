//! The program as a process of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

use snapedge::config::InternalListen;

use super::client::Ask;
use super::eventually;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_snapedge");

/// A configuration file in a directory that goes away.
pub struct File {
    directory: tempfile::TempDir,
    pub path: PathBuf,
}

impl File {
    pub fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("snapedge.yaml");
        fs::write(&path, text).expect("written");
        Self { directory, path }
    }

    /// Where a process that runs with it writes its log.
    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }
}

/// A running process, killed when the test is over.
pub struct Running {
    child: Child,
    file: File,
    pub address: SocketAddr,
    /// Where it is asked how it is.
    pub internal: SocketAddr,
}

/// An address that was free a moment ago.
pub fn free() -> SocketAddr {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("bound")
}

impl Running {
    /// Starts the program on a port that was free a moment ago.
    pub async fn start(config: &str) -> Self {
        Self::under(&[], config).await
    }

    /// The same by way of another program, which gets these arguments, and behind them the program
    /// and its arguments, which it must become.
    pub async fn under(other: &[&str], config: &str) -> Self {
        let (address, internal) = (free(), free());
        let config = format!("listen: ['{address}']\n{config}");
        Self::run(other, File::new(&Self::text(&config, internal)), address, internal).await
    }

    /// Starts it with a configuration that has `address` among those it listens on.
    pub async fn listening(config: &str, address: SocketAddr) -> Self {
        Self::at(config, address, free()).await
    }

    /// Starts it with a configuration that has `address` among those it listens on, and its
    /// internal listener there.
    pub async fn at(config: &str, address: SocketAddr, internal: SocketAddr) -> Self {
        Self::run(&[], File::new(&Self::text(config, internal)), address, internal).await
    }

    /// Starts it with a configuration that does not say where the internal listener is.
    pub async fn with_default(config: &str) -> Self {
        let address = free();
        let file = File::new(&format!("listen: ['{address}']\n{config}"));
        Self::run(&[], file, address, InternalListen::DEFAULT).await
    }

    async fn run(other: &[&str], file: File, address: SocketAddr, internal: SocketAddr) -> Self {
        let path = file.path.to_str().expect("a path");
        let words = [other, &[PROGRAM, "-c", path]].concat();
        // To a file, since a pipe that nobody reads would stop the process once it is full.
        let log = fs::File::create(file.log()).expect("a log");
        let child = Command::new(words[0]).args(&words[1..]).stderr(log).spawn();
        let mut running = Self { child: child.expect("the program runs"), file, address, internal };
        eventually("the program listens", || {
            let ended = running.ended();
            assert_eq!(ended, None, "{}", running.log());
            async { tokio::net::TcpStream::connect(address).await.is_ok() }
        })
        .await;
        running
    }

    fn text(config: &str, internal: SocketAddr) -> String {
        format!("internal_listen: '{internal}'\n{config}")
    }

    /// Writes another configuration in place of the one that it runs with, which listens where it
    /// listened.
    pub fn rewrite(&self, config: &str) {
        let config = format!("listen: ['{}']\n{config}", self.address);
        self.write(&Self::text(&config, self.internal));
    }

    /// Where the configuration is.
    pub fn file(&self) -> &Path {
        &self.file.path
    }

    /// Writes this in place of the configuration that it runs with.
    pub fn write(&self, text: &str) {
        fs::write(&self.file.path, text).expect("written");
    }

    /// Has it reload: the status of the answer, and what that says.
    pub async fn reload(&self) -> (u16, String) {
        let answer = Ask::post("/reload", "").send(self.internal).await;
        (answer.status, String::from_utf8(answer.body).expect("text"))
    }

    /// Files and sockets that it has open.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.id())).expect("a running process").count()
    }

    pub fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.id())).expect("a running process").count()
    }

    /// Bytes of anonymous memory that the process has.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("a status");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    /// The same in KiB.
    pub fn anonymous(&self) -> u64 {
        self.memory() >> 10
    }

    /// Waits until a short name leads somewhere.
    pub async fn offers(&self, short: &str) {
        eventually("an archive is offered", || async {
            Ask::get(short).send(self.address).await.status == 303
        })
        .await;
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.file.log()).expect("a log")
    }

    /// How it ended, once it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child")
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.id().to_string();
        let done = Command::new("kill").args([signal, &pid]).status().expect("kill runs");
        assert!(done.success());
    }

    /// Ends it as a loss of power would, and tells what it had logged.
    pub fn kill(mut self) -> String {
        self.child.kill().expect("a running process");
        self.child.wait().expect("a child");
        self.log()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
