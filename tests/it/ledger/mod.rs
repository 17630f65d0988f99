//! `ledger_targets`: real directories of real files, before an edge in this process.

mod changing;
mod entries;
mod log;
mod network;
mod serving;
mod unfinished;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::support::body::Content;
use super::support::client::{Answer, Ask, Ended};
use super::support::edge::{Edge, QUICK};
use super::support::origin::Origin;
use super::support::{PATIENCE, eventually};

const LENT: &str = "snapedge; hit; detail=ledger";
/// More than sockets keep on the way, so that a client that does not read holds the edge up.
const LARGE: Content = Content::framed(9, 48 << 20);

/// A directory of archives that goes away.
struct Shelf(TempDir);

impl Shelf {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes an archive as a node does: under another name, which is then changed.
    fn put(&self, name: &str, content: Content) {
        put(self.path(), name, content);
    }

    fn take(&self, name: &str) {
        std::fs::remove_file(self.at(name)).expect("removed");
    }
}

fn put(directory: &Path, name: &str, content: Content) {
    let unfinished = directory.join(format!("tmp-{name}"));
    std::fs::write(&unfinished, content.all()).expect("written");
    std::fs::rename(unfinished, directory.join(name)).expect("renamed");
}

/// A configuration with one group of these directories and origins.
fn config(settings: &str, directories: &[&Path], origins: &[&Origin]) -> String {
    let paths: Vec<String> =
        directories.iter().map(|path| format!("'{}'", path.display())).collect();
    let targets: Vec<String> =
        origins.iter().map(|origin| format!("'{}'", origin.address())).collect();
    let network = if targets.is_empty() {
        String::new()
    } else {
        format!("static_targets: {{targets: [{}]}}, ", targets.join(", "))
    };
    format!(
        "{settings}\ntarget_groups:\n  - {{group: a, {network}ledger_targets: {{paths: [{}]}}}}\n",
        paths.join(", ")
    )
}

/// Settings under which a directory is listed once, when the edge starts: what happens after that
/// is met by requests alone.
const LISTED_ONCE: &str = "listen: ['127.0.0.1:0']\nscrape_interval: 1h\n\
    limits: {connect_timeout: 500ms, read_timeout: 700ms}\n";

/// An edge on one directory, once it knows that these are there.
async fn edge(settings: &str, shelf: &Shelf, names: &[&str]) -> Edge {
    let edge = Edge::start(&config(settings, &[shelf.path()], &[]));
    for name in names {
        lists(&edge, name, shelf.path()).await;
    }
    edge
}

/// Waits until the index lists an archive in a directory.
async fn lists(edge: &Edge, name: &str, directory: &Path) {
    let (archive, path) = (name.parse().expect("a name"), directory.display().to_string());
    edge.sees(&format!("{name} in {path}"), |view| {
        view.sources(&archive).iter().any(|source| *source.target.authority == *path)
    })
    .await;
}

/// Waits until nobody lists an archive any more.
async fn forgets(edge: &Edge, name: &str) {
    let archive = name.parse().expect("a name");
    edge.sees(&format!("no {name}"), |view| view.sources(&archive).is_empty()).await;
}

fn get(name: &str) -> Ask {
    Ask::get(format!("/{name}"))
}

fn head(name: &str) -> Ask {
    Ask::head(format!("/{name}"))
}

#[track_caller]
fn assert_whole(answer: &Answer, content: Content) {
    assert_eq!((answer.status, answer.ended), (200, Ended::Whole), "{}", answer.head);
    assert!(answer.body == content.all(), "other bytes: {}", answer.head);
    assert_eq!(answer.header("cache-status"), Some(LENT), "{}", answer.head);
}

/// Reads what is left of an answer.
async fn rest(answer: &mut Answer, stream: &mut TcpStream) {
    let expected = usize::try_from(answer.length()).expect("small");
    let read = async {
        while answer.body.len() < expected {
            match stream.read_buf(&mut answer.body).await {
                Ok(0) | Err(_) => return Ended::Short,
                Ok(_) => {}
            }
        }
        Ended::Whole
    };
    answer.ended = tokio::time::timeout(PATIENCE, read).await.expect("an end in time");
}
