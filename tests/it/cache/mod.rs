//! The archive cache, over real sockets and on a real disk.

mod copies;
mod crash;
mod faults;
mod hits;
mod load;
mod renewed;
mod rules;
mod shared;
mod turns;

use std::path::Path;

use tempfile::TempDir;

use super::support::body::Content;
use super::support::client::{Answer, Ask, Ended};
use super::support::edge::Edge;
use super::support::eventually;
use super::support::origin::Origin;

const HIT: &str = "snapedge; hit";
const STORED: &str = "snapedge; fwd=miss; stored";

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

    /// The same with more below `limits`.
    async fn limited(limits: &str, origins: &[&Origin]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let edge = Edge::limited(limits, &settings(directory.path()), origins).await;
        Self { edge, directory }
    }

    /// Names of the files in the directory, but for the lock and the secret.
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

    /// Fetches an archive until it is cached; each answer must be all of `content`. Once is enough
    /// where the disk is not busy with something else, for which a fill is given up.
    async fn fill(&self, name: &str, content: Content) {
        eventually("the archive is cached", || async {
            let answer = self.edge.ask(get(name)).await;
            assert_whole(&answer, content);
            self.is_idle().await;
            status(&self.edge.ask(head(name)).await) == HIT
        })
        .await;
    }
}

impl CachedEdge {
    /// Asks for an archive until it is served from the cache; each answer must be all of `content`.
    /// The first one need not fill: what was broken off before may still be being cleared away.
    async fn refill(&self, name: &str, content: Content) {
        eventually("the archive is cached again", || async {
            let answer = self.edge.ask(get(name)).await;
            assert_whole(&answer, content);
            status(&answer) == HIT
        })
        .await;
    }
}

fn get(name: &str) -> Ask {
    Ask::get(format!("/{name}"))
}

fn head(name: &str) -> Ask {
    Ask::head(format!("/{name}"))
}

fn bypass(detail: &str) -> String {
    format!("snapedge; fwd=bypass; detail={detail}")
}

/// The part of a configuration that switches the cache on. Bodies here are no archives.
fn settings(directory: &Path) -> String {
    format!(
        "proxy_snapshot_cache_dir: '{}'\ncache: {{min_free_space: 0B, verify: length}}",
        directory.display()
    )
}

/// Names of the files of a cache's directory, but for the lock and the secret, in order.
pub fn files(directory: &Path) -> Vec<String> {
    let entries = directory.read_dir().expect("a directory");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.expect("an entry").file_name().into_string().expect("text")
    };
    let is_kept = |name: &String| name == "snapedge.lock" || name == "snapedge.secret";
    let mut names: Vec<String> = entries.map(name).filter(|name| !is_kept(name)).collect();
    names.sort();
    names
}

/// The configuration of a process with one target and a cache.
fn process(directory: &Path, min_free_space: &str, origin: &Origin) -> String {
    format!(
        "scrape_interval: 100ms\nproxy_snapshot_cache_dir: '{}'\n\
         cache: {{min_free_space: {min_free_space}, verify: length}}\n\
         target_groups: [{{group: a, static_targets: {{targets: ['{}']}}}}]\n",
        directory.display(),
        origin.address()
    )
}

/// Name of a file that belongs to an archive.
fn beside(name: &str, suffix: &str) -> String {
    format!("{name}.snapedge{suffix}")
}

/// What is in the directory of an archive that is complete.
fn pair(name: &str) -> Vec<String> {
    vec![name.to_owned(), beside(name, "")]
}

/// The file under the archive's name has these bytes.
#[track_caller]
fn assert_on_disk(directory: &Path, name: &str, content: Content) {
    let bytes = std::fs::read(directory.join(name)).expect("an archive");
    assert!(bytes == content.all(), "the file of {name} has other bytes");
}

fn status(answer: &Answer) -> &str {
    answer.header("cache-status").unwrap_or_default()
}

#[track_caller]
fn assert_whole(answer: &Answer, content: Content) {
    assert_eq!((answer.status, answer.ended), (200, Ended::Whole), "{}", answer.head);
    assert!(answer.body == content.all(), "other bytes: {}", answer.head);
}
