//! From a request's head to what is done with it; nothing here waits.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::Method;
use pingora_proxy::Session;

use super::admission::Permit;
use super::awaiting::{Awaiting, Fetch};
use super::context::{Caching, Hit, Relay};
use super::edge::Edge;
use super::fills::Turn;
use super::inquiring::{Inquiring, Inquiry};
use super::lending::Loan;
use super::seeking::Seeking;
use crate::cache::{Archive, ArchiveStorage, Record, Standing};
use crate::config::Downloads;
use crate::fetch::{Order, Placed, Tenacity};
use crate::hops::CdnLoop;
use crate::index::{Source, TargetId, View};
use crate::route::{
    self, Asked, Bypass, CacheStatus, Cached, ClientNet, Delivery, Failure, Given, RangeRequest,
    Reply, Requester, Route, Targets as _, Wish,
};
use crate::snapshot::ArchiveName;

/// What [`Edge::plan`] decided.
pub(super) enum Planned {
    Reply(Reply),
    Relay(Box<Relay>),
    Hit(Box<Hit>),
    /// Nothing yet: see [`Edge::let_in`].
    Queue(Box<Request>),
    /// Nor yet: see [`Edge::join`].
    Await(Box<Awaiting>),
    /// Nor yet: see [`Edge::found`].
    Seek(Box<Seeking>),
    /// Nor yet: see [`Edge::borrow`].
    Lend(Box<Loan>),
    /// Nor yet: see [`Edge::inquire`].
    Inquire(Box<Inquiring>),
}

/// Whether a request may still be answered out of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ledgers {
    Open,
    /// They were asked, and what they list is not there.
    Passed,
}

/// A request for an archive.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) name: ArchiveName,
    pub(super) client: IpAddr,
    pub(super) asked: Asked,
    /// The proxies that it came through.
    pub(super) came: Arc<CdnLoop>,
    pub(super) ledgers: Ledgers,
    pub(super) inquiry: Inquiry,
    pub(super) turn: Turn,
}

impl Edge {
    /// Decides about a request.
    ///
    /// A transfer of an archive gets a permit, or waits for one.
    pub(super) fn plan(
        &self,
        session: &mut Session,
        client: IpAddr,
        came: &Arc<CdnLoop>,
        permit: &mut Option<Permit>,
    ) -> Result<Planned, Failure> {
        let request = session.req_header();
        let uri = &request.uri;
        let route = route::parse(&request.method, uri.path(), uri.query())?;
        let asked = Asked::of(&request.method, &request.headers, self.tags);
        if !session.as_downstream_mut().is_body_empty() {
            return Err(Failure::Body);
        }
        let now = Instant::now();
        let view = self.published.load();
        let requester = Requester { client, targets: &self.upstreams.at(now) };
        let reply = match route {
            Route::Archive(name) => {
                let (came, ledgers) = (Arc::clone(came), Ledgers::Open);
                let (inquiry, turn) = (Inquiry::Open, Turn::Open);
                let request = Request { name, client, asked, came, ledgers, inquiry, turn };
                if permit.is_none() && self.wants_permit(&request, &view) {
                    match self.admission.admit(ClientNet::of(client)) {
                        Ok(admitted) => *permit = Some(admitted),
                        Err(_) => return Ok(Planned::Queue(Box::new(request))),
                    }
                }
                return self.find(request, &view, now);
            }
            Route::ShortForm(form) => {
                let goes_on = asked.range.is_behind_the_start();
                let begun = || self.copies.archive(client, form.wanted, now);
                let continues = goes_on.then(begun).flatten();
                let name = route::chosen(&form, continues, &view, &self.settings)?;
                let reply = route::short_form(&form, &name, &view, &self.settings, &requester)?;
                if came.is_of_an_edge() {
                    // What came through the one who asks is not there for it.
                    let group = form.group.as_deref().or(self.settings.default_group.as_deref());
                    let via = view.way(&name, group, came).ok_or(Failure::NotHeld)?;
                    self.told(reply, &via)
                } else {
                    reply
                }
            }
            Route::Api(call) => self.call(session, &call, came)?,
        };
        Ok(Planned::Reply(reply))
    }

    /// Whether a request is for a transfer of something that is there, and so wants a permit.
    pub(super) fn wants_permit(&self, request: &Request, view: &View) -> bool {
        let Request { name, asked, .. } = request;
        let is_cached = || {
            let standing = self.cache.map(|cache| cache.store().standing(name));
            standing.is_some_and(|standing| !matches!(standing, Standing::Absent))
        };
        let carries = self.settings.downloads == Downloads::Proxy && asked.method != Method::HEAD;
        carries && (!view.sources(name).is_empty() || is_cached())
    }

