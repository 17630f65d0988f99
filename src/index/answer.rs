//! What one target said last.

use std::collections::BTreeMap;
use std::time::Instant;

use super::listing::{Listed, TargetId};
use super::policy::Policy;
use super::voice::Voice;
use crate::clock::Now;
use crate::snapshot::ArchiveName;

/// An archive on a target, and since when it is known there.
#[derive(Clone, Debug)]
pub(super) struct Holding {
    pub(super) listed: Listed,
    pub(super) since: Instant,
    /// When the target said so last.
    pub(super) seen: Instant,
}

/// The last answer of one target.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) at: Now,
    pub(super) failures: u32,
    pub(super) holdings: BTreeMap<ArchiveName, Holding>,
    /// Whose word it is.
    pub(super) voice: Voice,
    /// When it answered for the first time; the same for all of a group that did before the last of
    /// them had answered or failed, since it is chance who comes first.
    pub(super) known: Instant,
    /// Archives that are gone since then, for probes that are still under way.
    pub(super) gone: BTreeMap<ArchiveName, Instant>,
}

impl Answer {
    pub(super) fn new(target: &TargetId, at: Now, known: Instant) -> Self {
        let (holdings, gone) = (BTreeMap::new(), BTreeMap::new());
        Self { at, failures: 0, holdings, voice: Voice::of(target, None), known, gone }
    }

    pub(super) fn counts(&self, policy: Policy) -> bool {
        self.failures < policy.probe_failures
    }
}
