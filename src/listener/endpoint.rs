//! The addresses that are listened on, and what is done on each before requests are read.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::tls::{Secured, TlsError};
use crate::config::{Listen, ProxyProtocol};
use crate::route::ClientNet;

/// One address that is listened on.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// As it is configured, which finds it again in another configuration.
    configured: SocketAddr,
    /// As it was bound.
    bound: SocketAddr,
    pub(super) tls: Option<Arc<Secured>>,
    pub(super) proxy_protocol: ProxyProtocol,
    /// The group that requests are for which name none.
    pub(super) group: Option<Arc<str>>,
}

/// All addresses that are listened on.
#[derive(Debug, Default)]
pub struct Endpoints(Vec<Endpoint>);

impl Endpoints {
    /// The endpoints of a configuration, each with the address that it was bound to. What did not
    /// change is what it was `before`.
    pub fn new(
        listen: &[Listen],
        bound: &[SocketAddr],
        before: Option<&Self>,
    ) -> Result<Self, TlsError> {
        let mut all = Vec::with_capacity(listen.len());
        for (listen, bound) in listen.iter().zip(bound) {
            let before = before.and_then(|before| before.configured(listen.address));
            let secured = before.and_then(|before| before.tls.as_ref());
            let tls = listen.tls.as_ref().map(|tls| Secured::new(tls, secured)).transpose()?;
            all.push(Endpoint {
                configured: listen.address,
                bound: before.map_or(*bound, |before| before.bound),
                tls,
                proxy_protocol: listen.proxy_protocol,
                group: listen.group.clone(),
            });
        }
        Ok(Self(all))
    }

    /// The endpoints of another configuration of these addresses.
    pub(super) fn follow(&self, listen: &[Listen]) -> Result<Self, TlsError> {
        let bound: Vec<_> = listen.iter().map(|listen| listen.address).collect();
        Self::new(listen, &bound, Some(self))
    }

    fn configured(&self, address: SocketAddr) -> Option<&Endpoint> {
        self.0.iter().find(|endpoint| endpoint.configured == address)
    }

    /// The one at which a connection came in, whose own end has this address.
    pub(super) fn at(&self, local: SocketAddr) -> Option<&Endpoint> {
        // Neither of the two with more than that: a scope is where an address is, and not which.
        let local = (local.ip().to_canonical(), local.port());
        let place =
            |endpoint: &Endpoint| (endpoint.bound.ip().to_canonical(), endpoint.bound.port());
        let exact = || self.0.iter().find(|endpoint| place(endpoint) == local);
        let is_any = |endpoint: &&Endpoint, v4: bool| {
            let (address, port) = place(endpoint);
            port == local.1 && address.is_unspecified() && address.is_ipv4() == v4
        };
        let any = |v4| self.0.iter().find(|endpoint| is_any(endpoint, v4));
        // `[::]` takes both families, where nothing has the other one.
        let wide = || if local.0.is_ipv4() { any(true).or_else(|| any(false)) } else { any(false) };
        exact().or_else(wide)
    }

    /// When the certificates of each address end, in seconds since 1970, where TLS is spoken.
    pub fn expiries(&self) -> impl Iterator<Item = (SocketAddr, i64)> {
        self.0
            .iter()
            .filter_map(|endpoint| Some((endpoint.configured, endpoint.tls.as_ref()?.expires()?)))
    }
}

/// Who a connection is from: an address of a client, or a proxy that is trusted and whose
/// connections are those of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Owner {
    Client(ClientNet),
    Proxy,
}

impl Owner {
    /// The client at an address.
    pub(super) fn client(address: IpAddr) -> Self {
        Self::Client(ClientNet::of(address))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(client) => client.fmt(f),
            Self::Proxy => f.write_str("a trusted proxy"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(bound: &[&str]) -> Endpoints {
        let bound: Vec<SocketAddr> =
            bound.iter().map(|address| address.parse().expect("an address")).collect();
        let listen: Vec<_> = bound.iter().map(|address| Listen::plain(*address)).collect();
        Endpoints::new(&listen, &bound, None).expect("no TLS")
    }

    #[test]
    fn a_connection_is_found_where_it_came_in() {
        let check = |bound: &[&str], local: &str, expected: Option<&str>| {
            let endpoints = endpoints(bound);
            let found = endpoints.at(local.parse().expect("an address"));
            let found = found.map(|endpoint| endpoint.bound.to_string());
            assert_eq!(found.as_deref(), expected, "{local} at {bound:?}");
        };
        check(&["127.0.0.1:80", "127.0.0.1:443"], "127.0.0.1:443", Some("127.0.0.1:443"));
        check(&["0.0.0.0:80", "[::]:443"], "10.0.0.1:80", Some("0.0.0.0:80"));
        check(&["0.0.0.0:80", "[::]:443"], "[2001:db8::1]:443", Some("[::]:443"));
        check(&["0.0.0.0:80", "[::]:443"], "[::ffff:10.0.0.1]:443", Some("[::]:443"));
        check(&["0.0.0.0:80", "[::]:80"], "[::ffff:10.0.0.1]:80", Some("0.0.0.0:80"));
        check(&["[::]:80", "0.0.0.0:80"], "[2001:db8::1]:80", Some("[::]:80"));
        check(&["10.0.0.1:80", "0.0.0.0:81"], "10.0.0.1:80", Some("10.0.0.1:80"));
        check(&["10.0.0.1:80"], "10.0.0.2:80", None);
        check(&["10.0.0.1:80"], "10.0.0.1:81", None);
        check(&["[fe80::1%2]:443"], "[fe80::1%2]:443", Some("[fe80::1%2]:443"));
        check(&["[fe80::1%2]:443"], "[fe80::1]:443", Some("[fe80::1%2]:443"));
        check(&["[::ffff:10.0.0.1]:443"], "10.0.0.1:443", Some("[::ffff:10.0.0.1]:443"));
        check(&["[::ffff:10.0.0.1]:443"], "[::ffff:10.0.0.1]:443", Some("[::ffff:10.0.0.1]:443"));
    }

    #[test]
    fn addresses_stay_as_they_were_bound() {
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let bound: SocketAddr = "127.0.0.1:4711".parse().expect("an address");
        let first = Endpoints::new(&[Listen::plain(any)], &[bound], None).expect("no TLS");
        let group = Some("testnet".into());
        let next = first.follow(&[Listen { group, ..Listen::plain(any) }]).expect("no TLS");
        let found = next.at(bound).expect("the same one");
        assert_eq!(found.group.as_deref(), Some("testnet"));
    }
}
