//! The one client for everything but downloads: it looks at heads and reads small documents.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, LOCATION, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::answer::is_redirect;
use crate::access::{Access, Fault, is_long};
use crate::config::{HostPort, Scheme};
use crate::hops::{CDN_LOOP, CdnLoop};

/// Largest answer to a call, in bytes.
const MAX_DOCUMENT: usize = 2 << 20;
/// Redirects that are followed from a URL of the configuration.
const MAX_REDIRECTS: usize = 5;
/// Idle connections that are kept for each target.
const IDLE_PER_HOST: usize = 2;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The host name leads nowhere.
    #[error("cannot resolve `{host}`")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        #[source]
        source: Option<std::io::Error>,
    },
    /// The request failed before a response head was there.
    #[error("{method} `{url}` failed")]
    Request {
        /// The method.
        method: Method,
        /// The URL.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The document broke off.
    #[error("the answer broke off")]
    Body(#[source] reqwest::Error),
    /// The document is larger than any that makes sense.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The head of the answer is longer than any that makes sense.
    #[error("`{0}` answered with a head that is too long")]
    LongHead(String),
    /// Another status than 200, where nothing else makes sense.
    #[error("`{url}` answered with status {}", status.as_u16())]
    Status {
        /// The URL without what nobody needs to see.
        url: String,
        /// The status.
        status: StatusCode,
    },
    /// A redirect to somebody whom the configuration does not name.
    #[error(
        "`{url}` redirects to `{to}`, which is another server; write that into the configuration"
    )]
    Elsewhere {
        /// The URL without what nobody needs to see.
        url: String,
        /// Scheme, host and port that it leads to.
        to: String,
    },
    /// A redirect without a usable `location`.
    #[error("`{url}` redirects to nowhere")]
    Nowhere {
        /// The URL without what nobody needs to see.
        url: String,
    },
    /// Redirects without end.
    #[error("`{url}` redirects more than {MAX_REDIRECTS} times")]
    Loop {
        /// The URL without what nobody needs to see.
        url: String,
    },
    /// The client could not be set up.
    #[error("cannot set up the HTTP client")]
    Setup(#[source] reqwest::Error),
}

impl ClientError {
    /// What is wrong between the target and this process, where that is it.
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Request { source, .. } | Self::Body(source) => Fault::behind(source),
            Self::Resolve { .. }
            | Self::TooLarge(_)
            | Self::LongHead(_)
            | Self::Status { .. }
            | Self::Elsewhere { .. }
            | Self::Nowhere { .. }
            | Self::Loop { .. }
            | Self::Setup(_) => None,
        }
    }

    /// Whether there was no connection to ask anything on.
    pub(super) fn is_of_connecting(&self) -> bool {
        matches!(self, Self::Request { source, .. } if source.is_connect())
    }
}

/// A client that follows no redirect by itself and obeys no `HTTP_PROXY`: what is asked is what
/// answers.
fn builder(connect_timeout: Duration) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("snapedge/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .http1_only()
        .pool_max_idle_per_host(IDLE_PER_HOST)
        .connect_timeout(connect_timeout)
}

/// A client for URLs of the configuration.
#[derive(Clone, Debug)]
pub struct Client {
    connect_timeout: Duration,
    http: reqwest::Client,
}

impl Client {
    /// Sets the client up. `connect_timeout` bounds each connection; a caller bounds the rest.
    pub fn new(connect_timeout: Duration) -> Result<Self, ClientError> {
        let http = builder(connect_timeout).build().map_err(ClientError::Setup)?;
        Ok(Self { connect_timeout, http })
    }

    /// How long a connection may take.
    pub(super) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// Posts JSON to a URL of the configuration and reads the answer.
    pub(super) async fn post_json(
        &self,
        url: &str,
        body: &str,
    ) -> Result<(Head, Vec<u8>), ClientError> {
        let request =
            self.http.post(url).header(CONTENT_TYPE, "application/json").body(body.to_owned());
        let failed = |source: reqwest::Error| ClientError::Request {
            method: Method::POST,
            url: without_secrets(url),
            source: source.without_url(),
        };
        let response = request.send().await.map_err(failed)?;
        let response = with_head(response, || without_secrets(url))?;
        Ok((head_of(&response), read_bounded(response, MAX_DOCUMENT).await?))
    }

