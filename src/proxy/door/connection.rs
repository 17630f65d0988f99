//! One connection of a client: what its stream, its requests and what they send tell of it, and
//! the task that looks after it.

use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pingora::protocols::{SocketDigest, Stream, UniqueIDType};
use pingora_proxy::Session;
use tokio::sync::Notify;

use super::dismissal::{Dismissal, Served};
use super::watch::{Judgement, Watch, Why};
use crate::config::Limits;
use crate::descriptors;
use crate::fetch::Taker;

/// The state of a connection that both sides have open, in `tcp_info` (`include/net/tcp_states.h`).
const ESTABLISHED: u8 = 1;

/// A connection, as all who have to do with it share it.
#[derive(Debug)]
pub(super) struct Connection {
    watch: Mutex<Watch>,
    waits: Mutex<Waits>,
    /// Set once the client is left: nothing is read or written any more.
    cut: AtomicBool,
    /// Unset once the socket is closed, whose number may then be another one's.
    open: AtomicBool,
    /// Told when a request begins, from when on the connection is looked at more often.
    begun: Notify,
    /// Bytes that the system took over.
    written: AtomicU64,
    /// The status of an answer to what was no request; none is 0.
    unasked: AtomicU16,
    /// The number of the socket.
    number: UniqueIDType,
    socket: Option<Arc<SocketDigest>>,
}

impl Connection {
    /// A connection on a stream that was accepted just now.
    pub(super) fn new(limits: &Limits, stream: &Stream, now: Instant) -> Self {
        let (number, socket) = (stream.id(), stream.get_socket_digest());
        Self {
            watch: Mutex::new(Watch::new(limits, now)),
            waits: Mutex::default(),
            cut: AtomicBool::new(false),
            open: AtomicBool::new(true),
            begun: Notify::new(),
            written: AtomicU64::new(0),
            unasked: AtomicU16::new(0),
            number,
            socket,
        }
    }

