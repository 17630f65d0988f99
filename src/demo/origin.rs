//! An origin as an HTTP server: requests in, answers of its dialect out.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;

use super::answer::Answer;
use super::shelf::Shelf;
use super::{rpc, sidecar};

/// Seconds for which an idle connection stays open.
const KEEP_ALIVE_SECONDS: u64 = 60;
/// How long a client may take to accept some bytes.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Which program an origin stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Dialect {
    /// The RPC port of an Agave node.
    Rpc,
    /// The sidecar of solana-cluster.
    Sidecar,
}

/// One origin.
pub(super) struct Origin {
    dialect: Dialect,
    shelf: Arc<Shelf>,
}

impl Origin {
    /// An origin that answers for what is on the shelf.
    pub(super) fn new(dialect: Dialect, shelf: Arc<Shelf>) -> Self {
        Self { dialect, shelf }
    }

    async fn answer(&self, request: &RequestHeader) -> Answer {
        match self.dialect {
            Dialect::Rpc => rpc::answer(&self.shelf, request).await,
            Dialect::Sidecar => sidecar::answer(&self.shelf, request).await,
        }
    }
}

#[async_trait]
impl HttpServerApp for Origin {
    async fn process_new_http(
        self: &Arc<Self>,
        mut http: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        // A client that goes away, here or below, is the everyday end of a connection.
        if !http.read_request().await.ok()? {
            return None;
        }
        // Nobody reads a request's body, so nothing after one can be understood.
        let keep = http.is_body_empty() && !*shutdown.borrow();
        http.set_keepalive(keep.then_some(KEEP_ALIVE_SECONDS));
        http.set_write_timeout(Some(WRITE_TIMEOUT));
        let answer = self.answer(http.req_header()).await;
        if let Err(error) = answer.write(&mut http).await {
            log::debug!("an origin broke off: {error}");
            return None;
        }
        let settings = HttpPersistentSettings::for_session(&http);
        let stream = http.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(stream, settings))
    }
}