    /// Decides about an archive, or has it looked for.
    pub(super) fn find(
        &self,
        request: Request,
        view: &View,
        now: Instant,
    ) -> Result<Planned, Failure> {
        match self.decide(request.clone(), view, now) {
            Err(Failure::NotHeld) => self.seek(request, view, now),
            decided => decided,
        }
    }

    /// An archive: carried, or redirected to.
    pub(super) fn decide(
        &self,
        request: Request,
        view: &View,
        now: Instant,
    ) -> Result<Planned, Failure> {
        match self.settings.downloads {
            Downloads::Proxy => self.archive(request, view, now),
            Downloads::Redirect => {
                let targets = self.upstreams.at(now);
                let requester = Requester { client: request.client, targets: &targets };
                route::redirect(&request.name, view, &requester).map(Planned::Reply)
            }
        }
    }

    /// An archive: out of the cache, or from one of its sources.
    fn archive(&self, request: Request, view: &View, now: Instant) -> Result<Planned, Failure> {
        let standing = self.cache.map(|cache| cache.store().standing(&request.name));
        if Self::comes_through_asker(&request, standing.as_ref(), view) {
            let (given, caching) = (self.given(&request, now), Caching::Bypass(Bypass::Filling));
            return self.relay(request, given, standing.as_ref(), caching, view, now);
        }
        match standing {
            Some(Standing::Growing(growing)) if request.asked.range != RangeRequest::Whole => {
                let fetch = Fetch::Growing(growing);
                Ok(Planned::Await(Box::new(Awaiting { request, fetch })))
            }
            standing => self.deliver(request, standing.as_ref(), CacheStatus::Collapsed, view, now),
        }
    }

    /// Decides as if the request had come now.
    pub(super) fn begin_again(&self, request: Request) -> Result<Planned, Failure> {
        self.decide(request, &self.published.load(), Instant::now())
    }

    /// After an order that brought nothing to read: past the cache for this reason, or from what
    /// is there by now.
    pub(super) fn decide_again(
        &self,
        request: Request,
        why: Option<Bypass>,
    ) -> Result<Planned, Failure> {
        let (view, now) = (self.published.load(), Instant::now());
        let standing = self.cache.map(|cache| cache.store().standing(&request.name));
        match (why, &standing) {
            (None, Some(Standing::Whole(_))) => {
                self.deliver(request, standing.as_ref(), CacheStatus::Hit, &view, now)
            }
            (why, _) => {
                let given = self.given(&request, now);
                let why = why.unwrap_or(Bypass::Backoff);
                self.relay(request, given, standing.as_ref(), Caching::Bypass(why), &view, now)
            }
        }
    }

    /// The copy that the client has bytes of, where the answer has to fit to them.
    fn given(&self, request: &Request, now: Instant) -> Option<Arc<Given>> {
        let part = request.asked.range.is_part_of_a_file();
        part.then(|| self.copies.given(request.client, request.name, now)).flatten()
    }

    /// The copy whose length the client was told, while somebody has it. What it asks for may be
    /// laid out by that; it has no bytes of it, so any other one will do where this one fails.
    fn shown(&self, request: &Request, view: &View, now: Instant) -> Option<Arc<Given>> {
        let Request { name, client, .. } = *request;
        self.copies
            .shown(client, name, now)
            .filter(|shown| view.sources(&name).iter().any(|source| source.target == shown.target))
    }

