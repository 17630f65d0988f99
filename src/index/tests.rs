//! The rules of "best", as tables of what targets say and what is offered then.
//!
//! Archives are written short: `1000` is the full archive at slot 1000, `1000-1500` an incremental
//! one on it; a letter after the slot is the hash (`a` where none is), and `.lz4` and the like the
//! compression (zstd where none is). Targets are `name`, in the group `main`, or `group/name`.

use crate::index::AccessKey;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use proptest::prelude::*;

mod groups;
mod record;
mod support;
mod undelivered;

use super::{
    Catalog, Distrusted, Entry, Event, Generation, Held, Listed, Location, Mark, Policy, Publish,
    TargetId, Undelivered, UnknownGroup, View, Worth,
};
use crate::clock::Now;
use crate::snapshot::{ArchiveHash, ArchiveName, Compression, Kind, Slot};

const POLICY: Policy =
    Policy { probe_failures: 3, pair_hold: Duration::from_secs(60), publish: Publish::Seen };
const PROMOTED: Policy = Policy { publish: Publish::Promoted, ..POLICY };

fn name(text: &str) -> ArchiveName {
    let (stem, form) = text.split_once('.').unwrap_or((text, "zst"));
    let compression = Compression::ALL
        .into_iter()
        .find(|compression| compression.extension().trim_start_matches("tar.") == form)
        .expect(text);
    let slots = stem.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let letter = stem[slots.len()..].bytes().next().unwrap_or(b'a');
    let slot = |text: &str| text.parse::<Slot>().expect(text);
    let hash = ArchiveHash::new([letter; 32]);
    match slots.split_once('-') {
        None => ArchiveName::full(slot(slots), hash, compression),
        Some((base, at)) => {
            ArchiveName::incremental(slot(base), slot(at), hash, compression).expect(text)
        }
    }
}

fn short(name: &ArchiveName) -> String {
    let slots = match name.kind() {
        Kind::Full => name.slot().to_string(),
        Kind::Incremental { base } => format!("{base}-{}", name.slot()),
    };
    let letter = match char::from(name.hash().as_bytes()[0]) {
        'a' => String::new(),
        letter => letter.to_string(),
    };
    match name.compression() {
        Compression::Zstd => format!("{slots}{letter}"),
        other => {
            format!("{slots}{letter}.{}", other.extension().trim_start_matches("tar."))
        }
    }
}

fn offered(generation: Option<Generation>) -> String {
    let Some(Generation { full, incremental }) = generation else { return "nothing".to_owned() };
    let incremental = incremental.map(|name| format!(" {}", short(&name)));
    short(&full) + &incremental.unwrap_or_default()
}

fn target(text: &str) -> TargetId {
    let (group, authority) = text.split_once('/').unwrap_or(("main", text));
    TargetId { group: group.into(), authority: authority.into() }
}

fn listed(name: ArchiveName) -> Listed {
    let location = Location {
        scheme: "http",
        address: ([127, 0, 0, 1], 8899).into(),
        authority: "127.0.0.1:8899".into(),
        path: format!("/{name}"),
        access: AccessKey::default(),
        via: crate::hops::Via::default(),
    };
    Listed { name, size: None, modified: None, tag: None, location: Some(location) }
}

fn held(name: ArchiveName, from: &str, since: Now) -> Held {
    Held { name, target: target(from), size: 7, modified: None, since, age: Duration::ZERO }
}

/// A catalog, the view that was published last, and the time at which all began.
struct Scene {
    catalog: Catalog,
    view: View,
    groups: Vec<Arc<str>>,
    policy: Policy,
    start: Instant,
}

impl Scene {
    fn new(policy: Policy) -> Self {
        let groups = ["main", "other", "silent"].map(Arc::from).to_vec();
        let (catalog, view, start) = (Catalog::default(), View::default(), Instant::now());
        Self { catalog, view, groups, policy, start }
    }

    fn at(&self, seconds: u64) -> Now {
        let since = Duration::from_secs(seconds);
        Now { instant: self.start + since, wall: UNIX_EPOCH + since }
    }

    /// `<target>: <names>`, `<target> fails`, `<target> leaves`, `<target> lost <name>` or
    /// `<target> has <name>`; a time in front, as in `5 <target> fails`, is when the probe began,
    /// where that is not `seconds`.
    fn event(&self, seconds: u64, text: &str) -> Event {
        let (at, text) = match text.split_once(' ') {
            Some((first, rest)) if first.parse::<u64>().is_ok() => {
                (self.at(first.parse().expect("seconds")), rest)
            }
            _ => (self.at(seconds), text),
        };
        if let Some((id, names)) = text.split_once(':') {
            let archives = names.split_whitespace().map(|text| listed(name(text))).collect();
            return Event::Answered { target: target(id), at, archives };
        }
        match text.split_whitespace().collect::<Vec<_>>()[..] {
            [id, "fails"] => Event::Failed { target: target(id), at },
            [id, "leaves"] => Event::Removed { target: target(id) },
            [id, "lost", gone] => {
                Event::Gone { target: target(id), name: name(gone), at: at.instant }
            }
            [id, "has", found] => {
                let archive = listed(name(found));
                Event::Found { target: target(id), at: at.instant, archive }
            }
            _ => panic!("cannot read `{text}`"),
        }
    }

    /// Takes in `<seconds>`, or `<seconds> | <event> | <event>`, and publishes. An event
    /// `cache: <names>` is all that the cache holds from then on.
    fn step(&mut self, text: &str) {
        let mut parts = text.split('|').map(str::trim);
        let seconds = parts.next().and_then(|text| text.parse().ok()).expect(text);
        for part in parts {
            if let Some(names) = part.strip_prefix("cache:") {
                self.hold(seconds, names);
                continue;
            }
            let event = self.event(seconds, part);
            self.catalog.apply(event);
        }
        self.publish(seconds);
    }

    /// From now on the cache holds these, for the group `main`, or `other` where that is in front.
    fn hold(&mut self, seconds: u64, names: &str) {
        let since = self.at(seconds);
        let held = |text: &str| match text.strip_prefix("other/") {
            Some(text) => held(name(text), "other/cached", since),
            None => held(name(text), "cached", since),
        };
        self.catalog.hold(&names.split_whitespace().map(held).collect::<Vec<_>>());
    }

    fn publish(&mut self, seconds: u64) {
        let now = self.at(seconds).instant;
        self.view = self.catalog.view(&self.view, &self.groups, self.policy, now);
    }

    /// What is offered in `group`, and for how long where that is known.
    fn offers(&self, group: Option<&str>) -> String {
        self.until(self.view.best(group).expect("a known group"))
    }

    /// What is wanted in `group`, and for how long where that is known.
    fn wants(&self, group: &str) -> String {
        self.until(self.view.group(group).expect("a known group").wanted)
    }

    fn until(&self, generation: Option<Generation>) -> String {
        let generation = offered(generation);
        match self.view.until() {
            None => generation,
            Some(until) => format!("{generation} until {}", (until - self.start).as_secs()),
        }
    }
}

/// Plays `steps`, each with what the group `main` offers after it.
#[track_caller]
fn check(steps: &[(&str, &str)]) {
    check_in(Some("main"), steps);
}

#[track_caller]
fn check_in(group: Option<&str>, steps: &[(&str, &str)]) {
    let mut scene = Scene::new(POLICY);
    for (step, expected) in steps {
        scene.step(step);
        assert_eq!(scene.offers(group), *expected, "after `{step}` in {steps:#?}");
    }
}

/// Plays `steps` where what is not cached is not offered, each with what the group `main` offers
/// after it, and what it wants.
#[track_caller]
fn check_promoted(steps: &[(&str, &str, &str)]) {
    let mut scene = Scene::new(PROMOTED);
    for (step, best, wanted) in steps {
        scene.step(step);
        let found = offered(scene.view.best(Some("main")).expect("configured"));
        let found = (found, scene.wants("main"));
        assert_eq!((&*found.0, &*found.1), (*best, *wanted), "after `{step}` in {steps:#?}");
    }
}

