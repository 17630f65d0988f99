//! What is scraped and how, as one configuration has it.

use std::sync::Arc;

use super::client::{Client, ClientError, GroupClient};
use super::member::Member;
use crate::access::Access;
use crate::config::{Config, Group};

/// The plan of the scraper.
pub struct Plan {
    pub(super) config: Config,
    pub(super) members: Vec<Member>,
    /// For the reference node.
    pub(super) client: Client,
    /// For sources of targets, which may be farther away than the targets.
    pub(super) discovery_client: Client,
}

impl Plan {
    /// The plan of a configuration, whose entries have these accesses, in their order. What
    /// `before` has alike is the same.
    pub fn new(
        config: &Config,
        accesses: &[Arc<Access>],
        before: Option<&Self>,
    ) -> Result<Self, ClientError> {
        let connect_timeout = config.limits.connect_timeout;
        let known = |of: fn(&Self) -> &Client, timeout| {
            let client = before.map(of).filter(|client| client.connect_timeout() == timeout);
            client.map_or_else(|| Client::new(timeout), |client| Ok(client.clone()))
        };
        let member = |(group, access): (&Group, &Arc<Access>)| {
            let known = before.and_then(|before| {
                let is_it = |old: &&Member| old.client.is_of(access, connect_timeout);
                before.members.iter().find(is_it)
            });
            let client = match known {
                Some(old) => old.client.clone(),
                None => GroupClient::new(Arc::clone(access), connect_timeout)?,
            };
            Ok(Member { group: Arc::new(group.clone()), client })
        };
        Ok(Self {
            client: known(|plan| &plan.client, connect_timeout)?,
            discovery_client: known(|plan| &plan.discovery_client, config.limits.probe_timeout)?,
            members: config.groups.iter().zip(accesses).map(member).collect::<Result<_, _>>()?,
            config: config.clone(),
        })
    }
}
