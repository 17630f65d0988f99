//! The configuration: one YAML file, read strictly, with every error at once.
//!
//! `file.rs` turns the text into a [`Config`], in which nothing is optional that has a default.
//! `conf/snapedge.yaml` is the reference of all keys; a test holds it to this code.

mod access;
mod cache;
mod clients;
mod file;
mod keys;
mod limits;
mod listen;
mod log;
mod private_url;
mod rpc;
mod scalar;
mod secret;
mod sources;
mod stamp;
mod tree;
pub(crate) mod units;
pub(crate) mod yaml;

#[cfg(test)]
mod tests;

pub use access::{Authorities, Identity, Tls, Verification};
pub use clients::{Auth, OpenRoute};
pub use file::{ConfigError, keys, load, load_text, parse};
pub use limits::Limits;
pub use listen::{Listen, ProxyProtocol, ServerTls};
pub use log::{AccessTo, Log, LogFormat};
pub use private_url::PrivateUrl;
pub(crate) use secret::secret_in;
pub use secret::{Credentials, Kept, Key, Secret};
pub(crate) use sources::MAX_TARGETS;
pub use sources::{Consul, DnsTargets, Records, Sources, Token};
pub use stamp::Stamp;
pub use units::{HostPort, Scheme};
pub use yaml::Problem;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clients::{AccessLists, ClientRules};
use crate::hops::EdgeId;

/// Everything that a running edge is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Public listeners.
    pub listen: Vec<Listen>,
    /// Who is believed what about clients.
    pub clients: ClientRules,
    /// Which clients may ask for what.
    pub access: AccessLists,
    /// Who clients must show to be; anybody may come where unset.
    pub auth: Option<Auth>,
    /// The group that a request is for, by the host name that it is for, in lower case.
    pub hosts: BTreeMap<String, Arc<str>>,
    /// Where the process itself is asked how it is, and told what to do.
    pub internal_listen: InternalListen,
    /// The names under which it is reached there, besides addresses and `localhost`; in lower case.
    pub internal_hosts: BTreeSet<String>,
    /// Base of the URLs in JSON answers, without trailing slash; the request's own scheme and host
    /// where unset.
    pub public_url: Option<String>,
    /// Who this edge is to others before and behind it; made anew at each start where unset.
    pub edge_id: Option<EdgeId>,
    /// The group that answers a short form without `?group=`; the best over all where unset.
    pub default_group: Option<Arc<str>>,
    /// RPC node that is asked for the cluster's slot.
    pub rpc: Option<String>,
    /// Slots that the newest archive may be behind the cluster.
    pub max_snapshot_age: u64,
    /// Slots that an archive may be ahead of what supports it.
    pub max_slot_lead: u64,
    /// How long an old full archive with incrementals is preferred to a newer one without.
    pub pair_hold: Duration,
    /// Time between two probes of one target.
    pub scrape_interval: Duration,
    /// Whether archives are carried or redirected to.
    pub downloads: Downloads,
    /// Where archives are cached; nowhere where unset.
    pub cache_dir: Option<PathBuf>,
    /// How they are cached.
    pub cache: Cache,
    /// What entity tags are made with, where it is given.
    pub etag_secret: Option<Key>,
    /// What clients may ask of RPC nodes; nothing where unset.
    pub rpc_proxy: Option<RpcProxy>,
    /// The entries of groups, in the order of the file. At least one. Those that have one name are
    /// one group, whose targets are reached in several ways; a target that several of them name is
    /// reached as the first one says.
    pub groups: Vec<Group>,
    /// Bounds on time and number.
    pub limits: Limits,
    /// What is logged, and where.
    pub log: Log,
    /// The process.
    pub server: Server,
    /// What it was read from.
    pub source: Source,
}

