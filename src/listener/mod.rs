//! What stands before what is served, which it does not know: who may connect, and how long a
//! client may let wait.
//!
//! Pingora bounds each read and each write of a connection, which a client that drips never meets,
//! and nothing of it counts connections. So each connection has a place (`connection_limit`), a
//! stream that tells what happens on it (`stream`), and a look at it now and then by the task that
//! serves it (`connection`), which leaves clients by rules that are pure (`watch`,
//! `stall_budget`). A request whose place others wait for is ended by its `dismissal`. The stream
//! also listens to what is said (`speech`): to how long heads are and what all of them hold
//! (`heads`), and to frames of HTTP/2 that ask for nothing (`frames`). Who says too much is told so
//! (`parting`).
//!
//! What is not here: bounds on the bodies of requests, which whoever reads them has, and on what
//! targets do. TLS with clients, once there is any, shakes hands before a connection comes here.

mod bound;
mod connection;
mod connection_limit;
mod dismissal;
mod frames;
mod heads;
mod parting;
mod receipt;
mod serving;
mod speech;
mod stall_budget;
mod stream;
mod watch;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::server::ShutdownWatch;

pub use self::bound::{BindError, Bound};
pub use self::connection::Presence;
use self::connection::{Connection, Malformed};
pub use self::connection_limit::ConnectionLimit;
use self::dismissal::Dismissal;
use self::heads::Heads;
pub use self::serving::{Cut, Serving};
use self::speech::{Left, Protocols};
use self::stream::Watched;
use self::watch::Why;
use crate::config::Limits;
use crate::limit::LogLimiter;
use crate::metrics::{ClosedReason, RequestCounts};

/// What clients connect to. Clones are the same.
pub struct Listener<A>(Arc<Shared<A>>);

impl<A> Clone for Listener<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Shared<A> {
    app: Arc<A>,
    /// As it is configured.
    http: ArcSwap<Http<A>>,
    places: Arc<ConnectionLimit>,
    /// What came in place of requests.
    malformed: Mutex<LogLimiter>,
    heads: Arc<Heads>,
    left: Arc<Left>,
    counts: Arc<RequestCounts>,
}

/// HTTP on the connections that came in.
struct Http<A> {
    app: Arc<A>,
    limits: Limits,
    options: HttpServerOptions,
    h2: H2Options,
    protocols: Protocols,
    /// Longest time in seconds that Pingora waits for a head, or for bytes of it: longer than the
    /// times that are kept here.
    patience: u64,
}

impl<A> Http<A> {
    fn new(app: Arc<A>, limits: &Limits, h2c: bool) -> Self {
        let mut options = HttpServerOptions::default();
        options.h2c = h2c;
        let longest = limits.header_timeout.max(limits.idle_timeout);
        let patience = longest.as_secs().saturating_add(2);
        let mut h2 = default_h2_options();
        // Longer lists are answered with 431 below Pingora.
        h2.max_header_list_size(u32::try_from(limits.max_request_head).unwrap_or(u32::MAX));
        let protocols = if h2c { Protocols::Both } else { Protocols::Http1 };
        Self { app, limits: limits.clone(), options, h2, protocols, patience }
    }
}

impl<A> Listener<A> {
    /// The listener before what serves requests; `h2c` is whether HTTP/2 is spoken without TLS.
    /// What it refuses is counted.
    pub fn new(limits: &Limits, h2c: bool, app: A, counts: Arc<RequestCounts>) -> Self {
        let app = Arc::new(app);
        let http = ArcSwap::from_pointee(Http::new(Arc::clone(&app), limits, h2c));
        let heads = Heads::new(limits.max_request_head);
        let left = Arc::new(Left::new(Arc::clone(&counts)));
        let (places, malformed) = (ConnectionLimit::new(limits), Mutex::default());
        Self(Arc::new(Shared { app, http, places, malformed, heads, left, counts }))
    }

    /// Goes on otherwise, with what connects from now on.
    pub fn apply(&self, limits: &Limits, h2c: bool) {
        let Shared { app, http, places, heads, .. } = &*self.0;
        places.apply(limits);
        heads.set_most(limits.max_request_head);
        http.store(Arc::new(Http::new(Arc::clone(app), limits, h2c)));
    }

    /// How many connections there are.
    pub fn places(&self) -> Arc<ConnectionLimit> {
        Arc::clone(&self.0.places)
    }

    /// Says now and then how much came that was no request.
    fn complain(&self, client: IpAddr, malformed: Malformed) {
        let mut refusals = self.0.malformed.lock().unwrap_or_else(PoisonError::into_inner);
        let count = refusals.count(Instant::now());
        drop(refusals);
        if let Some(count) = count {
            log::warn!("malformed requests: {count}, the last one of {client}, {malformed}");
        }
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> ServerApp for Listener<A> {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let now = Instant::now();
        let socket = stream.get_socket_digest();
        let address = socket.as_ref().and_then(|socket| socket.peer_addr()?.as_inet());
        // Only a listener that is not on the network has clients without one.
        let client = address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), SocketAddr::ip);
        let client = client.to_canonical();
        let Shared { http, places, heads, left, counts, .. } = &*self.0;
        let http = http.load_full();
        let connection = Connection::new(&http.limits, &stream, client, heads, left, now);
        let connection = Arc::new(connection);
        // Without a place the stream is dropped, which closes it.
        let _place = match places.take(client, &connection, now) {
            Ok(place) => place,
            Err(bound) => {
                counts.refused(bound);
                return None;
            }
        };
        let watched = Watched::new(stream, Arc::clone(&connection), http.protocols);
        let watched = Box::new(watched);
        let ended = connection.attend(http.process_new(watched, shutdown)).await;
        if let Some(malformed) = connection.malformed() {
            counts.closed(ClosedReason::Malformed);
            self.complain(client, malformed);
        } else if let Some(reason) = ended.and_then(Why::reason) {
            counts.closed(reason);
        }
        None
    }

    async fn cleanup(&self) {
        self.0.app.http_cleanup().await;
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for Http<A> {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if session.get_keepalive().is_some() {
            session.set_keepalive(Some(self.patience));
        }
        // What came with a request is the next one, answered after it (RFC 9112, 9.3.2).
        session.set_pipelining_enabled(true);
        Dismissal::or_serve(self.app.process_new_http(session, shutdown)).await
    }

    async fn http_cleanup(&self) {
        self.app.http_cleanup().await;
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.h2.clone())
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}
