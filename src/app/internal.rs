//! The internal listener: how the process is, and what it is told to do.
//!
//! It is for the operator and the operator's programs, and never on a public address by default.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName,
    ORIGIN, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, Method, Response, StatusCode};
use pingora::apps::ServerApp;
use pingora::apps::http_app::ServeHttp;
use pingora::http::RequestHeader;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use pingora::services::listening::Service;
use tokio::sync::oneshot;

use super::exposition;
use super::observer::Observer;
use super::reload::{ReloadError, Taken};
use crate::config::{Config, InternalListen};
use crate::drain::{Drain, Opening};
use crate::error_chain::chain;
use crate::limit::LogLimiter;
use crate::listener::{BindError, Bound, Inherited};

/// Most connections at once. Of more, some make room.
const MAX_CONNECTIONS: usize = 64;
/// Longest that one of them is kept, however slowly it asks.
const LONGEST_CONNECTION: Duration = Duration::from_secs(600);

/// The page for people.
const PAGE: &str = include_str!("../status/page.html");
const TEXT: &str = "text/plain; charset=utf-8";
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The internal listener.
pub struct Internal {
    pages: Arc<Pages>,
    places: Mutex<Places>,
}

/// One connection: who has it, and how it is told to end.
struct Place {
    number: u64,
    client: IpAddr,
    leave: oneshot::Sender<()>,
}

/// The connections that there are, in the order in which they came.
#[derive(Default)]
struct Places {
    open: Vec<Place>,
    next: u64,
    crowded: LogLimiter,
}

impl Places {
    /// Takes a place. Where there is none, of the address that has the most connections the one
    /// that came first makes room: who holds connections holds up nobody but himself.
    fn take(&mut self, client: IpAddr, now: Instant) -> (u64, oneshot::Receiver<()>) {
        if self.open.len() >= MAX_CONNECTIONS {
            let of = |client| self.open.iter().filter(|place| place.client == client).count();
            let most = self.open.iter().map(|place| of(place.client)).max();
            let oldest = self.open.iter().position(|place| Some(of(place.client)) == most);
            if let Some(oldest) = oldest.map(|at| self.open.remove(at)) {
                // It may have ended just now.
                let _ = oldest.leave.send(());
            }
            if let Some(count) = self.crowded.count(now) {
                log::warn!(
                    "the internal listener has {MAX_CONNECTIONS} connections, {count} made room"
                );
            }
        }
        let (leave, told) = oneshot::channel();
        self.next += 1;
        self.open.push(Place { number: self.next, client, leave });
        (self.next, told)
    }

    fn leave(&mut self, number: u64) {
        self.open.retain(|place| place.number != number);
    }
}

/// What is served there.
struct Pages {
    observer: Arc<Observer>,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Page,
    Status,
    Metrics,
    Health,
    Ready,
    Reload,
}

impl Call {
    fn of(path: &str) -> Option<Self> {
        match path {
            "/" => Some(Self::Page),
            "/status" => Some(Self::Status),
            "/metrics" => Some(Self::Metrics),
            "/healthz" => Some(Self::Health),
            "/readyz" => Some(Self::Ready),
            "/reload" => Some(Self::Reload),
            _ => None,
        }
    }

    /// The methods that it is asked by, as `allow` lists them.
    const fn methods(self) -> &'static str {
        match self {
            Self::Reload => "POST",
            _ => "GET, HEAD",
        }
    }

    fn is_asked_by(self, method: &Method) -> bool {
        self.methods().split(", ").any(|allowed| allowed == method.as_str())
    }

    /// Whether whoever reaches it may ask: it tells nothing, and whatever asks whether a process
    /// is well does so under any name.
    const fn is_for_all(self) -> bool {
        matches!(self, Self::Health | Self::Ready)
    }
}

/// An answer.
struct Answer {
    status: StatusCode,
    media: &'static str,
    body: Vec<u8>,
    /// What a browser may do with it, where it is a page.
    policy: Option<String>,
}

impl Answer {
    fn text(status: StatusCode, text: impl std::fmt::Display) -> Self {
        Self { status, media: TEXT, body: format!("{text}\n").into_bytes(), policy: None }
    }

    fn data(media: &'static str, body: Vec<u8>) -> Self {
        Self { status: StatusCode::OK, media, body, policy: None }
    }
}

