//! Whether an archive comes out of a local directory, and out of which.

use std::sync::Arc;

use super::balance::MAX_TRIES;
use super::caching::Cached;
use super::wish::Wish;
use crate::index::{CopyId, Source, TargetId};

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

impl Wish<'_> {
    /// The ledgers in the order in which they are asked for an archive that the cache does not
    /// serve. None where no ledger has it, or where it has to come from elsewhere: the client has
    /// bytes of another copy, or the ledgers are `resting` and a target on the network has it.
    ///
    /// All clients get the same order: the file that one reads is in memory for the next.
    pub fn lenders(
        &self,
        cached: Cached<'_>,
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
        let (tired, mut lenders): (Vec<_>, Vec<_>) =
            chosen.cloned().partition(|source| resting(&source.target));
        if sources.iter().all(|source| source.target.is_ledger()) {
            lenders.extend(tired);
        }
        lenders.truncate(MAX_TRIES);
        lenders
    }

    fn choice<'a, L: Iterator<Item = &'a Arc<Source>>>(
        &'a self,
        cached: Cached<'_>,
        ledgers: impl Fn() -> L,
    ) -> Choice<'a> {
        if !self.asked.has_to_fit() {
            return Choice::Any;
        }
        match (self.asked.has_named(), self.given) {
            (true, _) => {
                if let Some(source) = ledgers().find(|source| self.names(source)) {
                    return Choice::Only(&source.target);
                }
                let named = |copy| self.asked.names(copy) == Some(true);
                let is_cached = copy(cached).is_some_and(named);
                // A condition that names nothing gets all of whichever copy.
                if is_cached || self.named_by_condition() { Choice::Elsewhere } else { Choice::Any }
            }
            (false, Some(given)) if given.target.is_ledger() => Choice::Only(&given.target),
            (false, Some(_)) => Choice::Elsewhere,
            (false, None) => Choice::Any,
        }
    }
}

fn copy(cached: Cached<'_>) -> Option<CopyId> {
    match cached {
        Cached::Nothing | Cached::Filling(_) => None,
        Cached::Growing { copy, .. } | Cached::Whole { copy, .. } => Some(copy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;
    use crate::config::Sharing;
    use crate::index::{Catalog, Event, Listed, Location, Policy, Publish, View};
    use crate::route::{Asked, Conditions, Failure, Given, IfRange, RangeRequest, TEST_KEY, Terms};
    use crate::snapshot::ArchiveName;
    use http::Method;
    use std::net::Ipv4Addr;
    use std::time::{Duration, Instant, UNIX_EPOCH};

    const SIZE: u64 = 1000;
    const TERMS: Terms = Terms { sharing: Sharing::Exclusive, keeps: false };

    fn name() -> ArchiveName {
        format!("snapshot-1000-{}.tar.zst", "1".repeat(32)).parse().expect("valid")
    }

    /// `l1` and so on are ledgers, `n1` and so on are targets on the network.
    fn target(text: &str) -> TargetId {
        let (kind, number) = text.split_at(1);
        match kind {
            "l" => TargetId::ledger("g".into(), &format!("/ledger/{number}")),
            _ => TargetId { group: "g".into(), authority: format!("10.0.0.{number}:8899").into() },
        }
    }

    /// The archive on these targets, the same everywhere but for its copy.
    fn view(targets: &[&str]) -> View {
        let at = Now { instant: Instant::now(), wall: UNIX_EPOCH };
        let mut catalog = Catalog::default();
        for text in targets {
            let target = target(text);
            let location = (!target.is_ledger()).then(|| Location {
                scheme: "http",
                address: ([10, 0, 0, 1], 8899).into(),
                authority: Arc::clone(&target.authority),
                path: format!("/{}", name()),
                access: 0,
                via: crate::hops::Via::default(),
            });
            let listed =
                Listed { name: name(), size: Some(SIZE), modified: None, tag: None, location };
            catalog.apply(Event::Answered { target, at, archives: vec![listed] });
        }
        let policy = Policy {
            probe_failures: 3,
            pair_hold: Duration::from_secs(600),
            publish: Publish::Seen,
        };
        catalog.view(&View::default(), &["g".into()], policy, at.instant)
    }

    fn copy_on(text: &str) -> CopyId {
        let target = target(text);
        if target.is_ledger() {
            CopyId::of_file(&target.authority, SIZE, None)
        } else {
            CopyId::new(&target.authority, SIZE, None)
        }
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
        let given = row.begun.map(|text| Given { target: target(text), copy: copy_on(text) });
        let cached_on = row.cached.map(target);
        let cached = match (&cached_on, row.cached) {
            (Some(target), Some(text)) => Cached::Whole { target, copy: copy_on(text) },
            _ => Cached::Nothing,
        };
        let view = view(on);
        let given = given.as_ref().filter(|_| asked.range.is_part_of_a_file());
        let client = Ipv4Addr::LOCALHOST.into();
        let (name, asked, view) = (name(), &asked, &view);
        let wish = Wish { name, client, asked, given, shown: None, view, terms: TERMS };
        let resting = |id: &TargetId| row.resting.iter().any(|text| target(text) == *id);
        let found = wish.lenders(cached, resting);
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
        // These begin anew.
        for request in ["GET", "HEAD", "GET bytes=0-"] {
            check(&all, Row { request, begun: Some("n1"), ..WHOLE }, &["l1", "l2"]);
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
            let (name, asked, view) = (name(), &asked, &view);
            let wish = Wish { name, client, asked, given: None, shown: None, view, terms: TERMS };
            let sources = wish.sources(Cached::Nothing, &crate::route::Strangers, |_| false)?;
            Ok(sources.iter().map(|source| source.target.clone()).collect::<Vec<_>>())
        };
        assert_eq!(sources(&["l1", "n1"]), Ok(vec![target("n1")]));
        assert_eq!(sources(&["l1"]), Err(Failure::NotHeld));
    }
}