#[test]
fn the_newest_pair_is_offered() {
    check(&[("0", "nothing")]);
    check(&[("0 | t:", "nothing")]);
    check(&[("0 | t: 1000", "1000")]);
    check(&[("0 | t: 1000 1000-1500", "1000 1000-1500")]);
    check(&[("0 | t: 1000 1000-1500 1000-1400 1000-1600", "1000 1000-1600")]);
    check(&[("0 | t: 1000 1000-1500 2000 2000-2100", "2000 2000-2100")]);
    // The state that a client ends with counts, not the full archive that it begins with.
    check(&[("0 | t: 1000 1000-2200 2000 2000-2100", "1000 1000-2200")]);
    check(&[("0 | t: 1000 1000-2200 2000 2000-2200", "2000 2000-2200")]);
    // The two halves may be on different targets.
    check(&[("0 | t: 1000 | u: 1000-1500", "1000 1000-1500")]);
    check(&[
        ("0 | t: 1000 1000-1500", "1000 1000-1500"),
        ("5 | u: 1000 1000-1600", "1000 1000-1600"),
        ("9 | u: 1000 1000-1700", "1000 1000-1700"),
    ]);
}

#[test]
fn an_incremental_archive_is_never_offered_without_its_full_one() {
    check(&[("0 | t: 1000-1500", "nothing")]);
    check(&[("0 | t: 1000 2000-2500", "1000")]);
    check(&[("0 | t: 1000 1000-1500 2000-2500", "1000 1000-1500")]);
    check(&[
        ("0 | t: 1000 1000-1500 2000-2500", "1000 1000-1500"),
        ("1 | t: 1000-1500", "nothing"),
    ]);
}

#[test]
fn an_old_pair_is_held_until_a_newer_full_archive_has_its_first_incremental() {
    check(&[
        ("0 | t: 1000 1000-1900", "1000 1000-1900"),
        ("5 | t: 1000 1000-1900 2000", "1000 1000-1900 until 65"),
        ("20 | t: 1000 1000-1900 2000", "1000 1000-1900 until 65"),
        ("30 | t: 1000 1000-1900 2000 2000-2100", "2000 2000-2100"),
    ]);
    // The old pair may still grow, and may pass the new full archive.
    check(&[
        ("0 | t: 1000 1000-1900 2000", "1000 1000-1900 until 60"),
        ("5 | t: 1000 1000-1950 2000", "1000 1000-1950 until 60"),
        ("6 | t: 1000 1000-2050 2000", "1000 1000-2050"),
        ("99 | t: 1000 1000-2050 2000", "1000 1000-2050"),
    ]);
    // At an equal slot the full archive is the newer one.
    check(&[("0 | t: 1000 1000-2000 2000", "1000 1000-2000 until 60")]);
}

#[test]
fn an_old_pair_is_held_no_longer_than_pair_hold() {
    check(&[
        ("0 | t: 1000 1000-1900", "1000 1000-1900"),
        ("5 | t: 1000 1000-1900 2000", "1000 1000-1900 until 65"),
        ("64", "1000 1000-1900 until 65"),
        ("65", "2000"),
        // What comes late on the old base is no reason to go back.
        ("66 | t: 1000 1000-2500 2000", "2000"),
        ("70 | t: 1000 1000-2500 2000 2000-2600", "2000 2000-2600"),
    ]);
    // It counts from when any target was first seen with the full archive.
    check(&[
        ("0 | t: 1000 1000-1900", "1000 1000-1900"),
        ("5 | u: 1000 2000", "1000 1000-1900 until 65"),
        ("30 | t: 1000 1000-1900 2000", "1000 1000-1900 until 65"),
    ]);
    // A still newer full archive does not prolong it, nor does the first one's end.
    check(&[
        ("0 | t: 1000 1000-1900 2000", "1000 1000-1900 until 60"),
        ("40 | t: 1000 1000-1900 2000 3000", "1000 1000-1900 until 60"),
        ("50 | t: 1000 1000-1900 3000 4000", "1000 1000-1900 until 60"),
        ("60", "4000"),
    ]);
    // The hold of another pair is another one.
    check(&[
        ("0 | t: 1000 1000-1900 2000", "1000 1000-1900 until 60"),
        ("10 | t: 1000 1000-1900 2000 2000-2100", "2000 2000-2100"),
        ("50 | t: 2000 2000-2900 3000", "2000 2000-2900 until 110"),
    ]);
}

#[test]
fn a_target_set_without_incrementals_moves_on_at_once() {
    check(&[("0 | t: 1000", "1000"), ("5 | t: 1000 2000", "2000"), ("9 | u: 3000", "3000")]);
    // Nothing is held for a pair of which one half has gone.
    check(&[
        ("0 | t: 1000 1000-1900 2000", "1000 1000-1900 until 60"),
        ("5 | t: 1000 2000", "2000"),
    ]);
}

#[test]
fn slots_do_not_go_back_while_the_archive_can_be_served() {
    // A newer tip on an older full archive does not lead back to that.
    check(&[
        ("0 | t: 2000 2000-2100", "2000 2000-2100"),
        ("5 | u: 1000 1000-2900", "2000 2000-2100"),
        // Nor is one that no target lists an obstacle.
        ("9 | t: ", "1000 1000-2900"),
    ]);
    // A newer base whose incrementals are behind waits for them.
    check(&[
        ("0 | t: 1000 1000-2500", "1000 1000-2500"),
        ("5 | u: 2000 2000-2400", "1000 1000-2500"),
        ("7 | u: 2000 2000-2600", "2000 2000-2600"),
    ]);
    check(&[
        ("0 | t: 1000 1000-2500 | u: 2000 2000-2400", "1000 1000-2500"),
        ("5 | t: 1000", "2000 2000-2400"),
    ]);
    check(&[
        ("0 | t: 1000 1000-1500 1000-1400", "1000 1000-1500"),
        ("5 | t: 1000 1000-1400", "1000 1000-1400"),
        ("9 | t: 1000", "1000"),
        ("9 | t: 500", "500"),
    ]);
    // An incremental archive that was voted down together with its base holds nothing up.
    check(&[
        ("0 | t: 1000 1000-2500", "1000 1000-2500"),
        ("5 | u: 1000b 2000 2000-2100 | v: 1000b", "2000 2000-2100"),
    ]);
    // After a full archive that was voted down, its slot is still not gone back from.
    check(&[
        ("0 | t: 2000 2000-2500", "2000 2000-2500"),
        ("5 | u: 2000b 2000-2400b | v: 2000b 1000 1000-2600", "2000b 2000-2400b"),
    ]);
}

#[test]
fn what_the_cache_holds_counts_as_held() {
    check(&[("0 | cache: 1000", "1000")]);
    check(&[("0 | cache: 1000 1000-1500", "1000 1000-1500")]);
    check(&[("0 | cache: 1000-1500", "nothing")]);
    check(&[("0 | cache: 1000 | t: 1000-1500", "1000 1000-1500")]);
    // The targets go, one after the other, and what is cached stays.
    check(&[
        ("0 | t: 1000 1000-1500 | u: 1000 | cache: 1000", "1000 1000-1500"),
        ("5 | cache: 1000 1000-1500", "1000 1000-1500"),
        ("6 | t leaves | u leaves", "1000 1000-1500"),
        ("7 | cache: 1000", "1000"),
        ("8 | cache: ", "nothing"),
    ]);
    // What is newer is better, cached or not, and what was cached is there to go back to.
    check(&[
        ("0 | t: 1000 1000-1500 | cache: 1000 1000-1500", "1000 1000-1500"),
        ("5 | t: 1000 1000-1600", "1000 1000-1600"),
        ("6 | t leaves", "1000 1000-1500"),
    ]);
    // A pair is held for as long as any other, from when the new full archive was seen or cached.
    check(&[
        ("0 | cache: 1000 1000-1500", "1000 1000-1500"),
        ("5 | t: 2000", "1000 1000-1500 until 65"),
        ("65", "2000"),
    ]);
    check(&[
        ("0 | t: 1000 1000-1500", "1000 1000-1500"),
        ("5 | cache: 2000", "1000 1000-1500 until 65"),
        ("9 | t: 1000 1000-1500 2000", "1000 1000-1500 until 65"),
    ]);
}

