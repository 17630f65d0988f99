//! Log messages of one target, deduplicated: each fault is told once, again when it changes, and
//! once when it ends. Pure: time is an argument.

use std::time::{Duration, Instant};

/// Most lines on one target within [`WINDOW`]: one that goes wrong in another way at each probe has
/// no more than that.
const MAX_LINES: u32 = 20;
const WINDOW: Duration = Duration::from_secs(600);

/// The last thing that was said, and how much was said of late.
#[derive(Clone, Debug, Default)]
pub(super) struct Remarks {
    /// What is wrong now.
    wrong: Option<String>,
    /// Whether the log says so.
    told: bool,
    /// Since when lines are counted, and how many there were.
    since: Option<Instant>,
    lines: u32,
}

impl Remarks {
    /// Notes what is wrong; true where that is something else than before, and to be said. What is
    /// told apart is up to the caller, who leaves out what differs each time.
    pub(super) fn wrong(&mut self, what: &str, now: Instant) -> bool {
        if self.wrong.as_deref() == Some(what) {
            return false;
        }
        self.wrong = Some(what.to_owned());
        let over = self.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW);
        if over {
            (self.since, self.lines) = (Some(now), 0);
        }
        self.told = self.lines < MAX_LINES;
        self.lines += u32::from(self.told);
        self.told
    }

    /// Notes that nothing is wrong; true where the log says something else.
    pub(super) fn well(&mut self) -> bool {
        self.wrong.take().is_some() && std::mem::take(&mut self.told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_is_said_once_again_when_it_changes_and_once_when_it_ends() {
        let (mut remarks, now) = (Remarks::default(), Instant::now());
        assert!(!remarks.well(), "nothing was wrong");
        assert!(remarks.wrong("a", now));
        assert!(!remarks.wrong("a", now));
        assert!(remarks.wrong("b", now), "something else");
        assert!(remarks.wrong("a", now));
        assert!(remarks.well());
        assert!(!remarks.well());
        assert!(remarks.wrong("a", now), "anew");
    }

    #[test]
    fn what_changes_all_the_time_fills_no_log() {
        let (mut remarks, start) = (Remarks::default(), Instant::now());
        let mut said = 0;
        for probe in 0..1000_u32 {
            let now = start + Duration::from_secs(1) * probe;
            said += u32::from(remarks.wrong(["a", "b", "c"][(probe % 3) as usize], now));
            if probe % 7 == 0 {
                said += u32::from(remarks.well());
            }
        }
        // Two windows were begun; what was not said does not end aloud.
        assert!((2 * MAX_LINES..=3 * MAX_LINES).contains(&said), "{said}");
    }
}
