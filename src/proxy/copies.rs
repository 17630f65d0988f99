//! What each client was given last: which archive of a kind, and which copy of an archive.
//!
//! Clients such as wget and aria2 continue a broken download by a bare range, without saying which
//! copy they have the start of, and some begin again at the short form. Rendezvous choice leads
//! them back to their copy while nothing fails; this memory leads them back after a failure, and
//! notices when the copy is no longer there, so that the rest of another one is never appended.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::route::{Given, Wanted};
use crate::snapshot::ArchiveName;

/// A client is remembered for at least this long after its last transfer, and for at most twice as
/// long.
const MEMORY: Duration = Duration::from_secs(3600);
/// Most entries of one half of a memory; with more, the older half is forgotten early. About 300
/// bytes each.
const MAX_HALF: usize = 50_000;

/// What was given to whom.
#[derive(Debug)]
pub(super) struct Copies {
    begun: Memory<(IpAddr, ArchiveName), Arc<Given>>,
    archives: Memory<(IpAddr, bool), ArchiveName>,
    /// What clients were told of by a HEAD.
    shown: Memory<(IpAddr, ArchiveName), Arc<Given>>,
}

impl Copies {
    pub(super) fn new(now: Instant) -> Self {
        let (begun, archives, shown) = (Memory::new(now), Memory::new(now), Memory::new(now));
        Self { begun, archives, shown }
    }

    /// Notes that the client begins to get bytes of this copy. A `blind` part, which says nothing
    /// of the copy that it has to fit to, changes nothing where another one was begun: that is the
    /// error. One step, since parts are asked side by side.
    pub(super) fn begin(
        &self,
        client: IpAddr,
        name: ArchiveName,
        given: &Arc<Given>,
        blind: bool,
        now: Instant,
    ) -> Result<(), Arc<Given>> {
        let key = (client.to_canonical(), name);
        if blind {
            let latest = self.begun.get_or_set(key, given, now);
            if latest != *given {
                return Err(latest);
            }
        } else {
            self.begun.set(key, Arc::clone(given), now);
        }
        self.archives.set((client.to_canonical(), name.is_full()), name, now);
        Ok(())
    }

    /// Notes that the client was told of this copy, and of its length.
    pub(super) fn show(&self, client: IpAddr, name: ArchiveName, given: Arc<Given>, now: Instant) {
        self.shown.set((client.to_canonical(), name), given, now);
    }

    /// The copy that the client was told of last.
    pub(super) fn shown(
        &self,
        client: IpAddr,
        name: ArchiveName,
        now: Instant,
    ) -> Option<Arc<Given>> {
        self.shown.get(&(client.to_canonical(), name), now)
    }

    /// Notes that the client is done with a transfer, which can be longer than the memory. What it
    /// was given meanwhile by another transfer stays: that one began later.
    pub(super) fn keep(&self, client: IpAddr, name: ArchiveName, given: Arc<Given>, now: Instant) {
        let latest = self.given(client, name, now);
        if latest.is_none_or(|latest| latest == given) {
            self.begun.set((client.to_canonical(), name), given, now);
        }
    }

    /// The copy that the client began to get last.
    pub(super) fn given(
        &self,
        client: IpAddr,
        name: ArchiveName,
        now: Instant,
    ) -> Option<Arc<Given>> {
        self.begun.get(&(client.to_canonical(), name), now)
    }

    /// The full or incremental archive that the client began to get last.
    pub(super) fn archive(
        &self,
        client: IpAddr,
        wanted: Wanted,
        now: Instant,
    ) -> Option<ArchiveName> {
        self.archives.get(&(client.to_canonical(), wanted == Wanted::Full), now)
    }
}

/// A map that forgets. Bounded in number and time: of its two halves the older one is dropped as a
/// whole. The lock is held for a look-up or an insertion, by the request path alone.
#[derive(Debug)]
struct Memory<K, V>(Mutex<Halves<K, V>>);

#[derive(Debug)]
struct Halves<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    since: Instant,
}

impl<K: Eq + Hash, V: Clone> Memory<K, V> {
    fn new(now: Instant) -> Self {
        Self(Mutex::new(Halves { young: HashMap::new(), old: HashMap::new(), since: now }))
    }

    fn set(&self, key: K, value: V, now: Instant) {
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        halves.turn(now);
        halves.young.insert(key, value);
    }

