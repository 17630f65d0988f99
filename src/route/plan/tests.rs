//! Every decision about a request for an archive, a row each; and that the decisions come to an
//! end.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::{
    Announced, ArchiveRequest, CachePolicy, EntryState, Inquiry, MAX_TURNS, Question, Step,
    Transfer, Tried, World, next,
};
use crate::clock::Now;
use crate::config::{Downloads, Sharing};
use crate::hops::{CdnLoop, Via};
use crate::index::{
    AccessKey, Catalog, CopyId, Event, Listed, Location, Policy, Publish, Source, TargetId, View,
};
use crate::route::{
    Affinity, Asked, Bypass, Failure, PinnedCopy, SourceFailure, Strangers, TEST_KEY,
};
use crate::snapshot::ArchiveName;

const SIZE: u64 = 1000;

/// A request, and all that there is.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "columns of a table")]
struct Row<'a> {
    /// The method, and a range after it: `GET`, `HEAD`, `GET bytes=5-`.
    request: &'a str,
    /// A condition: `if-range n1`, `if-match n1`, `if-none-match n1`, by the copy of a target.
    condition: &'a str,
    /// Whether it is for an archive that is not the best one.
    old: bool,
    /// The targets that have it: `n1` and so on on the network, `l1` and so on local directories;
    /// `e1` and so on come through the edge that asks, where one does.
    on: &'a str,
    /// What the cache has: `off`, `nothing`, `filling n1`, `whole n1`, or `growing n1` and up to
    /// where it will be there in time, and `ranges` where its target serves them.
    entry: &'a str,
    /// What the client has: `fresh`, `torn`, or `announced`, `condition`, `pinned` and a target.
    has: &'a str,
    sharing: Sharing,
    keeps: bool,
    downloads: Downloads,
    admitted: bool,
    /// Whether another edge asks.
    edge: bool,
    /// Targets whose copies are no archives, and those that failed when they were tried.
    unsound: &'a str,
    failed: &'a str,
    tried: Tried,
}

fn row() -> Row<'static> {
    Row {
        request: "GET",
        condition: "",
        old: false,
        on: "n1 n2",
        entry: "nothing",
        has: "fresh",
        sharing: Sharing::Exclusive,
        keeps: false,
        downloads: Downloads::Proxy,
        admitted: true,
        edge: false,
        unsound: "",
        failed: "",
        tried: Tried::default(),
    }
}

fn shared() -> Row<'static> {
    Row { sharing: Sharing::Shared, ..row() }
}

pub(super) fn full(slot: u64) -> ArchiveName {
    format!("snapshot-{slot}-{}.tar.zst", "1".repeat(32)).parse().expect("valid")
}

pub(super) fn target(text: &str) -> TargetId {
    let (kind, number) = text.split_at(1);
    match kind {
        "l" => TargetId::ledger("g".into(), &format!("/ledger/{number}")),
        _ => TargetId { group: "g".into(), authority: format!("{text}.example:8899").into() },
    }
}

pub(super) fn copy_on(text: &str) -> CopyId {
    let target = target(text);
    if target.is_ledger() {
        CopyId::of_file(&target.authority, SIZE, None)
    } else {
        CopyId::new(&target.authority, SIZE, None)
    }
}

pub(super) fn given(text: &str) -> Arc<PinnedCopy> {
    Arc::new(PinnedCopy { target: target(text), copy: copy_on(text) })
}

/// The archives at the slots 1000 and 900 on these targets.
pub(super) fn view(on: &str) -> View {
    let at = Now { instant: Instant::now(), wall: UNIX_EPOCH };
    let mut catalog = Catalog::default();
    for text in on.split_whitespace() {
        let target = target(text);
        let edges = if text.starts_with('e') { &["asker"][..] } else { &[] };
        let own = "own".parse().expect("a name");
        let via = Via::through(edges.iter().copied(), false, &own).expect("a way");
        let location = (!target.is_ledger()).then(|| Location {
            scheme: "http",
            address: ([10, 0, 0, 1], 8899).into(),
            authority: Arc::clone(&target.authority),
            path: "/archive".to_owned(),
            access: AccessKey::default(),
            via: via.clone(),
        });
        let listed = |name| Listed {
            name,
            size: Some(SIZE),
            modified: None,
            tag: None,
            location: location.clone(),
        };
        let archives = vec![listed(full(1000)), listed(full(900))];
        catalog.apply(Event::Answered { target, at, archives });
    }
    let policy =
        Policy { probe_failures: 3, pair_hold: Duration::from_secs(600), publish: Publish::Seen };
    catalog.view(&View::default(), &["g".into()], policy, at.instant)
}

