//! Copies that are no archives of their name, and which listings may be of one.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::listing::{Listed, Tag, TargetId};
use crate::snapshot::ArchiveName;

/// What marks a copy out among those that one target has under one name, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Bytes, as its answer told.
    pub length: u64,
    /// When it last changed, as its answer told: in whole seconds.
    pub modified: Option<SystemTime>,
    /// Time of the last change as the target listed it, which may be more exact.
    pub listed: Option<SystemTime>,
    /// The tag of the copy, as the answer told.
    pub tag: Option<Tag>,
}

/// A copy that a target has and that is no archive of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distrusted {
    /// Which target.
    pub target: TargetId,
    /// Which archive.
    pub name: ArchiveName,
    /// Which copy of it.
    pub mark: Mark,
    /// Until when it counts as not there: what nobody can tell from it may be made anew.
    pub until: Instant,
}

impl Mark {
    /// Whether a listing may be of this copy: whatever it tells is as it was. Another length, time
    /// or tag is another copy.
    fn may_be_of(&self, listed: &Listed) -> bool {
        let differs_in_length = listed.size.is_some_and(|size| size != self.length);
        let differs_in_tag = self.tag.zip(listed.tag).is_some_and(|(ours, other)| ours != other);
        let time = self.listed.or(self.modified).zip(listed.modified);
        let differs_in_time = time.is_some_and(|(ours, other)| !are_one(ours, other));
        !(differs_in_length || differs_in_tag || differs_in_time)
    }
}

impl Distrusted {
    /// Whether this is what a target lists.
    pub fn covers(&self, target: &TargetId, listed: &Listed, now: Instant) -> bool {
        let is_there = self.target == *target && self.name == listed.name;
        is_there && now < self.until && self.mark.may_be_of(listed)
    }
}

