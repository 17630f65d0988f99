//! Which cached archives go, and when. Pure: time is an argument.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::index::{Generation, Worth};
use crate::snapshot::ArchiveName;

/// For how long an archive is kept that is no longer the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// An archive is kept until the next refresh begins.
    UntilRefresh,
    /// Until a newer one of its kind is complete and nobody has read it for so long, or room is
    /// needed.
    Leased(Duration),
}

/// What is known of a complete archive when it is decided about.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: ArchiveName,
    /// The group that it came from.
    pub(super) group: Arc<str>,
    /// Bytes.
    pub(super) length: u64,
    pub(super) worth: Worth,
    /// What its group wants now.
    pub(super) successor: Option<Generation>,
    /// Since when it is known that another one is the best.
    pub(super) stale_since: Option<Instant>,
    /// Readers of this moment.
    pub(super) readers: usize,
    /// When the last reader that has gone was done.
    pub(super) last_read: Option<Instant>,
}

/// Archives that go by themselves, and when the next one may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) names: BTreeSet<ArchiveName>,
    pub(super) next: Option<Instant>,
}

/// Archives whose lease is over.
///
/// One that is being read has no end of its lease yet; look again when the reader has gone, at the
/// latest after another lease.
pub(super) fn ended(entries: &[Entry], lease: Duration, now: Instant) -> Ended {
    let mut ended = Ended::default();
    for entry in entries {
        let Some(end) = lease_end(entry, entries, lease, now) else { continue };
        if end <= now && entry.readers == 0 {
            ended.names.insert(entry.name);
        } else {
            ended.next = Some(ended.next.map_or(end, |next| next.min(end)));
        }
    }
    ended
}

/// When the lease of an archive ends, as far as that can be told while it is read; nothing where it
/// has none as yet: it is the best, or there is nothing after it.
pub(super) fn lease_end(
    entry: &Entry,
    entries: &[Entry],
    lease: Duration,
    now: Instant,
) -> Option<Instant> {
    let stale_since = entry.stale_since.filter(|_| is_followed(entry, entries))?;
    let busy = (entry.readers > 0).then_some(now);
    let since = [Some(stale_since), entry.last_read, busy].into_iter().flatten().max();
    Some(since.unwrap_or(now) + lease)
}

/// Archives that were the best and were overtaken: a newer one is complete as well.
pub(super) fn overtaken(entries: &[Entry]) -> BTreeSet<ArchiveName> {
    let overtaken =
        |entry: &&Entry| entry.worth == Worth::Superseded && is_followed(entry, entries);
    entries.iter().filter(overtaken).map(|entry| entry.name).collect()
}

/// Archives that are neither wanted nor offered.
pub(super) fn stale(entries: &[Entry]) -> BTreeSet<ArchiveName> {
    let stale = |entry: &&Entry| {
        matches!(entry.worth, Worth::Superseded | Worth::Doubtful | Worth::Baseless)
    };
    entries.iter().filter(stale).map(|entry| entry.name).collect()
}

/// Whether the next generation is complete: the one that the group wants, or a newer one than this
/// archive is of. Until then this one may be all that its clients can go on with.
fn is_followed(entry: &Entry, entries: &[Entry]) -> bool {
    let is_there = |name: ArchiveName| entries.iter().any(|other| other.name == name);
    let wanted = entry.successor.is_some_and(|wanted| wanted.names().all(is_there));
    let ours = || entries.iter().filter(|other| other.group == entry.group);
    let on = |full: &ArchiveName| {
        ours().any(|other| !other.name.is_full() && other.name.base_slot() == full.slot())
    };
    let is_next = |other: &Entry| {
        if other.name <= entry.name || other.name.is_full() != entry.name.is_full() {
            return false;
        }
        if entry.name.is_full() {
            // A full archive is no generation where there are incremental ones.
            return on(&other.name) || ours().all(|other| other.name.is_full());
        }
        let base = other.name.base_slot();
        let same = base == entry.name.base_slot();
        same || ours().any(|full| full.name.is_full() && full.name.slot() == base)
    };
    wanted || ours().any(is_next)
}

