//! Who clients are and what they may ask: `trusted_proxies`, `client_address`, `access` and `auth`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::secret::{MAX_FILE, Secret, secret_in, text_in, token};
use super::yaml::{Node, Section};
use crate::clients::{AccessList, AccessLists, ClientAddress, ClientRules, Networks};

/// Largest file of networks: those of all countries are a few megabytes.
const MAX_NETWORKS: u64 = 16 << 20;
/// Mistakes in a file of networks that are told.
const TOLD: usize = 5;
/// Most that a password may cost to check, as the logarithm of rounds: a second of a processor.
const MAX_COST: u32 = 14;

/// What may be asked without credentials where others need some.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpenRoute {
    /// Redirects to the best archives.
    ShortForms,
    /// How the archives are.
    Health,
    /// The lists of archives.
    Json,
}

/// Who clients must show to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// The hash of each user's password, as bcrypt writes it.
    pub users: BTreeMap<String, String>,
    /// The tokens, each of which is enough.
    pub tokens: Vec<Secret>,
    /// What is answered without.
    pub open: BTreeSet<OpenRoute>,
}

/// Reads `trusted_proxies` and `client_address`.
pub(super) fn client_rules(root: &mut Section) -> ClientRules {
    let trusted = networks(root, "trusted_proxies").unwrap_or_default();
    let told_by = root.take_filled("client_address");
    let told_by = told_by.and_then(|node| node.parsed("a word", client_address));
    let told_by = told_by.unwrap_or_default();
    if told_by != ClientAddress::Connection && !root.is_given("trusted_proxies") {
        let message =
            "is believed of nobody, add `trusted_proxies` with the networks of the proxies";
        root.reject("client_address", message);
    }
    ClientRules { trusted, told_by }
}

fn client_address(text: &str) -> Result<ClientAddress, String> {
    match text {
        "connection" => Ok(ClientAddress::Connection),
        "x-forwarded-for" => Ok(ClientAddress::ForwardedFor),
        "forwarded" => Ok(ClientAddress::Forwarded),
        "cf-connecting-ip" => Ok(ClientAddress::ConnectingIp),
        _ => Err(format!(
            "`{text}` tells no address, write `connection`, `x-forwarded-for`, `forwarded` or \
             `cf-connecting-ip`"
        )),
    }
}

/// The networks of a list; nothing where there is none, or an empty one.
fn networks(section: &mut Section, key: &'static str) -> Option<Networks> {
    let nodes = section.take(key)?.list();
    let read = |node: Node| {
        node.parsed("a network", |text| Networks::parse(text).map_err(|error| error.to_string()))
    };
    let is_empty = nodes.is_empty();
    let found = Networks::new(nodes.into_iter().filter_map(read));
    (!is_empty).then_some(found)
}

/// Reads `access`.
pub(super) fn access(node: Node) -> AccessLists {
    let mut section = node.section();
    let mut list = |key| section.take(key).map_or_else(AccessList::default, access_list);
    let (all, archives, rpc) = (list("all"), list("archives"), list("rpc"));
    section.close();
    AccessLists { all, archives, rpc }
}

fn access_list(node: Node) -> AccessList {
    let mut section = node.section();
    let (allow, deny) = (networks(&mut section, "allow"), networks(&mut section, "deny"));
    let mut in_file = |key| section.take_filled(key).and_then(|node| node.file(networks_in));
    let (allow_in, deny_in) = (in_file("allow_file"), in_file("deny_file"));
    section.close();
    let both = |here: Option<Networks>, there: Option<Networks>| match (here, there) {
        (Some(here), Some(there)) => Some(here.and(there)),
        (here, there) => here.or(there),
    };
    AccessList { allow: both(allow, allow_in), deny: both(deny, deny_in).unwrap_or_default() }
}

fn networks_in(path: &Path) -> Result<Networks, String> {
    let name = path.display();
    Networks::read(&text_in(path, MAX_NETWORKS)?).map_err(|bad| {
        let told: Vec<_> =
            bad.iter().take(TOLD).map(|(line, e)| format!("line {line}: {e}")).collect();
        let more = bad.len().saturating_sub(TOLD);
        let more = if more == 0 { String::new() } else { format!("; and {more} more") };
        format!("`{name}`, {}{more}", told.join("; "))
    })
}

/// Reads `auth`.
pub(super) fn auth(node: Node) -> Auth {
    let mut section = node.section();
    let users = section.take_section("basic", &["htpasswd_file"]).map(basic);
    let tokens = section.take_section("bearer", &["token_files"]).map(bearer);
    let open = section.take("open").map(Node::list).unwrap_or_default();
    let open = open.into_iter().filter_map(|node| node.parsed("a word", open_route)).collect();
    if users.is_none() && tokens.is_none() {
        section.reject("", "names nobody who may come, add `basic` or `bearer`");
    }
    section.close();
    Auth { users: users.unwrap_or_default(), tokens: tokens.unwrap_or_default(), open }
}

fn open_route(text: &str) -> Result<OpenRoute, String> {
    match text {
        "short_forms" => Ok(OpenRoute::ShortForms),
        "health" => Ok(OpenRoute::Health),
        "json" => Ok(OpenRoute::Json),
        _ => Err(format!("`{text}` cannot be open, write `short_forms`, `health` or `json`")),
    }
}

fn basic(mut section: Section) -> BTreeMap<String, String> {
    let node = section.take_filled("htpasswd_file");
    if node.is_none() {
        section.reject("htpasswd_file", "expected the path of a file that `htpasswd -B` made");
    }
    section.close();
    node.and_then(|node| node.file(users_in)).unwrap_or_default()
}

fn bearer(mut section: Section) -> Vec<Secret> {
    let nodes = section.take("token_files").map(Node::list).unwrap_or_default();
    if nodes.is_empty() {
        section.reject("token_files", "expected the path of at least one file with a token");
    }
    section.close();
    let read = |node: Node| node.file(|path| secret_in(path, token));
    nodes.into_iter().filter_map(read).collect()
}

/// The users of a file as `htpasswd -B` writes it. What is wrong is told without any hash.
fn users_in(path: &Path) -> Result<BTreeMap<String, String>, String> {
    let name = path.display();
    let text = text_in(path, MAX_FILE)?;
    let mut users = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: &str| format!("line {} of `{name}` {what}", at + 1);
        let (user, hash) = line.split_once(':').ok_or_else(|| wrong("is no `user:hash`"))?;
        let parts: bcrypt::HashParts = hash.parse().map_err(|_| {
            wrong("has a password that is not hashed by bcrypt, make it by `htpasswd -B`")
        })?;
        if parts.get_cost() > MAX_COST {
            let what = format!("costs too much to check, the most is `htpasswd -B -C {MAX_COST}`");
            return Err(wrong(&what));
        }
        if users.insert(user.to_owned(), hash.to_owned()).is_some() {
            return Err(wrong("has a user that is there already, remove one"));
        }
    }
    if users.is_empty() { Err(format!("`{name}` has no users")) } else { Ok(users) }
}