    /// Reads a document of at most `most` bytes from a URL of the configuration. Redirects are
    /// followed, with all that is sent, as long as they lead to the same server.
    pub(super) async fn get(
        &self,
        url: &url::Url,
        headers: HeaderMap,
        most: usize,
    ) -> Result<(Head, Vec<u8>), ClientError> {
        let shown = || without_secrets(url.as_str());
        let mut at = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let request = self.http.get(at.clone()).headers(headers.clone());
            let response = request.send().await.map_err(|source| ClientError::Request {
                method: Method::GET,
                url: shown(),
                source: source.without_url(),
            })?;
            let response = with_head(response, shown)?;
            let head = head_of(&response);
            match head.status {
                StatusCode::OK => return Ok((head, read_bounded(response, most).await?)),
                status if is_redirect(status) => at = onward(&at, &head.headers)?,
                _ => return Err(ClientError::Status { url: shown(), status: head.status }),
            }
        }
        Err(ClientError::Loop { url: shown() })
    }
}

/// Where a redirect leads, where that is the same server still: the same host and port, or the same
/// host by TLS, which makes it prove that it is.
fn onward(from: &url::Url, headers: &HeaderMap) -> Result<url::Url, ClientError> {
    let shown = || without_secrets(from.as_str());
    let nowhere = || ClientError::Nowhere { url: shown() };
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let to = location.and_then(|location| from.join(location).ok()).filter(url::Url::has_host);
    let mut to = to.ok_or_else(nowhere)?;
    let is_same = to.origin() == from.origin();
    let by_tls = (from.scheme(), to.scheme()) == ("http", "https") && to.host() == from.host();
    if !is_same && !by_tls {
        return Err(ClientError::Elsewhere { url: shown(), to: without_secrets(to.as_str()) });
    }
    // Name and password are part of the URL here, and none of what the server sends.
    to.set_username(from.username()).map_err(|()| nowhere())?;
    to.set_password(from.password()).map_err(|()| nowhere())?;
    Ok(to)
}

/// A client for the targets of one group.
#[derive(Clone)]
pub struct GroupClient {
    access: Arc<Access>,
    connect_timeout: Duration,
    http: reqwest::Client,
}

impl GroupClient {
    /// Sets the client up. `connect_timeout` bounds each connection; a caller bounds the rest.
    pub fn new(access: Arc<Access>, connect_timeout: Duration) -> Result<Self, ClientError> {
        let http = with_access(&access, connect_timeout).build().map_err(ClientError::Setup)?;
        Ok(Self { access, connect_timeout, http })
    }

    /// Whether it reaches targets as another one does.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.is_of(&other.access, other.connect_timeout)
    }

    /// Whether it is what these would make.
    pub(super) fn is_of(&self, access: &Arc<Access>, connect_timeout: Duration) -> bool {
        Arc::ptr_eq(&self.access, access) && self.connect_timeout == connect_timeout
    }

    /// How the group's targets are reached.
    pub(super) fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// The connection to one target at one address.
    pub(super) fn connection(
        &self,
        target: &HostPort,
        address: IpAddr,
    ) -> Result<TargetConnection, ClientError> {
        let address = SocketAddr::new(address, target.port());
        let http = match self.access.scheme() {
            Scheme::Https if target.address().is_none() => {
                // The certificate is judged by the name in the URL, and connections go to the
                // address all the same. Idle ones are found by name: to an address that is not the
                // target's any more there must be none.
                let builder = with_access(&self.access, self.connect_timeout);
                // Of the address alone: a redirect may lead to another port.
                let address = SocketAddr::new(address.ip(), 0);
                builder.resolve(target.host(), address).build().map_err(ClientError::Setup)?
            }
            Scheme::Https | Scheme::Http => self.http.clone(),
        };
        let (host, authority) = (target.host().to_owned(), target.to_string());
        let access = Arc::clone(&self.access);
        let came_through = access.came_through(&CdnLoop::default());
        Ok(TargetConnection { http, access, host, authority, address, came_through })
    }
}

fn with_access(access: &Access, connect_timeout: Duration) -> reqwest::ClientBuilder {
    let builder = builder(connect_timeout);
    match access.client_tls() {
        Some(tls) => builder.use_preconfigured_tls(tls),
        None => builder,
    }
}

/// The connection to one target at one address: over TCP there may be several at once, or none.
#[derive(Clone)]
pub(super) struct TargetConnection {
    http: reqwest::Client,
    access: Arc<Access>,
    host: String,
    authority: String,
    pub(super) address: SocketAddr,
    /// Value of `cdn-loop` in each request.
    pub(super) came_through: HeaderValue,
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
}