/// Archives that have to make room for so many bytes, `None` where all of them would not: what is
/// superseded before what may just not be listed, and that before what is still offered; what
/// nobody reads before what somebody reads; incremental archives before full ones, and the oldest
/// first. None goes that need not. What is wanted stays in any case.
pub(super) fn victims(entries: &[Entry], bytes: u64) -> Option<BTreeSet<ArchiveName>> {
    let rank = |entry: &Entry| match entry.worth {
        Worth::Superseded | Worth::Baseless => Some(0),
        Worth::Doubtful => Some(1),
        Worth::Offered => Some(2),
        Worth::Best => None,
    };
    let mut order: Vec<(u8, &Entry)> =
        entries.iter().filter_map(|entry| Some((rank(entry)?, entry))).collect();
    order.sort_by_key(|(rank, entry)| (*rank, entry.readers > 0, entry.name.is_full(), entry.name));
    let (mut going, mut sum) = (Vec::new(), 0_u64);
    for (_, entry) in order {
        if sum >= bytes {
            break;
        }
        sum = sum.saturating_add(entry.length);
        going.push(entry);
    }
    if sum < bytes {
        return None;
    }
    // A large one at the end can do without the small ones before it.
    going.retain(|entry| {
        let needed = sum - entry.length < bytes;
        sum -= if needed { 0 } else { entry.length };
        needed
    });
    Some(going.into_iter().map(|entry| entry.name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(60);

    fn full(slot: u64) -> ArchiveName {
        format!("snapshot-{slot}-{}.tar.zst", "1".repeat(32)).parse().expect("valid")
    }

    fn incremental(slot: u64) -> ArchiveName {
        let name = format!("incremental-snapshot-1000-{slot}-{}.tar.zst", "1".repeat(32));
        name.parse().expect("valid")
    }

    /// A best archive of ten bytes that nobody reads.
    fn best(name: ArchiveName) -> Entry {
        Entry {
            name,
            group: "main".into(),
            length: 10,
            worth: Worth::Best,
            successor: None,
            stale_since: None,
            readers: 0,
            last_read: None,
        }
    }

    fn stale(name: ArchiveName, since: Instant) -> Entry {
        Entry { worth: Worth::Superseded, stale_since: Some(since), ..best(name) }
    }

    /// What has ended after so many seconds, and in how many more seconds the next one may.
    #[track_caller]
    fn check(entries: &[Entry], start: Instant, at: u64, names: &[ArchiveName], next: Option<u64>) {
        let now = start + Duration::from_secs(at);
        let next = next.map(|seconds| now + Duration::from_secs(seconds));
        let expected = Ended { names: names.iter().copied().collect(), next };
        assert_eq!(ended(entries, LEASE, now), expected, "after {at} s");
    }

    #[test]
    fn a_lease_begins_with_the_last_reader_and_ends_once_the_next_one_is_complete() {
        let start = Instant::now();
        let [old, new] = [incremental(1500), incremental(1600)];
        let unread = [stale(old, start), best(new)];
        check(&unread, start, 0, &[], Some(60));
        check(&unread, start, 59, &[], Some(1));
        check(&unread, start, 60, &[old], None);

        let last_read = Some(start + Duration::from_secs(30));
        let read = [Entry { last_read, ..stale(old, start) }, best(new)];
        check(&read, start, 60, &[], Some(30));
        check(&read, start, 90, &[old], None);
        let reading = [Entry { readers: 1, last_read, ..stale(old, start) }, best(new)];
        check(&reading, start, 1000, &[], Some(60));

        // The next one is not there, is of another kind or of another group.
        check(&[stale(old, start)], start, 1000, &[], None);
        check(&[stale(old, start), best(full(2000))], start, 1000, &[], None);
        let other = Entry { group: "other".into(), ..best(new) };
        check(&[stale(old, start), other], start, 1000, &[], None);
        // A newer incremental archive is of no use without the full one that it is on.
        let next = format!("incremental-snapshot-2000-2500-{}.tar.zst", "1".repeat(32));
        let next: ArchiveName = next.parse().expect("valid");
        check(&[stale(old, start), best(next)], start, 1000, &[], None);
        check(&[stale(old, start), best(next), best(full(2000))], start, 1000, &[old], None);
        let base = stale(full(1000), start);
        check(&[base.clone(), best(full(2000)), best(next)], start, 1000, &[full(1000)], None);
        check(&[base.clone(), best(full(2000)), best(old)], start, 1000, &[], None);
        check(&[base, best(full(2000))], start, 1000, &[full(1000)], None);
        // What the group wants may have come from another group.
        let wanted = Generation { full: full(2000), incremental: Some(next) };
        let entry = Entry { successor: Some(wanted), ..stale(old, start) };
        let elsewhere = |name| Entry { group: "other".into(), ..best(name) };
        let complete = [entry.clone(), elsewhere(full(2000)), elsewhere(next)];
        check(&complete, start, 1000, &[old], None);
        check(&[entry, elsewhere(next)], start, 1000, &[], None);
        // Several old ones follow each other, and what is the best has no lease.
        let chain = [stale(incremental(1400), start), stale(old, start), best(new)];
        check(&chain, start, 60, &[incremental(1400), old], None);
        check(&[best(old), best(new)], start, 1000, &[], None);
    }

    #[test]
    fn what_was_overtaken_is_followed_by_a_complete_one() {
        let start = Instant::now();
        let [old, new] = [incremental(1500), incremental(1600)];
        let doubtful = Entry { worth: Worth::Doubtful, ..best(old) };
        assert_eq!(overtaken(&[stale(old, start), best(new)]), [old].into());
        assert_eq!(overtaken(&[stale(old, start), best(full(2000))]), [].into());
        assert_eq!(overtaken(&[stale(old, start)]), [].into());
        assert_eq!(overtaken(&[doubtful, best(new)]), [].into());
        assert_eq!(overtaken(&[best(old), best(new)]), [].into());
    }

    #[test]
    fn what_makes_room_is_worth_least_and_no_more_than_has_to() {
        let start = Instant::now();
        let [a, b, c] = [incremental(1400), incremental(1500), incremental(1600)];
        let reading = |name| Entry { readers: 1, ..stale(name, start) };
        let doubtful = |name| Entry { worth: Worth::Doubtful, ..best(name) };
        let check = |entries: &[Entry], bytes, expected: &[ArchiveName]| {
            let found = victims(entries, bytes).map(|names| names.into_iter().collect::<Vec<_>>());
            assert_eq!(found.as_deref(), Some(expected), "{bytes}");
        };
        let entries = [stale(a, start), stale(b, start), best(c)];
        check(&entries, 0, &[]);
        check(&entries, 1, &[a]);
        check(&entries, 10, &[a]);
        check(&entries, 11, &[a, b]);
        check(&entries, 20, &[a, b]);
        assert_eq!(victims(&entries, 21), None, "nothing goes in vain");
        check(&[reading(a), stale(b, start), best(c)], 5, &[b]);
        check(&[doubtful(a), reading(b), best(c)], 5, &[b]);
        check(&[doubtful(a), best(c)], 5, &[a]);
        let offered = Entry { worth: Worth::Offered, ..best(a) };
        check(&[offered.clone(), doubtful(b), best(c)], 5, &[b]);
        check(&[offered, doubtful(b), best(c)], 15, &[a, b]);
        assert_eq!(victims(&[best(a)], 5), None);
        check(&[best(a)], 0, &[]);
        // The full one is enough, and alone it is not worth less than all that are on it.
        let large = Entry { length: 100, ..stale(full(1000), start) };
        let entries = [stale(a, start), stale(b, start), large];
        check(&entries, 15, &[a, b]);
        check(&entries, 95, &[full(1000)]);
        check(&entries, 105, &[full(1000), b]);
    }
}
