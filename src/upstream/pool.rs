//! Targets as those who download from them see them: how to connect, and how each of them did.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::Guard;
use http::header::AUTHORIZATION;
use http::{Method, StatusCode};
use pingora::http::RequestHeader;
use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};

use super::claimant::Claimant;
use super::doubts::Doubts;
use super::health::Health;
use super::request::request;
use super::slot_pool::{Delivering, Slot, SlotPool};
use super::slots::Wanted;
use crate::access::{Access, Accesses, Fault};
use crate::config::{Balance, Limits};
use crate::configured::{Configured, Live};
use crate::hops::{CDN_LOOP, CdnLoop};
use crate::index::{Source, TargetId};
use crate::metrics::RequestCounts;
use crate::published::Reporter;
use crate::route::{Busy, ChoiceKey, RangeRequest, SourceFailure, TargetStats, Targets};
use crate::snapshot::ArchiveName;

/// Counters for taking turns. Archives share one by chance, which only starts a turn elsewhere.
const TURNS: usize = 64;
/// Most targets of which it is remembered how they answer ranges.
const MAX_RANGED: usize = 10_000;
/// How long the word of a target that it does not have an archive stands against its listing: by
/// then the index knows of it, or the target lists it all the same.
const GONE_MEMORY: Duration = Duration::from_secs(1);
/// Most such words that are remembered.
const MAX_GONE: usize = 64;

/// What every transfer shares.
pub struct UpstreamPool {
    live: Arc<Live>,
    accesses: Arc<Accesses>,
    pool: Arc<SlotPool>,
    turns: [AtomicUsize; TURNS],
    /// Targets that answered the last range with a part.
    ranged: Mutex<BTreeSet<TargetId>>,
    /// What targets said of late not to have.
    gone: Mutex<Vec<(TargetId, ArchiveName, Instant)>>,
    hasher: std::hash::RandomState,
    reporter: Reporter,
    /// Told of what did not deliver.
    doubts: Doubts,
    /// Where tries are counted that came to nothing.
    counts: Arc<RequestCounts>,
    /// Number of tries so far; none shares a connection with another.
    tries: AtomicU64,
}

/// What is known of the targets at one time.
pub struct Known<'a> {
    upstreams: &'a UpstreamPool,
    configured: Guard<Arc<Configured>>,
    now: Instant,
}

impl UpstreamPool {
    /// Targets under the bounds that are configured; what they no longer have is reported, and what
    /// they do not deliver is doubted.
    pub fn new(
        live: &Arc<Live>,
        accesses: Arc<Accesses>,
        reporter: Reporter,
        doubts: Doubts,
        counts: &Arc<RequestCounts>,
    ) -> Self {
        Self {
            pool: SlotPool::new(&live.load().config.limits),
            live: Arc::clone(live),
            turns: [const { AtomicUsize::new(0) }; TURNS],
            ranged: Mutex::default(),
            gone: Mutex::default(),
            hasher: std::hash::RandomState::new(),
            tries: AtomicU64::new(0),
            accesses,
            reporter,
            doubts,
            counts: Arc::clone(counts),
        }
    }

    /// Goes on under another configuration, which is live by now.
    pub fn apply(&self) {
        let Configured { config, .. } = &**self.live.load();
        self.pool.apply(&config.limits);
        let groups = config.group_names();
        let stays = |target: &TargetId| groups.contains(&target.group);
        self.pool.keep(stays);
        self.ranged.lock().unwrap_or_else(PoisonError::into_inner).retain(stays);
    }

    /// Silence of a target that counts as its failure.
    pub fn read_timeout(&self) -> Duration {
        self.live.load().config.limits.read_timeout
    }

