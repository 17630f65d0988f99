//! Whether an archive that nobody lists may be a new one, and which targets to ask for it.
//!
//! Names are told by gossip, up to a scrape interval before the index has them. What cannot be as
//! new as that is not asked for: nobody may cause requests to targets by names that are old, or by
//! spelling a known name with other extensions.

use std::cmp::Reverse;
use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::index::{GroupView, TargetId, View};
use crate::snapshot::{ArchiveName, Compression};

/// Slots that a new archive may be behind the newest one of its kind: nodes of one fleet make
/// incremental archives at different slots, and not all at the same speed.
pub(super) const SLACK: u64 = 1000;
/// Most targets that are asked for one name.
pub(super) const MAX_ASKED: usize = 32;

/// True where the index has this archive, or the same state in another compression. Agave's client
/// asks for one extension after the other of what it could not get.
pub(super) fn is_known(name: &ArchiveName, view: &View) -> bool {
    let mut forms = Compression::ALL.into_iter().map(|form| name.compressed(form));
    forms.any(|form| view.is_held(&form, None))
}

/// True for an archive that a target of `group` may have made since it was probed. Whether its base
/// is known makes no difference: what offers the base may be what has not been probed either.
pub(super) fn is_news(name: &ArchiveName, group: &str, view: &View) -> bool {
    let best = view.group(group).and_then(|GroupView { best, .. }| *best);
    // A group that has nothing yet may have anything.
    let Some(best) = best else { return true };
    let newest = match best.incremental {
        Some(incremental) if !name.is_full() => incremental,
        _ => best.full,
    };
    name.slot().0 >= newest.slot().0.saturating_sub(SLACK)
}

/// Whom to ask, and no more than [`MAX_ASKED`]: in an order that differs with the name, those that
/// are `resting` last.
pub(super) fn whom_to_ask<T>(
    name: &ArchiveName,
    mut targets: Vec<(TargetId, T)>,
    resting: impl Fn(&TargetId) -> bool,
) -> Vec<(TargetId, T)> {
    targets.sort_by_cached_key(|(target, _)| {
        (resting(target), Reverse(weight(name, target)), target.clone())
    });
    targets.truncate(MAX_ASKED);
    targets
}

