//! How an edge is, as its operator sees it.

mod amounts;
pub mod changes;
pub mod command;
pub mod report;
pub mod terminal;