#[test]
fn what_targets_no_longer_list_is_offered_out_of_the_cache_for_as_long_as_an_old_pair() {
    // A slot that nobody will reach: of a fork, or of a target that is no longer trusted.
    check(&[
        ("0 | t: 1000 1000-1500 | u: 1900 1900-2400", "1900 1900-2400"),
        ("1 | cache: 1900 1900-2400", "1900 1900-2400"),
        ("10 | u: 1900 1900-2400", "1900 1900-2400"),
        ("20 | u leaves", "1900 1900-2400"),
        ("69", "1900 1900-2400"),
        ("70", "1000 1000-1500"),
    ]);
    // With nobody else to ask it stays.
    check(&[
        ("0 | u: 1900 1900-2400 | cache: 1900 1900-2400", "1900 1900-2400"),
        ("20 | u: ", "1900 1900-2400"),
        ("99999", "1900 1900-2400"),
        ("99999 | t: 1000", "1000"),
    ]);
    // What was taken in at the start counts from then on.
    check(&[
        ("100 | cache: 1900", "1900"),
        ("101 | t: 1000", "1900"),
        ("160 | t: 1000", "1000"),
        ("161 | t: 1000 1900", "1900"),
        ("162 | t: 1000", "1900"),
    ]);
}

#[test]
fn promoted_offers_a_new_incremental_archive_when_it_is_cached() {
    let (old, new) = ("1000 1000-1500", "1000 1000-1600");
    check_promoted(&[
        ("0 | t: 1000 1000-1500 | cache: 1000 1000-1500", old, old),
        ("5 | t: 1000 1000-1500 1000-1600", old, new),
        // That the targets no longer have what is offered changes nothing.
        ("6 | t: 1000 1000-1600", old, new),
        ("9 | cache: 1000 1000-1500 1000-1600", new, new),
    ]);
    // What is offered out of the cache alone is so for as long as an old pair.
    check_promoted(&[
        ("0 | t: 1000 1000-1500 | cache: 1000 1000-1500", old, old),
        ("5 | t: 1000 1000-1600", old, new),
        ("59", old, new),
        ("60", new, new),
    ]);
    // What is wanted moves on while it is fetched: what was fetched is offered, as it is newer than
    // what was before.
    check_promoted(&[
        ("0 | t: 1000 1000-1500 | cache: 1000 1000-1500", old, old),
        ("5 | t: 1000 1000-1600", old, new),
        ("8 | t: 1000 1000-1600 1000-1700", old, "1000 1000-1700"),
        ("9 | cache: 1000 1000-1500 1000-1600", new, "1000 1000-1700"),
        ("10 | cache: 1000 1000-1500 1000-1700", "1000 1000-1700", "1000 1000-1700"),
    ]);
}

#[test]
fn promoted_offers_a_new_full_archive_together_with_its_incremental() {
    let (old, new) = ("1000 1000-1900", "2000 2000-2100");
    let held = "1000 1000-1900 until 65";
    let begin = [
        ("0 | t: 1000 1000-1900 | cache: 1000 1000-1900", old, old),
        ("5 | t: 1000 1000-1900 2000", old, held),
    ];
    let seen = ("9 | t: 1000 1000-1900 2000 2000-2100", old, new);
    let [first, second] = begin;
    check_promoted(&[
        first,
        second,
        seen,
        ("10 | cache: 1000 1000-1900 2000", old, new),
        ("11 | cache: 1000 1000-1900 2000 2000-2100", new, new),
        ("12 | cache: 2000 2000-2100", new, new),
    ]);
    check_promoted(&[
        first,
        second,
        seen,
        ("10 | cache: 1000 1000-1900 2000-2100", old, new),
        ("11 | t: 2000 2000-2200", old, "2000 2000-2200"),
        ("12 | cache: 1000 1000-1900 2000 2000-2200", "2000 2000-2200", "2000 2000-2200"),
    ]);
    // Without an incremental one it waits for the end of the hold, and then for the cache.
    check_promoted(&[
        first,
        second,
        ("64 | cache: 1000 1000-1900 2000", old, held),
        ("65", "2000", "2000"),
    ]);
    check_promoted(&[
        first,
        second,
        ("65", old, "2000"),
        // What comes late on the old base is no reason to go back.
        ("66 | t: 1000 1000-1900 1000-2500 2000", old, "2000"),
        ("67 | cache: 1000 1000-1900 2000", "2000", "2000"),
        ("68 | t: 1000 2000 2000-2100", "2000", new),
        ("69 | cache: 2000 2000-2100", new, new),
    ]);
}

#[test]
fn promoted_offers_what_is_wanted_where_nothing_else_can_be_served() {
    let (old, new) = ("1000 1000-1500", "2000 2000-2100");
    check_promoted(&[("0", "nothing", "nothing"), ("1 | t:", "nothing", "nothing")]);
    // The cache is cold.
    check_promoted(&[
        ("0 | t: 1000 1000-1500", old, old),
        ("1 | t: 1000 1000-1500 2000 2000-2100", old, new),
        // It has gone from the targets, and the cache never had it.
        ("2 | t: 2000 2000-2100", new, new),
    ]);
    // It has gone from the targets and then from the cache.
    check_promoted(&[
        ("0 | t: 1000 1000-1500 | cache: 1000 1000-1500", old, old),
        ("1 | t: 2000 2000-2100", old, new),
        ("2 | cache: ", new, new),
        ("3 | t: ", "nothing", "nothing"),
    ]);
    // A half that is left is not what a client came for, where it can have a pair.
    check_promoted(&[
        ("0 | t: 1000 1000-1500 | cache: 1000 1000-1500", old, old),
        ("1 | t: 2000 2000-2100", old, new),
        ("2 | cache: 1000", new, new),
    ]);
    check_promoted(&[("0 | t: 1000 1000-1500 | cache: 1000", old, old)]);
}

#[test]
fn promoted_falls_back_to_the_newest_generation_in_the_cache() {
    // After a restart.
    check_promoted(&[
        ("0 | cache: 1000 1000-1300 1000-1400", "1000 1000-1400", "1000 1000-1400"),
        ("1 | t: 1000 1000-1500", "1000 1000-1400", "1000 1000-1500"),
        ("2 | cache: 1000 1000-1500", "1000 1000-1500", "1000 1000-1500"),
    ]);
    // What was offered has gone; the generation before it is there.
    check_promoted(&[
        ("0 | t: 1000 1000-1500 1000-1400", "1000 1000-1500", "1000 1000-1500"),
        ("1 | cache: 1000 1000-1400", "1000 1000-1500", "1000 1000-1500"),
        ("2 | t: 1000 1000-1600", "1000 1000-1400", "1000 1000-1600"),
    ]);
    // Where no pair is wanted, a full archive is all that there is.
    check_promoted(&[("0 | t: 2000 | cache: 1000", "1000", "2000")]);
    // Half of what was only wanted holds nothing up, and is no reason to go back.
    check_promoted(&[
        ("0 | t: 1000 1000-2500 | cache: 1000 1000-2500", "1000 1000-2500", "1000 1000-2500"),
        ("1 | u: 2000 2000-2100 2000-2600", "1000 1000-2500", "2000 2000-2600"),
        ("2 | u: 2000 2000-2100", "1000 1000-2500", "1000 1000-2500"),
    ]);
    // What is in the cache by chance and ahead of what is wanted would block the way.
    check_promoted(&[
        ("0 | t: 1000 1000-1500 | u: 2000 | v: 1000", "1000 1000-1500", "1000 1000-1500 until 60"),
        ("60", "1000 1000-1500", "2000"),
        ("61 | t: 1000 | cache: 1000 1000-2500", "2000", "2000"),
    ]);
}

#[test]
fn promoted_does_not_offer_what_was_voted_down() {
    let (old, new) = ("2000 2000-2100", "2000b 2000-2200b");
    let vote = "5 | u: 2000b 2000-2200b | v: 2000b";
    check_promoted(&[
        ("0 | t: 2000 2000-2100 | cache: 2000 2000-2100", old, old),
        (vote, new, new),
    ]);
    // Its slot is still not gone back from.
    check_promoted(&[
        ("0 | t: 2000 2000-2100 | cache: 2000 2000-2100 1000 1000-1900", old, old),
        (vote, new, new),
    ]);
    // Another compression of the same state is no other state.
    check_promoted(&[
        ("0 | t: 1000.lz4 | cache: 1000.lz4", "1000.lz4", "1000.lz4"),
        ("5 | u: 1000", "1000.lz4", "1000"),
        ("6 | cache: 1000.lz4 1000", "1000", "1000"),
    ]);
    check_promoted(&[("0 | t: 1000 | cache: 1000.lz4", "1000.lz4", "1000")]);
}

