//! `ProxyHttp`: the path of a request through Pingora.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use super::context::{Context, Phase, Relay, asked};
use super::copies::Copies;
use super::head;
use crate::api::{self, Reference, Urls};
use crate::config::{Config, Downloads, Limits};
use crate::index::{Source, TargetId};
use crate::route::{
    self, ApiCall, Failure, Plan, Reply, Requester, Route, Settings, SourceFailure, Verdict, Wanted,
};
use crate::target::{Backoff, Published, ReferenceSlot, Reporter, Scraper};

/// What is wrong with a source or a request, on its way through Pingora's error type. The details
/// are in the request's context.
const REFUSED: ErrorType = ErrorType::new("Refused");

/// The public side of the process.
pub struct Edge {
    settings: Settings,
    limits: Limits,
    published: Arc<Published>,
    reference: Option<Arc<ReferenceSlot>>,
    reporter: Reporter,
    backoff: Backoff,
    copies: Copies,
    /// Number of tries so far; none shares a connection with another.
    tries: AtomicU64,
}

impl Edge {
    /// An edge on what the scraper publishes.
    pub fn new(config: &Config, scraper: &Scraper) -> Self {
        Self {
            settings: Settings {
                downloads: config.downloads,
                default_group: config.default_group.clone(),
                public_url: config.public_url.clone(),
                max_snapshot_age: config.max_snapshot_age,
            },
            limits: config.limits.clone(),
            published: scraper.published(),
            reference: scraper.reference(),
            reporter: scraper.reporter(),
            backoff: Backoff::default(),
            copies: Copies::new(Instant::now()),
            tries: AtomicU64::new(0),
        }
    }

    /// Decides about a request; nothing here waits.
    fn plan(&self, session: &mut Session, client: IpAddr) -> Result<Planned, Failure> {
        let request = session.req_header();
        let uri = &request.uri;
        let route = route::parse(&request.method, uri.path(), uri.query())?;
        let asked = asked(&request.method, &request.headers);
        if !session.as_downstream_mut().is_body_empty() {
            return Err(Failure::Body);
        }
        let now = Instant::now();
        let suspended = |target: &TargetId| self.backoff.is_resting(target, now);
        let (mut given, mut continues) = (None, None);
        let part = asked.range.is_part_of_a_file();
        match &route {
            Route::Archive(name) if part => given = self.copies.given(client, *name, now),
            Route::ShortForm { wanted, .. } if asked.range.is_behind_the_start() => {
                continues = self.copies.archive(client, *wanted == Wanted::Full, now);
            }
            _ => {}
        }
        let preferred = |source: &Source| {
            let held = given.as_ref().is_some_and(|given| given.target == source.target);
            match &asked.if_range {
                _ if !part => false,
                None => held,
                // Without a size, the listing does not tell whether the tag is that of the source.
                Some(tag) => tag.names(source) || (held && source.listed.size.is_none()),
            }
        };
        let requester =
            Requester { client, suspended: &suspended, preferred: &preferred, continues };
        let planned = route::plan(route, &self.published.load(), &self.settings, &requester)?;
        Ok(match planned {
            Plan::Transfer(transfer) => {
                Planned::Relay(Box::new(Relay::new(transfer, client, asked, given, now)))
            }
            Plan::Reply(reply) => Planned::Reply(reply),
            Plan::Api(call) => Planned::Reply(self.call(session, &call)?),
        })
    }

    fn call(&self, session: &Session, call: &ApiCall) -> Result<Reply, Failure> {
        let shows_urls = matches!(call, ApiCall::Snapshots { .. } | ApiCall::BestSnapshots { .. });
        let urls = match (self.settings.downloads, &self.settings.public_url) {
            (Downloads::Redirect, _) => Urls::Targets,
            (Downloads::Proxy, Some(base)) => Urls::Own(base.clone()),
            (Downloads::Proxy, None) if shows_urls => Urls::Own(own_base(session)?),
            (Downloads::Proxy, None) => Urls::Own(String::new()),
        };
        let reference = match &self.reference {
            None => Reference::Unset,
            Some(reference) => reference.slot().map_or(Reference::Unknown, Reference::Slot),
        };
        Ok(api::answer(call, &self.published.load(), &self.settings, reference, &urls))
    }