impl Row<'_> {
    fn asked(&self) -> Asked {
        let (method, range) = self.request.split_once(' ').unwrap_or((self.request, ""));
        let mut headers = HeaderMap::new();
        let mut insert = |name: &str, value: &str| {
            let name: HeaderName = name.parse().expect("a name");
            headers.insert(name, HeaderValue::from_str(value).expect("a value"));
        };
        if !range.is_empty() {
            insert("range", range);
        }
        if let Some((name, of)) = self.condition.split_once(' ') {
            insert(name, &TEST_KEY.tag(copy_on(of)));
        }
        Asked::of(&method.parse().expect("a method"), &headers, TEST_KEY)
    }

    fn request(&self) -> ArchiveRequest {
        let came = self.edge.then_some(&b"snapedge-asker"[..]);
        ArchiveRequest {
            name: full(if self.old { 900 } else { 1000 }),
            client: Ipv4Addr::LOCALHOST.into(),
            asked: self.asked(),
            came: Arc::new(CdnLoop::parse(came.into_iter())),
            group: None,
        }
    }

    fn affinity(&self) -> Affinity {
        match self.has.split_once(' ').unwrap_or((self.has, "")) {
            ("fresh", _) => Affinity::Fresh,
            ("torn", _) => Affinity::Torn,
            ("announced", of) => Affinity::Announced(given(of)),
            ("pinned", of) => Affinity::Pinned(given(of)),
            ("condition", "") => Affinity::Condition(None),
            ("condition", of) => Affinity::Condition(Some(given(of))),
            other => panic!("{other:?}"),
        }
    }

    fn next(&self) -> Result<Step, Failure> {
        let words: Vec<&str> = self.entry.split(' ').collect();
        let of = words.get(1).map(|text| (target(text), copy_on(text)));
        let entry = match (words[0], &of) {
            ("off", _) => None,
            ("nothing", _) => Some(EntryState::Nothing),
            ("filling", Some((target, _))) => Some(EntryState::Filling(target)),
            ("whole", Some((target, copy))) => Some(EntryState::Whole { target, copy: *copy }),
            ("growing", Some((target, copy))) => Some(EntryState::Growing {
                target,
                copy: *copy,
                length: SIZE,
                reach: words[2].parse().expect("a position"),
                ranges: words.get(3) == Some(&"ranges"),
            }),
            other => panic!("{other:?}"),
        };
        let is_among = |source: &Source, names: &str| {
            names.split_whitespace().any(|text| target(text) == source.target)
        };
        let world = World {
            view: &view(self.on),
            entry,
            affinity: &self.affinity(),
            targets: &Strangers,
            is_distrusted: &|source: &Source| is_among(source, self.unsound),
            has_failed: &|source: &Source| is_among(source, self.failed),
            downloads: self.downloads,
            policy: CachePolicy { sharing: self.sharing, keeps: self.keeps },
            admitted: self.admitted,
        };
        next(&self.request(), &world, &self.tried)
    }
}

fn shown(outcome: &Result<Step, Failure>) -> String {
    let short = |id: &TargetId| {
        let (before, mark, at) = if id.is_ledger() { ("l", '/', 2) } else { ("", '.', 0) };
        format!("{before}{}", id.authority.split(mark).nth(at).expect("a name"))
    };
    // Which one comes first is a matter of the client, and shown where it is not.
    let all = |sources: &[Arc<Source>]| {
        let mut names: Vec<String> = sources.iter().map(|of| short(&of.target)).collect();
        names.sort();
        names.join(" ")
    };
    let transfer = |Transfer { sources, pinned }: &Transfer| {
        let only = if pinned.is_some() { " only" } else { "" };
        format!("{}{only}", all(sources))
    };
    match outcome {
        Err(failure) => format!("! {failure:?}"),
        Ok(Step::Redirect(reply)) => format!("redirect {}", reply.status.as_u16()),
        Ok(Step::Admit) => "admit".to_owned(),
        Ok(Step::Probe) => "probe".to_owned(),
        Ok(Step::AskHead(question, source)) => {
            let whom = source.as_ref().map_or("nobody".to_owned(), |of| short(&of.target));
            format!("ask {whom} {question:?}")
        }
        Ok(Step::OpenLocal(local)) => format!("open {}", transfer(local)),
        Ok(Step::Measure) => "measure".to_owned(),
        Ok(Step::AwaitTurn) => "await turn".to_owned(),
        Ok(Step::Serve { whole: false }) => "serve".to_owned(),
        Ok(Step::Serve { whole: true }) => "serve whole".to_owned(),
        Ok(Step::Fill(of)) => format!("fill {}", transfer(of)),
        Ok(Step::Join(sources)) => format!("join {}", all(sources)),
        Ok(Step::Forward(of, why)) => format!("forward {} {}", transfer(of), why.detail()),
    }
}

