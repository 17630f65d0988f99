//! Answers of nodes that need not be asked for again a moment later.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::rpc::Ask;
use super::rpc_outcome::Outcome;
use crate::index::TargetId;

/// How long is believed what changes with the software of a node, or never.
const LONG: Duration = Duration::from_secs(60);
/// How long is believed what changes with each slot: as long as one takes.
const SHORT: Duration = Duration::from_millis(400);
/// Most answers that are remembered, and most bytes of one.
const MAX_ANSWERS: usize = 4096;
const MAX_BYTES: usize = 1 << 10;

/// How long an answer is believed, errors included where they change as fast as what is asked.
fn lifetime(ask: &Ask, outcome: &Outcome) -> Option<Duration> {
    match ask.method() {
        "getGenesisHash" | "getVersion" | "getIdentity" => outcome.is_result().then_some(LONG),
        "getSlot" | "getHealth" | Ask::HEALTH => Some(SHORT),
        _ => None,
    }
}

/// What nodes answered lately.
#[derive(Debug, Default)]
pub struct RpcMemory(HashMap<(TargetId, Ask), (Outcome, Instant)>);

impl RpcMemory {
    /// The answer that this node gave, while it is believed.
    pub fn recall(&self, asked: &(TargetId, Ask), now: Instant) -> Option<Outcome> {
        let (outcome, until) = self.0.get(asked)?;
        (now < *until).then(|| outcome.clone())
    }

    /// Notes an answer, where it is one that is believed for a while and is not large.
    pub fn learn(&mut self, asked: (TargetId, Ask), outcome: &Outcome, now: Instant) {
        let size = asked.1.size() + outcome.size();
        let Some(lifetime) = lifetime(&asked.1, outcome).filter(|_| size <= MAX_BYTES) else {
            return;
        };
        if self.0.len() >= MAX_ANSWERS {
            self.0.retain(|_, (_, until)| now < *until);
        }
        if self.0.len() < MAX_ANSWERS {
            self.0.insert(asked, (outcome.clone(), now + lifetime));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::RpcError;

    fn asked(node: u8, method: &str, params: Option<&str>) -> (TargetId, Ask) {
        let authority = format!("10.0.0.{node}:8899").into();
        (TargetId { group: "a".into(), authority }, Ask::new(method, params))
    }

    #[test]
    fn answers_are_believed_for_as_long_as_they_can_be() {
        let start = Instant::now();
        let (result, error) = (Outcome::word("x"), RpcError::Unhealthy.outcome());
        for (method, outcome, millis) in [
            ("getGenesisHash", &result, 60_000),
            ("getVersion", &result, 60_000),
            ("getIdentity", &result, 60_000),
            ("getSlot", &result, 400),
            ("getHealth", &result, 400),
            (Ask::HEALTH, &result, 400),
            // A node that starts has an error for most, and soon has none.
            ("getGenesisHash", &error, 0),
            ("getHealth", &error, 400),
            ("getEpochInfo", &result, 0),
            ("getClusterNodes", &result, 0),
        ] {
            let mut memory = RpcMemory::default();
            let asked = asked(1, method, None);
            memory.learn(asked.clone(), outcome, start);
            for (at, expected) in
                [(0, millis > 0), (millis.max(1) - 1, millis > 0), (millis, false)]
            {
                let known = memory.recall(&asked, start + Duration::from_millis(at));
                assert_eq!(known.is_some(), expected, "{method} after {at} ms");
            }
        }
    }

    #[test]
    fn an_answer_is_of_one_node_to_one_question() {
        let (start, mut memory) = (Instant::now(), RpcMemory::default());
        let finalized = Some(r#"[{"commitment":"finalized"}]"#);
        memory.learn(asked(1, "getSlot", finalized), &Outcome::word("x"), start);
        assert!(memory.recall(&asked(1, "getSlot", finalized), start).is_some());
        for other in [
            asked(2, "getSlot", finalized),
            asked(1, "getSlot", None),
            asked(1, "getHealth", finalized),
        ] {
            assert!(memory.recall(&other, start).is_none());
        }
    }

    #[test]
    fn the_memory_is_bounded_in_number_and_in_bytes() {
        let (start, mut memory) = (Instant::now(), RpcMemory::default());
        for number in 0..2 * MAX_ANSWERS {
            let params = format!("[{number}]");
            memory.learn(asked(1, "getVersion", Some(&params)), &Outcome::word("x"), start);
        }
        assert_eq!(memory.0.len(), MAX_ANSWERS);
        let later = start + LONG;
        memory.learn(asked(1, "getVersion", None), &Outcome::word("x"), later);
        assert_eq!(memory.0.len(), 1, "what is not believed any more makes room");
        let large = Outcome::word(&"x".repeat(MAX_BYTES));
        memory.learn(asked(2, "getVersion", None), &large, later);
        assert_eq!(memory.0.len(), 1);
    }
}
