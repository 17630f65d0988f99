//! What is done about a request for an archive. Pure.
//!
//! A plan is a value: [`next`] looks at the [`World`] and at what was [`Tried`], and says the next
//! [`Step`]. Whoever carries it out notes what came of it and asks again, until a step answers the
//! request. What was tried only grows, so that the steps come to an end: after [`MAX_TURNS`] at the
//! latest.

mod cache;
mod entry;
mod local;
mod next;
mod sources;
mod world;

#[cfg(test)]
mod tests;

pub use entry::{CachePolicy, EntryState};
pub use next::{MAX_TURNS, Step, Transfer, next};
pub use sources::Case;
pub use world::{Announced, ArchiveRequest, Inquiry, Question, Tried, World};
