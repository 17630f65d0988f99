//! What happened between two looks at an edge, in plain sentences. Pure.

use std::collections::BTreeMap;

use super::report::{EventKind, Group, Limit, Pair, Target, TargetState};

/// Targets that are told of one by one where so many do the same at once.
const MANY: usize = 10;

/// Something that happened: what kind of thing that is, and a sentence.
pub type Change = (EventKind, String);

/// What groups offer now that did not before.
pub fn of_groups(before: &[Group], after: &[Group]) -> Vec<Change> {
    let old = |name: &str| before.iter().find(|group| group.name == name);
    let mut changes = Vec::new();
    for group in after {
        let offered = old(&group.name).and_then(|group| group.offered.as_ref());
        if names(offered) != names(group.offered.as_ref()) {
            let text = match names(group.offered.as_ref()) {
                None => format!("Group {} offers nothing any more.", group.name),
                Some((full, None)) => format!("Group {} offers {full}.", group.name),
                Some((full, Some(incremental))) => {
                    format!("Group {} offers {full} and {incremental}.", group.name)
                }
            };
            changes.push((EventKind::Offered, text));
        }
    }
    changes
}

fn names(pair: Option<&Pair>) -> Option<(&str, Option<&str>)> {
    let pair = pair?;
    Some((&pair.full.name, pair.incremental.as_ref().map(|archive| &*archive.name)))
}

/// Targets that came, went, failed, and came back. Those of the first look are not told one by one:
/// `before` is nothing then.
pub fn of_targets(before: Option<&[Target]>, after: &[Target]) -> Vec<Change> {
    fn by_name(targets: &[Target]) -> BTreeMap<(&str, &str), TargetState> {
        targets.iter().map(|of| ((&*of.group, &*of.target), of.state)).collect()
    }
    let (is_first, old) = (before.is_none(), by_name(before.unwrap_or_default()));
    let mut changes = Vec::new();
    for target in after {
        let was = old.get(&(&*target.group, &*target.target)).copied();
        if was.is_none() && !is_first {
            let text = format!("Target {} joined group {}.", target.target, target.group);
            changes.push((EventKind::TargetFound, text));
        }
        changes.extend(moved(was.unwrap_or(TargetState::Unknown), target));
    }
    let new = by_name(after);
    for key @ (group, name) in old.keys() {
        if !new.contains_key(key) {
            let text = format!("Target {name} left group {group}.");
            changes.push((EventKind::TargetGone, text));
        }
    }
    summed(&changes)
}

/// One change for all of a kind where there are many of it at once, which would leave nothing else
/// to be seen.
fn summed(changes: &[Change]) -> Vec<Change> {
    let kinds = [
        (EventKind::TargetFound, "targets joined their groups"),
        (EventKind::TargetGone, "targets left their groups"),
        (EventKind::TargetUp, "targets offer archives"),
        (EventKind::TargetDown, "targets are down or offer nothing"),
        (EventKind::TargetEjected, "targets are ejected"),
        (EventKind::TargetReturned, "targets may carry transfers again"),
    ];
    let mut sums = Vec::new();
    for (kind, what) in kinds {
        let of_kind = || changes.iter().filter(|(other, _)| *other == kind);
        match of_kind().count() {
            0..=MANY => sums.extend(of_kind().cloned()),
            count => sums.push((kind, format!("{count} {what}."))),
        }
    }
    sums
}

/// What became of one target.
fn moved(was: TargetState, target: &Target) -> Option<Change> {
    use TargetState::{Down, Ejected, Empty, Failing, Unknown, Up};
    let because = match &target.reason {
        Some(reason) => format!(": {reason}"),
        None => String::new(),
    };
    let Target { target: name, group, state, .. } = target;
    let is_bad = |state: TargetState| matches!(state, Down | Empty);
    Some(match (was, *state) {
        (was, Down) if was != Down => {
            (EventKind::TargetDown, format!("Target {name} of group {group} is down{because}."))
        }
        (was, Empty) if was != Empty => (
            EventKind::TargetDown,
            format!("Target {name} of group {group} offers nothing{because}."),
        ),
        (was, Ejected) if was != Ejected => (
            EventKind::TargetEjected,
            format!("Target {name} of group {group} is ejected{because}."),
        ),
        (Ejected, Up) => (
            EventKind::TargetReturned,
            format!("Target {name} of group {group} may carry transfers again."),
        ),
        (was, Up | Failing) if is_bad(was) || (was == Unknown && *state == Up) => {
            (EventKind::TargetUp, format!("Target {name} of group {group} offers archives."))
        }
        _ => return None,
    })
}

