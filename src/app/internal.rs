//! The internal listener: how the process is, and what it is told to do.
//!
//! It is for the operator and the operator's programs, and never on a public address by default.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{Method, Response, StatusCode};
use pingora::apps::ServerApp;
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use pingora::services::listening::Service;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::reload::{ReloadError, Reloader, Taken};
use crate::config::{Config, InternalListen};
use crate::error_chain::chain;
use crate::listener::{BindError, Bound};
use crate::published::Published;

/// Most connections at once.
const MAX_CONNECTIONS: usize = 64;
/// Longest that one of them is kept, however slowly it asks.
const LONGEST_CONNECTION: Duration = Duration::from_secs(600);

/// The internal listener.
pub struct Internal {
    pages: Arc<Pages>,
    places: Semaphore,
}

/// What is served there.
struct Pages {
    reloader: Arc<Reloader>,
    published: Arc<Published>,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Health,
    Ready,
    Reload,
}

impl Call {
    fn of(path: &str) -> Option<Self> {
        match path {
            "/healthz" => Some(Self::Health),
            "/readyz" => Some(Self::Ready),
            "/reload" => Some(Self::Reload),
            _ => None,
        }
    }

    /// The methods that it is asked by, as `allow` lists them.
    const fn methods(self) -> &'static str {
        match self {
            Self::Health | Self::Ready => "GET, HEAD",
            Self::Reload => "POST",
        }
    }

    fn is_asked_by(self, method: &Method) -> bool {
        self.methods().split(", ").any(|allowed| allowed == method.as_str())
    }
}

/// The service, where the configuration wants one. An address that it does not name, and that is
/// taken, is no reason not to start.
pub(super) fn bind(
    config: &Config,
    reloader: &Arc<Reloader>,
    published: &Arc<Published>,
) -> Result<Option<Bound<Internal>>, BindError> {
    let bind = |address: SocketAddr| {
        let (reloader, published) = (Arc::clone(reloader), Arc::clone(published));
        let pages = Arc::new(Pages { reloader, published });
        let internal = Internal { pages, places: Semaphore::new(MAX_CONNECTIONS) };
        let mut service = Service::new("internal".to_owned(), internal);
        service.threads = Some(1);
        // It answers until the end, so that it can be seen that this is near.
        Bound::new(service, &[address], Arc::default())
    };
    match config.internal_listen {
        InternalListen::Off => Ok(None),
        InternalListen::At(address) => bind(address).map(Some),
        InternalListen::Default => Ok(bind(InternalListen::DEFAULT)
            .inspect_err(|error| {
                let error = chain(error);
                log::warn!("there is no internal listener: {error}; set `internal_listen`");
            })
            .ok()),
    }
}

#[async_trait]
impl ServerApp for Internal {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        // Without a place the stream is dropped, which closes it.
        let _place = self.places.try_acquire().ok()?;
        timeout(LONGEST_CONNECTION, self.pages.process_new(stream, shutdown)).await.ok().flatten()
    }
}

impl Pages {
    fn ready(&self) -> (StatusCode, String) {
        if self.reloader.is_draining() {
            (StatusCode::SERVICE_UNAVAILABLE, "draining".to_owned())
        } else if self.published.is_ready() {
            (StatusCode::OK, "ready".to_owned())
        } else {
            let why = "the first round of probes is not over";
            (StatusCode::SERVICE_UNAVAILABLE, why.to_owned())
        }
    }

    async fn reload(&self) -> (StatusCode, String) {
        // Of its own: who asks may leave, and half of a reload is none.
        let reloader = Arc::clone(&self.reloader);
        let done = tokio::spawn(async move { reloader.reload().await }).await;
        match done.unwrap_or_else(|fault| Err(fault.into())) {
            Ok(Taken::Followed) => (StatusCode::OK, "reloaded".to_owned()),
            Ok(Taken::Late) => {
                (StatusCode::ACCEPTED, "reloaded, and the index follows it later".to_owned())
            }
            Err(error) => {
                let status = match &error {
                    ReloadError::Fixed(_) | ReloadError::NoFile => StatusCode::CONFLICT,
                    ReloadError::Draining | ReloadError::Busy => StatusCode::SERVICE_UNAVAILABLE,
                    _ => StatusCode::INTERNAL_SERVER_ERROR,
                };
                (status, format!("nothing was changed: {:#}", anyhow::Error::from(error)))
            }
        }
    }

    async fn answer(&self, method: &Method, path: &str) -> (StatusCode, String) {
        match Call::of(path) {
            None => (StatusCode::NOT_FOUND, "not found".to_owned()),
            Some(call) if !call.is_asked_by(method) => {
                let text = format!("`{path}` is asked by {}", call.methods());
                (StatusCode::METHOD_NOT_ALLOWED, text)
            }
            Some(Call::Health) => (StatusCode::OK, "ok".to_owned()),
            Some(Call::Ready) => self.ready(),
            Some(Call::Reload) => self.reload().await,
        }
    }
}

#[async_trait]
impl ServeHttp for Pages {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let head = session.req_header();
        let (method, path) = (head.method.clone(), head.uri.path().to_owned());
        if !session.is_body_empty() {
            // Nobody reads it, so nothing after it can be understood.
            session.set_keepalive(None);
        }
        let (status, text) = self.answer(&method, &path).await;
        let text = format!("{text}\n").into_bytes();
        let mut response = Response::builder()
            .status(status)
            .header(CONTENT_TYPE, "text/plain; charset=utf-8")
            .header(CACHE_CONTROL, "no-store")
            .header(CONTENT_LENGTH, text.len());
        if status == StatusCode::METHOD_NOT_ALLOWED
            && let Some(call) = Call::of(&path)
        {
            response = response.header(ALLOW, call.methods());
        }
        let body = if method == Method::HEAD { Vec::new() } else { text };
        response.body(body).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_has_its_methods() {
        for (path, allowed, others) in [
            ("/healthz", &["GET", "HEAD"][..], &["POST", "PUT"][..]),
            ("/readyz", &["GET", "HEAD"], &["POST", "DELETE"]),
            ("/reload", &["POST"], &["GET", "HEAD", "PUT", "POS"]),
        ] {
            let call = Call::of(path).expect(path);
            let asked = |method: &&str| call.is_asked_by(&method.parse().expect("a method"));
            assert!(allowed.iter().all(asked) && !others.iter().any(asked), "{path}");
        }
        for path in ["/", "/reload/", "/Reload", "//reload", "/v1/snapshots", "/snapshot.tar.bz2"] {
            assert_eq!(Call::of(path), None, "{path}");
        }
    }
}
