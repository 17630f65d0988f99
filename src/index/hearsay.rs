//! Archives that came to an edge through other edges, and which of them are out of date.
//!
//! Edges that list each other tell each other of archives that none of them has from an origin any
//! more. Each name of an edge on the way keeps an archive from going round; what is left is that it
//! may take long ways to die out. Who asks several of the edges on such a way knows better than
//! those who only heard of them: what the nearer one says itself counts.

use std::collections::{BTreeMap, BTreeSet};

use super::answer::{Answer, Holding};
use super::catalog::Catalog;
use super::entry::Source;
use super::listing::TargetId;
use crate::hops::{EdgeId, Via};
use crate::snapshot::ArchiveName;

/// An archive of a target that is an edge, and the edges that it comes through.
struct Way<'a> {
    target: &'a TargetId,
    name: ArchiveName,
    edges: &'a [EdgeId],
}

/// The way of an archive which no edge is asked for.
static STRAIGHT: Via = Via::straight();

impl Source {
    /// The edges that the archive comes through.
    pub fn via(&self) -> &Via {
        self.listed.location.as_ref().map_or(&STRAIGHT, |location| &location.via)
    }
}

impl Catalog {
    /// This catalog without what edges are said to have and do not list themselves; nothing where
    /// there is none of that.
    pub(super) fn without_hearsay(&self) -> Option<Self> {
        let stale = self.stale();
        if stale.is_empty() {
            return None;
        }
        let mut catalog = self.clone();
        for (target, name) in stale {
            if let Some(answer) = catalog.targets.get_mut(&target) {
                answer.holdings.remove(&name);
            }
        }
        Some(catalog)
    }

    /// The archives that are out of date: each comes through an edge that is a target as well,
    /// answered last, and does not list it, or has it over more edges by now than it is said to.
    fn stale(&self) -> BTreeSet<(TargetId, ArchiveName)> {
        // By the number of edges: what a longer way is held against is decided then.
        let mut ways: Vec<Way> = Vec::new();
        for (target, answer) in &self.targets {
            ways.extend(answer.ways().map(|(name, edges)| Way { target, name, edges }));
        }
        ways.sort_by_key(|way| way.edges.len());
        let answered = |(target, edge): (&TargetId, &EdgeId)| {
            let answers = self.targets.get(target).is_some_and(|answer| answer.failures == 0);
            answers.then(|| edge.clone())
        };
        let heard: BTreeSet<EdgeId> = self.edges.iter().filter_map(answered).collect();
        // The shortest ways that are believed so far, from each edge that is asked itself.
        let mut shortest: BTreeMap<(&EdgeId, ArchiveName), usize> = BTreeMap::new();
        let mut stale = BTreeSet::new();
        for Way { target, name, edges } in ways {
            let mut rest = edges.iter().enumerate().skip(1).filter(|(_, id)| heard.contains(*id));
            let is_true = rest.all(|(place, id)| {
                let known = shortest.get(&(id, name));
                known.is_some_and(|known| *known <= edges.len() - place)
            });
            match edges.first() {
                Some(first) if is_true => {
                    shortest.entry((first, name)).or_insert(edges.len());
                }
                _ => {
                    stale.insert((target.clone(), name));
                }
            }
        }
        stale
    }
}

impl Holding {
    /// Whether an origin lists it, and not just the cache of another edge still has it: of two
    /// caches, neither is to keep the other's.
    pub(super) fn is_backed(&self) -> bool {
        self.listed.location.as_ref().is_none_or(|location| !location.via.is_kept())
    }
}

impl Answer {
    /// The archives that an origin lists.
    pub(super) fn backed(&self) -> impl Iterator<Item = &ArchiveName> {
        self.holdings.iter().filter(|(_, holding)| holding.is_backed()).map(|(name, _)| name)
    }

    /// The archives that come through edges, and those.
    fn ways(&self) -> impl Iterator<Item = (ArchiveName, &[EdgeId])> {
        self.holdings.iter().filter_map(|(name, holding)| {
            let edges = holding.listed.location.as_ref()?.via.edges();
            (!edges.is_empty()).then_some((*name, edges))
        })
    }
}

