//! The one place that reads a clock. Everything that decides takes [`Now`] as an argument, so that
//! a test can say what time it is.

use std::time::{Instant, SystemTime};

/// One reading of both clocks of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Never goes back: for deadlines, back-off and how long something has been known.
    pub instant: Instant,
    /// What people and other programs call the time: for what is shown.
    pub wall: SystemTime,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Self {
        Self { instant: Instant::now(), wall: SystemTime::now() }
    }
}
