//! What is served: Pingora's phases (`phases`) translate, a request is read (`service`), and what
//! is done about an archive is planned in `route/plan/` and carried out (`archives`).

mod admission;
mod affinity_table;
mod answers;
mod archives;
mod cache_fill;
mod cache_phases;
mod cache_read;
mod calls;
mod circles;
mod conditions;
mod context;
mod credentials;
mod endings;
mod fills;
mod forward;
mod gate;
mod head;
mod local;
mod phases;
mod request_id;
#[cfg(test)]
mod scene;
mod service;
mod tally;
mod traffic;
mod transfers;
mod visitor;

pub use admission::{RunningCount, piece};
pub use cache_phases::cached_head;
pub use service::{PublicListener, SnapshotProxy};
pub use traffic::Traffic;
pub use transfers::{Answer, Transfer, Transfers};
