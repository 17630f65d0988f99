//! Whether what is offered is new enough, told as the tracker and as a node tell it.

use http::StatusCode;
use serde::Serialize;

use crate::index::Generation;
use crate::route::Reply;

/// The cluster's slot, as the configured RPC node tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// No RPC node is configured: ages are not judged.
    Unset,
    /// The RPC node has not answered lately.
    Unknown,
    /// Finalized slot.
    Slot(u64),
}

/// What is known about the age of the newest archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    newest: u64,
    current: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Healthy,
    NoSnapshots,
    RpcUnhealthy,
    TooOld,
}

/// As in the tracker: three capitalised keys.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Body {
    max_snapshot: u64,
    current_slot: u64,
    health: &'static str,
}

impl Health {
    /// Judges. Ages are signed: an archive may be ahead of the RPC node.
    pub fn assess(best: Option<Generation>, reference: Reference, max_age: u64) -> Self {
        let Some(best) = best else {
            return Self { newest: 0, current: 0, state: State::NoSnapshots };
        };
        let newest = best.tip().slot().0;
        let (current, state) = match reference {
            Reference::Unset => (0, State::Healthy),
            Reference::Unknown => (0, State::RpcUnhealthy),
            Reference::Slot(slot) if i128::from(slot) - i128::from(newest) > max_age.into() => {
                (slot, State::TooOld)
            }
            Reference::Slot(slot) => (slot, State::Healthy),
        };
        Self { newest, current, state }
    }

    /// `/v1/health`: 200, 500, 502 or 503, and why. `CurrentSlot` is 0 where it is not known.
    pub fn tracker_reply(self) -> Reply {
        let (status, health) = match self.state {
            State::Healthy => (StatusCode::OK, "healthy"),
            State::NoSnapshots => (StatusCode::INTERNAL_SERVER_ERROR, "no snapshots found"),
            State::RpcUnhealthy => (StatusCode::BAD_GATEWAY, "rpc unhealthy"),
            State::TooOld => (StatusCode::SERVICE_UNAVAILABLE, "snapshot too old"),
        };
        let body = Body { max_snapshot: self.newest, current_slot: self.current, health };
        super::tracker::json(status, &body)
    }

    /// `/health`: always 200; the word is the answer.
    pub fn node_reply(self) -> Reply {
        let word = match self.state {
            State::Healthy => "ok",
            State::TooOld => "behind",
            State::NoSnapshots | State::RpcUnhealthy => "unknown",
        };
        Reply::text(StatusCode::OK, word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(slot: Option<u64>, reference: Reference, status: u16, body: &str, word: &str) {
        let name = |slot| format!("snapshot-{slot}-{}.tar.zst", "1".repeat(32));
        let best = slot.map(|slot: u64| Generation {
            full: name(slot).parse().expect("valid"),
            incremental: None,
        });
        let health = Health::assess(best, reference, 5000);
        let reply = health.tracker_reply();
        assert_eq!(reply.status.as_u16(), status);
        assert_eq!(reply.body, body);
        assert_eq!(health.node_reply().status, StatusCode::OK);
        assert_eq!(health.node_reply().body, word);
    }

    #[test]
    fn health_in_all_states() {
        check(
            None,
            Reference::Slot(9),
            500,
            r#"{"MaxSnapshot":0,"CurrentSlot":0,"Health":"no snapshots found"}"#,
            "unknown",
        );
        check(
            Some(100),
            Reference::Unknown,
            502,
            r#"{"MaxSnapshot":100,"CurrentSlot":0,"Health":"rpc unhealthy"}"#,
            "unknown",
        );
        check(
            Some(100),
            Reference::Slot(5101),
            503,
            r#"{"MaxSnapshot":100,"CurrentSlot":5101,"Health":"snapshot too old"}"#,
            "behind",
        );
        for (newest, current) in [(100, 5100), (100, 90), (u64::MAX, 0)] {
            check(
                Some(newest),
                Reference::Slot(current),
                200,
                &format!(
                    r#"{{"MaxSnapshot":{newest},"CurrentSlot":{current},"Health":"healthy"}}"#
                ),
                "ok",
            );
        }
        check(
            Some(100),
            Reference::Unset,
            200,
            r#"{"MaxSnapshot":100,"CurrentSlot":0,"Health":"healthy"}"#,
            "ok",
        );
    }
}