#[track_caller]
fn check(row: &Row<'_>, expected: &str) {
    assert_eq!(shown(&row.next()), expected, "{row:?}");
}

fn tried(change: impl FnOnce(&mut Tried)) -> Tried {
    let mut tried = Tried::default();
    change(&mut tried);
    tried
}

#[test]
fn without_a_cache_everything_comes_from_a_target() {
    for request in ["GET", "HEAD", "GET bytes=0-", "GET bytes=5-", "GET bytes=1-2,5-6"] {
        let off = Row { request, entry: "off", ..row() };
        check(&off, "forward n1 n2 off");
        check(&Row { sharing: Sharing::Shared, ..off.clone() }, "forward n1 n2 off");
        check(&Row { on: "n1", ..off.clone() }, "forward n1 off");
        check(&Row { old: true, ..off }, "forward n1 n2 off");
    }
}

#[test]
fn an_empty_cache_is_filled_by_a_whole_get_of_what_is_best() {
    check(&row(), "fill n1 n2");
    check(&Row { request: "HEAD", ..row() }, "forward n1 n2 head");
    check(&Row { request: "GET bytes=5-", ..row() }, "forward n1 n2 range");
    check(&Row { request: "GET bytes=0-", ..row() }, "forward n1 n2 range");
    check(&Row { old: true, ..row() }, "forward n1 n2 not-best");
    check(&Row { old: true, request: "HEAD", ..row() }, "forward n1 n2 not-best");
    // Where it is shared, by parts as well.
    for request in ["GET", "GET bytes=5-", "GET bytes=1-2,5-6"] {
        check(&Row { request, ..shared() }, "join n1 n2");
        check(&Row { request, old: true, ..shared() }, "forward n1 n2 not-best");
    }
    check(&Row { request: "HEAD", ..shared() }, "forward n1 n2 head");
}

#[test]
fn a_place_comes_before_everything_else() {
    let waiting = |row: Row<'static>| Row { admitted: false, ..row };
    for row in [row(), shared()] {
        for entry in ["off", "nothing", "filling n1", "growing n1 9", "whole n1"] {
            for request in ["GET", "GET bytes=5-"] {
                check(&waiting(Row { request, entry, ..row.clone() }), "admit");
            }
        }
        // What no target has any more is read from the cache all the same.
        check(&waiting(Row { on: "", entry: "whole n1", ..row.clone() }), "admit");
        check(&waiting(Row { has: "torn", ..row.clone() }), "admit");
        // There is nothing to be carried.
        check(&waiting(Row { request: "HEAD", ..row.clone() }), "forward n1 n2 head");
        check(&waiting(Row { on: "", ..row.clone() }), "probe");
        let elsewhere = Row { downloads: Downloads::Redirect, ..row };
        check(&waiting(elsewhere), "redirect 307");
    }
}

