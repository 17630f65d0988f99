//! What a request knows of itself. It follows the phases: a transfer exists once it was planned,
//! and its head once a source's answer was accepted.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};

use super::admission::Permit;
use super::copies::Copies;
use super::door::Serving;
use super::fills::Holding;
use crate::cache::{Abandoned, Announced, Archive, Claim, Handover, Reason};
use crate::drain::UnderWay;
use crate::fetch::{Claimant, Client, Slot, Taker};
use crate::hops::CdnLoop;
use crate::index::{CopyId, Source};
use crate::route::{
    ArchiveHead, Asked, Bypass, CacheStatus, ClientNet, Failure, Given, RangeRequest, Reply,
    SourceFailure, Walk,
};
use crate::snapshot::ArchiveName;

/// A pause of this length between two pieces of a body means that the client took none. Servers cut
/// such readers, which says nothing about the server; what was under way still arrives after that.
const CLIENT_IS_SLOW: Duration = Duration::from_secs(5);
/// A body that breaks off this late has met a server's bound on the whole transfer (250 s on
/// Agave), or a server that will refuse the next connection anyway.
const LONG_TRANSFER: Duration = Duration::from_secs(200);

/// State of one request.
pub struct Context {
    /// When its head had been read.
    pub(super) started: Instant,
    /// The proxies that it came through.
    pub(super) came: Arc<CdnLoop>,
    /// What is done with it.
    pub(super) phase: Phase,
    /// The right to a transfer, where it is one.
    pub(super) permit: Option<Permit>,
    /// What its connection is told of it.
    pub(super) serving: Option<Serving>,
    /// Where it is remembered what the client was given, until that was done.
    pub(super) memory: Option<Arc<Copies>>,
    /// What the end of the process waits for.
    pub(super) _under_way: UnderWay,
}

impl Context {
    pub(super) fn new(under_way: UnderWay, now: Instant) -> Self {
        let (phase, permit, serving, memory) = (Phase::Local, None, None, None);
        let came = Arc::default();
        Self { started: now, came, phase, permit, serving, memory, _under_way: under_way }
    }
}

/// A request that was dismissed has no other end than this.
impl Drop for Context {
    fn drop(&mut self) {
        let (Some(memory), Phase::Relay(relay)) = (self.memory.take(), &self.phase) else { return };
        relay.abandon(Abandoned::Overtaken);
        let (Some(source), Some(given)) = (relay.source(), relay.given()) else { return };
        log::info!(
            target: "access",
            "{} {} /{} {} {} bytes {:.3} s from {} (broken off, others wait for its place)",
            relay.client,
            relay.asked.method,
            relay.name,
            relay.delivered.as_ref().map_or(0, |head| head.status.as_u16()),
            relay.carried(),
            self.started.elapsed().as_secs_f64(),
            source.target.authority,
        );
        memory.keep(relay.client, relay.name, given, Instant::now());
    }
}

/// What is done with a request.
pub(super) enum Phase {
    /// Not decided, or answered from memory.
    Local,
    /// An archive is carried.
    Relay(Box<Relay>),
    /// An archive comes out of the cache.
    Hit(Box<Hit>),
}

impl Phase {
    /// The copy whose bytes go to the client, or would go to one that asks for them.
    pub(super) fn copy(&self) -> Option<CopyId> {
        match self {
            Self::Local => None,
            Self::Relay(relay) => relay.delivered.as_ref().map(|head| head.copy),
            Self::Hit(hit) => Some(hit.archive.record().copy),
        }
    }
}

/// The serving of one archive from the cache, complete or as it grows.
pub(super) struct Hit {
    pub(super) archive: Archive,
    /// How that came about.
    pub(super) how: CacheStatus,
    pub(super) client: IpAddr,
    pub(super) asked: Asked,
}

/// What the cache has to do with a transfer.
pub(super) enum Caching {
    /// Nothing.
    Bypass(Bypass),
    /// It may be filled, once a source's answer was accepted.
    Claimed(Claim),
    /// It is being filled.
    Filling(Reason),
}

/// The carrying of one archive.
pub(super) struct Relay {
    pub(super) name: ArchiveName,
    pub(super) client: IpAddr,
    asked: Asked,
    walk: Walk,
    /// The right to a transfer from the current source.
    slot: Option<Slot>,
    /// Until when it waits for one, once it has begun to.
    waits_until: Option<Instant>,
    /// What the client is told although sources are left.
    refusal: Option<Failure>,
    /// What it is answered instead of with an archive, which is no failure.
    instead: Option<Reply>,
    /// The copy that the client has other bytes of; no other one will do.
    bound_to: Option<Arc<Given>>,
    /// Whether it is a part that the client asks for without a condition.
    blind: bool,
    delivered: Option<ArchiveHead>,
    /// Whether that is what the source listed, in place of an answer to a HEAD.
    told: bool,
    pub(super) caching: Caching,
    /// Its client, where somebody looks after that.
    taker: Option<Arc<dyn Taker>>,
    /// There where it has or had the right to fill the cache.
    pub(super) holding: Option<Holding>,
    /// How the fill gets to Pingora.
    pub(super) handover: Handover,
    /// When the current source was turned to.
    turned_to: Instant,
    /// When it was connected to.
    connected: Option<Instant>,
    /// When the last piece of the body was passed on.
    last_piece: Option<Instant>,
    /// Whether there was a pause within the body.
    paused: bool,
}

