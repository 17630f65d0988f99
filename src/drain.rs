//! The orderly end of the process: nothing new is accepted, what is under way may finish, and the
//! end comes with the last of it.
//!
//! Which signals begin it, and how long it may take, is for the composition root to say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::{Notify, watch};

/// What is under way, and whether it is to be the last.
#[derive(Debug)]
pub struct Drain {
    announced: AtomicBool,
    begun: watch::Sender<bool>,
    quiet: watch::Sender<bool>,
    under_way: AtomicUsize,
    ended: Notify,
}

/// Whether what comes is accepted yet: not before everything is this process's own.
#[derive(Debug)]
pub struct Opening(watch::Sender<bool>);

impl Opening {
    /// One that is open from the start, or waits for [`open`](Self::open).
    pub fn new(is_open: bool) -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(is_open)))
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        *self.0.borrow()
    }

    /// Opens.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Waits until it is open.
    pub async fn wait(&self) {
        // Who opens it is this.
        let _ = self.0.subscribe().wait_for(|is_open| *is_open).await;
    }
}

/// One piece of work that the end waits for, for as long as it has not been dropped.
#[derive(Debug)]
pub struct UnderWay(Arc<Drain>);

impl Default for Drain {
    fn default() -> Self {
        Self {
            announced: AtomicBool::new(false),
            begun: watch::Sender::new(false),
            quiet: watch::Sender::new(false),
            under_way: AtomicUsize::new(0),
            ended: Notify::new(),
        }
    }
}

impl Drain {
    /// Says that the end is near: whoever sends clients here is to send them elsewhere.
    pub fn announce(&self) {
        self.announced.store(true, Ordering::Release);
    }

    /// Whether the end is near, or has begun.
    pub fn is_announced(&self) -> bool {
        self.announced.load(Ordering::Acquire)
    }

    /// Begins the end.
    pub fn begin(&self) {
        self.stop_accepting();
        self.quiet.send_replace(true);
    }

    /// Begins the end with those who connect: nobody new is accepted. Who is connected may ask
    /// until it [begins](Self::begin).
    pub fn stop_accepting(&self) {
        self.announce();
        self.begun.send_replace(true);
    }

    /// Tells when connections end on which nothing is asked.
    pub fn quiet(&self) -> watch::Receiver<bool> {
        self.quiet.subscribe()
    }

    /// Tells when the end begins.
    pub fn begun(&self) -> watch::Receiver<bool> {
        self.begun.subscribe()
    }

    /// Whether the end has begun.
    pub fn is_begun(&self) -> bool {
        *self.begun.borrow()
    }

    /// Counts a piece of work.
    pub fn enter(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(self))
    }

    /// Pieces of work under way.
    pub fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Acquire)
    }

    /// Waits until nothing is under way.
    pub async fn idle(&self) {
        loop {
            // Before the count is read, or the last end could pass between the two.
            let ended = self.ended.notified();
            if self.under_way() == 0 {
                return;
            }
            ended.await;
        }
    }
}

impl UnderWay {
    /// Whether it is to be among the last.
    pub fn is_ending(&self) -> bool {
        self.0.is_begun()
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if self.0.under_way.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.ended.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn the_end_waits_for_the_last_of_what_is_under_way() {
        let drain = Arc::<Drain>::default();
        timeout(LONG, drain.idle()).await.expect("nothing is under way");
        let (first, second) = (drain.enter(), drain.enter());
        assert_eq!(drain.under_way(), 2);
        drop(first);
        assert!(timeout(SHORT, drain.idle()).await.is_err(), "one is left");
        let waiting = Arc::clone(&drain);
        let waiting = tokio::spawn(async move { waiting.idle().await });
        tokio::task::yield_now().await;
        drop(second);
        timeout(LONG, waiting).await.expect("told").expect("no panic");
    }

    #[tokio::test]
    async fn everybody_hears_that_it_begins() {
        let drain = Drain::default();
        let mut early = drain.begun();
        assert!(!*early.borrow_and_update());
        drain.announce();
        assert!(drain.is_announced() && !drain.is_begun(), "what comes is served");
        drain.begin();
        early.changed().await.expect("told");
        assert!(*early.borrow() && *drain.begun().borrow(), "early and late");
    }
}
