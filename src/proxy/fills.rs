//! Who fills the cache with an archive on its way to a client, and who comes next where that
//! client leaves.
//!
//! The right to fill is the store's; here is what it does not know: whose transfer it rides on, and
//! whether that client is still there. Most who break off ask again at once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::cache::{Abandoned, Reason};
use crate::config::Limits;
use crate::listener::Presence;
use crate::route::ClientNet;
use crate::snapshot::ArchiveName;
use crate::upstream::Taking;

/// How long a request waits for the right to fill that comes free in a moment: its holder is gone,
/// and what it wrote is being removed, or gets its name.
const HANDOVER: Duration = Duration::from_secs(1);
/// How long a request waits where the holder seems to be there, and is the one who asks again.
const AGAIN: Duration = Duration::from_millis(250);
/// Most archives of which it is counted how often their clients left. There are two in each group.
const MAX_COUNTED: usize = 64;
/// After how many fills in a row whose clients left it is said for the first time. It is said again
/// after twice as many.
const SAID_AFTER: u32 = 3;

/// How often a fill is ended for a client that may be faster before one of the archive comes to its
/// end, and how long after that once more: who comes need not be faster.
const MAX_OVERTAKEN: u32 = 3;
const OVERTAKEN_AGAIN: Duration = Duration::from_secs(60);

/// The fills that ride on requests.
#[derive(Debug)]
pub(super) struct Fills {
    /// Bytes per second that a client has to take where another one comes for the archive.
    least_rate: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    holders: BTreeMap<ArchiveName, Holder>,
    counts: BTreeMap<ArchiveName, Counts>,
}

/// Fills in a row that came to nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    /// Because their clients left.
    left: u32,
    /// Because others came for them.
    overtaken: u32,
    overtaken_at: Option<Instant>,
}

/// Who has the right to fill.
#[derive(Clone, Debug)]
struct Holder {
    number: u64,
    client: ClientNet,
    presence: Option<Presence>,
    taking: Option<Arc<Taking>>,
    /// Where it is said why the fill ends early, and the bytes of all of it.
    fill: Option<(Reason, u64)>,
}

/// Held by the transfer that fills, for as long as it runs.
#[derive(Debug)]
pub(super) struct Holding {
    fills: Arc<Fills>,
    name: ArchiveName,
    number: u64,
}

