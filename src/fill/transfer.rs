//! One archive from its sources into the cache, without a client: at the source's speed, over its
//! failures, and never with bytes of two copies.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use pingora::connectors::http::v1::Connector;

use super::haste::{Haste, Judgement};
use super::queue::{FillFailure, Job, Stage};
use super::reserve::{
    PATIENCE_OF_CLIENTS, PATIENCE_OF_NOBODY, announced, bypass_of, could_hold, prepare,
};
use crate::cache::{Abandoned, Claim, Ending, Fill, Growing, Standing, Store};
use crate::config::{Cache, Publish};
use crate::configured::Live;
use crate::drain::Drain;
use crate::hops::CdnLoop;
use crate::index::{Source, Worth};
use crate::limit::Pacer;
use crate::published::Published;
use crate::route::plan::{Case, EntryState};
use crate::route::{
    Affinity, Asked, Bypass, Failure, Ranges, SourceFailure, Validator, Walk, keep_near,
};
use crate::snapshot::ArchiveName;
use crate::upstream::{Body, Caller, Claimant, Opened, Reopened, Slot, UpstreamPool, open, reopen};

/// Times that an archive is begun from zero for one fill.
const MAX_STARTS: u32 = 4;
/// Rests before the tries to go on with a broken copy. After as many in a row that brought no byte
/// it is given up.
const RESTS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(2)];
/// Bytes that a connection has to bring before the one after it has all of those tries again.
const PROGRESS: u64 = 16 << 20;
/// How long a fill waits for a target that may carry it, before those that wait for it. Whoever
/// asked for it does not wait as long.
const SLOT_PATIENCE: Duration = Duration::from_secs(60);
/// How long the disk may hold a fill up. Its readers wait no longer either.
const DISK_PATIENCE: Duration = Duration::from_secs(15);
/// How long the sync of an archive may take that its readers have all of.
const SYNC_PATIENCE: Duration = Duration::from_secs(600);
/// Longest time that bytes are collected before they go to the disk, and so to readers.
const COLLECTING: Duration = Duration::from_millis(50);
/// How long a fill that is not to be finished goes on without readers: clients that test the speed
/// come one after the other, and are not to begin a transfer each.
const LINGER: Duration = Duration::from_secs(10);

/// How long nobody must have read what is fetched, at the end of the process, before that is given
/// up: who was just told that it can be read is about to.
const LAST_LINGER: Duration = Duration::from_millis(200);
/// How often that is asked.
const LAST_LOOK: Duration = Duration::from_millis(50);

/// What every transfer into the cache needs.
pub(super) struct FillContext {
    pub(super) store: Store,
    pub(super) upstreams: Arc<UpstreamPool>,
    pub(super) published: Arc<Published>,
    pub(super) connector: Connector,
    pub(super) live: Arc<Live>,
    pub(super) drain: Arc<Drain>,
}

/// A fill that was begun.
struct Begun {
    source: Arc<Source>,
    slot: Slot,
    validator: Option<Validator>,
    fill: Fill,
    growing: Arc<Growing>,
    ending: Ending,
}

/// How the bytes of one connection ended.
enum Flow {
    /// With the last byte.
    Complete,
    /// By the source's fault.
    Broke(SourceFailure),
    /// By the fault of something else, or by nobody's.
    Stopped(Abandoned),
}

impl FillContext {
    /// The sources of an archive that could be fetched now, as they are tried.
    pub(super) fn sources(
        &self,
        name: ArchiveName,
        client: std::net::IpAddr,
    ) -> Result<Vec<Arc<Source>>, Failure> {
        let (view, now) = (self.published.load(), Instant::now());
        let asked = Asked::all(Method::GET);
        let (affinity, policy) = (&Affinity::Fresh, self.live.load().policy);
        let case = Case { name, client, asked: &asked, affinity, view: &view, policy };
        case.sources(EntryState::Nothing, &self.upstreams.at(now), |source| {
            self.store.is_distrusted(&source.target, &source.listed, now)
        })
    }

    /// Whether an archive could be fetched now.
    pub(super) fn has_source(&self, name: &ArchiveName) -> bool {
        let (view, now) = (self.published.load(), Instant::now());
        let mut sources = view.sources(name).iter();
        sources.any(|source| !self.store.is_distrusted(&source.target, &source.listed, now))
    }

    fn caller<'a>(&'a self, came: &'a CdnLoop) -> Caller<'a> {
        Caller { connector: &self.connector, upstreams: &self.upstreams, came }
    }

    /// Fetches the archive of a fill.
    pub(super) async fn run(self: Arc<Self>, mut job: Job) {
        let Some((claim, sources)) = job.take_start() else { return };
        let outcome = tokio::select! {
            biased;
            outcome = self.fetch(&job, claim, sources) => outcome,
            () = self.ends(&job) => Err(FillFailure::Unwanted),
        };
        if let Err(why) = &outcome {
            log::info!("fetch of {} came to nothing: {}", job.name, described(why));
        }
        job.end(outcome);
    }

