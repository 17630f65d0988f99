//! What is served: a request's head is read, and answered from memory or as an archive.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use pingora::http::RequestHeader;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::{HttpProxy, Session};

use super::admission::RunningCount;
use super::archives::{Answer, Archives};
use super::circles::{self, Circles};
use super::context::Context;
use super::gate::Gate;
use super::traffic::Traffic;
use crate::cache::ArchiveStorage;
use crate::config::{Config, Downloads};
use crate::configured::{Configured, Live};
use crate::drain::Drain;
use crate::fill::FillQueue;
use crate::hops::CdnLoop;
use crate::listener::Listener;
use crate::metrics::RouteClass;
use crate::on_demand::ProbeCounts;
use crate::route::plan::ArchiveRequest;
use crate::route::{self, ApiCall, Asked, Failure, Reply, Requester, Route, ShortForm};
use crate::rpc::{CallCounts, NodeProxy};
use crate::scrape::{ReferenceSlot, Scraper};
use crate::upstream::UpstreamPool;

/// What clients connect to.
pub type PublicListener = Listener<HttpProxy<SnapshotProxy>>;

/// The public side of the process. Clones are the same.
#[derive(Clone)]
pub struct SnapshotProxy {
    pub(super) archives: Arc<Archives>,
    pub(super) live: Arc<Live>,
    pub(super) reference: Arc<ReferenceSlot>,
    circles: Arc<Circles>,
    gate: Arc<Gate>,
    /// What is passed on to nodes, where that is wanted.
    rpc: Arc<NodeProxy>,
    /// Counts requests, for the end of the process.
    pub(super) drain: Arc<Drain>,
    /// Where requests are told of.
    pub(super) traffic: Arc<Traffic>,
}

impl SnapshotProxy {
    /// A proxy on what the scraper publishes, with a cache or without one, which is filled by the
    /// queue or by requests. The last two are told of each request.
    pub fn new(
        live: &Arc<Live>,
        scraper: &Scraper,
        upstreams: Arc<UpstreamPool>,
        cache: Option<&'static ArchiveStorage>,
        queue: Option<FillQueue>,
        (drain, traffic): (Arc<Drain>, Arc<Traffic>),
    ) -> Self {
        let counts = Arc::clone(&traffic.counts);
        let (nodes, views) = (scraper.nodes(), scraper.published());
        let rpc = NodeProxy::new(&live.load().config, nodes, views);
        Self {
            archives: Arc::new(Archives::new(live, scraper, upstreams, cache, queue, counts)),
            live: Arc::clone(live),
            reference: scraper.reference(),
            circles: Arc::default(),
            gate: Arc::new(Gate::new(&live.load().config)),
            rpc: Arc::new(rpc),
            drain,
            traffic,
        }
    }

    /// Goes on under another configuration, which is live by now.
    pub fn apply(&self) {
        let Configured { config, .. } = &**self.live.load();
        self.archives.apply(&config.limits);
        self.gate.apply(config);
        self.rpc.apply(config);
    }

    /// Whether the first round of probes is over.
    pub fn is_ready(&self) -> bool {
        self.archives.published.is_ready()
    }

    /// The transfers that are under way.
    pub fn running(&self) -> RunningCount {
        self.archives.admission.running()
    }

    /// How many calls there were that only a node can answer.
    pub fn calls(&self) -> Arc<CallCounts> {
        self.rpc.counts()
    }

    /// Forgets what nodes said, once the index follows another configuration.
    pub fn forget_nodes(&self) {
        self.rpc.forget();
    }

    /// How often targets were asked for archives that none of them listed.
    pub fn probes(&self) -> Arc<ProbeCounts> {
        self.archives.probes.counts()
    }

