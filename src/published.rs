//! The view of this moment, where everybody finds it, and the way in for what transfers learn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{mpsc, watch};

use crate::index::{Event, Listed, TargetId, View};
use crate::snapshot::ArchiveName;

/// The view that requests are answered from. Reading takes no lock.
#[derive(Debug, Default)]
pub struct Published {
    view: ArcSwap<View>,
    /// How many views there were; for those that wait for the next one.
    count: watch::Sender<u64>,
    /// Whether all targets were found and heard, or failed, once.
    is_ready: AtomicBool,
}

impl Published {
    /// The view of this moment, to be held for no longer than one decision.
    pub fn load(&self) -> Guard<Arc<View>> {
        self.view.load()
    }

    /// The view of this moment, to be kept.
    pub fn load_full(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// A number that grows with each view. Who sees it grow and loads then has that view, or one
    /// that came after it.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }

    /// Whether the first round of probes is over: all targets were found and heard, or failed.
    pub fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed)
    }

    /// Puts another view in place of that of this moment.
    pub fn store(&self, view: View) {
        self.is_ready.fetch_or(view.is_complete(), Ordering::Relaxed);
        self.view.store(Arc::new(view));
        self.count.send_modify(|count| *count += 1);
    }
}

/// Tells the index what a transfer learned.
#[derive(Clone, Debug)]
pub struct Reporter(mpsc::Sender<Event>);

impl Reporter {
    /// A reporter that tells those who take events out of this queue.
    pub fn new(events: mpsc::Sender<Event>) -> Self {
        Self(events)
    }

    /// The target answered that it does not have the archive any more. A hint: where the queue is
    /// full it is dropped, and the next probe finds out.
    pub fn gone(&self, target: &TargetId, name: ArchiveName) {
        let event = Event::Gone { target: target.clone(), name, at: Instant::now() };
        if self.0.try_send(event).is_err() {
            log::debug!("the index is busy, {target} will be found without {name} by a probe");
        }
    }

    /// The target answered that it has an archive which it did not list yet. Waits while the queue
    /// is full.
    pub async fn found(&self, target: TargetId, archive: Listed) {
        let event = Event::Found { target, at: Instant::now(), archive };
        // Nobody takes it when the process ends.
        let _ = self.0.send(event).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::index::{Catalog, Policy, Publish};

    #[test]
    fn who_waits_for_the_next_view_finds_it() {
        let published = Published::default();
        let mut views = published.subscribe();
        assert!(!views.has_changed().expect("it lives"), "nothing was stored");
        let before = *views.borrow();
        let view = Catalog::default().view(
            &View::default(),
            &["main".into()],
            Policy { probe_failures: 1, pair_hold: Duration::ZERO, publish: Publish::Seen },
            Instant::now(),
        );
        published.store(view);
        assert!(views.has_changed().expect("it lives"));
        assert!(*views.borrow_and_update() > before);
        assert!(published.load().group("main").is_some());
        assert!(!views.has_changed().expect("it lives"));
    }
}