/// Whether two times may be one, of which one may be told in whole seconds.
pub(super) fn are_one(a: SystemTime, b: SystemTime) -> bool {
    let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (a, b) = (since(a), since(b));
    let is_whole = |time: Duration| time.subsec_nanos() == 0;
    a == b || (a.as_secs() == b.as_secs() && (is_whole(a) || is_whole(b)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;
    use crate::index::{Catalog, Event, Policy, Publish, View};

    fn at(millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(millis)
    }

    fn tag(text: &str) -> Option<Tag> {
        (!text.is_empty()).then(|| Tag::new(text.as_bytes()))
    }

    /// Whether a copy with these marks is not believed to be what a listing tells: length, time
    /// and tag.
    #[track_caller]
    fn check(mark: Mark, size: Option<u64>, modified: Option<SystemTime>, its: &str, same: bool) {
        let name = format!("snapshot-1-{}.tar.zst", "1".repeat(32)).parse().expect("valid");
        let listed = Listed { name, size, modified, tag: tag(its), location: None };
        assert_eq!(mark.may_be_of(&listed), same, "{mark:?} {listed:?}");
    }

    #[test]
    fn another_length_time_or_tag_is_another_copy() {
        let mark =
            Mark { length: 5, modified: Some(at(1000)), listed: Some(at(1500)), tag: tag("\"a\"") };
        // All that is told is as it was, however little.
        check(mark, Some(5), Some(at(1500)), "\"a\"", true);
        check(mark, Some(5), Some(at(1500)), "", true);
        check(mark, Some(5), None, "", true);
        check(mark, None, None, "", true);
        check(mark, None, Some(at(1500)), "", true);
        check(mark, Some(5), Some(at(1000)), "\"a\"", true);
        // One thing is not.
        check(mark, Some(6), Some(at(1500)), "\"a\"", false);
        check(mark, Some(4), None, "", false);
        check(mark, Some(5), Some(at(1600)), "\"a\"", false);
        check(mark, Some(5), Some(at(2500)), "", false);
        check(mark, Some(5), Some(at(2000)), "", false);
        check(mark, None, Some(at(2000)), "", false);
        check(mark, Some(5), Some(at(1500)), "\"b\"", false);
        check(mark, Some(5), None, "W/\"a\"", false);
        check(mark, None, None, "\"b\"", false);
        // With a time that the answer alone told, or nothing did.
        let answered = Mark { listed: None, ..mark };
        check(answered, Some(5), Some(at(1999)), "", true);
        check(answered, Some(5), Some(at(2000)), "", false);
        let plain = Mark { length: 5, modified: None, listed: None, tag: None };
        check(plain, Some(5), Some(at(1500)), "\"b\"", true);
        check(plain, Some(6), None, "", false);
        let listed = Mark { listed: Some(at(1500)), ..plain };
        check(listed, Some(5), Some(at(1500)), "", true);
        check(listed, Some(5), Some(at(1501)), "", false);
    }

    #[test]
    fn distrust_is_of_one_archive_at_one_target_for_a_time() {
        let name = |slot: u64| {
            let text = format!("snapshot-{slot}-{}.tar.zst", "1".repeat(32));
            text.parse::<ArchiveName>().expect("valid")
        };
        let target = |authority: &str| TargetId { group: "g".into(), authority: authority.into() };
        let mark = Mark { length: 5, modified: None, listed: None, tag: None };
        let now = Instant::now();
        let until = now + Duration::from_secs(1);
        let found = Distrusted { target: target("a:1"), name: name(1), mark, until };
        let listed = |name, size| Listed { name, size, modified: None, tag: None, location: None };
        let five = listed(name(1), Some(5));
        assert!(found.covers(&target("a:1"), &five, now));
        assert!(!found.covers(&target("a:1"), &five, until));
        assert!(!found.covers(&target("b:1"), &five, now));
        assert!(!found.covers(&target("a:1"), &listed(name(2), Some(5)), now));
        assert!(!found.covers(&target("a:1"), &listed(name(1), Some(6)), now));
    }

    #[test]
    fn what_comes_after_a_copy_that_was_found_out_counts_at_once() {
        let name = format!("snapshot-1-{}.tar.zst", "1".repeat(32)).parse().expect("valid");
        let target = TargetId { group: "g".into(), authority: "a:1".into() };
        let start = Now { instant: Instant::now(), wall: UNIX_EPOCH };
        let (mut catalog, mut round) = (Catalog::default(), 0);
        let mut step = |size, distrusted: &[u64], found| {
            round += 1;
            let at = Now { instant: start.instant + Duration::from_secs(round), ..start };
            let until = start.instant + Duration::from_secs(1000);
            let distrusted = distrusted.iter().map(|length| {
                let mark = Mark { length: *length, modified: None, listed: None, tag: None };
                Distrusted { target: target.clone(), name, mark, until }
            });
            catalog.distrust(&distrusted.collect::<Vec<_>>(), at.instant);
            let archive = Listed { name, size, modified: None, tag: None, location: None };
            let target = target.clone();
            catalog.apply(if found {
                Event::Found { target, at: at.instant, archive }
            } else {
                Event::Answered { target, at, archives: vec![archive] }
            });
            let policy =
                Policy { probe_failures: 3, pair_hold: Duration::ZERO, publish: Publish::Seen };
            let view = catalog.view(&View::default(), &["g".into()], policy, at.instant);
            (view.sources(&name).len(), view.best(None).expect("the group").is_some())
        };
        let (there, absent) = ((1, true), (0, false));
        assert_eq!(step(Some(5), &[], false), there);
        assert_eq!(step(Some(5), &[5], false), absent);
        assert_eq!(step(Some(5), &[5], true), absent);
        assert_eq!(step(Some(9), &[5], false), there);
        // The second one is no better, and the third one is.
        assert_eq!(step(Some(9), &[5, 9], false), absent);
        assert_eq!(step(Some(5), &[5, 9], false), absent);
        assert_eq!(step(None, &[5, 9], false), absent);
        assert_eq!(step(Some(12), &[5, 9], true), there);
        // What is listed by the time that an older copy is found out stays.
        assert_eq!(step(Some(12), &[5, 9, 11], false), there);
    }
}
