//! Targets as those who download from them see them: how to connect, and how each of them did.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::header::AUTHORIZATION;
use http::{Method, StatusCode};
use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;

use super::connection::request;
use super::fleet::{Fleet, Slot};
use crate::access::{Access, Accesses, Fault};
use crate::config::{Balance, Config, Limits};
use crate::index::{Source, TargetId};
use crate::route::{Busy, Merit, RangeRequest, SourceFailure, Targets};
use crate::snapshot::ArchiveName;
use crate::target::Reporter;

/// Counters for taking turns. Archives share one by chance, which only starts a turn elsewhere.
const TURNS: usize = 64;

/// What every transfer shares.
pub struct Upstreams {
    limits: Limits,
    accesses: Arc<Accesses>,
    balances: HashMap<Arc<str>, Balance>,
    fleet: Arc<Fleet>,
    turns: [AtomicUsize; TURNS],
    hasher: std::hash::RandomState,
    reporter: Reporter,
    /// Number of tries so far; none shares a connection with another.
    tries: AtomicU64,
}

/// What is known of the targets at one time.
pub struct Known<'a> {
    upstreams: &'a Upstreams,
    now: Instant,
}

impl Upstreams {
    /// Targets under the bounds of this configuration; what they no longer have is reported.
    pub fn new(config: &Config, accesses: Arc<Accesses>, reporter: Reporter) -> Self {
        let limits = config.limits.clone();
        let balance = |group: &crate::config::Group| (Arc::clone(&group.name), group.balance);
        Self {
            balances: config.groups.iter().map(balance).collect(),
            fleet: Fleet::new(limits.per_target, limits.queue_wait),
            turns: [const { AtomicUsize::new(0) }; TURNS],
            hasher: std::hash::RandomState::new(),
            tries: AtomicU64::new(0),
            limits,
            accesses,
            reporter,
        }
    }

    /// The bounds on time and number.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What is known of the targets.
    pub fn at(&self, now: Instant) -> Known<'_> {
        Known { upstreams: self, now }
    }

    /// The right to a transfer from one of these sources, which are in the order in which they are
    /// tried: from the first one whose target may carry one more, and which one that is. Waits
    /// where there is none.
    ///
    /// Where there are others, targets that rest are not turned to because these are busy; and
    /// where all clients are to meet one copy, no other is.
    pub async fn slot(&self, sources: &[Arc<Source>]) -> Result<(usize, Slot), Busy> {
        let now = Instant::now();
        let rests = |source: &Source| self.fleet.merit(&source.target, now).resting;
        let well = sources.iter().position(|source| !rests(source));
        let first = well.unwrap_or(0);
        let is_pinned = sources.get(first).is_some_and(|source| {
            self.balances.get(&source.target.group) == Some(&Balance::Pinned)
        });
        let would_do = |(at, source): &(usize, &Arc<Source>)| match well {
            _ if is_pinned => *at == first,
            Some(_) => !rests(source),
            None => true,
        };
        let wanted = sources.iter().enumerate().filter(would_do);
        let (places, wanted): (Vec<_>, Vec<_>) =
            wanted.map(|(at, source)| (at, source.target.clone())).unzip();
        let (at, slot) = self.fleet.slot(wanted).await?;
        Ok((*places.get(at).ok_or(Busy::Targets)?, slot))
    }

    fn access(&self, source: &Source) -> Option<&Arc<Access>> {
        self.accesses.of(&source.target.group)
    }

    /// The head of a request for a source's archive; nothing where it is nowhere.
    pub fn request(
        &self,
        source: &Source,
        method: Method,
        range: &RangeRequest,
    ) -> pingora::Result<Option<RequestHeader>> {
        let Some((location, access)) = source.listed.location.as_ref().zip(self.access(source))
        else {
            return Ok(None);
        };
        let mut head = request(location, method, range)?;
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
        peer.options.connection_timeout = Some(self.limits.connect_timeout);
        peer.options.total_connection_timeout = Some(self.limits.connect_timeout);
        peer.options.read_timeout = Some(self.limits.read_timeout);
        peer.options.write_timeout = Some(self.limits.read_timeout);
        peer.options.idle_timeout = Some(Duration::ZERO);
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

    /// Notes that a source failed before any of its bytes was used.
    pub fn refused(&self, source: &Source, method: &Method, failure: &SourceFailure) {
        let name = source.listed.name;
        // Outside of the macro, which looks at nothing where nothing is logged.
        let described = self.described(source, failure);
        log::warn!("{name} from target {}: {described}", source.target);
        // Some servers do not answer a HEAD and serve a GET well.
        let head_only = *method == Method::HEAD
            && matches!(
                failure,
                SourceFailure::Broken | SourceFailure::Status(_) | SourceFailure::Timeout
            );
        if *failure == SourceFailure::Gone {
            self.reporter.gone(&source.target, name);
        } else if !head_only && *failure != SourceFailure::NoSocket {
            self.failed(&source.target, Instant::now());
        }
    }

    /// Notes that a transfer failed by the target's fault.
    pub fn failed(&self, target: &TargetId, now: Instant) {
        self.fleet.failed(target, now);
    }

    /// Notes that a target delivered.
    pub fn succeeded(&self, target: &TargetId) {
        self.fleet.succeeded(target);
    }
}

impl Targets for Known<'_> {
    fn merit(&self, target: &TargetId) -> Merit {
        self.upstreams.fleet.merit(target, self.now)
    }

    fn balance(&self, group: &str) -> Balance {
        self.upstreams.balances.get(group).copied().unwrap_or_default()
    }

    fn turn(&self, name: &ArchiveName) -> usize {
        let Upstreams { turns, hasher, .. } = self.upstreams;
        let place = hasher.hash_one(name) % TURNS as u64;
        let turn = usize::try_from(place).ok().and_then(|place| turns.get(place));
        turn.map_or(0, |turn| turn.fetch_add(1, Ordering::Relaxed))
    }
}
