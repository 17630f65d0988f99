//! The public listener: Pingora's phases, each of which translates, asks `route/`, and does it.

mod awaiting;
mod caching;
mod context;
mod copies;
mod door;
mod edge;
mod head;
mod listener;
mod planning;
mod rpc;

pub use caching::cached_head;
pub use door::{Door, Places};
pub use edge::Edge;
pub use listener::{BindError, Bound};