#[test]
fn promoted_leads_to_the_best_over_what_the_groups_offer() {
    let mut scene = Scene::new(PROMOTED);
    for (step, expected) in [
        ("0 | t: 1000 1000-1500 | cache: 1000 1000-1500 | other/t: 500", "1000 1000-1500"),
        ("1 | t: 1000 1000-1600", "1000 1000-1500"),
        ("2 | cache: 1000 1000-1500 1000-1600", "1000 1000-1600"),
        ("3 | t: 2000 2000-2100", "1000 1000-1600"),
    ] {
        scene.step(step);
        assert_eq!(scene.offers(None), expected, "{step}");
    }
    // What has gone from one group stays while another has it, though that offers less.
    let mut apart = Scene::new(PROMOTED);
    for (step, expected) in [
        ("0 | t: 1000 1000-1600 | other/t: 1000", "1000 1000-1600"),
        ("1 | other/t: 1000 1000-1600", "1000 1000-1600"),
        ("2 | t: 1000 1000-1500", "1000 1000-1600"),
    ] {
        apart.step(step);
        assert_eq!(apart.offers(None), expected, "{step}");
    }
    let wanted: Vec<_> = scene.view.wanted().collect();
    let wanted: Vec<_> =
        wanted.iter().map(|(group, all)| (&***group, offered(Some(*all)))).collect();
    assert_eq!(wanted, [("main", "2000 2000-2100".to_owned()), ("other", "500".to_owned())]);
}

#[test]
fn what_is_offered_and_what_is_wanted_are_both_worth_keeping() {
    let mut scene = Scene::new(PROMOTED);
    scene.step("0 | t: 1000 1000-1500 | cache: 1000 1000-1500");
    scene.step("1 | t: 1000 1000-1600 2000 2000-2100");
    for (text, expected) in [
        ("1000", Worth::Offered),
        ("1000-1500", Worth::Offered),
        ("2000", Worth::Best),
        ("2000-2100", Worth::Best),
        // In between: nobody will be led to it.
        ("1000-1600", Worth::Superseded),
        ("900", Worth::Superseded),
        ("2000-2200", Worth::Doubtful),
    ] {
        assert_eq!(scene.view.worth(&name(text), "main"), expected, "{text}");
        let is_best = matches!(expected, Worth::Best | Worth::Offered);
        assert_eq!(scene.view.is_best(&name(text)), is_best, "{text}");
    }
}

/// One archive in the cache serves every group that lists it, from whichever it was fetched.
#[test]
fn promoted_knows_what_another_group_has_fetched() {
    let (old, new) = ("1000 1000-1500", "2000 2000-2500");
    check_promoted(&[
        ("0 | t: 1000 1000-1500 | other/u: 1000 1000-1500 | cache: 1000 1000-1500", old, old),
        ("1 | t: 2000 2000-2500 1000 1000-1500 | other/u: 2000 2000-2500", old, new),
        ("2 | cache: 1000 1000-1500 2000 other/2000-2500", new, new),
    ]);
}

/// What is in a local directory need not be fetched, whichever group's that is.
#[test]
fn promoted_counts_what_a_ledger_has_as_complete() {
    let (old, new) = ("1000 1000-1500", "2000 2000-2500");
    for ledger in ["main//ledger", "other//ledger"] {
        let all = format!("2 | {ledger}: 2000 2000-2500 | t: {old} {new}");
        check_promoted(&[
            ("0 | t: 1000 1000-1500 | cache: 1000 1000-1500", old, old),
            ("1 | t: 1000 1000-1500 2000 2000-2500", old, new),
            (&all, new, new),
        ]);
        // One half there, and the other in the cache.
        let half = format!("2 | {ledger}: 2000 | t: {old} {new}");
        check_promoted(&[
            ("0 | t: 1000 1000-1500 | cache: 1000 1000-1500", old, old),
            (&half, old, new),
            ("3 | cache: 1000 1000-1500 2000-2500", new, new),
        ]);
        // One that cannot be listed has nothing.
        let fails = format!("{ledger} fails | ").repeat(3);
        let fails = format!("3 | {fails}cache: 1000 1000-1500 2000-2500");
        check_promoted(&[
            ("0 | t: 1000 1000-1500 | cache: 1000 1000-1500", old, old),
            (&half, old, new),
            (&fails, old, new),
        ]);
    }
}

#[test]
fn a_ledger_is_told_apart_from_every_host_and_port() {
    assert!(TargetId::ledger("g".into(), "/var/lib/solana/127.0.0.1:80").is_ledger());
    assert!(!target("127.0.0.1:80").is_ledger());
    let mut scene = Scene::new(POLICY);
    scene.step("0 | t: 1000 900 | main//ledger: 1000");
    assert!(scene.view.is_local(&name("1000")));
    assert!(!scene.view.is_local(&name("900")) && !scene.view.is_local(&name("800")));
}

#[test]
fn what_is_not_sound_counts_as_not_there_until_it_may_have_been_made_anew() {
    let mut scene = Scene::new(POLICY);
    scene.step("0 | t: 1000 1000-1500 | u: 1000 1000-1500 1000-1600");
    let offers = |scene: &Scene| scene.offers(Some("main"));
    assert_eq!(offers(&scene), "1000 1000-1600");
    let (target, until) = (target("u"), scene.at(30).instant);
    let mark = Mark { length: 5, modified: None, listed: None, tag: None };
    let found = [Distrusted { target, name: name("1000-1600"), mark, until }];
    // It is said again for each view, also when it is over.
    let step = |scene: &mut Scene, seconds, text: &str| {
        scene.catalog.distrust(&found, scene.at(seconds).instant);
        scene.step(&format!("{seconds} | {text}"));
        (offers(scene), scene.view.sources(&name("1000-1600")).len())
    };
    let (old, new) = ("1000 1000-1500".to_owned(), "1000 1000-1600".to_owned());
    let all = "1000 1000-1500 1000-1600";
    assert_eq!(step(&mut scene, 1, &format!("u: {all}")), (old.clone(), 0));
    assert_eq!(step(&mut scene, 1, "u has 1000-1600"), (old, 0));
    // Of another target it is another file.
    assert_eq!(step(&mut scene, 2, &format!("t: {all}")), (new.clone(), 1));
    assert_eq!(step(&mut scene, 31, &format!("u: {all}")), (new.clone(), 2));
    assert_eq!(step(&mut scene, 32, &format!("t: {all}")), (new, 2));
}

#[test]
fn the_cache_has_no_vote() {
    check_vote("0 | cache: 1000 | t: 1000b", "1000b", &["1000: b over a"]);
    check_vote("0 | cache: 1000b | t: 1000", "1000", &["1000: a over b"]);
    check_vote("0 | cache: 1000 1000-1500 | t: 1000b", "1000b", &["1000: b over a"]);
    check_vote("0 | cache: 1000 | t: 1000.lz4", "1000", &[]);
}

#[test]
fn what_only_the_cache_has_is_listed_behind_the_targets() {
    let mut scene = Scene::new(POLICY);
    scene.step("0 | t: 1000 | other/u: 500 | cache: 1000 1000-1500 1000-1600");
    let listed = |view: &View| -> Vec<String> {
        let entry = |entry: &Entry| {
            let source = &entry.source;
            let place = source.listed.location.as_ref().map_or("only cached", |_| "listed");
            format!("{} {} {place}", source.target.authority, short(&source.listed.name))
        };
        view.entries().iter().map(entry).collect()
    };
    let cached = ["cached 1000-1600 only cached", "cached 1000-1500 only cached"];
    assert_eq!(listed(&scene.view), ["t 1000 listed", cached[0], cached[1], "u 500 listed"]);
    assert!(scene.view.sources(&name("1000-1600")).is_empty(), "nothing to fetch it from");
    let newest: Vec<_> = scene.view.newest().map(|entry| entry.source.listed.name).collect();
    assert_eq!(newest[0], name("1000-1600"));
    assert_eq!(
        scene.view.entries()[1].base.as_ref().map(|base| base.listed.name),
        Some(name("1000"))
    );
}

