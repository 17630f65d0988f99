//! What a request knows of itself. It follows the phases: a transfer exists once it was planned,
//! and its head once a source's answer was accepted.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::Method;

use super::copies::Given;
use crate::index::Source;
use crate::route::{ArchiveHead, Asked, Failure, IfRange, RangeRequest, SourceFailure, Transfer};
use crate::snapshot::ArchiveName;

/// State of one request.
pub struct Context {
    /// When its head had been read.
    pub(super) started: Instant,
    /// What is done with it.
    pub(super) phase: Phase,
}

/// What is done with a request.
pub(super) enum Phase {
    /// Not decided, or answered from memory.
    Local,
    /// An archive is carried.
    Relay(Box<Relay>),
}

/// The carrying of one archive.
pub(super) struct Relay {
    pub(super) name: ArchiveName,
    pub(super) client: IpAddr,
    asked: Asked,
    sources: Vec<Arc<Source>>,
    at: usize,
    failure: SourceFailure,
    /// What the client is told although sources are left.
    refusal: Option<Failure>,
    /// The copy that the client has the start of; no other one will do.
    bound_to: Option<Arc<Given>>,
    delivered: Option<ArchiveHead>,
}

impl Relay {
    pub(super) fn new(
        transfer: Transfer,
        client: IpAddr,
        asked: Asked,
        bound_to: Option<Arc<Given>>,
    ) -> Self {
        let Transfer { name, mut sources } = transfer;
        if let Some(given) = &bound_to {
            sources.retain(|source| source.target == given.target);
        }
        Self {
            name,
            client,
            asked,
            sources,
            at: 0,
            failure: SourceFailure::Gone,
            refusal: None,
            bound_to,
            delivered: None,
        }
    }

    /// The source that is tried now.
    pub(super) fn source(&self) -> Option<&Arc<Source>> {
        self.sources.get(self.at)
    }

    /// What is asked of it.
    pub(super) fn asked(&self) -> &Asked {
        &self.asked
    }

    /// From now on all of the archive is asked for.
    pub(super) fn ask_whole(&mut self) {
        self.asked.range = RangeRequest::Whole;
        self.asked.if_range = None;
        if self.bound_to.is_some() {
            // The client would append it.
            self.refusal = Some(Failure::OtherCopy);
        }
    }

    /// Goes on to the next source; true where there is one.
    pub(super) fn next(&mut self, failure: SourceFailure) -> bool {
        self.failure = self.failure.clone().or(failure);
        self.at += 1;
        self.at < self.sources.len()
    }

    pub(super) fn refuse(&mut self, failure: Failure) {
        self.refusal = Some(failure);
    }

    pub(super) const fn is_refused(&self) -> bool {
        self.refusal.is_some()
    }

    /// Accepts the answer of the current source, unless it is of another copy than the one that
    /// the client has the start of.
    pub(super) fn accept(&mut self, head: ArchiveHead) -> Result<&ArchiveHead, Failure> {
        match &self.bound_to {
            Some(given) if given.copy != head.copy => {
                self.refusal = Some(Failure::OtherCopy);
                Err(Failure::OtherCopy)
            }
            _ => Ok(self.delivered.insert(head)),
        }
    }

    /// The copy that is on its way to the client.
    pub(super) fn given(&self) -> Option<Arc<Given>> {
        let head = self.delivered.as_ref()?;
        let target = self.source()?.target.clone();
        (self.asked.method == Method::GET).then(|| Arc::new(Given { target, copy: head.copy }))
    }

    /// Why the client got nothing.
    pub(super) fn outcome(&self) -> Failure {
        self.refusal.clone().unwrap_or_else(|| {
            if self.bound_to.is_some() {
                return Failure::OtherCopy;
            }
            Failure::Sources(self.failure.clone())
        })
    }
}

/// What a request's headers ask of an archive's bytes. A range on a HEAD means nothing (RFC 9110,
/// section 14.2).
pub(super) fn asked(method: &Method, headers: &http::HeaderMap) -> Asked {
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    let range = match text(http::header::RANGE) {
        Some(value) if *method == Method::GET => RangeRequest::parse(value),
        _ => RangeRequest::Whole,
    };
    let if_range = match range {
        RangeRequest::Whole => None,
        _ => text(http::header::IF_RANGE).map(IfRange::parse),
    };
    Asked { method: method.clone(), range, if_range }
}

/// True for a range whose answer will be put behind bytes that the client has, without a word
/// about which copy they are of.
pub(super) fn continues_blindly(asked: &Asked) -> bool {
    asked.if_range.is_none()
        && match asked.range {
            RangeRequest::Whole => false,
            RangeRequest::Single(spec) => spec.continues(),
            RangeRequest::Multiple => true,
        }
}
