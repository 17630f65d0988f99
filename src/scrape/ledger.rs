//! The task that lists one local directory of archives, again and again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::probe_context::ProbeSettings;
use super::remarks::Remarks;
use super::states::{Nature, Probed, StatePlace};
use crate::clock::Now;
use crate::error_chain::chain;
use crate::index::Event;
use crate::ledger::{Ledger, LedgerError, Listing, Offer, Unfit};
use crate::snapshot::ArchiveName;

/// Least time between two listings.
const LEAST_PAUSE: Duration = Duration::from_millis(50);
/// What is told of a directory without archives.
const NOTHING: &str = "the directory has no archive that is served; list those that the node \
                       writes its archives to";
/// Most refused files of one listing that are logged.
const MAX_LOGGED: usize = 5;

/// One directory, and where it is told what is in it.
pub(super) struct LedgerWatch {
    pub(super) ledger: Arc<Ledger>,
    /// Time between two listings, and time for one of them.
    pub(super) settings: watch::Receiver<ProbeSettings>,
    pub(super) state: StatePlace,
    pub(super) events: mpsc::Sender<Event>,
}

/// A listing that is under way, and since when: what it sees may be that old.
struct Look {
    at: Now,
    listing: JoinHandle<Result<Listing, LedgerError>>,
}

/// The listing of a directory. A disk that hangs holds up one thread, and no other is sent after
/// it.
#[derive(Default)]
struct PendingListing(Option<Look>);

impl PendingListing {
    /// What is there, and since when that is known, or what is wrong.
    async fn list(
        &mut self,
        ledger: &Arc<Ledger>,
        patience: Duration,
    ) -> (Now, Result<Listing, String>) {
        let mut look = self.0.take().unwrap_or_else(|| {
            let ledger = Arc::clone(ledger);
            Look { at: Now::read(), listing: tokio::task::spawn_blocking(move || ledger.list()) }
        });
        match tokio::time::timeout(patience, &mut look.listing).await {
            Ok(Ok(listing)) => (look.at, listing.map_err(|error| chain(&error))),
            Ok(Err(panic)) => (look.at, Err(chain(&panic))),
            Err(_) => {
                self.0 = Some(look);
                (Now::read(), Err(format!("the disk does not answer within {patience:?}")))
            }
        }
    }
}

impl LedgerWatch {
    /// Lists the directory for as long as somebody listens; the end of the process ends it.
    pub(super) async fn keep(self) {
        let (mut pending, mut failing) = (PendingListing::default(), None);
        let (mut refused, mut walk) = (BTreeMap::new(), None);
        let (mut remarks, mut changes) = (Remarks::default(), self.settings.clone());
        loop {
            let ProbeSettings { interval, timeout, .. } = changes.borrow_and_update().clone();
            let (mut next, target) = (interval, self.ledger.id().clone());
            let (at, outcome) = pending.list(&self.ledger, timeout).await;
            let took = at.instant.elapsed();
            let event = match outcome {
                Ok(listing) => {
                    if failing.take().is_some() {
                        log::info!("target {target} can be listed again");
                    }
                    let offer = self.ledger.vet(listing, at.instant);
                    self.complain(&refused, &offer.refused);
                    // What is looked at again soon is not offered yet, and no nothing.
                    if offer.next.is_none() || !offer.archives.is_empty() {
                        self.remark(&mut remarks, offer.archives.is_empty());
                    }
                    let Offer { archives, refused: now_refused, next: sooner } = offer;
                    self.note(Probed::listed(&archives, || NOTHING.to_owned()), took);
                    (refused, next) = (now_refused, sooner.unwrap_or(next).min(next));
                    Event::Answered { target: target.clone(), at, archives }
                }
                Err(failure) => {
                    if failing.as_ref() != Some(&failure) {
                        log::warn!("cannot list target {target}: {failure}");
                    }
                    self.note(Probed::Failed("other", failure.clone()), took);
                    failing = Some(failure);
                    Event::Failed { target: target.clone(), at }
                }
            };
            if self.events.send(event).await.is_err() {
                return;
            }
            if walk.is_none() {
                walk = self.walk();
            }
            let walked = async {
                match &mut walk {
                    Some(walk) => walk.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = tokio::time::sleep(next.max(LEAST_PAUSE)) => {}
                Ok(()) = changes.changed() => {}
                ended = walked => {
                    if let Err(panic) = ended {
                        log::error!("a look through a file of {target} ended: {panic}");
                    }
                    walk = None;
                }
            }
        }
    }

    /// Shows how the directory does to those who look.
    fn note(&self, probed: Probed, took: Duration) {
        self.state.note(Some(Nature::Ledger), probed, took);
    }

    /// Begins to look through the next file that nobody has looked through.
    fn walk(&self) -> Option<JoinHandle<()>> {
        let (name, identity) = self.ledger.unwalked()?;
        let ledger = Arc::clone(&self.ledger);
        Some(tokio::task::spawn_blocking(move || ledger.walk(name, identity)))
    }

    /// Says once that there is nothing to offer, and when there is.
    fn remark(&self, remarks: &mut Remarks, is_empty: bool) {
        let target = self.ledger.id();
        if !is_empty {
            if remarks.well() {
                log::info!("target {target} offers archives now");
            }
        } else if remarks.wrong("empty", Instant::now()) {
            log::warn!("target {target} offers nothing: {NOTHING}");
        }
    }

    /// Says of each file once that it is not served.
    fn complain(
        &self,
        before: &BTreeMap<ArchiveName, Unfit>,
        after: &BTreeMap<ArchiveName, Unfit>,
    ) {
        let mut new = after.iter().filter(|(name, unfit)| before.get(name) != Some(unfit));
        for (name, unfit) in new.by_ref().take(MAX_LOGGED) {
            log::warn!("target {} has {name}, which is not served: {unfit}", self.ledger.id());
        }
        let more = new.count();
        if more > 0 {
            log::warn!("target {} has {more} more that are not served", self.ledger.id());
        }
    }
}
