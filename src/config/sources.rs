//! Where the targets of a group come from, as the file says it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use url::Url;

use super::Trusted;
use super::private_url::PrivateUrl;
use super::secret::Secret;
use super::units::{HostPort, Scheme};
use super::yaml::{Node, Section};

/// Most targets that one group may have, over all its sources.
pub(crate) const MAX_TARGETS: usize = 10_000;
/// Most names that one group may look up.
const MAX_DNS_NAMES: usize = 64;
/// Most directories that one group may have.
const MAX_LEDGERS: usize = 64;
/// Longest domain name, and longest part of one between two dots, in bytes (RFC 1035).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// The keys of a group that name sources of targets, for the message that there is none.
const KEYS: [&str; 6] = [
    "static_targets",
    "file_targets",
    "http_targets",
    "consul_sd_config",
    "dns_targets",
    "ledger_targets",
];

/// The keys of `consul_sd_config`.
const CONSUL_KEYS: [&str; 7] =
    ["scheme", "host", "token", "token_file", "datacenter", "service", "filter"];

/// The sources of a group's targets: at least one, and all of them count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Targets that the configuration names.
    pub static_targets: Vec<HostPort>,
    /// A file that names targets.
    pub file_targets: Option<PathBuf>,
    /// A URL whose answer names targets.
    pub http_targets: Option<PrivateUrl>,
    /// A service of Consul whose instances are targets.
    pub consul: Option<Consul>,
    /// Domain names whose records are targets.
    pub dns_targets: Vec<DnsTargets>,
    /// Local directories of archives, absolute and each of them once.
    pub ledger_targets: Vec<PathBuf>,
}

/// A service of Consul.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consul {
    /// Scheme, host and port of Consul.
    pub url: Url,
    /// What Consul is shown, where it wants to be shown anything.
    pub token: Option<Token>,
    /// The datacenter that is asked for; that of the asked agent where unset.
    pub datacenter: Option<String>,
    /// Name of the service.
    pub service: String,
    /// An expression in Consul's language that instances must match.
    pub filter: Option<String>,
}

/// Consul's ACL token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// The token itself.
    Given(Secret),
    /// A file that has it, read again for each query.
    InFile(PathBuf),
}

/// A domain name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsTargets {
    /// The name.
    pub name: String,
    /// The records of the name that count.
    pub records: Records,
    /// The server that is asked; those of the system where unset.
    pub server: Option<SocketAddr>,
}

/// A type of records that name targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Records {
    /// IPv4 addresses, and the port that all targets have.
    A(u16),
    /// IPv6 addresses, and the port that all targets have.
    Aaaa(u16),
    /// Names and ports.
    Srv,
}

/// Takes every key of a group that names targets.
pub(super) fn sources(section: &mut Section, scheme: Scheme) -> Sources {
    let static_targets = section.take("static_targets");
    let sources = Sources {
        static_targets: static_targets.map(|node| targets(node, scheme)).unwrap_or_default(),
        file_targets: section.take_section("file_targets", &["path"]).and_then(file_targets),
        http_targets: section.take_section("http_targets", &["url"]).and_then(http_targets),
        consul: section.take_section("consul_sd_config", &CONSUL_KEYS).and_then(consul),
        dns_targets: dns_targets(section),
        ledger_targets: section.take("ledger_targets").map(ledger_targets).unwrap_or_default(),
    };
    if !KEYS.iter().any(|key| section.is_given(key)) {
        let keys = KEYS.join("`, `");
        section.reject("", format!("the group has no targets, add at least one of `{keys}`"));
    }
    sources
}

fn targets(node: Node, scheme: Scheme) -> Vec<HostPort> {
    let mut section = node.section();
    let nodes = section.take("targets").map(Node::list).unwrap_or_default();
    if nodes.is_empty() {
        section.reject("targets", "expected at least one target, such as `10.0.0.1:8899`");
    } else if nodes.len() > MAX_TARGETS {
        section.reject("targets", format!("expected at most {MAX_TARGETS} targets"));
    }
    let mut targets = BTreeSet::new();
    for node in nodes {
        let Some(target) = node.parsed("a target", |text| HostPort::parse(text, scheme)) else {
            continue;
        };
        // Lists that are put together from several have some twice.
        targets.insert(target);
    }
    section.close();
    targets.into_iter().collect()
}

