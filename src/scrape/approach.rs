//! Address selection for a target (RFC 8305 in spirit). Of a name with several, all are tried, and
//! the one that has archives is kept, for probes and for the downloads that follow from them, until
//! it fails or has none any more.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::client::{GroupClient, TargetConnection};
use super::head_probes::HeadProbe;
use super::nodes::Node;
use super::omissions::Omissions;
use super::probe::Prober;
use super::probe_error::ProbeError;
use super::resolution::{Lookups, Resolution};
use super::silence;
use super::states::Nature;
use crate::access::Access;
use crate::config::{Group, HostPort};
use crate::hops::EdgeId;
use crate::index::Listed;

/// Time until the next address is tried beside those that were not heard of yet (RFC 8305 section
/// 5). The address that is kept has half of the probe's time for itself.
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses of one target that are asked at once.
const MAX_AT_ONCE: usize = 4;

/// Asks one target, again and again, at whichever of its addresses has archives.
pub(super) struct Approach {
    client: GroupClient,
    target: HostPort,
    resolution: Resolution,
    /// Asked the address that was of use last.
    prober: Prober,
    /// Whether it was of use when it was asked last.
    keeps: bool,
    /// The connections to the addresses that were tried.
    connections: BTreeMap<IpAddr, Arc<TargetConnection>>,
    /// Tries so far, so that each address has its turn where there are many.
    tries: usize,
}

/// One address that was asked.
struct Tried {
    prober: Prober,
    found: Result<Vec<Listed>, ProbeError>,
}

impl Approach {
    /// The way to one target of a group.
    pub(super) fn new(
        client: GroupClient,
        group: &Group,
        target: HostPort,
        lookups: Lookups,
    ) -> Self {
        Self {
            prober: Prober::new(client.clone(), group, target.clone()),
            client,
            resolution: Resolution::new(target.clone(), lookups),
            target,
            keeps: false,
            connections: BTreeMap::new(),
            tries: 0,
        }
    }

    /// Goes on as an entry of the configuration has it now, with what is known of the target.
    pub(super) fn reconfigure(&mut self, client: GroupClient, group: &Group) {
        self.client = client.clone();
        self.connections.clear();
        self.prober.reconfigure(client, group);
    }

    /// One round: everything that the target has now. A caller bounds the time, to `patience`.
    pub(super) async fn probe(&mut self, patience: Duration) -> Result<Vec<Listed>, ProbeError> {
        let addresses = self.resolution.addresses().await?;
        self.connections.retain(|address, _| addresses.contains(address));
        let kept = self.prober.address().filter(|_| self.keeps);
        let mut left = order(&addresses, kept, self.tries);
        let mut pause = if left.front() == kept.as_ref() { patience / 2 } else { STAGGER };
        let (mut running, mut failed) = (JoinSet::new(), Vec::new());
        loop {
            if running.len() < MAX_AT_ONCE
                && let Some(address) = left.pop_front()
            {
                self.tries = self.tries.wrapping_add(1);
                let (mut prober, connection) = (self.prober_at(address), self.connection(address)?);
                running.spawn(async move {
                    let found = prober.probe(&connection).await;
                    Tried { prober, found }
                });
            }
            let may_begin = !left.is_empty() && running.len() < MAX_AT_ONCE;
            tokio::select! {
                biased;
                ended = running.join_next(), if !running.is_empty() => match ended {
                    Some(Ok(Tried { prober, found: Ok(found) })) if !found.is_empty() => {
                        (self.prober, self.keeps) = (prober, true);
                        return Ok(found);
                    }
                    Some(Ok(tried)) => failed.push(tried),
                    // Whoever watches the target begins anew.
                    Some(Err(error)) => {
                        if let Ok(panic) = error.try_into_panic() {
                            std::panic::resume_unwind(panic);
                        }
                    }
                    None => {}
                },
                () = tokio::time::sleep(pause), if may_begin => {}
                else => return self.none(failed, addresses.len()),
            }
            pause = STAGGER;
        }
    }