/// The service, where the configuration wants one. An address that it does not name, and that is
/// taken, is no reason not to start.
pub(super) fn bind(
    config: &Config,
    observer: &Arc<Observer>,
    inherited: &mut Inherited,
    (drain, opening): (&Arc<Drain>, &Arc<Opening>),
) -> Result<Option<Bound<Internal>>, BindError> {
    let mut bind = |address: SocketAddr| {
        let pages = Arc::new(Pages { observer: Arc::clone(observer) });
        let internal = Internal { pages, places: Mutex::default() };
        let mut service = Service::new("internal".to_owned(), internal);
        service.threads = Some(1);
        let (drain, opening) = (Arc::clone(drain), Arc::clone(opening));
        Bound::new(service, &[address], inherited, drain, opening)
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

impl Internal {
    fn places(&self) -> MutexGuard<'_, Places> {
        // No change of it can panic half-way.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ServerApp for Internal {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let socket = stream.get_socket_digest();
        let address = socket.as_ref().and_then(|socket| socket.peer_addr()?.as_inet());
        let client = address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), SocketAddr::ip);
        let (number, told_to_leave) = self.places().take(client, Instant::now());
        // A stream that is dropped is closed.
        let stream = tokio::select! {
            served = self.pages.process_new(stream, shutdown) => served,
            _ = told_to_leave => None,
            () = tokio::time::sleep(LONGEST_CONNECTION) => None,
        };
        self.places().leave(number);
        stream
    }
}

impl Pages {
    fn ready(&self) -> Answer {
        if self.observer.parts().reloader.is_draining() {
            Answer::text(StatusCode::SERVICE_UNAVAILABLE, "draining")
        } else if self.observer.parts().published.is_ready() {
            Answer::text(StatusCode::OK, "ready")
        } else {
            let why = "the first round of probes is not over";
            Answer::text(StatusCode::SERVICE_UNAVAILABLE, why)
        }
    }

    async fn reload(&self) -> Answer {
        // Of its own: who asks may leave, and half of a reload is none.
        let reloader = Arc::clone(&self.observer.parts().reloader);
        let done = tokio::spawn(async move { reloader.reload().await }).await;
        match done.unwrap_or_else(|fault| Err(fault.into())) {
            Ok(Taken::Followed) => Answer::text(StatusCode::OK, "reloaded"),
            Ok(Taken::Late) => {
                Answer::text(StatusCode::ACCEPTED, "reloaded, and the index follows it later")
            }
            Err(error) => {
                let status = match &error {
                    ReloadError::Fixed(_) | ReloadError::NoFile => StatusCode::CONFLICT,
                    ReloadError::Draining | ReloadError::Busy => StatusCode::SERVICE_UNAVAILABLE,
                    _ => StatusCode::INTERNAL_SERVER_ERROR,
                };
                let error = anyhow::Error::from(error);
                Answer::text(status, format_args!("nothing was changed: {error:#}"))
            }
        }
    }

    /// The status as of the last look.
    fn status(&self) -> Answer {
        let seen = self.observer.seen();
        let told = seen.as_ref().map(|seen| serde_json::to_vec(&seen.status));
        match told {
            Some(Ok(body)) => Answer::data("application/json", body),
            Some(Err(error)) => fault(&error),
            None => Answer::text(StatusCode::SERVICE_UNAVAILABLE, "nobody has looked yet"),
        }
    }

    fn metrics(&self) -> Answer {
        match self.observer.exposition() {
            Ok(text) => Answer::data(exposition::CONTENT_TYPE, text.into_bytes()),
            Err(error) => fault(&error),
        }
    }

    /// The page, whose own style and script alone a browser follows.
    fn page() -> Answer {
        let mut random = [0; 16];
        if let Err(error) = getrandom::fill(&mut random) {
            return Answer::text(StatusCode::INTERNAL_SERVER_ERROR, error);
        }
        let nonce = u128::from_le_bytes(random);
        let mark = |page: &str, tag: &str| {
            page.replacen(&format!("<{tag}>"), &format!("<{tag} nonce=\"{nonce:032x}\">"), 1)
        };
        let body = mark(&mark(PAGE, "style"), "script").into_bytes();
        let policy = format!(
            "default-src 'none'; connect-src 'self'; img-src data:; \
             style-src 'nonce-{nonce:032x}'; script-src 'nonce-{nonce:032x}'; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'"
        );
        let media = "text/html; charset=utf-8";
        Answer { policy: Some(policy), ..Answer::data(media, body) }
    }

