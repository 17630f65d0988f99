//! How an edge is, as its operator sees it.

pub mod changes;
pub mod command;
pub mod report;
pub mod terminal;
