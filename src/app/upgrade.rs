//! Both sides of an upgrade: how this process takes over from another one, and how it lets another
//! one take over. What they say to each other is in `handover`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::sync::{Mutex, Notify};

use super::handover::{self, Asker, Predecessor, Successor, Wish};
use super::systemd;
use super::watchdog::LONGEST_START;
use crate::cache::Store;
use crate::clock::Now;
use crate::drain::{Drain, Opening};
use crate::error_chain::chain;
use crate::fd_limit;
use crate::published::Published;

/// How often is looked who wants to take over.
const LOOK: Duration = Duration::from_millis(50);
/// How often the directory of the cache is looked at while another process has it.
const MEETING: Duration = Duration::from_secs(1);
/// How long who was accepted may begin to ask, once another process accepts.
pub(super) const LINGER: Duration = Duration::from_secs(2);
/// Environment of this process that is not for another one.
const OWN: [&str; 3] = ["WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS"];

/// What lets another process take over.
pub(super) struct Upgrade {
    /// The first address that is listened on, by which processes find each other.
    pub(super) address: SocketAddr,
    /// The numbers of the listening sockets.
    pub(super) numbers: Vec<RawFd>,
    pub(super) drain: Arc<Drain>,
    /// The end of the internal listener, which otherwise answers to that of the process.
    pub(super) internal: Arc<Drain>,
    /// Told when another process has taken over.
    pub(super) upgraded: Arc<Notify>,
    /// What takes over here, until that is done.
    pub(super) takeover: Mutex<Option<Takeover>>,
}

/// What this process has yet to take over.
pub(super) struct Takeover {
    pub(super) predecessor: Predecessor,
    pub(super) opening: Arc<Opening>,
    pub(super) published: Arc<Published>,
}

impl Takeover {
    /// Takes over once this process is ready: from when on the next one asks there.
    async fn run(self) -> Option<UnixListener> {
        let began = Instant::now();
        while !self.published.is_ready() && began.elapsed() < LONGEST_START {
            tokio::time::sleep(LOOK).await;
        }
        let taken = tokio::task::spawn_blocking(move || self.predecessor.take()).await;
        if let Err(error) = &taken {
            log::error!("the taking over ended by a fault: {error}");
        }
        self.opening.open();
        log::info!("took over after {:?}", began.elapsed());
        taken.ok()
    }
}

#[async_trait]
impl BackgroundService for Upgrade {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let serve = async {
            let taken = match self.takeover.lock().await.take() {
                Some(takeover) => takeover.run().await,
                None => None,
            };
            self.listen(taken);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => {}
            () = serve => {}
        }
    }
}

impl Upgrade {
    /// Listens until another process has taken over, where the one before did, if there was one.
    fn listen(&self, taken: Option<UnixListener>) {
        let listener = match taken.map_or_else(|| handover::listen(self.address), Ok) {
            Ok(listener) => listener,
            Err(error) => {
                let error = chain(&error);
                log::warn!("no other process can take over from this one: {error}");
                return;
            }
        };
        let one = Arc::new(One {
            listener,
            numbers: self.numbers.clone(),
            drain: Arc::clone(&self.drain),
            internal: Arc::clone(&self.internal),
            upgraded: Arc::clone(&self.upgraded),
            is_released: AtomicBool::new(false),
        });
        // By a thread, since what is said and heard blocks; it ends with the process.
        let accepting = std::thread::Builder::new().name("upgrade".to_owned());
        if let Err(error) = accepting.spawn(move || one.accept()) {
            log::warn!("no other process can take over from this one: {}", chain(&error));
        }
    }
}

/// The one that others take over from.
struct One {
    listener: UnixListener,
    numbers: Vec<RawFd>,
    drain: Arc<Drain>,
    internal: Arc<Drain>,
    upgraded: Arc<Notify>,
    is_released: AtomicBool,
}

