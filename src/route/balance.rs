//! Which source a client is sent to, and which ones after it.

use std::cmp::Reverse;
use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::tag::ChoiceKey;
use crate::config::Balance;
use crate::index::{Source, TargetId};
use crate::snapshot::ArchiveName;

/// Most sources of an archive that are looked at for one request, where each may be busy.
const MAX_SOURCES: usize = 64;
/// Most nodes that are tried for one question, and directories for one archive.
pub(super) const MAX_TRIES: usize = 8;
/// A target that needs four times as long as the best one is in class 2, and so on up to this.
const LAST_CLASS: u32 = 4;

/// What is known of a target, as far as it decides who is sent there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TargetStats {
    /// Whether the target failed lately and is left alone.
    pub resting: bool,
    /// Transfers that it carries.
    pub load: usize,
    /// Time that it needs for a typical delivery, where that is known.
    pub cost: Option<Duration>,
}

/// What is known of all targets.
pub trait Targets {
    /// How a target does.
    fn stats(&self, target: &TargetId) -> TargetStats;
    /// How one is chosen among those of a group.
    fn balance(&self, group: &str) -> Balance;
    /// How many turns were taken with an archive.
    fn turn(&self, name: &ArchiveName) -> usize;
    /// With what clients are spread over targets.
    fn key(&self) -> ChoiceKey {
        ChoiceKey::known()
    }
}

/// Targets of which nothing is known.
#[derive(Clone, Copy, Debug)]
pub struct Strangers;

impl Targets for Strangers {
    fn stats(&self, _target: &TargetId) -> TargetStats {
        TargetStats::default()
    }

    fn balance(&self, _group: &str) -> Balance {
        Balance::default()
    }

    fn turn(&self, _name: &ArchiveName) -> usize {
        0
    }
}

/// Orders the sources of an archive for one client, the first one to be tried first.
///
/// Sources that are `preferred` come first whatever else is true of them, and targets that are
/// resting for their failures last, in the same order; between them the `balance` of the group
/// decides, and of several groups with the archive that of the first source. At most 64 are
/// returned.
///
/// By default that is rendezvous hashing of client address, name and target: a client that comes
/// back meets the same copy for as long as it is there, clients spread evenly, and a target that
/// leaves or comes moves only its own clients. A target that takes twice as long as the best one
/// has half the weight, in steps, so that small changes move nobody.
pub(super) fn order(
    client: IpAddr,
    name: &ArchiveName,
    sources: &[Arc<Source>],
    preferred: impl Fn(&Source) -> bool,
    targets: &dyn Targets,
) -> Vec<Arc<Source>> {
    let Some(first) = sources.first() else { return Vec::new() };
    let balance = targets.balance(&first.target.group);
    let mut ordered: Vec<(TargetStats, Arc<Source>)> =
        sources.iter().map(|source| (targets.stats(&source.target), Arc::clone(source))).collect();
    let well = ordered.iter().filter(|(stats, _)| !stats.resting);
    let best = well.filter_map(|(stats, _)| stats.cost).min();
    if balance == Balance::RoundRobin {
        ordered.sort_unstable_by(|(_, a), (_, b)| a.target.cmp(&b.target));
        let turn = targets.turn(name) % ordered.len();
        ordered.rotate_left(turn);
    }
    // The least comes first.
    let key = targets.key();
    let rank = |stats: &TargetStats, source: &Source| {
        let hash = |client| weight(key, client, name, &source.target);
        let class = class(stats.cost, best);
        match balance {
            Balance::PerClient => (0, Reverse(share(hash(Some(client)), class))),
            Balance::Pinned => (0, Reverse(hash(None))),
            Balance::LeastLoaded => {
                let load = (stats.load as u64).saturating_add(1).saturating_mul(1 << class);
                (load, Reverse(hash(Some(client))))
            }
            Balance::RoundRobin => (0, Reverse(0)),
        }
    };
    // Stable, which keeps the turn.
    ordered.sort_by_cached_key(|(stats, source)| {
        let target = (balance != Balance::RoundRobin).then(|| source.target.clone());
        (!preferred(source), stats.resting, rank(stats, source), target)
    });
    ordered.truncate(MAX_SOURCES);
    ordered.into_iter().map(|(_, source)| source).collect()
}