impl TargetConnection {
    /// How the target is reached.
    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    /// Asks for the head of a place that leads to an archive. HEAD first; where that may be
    /// refused, GET whose body is not read (Firedancer's RPC port closes the connection on HEAD,
    /// others answer 405, and those that have a route for GET alone 404).
    pub(super) async fn head(&self, at: &Place) -> Result<Head, ClientError> {
        match self.send(Method::HEAD, at).await {
            Ok(response) if !may_refuse_head(response.status()) => Ok(head_of(&response)),
            Err(ClientError::Request { source, .. }) if !is_broken(&source) => {
                Err(ClientError::Request { method: Method::HEAD, url: at.url(), source })
            }
            Ok(_) | Err(_) => self.send(Method::GET, at).await.map(|response| head_of(&response)),
        }
    }

    /// Asks for the head of a place, by HEAD and in no other way: a GET begins a transfer.
    pub(super) async fn head_alone(&self, at: &Place) -> Result<Head, ClientError> {
        self.send(Method::HEAD, at).await.map(|response| head_of(&response))
    }

    /// Asks for the first byte of a place, and reads no more of the answer than its head: from a
    /// server that ignores ranges all of it is on its way.
    pub(super) async fn first_byte(&self, at: &Place) -> Result<Head, ClientError> {
        let request = self.request(Method::GET, at).header(RANGE, "bytes=0-0");
        answered(request, Method::GET, at).await.map(|response| head_of(&response))
    }

    /// Reads a small document, of at most `most` bytes.
    pub(super) async fn document(
        &self,
        at: &Place,
        most: usize,
    ) -> Result<(Head, Vec<u8>), ClientError> {
        let response = self.send(Method::GET, at).await?;
        let head = head_of(&response);
        Ok((head, read_bounded(response, most).await?))
    }

    /// Reads a document of at most `most` bytes piece by piece: it is never held as a whole.
    pub(super) async fn pieces(
        &self,
        at: &Place,
        most: usize,
    ) -> Result<(Head, Pieces), ClientError> {
        let response = self.send(Method::GET, at).await?;
        Ok((head_of(&response), Pieces { response, most, read: 0 }))
    }

    /// Posts JSON that may be posted twice: a connection that was kept and is closed in this very
    /// moment is no failure of the target, and of one that is the second try is no harm.
    pub(super) async fn post(&self, at: &Place, json: Bytes) -> Result<Pending, ClientError> {
        let post = || {
            let request = self.request(Method::POST, at).header(CONTENT_TYPE, "application/json");
            answered(request.body(json.clone()), Method::POST, at)
        };
        let response = match post().await {
            Err(ClientError::Request { source, .. }) if is_broken(&source) => post().await?,
            answer => answer?,
        };
        Ok(Pending { response, body: Vec::new() })
    }

    async fn send(&self, method: Method, at: &Place) -> Result<reqwest::Response, ClientError> {
        answered(self.request(method.clone(), at), method, at).await
    }

    fn request(&self, method: Method, at: &Place) -> reqwest::RequestBuilder {
        // To the address and not to the name, so that a probe and the downloads that follow from
        // it meet the same machine; the name goes into the `host` header. With TLS the client knows
        // the one address of the name.
        let url = match self.access.scheme() {
            Scheme::Http => format!("http://{}{}", at.address, at.path),
            Scheme::Https => format!("https://{}:{}{}", self.host, at.address.port(), at.path),
        };
        let request = self.http.request(method, &url);
        let request = request.header(HOST, &at.authority).header(ACCEPT, "*/*");
        let request = request.header(CDN_LOOP, &self.came_through);
        match self.access.authorization(&self.authority, &at.authority) {
            Some(value) => request.header(AUTHORIZATION, value),
            None => request,
        }
    }
}

/// A body that is read piece by piece. Who drops it leaves the rest.
pub(super) struct Pieces {
    response: reqwest::Response,
    most: usize,
    read: usize,
}

impl Pieces {
    /// The next piece; nothing at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        let broken = |error: reqwest::Error| ClientError::Body(error.without_url());
        let piece = self.response.chunk().await.map_err(broken)?;
        self.read += piece.as_ref().map_or(0, Bytes::len);
        if self.read > self.most {
            return Err(ClientError::TooLarge(self.most));
        }
        Ok(piece)
    }
}

/// An answer whose body is read when there is room for it.
pub(super) struct Pending {
    response: reqwest::Response,
    body: Vec<u8>,
}