#[test]
fn what_nobody_has_is_asked_for_once() {
    let absent = |row: Row<'static>| Row { on: "", ..row };
    let probed = tried(|tried| tried.probed = true);
    for row in [row(), shared(), Row { downloads: Downloads::Redirect, ..row() }] {
        for request in ["GET", "HEAD", "GET bytes=5-"] {
            let absent = absent(Row { request, ..row.clone() });
            check(&absent, "probe");
            check(&Row { tried: probed.clone(), ..absent }, "! NotHeld");
        }
    }
    check(&absent(Row { entry: "filling n1", ..row() }), "await turn");
    check(&absent(Row { entry: "filling n1", request: "GET bytes=5-", ..row() }), "probe");
    check(&Row { downloads: Downloads::Redirect, ..row() }, "redirect 307");
    // What comes through the one who asks is not there for it.
    check(&Row { on: "e1 e2", edge: true, ..row() }, "probe");
    check(&Row { on: "e1 n1", edge: true, ..row() }, "fill n1");
    // Nor is a copy that is none of its name.
    check(&Row { unsound: "n1", ..row() }, "fill n2");
    check(&Row { unsound: "n1 n2", ..row() }, "! Sources(Unsound)");
}

#[test]
fn what_failed_here_is_not_tried_for_every_edge_that_asks() {
    let failed = Row { failed: "n1", ..row() };
    check(&failed, "fill n1 n2");
    check(&Row { edge: true, ..failed.clone() }, "fill n2");
    let all = Row { failed: "n1 n2", edge: true, ..row() };
    check(&all, "! Sources(Broken)");
    check(&Row { edge: false, ..all }, "fill n1 n2");
}

#[test]
fn what_is_cached_is_served_while_it_is_the_best_one() {
    for row in [row(), shared()] {
        for request in ["GET", "HEAD", "GET bytes=5-", "GET bytes=1-2,5-6"] {
            let whole = Row { request, entry: "whole n1", ..row.clone() };
            check(&whole, "serve");
            check(&Row { on: "", ..whole.clone() }, "serve");
            check(&Row { old: true, ..whole.clone() }, "forward n1 n2 not-best");
            check(&Row { old: true, keeps: true, ..whole.clone() }, "serve");
            check(&Row { old: true, on: "", ..whole }, "serve");
        }
    }
    // Who has bytes of it goes on with it.
    let begun = Row { request: "GET bytes=5-", entry: "whole n1", has: "pinned n1", ..row() };
    check(&begun, "serve");
    check(&Row { old: true, ..begun }, "serve");
    let named = Row {
        request: "GET bytes=5-",
        condition: "if-range n1",
        entry: "whole n1",
        has: "condition",
        old: true,
        ..row()
    };
    check(&named, "serve");
}

#[test]
fn who_has_bytes_of_another_copy_is_given_no_others() {
    let part = Row { request: "GET bytes=5-", has: "pinned n2", ..row() };
    check(&part, "forward n2 only range");
    for entry in ["whole n1", "growing n1 999"] {
        let measured = tried(|tried| tried.measured = Some(0));
        let other = Row { entry, tried: measured, ..part.clone() };
        check(&other, "forward n2 only other-copy");
        check(&Row { on: "n1 n3", ..other.clone() }, "! OtherCopy");
        check(&Row { on: "", ..other }, "! OtherCopy");
    }
    check(&Row { entry: "off", ..part.clone() }, "forward n2 only off");
    check(&Row { on: "n1", entry: "off", ..part.clone() }, "! OtherCopy");
    check(&Row { has: "torn", ..part.clone() }, "! OtherCopy");
    check(&Row { has: "torn", request: "HEAD", ..row() }, "! OtherCopy");
    // A HEAD brings no bytes.
    let head = Row { request: "HEAD", entry: "whole n1", ..part };
    check(&head, "serve");
    check(&Row { entry: "off", ..head }, "forward n1 n2 off");
    // Another request of the same client was faster.
    let begun = tried(|tried| {
        tried.begun = Some(given("n2"));
        tried.bypass = Some(Bypass::OtherCopy);
    });
    check(&Row { entry: "whole n1", tried: begun, ..row() }, "forward n2 only other-copy");
}

#[test]
fn a_condition_leads_to_the_copy_that_it_names() {
    let part = Row { request: "GET bytes=5-", condition: "if-range n2", has: "condition", ..row() };
    check(&part, "forward n1 n2 range");
    check(&Row { entry: "whole n1", ..part.clone() }, "forward n1 n2 other-copy");
    check(&Row { entry: "whole n2", ..part.clone() }, "serve");
    // One that names nothing gets all of whichever copy.
    let none = Row { condition: "if-range n9", entry: "whole n1", ..part.clone() };
    check(&none, "serve");
    let growing = Row { entry: "growing n1 0", ..none };
    let measured = tried(|tried| tried.measured = Some(0));
    check(&Row { tried: measured, ..growing }, "serve");
    check(&Row { sharing: Sharing::Shared, ..part }, "join n1 n2");
}

