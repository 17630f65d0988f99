//! Whose word it is that a target says.

use std::net::IpAddr;
use std::sync::Arc;

use super::listing::TargetId;

/// Bytes of an IPv6 address that tell whose it is: anybody has a network of 64 bits.
const NETWORK: usize = 8;

/// Who speaks: targets that one stranger may have at one address are one voice. On a loopback
/// address each port is one of its own, since only whoever runs this machine can have put it there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Voice {
    Address(IpAddr),
    Network([u8; NETWORK]),
    /// A name of which the address is not known.
    Host(Arc<str>),
    /// One target alone.
    Target(Arc<str>),
}

impl Voice {
    /// The voice of a target, by the address at which it was met, if it was.
    pub(super) fn of(target: &TargetId, met: Option<IpAddr>) -> Self {
        let own = || Self::Target(Arc::clone(&target.authority));
        if target.is_ledger() {
            return own();
        }
        let authority = &*target.authority;
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match met.or_else(|| bare.parse().ok()).map(|address| address.to_canonical()) {
            Some(address) if address.is_loopback() => own(),
            Some(IpAddr::V6(address)) => {
                let mut network = [0; NETWORK];
                network.copy_from_slice(&address.octets()[..NETWORK]);
                Self::Network(network)
            }
            Some(address) => Self::Address(address),
            None => Self::Host(bare.into()),
        }
    }
}