    /// Decides about a request, and waits for what that takes for as long as its client does.
    pub(super) async fn answer(
        &self,
        session: &mut Session,
        ctx: &mut Context,
    ) -> Result<std::result::Result<Answer, Failure>> {
        let (configured, visitor) = (Arc::clone(&ctx.configured), Arc::clone(&ctx.visitor));
        let request = session.req_header();
        let route = route::parse(&request.method, &visitor.place, request.uri.query());
        let is_call = configured.config.rpc_proxy.is_some()
            && route::parse_node(&request.method, &visitor.place, None).is_some();
        ctx.tally.route = match &route {
            Ok(route) => class(route),
            Err(Failure::Query { .. }) => RouteClass::Api,
            Err(_) if is_call => RouteClass::Rpc,
            Err(_) => RouteClass::Other,
        };
        let is_short = matches!(&route, Ok(route) if !matches!(route, Route::Archive(_)));
        let serving = ctx.serving.as_ref();
        if let Some(refusal) = serving.and_then(|serving| serving.refusal(is_short)) {
            return Ok(Err(refusal));
        }
        ctx.came = Arc::new(circles::came(request));
        if let Err(failure) = self.circles.turn_back(&ctx.came, &configured.edge) {
            return Ok(Err(failure));
        }
        let shown = headers_of(&configured.config, request);
        let admitted = self.gate.admit(&configured.config, &visitor, ctx.tally.route, &shown);
        // A client that leaves while its password is checked leaves its place.
        let admitted = if session.as_downstream_mut().is_body_empty() {
            while_there(session, admitted).await?
        } else {
            admitted.await
        };
        if let Err(failure) = admitted {
            return Ok(Err(failure));
        }
        // Of who may not ask a node its health is told by the edge itself.
        if configured.config.access.rpc.admits(visitor.client) {
            let asker = (visitor.client, &visitor.place);
            let passed_on = self.rpc.answer(session, &configured, asker, &ctx.came);
            if let Some(answer) = passed_on.await {
                ctx.tally.route = RouteClass::Rpc;
                return Ok(answer.map(Answer::Reply));
            }
        }
        let read = route.and_then(|route| self.read(session, ctx, route));
        match read {
            Ok(Read::Answered(reply)) => Ok(Ok(Answer::Reply(reply))),
            Ok(Read::Archive(request)) => {
                let answer = self.archives.resolve(&configured, &request, &mut ctx.permit);
                while_there(session, answer).await
            }
            Err(failure) => Ok(Err(failure)),
        }
    }

    /// Reads the head of a request. What is answered from memory is.
    fn read(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        route: Route,
    ) -> std::result::Result<Read, Failure> {
        let Context { configured, visitor, came, tally, .. } = ctx;
        let request = session.req_header();
        let asked = Asked::of(&request.method, &request.headers, configured.keys.tags);
        if !session.as_downstream_mut().is_body_empty() {
            return Err(Failure::Body);
        }
        match route {
            Route::Archive(name) => {
                tally.name = Some(name);
                let (client, came) = (visitor.client, Arc::clone(came));
                let group = visitor.place.group().cloned();
                let request = ArchiveRequest { name, client, asked, came, group };
                Ok(Read::Archive(Box::new(request)))
            }
            Route::ShortForm(mut form) => {
                if form.prefix.is_empty() {
                    form.prefix = visitor.place.prefix_of(form.group.as_deref());
                }
                self.short_form(configured, &form, &asked, visitor.client, came).map(Read::Answered)
            }
            Route::Api(call) => {
                self.call((session, visitor), configured, &call, came).map(Read::Answered)
            }
        }
    }

    fn short_form(
        &self,
        Configured { settings, edge, .. }: &Configured,
        form: &ShortForm,
        asked: &Asked,
        client: IpAddr,
        came: &CdnLoop,
    ) -> std::result::Result<Reply, Failure> {
        let Archives { published, upstreams, affinities, .. } = &*self.archives;
        let (now, view) = (Instant::now(), published.load());
        let requester = Requester { client, targets: &upstreams.at(now) };
        let begun = || affinities.archive(client, form.wanted, now);
        let continues = asked.range.is_behind_the_start().then(begun).flatten();
        let name = route::chosen(form, continues, &view, settings)?;
        let reply = route::short_form(form, &name, &view, settings, &requester)?;
        if settings.downloads == Downloads::Redirect {
            upstreams.take_turn(&name);
        }
        if !came.is_of_an_edge() {
            return Ok(reply);
        }
        // What came through the one who asks is not there for it.
        let group = form.group.as_deref().or(settings.default_group.as_deref());
        let via = view.way(&name, group, came).ok_or(Failure::NotHeld)?;
        Ok(circles::told(reply, &via, edge))
    }
}

/// What of a request's head shows who asks, where that is wanted.
fn headers_of(config: &Config, request: &RequestHeader) -> HeaderMap {
    let mut shown = HeaderMap::new();
    if config.auth.is_some() {
        for value in request.headers.get_all(AUTHORIZATION) {
            shown.append(AUTHORIZATION, value.clone());
        }
    }
    shown
}

fn class(route: &Route) -> RouteClass {
    match route {
        Route::Archive(_) => RouteClass::Archive,
        Route::ShortForm(_) => RouteClass::ShortForm,
        Route::Api(ApiCall::Snapshots { .. } | ApiCall::BestSnapshots { .. }) => RouteClass::Api,
        Route::Api(_) => RouteClass::Health,
    }
}

/// A request whose head was read.
enum Read {
    Answered(Reply),
    Archive(Box<ArchiveRequest>),
}

/// Waits for something for as long as the client of a request, which has no body, does not leave.
pub(super) async fn while_there<T>(
    session: &mut Session,
    wait: impl Future<Output = T>,
) -> Result<T> {
    tokio::select! {
        // Who need not wait is not asked whether it is still there.
        biased;
        done = wait => Ok(done),
        left = session.as_downstream_mut().read_body_or_idle(true) => {
            let left = left.and_then(|_| Error::e_explain(ErrorType::ConnectionClosed, "left"));
            left.map_err(Error::into_down)
        }
    }
}
