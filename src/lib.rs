//! snapedge stands in front of Solana nodes and hands out their snapshot archives.
//!
//! `docs/ARCHITECTURE.md` is the map of this crate and lists the rules that hold between its
//! modules; `tests/tidy.rs` checks those that can be checked.

pub mod access;
pub mod api;
pub mod app;
pub mod cache;
pub mod check;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod descriptors;
pub mod drain;
pub mod fetch;
pub mod hops;
pub mod index;
pub mod ledger;
pub mod pace;
pub mod proxy;
pub mod queue;
pub mod refusals;
pub mod route;
pub mod snapshot;
pub mod tally;
pub mod target;

/// Memory that a flood of requests took goes back to the system within seconds after it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
