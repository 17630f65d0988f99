//! From a request's head to what is done with it; nothing here waits.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use pingora_proxy::Session;

use super::context::{Caching, Hit, Relay};
use super::edge::Edge;
use super::head;
use crate::api::{self, Reference, Urls};
use crate::cache::{Record, Sealed, Standing};
use crate::config::Downloads;
use crate::index::{TargetId, View};
use crate::route::{
    self, ApiCall, Asked, Bypass, Cached, Delivery, Failure, Given, Reply, Requester, Route, Wish,
};
use crate::snapshot::ArchiveName;

/// What [`Edge::plan`] decided.
pub(super) enum Planned {
    Reply(Reply),
    Relay(Box<Relay>),
    Hit(Box<Hit>),
}

impl Edge {
    /// Decides about a request.
    pub(super) fn plan(&self, session: &mut Session, client: IpAddr) -> Result<Planned, Failure> {
        let request = session.req_header();
        let uri = &request.uri;
        let route = route::parse(&request.method, uri.path(), uri.query())?;
        let asked = Asked::of(&request.method, &request.headers);
        if !session.as_downstream_mut().is_body_empty() {
            return Err(Failure::Body);
        }
        let now = Instant::now();
        let view = self.published.load();
        let resting = |target: &TargetId| self.backoff.is_resting(target, now);
        let requester = Requester { client, resting: &resting };
        let reply = match (route, self.settings.downloads) {
            (Route::Archive(name), Downloads::Proxy) => {
                return self.archive(name, client, asked, &view, now);
            }
            (Route::Archive(name), Downloads::Redirect) => {
                route::redirect(&name, &view, &requester)?
            }
            (Route::ShortForm(form), _) => {
                let goes_on = asked.range.is_behind_the_start();
                let begun = || self.copies.archive(client, form.wanted, now);
                let continues = goes_on.then(begun).flatten();
                route::short_form(&form, continues, &view, &self.settings, &requester)?
            }
            (Route::Api(call), _) => self.call(session, &call)?,
        };
        Ok(Planned::Reply(reply))
    }

    /// An archive: out of the cache, or from one of its sources.
    fn archive(
        &self,
        name: ArchiveName,
        client: IpAddr,
        asked: Asked,
        view: &View,
        now: Instant,
    ) -> Result<Planned, Failure> {
        let part = asked.range.is_part_of_a_file();
        let mut given = if part { self.copies.given(client, name, now) } else { None };
        let standing = self.cache.map(|cache| cache.store().standing(&name));
        let mut delivery = match &standing {
            None => Delivery::Bypass(Bypass::Off),
            Some(standing) => {
                let given = given.as_deref();
                Wish { name, client, asked: &asked, given, view }.delivery(cached(standing))
            }
        };
        if let (Delivery::Hit, Some(Standing::Whole(sealed))) = (delivery, &standing) {
            match self.hit(sealed, client, &asked, now) {
                Ok(hit) => return Ok(Planned::Hit(Box::new(hit))),
                // Another request of the same client was faster, and began another copy.
                Err(begun) => {
                    given = Some(begun);
                    delivery = Delivery::Bypass(Bypass::OtherCopy);
                }
            }
        }
        let wish = Wish { name, client, asked: &asked, given: given.as_deref(), view };
        let sources = |standing: Option<&Standing>| {
            let cached = standing.map_or(Cached::Nothing, cached);
            let resting = |target: &TargetId| self.backoff.is_resting(target, now);
            wish.sources(cached, resting)
        };
        let mut ordered = sources(standing.as_ref())?;
        let caching = match (delivery, self.cache, ordered.first()) {
            (Delivery::Fill, Some(cache), Some(source)) => {
                let store = cache.store();
                if let Some(claim) = store.claim(&name, &source.target) {
                    Caching::Claimed(claim)
                } else {
                    // Another request was faster, and its source is now everyone's.
                    ordered = sources(Some(&store.standing(&name)))?;
                    Caching::Bypass(Bypass::Filling)
                }
            }
            (Delivery::Bypass(why), _, _) => Caching::Bypass(why),
            // A hit has a sealed archive, and a fill a cache and a source.
            (Delivery::Fill | Delivery::Hit, _, _) => return Err(Failure::Internal),
        };
        let relay = Relay::new(name, ordered, client, asked, given, caching, now);
        Ok(Planned::Relay(Box::new(relay)))
    }

    /// Serves from the cache, unless the client began another copy meanwhile, which is the error.
    fn hit(
        &self,
        sealed: &Arc<Sealed>,
        client: IpAddr,
        asked: &Asked,
        now: Instant,
    ) -> Result<Hit, Arc<Given>> {
        let hit = Hit { sealed: Arc::clone(sealed), client, asked: asked.clone() };
        if let Some(given) = hit.given() {
            self.copies.begin(client, sealed.record().name, &given, asked.is_blind(), now)?;
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

/// What the store has, for those who decide.
fn cached(standing: &Standing) -> Cached<'_> {
    match standing {
        Standing::Absent => Cached::Nothing,
        Standing::Filling(target) => Cached::Filling(target),
        Standing::Whole(sealed) => {
            let Record { target, copy, .. } = sealed.record();
            Cached::Whole { target, copy: *copy }
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