/// `true`, `false`, or the targets of the group whose word suffices, from whichever source.
pub(super) fn trusted(section: &mut Section, scheme: Scheme) -> Trusted {
    let Some(node) = section.take("trusted") else { return Trusted::default() };
    if !node.is_list() {
        return match node.boolean_among("`true`, `false` or a list of targets") {
            Some(true) => Trusted::All,
            Some(false) | None => Trusted::default(),
        };
    }
    let nodes = node.list();
    if nodes.len() > MAX_TARGETS {
        section.reject("trusted", format!("expected at most {MAX_TARGETS} targets"));
    }
    let target = |node: Node| node.parsed("a target", |text| HostPort::parse(text, scheme));
    Trusted::Some(nodes.into_iter().filter_map(target).collect())
}

/// What `parse` makes of a key that must be there; `expected` says what that is.
fn required<T>(
    section: &mut Section,
    key: &'static str,
    expected: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Option<T> {
    let node = section.take(key);
    if node.is_none() {
        section.reject(key, format!("expected {expected}"));
    }
    node?.literal(expected, parse)
}

fn optional(section: &mut Section, key: &'static str, expected: &str) -> Option<String> {
    section.take_filled(key)?.literal(expected, |text| printable(text, expected))
}

/// A text that is not empty and has no control characters.
fn printable(text: &str, expected: &str) -> Result<String, String> {
    let printable = !text.is_empty() && !text.contains(|c: char| c.is_control());
    if printable { Ok(text.to_owned()) } else { Err(format!("expected {expected}")) }
}

fn file_targets(mut section: Section) -> Option<PathBuf> {
    let expected = "the path of a file that lists targets";
    let path = required(&mut section, "path", expected, |text| printable(text, expected));
    section.close();
    path.map(PathBuf::from)
}

fn http_targets(mut section: Section) -> Option<PrivateUrl> {
    let expected = "a URL such as `http://sd.example/targets`";
    // What it is instead is not repeated: it may hold a key.
    let parse = |text: &str| {
        let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        url.map(PrivateUrl::new).ok_or_else(|| format!("expected {expected}"))
    };
    let url = required(&mut section, "url", expected, parse);
    section.close();
    url
}

fn consul(mut section: Section) -> Option<Consul> {
    let scheme = section.take_filled("scheme");
    let scheme = scheme.and_then(|node| node.parsed("a scheme", consul_scheme));
    let expected = "Consul's host and port, such as `127.0.0.1:8500`";
    let parse = |text: &str| {
        // Consul's own clients take the scheme from there.
        let default = if text.starts_with("https://") { "https" } else { "http" };
        let scheme = scheme.unwrap_or(default);
        let url = consul_url(scheme, text);
        url.ok_or_else(|| format!("expected {expected}, that agrees with `scheme: {scheme}`"))
    };
    let url = required(&mut section, "host", expected, parse);
    let token = section.take_filled("token").and_then(|node| node.literal("a token", token));
    let token_file = optional(&mut section, "token_file", "the path of a file with a token");
    if section.is_given("token") && section.is_given("token_file") {
        section.reject("token_file", "there is a `token` as well, remove one of them");
    }
    let datacenter = optional(&mut section, "datacenter", "the name of a datacenter");
    let service = required(&mut section, "service", "the name of a service", service);
    let filter = optional(&mut section, "filter", "an expression such as `\"a\" in Service.Tags`");
    section.close();
    let token_file = token_file.map(|path| Token::InFile(path.into()));
    let token = token.map(Token::Given).or(token_file);
    Some(Consul { url: url?, token, datacenter, service: service?, filter })
}

/// A name that is one step of a URL's path: the two that are refused would climb in it.
fn service(text: &str) -> Result<String, String> {
    let expected = "the name of a service";
    printable(text, expected).and_then(|service| match &*service {
        "." | ".." => Err(format!("expected {expected}")),
        _ => Ok(service),
    })
}

fn consul_scheme(text: &str) -> Result<&'static str, String> {
    match text {
        "http" => Ok("http"),
        "https" => Ok("https"),
        _ => Err(format!("`{text}` is not a scheme, write `http` or `https`")),
    }
}

/// The host may repeat the scheme, and not contradict it. No message repeats the host, which may
/// have a password before it.
fn consul_url(scheme: &str, text: &str) -> Option<Url> {
    let bare = text.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://"));
    let bare = bare.unwrap_or(text);
    let port = bare.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    Url::parse(&format!("{scheme}://{bare}")).ok().filter(|url| {
        let anonymous = url.username().is_empty() && url.password().is_none();
        let whole = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        anonymous && whole && port.is_some_and(|port| port > 0)
    })
}

