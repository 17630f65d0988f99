//! The public listener: Pingora's phases, each of which translates, asks `route/`, and does it.

mod awaiting;
mod caching;
mod context;
mod copies;
mod edge;
mod genesis;
mod head;
mod listener;
mod planning;
mod rpc;
mod shares;

pub use caching::cached_head;
pub use edge::Edge;
pub use listener::{BindError, Bound};
