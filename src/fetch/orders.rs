//! Which archives are being fetched into the cache: each of them once at a time, and not again at
//! once after a failure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use crate::cache::{Claim, Growing, Standing, Store};
use crate::hops::{CdnLoop, EdgeId};
use crate::index::Source;
use crate::route::{Busy, Bypass, Failure, SourceFailure};
use crate::snapshot::ArchiveName;
use crate::target::delay;

/// Orders that wait to be taken up. The store admits no more fills than this at once.
pub(super) const QUEUE: usize = 64;
/// How long a request waits for the head of an archive that is being asked for, over all sources
/// that are tried. No client waits longer for an answer.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// How long it takes at most until an order that could be carried is.
const PICK_UP: Duration = Duration::from_secs(1);
/// Most archives of which it is remembered that fetching them failed. Only what is the best is
/// fetched, so there are few.
const MAX_FAILED: usize = 1024;

/// An archive to be fetched.
pub struct Order {
    /// The archive.
    pub name: ArchiveName,
    /// Who asks for it first.
    pub client: IpAddr,
    /// The proxies that the request came through which is the reason.
    pub came: Arc<CdnLoop>,
    /// Its sources in the order in which they are tried, at least one.
    pub sources: Vec<Arc<Source>>,
    /// How long it goes on.
    pub tenacity: Tenacity,
}

/// For how long an archive is fetched that nobody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tenacity {
    /// To its end in any case.
    ToTheEnd,
    /// While the configuration wants it.
    AsConfigured,
}

/// How far an order is.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// A source is waited for that may carry it.
    Waiting,
    /// Sources are asked for the archive, for the first time or anew.
    Opening,
    /// Its bytes come.
    Running(Arc<Growing>),
    /// It is done, or came to nothing.
    Over(Result<(), Unfetched>),
}

/// Why an archive is not in the cache in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfetched {
    /// The cache does not take it; it can be had past the cache.
    Refused(Bypass),
    /// No source has it, or none delivered it.
    Failed(Failure),
    /// Nobody wanted it any more.
    Unwanted,
}

/// What a request that joins an order gets.
pub enum Joined {
    /// The archive as it grows.
    Growing(Arc<Growing>),
    /// It is complete by now.
    Whole,
    /// Nothing, for this reason.
    Not(Unfetched),
}

/// What became of an order that was placed.
pub enum Placed {
    /// It is under way.
    Running(Ticket),
    /// There is nothing to do, the archive is complete.
    Whole,
    /// It is not taken now.
    Refused(Bypass),
}

/// A look at an order that is under way.
pub struct Ticket {
    /// Whether it was placed now.
    pub is_new: bool,
    stage: watch::Receiver<Stage>,
}

impl Ticket {
    /// Waits until the archive can be read, or will not be.
    ///
    /// Who asks waits for a source at most for `queue_wait`; the order itself waits on.
    pub async fn join(&mut self, queue_wait: Duration) -> Joined {
        let begun = self.stage.wait_for(|stage| !matches!(stage, Stage::Waiting));
        if tokio::time::timeout(queue_wait + PICK_UP, begun).await.is_err() {
            return Joined::Not(Unfetched::Failed(Failure::Busy(Busy::Targets)));
        }
        let ready = self.stage.wait_for(|stage| match stage {
            Stage::Waiting | Stage::Opening => false,
            // It is opened anew, or over, in a moment.
            Stage::Running(growing) => !growing.has_failed(),
            Stage::Over(_) => true,
        });
        match tokio::time::timeout(HEAD_PATIENCE, ready).await.map(|stage| stage.map(|s| s.clone()))
        {
            Ok(Ok(Stage::Running(growing))) => Joined::Growing(growing),
            Ok(Ok(Stage::Over(Ok(())))) => Joined::Whole,
            Ok(Ok(Stage::Over(Err(why)))) => Joined::Not(why),
            // Its task was dropped, at the end of the process.
            Ok(Ok(Stage::Waiting | Stage::Opening) | Err(_)) => Joined::Not(Unfetched::Unwanted),
            Err(_) => {
                let silent = Failure::Sources(SourceFailure::Timeout);
                Joined::Not(Unfetched::Failed(silent))
            }
        }
    }

    /// Waits for the end.
    pub(super) async fn over(mut self) {
        // A task that was dropped is over as well.
        let _ = self.stage.wait_for(|stage| matches!(stage, Stage::Over(_))).await;
    }
}

/// The orders. Clones are the same.
#[derive(Clone)]
pub struct Orders(Arc<Desk>);

struct Desk {
    store: Store,
    jobs: mpsc::Sender<Job>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: BTreeMap<ArchiveName, Running>,
    failed: BTreeMap<ArchiveName, Failed>,
}

struct Running {
    stage: watch::Receiver<Stage>,
    /// The edges that its sources are, or come through.
    through: BTreeSet<EdgeId>,
    to_the_end: Arc<AtomicBool>,
}

struct Failed {
    times: u32,
    until: Instant,
    why: Bypass,
}

