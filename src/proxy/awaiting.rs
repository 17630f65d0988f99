//! Requests that wait: to be let in, for an archive which is being fetched or looked for, or for a
//! file to be opened, before it is decided about them; and for a target that may carry one more
//! transfer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use pingora::{Error, ErrorType};
use pingora_proxy::Session;

use super::admission::Permit;
use super::circles;
use super::context::{Context, Relay};
use super::edge::{Edge, refused};
use super::fills::Turn;
use super::head::client_address;
use super::planning::{Planned, Request};
use crate::cache::{Growing, Standing};
use crate::fetch::{Joined, Ticket, Unfetched};
use crate::route::{Bypass, CacheStatus, ClientNet, Failure, RangeRequest};

/// How often one request joins a fetch.
const MAX_JOINS: usize = 2;
/// For how many things one request waits, one after the other: each of them once, and a fetch again
/// after each of the others.
const MAX_WAITS: usize = 9;

/// A request for an archive that is being fetched.
pub(super) struct Awaiting {
    pub(super) request: Request,
    pub(super) fetch: Fetch,
}

/// What a request waits for.
pub(super) enum Fetch {
    /// That the archive can be read.
    Order(Ticket),
    /// How fast it comes, before it is foretold when its range will be there.
    Growing(Arc<Growing>),
    /// That nobody has the right to fill the cache with it, for so long.
    Turn(Duration),
}

/// Waits for something for as long as the client of a request, which has no body, does not leave.
pub(super) async fn while_there<T>(
    session: &mut Session,
    wait: impl Future<Output = T>,
) -> pingora::Result<T> {
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

impl Edge {
    /// Decides about a request that goes on from here.
    pub(super) async fn answer(
        &self,
        session: &mut Session,
        ctx: &mut Context,
    ) -> pingora::Result<Result<Planned, Failure>> {
        let serving = ctx.serving.as_ref();
        if let Some(refusal) = serving.and_then(|serving| serving.refusal(session.req_header())) {
            return Ok(Err(refusal));
        }
        ctx.came = Arc::new(circles::came(session.req_header()));
        if let Err(failure) = self.turn_back(&ctx.came) {
            return Ok(Err(failure));
        }
        if let Some(answer) = self.answer_for_nodes(session).await {
            return Ok(answer.map(Planned::Reply));
        }
        let client = client_address(session);
        match self.plan(session, client, &ctx.came, &mut ctx.permit) {
            Ok(plan) => while_there(session, self.settle(plan, &mut ctx.permit)).await,
            failed => Ok(failed),
        }
    }

    /// Waits for what a plan wants to be waited for: a permit, a look, a ledger, what a target
    /// says, a fetch. After each of them it is decided again, and another one may be needed.
    pub(super) async fn settle(
        &self,
        mut planned: Planned,
        permit: &mut Option<Permit>,
    ) -> Result<Planned, Failure> {
        for _ in 0..MAX_WAITS {
            planned = match planned {
                Planned::Queue(request) => {
                    self.let_in(&request, permit).await?;
                    self.find(*request, &self.published.load(), Instant::now())?
                }
                Planned::Seek(seeking) => self.found(*seeking, permit).await?,
                Planned::Await(awaiting) => self.join(*awaiting).await?,
                Planned::Lend(loan) => self.borrow(*loan).await?,
                Planned::Inquire(inquiring) => self.inquire(*inquiring).await?,
                planned => return Ok(planned),
            };
        }
        Ok(planned)
    }

    /// Gets a permit for a transfer, once. What is nowhere is that also where there is much to do:
    /// validators ask for names with one ending after the other.
    pub(super) async fn let_in(
        &self,
        request: &Request,
        permit: &mut Option<Permit>,
    ) -> Result<(), Failure> {
        if permit.is_none() && self.wants_permit(request, &self.published.load()) {
            let client = ClientNet::of(request.client);
            *permit = Some(self.admission.wait(client).await.map_err(Failure::Busy)?);
        }
        Ok(())
    }

    /// How long a request waits for the right to fill that may come free in a moment.
    pub(super) fn turn_comes(&self, request: &Request, why: Bypass, now: Instant) -> Option<Fetch> {
        let Request { name, client, asked, turn, .. } = request;
        let is_whole = asked.method == Method::GET && asked.range == RangeRequest::Whole;
        let would_fill = why == Bypass::Filling && *turn == Turn::Open && is_whole;
        let patience = would_fill.then(|| self.fills.turn(name, ClientNet::of(*client), now));
        patience.flatten().map(Fetch::Turn)
    }

    /// Waits until an archive that is being fetched can be read, and decides again. What nobody
    /// wanted any more until this request came is fetched anew.
    pub(super) async fn join(&self, mut awaiting: Awaiting) -> Result<Planned, Failure> {
        for _ in 0..MAX_JOINS {
            match self.join_once(awaiting).await? {
                Planned::Await(again) => awaiting = *again,
                planned => return Ok(planned),
            }
        }
        self.decide_again(awaiting.request, Some(Bypass::Backoff))
    }

    /// Waits until one of a transfer's sources may carry it. A client that leaves meanwhile leaves
    /// its place.
    pub(super) async fn find_slot(
        &self,
        session: &mut Session,
        relay: &mut Relay,
    ) -> pingora::Result<()> {
        let Some(sources) = relay.wants_slot() else { return Ok(()) };
        let until = relay.waits_until(self.upstreams.limits().queue_wait, Instant::now());
        let found = self.upstreams.slot(&sources, relay.claimant(), until);
        match while_there(session, found).await? {
            Ok((place, slot)) => {
                relay.take_slot(place, slot);
                Ok(())
            }
            Err(busy) => {
                relay.refuse(Failure::Busy(busy));
                refused(false)
            }
        }
    }

    async fn join_once(&self, awaiting: Awaiting) -> Result<Planned, Failure> {
        let Awaiting { mut request, fetch } = awaiting;
        let (growing, how) = match fetch {
            Fetch::Turn(patience) => {
                let store = self.cache.ok_or(Failure::Internal)?.store();
                // Whoever was not faster fills, and is served past the cache otherwise.
                let _ = tokio::time::timeout(patience, store.unclaimed(&request.name)).await;
                request.turn = Turn::Passed;
                return self.begin_again(request);
            }
            Fetch::Growing(growing) => (growing, CacheStatus::Collapsed),
            Fetch::Order(mut ticket) => match ticket.join(self.upstreams.limits().queue_wait).await
            {
                Joined::Growing(growing) if ticket.is_new => (growing, CacheStatus::Stored),
                Joined::Growing(growing) => (growing, CacheStatus::Collapsed),
                Joined::Whole => return self.decide_again(request, None),
                Joined::Not(Unfetched::Failed(failure)) => return Err(failure),
                Joined::Not(Unfetched::Refused(why)) => {
                    return self.decide_again(request, Some(why));
                }
                Joined::Not(Unfetched::Unwanted) => return self.begin_again(request),
            },
        };
        if request.asked.range != RangeRequest::Whole {
            let start = request.asked.range.last_start(growing.record().length);
            growing.measured(start, self.range_wait).await;
        }
        if growing.has_failed() {
            return self.decide_again(request, Some(Bypass::Backoff));
        }
        let standing = Standing::Growing(growing);
        self.deliver(request, Some(&standing), how, &self.published.load(), Instant::now())
    }
}
