//! Which copy of an archive each client was given last.
//!
//! Clients such as wget and aria2 continue a broken download by a bare range, without saying which
//! copy they have the start of. Rendezvous choice leads them back to it while it is there; this
//! memory notices when it is not, so that the rest of another copy is never appended.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::index::TargetId;
use crate::route::CopyId;
use crate::snapshot::ArchiveName;

/// A client is remembered for at least this long after its last transfer of an archive, and for at
/// most twice as long.
const MEMORY: Duration = Duration::from_secs(3600);
/// Most clients and archives of one half of the memory; with more, the older half is forgotten
/// early. About 300 bytes each.
const MAX_HALF: usize = 50_000;

/// The copy that a client has, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) target: TargetId,
    pub(super) copy: CopyId,
}

type Half = HashMap<(IpAddr, ArchiveName), Arc<Given>>;

/// Bounded in number and time: two halves, of which the older one is dropped as a whole.
#[derive(Debug)]
pub(super) struct Copies {
    halves: Mutex<Halves>,
}

#[derive(Debug)]
struct Halves {
    young: Half,
    old: Half,
    since: Instant,
}

impl Copies {
    pub(super) fn new(now: Instant) -> Self {
        let halves = Halves { young: Half::new(), old: Half::new(), since: now };
        Self { halves: Mutex::new(halves) }
    }

    /// Notes that the client is given bytes of this copy.
    pub(super) fn give(&self, client: IpAddr, name: ArchiveName, given: Arc<Given>, now: Instant) {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        halves.turn(now);
        halves.young.insert((client.to_canonical(), name), given);
    }

    /// The copy that the client was given last.
    pub(super) fn given(
        &self,
        client: IpAddr,
        name: ArchiveName,
        now: Instant,
    ) -> Option<Arc<Given>> {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        halves.turn(now);
        let key = (client.to_canonical(), name);
        halves.young.get(&key).or_else(|| halves.old.get(&key)).cloned()
    }
}

impl Halves {
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

    #[test]
    fn the_last_copy_is_remembered_for_an_hour_or_two() {
        let start = Instant::now();
        let copies = Copies::new(start);
        assert_eq!(copies.given(client(1), name(), start), None);
        copies.give(client(1), name(), given("a:1"), start);
        copies.give(client(1), name(), given("b:1"), start);
        copies.give(client(2), name(), given("a:1"), start);
        let later = start + MEMORY / 2;
        assert_eq!(copies.given(client(1), name(), later), Some(given("b:1")));
        let mapped = IpAddr::V6(Ipv4Addr::from(1).to_ipv6_mapped());
        assert_eq!(copies.given(mapped, name(), start + MEMORY), Some(given("b:1")));
        copies.give(client(1), name(), given("b:1"), start + MEMORY);
        assert_eq!(copies.given(client(2), name(), start + 2 * MEMORY), None);
        assert_eq!(copies.given(client(1), name(), start + 2 * MEMORY), Some(given("b:1")));
        assert_eq!(copies.given(client(1), name(), start + 9 * MEMORY), None);
    }

    #[test]
    fn the_memory_is_bounded() {
        let start = Instant::now();
        let copies = Copies::new(start);
        let one = given("a:1");
        for number in 0..u32::try_from(3 * MAX_HALF).expect("small") {
            copies.give(client(number), name(), Arc::clone(&one), start);
        }
        let halves = copies.halves.lock().expect("not poisoned");
        assert!(halves.young.len() <= MAX_HALF && halves.old.len() <= MAX_HALF);
    }
}
