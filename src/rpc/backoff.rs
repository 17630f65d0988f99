//! Nodes that failed to answer are left alone for a while.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::index::TargetId;
use crate::limit::Rest;

/// Most targets that are remembered; far above what discovery admits.
const MAX_REMEMBERED: usize = 100_000;

/// Which targets are resting. A resting target comes last, it is not left out: when all rest, the
/// least bad one is tried.
///
/// The lock is held for a look-up or an insertion, by the request path alone.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failed: Mutex<HashMap<TargetId, Rest>>,
}

impl Backoff {
    /// Notes that a request failed by the target's fault. Failures within one rest count once.
    pub(super) fn failed(&self, target: &TargetId, now: Instant) {
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
    pub(super) fn succeeded(&self, target: &TargetId) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).remove(target);
    }

    /// True while the target rests.
    pub(super) fn is_resting(&self, target: &TargetId, now: Instant) -> bool {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get(target).is_some_and(|rest| rest.is_on(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

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
