//! One connection of a client: what its stream, its requests and what they send tell of it, and
//! the task that looks after it.

use std::fmt;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use pingora::protocols::{SocketDigest, Stream, UniqueIDType};
use tokio::sync::Notify;

use super::heads::Heads;
use super::speech::{Heard, Left, Unruly};
use super::watch::{Judgement, Standing, Watch, Why};
use crate::config::Limits;
use crate::fd_limit;

/// States of a connection in `tcp_info` (`include/net/tcp_states.h`): both sides have it open.
const ESTABLISHED: u8 = 1;
/// The client closed its side, in order.
const CLOSE_WAIT: u8 = 8;
/// Nobody has it open, which before our own end means that the client reset it.
const CLOSED: u8 = 7;

/// A connection, as all who have to do with it share it.
#[derive(Debug)]
pub(super) struct Connection {
    watch: Mutex<Watch>,
    waits: Mutex<Waits>,
    /// Set once the client is left: nothing is read or written any more.
    cut: OnceLock<Why>,
    /// Unset once the socket is closed, whose number may then be another one's.
    open: AtomicBool,
    /// How the client ended it, once that is known.
    ending: OnceLock<Ending>,
    /// Told when the connection is to be looked at at once: a request begins, from when on that is
    /// done more often, or its end was decided elsewhere.
    news: Notify,
    /// Bytes that were written, as they were before TLS.
    written: AtomicU64,
    /// Bytes that the system took over: of TLS, as they are sent.
    sent: AtomicU64,
    /// The status of an answer to what was no request; none is 0.
    unasked: AtomicU16,
    /// Bytes that came.
    read: AtomicU64,
    /// Bytes that came below TLS.
    came: AtomicU64,
    /// Requests whose heads came.
    requests: AtomicU64,
    origin: Origin,
    /// Unset where there is room for short answers only.
    has_room: AtomicBool,
    pub(super) heads: Arc<Heads>,
    left: Arc<Left>,
    /// The number of the socket.
    number: UniqueIDType,
    socket: Option<Arc<SocketDigest>>,
}

impl Connection {
    /// A connection on a stream that was accepted just now.
    pub(super) fn new(
        limits: &Limits,
        stream: &Stream,
        origin: Origin,
        heads: &Arc<Heads>,
        left: &Arc<Left>,
        now: Instant,
    ) -> Self {
        let (number, socket) = (stream.id(), stream.get_socket_digest());
        Self { number, socket, ..Self::of(limits, origin, heads, left, now) }
    }

    /// A connection without a socket.
    pub(super) fn of(
        limits: &Limits,
        origin: Origin,
        heads: &Arc<Heads>,
        left: &Arc<Left>,
        now: Instant,
    ) -> Self {
        Self {
            watch: Mutex::new(Watch::new(limits, now)),
            waits: Mutex::default(),
            cut: OnceLock::new(),
            open: AtomicBool::new(true),
            ending: OnceLock::new(),
            requests: AtomicU64::new(0),
            news: Notify::new(),
            written: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            unasked: AtomicU16::new(0),
            read: AtomicU64::new(0),
            came: AtomicU64::new(0),
            origin,
            has_room: AtomicBool::new(true),
            heads: Arc::clone(heads),
            left: Arc::clone(left),
            number: -1,
            socket: None,
        }
    }

    /// Serves the connection to its end, which comes sooner where its client lets wait for more
    /// than it may: then it is told why. `serve` reads and writes by a stream that asks
    /// [`Self::is_cut`].
    pub(super) async fn attend(&self, serve: impl Future) -> Option<Why> {
        let mut serve = pin!(serve);
        loop {
            let judgement = self.watch().judge(self.moved(), Instant::now(), || self.taken());
            let time = match judgement {
                Judgement::Wait(time) => time,
                Judgement::Close(why) => {
                    // There is no request that would have to be brought to an end.
                    log::debug!("a connection is closed: {why:?}");
                    self.let_go(why);
                    return Some(why);
                }
                Judgement::Cut(why) => {
                    self.let_go(why);
                    // Nobody else sets it.
                    let _ = self.cut.set(why);
                    serve.await;
                    return Some(why);
                }
            };
            tokio::select! {
                biased;
                _ = &mut serve => return None,
                () = self.news.notified() => {}
                () = tokio::time::sleep(time) => {}
            }
        }
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.get().is_some()
    }

    /// Whether and why the client was left in the middle of a request.
    pub(super) fn cut(&self) -> Option<Why> {
        self.cut.get().copied()
    }

    /// Notes that so many bytes came.
    pub(super) fn hear(&self, bytes: usize, now: Instant) -> Heard {
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
        self.watch().hear(now)
    }

    /// Notes that the client is being told why it is left.
    pub(super) fn part(&self, unruly: Unruly, now: Instant) {
        self.left.note(unruly, self.origin.client, now);
        self.watch().part(now);
        self.news.notify_one();
    }

    /// Ends the connection from elsewhere.
    pub(super) fn end(&self, why: Why) {
        self.watch().end(why);
        self.news.notify_one();
    }

    /// Whether its end was decided.
    #[cfg(test)]
    pub(super) fn is_ended(&self) -> bool {
        self.watch().is_over()
    }

    /// What the connection does with its place.
    pub(super) fn standing(&self, now: Instant) -> Standing {
        self.watch().standing(self.moved(), now)
    }

    pub(super) fn begin_request(&self, multiplexed: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.watch().begin_request(multiplexed, self.moved(), Instant::now());
        self.news.notify_one();
    }

