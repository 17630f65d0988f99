//! Which unknown names were asked for lately, and from which network first: one that a second
//! network asks for is less likely made up.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::route::ClientNet;
use crate::snapshot::ArchiveName;

/// A name is remembered for at least this long, unless too many others come, and for at most twice
/// as long.
const MEMORY: Duration = Duration::from_secs(30);
/// Most names of one half of the memory, of about 100 bytes each.
const MAX_HALF: usize = 32_768;

/// A network as one owner has it, as a rule: 24 bits of IPv4, 48 of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network(IpAddr);

impl Network {
    fn of(client: ClientNet) -> Self {
        Self(match client.address() {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Ipv4Addr::new(a, b, c, 0).into()
            }
            IpAddr::V6(address) => {
                let [a, b, c, ..] = address.segments();
                Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into()
            }
        })
    }
}

/// Names that were asked for. Of its two halves the older one is forgotten as a whole.
#[derive(Debug)]
pub(super) struct Heard {
    young: HashMap<ArchiveName, Network>,
    old: HashMap<ArchiveName, Network>,
    since: Instant,
}

impl Heard {
    pub(super) fn new(now: Instant) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), since: now }
    }

    /// Notes that a client asks for a name, and tells whether one of another network did so before.
    pub(super) fn note(&mut self, name: &ArchiveName, client: ClientNet, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.since);
        if age >= MEMORY || self.young.len() >= MAX_HALF {
            self.old = std::mem::take(&mut self.young);
            self.since = now;
            if age >= 2 * MEMORY {
                self.old.clear();
            }
        }
        let network = Network::of(client);
        let known = self.young.get(name).or_else(|| self.old.get(name)).copied();
        let first = known.unwrap_or(network);
        // The first one stays, and is as young as its last request.
        self.young.insert(*name, first);
        first != network
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{ArchiveHash, Compression, Slot};

    fn name(slot: u64) -> ArchiveName {
        ArchiveName::full(Slot(slot), ArchiveHash::new([1; 32]), Compression::Zstd)
    }

    fn client(text: &str) -> ClientNet {
        ClientNet::of(text.parse().expect("an address"))
    }

    #[test]
    fn a_second_network_is_told_from_the_first() {
        let start = Instant::now();
        for (first, second, other) in [
            ("10.0.0.1", "10.0.0.1", false),
            ("10.0.0.1", "10.0.0.255", false),
            ("10.0.0.1", "10.0.1.1", true),
            ("10.0.0.1", "::ffff:10.0.0.2", false),
            ("10.0.0.1", "2001:db8::1", true),
            ("2001:db8:0:1::1", "2001:db8:0:ffff::1", false),
            ("2001:db8:1::1", "2001:db8:2::1", true),
        ] {
            let mut heard = Heard::new(start);
            assert!(!heard.note(&name(1), client(first), start));
            assert_eq!(heard.note(&name(1), client(second), start), other, "{first} {second}");
            assert!(!heard.note(&name(2), client(second), start), "another name");
            assert!(!heard.note(&name(1), client(first), start), "the first one again");
        }
    }

    #[test]
    fn names_are_forgotten_after_a_while_and_when_there_are_too_many() {
        let start = Instant::now();
        let ask = |heard: &mut Heard, slot, text: &str, seconds| {
            heard.note(&name(slot), client(text), start + Duration::from_secs(seconds))
        };
        for (seconds, remembered) in [(29, true), (59, true), (60, false), (600, false)] {
            let mut heard = Heard::new(start);
            ask(&mut heard, 1, "10.0.0.1", 0);
            assert_eq!(ask(&mut heard, 1, "10.9.0.1", seconds), remembered, "{seconds}");
        }
        let mut heard = Heard::new(start);
        for slot in 0..3 * MAX_HALF as u64 {
            ask(&mut heard, slot, "10.0.0.1", 0);
        }
        assert!(heard.young.len() <= MAX_HALF && heard.old.len() <= MAX_HALF);
        let last = 3 * MAX_HALF as u64 - 1;
        assert!(ask(&mut heard, last, "10.9.0.1", 0), "the last ones are there");
    }
}
