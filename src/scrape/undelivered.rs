//! The lines of the log about archives that none of their targets delivers.

use crate::index::{Undelivered, View};

/// Most archives of one view that the log names one by one.
const MAX_LOGGED: usize = 5;
/// Most targets of one archive that it names.
const MAX_NAMED: usize = 4;

/// One line for an archive that short names go back from, and one when they may lead to it again.
/// What is listed no more has none: there is nothing to come back to.
pub(super) fn report_undelivered(before: &View, after: &View) {
    let new = after.undelivered().filter(|(name, _)| !before.is_undelivered(name));
    for (name, failed) in new.take(MAX_LOGGED) {
        let is_replaced = after.groups().any(|(_, group)| group.withholds(name));
        let (targets, then) = (described(failed), consequence(is_replaced));
        log::warn!("{name} is not delivered by {targets}: {then}");
    }
    let old = before.undelivered().filter(|(name, _)| !after.is_undelivered(name));
    for (name, _) in old.filter(|(name, _)| after.is_held(name, None)).take(MAX_LOGGED) {
        let sources = after.sources(name).iter().map(|source| format!("target {}", source.target));
        let sources = listed(&sources.collect::<Vec<_>>());
        log::info!("{name} can be had again ({sources}): short names may lead to it");
    }
}

fn consequence(is_replaced: bool) -> &'static str {
    if is_replaced {
        "short names go back to what can be had, until one of them delivers it"
    } else {
        "there is nothing else, and short names go on to lead to it"
    }
}

fn described(failed: &[Undelivered]) -> String {
    let one = |failed: &Undelivered| format!("target {} ({})", failed.target, failed.why);
    listed(&failed.iter().map(one).collect::<Vec<_>>())
}

fn listed(targets: &[String]) -> String {
    let named = targets.get(..MAX_NAMED).unwrap_or(targets).join(", ");
    match targets.len().saturating_sub(MAX_NAMED) {
        0 if named.is_empty() => "the cache".to_owned(),
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_named_and_many_are_counted() {
        let targets = |count: usize| (0..count).map(|at| format!("t{at}")).collect::<Vec<_>>();
        for (count, expected) in
            [(0, "the cache"), (1, "t0"), (4, "t0, t1, t2, t3"), (6, "t0, t1, t2, t3 and 2 more")]
        {
            assert_eq!(listed(&targets(count)), expected);
        }
    }
}
