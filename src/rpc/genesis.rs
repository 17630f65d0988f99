//! The genesis archives that nodes gave. They are small and never change, but for a cluster that
//! begins anew: each is held whole, once, and given to all who ask.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Semaphore;

/// How long one is believed.
const LIFE: Duration = Duration::from_secs(60);

/// By the group that was asked for, which is a configured one, or none.
#[derive(Default)]
pub(super) struct Genesis(Mutex<BTreeMap<Option<String>, Arc<OfGroup>>>);

/// The genesis archive of one group.
pub(super) struct OfGroup {
    known: Mutex<Option<(Bytes, Instant)>>,
    /// The turn to fetch it: one request does, and others wait for that.
    pub(super) turn: Semaphore,
}

impl Genesis {
    /// Believes nothing of before any more.
    pub(super) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn of(&self, group: Option<&str>) -> Arc<OfGroup> {
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(groups.entry(group.map(str::to_owned)).or_default())
    }
}

impl Default for OfGroup {
    fn default() -> Self {
        Self { known: Mutex::default(), turn: Semaphore::new(1) }
    }
}

impl OfGroup {
    /// What is still believed.
    pub(super) fn known(&self, now: Instant) -> Option<Bytes> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (archive, since) = known.as_ref()?;
        (now.saturating_duration_since(*since) < LIFE).then(|| archive.clone())
    }

    /// Notes what a node gave. The same bytes are held once, however long clients read them.
    pub(super) fn learn(&self, archive: Bytes, now: Instant) -> Bytes {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.take().map(|(before, _)| before).filter(|before| *before == archive);
        let archive = before.unwrap_or(archive);
        *known = Some((archive.clone(), now));
        archive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_believed_for_a_while_and_held_once() {
        let (genesis, start) = (Genesis::default(), Instant::now());
        let of_group = genesis.of(Some("a"));
        assert_eq!(of_group.known(start), None);
        let first = of_group.learn(Bytes::from(vec![7; 100]), start);
        assert_eq!(of_group.known(start + LIFE / 2), Some(first.clone()));
        assert_eq!(of_group.known(start + LIFE), None);
        let again = of_group.learn(Bytes::from(vec![7; 100]), start + LIFE);
        assert_eq!(again.as_ptr(), first.as_ptr(), "not a second time in memory");
        assert_eq!(genesis.of(Some("a")).known(start + LIFE), Some(again));
        let other = of_group.learn(Bytes::from(vec![8; 100]), start + LIFE);
        assert_eq!(of_group.known(start + LIFE), Some(other));
        for group in [None, Some("b")] {
            assert_eq!(genesis.of(group).known(start + LIFE), None);
        }
    }
}
