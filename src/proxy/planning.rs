//! From a request's head to what is done with it; nothing here waits.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use pingora_proxy::Session;

use super::context::{Caching, Hit, Relay, asked};
use super::copies::Given;
use super::edge::Edge;
use super::head;
use crate::api::{self, Reference, Urls};
use crate::cache::{Sealed, Standing};
use crate::config::Downloads;
use crate::index::{Source, TargetId, View};
use crate::route::{
    self, ApiCall, Asked, Bypass, Bytes, Cached, Delivery, Failure, Plan, Reply, Requester, Route,
    Transfer, Wanted, deliver,
};
use crate::snapshot::ArchiveName;

/// What [`Edge::plan`] decided.
pub(super) enum Planned {
    Reply(Reply),
    Relay(Box<Relay>),
    Hit(Box<Hit>),
}

/// A request for an archive, while it is decided about.
struct Wish<'a> {
    name: ArchiveName,
    client: IpAddr,
    asked: Asked,
    view: &'a View,
    /// What the client was given of it before, where that matters.
    given: Option<Arc<Given>>,
    now: Instant,
}

impl Edge {
    /// Decides about a request.
    pub(super) fn plan(&self, session: &mut Session, client: IpAddr) -> Result<Planned, Failure> {
        let request = session.req_header();
        let uri = &request.uri;
        let route = route::parse(&request.method, uri.path(), uri.query())?;
        let asked = asked(&request.method, &request.headers);
        if !session.as_downstream_mut().is_body_empty() {
            return Err(Failure::Body);
        }
        let now = Instant::now();
        let view = self.published.load();
        match route {
            Route::Archive(name) if self.settings.downloads == Downloads::Proxy => {
                let part = asked.range.is_part_of_a_file();
                let given = if part { self.copies.given(client, name, now) } else { None };
                self.archive(Wish { name, client, asked, view: &view, given, now })
            }
            Route::Api(call) => Ok(Planned::Reply(self.call(session, &call)?)),
            Route::Archive(_) => self.redirect(route, client, None, &view, now),
            Route::ShortForm { wanted, .. } => {
                let goes_on = asked.range.is_behind_the_start();
                let full = wanted == Wanted::Full;
                let continues = goes_on.then(|| self.copies.archive(client, full, now)).flatten();
                self.redirect(route, client, continues, &view, now)
            }
        }
    }

    /// What is answered from the view alone.
    fn redirect(
        &self,
        route: Route,
        client: IpAddr,
        continues: Option<ArchiveName>,
        view: &View,
        now: Instant,
    ) -> Result<Planned, Failure> {
        let suspended = |target: &TargetId| self.backoff.is_resting(target, now);
        let requester =
            Requester { client, suspended: &suspended, preferred: &|_| false, continues };
        match route::plan(route, view, &self.settings, &requester)? {
            Plan::Reply(reply) => Ok(Planned::Reply(reply)),
            Plan::Transfer(_) | Plan::Api(_) => Err(Failure::Internal),
        }
    }

    /// An archive: out of the cache, or from one of its sources.
    fn archive(&self, mut wish: Wish<'_>) -> Result<Planned, Failure> {
        let standing = self.cache.map(|cache| cache.store().standing(&wish.name));
        let mut delivery = match &standing {
            None => Delivery::Bypass(Bypass::Off),
            Some(standing) => wish.delivery(standing),
        };
        if let (Delivery::Hit, Some(Standing::Whole(sealed))) = (delivery, &standing) {
            match self.hit(&wish, sealed) {
                Ok(hit) => return Ok(Planned::Hit(Box::new(hit))),
                // Another request of the same client was faster, and began another copy.
                Err(begun) => {
                    wish.given = Some(begun);
                    delivery = Delivery::Bypass(Bypass::OtherCopy);
                }
            }
        }
        let mut transfer = match self.transfer(&wish, standing.as_ref()) {
            // The archive is there, in a copy that does not fit to what the client has.
            Err(Failure::NotHeld) if delivery == Delivery::Bypass(Bypass::OtherCopy) => {
                return Err(Failure::OtherCopy);
            }
            transfer => transfer?,
        };
        let caching = match (delivery, self.cache, transfer.sources.first()) {
            (Delivery::Fill, Some(cache), Some(source)) => {
                let store = cache.store();
                match store.claim(&wish.name, &source.target) {
                    Some(claim) => Caching::Claimed(claim),
                    // Another request was faster, and its source is now everyone's.
                    None => {
                        transfer = self.transfer(&wish, Some(&store.standing(&wish.name)))?;
                        Caching::Bypass(Bypass::Filling)
                    }
                }
            }
            (Delivery::Bypass(why), _, _) => Caching::Bypass(why),
            (Delivery::Fill | Delivery::Hit, _, _) => return Err(Failure::Internal),
        };
        let Wish { client, asked, given, now, .. } = wish;
        let relay = Relay::new(transfer, client, asked, given, caching, now);
        Ok(Planned::Relay(Box::new(relay)))
    }

