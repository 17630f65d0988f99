//! `ProxyHttp`: the path of a request through Pingora.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_cache::{CacheKey, NoCacheReason, RespCacheable};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, RangeType, Session};

use super::admission::Admission;
use super::caching;
use super::circles::Circles;
use super::context::{Context, Phase, Relay};
use super::copies::Copies;
use super::door::Serving;
use super::fills::Fills;
use super::head::{self, client_address};
use super::planning::Planned;
use super::record::Record;
use super::rpc::NodeProxy;
use super::telling::is_told;
use crate::cache::ArchiveStorage;
use crate::config::Config;
use crate::drain::Drain;
use crate::fetch::{self, LookCounts, Looks, Orders, Upstreams};
use crate::ledger::Ledgers;
use crate::route::{self, Failure, Keys, Settings, SourceFailure, TagKey, Terms, Verdict};
use crate::target::{Published, ReferenceSlot, Scraper};

/// What is wrong with a source or a request, on its way through Pingora's error type. The details
/// are in the request's context.
const REFUSED: ErrorType = ErrorType::new("Refused");

/// The public side of the process.
pub struct Edge {
    pub(super) settings: Settings,
    pub(super) upstreams: Arc<Upstreams>,
    pub(super) published: Arc<Published>,
    pub(super) reference: Option<Arc<ReferenceSlot>>,
    pub(super) copies: Arc<Copies>,
    /// What clients know copies by.
    pub(super) tags: TagKey,
    pub(super) circles: Circles,
    pub(super) admission: Arc<Admission>,
    pub(super) cache: Option<&'static ArchiveStorage>,
    pub(super) fills: Arc<Fills>,
    /// The targets that are local directories.
    pub(super) ledgers: Arc<Ledgers>,
    /// Where archives are ordered that requests share while they are fetched.
    pub(super) orders: Option<Orders>,
    /// For archives that the index does not know.
    pub(super) looks: Looks,
    pub(super) terms: Terms,
    /// What is passed on to nodes, where that is wanted.
    pub(super) rpc: Option<NodeProxy>,
    /// How long a range waits for what is being fetched.
    pub(super) range_wait: Duration,
    /// Counts requests, for the end of the process.
    pub(super) drain: Arc<Drain>,
}

impl Edge {
    /// An edge on what the scraper publishes, with a cache or without one, which is filled by
    /// orders or by requests.
    pub fn new(
        config: &Config,
        keys: Keys,
        scraper: &Scraper,
        upstreams: Arc<Upstreams>,
        cache: Option<&'static ArchiveStorage>,
        orders: Option<Orders>,
        drain: Arc<Drain>,
    ) -> Self {
        Self {
            settings: Settings::of(config),
            upstreams,
            published: scraper.published(),
            reference: scraper.reference(),
            copies: Arc::new(Copies::new(Instant::now())),
            tags: keys.tags,
            circles: Circles::default(),
            admission: Admission::new(&config.limits),
            cache,
            fills: Fills::new(&config.limits),
            ledgers: scraper.ledgers(),
            orders,
            looks: Looks::new(config, scraper, cache.map(|cache| cache.store().clone())),
            terms: Terms { sharing: config.cache.sharing, keeps: config.cache.keep_previous },
            rpc: NodeProxy::new(config, keys.choice, scraper.nodes()),
            range_wait: config.cache.range_wait,
            drain,
        }
    }

    /// How often archives were looked for that the index does not know.
    pub fn looks(&self) -> Arc<LookCounts> {
        self.looks.counts()
    }

    /// Remembers how a transfer ended, and tells where its bytes came from.
    fn note_end(&self, phase: &Phase, e: Option<&Error>) -> String {
        let now = Instant::now();
        match phase {
            Phase::Local => String::new(),
            Phase::Relay(relay) => {
                if let Some(e) = e {
                    relay.abandon(caching::ending(e));
                }
                let (Some(source), Some(given)) = (relay.source(), relay.given()) else {
                    return String::new();
                };
                if e.is_none() && relay.is_proof() {
                    self.upstreams.succeeded(&source.target);
                }
                self.copies.keep(relay.client, relay.name, given, now);
                format!(" from {}", source.target.authority)
            }
            Phase::Hit(hit) => {
                if let Some(given) = hit.given() {
                    self.copies.keep(hit.client, hit.archive.record().name, given, now);
                }
                hit.origin()
            }
        }
    }