/// An order that was taken. Dropping it closes it.
pub(super) struct Job {
    orders: Orders,
    pub(super) name: ArchiveName,
    pub(super) client: IpAddr,
    pub(super) came: Arc<CdnLoop>,
    stage: watch::Sender<Stage>,
    to_the_end: Arc<AtomicBool>,
    /// There until it is begun.
    start: Option<(Claim, Vec<Arc<Source>>)>,
    outcome: Result<(), Unfetched>,
}

impl Orders {
    /// Orders that fill this store, and where those come out that were taken.
    pub(super) fn new(store: Store) -> (Self, mpsc::Receiver<Job>) {
        let (jobs, inbox) = mpsc::channel(QUEUE);
        (Self(Arc::new(Desk { store, jobs, state: Mutex::default() })), inbox)
    }

    /// Places an order, or joins the one that is under way.
    pub fn place(&self, order: Order, now: Instant) -> Placed {
        let Order { name, client, came, sources, tenacity } = order;
        let mut books = self.state();
        if let Some(running) = books.running.get(&name) {
            if came.edges().iter().any(|edge| running.through.contains(edge)) {
                // Of two edges that wait for each other's fetch neither would get a byte.
                return Placed::Refused(Bypass::Filling);
            }
            if tenacity == Tenacity::ToTheEnd {
                running.to_the_end.store(true, Ordering::Relaxed);
            }
            return Placed::Running(Ticket { is_new: false, stage: running.stage.clone() });
        }
        if let Some(failed) = books.failed.get(&name).filter(|failed| now < failed.until) {
            return Placed::Refused(failed.why);
        }
        let Some(source) = sources.first() else { return Placed::Refused(Bypass::Backoff) };
        let Some(claim) = self.0.store.claim(&name, &source.target) else {
            return match self.0.store.standing(&name) {
                Standing::Whole(_) => Placed::Whole,
                // A fill whose thread the disk holds up, or too many of them.
                _ => Placed::Refused(Bypass::Disk),
            };
        };
        let through = sources.iter().flat_map(|source| source.via().edges()).cloned().collect();
        let (progress, stage) = watch::channel(Stage::Waiting);
        let to_the_end = Arc::new(AtomicBool::new(tenacity == Tenacity::ToTheEnd));
        let job = Job {
            orders: self.clone(),
            name,
            client,
            came,
            stage: progress,
            to_the_end: Arc::clone(&to_the_end),
            start: Some((claim, sources)),
            // Of a task that panics.
            outcome: Err(Unfetched::Failed(Failure::Internal)),
        };
        let running = Running { stage: stage.clone(), through, to_the_end };
        books.running.insert(name, running);
        // Before the job may be dropped, which takes the lock.
        drop(books);
        match self.0.jobs.try_send(job) {
            Ok(()) => Placed::Running(Ticket { is_new: true, stage }),
            // The process ends, or the disk holds everything up.
            Err(_) => Placed::Refused(Bypass::Backoff),
        }
    }

    /// Until when an archive is not fetched because that failed.
    pub(super) fn rests_until(&self, name: &ArchiveName, now: Instant) -> Option<Instant> {
        let state = self.state();
        state.failed.get(name).map(|failed| failed.until).filter(|until| now < *until)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No change of the state can panic half-way.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self, name: &ArchiveName, outcome: &Result<(), Unfetched>, now: Instant) {
        let mut state = self.state();
        state.running.remove(name);
        let why = match outcome {
            Ok(()) => {
                state.failed.remove(name);
                return;
            }
            // That has nothing to do with the archive.
            Err(Unfetched::Unwanted | Unfetched::Failed(Failure::Busy(_))) => return,
            Err(Unfetched::Refused(why)) => *why,
            Err(Unfetched::Failed(_)) => Bypass::Backoff,
        };
        let times = state.failed.get(name).map_or(0, |failed| failed.times).saturating_add(1);
        let rest = delay(times);
        state.failed.retain(|_, failed| now < failed.until + rest.max(delay(failed.times)));
        if state.failed.len() < MAX_FAILED {
            state.failed.insert(*name, Failed { times, until: now + rest, why });
        }
    }
}

impl Job {
    /// The right to fetch, and the sources to begin with; once.
    pub(super) fn take_start(&mut self) -> Option<(Claim, Vec<Arc<Source>>)> {
        self.start.take()
    }

    /// Whether it goes on although nobody reads.
    pub(super) fn goes_to_the_end(&self) -> bool {
        self.to_the_end.load(Ordering::Relaxed)
    }

    /// Tells those who wait how far it is.
    pub(super) fn reach(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }

    /// Says how it ended; nothing but the closing is left.
    pub(super) fn end(mut self, outcome: Result<(), Unfetched>) {
        self.outcome = outcome;
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // The name is free in the store before it is free here.
        self.start = None;
        self.orders.close(&self.name, &self.outcome, Instant::now());
        self.stage.send_replace(Stage::Over(self.outcome.clone()));
    }
}
