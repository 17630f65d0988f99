//! The public listener: Pingora's phases, each of which translates, asks `route/`, and does it.

mod context;
mod copies;
mod edge;
mod head;
mod listener;

pub use edge::Edge;
pub use listener::{BindError, Bound};
