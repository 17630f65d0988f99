//! snapedge stands in front of Solana nodes and hands out their snapshot archives.
//!
//! `docs/ARCHITECTURE.md` is the map of this crate and lists the rules that hold between its
//! modules; `tests/tidy/` checks those that can be checked.

pub mod access;
pub mod api;
pub mod app;
pub mod cache;
pub mod check;
pub mod cli;
pub mod clients;
pub mod clock;
pub mod config;
pub mod configured;
pub mod demo;
pub mod drain;
pub mod error_chain;
pub mod fd_limit;
pub mod fill;
pub mod hops;
pub mod index;
pub mod ledger;
pub mod limit;
pub mod listener;
pub mod logging;
pub mod metrics;
pub mod on_demand;
pub mod proxy;
pub mod published;
pub mod route;
pub mod rpc;
pub mod scrape;
pub mod snapshot;
pub mod status;
pub mod upstream;

/// Memory that a flood of requests took goes back to the system within seconds after it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
