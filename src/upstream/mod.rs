//! Targets as those who download from them see them: how to connect, how much each of them carries
//! and for whom, how each of them does, and which archives it did not deliver.
//!
//! A transfer takes a [`Slot`] of the [`UpstreamPool`] before it connects, and gives it back by
//! dropping it. Who waits, who makes room for whom, and how a target does is decided by pure code
//! (`slots`, `eviction`, `health`).

mod attempt;
mod claimant;
mod connection;
mod doubts;
mod eviction;
mod gauge;
mod health;
mod load;
mod meter;
mod pool;
mod request;
mod slot_pool;
mod slots;
mod trials;

pub use attempt::{Attempt, Reader};
pub use claimant::{Claimant, Client, Taker};
pub use connection::{
    Body, Caller, Opened, Reopened, connect_failure, open, open_failure, reopen, transfer_failure,
};
pub use doubts::Doubts;
pub use load::Taking;
pub use pool::{Known, UpstreamPool};
pub use slot_pool::{Delivering, Slot};
pub use trials::Trials;
