//! Fills of the cache that need no client: each archive once at a time, at its source's speed, over
//! its failures, and never with bytes of two copies.
//!
//! Whoever wants an archive places a [`FillRequest`] in the [`FillQueue`] and reads the archive as
//! it grows; the [`FillService`] runs each fill in a task of its own. Fetching ahead places
//! requests as clients' do.

mod haste;
mod prefetch;
mod queue;
mod reserve;
mod service;
mod transfer;

pub use queue::{AbandonPolicy, FillFailure, FillHandle, FillQueue, FillRequest, Joined, Placed};
pub use reserve::{PATIENCE_OF_CLIENTS, announced, bypass_of, prepare};
pub use service::FillService;