#[test]
fn an_archive_is_superseded_by_a_newer_one_of_its_kind_in_its_group() {
    let check = |step: &str, text: &str, expected: Worth| {
        let mut scene = Scene::new(POLICY);
        scene.step(step);
        assert_eq!(scene.view.worth(&name(text), "main"), expected, "{text} after {step}");
    };
    let pair = "0 | t: 1000 1000-1500 1000-1400 900 | other/u: 5000";
    check(pair, "1000", Worth::Best);
    check(pair, "1000-1500", Worth::Best);
    check(pair, "5000", Worth::Best);
    check(pair, "900", Worth::Superseded);
    check(pair, "1000-1400", Worth::Superseded);
    check(pair, "2000", Worth::Doubtful);
    check(pair, "1000-1600", Worth::Doubtful);
    check("0 | t: 2000", "1000-1500", Worth::Superseded);
    check("0 | t: 1000", "1000-1500", Worth::Doubtful);
    check("0 | t:", "1000-1500", Worth::Doubtful);
    assert_eq!(View::default().worth(&name("1000"), "nowhere"), Worth::Doubtful);
}

#[test]
fn an_archive_is_held_by_a_target_or_for_its_group_by_the_cache() {
    let mut scene = Scene::new(POLICY);
    scene.step("0 | t: 1000 | other/u: 500 | cache: 800");
    for (text, groups) in [
        ("1000", [true, true, false, false]),
        ("500", [true, false, true, false]),
        ("800", [true, true, false, false]),
        ("700", [false; 4]),
    ] {
        let asked = [None, Some("main"), Some("other"), Some("nowhere")];
        let found = asked.map(|group| scene.view.is_held(&name(text), group));
        assert_eq!(found, groups, "{text}");
    }
}

#[test]
fn the_best_are_those_that_short_names_lead_to() {
    let mut scene = Scene::new(POLICY);
    scene.step("0 | t: 1000 1000-1500 1000-1400 900 | other/u: 700 700-800");
    let best = ["1000", "1000-1500", "700", "700-800"];
    for text in
        ["1000", "1000-1500", "1000-1400", "900", "700", "700-800", "1", "1000b", "1000.lz4"]
    {
        assert_eq!(scene.view.is_best(&name(text)), best.contains(&text), "{text}");
    }
    assert!(!View::default().is_best(&name("1000")));
}

#[test]
fn zstd_is_preferred_at_the_same_slot_and_hash() {
    check(&[("0 | t: 1000.lz4 1000 1000.tar", "1000")]);
    check(&[("0 | t: 1000.lz4 1000.bz2", "1000.lz4")]);
    check(&[("0 | t: 1000.lz4 | u: 1000", "1000")]);
    check(&[("0 | t: 1000 1000-1500.lz4 | u: 1000.lz4 1000-1500", "1000 1000-1500")]);
    // Only at the same slot: a newer archive wins in any compression.
    check(&[("0 | t: 1000 2000.tar", "2000.tar")]);
    // A compression has no vote of its own.
    check(&[("0 | t: 1000.lz4 1000.gz 1000.tar | u: 1000b | v: 1000b", "1000b")]);
    check(&[("0 | t: 1000.lz4", "1000.lz4"), ("5 | u: 1000", "1000"), ("9 | u:", "1000.lz4")]);
}

/// What `main` offers, and its conflicts, as `<slots>: <winner> over <loser>`.
#[track_caller]
fn check_vote(step: &str, expected: &str, conflicts: &[&str]) {
    let mut scene = Scene::new(POLICY);
    scene.step(step);
    assert_eq!(scene.offers(Some("main")), expected, "{step}");
    let group = scene.view.group("main").expect("configured");
    let found: Vec<String> = group.conflicts.iter().map(describe).collect();
    assert_eq!(found, conflicts, "{step}");
}

fn describe(conflict: &super::Conflict) -> String {
    let letter = |hash: ArchiveHash| char::from(hash.as_bytes()[0]);
    let base = conflict.base.map(|base| format!("{base}-")).unwrap_or_default();
    let (winner, loser) = (letter(conflict.winner), letter(conflict.loser));
    let text = conflict.to_string();
    for hash in [conflict.winner, conflict.loser] {
        assert!(text.contains(&hash.to_string()), "both are named: {text}");
    }
    format!("{base}{}: {winner} over {loser}", conflict.slot)
}

#[test]
fn the_hash_that_most_targets_list_wins() {
    check_vote("0 | t: 1000 | u: 1000", "1000", &[]);
    check_vote("0 | t: 1000 | u: 1000 | v: 1000b", "1000", &["1000: a over b"]);
    check_vote("0 | t: 1000 | u: 1000b | v: 1000b", "1000b", &["1000: b over a"]);
    check_vote(
        "0 | t: 1000 | u: 1000b | v: 1000c | w: 1000b",
        "1000b",
        &["1000: b over a", "1000: b over c"],
    );
    // A tie is broken for good, and not by the hash.
    check_vote("0 | t: 1000 | u: 1000b", "1000", &["1000: a over b"]);
    check_vote("0 | t: 1000b | u: 1000", "1000b", &["1000: b over a"]);
    // A target in another group has no say, and is not contradicted.
    check_vote("0 | t: 1000 | other/u: 1000b | other/v: 1000b", "1000", &[]);
    // Nor has one that does not answer, or that said so before but no longer does.
    check_vote(
        "9 | 1 t: 1000 | 1 u: 1000b | 1 v: 1000b | 2 u fails | 3 u fails | 4 u fails \
         | v: 900",
        "1000",
        &[],
    );
    // The older archive of a target with two hashes is not what decides.
    check_vote(
        "0 | t: 1000 2000 | u: 1000b 2000 | v: 1000b 2000b",
        "2000",
        &["1000: b over a", "2000: a over b"],
    );
}

#[test]
fn incremental_archives_are_voted_on_by_those_who_have_the_right_base() {
    check_vote(
        "0 | t: 1000 1000-1500 | u: 1000 1000-1500b | v: 1000 1000-1500b",
        "1000 1000-1500b",
        &["1000-1500: b over a"],
    );
    // Two targets with the losing full archive have no say in what is on it, and no conflict.
    check_vote(
        "0 | t: 1000 1000-1500 | u: 1000 | v: 1000 | w: 1000b 1000-1500b | x: 1000b 1000-1500b",
        "1000 1000-1500",
        &["1000: a over b"],
    );
    check_vote(
        "0 | t: 1000 | u: 1000 1000-1500 | v: 1000b 1000-1600b",
        "1000 1000-1500",
        &["1000: a over b"],
    );
    // A target without any full archive at that slot contradicts nobody.
    check_vote("0 | t: 1000 | v: 1000-1600b", "1000 1000-1600b", &[]);
    // The same slot on another base is another question.
    check_vote("0 | t: 900 1000 900-1500 | u: 1000-1500b", "1000 1000-1500b", &[]);
}

#[test]
fn a_failing_target_leaves_and_comes_back() {
    check(&[
        ("0 | t: 1000 | u: 900", "1000"),
        ("15 | t fails", "1000"),
        ("30 | t fails", "1000"),
        ("45 | t fails", "900"),
        ("60 | t fails", "900"),
        ("75 | t: 1000", "1000"),
        // One answer and the count begins anew.
        ("90 | t fails", "1000"),
        ("105 | t fails", "1000"),
        ("106 | t: 1000", "1000"),
        ("120 | t fails", "1000"),
    ]);
    check(&[("0 | t fails | t fails | t fails", "nothing"), ("1 | t: 1000", "1000")]);
}

#[test]
fn old_news_change_nothing() {
    check(&[
        ("10 | t: 1000", "1000"),
        ("11 | 9 t: 2000", "1000"),
        ("12 | 9 t fails | 8 t fails | 7 t fails | 6 t fails", "1000"),
        ("13 | 10 t fails | 10 t fails | 10 t fails", "1000"),
        ("20 | t: 3000", "3000"),
        ("21 | 19 t:", "3000"),
    ]);
}

