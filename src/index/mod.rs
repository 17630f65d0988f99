//! What exists, what is best and what is offered, from what the targets say and the cache holds.
//!
//! Pure: events go in ([`Catalog::apply`]), an immutable [`View`] comes out ([`Catalog::view`]),
//! and time is an argument. Who publishes the view, and when, is `target/scraper.rs`.

mod ahead;
mod best;
mod catalog;
mod copy;
mod distinct;
mod distrust;
mod grounds;
mod handing;
mod hearsay;
mod support;
mod view;
mod voice;
mod vote;

#[cfg(test)]
mod tests;

pub use ahead::{Ahead, Bound};
pub use best::Generation;
pub use catalog::{Catalog, Event, Held, Listed, Location, Policy, Publish, TargetId};
pub use copy::{CopyId, TagError};
pub use distrust::{Distrusted, Mark, Tag};
pub use grounds::{DEFAULT_SLOT_LEAD, Grounds, Reference};
pub use view::{Entry, GroupView, Source, UnknownGroup, View, Worth};
pub use vote::Conflict;
