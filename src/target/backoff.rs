//! Targets that failed to deliver are left alone for a while.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::index::TargetId;

/// Rest after the first failure.
const FIRST: Duration = Duration::from_secs(1);
/// Longest rest.
const LONGEST: Duration = Duration::from_secs(60);
/// Most targets that are remembered; far above what discovery admits.
const MAX_REMEMBERED: usize = 100_000;

/// How long a target rests after so many failures in a row.
pub fn delay(failures: u32) -> Duration {
    let doubled = failures.checked_sub(1).and_then(|times| 2_u32.checked_pow(times));
    FIRST.saturating_mul(doubled.unwrap_or(u32::from(failures > 0) * u32::MAX)).min(LONGEST)
}

/// Which targets are resting. A resting target comes last, it is not left out: when all rest, the
/// least bad one is tried.
///
/// The lock is held for a look-up or an insertion, by the request path alone.
#[derive(Debug, Default)]
pub struct Backoff {
    failed: Mutex<HashMap<TargetId, Rest>>,
}

/// The rest of one target.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rest {
    failures: u32,
    until: Option<Instant>,
}

impl Rest {
    /// Notes a failure; false where it belongs to those that led to this rest. Twenty transfers
    /// that break together are one event.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        let is_new = !self.is_on(now);
        if is_new {
            self.failures = self.failures.saturating_add(1);
            self.until = Some(now + delay(self.failures));
        }
        is_new
    }

    /// When it ends, or ended.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// True while it lasts.
    pub(super) fn is_on(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until > now)
    }
}

impl Backoff {
    /// Notes that a request failed by the target's fault. Failures within one rest count once.
    pub fn failed(&self, target: &TargetId, now: Instant) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.len() >= MAX_REMEMBERED && !failed.contains_key(target) {
            failed.retain(|_, rest| rest.is_on(now));
            if failed.len() >= MAX_REMEMBERED {
                return;
            }
        }
        failed.entry(target.clone()).or_default().failed(now);
    }

    /// Notes that a target delivered.
    pub fn succeeded(&self, target: &TargetId) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).remove(target);
    }

    /// True while the target rests.
    pub fn is_resting(&self, target: &TargetId, now: Instant) -> bool {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get(target).is_some_and(|rest| rest.is_on(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_double_up_to_a_minute() {
        let seconds: Vec<u64> = (0..9).map(|failures| delay(failures).as_secs()).collect();
        assert_eq!(seconds, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(delay(u32::MAX), LONGEST);
    }

    #[test]
    fn a_target_rests_and_comes_back() {
        let target = TargetId { group: "g".into(), authority: "a:1".into() };
        let (backoff, start) = (Backoff::default(), Instant::now());
        assert!(!backoff.is_resting(&target, start));
        backoff.failed(&target, start);
        backoff.failed(&target, start + Duration::from_millis(10));
        assert!(backoff.is_resting(&target, start + Duration::from_millis(999)));
        assert!(
            !backoff.is_resting(&target, start + Duration::from_secs(1)),
            "one event, one step"
        );
        backoff.failed(&target, start + Duration::from_secs(1));
        assert!(backoff.is_resting(&target, start + Duration::from_millis(2999)));
        backoff.succeeded(&target);
        assert!(!backoff.is_resting(&target, start + Duration::from_millis(1500)));
    }
}
