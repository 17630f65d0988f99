//! From the text of the file to a [`Config`], in one pass that collects every problem.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::access::{credentials, tls};
use super::cache::cache;
use super::clients::{access, auth, client_rules};
use super::keys::{at_least, integer, time};
use super::limits::limits;
use super::listen::{hosts, listen};
use super::log::{Log, log};
use super::rpc::rpc_proxy;
use super::secret::secret_in;
use super::sources::{MAX_TARGETS, Sources, sources, trusted};
use super::units::{HostPort, Scheme, listen_address};
use super::yaml::{self, Node, Problem, Report, Section};
use super::{
    Balance, Cache, Config, Downloads, Group, InternalListen, Key, Limits, ProxyProtocol, Server,
    Sharing, Source, TargetKind,
};
use crate::hops::EdgeId;

/// Largest configuration file, in bytes.
const MAX_FILE: u64 = 4 << 20;
/// Slots that an archive may be ahead of what supports it: nodes make them behind the cluster's
/// slot, and see each other's slots within seconds.
const DEFAULT_SLOT_LEAD: u64 = 1000;
/// Longest name of a host, in bytes.
const MAX_HOST_NAME: usize = 253;
/// Longest name of a group, in bytes.
const MAX_GROUP_NAME: usize = 64;

/// Why there is no configuration.
#[derive(Debug)]
pub enum ConfigError {
    /// The file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file says things that it must not say.
    Invalid {
        /// The file.
        path: PathBuf,
        /// All that is wrong with it.
        problems: Vec<Problem>,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, .. } => {
                write!(f, "cannot read the configuration `{}`", path.display())
            }
            Self::Invalid { path, problems } => {
                let count = problems.len();
                let plural = if count == 1 { "error" } else { "errors" };
                write!(f, "{count} {plural} in the configuration `{}`", path.display())?;
                problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            Self::Invalid { .. } => None,
        }
    }
}

/// Reads and checks the file at `path`.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_FILE {
        let message = format!("the file has {size} bytes, the most is {MAX_FILE}");
        return Err(unreadable(std::io::Error::other(message)));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    load_text(path, &text)
}

/// Checks the text of the file at `path`.
pub fn load_text(path: &Path, text: &str) -> Result<Config, ConfigError> {
    parse(text).map_err(|problems| ConfigError::Invalid { path: path.to_owned(), problems })
}

/// Checks the text of a configuration file. The error holds every problem, never none.
pub fn parse(text: &str) -> Result<Config, Vec<Problem>> {
    let (config, Report { problems, files, .. }) = yaml::read(text, root);
    let config = config.filter(|_| problems.is_empty()).ok_or(problems)?;
    Ok(Config { source: Source { text: text.into(), files }, ..config })
}

/// The path of every key that the configuration can have, list positions written as `[]`.
pub fn keys() -> BTreeSet<String> {
    // One value of every kind that has keys of its own, so that each reader below runs once.
    let everything = "target_groups: [{static_targets: {}, file_targets: {}, http_targets: {}, \
                      consul_sd_config: {}, dns_targets: [{}], tls_config: {}, basic_auth: {}, \
                      bearer_auth: {}, \
                      ledger_targets: {}}]\n\
                      limits: {}\ncache: {}\nrpc_proxy: {}\nlog: {}\nserver: {}\n\
                      listen: [{tls: {certificates: [{}]}}]\n\
                      access: {all: {}, archives: {}, rpc: {}}\n\
                      auth: {basic: {}, bearer: {}}\n";
    yaml::read(everything, root).1.asked.into_iter().collect()
}

