//! Sources that failed to deliver, as transfers tell of them and the index learns of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, watch};

use crate::index::{Deliveries, Outcome, Source, Trial, Undelivered, View};

/// What is known of sources that failed. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Doubts(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    deliveries: Mutex<Deliveries>,
    /// Told when there may be something to try.
    noted: Notify,
    failed: watch::Sender<Arc<[Undelivered]>>,
}

/// A source that is being tried. Dropping it says that nothing came of that.
pub(super) struct Running {
    doubts: Doubts,
    pub(super) trial: Trial,
    outcome: Outcome,
}

impl Doubts {
    /// The sources that did not deliver when this edge tried them, always those of this moment.
    pub fn failed(&self) -> watch::Receiver<Arc<[Undelivered]>> {
        self.0.failed.subscribe()
    }

    /// Notes that a transfer from a source ended by its fault, after so many bytes from its start.
    pub(super) fn suspect(&self, source: &Source, reached: u64) {
        self.deliveries().suspect(source, reached, Instant::now());
        self.0.noted.notify_one();
    }

    /// Notes that a source delivered all of its archive to a request that began at this time.
    pub(super) fn delivered(&self, source: &Source, began: Instant) {
        self.change(|deliveries| deliveries.delivered(source, began));
    }

    /// Notes that an archive of a source did not come in time while others waited to be fetched.
    pub fn late(&self, source: &Source) {
        self.deliveries().late(source, Instant::now());
        self.0.noted.notify_one();
    }

    /// Notes that one did.
    pub fn in_time(&self, source: &Source) {
        self.deliveries().in_time(source);
        self.0.noted.notify_one();
    }

    /// Whether a source failed when it was tried, and has not delivered since.
    pub(super) fn has_failed(&self, source: &Source) -> bool {
        self.deliveries().has_failed(source)
    }

    /// Waits until there may be something to try.
    pub(super) async fn noted(&self) {
        self.0.noted.notified().await;
    }

    /// The sources that are to be tried now, at most so many, and when there may be more.
    pub(super) fn due(&self, view: &View, most: usize) -> (Vec<Running>, Option<Instant>) {
        let now = Instant::now();
        self.change(|deliveries| {
            deliveries.keep_listed(view, now);
            deliveries.foresee(view, now);
        });
        let (trials, next) = self.deliveries().due(view, most, now);
        let running = |trial| Running { doubts: self.clone(), trial, outcome: Outcome::Unclear };
        (trials.into_iter().map(running).collect(), next)
    }

    /// Other archives of the same target, of which nothing bad is known.
    pub(super) fn controls(&self, view: &View, source: &Source) -> Vec<Arc<Source>> {
        self.deliveries().controls(view, source)
    }

    /// Changes what is known, and tells the index where that means something to it.
    fn change(&self, change: impl FnOnce(&mut Deliveries)) {
        let mut deliveries = self.deliveries();
        change(&mut deliveries);
        let failed: Arc<[Undelivered]> = deliveries.failed().into();
        // Under the lock, so that what is told last is what is known last.
        self.0.failed.send_if_modified(|told| {
            let is_news = **told != *failed;
            if is_news {
                *told = failed;
            }
            is_news
        });
    }

    fn deliveries(&self) -> MutexGuard<'_, Deliveries> {
        // No change of it can panic half-way.
        self.0.deliveries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    /// Says how it ended.
    pub(super) fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut self.outcome, Outcome::Unclear);
        self.doubts.change(|deliveries| deliveries.end(&self.trial, outcome, Instant::now()));
    }
}