#[test]
fn a_removed_target_and_a_gone_archive_are_forgotten() {
    check(&[
        ("0 | t: 1000 1000-1500 | u: 900", "1000 1000-1500"),
        ("1 | t lost 1000-1500", "1000"),
        ("2 | t lost 1000", "900"),
        ("3 | t: 1000", "1000"),
        ("4 | t leaves", "900"),
        // Of something that nobody knows.
        ("5 | t leaves | t lost 1000 | t fails | u lost 1000", "900"),
        ("6 | u leaves", "nothing"),
    ]);
    // One target's word is not another's.
    check(&[("0 | t: 1000 | u: 1000", "1000"), ("1 | t lost 1000", "1000")]);
    // A probe that began before may have seen what is gone, one that began after has not.
    check(&[
        ("0 | t: 1000 900", "1000"),
        ("5 | t lost 1000", "900"),
        ("6 | 4 t: 1000 900", "900"),
        ("8 | 7 t: 1000 900", "1000"),
    ]);
}

#[test]
fn what_is_found_is_listed_until_a_later_answer_of_its_target() {
    check(&[
        ("0 | t: 1000 1000-1500 | u: 1000", "1000 1000-1500"),
        ("1 | t has 1000-1600", "1000 1000-1600"),
        // It is what the others list, from then on.
        ("2 | u has 1000-1600 | t lost 1000-1600", "1000 1000-1600"),
        ("3 | u: 1000", "1000 1000-1500"),
        // A full archive waits for its first incremental one, as any other does.
        ("4 | t has 2000", "1000 1000-1500 until 64"),
        ("5 | t has 2000-2100", "2000 2000-2100"),
        ("6 | t: 1000 1000-1500", "1000 1000-1500"),
    ]);
    // A probe that was under way may have been too early, one that began later was not.
    check(&[
        ("0 | t: 1000", "1000"),
        ("5 | t has 2000", "2000"),
        ("6 | 4 t: 1000", "2000"),
        ("8 | 7 t: 1000", "1000"),
        ("9 | 6 t has 2000", "1000"),
        ("10 | t: 1000 2000 | t lost 2000 | 9 t has 2000", "1000"),
        ("11 | t has 2000", "2000"),
        ("15 | t lost 2000 | 14 t has 2000", "1000"),
    ]);
    // Of a target that is not there, or not any more.
    check(&[("0 | u: 900 | t has 1000", "900"), ("1 | u leaves | u has 1000", "nothing")]);
    // One that fails is listed, and its archives do not count.
    check(&[("0 | t: 900 | t has 1000 | 1 t fails | 2 t fails | 3 t fails", "nothing")]);
}

#[test]
fn what_is_found_again_under_the_same_name_is_as_it_was_listed() {
    let mut scene = Scene::new(POLICY);
    scene.step("0 | t: 1000");
    let at = scene.at(1).instant;
    let archive = Listed { size: Some(7), ..listed(name("1000")) };
    scene.catalog.apply(Event::Found { target: target("t"), at, archive });
    scene.step("1");
    assert_eq!(scene.view.sources(&name("1000"))[0].listed, listed(name("1000")));
}

#[test]
fn an_unknown_group_is_an_error_and_a_silent_one_has_nothing() {
    let mut scene = Scene::new(POLICY);
    for step in ["0", "1 | t: 1000 1000-1500"] {
        scene.step(step);
        assert_eq!(scene.view.best(Some("silent")), Ok(None));
        for unknown in ["", "Main", "main ", "unknown"] {
            assert_eq!(scene.view.best(Some(unknown)), Err(UnknownGroup), "{unknown}");
        }
    }
    assert_eq!(scene.view.groups().count(), 3);
    // A group that is not configured is served by name, and recommended to nobody.
    scene.step("2 | t leaves | unconfigured/t: 1000");
    assert_eq!(scene.view.best(None), Ok(None));
    assert_eq!(scene.view.best(Some("unconfigured")), Err(UnknownGroup));
    assert_eq!(scene.view.sources(&name("1000")).len(), 1);
    assert_eq!(scene.view.newest().count(), 0);
}

#[test]
fn without_a_group_the_best_over_all_is_offered() {
    check_in(None, &[("0", "nothing")]);
    check_in(
        None,
        &[
            ("0 | t: 1000 1000-1500 | other/t: 1000 1000-1600", "1000 1000-1600"),
            ("5 | t: 1000 1000-1700", "1000 1000-1700"),
            ("9 | t: 1000 1000-1700 | other/t: 2000 2000-2100", "2000 2000-2100"),
        ],
    );
    // Halves of different groups are no pair.
    check_in(None, &[("0 | t: 1000 | other/t: 1000-1500", "1000")]);
}

#[test]
fn the_best_over_all_does_not_go_back_between_groups() {
    // A newer tip in another group, on an older full archive.
    check_in(
        None,
        &[
            ("0 | t: 2000 2000-2100", "2000 2000-2100"),
            ("5 | other/t: 1000 1000-2900", "2000 2000-2100"),
            ("9 | t leaves", "1000 1000-2900"),
        ],
    );
    // A newer full archive in another group, whose incremental is behind.
    check_in(
        None,
        &[
            ("0 | t: 1000 1000-2500", "1000 1000-2500"),
            ("5 | other/t: 2000 2000-2400", "1000 1000-2500"),
            ("7 | other/t: 2000 2000-2600", "2000 2000-2600"),
        ],
    );
    // A full archive in another group, ahead of the full one and behind the pair.
    check_in(
        None,
        &[
            ("0 | t: 1000 1000-1600 | other/t: 1500", "1000 1000-1600"),
            ("1 | other/t: 1000 1000-1600 1500", "1000 1000-1600"),
            ("2 | t leaves", "1000 1000-1600"),
            ("3 | other/t: 1000 1500", "1500"),
        ],
    );
    // The group that offered it has gone; one that holds an older pair still has the archive.
    check_in(
        None,
        &[
            ("0 | t: 2000 2000-2500", "2000 2000-2500"),
            ("1 | other/t: 1000 1000-1500 2000", "2000 2000-2500 until 61"),
            ("2 | t leaves", "2000 until 61"),
            ("3 | other/t: 1000 1000-1500", "1000 1000-1500"),
        ],
    );
}

fn entries<'a>(found: impl IntoIterator<Item = &'a Entry>) -> Vec<String> {
    let text = |entry: &Entry| {
        let TargetId { group, authority } = &entry.source.target;
        let base = entry.base.as_ref();
        let base = base.map(|base| format!(" on {}", short(&base.listed.name)));
        let doubt = if entry.believed { "" } else { " ?" };
        let archive = short(&entry.source.listed.name);
        format!("{group}/{authority} {archive}{}{doubt}", base.unwrap_or_default())
    };
    found.into_iter().map(text).collect()
}

#[test]
fn entries_are_in_order_of_group_target_and_worth() {
    let mut scene = Scene::new(POLICY);
    scene.step(
        "0 | u: 1000 1000-1500 1000.lz4 | t: 2000b 1000 1000-2000 | other/x: 3000 \
         | other/a: 1000 2000-2500 | main2/z: 1",
    );
    let expected = [
        "main/t 2000b",
        "main/t 1000-2000 on 1000",
        "main/t 1000",
        "main/u 1000-1500 on 1000",
        "main/u 1000",
        "main/u 1000.lz4",
        "main2/z 1 ?",
        // `2000-2500` is left out: its full archive is not on that target.
        "other/a 1000",
        "other/x 3000",
    ];
    assert_eq!(entries(scene.view.entries()), expected);
    let orphan = scene.view.sources(&name("2000-2500"));
    assert_eq!(orphan.len(), 1, "by its name it can still be had");
    let updated: BTreeSet<_> =
        scene.view.entries().iter().map(|entry| entry.source.updated_at).collect();
    assert_eq!(updated, BTreeSet::from([UNIX_EPOCH]));
}