/// Fleets of edges that ask each other in whatever order, and a node that some of them ask.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;
    use crate::hops::{CdnLoop, MAX_HOPS};
    use crate::index::{AccessKey, Event, Listed, Location, Policy, Publish, View};
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::time::{Duration, Instant, UNIX_EPOCH};

    const POLICY: Policy =
        Policy { probe_failures: 1, pair_hold: Duration::ZERO, publish: Publish::Seen };

    struct Edge {
        id: EdgeId,
        /// The edges that it asks, which may be itself.
        asks: Vec<usize>,
        asks_node: bool,
        catalog: Catalog,
        view: View,
    }

    struct Fleet {
        edges: Vec<Edge>,
        node_lives: bool,
        start: Instant,
        steps: u64,
        /// Makes up the order.
        chance: u64,
    }

    fn archive() -> ArchiveName {
        format!("snapshot-1000-{}.tar.zst", "1".repeat(32)).parse().expect("valid")
    }

    fn target(name: &str) -> TargetId {
        TargetId { group: "g".into(), authority: name.into() }
    }

    fn listed(name: ArchiveName, via: Via) -> Listed {
        let location = Location {
            scheme: "http",
            address: ([127, 0, 0, 1], 1).into(),
            authority: "localhost:1".into(),
            path: format!("/{name}"),
            access: AccessKey::default(),
            via,
        };
        Listed { name, size: Some(7), modified: None, tag: None, location: Some(location) }
    }

    impl Fleet {
        /// `asks[a]` are the edges that `a` asks, and `node` says who asks the node.
        fn new(asks: &[Vec<usize>], node: &[bool], chance: u64) -> Self {
            let edge = |(number, (asks, asks_node)): (usize, (&Vec<usize>, &bool))| Edge {
                id: format!("e{number}").parse().expect("a name"),
                asks: asks.clone(),
                asks_node: *asks_node,
                catalog: Catalog::default(),
                view: View::default(),
            };
            let edges = asks.iter().zip(node).enumerate().map(edge).collect();
            Self { edges, node_lives: true, start: Instant::now(), steps: 0, chance }
        }

        /// Everybody asks everybody else, and itself.
        fn clique(count: usize, node: &[bool], chance: u64) -> Self {
            Self::new(&vec![(0..count).collect(); count], node, chance)
        }

        fn now(&mut self) -> Now {
            self.steps += 1;
            let since = Duration::from_secs(self.steps);
            Now { instant: self.start + since, wall: UNIX_EPOCH + since }
        }

        fn learn(&mut self, who: usize, events: impl IntoIterator<Item = Event>) {
            let now = Instant::now() + Duration::from_secs(self.steps);
            let edge = &mut self.edges[who];
            for event in events {
                edge.catalog.apply(event);
            }
            edge.view = edge.catalog.view(&edge.view, &["g".into()], POLICY, now);
        }

        /// One edge asks the node.
        fn ask_node(&mut self, who: usize) {
            let (at, target) = (self.now(), target("node"));
            let event = if self.node_lives {
                let archives = vec![listed(archive(), Via::default())];
                Event::Answered { target, at, archives }
            } else {
                Event::Failed { target, at }
            };
            self.learn(who, [event]);
        }

        /// One edge asks another one, as `scrape/probe.rs` does.
        fn ask_edge(&mut self, who: usize, whom: usize) {
            let (at, own, other) = (self.now(), self.edges[who].id.clone(), &self.edges[whom]);
            let (target, id) = (target(other.id.as_str()), other.id.clone());
            let came = CdnLoop::parse([format!("snapedge-{own}").as_bytes()].into_iter());
            if came.check(&id).is_err() {
                return self.learn(who, [Event::Failed { target, at }]);
            }
            let mut archives = Vec::new();
            for (source, via) in other.view.handed(None, &came) {
                let names = std::iter::once(&id).chain(via.edges()).map(EdgeId::as_str);
                let way = Via::through(names, via.is_kept(), &own);
                archives.extend(way.map(|via| listed(source.listed.name, via)));
            }
            let edge = Some(id);
            let identified = Event::Identified { target: target.clone(), edge };
            self.learn(who, [identified, Event::Answered { target, at, archives }]);
        }

        /// Everybody asks all its targets once, in some order.
        fn round(&mut self) {
            let mut due: Vec<(usize, Option<usize>)> = Vec::new();
            for (who, edge) in self.edges.iter().enumerate() {
                due.extend(edge.asks.iter().map(|whom| (who, Some(*whom))));
                due.extend(edge.asks_node.then_some((who, None)));
            }
            while !due.is_empty() {
                self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let draw = usize::try_from(self.chance >> 33).expect("31 bits");
                let place = draw % due.len();
                match due.swap_remove(place) {
                    (who, Some(whom)) => self.ask_edge(who, whom),
                    (who, None) => self.ask_node(who),
                }
            }
        }

        /// The node dies, and those that ask it notice.
        fn kill_node(&mut self) {
            self.node_lives = false;
            for who in 0..self.edges.len() {
                if self.edges[who].asks_node {
                    self.ask_node(who);
                }
            }
        }

        fn offer(&self) -> Vec<bool> {
            self.edges.iter().map(|edge| edge.view.best(None).ok().flatten().is_some()).collect()
        }

        /// Who is to have it: who asks the node, and who is not too far from those.
        fn reachable(&self) -> Vec<bool> {
            let mut far: Vec<Option<usize>> =
                self.edges.iter().map(|edge| edge.asks_node.then_some(0)).collect();
            let mut due: VecDeque<usize> = (0..far.len()).filter(|at| far[*at].is_some()).collect();
            while let Some(at) = due.pop_front() {
                let next = far[at].expect("was reached") + 1;
                for (who, edge) in self.edges.iter().enumerate() {
                    if far[who].is_none() && edge.asks.contains(&at) {
                        far[who] = Some(next);
                        due.push_back(who);
                    }
                }
            }
            far.iter().map(|far| far.is_some_and(|far| far <= MAX_HOPS)).collect()
        }
    }

    #[test]
    fn edges_that_list_each_other_forget_a_dead_node_after_one_round() {
        for count in 1..=5 {
            for who in 1_u32..1 << count {
                for chance in 0..4 {
                    let node: Vec<bool> = (0..count).map(|at| (who >> at) & 1 == 1).collect();
                    let mut fleet = Fleet::clique(count, &node, chance);
                    fleet.round();
                    fleet.round();
                    assert_eq!(fleet.offer(), vec![true; count], "{node:?}");
                    fleet.kill_node();
                    fleet.round();
                    assert_eq!(fleet.offer(), vec![false; count], "{node:?} {chance}");
                }
            }
        }
    }

    #[test]
    fn a_chain_of_tiers_forgets_a_dead_node_tier_by_tier() {
        let chain: Vec<Vec<usize>> =
            (0..7_usize).map(|at| at.checked_sub(1).into_iter().collect()).collect();
        let node: Vec<bool> = (0..7).map(|at| at == 0).collect();
        for chance in 0..20 {
            let mut fleet = Fleet::new(&chain, &node, chance);
            for _ in 0..7 {
                fleet.round();
            }
            assert_eq!(fleet.offer(), [true, true, true, true, true, false, false], "four hops");
            fleet.kill_node();
            for forgotten in 1..=5 {
                assert!(fleet.offer()[..forgotten].iter().all(|offers| !offers), "{forgotten}");
                fleet.round();
            }
            assert_eq!(fleet.offer(), [false; 7]);
        }
    }

    #[test]
    fn an_edge_that_takes_over_is_found_and_one_that_lost_it_is_not_believed() {
        // Two know the node, a third one asks both of them and they each other.
        let mut fleet = Fleet::new(&[vec![1], vec![0], vec![0, 1]], &[true, true, false], 7);
        for _ in 0..3 {
            fleet.round();
        }
        fleet.edges[0].asks_node = false;
        let at = fleet.now();
        fleet.learn(0, [Event::Failed { target: target("node"), at }]);
        fleet.ask_edge(2, 0);
        let ways = |fleet: &Fleet| -> Vec<Vec<String>> {
            let sources = fleet.edges[2].view.sources(&archive()).iter();
            let names = |source: &Arc<Source>| {
                source.via().edges().iter().map(ToString::to_string).collect()
            };
            sources.map(names).collect()
        };
        assert_eq!(ways(&fleet), [vec!["e0", "e1"], vec!["e1"]], "the first has it by the second");
        let at = fleet.now();
        fleet.learn(1, [Event::Failed { target: target("node"), at }]);
        fleet.ask_edge(2, 1);
        // The second one lists it by the first one now, and both of that is hearsay.
        assert!(ways(&fleet).is_empty(), "{:?}", ways(&fleet));
    }

    fn topologies() -> impl Strategy<Value = (Vec<Vec<usize>>, Vec<bool>)> {
        (2_usize..7).prop_flat_map(|count| {
            let asks = proptest::collection::vec(0..count, 0..=count);
            let node = proptest::collection::vec(any::<bool>(), count);
            (proptest::collection::vec(asks, count), node)
        })
    }

    proptest! {
        #[test]
        fn whoever_asks_whom_a_living_node_stays_and_a_dead_one_goes(
            (asks, node) in topologies(),
            chance: u64,
        ) {
            let mut fleet = Fleet::new(&asks, &node, chance);
            for _ in 0..=MAX_HOPS + 1 {
                fleet.round();
            }
            let expected = fleet.reachable();
            for _ in 0..3 {
                fleet.round();
                prop_assert_eq!(fleet.offer(), expected.clone());
            }
            fleet.kill_node();
            for _ in 0..=MAX_HOPS {
                fleet.round();
            }
            prop_assert_eq!(fleet.offer(), vec![false; asks.len()]);
            fleet.node_lives = true;
            for _ in 0..=MAX_HOPS + 1 {
                fleet.round();
            }
            prop_assert_eq!(fleet.offer(), expected);
        }
    }
}