    /// What is known of the targets.
    pub fn at(&self, now: Instant) -> Known<'_> {
        Known { upstreams: self, configured: self.live.load(), now }
    }

    /// The right to a transfer from one of these sources, which are in the order in which they are
    /// tried: from the first one whose target may carry one more, and which one that is. Waits
    /// where there is none, and where all clients are to meet one copy for that one.
    pub async fn slot(
        &self,
        sources: &[Arc<Source>],
        claimant: Claimant,
        until: Instant,
    ) -> Result<(usize, Slot), Busy> {
        let (first, count) = self.that_would_do(sources);
        let would_do = sources.iter().skip(first).take(count);
        let targets = would_do.map(|source| source.target.clone()).collect();
        let (at, slot) = self.pool.slot(Wanted { targets, claimant, until }).await?;
        let at = first + at;
        if let Some(source) = sources.get(at) {
            self.take_turn(&source.listed.name);
        }
        Ok((at, slot))
    }

    /// Where those of the sources begin that would do, and how many those are.
    fn that_would_do(&self, sources: &[Arc<Source>]) -> (usize, usize) {
        let known = self.at(Instant::now());
        let well = |source: &Arc<Source>| !known.stats(&source.target).resting;
        let is_pinned =
            |source: &Arc<Source>| known.balance(&source.target.group) == Balance::Pinned;
        if sources.first().is_some_and(is_pinned) {
            (sources.iter().position(well).unwrap_or(0), 1)
        } else {
            (0, sources.len())
        }
    }

    /// Notes that one more turn is taken with an archive.
    pub fn take_turn(&self, name: &ArchiveName) {
        self.turn_of(name).fetch_add(1, Ordering::Relaxed);
    }

    fn turn_of(&self, name: &ArchiveName) -> &AtomicUsize {
        let place = self.hasher.hash_one(name) % TURNS as u64;
        let [first, ..] = &self.turns;
        usize::try_from(place).ok().and_then(|place| self.turns.get(place)).unwrap_or(first)
    }

    fn access(&self, source: &Source) -> Option<Arc<Access>> {
        self.accesses.at(&source.listed.location.as_ref()?.access)
    }

    /// The head of a request for a source's archive that is made for one which `came` through
    /// others; nothing where it is nowhere.
    pub fn request(
        &self,
        source: &Source,
        method: Method,
        range: &RangeRequest,
        came: &CdnLoop,
    ) -> pingora::Result<Option<RequestHeader>> {
        let Some((location, access)) = source.listed.location.as_ref().zip(self.access(source))
        else {
            return Ok(None);
        };
        let mut head = request(location, method, range)?;
        head.insert_header(CDN_LOOP, access.came_through(came))?;
        if let Some(value) = access.authorization(&source.target.authority, &location.authority) {
            head.insert_header(AUTHORIZATION, value)?;
        }
        Ok(Some(head))
    }

    /// Where and how to connect for one transfer; nothing where the archive is nowhere.
    pub fn peer(&self, source: &Source) -> Option<HttpPeer> {
        let location = source.listed.location.as_ref()?;
        let mut peer = self.access(source)?.peer(location.address, &source.target.authority);
        // Its own for each try, so that no connection is used twice.
        peer.group_key = self.tries.fetch_add(1, Ordering::Relaxed);
        let Limits { connect_timeout, read_timeout, .. } = self.live.load().config.limits;
        peer.options.connection_timeout = Some(connect_timeout);
        peer.options.total_connection_timeout = Some(connect_timeout);
        peer.options.read_timeout = Some(read_timeout);
        peer.options.write_timeout = Some(read_timeout);
        peer.options.idle_timeout = Some(Duration::ZERO);
        // The head is made anew, so nothing of the client's is to be taken out of it; looking for
        // that would break off a request whose `connection` names `host` or `x-forwarded-for`.
        peer.options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
        Some(peer)
    }

    /// A failure for the log. Where it is one of access, it is counted, and the words say what to
    /// do about it.
    pub fn described(&self, source: &Source, failure: &SourceFailure) -> String {
        let Some(access) = self.access(source) else { return failure.to_string() };
        match failure {
            SourceFailure::Access(fault) => {
                access.faults.count(*fault);
                failure.to_string()
            }
            SourceFailure::Status(status)
                if StatusCode::from_u16(*status).is_ok_and(|status| access.denies(status)) =>
            {
                access.faults.count(Fault::Credentials);
                format!("{}: {failure}", Fault::Credentials)
            }
            _ => failure.to_string(),
        }
    }

    /// Counts a try that brought no archive, or not all of it.
    pub fn count(&self, failure: &SourceFailure) {
        self.counts.source_failed(failure.cause());
    }

    /// Notes that a source failed before any of its bytes was used.
    pub fn refused(&self, source: &Source, method: &Method, failure: &SourceFailure) {
        self.count(failure);
        let name = source.listed.name;
        // Outside of the macro, which looks at nothing where nothing is logged.
        let described = self.described(source, failure);
        log::warn!("{name} from target {}: {described}", source.target);
        // Many servers do not answer a HEAD, or not well, and serve a GET: it proves nothing but
        // that there is a connection or none, or that a local file cannot be opened.
        let says_nothing = *method == Method::HEAD
            && !failure.is_of_connecting()
            && *failure != SourceFailure::Disk;
        if *failure == SourceFailure::Gone {
            self.gone(source);
        } else if !says_nothing && !matches!(failure, SourceFailure::NoSocket | SourceFailure::Loop)
        {
            self.broke(source, 0, failure, Instant::now());
        }
    }

    /// Notes that a source no longer has its archive.
    pub fn gone(&self, source: &Source) {
        let name = source.listed.name;
        self.note_gone(&source.target, name, Instant::now());
        self.reporter.gone(&source.target, name);
    }

    /// Notes that a transfer ended by the target's fault, after so many bytes from the archive's
    /// start.
    pub fn broke(&self, source: &Source, reached: u64, failure: &SourceFailure, now: Instant) {
        self.failed(&source.target, failure, now);
        self.doubt(source, reached);
    }

    /// Has the edge try by itself what did not come after so many bytes.
    pub fn doubt(&self, source: &Source, reached: u64) {
        self.doubts.suspect(source, reached);
    }

    /// Whether a source failed when this edge tried it, and has not delivered since.
    pub fn has_failed(&self, source: &Source) -> bool {
        self.doubts.has_failed(source)
    }

    /// What is known of sources that failed.
    pub fn doubts(&self) -> &Doubts {
        &self.doubts
    }

    /// Bytes that came from all targets.
    pub fn received(&self) -> u64 {
        self.pool.received()
    }

    /// How those of these targets do of which anything was asked.
    pub fn delivering<'a>(
        &self,
        targets: impl Iterator<Item = &'a TargetId>,
        now: Instant,
    ) -> BTreeMap<TargetId, Delivering> {
        self.pool.delivering(targets, now)
    }

    /// Whether a target carries transfers that have brought something.
    pub fn delivers(&self, target: &TargetId) -> bool {
        self.pool.delivers(target)
    }

    /// Notes that a transfer failed by the target's fault.
    pub fn failed(&self, target: &TargetId, failure: &SourceFailure, now: Instant) {
        self.pool.failed(target, failure.is_weakness(), now);
    }

    fn note_gone(&self, target: &TargetId, name: ArchiveName, now: Instant) {
        // No change of it can panic half-way.
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        gone.retain(|(.., since)| now < *since + GONE_MEMORY);
        if gone.len() >= MAX_GONE {
            gone.remove(0);
        }
        gone.push((target.clone(), name, now));
    }

    /// Whether a target said a moment ago that it does not have its archive.
    pub fn is_gone(&self, source: &Source, now: Instant) -> bool {
        let gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        let (target, wanted) = (&source.target, source.listed.name);
        gone.iter().any(|(who, name, since)| {
            who == target && *name == wanted && now < *since + GONE_MEMORY
        })
    }

    /// Notes how a target answered a range.
    pub fn answered_range(&self, target: &TargetId, with_part: bool) {
        // No change of the set can panic half-way.
        let mut ranged = self.ranged.lock().unwrap_or_else(PoisonError::into_inner);
        if !with_part {
            ranged.remove(target);
        } else if ranged.len() < MAX_RANGED && !ranged.contains(target) {
            ranged.insert(target.clone());
        }
    }

    /// Whether a target answered the last range with a part. Some do that never say so.
    pub fn serves_ranges(&self, target: &TargetId) -> bool {
        self.ranged.lock().unwrap_or_else(PoisonError::into_inner).contains(target)
    }

    /// Notes that a source delivered all of its archive to a request that began at this time.
    pub fn delivered(&self, source: &Source, began: Instant) {
        self.doubts.delivered(source, began);
        self.succeeded(&source.target);
    }

    /// Notes that a target delivered.
    pub fn succeeded(&self, target: &TargetId) {
        self.pool.note(target, Health::succeeded);
    }
}

impl Targets for Known<'_> {
    fn stats(&self, target: &TargetId) -> TargetStats {
        self.upstreams.pool.stats(target, self.now)
    }

    fn balance(&self, group: &str) -> Balance {
        self.configured.balance(group)
    }

    fn turn(&self, name: &ArchiveName) -> usize {
        self.upstreams.turn_of(name).load(Ordering::Relaxed)
    }

    fn key(&self) -> ChoiceKey {
        self.configured.keys.choice
    }
}
