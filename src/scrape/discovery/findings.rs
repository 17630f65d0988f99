//! What the sources of one group found, put together.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::watch;

use super::error::DiscoveryError;
use crate::config::{HostPort, MAX_TARGETS};

/// The last good set of each source of one group. A target is in the group while any of them has
/// it.
#[derive(Clone, Debug, Default)]
pub(in crate::scrape) struct Findings {
    sets: watch::Sender<Sets>,
}

#[derive(Debug, Default)]
struct Sets {
    all: Vec<Set>,
    /// Seats so far.
    seats: u64,
}

/// What one source found.
#[derive(Debug)]
struct Set {
    seat: Seat,
    /// Which of the group's entries in the configuration has the source.
    member: usize,
    targets: BTreeSet<HostPort>,
    /// Whether the source has named targets, or failed to, since it came.
    heard: bool,
}

/// The place of one source among [`Findings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scrape) struct Seat(u64);

impl Findings {
    /// A place for one more source of an entry, which has found nothing yet.
    pub(in crate::scrape) fn seat(&self, member: usize) -> Seat {
        self.add(member, BTreeSet::new(), false)
    }

    /// A place for what an entry of the configuration names itself.
    pub(in crate::scrape) fn name(&self, member: usize, targets: &[HostPort]) -> Seat {
        self.add(member, targets.iter().cloned().collect(), true)
    }

    fn add(&self, member: usize, targets: BTreeSet<HostPort>, heard: bool) -> Seat {
        let mut seat = Seat(0);
        self.sets.send_modify(|sets| {
            sets.seats += 1;
            seat = Seat(sets.seats);
            sets.all.push(Set { seat, member, targets, heard });
        });
        seat
    }

    /// Notes that it is another entry by now which has the source.
    pub(in crate::scrape) fn move_to(&self, seat: Seat, member: usize) {
        self.sets.send_modify(|sets| {
            if let Some(set) = sets.all.iter_mut().find(|set| set.seat == seat) {
                set.member = member;
            }
        });
    }

    /// Takes a source out, with what it found.
    pub(in crate::scrape) fn leave(&self, seat: Seat) {
        self.sets.send_modify(|sets| sets.all.retain(|set| set.seat != seat));
    }

    /// Notes that a source failed to name targets: those that it named last stay.
    pub(super) fn miss(&self, seat: Seat) {
        self.sets.send_if_modified(|sets| {
            let mut own = sets.all.iter_mut().filter(|set| set.seat == seat);
            own.any(|set| !std::mem::replace(&mut set.heard, true))
        });
    }

    /// Replaces what a source found. Where that were too many targets with those of the others, the
    /// set of before stays.
    pub(super) fn put(
        &self,
        seat: Seat,
        targets: BTreeSet<HostPort>,
    ) -> Result<(), DiscoveryError> {
        let mut fits = true;
        self.sets.send_if_modified(|Sets { all, .. }| {
            let Some(at) = all.iter().position(|set| set.seat == seat) else { return false };
            let is_first = !std::mem::replace(&mut all[at].heard, true);
            if all[at].targets == targets {
                return is_first;
            }
            let others = all.iter().filter(|set| set.seat != seat);
            let together: BTreeSet<&HostPort> =
                others.flat_map(|set| &set.targets).chain(&targets).collect();
            fits = together.len() <= MAX_TARGETS;
            if fits {
                all[at].targets = targets;
            }
            fits || is_first
        });
        if fits { Ok(()) } else { Err(DiscoveryError::TooMany) }
    }

    pub(in crate::scrape) fn subscribe(&self) -> Found {
        Found(self.sets.subscribe())
    }
}

/// What all sources of a group found so far, and news of it.
#[derive(Debug)]
pub(in crate::scrape) struct Found(watch::Receiver<Sets>);

impl Found {
    /// Every target of the group, and the first of the group's entries that has it; and whether
    /// that is all, as far as anybody says.
    pub(in crate::scrape) fn targets(&mut self) -> (BTreeMap<HostPort, usize>, bool) {
        let mut found = BTreeMap::new();
        let sets = self.0.borrow_and_update();
        for Set { member, targets, .. } in &sets.all {
            for target in targets {
                let first = found.entry(target.clone()).or_insert(*member);
                *first = (*first).min(*member);
            }
        }
        (found, sets.all.iter().all(|set| set.heard))
    }

    /// Waits until a source found something else, or was heard for the first time; for ever where
    /// no source is left that could.
    pub(in crate::scrape) async fn changed(&mut self) {
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
        found.targets().0.into_keys().collect()
    }

    fn many(name: &str, count: usize) -> BTreeSet<HostPort> {
        let target = |at| HostPort::parse(&format!("{name}{at}:1"), Scheme::Http);
        (0..count).map(|at| target(at).expect("a target")).collect()
    }

    #[test]
    fn a_target_stays_while_any_source_has_it() {
        let named: Vec<HostPort> = set(&["a:1"]).into_iter().collect();
        let findings = Findings::default();
        findings.name(0, &named);
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
        let findings = Findings::default();
        findings.name(1, &named);
        let (second, first) = (findings.seat(1), findings.seat(0));
        let mut found = findings.subscribe();
        let mut expect = |expected: &[(&str, usize)]| {
            let (found, _) = found.targets();
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
        let findings = Findings::default();
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
    #[test]
    fn what_is_asked_for_the_first_time_may_name_more() {
        let findings = Findings::default();
        let (one, other) = (findings.seat(0), findings.seat(0));
        let mut found = findings.subscribe();
        let mut check = |targets: &[&str], is_all: bool| {
            let (found, all) = found.targets();
            assert_eq!((found.into_keys().collect::<BTreeSet<_>>(), all), (set(targets), is_all));
        };
        check(&[], false);
        findings.put(one, set(&["a:1"])).expect("few");
        check(&["a:1"], false);
        findings.miss(other);
        check(&["a:1"], true);
        findings.move_to(one, 1);
        let new = findings.seat(0);
        findings.leave(other);
        check(&["a:1"], false);
        findings.put(new, set(&[])).expect("few");
        findings.put(other, set(&["late:1"])).expect("it has left");
        check(&["a:1"], true);
        findings.leave(one);
        check(&[], true);
    }
}
