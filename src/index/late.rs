//! Targets whose archives did not come in time while others waited to be fetched. Pure: time is an
//! argument.
//!
//! What such a target has of that kind is not the best of its group for a while, whatever it lists
//! by then: else a target that lists something new again and again, and lets every byte wait, would
//! hold back what others have for as long as it likes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::entry::Source;
use super::listing::TargetId;
use super::undelivered::Undelivered;
use super::view::View;
use crate::limit::doubled;

/// How long others come first after the first time, which doubles with each time after it.
const FIRST: Duration = Duration::from_secs(600);
/// Longest of these times.
const LONGEST: Duration = Duration::from_secs(4 * 3600);
/// Most targets that are remembered. What is late was fetched for minutes, one at a time.
const MAX_REMEMBERED: usize = 1024;

/// The targets that were late, each with the kind of archive.
#[derive(Clone, Debug, Default)]
pub(super) struct Late(BTreeMap<(TargetId, bool), Entry>);

#[derive(Clone, Copy, Debug)]
struct Entry {
    times: u32,
    until: Instant,
}

impl Late {
    /// Notes that an archive of a source did not come in time.
    pub(super) fn note(&mut self, source: &Source, now: Instant) {
        self.0.retain(|_, entry| now < entry.until + LONGEST);
        let key = key(source);
        if self.0.len() >= MAX_REMEMBERED && !self.0.contains_key(&key) {
            return;
        }
        let entry = self.0.entry(key).or_insert(Entry { times: 0, until: now });
        entry.times = entry.times.saturating_add(1);
        entry.until = now + doubled(FIRST, entry.times, LONGEST);
    }

    /// Notes that one came in time.
    pub(super) fn clear(&mut self, source: &Source) {
        self.0.remove(&key(source));
    }

    /// When the first of those times is over.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        self.0.values().map(|entry| entry.until).filter(|until| now < *until).min()
    }

    /// The sources that others come before now.
    pub(super) fn sources(&self, view: &View, now: Instant) -> Vec<Undelivered> {
        if self.next(now).is_none() {
            return Vec::new();
        }
        let is_late = |source: &&Arc<Source>| {
            let entry = self.0.get(&key(source));
            entry.is_some_and(|entry| now < entry.until)
        };
        let why: Arc<str> = "archives of this target did not come in time".into();
        let late = view.all_sources().flat_map(|(_, sources)| sources).filter(is_late);
        late.map(|source| Undelivered {
            target: source.target.clone(),
            listed: source.listed.clone(),
            why: Arc::clone(&why),
        })
        .collect()
    }
}

fn key(source: &Source) -> (TargetId, bool) {
    (source.target.clone(), source.listed.name.is_full())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;
    use crate::index::{Catalog, Event, Listed, Policy, Publish};
    use crate::snapshot::ArchiveName;

    fn name(text: &str) -> ArchiveName {
        format!("{text}-{}.tar.zst", "1".repeat(32)).parse().expect(text)
    }

    /// Two targets that list this.
    fn view(names: &[&str]) -> View {
        let (mut catalog, at) = (Catalog::default(), Now::read());
        for authority in ["a:1", "b:1"] {
            let listed = |text: &&str| Listed {
                name: name(text),
                size: None,
                modified: None,
                tag: None,
                location: None,
            };
            let target = TargetId { group: "g".into(), authority: authority.into() };
            let archives = names.iter().map(listed).collect();
            catalog.apply(Event::Answered { target, at, archives });
        }
        let policy =
            Policy { probe_failures: 1, pair_hold: Duration::ZERO, publish: Publish::Seen };
        catalog.view(&View::default(), &["g".into()], policy, at.instant)
    }

    fn shown(late: &Late, view: &View, now: Instant) -> Vec<String> {
        let sources = late.sources(view, now);
        let mut shown: Vec<String> = sources
            .iter()
            .map(|found| format!("{} {}", found.target.authority, found.listed.name.slot()))
            .collect();
        shown.sort();
        shown
    }

    #[test]
    fn all_of_the_kind_that_the_target_has_comes_after_others_for_a_while() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (mut late, mut view) =
            (Late::default(), view(&["snapshot-1000", "incremental-snapshot-1000-1500"]));
        let source = view.sources(&name("incremental-snapshot-1000-1500"))[0].clone();
        let who = source.target.authority.to_string();
        assert_eq!((shown(&late, &view, start), late.next(start)), (vec![], None));
        late.note(&source, start);
        assert_eq!(shown(&late, &view, start), [format!("{who} 1500")]);
        // What it lists by then as well.
        view = self::view(&["incremental-snapshot-1000-1600", "incremental-snapshot-1000-1700"]);
        let both = [format!("{who} 1600"), format!("{who} 1700")];
        assert_eq!(shown(&late, &view, at(599)), both);
        assert_eq!(late.next(at(599)), Some(at(600)));
        assert_eq!((shown(&late, &view, at(600)), late.next(at(600))), (vec![], None));
        for (now, rest) in [(600, 1200), (5000, 2400), (9000, 4800), (20_000, 9600)] {
            late.note(&source, at(now));
            assert_eq!(late.next(at(now)), Some(at(now + rest)));
        }
        for now in [40_000, 60_000] {
            late.note(&source, at(now));
            assert_eq!(late.next(at(now)), Some(at(now + 14_400)), "the longest");
        }
        late.clear(&source);
        assert_eq!(late.next(at(60_000)), None);
        // After the longest time it is as good as any.
        late.note(&source, at(60_000));
        late.note(&source, at(60_600 + 14_400));
        assert_eq!(late.next(at(75_000)), Some(at(75_600)));
    }
}