    /// The value that is there, made the youngest; this one where there is none.
    fn get_or_set(&self, key: K, value: &V, now: Instant) -> V {
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        halves.turn(now);
        let Halves { young, old, .. } = &mut *halves;
        young.entry(key).or_insert_with_key(|key| old.get(key).unwrap_or(value).clone()).clone()
    }

    fn get(&self, key: &K, now: Instant) -> Option<V> {
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        halves.turn(now);
        halves.young.get(key).or_else(|| halves.old.get(key)).cloned()
    }
}

impl<K, V> Halves<K, V> {
    fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.since);
        if age >= MEMORY || self.young.len() >= MAX_HALF {
            self.old = std::mem::take(&mut self.young);
            self.since = now;
        }
        if age >= MEMORY * 2 {
            self.old.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{CopyId, TargetId};
    use std::net::Ipv4Addr;

    fn name() -> ArchiveName {
        format!("snapshot-1-{}.tar.zst", "1".repeat(32)).parse().expect("valid")
    }

    fn given(authority: &str) -> Arc<Given> {
        let target = TargetId { group: "g".into(), authority: authority.into() };
        Arc::new(Given { copy: CopyId::new(authority, 1, None), target })
    }

    fn client(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(number))
    }

    fn begin(copies: &Copies, number: u32, authority: &str, now: Instant) {
        copies.begin(client(number), name(), &given(authority), false, now).expect("not blind");
    }

    #[test]
    fn the_last_copy_is_remembered_for_an_hour_or_two() {
        let start = Instant::now();
        let copies = Copies::new(start);
        assert_eq!(copies.given(client(1), name(), start), None);
        assert_eq!(copies.archive(client(1), Wanted::Full, start), None);
        begin(&copies, 1, "a:1", start);
        begin(&copies, 1, "b:1", start);
        begin(&copies, 2, "a:1", start);
        let later = start + MEMORY / 2;
        assert_eq!(copies.given(client(1), name(), later), Some(given("b:1")));
        assert_eq!(copies.archive(client(1), Wanted::Full, later), Some(name()));
        assert_eq!(copies.archive(client(1), Wanted::Incremental, later), None);
        let mapped = IpAddr::V6(Ipv4Addr::from(1).to_ipv6_mapped());
        assert_eq!(copies.given(mapped, name(), start + MEMORY), Some(given("b:1")));
        copies.keep(client(1), name(), given("b:1"), start + MEMORY);
        assert_eq!(copies.given(client(2), name(), start + 2 * MEMORY), None);
        assert_eq!(copies.given(client(1), name(), start + 2 * MEMORY), Some(given("b:1")));
        assert_eq!(copies.given(client(1), name(), start + 9 * MEMORY), None);
    }

    #[test]
    fn the_end_of_an_old_transfer_changes_nothing() {
        let start = Instant::now();
        let copies = Copies::new(start);
        begin(&copies, 1, "a:1", start);
        begin(&copies, 1, "b:1", start);
        copies.keep(client(1), name(), given("a:1"), start);
        assert_eq!(copies.given(client(1), name(), start), Some(given("b:1")));
        // One that was longer than the memory is remembered from its end.
        copies.keep(client(1), name(), given("a:1"), start + 9 * MEMORY);
        assert_eq!(copies.given(client(1), name(), start + 9 * MEMORY), Some(given("a:1")));
    }

    #[test]
    fn the_first_part_decides_for_those_beside_it() {
        let start = Instant::now();
        let copies = Copies::new(start);
        assert_eq!(copies.begin(client(1), name(), &given("a:1"), true, start), Ok(()));
        let other = copies.begin(client(1), name(), &given("b:1"), true, start + MEMORY);
        assert_eq!(other, Err(given("a:1")));
        assert_eq!(copies.begin(client(1), name(), &given("a:1"), true, start + MEMORY), Ok(()));
        assert_eq!(copies.begin(client(2), name(), &given("b:1"), true, start), Ok(()));
    }

    #[test]
    fn the_memory_is_bounded() {
        let start = Instant::now();
        let memory = Memory::new(start);
        for number in 0..3 * MAX_HALF {
            memory.set(number, (), start);
        }
        let halves = memory.0.lock().expect("not poisoned");
        assert!(halves.young.len() <= MAX_HALF && halves.old.len() <= MAX_HALF);
    }
}
