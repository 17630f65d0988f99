//! The archive cache, over real sockets and on a real disk.

mod copies;
mod faults;
mod rules;

use std::path::Path;

use tempfile::TempDir;

use super::support::body::Content;
use super::support::client::{Answer, Ask, Ended};
use super::support::edge::Edge;
use super::support::eventually;
use super::support::origin::Origin;

/// An edge with a cache in a directory that goes away.
struct CachedEdge {
    edge: Edge,
    directory: TempDir,
}

impl CachedEdge {
    async fn before(origins: &[&Origin]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let edge = Edge::with(&settings(directory.path()), origins).await;
        Self { edge, directory }
    }

    /// Names of the files in the directory, but for the lock.
    fn files(&self) -> Vec<String> {
        files(self.directory.path())
    }

    /// Waits until an archive is served from the cache, and from nowhere else.
    async fn holds(&self, name: &str) {
        eventually("the archive is cached", || async {
            status(&self.edge.ask(Ask::head(format!("/{name}"))).await) == "snapedge; hit"
        })
        .await;
    }

    /// Waits until nothing is being fetched.
    async fn is_idle(&self) {
        eventually("nothing is unfinished", || async {
            !self.files().iter().any(|file| file.ends_with("-part") || file.ends_with("-new"))
        })
        .await;
    }

    /// Fetches an archive until it is cached; each answer must be all of `content`.
    async fn fill(&self, name: &str, content: Content) {
        let answer = self.edge.get(&format!("/{name}")).await;
        assert_whole(&answer, content);
        self.holds(name).await;
    }
}

/// The part of a configuration that switches the cache on.
fn settings(directory: &Path) -> String {
    format!("proxy_snapshot_cache_dir: '{}'\ncache: {{min_free_space: 0B}}", directory.display())
}

/// Names of the files of a cache's directory, but for the lock, in order.
fn files(directory: &Path) -> Vec<String> {
    let entries = directory.read_dir().expect("a directory");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.expect("an entry").file_name().into_string().expect("text")
    };
    let mut names: Vec<String> = entries.map(name).filter(|name| name != "snapedge.lock").collect();
    names.sort();
    names
}

fn status(answer: &Answer) -> &str {
    answer.header("cache-status").unwrap_or_default()
}

#[track_caller]
fn assert_whole(answer: &Answer, content: Content) {
    assert_eq!((answer.status, answer.ended), (200, Ended::Whole), "{}", answer.head);
    assert!(answer.body == content.all(), "other bytes: {}", answer.head);
}
