//! `ProxyHttp`: each phase of Pingora translates, and has what follows decided elsewhere.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_cache::{CacheKey, NoCacheReason, RespCacheable};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, RangeType, Session};

use super::answers::{Refused, patience};
use super::archives::Answer;
use super::context::{Context, Open, Phase};
use super::forward::Forward;
use super::head;
use super::request_id::REQUEST_ID;
use super::service::{SnapshotProxy, while_there};
use super::tally::Tally;
use super::traffic::Ending;
use super::visitor::Visitor;
use super::{cache_fill, cache_phases, cache_read, circles, endings};
use crate::listener::Serving;
use crate::route::{ArchiveHead, Failure, SourceFailure};
use crate::upstream;

/// What is wrong with a source or a request, on its way through Pingora's error type. The details
/// are in the request's context.
const REFUSED: ErrorType = ErrorType::new("Refused");

impl SnapshotProxy {
    /// Waits until one of a transfer's sources may carry it. A client that leaves meanwhile leaves
    /// its place.
    async fn find_slot(&self, session: &mut Session, forward: &mut Forward) -> Result<()> {
        let Some(sources) = forward.wants_slot() else { return Ok(()) };
        let upstreams = &self.archives.upstreams;
        let patience = forward.configured.config.limits.queue_wait;
        let until = forward.waits_until(patience, Instant::now());
        let found = upstreams.slot(&sources, forward.claimant(), until);
        match while_there(session, found).await? {
            Ok((place, slot)) => {
                forward.take_slot(place, slot);
                Ok(())
            }
            Err(busy) => {
                forward.refuse(Failure::Busy(busy));
                refused(false)
            }
        }
    }

    /// Lists an archive among those that are on their way; a HEAD carries none.
    fn list(&self, session: &Session, ctx: &mut Context) {
        let Tally { id, name: Some(name), started, .. } = ctx.tally else { return };
        if session.req_header().method == Method::GET {
            let client = ctx.visitor.client;
            ctx.tally.running = Some(self.traffic.transfers.begin(id, client, name, started));
        }
    }

    /// Answers a HEAD by a listing.
    async fn write_told(&self, session: &mut Session, ctx: &mut Context) -> FailToProxy {
        let told = match &mut ctx.phase {
            Phase::Forward(forward) => self.archives.told(forward),
            Phase::CacheRead(_) | Phase::Local => Err(Failure::Internal.reply()),
        };
        let (status, sent) = match told {
            Ok(told) => (told.status, write_head(session, ctx, &told).await),
            Err(reply) => (reply.status, head::write(session, reply, ctx.tally.id).await),
        };
        FailToProxy { error_code: status.as_u16(), can_reuse_downstream: sent.is_ok() }
    }
}

async fn write_head(session: &mut Session, ctx: &mut Context, told: &ArchiveHead) -> Result<()> {
    let mut head = head::archive(told)?;
    let enabled = session.cache.enabled();
    cache_phases::label(&ctx.phase, enabled, &ctx.configured, &mut head)?;
    head.insert_header(REQUEST_ID, ctx.tally.id.to_string())?;
    ctx.tally.answer_with(&head, Instant::now());
    session.write_response_header(Box::new(head), true).await?;
    session.write_response_body(None::<Bytes>, true).await
}

