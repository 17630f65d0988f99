//! One entry for each archive, for those to whom it makes no difference which target has it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::SystemTime;

use super::entry::Entry;

impl Entry {
    /// How well it tells of the archive: by what is believed, with all sizes, and of late.
    fn stats(&self) -> (bool, bool, SystemTime) {
        let mut chain = std::iter::once(&self.source).chain(&self.base);
        let sized = chain.all(|source| source.listed.size.is_some());
        (self.believed, sized, self.source.updated_at)
    }
}

/// Positions in `entries` of one entry for each archive in each group, by group and worth, the best
/// first.
pub(super) fn distinct(entries: &[Entry]) -> Vec<usize> {
    let mut chosen = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        let archive = (&entry.source.target.group, Reverse(entry.source.listed.name));
        let known = chosen.entry(archive).or_insert(at);
        // Of equal ones the first.
        if entries.get(*known).is_none_or(|known| known.stats() < entry.stats()) {
            *known = at;
        }
    }
    chosen.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;
    use crate::index::{Catalog, Event, Held, Listed, Policy, Publish, TargetId, View};
    use crate::snapshot::ArchiveName;
    use std::sync::Arc;
    use std::time::{Duration, Instant, UNIX_EPOCH};

    /// `<slot>` or `<base>-<slot>`, with a `b` after it for another hash.
    fn name(text: &str) -> ArchiveName {
        let (text, digit) = text.strip_suffix('b').map_or((text, "1"), |text| (text, "2"));
        let kind = if text.contains('-') { "incremental-snapshot" } else { "snapshot" };
        let hash = format!("{}{digit}", "1".repeat(31));
        format!("{kind}-{text}-{hash}.tar.zst").parse().expect("valid")
    }

    fn target(text: &str) -> TargetId {
        let (group, authority) = text.split_once('/').expect("a group");
        TargetId { group: group.into(), authority: authority.into() }
    }

    /// A view of what `<group>/<target>` lists since so many seconds, and of what the cache holds.
    fn view(publish: Publish, listings: &[(&str, u64, &str)], held: &[&str]) -> View {
        let start = Instant::now();
        let at = |seconds| {
            let since = Duration::from_secs(seconds);
            Now { instant: start + since, wall: UNIX_EPOCH + since }
        };
        let mut catalog = Catalog::default();
        for (id, seconds, names) in listings {
            let listed = |text: &str| {
                let (text, size) = text.split_once('=').map_or((text, None), |(text, size)| {
                    (text, Some(size.parse().expect("bytes")))
                });
                Listed { name: name(text), size, modified: None, tag: None, location: None }
            };
            let archives = names.split_whitespace().map(listed).collect();
            catalog.apply(Event::Answered { target: target(id), at: at(*seconds), archives });
        }
        let held: Vec<Held> = held
            .iter()
            .map(|text| Held {
                name: name(text),
                target: target("a/t"),
                size: 7,
                modified: None,
                since: at(0),
                age: Duration::ZERO,
            })
            .collect();
        catalog.hold(&held);
        let groups = ["a", "b"].map(Arc::from);
        let pair_hold = Duration::from_secs(600);
        let policy = Policy { probe_failures: 3, pair_hold, publish };
        // Twice, since what is offered follows from what was.
        let before = catalog.view(&View::default(), &groups, policy, start);
        catalog.view(&before, &groups, policy, start)
    }

    fn shown<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<String> {
        let text = |entry: &Entry| {
            let Entry { source, believed, .. } = entry;
            let TargetId { group, authority } = &source.target;
            let found = source.listed.name.to_string();
            let all = ["900", "1000", "1000b", "1000-1500", "1000-1600", "2000", "2000-2100"];
            let short = all.into_iter().find(|text| name(text).to_string() == found);
            let doubt = if *believed { "" } else { " ?" };
            format!("{group}/{authority} {}{doubt}", short.expect("a known one"))
        };
        entries.map(text).collect()
    }

    #[test]
    fn an_archive_is_there_once_however_many_targets_have_it() {
        for count in [1, 2, 25] {
            let ids: Vec<String> = (10..10 + count).map(|number| format!("a/n{number}")).collect();
            let listings: Vec<(&str, u64, &str)> =
                ids.iter().map(|id| (id.as_str(), 0, "1000=9 1000-1500=9 900=9")).collect();
            let view = view(Publish::Seen, &listings, &[]);
            let expected = ["a/n10 1000-1500", "a/n10 1000", "a/n10 900"];
            assert_eq!(shown(view.distinct()), expected, "{count}");
            assert_eq!(shown(view.newest_distinct(None)), expected, "{count}");
            assert_eq!(view.entries().len(), 3 * count, "and each copy where that matters");
        }
    }

    #[test]
    fn the_entry_that_says_the_most_is_shown() {
        let check = |listings: &[(&str, u64, &str)], expected: &[&str]| {
            let view = view(Publish::Seen, listings, &[]);
            assert_eq!(shown(view.distinct()), expected, "{listings:?}");
        };
        check(&[("a/t", 0, "1000=9"), ("a/u", 5, "1000=9")], &["a/u 1000"]);
        check(&[("a/t", 0, "1000=9"), ("a/u", 5, "1000")], &["a/t 1000"]);
        // With the full archive below it that most have.
        let split = [
            ("a/t", 0, "1000=9 1000-1500=9"),
            ("a/u", 0, "1000=9"),
            ("a/v", 9, "1000b=9 1000-1500=9"),
        ];
        check(&split, &["a/t 1000-1500", "a/v 1000b ?", "a/t 1000"]);
    }

    #[test]
    fn what_several_groups_have_is_there_for_each_and_once_among_the_newest_of_all() {
        let regions = [("a/t", 0, "1000=9 1000-1500=9"), ("b/u", 0, "1000=9 1000-1500=9 900=9")];
        let view = view(Publish::Seen, &regions, &[]);
        let all = ["a/t 1000-1500", "a/t 1000", "b/u 1000-1500", "b/u 1000", "b/u 900"];
        assert_eq!(shown(view.distinct()), all);
        assert_eq!(shown(view.newest_distinct(None)), ["a/t 1000-1500", "a/t 1000", "b/u 900"]);
        assert_eq!(shown(view.newest_distinct(Some("a"))), all[..2]);
        assert_eq!(shown(view.newest_distinct(Some("b"))), all[2..]);
        assert_eq!(shown(view.newest_distinct(Some("c"))), [""; 0]);
    }

    #[test]
    fn none_is_newer_than_what_clients_are_led_to_where_they_wait_for_the_cache() {
        let check = |names: &str, held: &[&str], expected: &[&str]| {
            let waiting = view(Publish::Promoted, &[("a/t", 0, names)], held);
            let expected: Vec<String> = expected.iter().map(|text| format!("a/t {text}")).collect();
            assert_eq!(shown(waiting.newest_distinct(None)), expected, "{names} {held:?}");
            assert_eq!(shown(waiting.newest()), expected, "{names} {held:?}");
            let count = names.split(' ').count();
            assert_eq!(waiting.distinct().count(), count, "all of them are known all the same");
            let at_once = view(Publish::Seen, &[("a/t", 0, names)], held);
            assert_eq!(at_once.newest().count(), count);
        };
        let pair = ["1000", "1000-1500"];
        check("1000 1000-1500 1000-1600", &pair, &["1000-1500", "1000"]);
        check("1000 1000-1500 2000", &pair, &["1000-1500", "1000"]);
        check("1000 1000-1500 2000 2000-2100", &pair, &["1000-1500", "1000"]);
        check("900 1000 2000", &["1000"], &["1000", "900"]);
        // Nothing is cached yet, and what is wanted is offered after all.
        check("1000 1000-1500", &[], &["1000-1500", "1000"]);
    }
}