fn weight(name: &ArchiveName, target: &TargetId) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(name.to_string().as_bytes());
    hasher.write(target.group.as_bytes());
    hasher.write_u8(0);
    hasher.write(target.authority.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;
    use crate::index::{Catalog, Event, Held, Listed, Policy, Publish};
    use crate::snapshot::ArchiveHash;
    use std::collections::BTreeSet;
    use std::time::{Duration, Instant, UNIX_EPOCH};

    const KNOWN: &str = "1";
    const OTHER: &str = "2";

    /// `5000` or `5000-6000`, of this hash, with this extension.
    fn name(slots: &str, hash: &str, extension: &str) -> ArchiveName {
        let kind = if slots.contains('-') { "incremental-snapshot" } else { "snapshot" };
        let hash = ArchiveHash::new([hash.as_bytes()[0]; 32]);
        format!("{kind}-{slots}-{hash}.{extension}").parse().expect("valid")
    }

    fn target(group: &str, number: usize) -> TargetId {
        TargetId { group: group.into(), authority: format!("10.0.0.{number}:8899").into() }
    }

    /// `pair` offers a pair, `bare` a full archive alone, `empty` has answered, `silent` has not,
    /// and of `cached` the cache alone has something.
    fn view() -> View {
        let at = Now { instant: Instant::now(), wall: UNIX_EPOCH };
        let mut catalog = Catalog::default();
        let listed = |slots: &&str| Listed {
            name: name(slots, KNOWN, "tar.zst"),
            size: None,
            modified: None,
            tag: None,
            location: None,
        };
        let groups: [(&str, &[&str]); 3] =
            [("pair", &["50000", "50000-60000"]), ("bare", &["90000"]), ("empty", &[])];
        for (group, slots) in groups {
            let archives = slots.iter().map(listed).collect();
            catalog.apply(Event::Answered { target: target(group, 1), at, archives });
        }
        let held = name("70000", KNOWN, "tar.zst");
        let from = target("cached", 1);
        let age = Duration::ZERO;
        catalog.hold(&[Held { name: held, target: from, size: 7, modified: None, since: at, age }]);
        let policy = Policy {
            probe_failures: 3,
            pair_hold: Duration::from_secs(600),
            publish: Publish::Seen,
        };
        let groups = ["pair", "bare", "empty", "silent", "cached"].map(Into::into);
        catalog.view(&View::default(), &groups, policy, at.instant)
    }

    #[test]
    fn a_name_is_known_by_its_state_and_not_by_its_extension() {
        let view = view();
        let check = |slots, hash, expected| {
            for form in Compression::ALL {
                let name = name(slots, hash, form.extension());
                assert_eq!(is_known(&name, &view), expected, "{name}");
            }
        };
        check("50000", KNOWN, true);
        check("50000-60000", KNOWN, true);
        check("90000", KNOWN, true);
        check("70000", KNOWN, true);
        check("50000", OTHER, false);
        check("50000-60000", OTHER, false);
        check("60000", KNOWN, false);
        check("50001-60000", KNOWN, false);
        assert!(!is_known(&name("50000", KNOWN, "tar.zst"), &View::default()));
    }

    #[test]
    fn what_is_older_than_what_the_group_offers_is_no_news() {
        let view = view();
        let check = |group, slots, expected| {
            let found = is_news(&name(slots, OTHER, "tar.zst"), group, &view);
            assert_eq!(found, expected, "{slots} in {group}");
        };
        // Each kind is compared with its own.
        check("pair", "48999", false);
        check("pair", "49000", true);
        check("pair", "50000", true);
        check("pair", "18446744073709551615", true);
        check("pair", "50000-58999", false);
        check("pair", "50000-59000", true);
        check("pair", "50000-60001", true);
        // Whatever its base.
        check("pair", "3-59000", true);
        check("pair", "60000-60001", true);
        check("pair", "0-58999", false);
        // Without an incremental archive, those behind the full one are old.
        check("bare", "88999", false);
        check("bare", "89000", true);
        check("bare", "50000-88999", false);
        check("bare", "50000-89000", true);
        check("bare", "90000-90100", true);
        check("cached", "68999", false);
        check("cached", "69000", true);
        for group in ["empty", "silent", "nowhere"] {
            check(group, "0", true);
            check(group, "0-1", true);
        }
        assert!(is_news(&name("0", OTHER, "tar"), "pair", &View::default()));
    }

    #[test]
    fn at_most_so_many_are_asked_others_for_each_name_and_those_that_rest_last() {
        let targets = |count| (0..count).map(|at| (target("g", at), at)).collect::<Vec<_>>();
        let none_rests = |_: &TargetId| false;
        let asked = |slots: &str, count| {
            let asked = whom_to_ask(&name(slots, OTHER, "tar.zst"), targets(count), none_rests);
            asked.into_iter().map(|(_, at)| at).collect::<Vec<_>>()
        };
        let distinct: BTreeSet<usize> = asked("1000", 10).into_iter().collect();
        assert_eq!(distinct.len(), 10, "each of a few");
        assert_eq!(asked("1000", 200).len(), MAX_ASKED);
        assert_eq!(asked("1000", 200), asked("1000", 200));
        let all: BTreeSet<usize> =
            (0..100).flat_map(|slot| asked(&slot.to_string(), 200)).collect();
        assert!(all.len() > 190, "over many names everybody is asked: {}", all.len());
        let resting = |id: &TargetId| *id != target("g", 7);
        let name = name("1000", OTHER, "tar.zst");
        assert_eq!(whom_to_ask(&name, targets(200), resting)[0].1, 7);
    }
}