    /// Notes that the current source failed before anything went to the client, and says whether
    /// another one is left.
    fn source_failed(&self, relay: &mut Relay, failure: SourceFailure) -> bool {
        if let Some(source) = relay.source() {
            log::warn!("{} from target {}: {failure}", relay.name, source.target);
            // Some servers do not answer a HEAD and serve a GET well.
            let head_only = relay.asked().method == http::Method::HEAD
                && matches!(
                    failure,
                    SourceFailure::Broken | SourceFailure::Status(_) | SourceFailure::Timeout
                );
            if failure == SourceFailure::Gone {
                self.reporter.gone(&source.target, relay.name);
            } else if !head_only && failure != SourceFailure::NoSocket {
                self.backoff.failed(&source.target, Instant::now());
            }
        }
        relay.next(failure)
    }

    /// Judges the head of a source's answer; `Ok` is the head for the client.
    fn judge(&self, relay: &mut Relay, answer: &ResponseHeader) -> Result<ResponseHeader> {
        let Some(source) = relay.source().cloned() else { return refused(false) };
        match route::judge(relay.asked(), &source, answer.status, &answer.headers) {
            Verdict::Deliver(head) => {
                let head = head::archive(relay.accept(head))?;
                let (Some(given), now) = (relay.given(), Instant::now()) else { return Ok(head) };
                if !relay.is_blind() {
                    self.copies.give(relay.client, relay.name, given, now);
                    return Ok(head);
                }
                match self.copies.give_part(relay.client, relay.name, &given, now) {
                    Ok(()) => Ok(head),
                    Err(begun) => refused(relay.rebind(begun)),
                }
            }
            Verdict::AskWhole => {
                relay.ask_whole();
                refused(true)
            }
            Verdict::Refuse(failure) => {
                relay.refuse(failure);
                refused(false)
            }
            Verdict::Fail(failure) => refused(self.source_failed(relay, failure)),
        }
    }
}

