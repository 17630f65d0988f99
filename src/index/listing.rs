//! Targets and the archives that they list: the nouns of the index.

use std::fmt;
use std::hash::Hasher;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use siphasher::sip::SipHasher13;

use crate::clock::Now;
use crate::hops::Via;
use crate::snapshot::ArchiveName;

/// One upstream in one group.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId {
    /// Name of the group.
    pub group: Arc<str>,
    /// `host:port` as configured or discovered, or the absolute path of a ledger: no host begins
    /// with a slash. It is for the log and for hashes, and shown to no client where it is a path.
    pub authority: Arc<str>,
}

impl TargetId {
    /// The local directory of archives at this absolute path.
    pub fn ledger(group: Arc<str>, path: &str) -> Self {
        debug_assert!(path.starts_with('/'), "{path} is not absolute");
        Self { group, authority: path.into() }
    }

    /// True for a local directory, from which nothing can be asked over the network.
    pub fn is_ledger(&self) -> bool {
        self.authority.starts_with('/')
    }
}

impl fmt::Debug for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in `{}`", self.authority, self.group)
    }
}

/// The key of an access to targets, which outlives changes of it. Whoever made the access can tell
/// whether anybody still has its key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessKey(Arc<u64>);

impl AccessKey {
    /// The key of this number.
    pub fn new(number: u64) -> Self {
        Self(Arc::new(number))
    }

    /// The number, which no other key has.
    pub fn number(&self) -> u64 {
        *self.0
    }

    /// Whether this is the only one there is.
    pub fn is_only(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

/// Where the bytes of a source are: what to connect to and what to ask there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Scheme of its URL.
    pub scheme: &'static str,
    /// The address that the probe spoke to, so that a download meets the same machine.
    pub address: SocketAddr,
    /// `host:port` for the `host` header.
    pub authority: Arc<str>,
    /// Absolute path of the archive there.
    pub path: String,
    /// Which access leads there.
    pub access: AccessKey,
    /// The edges that it comes through from there.
    pub via: Via,
}

impl Location {
    /// The absolute URL.
    pub fn url(&self) -> String {
        format!("{}://{}{}", self.scheme, self.authority, self.path)
    }
}

/// One archive as one target lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The name of the archive.
    pub name: ArchiveName,
    /// Bytes, where the target tells.
    pub size: Option<u64>,
    /// Time of the last change, where the target tells.
    pub modified: Option<SystemTime>,
    /// What the target calls this copy, where it was asked for it and tells.
    pub tag: Option<Tag>,
    /// Where to ask for it; nowhere where only the cache or a ledger has it.
    pub location: Option<Location>,
}

/// What a target itself calls its copy, by an entity tag; only to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(u64);

impl Tag {
    /// The tag that an `etag` header tells. A weak one will do: of two that differ, so do the
    /// copies.
    pub fn new(value: &[u8]) -> Self {
        let mut hasher = SipHasher13::new();
        hasher.write(value);
        Self(hasher.finish())
    }
}

/// An archive that the cache holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The name of the archive.
    pub name: ArchiveName,
    /// The target that it is a copy of, which need not be there any more.
    pub target: TargetId,
    /// Bytes.
    pub size: u64,
    /// Time of the last change, where the target told.
    pub modified: Option<SystemTime>,
    /// Since when this process has it.
    pub since: Now,
    /// How long it was complete before that.
    pub age: Duration,
}