#[test]
fn newest_is_in_order_of_worth_and_without_what_was_voted_down() {
    let mut scene = Scene::new(POLICY);
    scene.step(
        "0 | t: 1000 1000-1500 900 | u: 1000 1000-1500 | v: 1000b 1000-1600b \
         | w: 1000 1000-1500b | other/a: 1000b 1000-1500 1000.lz4",
    );
    let expected = [
        "main/t 1000-1500 on 1000",
        "main/u 1000-1500 on 1000",
        "other/a 1000-1500 on 1000b",
        "other/a 1000b",
        "main/t 1000",
        "main/u 1000",
        "main/w 1000",
        "main/t 900",
    ];
    assert_eq!(entries(scene.view.newest()), expected);
    // All the same they are listed, and can be had by name.
    let all = entries(scene.view.entries());
    for doubted in ["main/v 1000b ?", "main/w 1000-1500b on 1000 ?", "other/a 1000.lz4 ?"] {
        assert!(all.iter().any(|entry| entry == doubted), "{doubted} in {all:#?}");
    }
    assert_eq!(scene.view.sources(&name("1000b")).len(), 2);
    assert_eq!(scene.view.sources(&name("1001")), []);
}

/// One thing that happens to one of six targets in two groups.
#[derive(Clone, Debug)]
enum Step {
    Answers(Vec<ArchiveName>),
    Fails,
    Leaves,
    Lost(ArchiveName),
    Found(ArchiveName),
}

fn any_archive() -> impl Strategy<Value = ArchiveName> {
    let form = prop_oneof![4 => Just(Compression::Zstd), 1 => Just(Compression::Lz4)];
    let hash = prop_oneof![2 => Just(b'a'), 1 => Just(b'b')];
    let parts = (0..5_u64, 0..6_u64, any::<bool>(), hash, form);
    parts.prop_map(|(base, more, full, hash, form)| {
        let hash = ArchiveHash::new([hash; 32]);
        let base = Slot(base * 10);
        let name = ArchiveName::incremental(base, Slot(base.0 + more * 5), hash, form);
        name.ok().filter(|_| !full).unwrap_or(ArchiveName::full(base, hash, form))
    })
}

fn any_step() -> impl Strategy<Value = (usize, u64, Step)> {
    let answers = prop::collection::vec(any_archive(), 0..7).prop_map(Step::Answers);
    let step = prop_oneof![
        6 => answers,
        3 => Just(Step::Fails),
        1 => Just(Step::Leaves),
        2 => any_archive().prop_map(Step::Lost),
        2 => any_archive().prop_map(Step::Found),
    ];
    (0..6_usize, 0..40_u64, step)
}

fn event(scene: &Scene, who: usize, at: u64, step: Step) -> Event {
    let groups = ["main", "other"];
    let target = target(&format!("{}/t{}", groups[who % 2], who / 2));
    let at = scene.at(at);
    match step {
        Step::Answers(names) => {
            Event::Answered { target, at, archives: names.into_iter().map(listed).collect() }
        }
        Step::Fails => Event::Failed { target, at },
        Step::Leaves => Event::Removed { target },
        Step::Lost(name) => Event::Gone { target, name, at: at.instant },
        Step::Found(name) => Event::Found { target, at: at.instant, archive: listed(name) },
    }
}

const QUICK: Policy =
    Policy { probe_failures: 2, pair_hold: Duration::from_secs(30), publish: Publish::Seen };

/// What the counted targets of a group (of every group for `None`) list.
fn lists<'a>(scene: &'a Scene, group: Option<&str>) -> Vec<BTreeSet<&'a ArchiveName>> {
    let targets = scene.catalog.targets.iter();
    targets
        .filter(|(id, answer)| {
            answer.failures < scene.policy.probe_failures
                && group.is_none_or(|group| *id.group == *group)
        })
        .map(|(_, answer)| answer.holdings.keys().collect())
        .collect()
}

/// The hash that may be offered at each slot (and base): that with the most votes, and of several
/// the one of the target that is known the longest.
fn favourites(scene: &Scene, group: &str) -> HashMap<(Kind, Slot), BTreeSet<ArchiveHash>> {
    let mut voters: Vec<_> = scene
        .catalog
        .targets
        .iter()
        .filter(|(id, answer)| answer.failures < scene.policy.probe_failures && *id.group == *group)
        .map(|(id, answer)| (answer.known, id, answer.holdings.keys().collect::<BTreeSet<_>>()))
        .collect();
    voters.sort();
    let mut won = HashMap::new();
    for full in [true, false] {
        let mut ballots: BTreeMap<_, BTreeMap<_, BTreeSet<usize>>> = BTreeMap::new();
        for (voter, (_, _, names)) in voters.iter().enumerate() {
            for name in names.iter().filter(|name| name.is_full() == full) {
                if full || has_a_say(names, name, &won) {
                    let seat = ballots.entry((name.base_slot(), name.slot())).or_default();
                    seat.entry(name.hash()).or_default().insert(voter);
                }
            }
        }
        for ((base, slot), hashes) in ballots {
            let kind = if full { Kind::Full } else { Kind::Incremental { base } };
            let most = |(_, voters): &(&ArchiveHash, &BTreeSet<usize>)| {
                (voters.len(), std::cmp::Reverse(voters.first().copied()))
            };
            let winner = hashes.iter().max_by_key(most).map(|(hash, _)| *hash);
            won.insert((kind, slot), winner.into_iter().collect());
        }
    }
    won
}

fn has_a_say(
    names: &BTreeSet<&ArchiveName>,
    name: &ArchiveName,
    won: &HashMap<(Kind, Slot), BTreeSet<ArchiveHash>>,
) -> bool {
    let base = name.base_slot();
    let mut own = names.iter().filter(|name| name.is_full() && name.slot() == base).peekable();
    won.get(&(Kind::Full, base)).is_some_and(|believed| {
        own.peek().is_none() || own.any(|name| believed.contains(&name.hash()))
    })
}

/// What must hold of everything that is ever published.
fn assert_promises(before: &View, scene: &Scene) {
    for group in [Some("main"), Some("other"), None] {
        let groups = group.map_or(vec!["main", "other"], |group| vec![group]);
        let won: Vec<_> = groups.iter().map(|group| favourites(scene, group)).collect();
        let believed = |name: &ArchiveName| {
            won.iter().any(|won| {
                won.get(&(name.kind(), name.slot())).is_some_and(|h| h.contains(&name.hash()))
            })
        };
        let lists = lists(scene, group);
        let is_listed = |name: &ArchiveName| lists.iter().any(|names| names.contains(name));
        let old = before.best(group).ok().flatten();
        if let Some(group) = group {
            let seen = scene.view.group(group).expect("configured");
            assert_eq!(seen.best, seen.wanted, "what is seen is offered");
        }
        let Some(new) = scene.view.best(group).expect("configured") else {
            assert!(lists.iter().flatten().all(|name| !name.is_full()), "{group:?} is withheld");
            continue;
        };
        for name in std::iter::once(new.full).chain(new.incremental) {
            assert!(is_listed(&name), "{group:?} offers {name:?}, which no target lists");
            assert!(believed(&name), "{group:?} offers {name:?}, which was voted down");
            assert!(!scene.view.sources(&name).is_empty());
        }
        if let Some(name) = new.incremental {
            assert_eq!(name.base_slot(), new.full.slot(), "a pair: {}", offered(Some(new)));
        }
        let Some(old) = old else { continue };
        let back = format!("{group:?} from {} to {}", offered(Some(old)), offered(Some(new)));
        // Within a group, a slot that is listed always has a winner.
        if is_listed(&old.full) && (group.is_some() || believed(&old.full)) {
            assert!(new.full.slot() >= old.full.slot(), "the full archive goes back, {back}");
        }
        let can_be_served = |name: &ArchiveName| is_listed(name) && believed(name);
        if let (Some(old_tip), Some(tip)) = (old.incremental, new.incremental)
            && can_be_served(&old_tip)
            && can_be_served(&old.full)
        {
            assert!(tip.slot() >= old_tip.slot(), "the incremental one goes back, {back}");
        }
    }
}

/// What happens where what is not cached is not offered.
#[derive(Clone, Debug)]
enum Change {
    /// As above.
    Target((usize, u64, Step)),
    /// The cache drops some of what it holds, by the bits, and takes in some of what is offered and
    /// wanted, and for `main` what nobody asked for.
    Cache(u64, Vec<ArchiveName>),
}

fn any_change() -> impl Strategy<Value = Change> {
    let stray = prop::collection::vec(any_archive(), 0..2);
    let bits = (any::<u64>(), any::<u64>()).prop_map(|(some, others)| some | others);
    prop_oneof![
        3 => any_step().prop_map(Change::Target),
        2 => (bits, stray).prop_map(|(bits, stray)| Change::Cache(bits, stray)),
    ]
}

