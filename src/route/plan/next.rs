//! The next step about a request for an archive.

use std::sync::Arc;

use http::Method;

use super::cache::Delivery;
use super::entry::EntryState;
use super::sources::Case;
use super::world::{Announced, ArchiveRequest, Inquiry, Question, Tried, World};
use crate::config::Downloads;
use crate::index::Source;
use crate::route::affinity::Affinity;
use crate::route::cache_status::Bypass;
use crate::route::failure::{Failure, SourceFailure};
use crate::route::nearest::keep_near;
use crate::route::pinned_copy::PinnedCopy;
use crate::route::range::RangeRequest;
use crate::route::redirect::{Requester, redirect};
use crate::route::reply::Reply;

/// How many fills one request joins.
const MAX_JOINS: u8 = 2;
/// Most steps about one request: each kind of waiting once, but for two questions by HEAD, two
/// fills that are joined, and a wait for the speed before and after each of them; one that leads
/// past the cache; and the answer.
pub const MAX_TURNS: usize = 13;

/// One thing that is done about a request.
#[derive(Clone, Debug)]
pub enum Step {
    /// The client is sent elsewhere. This answers it.
    Redirect(Reply),
    /// A place among the transfers is taken, or waited for.
    Admit,
    /// Targets are asked for what none of them listed.
    Probe,
    /// A target is asked by HEAD; nobody where the one is not there that would have to be asked.
    /// What it says of conditions may answer the request.
    AskHead(Question, Option<Arc<Source>>),
    /// The first of these local directories is read that still has the archive, which answers the
    /// request.
    OpenLocal(Transfer),
    /// Wait until it is known how fast the archive comes that is being fetched.
    Measure,
    /// The right to fill the cache is waited for, where it may come free in a moment.
    AwaitTurn,
    /// The archive is read out of the cache, complete or as it grows. This answers the request,
    /// unless its client began another copy meanwhile.
    Serve {
        /// Whether all of the archive is served although a part was asked for.
        whole: bool,
    },
    /// The archive is carried into the cache on its way to the client, where nobody else does that.
    /// This answers the request where it gets the right to.
    Fill(Transfer),
    /// The archive is fetched into the cache from the first of these that delivers it, once for all
    /// who want it, and waited for until it can be read.
    Join(Vec<Arc<Source>>),
    /// The archive is carried from a target past the cache. This answers the request.
    Forward(Transfer, Bypass),
}

/// From where an archive is carried.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// In the order in which they are tried, at least one.
    pub sources: Vec<Arc<Source>>,
    /// The copy that the client has other bytes of; no other one will do.
    pub pinned: Option<Arc<PinnedCopy>>,
}

/// The next step about a request, or why there is none that would give the client anything.
///
/// What no target has is asked for on demand, once; where a local directory failed to deliver what
/// nobody else has, that is the reason.
pub fn next(request: &ArchiveRequest, world: &World<'_>, tried: &Tried) -> Result<Step, Failure> {
    match decide(request, world, tried) {
        Err(Failure::NotHeld) => match &tried.local {
            Some(failure) if *failure != SourceFailure::Gone => {
                Err(Failure::Sources(failure.clone()))
            }
            _ if !tried.probed => Ok(Step::Probe),
            _ => Err(Failure::NotHeld),
        },
        decided => decided,
    }
}

fn decide(request: &ArchiveRequest, world: &World<'_>, tried: &Tried) -> Result<Step, Failure> {
    if world.downloads == Downloads::Redirect {
        let requester = Requester { client: request.client, targets: world.targets };
        return redirect(&request.name, world.view, &requester).map(Step::Redirect);
    }
    if wants_place(request, world) {
        return Ok(Step::Admit);
    }
    let affinity = affinity(request, world, tried)?;
    let plan = Plan { request, world, tried, case: case(request, world, &affinity) };
    if comes_through_asker(request, world) {
        return plan.forward(Bypass::Filling);
    }
    if let Some(why) = tried.bypass {
        return plan.forward(why);
    }
    let is_growing = matches!(world.entry, Some(EntryState::Growing { .. }));
    if is_growing
        && request.asked.range != RangeRequest::Whole
        && tried.measured != Some(tried.joins)
    {
        return Ok(Step::Measure);
    }
    plan.deliver()
}

/// Whether a request is for a transfer of something that is there, and has no place for it yet.
/// What is nowhere is that also where there is much to do: validators ask for names with one ending
/// after the other.
fn wants_place(request: &ArchiveRequest, world: &World<'_>) -> bool {
    let is_cached = !matches!(world.entry, None | Some(EntryState::Nothing));
    let is_there = is_cached || !world.view.sources(&request.name).is_empty();
    !world.admitted && request.asked.method != Method::HEAD && is_there
}

/// What the client has of the archive. A HEAD is bound to nothing, since it brings no bytes.
fn affinity(
    request: &ArchiveRequest,
    world: &World<'_>,
    tried: &Tried,
) -> Result<Affinity, Failure> {
    Ok(match (&tried.begun, world.affinity) {
        (Some(begun), _) => Affinity::Pinned(Arc::clone(begun)),
        (None, Affinity::Torn) => return Err(Failure::OtherCopy),
        (None, Affinity::Pinned(given)) if request.asked.method == Method::HEAD => {
            Affinity::Announced(Arc::clone(given))
        }
        (None, Affinity::Announced(_)) if tried.announced == Announced::Silent => Affinity::Fresh,
        (None, affinity) => affinity.clone(),
    })
}