    /// The sources of an archive, in the order in which they are tried. The copy that is in the
    /// cache, or on its way there, is everyone's who has no other, while its source is well.
    fn transfer(&self, wish: &Wish<'_>, standing: Option<&Standing>) -> Result<Transfer, Failure> {
        let suspended = |target: &TargetId| self.backoff.is_resting(target, wish.now);
        let pinned = match standing {
            Some(Standing::Whole(sealed)) => Some(&sealed.record().target),
            Some(Standing::Filling(source)) => Some(source),
            Some(Standing::Absent) | None => None,
        };
        let pinned = pinned.filter(|target| !suspended(target));
        let requester = Requester {
            client: wish.client,
            suspended: &suspended,
            preferred: &|source| wish.prefers(source, pinned),
            continues: None,
        };
        match route::plan(Route::Archive(wish.name), wish.view, &self.settings, &requester)? {
            Plan::Transfer(transfer) => Ok(transfer),
            Plan::Reply(_) | Plan::Api(_) => Err(Failure::Internal),
        }
    }

    /// Serves from the cache, unless the client began another copy meanwhile, which is the error.
    fn hit(&self, wish: &Wish<'_>, sealed: &Arc<Sealed>) -> Result<Hit, Arc<Given>> {
        let hit =
            Hit { sealed: Arc::clone(sealed), client: wish.client, asked: wish.asked.clone() };
        if let Some(given) = hit.given() {
            let blind = wish.asked.range.is_part_of_a_file() && wish.asked.if_range.is_none();
            if blind {
                self.copies.give_part(wish.client, wish.name, &given, wish.now)?;
            } else {
                self.copies.give(wish.client, wish.name, given, wish.now);
            }
        }
        Ok(hit)
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
}

impl Wish<'_> {
    fn delivery(&self, standing: &Standing) -> Delivery {
        let cached = match standing {
            Standing::Absent => Cached::Nothing,
            Standing::Filling(_) => Cached::Part,
            Standing::Whole(sealed) => Cached::Whole(sealed.record().copy),
        };
        let bytes = Bytes {
            begun: self.given.as_ref().map(|given| given.copy),
            of_target: self.named_by_condition(),
        };
        // What no target has any more is served for as long as it is there.
        let last = matches!(cached, Cached::Whole(_)) && self.view.sources(&self.name).is_empty();
        deliver(&self.asked, self.view.is_best(&self.name) || last, cached, bytes)
    }

    /// True where the condition names the copy of a target that is there.
    fn named_by_condition(&self) -> bool {
        self.view.sources(&self.name).iter().any(|source| self.names(source))
    }

    /// Whether the condition names the copy of this source, by its listing or by what the client
    /// was given of it.
    fn names(&self, source: &Source) -> bool {
        let begun =
            self.given.as_ref().filter(|given| given.target == source.target).map(|g| g.copy);
        self.asked.if_range.as_ref().is_some_and(|condition| {
            condition.names(source) || begun.is_some_and(|copy| condition.holds(copy))
        })
    }

    /// Whether a source comes before all others.
    fn prefers(&self, source: &Source, pinned: Option<&TargetId>) -> bool {
        let is_pinned = pinned == Some(&source.target);
        if !self.asked.range.is_part_of_a_file() {
            return is_pinned;
        }
        match (&self.asked.if_range, &self.given) {
            (Some(_), _) => self.names(source) || (is_pinned && !self.named_by_condition()),
            (None, Some(given)) => given.target == source.target,
            (None, None) => is_pinned,
        }
    }
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