    async fn answer(&self, head: &RequestHeader) -> Answer {
        let (method, path) = (&head.method, head.uri.path());
        let Some(call) = Call::of(path) else {
            return Answer::text(StatusCode::NOT_FOUND, "not found");
        };
        if !call.is_for_all() {
            let hosts = &self.observer.parts().reloader.live.load().config.internal_hosts;
            if let Err(refusal) = admit(&head.headers, hosts) {
                return Answer::text(StatusCode::FORBIDDEN, refusal);
            }
        }
        if !call.is_asked_by(method) {
            let text = format!("`{path}` is asked by {}", call.methods());
            return Answer::text(StatusCode::METHOD_NOT_ALLOWED, text);
        }
        match call {
            Call::Page => Self::page(),
            Call::Status => self.status(),
            Call::Metrics => self.metrics(),
            Call::Health => Answer::text(StatusCode::OK, "ok"),
            Call::Ready => self.ready(),
            Call::Reload => self.reload().await,
        }
    }
}

fn fault(error: &(dyn std::error::Error + 'static)) -> Answer {
    let error = chain(error);
    log::error!("an answer of the internal listener cannot be made: {error}");
    Answer::text(StatusCode::INTERNAL_SERVER_ERROR, error)
}

/// Why a request is not answered, although it reached the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Foreign {
    /// The name is not ours: a page of a browser may have made it lead here.
    #[error(
        "this host name is not known here: ask by address or as `localhost`, or list the name in \
         `internal_hosts`"
    )]
    Host,
    /// A page of another origin asks.
    #[error("pages of other origins are not answered")]
    Origin,
}

/// Whether a request may be answered. A page of a browser can send one to any address that the
/// browser reaches, and under a name of its own that leads there, read the answer as well.
fn admit(headers: &HeaderMap, hosts: &BTreeSet<String>) -> Result<(), Foreign> {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or(""));
    let host = text(&HOST);
    // Only programs that are no browsers name none.
    if host.is_some_and(|host| !is_known(host, hosts)) || headers.get_all(HOST).iter().count() > 1 {
        return Err(Foreign::Host);
    }
    if let Some(origin) = text(&ORIGIN) {
        let is_own = origin.split_once("://").is_some_and(|(scheme, authority)| {
            matches!(scheme, "http" | "https")
                && host.is_some_and(|host| host.eq_ignore_ascii_case(authority))
        });
        return if is_own { Ok(()) } else { Err(Foreign::Origin) };
    }
    // A link or an address that somebody typed shows the page to that person alone.
    let is_from_elsewhere = matches!(text(&FETCH_SITE), Some("cross-site" | "same-site"));
    if is_from_elsewhere && text(&FETCH_MODE) != Some("navigate") {
        return Err(Foreign::Origin);
    }
    Ok(())
}