impl Config {
    /// The keys that another configuration has otherwise and that cannot change while the process
    /// runs, which has the internal listener at `internal`.
    pub fn fixed_keys_that_differ(
        &self,
        other: &Self,
        internal: Option<SocketAddr>,
    ) -> Vec<&'static str> {
        let is_elsewhere = self.internal_listen != other.internal_listen
            && internal != other.internal_listen.address();
        let sorted =
            |listen: &[Listen]| listen.iter().map(|listen| listen.address).collect::<BTreeSet<_>>();
        let keys = [
            ("listen", sorted(&self.listen) != sorted(&other.listen)),
            ("internal_listen", is_elsewhere),
            ("proxy_snapshot_cache_dir", self.cache_dir != other.cache_dir),
            ("server.threads", self.server.threads != other.server.threads),
        ];
        keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }

    /// What is wrong with certificates that clients are shown, with the address of each listener.
    pub fn certificates_out_of_time(&self) -> Vec<String> {
        let of = |listen: &Listen| {
            let identities = listen.tls.iter().flat_map(|tls| &tls.identities);
            let address = listen.address;
            let told = move |message| format!("a certificate of the listener {address} {message}");
            identities.filter_map(Identity::out_of_time).map(told).collect::<Vec<_>>()
        };
        self.listen.iter().flat_map(of).collect()
    }

    /// The directory of the cache, where archives are carried.
    pub fn caches_in(&self) -> Option<&Path> {
        self.cache_dir.as_deref().filter(|_| self.downloads == Downloads::Proxy)
    }

    /// What is fetched before a client asks for it.
    pub fn prefetches(&self) -> Prefetch {
        self.caches_in().map_or(Prefetch::Off, |_| self.cache.prefetch)
    }

    /// The name of each group, once, in the order of the file.
    pub fn group_names(&self) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> = Vec::new();
        for group in &self.groups {
            if !names.contains(&group.name) {
                names.push(Arc::clone(&group.name));
            }
        }
        names
    }
}

/// Where the process itself is asked how it is, and told what to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InternalListen {
    /// At [`InternalListen::DEFAULT`], where that is free.
    #[default]
    Default,
    /// Here.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

impl InternalListen {
    /// Where it is when nobody says where.
    pub const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8457);

    /// The address, where there is to be one.
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Default => Some(Self::DEFAULT),
            Self::At(address) => Some(address),
            Self::Off => None,
        }
    }
}

/// What a request for an archive's name is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Downloads {
    /// The bytes, through this process.
    Proxy,
    /// A redirect to a target.
    Redirect,
}

/// Upstreams of one cluster, or of one region of it, that are reached in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Name of the group. Other entries may add to it.
    pub name: Arc<str>,
    /// How the targets are spoken to.
    pub scheme: Scheme,
    /// How TLS is spoken to them, where it is.
    pub tls: Tls,
    /// Who they are told that asks; nobody where unset.
    pub credentials: Option<Credentials>,
    /// Path before every request to a target: empty, or a leading slash and no trailing one.
    pub api_path: String,
    /// What the targets are.
    pub kind: TargetKind,
    /// How one of several targets is chosen; the same in all entries of the group.
    pub balance: Balance,
    /// Whose word suffices for a slot that nothing else supports.
    pub trusted: Trusted,
    /// Where its targets come from.
    pub sources: Sources,
}

/// Targets whose word suffices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trusted {
    /// All of the group.
    All,
    /// Certain targets, wherever they come from.
    Some(BTreeSet<HostPort>),
}

impl Default for Trusted {
    fn default() -> Self {
        Self::Some(BTreeSet::new())
    }
}

