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
//! At which address a connection came in (`endpoint`) says what comes before its first request: the
//! word of a proxy about whose it is (`announce`), TLS (`tls`).
//!
//! What is not here: bounds on the bodies of requests, which whoever reads them has, and on what
//! targets do.

mod announce;
mod bound;
mod connection;
mod connection_limit;
mod dismissal;
mod endpoint;
mod frames;
mod heads;
mod inherited;
mod parting;
mod receipt;
mod serving;
mod speech;
mod stall_budget;
mod stream;
mod tls;
mod watch;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::protocols::l4::socket::SocketAddr as SocketAddress;
use pingora::protocols::{ALPN, Stream};
use pingora::server::ShutdownWatch;
use tokio::sync::Semaphore;

use self::announce::BadHeader;
pub use self::bound::{BindError, Bound};
pub use self::connection::Presence;
use self::connection::{Connection, Malformed, Origin};
pub use self::connection_limit::ConnectionLimit;
use self::dismissal::Dismissal;
pub use self::endpoint::Endpoints;
use self::endpoint::{Endpoint, Owner};
use self::heads::Heads;
pub use self::inherited::Inherited;
pub use self::serving::{Cut, Serving};
use self::speech::{Left, Protocols};
use self::stream::Watched;
pub use self::tls::TlsError;
use self::watch::Why;
use crate::clients::{ClientAddress, ClientRules};
use crate::config::{Config, Limits, ProxyProtocol};
use crate::drain::Drain;
use crate::error_chain::chain;
use crate::limit::LogLimiter;
use crate::metrics::{ClosedReason, LimitName, RequestCounts};

/// Most connections at once of trusted proxies of which it is not known yet whose they are.
const MOST_UNANNOUNCED: usize = 1024;

/// A connection came in where nothing is listened to, as far as is known here.
#[derive(Debug, thiserror::Error)]
#[error("it came in at an address that is no listener's")]
struct Nowhere;

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
    /// What came in place of what comes before requests.
    failed: Mutex<LogLimiter>,
    /// Connections of proxies that have yet to say whose they are.
    unannounced: Semaphore,
    endpoints: ArcSwap<Endpoints>,
    drain: Arc<Drain>,
    heads: Arc<Heads>,
    left: Arc<Left>,
    counts: Arc<RequestCounts>,
}

/// HTTP on the connections that came in.
struct Http<A> {
    app: Arc<A>,
    limits: Limits,
    clients: ClientRules,
    options: HttpServerOptions,
    h2: H2Options,
    protocols: Protocols,
    /// Longest time in seconds that Pingora waits for a head, or for bytes of it: longer than the
    /// times that are kept here.
    patience: u64,
}

impl<A> Http<A> {
    fn new(app: Arc<A>, Config { limits, clients, server, .. }: &Config) -> Self {
        let h2c = server.h2c;
        let mut options = HttpServerOptions::default();
        options.h2c = h2c;
        let longest = limits.header_timeout.max(limits.idle_timeout);
        let patience = longest.as_secs().saturating_add(2);
        let mut h2 = default_h2_options();
        // Longer lists are answered with 431 below Pingora.
        h2.max_header_list_size(u32::try_from(limits.max_request_head).unwrap_or(u32::MAX));
        let protocols = if h2c { Protocols::Both } else { Protocols::Http1 };
        let (limits, clients) = (limits.clone(), clients.clone());
        Self { app, limits, clients, options, h2, protocols, patience }
    }
}

impl<A> Http<A> {
    /// Whose a connection is. One of a proxy that tells whose each request is has those of many.
    fn owner(&self, client: IpAddr) -> Owner {
        let tells = self.clients.told_by != ClientAddress::Connection;
        if tells && self.clients.trust(client) { Owner::Proxy } else { Owner::client(client) }
    }
}

impl<A> Listener<A> {
    /// The listener before what serves requests, as it is configured. What it refuses is counted.
    /// It waits to be told where it listens.
    pub fn new(config: &Config, app: A, counts: Arc<RequestCounts>, drain: Arc<Drain>) -> Self {
        let limits = &config.limits;
        let app = Arc::new(app);
        let http = ArcSwap::from_pointee(Http::new(Arc::clone(&app), config));
        let heads = Heads::new(limits.max_request_head);
        let left = Arc::new(Left::new(Arc::clone(&counts)));
        Self(Arc::new(Shared {
            app,
            http,
            places: ConnectionLimit::new(limits),
            malformed: Mutex::default(),
            failed: Mutex::default(),
            unannounced: Semaphore::new(MOST_UNANNOUNCED),
            endpoints: ArcSwap::default(),
            drain,
            heads,
            left,
            counts,
        }))
    }

    /// Goes on otherwise, with what connects from now on: as it is configured, and at these
    /// addresses.
    pub fn apply(&self, config: &Config, endpoints: Endpoints) {
        let Shared { app, http, places, heads, .. } = &*self.0;
        places.apply(&config.limits);
        heads.set_most(config.limits.max_request_head);
        self.listen_at(endpoints);
        http.store(Arc::new(Http::new(Arc::clone(app), config)));
    }

    /// Knows from now on what is done at which address.
    pub fn listen_at(&self, endpoints: Endpoints) {
        self.0.endpoints.store(Arc::new(endpoints));
    }

    /// What is done at which address.
    pub fn endpoints(&self) -> Arc<Endpoints> {
        self.0.endpoints.load_full()
    }

