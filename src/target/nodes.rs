//! The targets that are RPC nodes and answered their last probe, for what only such a node can be
//! asked: JSON-RPC and the genesis archive.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};

use super::client::{ClientError, Head, Line, Place};
use crate::index::TargetId;

/// Largest answer to a call, in bytes: the list of a cluster's nodes has a few MiB.
const MAX_ANSWER: usize = 16 << 20;
/// Largest genesis archive, in bytes: Agave's client unpacks no more than that.
const MAX_GENESIS: usize = 10 << 20;

/// Why a node did not deliver.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// No answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Another status than 200.
    #[error("`{url}` answered status {status}")]
    Status {
        /// What was asked.
        url: String,
        /// The answer.
        status: StatusCode,
    },
    /// It has no genesis archive.
    #[error("the node has no genesis archive")]
    NoGenesis,
    /// A file that nobody could tell from a part of it, or from another one.
    #[error("the answer is not a file")]
    NotAFile,
}

/// The nodes of all groups. The lock is held for a look-up or a change of one entry.
#[derive(Debug, Default)]
pub struct Nodes(Mutex<BTreeMap<TargetId, Arc<Node>>>);

impl Nodes {
    /// Those of one group, of all for `None`.
    pub fn of(&self, group: Option<&str>) -> Vec<(TargetId, Arc<Node>)> {
        let nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_group = nodes.iter().filter(|(id, _)| group.is_none_or(|name| name == &*id.group));
        of_group.map(|(id, node)| (id.clone(), Arc::clone(node))).collect()
    }

    /// The place of one target, which is empty at first.
    pub(super) fn place(self: &Arc<Self>, target: TargetId) -> NodePlace {
        NodePlace { nodes: Arc::clone(self), target }
    }

    fn set(&self, target: &TargetId, node: Option<Node>) {
        let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match node {
            Some(node) => nodes.insert(target.clone(), Arc::new(node)),
            None => nodes.remove(target),
        };
    }
}

/// The place of one target among the nodes. It is emptied when its owner ends, by whatever.
pub(super) struct NodePlace {
    nodes: Arc<Nodes>,
    target: TargetId,
}

impl NodePlace {
    /// Says what the last probe found.
    pub(super) fn set(&self, node: Option<Node>) {
        self.nodes.set(&self.target, node);
    }
}

impl Drop for NodePlace {
    fn drop(&mut self) {
        self.set(None);
    }
}

/// The way to one node.
pub struct Node {
    pub(super) line: Arc<Line>,
    /// Its root.
    pub(super) root: Place,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node at {}", self.root.url())
    }
}

impl Node {
    /// Asks a question of JSON-RPC and reads the answer. A caller bounds the time.
    pub async fn ask(&self, question: Bytes) -> Result<Vec<u8>, NodeError> {
        let (head, body) = self.line.post(&self.root, question, MAX_ANSWER).await?;
        match head.status {
            StatusCode::OK => Ok(body),
            status => Err(NodeError::Status { url: self.root.url(), status }),
        }
    }

    /// Fetches the genesis archive. A caller bounds the time.
    pub async fn genesis(&self) -> Result<Bytes, NodeError> {
        let path = format!("{}genesis.tar.bz2", self.root.path);
        let place = Place { path, ..self.root.clone() };
        let (Head { status, headers }, body) = self.line.document(&place, MAX_GENESIS).await?;
        match status {
            // Without a length the end of the connection would do for the end of the file.
            StatusCode::OK if body.is_empty() || !headers.contains_key(CONTENT_LENGTH) => {
                Err(NodeError::NotAFile)
            }
            StatusCode::OK if headers.contains_key(CONTENT_ENCODING) => Err(NodeError::NotAFile),
            StatusCode::OK => Ok(body.into()),
            StatusCode::NOT_FOUND => Err(NodeError::NoGenesis),
            status => Err(NodeError::Status { url: place.url(), status }),
        }
    }
}
