//! Who fills the cache with an archive on its way to a client, and who comes next where that
//! client leaves.
//!
//! The right to fill is the store's; here is what it does not know: whose transfer it rides on, and
//! whether that client is still there. Most who break off ask again at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::door::Presence;
use crate::cache::{Abandoned, Reason};
use crate::route::ClientNet;
use crate::snapshot::ArchiveName;

/// How long a request waits for the right to fill that comes free in a moment: its holder is gone,
/// and what it wrote is being removed, or gets its name.
const HANDOVER: Duration = Duration::from_secs(1);
/// The same where the holder seems to be there, and is the one who asks again.
const AGAIN: Duration = Duration::from_millis(250);
/// Most archives of which it is counted how often their clients left. There are two in each group.
const MAX_COUNTED: usize = 64;
/// After how many fills in a row whose clients left it is said for the first time. It is said again
/// after twice as many.
const SAID_AFTER: u32 = 3;

/// The fills that ride on requests.
#[derive(Debug, Default)]
pub(super) struct Fills {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    holders: BTreeMap<ArchiveName, Holder>,
    /// Fills in a row that ended because their clients left.
    left: BTreeMap<ArchiveName, u32>,
}

/// Who has the right to fill.
#[derive(Clone, Debug)]
struct Holder {
    client: ClientNet,
    presence: Option<Presence>,
}

/// Held by the transfer that fills, for as long as it runs.
#[derive(Debug)]
pub(super) struct Holding {
    fills: Arc<Fills>,
    name: ArchiveName,
    reason: OnceLock<Reason>,
}

impl Fills {
    /// Notes that a transfer to this client has the right to fill.
    pub(super) fn hold(self: &Arc<Self>, name: ArchiveName, client: ClientNet) -> Holding {
        self.state().holders.insert(name, Holder { client, presence: None });
        Holding { fills: Arc::clone(self), name, reason: OnceLock::new() }
    }

    /// How long a request is to wait for the right to fill that another one has, where it is worth
    /// it at all.
    pub(super) fn patience(&self, name: &ArchiveName, client: ClientNet) -> Option<Duration> {
        let holder = self.state().holders.get(name).cloned();
        let left = |holder: &Holder| holder.presence.as_ref().is_some_and(Presence::has_left);
        match holder {
            Some(holder) if !left(&holder) => (holder.client == client).then_some(AGAIN),
            _ => Some(HANDOVER),
        }
    }

    /// Counts a fill that ended; how many there were in a row whose clients left, where that is to
    /// be said.
    fn count(&self, name: ArchiveName, why: Option<Abandoned>) -> Option<u32> {
        let left = &mut self.state().left;
        match why {
            None => {
                left.remove(&name);
                None
            }
            Some(Abandoned::ClientLeft) => {
                if left.len() >= MAX_COUNTED && !left.contains_key(&name) {
                    // The lowest slot, which is the oldest of its kind.
                    left.pop_first();
                }
                let count = left.entry(name).or_default();
                *count = count.saturating_add(1);
                let times = *count / SAID_AFTER;
                (count.is_multiple_of(SAID_AFTER) && times.is_power_of_two()).then_some(*count)
            }
            Some(_) => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No change of the state can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holding {
    /// Notes how it is seen whether the client is there.
    pub(super) fn is_seen_by(&self, presence: Presence) {
        if let Some(holder) = self.fills.state().holders.get_mut(&self.name) {
            holder.presence = Some(presence);
        }
    }

    /// Notes where it is said why the fill ends early.
    pub(super) fn ends_by(&self, reason: Reason) {
        // There is one fill for each right.
        let _ = self.reason.set(reason);
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.fills.state().holders.remove(&self.name);
        let Some(reason) = self.reason.get() else { return };
        if let Some(count) = self.fills.count(self.name, reason.given()) {
            log::warn!(
                "cache: {} is not kept: {count} clients in a row left before they had all of it, \
                 set `cache.sharing: shared` to have it fetched without them",
                self.name
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn client(number: u8) -> ClientNet {
        ClientNet::of(Ipv4Addr::from([10, 0, 0, number]).into())
    }

    fn name(slot: u64) -> ArchiveName {
        format!("snapshot-{slot}-{}.tar.zst", "1".repeat(32)).parse().expect("valid")
    }

    #[test]
    fn who_asks_again_waits_and_others_only_for_what_comes_free() {
        let fills = Arc::<Fills>::default();
        assert_eq!(fills.patience(&name(1), client(1)), Some(HANDOVER), "it is being cleared");
        let holding = fills.hold(name(1), client(1));
        assert_eq!(fills.patience(&name(1), client(1)), Some(AGAIN));
        assert_eq!(fills.patience(&name(1), client(2)), None);
        assert_eq!(fills.patience(&name(2), client(2)), Some(HANDOVER));
        drop(holding);
        assert_eq!(fills.patience(&name(1), client(2)), Some(HANDOVER));
        assert!(fills.state().holders.is_empty());
    }

    #[test]
    fn clients_that_leave_are_spoken_of_now_and_then() {
        let fills = Fills::default();
        let said = |why| fills.count(name(1), why);
        let left = Some(Abandoned::ClientLeft);
        let found: Vec<_> = (0..13).filter_map(|_| said(left)).collect();
        assert_eq!(found, [3, 6, 12]);
        assert_eq!(said(Some(Abandoned::SourceFailed)), None);
        assert_eq!(said(None), None, "it is kept");
        assert_eq!([said(left), said(left), said(left)], [None, None, Some(3)]);
        for slot in 0..200 {
            fills.count(name(slot), left);
        }
        assert_eq!(fills.state().left.len(), MAX_COUNTED);
    }
}