#[test]
fn an_archive_that_grows_is_read_up_to_where_it_comes_in_time() {
    for row in [row(), shared()] {
        let growing = |entry| Row { entry, ..row.clone() };
        check(&growing("growing n1 0"), "serve");
        check(&Row { request: "HEAD", ..growing("growing n1 0") }, "serve");
        check(&Row { old: true, ..growing("growing n1 0") }, "serve");
        for request in ["GET bytes=5-", "GET bytes=-5", "GET bytes=1-2,500-"] {
            let part = |entry| Row { request, ..growing(entry) };
            check(&part("growing n1 999"), "measure");
            let tried = tried(|tried| tried.measured = Some(0));
            let measured = |entry| Row { tried: tried.clone(), ..part(entry) };
            check(&measured("growing n1 999"), "serve");
            check(&measured("growing n1 2 ranges"), "forward n1 n2 range");
            check(&measured("growing n1 2"), "serve whole");
        }
        // Of two edges that wait for each other's fetch, neither would get a byte.
        let circle = Row { on: "e1 n1", edge: true, ..growing("growing e1 999") };
        check(&circle, "forward n1 filling");
        check(&Row { request: "GET bytes=5-", ..circle.clone() }, "forward n1 filling");
        check(&Row { edge: false, ..circle }, "serve");
    }
}

#[test]
fn while_another_request_fills_the_cache_its_turn_is_waited_for_once() {
    let filling = Row { entry: "filling n1", ..row() };
    check(&filling, "await turn");
    let waited = tried(|tried| tried.waited = true);
    check(&Row { tried: waited, ..filling.clone() }, "forward n1 n2 filling");
    // Who would not fill it does not wait.
    for request in ["GET bytes=5-", "HEAD"] {
        let why = if request == "HEAD" { "head" } else { "filling" };
        check(&Row { request, ..filling.clone() }, &format!("forward n1 n2 {why}"));
    }
    check(&Row { old: true, ..filling.clone() }, "forward n1 n2 not-best");
    check(&Row { sharing: Sharing::Shared, ..filling }, "join n1 n2");
}

#[test]
fn fills_are_joined_twice_at_most() {
    for (joins, expected) in [(0, "join n1 n2"), (1, "join n1 n2"), (2, "forward n1 n2 backoff")] {
        for request in ["GET", "GET bytes=5-"] {
            let tried = tried(|tried| tried.joins = joins);
            check(&Row { request, tried, ..shared() }, expected);
        }
    }
    // Each that can be read is measured.
    for (measured, joins, expected) in [
        (None, 0, "measure"),
        (Some(0), 0, "serve"),
        (Some(0), 1, "measure"),
        (Some(1), 1, "serve"),
    ] {
        let tried = tried(|tried| (tried.measured, tried.joins) = (measured, joins));
        let part = Row { request: "GET bytes=5-", entry: "growing n1 999", tried, ..shared() };
        check(&part, expected);
    }
    // What was said of the fill holds.
    for why in Bypass::ALL {
        let tried = tried(|tried| (tried.joins, tried.bypass) = (1, Some(why)));
        let passed = Row { tried, ..shared() };
        check(&passed, &format!("forward n1 n2 {}", why.detail()));
        let growing = Row { entry: "growing n1 0", request: "GET bytes=5-", ..passed };
        check(&growing, &format!("forward n1 n2 {}", why.detail()));
    }
}

