//! The slot of the cluster, asked from one RPC node now and then.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;

use super::client::{Client, ClientError};

/// Time that the RPC node has for one answer, as in the Go tracker.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The slot that the RPC node answered last.
#[derive(Debug, Default)]
pub struct ReferenceSlot {
    slot: AtomicU64,
    known: AtomicBool,
}

#[derive(Debug, thiserror::Error)]
enum ReferenceError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("no answer within {TIMEOUT:?}")]
    Timeout,
    #[error("the answer is not a slot")]
    Answer(#[source] serde_json::Error),
}

impl ReferenceSlot {
    /// The slot; `None` while the RPC node does not answer.
    pub fn slot(&self) -> Option<u64> {
        self.known.load(Ordering::Acquire).then(|| self.slot.load(Ordering::Relaxed))
    }

    fn set(&self, slot: Option<u64>) {
        if let Some(slot) = slot {
            self.slot.store(slot, Ordering::Relaxed);
        }
        self.known.store(slot.is_some(), Ordering::Release);
    }

    /// Asks the RPC node at `url` every `interval`; never returns.
    pub(super) async fn keep(&self, client: Client, url: String, interval: Duration) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut healthy = true;
        loop {
            ticks.tick().await;
            let asked = tokio::time::timeout(TIMEOUT, ask(&client, &url)).await;
            match asked.unwrap_or(Err(ReferenceError::Timeout)) {
                Ok(slot) => {
                    self.set(Some(slot));
                    if !healthy {
                        log::info!("the RPC node answers again, slot {slot}");
                    }
                    healthy = true;
                }
                Err(error) => {
                    self.set(None);
                    if healthy {
                        log::warn!("the RPC node does not tell its slot: {}", chain(&error));
                    }
                    healthy = false;
                }
            }
        }
    }
}

async fn ask(client: &Client, url: &str) -> Result<u64, ReferenceError> {
    #[derive(Deserialize)]
    struct Answer {
        result: u64,
    }
    const REQUEST: &str =
        r#"{"jsonrpc":"2.0","id":1,"method":"getSlot","params":[{"commitment":"finalized"}]}"#;
    let body = client.post_json(url, REQUEST).await?;
    let answer: Answer = serde_json::from_slice(&body).map_err(ReferenceError::Answer)?;
    Ok(answer.result)
}

/// Most characters of an error that go into the log: some quote what a target sent.
const MAX_LOGGED: usize = 500;

/// An error with its causes, in one line of bounded length and without control characters.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(MAX_LOGGED).map(printable).collect()
}
