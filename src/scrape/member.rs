//! One entry of a group in the configuration: a way to some of its targets.

use std::sync::Arc;

use super::client::GroupClient;
use crate::config::Group;

/// An entry of the configuration, and the client that asks its targets.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) group: Arc<Group>,
    pub(super) client: GroupClient,
}

impl Member {
    /// Whether a target is asked in the same way by both, whatever else they name.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let (a, b) = (&self.group, &other.group);
        (a.scheme, &a.api_path, a.kind) == (b.scheme, &b.api_path, b.kind)
            && self.client.is_same(&other.client)
    }
}
