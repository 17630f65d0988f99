//! Which archives are being fetched into the cache: each of them once at a time, and not again at
//! once after a failure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use crate::cache::{Claim, Growing, Standing, Store};
use crate::configured::{Configured, Live};
use crate::hops::{CdnLoop, EdgeId};
use crate::index::Source;
use crate::limit::delay;
use crate::route::{Busy, Bypass, Failure, SourceFailure};
use crate::snapshot::ArchiveName;

/// Requests that wait to be taken up. The store admits no more fills than this at once.
pub(super) const QUEUE: usize = 64;
/// How long a request waits for the head of an archive that is being asked for, over all sources
/// that are tried. No client waits longer for an answer.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// How long it takes at most until a fill that could be carried is.
const PICK_UP: Duration = Duration::from_secs(1);
/// Most archives of which it is remembered that fetching them failed. Only what is the best is
/// fetched, so there are few.
const MAX_FAILED: usize = 1024;

/// An archive to be fetched.
pub struct FillRequest {
    /// The archive.
    pub name: ArchiveName,
    /// Who asks for it first.
    pub client: IpAddr,
    /// The proxies that the request came through which is the reason.
    pub came: Arc<CdnLoop>,
    /// The sources of the archive in the order in which they are tried, at least one.
    pub sources: Vec<Arc<Source>>,
    /// How long it goes on.
    pub abandon: AbandonPolicy,
}

/// For how long an archive is fetched that nobody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbandonPolicy {
    /// To its end in any case.
    ToTheEnd,
    /// While the configuration wants it.
    AsConfigured,
}

/// How far a fill is.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// A source is waited for that may carry it.
    Waiting,
    /// Sources are asked for the archive, for the first time or anew.
    Opening,
    /// Bytes of the archive come.
    Running(Arc<Growing>),
    /// The fill is done, or came to nothing.
    Over(Result<(), FillFailure>),
}

/// Why an archive is not in the cache in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FillFailure {
    /// The cache does not take it; it can be had past the cache.
    Refused(Bypass),
    /// No source has it, or none delivered it.
    Failed(Failure),
    /// Nobody wanted it any more.
    Unwanted,
}

/// What a request that joins a fill gets.
pub enum Joined {
    /// The archive as it grows.
    Growing(Arc<Growing>),
    /// The archive is complete by now.
    Whole,
    /// The archive cannot be had, for this reason.
    Not(FillFailure),
}

/// What became of a request for a fill.
pub enum Placed {
    /// The fill is under way.
    Running(FillHandle),
    /// There is nothing to do, the archive is complete.
    Whole,
    /// The fill is not taken now.
    Refused(Bypass),
}

/// A fill that is under way, for one who waits for it.
pub struct FillHandle {
    /// Whether it was placed now.
    pub is_new: bool,
    stage: watch::Receiver<Stage>,
}

impl FillHandle {
    /// Waits until the archive can be read, or will not be.
    ///
    /// Who asks waits for a source at most for `queue_wait`; the fill itself waits on.
    pub async fn join(&mut self, queue_wait: Duration) -> Joined {
        let begun = self.stage.wait_for(|stage| !matches!(stage, Stage::Waiting));
        if tokio::time::timeout(queue_wait + PICK_UP, begun).await.is_err() {
            return Joined::Not(FillFailure::Failed(Failure::Busy(Busy::Targets)));
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
            Ok(Ok(Stage::Waiting | Stage::Opening) | Err(_)) => Joined::Not(FillFailure::Unwanted),
            Err(_) => {
                let silent = Failure::Sources(SourceFailure::Timeout);
                Joined::Not(FillFailure::Failed(silent))
            }
        }
    }

    /// Waits for the end.
    pub(super) async fn over(mut self) {
        // A task that was dropped is over as well.
        let _ = self.stage.wait_for(|stage| matches!(stage, Stage::Over(_))).await;
    }
}

/// The fills that are under way. Clones are the same.
#[derive(Clone)]
pub struct FillQueue(Arc<Desk>);