    /// What another configuration wants done at the addresses that are listened on.
    pub fn prepare(&self, config: &Config) -> Result<Endpoints, TlsError> {
        self.endpoints().follow(&config.listen)
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

impl<A: HttpServerApp + Send + Sync + 'static> Listener<A> {
    /// Says now and then how often a connection ended before its first request could be read.
    fn fail(&self, client: IpAddr, error: &dyn std::error::Error) {
        self.0.counts.closed(ClosedReason::Handshake);
        let mut failures = self.0.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.count(Instant::now());
        drop(failures);
        if let Some(count) = count {
            let error = chain(error);
            log::warn!(
                "connections that ended before their first request: {count}, the last one of \
                 {client}: {error}"
            );
        }
    }

    /// Finds out whose connection a proxy passes on, before anything else is known of it.
    async fn announced(
        &self,
        stream: Stream,
        peer: IpAddr,
        http: &Http<A>,
    ) -> Option<(Stream, IpAddr)> {
        let Ok(_one) = self.0.unannounced.try_acquire() else {
            self.0.counts.refused(LimitName::Connections);
            return None;
        };
        let read = announce::read(stream);
        match tokio::time::timeout(http.limits.header_timeout, read).await {
            Ok(Ok((stream, client))) => Some((stream, client.unwrap_or(peer))),
            Ok(Err(BadHeader::Ended { read: 0 })) => None,
            Ok(Err(error)) => {
                self.fail(peer, &error);
                None
            }
            Err(_) => {
                self.0.counts.closed(ClosedReason::Slow);
                None
            }
        }
    }

    /// Reads what comes before the first request, and then requests, to the connection's end.
    async fn serve(
        &self,
        stream: Stream,
        connection: &Arc<Connection>,
        (endpoint, http): (Option<&Endpoint>, &Arc<Http<A>>),
    ) {
        let Origin { peer, client, .. } = *connection.origin();
        let speaks = endpoint.map(|endpoint| endpoint.proxy_protocol);
        // What somebody says who is not trusted is read and passed over.
        let is_ignored = speaks == Some(ProxyProtocol::Required) && !http.clients.trust(peer);
        let stream = match is_ignored.then_some(()) {
            None => stream,
            Some(()) => match announce::read(stream).await {
                Ok((stream, _)) => stream,
                // As those of a balancer that looks whether this end is there.
                Err(BadHeader::Ended { read: 0 }) => return,
                Err(error) => return self.fail(client, &error),
            },
        };
        let stream = match endpoint.and_then(|endpoint| endpoint.tls.as_ref()) {
            None => stream,
            Some(tls) => match tls.shake_hands(stream, connection).await {
                Ok(stream) => stream,
                Err(_) if connection.read_from_wire() == 0 => return,
                Err(error) => return self.fail(client, &tls::Failed::of(&error)),
            },
        };
        let protocols = match stream.selected_alpn_proto() {
            Some(ALPN::H2) => Protocols::Both,
            _ if connection.origin().secure => Protocols::Http1,
            _ => http.protocols,
        };
        let watched = Watched::new(stream, Arc::clone(connection), protocols);
        // Who was accepted may ask, although nobody else is any more.
        http.process_new(Box::new(watched), &self.0.drain.quiet()).await;
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> ServerApp for Listener<A> {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        _shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let now = Instant::now();
        let socket = stream.get_socket_digest();
        let inet = |address: Option<&SocketAddress>| address.and_then(|a| a.as_inet()).copied();
        let peer = socket.as_ref().and_then(|socket| inet(socket.peer_addr()));
        let local = socket.as_ref().and_then(|socket| inet(socket.local_addr()));
        // Only a listener that is not on the network has clients without one.
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip());
        let peer = peer.to_canonical();
        let Shared { http, places, heads, left, counts, .. } = &*self.0;
        let (http, endpoints) = (http.load_full(), self.endpoints());
        let endpoint = local.and_then(|local| endpoints.at(local));
        if local.is_some() && endpoint.is_none() {
            // Never without what its listener asks for, whichever that is.
            self.fail(peer, &Nowhere);
            return None;
        }
        let is_announced = endpoint.is_some_and(|endpoint| {
            endpoint.proxy_protocol == ProxyProtocol::Required && http.clients.trust(peer)
        });
        let (stream, client) =
            if is_announced { self.announced(stream, peer, &http).await? } else { (stream, peer) };
        let secure = endpoint.is_some_and(|endpoint| endpoint.tls.is_some());
        let group = endpoint.and_then(|endpoint| endpoint.group.clone());
        let origin = Origin { peer, client, secure, group };
        let connection = Connection::new(&http.limits, &stream, origin, heads, left, now);
        let connection = Arc::new(connection);
        // Without a place the stream is dropped, which closes it.
        let _place = match places.take(http.owner(client), &connection, now) {
            Ok(place) => place,
            Err(bound) => {
                counts.refused(bound);
                return None;
            }
        };
        let serve = self.serve(stream, &connection, (endpoint, &http));
        let ended = connection.attend(serve).await;
        if let Some(malformed) = connection.malformed() {
            counts.closed(ClosedReason::Malformed);
            self.complain(client, malformed);
        } else if let Some(reason) = ended.and_then(Why::reason) {
            counts.closed(reason);
        }
        None
    }

    async fn cleanup(&self) {
        // Pingora ends connections then on which no request has come yet, also those that were
        // accepted a moment ago. A drain that is gone says nothing more.
        let _ = self.0.drain.quiet().wait_for(|is_quiet| *is_quiet).await;
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