impl Relay {
    /// A transfer for a client that was `given` a copy of the archive before. A request for a part
    /// without a condition is bound to that copy: its answer goes into one file with other bytes.
    pub(super) fn new(
        name: ArchiveName,
        mut sources: Vec<Arc<Source>>,
        client: IpAddr,
        asked: Asked,
        given: Option<Arc<Given>>,
        caching: Caching,
        now: Instant,
    ) -> Self {
        let blind = asked.is_blind();
        let bound_to = given.filter(|_| blind);
        if let Some(given) = &bound_to {
            sources.retain(|source| source.target == given.target);
        }
        Self {
            name,
            client,
            asked,
            walk: Walk::new(sources),
            slot: None,
            waits_until: None,
            refusal: None,
            instead: None,
            bound_to,
            blind,
            delivered: None,
            told: false,
            caching,
            taker: None,
            holding: None,
            handover: Handover::default(),
            turned_to: now,
            connected: None,
            last_piece: None,
            paused: false,
        }
    }

    /// Notes by what its client is served.
    pub(super) fn is_served_by(&mut self, serving: Option<&Serving>) {
        let Some(serving) = serving else { return };
        self.taker = serving.taker();
        if let Some(holding) = &self.holding {
            holding.is_seen_by(serving.presence());
        }
    }

    /// Who claims a slot.
    pub(super) fn claimant(&self) -> Claimant {
        Claimant {
            client: Client::One(ClientNet::of(self.client)),
            is_part: self.asked.range.is_part_of_a_file(),
            taker: self.taker.clone(),
        }
    }

    /// Bytes that came from the current source.
    pub(super) fn carried(&self) -> u64 {
        self.slot.as_ref().map_or(0, Slot::carried)
    }

    /// The source that is tried now.
    pub(super) fn source(&self) -> Option<&Arc<Source>> {
        self.walk.source()
    }

    /// What is asked of it.
    pub(super) fn asked(&self) -> &Asked {
        &self.asked
    }

    /// The sources of which one is to be given a slot, unless the current one has it: that and
    /// those after it, where the client has no bytes of a copy. Parts of one file are asked side by
    /// side and without a word of it, and all of them have to be of the first one while that is
    /// there. Without a body there is no transfer.
    pub(super) fn wants_slot(&mut self) -> Option<Vec<Arc<Source>>> {
        let target = self.source().map(|source| &source.target);
        if target != self.slot.as_ref().map(Slot::target) {
            self.slot = None;
        }
        if self.slot.is_some() || self.asked.method == Method::HEAD {
            return None;
        }
        let has_to_fit = self.asked.has_to_fit() && self.walk.failure().is_none();
        let count = if has_to_fit { 1 } else { usize::MAX };
        let sources: Vec<_> = self.walk.rest().iter().take(count).cloned().collect();
        (!sources.is_empty()).then_some(sources)
    }

    /// Until when it waits for a slot, over all tries.
    pub(super) fn waits_until(&mut self, patience: Duration, now: Instant) -> Instant {
        *self.waits_until.get_or_insert(now + patience)
    }

    /// Turns to the source at this place of those that could be given one.
    pub(super) fn take_slot(&mut self, place: usize, slot: Slot) {
        self.walk.prefer(place);
        if let Some(holding) = &self.holding {
            holding.is_taken_by(slot.taking());
        }
        self.slot = Some(slot);
    }

    /// Notes that the current source is connected to.
    pub(super) fn connect(&mut self, now: Instant) {
        self.connected = Some(now);
    }

    /// Notes that the current source is turned to, again or for the first time.
    pub(super) fn turn(&mut self, now: Instant) {
        (self.turned_to, self.connected) = (now, None);
        if let (Caching::Claimed(claim), Some(source)) = (&self.caching, self.source()) {
            claim.asks(&source.target);
        }
    }

