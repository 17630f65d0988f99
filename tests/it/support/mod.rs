//! Origins with faults, an edge in this process, and a client that sees every byte.

pub mod body;
pub mod client;
pub mod consul;
pub mod dns;
pub mod edge;
pub mod h2;
pub mod listing;
pub mod origin;
pub mod process;
pub mod scene;
pub mod scripted;
pub mod server;
pub mod speaker;
pub mod tls;
pub mod tls_client;
pub mod trouble;

use std::time::Duration;

/// Longest that anything in a test may take that is waited for.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// A base58 hash that differs with `number`.
pub fn hash(number: u8) -> String {
    snapedge::snapshot::ArchiveHash::new([number; 32]).to_string()
}

/// Name of a full archive whose hash follows from its slot.
pub fn full(slot: u64) -> String {
    format!("snapshot-{slot}-{}.tar.zst", hash(slot as u8))
}

/// Name of an incremental archive whose hash follows from its slot.
pub fn incremental(base: u64, slot: u64) -> String {
    format!("incremental-snapshot-{base}-{slot}-{}.tar.zst", hash(slot as u8))
}

/// Waits until `condition` holds, looking again and again; panics with `what` when it never does.
pub async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl FnMut() -> F) {
    eventually_within(PATIENCE, what, condition).await;
}

/// The same with another patience.
pub async fn eventually_within<F: Future<Output = bool>>(
    patience: Duration,
    what: &str,
    mut condition: impl FnMut() -> F,
) {
    let deadline = tokio::time::Instant::now() + patience;
    let mut rest = Duration::from_millis(5);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(rest).await;
        rest = (rest * 5 / 4).min(Duration::from_millis(25));
    }
}
