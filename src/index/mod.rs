//! What exists, what is best and what is offered, from what the targets say and the cache holds.
//!
//! Pure: events go in ([`Catalog::apply`]), an immutable [`View`] comes out ([`Catalog::view`]),
//! and time is an argument. Who publishes the view, and when, is `target/scraper.rs`.

mod best;
mod catalog;
mod copy;
mod distinct;
mod view;
mod vote;

#[cfg(test)]
mod tests;

pub use best::Generation;
pub use catalog::{Catalog, Distrusted, Event, Held, Listed, Location, Policy, Publish, TargetId};
pub use copy::{CopyId, TagError};
pub use view::{Entry, GroupView, Source, UnknownGroup, View, Worth};
pub use vote::Conflict;
