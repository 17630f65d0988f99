//! What follows from one configuration, replaced as a whole while the process runs.
//!
//! Whoever serves a request or fetches an archive takes it when that begins and keeps it to its
//! end. What outlasts a configuration (transfers that are counted, archives, what is known of
//! targets) is not here, and is told of a new one by the composition root.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use crate::clients::AccessList;
use crate::config::{Balance, Config, Group};
use crate::hops::EdgeId;
use crate::route::plan::CachePolicy;
use crate::route::{Keys, Settings};

/// What follows from a configuration.
#[derive(Clone, Debug)]
pub struct Configured {
    /// The configuration.
    pub config: Config,
    /// The part of it that decides about requests.
    pub settings: Settings,
    /// How archives are cached, for those who plan.
    pub policy: CachePolicy,
    /// What entity tags and choices are made with.
    pub keys: Keys,
    /// Who this edge is to others.
    pub edge: EdgeId,
    balances: HashMap<Arc<str>, Balance>,
}

/// What is configured at the moment. Reading takes no lock.
#[derive(Debug)]
pub struct Live {
    current: ArcSwap<Configured>,
    /// How often it was replaced; for those who do something about it.
    count: watch::Sender<u64>,
}

impl Configured {
    /// What follows from this configuration.
    pub fn new(config: Config, keys: Keys, edge: EdgeId) -> Self {
        let balance = |group: &Group| (Arc::clone(&group.name), group.balance);
        Self {
            settings: Settings::of(&config),
            policy: CachePolicy {
                sharing: config.cache.sharing,
                keeps: config.cache.keep_previous,
            },
            balances: config.groups.iter().map(balance).collect(),
            keys,
            edge,
            config,
        }
    }

    /// Whether everybody may have what one client is sent, as far as a cache in front can tell.
    ///
    /// Who shows a certificate to TLS may be such a cache, and keep for others what it gets. What
    /// all may have but those who are denied it is no secret.
    pub fn is_for_all(&self) -> bool {
        let Config { auth, access, .. } = &self.config;
        let is_open = |list: &AccessList| list.allow.is_none();
        auth.is_none() && is_open(&access.all) && is_open(&access.archives)
    }

    /// How one of several targets of a group is chosen.
    pub fn balance(&self, group: &str) -> Balance {
        self.balances.get(group).copied().unwrap_or_default()
    }
}

impl Live {
    /// Begins with this.
    pub fn new(configured: Configured) -> Self {
        Self { current: ArcSwap::from_pointee(configured), count: watch::Sender::new(0) }
    }

    /// What is configured, to be held for no longer than one decision.
    pub fn load(&self) -> Guard<Arc<Configured>> {
        self.current.load()
    }

    /// What is configured, to be kept.
    pub fn load_full(&self) -> Arc<Configured> {
        self.current.load_full()
    }

    /// Has what begins from now on follow from this.
    pub fn store(&self, configured: Configured) {
        self.current.store(Arc::new(configured));
        self.count.send_modify(|count| *count += 1);
    }

    /// A number that grows with each of them. Who sees it grow and loads then has what came then,
    /// or after it.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }
}