/// How archives are cached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Bytes that stay free on the file system of the directory.
    pub min_free_space: u64,
    /// Most bytes that the cache takes; as many as there is space for where unset.
    pub max_size: Option<u64>,
    /// Who gets an archive while it is being fetched.
    pub sharing: Sharing,
    /// Whether a fill is brought to its end when the process stops; of a shared one.
    pub finish_on_stop: bool,
    /// Whether a fill goes on when no client waits for it any more; of a shared one.
    pub finish_abandoned: bool,
    /// How long a range waits for bytes that a fill has yet to fetch; of a shared one.
    pub range_wait: Duration,
    /// What is fetched before a client asks for it.
    pub prefetch: Prefetch,
    /// Bytes per second that fetching ahead of clients takes at most; any where unset.
    pub prefetch_rate: Option<u64>,
    /// Bytes per second that a fill has to bring on average where others wait to be fetched, and
    /// the time that it has besides.
    pub min_fill_rate: u64,
    /// The time that a fill has besides what `min_fill_rate` gives it.
    pub fill_grace: Duration,
    /// When short names lead to an archive that is new.
    pub publish: Publish,
    /// Whether the generation before the best one stays until that is whole.
    pub keep_previous: bool,
    /// How long an archive is kept for a client that was sent to it.
    pub lease: Duration,
    /// How much of an archive is checked before it is kept.
    pub verify: Verify,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            min_free_space: 1 << 30,
            max_size: None,
            sharing: Sharing::Exclusive,
            finish_on_stop: false,
            finish_abandoned: true,
            range_wait: Duration::from_secs(2),
            prefetch: Prefetch::Off,
            prefetch_rate: None,
            min_fill_rate: 4 << 20,
            fill_grace: Duration::from_secs(60),
            publish: Publish::Seen,
            keep_previous: false,
            lease: Duration::from_secs(30 * 60),
            verify: Verify::Frames,
        }
    }
}

/// Who gets an archive while it is being fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// The request that fetches it; others are served past the cache.
    Exclusive,
    /// Everyone, out of the growing file.
    Shared,
}

/// What is fetched before a client asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefetch {
    /// No archive is fetched ahead.
    Off,
    /// The newest incremental archive of each group.
    Incremental,
    /// The newest full and incremental archive of each group.
    All,
}

/// When short names lead to an archive that is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publish {
    /// As soon as a target lists it.
    Seen,
    /// When it is in the cache, with all of its generation.
    Promoted,
}

/// How much of an archive is checked before it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// The length of the archive.
    Length,
    /// The headers of its zstd frames and blocks as well.
    Frames,
    /// What it decompresses to as well.
    Decode,
}

/// What clients may ask of RPC nodes through this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcProxy {
    /// The methods that are answered.
    pub methods: BTreeSet<Box<str>>,
    /// Most bytes of a request's body.
    pub max_body: usize,
    /// Most calls of one request.
    pub max_batch: usize,
    /// Most calls of one client in a second.
    pub per_client_rate: u32,
}

/// What a target is, and so how it is asked for its archives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetKind {
    /// Found out by asking.
    #[default]
    Auto,
    /// A node: short forms, and archives at `/<name>`.
    Rpc,
    /// A sidecar: `/v1/snapshots`, and archives at `/v1/snapshot/<name>`.
    Sidecar,
}

/// How one of several targets that hold an archive is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// By client address and name: the retries and ranges of one client meet the same copy.
    #[default]
    PerClient,
    /// By name: everyone meets the same copy.
    Pinned,
    /// The target that carries the least for what it can.
    LeastLoaded,
    /// One after the other.
    RoundRobin,
}

/// What a configuration was read from. Those that say the same are equal, however they say it.
#[derive(Clone, Default)]
pub struct Source {
    /// The text of the file.
    pub text: Arc<str>,
    /// The files that it names and whose content is followed, as they were then.
    pub files: BTreeMap<PathBuf, Option<Stamp>>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The text may have passwords.
        f.debug_struct("Source").field("files", &self.files).finish_non_exhaustive()
    }
}

impl PartialEq for Source {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Source {}

/// The process itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Threads that serve clients.
    pub threads: usize,
    /// Whether HTTP/2 is spoken without TLS to clients that begin with it.
    pub h2c: bool,
    /// Time between SIGTERM and the end of accepting, in which readiness is down already.
    pub drain_delay: Duration,
    /// Time that running transfers get after that.
    pub grace_period: Duration,
}