fn root(node: Node) -> Config {
    let mut root = node.section();
    let limits = root.take("limits").map_or_else(Limits::default, limits);
    let config = Config {
        listen: listen(&mut root),
        clients: client_rules(&mut root),
        access: root.take("access").map(access).unwrap_or_default(),
        auth: root.take("auth").map(auth),
        hosts: hosts(&mut root, host_name),
        internal_listen: internal_listen(&mut root),
        internal_hosts: internal_hosts(&mut root),
        public_url: root
            .take_filled("public_url")
            .and_then(|node| node.parsed("a URL", public_url)),
        edge_id: root.take_filled("edge_id").and_then(|node| node.parsed("a name", edge_id)),
        default_group: default_group(&mut root),
        rpc: root.take_filled("rpc").and_then(|node| node.parsed("a URL", rpc_url)),
        max_snapshot_age: integer(&mut root, "max_snapshot_age", 0, u64::MAX, 5000),
        max_slot_lead: integer(&mut root, "max_slot_lead", 0, u64::MAX, DEFAULT_SLOT_LEAD),
        pair_hold: time(&mut root, "pair_hold", Duration::ZERO, Duration::from_secs(600)),
        scrape_interval: scrape_interval(&mut root),
        downloads: downloads(&mut root),
        cache_dir: root.take("proxy_snapshot_cache_dir").and_then(|node| cache_dir(&node)),
        cache: root.take("cache").map_or_else(Cache::default, cache),
        etag_secret: etag_secret(&mut root),
        rpc_proxy: root.take("rpc_proxy").and_then(rpc_proxy),
        groups: groups(&mut root),
        limits,
        log: root.take("log").map_or_else(Log::default, log),
        server: server(root.take("server")),
        source: Source::default(),
    };
    judge_listeners(&mut root, &config);
    if let Some(name) = &config.default_group
        && !config.groups.iter().any(|group| group.name == *name)
    {
        root.reject("default_group", format!("there is no group `{name}`"));
    }
    let with_ledgers = |group: &Group| !group.sources.ledger_targets.is_empty();
    if config.downloads == Downloads::Redirect
        && let Some(at) = config.groups.iter().position(with_ledgers)
    {
        let message =
            "nobody can be redirected to a directory, it needs `proxy_snapshot_downloads`";
        root.reject(&format!("target_groups[{at}].ledger_targets"), message);
    }
    let in_cache = |group: &Group| {
        let paths = &group.sources.ledger_targets;
        config.cache_dir.as_ref().is_some_and(|directory| paths.contains(directory))
    };
    if let Some(at) = config.groups.iter().position(in_cache) {
        let message = "one is `proxy_snapshot_cache_dir`, give the cache a directory of its own";
        root.reject(&format!("target_groups[{at}].ledger_targets"), message);
    }
    if config.cache.sharing == Sharing::Shared && !root.is_given("proxy_snapshot_cache_dir") {
        root.reject("cache.sharing", "`shared` needs a directory, add `proxy_snapshot_cache_dir`");
    }
    root.close();
    config
}

/// What listeners and hosts say that the rest contradicts.
fn judge_listeners(root: &mut Section, config: &Config) {
    let is_known = |name: &Arc<str>| config.groups.iter().any(|group| group.name == *name);
    for (at, listen) in config.listen.iter().enumerate() {
        if let Some(name) = listen.group.as_ref().filter(|name| !is_known(name)) {
            root.reject(&format!("listen[{at}].group"), format!("there is no group `{name}`"));
        }
        let speaks = listen.proxy_protocol == ProxyProtocol::Required;
        if speaks && config.clients.trusted.is_empty() {
            let message =
                "is believed of nobody, add `trusted_proxies` with the networks of the proxies";
            root.reject(&format!("listen[{at}].proxy_protocol"), message);
        }
    }
    for (host, name) in config.hosts.iter().filter(|(_, name)| !is_known(name)) {
        root.reject(&format!("hosts.{host}"), format!("there is no group `{name}`"));
    }
}

/// The default group. A group's name may be a number, and is what is written of it.
fn default_group(root: &mut Section) -> Option<Arc<str>> {
    let node = root.take_filled("default_group")?;
    node.literal("a text", |text| Ok(Arc::from(text)))
}

/// As every other time, and in whole seconds where it is a number, as in files of the tracker.
fn scrape_interval(root: &mut Section) -> Duration {
    let bounded = |text: &str| {
        let seconds = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let text = if seconds { format!("{text}s") } else { text.to_owned() };
        at_least(&text, Duration::from_millis(100))
    };
    let node = root.take("scrape_interval");
    let interval = node.and_then(|node| node.parsed("a duration such as `15s`", bounded));
    interval.unwrap_or(Duration::from_secs(15))
}