    /// What is said of a round in which no address has an archive. One that answered is kept all
    /// the same, that of before where it did.
    fn none(&mut self, failed: Vec<Tried>, count: usize) -> Result<Vec<Listed>, ProbeError> {
        let before = self.prober.address();
        let (mut answered, mut errors) = (Vec::new(), Vec::new());
        for Tried { prober, found } in failed {
            match found {
                Ok(_) => answered.push(prober),
                Err(error) => errors.push((prober, error)),
            }
        }
        let at = answered.iter().position(|prober| prober.address() == before).unwrap_or(0);
        if at < answered.len() {
            (self.prober, self.keeps) = (answered.swap_remove(at), true);
            return Ok(Vec::new());
        }
        self.keeps = false;
        if let Some((prober, _)) = errors.iter().find(|(prober, _)| prober.address() == before) {
            self.prober = prober.clone();
        }
        let says_most =
            errors.into_iter().rev().max_by_key(|(_, error)| silence::significance(error));
        match says_most.map(|(prober, error)| (prober.address(), error)) {
            None => Ok(Vec::new()),
            Some((Some(address), error)) if count > 1 => {
                Err(ProbeError::Addresses { count, address, source: Box::new(error) })
            }
            Some((_, error)) => Err(error),
        }
    }

    /// Who asks at an address: with what is remembered of it, where that is the one of before.
    fn prober_at(&self, address: IpAddr) -> Prober {
        match self.prober.address() {
            Some(before) if before == address => self.prober.clone(),
            _ => self.prober.forgetful(),
        }
    }

    fn connection(&mut self, address: IpAddr) -> Result<Arc<TargetConnection>, ProbeError> {
        if let Some(connection) = self.connections.get(&address) {
            return Ok(Arc::clone(connection));
        }
        let connection = Arc::new(self.client.connection(&self.target, address)?);
        self.connections.insert(address, Arc::clone(&connection));
        Ok(connection)
    }

    /// What was asked, what came, and what to change, after a round that brought nothing.
    pub(super) fn told(&self) -> String {
        self.prober.told()
    }

    /// What the target is, as far as that is known.
    pub(super) fn nature(&self) -> Option<Nature> {
        self.prober.shown_nature()
    }

    /// How long the target wants to be left alone, where it said so in the last round.
    pub(super) fn rest(&self) -> Option<Duration> {
        self.prober.rest()
    }

    /// What was left out of the last answer.
    pub(super) fn omitted(&self) -> &Omissions {
        self.prober.omitted()
    }

    /// The edge that the target is, where its last answer was a list of all that it has.
    pub(super) fn listing_edge(&self) -> Option<&EdgeId> {
        self.prober.listing_edge()
    }

    /// The way to the target where its last answer was that of a node.
    pub(super) fn node(&self) -> Option<Node> {
        self.prober.node()
    }

    /// The head probe of the target, by what its last answer was.
    pub(super) fn head_probe(&self) -> Option<HeadProbe> {
        self.prober.head_probe()
    }

    /// How the targets of the group are reached.
    pub(super) fn access(&self) -> &Arc<Access> {
        self.client.access()
    }
}

/// The order of tries: the address that is kept, and from the one whose turn it is the
/// others, of both families by turns (RFC 8305 section 4). Pure.
fn order(addresses: &[IpAddr], kept: Option<IpAddr>, tries: usize) -> VecDeque<IpAddr> {
    let others: Vec<IpAddr> =
        addresses.iter().copied().filter(|address| Some(*address) != kept).collect();
    let first_is_v6 = others.first().is_some_and(IpAddr::is_ipv6);
    let (one, other): (Vec<IpAddr>, Vec<IpAddr>) =
        others.iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut mixed = VecDeque::new();
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    loop {
        let pair = (one.next(), other.next());
        mixed.extend(pair.0.into_iter().chain(pair.1));
        if pair == (None, None) {
            break;
        }
    }
    // Where not all have their turn in one round, the next one goes on with the rest.
    let turn = if mixed.len() > MAX_AT_ONCE { tries % mixed.len() } else { 0 };
    mixed.rotate_left(turn);
    if let Some(kept) = kept.filter(|kept| addresses.contains(kept)) {
        mixed.push_front(kept);
    }
    mixed
}

#[cfg(test)]
mod tests;
