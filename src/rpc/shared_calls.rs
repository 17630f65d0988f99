//! Calls that several clients make at once, of which a node is asked one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use crate::index::TargetId;
use crate::route::{Ask, Outcome, RpcMemory};

/// Whom is asked what.
type Asked = (TargetId, Ask);

/// Answers that are known for a moment, and those that are on their way.
#[derive(Default)]
pub(super) struct SharedCalls(Mutex<State>);

#[derive(Default)]
struct State {
    memory: RpcMemory,
    coming: HashMap<Asked, watch::Receiver<Option<Outcome>>>,
    /// Grows when all is forgotten: what was asked before is not learned after that.
    age: u64,
}

/// How a call gets its answer.
pub(super) enum Share {
    /// The answer was given a moment ago.
    Known(Outcome),
    /// Somebody else has asked.
    Coming(Coming),
    /// Nobody has: whoever gets this one asks, and others wait for that.
    Ask(Lead),
}

/// An answer that somebody else has asked for.
pub(super) struct Coming(watch::Receiver<Option<Outcome>>);

/// The duty to ask, which ends with an answer or by being dropped.
pub(super) struct Lead {
    calls: Arc<SharedCalls>,
    asked: Asked,
    age: u64,
    answer: watch::Sender<Option<Outcome>>,
}

impl SharedCalls {
    /// How this call of this node gets its answer.
    pub(super) fn share(self: &Arc<Self>, target: &TargetId, ask: &Ask, now: Instant) -> Share {
        let asked = (target.clone(), ask.clone());
        let mut state = self.state();
        if let Some(known) = state.memory.recall(&asked, now) {
            return Share::Known(known);
        }
        if let Some(coming) = state.coming.get(&asked) {
            return Share::Coming(Coming(coming.clone()));
        }
        let (answer, coming) = watch::channel(None);
        state.coming.insert(asked.clone(), coming);
        Share::Ask(Lead { calls: Arc::clone(self), asked, age: state.age, answer })
    }

    /// Believes no answer of before any more.
    pub(super) fn forget(&self) {
        let mut state = self.state();
        let age = state.age + 1;
        *state = State { age, ..State::default() };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Coming {
    /// Waits for it; nothing where whoever asked has left.
    pub(super) async fn wait(mut self) -> Option<Outcome> {
        let answer = self.0.wait_for(Option::is_some).await.ok()?;
        answer.clone()
    }
}

impl Lead {
    /// Tells all who wait, and where `is_answer` all who ask in a moment.
    pub(super) fn tell(self, outcome: &Outcome, is_answer: bool, now: Instant) {
        let mut state = self.calls.state();
        if is_answer && state.age == self.age {
            state.memory.learn(self.asked.clone(), outcome, now);
        }
        drop(state);
        self.answer.send_replace(Some(outcome.clone()));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let mut state = self.calls.state();
        if state.age == self.age {
            state.coming.remove(&self.asked);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn target() -> TargetId {
        TargetId { group: "a".into(), authority: "10.0.0.1:8899".into() }
    }

    fn size(outcome: Option<&Outcome>) -> Option<usize> {
        outcome.map(Outcome::size)
    }

    #[tokio::test]
    async fn one_asks_and_the_others_get_the_same() {
        let (calls, ask, now) =
            (Arc::<SharedCalls>::default(), Ask::new("getSlot", None), Instant::now());
        let Share::Ask(lead) = calls.share(&target(), &ask, now) else { panic!("the first") };
        let Share::Coming(coming) = calls.share(&target(), &ask, now) else { panic!("a second") };
        let other = Ask::new("getVersion", None);
        assert!(matches!(calls.share(&target(), &other, now), Share::Ask(_)), "another call");
        lead.tell(&Outcome::word("answer"), true, now);
        assert_eq!(size(coming.wait().await.as_ref()), Some(6));
        assert!(matches!(calls.share(&target(), &ask, now), Share::Known(_)), "a moment later");
        let later = now + Duration::from_secs(1);
        assert!(matches!(calls.share(&target(), &ask, later), Share::Ask(_)), "and later again");
        assert!(calls.state().coming.is_empty(), "nobody asks any more");
    }

    #[tokio::test]
    async fn who_waits_for_one_that_left_asks() {
        let (calls, ask, now) =
            (Arc::<SharedCalls>::default(), Ask::new("getSlot", None), Instant::now());
        let Share::Ask(lead) = calls.share(&target(), &ask, now) else { panic!("the first") };
        let Share::Coming(coming) = calls.share(&target(), &ask, now) else { panic!("a second") };
        drop(lead);
        assert_eq!(size(coming.wait().await.as_ref()), None);
        let Share::Ask(lead) = calls.share(&target(), &ask, now) else { panic!("the next") };
        // What is no answer is for those who wait, and for nobody after them.
        lead.tell(&Outcome::word("no"), false, now);
        assert!(matches!(calls.share(&target(), &ask, now), Share::Ask(_)));
    }
}