/// One address, or `off`.
fn internal_listen(root: &mut Section) -> InternalListen {
    let parsed = |text: &str| match text {
        "off" => Ok(InternalListen::Off),
        _ => listen_address(text).map(InternalListen::At),
    };
    let node = root.take_filled("internal_listen");
    node.and_then(|node| node.parsed("an address and port, or `off`", parsed)).unwrap_or_default()
}

/// The names under which the internal listener is reached, in lower case.
fn internal_hosts(root: &mut Section) -> BTreeSet<String> {
    let parsed = |node: Node| node.parsed("a host name", host_name);
    let nodes = root.take("internal_hosts").map(Node::list).unwrap_or_default();
    nodes.into_iter().filter_map(parsed).collect()
}

fn host_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if !text.is_empty() && text.len() <= MAX_HOST_NAME && text.chars().all(plain) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!("`{text}` is no host name, write it like `edge.example`, without a port"))
}

/// A URL with a host and nothing behind it, without its trailing slash.
fn public_url(text: &str) -> Result<String, String> {
    let url = http_url(text)?;
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(format!("`{text}` must end after the host and port"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn edge_id(text: &str) -> Result<EdgeId, String> {
    text.parse().map_err(|error| format!("`{text}` is no name of an edge, {error}"))
}

fn rpc_url(text: &str) -> Result<String, String> {
    http_url(text).map(|url| url.to_string())
}

fn http_url(text: &str) -> Result<url::Url, String> {
    let like = "write it like `http://node.example:8899`";
    let expected = || {
        if text.contains('@') {
            // What may be a password is not repeated.
            format!("it has a name or password, and so is not a URL for this key; {like}")
        } else {
            format!("`{text}` is not a URL, {like}")
        }
    };
    let url = url::Url::parse(text).map_err(|_| expected())?;
    let anonymous = url.username().is_empty() && url.password().is_none();
    let plain = matches!(url.scheme(), "http" | "https") && anonymous;
    if plain && url.has_host() { Ok(url) } else { Err(expected()) }
}

fn downloads(root: &mut Section) -> Downloads {
    match root.take("proxy_snapshot_downloads").and_then(|node| node.boolean()) {
        Some(false) => Downloads::Redirect,
        Some(true) | None => Downloads::Proxy,
    }
}

/// A directory, or a path where one can be made.
fn cache_dir(node: &Node) -> Option<PathBuf> {
    node.parsed("a directory", |text| {
        let path = PathBuf::from(text);
        match path.metadata() {
            _ if text.is_empty() => Err("the path is empty".to_owned()),
            Ok(metadata) if !metadata.is_dir() => Err(format!("`{text}` is not a directory")),
            _ => Ok(path),
        }
    })
}

/// The secret of entity tags, or what the file holds that has it; at most one of the two.
fn etag_secret(root: &mut Section) -> Option<Key> {
    let (here, file) = ("etag_secret", "etag_secret_file");
    let secret = root.take(here).and_then(|node| node.secret(Key::parse));
    let in_file = root
        .take(file)
        .and_then(|node| node.parsed("a path", |text| secret_in(Path::new(text), Key::parse)));
    if root.is_given(here) && root.is_given(file) {
        root.reject(file, format!("contradicts `{here}`, remove one"));
    }
    secret.or(in_file)
}

fn server(node: Option<Node>) -> Server {
    // As many as there were when that was asked first: a machine may have others by now.
    static PROCESSORS: OnceLock<u64> = OnceLock::new();
    let count = || std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let threads = *PROCESSORS.get_or_init(count);
    let (delay, grace) = (Duration::ZERO, Duration::from_secs(300));
    let (threads, drain_delay, grace_period, h2c) = match node.map(Node::section) {
        None => (threads, delay, grace, false),
        Some(mut section) => {
            let threads = integer(&mut section, "threads", 1, 1024, threads);
            let delay = time(&mut section, "drain_delay", Duration::ZERO, delay);
            let grace = time(&mut section, "grace_period", Duration::ZERO, grace);
            let h2c = section.take("h2c").and_then(|node| node.boolean()).unwrap_or(false);
            section.close();
            (threads, delay, grace, h2c)
        }
    };
    Server { threads: usize::try_from(threads).unwrap_or(1), h2c, drain_delay, grace_period }
}

fn groups(root: &mut Section) -> Vec<Group> {
    let nodes = root.take("target_groups").map(Node::list).unwrap_or_default();
    if nodes.is_empty() {
        root.reject("target_groups", "expected at least one group with its targets");
    }
    let mut together = Together::default();
    let mut groups: Vec<Group> = nodes.into_iter().map(|node| group(node, &mut together)).collect();
    for group in &mut groups {
        group.balance = together.balances.get(&group.name).copied().unwrap_or_default();
    }
    groups
}

/// What the entries of one name have in common, by their name.
#[derive(Default)]
struct Together {
    /// Where one of them says it.
    balances: BTreeMap<Arc<str>, Balance>,
    /// The targets that all of them name.
    targets: BTreeMap<Arc<str>, BTreeSet<HostPort>>,
}

impl Together {
    /// Takes in one more entry. What contradicts another one is a problem of this one.
    fn add(&mut self, section: &Section, group: &Group, balance: Option<Balance>) {
        let name = || Arc::clone(&group.name);
        if let Some(balance) = balance
            && *self.balances.entry(name()).or_insert(balance) != balance
        {
            let message = format!("contradicts an entry of group `{}` above", group.name);
            section.reject("balance", message);
        }
        let targets = self.targets.entry(name()).or_default();
        let before = targets.len();
        targets.extend(group.sources.static_targets.iter().cloned());
        if before > 0 && before <= MAX_TARGETS && targets.len() > MAX_TARGETS {
            let message = format!("expected at most {MAX_TARGETS} targets over all its entries");
            section.reject("static_targets.targets", message);
        }
    }
}

fn group(node: Node, together: &mut Together) -> Group {
    let mut section = node.section();
    let stated = match section.take_filled("scheme") {
        Some(node) => node.parsed("a scheme", Scheme::parse),
        None => Some(Scheme::default()),
    };
    let scheme = stated.unwrap_or_default();
    let mut group = Group {
        name: group_name(&mut section),
        scheme,
        tls: tls(&mut section, stated),
        credentials: credentials(&mut section),
        api_path: section
            .take("api_path")
            .and_then(|node| node.parsed("a path", api_path))
            .unwrap_or_default(),
        kind: section
            .take_filled("kind")
            .and_then(|node| node.parsed("a kind", kind))
            .unwrap_or_default(),
        balance: Balance::default(),
        trusted: trusted(&mut section, scheme),
        sources: Sources::default(),
    };
    let stated = section.take_filled("balance");
    let stated = stated.and_then(|node| node.parsed("a way to choose", balance));
    group.sources = sources(&mut section, scheme);
    together.add(&section, &group, stated);
    section.close();
    group
}

fn group_name(section: &mut Section) -> Arc<str> {
    let name =
        section.take("group").and_then(|node| node.literal("a text", |text| Ok(text.to_owned())));
    let name = name.unwrap_or_default();
    if name.is_empty() {
        section.reject("group", "expected a name");
    } else if name.len() > MAX_GROUP_NAME || name.contains(|c: char| c.is_control()) {
        section.reject("group", format!("expected at most {MAX_GROUP_NAME} printable characters"));
    }
    name.into()
}

/// A path below targets: nothing, or an absolute path; a trailing slash is taken off.
fn api_path(text: &str) -> Result<String, String> {
    let path = text.trim_end_matches('/');
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-._~".contains(c);
    if path.is_empty() || (path.starts_with('/') && path.chars().all(plain)) {
        return Ok(path.to_owned());
    }
    Err(format!("`{text}` is not a path, write it like `/mainnet`"))
}

fn kind(text: &str) -> Result<TargetKind, String> {
    match text {
        "auto" => Ok(TargetKind::Auto),
        "rpc" => Ok(TargetKind::Rpc),
        "sidecar" => Ok(TargetKind::Sidecar),
        _ => Err(format!("`{text}` is not a kind, write `auto`, `rpc` or `sidecar`")),
    }
}

fn balance(text: &str) -> Result<Balance, String> {
    match text {
        "per_client" => Ok(Balance::PerClient),
        "pinned" => Ok(Balance::Pinned),
        "least_loaded" => Ok(Balance::LeastLoaded),
        "round_robin" => Ok(Balance::RoundRobin),
        _ => Err(format!(
            "`{text}` is not a way to choose, write `per_client`, `pinned`, `least_loaded` or \
             `round_robin`"
        )),
    }
}
