//! The public listeners: `listen`, with what each of them does before a request is read.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::access::{Authorities, Identity, authorities, identity_in};
use super::units::listen_address;
use super::yaml::{Node, Section};

/// One address that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Address and port.
    pub address: SocketAddr,
    /// How TLS is spoken there, where it is.
    pub tls: Option<ServerTls>,
    /// Whether each connection begins with a header of the PROXY protocol.
    pub proxy_protocol: ProxyProtocol,
    /// The group that requests are for which name none.
    pub group: Option<Arc<str>>,
}

impl Listen {
    /// Plain HTTP at an address.
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None, proxy_protocol: ProxyProtocol::Off, group: None }
    }
}

/// Whether connections begin with a header of the PROXY protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// None does.
    #[default]
    Off,
    /// All do, in version 1 or 2.
    Required,
}

/// How TLS is spoken to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// The certificates, the first of which is shown where none is for the name that is asked.
    pub identities: Vec<Identity>,
    /// The authorities one of which must vouch for a client; anybody may come where unset.
    pub client_authorities: Option<Authorities>,
}

impl ServerTls {
    /// When the first of its certificates ends, in seconds since 1970.
    pub fn expires(&self) -> Option<i64> {
        self.identities.iter().filter_map(Identity::expires).min()
    }
}

/// Reads `listen`: addresses, or sections with one.
pub(super) fn listen(root: &mut Section) -> Vec<Listen> {
    let Some(node) = root.take("listen") else {
        return vec![Listen::plain(([0, 0, 0, 0], 8458).into())];
    };
    let nodes = node.list();
    let is_empty = nodes.is_empty();
    let entries: Vec<_> = nodes.into_iter().filter_map(entry).collect();
    let distinct: BTreeSet<_> = entries.iter().map(|entry| entry.address).collect();
    if is_empty {
        root.reject("listen", "expected at least one address, such as `0.0.0.0:8458`");
    } else if distinct.len() < entries.len() {
        root.reject("listen", "an address is listed twice, remove one");
    }
    entries
}

fn entry(node: Node) -> Option<Listen> {
    if !node.is_section() {
        let expected = "an address and port, or keys and values";
        return node.parsed(expected, listen_address).map(Listen::plain);
    }
    let mut section = node.section();
    let address = section.take_filled("address");
    if address.is_none() {
        section.reject("address", "expected an address and port, such as `0.0.0.0:8458`");
    }
    let address = address.and_then(|node| node.parsed("an address and port", listen_address));
    let tls = section.take("tls").and_then(tls);
    let proxy_protocol = section.take_filled("proxy_protocol");
    let proxy_protocol = proxy_protocol.and_then(|node| node.parsed("a word", proxy));
    let group = section.take_filled("group");
    let group = group.and_then(|node| node.literal("a text", |text| Ok(Arc::from(text))));
    section.close();
    let proxy_protocol = proxy_protocol.unwrap_or_default();
    Some(Listen { address: address?, tls, proxy_protocol, group })
}

fn proxy(text: &str) -> Result<ProxyProtocol, String> {
    match text {
        "off" => Ok(ProxyProtocol::Off),
        "required" => Ok(ProxyProtocol::Required),
        _ => Err(format!("`{text}` is not known here, write `off` or `required`")),
    }
}

fn tls(node: Node) -> Option<ServerTls> {
    let mut section = node.section();
    let first = identity_in(&mut section);
    let more = section.take("certificates").map(Node::list).unwrap_or_default();
    let more = more.into_iter().filter_map(|node| {
        let mut section = node.section();
        let identity = identity_in(&mut section);
        section.close();
        identity
    });
    let more: Vec<_> = more.collect();
    let client_authorities = section.take_filled("client_ca_file");
    let is_private = client_authorities.is_some();
    let client_authorities = client_authorities.and_then(|node| node.file(authorities));
    section.close();
    let identities = std::iter::once(first?).chain(more).collect();
    // Whoever wants clients to be known must not get a listener that lets everybody in.
    (!is_private || client_authorities.is_some())
        .then_some(ServerTls { identities, client_authorities })
}

/// Reads `hosts`: the group of each host name.
pub(super) fn hosts(
    root: &mut Section,
    name: fn(&str) -> Result<String, String>,
) -> BTreeMap<String, Arc<str>> {
    let Some(node) = root.take("hosts") else { return BTreeMap::new() };
    let mut hosts = BTreeMap::new();
    for (key, node) in node.entries() {
        let host = match name(&key) {
            Ok(host) => host,
            Err(message) => {
                node.reject(message);
                continue;
            }
        };
        let group = node.literal("the name of a group", |text| Ok(Arc::from(text)));
        if let Some(group) = group
            && hosts.insert(host, group).is_some()
        {
            node.reject("is the name of a host above, in other letters, remove one");
        }
    }
    hosts
}