impl Pending {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Bytes of the body, where the head tells.
    pub(super) fn length(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// Reads on until `most` bytes are there, or all: what is read then is all of it.
    pub(super) async fn read(&mut self, most: usize) -> Result<Option<Vec<u8>>, ClientError> {
        let broken = |error: reqwest::Error| ClientError::Body(error.without_url());
        while self.body.len() <= most {
            match self.response.chunk().await.map_err(broken)? {
                Some(chunk) => self.body.extend_from_slice(&chunk),
                None => return Ok(Some(std::mem::take(&mut self.body))),
            }
        }
        Ok(None)
    }
}

async fn answered(
    request: reqwest::RequestBuilder,
    method: Method,
    at: &Place,
) -> Result<reqwest::Response, ClientError> {
    let response = request.send().await.map_err(|source| ClientError::Request {
        method,
        url: at.url(),
        source: source.without_url(),
    });
    with_head(response?, || at.url())
}

/// An answer whose head is no longer than it may be. (Up to 400 KiB of one are read before that is
/// known.)
fn with_head(
    response: reqwest::Response,
    url: impl FnOnce() -> String,
) -> Result<reqwest::Response, ClientError> {
    if is_long(response.headers()) { Err(ClientError::LongHead(url())) } else { Ok(response) }
}

/// Something that a target can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) scheme: Scheme,
    pub(super) address: SocketAddr,
    pub(super) authority: String,
    pub(super) path: String,
}

impl Place {
    pub(super) fn url(&self) -> String {
        format!("{}://{}{}", self.scheme, self.authority, self.path)
    }
}

fn head_of(response: &reqwest::Response) -> Head {
    Head { status: response.status(), headers: response.headers().clone() }
}

/// Scheme, host and port: paths and queries of RPC providers are the keys to them.
fn without_secrets(url: &str) -> String {
    let origin = url::Url::parse(url).map(|url| url.origin().ascii_serialization());
    origin.unwrap_or_else(|_| "the configured URL".to_owned())
}

async fn read_bounded(
    mut response: reqwest::Response,
    most: usize,
) -> Result<Vec<u8>, ClientError> {
    let mut body = Vec::new();
    let broken = |error: reqwest::Error| ClientError::Body(error.without_url());
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if body.len() + chunk.len() > most {
            return Err(ClientError::TooLarge(most));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn may_refuse_head(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 403..=406 | 410 | 501)
}

/// True where the peer was reached and then closed the connection without an answer.
fn is_broken(error: &reqwest::Error) -> bool {
    !error.is_connect() && !error.is_timeout()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_followed_to_the_same_server_alone() {
        let onward = |from: &str, to: &str| {
            let headers = HeaderMap::from_iter([(LOCATION, to.parse().expect("a value"))]);
            onward(&from.parse().expect("a URL"), &headers)
        };
        let plain = "http://u:p%40@sd.example/targets?key=hush";
        for (from, to, expected) in [
            (plain, "/targets/", "http://u:p%40@sd.example/targets/"),
            (plain, "new?a=b", "http://u:p%40@sd.example/new?a=b"),
            (plain, "http://SD.example:80/x", "http://u:p%40@sd.example/x"),
            (plain, "//sd.example/x", "http://u:p%40@sd.example/x"),
            (plain, "http://other:pass@sd.example/x", "http://u:p%40@sd.example/x"),
            (plain, "https://sd.example/targets", "https://u:p%40@sd.example/targets"),
            ("http://sd.example:8080/", "https://sd.example:8443/", "https://sd.example:8443/"),
            ("https://sd.example/", "https://sd.example:443/x", "https://sd.example/x"),
            ("http://[::1]:1/", "http://[0::1]:1/x", "http://[::1]:1/x"),
        ] {
            assert_eq!(onward(from, to).expect(to).as_str(), expected);
        }
        for (from, to) in [
            (plain, "http://other.example/targets"),
            (plain, "http://sd.example:81/targets"),
            (plain, "https://sd.example.evil/targets"),
            (plain, "//other.example/x"),
            ("https://sd.example/", "http://sd.example/"),
            ("https://sd.example/", "https://sd.example:444/"),
            (plain, "ftp://sd.example/"),
            (plain, "http://"),
            (plain, "mailto:a@sd.example"),
        ] {
            let error = onward(from, to).expect_err(to).to_string();
            assert!(error.contains("redirects to "), "{to}: {error}");
            assert!(!error.contains("hush") && !error.contains("p%40"), "{to}: {error}");
        }
        assert!(super::onward(&plain.parse().expect("a URL"), &HeaderMap::new()).is_err());
    }
}