impl One {
    fn accept(self: Arc<Self>) {
        if let Err(error) = self.listener.set_nonblocking(true) {
            log::warn!("no other process can take over from this one: {}", chain(&error));
            return;
        }
        while !self.is_released.load(Ordering::Acquire) && !self.drain.is_announced() {
            match self.listener.accept() {
                Ok((stream, _)) => self.clone().meet(stream),
                Err(_) => std::thread::sleep(LOOK),
            }
        }
    }

    /// Sees to one that connected, in a thread of its own: it may take its time.
    fn meet(self: Arc<Self>, stream: UnixStream) {
        let meet = move || {
            let met = stream.set_nonblocking(false).and_then(|()| handover::wish(stream));
            match met {
                Ok(Wish::Take(successor)) => self.hand_over(&successor),
                // Who is hung up on asks again, and then the one in this one's place.
                Ok(Wish::Start(_)) if self.is_released.load(Ordering::Acquire) => {}
                Ok(Wish::Start(asker)) => self.start(&asker),
                Err(error) => log::warn!("nobody took over: {}", chain(&error)),
            }
        };
        if let Err(error) = std::thread::Builder::new().name("handover".to_owned()).spawn(meet) {
            log::warn!("nobody took over: {}", chain(&error));
        }
    }

    fn hand_over(&self, successor: &Successor) {
        let pid = successor.pid;
        log::info!("process {pid} wants to take over");
        let sockets: std::io::Result<Vec<OwnedFd>> =
            self.numbers.iter().map(|number| fd_limit::second_of(*number)).collect();
        let given = sockets.and_then(|sockets| successor.give(&self.listener, &sockets));
        if let Err(error) = given.and_then(|()| successor.is_ready()) {
            log::error!(
                "process {pid} did not take over, this one goes on: {}; see what that one logged",
                chain(&error)
            );
            return;
        }
        if self.drain.is_announced() || self.is_released.swap(true, Ordering::AcqRel) {
            log::warn!("process {pid} came too late to take over");
            return;
        }
        self.drain.stop_accepting();
        self.internal.begin();
        systemd::succeeded_by(pid.unsigned_abs());
        successor.release();
        self.upgraded.notify_one();
    }

    /// Starts another process in place of this one, by what this one was started by.
    fn start(&self, asker: &Asker) {
        let mut words = std::env::args_os();
        let program = words.next().unwrap_or_else(|| OsString::from("snapedge"));
        let rest = words.filter(|word| word != "-u" && word != "--upgrade");
        let mut command = Command::new(program);
        command.args(rest).arg("-u").stdin(Stdio::null()).process_group(0);
        for name in OWN {
            command.env_remove(name);
        }
        let outcome = match command.spawn() {
            Err(error) => Err(format!("cannot start another process: {error}")),
            Ok(mut child) => loop {
                if self.is_released.load(Ordering::Acquire) {
                    break Ok(());
                }
                match child.try_wait() {
                    Ok(None) => std::thread::sleep(LOOK),
                    Ok(Some(status)) => break Err(format!("the new process ended: {status}")),
                    Err(error) => break Err(format!("the new process is lost: {error}")),
                }
            },
        };
        if let Err(why) = &outcome {
            log::error!("nobody took over, this process goes on: {why}; see what that one logged");
        }
        asker.answer(&outcome);
    }
}

/// What looks at the directory of the cache while another process has it.
pub(super) struct Meeting(pub(super) Store);

#[async_trait]
impl BackgroundService for Meeting {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        if self.0.is_owner() {
            return;
        }
        log::info!("cache: another process has the directory, and nothing is swept in it yet");
        loop {
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(MEETING) => {}
            }
            let store = self.0.clone();
            match tokio::task::spawn_blocking(move || store.meet(Now::read())).await {
                Ok(Ok(false)) => {}
                Ok(Ok(true)) => {
                    log::info!("cache: the directory is this process's own");
                    return;
                }
                Ok(Err(error)) => log::error!("{}", chain(&error)),
                Err(error) => log::error!("a look at the cache ended by a fault: {error}"),
            }
        }
    }
}
