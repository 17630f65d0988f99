//! Bounds on rates and numbers, and on lines of the log. Pure: time is an argument.

mod backoff;
mod bucket;
mod keyed_count;
mod log_limit;
mod pacer;
mod queue;

pub use backoff::{Rest, delay, doubled};
pub use bucket::{Bucket, Size};
pub use keyed_count::KeyedCount;
pub use log_limit::LogLimiter;
pub use pacer::{Pacer, SharedPacer, time_of};
pub use queue::{Queue, Waiting};
