//! What to do with a request, and with an upstream's answer to it.
//!
//! Pure: a request head, a [`View`](crate::index::View) and settings go in, a [`Plan`] comes out;
//! an upstream's response head goes in, a [`Verdict`] comes out. `proxy/` carries them out.

mod answer;
mod balance;
mod caching;
mod failure;
mod plan;
mod range;
mod reply;
mod request;

pub use answer::{ArchiveHead, Asked, IfRange, Verdict, judge};
pub use balance::order;
pub use caching::{Bypass, Bytes, CacheStatus, Cached, Delivery, deliver};
pub use failure::{Failure, SourceFailure};
pub use plan::{Plan, Requester, Settings, Transfer, plan};
pub use range::{ByteRange, ContentRange, RangeRequest, RangeSpec, Selection};
pub use reply::Reply;
pub use request::{ApiCall, Route, Style, Wanted, parse};
