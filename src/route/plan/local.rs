//! Whether an archive comes out of a local directory, and out of which.

use std::sync::Arc;

use super::entry::EntryState;
use super::sources::Case;
use crate::index::{Source, TargetId};
use crate::route::balance::MAX_TRIES;

/// Which of the ledgers that have an archive a request may be answered from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice<'a> {
    /// Any.
    Any,
    /// The one whose copy the client has bytes of.
    Only(&'a TargetId),
    /// None: the client has bytes of a copy that is elsewhere.
    Elsewhere,
}

impl Case<'_> {
    /// The ledgers in the order in which they are asked for an archive that the cache does not
    /// serve. None where no ledger has it, or where it has to come from elsewhere: the client has
    /// bytes of another copy, or the ledgers are `resting` and a target on the network has it.
    ///
    /// All clients get the same order: the file that one reads is in memory for the next.
    pub(super) fn directories(
        &self,
        cached: EntryState<'_>,
        resting: impl Fn(&TargetId) -> bool,
    ) -> Vec<Arc<Source>> {
        let sources = self.view.sources(&self.name);
        let ledgers = || sources.iter().filter(|source| source.target.is_ledger());
        let chosen = match self.choice(cached, ledgers) {
            Choice::Elsewhere => return Vec::new(),
            Choice::Only(target) => {
                return ledgers().filter(|source| source.target == *target).cloned().collect();
            }
            Choice::Any => ledgers(),
        };
        let (tired, mut directories): (Vec<_>, Vec<_>) =
            chosen.cloned().partition(|source| resting(&source.target));
        if sources.iter().all(|source| source.target.is_ledger()) {
            directories.extend(tired);
        }
        directories.truncate(MAX_TRIES);
        directories
    }

    fn choice<'a, L: Iterator<Item = &'a Arc<Source>>>(
        &'a self,
        cached: EntryState<'_>,
        ledgers: impl Fn() -> L,
    ) -> Choice<'a> {
        if !self.has_to_fit() {
            return Choice::Any;
        }
        match (self.asked.has_named(), self.affinity.pinned()) {
            (true, _) => {
                if let Some(source) = ledgers().find(|source| self.names(source)) {
                    return Choice::Only(&source.target);
                }
                let named = |copy| self.asked.names(copy) == Some(true);
                let is_cached = cached.copy().is_some_and(named);
                // A condition that names nothing gets all of whichever copy.
                if is_cached || self.named_by_condition() { Choice::Elsewhere } else { Choice::Any }
            }
            (false, Some(given)) if given.target.is_ledger() => Choice::Only(&given.target),
            (false, Some(_)) => Choice::Elsewhere,
            (false, None) => Choice::Any,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sharing;
    use crate::index::View;
    use crate::route::plan::CachePolicy;
    use crate::route::plan::tests::{copy_on, full, given, target, view as view_of};
    use crate::route::{Affinity, Asked, Conditions, Failure, IfRange, RangeRequest, TEST_KEY};
    use http::Method;
    use std::net::Ipv4Addr;

    const POLICY: CachePolicy = CachePolicy { sharing: Sharing::Exclusive, keeps: false };

    /// The archive on these targets, the same everywhere but for its copy.
    fn view(targets: &[&str]) -> View {
        view_of(&targets.join(" "))
    }

    /// A request: `GET`, `HEAD` or `GET <range>`, with a condition that names the copy of a target,
    /// after bytes of the copy of a target were begun, while the copy of a target is cached.
    #[derive(Clone, Copy, Default)]
    struct Row<'a> {
        request: &'a str,
        condition: Option<&'a str>,
        begun: Option<&'a str>,
        cached: Option<&'a str>,
        resting: &'a [&'a str],
    }

    #[track_caller]
    fn check(on: &[&str], row: Row<'_>, expected: &[&str]) {
        let (method, range) = row.request.split_once(' ').unwrap_or((row.request, ""));
        let asked = Asked {
            method: method.parse().expect("a method"),
            range: RangeRequest::parse(range),
            if_range: row
                .condition
                .map(|text| IfRange::new(&TEST_KEY.tag(copy_on(text)), TEST_KEY)),
            conditions: Conditions::default(),
        };
        let begun = row.begun.map(given);
        let cached_on = row.cached.map(target);
        let cached = match (&cached_on, row.cached) {
            (Some(target), Some(text)) => EntryState::Whole { target, copy: copy_on(text) },
            _ => EntryState::Nothing,
        };
        let view = view(on);
        let affinity = begun.map_or(Affinity::Fresh, |begun| match row.condition {
            Some(_) => Affinity::Condition(Some(begun)),
            None => Affinity::Pinned(begun),
        });
        let client = Ipv4Addr::LOCALHOST.into();
        let (name, asked, view, affinity) = (full(1000), &asked, &view, &affinity);
        let case = Case { name, client, asked, affinity, view, policy: POLICY };
        let resting = |id: &TargetId| row.resting.iter().any(|text| target(text) == *id);
        let found = case.directories(cached, resting);
        let found: Vec<TargetId> = found.iter().map(|source| source.target.clone()).collect();
        let expected: Vec<TargetId> = expected.iter().map(|text| target(text)).collect();
        assert_eq!(found, expected, "{} on {on:?}", row.request);
    }

    const WHOLE: Row<'static> =
        Row { request: "GET", condition: None, begun: None, cached: None, resting: &[] };
    const PART: Row<'static> = Row { request: "GET bytes=5-", ..WHOLE };

    #[test]
    fn a_ledger_comes_before_the_network() {
        for request in ["GET", "HEAD", "GET bytes=0-", "GET bytes=5-", "GET bytes=0-1,5-6"] {
            let row = Row { request, ..WHOLE };
            check(&[], row, &[]);
            check(&["n1", "n2"], row, &[]);
            check(&["l1"], row, &["l1"]);
            check(&["n1", "l1"], row, &["l1"]);
            check(&["l2", "n1", "l1"], row, &["l1", "l2"]);
        }
        let many: Vec<String> = (10..30).map(|number| format!("l{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        check(&many, WHOLE, &many[..MAX_TRIES]);
    }

    #[test]
    fn a_ledger_that_rests_comes_after_all_others() {
        let rests = |resting| Row { resting, ..WHOLE };
        check(&["l1", "l2"], rests(&["l1"]), &["l2", "l1"]);
        check(&["l1", "l2", "n1"], rests(&["l1"]), &["l2"]);
        check(&["l1", "n1"], rests(&["l1"]), &[]);
        check(&["l1"], rests(&["l1"]), &["l1"]);
        // Who has begun its copy has nowhere else to go.
        let begun = Row { begun: Some("l1"), resting: &["l1"], ..PART };
        check(&["l1", "l2", "n1"], begun, &["l1"]);
    }

    #[test]
    fn who_has_bytes_of_a_copy_keeps_it() {
        let all = ["l1", "l2", "n1"];
        check(&all, Row { begun: Some("l2"), ..PART }, &["l2"]);
        check(&all, Row { begun: Some("n1"), ..PART }, &[]);
        check(&all, Row { begun: Some("n2"), ..PART }, &[]);
        check(&["l1", "n1"], Row { begun: Some("l2"), ..PART }, &[]);
        // Beside parts of a copy that are under way, all of it has to be of that one as well.
        for request in ["GET", "HEAD", "GET bytes=0-"] {
            check(&all, Row { request, begun: Some("n1"), ..WHOLE }, &[]);
            check(&all, Row { request, begun: Some("l2"), ..WHOLE }, &["l2"]);
            check(&all, Row { request, ..WHOLE }, &["l1", "l2"]);
        }
        // A condition decides, whatever was begun.
        check(&all, Row { condition: Some("l2"), ..PART }, &["l2"]);
        check(&all, Row { condition: Some("l2"), begun: Some("n1"), ..PART }, &["l2"]);
        check(&all, Row { condition: Some("n1"), begun: Some("l1"), ..PART }, &[]);
        check(&all, Row { condition: Some("n9"), ..PART }, &["l1", "l2"]);
        check(&all, Row { condition: Some("n9"), cached: Some("n9"), ..PART }, &[]);
        check(&all, Row { condition: Some("l2"), cached: Some("n9"), ..PART }, &["l2"]);
    }

    #[test]
    fn nobody_asks_a_ledger_over_the_network() {
        let asked = Asked::all(Method::GET);
        let sources = |on: &[&str]| {
            let view = view(on);
            let client = Ipv4Addr::LOCALHOST.into();
            let (name, asked, view, affinity) = (full(1000), &asked, &view, &Affinity::Fresh);
            let case = Case { name, client, asked, affinity, view, policy: POLICY };
            let sources = case.sources(EntryState::Nothing, &crate::route::Strangers, |_| false)?;
            Ok(sources.iter().map(|source| source.target.clone()).collect::<Vec<_>>())
        };
        assert_eq!(sources(&["l1", "n1"]), Ok(vec![target("n1")]));
        assert_eq!(sources(&["l1"]), Err(Failure::NotHeld));
    }
}