struct Desk {
    store: Store,
    live: Arc<Live>,
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

/// A fill that was taken up. Dropping it closes it.
pub(super) struct Job {
    queue: FillQueue,
    /// What it began under.
    pub(super) configured: Arc<Configured>,
    pub(super) name: ArchiveName,
    pub(super) client: IpAddr,
    pub(super) came: Arc<CdnLoop>,
    stage: watch::Sender<Stage>,
    to_the_end: Arc<AtomicBool>,
    /// There until it is begun.
    start: Option<(Claim, Vec<Arc<Source>>)>,
    outcome: Result<(), FillFailure>,
}

impl FillQueue {
    /// The queue of what fills this store, and where those come out that were taken.
    pub(super) fn new(store: Store, live: Arc<Live>) -> (Self, mpsc::Receiver<Job>) {
        let (jobs, inbox) = mpsc::channel(QUEUE);
        (Self(Arc::new(Desk { store, live, jobs, state: Mutex::default() })), inbox)
    }

    /// Has an archive fetched, or joins the fill that is under way.
    pub fn place(&self, request: FillRequest, now: Instant) -> Placed {
        let FillRequest { name, client, came, sources, abandon } = request;
        let mut books = self.state();
        if let Some(running) = books.running.get(&name) {
            if came.edges().iter().any(|edge| running.through.contains(edge)) {
                // Of two edges that wait for each other's fetch neither would get a byte.
                return Placed::Refused(Bypass::Filling);
            }
            if abandon == AbandonPolicy::ToTheEnd {
                running.to_the_end.store(true, Ordering::Relaxed);
            }
            return Placed::Running(FillHandle { is_new: false, stage: running.stage.clone() });
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
        let to_the_end = Arc::new(AtomicBool::new(abandon == AbandonPolicy::ToTheEnd));
        let job = Job {
            queue: self.clone(),
            configured: self.0.live.load_full(),
            name,
            client,
            came,
            stage: progress,
            to_the_end: Arc::clone(&to_the_end),
            start: Some((claim, sources)),
            // Of a task that panics.
            outcome: Err(FillFailure::Failed(Failure::Internal)),
        };
        let running = Running { stage: stage.clone(), through, to_the_end };
        books.running.insert(name, running);
        // Before the job may be dropped, which takes the lock.
        drop(books);
        match self.0.jobs.try_send(job) {
            Ok(()) => Placed::Running(FillHandle { is_new: true, stage }),
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

    fn close(&self, name: &ArchiveName, outcome: &Result<(), FillFailure>, now: Instant) {
        let mut state = self.state();
        state.running.remove(name);
        let why = match outcome {
            Ok(()) => {
                state.failed.remove(name);
                return;
            }
            // That has nothing to do with the archive.
            Err(FillFailure::Unwanted | FillFailure::Failed(Failure::Busy(_))) => return,
            Err(FillFailure::Refused(why)) => *why,
            Err(FillFailure::Failed(_)) => Bypass::Backoff,
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

    /// Whether nobody has read it for so long, or waits to.
    pub(super) fn is_unread(&self, long: Duration) -> bool {
        match &*self.stage.borrow() {
            Stage::Running(growing) => {
                // What has all of its bytes is brought to its end.
                let is_whole = growing.progress().frontier() >= growing.record().length;
                let unread = growing.unread_for(Instant::now());
                !is_whole && unread.is_some_and(|unread| unread >= long)
            }
            // One who looks is the list of those that are running.
            Stage::Waiting | Stage::Opening => self.stage.receiver_count() <= 1,
            Stage::Over(_) => true,
        }
    }

    /// Tells those who wait how far it is.
    pub(super) fn reach(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }

    /// Says how it ended; nothing but the closing is left.
    pub(super) fn end(mut self, outcome: Result<(), FillFailure>) {
        self.outcome = outcome;
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // The name is free in the store before it is free here.
        self.start = None;
        self.queue.close(&self.name, &self.outcome, Instant::now());
        self.stage.send_replace(Stage::Over(self.outcome.clone()));
    }
}
