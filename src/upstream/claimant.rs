//! Who wants a transfer from a target.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::route::ClientNet;

/// For whom a transfer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// For everyone, by way of the cache: one of these may save many of the others.
    Everyone,
    /// For one client.
    One(ClientNet),
}

/// A client that takes what a transfer brings.
pub trait Taker: fmt::Debug + Send + Sync {
    /// How long it has been waited for in all.
    fn waited(&self, now: Instant) -> Duration;

    /// Ends the transfer, whatever it waits for. It may take a moment.
    fn dismiss(&self);
}

/// Who wants a transfer.
#[derive(Clone, Debug)]
pub struct Claimant {
    /// For whom it is.
    pub client: Client,
    /// Whether it is a part of a file, which is not lost by being asked for again.
    pub is_part: bool,
    /// The client, where it can be looked at.
    pub taker: Option<Arc<dyn Taker>>,
}

impl Claimant {
    /// The cache.
    pub fn everyone() -> Self {
        Self { client: Client::Everyone, is_part: false, taker: None }
    }
}