#[test]
fn a_directory_comes_before_the_network_and_what_is_being_fetched() {
    for row in [row(), shared()] {
        for request in ["GET", "HEAD", "GET bytes=5-"] {
            let near = Row { request, on: "n1 l1 l2", ..row.clone() };
            for entry in ["off", "nothing", "filling n1"] {
                check(&Row { entry, ..near.clone() }, "open l1 l2");
            }
            check(&Row { entry: "whole n1", ..near.clone() }, "serve");
            check(&Row { old: true, ..near }, "open l1 l2");
        }
        check(&Row { on: "n1 l1", entry: "growing n1 0", ..row.clone() }, "open l1");
        // Where it is not there any more.
        let gone = tried(|tried| tried.local = Some(SourceFailure::Gone));
        let broken = tried(|tried| tried.local = Some(SourceFailure::Disk));
        let forward = Row { on: "n1 l1", entry: "off", tried: gone.clone(), ..row.clone() };
        check(&forward, "forward n1 off");
        check(&Row { tried: broken.clone(), ..forward.clone() }, "forward n1 off");
        check(&Row { on: "l1", tried: broken, ..forward.clone() }, "! Sources(Disk)");
        check(&Row { on: "l1", ..forward.clone() }, "probe");
        // Who has bytes of it gets no others.
        let begun = Row { request: "GET bytes=5-", has: "pinned l1", ..forward };
        for entry in ["off", "nothing", "filling n1", "whole n1"] {
            check(&Row { entry, ..begun.clone() }, "! OtherCopy");
        }
        check(&Row { tried: Tried::default(), ..begun.clone() }, "open l1 only");
        let elsewhere = Row { has: "pinned n1", tried: Tried::default(), ..begun };
        check(&elsewhere, "forward n1 only off");
    }
}

#[test]
fn conditions_are_judged_before_anything_is_fetched() {
    for condition in ["if-match n1", "if-none-match n1"] {
        let asked = Row { condition, has: "condition", on: "n1", ..row() };
        for entry in ["off", "nothing", "filling n1"] {
            check(&Row { entry, ..asked.clone() }, "ask n1 Conditions");
            check(&Row { entry, sharing: Sharing::Shared, ..asked.clone() }, "ask n1 Conditions");
            // A HEAD is answered by what its target says anyway.
            let why = if entry == "off" { "off" } else { "head" };
            let head = Row { request: "HEAD", entry, ..asked.clone() };
            check(&head, &format!("forward n1 {why}"));
        }
        // What is in a file is judged there.
        for entry in ["whole n1", "growing n1 0"] {
            check(&Row { entry, ..asked.clone() }, "serve");
        }
        // A condition that names a copy leads to it.
        let local = if condition == "if-match n1" { "ask n1 Conditions" } else { "open l1" };
        check(&Row { on: "n1 l1", ..asked.clone() }, local);
        let passed = tried(|tried| tried.inquiry = Inquiry::Passed);
        check(&Row { tried: passed.clone(), ..asked.clone() }, "fill n1");
        let passed = Row { tried: passed, sharing: Sharing::Shared, ..asked.clone() };
        check(&passed, "join n1");
        // Nothing is begun for the cache where nobody can tell.
        let unclear = tried(|tried| tried.inquiry = Inquiry::Unanswered);
        let unclear = Row { tried: unclear, ..asked.clone() };
        check(&unclear, "forward n1 condition");
        check(&Row { sharing: Sharing::Shared, ..unclear.clone() }, "forward n1 condition");
        check(&Row { entry: "off", ..unclear }, "forward n1 off");
        check(&Row { on: "", ..asked }, "probe");
    }
    let part = Row { request: "GET bytes=5-", condition: "if-none-match n9", ..row() };
    check(&Row { has: "pinned n2", ..part.clone() }, "ask n2 Conditions");
    check(&Row { has: "pinned n3", ..part }, "ask nobody Conditions");
}

#[test]
fn who_was_told_of_a_copy_may_have_laid_out_its_parts_by_it() {
    let part = Row { request: "GET bytes=5-", has: "announced n2", ..row() };
    for row in [part.clone(), Row { sharing: Sharing::Shared, ..part.clone() }] {
        let tell =
            |announced| tried(|tried| (tried.announced, tried.measured) = (announced, Some(0)));
        for entry in ["whole n1", "growing n1 999"] {
            let open = Row { entry, tried: tell(Announced::Open), ..row.clone() };
            check(&open, "ask n2 Announced");
            check(&Row { condition: "if-none-match n9", ..open.clone() }, "ask n2 Conditions");
            let answering = Row { tried: tell(Announced::Answering), ..open.clone() };
            check(&answering, "forward n1 n2 other-copy");
            check(&Row { tried: tell(Announced::Silent), ..open.clone() }, "serve");
            // It is the cache's own, or is nowhere, or all of the archive is asked for.
            check(&Row { has: "announced n1", ..open.clone() }, "serve");
            check(&Row { on: "n1", ..open.clone() }, "serve");
            check(&Row { request: "GET", ..open }, "serve");
        }
    }
    check(&part, "forward n1 n2 range");
    check(&Row { entry: "off", ..part }, "forward n1 n2 off");
}

