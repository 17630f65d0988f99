//! What the probes of a group have in common.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::discovery::DiscoveryCounts;
use super::head_probes::HeadProbes;
use super::nodes::Nodes;
use super::resolution::Lookups;
use super::states::TargetStates;
use super::turns::Turns;
use crate::config::Config;
use crate::index::Event;

/// The context of a probe: what all probes of a group have in common.
#[derive(Clone)]
pub(super) struct ProbeContext {
    /// As it is configured now.
    pub(super) settings: watch::Receiver<ProbeSettings>,
    /// Where those appear that are nodes.
    pub(super) nodes: Arc<Nodes>,
    /// Where all of them appear, for what they did not list yet.
    pub(super) head_probes: Arc<HeadProbes>,
    pub(super) counts: Arc<DiscoveryCounts>,
    /// Where it is seen how each of them does.
    pub(super) states: Arc<TargetStates>,
    /// Where they say what they found.
    pub(super) events: mpsc::Sender<Event>,
    /// How names are resolved.
    pub(super) lookups: Lookups,
}

/// The settings of probes.
#[derive(Clone)]
pub(super) struct ProbeSettings {
    /// Time between two probes of one target.
    pub(super) interval: Duration,
    /// Time for one probe.
    pub(super) timeout: Duration,
    /// Failed probes in a row after which a target's archives are no longer offered.
    pub(super) failures: u32,
    /// Bounds how many there are at once, and says whose turn it is.
    pub(super) turns: Arc<Turns>,
}

impl ProbeContext {
    /// As it is configured now.
    pub(super) fn settings(&self) -> ProbeSettings {
        self.settings.borrow().clone()
    }
}

impl PartialEq for ProbeSettings {
    fn eq(&self, other: &Self) -> bool {
        let Self { interval, timeout, failures, turns } = self;
        (interval, timeout, failures) == (&other.interval, &other.timeout, &other.failures)
            && Arc::ptr_eq(turns, &other.turns)
    }
}

impl ProbeSettings {
    /// The settings of a configuration, with the turns of before where there are as many.
    pub(super) fn of(config: &Config, before: Option<&Self>) -> Self {
        let all = config.limits.probe_concurrency;
        let turns = before.map(|before| &before.turns).filter(|turns| turns.all() == all);
        Self {
            interval: config.scrape_interval,
            timeout: config.limits.probe_timeout,
            failures: config.limits.probe_failures,
            turns: turns.map_or_else(|| Arc::new(Turns::new(all)), Arc::clone),
        }
    }
}
