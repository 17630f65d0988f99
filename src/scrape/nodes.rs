//! The targets that are RPC nodes and answered their last probe, for what only such a node can be
//! asked: JSON-RPC, the genesis archive, and its health.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};

use super::client::{ClientError, Head, Pending, Place, TargetConnection};
use crate::access::Fault;
use crate::error_chain::chain;
use crate::hops::{CdnLoop, EdgeId};
use crate::index::TargetId;
use crate::snapshot::{Compression, framing};

/// Largest answer to a call, in bytes: the list of a cluster's nodes has a few MiB.
const MAX_ANSWER: usize = 16 << 20;
/// Largest genesis archive, in bytes: Agave's client unpacks no more than that.
const MAX_GENESIS: usize = 10 << 20;
/// How it is compressed, whatever else it is labelled with.
const GENESIS: Compression = Compression::Bzip2;
/// Largest answer about health, in bytes: it is a word.
const MAX_HEALTH: usize = 1 << 10;

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
    /// The node has no genesis archive.
    #[error("the node has no genesis archive")]
    NoGenesis,
    /// The question is larger than it takes.
    #[error("the question is larger than the node takes")]
    Question,
    /// The answer is larger than any that is passed on.
    #[error("the answer is larger than {MAX_ANSWER} bytes")]
    Answer,
    /// A file that nobody could tell from a part of it, or from another one.
    #[error("the answer is not a file")]
    NotAFile,
}

/// The nodes of all groups. The lock is held for a look-up or a change of one entry.
#[derive(Debug, Default)]
pub struct Nodes(Mutex<BTreeMap<TargetId, Arc<Node>>>);

impl Nodes {
    /// All nodes, and the targets that they are.
    pub fn all(&self) -> Vec<(TargetId, Arc<Node>)> {
        let nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.iter().map(|(id, node)| (id.clone(), Arc::clone(node))).collect()
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
    pub(super) connection: Arc<TargetConnection>,
    /// The root of the node.
    pub(super) root: Place,
    /// Who it is, where it is an edge.
    pub(super) edge: Option<EdgeId>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node at {}", self.root.url())
    }
}

impl Node {
    /// This node for a request that `came` through others; nothing where it is one of them.
    pub fn after(self: Arc<Self>, came: &CdnLoop) -> Option<Arc<Self>> {
        if !came.is_of_an_edge() {
            return Some(self);
        }
        let is_one = self.edge.as_ref().is_some_and(|edge| came.edges().contains(edge));
        let connection = Arc::new(self.connection.after(came));
        let after = || Self { connection, root: self.root.clone(), edge: self.edge.clone() };
        (!is_one).then(|| Arc::new(after()))
    }

    /// True for an edge, which asks nodes in turn.
    pub fn is_an_edge(&self) -> bool {
        self.edge.is_some()
    }

    /// Asks a question of JSON-RPC. A caller bounds the time, for this and for what is read.
    pub async fn ask(&self, question: Bytes) -> Result<Coming, NodeError> {
        let pending = self.connection.post(&self.root, question).await?;
        match pending.status() {
            // Some nodes answer with these where a call is answered with an error.
            StatusCode::OK | StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => {}
            StatusCode::PAYLOAD_TOO_LARGE => return Err(NodeError::Question),
            status => return Err(NodeError::Status { url: self.root.url(), status }),
        }
        if pending.length().is_some_and(|length| length > MAX_ANSWER as u64) {
            return Err(NodeError::Answer);
        }
        Ok(Coming(pending))
    }

    /// Fetches the genesis archive. A caller bounds the time.
    pub async fn genesis(&self) -> Result<Bytes, NodeError> {
        let place = self.place("genesis.tar.bz2");
        let (Head { status, headers }, body) =
            self.connection.document(&place, MAX_GENESIS).await?;
        match status {
            // Without a length the end of the connection would do for the end of the file.
            StatusCode::OK if body.is_empty() || !headers.contains_key(CONTENT_LENGTH) => {
                Err(NodeError::NotAFile)
            }
            StatusCode::OK if !framing::is_file_itself(&headers, GENESIS) || is_page(&headers) => {
                Err(NodeError::NotAFile)
            }
            StatusCode::OK => Ok(body.into()),
            StatusCode::NOT_FOUND => Err(NodeError::NoGenesis),
            status => Err(NodeError::Status { url: place.url(), status }),
        }
    }

    /// Asks for its word about its health. A caller bounds the time.
    pub async fn health(&self) -> Result<Vec<u8>, NodeError> {
        let place = self.place("health");
        let (head, body) = self.connection.document(&place, MAX_HEALTH).await?;
        match head.status {
            StatusCode::OK => Ok(body),
            status => Err(NodeError::Status { url: place.url(), status }),
        }
    }

    /// A failure for the log. Where it is one of access, it is counted, and the words say what to
    /// do about it.
    pub fn described(&self, error: &NodeError) -> String {
        let access = self.connection.access();
        let fault = match error {
            NodeError::Client(error) => error.fault(),
            NodeError::Status { status, .. } if access.denies(*status) => Some(Fault::Credentials),
            _ => None,
        };
        match fault {
            Some(fault) => {
                access.faults.count(fault);
                format!("{fault}: {}", chain(error))
            }
            None => chain(error),
        }
    }

    fn place(&self, name: &str) -> Place {
        Place { path: format!("{}{name}", self.root.path), ..self.root.clone() }
    }
}

/// An answer to a question, of which the head is there.
pub struct Coming(Pending);

impl Coming {
    /// Reads on until a little more than `most` bytes are there, which is nothing yet, or all.
    pub async fn read(&mut self, most: usize) -> Result<Option<Vec<u8>>, NodeError> {
        Ok(self.0.read(most).await?)
    }

    /// Reads all.
    pub async fn read_all(&mut self) -> Result<Vec<u8>, NodeError> {
        self.read(MAX_ANSWER).await?.ok_or(NodeError::Answer)
    }

    /// The most bytes that it can have.
    pub fn most(&self) -> usize {
        let length = self.0.length().and_then(|length| usize::try_from(length).ok());
        length.unwrap_or(MAX_ANSWER)
    }
}

/// Whether this is a page for people.
fn is_page(headers: &HeaderMap) -> bool {
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    media.is_some_and(|media| media.to_ascii_lowercase().contains("html"))
}