#[async_trait]
impl ProxyHttp for Edge {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context { started: Instant::now(), phase: Phase::Local }
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        ctx.started = Instant::now();
        session.as_downstream_mut().set_write_timeout(Some(self.limits.send_timeout));
        let client = client_address(session);
        let reply = match self.plan(session, client) {
            Ok(Planned::Relay(relay)) => {
                // Of a target's answers only the last one is checked and passed on.
                session.as_downstream_mut().set_ignore_info_resp(true);
                ctx.phase = Phase::Relay(relay);
                return Ok(false);
            }
            Ok(Planned::Reply(reply)) => reply,
            Err(failure) => failure.reply(),
        };
        if !session.as_downstream_mut().is_body_empty() {
            // Nobody reads the body, so nothing after it can be understood.
            session.set_keepalive(None);
        }
        head::write(session, reply).await?;
        Ok(true)
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        ctx: &mut Context,
    ) -> Result<Box<HttpPeer>> {
        let Phase::Relay(relay) = &mut ctx.phase else { return refused(false) };
        relay.turn(Instant::now());
        let Some(source) = relay.source() else { return refused(false) };
        let mut peer = HttpPeer::new(source.listed.location.address, false, String::new());
        // Its own for each try, so that no connection is used twice.
        peer.group_key = self.tries.fetch_add(1, Ordering::Relaxed);
        peer.options.connection_timeout = Some(self.limits.connect_timeout);
        peer.options.total_connection_timeout = Some(self.limits.connect_timeout);
        peer.options.read_timeout = Some(self.limits.read_timeout);
        peer.options.write_timeout = Some(self.limits.read_timeout);
        peer.options.idle_timeout = Some(Duration::ZERO);
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream_request: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        let Phase::Relay(relay) = &ctx.phase else { return refused(false) };
        let Some(source) = relay.source() else { return refused(false) };
        *upstream_request = head::to_target(session, &source.listed.location, relay.asked())?;
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        upstream_response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        let status = upstream_response.status;
        let Phase::Relay(relay) = &mut ctx.phase else { return refused(false) };
        if status.is_informational() && status != http::StatusCode::SWITCHING_PROTOCOLS {
            // Each of them is a sign of life to Pingora, and no answer to the client.
            if relay.waited(Instant::now()) < self.limits.read_timeout {
                return Ok(());
            }
            return refused(self.source_failed(relay, SourceFailure::Timeout));
        }
        *upstream_response = self.judge(relay, upstream_response)?;
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        _body: &mut Option<Bytes>,
        _end_of_stream: bool,
        ctx: &mut Context,
    ) -> Result<Option<Duration>> {
        if let Phase::Relay(relay) = &mut ctx.phase {
            relay.piece(Instant::now());
        }
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Context,
        mut e: Box<Error>,
    ) -> Box<Error> {
        let Phase::Relay(relay) = &mut ctx.phase else { return e };
        let failure = match e.etype() {
            ErrorType::ConnectTimedout => SourceFailure::ConnectTimeout,
            ErrorType::BindError | ErrorType::SocketError => SourceFailure::NoSocket,
            _ => SourceFailure::Connect,
        };
        e.set_retry(self.source_failed(relay, failure));
        e
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut e: Box<Error>,
        ctx: &mut Context,
        _client_reused: bool,
    ) -> Box<Error> {
        let Phase::Relay(relay) = &mut ctx.phase else { return e };
        if *e.etype() == REFUSED {
            // Judged already, and the judge said whether there is another try.
            return e;
        }
        let theirs = *e.esource() == ErrorSource::Upstream;
        let timeout = matches!(e.etype(), ErrorType::ReadTimedout | ErrorType::WriteTimedout);
        let retry = if !theirs {
            false
        } else if session.response_written().is_none() {
            let failure = if timeout { SourceFailure::Timeout } else { SourceFailure::Broken };
            self.source_failed(relay, failure)
        } else {
            // Some bytes are with the client: no other source may supply the rest.
            if let Some(source) = relay.source() {
                log::warn!("{} from target {} broke off: {e}", relay.name, source.target);
                let now = Instant::now();
                if timeout || relay.broke_by_target(now) {
                    self.backoff.failed(&source.target, now);
                }
            }
            false
        };
        // Pingora leaves some errors undecided, and asking those panics.
        e.set_retry(retry);
        e
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        e: &Error,
        ctx: &mut Context,
    ) -> FailToProxy {
        let written = session.response_written().map(|head| head.status.as_u16());
        let client_left = *e.esource() == ErrorSource::Downstream;
        if let (None, false, Phase::Relay(relay)) = (written, client_left, &ctx.phase) {
            let reply = relay.outcome().reply();
            let status = reply.status.as_u16();
            let sent = head::write(session, reply).await.is_ok();
            return FailToProxy { error_code: status, can_reuse_downstream: sent };
        }
        // What has begun and cannot be finished ends short of its `content-length`, together with
        // the connection, so that no client takes it for whole.
        FailToProxy { error_code: written.unwrap_or(0), can_reuse_downstream: false }
    }

    fn suppress_error_log(&self, _: &Session, _: &Context, _: &Error) -> bool {
        // `logging` writes one line for every request.
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &Context,
        _: &Error,
        _: ProxyWarnLogContext,
    ) -> bool {
        // `source_failed` writes one line for every failure of a source.
        true
    }

    async fn logging(&self, session: &mut Session, e: Option<&Error>, ctx: &mut Context) {
        let mut target = String::new();
        if let Phase::Relay(relay) = &ctx.phase
            && let (Some(source), Some(given)) = (relay.source(), relay.given())
        {
            target = format!(" from {}", source.target.authority);
            if e.is_none() {
                self.backoff.succeeded(&source.target);
            }
            self.copies.keep(relay.client, relay.name, given, Instant::now());
        }
        let request = session.req_header();
        let status = session.response_written().map_or(0, |head| head.status.as_u16());
        let path = request.uri.path();
        let shown: String = path.chars().take(MAX_LOGGED_PATH).collect();
        let method: String = request.method.as_str().chars().take(MAX_LOGGED_METHOD).collect();
        let broken = if e.is_some() && status < 400 { " (broken off)" } else { "" };
        log::info!(
            target: "access",
            "{} {method} {} {status} {} bytes {:.3} s{target}{broken}",
            client_address(session),
            shown.escape_debug(),
            session.body_bytes_sent(),
            ctx.started.elapsed().as_secs_f64(),
        );
    }
}

/// What [`Edge::plan`] decided.
enum Planned {
    Reply(Reply),
    Relay(Box<Relay>),
}

/// Most characters of a method that go into the log.
const MAX_LOGGED_METHOD: usize = 16;
/// Most characters of a path that go into the log.
const MAX_LOGGED_PATH: usize = 200;

fn refused<T>(retry: bool) -> Result<T> {
    let mut error = Error::new_up(REFUSED);
    error.set_retry(retry);
    Err(error)
}

/// Address of the client. Only a listener that is not on the network has clients without one.
fn client_address(session: &Session) -> IpAddr {
    let address = session.client_addr().and_then(|address| address.as_inet());
    address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip().to_canonical())
}

/// Scheme and host under which the request came.
fn own_base(session: &Session) -> Result<String, Failure> {
    let server = || session.server_addr().and_then(|address| address.as_inet()).copied();
    let named = head::authority(session);
    let has_host = session.req_header().headers.contains_key(http::header::HOST);
    let authority = match named {
        Some(authority) => authority,
        // HTTP/1.0 need not name a host; then it is the address that was connected to.
        None if !has_host => server().ok_or(Failure::Host)?.to_string(),
        None => return Err(Failure::Host),
    };
    Ok(format!("http://{authority}"))
}
