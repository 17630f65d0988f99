//! What the sources of one group found, put together.

use std::collections::BTreeSet;

use tokio::sync::watch;

use super::DiscoveryError;
use crate::config::{HostPort, MAX_TARGETS};

/// The last good set of each source of one group. A target is in the group while any of them has
/// it.
#[derive(Clone, Debug)]
pub(in crate::target) struct Findings {
    sets: watch::Sender<Vec<BTreeSet<HostPort>>>,
}

/// The place of one source among [`Findings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat(usize);

impl Findings {
    /// Findings that begin with what the configuration names, which stays.
    pub(in crate::target) fn new(named: &[HostPort]) -> Self {
        let named = named.iter().cloned().collect();
        Self { sets: watch::Sender::new(vec![named]) }
    }

    /// A place for one more source, which has found nothing yet.
    pub(super) fn seat(&self) -> Seat {
        let mut seat = 0;
        self.sets.send_modify(|sets| {
            seat = sets.len();
            sets.push(BTreeSet::new());
        });
        Seat(seat)
    }

    /// Replaces what a source found. Where that were too many targets with those of the others, the
    /// set of before stays.
    pub(super) fn put(
        &self,
        Seat(seat): Seat,
        targets: BTreeSet<HostPort>,
    ) -> Result<(), DiscoveryError> {
        let mut fits = true;
        self.sets.send_if_modified(|sets| {
            if sets[seat] == targets {
                return false;
            }
            let others = sets.iter().enumerate().filter(|(at, _)| *at != seat);
            let all: BTreeSet<&HostPort> =
                others.flat_map(|(_, set)| set).chain(&targets).collect();
            fits = all.len() <= MAX_TARGETS;
            if fits {
                sets[seat] = targets;
            }
            fits
        });
        if fits { Ok(()) } else { Err(DiscoveryError::TooMany) }
    }

    pub(in crate::target) fn subscribe(&self) -> Found {
        Found(self.sets.subscribe())
    }
}

/// What all sources of a group found so far, and news of it.
#[derive(Debug)]
pub(in crate::target) struct Found(watch::Receiver<Vec<BTreeSet<HostPort>>>);

impl Found {
    /// Every target of the group.
    pub(in crate::target) fn targets(&mut self) -> BTreeSet<HostPort> {
        self.0.borrow_and_update().iter().flatten().cloned().collect()
    }

    /// Waits until a source found something else; for ever where no source is left that could.
    pub(in crate::target) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Scheme;

    fn set(targets: &[&str]) -> BTreeSet<HostPort> {
        let target = |text: &&str| HostPort::parse(text, Scheme::Http).expect("a target");
        targets.iter().map(target).collect()
    }

    fn many(name: &str, count: usize) -> BTreeSet<HostPort> {
        let target = |at| HostPort::parse(&format!("{name}{at}:1"), Scheme::Http);
        (0..count).map(|at| target(at).expect("a target")).collect()
    }

    #[test]
    fn a_target_stays_while_any_source_has_it() {
        let named: Vec<HostPort> = set(&["a:1"]).into_iter().collect();
        let findings = Findings::new(&named);
        let (one, other) = (findings.seat(), findings.seat());
        let mut found = findings.subscribe();
        assert_eq!(found.targets(), set(&["a:1"]));
        findings.put(one, set(&["a:1", "b:1"])).expect("few");
        findings.put(other, set(&["b:1", "c:1"])).expect("few");
        assert_eq!(found.targets(), set(&["a:1", "b:1", "c:1"]));
        findings.put(one, set(&[])).expect("few");
        assert_eq!(found.targets(), set(&["a:1", "b:1", "c:1"]));
        findings.put(other, set(&["c:1"])).expect("few");
        assert_eq!(found.targets(), set(&["a:1", "c:1"]));
        assert!(!found.0.has_changed().expect("it lives"));
        findings.put(other, set(&["c:1"])).expect("few");
        assert!(!found.0.has_changed().expect("it lives"), "the same again is no news");
    }

    #[test]
    fn too_many_targets_are_refused_and_the_set_of_before_stays() {
        let findings = Findings::new(&[]);
        let (one, other) = (findings.seat(), findings.seat());
        let mut found = findings.subscribe();
        findings.put(one, many("a", MAX_TARGETS - 1)).expect("one less than the most");
        findings.put(other, set(&["b:1"])).expect("the most");
        let error = findings.put(other, set(&["b:1", "c:1"])).expect_err("one too many");
        assert!(error.to_string().contains("more than 10000 targets"), "{error}");
        assert!(found.targets().contains(&set(&["b:1"]).pop_first().expect("one")));
        // The same target from two sources is one.
        findings.put(other, many("a", MAX_TARGETS)).expect("the most");
        findings.put(one, many("a", 5)).expect("few");
        assert_eq!(found.targets(), many("a", MAX_TARGETS));
    }
}