    /// Notes that all of a request has come.
    pub(super) fn complete_request(&self) {
        self.watch().complete();
    }

    /// Whether a client that has closed its side is served on. Whoever waits for its end is asked
    /// again by [`Self::attend`], which is the same task.
    pub(super) fn listens(&self, now: Instant) -> bool {
        let mut watch = self.watch();
        let (was_known, listens) = (watch.has_closed(), watch.listens(self.taken(), now));
        if listens && !was_known {
            self.news.notify_one();
        }
        listens
    }

    pub(super) fn end_request(&self) {
        self.watch().end_request(Instant::now());
    }

    /// Says that there is room for short answers only.
    pub(super) fn narrow(&self) {
        self.has_room.store(false, Ordering::Relaxed);
    }

    pub(super) fn has_room(&self) -> bool {
        self.has_room.load(Ordering::Relaxed)
    }

    /// Where it comes from, and at which listener.
    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Bytes that were written.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Bytes that the system took over, to be compared with those that it says were confirmed.
    pub(super) fn taken_over(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes that came and went.
    fn moved(&self) -> u64 {
        self.written().saturating_add(self.read.load(Ordering::Relaxed))
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

    /// Notes bytes that were written, as they were before TLS.
    pub(super) fn wrote(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
        if !self.origin.secure {
            self.sent(bytes);
        }
    }

    /// Notes bytes that came below TLS.
    pub(super) fn came(&self, bytes: usize) {
        self.came.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes that came below TLS.
    pub(super) fn read_from_wire(&self) -> u64 {
        self.came.load(Ordering::Relaxed)
    }

    /// Notes bytes that the system took over.
    pub(super) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn close(&self) {
        self.finish();
        self.open.store(false, Ordering::Release);
    }

    /// Requests whose heads have come.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Notes how the client ended the connection, before its end here, after which the system does
    /// not tell any more.
    pub(super) fn finish(&self) {
        self.ending.get_or_init(|| match self.state() {
            Some(CLOSED) => Ending::Reset,
            Some(CLOSE_WAIT) if self.owes() => Ending::Reset,
            _ => Ending::InOrder,
        });
    }

    /// Notes that the connection broke.
    pub(super) fn broke(&self) {
        self.ending.get_or_init(|| Ending::Reset);
    }

    /// Whether something was sent that the client's system has not confirmed yet.
    pub(super) fn owes(&self) -> bool {
        self.confirmed().is_some_and(|bytes| bytes < self.taken_over())
    }

    /// Whether the client has reset the connection, or closed it without all that was written.
    pub(super) fn is_reset(&self) -> bool {
        let is_closed = || self.state() == Some(CLOSED);
        self.ending.get().map_or_else(is_closed, |ending| *ending == Ending::Reset)
    }

    /// Whether the connection is closed here, or the client closed its side in order.
    pub(super) fn is_over(&self) -> bool {
        let is_left = || self.state() == Some(CLOSE_WAIT);
        !self.open.load(Ordering::Acquire) || self.ending.get().is_some() || is_left()
    }

    /// Bytes that the client's system has confirmed, while the connection is open.
    pub(super) fn confirmed(&self) -> Option<u64> {
        self.socket()?.tcp_info().map(|info| info.tcpi_bytes_acked)
    }

    fn state(&self) -> Option<u8> {
        self.socket()?.tcp_info().map(|info| info.tcpi_state)
    }

    fn socket(&self) -> Option<&Arc<SocketDigest>> {
        self.socket.as_ref().filter(|_| self.open.load(Ordering::Acquire))
    }

    /// Has the system drop what the client did not take, where the end is not for its reading.
    fn let_go(&self, why: Why) {
        if matches!(why, Why::Slow | Why::Crowded) {
            self.forget();
        }
    }

    /// Has the system drop what the client did not take.
    pub(super) fn forget(&self) {
        if self.open.load(Ordering::Acquire)
            && let Err(error) = fd_limit::reset_when_closed(self.number)
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
        self.confirmed().unwrap_or_else(|| self.written())
    }

    /// Whether the client closed its side, or the connection is over.
    fn is_left(&self) -> bool {
        let Some(socket) = self.socket() else { return true };
        socket.tcp_info().is_some_and(|info| info.tcpi_state != ESTABLISHED)
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a connection comes from, and what was agreed on before its first request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The other end of the connection.
    pub(super) peer: IpAddr,
    /// Who it is said to be from: a proxy announced it, or else the other end.
    pub(super) client: IpAddr,
    /// Whether TLS is spoken.
    pub(super) secure: bool,
    /// The group that its requests are for which name none.
    pub(super) group: Option<Arc<str>>,
}

#[cfg(test)]
impl Origin {
    /// A connection that speaks for itself.
    pub(super) fn of(client: IpAddr) -> Self {
        Self { peer: client, client, secure: false, group: None }
    }
}

/// How a client ended its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// The client did not, or closed its side when it had everything.
    InOrder,
    /// Before it had read everything.
    Reset,
}

/// The end of a malformed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// The answer had this status.
    Answered(u16),
    /// The request ended with the connection.
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
pub struct Presence(pub(super) Arc<Connection>);

impl Presence {
    /// Whether the client has closed its connection, although nobody may have noticed yet.
    pub fn has_left(&self) -> bool {
        self.0.is_left()
    }
}

/// How long there was something for the client to take.
#[derive(Debug, Default)]
struct Waits {
    before: Duration,
    /// Things that it has yet to take.
    count: usize,
    /// Since when there is something that the client has yet to take.
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