/// What can stand in a header. The message does not repeat it.
fn token(text: &str) -> Result<Secret, String> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    let expected = || "expected a token of visible ASCII characters".to_owned();
    if plain { Ok(Secret::new(text.to_owned())) } else { Err(expected()) }
}

fn ledger_targets(node: Node) -> Vec<PathBuf> {
    let mut section = node.section();
    let nodes = section.take("paths").map(Node::list).unwrap_or_default();
    if nodes.is_empty() {
        section.reject("paths", "expected at least one directory, such as `/var/lib/solana`");
    } else if nodes.len() > MAX_LEDGERS {
        section.reject("paths", format!("expected at most {MAX_LEDGERS} directories"));
    }
    let mut paths = BTreeSet::new();
    for node in nodes {
        let Some(path) = node.parsed("the path of a directory", ledger) else { continue };
        if let Some(twice) = paths.replace(path) {
            node.reject(format!("`{}` is listed twice, remove one", twice.display()));
        }
    }
    section.close();
    paths.into_iter().collect()
}

/// An absolute path, so that it means the same wherever the process was started. It need not exist
/// yet: a node makes its directories when it starts.
fn ledger(text: &str) -> Result<PathBuf, String> {
    let path: PathBuf = std::path::Path::new(text).components().collect();
    let climbs = path.components().any(|part| part == std::path::Component::ParentDir);
    let printable = !text.contains(|c: char| c.is_control());
    if path.is_absolute() && printable && !climbs {
        return Ok(path);
    }
    Err(format!("`{}` is not an absolute path without `..`", text.escape_debug()))
}

fn dns_targets(section: &mut Section) -> Vec<DnsTargets> {
    let Some(node) = section.take("dns_targets") else { return Vec::new() };
    let nodes = node.list();
    if nodes.is_empty() {
        section.reject("dns_targets", "expected at least one name, such as `- name: node.example`");
    } else if nodes.len() > MAX_DNS_NAMES {
        section.reject("dns_targets", format!("expected at most {MAX_DNS_NAMES} names"));
    }
    nodes.into_iter().filter_map(dns_name).collect()
}

fn dns_name(node: Node) -> Option<DnsTargets> {
    let mut section = node.section();
    let expected = "a domain name, such as `node.example`";
    let name = required(&mut section, "name", expected, domain_name);
    let kind = required(&mut section, "type", "`A`, `AAAA` or `SRV`", |text| match text {
        "A" | "AAAA" | "SRV" => Ok(text.to_owned()),
        _ => Err(format!("expected `A`, `AAAA` or `SRV`, found `{text}`")),
    });
    let port = section.take("port").and_then(|node| node.integer(1, u16::MAX.into()));
    let port = port.and_then(|port| u16::try_from(port).ok());
    let server = section.take_filled("server");
    let server = server.and_then(|node| node.parsed("an address and port", dns_server));
    let records = kind.and_then(|kind| records(&section, &kind, port));
    section.close();
    Some(DnsTargets { name: name?, records: records?, server })
}

/// `port` is `None` as well where it is given and wrong, which was said then.
fn records(section: &Section, kind: &str, port: Option<u16>) -> Option<Records> {
    match (kind, section.is_given("port")) {
        ("SRV", false) => Some(Records::Srv),
        ("SRV", true) => {
            section.reject("port", "`SRV` records have their own ports, remove this one");
            None
        }
        (_, false) => {
            section.reject("port", format!("`{kind}` records have no port, give that of targets"));
            None
        }
        ("A", true) => port.map(Records::A),
        (_, true) => port.map(Records::Aaaa),
    }
}

fn dns_server(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<SocketAddr>().ok().filter(|address| address.port() > 0);
    address.ok_or_else(|| {
        format!("`{text}` is not an address and port, write it like `10.0.0.2:53` or `[::1]:53`")
    })
}

/// A name with or without its last dot. Names of services begin with `_`.
fn domain_name(text: &str) -> Result<String, String> {
    if text.parse::<IpAddr>().is_ok() {
        return Err(format!("`{text}` is an address, list it in `static_targets`"));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let bare = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| (1..=MAX_LABEL).contains(&label.len()) && label.chars().all(plain);
    if bare.len() <= MAX_NAME && bare.split('.').all(is_label) {
        return Ok(text.to_owned());
    }
    Err(format!("`{text}` is not a domain name, write it like `_snapshots._tcp.node.example`"))
}
