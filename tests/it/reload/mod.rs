//! Another configuration while the process runs: what comes after follows it, and what is under way
//! goes on.

mod access;
mod again;
mod bounds;
mod files;
mod groups;
mod internal;
mod observing;
mod rules;

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::support::body::Content;
use super::support::client::{Answer, Ask};
use super::support::edge::{Edge, QUICK};
use super::support::origin::Origin;

const BODY: Content = Content::framed(1, 24 << 20);

/// A group of these targets, with further keys.
fn group(name: &str, origins: &[&Origin], more: &str) -> String {
    let targets: Vec<String> =
        origins.iter().map(|origin| format!("'{}'", origin.address())).collect();
    let targets = targets.join(", ");
    format!("  - {{group: {name}, static_targets: {{targets: [{targets}]}}, {more}}}\n")
}

/// A configuration of an edge in this process, with further keys, a line each.
fn config(extra: &str, groups: &[String]) -> String {
    let mut text = format!("{QUICK}{extra}\ntarget_groups:\n");
    write!(text, "{}", groups.concat()).expect("text");
    text
}

/// The same with more below `limits`.
fn limited(limits: &str, extra: &str, groups: &[String]) -> String {
    config(extra, groups).replacen("limits: {", &format!("limits: {{{limits}, "), 1)
}

/// Keys of a cache in this directory.
fn cached(directory: &Path, sharing: &str) -> String {
    format!(
        "proxy_snapshot_cache_dir: '{}'\ncache: {{sharing: {sharing}, min_free_space: 0B}}",
        directory.display()
    )
}

/// Whether an archive comes out of the cache.
async fn is_hit(edge: &Edge, name: &str) -> bool {
    let head = edge.ask(Ask::head(format!("/{name}"))).await;
    head.header("cache-status") == Some("snapedge; hit")
}

/// A download that was begun, of which so much has come.
struct Download {
    stream: TcpStream,
    body: Vec<u8>,
    length: u64,
}

impl Download {
    async fn begin(ask: &Ask, to: SocketAddr) -> Self {
        let (head, stream) = ask.begin(to).await;
        assert_eq!(head.status, 200, "{}", head.head);
        Self { stream, length: head.length(), body: head.body }
    }

    /// Reads it to its end, which is that of the archive.
    async fn finish(mut self) {
        let left = self.length - self.body.len() as u64;
        (&mut self.stream).take(left).read_to_end(&mut self.body).await.expect("readable");
        assert_eq!(self.body.len() as u64, self.length, "all of it came");
        assert!(BODY.matches(0, &self.body), "and no other byte");
    }
}

/// The end of a path that a redirect leads to.
fn leads_to(answer: &Answer) -> &str {
    let location = answer.header("location").unwrap_or_default();
    location.rsplit('/').next().unwrap_or_default()
}
