//! Since when each group offers what it offers. Pure: time is an argument.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::clock::Now;
use crate::index::Generation;
use crate::snapshot::ArchiveName;

/// What each group offered when it was looked at last.
#[derive(Debug, Default)]
pub(super) struct Offers(BTreeMap<Arc<str>, Offer>);

#[derive(Debug)]
struct Offer {
    best: Option<Generation>,
    newest: Option<ArchiveName>,
    since: Since,
}

/// Since when something is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Since {
    /// The newest archive was seen first then.
    pub(super) seen: SystemTime,
    /// Something else was offered before; nothing where nothing ever was.
    pub(super) changed: Option<SystemTime>,
}

impl Offers {
    /// Forgets groups but these.
    pub(super) fn keep(&mut self, groups: &[Arc<str>]) {
        self.0.retain(|group, _| groups.contains(group));
    }

    /// Notes what a group offers now, and tells since when.
    pub(super) fn note(&mut self, group: &Arc<str>, best: Option<Generation>, now: Now) -> Since {
        let newest = best.map(|best| best.tip());
        let first =
            || Offer { best: None, newest: None, since: Since { seen: now.wall, changed: None } };
        let offer = self.0.entry(Arc::clone(group)).or_insert_with(first);
        if offer.best != best {
            (offer.best, offer.since.changed) = (best, Some(now.wall));
        }
        // An archive that is back after a moment is as old as it was.
        if newest.is_some() && offer.newest != newest {
            (offer.newest, offer.since.seen) = (newest, now.wall);
        }
        offer.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn name(text: &str) -> ArchiveName {
        text.replace('H', &"1".repeat(32)).parse().expect("valid")
    }

    #[test]
    fn an_offer_is_as_old_as_its_last_change() {
        let start = Now::read();
        let at = |seconds| Now { wall: start.wall + Duration::from_secs(seconds), ..start };
        let full = name("snapshot-1000-H.tar.zst");
        let incremental = Some(name("incremental-snapshot-1000-1100-H.tar.zst"));
        let (one, pair) =
            (Generation { full, incremental: None }, Generation { full, incremental });
        let (mut offers, group) = (Offers::default(), Arc::from("g"));
        let mut note = |best, second| {
            let Since { seen, changed } = offers.note(&group, best, at(second));
            let since =
                |time: SystemTime| time.duration_since(start.wall).expect("later").as_secs();
            (since(seen), changed.map(since))
        };
        assert_eq!(note(None, 0), (0, None), "nothing ever was offered");
        assert_eq!(note(Some(one), 5), (5, Some(5)));
        assert_eq!(note(Some(one), 9), (5, Some(5)));
        assert_eq!(note(Some(pair), 10), (10, Some(10)));
        assert_eq!(note(None, 20), (10, Some(20)));
        assert_eq!(note(Some(pair), 21), (10, Some(21)), "no newer than it was");
        offers.keep(&[]);
        assert!(offers.0.is_empty());
    }
}
