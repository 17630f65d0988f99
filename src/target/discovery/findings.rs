//! What the sources of one group found, put together.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::watch;

use super::DiscoveryError;
use crate::config::{HostPort, MAX_TARGETS};

/// The last good set of each source of one group. A target is in the group while any of them has
/// it.
#[derive(Clone, Debug)]
pub(in crate::target) struct Findings {
    sets: watch::Sender<Vec<Set>>,
}

/// What one source found.
#[derive(Clone, Debug, Default)]
struct Set {
    /// Which of the group's entries in the configuration has the source.
    member: usize,
    targets: BTreeSet<HostPort>,
}

/// The place of one source among [`Findings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat(usize);

impl Findings {
    /// Findings that begin with what each entry of the configuration names, which stays.
    pub(in crate::target) fn new<'a>(named: impl IntoIterator<Item = &'a [HostPort]>) -> Self {
        let set = |(member, named): (usize, &[HostPort])| Set {
            member,
            targets: named.iter().cloned().collect(),
        };
        let sets = named.into_iter().enumerate().map(set).collect();
        Self { sets: watch::Sender::new(sets) }
    }

    /// A place for one more source of an entry, which has found nothing yet.
    pub(super) fn seat(&self, member: usize) -> Seat {
        let mut seat = 0;
        self.sets.send_modify(|sets| {
            seat = sets.len();
            sets.push(Set { member, ..Set::default() });
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
            if sets[seat].targets == targets {
                return false;
            }
            let others = sets.iter().enumerate().filter(|(at, _)| *at != seat);
            let all: BTreeSet<&HostPort> =
                others.flat_map(|(_, set)| &set.targets).chain(&targets).collect();
            fits = all.len() <= MAX_TARGETS;
            if fits {
                sets[seat].targets = targets;
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
pub(in crate::target) struct Found(watch::Receiver<Vec<Set>>);

impl Found {
    /// Every target of the group, and the first of the group's entries that has it.
    pub(in crate::target) fn targets(&mut self) -> BTreeMap<HostPort, usize> {
        let mut found = BTreeMap::new();
        for Set { member, targets } in self.0.borrow_and_update().iter() {
            for target in targets {
                let first = found.entry(target.clone()).or_insert(*member);
                *first = (*first).min(*member);
            }
        }
        found
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

    fn targets(found: &mut Found) -> BTreeSet<HostPort> {
        found.targets().into_keys().collect()
    }

    fn many(name: &str, count: usize) -> BTreeSet<HostPort> {
        let target = |at| HostPort::parse(&format!("{name}{at}:1"), Scheme::Http);
        (0..count).map(|at| target(at).expect("a target")).collect()
    }

    #[test]
    fn a_target_stays_while_any_source_has_it() {
        let named: Vec<HostPort> = set(&["a:1"]).into_iter().collect();
        let findings = Findings::new([&*named]);
        let (one, other) = (findings.seat(0), findings.seat(0));
        let mut found = findings.subscribe();
        assert_eq!(targets(&mut found), set(&["a:1"]));
        findings.put(one, set(&["a:1", "b:1"])).expect("few");
        findings.put(other, set(&["b:1", "c:1"])).expect("few");
        assert_eq!(targets(&mut found), set(&["a:1", "b:1", "c:1"]));
        findings.put(one, set(&[])).expect("few");
        assert_eq!(targets(&mut found), set(&["a:1", "b:1", "c:1"]));
        findings.put(other, set(&["c:1"])).expect("few");
        assert_eq!(targets(&mut found), set(&["a:1", "c:1"]));
        assert!(!found.0.has_changed().expect("it lives"));
        findings.put(other, set(&["c:1"])).expect("few");
        assert!(!found.0.has_changed().expect("it lives"), "the same again is no news");
    }

    #[test]
    fn the_first_entry_that_has_a_target_says_how_it_is_reached() {
        let named: Vec<HostPort> = set(&["a:1", "b:1"]).into_iter().collect();
        let findings = Findings::new([&[][..], &*named]);
        let (second, first) = (findings.seat(1), findings.seat(0));
        let mut found = findings.subscribe();
        let mut expect = |expected: &[(&str, usize)]| {
            let found = found.targets();
            let found: Vec<_> = found.iter().map(|(name, at)| (name.to_string(), *at)).collect();
            let expected: Vec<_> =
                expected.iter().map(|(name, at)| ((*name).to_owned(), *at)).collect();
            assert_eq!(found, expected);
        };
        expect(&[("a:1", 1), ("b:1", 1)]);
        findings.put(second, set(&["c:1"])).expect("few");
        findings.put(first, set(&["b:1", "c:1"])).expect("few");
        expect(&[("a:1", 1), ("b:1", 0), ("c:1", 0)]);
        findings.put(first, set(&["b:1"])).expect("few");
        expect(&[("a:1", 1), ("b:1", 0), ("c:1", 1)]);
    }

    #[test]
    fn too_many_targets_are_refused_and_the_set_of_before_stays() {
        let findings = Findings::new([]);
        let (one, other) = (findings.seat(0), findings.seat(0));
        let mut found = findings.subscribe();
        findings.put(one, many("a", MAX_TARGETS - 1)).expect("one less than the most");
        findings.put(other, set(&["b:1"])).expect("the most");
        let error = findings.put(other, set(&["b:1", "c:1"])).expect_err("one too many");
        assert!(error.to_string().contains("more than 10000 targets"), "{error}");
        assert!(targets(&mut found).contains(&set(&["b:1"]).pop_first().expect("one")));
        // The same target from two sources is one.
        findings.put(other, many("a", MAX_TARGETS)).expect("the most");
        findings.put(one, many("a", 5)).expect("few");
        assert_eq!(targets(&mut found), many("a", MAX_TARGETS));
    }
}