    /// Waits for the end of the process, and until nobody waits for the archive or reads it then;
    /// for ever where fills are brought to their end.
    async fn ends(&self, job: &Job) {
        let mut begun = self.drain.begun();
        // Who begins it is there as long as this is.
        let _ = begun.wait_for(|begun| *begun).await;
        while self.live.load().config.cache.finish_on_stop || !job.is_unread(LAST_LINGER) {
            tokio::time::sleep(LAST_LOOK).await;
        }
    }

    async fn fetch(
        &self,
        job: &Job,
        mut claim: Claim,
        mut sources: Vec<Arc<Source>>,
    ) -> Result<(), FillFailure> {
        let mut starts = 1;
        loop {
            let begun = self.begin(job, claim, sources).await?;
            job.reach(Stage::Running(Arc::clone(&begun.0.growing)));
            let (source, opened) = (Arc::clone(&begun.0.source), Instant::now());
            let why = match self.carry(job, begun.0, begun.1).await {
                Ok(()) => {
                    self.upstreams.delivered(&source, opened);
                    self.upstreams.doubts().in_time(&source);
                    return Ok(());
                }
                Err(why) => why,
            };
            // Before anybody comes back for it.
            job.reach(Stage::Opening);
            match why {
                Abandoned::SourceFailed | Abandoned::Unsound(_) | Abandoned::Length
                    if starts < MAX_STARTS => {}
                Abandoned::ClientLeft | Abandoned::NotBest => return Err(FillFailure::Unwanted),
                Abandoned::Disk | Abandoned::Slow => {
                    return Err(FillFailure::Refused(Bypass::Disk));
                }
                Abandoned::Unsound(_) => return Err(failed(SourceFailure::Unsound)),
                Abandoned::Late => {
                    self.upstreams.doubts().late(&source);
                    return Err(failed(SourceFailure::Slow));
                }
                _ => return Err(failed(SourceFailure::Broken)),
            }
            if !self.published.load().is_best(&job.name) {
                return Err(FillFailure::Unwanted);
            }
            starts += 1;
            sources = self.sources(job.name, job.client).map_err(FillFailure::Failed)?;
            keep_near(&mut sources, &job.came);
            let first = &sources.first().ok_or(failed(SourceFailure::Gone))?.target;
            let anew = self.store.claim(&job.name, first);
            claim = anew.ok_or(FillFailure::Refused(Bypass::Disk))?;
        }
    }

    /// Asks one source after the other for the archive, and makes room for it.
    async fn begin(
        &self,
        job: &Job,
        mut claim: Claim,
        sources: Vec<Arc<Source>>,
    ) -> Result<(Begun, Body), FillFailure> {
        let refused = |refusal| FillFailure::Refused(bypass_of(&refusal));
        let waits = !job.goes_to_the_end();
        let patience = if waits { PATIENCE_OF_CLIENTS } else { PATIENCE_OF_NOBODY };
        // Nobody is asked for what there will be no room for.
        if let Some(length) = sources.iter().filter_map(|source| source.listed.size).min() {
            let asked = could_hold(&self.store, job.name, claim, length, patience).await;
            claim = asked.map_err(refused)?;
        }
        let (mut walk, mut last) = (Walk::new(sources), None);
        let (source, slot, Opened { body, head, validator }) = loop {
            if walk.source().is_none() {
                let failure = walk.failure().cloned().unwrap_or(SourceFailure::Gone);
                if let Some(target) = last {
                    self.store.counts().barren(job.name, &target, failure.to_string());
                }
                return Err(failed(failure));
            }
            let busy = |busy| FillFailure::Failed(Failure::Busy(busy));
            job.reach(Stage::Waiting);
            let until = Instant::now() + SLOT_PATIENCE;
            let slot = self.upstreams.slot(walk.rest(), Claimant::everyone(), until);
            let (place, slot) = slot.await.map_err(busy)?;
            job.reach(Stage::Opening);
            walk.prefer(place);
            let Some(source) = walk.source().cloned() else { continue };
            claim.asks(&source.target);
            match open(self.caller(&job.came), &source, &slot).await {
                Ok(opened) => break (source, slot, opened),
                Err(failure) => {
                    self.upstreams.refused(&source, &Method::GET, &failure);
                    last = Some(source.target.clone());
                    walk.next(failure);
                }
            }
        };
        let announced = announced(&source, &head);
        let name = source.listed.name;
        let ranges = head.ranges == Ranges::Served;
        let begun = prepare(name, claim, announced, patience, move |reservation| {
            Fill::begin_shared(reservation, ranges)
        });
        let (fill, growing, ending) = begun.await.map_err(refused)?;
        Ok((Begun { source, slot, validator, fill, growing, ending }, body))
    }