    /// Serves the connection to its end, which comes sooner where its client lets wait for more
    /// than it may. `serve` reads and writes by a stream that asks [`Self::is_cut`].
    pub(super) async fn attend(&self, serve: impl Future) {
        let mut serve = pin!(serve);
        loop {
            let judgement = self.watch().judge(Instant::now(), || self.taken());
            let time = match judgement {
                Judgement::Wait(time) => time,
                Judgement::Close(why) => {
                    // There is no request that would have to be brought to an end.
                    log::debug!("a connection is closed: {why:?}");
                    if why == Why::Slow {
                        self.forget();
                    }
                    return;
                }
                Judgement::Cut => {
                    self.forget();
                    self.cut.store(true, Ordering::Release);
                    serve.await;
                    return;
                }
            };
            tokio::select! {
                biased;
                _ = &mut serve => return,
                () = self.begun.notified() => {}
                () = tokio::time::sleep(time) => {}
            }
        }
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    pub(super) fn hear(&self) {
        self.watch().hear(Instant::now());
    }

    /// Notes what goes out. Where Pingora cannot make a request of what came, it answers by itself,
    /// and neither its log nor ours hears of the client.
    pub(super) fn sends(&self, bytes: &[u8]) {
        let status = bytes.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let status = status.and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
        if let Some(status @ 400..) = status
            && self.watch().is_quiet()
        {
            self.unasked.store(status, Ordering::Relaxed);
        }
    }

    /// What came last that was no request, where the connection has ended with such.
    pub(super) fn malformed(&self) -> Option<Malformed> {
        match self.unasked.load(Ordering::Relaxed) {
            0 if self.watch().has_heard() => Some(Malformed::Unfinished),
            0 => None,
            status => Some(Malformed::Answered(status)),
        }
    }

    pub(super) fn wrote(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn close(&self) {
        self.open.store(false, Ordering::Release);
    }

    /// Has the system drop what the client did not take.
    pub(super) fn forget(&self) {
        if self.open.load(Ordering::Acquire)
            && let Err(error) = descriptors::reset_when_closed(self.number)
        {
            log::debug!("the system keeps what a client did not take: {error}");
        }
    }

    /// How long the client has been waited for in all.
    pub(super) fn waited(&self, now: Instant) -> Duration {
        self.waits().total(now)
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that the client took. The system takes over megabytes at once, and tells only when a
    /// third of its buffer is free again: what the client's system has confirmed says more.
    fn taken(&self) -> u64 {
        let socket = self.socket.as_ref().filter(|_| self.open.load(Ordering::Acquire));
        let confirmed = socket.and_then(|socket| socket.tcp_info());
        confirmed.map_or_else(
            || self.written.load(Ordering::Relaxed),
            |confirmed| confirmed.tcpi_bytes_acked,
        )
    }

    /// Whether the client closed its side, or the connection is over.
    fn is_left(&self) -> bool {
        let socket = self.socket.as_ref().filter(|_| self.open.load(Ordering::Acquire));
        let Some(socket) = socket else { return true };
        socket.tcp_info().is_some_and(|info| info.tcpi_state != ESTABLISHED)
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of a malformed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// It was answered with this status.
    Answered(u16),
    /// It ended with the connection.
    Unfinished,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(status) => write!(f, "answered with {status}"),
            Self::Unfinished => f.write_str("ended within its head"),
        }
    }
}

/// A look at the client of a request.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Presence(Arc<Connection>);

impl Presence {
    /// Whether the client has closed its connection, although nobody may have noticed yet.
    pub(in crate::proxy) fn has_left(&self) -> bool {
        self.0.is_left()
    }
}

/// How long there was something for the client to take.
#[derive(Debug, Default)]
struct Waits {
    before: Duration,
    /// Things that it has yet to take.
    count: usize,
    /// Since when there are any.
    since: Option<Instant>,
}

impl Waits {
    fn begin(&mut self, now: Instant) {
        self.count += 1;
        self.since.get_or_insert(now);
    }

    fn end(&mut self, now: Instant) {
        self.count = self.count.saturating_sub(1);
        if self.count == 0 {
            self.before = self.total(now);
            self.since = None;
        }
    }

    fn total(&self, now: Instant) -> Duration {
        let current = self.since.map(|since| now.saturating_duration_since(since));
        self.before + current.unwrap_or_default()
    }
}

/// Something that the client has yet to take, for as long as it has.
#[derive(Debug)]
pub(super) struct Waiting(Arc<Connection>);

impl Waiting {
    pub(super) fn new(connection: &Arc<Connection>) -> Self {
        let now = Instant::now();
        connection.watch().begin_waiting(now);
        connection.waits().begin(now);
        Self(Arc::clone(connection))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let now = Instant::now();
        self.0.watch().end_waiting(now);
        self.0.waits().end(now);
    }
}

/// A request whose head is there, for as long as it is served.
#[derive(Debug)]
pub(in crate::proxy) struct Serving {
    connection: Arc<Connection>,
    multiplexed: bool,
    dismissal: Option<Arc<Dismissal>>,
}

impl Serving {
    /// Notes that the head of a request is there. Nothing where nobody looks after the connection.
    pub(in crate::proxy) fn begin(session: &Session) -> Option<Self> {
        let digest = session.digest()?.proxy_digest.as_ref()?;
        let connection = digest.user_data.as_ref()?.downcast_ref::<Arc<Connection>>()?;
        let multiplexed = session.is_http2();
        connection.watch().begin_request(multiplexed);
        connection.begun.notify_one();
        let dismissal = Dismissal::current();
        Some(Self { connection: Arc::clone(connection), multiplexed, dismissal })
    }

    /// Hands a piece of a body over to the client. Over HTTP/1 the stream tells how long that
    /// takes. Over HTTP/2 a client need not open its window, of which the stream hears nothing: the
    /// piece itself tells when it is gone.
    pub(in crate::proxy) fn hand_over(&self, body: &mut Option<Bytes>) {
        if self.multiplexed
            && let Some(bytes) = body.take_if(|bytes| !bytes.is_empty())
        {
            let waiting = Waiting::new(&self.connection);
            *body = Some(Bytes::from_owner(Piece { bytes, _waiting: waiting }));
        }
    }

    /// The client, for those who send it something.
    pub(in crate::proxy) fn taker(&self) -> Option<Arc<dyn Taker>> {
        let dismissal = self.dismissal.clone()?;
        let (connection, multiplexed) = (Arc::clone(&self.connection), self.multiplexed);
        Some(Arc::new(Served { connection, multiplexed, dismissal }))
    }

    /// How it is seen whether the client is there.
    pub(in crate::proxy) fn presence(&self) -> Presence {
        Presence(Arc::clone(&self.connection))
    }

    /// Whether the client was left because it took too little.
    pub(in crate::proxy) fn is_cut(&self) -> bool {
        self.connection.is_cut()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.connection.watch().end_request(Instant::now());
    }
}

/// A piece of a body on its way to the client.
struct Piece {
    bytes: Bytes,
    _waiting: Waiting,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
