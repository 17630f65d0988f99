//! Which sources did not deliver, and when this edge tries them itself. Pure: time is an argument.
//!
//! That a client did not get an archive says little: it may have asked for what its target does not
//! understand, or for more than that carries at once. So a failure of a client's transfer only asks
//! for a try of the edge's own, and nothing but the failure of that one counts. It is repeated with
//! growing rests until it ends well.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::entry::Source;
use super::late::Late;
use super::listing::{Listed, TargetId};
use super::undelivered::{Undelivered, is_same};
use super::view::View;
use crate::limit::doubled;
use crate::snapshot::ArchiveName;

/// Rest after the first own try that failed, which doubles with each one after it.
const FIRST_REST: Duration = Duration::from_secs(5);
/// Longest of these rests.
const LONGEST_REST: Duration = Duration::from_secs(300);
/// Rest before a try that had no result is repeated.
const UNCLEAR_REST: Duration = Duration::from_secs(2);
/// Rest after an own try that ended well although a client's failed, which doubles as well while
/// they go on to contradict each other: a client may bring that about.
const FIRST_CALM: Duration = Duration::from_secs(1);
/// Longest of those.
const LONGEST_CALM: Duration = Duration::from_secs(60);
/// Time for which a client's failure asks for a try, where other sources are left to fail first.
const SUSPECTED_FOR: Duration = Duration::from_secs(60);
/// Time after which a source that failed once and delivers again is as good as any.
const FORGET: Duration = Duration::from_secs(600);
/// Most sources that are remembered. Archives that short names lead to are few, and what nobody
/// lists is forgotten.
const MAX_REMEMBERED: usize = 4096;

/// The sources that failed, those that may have, and those that did until lately.
#[derive(Clone, Debug, Default)]
pub struct Deliveries {
    entries: BTreeMap<(ArchiveName, TargetId), Entry>,
    late: Late,
    /// What targets list that were late, as of the last view.
    behind: Vec<Undelivered>,
}

#[derive(Clone, Debug)]
struct Entry {
    /// What the target listed.
    listed: Listed,
    state: State,
    /// Own tries that failed, since all of it was delivered.
    failures: u32,
    /// Own tries in a row that ended well after a client's had failed.
    passes: u32,
    /// When it failed last, for a client or for the edge.
    failed: Instant,
    /// Bytes from the start that came before that, at most.
    reached: u64,
    /// When it may be tried next.
    from: Instant,
    /// Whether it is being tried.
    running: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// The source failed for a client.
    Suspected,
    /// The source failed for the edge, for this reason.
    Failed(Arc<str>),
    /// The source delivered to the edge after that.
    Well,
}

/// A source that is to be tried.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The source as it is listed now.
    pub source: Arc<Source>,
    /// The bytes from its start of which the last one did not come.
    pub bytes: u64,
}

/// How a try ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The bytes came.
    Delivered,
    /// The bytes did not come, by the target's fault.
    Failed(Arc<str>),
    /// What came of it says nothing about the archive.
    Unclear,
}

impl Deliveries {
    /// Notes that a transfer from a source ended by its fault, after so many bytes from its start.
    pub fn suspect(&mut self, source: &Source, reached: u64, now: Instant) {
        if self.entries.len() >= MAX_REMEMBERED {
            self.entries.retain(|_, entry| !entry.is_over(now));
        }
        let has_room = self.entries.len() < MAX_REMEMBERED;
        let key = key(source);
        let Some(entry) = self.entries.get_mut(&key) else {
            if has_room {
                self.entries.insert(key, Entry::new(&source.listed, reached, now));
            }
            return;
        };
        if !is_same(&entry.listed, &source.listed) {
            *entry = Entry::new(&source.listed, reached, now);
            return;
        }
        entry.failed = now;
        entry.reached = entry.reached.max(reached);
        if entry.state == State::Well {
            entry.state = State::Suspected;
        }
    }

    /// Notes that a source delivered all of its archive to a request that began at this time.
    pub fn delivered(&mut self, source: &Source, began: Instant) {
        let key = key(source);
        if self.entries.get(&key).is_some_and(|entry| entry.failed < began) {
            self.entries.remove(&key);
        }
    }

