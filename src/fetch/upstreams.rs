//! Targets as those who download from them see them: how to connect, and how each of them did.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use pingora::upstreams::peer::HttpPeer;

use crate::config::Limits;
use crate::index::{Location, Source, TargetId};
use crate::route::SourceFailure;
use crate::target::{Backoff, Reporter};

/// What every transfer shares.
#[derive(Debug)]
pub struct Upstreams {
    limits: Limits,
    backoff: Backoff,
    reporter: Reporter,
    /// Number of tries so far; none shares a connection with another.
    tries: AtomicU64,
}

impl Upstreams {
    /// Targets under these bounds; what they no longer have is reported.
    pub fn new(limits: Limits, reporter: Reporter) -> Self {
        Self { limits, backoff: Backoff::default(), reporter, tries: AtomicU64::new(0) }
    }

    /// The bounds on time and number.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether the target is left alone for a while.
    pub fn is_resting(&self, target: &TargetId, now: Instant) -> bool {
        self.backoff.is_resting(target, now)
    }

    /// Where and how to connect for one transfer.
    pub fn peer(&self, location: &Location) -> HttpPeer {
        let mut peer = HttpPeer::new(location.address, false, String::new());
        // Its own for each try, so that no connection is used twice.
        peer.group_key = self.tries.fetch_add(1, Ordering::Relaxed);
        peer.options.connection_timeout = Some(self.limits.connect_timeout);
        peer.options.total_connection_timeout = Some(self.limits.connect_timeout);
        peer.options.read_timeout = Some(self.limits.read_timeout);
        peer.options.write_timeout = Some(self.limits.read_timeout);
        peer.options.idle_timeout = Some(Duration::ZERO);
        peer
    }

    /// Notes that a source failed before any of its bytes was used.
    pub fn refused(&self, source: &Source, method: &Method, failure: &SourceFailure) {
        let name = source.listed.name;
        log::warn!("{name} from target {}: {failure}", source.target);
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
        self.backoff.failed(target, now);
    }

    /// Notes that a target delivered.
    pub fn succeeded(&self, target: &TargetId) {
        self.backoff.succeeded(target);
    }
}
