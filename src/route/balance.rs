//! Which source a client is sent to, and which ones after it.

use std::cmp::Reverse;
use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use crate::index::{Source, TargetId};
use crate::snapshot::ArchiveName;

/// Most sources that are tried for one request.
pub(super) const MAX_TRIES: usize = 8;

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

/// Orders targets that answer the same for one client, as [`order`] does.
pub fn order_nodes<T>(
    client: IpAddr,
    mut nodes: Vec<(TargetId, T)>,
    resting: impl Fn(&TargetId) -> bool,
) -> Vec<(TargetId, T)> {
    let weight = |target: &TargetId| {
        let mut hasher = SipHasher13::new();
        hash_client(&mut hasher, client);
        hash_target(&mut hasher, target);
        hasher.finish()
    };
    nodes.sort_by_cached_key(|(target, _)| {
        (resting(target), Reverse(weight(target)), target.clone())
    });
    nodes.truncate(MAX_TRIES);
    nodes
}

fn weight(client: IpAddr, name: &ArchiveName, target: &TargetId) -> u64 {
    let mut hasher = SipHasher13::new();
    hash_client(&mut hasher, client);
    hasher.write_u64(name.base_slot().0);
    hasher.write_u64(name.slot().0);
    hasher.write(name.hash().as_bytes());
    hasher.write(name.compression().extension().as_bytes());
    hash_target(&mut hasher, target);
    hasher.finish()
}

fn hash_client(hasher: &mut SipHasher13, client: IpAddr) {
    // An IPv4 client is the same one on a socket of either family.
    match client.to_canonical() {
        IpAddr::V4(address) => hasher.write(&address.octets()),
        IpAddr::V6(address) => hasher.write(&address.octets()),
    }
}

fn hash_target(hasher: &mut SipHasher13, target: &TargetId) {
    hasher.write(target.group.as_bytes());
    hasher.write_u8(0);
    hasher.write(target.authority.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{Listed, Location};
    use proptest::prelude::*;
    use std::net::Ipv4Addr;
    use std::time::UNIX_EPOCH;

    const NAME: &str = "snapshot-1000-426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY.tar.zst";

    #[test]
    fn a_client_stays_with_its_node_and_clients_spread() {
        let target = |at: u8| TargetId {
            group: "main".into(),
            authority: format!("10.0.0.{at}:8899").into(),
        };
        let nodes = |count: u8| (0..count).map(|at| (target(at), at)).collect::<Vec<_>>();
        let first = |client: u8, count: u8, resting: &dyn Fn(&TargetId) -> bool| {
            let ordered =
                order_nodes(Ipv4Addr::from([10, 1, 0, client]).into(), nodes(count), resting);
            assert_eq!(ordered.len(), usize::from(count).min(MAX_TRIES));
            ordered[0].1
        };
        let mut met = std::collections::BTreeSet::new();
        for client in 0..100 {
            let node = first(client, 4, &|_| false);
            met.insert(node);
            assert_eq!(first(client, 4, &|_| false), node);
            // One more takes clients over and moves no others.
            assert!([node, 4].contains(&first(client, 5, &|_| false)));
            assert_ne!(first(client, 4, &|other| *other == target(node)), node);
            assert_eq!(first(client, 4, &|_| true), node);
        }
        assert_eq!(met.len(), 4);
        assert_eq!(first(1, 20, &|_| false), first(1, 20, &|_| false));
    }

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
