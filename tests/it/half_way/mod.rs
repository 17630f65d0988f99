//! Downloads that are half-way when their node dies, and those that are not: who has bytes of a
//! copy is given no others, and nobody else is held to it.

mod behind_one_address;
mod finished;
mod refused;

use std::path::Path;

use tempfile::TempDir;

use super::support::body::Content;
use super::support::client::{Answer, Ask};
use super::support::edge::Edge;
use super::support::origin::{Fault, Origin, Program};
use super::support::{eventually, full, h2};

const LENGTH: u64 = 400_000;
/// What a broken download has.
const HALF: u64 = 150_000;

/// How an edge carries archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Uncached,
    Exclusive,
    Shared,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Uncached, Self::Exclusive, Self::Shared];

    fn settings(self, directory: &Path) -> String {
        let sharing = match self {
            Self::Uncached => return String::new(),
            Self::Exclusive => "exclusive",
            Self::Shared => "shared",
        };
        format!(
            "proxy_snapshot_cache_dir: '{}'\n\
             cache: {{sharing: {sharing}, min_free_space: 0B, verify: length}}",
            directory.display()
        )
    }
}

/// One archive in two copies, on a node each, and the edge before them.
struct Scene {
    edge: Edge,
    nodes: [Origin; 2],
    name: String,
    _directory: TempDir,
}

impl Scene {
    /// The archive is the best one, which is cached where there is a cache.
    async fn new(mode: Mode, memory: &str) -> Self {
        Self::with(mode, memory, "").await
    }

    async fn with(mode: Mode, memory: &str, extra: &str) -> Self {
        let (name, directory) = (full(1000), tempfile::tempdir().expect("a directory"));
        let nodes = [
            Origin::run(Program::Sidecar, &[(&name, content(0))]).await,
            Origin::run(Program::Sidecar, &[(&name, content(1))]).await,
        ];
        let settings = format!("{}\n{extra}", mode.settings(directory.path()));
        let limits = format!("resume_memory: {memory}");
        let edge = Edge::limited(&limits, &settings, &[&nodes[0], &nodes[1]]).await;
        Self { edge, nodes, name, _directory: directory }
    }

    fn get(&self, client: u8) -> Ask {
        Ask::get(format!("/{}", self.name)).from(client)
    }

    async fn part(&self, client: u8, range: &str) -> Answer {
        self.edge.ask(self.get(client).with("range", format!("bytes={range}"))).await
    }

    /// A download that breaks off with its node after [`HALF`] bytes; which node that was. The node
    /// refuses everything from then on, and is still listed.
    async fn break_off(&self, client: u8) -> usize {
        for node in &self.nodes {
            node.fail(Fault::CloseAfter(HALF));
        }
        let half = self.edge.ask(self.get(client)).await;
        assert_eq!((half.status, half.body.len() as u64), (200, HALF), "{}", half.head);
        let own = whose(&half.body, 0);
        self.nodes.iter().for_each(|node| node.fail(None));
        self.nodes[own].stop().await;
        own
    }

    /// Waits until nobody would find the archive at a node any more.
    async fn forget(&self, node: usize) {
        self.nodes[node].remove(&self.name);
        let name = self.name.parse().expect("valid");
        self.edge.sees("the node is forgotten", |view| view.sources(&name).len() == 1).await;
    }
}

fn content(node: usize) -> Content {
    Content::new(node as u64 + 1, LENGTH)
}

/// Of which node's copy these bytes are; panics for a mixture.
#[track_caller]
fn whose(bytes: &[u8], at: u64) -> usize {
    let end = at + bytes.len() as u64;
    let own = (0..2).find(|node| content(*node).bytes(at, end) == bytes);
    own.expect("one node's bytes")
}

/// A range over HTTP/2, from this host's address.
async fn part_over_h2(scene: &Scene, range: &str) -> (u16, Vec<u8>) {
    let ask = Ask::get(format!("/{}", scene.name)).with("range", format!("bytes={range}"));
    let answer = h2::send(ask, scene.edge.address).await;
    (answer.status, answer.body)
}