fn case<'a>(request: &'a ArchiveRequest, world: &World<'a>, affinity: &'a Affinity) -> Case<'a> {
    let ArchiveRequest { name, client, asked, .. } = request;
    Case { name: *name, client: *client, asked, affinity, view: world.view, policy: world.policy }
}

/// Whether what is being fetched into the cache comes from the one who asks for it: of two edges
/// that wait for each other's fetch, neither would get a byte.
fn comes_through_asker(request: &ArchiveRequest, world: &World<'_>) -> bool {
    let Some(EntryState::Growing { target, .. }) = world.entry else { return false };
    let mut sources = world.view.sources(&request.name).iter();
    let source = sources.find(|source| source.target == *target);
    source.is_some_and(|source| !request.came.admits(source.via()))
}

/// A decision about an archive that is carried.
struct Plan<'a> {
    request: &'a ArchiveRequest,
    world: &'a World<'a>,
    tried: &'a Tried,
    case: Case<'a>,
}

impl Plan<'_> {
    /// From where the bytes come.
    fn deliver(&self) -> Result<Step, Failure> {
        let Self { world, tried, case, .. } = self;
        let delivery = match world.entry {
            None => Delivery::Bypass(Bypass::Off),
            Some(entry) => match (case.laid_out_by(entry), tried.announced) {
                (None, _) => case.delivery(entry),
                (Some(_), Announced::Answering) => Delivery::Bypass(Bypass::OtherCopy),
                (source, _) if self.has_open_conditions() => {
                    return Ok(Step::AskHead(Question::Conditions, source));
                }
                (source, _) => return Ok(Step::AskHead(Question::Announced, source)),
            },
        };
        if delivery != Delivery::Hit
            && let Some(step) = self.local()?
        {
            return Ok(step);
        }
        if self.has_open_conditions() && !delivery.is_of_cache() {
            return self.ask_about_conditions();
        }
        let is_unclear = tried.inquiry == Inquiry::Unanswered;
        match delivery {
            Delivery::Hit | Delivery::Follow => Ok(Step::Serve { whole: false }),
            Delivery::FollowWhole => Ok(Step::Serve { whole: true }),
            Delivery::Fill | Delivery::Await if is_unclear => self.forward(Bypass::Condition),
            Delivery::Fill => self.transfer().map(Step::Fill),
            Delivery::Await if tried.joins < MAX_JOINS => self.sources().map(Step::Join),
            Delivery::Await => self.forward(Bypass::Backoff),
            Delivery::Bypass(Bypass::Filling) if self.may_wait() => Ok(Step::AwaitTurn),
            Delivery::Bypass(why) => self.forward(why),
        }
    }

    /// The local directories that come before the network and before what is being fetched.
    fn local(&self) -> Result<Option<Step>, Failure> {
        let Self { world, tried, case, .. } = self;
        let pinned = case.affinity.pinned();
        if tried.local.is_some() {
            let is_lost = pinned.is_some_and(|given| given.target.is_ledger());
            return if is_lost { Err(Failure::OtherCopy) } else { Ok(None) };
        }
        let resting = |target: &_| world.targets.stats(target).resting;
        let directories = case.directories(self.entry(), resting);
        let transfer = Transfer { sources: directories, pinned: pinned.cloned() };
        Ok((!transfer.sources.is_empty()).then_some(Step::OpenLocal(transfer)))
    }

    fn has_open_conditions(&self) -> bool {
        self.tried.inquiry == Inquiry::Open && self.request.is_conditional()
    }

    /// Has the target asked that a request under a condition would be answered from: the first
    /// one, and for the rest of a copy the one that has that.
    fn ask_about_conditions(&self) -> Result<Step, Failure> {
        let pinned = self.case.affinity.pinned();
        let would_do =
            |source: &Arc<Source>| pinned.is_none_or(|given| source.target == given.target);
        let source = self.sources()?.into_iter().find(would_do);
        Ok(Step::AskHead(Question::Conditions, source))
    }

    /// Whether the right to fill may be waited for: by who would fill, and once.
    fn may_wait(&self) -> bool {
        let is_whole = self.request.asked.range == RangeRequest::Whole;
        !self.tried.waited && is_whole && self.request.asked.method == Method::GET
    }

    fn forward(&self, why: Bypass) -> Result<Step, Failure> {
        Ok(Step::Forward(self.transfer()?, why))
    }

    fn transfer(&self) -> Result<Transfer, Failure> {
        let (mut sources, pinned) = (self.sources()?, self.case.affinity.pinned().cloned());
        if let Some(given) = &pinned {
            sources.retain(|source| source.target == given.target);
        }
        if sources.is_empty() { Err(Failure::OtherCopy) } else { Ok(Transfer { sources, pinned }) }
    }

    /// The sources in the order in which they are tried, at least one.
    ///
    /// What failed when this edge tried it is left out where another edge asks: it is tried here,
    /// and not by each of those who ask here as well.
    fn sources(&self) -> Result<Vec<Arc<Source>>, Failure> {
        let Self { request, world, case, .. } = self;
        let mut sources = case.sources(self.entry(), world.targets, world.is_distrusted)?;
        keep_near(&mut sources, &request.came);
        if sources.is_empty() {
            return Err(Failure::NotHeld);
        }
        if request.came.is_of_an_edge() {
            sources.retain(|source| !(world.has_failed)(source));
        }
        let broken = Failure::Sources(SourceFailure::Broken);
        if sources.is_empty() { Err(broken) } else { Ok(sources) }
    }

    fn entry(&self) -> EntryState<'_> {
        self.world.entry.unwrap_or(EntryState::Nothing)
    }
}
