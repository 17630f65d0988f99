//! `cache.sharing: shared`: the origin is read once, and everyone served from that.

mod ahead;
mod checks;
mod failover;
mod following;
mod keeping;
mod late;
mod load;
mod told;

use tokio::task::JoinHandle;

use super::super::support::body::Content;
use super::super::support::client::{Answer, Ask};
use super::super::support::edge::Edge;
use super::super::support::eventually;
use super::super::support::origin::Origin;
use super::CachedEdge;

/// Frames whose blocks nobody would find a mistake in. More than one block of what is written at
/// once, and no multiple of it.
const FULL: Content = Content::framed(1, 4_500_000);
const INCREMENTAL: Content = Content::framed(2, 100_000);

const COLLAPSED: &str = "snapedge; fwd=miss; collapsed";

/// Settings of the cache, with these besides.
fn settings(directory: &std::path::Path, more: &str) -> String {
    format!(
        "proxy_snapshot_cache_dir: '{}'\ncache: {{sharing: shared, min_free_space: 0B{}{more}}}",
        directory.display(),
        if more.is_empty() { "" } else { ", " }
    )
}

/// An edge that shares what it fetches, with these settings besides.
async fn sharing(more: &str, origins: &[&Origin]) -> CachedEdge {
    let directory = tempfile::tempdir().expect("a directory");
    let edge = Edge::with(&settings(directory.path(), more), origins).await;
    CachedEdge { edge, directory }
}

/// A request under way in a task of its own.
fn spawn(edge: &Edge, ask: Ask) -> JoinHandle<Answer> {
    tokio::spawn(ask.send(edge.address))
}

/// Waits until so many bytes of an archive were fetched.
async fn fetched(cached: &CachedEdge, name: &str, bytes: u64) {
    let path = cached.directory.path().join(super::beside(name, "-part"));
    eventually("some of the archive is fetched", || async {
        path.metadata().is_ok_and(|metadata| metadata.len() >= bytes)
    })
    .await;
}