impl Fills {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self { least_rate: AtomicU64::new(limits.min_rate), state: Mutex::default() })
    }

    /// Goes on by other limits.
    pub(super) fn apply(&self, limits: &Limits) {
        self.least_rate.store(limits.min_rate, Ordering::Relaxed);
    }

    /// Notes that a transfer to this client has the right to fill.
    pub(super) fn hold(self: &Arc<Self>, name: ArchiveName, client: ClientNet) -> Holding {
        let mut state = self.state();
        state.next += 1;
        let number = state.next;
        let (presence, taking, fill) = (None, None, None);
        state.holders.insert(name, Holder { number, client, presence, taking, fill });
        Holding { fills: Arc::clone(self), name, number }
    }

    /// Whether a transfer to a client has the right to fill.
    pub(super) fn has_holder(&self, name: &ArchiveName) -> bool {
        self.state().holders.contains_key(name)
    }

    /// How long a request is to wait for the right to fill that another one has, where it is worth
    /// it at all: the holder has left, or is so slow that it loses the right by this.
    pub(super) fn turn(
        &self,
        name: &ArchiveName,
        client: ClientNet,
        now: Instant,
    ) -> Option<Duration> {
        let Some(holder) = self.state().holders.get(name).cloned() else { return Some(HANDOVER) };
        if holder.presence.as_ref().is_some_and(Presence::has_left) {
            // One that still listens is served on, past the cache.
            if let Some((reason, _)) = &holder.fill {
                reason.revoke(Abandoned::ClientLeft);
            }
            return Some(HANDOVER);
        }
        if let (Some(taking), Some((reason, length))) = (&holder.taking, &holder.fill)
            && taking.is_overtaken(*length, self.least_rate.load(Ordering::Relaxed), now)
            && self.state().counts_of(*name).may_overtake(now)
        {
            log::info!("cache: {name} is left by a slow client to the next one that asks for it");
            reason.revoke(Abandoned::Overtaken);
            return Some(HANDOVER);
        }
        (holder.client == client).then_some(AGAIN)
    }

    /// Counts a fill that ended; how many there were in a row whose clients left, where that is to
    /// be said.
    fn count(&self, name: ArchiveName, why: Option<Abandoned>) -> Option<u32> {
        let mut state = self.state();
        match why {
            None => {
                state.counts.remove(&name);
                None
            }
            Some(Abandoned::ClientLeft) => {
                let left = &mut state.counts_of(name).left;
                *left = left.saturating_add(1);
                let times = *left / SAID_AFTER;
                (left.is_multiple_of(SAID_AFTER) && times.is_power_of_two()).then_some(*left)
            }
            Some(_) => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No change of the state can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn counts_of(&mut self, name: ArchiveName) -> &mut Counts {
        if self.counts.len() >= MAX_COUNTED && !self.counts.contains_key(&name) {
            // The lowest slot, which is the oldest of its kind.
            self.counts.pop_first();
        }
        self.counts.entry(name).or_default()
    }
}

impl Counts {
    /// Whether a fill may be ended for another client once more, which is counted.
    fn may_overtake(&mut self, now: Instant) -> bool {
        let lately =
            self.overtaken_at.is_some_and(|at| now.saturating_duration_since(at) < OVERTAKEN_AGAIN);
        if self.overtaken >= MAX_OVERTAKEN && lately {
            return false;
        }
        self.overtaken = self.overtaken.saturating_add(1);
        self.overtaken_at = Some(now);
        true
    }
}

impl Holding {
    /// Notes how it is seen whether the client is there.
    pub(super) fn is_seen_by(&self, presence: Presence) {
        self.change(|holder| holder.presence = Some(presence));
    }

    /// Notes what its client takes.
    pub(super) fn is_taken_by(&self, taking: Arc<Taking>) {
        self.change(|holder| holder.taking = Some(taking));
    }

    /// Notes where it is said why the fill of so many bytes ends early.
    pub(super) fn ends_by(&self, reason: Reason, length: u64) {
        self.change(|holder| holder.fill = Some((reason, length)));
    }

    /// Another transfer may have the right by now.
    fn change(&self, change: impl FnOnce(&mut Holder)) {
        let mut state = self.fills.state();
        let holder = state.holders.get_mut(&self.name);
        if let Some(holder) = holder.filter(|holder| holder.number == self.number) {
            change(holder);
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let mut state = self.fills.state();
        let is_own = |holder: &Holder| holder.number == self.number;
        let fill = match state.holders.get(&self.name) {
            Some(holder) if is_own(holder) => state.holders.remove(&self.name),
            _ => None,
        };
        drop(state);
        let Some((reason, _)) = fill.and_then(|holder| holder.fill) else { return };
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
        let (fills, now) = (Fills::new(&Limits::default()), Instant::now());
        let turn = |slot, of| fills.turn(&name(slot), client(of), now);
        assert_eq!(turn(1, 1), Some(HANDOVER), "it is being cleared");
        let holding = fills.hold(name(1), client(1));
        assert_eq!(turn(1, 1), Some(AGAIN));
        assert_eq!(turn(1, 2), None);
        assert_eq!(turn(2, 2), Some(HANDOVER));
        let next = fills.hold(name(1), client(2));
        drop(holding);
        assert_eq!(turn(1, 1), None, "it is the next one's");
        drop(next);
        assert_eq!(turn(1, 2), Some(HANDOVER));
        assert!(fills.state().holders.is_empty());
    }

    #[test]
    fn clients_that_leave_are_spoken_of_now_and_then() {
        let fills = Fills::new(&Limits::default());
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
        assert_eq!(fills.state().counts.len(), MAX_COUNTED);
    }

    #[test]
    fn fills_are_overtaken_a_few_times_and_then_now_and_then() {
        let (mut counts, start) = (Counts::default(), Instant::now());
        let seconds = [0, 1, 2, 3, 61, 62, 100, 122];
        let may = seconds.map(|at| counts.may_overtake(start + Duration::from_secs(at)));
        assert_eq!(may, [true, true, true, false, false, true, false, true]);
    }
}
