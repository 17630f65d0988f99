//! Which source a client is sent to, and which ones after it.

use std::cmp::Reverse;
use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use crate::index::{Source, TargetId};
use crate::snapshot::ArchiveName;

/// Most sources that are tried for one request.
const MAX_TRIES: usize = 8;

/// Orders the sources of an archive for one client, the first one to be tried first.
///
/// Rendezvous hashing of client address, name and target: a client that comes back meets the same
/// copy for as long as it is there, clients spread evenly, and a target that leaves or comes moves
/// only its own clients. Sources that are `preferred` come first whatever else is true of them, and
/// targets that are `resting` for their failures last, in the same order. At most eight are
/// returned.
pub(super) fn order(
    client: IpAddr,
    name: &ArchiveName,
    sources: &[Arc<Source>],
    preferred: impl Fn(&Source) -> bool,
    resting: impl Fn(&TargetId) -> bool,
) -> Vec<Arc<Source>> {
    let mut ordered = sources.to_vec();
    ordered.sort_by_cached_key(|source| {
        let weight = Reverse(weight(client, name, &source.target));
        let preferred = preferred(source);
        (!preferred, resting(&source.target), weight, source.target.clone())
    });
    ordered.truncate(MAX_TRIES);
    ordered
}

fn weight(client: IpAddr, name: &ArchiveName, target: &TargetId) -> u64 {
    let mut hasher = SipHasher13::new();
    // An IPv4 client is the same one on a socket of either family.
    match client.to_canonical() {
        IpAddr::V4(address) => hasher.write(&address.octets()),
        IpAddr::V6(address) => hasher.write(&address.octets()),
    }
    hasher.write_u64(name.base_slot().0);
    hasher.write_u64(name.slot().0);
    hasher.write(name.hash().as_bytes());
    hasher.write(name.compression().extension().as_bytes());
    hasher.write(target.group.as_bytes());
    hasher.write_u8(0);
    hasher.write(target.authority.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{Listed, Location};
    use proptest::prelude::*;
    use std::net::Ipv4Addr;
    use std::time::UNIX_EPOCH;

    const NAME: &str = "snapshot-1000-426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY.tar.zst";

    fn name() -> ArchiveName {
        NAME.parse().expect("valid")
    }

    fn sources(count: u8) -> Vec<Arc<Source>> {
        let source = |at: u8| {
            let authority: Arc<str> = format!("10.0.0.{at}:8899").into();
            Arc::new(Source {
                target: TargetId { group: "main".into(), authority: Arc::clone(&authority) },
                listed: Listed {
                    name: name(),
                    size: None,
                    modified: None,
                    location: Some(Location {
                        scheme: "http",
                        address: ([10, 0, 0, at], 8899).into(),
                        authority,
                        path: format!("/{NAME}"),
                    }),
                },
                updated_at: UNIX_EPOCH,
            })
        };
        (0..count).map(source).collect()
    }

    fn first(client: u32, sources: &[Arc<Source>]) -> Arc<Source> {
        let client = IpAddr::V4(Ipv4Addr::from(client));
        Arc::clone(&order(client, &name(), sources, |_| false, |_| false)[0])
    }

    #[test]
    fn clients_spread_evenly() {
        let sources = sources(4);
        let mut counts = [0; 4];
        for client in 0..4000 {
            let chosen = first(client, &sources);
            let at = sources.iter().position(|source| *source == chosen).expect("one of them");
            counts[at] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_resting_target_comes_last() {
        let sources = sources(3);
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let before = order(client, &name(), &sources, |_| false, |_| false);
        let after = order(client, &name(), &sources, |_| false, |id| *id == before[0].target);
        assert_eq!(after, [before[1].clone(), before[2].clone(), before[0].clone()]);
        let mapped = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
        assert_eq!(before, order(mapped, &name(), &sources, |_| false, |_| false));
    }

    #[test]
    fn a_preferred_source_comes_first_among_many_and_though_it_rests() {
        let sources = sources(30);
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        for wanted in &sources {
            let is_it = |source: &Source| source.target == wanted.target;
            let resting = |target: &TargetId| *target == wanted.target;
            let ordered = order(client, &name(), &sources, is_it, resting);
            assert_eq!((&ordered[0], ordered.len()), (wanted, MAX_TRIES));
        }
    }

    proptest! {
        #[test]
        fn a_leaving_target_moves_only_its_own_clients(client: u32, leaving in 0..8_usize) {
            let all = sources(8);
            let mut fewer = all.clone();
            let gone = fewer.remove(leaving);
            let before = first(client, &all);
            if before != gone {
                prop_assert_eq!(first(client, &fewer), before);
            }
        }

        #[test]
        fn the_order_of_the_sources_does_not_matter(client: u32, seed: u64) {
            let mut shuffled = sources(8);
            let len = shuffled.len();
            for at in 0..len {
                let turned = u32::try_from(at * 7).expect("small");
                let other = usize::try_from(seed.rotate_left(turned) % 8).expect("small");
                shuffled.swap(at, other);
            }
            prop_assert_eq!(first(client, &shuffled), first(client, &sources(8)));
        }
    }
}
