//! Targets as those who download from them see them: how to connect, and how each of them did.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::header::AUTHORIZATION;
use http::{Method, StatusCode};
use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;

use super::connection::request;
use crate::access::{Access, Accesses, Fault};
use crate::config::Limits;
use crate::index::{Source, TargetId};
use crate::route::{RangeRequest, SourceFailure};
use crate::target::{Backoff, Reporter};

/// What every transfer shares.
pub struct Upstreams {
    limits: Limits,
    accesses: Arc<Accesses>,
    backoff: Backoff,
    reporter: Reporter,
    /// Number of tries so far; none shares a connection with another.
    tries: AtomicU64,
}

impl Upstreams {
    /// Targets under these bounds; what they no longer have is reported.
    pub fn new(limits: Limits, accesses: Arc<Accesses>, reporter: Reporter) -> Self {
        let (backoff, tries) = (Backoff::default(), AtomicU64::new(0));
        Self { limits, accesses, backoff, reporter, tries }
    }

    /// The bounds on time and number.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether the target is left alone for a while.
    pub fn is_resting(&self, target: &TargetId, now: Instant) -> bool {
        self.backoff.is_resting(target, now)
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
        self.backoff.failed(target, now);
    }

    /// Notes that a target delivered.
    pub fn succeeded(&self, target: &TargetId) {
        self.backoff.succeeded(target);
    }
}
