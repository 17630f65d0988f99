//! Requests that wait, for an archive which is being fetched or for a file to be opened, before it
//! is decided about them.

use std::sync::Arc;
use std::time::Instant;

use super::edge::Edge;
use super::planning::{Planned, Request};
use crate::cache::{Growing, Standing};
use crate::fetch::{Joined, Ticket, Unfetched};
use crate::route::{Bypass, CacheStatus, Failure, RangeRequest};

/// How often one request joins a fetch.
const MAX_JOINS: usize = 2;

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
}

impl Edge {
    /// Waits for what a plan wants to be waited for: a fetch, a ledger, and where the ledger has it
    /// no more, a fetch after all.
    pub(super) async fn settle(&self, mut planned: Planned) -> Result<Planned, Failure> {
        if let Planned::Await(awaiting) = planned {
            planned = self.join(*awaiting).await?;
        }
        if let Planned::Lend(loan) = planned {
            planned = self.borrow(*loan).await?;
        }
        match planned {
            Planned::Await(awaiting) => self.join(*awaiting).await,
            planned => Ok(planned),
        }
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

    async fn join_once(&self, awaiting: Awaiting) -> Result<Planned, Failure> {
        let Awaiting { request, fetch } = awaiting;
        let (growing, how) = match fetch {
            Fetch::Growing(growing) => (growing, CacheStatus::Collapsed),
            Fetch::Order(mut ticket) => match ticket.join().await {
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