    /// Notes that an archive of a source did not come in time while others waited to be fetched.
    pub fn late(&mut self, source: &Source, now: Instant) {
        self.late.note(source, now);
    }

    /// Notes that one did.
    pub fn in_time(&mut self, source: &Source) {
        self.late.clear(source);
    }

    /// Forgets what is no longer listed, or is another copy by now, and what is long ago.
    pub fn keep_listed(&mut self, view: &View, now: Instant) {
        self.entries.retain(|(name, target), entry| {
            let mut sources = view.sources(name).iter();
            let is_listed = sources
                .any(|source| source.target == *target && is_same(&source.listed, &entry.listed));
            is_listed && !entry.is_over(now)
        });
        self.behind = self.late.sources(view, now);
    }

    /// Has what short names lead to tried where all of its targets failed to deliver another
    /// archive of its kind: before the next client finds out that this one is no better.
    pub fn foresee(&mut self, view: &View, now: Instant) {
        let failing: BTreeSet<(&TargetId, bool)> = self
            .entries
            .iter()
            .filter(|(_, entry)| matches!(entry.state, State::Failed(_)))
            .map(|((name, target), _)| (target, name.is_full()))
            .collect();
        if failing.is_empty() {
            return;
        }
        let of_groups = view.groups().flat_map(|(_, group)| [group.best, group.wanted]);
        let best: BTreeSet<ArchiveName> =
            of_groups.flatten().flat_map(|best| best.names()).collect();
        let fails = |source: &Arc<Source>| {
            failing.contains(&(&source.target, source.listed.name.is_full()))
        };
        let sources = best.iter().map(|name| view.sources(name));
        let all = sources.filter(|sources| sources.iter().all(fails)).flatten();
        let is_new = |source: &&Arc<Source>| self.entry(source).is_none();
        let new: Vec<Arc<Source>> = all.filter(is_new).cloned().collect();
        for source in new {
            self.suspect(&source, 0, now);
        }
    }

