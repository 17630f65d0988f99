//! The edge's own tries of sources that failed for clients: whether any of an archive comes is
//! asked here, by nobody's request, and decides whether short names lead to it.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::connectors::http::v1::Connector;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::task::JoinSet;

use super::connection::{Caller, open_failure, open_part};
use super::doubts::{Doubts, Running};
use super::pool::UpstreamPool;
use crate::error_chain::chain;
use crate::hops::CdnLoop;
use crate::index::{Outcome, Source, View};
use crate::ledger::Ledgers;
use crate::published::Published;
use crate::route::{RangeRequest, RangeSpec, SourceFailure};

/// Most sources that are tried at once.
const MAX_AT_ONCE: usize = 4;
/// Longest that a source may be silent, where `limits.read_timeout` is not less: a client waited
/// for as long as that before.
const PATIENCE: Duration = Duration::from_secs(3);
/// Most bytes that are read where a body broke off: what breaks off later is not found out here.
const MOST_BYTES: u64 = 16 << 20;
/// Longest that the bytes are waited for while they come.
const LONGEST: Duration = Duration::from_secs(30);
/// Time after which a target is asked again that is asked for too much.
const SECOND_TRY: Duration = Duration::from_secs(1);
/// Longest time between two looks at what is to be tried.
const IDLE: Duration = Duration::from_secs(60);

/// The service that tries sources.
pub struct Trials {
    context: Arc<TrialContext>,
}

/// A try that failed.
struct Unmet {
    failure: SourceFailure,
    came: Came,
}

/// Whether bytes came before that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    Nothing,
    Something,
}

impl Unmet {
    fn before(failure: SourceFailure) -> Self {
        Self { failure, came: Came::Nothing }
    }
}

/// What every try needs.
struct TrialContext {
    doubts: Doubts,
    upstreams: Arc<UpstreamPool>,
    published: Arc<Published>,
    ledgers: Arc<Ledgers>,
    connector: Connector,
    /// A try is made for nobody's request.
    came: CdnLoop,
}

impl Trials {
    /// A service that tries what transfers from these targets and directories doubt.
    pub fn new(
        upstreams: Arc<UpstreamPool>,
        published: Arc<Published>,
        ledgers: Arc<Ledgers>,
    ) -> Self {
        let (doubts, connector) = (upstreams.doubts().clone(), Connector::new(None));
        let came = CdnLoop::default();
        Self {
            context: Arc::new(TrialContext {
                doubts,
                upstreams,
                published,
                ledgers,
                connector,
                came,
            }),
        }
    }
}

#[async_trait]
impl BackgroundService for Trials {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut views = self.context.published.subscribe();
        let mut running = JoinSet::new();
        loop {
            views.mark_unchanged();
            let view = self.context.published.load_full();
            let (due, next) = self.context.doubts.due(&view, MAX_AT_ONCE - running.len());
            for trial in due {
                running.spawn(Arc::clone(&self.context).run(trial, Arc::clone(&view)));
            }
            let idle = Instant::now() + IDLE;
            let next = next.map_or(idle, |next| next.min(idle));
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => break,
                () = self.context.doubts.noted() => {}
                Ok(()) = views.changed() => {}
                Some(ended) = running.join_next() => {
                    if let Err(error) = ended {
                        log::error!("a task that tries a source ended: {error}");
                    }
                }
                () = tokio::time::sleep_until(next.into()) => {}
            }
        }
        running.shutdown().await;
    }
}

impl TrialContext {
    async fn run(self: Arc<Self>, running: Running, view: Arc<View>) {
        let (source, bytes) = (Arc::clone(&running.trial.source), running.trial.bytes);
        let outcome = match self.attempt(&source, bytes).await {
            Ok(()) => Outcome::Delivered,
            Err(unmet) => self.confirmed(&source, bytes, unmet, &view).await,
        };
        let name = source.listed.name;
        log::debug!("{name} from target {}: tried, {outcome:?}", source.target);
        running.end(outcome);
    }

