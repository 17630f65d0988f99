//! The slot of the cluster, asked from one RPC node now and then.

use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::watch;

use super::client::{Client, ClientError};

/// Time that the RPC node has for one answer, as in the Go tracker.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The slot that the RPC node answered last.
#[derive(Debug, Default)]
pub struct ReferenceSlot {
    told: watch::Sender<Option<Told>>,
}

/// What the RPC node told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// The slot.
    pub(super) slot: u64,
    /// When it was told.
    pub(super) at: Instant,
    /// False once the node did not answer since then.
    pub(super) is_current: bool,
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
        self.told.borrow().filter(|told| told.is_current).map(|told| told.slot)
    }

    /// What is told, always that of this moment.
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Told>> {
        self.told.subscribe()
    }

    fn set(&self, slot: Option<u64>) {
        let now = Instant::now();
        self.told.send_if_modified(|told| {
            let before = *told;
            *told = match (slot, before) {
                (Some(slot), _) => Some(Told { slot, at: now, is_current: true }),
                (None, before) => before.map(|told| Told { is_current: false, ..told }),
            };
            before != *told
        });
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
