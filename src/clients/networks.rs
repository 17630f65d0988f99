//! Sets of networks, as large as lists of whole countries, in which an address is found quickly.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// A set of networks of both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// Bounds of each run of addresses, both in it, in order and apart from each other.
    v4: Vec<(Ipv4Addr, Ipv4Addr)>,
    v6: Vec<(Ipv6Addr, Ipv6Addr)>,
}

/// What is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no network, write it like `10.0.0.0/8`, `2001:db8::/32` or `192.0.2.7`")]
pub struct BadNetwork(String);

impl Networks {
    /// The set of these networks.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let mut set = Self::default();
        for network in networks {
            match network {
                IpNet::V4(network) => set.v4.push((network.network(), network.broadcast())),
                IpNet::V6(network) => set.v6.push((network.network(), network.broadcast())),
            }
        }
        merge(&mut set.v4, |address| u32::from(address).into());
        merge(&mut set.v6, u128::from);
        set
    }

    /// A network, or a single address. Bits behind its prefix are passed over.
    pub fn parse(text: &str) -> Result<IpNet, BadNetwork> {
        let single = || text.parse::<IpAddr>().map(IpNet::from).ok();
        let network = text.parse().ok().or_else(single).map(canonical);
        network.ok_or_else(|| BadNetwork(text.to_owned()))
    }

    /// The networks of a text: one on a line, what stands behind `#` aside. Each that is none is
    /// told, with its line.
    pub fn read(text: &str) -> Result<Self, Vec<(usize, BadNetwork)>> {
        let (mut networks, mut bad) = (Vec::new(), Vec::new());
        for (at, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            match Self::parse(line) {
                Ok(network) => networks.push(network),
                Err(error) => bad.push((at + 1, error)),
            }
        }
        if bad.is_empty() { Ok(Self::new(networks)) } else { Err(bad) }
    }

    /// This set and another one.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.v4.extend(other.v4);
        self.v6.extend(other.v6);
        merge(&mut self.v4, |address| u32::from(address).into());
        merge(&mut self.v6, u128::from);
        self
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether an address is in one of them. An IPv4 address that is written as one of IPv6 is that
    /// IPv4 address.
    pub fn contain(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => find(&self.v4, address),
            IpAddr::V6(address) => find(&self.v6, address),
        }
    }
}

/// A network of IPv4 that is written as one of IPv6 is that network of IPv4.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(mapped) = network else { return network };
    let prefix = mapped.prefix_len().checked_sub(96);
    let v4 = mapped.network().to_ipv4_mapped().zip(prefix);
    v4.and_then(|(address, prefix)| IpNet::new(address.into(), prefix).ok()).unwrap_or(network)
}

fn find<A: Ord + Copy>(runs: &[(A, A)], address: A) -> bool {
    let behind = runs.partition_point(|(first, _)| *first <= address);
    behind.checked_sub(1).and_then(|at| runs.get(at)).is_some_and(|(_, last)| address <= *last)
}

/// Puts runs in order, and makes one of those that touch.
fn merge<A: Ord + Copy>(runs: &mut Vec<(A, A)>, number: fn(A) -> u128) {
    runs.sort_unstable();
    let mut merged: Vec<(A, A)> = Vec::with_capacity(runs.len());
    for &(first, last) in &*runs {
        match merged.last_mut() {
            Some(before) if number(first) <= number(before.1).saturating_add(1) => {
                before.1 = before.1.max(last);
            }
            _ => merged.push((first, last)),
        }
    }
    *runs = merged;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn networks(all: &[&str]) -> Networks {
        Networks::new(all.iter().map(|text| Networks::parse(text).expect("a network")))
    }

    #[test]
    fn an_address_is_in_the_networks_that_have_it() {
        let set = networks(&["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "10.1.0.0/16", "::1"]);
        for (address, is_in) in [
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("9.255.255.255", false),
            ("11.0.0.0", false),
            ("192.0.2.7", true),
            ("192.0.2.6", false),
            ("::ffff:10.1.2.3", true),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
            ("::1", true),
            ("::2", false),
            ("::", false),
        ] {
            assert_eq!(set.contain(address.parse().expect("an address")), is_in, "{address}");
        }
        assert!(Networks::default().is_empty() && !set.is_empty());
        assert!(networks(&["0.0.0.0/0"]).contain(IpAddr::V4(Ipv4Addr::BROADCAST)));
        assert!(networks(&["::/0"]).contain(Ipv6Addr::from(u128::MAX).into()));
        assert!(!networks(&["::/0"]).contain(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        for mapped in ["::ffff:192.0.2.0/120", "::ffff:192.0.2.7/128", "::ffff:192.0.2.7"] {
            assert!(
                networks(&[mapped]).contain(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7))),
                "{mapped}"
            );
        }
        assert!(networks(&["10.1.2.3/8"]).contain(IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9))));
    }

    #[test]
    fn a_text_has_a_network_on_each_line() {
        let text = "# ours\n10.0.0.0/8\n\n 192.0.2.7 # one\r\n::1";
        let read = Networks::read(text).expect("networks");
        assert_eq!(read, networks(&["10.0.0.0/8", "192.0.2.7", "::1"]));
        assert_eq!(Networks::read("# nothing").expect("none"), Networks::default());
        let bad = Networks::read("10.0.0.0/8\nlocalhost\n10.0.0.0/33\n10.0.0\n").expect_err("bad");
        assert_eq!(bad.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 3, 4]);
        assert!(bad[0].1.to_string().starts_with("`localhost` is no network"), "{bad:?}");
    }

    proptest! {
        /// Against a look at each of them.
        #[test]
        fn a_set_has_what_one_of_its_networks_has(
            all in prop::collection::vec((any::<u32>(), 0_u8..=32), 0..40),
            more in prop::collection::vec((any::<u32>(), 8_u8..=32), 0..5),
            asked in prop::collection::vec(any::<u32>(), 1..40),
        ) {
            let network = |(address, prefix): &(u32, u8)| {
                IpNet::new(Ipv4Addr::from(*address).into(), *prefix).expect("a prefix")
            };
            let set = Networks::new(all.iter().map(network));
            let set = set.and(Networks::new(more.iter().map(network)));
            let ends = all.iter().flat_map(|one| match network(one) {
                IpNet::V4(one) => [u32::from(one.network()), u32::from(one.broadcast())],
                IpNet::V6(_) => [0, 0],
            });
            for number in asked.into_iter().chain(ends) {
                for near in [number.wrapping_sub(1), number, number.wrapping_add(1)] {
                    let address = IpAddr::from(Ipv4Addr::from(near));
                    let mut every = all.iter().chain(&more);
                    let expected = every.any(|one| network(one).contains(&address));
                    prop_assert_eq!(set.contain(address), expected, "{}", address);
                }
            }
        }
    }
}
