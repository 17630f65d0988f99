//! What only a node can answer: calls of JSON-RPC, a node's health and the genesis archive, passed
//! on in bounded time and memory, and asked of a node once although many ask.
//!
//! What is asked and what is answered is decided in `route`.

mod asker;
mod backoff;
mod body;
mod counts;
mod fair_share;
mod genesis;
mod service;
mod shared_calls;

pub use counts::{CallCounts, CallEnd};
pub use service::NodeProxy;