/// How many times the time of the best target this one needs, in powers of two.
fn class(cost: Option<Duration>, best: Option<Duration>) -> u32 {
    // Who was not asked yet is tried.
    let (Some(cost), Some(best)) = (cost, best) else { return 0 };
    let times = cost.as_millis() / best.as_millis().max(1);
    times.checked_ilog2().unwrap_or(0).min(LAST_CLASS)
}

/// The claim of a target whose weight is halved by each class, where `hash` is what it claims with
/// full weight: among targets of classes a and b the first one wins as 1 / 2^a to 1 / 2^b.
fn share(hash: u64, class: u32) -> u64 {
    // The highest of n claims is as good as one claim to the power of 1/n, and this is the claim to
    // the power of 2^class: squared as a fraction of one, as often.
    (0..class).fold(hash, |claim, _| {
        let squared = u128::from(claim) * u128::from(claim);
        u64::try_from(squared >> 64).unwrap_or(u64::MAX)
    })
}

/// Orders targets that answer the same for one client, as `order` does.
pub fn order_nodes<T>(
    key: ChoiceKey,
    client: IpAddr,
    mut nodes: Vec<(TargetId, T)>,
    resting: impl Fn(&TargetId) -> bool,
) -> Vec<(TargetId, T)> {
    let weight = |target: &TargetId| {
        let mut hasher = SipHasher13::new_with_key(key.bytes());
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

/// What a target claims for a client, or for everyone.
fn weight(key: ChoiceKey, client: Option<IpAddr>, name: &ArchiveName, target: &TargetId) -> u64 {
    let mut hasher = SipHasher13::new_with_key(key.bytes());
    if let Some(client) = client {
        hash_client(&mut hasher, client);
    }
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
    use crate::config::Key;
    use crate::index::{AccessKey, Listed, Location};
    use proptest::prelude::*;
    use std::cell::Cell;
    use std::collections::HashMap;
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
            let client = Ipv4Addr::from([10, 1, 0, client]).into();
            let ordered = order_nodes(ChoiceKey::known(), client, nodes(count), resting);
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

    /// Who does not know the key cannot tell from what its clients meet which targets those are.
    #[test]
    fn the_choice_follows_from_the_key() {
        let with = |byte| {
            let key = ChoiceKey::of(&Key::new([byte; 16]));
            let weighed = |client: u8| {
                let client = Ipv4Addr::from([10, 1, 0, client]).into();
                let [a, b] =
                    [0, 1].map(|at| weight(key, Some(client), &name(), &sources(2)[at].target));
                let nodes = sources(2).into_iter().map(|source| (source.target.clone(), ()));
                let nodes = order_nodes(key, client, nodes.collect(), |_| false);
                (a < b, nodes[0].0 == sources(1)[0].target)
            };
            (0..100).map(weighed).collect::<Vec<_>>()
        };
        let (one, same, other) = (with(1), with(1), with(2));
        assert_eq!(one, same);
        // As two fair coins agree.
        let agree = |part: fn(&(bool, bool)) -> bool| {
            one.iter().map(part).zip(other.iter().map(part)).filter(|(a, b)| a == b).count()
        };
        let agreed = [agree(|pair| pair.0), agree(|pair| pair.1)];
        assert!(agreed.iter().all(|count| (20..80).contains(count)), "{agreed:?}");
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
                    tag: None,
                    location: Some(Location {
                        scheme: "http",
                        address: ([10, 0, 0, at], 8899).into(),
                        authority,
                        path: format!("/{NAME}"),
                        access: AccessKey::default(),
                        via: crate::hops::Via::default(),
                    }),
                },
                updated_at: UNIX_EPOCH,
            })
        };
        (0..count).map(source).collect()
    }

    /// Targets of which something is known.
    struct Known {
        balance: Balance,
        merits: HashMap<TargetId, TargetStats>,
        turn: Cell<usize>,
    }

    impl Known {
        fn with(balance: Balance, merits: &[(&Arc<Source>, TargetStats)]) -> Self {
            let merits =
                merits.iter().map(|(source, stats)| (source.target.clone(), *stats)).collect();
            Self { balance, merits, turn: Cell::default() }
        }
    }

    impl Targets for Known {
        fn stats(&self, target: &TargetId) -> TargetStats {
            self.merits.get(target).copied().unwrap_or_default()
        }

        fn balance(&self, _group: &str) -> Balance {
            self.balance
        }

        fn turn(&self, _name: &ArchiveName) -> usize {
            self.turn.get()
        }
    }

    const RESTING: TargetStats = TargetStats { resting: true, load: 0, cost: None };

    fn needs(seconds: u64) -> TargetStats {
        TargetStats { cost: Some(Duration::from_secs(seconds)), ..TargetStats::default() }
    }

    fn carries(load: usize) -> TargetStats {
        TargetStats { load, ..TargetStats::default() }
    }

    fn ordered(client: u32, sources: &[Arc<Source>], known: &dyn Targets) -> Vec<Arc<Source>> {
        let client = IpAddr::V4(Ipv4Addr::from(client));
        order(client, &name(), sources, |_| false, known)
    }

    fn first(client: u32, sources: &[Arc<Source>]) -> Arc<Source> {
        Arc::clone(&ordered(client, sources, &Strangers)[0])
    }

    /// How many of 4000 clients are sent to each source first.
    fn shares(sources: &[Arc<Source>], known: &Known) -> Vec<usize> {
        let mut counts = vec![0; sources.len()];
        for client in 0..4000 {
            let chosen = &ordered(client, sources, known)[0];
            counts[sources.iter().position(|source| source == chosen).expect("one of them")] += 1;
        }
        counts
    }

    #[test]
    fn a_slow_target_gets_fewer_clients_and_moves_no_others() {
        let sources = sources(3);
        let known = |seconds| {
            Known::with(Balance::PerClient, &[(&sources[0], needs(1)), (&sources[1], seconds)])
        };
        // What is not much slower is not slower; who was not measured is not slow.
        let counts = shares(
            &sources,
            &known(TargetStats {
                cost: Some(Duration::from_millis(1999)),
                ..TargetStats::default()
            }),
        );
        assert!(counts.iter().all(|count| (1200..1470).contains(count)), "{counts:?}");
        // Of 1 + 1/4 + 1.
        let counts = shares(&sources, &known(needs(4)));
        assert!((350..540).contains(&counts[1]), "{counts:?}");
        let counts = shares(&sources, &known(needs(10_000)));
        assert!((60..190).contains(&counts[1]), "some, to see whether it has changed: {counts:?}");
        for client in 0..1000 {
            let before = first(client, &sources);
            let after = Arc::clone(&ordered(client, &sources, &known(needs(4)))[0]);
            assert!(after == before || before == sources[1]);
        }
    }

    #[test]
    fn who_rests_does_not_set_the_pace() {
        let sources = sources(2);
        let merits =
            [(&sources[0], TargetStats { resting: true, ..needs(1) }), (&sources[1], needs(100))];
        let all = shares(&sources, &Known::with(Balance::PerClient, &merits));
        assert_eq!(all, [0, 4000]);
        let least = shares(&sources, &Known::with(Balance::LeastLoaded, &merits));
        assert_eq!(least, [0, 4000]);
    }

    #[test]
    fn pinned_is_the_same_for_everyone() {
        let sources = sources(5);
        let known = Known::with(Balance::Pinned, &[]);
        let all = ordered(1, &sources, &known);
        assert!((2..100).all(|client| ordered(client, &sources, &known) == all));
        let resting = Known::with(Balance::Pinned, &[(&all[0], RESTING)]);
        let expected: Vec<_> = all[1..].iter().chain(&all[..1]).cloned().collect();
        assert!((1..100).all(|client| ordered(client, &sources, &resting) == expected));
        // However slow it is.
        let slow = Known::with(Balance::Pinned, &[(&all[0], needs(100)), (&all[1], needs(1))]);
        assert_eq!(ordered(1, &sources, &slow), all);
    }

    #[test]
    fn the_least_loaded_comes_first_by_what_it_can() {
        let sources = sources(3);
        let check = |merits: [TargetStats; 3], expected: [usize; 3]| {
            let merits: Vec<_> = sources.iter().zip(merits).collect();
            let known = Known::with(Balance::LeastLoaded, &merits);
            let found = ordered(1, &sources, &known);
            assert_eq!(found, expected.map(|at| Arc::clone(&sources[at])), "{merits:?}");
        };
        check([carries(3), carries(0), carries(1)], [1, 2, 0]);
        check([carries(0), RESTING, carries(1)], [0, 2, 1]);
        // One transfer where it takes four times as long is as four.
        check([needs(4), TargetStats { load: 2, ..needs(1) }, carries(9)], [1, 0, 2]);
        check([needs(4), TargetStats { load: 4, ..needs(1) }, carries(9)], [0, 1, 2]);
        // Among equals each client has its own.
        let counts = shares(&sources, &Known::with(Balance::LeastLoaded, &[]));
        assert!(counts.iter().all(|count| (1200..1470).contains(count)), "{counts:?}");
        check([carries(usize::MAX), carries(1), carries(0)], [2, 1, 0]);
    }

    #[test]
    fn one_after_the_other() {
        let sources = sources(3);
        let known = Known::with(Balance::RoundRobin, &[]);
        let at = |source: &Arc<Source>| sources.iter().position(|other| other == source);
        let first = |known: &Known| {
            let first = at(&ordered(1, &sources, known)[0]);
            known.turn.set(known.turn.get() + 1);
            first
        };
        let firsts: Vec<_> = (0..7).map(|_| first(&known)).collect();
        assert_eq!(firsts, [0, 1, 2, 0, 1, 2, 0].map(Some));
        let all: Vec<_> = ordered(1, &sources, &known).iter().map(at).collect();
        assert_eq!(all, [1, 2, 0].map(Some));
        let resting = Known::with(Balance::RoundRobin, &[(&sources[1], RESTING)]);
        let firsts: Vec<_> = (0..3).map(|_| first(&resting)).collect();
        assert_eq!(firsts, [0, 2, 2].map(Some));
        assert_eq!(ordered(1, &[], &known), []);
    }

    #[test]
    fn classes_are_powers_of_two() {
        let class = |cost, best| {
            class(Some(Duration::from_millis(cost)), Some(Duration::from_millis(best)))
        };
        assert_eq!(
            [100, 199, 200, 399, 400, 800, 1600, 9999].map(|cost| class(cost, 100)),
            [0, 0, 1, 1, 2, 3, 4, 4]
        );
        assert_eq!(class(0, 0), 0);
        assert_eq!(class(5, 0), 2);
        assert_eq!(super::class(None, Some(Duration::ZERO)), 0);
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
        let before = order(client, &name(), &sources, |_| false, &Strangers);
        let known = Known::with(Balance::PerClient, &[(&before[0], RESTING)]);
        let after = order(client, &name(), &sources, |_| false, &known);
        assert_eq!(after, [before[1].clone(), before[2].clone(), before[0].clone()]);
        let mapped = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
        assert_eq!(before, order(mapped, &name(), &sources, |_| false, &Strangers));
    }

    #[test]
    fn a_preferred_source_comes_first_among_many_and_though_it_rests() {
        let sources = sources(70);
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        for wanted in &sources {
            let is_it = |source: &Source| source.target == wanted.target;
            for balance in
                [Balance::PerClient, Balance::Pinned, Balance::LeastLoaded, Balance::RoundRobin]
            {
                let known = Known::with(balance, &[(wanted, RESTING)]);
                let ordered = order(client, &name(), &sources, is_it, &known);
                assert_eq!((&ordered[0], ordered.len()), (wanted, MAX_SOURCES));
            }
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