    /// Carries a body into the cache, and goes on with the same copy where it breaks off.
    async fn carry(&self, job: &Job, begun: Begun, mut body: Body) -> Result<(), Abandoned> {
        let Begun { source, mut slot, validator, mut fill, growing, mut ending } = begun;
        let target = source.target.clone();
        let Cache { min_fill_rate, fill_grace, .. } = job.configured.config.cache;
        let mut haste = Haste::new(fill.length(), min_fill_rate, fill_grace);
        let mut barren = 0;
        let stopped = loop {
            let before = fill.written();
            match self.pump(job, &mut slot, &mut body, &mut fill, &growing, &mut haste).await {
                Flow::Complete => break None,
                Flow::Stopped(why) => break Some(why),
                Flow::Broke(failure) => {
                    let at = fill.written();
                    log::warn!("{} from target {target} broke off at {at}: {failure}", job.name);
                    let is_its_fault = body.is_targets_fault(&failure);
                    self.upstreams.count(&failure);
                    if is_its_fault {
                        self.upstreams.failed(&target, &failure, Instant::now());
                    }
                    if at - before >= PROGRESS {
                        barren = 0;
                    }
                    if failure == SourceFailure::Slow {
                        break Some(Abandoned::SourceFailed);
                    }
                    let rest =
                        self.go_on(job, &source, &slot, validator.as_ref(), &fill, &mut barren);
                    if let Some(rest) = rest.await {
                        body = rest;
                        continue;
                    }
                    if is_its_fault {
                        self.upstreams.doubt(&source, at);
                    }
                    break Some(Abandoned::SourceFailed);
                }
            }
        };
        // The target is done with; the disk need not be.
        drop((body, slot));
        let ended = match stopped {
            None => self.seal(&job.name, fill, &growing, &mut ending).await,
            Some(why) => {
                if why == Abandoned::Slow {
                    self.store.hide(&job.name);
                }
                fill.reason().give(why);
                drop(fill);
                in_time(ending.wait()).await
            }
        };
        if ended == Err(Abandoned::Slow) {
            // Its thread hangs. Nobody is to follow it, and nobody else may write there.
            self.store.hide(&job.name);
        }
        ended
    }

    /// Ends a fill that has all of its bytes.
    async fn seal(
        &self,
        name: &ArchiveName,
        fill: Fill,
        growing: &Growing,
        ending: &mut Ending,
    ) -> Result<(), Abandoned> {
        let (length, reason) = (fill.length(), fill.reason());
        if in_time(fill.finish()).await == Err(Abandoned::Slow) {
            // What else goes wrong is in its ending as well.
            reason.give(Abandoned::Slow);
        }
        match in_time(ending.wait()).await {
            Err(Abandoned::Slow) if growing.progress().frontier() == length => {}
            ended => return ended,
        }
        log::debug!("{name} is complete, and the disk takes its time");
        let synced = tokio::time::timeout(SYNC_PATIENCE, ending.wait()).await;
        synced.unwrap_or(Err(Abandoned::Slow))
    }

    /// Asks for the rest of a copy, a few times.
    async fn go_on(
        &self,
        job: &Job,
        source: &Source,
        slot: &Slot,
        validator: Option<&Validator>,
        fill: &Fill,
        barren: &mut usize,
    ) -> Option<Body> {
        let (validator, name) = (validator?, source.listed.name);
        let (from, total) = (fill.written(), fill.length());
        while let Some(rest) = RESTS.get(*barren) {
            *barren += 1;
            tokio::time::sleep(*rest).await;
            let again = reopen(self.caller(&job.came), source, slot, validator, from, total).await;
            match again {
                Reopened::Rest(body) => {
                    log::info!("{name} from target {} goes on at byte {from}", source.target);
                    return Some(body);
                }
                Reopened::Changed => {
                    log::warn!("{name} from target {} is another copy now", source.target);
                    return None;
                }
                Reopened::Failed(failure) => {
                    self.upstreams.count(&failure);
                    let failure = self.upstreams.described(source, &failure);
                    log::debug!("{name} from target {}: {failure}", source.target);
                }
            }
        }
        None
    }