    /// The sources that are to be tried now, at most so many and of each target one at a time; they
    /// count as being tried until [`Deliveries::end`]. And when there may be more.
    ///
    /// What only clients did not get is tried where it matters: where short names lead to the
    /// archive, the cache does not have it, and no source of it is left that may deliver.
    pub fn due(&mut self, view: &View, most: usize, now: Instant) -> (Vec<Trial>, Option<Instant>) {
        let mut busy: Vec<TargetId> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.running)
            .map(|((_, target), _)| target.clone())
            .collect();
        let mut keys: Vec<_> = self
            .entries
            .iter()
            .filter(|((name, _), entry)| entry.is_open() && self.matters(name, entry, view))
            .map(|(key, entry)| (entry.from, key.clone()))
            .collect();
        keys.sort_unstable_by_key(|(from, _)| *from);
        let (mut trials, mut next) = (Vec::new(), None);
        for (from, key) in keys {
            if from > now {
                next = Some(from);
                break;
            }
            let (name, target) = &key;
            let source = view.sources(name).iter().find(|source| source.target == *target);
            let is_next = |source: &&Arc<Source>| {
                trials.len() < most && !busy.contains(target) && !self.has_nearer(view, source)
            };
            let Some(source) = source.filter(is_next) else {
                continue;
            };
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.running = true;
                busy.push(target.clone());
                let bytes = entry.reached.saturating_add(1);
                trials.push(Trial { source: Arc::clone(source), bytes });
            }
        }
        let late = self.late.next(now);
        (trials, next.into_iter().chain(late).min())
    }

    /// Whether a source that comes through fewer edges is still to fail when it is tried: those
    /// that come through more ask for the same in the end, and each of their edges asks by itself.
    fn has_nearer(&self, view: &View, source: &Source) -> bool {
        let distance = |source: &Source| source.via().edges().len();
        let may_fail = |other: &Arc<Source>| {
            self.entry(other).is_some_and(|entry| !matches!(entry.state, State::Failed(_)))
        };
        let mut others = view.sources(&source.listed.name).iter();
        others.any(|other| distance(other) < distance(source) && may_fail(other))
    }

    /// Whether a source failed when it was tried, and has not delivered since.
    pub fn has_failed(&self, source: &Source) -> bool {
        self.entry(source).is_some_and(|entry| {
            matches!(entry.state, State::Failed(_)) && is_same(&entry.listed, &source.listed)
        })
    }

    fn entry(&self, source: &Source) -> Option<&Entry> {
        self.entries.get(&key(source))
    }

    fn is_doubtful(&self, source: &Source) -> bool {
        self.entry(source).is_some_and(Entry::is_doubtful)
    }

    fn matters(&self, name: &ArchiveName, entry: &Entry, view: &View) -> bool {
        matches!(entry.state, State::Failed(_))
            || (view.is_best(name)
                && !view.is_cached(name, None)
                && view.sources(name).iter().all(|source| self.is_doubtful(source)))
    }

    /// Other archives of the same target of which nothing bad is known, the newest one of each kind
    /// and the same kind first: where none of them comes either, it is not the archive's fault.
    pub fn controls(&self, view: &View, source: &Source) -> Vec<Arc<Source>> {
        let name = source.listed.name;
        let is_another = |other: &&Arc<Source>| {
            other.target == source.target && other.listed.name != name && !self.is_doubtful(other)
        };
        let others = || view.all_sources().flat_map(|(_, sources)| sources).filter(is_another);
        let newest = |of_kind: bool| {
            let of_kind =
                others().filter(|o| (o.listed.name.is_full() == name.is_full()) == of_kind);
            of_kind.max_by_key(|other| other.listed.name).cloned()
        };
        [true, false].into_iter().filter_map(newest).collect()
    }

    /// Notes how a try ended.
    pub fn end(&mut self, trial: &Trial, outcome: Outcome, now: Instant) {
        let listed = &trial.source.listed;
        let Some(entry) = self.entries.get_mut(&key(&trial.source)) else { return };
        // What was tried need not be what is there now.
        if !entry.running || !is_same(&entry.listed, listed) {
            return;
        }
        entry.running = false;
        match outcome {
            Outcome::Delivered => {
                entry.passes = entry.passes.saturating_add(1);
                entry.from = now + doubled(FIRST_CALM, entry.passes, LONGEST_CALM);
                entry.state = State::Well;
            }
            Outcome::Failed(why) => {
                entry.failures = entry.failures.saturating_add(1);
                (entry.passes, entry.failed) = (0, now);
                entry.from = now + doubled(FIRST_REST, entry.failures, LONGEST_REST);
                entry.state = State::Failed(why);
            }
            Outcome::Unclear => {
                let rest = match entry.state {
                    State::Failed(_) => doubled(FIRST_REST, entry.failures, LONGEST_REST),
                    State::Suspected | State::Well => UNCLEAR_REST,
                };
                entry.from = now + rest;
            }
        }
    }

    /// The sources that failed when they were tried, and have not delivered since, and those of
    /// targets that were late.
    pub fn failed(&self) -> Vec<Undelivered> {
        let failed = self.entries.iter().filter_map(|((_, target), entry)| {
            let State::Failed(why) = &entry.state else { return None };
            let (target, listed, why) = (target.clone(), entry.listed.clone(), Arc::clone(why));
            Some(Undelivered { target, listed, why })
        });
        failed.chain(self.behind.iter().cloned()).collect()
    }
}

fn key(source: &Source) -> (ArchiveName, TargetId) {
    (source.listed.name, source.target.clone())
}

impl Entry {
    fn new(listed: &Listed, reached: u64, now: Instant) -> Self {
        let (listed, state) = (listed.clone(), State::Suspected);
        let (failed, from) = (now, now);
        Self { listed, state, failures: 0, passes: 0, failed, reached, from, running: false }
    }

    /// Whether it is to be tried, now or later.
    fn is_open(&self) -> bool {
        !self.running && self.state != State::Well
    }

    /// Whether it failed last.
    fn is_doubtful(&self) -> bool {
        self.state != State::Well
    }