/// The same with one hash for all archives, so that nothing is ever voted down.
fn undisputed(change: Change) -> Change {
    let agreed = |name: ArchiveName| {
        let hash = ArchiveHash::new([b'a'; 32]);
        match name.kind() {
            Kind::Full => ArchiveName::full(name.slot(), hash, name.compression()),
            Kind::Incremental { base } => {
                ArchiveName::incremental(base, name.slot(), hash, name.compression())
                    .expect("slots as before")
            }
        }
    };
    let all = |names: Vec<ArchiveName>| names.into_iter().map(agreed).collect::<Vec<_>>();
    match change {
        Change::Target((who, age, Step::Answers(names))) => {
            let names: BTreeSet<ArchiveName> = all(names).into_iter().collect();
            Change::Target((who, age, Step::Answers(names.into_iter().collect())))
        }
        Change::Target((who, age, Step::Lost(name))) => {
            Change::Target((who, age, Step::Lost(agreed(name))))
        }
        Change::Target((who, age, Step::Found(name))) => {
            Change::Target((who, age, Step::Found(agreed(name))))
        }
        Change::Cache(bits, names) => Change::Cache(bits, all(names)),
        Change::Target(other) => Change::Target(other),
    }
}

/// What the cache holds after a change of it.
fn cached_after(
    scene: &Scene,
    cached: &[Held],
    bits: u64,
    stray: &[ArchiveName],
    at: u64,
) -> Vec<Held> {
    let mut all = cached.to_vec();
    let mut add = |name: ArchiveName, group: &str| {
        if !all.iter().any(|held| held.name == name && *held.target.group == *group) {
            all.push(held(name, &format!("{group}/cached"), scene.at(at)));
        }
    };
    for group in ["main", "other"] {
        let view = scene.view.group(group);
        let generations = view.into_iter().flat_map(|view| [view.best, view.wanted]).flatten();
        generations.flat_map(|generation| generation.names()).for_each(|name| add(name, group));
    }
    for name in stray {
        add(*name, "main");
    }
    let kept = |(at, held): (usize, Held)| (bits >> (at % 64) & 1 == 1).then_some(held);
    all.into_iter().enumerate().filter_map(kept).collect()
}

/// What must hold of everything that is published where what is not cached is not offered.
fn assert_promoted(before: &View, scene: &Scene, cached: &[Held], disputed: bool) {
    for group in [Some("main"), Some("other"), None] {
        let old = before.best(group).ok().flatten();
        let is_held = |name: &ArchiveName| scene.view.is_held(name, group);
        let Some(new) = scene.view.best(group).expect("configured") else {
            let mut entries = scene.view.entries().iter().map(|entry| &entry.source);
            let full = entries.find(|source| {
                let asked = group.is_none_or(|group| *source.target.group == *group);
                asked && source.listed.name.is_full()
            });
            assert_eq!(full, None, "{group:?} is withheld");
            continue;
        };
        assert!(
            new.names().all(|name| is_held(&name)),
            "{group:?}: {} is nowhere",
            offered(Some(new))
        );
        assert!(new.incremental.is_none_or(|name| name.base_slot() == new.full.slot()));
        let Some(old) = old else { continue };
        let back = format!("{group:?} from {} to {}", offered(Some(old)), offered(Some(new)));
        if is_held(&old.full) && (group.is_some() || !disputed) {
            assert!(new.full.slot() >= old.full.slot(), "the full archive goes back, {back}");
        }
        let mut groups = ["main", "other"].into_iter().filter(|id| group.is_none_or(|g| g == *id));
        let stands = groups.any(|id| old.names().all(|name| scene.view.is_held(&name, Some(id))));
        if disputed || !stands {
            continue;
        }
        if let (Some(old_tip), Some(tip)) = (old.incremental, new.incremental) {
            assert!(tip.slot() >= old_tip.slot(), "the incremental one goes back, {back}");
        }
        if let Some(group) = group.filter(|_| new != old) {
            let has = |name: ArchiveName| {
                // From whichever group, where this one lists it.
                let lists = |id: &str| {
                    let mut sources = scene.view.sources(&name).iter();
                    id == group || sources.any(|source| *source.target.group == *group)
                };
                cached.iter().any(|held| held.name == name && lists(&held.target.group))
            };
            assert!(new.names().all(has), "what is not cached is offered, {back}");
        }
    }
}

proptest! {
    #[test]
    fn promises_hold_in_any_sequence_of_events(
        steps in prop::collection::vec((any_step(), 0..20_u64), 1..40),
    ) {
        let mut scene = Scene::new(QUICK);
        let mut now = 40;
        for ((who, age, step), pause) in steps {
            now += pause;
            // Reports may be late, in any order.
            let event = event(&scene, who, now - age, step);
            scene.catalog.apply(event);
            let before = scene.view.clone();
            scene.publish(now);
            assert_promises(&before, &scene);
            // The end of a hold is the only thing that time alone brings about.
            let until = scene.view.until();
            prop_assert!(until.is_none_or(|until| until > scene.at(now).instant));
            let again = scene.catalog.view(
                &scene.view, &scene.groups, QUICK, scene.at(now).instant,
            );
            prop_assert_eq!(&again, &scene.view, "a view is a fixed point");
        }
    }

    #[test]
    fn promises_hold_where_what_is_not_cached_is_not_offered(
        changes in prop::collection::vec((any_change(), 0..20_u64), 1..40),
        disputed: bool,
    ) {
        let policy = Policy { publish: Publish::Promoted, ..QUICK };
        let mut scene = Scene::new(policy);
        let mut cached = Vec::new();
        let mut now = 40;
        for (change, pause) in changes {
            now += pause;
            match if disputed { change } else { undisputed(change) } {
                Change::Target((who, age, step)) => {
                    let event = event(&scene, who, now - age, step);
                    scene.catalog.apply(event);
                }
                Change::Cache(bits, stray) => {
                    cached = cached_after(&scene, &cached, bits, &stray, now);
                    scene.catalog.hold(&cached);
                }
            }
            let before = scene.view.clone();
            scene.publish(now);
            assert_promoted(&before, &scene, &cached, disputed);
            let view = |previous: &View, policy: Policy| {
                scene.catalog.view(previous, &scene.groups, policy, scene.at(now).instant)
            };
            prop_assert_eq!(&view(&scene.view, policy), &scene.view, "a view is a fixed point");
            // Without a past, what is wanted is what is offered otherwise.
            let (wanted, seen) = (view(&View::default(), policy), view(&View::default(), QUICK));
            for (name, group) in seen.groups() {
                prop_assert_eq!(wanted.group(name).and_then(|group| group.wanted), group.best);
            }
        }
        // Once all of it is cached, it is offered.
        if !disputed {
            cached.retain(|held| scene.view.is_held(&held.name, Some(&held.target.group)));
            for held in &mut cached {
                held.since = scene.at(now);
            }
            cached = cached_after(&scene, &cached, u64::MAX, &[], now);
            scene.catalog.hold(&cached);
            scene.publish(now);
            for (name, group) in scene.view.groups() {
                prop_assert_eq!(group.best, group.wanted, "{}", name);
            }
        }
    }

    #[test]
    fn the_order_between_targets_does_not_matter(
        steps in prop::collection::vec(any_step(), 1..40),
        order in prop::collection::vec(0..6_usize, 0..80),
    ) {
        let scene = Scene::new(QUICK);
        let mut queues: Vec<Vec<Event>> = vec![Vec::new(); 6];
        for (at, (who, _, step)) in steps.into_iter().enumerate() {
            queues[who].push(event(&scene, who, at as u64, step));
        }
        let final_view = |events: Vec<Event>| {
            let mut catalog = Catalog::default();
            for event in events {
                catalog.apply(event);
            }
            catalog.view(&View::default(), &scene.groups, QUICK, scene.at(45).instant)
        };
        let one_by_one = final_view(queues.concat());
        let mut rest: Vec<_> = queues.into_iter().map(Vec::into_iter).collect();
        let mut interleaved: Vec<Event> =
            order.into_iter().filter_map(|who| rest[who].next()).collect();
        interleaved.extend(rest.into_iter().rev().flatten());
        prop_assert_eq!(final_view(interleaved), one_by_one);
    }
}