    /// Decides where the bytes come from; `how` is what a client is told that reads an archive
    /// which is being fetched.
    pub(super) fn deliver(
        &self,
        mut request: Request,
        standing: Option<&Standing>,
        how: CacheStatus,
        view: &View,
        now: Instant,
    ) -> Result<Planned, Failure> {
        let given = self.given(&request, now);
        let delivery = match standing {
            None => Delivery::Bypass(Bypass::Off),
            Some(standing) => {
                let cached = self.cached(standing, now);
                let part = request.asked.range.is_part_of_a_file();
                let shown = part.then(|| self.shown(&request, view, now)).flatten();
                let laid_out_by = given.as_ref().or(shown.as_ref());
                self.wish(&request, laid_out_by.map(|copy| &**copy), None, view).delivery(cached)
            }
        };
        if delivery != Delivery::Hit && request.ledgers == Ledgers::Open {
            let lenders = self.lenders(&request, given.as_deref(), standing, view, now);
            if !lenders.is_empty() {
                let bound_to = given.filter(|_| request.asked.is_blind()).map(|given| given.copy);
                return Ok(Planned::Lend(Box::new(Loan { request, lenders, bound_to })));
            }
        }
        if delivery == Delivery::FollowWhole {
            (request.asked.range, request.asked.if_range) = (RangeRequest::Whole, None);
        }
        let archive = match (delivery, standing) {
            (Delivery::Hit, Some(Standing::Whole(sealed))) => {
                Some((Archive::Whole(Arc::clone(sealed)), CacheStatus::Hit))
            }
            (Delivery::Follow | Delivery::FollowWhole, Some(Standing::Growing(growing))) => {
                Some((Archive::Growing(Arc::clone(growing)), how))
            }
            _ => None,
        };
        if let Some((archive, how)) = archive {
            return match self.hit(archive, how, &request, now) {
                Ok(planned) => Ok(planned),
                // Another request of the same client was faster, and began another copy.
                Err(begun) => {
                    let caching = Caching::Bypass(Bypass::OtherCopy);
                    self.relay(request, Some(begun), standing, caching, view, now)
                }
            };
        }
        if request.wants_inquiry() {
            return self.inquiry(request, given.as_deref(), standing, view, now);
        }
        let delivery = match (delivery, request.inquiry) {
            (Delivery::Fill | Delivery::Await, Inquiry::Unanswered) => {
                Delivery::Bypass(Bypass::Condition)
            }
            (delivery, _) => delivery,
        };
        match delivery {
            Delivery::Fill => self.fill(request, given, view, now),
            Delivery::Await => self.order(request, given.as_deref(), standing, view, now),
            Delivery::Bypass(why) => {
                if let Some(fetch) = self.turn_comes(&request, why, now) {
                    return Ok(Planned::Await(Box::new(Awaiting { request, fetch })));
                }
                self.relay(request, given, standing, Caching::Bypass(why), view, now)
            }
            // These have an archive.
            Delivery::Hit | Delivery::Follow | Delivery::FollowWhole => Err(Failure::Internal),
        }
    }

    /// Has the target asked that a request under a condition would be answered from: the first
    /// one, and for the rest of a copy the one that has that.
    fn inquiry(
        &self,
        request: Request,
        given: Option<&Given>,
        standing: Option<&Standing>,
        view: &View,
        now: Instant,
    ) -> Result<Planned, Failure> {
        let sources = self.sources(&request, given, standing, view, now)?;
        let bound_to = given.filter(|_| request.asked.is_blind()).map(|given| &given.target);
        let would_do = |source: &Arc<Source>| bound_to.is_none_or(|it| source.target == *it);
        let source = sources.into_iter().find(would_do);
        Ok(Planned::Inquire(Box::new(Inquiring { request, source })))
    }

    /// Carries the archive into the cache on its way to the client, where nobody else does.
    fn fill(
        &self,
        request: Request,
        given: Option<Arc<Given>>,
        view: &View,
        now: Instant,
    ) -> Result<Planned, Failure> {
        let store = self.cache.ok_or(Failure::Internal)?.store();
        let sources = self.sources(&request, given.as_deref(), None, view, now)?;
        let first = sources.first().ok_or(Failure::NotHeld)?;
        if let Some(claim) = store.claim(&request.name, &first.target) {
            let client = ClientNet::of(request.client);
            let holding = self.fills.hold(request.name, client);
            let mut relay = Self::relay_of(request, given, sources, Caching::Claimed(claim), now);
            relay.holding = Some(holding);
            return Ok(Planned::Relay(Box::new(relay)));
        }
        // Another request was faster, and its source is now everyone's.
        let standing = Some(store.standing(&request.name));
        let caching = Caching::Bypass(Bypass::Filling);
        self.relay(request, given, standing.as_ref(), caching, view, now)
    }

    /// Has the archive fetched into the cache.
    fn order(
        &self,
        request: Request,
        given: Option<&Given>,
        standing: Option<&Standing>,
        view: &View,
        now: Instant,
    ) -> Result<Planned, Failure> {
        let orders = self.orders.as_ref().ok_or(Failure::Internal)?;
        let order = Order {
            name: request.name,
            client: request.client,
            came: Arc::clone(&request.came),
            sources: self.sources(&request, given, standing, view, now)?,
            tenacity: Tenacity::AsConfigured,
        };
        match orders.place(order, now) {
            Placed::Running(ticket) => {
                let fetch = Fetch::Order(ticket);
                Ok(Planned::Await(Box::new(Awaiting { request, fetch })))
            }
            Placed::Whole => self.decide_again(request, None),
            Placed::Refused(why) => self.decide_again(request, Some(why)),
        }
    }

