//! Targets that say what is not so, among others that do not.

mod ahead;
mod cached;
mod undelivered;

use std::fs;
use std::path::PathBuf;

use super::support::body::Content;
use super::support::client::{Answer, Ask};
use super::support::edge::Edge;
use super::support::eventually;
use super::support::origin::{Origin, Program};

/// Frames whose blocks nobody would find a mistake in.
const FULL: Content = Content::framed(1, 300_000);
const INCREMENTAL: Content = Content::framed(2, 50_000);
const LIE: Content = Content::framed(3, 200_000);

const FULL_FORM: &str = "/snapshot.tar.bz2";
const INCREMENTAL_FORM: &str = "/incremental-snapshot.tar.bz2";

/// An origin with these archives, incremental ones being shorter.
async fn origin(names: &[&str]) -> Origin {
    let content = |name: &&str| if name.starts_with('i') { INCREMENTAL } else { FULL };
    let archives: Vec<(&str, Content)> = names.iter().map(|name| (*name, content(name))).collect();
    Origin::run(Program::Sidecar, &archives).await
}

async fn liar(names: &[&str]) -> Origin {
    let archives: Vec<(&str, Content)> = names.iter().map(|name| (*name, LIE)).collect();
    Origin::run(Program::Sidecar, &archives).await
}

/// A file of targets that changes.
struct Targets {
    directory: tempfile::TempDir,
}

impl Targets {
    fn of(origins: &[&Origin]) -> Self {
        let targets = Self { directory: tempfile::tempdir().expect("a directory") };
        targets.are(origins);
        targets
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("targets.txt")
    }

    fn are(&self, origins: &[&Origin]) {
        let lines: Vec<String> =
            origins.iter().map(|origin| origin.address().to_string()).collect();
        let new = self.directory.path().join("new");
        fs::write(&new, lines.join("\n")).expect("written");
        fs::rename(new, self.path()).expect("renamed");
    }

    /// A configuration with them, and more.
    fn config(&self, extra: &str) -> String {
        format!("listen: ['127.0.0.1:0']\n{}", self.config_of_process(extra))
    }

    fn config_of_process(&self, extra: &str) -> String {
        format!(
            "scrape_interval: 100ms\npair_hold: 1h\n\
             limits: {{connect_timeout: 500ms, read_timeout: 700ms, probe_timeout: 1s}}\n{extra}\n\
             target_groups: [{{group: a, file_targets: {{path: '{}'}}}}]\n",
            self.path().display()
        )
    }
}

/// The archive that a short name leads to.
async fn location(edge: &Edge, path: &str) -> Option<String> {
    let answer = edge.ask(Ask::head(path)).await;
    answer.header("location")?.rsplit('/').next().map(str::to_owned)
}

/// Waits until the short names lead to this pair.
async fn offers(edge: &Edge, full: &str, incremental: Option<&str>) {
    eventually(&format!("{full} and {incremental:?} are offered"), || async {
        location(edge, FULL_FORM).await.as_deref() == Some(full)
            && location(edge, INCREMENTAL_FORM).await.as_deref() == incremental
    })
    .await;
}

/// Nothing that is recommended names the archive.
async fn assert_unnamed(edge: &Edge, name: &str) {
    let paths = ["/v1/best_snapshots?max=25", "/v1/snapshots", FULL_FORM, INCREMENTAL_FORM];
    for path in paths {
        for path in [path.to_owned(), format!("{path}{}group=a", separator(path))] {
            let Answer { head, body, .. } = edge.get(&path).await;
            let text = format!("{head}{}", String::from_utf8_lossy(&body));
            assert!(!text.contains(name), "{path}: {text}");
        }
    }
}

fn separator(path: &str) -> char {
    if path.contains('?') { '&' } else { '?' }
}

/// `MaxSnapshot` of `/v1/health`.
async fn newest(edge: &Edge) -> u64 {
    let body: serde_json::Value =
        serde_json::from_slice(&edge.get("/v1/health").await.body).expect("JSON");
    body["MaxSnapshot"].as_u64().expect("a slot")
}