/// Whether a host, with or without a port, is an address, this machine, or on the list.
fn is_known(host: &str, hosts: &BTreeSet<String>) -> bool {
    if host.parse::<SocketAddr>().is_ok() || host.parse::<IpAddr>().is_ok() {
        return true;
    }
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if bare.is_some_and(|bare| bare.parse::<Ipv6Addr>().is_ok()) {
        return true;
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        Some(_) => return false,
        None => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || hosts.contains(&name)
}

#[async_trait]
impl ServeHttp for Pages {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let head = session.req_header().clone();
        if !session.is_body_empty() {
            // Nobody reads it, so nothing after it can be understood.
            session.set_keepalive(None);
        }
        let Answer { status, media, body, policy } = self.answer(&head).await;
        let mut response = Response::builder()
            .status(status)
            .header(CONTENT_TYPE, media)
            .header(CACHE_CONTROL, "no-store")
            .header(X_CONTENT_TYPE_OPTIONS, "nosniff")
            .header(RESOURCE_POLICY, "same-origin")
            .header(CONTENT_LENGTH, body.len());
        if let Some(policy) = policy {
            response = response
                .header(CONTENT_SECURITY_POLICY, policy)
                .header(REFERRER_POLICY, "no-referrer");
        }
        if status == StatusCode::METHOD_NOT_ALLOWED
            && let Some(call) = Call::of(head.uri.path())
        {
            response = response.header(ALLOW, call.methods());
        }
        let body = if head.method == Method::HEAD { Vec::new() } else { body };
        response.body(body).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_has_its_methods() {
        for (path, allowed, others) in [
            ("/", &["GET", "HEAD"][..], &["POST", "PUT"][..]),
            ("/status", &["GET", "HEAD"], &["POST", "DELETE"]),
            ("/metrics", &["GET", "HEAD"], &["POST", "get"]),
            ("/healthz", &["GET", "HEAD"][..], &["POST", "PUT"][..]),
            ("/readyz", &["GET", "HEAD"], &["POST", "DELETE"]),
            ("/reload", &["POST"], &["GET", "HEAD", "PUT", "POS"]),
        ] {
            let call = Call::of(path).expect(path);
            let asked = |method: &&str| call.is_asked_by(&method.parse().expect("a method"));
            assert!(allowed.iter().all(asked) && !others.iter().any(asked), "{path}");
        }
        for path in [
            "//",
            "/status/",
            "/metrics.txt",
            "/reload/",
            "/Reload",
            "//reload",
            "/v1/snapshots",
            "/snapshot.tar.bz2",
        ] {
            assert_eq!(Call::of(path), None, "{path}");
        }
    }

    #[test]
    fn who_has_the_most_connections_makes_room_with_the_oldest() {
        let (mut places, now) = (Places::default(), Instant::now());
        let client = |number| IpAddr::V4(Ipv4Addr::new(10, 0, 0, number));
        let (_, mut own) = places.take(client(1), now);
        let mut others: Vec<_> =
            (1..MAX_CONNECTIONS).map(|_| places.take(client(2), now)).collect();
        assert!(others[0].1.try_recv().is_err(), "there is room for all of them");
        let (_, mut last) = places.take(client(3), now);
        assert!(others[0].1.try_recv().is_ok() && last.try_recv().is_err());
        let (_, mut more) = places.take(client(2), now);
        assert!(others[1].1.try_recv().is_ok() && more.try_recv().is_err());
        assert!(own.try_recv().is_err(), "it came first, and is the only one of its address");
        // Who has left is nobody's room.
        places.leave(others[2].0);
        let (_, mut newest) = places.take(client(2), now);
        assert!(newest.try_recv().is_err() && others[3].1.try_recv().is_err());
        assert_eq!(places.open.len(), MAX_CONNECTIONS);
    }

    #[test]
    fn who_asks_under_a_name_of_his_own_or_from_another_page_is_refused() {
        let hosts = BTreeSet::from(["edge.example".to_owned()]);
        let check = |lines: &[(&'static str, &str)], expected: Result<(), Foreign>| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, value.parse().expect("a value"));
            }
            assert_eq!(admit(&headers, &hosts), expected, "{lines:?}");
        };
        check(&[], Ok(()));
        for host in [
            "127.0.0.1",
            "127.0.0.1:8457",
            "10.1.2.3:80",
            "[::1]",
            "[::1]:8457",
            "localhost",
            "localhost:8457",
            "LOCALHOST.:1",
            "a.localhost",
            "edge.example",
            "Edge.Example:8457",
        ] {
            check(&[("host", host)], Ok(()));
            check(&[("host", host), ("origin", &format!("http://{host}"))], Ok(()));
            check(&[("host", host), ("origin", "http://evil.example")], Err(Foreign::Origin));
            check(&[("host", host), ("origin", "null")], Err(Foreign::Origin));
        }
        for host in [
            "evil.example",
            "evil.example:8457",
            "localhost.evil.example",
            "",
            "127.0.0.1.nip.io",
            "notlocalhost",
            "edge.example.evil",
            "127.0.0.1:x",
            "edge.example:99999",
            "[::1",
            "127.0.0.1@evil.example",
        ] {
            check(&[("host", host)], Err(Foreign::Host));
            check(&[("host", host), ("origin", &format!("http://{host}"))], Err(Foreign::Host));
        }
        check(&[("host", "localhost"), ("host", "evil.example")], Err(Foreign::Host));
        // The port is of the origin.
        let local = ("host", "localhost:8457");
        check(&[local, ("origin", "http://localhost:3000")], Err(Foreign::Origin));
        check(&[local, ("origin", "https://LOCALHOST:8457")], Ok(()));
        for (site, mode, expected) in [
            ("cross-site", "no-cors", Err(Foreign::Origin)),
            ("same-site", "cors", Err(Foreign::Origin)),
            ("cross-site", "navigate", Ok(())),
            ("same-origin", "cors", Ok(())),
            ("none", "navigate", Ok(())),
        ] {
            check(&[local, ("sec-fetch-site", site), ("sec-fetch-mode", mode)], expected);
        }
    }

    #[test]
    fn the_page_marks_its_one_style_and_its_one_script() {
        assert_eq!((PAGE.matches("<style>").count(), PAGE.matches("<script>").count()), (1, 1));
        let Answer { body, policy, .. } = Pages::page();
        let (body, policy) = (String::from_utf8(body).expect("text"), policy.expect("a page"));
        let nonce = policy.split("'nonce-").nth(1).and_then(|rest| rest.get(..32)).expect("one");
        assert_eq!(body.matches(&format!(" nonce=\"{nonce}\">")).count(), 2);
        assert_ne!(Pages::page().policy, Some(policy), "another one each time");
    }
}