/// Refusals for a bound since there had been so many; nothing where there are none.
pub fn of_limit(limit: &Limit, before: u64) -> Option<Change> {
    let Limit { name, limit, refused, .. } = limit;
    let more = refused.saturating_sub(before);
    let text = format!("{more} requests or connections were refused for limits.{name} ({limit}).");
    (more > 0).then_some((EventKind::Refused, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::report::{Archive, TargetKind, Unit};

    fn target(name: &str, state: TargetState) -> Target {
        Target {
            group: "g".to_owned(),
            target: name.to_owned(),
            kind: TargetKind::Unknown,
            state,
            reason: (state != TargetState::Up).then(|| "it hangs".to_owned()),
            answered_seconds_ago: None,
            probe_seconds: None,
            failures: 0,
            archives: 0,
            slot: None,
            ejected_until: None,
            rate: None,
            transfers: 0,
            received_bytes: 0,
        }
    }

    fn group(full: Option<&str>, incremental: Option<&str>) -> Group {
        let archive = |name: &str| Archive {
            name: name.to_owned(),
            slot: 1,
            size: None,
            cached: false,
            sources: 1,
        };
        Group {
            name: "g".to_owned(),
            offered: full
                .map(|full| Pair { full: archive(full), incremental: incremental.map(archive) }),
            wanted: None,
            age_slots: None,
            age_seconds: None,
            unchanged_seconds: None,
            targets: 0,
            targets_up: 0,
            conflicts: 0,
        }
    }

    #[test]
    fn each_change_of_a_target_is_told_once() {
        use TargetState::{Down, Ejected, Empty, Failing, Unknown, Up};
        for (was, is, expected) in [
            (Unknown, Up, Some(EventKind::TargetUp)),
            (Unknown, Down, Some(EventKind::TargetDown)),
            (Unknown, Empty, Some(EventKind::TargetDown)),
            (Up, Failing, None),
            (Failing, Up, None),
            (Failing, Down, Some(EventKind::TargetDown)),
            (Down, Down, None),
            (Down, Up, Some(EventKind::TargetUp)),
            (Empty, Up, Some(EventKind::TargetUp)),
            (Down, Empty, Some(EventKind::TargetDown)),
            (Up, Ejected, Some(EventKind::TargetEjected)),
            (Ejected, Up, Some(EventKind::TargetReturned)),
            (Up, Up, None),
        ] {
            let (before, after) = ([target("a", was)], [target("a", is)]);
            let kinds: Vec<EventKind> =
                of_targets(Some(&before), &after).into_iter().map(|(kind, _)| kind).collect();
            assert_eq!(kinds, expected.into_iter().collect::<Vec<_>>(), "{was:?} {is:?}");
        }
        let told = of_targets(Some(&[target("a", Up)]), &[target("b", Down)]);
        let told: Vec<&str> = told.iter().map(|(_, text)| &**text).collect();
        assert_eq!(
            told,
            [
                "Target b joined group g.",
                "Target a left group g.",
                "Target b of group g is down: it hangs.",
            ]
        );
        assert!(of_targets(None, &[target("a", Unknown)]).is_empty(), "the first look");
    }

    #[test]
    fn another_offer_and_none_are_told() {
        let text = |before: &Group, after: &Group| {
            let changes = of_groups(std::slice::from_ref(before), std::slice::from_ref(after));
            changes.into_iter().map(|(_, text)| text).collect::<Vec<_>>()
        };
        let (none, one, pair) =
            (group(None, None), group(Some("f"), None), group(Some("f"), Some("i")));
        assert_eq!(text(&none, &one), ["Group g offers f."]);
        assert_eq!(text(&one, &pair), ["Group g offers f and i."]);
        assert_eq!(text(&pair, &none), ["Group g offers nothing any more."]);
        assert!(text(&pair, &pair).is_empty() && text(&none, &none).is_empty());
    }

    #[test]
    fn many_targets_that_come_at_once_are_one_event() {
        let many = |state| -> Vec<Target> {
            (0..50).map(|number| target(&format!("t{number}"), state)).collect()
        };
        let told = of_targets(Some(&[]), &many(TargetState::Up));
        let texts: Vec<&str> = told.iter().map(|(_, text)| &**text).collect();
        assert_eq!(texts, ["50 targets joined their groups.", "50 targets offer archives."]);
        let told = of_targets(Some(&many(TargetState::Up)), &many(TargetState::Down));
        assert_eq!(told.len(), 1, "{told:?}");
        let told = of_targets(Some(&many(TargetState::Up)), &[]);
        assert_eq!(told, [(EventKind::TargetGone, "50 targets left their groups.".to_owned())]);
    }

    #[test]
    fn refusals_are_told_since_they_were_told_last() {
        let limit = |refused| {
            let (name, unit) = ("x".to_owned(), Unit::Count);
            Limit { name, used: 1, limit: 4, unit, refused }
        };
        let told = |before, after| of_limit(&limit(after), before).map(|(_, text)| text);
        let text = "2 requests or connections were refused for limits.x (4).";
        assert_eq!(told(1, 3).as_deref(), Some(text));
        assert_eq!((told(3, 3), told(0, 0)), (None, None));
    }
}