    /// Whether nothing follows from it any more.
    fn is_over(&self, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.failed);
        match self.state {
            _ if self.running => false,
            State::Suspected => age >= SUSPECTED_FOR,
            State::Failed(_) => false,
            State::Well => age >= FORGET,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;
    use crate::index::{AccessKey, Catalog, Event, Location, Policy, Publish};
    use std::time::UNIX_EPOCH;

    fn archive(text: &str) -> ArchiveName {
        let kind = if text.contains('-') { "incremental-snapshot" } else { "snapshot" };
        format!("{kind}-{text}-{}.tar.zst", "1".repeat(32)).parse().expect(text)
    }

    /// Deliveries from targets that list `1000 1000-1500 1000-1600`, told about by `<target>
    /// <name>`.
    struct Desk {
        deliveries: Deliveries,
        catalog: Catalog,
        view: View,
        running: Vec<Trial>,
        start: Instant,
    }

    impl Desk {
        fn before(targets: &[&str]) -> Self {
            let (catalog, view, start) = (Catalog::default(), View::default(), Instant::now());
            let (deliveries, running) = (Deliveries::default(), Vec::new());
            let mut desk = Self { deliveries, catalog, view, running, start };
            for target in targets {
                desk.list(target, "1000 1000-1500 1000-1600", 7);
            }
            desk
        }

        fn at(&self, millis: u64) -> Instant {
            self.start + Duration::from_millis(millis)
        }

        /// What comes through edges has them behind a `+` in the target's name.
        fn list(&mut self, target: &str, names: &str, size: u64) {
            let (edges, own) = (target.split('+').skip(1), "own".parse().expect("a name"));
            let via = crate::hops::Via::through(edges, false, &own).expect("a way");
            let location = |name: &str| Location {
                scheme: "http",
                address: ([127, 0, 0, 1], 8899).into(),
                authority: target.into(),
                path: format!("/{name}"),
                access: AccessKey::default(),
                via: via.clone(),
            };
            let listed = |text: &str| Listed {
                name: archive(text),
                size: Some(size),
                modified: None,
                tag: None,
                location: Some(location(text)),
            };
            let archives = names.split_whitespace().map(listed).collect();
            let target = TargetId { group: "g".into(), authority: target.into() };
            let at = Now { instant: self.start, wall: UNIX_EPOCH };
            self.catalog.apply(Event::Answered { target, at, archives });
            self.publish();
        }

        fn publish(&mut self) {
            let policy = Policy {
                probe_failures: 3,
                pair_hold: Duration::from_secs(60),
                publish: Publish::Seen,
            };
            self.catalog.miss(&self.deliveries.failed());
            self.view = self.catalog.view(&self.view, &["g".into()], policy, self.start);
        }

        fn source(&self, text: &str) -> Arc<Source> {
            let (target, name) = text.split_once(' ').expect("a target");
            let mut sources = self.view.sources(&archive(name)).iter();
            let source = sources.find(|source| *source.target.authority == *target);
            Arc::clone(source.expect("it is listed"))
        }

        fn suspect(&mut self, millis: u64, source: &str, reached: u64) {
            let (source, now) = (self.source(source), self.at(millis));
            self.deliveries.suspect(&source, reached, now);
        }

        /// What is tried at that time, as `<target> <slot>:<bytes>`, and after how many
        /// milliseconds there may be more.
        fn due(&mut self, millis: u64) -> (String, Option<u64>) {
            let now = self.at(millis);
            self.deliveries.keep_listed(&self.view, now);
            let (trials, next) = self.deliveries.due(&self.view, 2, now);
            let shown = trials.iter().map(|Trial { source, bytes }| {
                format!("{} {}:{bytes}", source.target.authority, source.listed.name.slot())
            });
            let shown = shown.collect::<Vec<_>>().join(", ");
            self.running.extend(trials);
            (shown, next.map(|next| u64::try_from((next - now).as_millis()).expect("soon")))
        }

        fn end(&mut self, millis: u64, outcome: &Outcome) {
            let now = self.at(millis);
            for trial in std::mem::take(&mut self.running) {
                self.deliveries.end(&trial, outcome.clone(), now);
            }
            self.publish();
        }

        fn failed(&self) -> String {
            let failed = self.deliveries.failed();
            let shown = failed
                .iter()
                .map(|failed| format!("{} {}", failed.target.authority, failed.listed.name.slot()));
            shown.collect::<Vec<_>>().join(", ")
        }
    }

    fn broken() -> Outcome {
        Outcome::Failed("broken".into())
    }

    const NOTHING: (String, Option<u64>) = (String::new(), None);

    fn tries(text: &str) -> (String, Option<u64>) {
        (text.to_owned(), None)
    }

    #[test]
    fn a_clients_failure_counts_for_nothing_but_a_try() {
        let mut desk = Desk::before(&["a"]);
        assert_eq!(desk.due(0), NOTHING);
        desk.suspect(0, "a 1000-1600", 0);
        assert_eq!(desk.failed(), "");
        assert_eq!(desk.due(0), tries("a 1600:1"));
        desk.suspect(1, "a 1000-1600", 0);
        assert_eq!(desk.due(1), NOTHING, "it is being tried");
        desk.end(100, &broken());
        assert_eq!(desk.failed(), "a 1600");
    }

    #[test]
    fn what_cannot_change_anything_is_not_tried() {
        // Not what short names lead to.
        let mut desk = Desk::before(&["a", "b"]);
        desk.suspect(0, "a 1000-1500", 0);
        desk.suspect(0, "b 1000-1500", 0);
        assert_eq!(desk.due(0), NOTHING);
        // One source is left.
        desk.suspect(0, "a 1000-1600", 0);
        assert_eq!(desk.due(0), NOTHING);
        desk.suspect(50_000, "b 1000-1600", 0);
        assert_eq!(desk.due(50_000), tries("a 1600:1, b 1600:1"));
        desk.end(50_000, &broken());
        assert_eq!(desk.failed(), "a 1600, b 1600");
        // By then they lead to what failed before.
        assert_eq!(desk.due(50_001), (tries("a 1500:1, b 1500:1").0, Some(4999)));
        // After a minute that is no reason any more.
        let mut desk = Desk::before(&["a", "b"]);
        desk.suspect(0, "a 1000-1600", 0);
        desk.suspect(60_000, "b 1000-1600", 0);
        assert_eq!(desk.due(60_000), NOTHING);
    }

    #[test]
    fn rests_double_until_it_delivers() {
        let mut desk = Desk::before(&["a"]);
        desk.suspect(0, "a 1000-1600", 0);
        let mut now = 0;
        for rest in [5, 10, 20, 40, 80, 160, 300, 300] {
            assert_eq!(desk.due(now), tries("a 1600:1"));
            desk.end(now, &broken());
            assert_eq!(desk.due(now + 1), (String::new(), Some(rest * 1000 - 1)));
            // What clients say meanwhile changes nothing.
            desk.suspect(now + 2, "a 1000-1600", 0);
            assert_eq!(desk.due(now + 2), (String::new(), Some(rest * 1000 - 2)));
            now += rest * 1000;
        }
        assert_eq!(desk.due(now), tries("a 1600:1"));
        desk.end(now, &Outcome::Delivered);
        assert_eq!((desk.failed(), desk.due(now)), (String::new(), NOTHING));
        // What it was is not forgotten at once.
        desk.suspect(now, "a 1000-1600", 0);
        assert_eq!(desk.due(now), (String::new(), Some(1000)));
        assert_eq!(desk.due(now + 1000), tries("a 1600:1"));
        desk.end(now + 1000, &broken());
        assert_eq!(desk.due(now + 1000), (String::new(), Some(300_000)));
    }

    #[test]
    fn only_all_of_it_clears_what_failed_before() {
        let mut desk = Desk::before(&["a"]);
        desk.suspect(1000, "a 1000-1600", 0);
        assert_eq!(desk.due(1000), tries("a 1600:1"));
        desk.end(1000, &broken());
        let source = desk.source("a 1000-1600");
        // It was under way when the source failed.
        let (before, after) = (desk.at(999), desk.at(1001));
        desk.deliveries.delivered(&source, before);
        assert_eq!(desk.failed(), "a 1600");
        desk.deliveries.delivered(&source, after);
        assert_eq!((desk.failed(), desk.due(1002)), (String::new(), NOTHING));
        // From the beginning.
        desk.publish();
        desk.suspect(2000, "a 1000-1600", 0);
        assert_eq!(desk.due(2000), tries("a 1600:1"));
        desk.end(2000, &broken());
        assert_eq!(desk.due(2000), (String::new(), Some(5000)));
    }

    #[test]
    fn who_contradicts_the_edge_has_it_tried_less_and_less() {
        let mut desk = Desk::before(&["a"]);
        let mut now = 0;
        for calm in [1, 2, 4, 8, 16, 32, 60, 60] {
            desk.suspect(now, "a 1000-1600", 0);
            assert_eq!(desk.due(now), tries("a 1600:1"));
            desk.end(now, &Outcome::Delivered);
            desk.suspect(now, "a 1000-1600", 0);
            assert_eq!(desk.due(now), (String::new(), Some(calm * 1000)));
            now += calm * 1000;
        }
        assert_eq!(desk.failed(), "");
    }

    #[test]
    fn what_nothing_follows_from_is_tried_again() {
        let mut desk = Desk::before(&["a"]);
        desk.suspect(0, "a 1000-1600", 0);
        for now in [0, 2000, 4000] {
            assert_eq!(desk.due(now), tries("a 1600:1"));
            desk.end(now, &Outcome::Unclear);
            assert_eq!(
                (desk.failed(), desk.due(now)),
                (String::new(), (String::new(), Some(2000)))
            );
        }
        assert_eq!(desk.due(6000), tries("a 1600:1"));
        desk.end(6000, &broken());
        assert_eq!(desk.due(11_000), tries("a 1600:1"));
        desk.end(11_000, &Outcome::Unclear);
        assert_eq!(
            (desk.failed().as_str(), desk.due(11_000)),
            ("a 1600", (String::new(), Some(5000)))
        );
    }

    #[test]
    fn another_copy_and_what_is_not_listed_is_forgotten() {
        let mut desk = Desk::before(&["a"]);
        let fail = |desk: &mut Desk| {
            desk.suspect(0, "a 1000-1600", 3);
            desk.suspect(0, "a 1000-1600", 1);
            assert_eq!(desk.due(0), tries("a 1600:4"), "where it was broken off the latest");
            desk.end(0, &broken());
            assert_eq!(desk.failed(), "a 1600");
        };
        fail(&mut desk);
        desk.list("a", "1000 1000-1500 1000-1600", 8);
        assert_eq!((desk.due(1), desk.failed()), (NOTHING, String::new()));
        fail(&mut desk);
        desk.list("a", "1000 1000-1500", 8);
        assert_eq!((desk.due(1), desk.failed()), (NOTHING, String::new()));
        desk.list("a", "1000 1000-1500 1000-1600", 8);
        assert_eq!((desk.due(2), desk.failed()), (NOTHING, String::new()));
        // Also while it is being tried: the end of that says nothing of the other copy.
        desk.suspect(2, "a 1000-1600", 0);
        assert_eq!(desk.due(2), tries("a 1600:1"));
        desk.list("a", "1000 1000-1500 1000-1600", 9);
        desk.suspect(3, "a 1000-1600", 0);
        desk.end(4, &broken());
        assert_eq!((desk.failed(), desk.due(4)), (String::new(), tries("a 1600:1")));
    }

    #[test]
    fn what_comes_next_from_a_target_that_fails_is_tried_before_a_client_asks() {
        let mut desk = Desk::before(&["a"]);
        desk.list("b", "1000 1000-1500", 7);
        let foresee = |desk: &mut Desk, now| {
            let at = desk.at(now);
            desk.deliveries.foresee(&desk.view, at);
            desk.due(now).0
        };
        desk.suspect(0, "a 1000-1600", 0);
        assert_eq!(foresee(&mut desk, 0), "a 1600:1");
        desk.end(0, &broken());
        // Now they lead to what another target has as well.
        assert_eq!(foresee(&mut desk, 1), "");
        desk.list("a", "1000 1000-1500 1000-1600 1000-1700", 7);
        assert_eq!(foresee(&mut desk, 2), "a 1700:1");
        desk.end(2, &broken());
        assert_eq!(desk.failed(), "a 1600, a 1700");
        desk.list("b", "1000 1000-1500 1000-1800", 7);
        assert_eq!(foresee(&mut desk, 3), "", "from another target");
        desk.list("a", "1000 1000-1500 1000-1600 1000-1900", 7);
        assert_eq!(foresee(&mut desk, 4), "a 1900:1");
        desk.end(4, &Outcome::Delivered);
        assert_eq!(foresee(&mut desk, 4), "", "once");
    }

    #[test]
    fn what_comes_through_edges_is_tried_after_what_is_near() {
        let mut desk = Desk::before(&["a", "b+e", "c+f+g"]);
        for source in ["a 1000-1600", "b+e 1000-1600", "c+f+g 1000-1600"] {
            desk.suspect(0, source, 0);
        }
        for tried in ["a 1600:1", "b+e 1600:1", "c+f+g 1600:1"] {
            assert_eq!(desk.due(0).0, tried);
            let (source, _) = tried.split_once(" 1600").expect("a target");
            let source = desk.source(&format!("{source} 1000-1600"));
            assert!(!desk.deliveries.has_failed(&source));
            desk.end(0, &broken());
            assert!(desk.deliveries.has_failed(&source));
        }
        assert_eq!(desk.failed(), "a 1600, b+e 1600, c+f+g 1600");
    }

    #[test]
    fn of_one_target_one_is_tried_at_a_time() {
        let mut desk = Desk::before(&["a", "b", "c"]);
        for source in ["a 1000-1600", "b 1000-1600", "c 1000-1600", "a 1000", "b 1000", "c 1000"] {
            desk.suspect(0, source, 0);
        }
        assert_eq!(desk.due(0), tries("a 1000:1, b 1000:1"));
        desk.end(0, &broken());
        assert_eq!(desk.due(0).0, "c 1000:1, a 1600:1");
    }

    #[test]
    fn what_is_tried_for_comparison_is_not_in_doubt() {
        let mut desk = Desk::before(&["a", "b"]);
        let controls = |desk: &Desk, source: &str| {
            let found = desk.deliveries.controls(&desk.view, &desk.source(source));
            let shown =
                found.iter().map(|of| format!("{} {}", of.target.authority, of.listed.name.slot()));
            shown.collect::<Vec<_>>().join(", ")
        };
        assert_eq!(controls(&desk, "a 1000-1600"), "a 1500, a 1000");
        assert_eq!(controls(&desk, "a 1000"), "a 1600");
        desk.suspect(0, "a 1000-1500", 0);
        assert_eq!(controls(&desk, "a 1000-1600"), "a 1000");
        assert_eq!(controls(&desk, "b 1000-1600"), "b 1500, b 1000");
        desk.suspect(0, "a 1000", 0);
        assert_eq!(controls(&desk, "a 1000-1600"), "");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut desk = Desk::before(&["a"]);
        let source = desk.source("a 1000-1600");
        let of = |number: usize| {
            let target = TargetId { group: "g".into(), authority: format!("t{number}").into() };
            Source { target, ..(*source).clone() }
        };
        for number in 0..MAX_REMEMBERED + 10 {
            let now = desk.at(0);
            desk.deliveries.suspect(&of(number), 0, now);
        }
        assert_eq!(desk.deliveries.entries.len(), MAX_REMEMBERED);
        let now = desk.at(60_000);
        desk.deliveries.suspect(&of(0), 0, now);
        assert_eq!(desk.deliveries.entries.len(), 1, "what is over makes room");
        desk.deliveries.keep_listed(&desk.view, now);
        assert!(desk.deliveries.entries.is_empty());
    }
}
