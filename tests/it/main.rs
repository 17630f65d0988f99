//! The edge as its clients and upstreams see it: over real sockets, with real faults.
#![allow(
    clippy::case_sensitive_file_extension_comparisons,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::format_push_string,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::single_match_else,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "tests are read by people, and their helpers are nobody's interface"
)]

mod cache;
mod clients;
mod conditions;
mod connections;
mod copies;
mod credentials;
mod discovery;
mod entrance;
mod examples;
mod failover;
mod fleet;
mod half_way;
mod hostile;
mod hung;
mod ledger;
mod listings;
mod members;
mod observing;
mod once;
mod poison;
mod process;
mod ranges;
mod reload;
mod routes;
mod rpc;
mod rpc_clients;
mod rpc_nodes;
mod rpc_sharing;
mod scraping;
mod slashes;
mod slow_clients;
mod stopping;
mod support;
mod systemd;
mod tags;
mod targets;
mod telling;
mod tiers;
mod tracker;
mod unknown_names;
mod upgrade;
