//! The public listener: Pingora's phases, each of which translates, asks `route/`, and does it.

mod admission;
mod awaiting;
mod caching;
mod calls;
mod circles;
mod context;
mod copies;
mod door;
mod edge;
mod fills;
mod genesis;
mod head;
mod inquiring;
mod lending;
mod listener;
mod planning;
mod record;
mod rpc;
mod rpc_body;
mod seeking;
mod shared_calls;
mod shares;
mod telling;

pub use admission::PACED_PIECE;
pub use caching::cached_head;
pub use door::{Door, Places};
pub use edge::Edge;
pub use listener::{BindError, Bound};
