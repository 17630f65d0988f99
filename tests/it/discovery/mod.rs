//! How the targets of a group are found: every kind of source, with a failure in the middle.

mod consul;
mod dns;
mod entries;
mod file;
mod http;
mod log;
mod merged;

use snapedge::scrape::SourceKind;

use super::support::body::Content;
use super::support::client::Ask;
use super::support::edge::Edge;
use super::support::origin::{Fault, Origin, Program};
use super::support::{eventually, full};

const SMALL: Content = Content::new(1, 1000);

/// An origin with one archive, of this slot.
async fn origin(slot: u64) -> Origin {
    Origin::run(Program::Sidecar, &[(&full(slot), SMALL)]).await
}

/// A configuration with one group, `a`, that has these sources.
fn group(sources: &str) -> String {
    format!(
        "listen: ['127.0.0.1:0']\nscrape_interval: 100ms\n\
         limits: {{connect_timeout: 500ms, read_timeout: 700ms, probe_timeout: 1s}}\n\
         target_groups:\n  - {{group: a, kind: sidecar, {sources}}}\n"
    )
}

fn addresses(origins: &[&Origin]) -> Vec<String> {
    origins.iter().map(|origin| origin.address().to_string()).collect()
}

fn lists(edge: &Edge, slot: u64) -> bool {
    !edge.view().sources(&full(slot).parse().expect("valid")).is_empty()
}

/// Waits until the archives of these slots are listed, and those of the others are not.
async fn finds(edge: &Edge, slots: &[u64], not: &[u64]) {
    eventually(&format!("{slots:?} and not {not:?}"), || async {
        slots.iter().all(|slot| lists(edge, *slot)) && !not.iter().any(|slot| lists(edge, *slot))
    })
    .await;
}

/// Waits until the source has failed so many times more, and sees that it took nothing away.
async fn keeps(edge: &Edge, kind: SourceKind, failures: u64, slots: &[u64]) {
    let before = edge.discovery.failures("a", kind);
    eventually(&format!("{failures} failures of `{kind}`"), || async {
        edge.discovery.failures("a", kind) >= before + failures
    })
    .await;
    assert!(slots.iter().all(|slot| lists(edge, *slot)), "{slots:?} are kept");
}
