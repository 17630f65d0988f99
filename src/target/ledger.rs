//! The task that lists one local directory of archives, again and again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::reference::chain;
use crate::clock::Now;
use crate::index::Event;
use crate::ledger::{Ledger, LedgerError, Listing, Unfit};
use crate::snapshot::ArchiveName;

/// Most refused files of one listing that are logged.
const MAX_LOGGED: usize = 5;

/// One directory, and where it is told what is in it.
pub(super) struct LedgerWatch {
    pub(super) ledger: Arc<Ledger>,
    /// Time between two listings.
    pub(super) interval: Duration,
    /// Time for one of them.
    pub(super) timeout: Duration,
    pub(super) events: mpsc::Sender<Event>,
}

/// A listing that is under way. A disk that hangs holds up this one thread, and no other is sent
/// after it.
#[derive(Default)]
struct Look(Option<JoinHandle<Result<Listing, LedgerError>>>);

impl Look {
    async fn list(&mut self, ledger: &Arc<Ledger>, patience: Duration) -> Result<Listing, String> {
        let begun = self.0.take();
        let mut look = begun.unwrap_or_else(|| {
            let ledger = Arc::clone(ledger);
            tokio::task::spawn_blocking(move || ledger.list())
        });
        match tokio::time::timeout(patience, &mut look).await {
            Ok(Ok(listing)) => listing.map_err(|error| chain(&error)),
            Ok(Err(panic)) => Err(chain(&panic)),
            Err(_) => {
                self.0 = Some(look);
                Err(format!("the disk does not answer within {patience:?}"))
            }
        }
    }
}

impl LedgerWatch {
    /// Lists the directory for as long as somebody listens; the end of the process ends it.
    pub(super) async fn keep(self) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut look, mut failing, mut refused) = (Look::default(), None, BTreeMap::new());
        loop {
            ticks.tick().await;
            let at = Now::read();
            let stale = look.0.is_some();
            let target = self.ledger.id().clone();
            let event = match look.list(&self.ledger, self.timeout).await {
                // It may have begun long ago; the next one is of now.
                Ok(_) if stale => continue,
                Ok(listing) => {
                    if failing.take().is_some() {
                        log::info!("target {target} can be listed again");
                    }
                    self.complain(&refused, &listing.refused);
                    refused = listing.refused;
                    Event::Answered { target, at, archives: listing.archives }
                }
                Err(failure) => {
                    if failing.as_ref() != Some(&failure) {
                        log::warn!("cannot list target {target}: {failure}");
                    }
                    failing = Some(failure);
                    Event::Failed { target, at }
                }
            };
            if self.events.send(event).await.is_err() {
                return;
            }
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
