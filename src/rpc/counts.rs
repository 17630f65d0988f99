//! How many calls were made, by their methods: those that the configuration lists.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::route::{Ask, Calls, Outcome, Reply, RpcError};

/// What methods are counted as that the configuration does not list.
const OTHER: &str = "other";

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallEnd {
    /// With a result.
    Answered,
    /// With an error, of a node or for want of one.
    Failed,
    /// With an error for what was asked.
    Refused,
    /// With an error for how often was asked.
    Limited,
}

impl CallEnd {
    /// As metrics show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Limited => "limited",
        }
    }
}

/// Counts since the start of the process; they never go back.
#[derive(Debug, Default)]
pub struct CallCounts(Mutex<ByMethod>);

type ByMethod = BTreeMap<Box<str>, BTreeMap<CallEnd, u64>>;

impl CallCounts {
    /// The answer to a request of which no call is answered, which is counted as one call.
    pub(super) fn refuse(&self, error: RpcError) -> Reply {
        let limited = matches!(error, RpcError::Rate(_) | RpcError::Busy);
        let end = if limited { CallEnd::Limited } else { CallEnd::Refused };
        self.count(None, end);
        error.reply()
    }

    /// The answer to calls, each of which is counted.
    pub(super) fn reply(&self, calls: Calls, known: &HashMap<Ask, Outcome>) -> Reply {
        for (method, is_answered) in calls.ends(known) {
            let end = match (method, is_answered) {
                (_, true) => CallEnd::Answered,
                (Some(_), false) => CallEnd::Failed,
                (None, false) => CallEnd::Refused,
            };
            self.count(method, end);
        }
        calls.reply(known)
    }

    /// Counts one more, of a method that is on the list or of another one.
    fn count(&self, method: Option<&str>, end: CallEnd) {
        let (method, mut counts) = (method.unwrap_or(OTHER), self.lock());
        if let Some(of_method) = counts.get_mut(method) {
            *of_method.entry(end).or_default() += 1;
        } else {
            counts.insert(method.into(), BTreeMap::from([(end, 1)]));
        }
    }

    /// The counts of each method and end that there were.
    pub fn all(&self) -> Vec<(Box<str>, CallEnd, u64)> {
        let counts = self.lock();
        let of_method = counts.iter().flat_map(|(method, counts)| {
            counts.iter().map(|(end, count)| (method.clone(), *end, *count))
        });
        of_method.collect()
    }

    fn lock(&self) -> MutexGuard<'_, ByMethod> {
        // No change of it can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
