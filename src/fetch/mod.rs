//! The carrying of archives from targets: how they are connected to and how they did, and the fills
//! of the cache that need no client. And the looks for archives that no target listed yet.
//!
//! A request places an [`Order`] and reads the archive as it grows; the [`Fetcher`] runs each order
//! in a task of its own, at the source's speed. Fetching ahead places orders as requests do.

mod books;
mod connection;
mod eviction;
mod fleet;
mod gauge;
mod inquiry;
mod load;
mod looks;
mod meter;
mod orders;
mod prefetch;
mod room;
mod service;
mod transfer;
mod upstreams;

pub use connection::{connect_failure, transfer_failure};
pub use fleet::Slot;
pub use load::{Claimant, Client, Taker, Taking};
pub use looks::{Look, LookCounts, Looks};
pub use orders::{Joined, Order, Orders, Placed, Tenacity, Ticket, Unfetched};
pub use room::{PATIENCE_OF_CLIENTS, bypass_of, prepare};
pub use service::Fetcher;
pub use upstreams::{Known, Upstreams};