    /// How long the current source has had for its answer.
    pub(super) fn waited(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.turned_to)
    }

    /// Notes that a piece of the body is passed on.
    pub(super) fn piece(&mut self, bytes: usize, now: Instant) {
        let since = self.last_piece.replace(now).unwrap_or(now);
        let waited = now.saturating_duration_since(since);
        self.paused |= waited >= CLIENT_IS_SLOW;
        if let Some(slot) = &mut self.slot {
            slot.piece(bytes, waited);
        }
    }

    /// Whether a body that breaks off now does so by the target's fault. Silence is told apart
    /// before: Pingora counts it only while it waits for the target.
    pub(super) fn broke_by_target(&self, now: Instant) -> bool {
        let since = self.last_piece.unwrap_or(self.turned_to);
        let pauses = self.paused || now.saturating_duration_since(since) >= CLIENT_IS_SLOW;
        !pauses && self.waited(now) < LONG_TRANSFER
    }

    /// From now on all of the archive is asked for.
    pub(super) fn ask_whole(&mut self) {
        self.asked.range = RangeRequest::Whole;
        self.asked.if_range = None;
    }

    /// Goes on to the next source; true where there is one.
    pub(super) fn next(&mut self, failure: SourceFailure) -> bool {
        self.walk.next(failure)
    }

    pub(super) fn refuse(&mut self, failure: Failure) {
        self.refusal = Some(failure);
    }

    /// Answers without an archive, for the sake of a condition: no bytes of it are read.
    pub(super) fn reply_with(&mut self, reply: Reply) {
        self.instead = Some(reply);
    }

    /// Whether the answer goes into a file with other bytes, without a word about their copy.
    pub(super) fn is_blind(&self) -> bool {
        self.blind
    }

    /// Accepts the answer of the current source.
    pub(super) fn accept(&mut self, head: ArchiveHead, now: Instant) -> &ArchiveHead {
        if let (Some(slot), Some(connected)) = (&self.slot, self.connected) {
            let connect = connected.saturating_duration_since(self.turned_to);
            slot.opened(connect, now.saturating_duration_since(connected));
            self.last_piece = Some(now);
        }
        self.delivered.insert(head)
    }

    /// Answers a HEAD by what the current source listed, in place of its answer; false where that
    /// is not a HEAD, or no length was listed.
    pub(super) fn tell(&mut self) -> bool {
        let is_head = self.asked.method == Method::HEAD;
        let listed = self.source().filter(|_| is_head).and_then(|s| ArchiveHead::listed(s));
        self.told = listed.is_some();
        self.delivered = listed;
        self.told
    }

    /// The head that is told in place of an answer.
    pub(super) fn told(&self) -> Option<&ArchiveHead> {
        self.delivered.as_ref().filter(|_| self.told)
    }

    /// Takes back what was accepted, since the client began another copy meanwhile. True where that
    /// one can be asked instead.
    pub(super) fn rebind(&mut self, given: Arc<Given>) -> bool {
        self.delivered = None;
        if self.bound_to.is_none() && self.walk.only(&given.target) {
            self.bound_to = Some(given);
            return true;
        }
        self.refusal = Some(Failure::OtherCopy);
        false
    }

    /// The copy that is on its way to the client.
    pub(super) fn given(&self) -> Option<Arc<Given>> {
        self.copy().filter(|_| self.asked.method == Method::GET)
    }

    /// The copy that was accepted.
    pub(super) fn copy(&self) -> Option<Arc<Given>> {
        let head = self.delivered.as_ref()?;
        let target = self.source()?.target.clone();
        Some(Arc::new(Given { target, copy: head.copy }))
    }

    /// Whether an end without an error says that the target is well: a few bytes do not.
    pub(super) fn is_proof(&self) -> bool {
        let is_whole = self.delivered.as_ref().is_some_and(|head| head.status == StatusCode::OK);
        self.slot.as_ref().is_some_and(|slot| is_whole || slot.is_proof())
    }

    /// Notes that the next piece is not taken before this time has passed, by our own will.
    pub(super) fn held_up(&mut self, delay: Duration) {
        self.last_piece = self.last_piece.map(|last| last + delay);
    }

    /// The right to fill the cache, and the copy that was accepted, for the one who does it.
    pub(super) fn take_claim(&mut self) -> Option<(Claim, Announced)> {
        let head = self.delivered.as_ref().filter(|head| head.status == StatusCode::OK)?;
        let source = self.source()?;
        let announced = Announced {
            target: source.target.clone(),
            length: head.length,
            copy: head.copy,
            modified: head.modified,
            listed: source.listed.modified,
            tag: head.tag,
        };
        match std::mem::replace(&mut self.caching, Caching::Bypass(Bypass::Disk)) {
            Caching::Claimed(claim) => Some((claim, announced)),
            other => {
                self.caching = other;
                None
            }
        }
    }

    /// Says why the fill ends, where there is one.
    pub(super) fn abandon(&self, why: Abandoned) {
        if let Caching::Filling(reason) = &self.caching {
            reason.give(why);
        }
    }

    /// True once the fill has come to nothing.
    pub(super) fn is_abandoned(&self) -> bool {
        matches!(&self.caching, Caching::Filling(reason) if reason.given().is_some())
    }

    /// What the client is told that got no archive.
    pub(super) fn reply(&mut self) -> Reply {
        self.instead.take().unwrap_or_else(|| self.outcome().reply())
    }

    /// Why the client got nothing.
    fn outcome(&self) -> Failure {
        match (&self.refusal, self.walk.failure()) {
            (Some(refusal), _) => refusal.clone(),
            // What is only out of reach for now may be there again for the next try.
            (None, Some(SourceFailure::Gone) | None) if self.bound_to.is_some() => {
                Failure::OtherCopy
            }
            (None, Some(failure)) => Failure::Sources(failure.clone()),
            (None, None) => Failure::Internal,
        }
    }
}
