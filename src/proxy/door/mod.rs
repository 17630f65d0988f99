//! What stands before the proxy: who may connect, and how long a client may let wait.
//!
//! Pingora bounds each read and each write of a connection, which a client that drips never meets,
//! and nothing of it counts connections. So each connection has a place (`places`), a stream that
//! tells what happens on it (`stream`), and a look at it now and then by the task that serves it
//! (`connection`), which leaves clients by rules that are pure (`watch`, `allowance`). A request
//! whose place others wait for is ended by its `dismissal`. The stream also listens to what is said
//! (`speech`): to how long heads are and what all of them hold (`heads`), and to frames of HTTP/2
//! that ask for nothing (`frames`). Who says too much is told so (`parting`).
//!
//! What is not here: bounds on the bodies of requests, which whoever reads them has, and on what
//! targets do. TLS with clients, once there is any, shakes hands before a connection comes here.

mod allowance;
mod connection;
mod dismissal;
mod frames;
mod heads;
mod parting;
mod places;
mod serving;
mod speech;
mod stream;
mod watch;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::server::ShutdownWatch;
use pingora::server::configuration::ServerConf;
use pingora_proxy::HttpProxy;

pub(super) use self::connection::Presence;
use self::connection::{Connection, Malformed};
use self::dismissal::Dismissal;
use self::heads::Heads;
pub use self::places::Places;
pub(super) use self::serving::Serving;
use self::speech::{Left, Protocols};
use self::stream::Watched;
use super::edge::Edge;
use crate::config::{Config, Limits};
use crate::refusals::Refusals;

/// The public side of the process, as clients connect to it.
pub struct Door {
    http: Arc<Http>,
    places: Arc<Places>,
    limits: Limits,
    /// What came in place of requests.
    malformed: Mutex<Refusals>,
    heads: Arc<Heads>,
    left: Arc<Left>,
    protocols: Protocols,
}

/// HTTP on the connections that came in.
struct Http {
    proxy: Arc<HttpProxy<Edge>>,
    options: HttpServerOptions,
    h2: H2Options,
    /// Longest time in seconds that Pingora waits for a head, or for bytes of it: longer than the
    /// times that are kept here.
    patience: u64,
}

impl Door {
    /// The door before an edge.
    pub fn new(conf: &Arc<ServerConf>, config: &Config, edge: Edge) -> Self {
        let limits = config.limits.clone();
        let mut proxy = HttpProxy::new(edge, Arc::clone(conf));
        proxy.handle_init_modules();
        let mut options = HttpServerOptions::default();
        options.h2c = config.server.h2c;
        let longest = limits.header_timeout.max(limits.idle_timeout);
        let patience = longest.as_secs().saturating_add(2);
        let (heads, left) = (Heads::new(limits.max_request_head), Arc::default());
        let mut h2 = default_h2_options();
        // Longer lists are answered with 431 below Pingora.
        h2.max_header_list_size(u32::try_from(limits.max_request_head).unwrap_or(u32::MAX));
        let http = Arc::new(Http { proxy: Arc::new(proxy), options, h2, patience });
        let protocols = if config.server.h2c { Protocols::Both } else { Protocols::Http1 };
        let (places, malformed) = (Places::new(&limits), Mutex::default());
        Self { http, places, limits, malformed, heads, left, protocols }
    }

    /// How many connections there are.
    pub fn places(&self) -> Arc<Places> {
        Arc::clone(&self.places)
    }

    /// Says now and then how much came that was no request.
    fn complain(&self, client: IpAddr, malformed: Malformed) {
        let mut refusals = self.malformed.lock().unwrap_or_else(PoisonError::into_inner);
        let count = refusals.count(Instant::now());
        drop(refusals);
        if let Some(count) = count {
            log::warn!("malformed requests: {count}, the last one of {client}, {malformed}");
        }
    }
}

#[async_trait]
impl ServerApp for Door {
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
        let connection =
            Connection::new(&self.limits, &stream, client, &self.heads, &self.left, now);
        let connection = Arc::new(connection);
        // Without a place the stream is dropped, which closes it.
        let _place = self.places.take(client, &connection, now)?;
        let watched = Watched::new(stream, Arc::clone(&connection), self.protocols);
        let watched = Box::new(watched);
        connection.attend(self.http.process_new(watched, shutdown)).await;
        if let Some(malformed) = connection.malformed() {
            self.complain(client.to_canonical(), malformed);
        }
        None
    }

    async fn cleanup(&self) {
        self.http.cleanup().await;
    }
}

#[async_trait]
impl HttpServerApp for Http {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if session.get_keepalive().is_some() {
            session.set_keepalive(Some(self.patience));
        }
        Dismissal::or_serve(self.proxy.process_new_http(session, shutdown)).await
    }

    async fn http_cleanup(&self) {
        self.proxy.http_cleanup().await;
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.h2.clone())
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}