    /// Carries the archive from a target, past the cache.
    fn relay(
        &self,
        request: Request,
        given: Option<Arc<Given>>,
        standing: Option<&Standing>,
        caching: Caching,
        view: &View,
        now: Instant,
    ) -> Result<Planned, Failure> {
        let sources = self.sources(&request, given.as_deref(), standing, view, now)?;
        let relay = Self::relay_of(request, given, sources, caching, now);
        Ok(Planned::Relay(Box::new(relay)))
    }

    fn relay_of(
        request: Request,
        given: Option<Arc<Given>>,
        sources: Vec<Arc<Source>>,
        caching: Caching,
        now: Instant,
    ) -> Relay {
        let Request { name, client, asked, .. } = request;
        Relay::new(name, sources, client, asked, given, caching, now)
    }

    fn wish<'a>(
        &self,
        request: &'a Request,
        given: Option<&'a Given>,
        shown: Option<&'a Given>,
        view: &'a View,
    ) -> Wish<'a> {
        let Request { name, client, asked, .. } = request;
        let shown = shown.map(|shown| &shown.target);
        Wish { name: *name, client: *client, asked, given, shown, view, terms: self.terms }
    }

    /// The sources in the order in which they are tried.
    fn sources(
        &self,
        request: &Request,
        given: Option<&Given>,
        standing: Option<&Standing>,
        view: &View,
        now: Instant,
    ) -> Result<Vec<Arc<Source>>, Failure> {
        let cached = standing.map_or(Cached::Nothing, |standing| self.cached(standing, now));
        let targets = self.upstreams.at(now);
        let distrusted = |source: &Source| {
            let store = self.cache.map(ArchiveStorage::store);
            store.is_some_and(|store| store.is_distrusted(&source.target, &source.listed, now))
        };
        let shown = self.shown(request, view, now);
        let wish = self.wish(request, given, shown.as_deref(), view);
        let mut sources = wish.sources(cached, &targets, distrusted)?;
        route::keep_near(&mut sources, &request.came);
        if sources.is_empty() { Err(Failure::NotHeld) } else { Ok(sources) }
    }

    /// The ledgers that are asked before anything comes over the network.
    fn lenders(
        &self,
        request: &Request,
        given: Option<&Given>,
        standing: Option<&Standing>,
        view: &View,
        now: Instant,
    ) -> Vec<Arc<Source>> {
        let cached = standing.map_or(Cached::Nothing, |standing| self.cached(standing, now));
        let targets = self.upstreams.at(now);
        let resting = |target: &TargetId| targets.merit(target).resting;
        self.wish(request, given, None, view).lenders(cached, resting)
    }

    /// Serves from a file what meets the conditions, unless the client began another copy
    /// meanwhile, which is the error.
    pub(super) fn hit(
        &self,
        archive: Archive,
        how: CacheStatus,
        request: &Request,
        now: Instant,
    ) -> Result<Planned, Arc<Given>> {
        let Request { name, client, ref asked, .. } = *request;
        let Record { copy, modified, .. } = *archive.record();
        if let Some(reply) = self.judged(asked, copy, modified, how) {
            return Ok(Planned::Reply(reply));
        }
        let hit = Hit { archive, how, client, asked: asked.clone() };
        if let Some(given) = hit.given() {
            self.copies.begin(client, name, &given, asked.is_blind(), now)?;
        } else {
            self.copies.show(client, name, hit.copy(), now);
        }
        Ok(Planned::Hit(Box::new(hit)))
    }

    /// What the store has, for those who decide.
    fn cached<'a>(&self, standing: &'a Standing, now: Instant) -> Cached<'a> {
        match standing {
            Standing::Absent => Cached::Nothing,
            Standing::Filling(target) => Cached::Filling(target),
            Standing::Growing(growing) => {
                let Record { target, copy, length, .. } = growing.record();
                Cached::Growing {
                    target,
                    copy: *copy,
                    length: *length,
                    reach: growing.progress().reach(self.range_wait, now),
                    ranges: growing.source_has_ranges(),
                }
            }
            Standing::Whole(sealed) => {
                let Record { target, copy, .. } = sealed.record();
                Cached::Whole { target, copy: *copy }
            }
        }
    }
}