    /// What a failure means. A target that is asked for too much may refuse, which a client can
    /// bring about: so it is asked again where it says that, and where it delivers to others it
    /// would refuse everything else as well.
    async fn confirmed(&self, source: &Source, bytes: u64, unmet: Unmet, view: &View) -> Outcome {
        let mut unmet = unmet;
        let is_refused = |unmet: &Unmet| unmet.came == Came::Nothing;
        let is_bound = is_refused(&unmet) && self.upstreams.delivers(&source.target);
        if is_bound && !self.delivers_another(source, view).await {
            return Outcome::Unclear;
        }
        if is_bound || is_busy(&unmet.failure) {
            tokio::time::sleep(SECOND_TRY).await;
            unmet = match self.attempt(source, bytes).await {
                Ok(()) => return Outcome::Delivered,
                Err(unmet) => unmet,
            };
        }
        match unmet.failure {
            SourceFailure::Gone => {
                self.upstreams.gone(source);
                Outcome::Unclear
            }
            SourceFailure::NoSocket | SourceFailure::Loop => Outcome::Unclear,
            failure => Outcome::Failed(self.upstreams.described(source, &failure).into()),
        }
    }

    async fn delivers_another(&self, source: &Source, view: &View) -> bool {
        for other in self.doubts.controls(view, source) {
            if self.attempt(&other, 1).await.is_ok() {
                return true;
            }
        }
        false
    }

    /// Tries to get so many bytes from the start of an archive.
    async fn attempt(&self, source: &Source, bytes: u64) -> Result<(), Unmet> {
        if source.target.is_ledger() {
            return self.read(source).await.map_err(Unmet::before);
        }
        let (upstreams, came) = (&*self.upstreams, &self.came);
        let caller = Caller { connector: &self.connector, upstreams, came };
        let patience = PATIENCE.min(upstreams.read_timeout());
        let (range, mut left) = (range_of(source, bytes), bytes.min(MOST_BYTES));
        let mut body = tokio::time::timeout(patience, open_part(caller, source, &range))
            .await
            .unwrap_or(Err(SourceFailure::Timeout))
            .map_err(Unmet::before)?;
        let (until, mut came) = (Instant::now() + LONGEST, Came::Nothing);
        // Whoever is merely slow delivers.
        while left > 0 && Instant::now() < until {
            let read = tokio::time::timeout(patience, body.read()).await;
            let piece = read.unwrap_or(Err(SourceFailure::Timeout));
            match piece {
                Ok(Some(piece)) if !piece.is_empty() => {
                    left = left.saturating_sub(piece.len() as u64);
                    came = Came::Something;
                }
                Ok(Some(_)) => {}
                // All of it, which is less than what was reached once.
                Ok(None) => break,
                Err(failure) => return Err(Unmet { failure, came }),
            }
        }
        Ok(())
    }

    /// Tries to read from a file of a local directory.
    async fn read(&self, source: &Source) -> Result<(), SourceFailure> {
        let ledger = self.ledgers.of(&source.target).ok_or(SourceFailure::Gone)?;
        let opened = ledger.open(source.listed.name).await.map_err(|error| open_failure(&error))?;
        let read = tokio::task::spawn_blocking(move || opened.file.read_exact_at(&mut [0], 0));
        match tokio::time::timeout(PATIENCE, read).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => {
                log::debug!("{} of {}: {}", source.listed.name, source.target, chain(&error));
                Err(SourceFailure::Disk)
            }
            Ok(Err(panic)) => {
                log::error!("{} of {}: {panic}", source.listed.name, source.target);
                Err(SourceFailure::Disk)
            }
            Err(_) => Err(SourceFailure::Timeout),
        }
    }
}

/// What is asked for. From a node all of it, of which no more is read than is needed: what clients
/// want is all of it, and whether a range is answered says nothing of that. Another edge is asked
/// for no more than is read, since all of it might be fetched for that.
fn range_of(source: &Source, bytes: u64) -> RangeRequest {
    if source.via().edges().is_empty() {
        return RangeRequest::Whole;
    }
    RangeRequest::Single(RangeSpec::From { first: 0, last: bytes.checked_sub(1) })
}

/// Whether a target says that it is asked for too much.
fn is_busy(failure: &SourceFailure) -> bool {
    matches!(failure, SourceFailure::Status(429 | 503))
}
