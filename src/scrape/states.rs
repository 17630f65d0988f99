//! How each target does, as its probes see it: for those who look, and nothing is decided by it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::index::{Listed, TargetId};
use crate::snapshot::Slot;

/// What a target has turned out to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nature {
    /// Not known yet.
    #[default]
    Unknown,
    /// A node.
    Node,
    /// A sidecar, a tracker or another edge.
    Sidecar,
    /// A local directory.
    Ledger,
}

/// How one target does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProbeState {
    /// What it is.
    pub nature: Nature,
    /// When it answered last.
    pub answered: Option<Instant>,
    /// How long its last probe took.
    pub took: Option<Duration>,
    /// Probes that failed since the last one that did not.
    pub failures: u32,
    /// Archives that it listed last.
    pub archives: usize,
    /// The newest slot among those.
    pub slot: Option<Slot>,
    /// Why it offers nothing, in words for people.
    pub reason: Option<String>,
    /// Probes since it was found.
    pub probes: u64,
    /// Probes that failed, by a word for why.
    pub failed: BTreeMap<&'static str, u64>,
}

/// What one probe came to.
#[derive(Clone, Debug)]
pub(super) enum Probed {
    /// The target listed so many archives, of which the newest is of this slot; and why that is of
    /// no use, where there are none.
    Listed(usize, Option<Slot>, Option<String>),
    /// The target did not answer: a word for those who count, and words for people.
    Failed(&'static str, String),
}

impl Probed {
    /// What a target listed; `why` says why it is nothing, where it is.
    pub(super) fn listed(archives: &[Listed], why: impl FnOnce() -> String) -> Self {
        let slot = archives.iter().map(|listed| listed.name.slot()).max();
        Self::Listed(archives.len(), slot, archives.is_empty().then(why))
    }
}

impl ProbeState {
    fn note(&mut self, nature: Option<Nature>, probed: Probed, took: Duration, now: Instant) {
        self.nature = nature.unwrap_or(self.nature);
        self.took = Some(took);
        self.probes = self.probes.saturating_add(1);
        match probed {
            Probed::Listed(archives, slot, reason) => {
                (self.answered, self.failures) = (Some(now), 0);
                (self.archives, self.slot, self.reason) = (archives, slot, reason);
            }
            Probed::Failed(cause, reason) => {
                self.failures = self.failures.saturating_add(1);
                self.reason = Some(reason);
                *self.failed.entry(cause).or_default() += 1;
            }
        }
    }
}

/// The targets of all groups. The lock is held for a look or a change of one entry.
#[derive(Debug, Default)]
pub struct TargetStates(Mutex<BTreeMap<TargetId, ProbeState>>);

impl TargetStates {
    /// Each target that is probed, and how it does.
    pub fn all(&self) -> BTreeMap<TargetId, ProbeState> {
        self.lock().clone()
    }

    /// The place of one target.
    pub(super) fn place(self: &Arc<Self>, target: TargetId) -> StatePlace {
        self.lock().insert(target.clone(), ProbeState::default());
        StatePlace { states: Arc::clone(self), target }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TargetId, ProbeState>> {
        // No change of it can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one target, which is given up when its owner ends, by whatever.
pub(super) struct StatePlace {
    states: Arc<TargetStates>,
    target: TargetId,
}

impl StatePlace {
    /// Notes what a probe came to.
    pub(super) fn note(&self, nature: Option<Nature>, probed: Probed, took: Duration) {
        if let Some(state) = self.states.lock().get_mut(&self.target) {
            state.note(nature, probed, took, Instant::now());
        }
    }
}

impl Drop for StatePlace {
    fn drop(&mut self) {
        self.states.lock().remove(&self.target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_as_its_last_probe_left_it() {
        let states = Arc::<TargetStates>::default();
        let target = TargetId { group: "g".into(), authority: "a:1".into() };
        let place = states.place(target.clone());
        let state = || states.all().remove(&target).expect("it is there");
        assert_eq!(state(), ProbeState::default());
        let took = Duration::from_millis(5);
        place.note(None, Probed::Failed("connect", "nobody is there".to_owned()), took);
        place.note(None, Probed::Failed("connect", "nobody is there".to_owned()), took);
        assert_eq!((state().failures, state().failed["connect"]), (2, 2));
        assert_eq!((state().nature, state().answered), (Nature::Unknown, None));
        place.note(Some(Nature::Node), Probed::Listed(3, Some(Slot(7)), None), took);
        let well = state();
        assert_eq!((well.failures, well.archives, well.slot), (0, 3, Some(Slot(7))));
        assert_eq!((well.probes, well.nature, well.took), (3, Nature::Node, Some(took)));
        place.note(None, Probed::Failed("timeout", "late".to_owned()), took);
        let failing = state();
        assert_eq!((failing.nature, failing.archives), (Nature::Node, 3), "as it was");
        assert!(failing.answered.is_some() && failing.reason.is_some());
        drop(place);
        assert!(states.all().is_empty());
    }
}