    /// Judges the head of a source's answer; `Ok` is the head for the client.
    fn judge(&self, relay: &mut Relay, answer: &ResponseHeader) -> Result<ResponseHeader> {
        let Some(source) = relay.source().cloned() else { return refused(false) };
        let verdict = route::judge(relay.asked(), &source, answer.status, &answer.headers);
        match self.with_absence(verdict, &source, relay, answer.status) {
            Verdict::Deliver(head) => {
                if self.stops_at(&head, relay) {
                    return refused(false);
                }
                let now = Instant::now();
                let head = self.with_ranges(relay, head);
                let head = head::archive(relay.accept(head, now))?;
                let Some(given) = relay.given() else {
                    if let Some(copy) = relay.copy() {
                        self.copies.show(relay.client, relay.name, copy, now);
                    }
                    return Ok(head);
                };
                match self.copies.begin(relay.client, relay.name, &given, relay.is_blind(), now) {
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
        Context::new(self.drain.enter(), Instant::now())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        ctx.started = Instant::now();
        ctx.serving = Serving::begin(session);
        let patience = head::patience(self.upstreams.limits());
        session.as_downstream_mut().set_write_timeout(Some(patience));
        let planned = self.answer(session, ctx).await?;
        let reply = match planned {
            Ok(Planned::Relay(mut relay)) => {
                relay.is_served_by(ctx.serving.as_ref());
                ctx.memory = Some(Arc::clone(&self.copies));
                // Of a target's answers only the last one is checked and passed on.
                session.as_downstream_mut().set_ignore_info_resp(true);
                ctx.phase = Phase::Relay(relay);
                return Ok(false);
            }
            Ok(Planned::Hit(hit)) => {
                ctx.phase = Phase::Hit(hit);
                return Ok(false);
            }
            Ok(Planned::Reply(reply)) => reply,
            // What was waited for is there or is not.
            Ok(_) => Failure::Internal.reply(),
            Err(failure) => failure.reply(),
        };
        let downstream = session.as_downstream_mut();
        if !downstream.is_body_empty() && !downstream.is_body_done() {
            // Nobody reads the body, so nothing after it can be understood.
            session.set_keepalive(None);
        }
        let reply = self.introduce(reply, &ctx.came);
        head::write_in_time(session, reply, self.upstreams.limits()).await?;
        Ok(true)
    }

    fn request_cache_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<()> {
        if let Some(storage) = caching::storage(&ctx.phase, self.cache) {
            // No eviction and no lock: the store knows what goes, and who may fill.
            session.cache.enable(storage, None, None, None, None);
        }
        Ok(())
    }

    fn cache_key_callback(&self, _session: &Session, ctx: &mut Context) -> Result<CacheKey> {
        caching::key(&ctx.phase)
    }

    fn cache_not_modified_filter(
        &self,
        _session: &Session,
        _resp: &ResponseHeader,
        _ctx: &mut Context,
    ) -> Result<bool> {
        // Conditions were judged before.
        Ok(false)
    }

    fn range_header_filter(
        &self,
        _session: &mut Session,
        resp: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> RangeType {
        match &ctx.phase {
            Phase::Hit(hit) => caching::select(hit, resp),
            Phase::Relay(_) | Phase::Local => RangeType::None,
        }
    }

    fn response_cache_filter(
        &self,
        _session: &Session,
        resp: &ResponseHeader,
        ctx: &mut Context,
    ) -> Result<RespCacheable> {
        Ok(caching::cacheable(&ctx.phase, resp))
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        upstream_response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        caching::label(&ctx.phase, session.cache.enabled(), self.tags, upstream_response)?;
        self.introduce_archive(ctx, upstream_response)
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut Context,
    ) -> Result<Box<HttpPeer>> {
        let Phase::Relay(relay) = &mut ctx.phase else { return refused(false) };
        self.find_slot(session, relay).await?;
        relay.turn(Instant::now());
        let peer = relay.source().and_then(|source| self.upstreams.peer(source));
        let Some(mut peer) = peer else { return refused(false) };
        peer.options.read_timeout = Some(self.patience(relay));
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream_request: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        let Phase::Relay(relay) = &ctx.phase else { return refused(false) };
        let (Some(source), asked) = (relay.source(), relay.asked()) else { return refused(false) };
        let method = asked.method.clone();
        let head = self.upstreams.request(source, method, &asked.range, &ctx.came)?;
        // The whole head is made anew: nothing of the client's is left in it.
        let Some(head) = head else { return refused(false) };
        *upstream_request = head;
        head::tell_of_client(session, upstream_request)
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        upstream_response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        let status = upstream_response.status;
        let Phase::Relay(relay) = &mut ctx.phase else { return refused(false) };
        if status.is_informational() && status != http::StatusCode::SWITCHING_PROTOCOLS {
            // Each of them is a sign of life to Pingora, and no answer to the client.
            if relay.waited(Instant::now()) < self.patience(relay) {
                return Ok(());
            }
            return refused(self.source_failed(relay, SourceFailure::Timeout));
        }
        *upstream_response = self.judge(relay, upstream_response)?;
        // A 304, which nobody asked for, makes Pingora turn its cache off before it comes here.
        caching::begin(relay, session.cache.enabled()).await;
        Ok(())
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        _reused: bool,
        _peer: &HttpPeer,
        _fd: RawFd,
        _digest: Option<&Digest>,
        ctx: &mut Context,
    ) -> Result<()> {
        if let Phase::Relay(relay) = &mut ctx.phase {
            relay.connect(Instant::now());
        }
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        _end_of_stream: bool,
        ctx: &mut Context,
    ) -> Result<Option<Duration>> {
        if let Phase::Relay(relay) = &mut ctx.phase {
            relay.piece(body.as_ref().map_or(0, Bytes::len), Instant::now());
            if session.cache.enabled() && relay.is_abandoned() {
                // The writer has given up and said why; the client goes on.
                session.cache.disable(NoCacheReason::StorageError);
            }
        }
        Ok(None)
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        _end_of_stream: bool,
        ctx: &mut Context,
    ) -> Result<Option<Duration>> {
        let (bytes, now) = (body.as_ref().map_or(0, Bytes::len), Instant::now());
        let delay = ctx.permit.as_mut().and_then(|permit| permit.pass(bytes, now));
        if let (Some(delay), Phase::Relay(relay)) = (delay, &mut ctx.phase) {
            relay.held_up(delay);
        }
        if let Some(serving) = &ctx.serving {
            serving.hand_over(body);
        }
        Ok(delay)
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Context,
        mut e: Box<Error>,
    ) -> Box<Error> {
        let Phase::Relay(relay) = &mut ctx.phase else { return e };
        let failure = fetch::connect_failure(&e);
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
        let failure = fetch::transfer_failure(&e);
        relay.abandon(caching::ending(&e));
        let retry = if !theirs {
            false
        } else if session.response_written().is_none() {
            self.source_failed(relay, failure)
        } else {
            // Some bytes are with the client: no other source may supply the rest.
            if let Some(source) = relay.source() {
                log::warn!("{} from target {} broke off: {e}", relay.name, source.target);
                let now = Instant::now();
                if failure == SourceFailure::Timeout || relay.broke_by_target(now) {
                    self.upstreams.failed(&source.target, &failure, now);
                }
            }
            false
        };
        if retry && caching::forget_fill(relay) {
            session.cache.disable(NoCacheReason::UpstreamError);
        }
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
        if (written, client_left) == (None, false) {
            if is_told(&ctx.phase) {
                return self.write_told(session, &mut ctx.phase).await;
            }
            let reply = match &mut ctx.phase {
                Phase::Relay(relay) => relay.reply(),
                Phase::Hit(_) | Phase::Local => Failure::Internal.reply(),
            };
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
        let (origin, _) = (self.note_end(&ctx.phase, e), ctx.memory.take());
        let request = session.req_header();
        let status = session.response_written().map_or(0, |head| head.status.as_u16());
        let broken = match &ctx.serving {
            _ if e.is_none() || status >= 300 || is_told(&ctx.phase) => "",
            serving => serving.as_ref().and_then(Serving::broken).unwrap_or(" (broken off)"),
        };
        let record = Record {
            client: client_address(session),
            request,
            answer: session.response_written().map(|head| &head.headers),
            status,
            bytes: session.body_bytes_sent(),
            seconds: ctx.started.elapsed().as_secs_f64(),
            origin: &origin,
            ending: broken,
        };
        log::info!(target: "access", "{record}");
    }
}

pub(super) fn refused<T>(retry: bool) -> Result<T> {
    let mut error = Error::new_up(REFUSED);
    error.set_retry(retry);
    Err(error)
}
