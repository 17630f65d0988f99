//! A request for an archive, given what its client has of it: where the bytes come from.

use std::net::IpAddr;
use std::sync::Arc;

use super::cache::{Bytes, Delivery, deliver};
use super::entry::{CachePolicy, EntryState};
use crate::index::{Source, TargetId, View};
use crate::route::affinity::Affinity;
use crate::route::asked::Asked;
use crate::route::balance::{Targets, order};
use crate::route::failure::{Failure, SourceFailure};
use crate::route::pinned_copy::PinnedCopy;
use crate::snapshot::ArchiveName;

/// A request for an archive, while it is decided about.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The archive.
    pub name: ArchiveName,
    /// Who asks.
    pub client: IpAddr,
    /// What is asked of it.
    pub asked: &'a Asked,
    /// What the client has of it.
    pub affinity: &'a Affinity,
    /// What there is.
    pub view: &'a View,
    /// How the cache is used.
    pub policy: CachePolicy,
}

impl Case<'_> {
    /// Whether it is read from the cache, fills it, or passes it by.
    pub(super) fn delivery(&self, cached: EntryState<'_>) -> Delivery {
        let bytes = Bytes {
            begun: self.affinity.pinned().map(|given| given.copy),
            of_target: self.named_by_condition(),
        };
        // What no target has any more is served for as long as it is there.
        let last = self.view.sources(&self.name).is_empty();
        let worth_it = self.view.is_best(&self.name) || last;
        deliver(self.asked, worth_it, self.policy, cached, bytes)
    }

    /// The sources on the network in the order in which they are tried, at least one; those of
    /// targets that rest come last, and those whose copy is `distrusted` are none. The
    /// copy that is in the cache, or on its way there, is everyone's who has no other, while its
    /// source is well; where there is none, it is the one that the client asked about.
    pub fn sources(
        &self,
        cached: EntryState<'_>,
        targets: &dyn Targets,
        distrusted: impl Fn(&Source) -> bool,
    ) -> Result<Vec<Arc<Source>>, Failure> {
        let pinned = match cached {
            EntryState::Nothing => None,
            EntryState::Filling(target)
            | EntryState::Growing { target, .. }
            | EntryState::Whole { target, .. } => Some(target),
        };
        let shown = self.shown().map(|shown| &shown.target);
        let pinned = pinned.or(shown).filter(|target| !targets.stats(target).resting);
        let all = self.view.sources(&self.name).iter();
        let all: Vec<&Arc<Source>> = all.filter(|source| !source.target.is_ledger()).collect();
        let preferred = |source: &Source| self.prefers(source, pinned);
        let sound = all.iter().filter(|source| !distrusted(source));
        let sound: Vec<Arc<Source>> = sound.map(|source| Arc::clone(source)).collect();
        let sources = order(self.client, &self.name, &sound, preferred, targets);
        match cached {
            _ if !sources.is_empty() => Ok(sources),
            // The archive is there, in a copy that does not fit to what the client has.
            EntryState::Growing { .. } | EntryState::Whole { .. } => Err(Failure::OtherCopy),
            _ if !all.is_empty() => Err(Failure::Sources(SourceFailure::Unsound)),
            EntryState::Nothing | EntryState::Filling(_) => Err(Failure::NotHeld),
        }
    }

    /// The copy that the client was told of, of its length among others, while a target has it.
    fn shown(&self) -> Option<&PinnedCopy> {
        let is_there = |shown: &&Arc<PinnedCopy>| {
            self.view.sources(&self.name).iter().any(|source| source.target == shown.target)
        };
        self.affinity.announced().filter(is_there).map(|shown| &**shown)
    }

    /// The source of the copy that the client was told of, where the cache has another one: what it
    /// asks for may be laid out by the length of that. It has no bytes of it, so that any other one
    /// will do where this one is out of reach.
    pub(super) fn laid_out_by(&self, entry: EntryState<'_>) -> Option<Arc<Source>> {
        let shown = self.shown().filter(|_| self.asked.range.is_part_of_a_file())?;
        entry.copy().filter(|copy| *copy != shown.copy)?;
        let mut sources = self.view.sources(&self.name).iter();
        sources.find(|source| source.target == shown.target).cloned()
    }

    /// True where not any copy will do.
    pub(super) fn has_to_fit(&self) -> bool {
        self.asked.has_to_fit() || self.affinity.pinned().is_some()
    }

    /// True where the condition names the copy of a target that is there.
    pub(super) fn named_by_condition(&self) -> bool {
        self.view.sources(&self.name).iter().any(|source| self.names(source))
    }

    /// Whether the condition names the copy of this source, by its listing or by what the client
    /// was given of it: without a size, the listing does not tell.
    pub(super) fn names(&self, source: &Source) -> bool {
        let given = self.affinity.given().filter(|given| given.target == source.target);
        let named = |copy| self.asked.names(copy) == Some(true);
        source.copy().is_some_and(named) || given.is_some_and(|given| named(given.copy))
    }

    /// Whether a source comes before all others.
    fn prefers(&self, source: &Source, pinned: Option<&TargetId>) -> bool {
        let is_pinned = pinned == Some(&source.target);
        if !self.has_to_fit() {
            return is_pinned;
        }
        match (self.asked.has_named(), self.affinity.pinned()) {
            (true, _) => self.names(source) || (is_pinned && !self.named_by_condition()),
            (false, Some(given)) => given.target == source.target,
            (false, None) => self.shown().map_or(is_pinned, |shown| shown.target == source.target),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;
    use crate::config::{Balance, Sharing};
    use crate::index::{AccessKey, Catalog, CopyId, Event, Listed, Location, Policy, Publish};
    use crate::route::{Bypass, Conditions, IfRange, RangeRequest, TEST_KEY, TargetStats};
    use http::Method;
    use std::net::Ipv4Addr;
    use std::time::{Duration, Instant, UNIX_EPOCH};

    const SIZE: u64 = 1000;
    const POLICY: CachePolicy = CachePolicy { sharing: Sharing::Exclusive, keeps: false };

    fn full(slot: u64) -> ArchiveName {
        format!("snapshot-{slot}-{}.tar.zst", "1".repeat(32)).parse().expect("valid")
    }

    fn target(number: u8) -> TargetId {
        TargetId { group: "g".into(), authority: format!("10.0.0.{number}:8899").into() }
    }

    fn copy(number: u8) -> CopyId {
        CopyId::new(&target(number).authority, SIZE, None)
    }

    fn given(number: u8) -> PinnedCopy {
        PinnedCopy { target: target(number), copy: copy(number) }
    }

    /// Targets 1 to 4 hold the archives at the slots 1000 and 900, in copies of their own.
    fn view() -> View {
        let at = Now { instant: Instant::now(), wall: UNIX_EPOCH };
        let mut catalog = Catalog::default();
        for number in 1..=4 {
            let listed = |name: ArchiveName| Listed {
                name,
                size: Some(SIZE),
                modified: None,
                tag: None,
                location: Some(Location {
                    scheme: "http",
                    address: ([10, 0, 0, number], 8899).into(),
                    authority: target(number).authority,
                    path: format!("/{name}"),
                    access: AccessKey::default(),
                    via: crate::hops::Via::default(),
                }),
            };
            let archives = vec![listed(full(1000)), listed(full(900))];
            catalog.apply(Event::Answered { target: target(number), at, archives });
        }
        let policy = Policy {
            probe_failures: 3,
            pair_hold: Duration::from_secs(600),
            publish: Publish::Seen,
        };
        catalog.view(&View::default(), &["g".into()], policy, at.instant)
    }

    fn asked(range: &str, condition: Option<u8>) -> Asked {
        Asked {
            method: Method::GET,
            range: RangeRequest::parse(range),
            if_range: condition.map(|number| IfRange::new(&TEST_KEY.tag(copy(number)), TEST_KEY)),
            conditions: Conditions::default(),
        }
    }

    /// Targets of which one rests.
    struct Resting<'a>(Option<&'a TargetId>);

    impl Targets for Resting<'_> {
        fn stats(&self, target: &TargetId) -> TargetStats {
            TargetStats { resting: self.0 == Some(target), ..TargetStats::default() }
        }

        fn balance(&self, _group: &str) -> Balance {
            Balance::PerClient
        }

        fn turn(&self, _name: &ArchiveName) -> usize {
            0
        }
    }

    /// Of which target the bytes come first, for every one of many clients; `None` where that is a
    /// matter of the client.
    #[track_caller]
    fn check(
        range: &str,
        condition: Option<u8>,
        begun: Option<u8>,
        pinned: Option<u8>,
        resting: Option<u8>,
        expected: Option<u8>,
    ) {
        let (view, asked) = (view(), asked(range, condition));
        let affinity = begun.map(given).map_or(Affinity::Fresh, |given| match condition {
            Some(_) => Affinity::Condition(Some(given.into())),
            None => Affinity::Pinned(given.into()),
        });
        let pinned = pinned.map(target);
        let cached = pinned.as_ref().map_or(EntryState::Nothing, EntryState::Filling);
        let resting = resting.map(target);
        let first = |client: u32| {
            let client = IpAddr::V4(Ipv4Addr::from(client));
            let (name, asked, affinity) = (full(1000), &asked, &affinity);
            let case = Case { name, client, asked, affinity, view: &view, policy: POLICY };
            let sources = case.sources(cached, &Resting(resting.as_ref()), |_| false);
            let sources = sources.expect("four of them");
            assert_eq!(sources.len(), 4);
            sources[0].target.clone()
        };
        let all: std::collections::BTreeSet<_> = (0..100).map(first).collect();
        let row = format!("{range} {condition:?} {begun:?} {pinned:?} {resting:?}");
        match expected {
            Some(number) => assert_eq!(all, [target(number)].into(), "{row}"),
            None => assert!(all.len() >= 3, "{row}"),
        }
    }

    #[test]
    fn a_client_comes_back_to_its_copy_and_others_go_to_the_one_that_is_cached() {
        const PART: &str = "bytes=5-";
        check("", None, None, None, None, None);
        check(PART, None, None, None, None, None);
        // On its way into the cache from target 2.
        check("", None, None, Some(2), None, Some(2));
        check("bytes=0-", None, None, Some(2), None, Some(2));
        check(PART, None, None, Some(2), None, Some(2));
        check("", None, None, Some(2), Some(2), None);
        check(PART, None, None, Some(2), Some(2), None);
        // What was begun decides for a part, also where its target rests.
        check(PART, None, Some(3), None, None, Some(3));
        check(PART, None, Some(3), None, Some(3), Some(3));
        check(PART, None, Some(3), Some(2), None, Some(3));
        // A condition that names a copy leads to it, whatever was begun.
        check(PART, Some(1), None, None, None, Some(1));
        check(PART, Some(1), Some(3), Some(2), None, Some(1));
        // One that names none leads to the copy for everyone.
        check(PART, Some(9), None, Some(2), None, Some(2));
        check(PART, Some(9), Some(3), Some(2), None, Some(2));
    }

    #[test]
    fn a_client_gets_the_copy_that_it_asked_about() {
        let (view, client) = (view(), IpAddr::V4(Ipv4Addr::LOCALHOST));
        let first = |range: &str, shown: u8, cached: EntryState<'_>, resting: Option<&TargetId>| {
            let (affinity, asked) = (Affinity::Announced(given(shown).into()), asked(range, None));
            let (asked, name, affinity) = (&asked, full(1000), &affinity);
            let case = Case { name, client, asked, affinity, view: &view, policy: POLICY };
            let sources = case.sources(cached, &Resting(resting), |_| false).expect("four");
            sources[0].target.clone()
        };
        for number in 1..=4 {
            let (shown, other) = (target(number), target(number % 4 + 1));
            for range in ["", "bytes=5-"] {
                assert_eq!(first(range, number, EntryState::Nothing, None), shown);
            }
            // A new start is better off with everyone's copy, and without a target that rests.
            assert_eq!(first("", number, EntryState::Filling(&other), None), other);
            assert_ne!(first("", number, EntryState::Nothing, Some(&shown)), shown);
            // A part is laid out by the length that was told.
            assert_eq!(first("bytes=5-", number, EntryState::Filling(&other), None), shown);
            assert_eq!(first("bytes=5-", number, EntryState::Nothing, Some(&shown)), shown);
        }
    }

    #[test]
    fn without_a_source_there_is_another_copy_or_nothing() {
        let (view, asked, target) = (view(), asked("bytes=5-", None), target(1));
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let name = full(800);
        let case = Case {
            name,
            client,
            asked: &asked,
            affinity: &Affinity::Fresh,
            view: &view,
            policy: POLICY,
        };
        let failure =
            |cached| case.sources(cached, &Resting(None), |_| false).expect_err("nobody has it");
        assert_eq!(failure(EntryState::Nothing), Failure::NotHeld);
        assert_eq!(failure(EntryState::Filling(&target)), Failure::NotHeld);
        let whole = EntryState::Whole { target: &target, copy: copy(1) };
        assert_eq!(failure(whole), Failure::OtherCopy);
        assert_eq!(case.delivery(whole), Delivery::Hit, "the last copy is served though not best");
        let begun = Affinity::Pinned(given(2).into());
        let other = Case { affinity: &begun, ..case };
        assert_eq!(other.delivery(whole), Delivery::Bypass(Bypass::OtherCopy));
        assert_eq!(case.delivery(EntryState::Nothing), Delivery::Bypass(Bypass::Range));
    }

    #[test]
    fn only_what_is_best_is_for_the_cache() {
        let (view, asked) = (view(), asked("", None));
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let case = |slot| Case {
            name: full(slot),
            client,
            asked: &asked,
            affinity: &Affinity::Fresh,
            view: &view,
            policy: POLICY,
        };
        assert_eq!(case(1000).delivery(EntryState::Nothing), Delivery::Fill);
        assert_eq!(case(900).delivery(EntryState::Nothing), Delivery::Bypass(Bypass::NotBest));
        let target = target(1);
        let whole = EntryState::Whole { target: &target, copy: copy(1) };
        assert_eq!(case(1000).delivery(whole), Delivery::Hit);
        assert_eq!(case(900).delivery(whole), Delivery::Bypass(Bypass::NotBest));
    }

    #[test]
    fn what_is_not_sound_is_nobodys_source() {
        let (view, asked) = (view(), asked("", None));
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let case = Case {
            name: full(1000),
            client,
            asked: &asked,
            affinity: &Affinity::Fresh,
            view: &view,
            policy: POLICY,
        };
        let bad = target(2);
        let pinned = EntryState::Filling(&bad);
        let is_bad = |source: &Source| source.target == bad;
        let left = case.sources(pinned, &Resting(None), is_bad).expect("three");
        assert_eq!(left.len(), 3);
        assert!(left.iter().all(|source| source.target != bad));
        let none = case.sources(pinned, &Resting(None), |_| true).expect_err("none is left");
        assert_eq!(none, Failure::Sources(SourceFailure::Unsound));
        let whole = EntryState::Whole { target: &bad, copy: copy(2) };
        let other = case.sources(whole, &Resting(None), |_| true).expect_err("none is left");
        assert_eq!(other, Failure::OtherCopy);
    }
}
