//! Probes on demand: targets are asked for an archive that none of them listed yet, once for
//! everybody who waits.
//!
//! Which names are worth it (`worth`), and how many probes there may be (`gate`, `budget`,
//! `heard`), is decided by pure code.

mod budget;
mod gate;
mod heard;
mod inquiry;
mod probes;
mod worth;

pub use budget::ProbeBudget;
pub use probes::{OnDemandProbes, PendingProbe, ProbeCounts};
