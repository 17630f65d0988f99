//! Whom a bound for one client is for.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// A client, as what it causes is counted: an address, or the network of 64 bits that one host has
/// of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientNet(IpAddr);

impl ClientNet {
    /// The address, or that of the network.
    pub fn address(self) -> IpAddr {
        self.0
    }

    /// The one that an address belongs to.
    pub fn of(client: IpAddr) -> Self {
        match client.to_canonical() {
            IpAddr::V4(address) => Self(address.into()),
            IpAddr::V6(address) => {
                let network = u128::from(address) & !u128::from(u64::MAX);
                Self(Ipv6Addr::from(network).into())
            }
        }
    }
}

impl fmt::Display for ClientNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(network) => write!(f, "{network}/64"),
        }
    }
}
