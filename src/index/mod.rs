//! What exists, what is best and what is offered, from what the targets say and the cache holds.
//!
//! Pure: events go in ([`Catalog::apply`]), an immutable [`View`] comes out ([`Catalog::view`]),
//! and time is an argument. Who publishes the view, and when, is `scrape/scraper.rs`.

mod ahead;
mod answer;
mod best;
mod catalog;
mod copy;
mod deliveries;
mod distinct;
mod distrust;
mod entry;
mod grounds;
mod handing;
mod hearsay;
mod late;
mod listing;
mod policy;
mod support;
mod told;
mod undelivered;
mod view;
mod voice;
mod vote;
mod worth;

#[cfg(test)]
mod tests;

pub use ahead::{Ahead, Bound};
pub use best::Generation;
pub use catalog::{Catalog, Event};
pub use copy::{CopyId, TagError};
pub use deliveries::{Deliveries, Outcome, Trial};
pub use distrust::{Distrusted, Mark};
pub use entry::{Entry, Source};
pub use grounds::{DEFAULT_SLOT_LEAD, Grounds, Reference};
pub use listing::{AccessKey, Held, Listed, Location, Tag, TargetId};
pub use policy::{Policy, Publish};
pub use told::Told;
pub use undelivered::Undelivered;
pub use view::{GroupView, UnknownGroup, View};
pub use vote::Conflict;
pub use worth::Worth;