    /// Carries what one connection brings.
    async fn pump(
        &self,
        job: &Job,
        slot: &mut Slot,
        body: &mut Body,
        fill: &mut Fill,
        growing: &Growing,
        haste: &mut Haste,
    ) -> Flow {
        let mut pace = job.configured.config.cache.prefetch_rate.map(Pacer::new);
        let mut flush_at = None;
        haste.reconnect();
        while fill.written() < fill.length() {
            let asked = Instant::now();
            let piece = match piece(body, fill, flush_at).await {
                Ok(piece) => piece,
                Err(flow) => return flow,
            };
            slot.piece(piece.len(), asked.elapsed());
            match haste.pass(piece.len() as u64, asked.elapsed()) {
                Judgement::Silent => return Flow::Broke(SourceFailure::Slow),
                Judgement::Late if self.holds_up_others(job, growing) => {
                    return Flow::Stopped(Abandoned::Late);
                }
                Judgement::Late | Judgement::Enough => {}
            }
            let (bytes, written) = (piece.len(), in_time(fill.write(piece)).await);
            if let Err(why) = written {
                return Flow::Stopped(why);
            }
            let now = Instant::now();
            flush_at = match flush_at {
                _ if fill.collected() == 0 => None,
                None => Some(now + COLLECTING),
                Some(at) if at <= now => match in_time(fill.flush()).await {
                    Ok(()) => None,
                    Err(why) => return Flow::Stopped(why),
                },
                Some(at) => Some(at),
            };
            let unread = growing.unread_for(now);
            if let Some(why) = self.unwanted(job, growing, unread) {
                return Flow::Stopped(why);
            }
            if let Some(pace) = &mut pace {
                // Who reads is not held up by what bounds the fetching ahead.
                match unread {
                    Some(_) => tokio::time::sleep(pace.pass(bytes, now)).await,
                    None => pace.reset(),
                }
            }
        }
        Flow::Complete
    }

    /// Whether an archive that is no longer the best is of use once it is complete: to those who
    /// know its name, or because short names lead to what is complete.
    ///
    /// A full archive would hold up the one that overtook it for too long.
    fn keeps_what_is_overtaken(job: &Job) -> bool {
        let Cache { keep_previous, publish, .. } = job.configured.config.cache;
        (keep_previous || publish == Publish::Promoted) && !job.name.is_full()
    }

    /// Whether others are not fetched and offered because of an archive: newer ones than what is
    /// offered, that other targets have.
    fn holds_up_others(&self, job: &Job, growing: &Growing) -> bool {
        let (view, target) = (self.published.load(), &growing.record().target);
        let is_missing = |name: &ArchiveName| {
            *name != job.name && !matches!(self.store.standing(name), Standing::Whole(_))
        };
        job.configured.config.cache.publish == Publish::Promoted
            && view.has_rivals(target, is_missing)
    }

    /// Why a fill that has been unread for so long does not go on, where it does not.
    fn unwanted(
        &self,
        job: &Job,
        growing: &Growing,
        unread: Option<Duration>,
    ) -> Option<Abandoned> {
        if unread.is_none_or(|unread| unread < LINGER) {
            return None;
        }
        // Where nobody is led to it any more, and nobody will get it.
        let superseded = || {
            let group = &growing.record().target.group;
            let worth = self.published.load().worth(&job.name, group);
            matches!(worth, Worth::Superseded | Worth::Baseless)
        };
        if !job.configured.config.cache.finish_abandoned && !job.goes_to_the_end() {
            Some(Abandoned::ClientLeft)
        } else if !Self::keeps_what_is_overtaken(job) && superseded() {
            Some(Abandoned::NotBest)
        } else {
            None
        }
    }
}

/// Waits for the disk, but not for ever.
async fn in_time<T>(step: impl Future<Output = Result<T, Abandoned>>) -> Result<T, Abandoned> {
    tokio::time::timeout(DISK_PATIENCE, step).await.unwrap_or(Err(Abandoned::Slow))
}

/// The next bytes. What was collected goes to the disk meanwhile, where they let wait for them.
async fn piece<'a>(
    body: &'a mut Body,
    fill: &mut Fill,
    flush_at: Option<Instant>,
) -> Result<&'a [u8], Flow> {
    let read = body.read();
    tokio::pin!(read);
    let read = match flush_at {
        None => read.await,
        Some(at) => tokio::select! {
            biased;
            read = &mut read => read,
            () = tokio::time::sleep_until(at.into()) => {
                in_time(fill.flush()).await.map_err(Flow::Stopped)?;
                read.await
            }
        },
    };
    match read {
        Ok(Some(piece)) => Ok(piece),
        Ok(None) => Err(Flow::Broke(SourceFailure::Broken)),
        Err(failure) => Err(Flow::Broke(failure)),
    }
}

fn failed(failure: SourceFailure) -> FillFailure {
    FillFailure::Failed(Failure::Sources(failure))
}

fn described(why: &FillFailure) -> String {
    match why {
        FillFailure::Refused(why) => format!("the cache does not take it, {}", why.detail()),
        FillFailure::Failed(Failure::Sources(failure)) => format!("{failure}"),
        FillFailure::Failed(failure) => failure.to_string(),
        FillFailure::Unwanted => "nobody wants it any more".to_owned(),
    }
}