/// Any state of the world.
fn any_row() -> impl Strategy<Value = Row<'static>> {
    let pick = |of: &'static [&'static str]| prop::sample::select(of);
    let has =
        ["fresh", "torn", "announced n2", "condition", "condition n1", "pinned n2", "pinned l1"];
    let entries = [
        "off",
        "nothing",
        "filling n1",
        "growing n1 0",
        "growing n1 999",
        "growing e1 2 ranges",
        "whole n1",
        "whole n2",
    ];
    let world = (
        prop::sample::select(has.to_vec()),
        prop::sample::select(entries.to_vec()),
        pick(&["", "n1", "n1 n2", "l1", "n1 l1", "e1", "e1 n2 l2"]),
        pick(&["", "n1", "n1 n2"]),
        pick(&["", "n1", "n1 n2"]),
    );
    (world, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(world, shared, old, keeps)| {
        let (has, entry, on, unsound, failed) = world;
        let sharing = if shared { Sharing::Shared } else { Sharing::Exclusive };
        Row { old, on, entry, has, sharing, keeps, unsound, failed, ..row() }
    })
}

proptest! {
    /// From any state of the world to any other between two turns, each step having whatever
    /// outcome it may have.
    #[test]
    fn a_request_is_answered_after_a_bounded_number_of_turns(
        rows in prop::collection::vec(any_row(), MAX_TURNS),
        outcomes in prop::collection::vec(any::<u8>(), MAX_TURNS),
        request in prop::sample::select(vec![
            "GET", "HEAD", "GET bytes=0-", "GET bytes=5-", "GET bytes=1-2,5-6",
        ]),
        condition in prop::sample::select(vec![
            "", "if-range n1", "if-match n2", "if-none-match n1",
        ]),
        edge in any::<bool>(),
    ) {
        let (mut tried, mut admitted, mut turns) = (Tried::default(), false, 0);
        for (row, outcome) in rows.into_iter().zip(outcomes) {
            turns += 1;
            let row = Row { request, condition, edge, admitted, tried: tried.clone(), ..row };
            let before = (tried.clone(), admitted);
            match row.next() {
                Err(_) | Ok(Step::Redirect(_) | Step::Forward(..)) => return Ok(()),
                Ok(Step::Admit) => admitted = true,
                Ok(Step::Probe) => tried.probed = true,
                Ok(Step::AskHead(Question::Conditions, _)) => {
                    let outcomes = [Inquiry::Passed, Inquiry::Unanswered];
                    tried.inquiry = outcomes[usize::from(outcome % 2)];
                }
                Ok(Step::AskHead(Question::Announced, _)) => {
                    let outcomes = [Announced::Answering, Announced::Silent];
                    tried.announced = outcomes[usize::from(outcome % 2)];
                }
                Ok(Step::OpenLocal(_)) => {
                    let outcomes = [SourceFailure::Gone, SourceFailure::Disk];
                    tried.local = outcomes.into_iter().nth(usize::from(outcome % 2));
                }
                Ok(Step::Measure) => {
                    tried.measured = Some(tried.joins);
                    if outcome % 4 == 0 {
                        tried.bypass = Some(Bypass::Backoff);
                    }
                }
                Ok(Step::AwaitTurn) => tried.waited = true,
                Ok(Step::Join(_)) => {
                    tried.joins += 1;
                    if outcome % 4 == 0 {
                        tried.bypass = Some(Bypass::Disk);
                    }
                }
                // Others were faster.
                Ok(Step::Fill(_)) => tried.bypass = Some(Bypass::Filling),
                Ok(Step::Serve { .. }) => {
                    prop_assert!(tried.begun.is_none() || outcome % 2 == 0, "{row:?}");
                    if outcome % 2 == 0 {
                        return Ok(());
                    }
                    tried.begun = Some(given("n2"));
                    tried.bypass = Some(Bypass::OtherCopy);
                }
            }
            prop_assert!((tried.clone(), admitted) != before, "nothing came of it: {row:?}");
        }
        prop_assert!(false, "no answer after {turns} turns");
    }
}
