//! What is counted: the definition of every metric, and the counters that requests count with.
//!
//! Counting takes no lock on the way of an archive's bytes: what a label can be is known before.

mod definitions;
mod labels;
mod requests;

pub use definitions::*;
pub use labels::{CacheResult, ClosedReason, End, LimitName, MethodClass, RouteClass, SourceClass};
pub use requests::{Ended, RequestCounts};