#[async_trait]
impl ProxyHttp for SnapshotProxy {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new(self.drain.enter(), self.live.load_full(), &self.traffic)
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        ctx.tally.started = Instant::now();
        ctx.serving = Serving::begin(session);
        let visitor = Visitor::of(session, &ctx.configured, ctx.serving.as_ref());
        ctx.visitor = Arc::new(visitor);
        let request = session.req_header();
        let (method, uri) = (request.method.clone(), request.uri.clone());
        // What is dismissed has no session at its end.
        ctx.open = Some(Open { method, uri });
        let patience = head::patience(&ctx.configured.config.limits);
        let downstream = session.as_downstream_mut();
        downstream.set_write_timeout(Some(patience));
        if let Some(serving) = ctx.serving.as_ref().filter(|_| downstream.is_body_empty()) {
            serving.complete();
        }
        let reply = match self.answer(session, ctx).await? {
            Ok(Answer::Forward(mut forward)) => {
                forward.is_served_by(ctx.serving.as_ref());
                // Of a target's answers only the last one is checked and passed on.
                session.as_downstream_mut().set_ignore_info_resp(true);
                ctx.phase = Phase::Forward(forward);
                self.list(session, ctx);
                return Ok(false);
            }
            Ok(Answer::CacheRead(read)) => {
                ctx.phase = Phase::CacheRead(read);
                self.list(session, ctx);
                return Ok(false);
            }
            Ok(Answer::Reply(reply)) => reply,
            Err(failure) => {
                ctx.tally.fail(&failure);
                endings::note_missing(&self.archives, ctx, &failure);
                failure.reply()
            }
        };
        let downstream = session.as_downstream_mut();
        if !downstream.is_body_empty() && !downstream.is_body_done() {
            // Nobody reads the body, so nothing after it can be understood.
            session.set_keepalive(None);
        }
        let reply = circles::introduce(reply, &ctx.came, &ctx.configured.edge);
        ctx.tally.answer(Instant::now());
        let limits = &ctx.configured.config.limits;
        // Nobody but the client can be the reason that it is not written.
        let written = head::write_in_time(session, reply, ctx.tally.id, limits).await;
        written.map_err(Error::into_down)?;
        Ok(true)
    }

    fn request_cache_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<()> {
        if let Some(storage) = cache_phases::storage(&ctx.phase, self.archives.cache) {
            // No eviction and no lock: the store knows what goes, and who may fill.
            session.cache.enable(storage, None, None, None, None);
        }
        Ok(())
    }

    fn cache_key_callback(&self, _session: &Session, ctx: &mut Context) -> Result<CacheKey> {
        cache_phases::key(&ctx.phase)
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
            Phase::CacheRead(read) => cache_read::select(read, resp),
            Phase::Forward(_) | Phase::Local => RangeType::None,
        }
    }

    fn response_cache_filter(
        &self,
        _session: &Session,
        resp: &ResponseHeader,
        ctx: &mut Context,
    ) -> Result<RespCacheable> {
        Ok(cache_phases::cacheable(&ctx.phase, resp))
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        upstream_response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        if upstream_response.status.is_informational() {
            // It goes to nobody, see `request_filter`.
            return Ok(());
        }
        let enabled = session.cache.enabled();
        cache_phases::label(&ctx.phase, enabled, &ctx.configured, upstream_response)?;
        upstream_response.insert_header(REQUEST_ID, ctx.tally.id.to_string())?;
        ctx.tally.answer_with(upstream_response, Instant::now());
        if let (Some(running), Some(answer)) =
            (&ctx.tally.running, endings::answer(&ctx.phase, upstream_response))
        {
            running.answer(answer);
        }
        let view = self.archives.published.load();
        circles::introduce_archive(ctx, &view, upstream_response)
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut Context,
    ) -> Result<Box<HttpPeer>> {
        let Phase::Forward(forward) = &mut ctx.phase else { return refused(false) };
        self.find_slot(session, forward).await?;
        forward.turn(Instant::now());
        let peer = forward.source().and_then(|source| self.archives.upstreams.peer(source));
        let Some(mut peer) = peer else { return refused(false) };
        peer.options.read_timeout = Some(patience(forward));
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream_request: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        let Phase::Forward(forward) = &ctx.phase else { return refused(false) };
        let (Some(source), asked) = (forward.source(), forward.asked()) else {
            return refused(false);
        };
        let method = asked.method.clone();
        let head = self.archives.upstreams.request(source, method, &asked.range, &ctx.came)?;
        // The whole head is made anew: nothing of the client's is left in it.
        let Some(head) = head else { return refused(false) };
        *upstream_request = head;
        upstream_request.insert_header(REQUEST_ID, ctx.tally.id.to_string())?;
        ctx.visitor.introduce(session, upstream_request)
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        upstream_response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        let status = upstream_response.status;
        let Phase::Forward(forward) = &mut ctx.phase else { return refused(false) };
        if status.is_informational() && status != http::StatusCode::SWITCHING_PROTOCOLS {
            // Each of them is a sign of life to Pingora, and no answer to the client.
            if forward.waited(Instant::now()) < patience(forward) {
                return Ok(());
            }
            return refused(self.archives.source_failed(forward, SourceFailure::Timeout));
        }
        match self.archives.judge(forward, status, &upstream_response.headers) {
            Ok(head) => *upstream_response = head::archive(&head)?,
            Err(Refused { retry }) => return refused(retry),
        }
        // A 304, which nobody asked for, makes Pingora turn its cache off before it comes here.
        forward.begin_fill(session.cache.enabled()).await;
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
        if let Phase::Forward(forward) = &mut ctx.phase {
            forward.connect(Instant::now());
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
        if let Phase::Forward(forward) = &mut ctx.phase {
            forward.piece(body.as_ref().map_or(0, Bytes::len), Instant::now());
            if session.cache.enabled() && forward.is_abandoned() {
                // The writer has given up and said why; the client goes on.
                session.cache.disable(NoCacheReason::StorageError);
            }
        }
        Ok(None)
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        _end_of_stream: bool,
        ctx: &mut Context,
    ) -> Result<Option<Duration>> {
        ctx.sent(session.body_bytes_sent() as u64);
        let (bytes, now) = (body.as_ref().map_or(0, Bytes::len), Instant::now());
        let delay = ctx.permit.as_mut().and_then(|permit| permit.pass(bytes, now));
        if let (Some(delay), Phase::Forward(forward)) = (delay, &mut ctx.phase) {
            forward.held_up(delay);
        }
        if let Some(delivery) = ctx.phase.delivery() {
            delivery.pass(bytes);
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
        let Phase::Forward(forward) = &mut ctx.phase else { return e };
        let failure = upstream::connect_failure(&e);
        e.set_retry(self.archives.source_failed(forward, failure));
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
        let Phase::Forward(forward) = &mut ctx.phase else { return e };
        if *e.etype() == REFUSED {
            // Judged already, and the judge said whether there is another try.
            return e;
        }
        let theirs = *e.esource() == ErrorSource::Upstream;
        let failure = upstream::transfer_failure(&e);
        forward.abandon(cache_fill::ending(&e));
        let retry = if !theirs {
            false
        } else if session.response_written().is_none() {
            self.archives.source_failed(forward, failure)
        } else {
            // Some bytes are with the client: no other source may supply the rest.
            if let Some(source) = forward.source() {
                log::warn!("{} from target {} broke off: {e}", forward.name, source.target);
                let now = Instant::now();
                self.archives.upstreams.count(&failure);
                if forward.is_targets_fault(&failure, now) {
                    self.archives.upstreams.broke(source, forward.reached(), &failure, now);
                }
            }
            false
        };
        if retry && forward.forget_fill() {
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
            if ctx.phase.is_told() {
                return self.write_told(session, ctx).await;
            }
            let reply = match &mut ctx.phase {
                Phase::Forward(forward) => {
                    if forward.is_missing_copy() {
                        self.archives.affinities.miss(forward.client, forward.name, Instant::now());
                    }
                    if let Some(failure) = forward.failure() {
                        ctx.tally.fail(&failure);
                    }
                    forward.reply()
                }
                Phase::CacheRead(_) | Phase::Local => {
                    ctx.tally.fail(&Failure::Internal);
                    Failure::Internal.reply()
                }
            };
            let status = reply.status.as_u16();
            ctx.tally.answer(Instant::now());
            let sent = head::write(session, reply, ctx.tally.id).await.is_ok();
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
        let upstream = endings::note_end(&self.archives, session, ctx, e);
        ctx.open = None;
        let status = session.response_written().map_or(0, |head| head.status.as_u16());
        let is_told = ctx.phase.is_told();
        let remark = match &ctx.serving {
            _ if e.is_none() || status >= 300 || is_told => "",
            serving => serving.as_ref().and_then(Serving::broken).unwrap_or(" (broken off)"),
        };
        let cut = ctx.serving.as_ref().and_then(Serving::cut);
        let has_all = is_told || endings::has_all(session);
        let request = session.req_header();
        let ending = Ending {
            client: ctx.visitor.client,
            connection: ctx.visitor.peer,
            method: &request.method,
            uri: &request.uri,
            asked: Some(&request.headers),
            answer: session.response_written().map(|head| &head.headers),
            status,
            bytes: session.body_bytes_sent() as u64,
            upstream: upstream.as_deref(),
            end: ctx.tally.end(e, has_all, cut),
            remark,
        };
        self.traffic.end(&mut ctx.tally, &ending);
    }
}

fn refused<T>(retry: bool) -> Result<T> {
    let mut error = Error::new_up(REFUSED);
    error.set_retry(retry);
    Err(error)
}
