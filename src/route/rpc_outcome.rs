//! What a call of JSON-RPC comes to: a result or an error, and how that is written.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::reply::Reply;

/// Why a call is answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// The body is no JSON.
    #[error("Parse error")]
    Parse,
    /// The body is JSON, and no call.
    #[error("Invalid request")]
    Invalid,
    /// More calls than one request may have.
    #[error("Batch is too large")]
    Batch,
    /// More bytes than a request may have.
    #[error("Request body is too large")]
    Body,
    /// The body is not framed as HTTP wants it, or breaks off.
    #[error("Request body breaks off")]
    Broken,
    /// The body did not come in time.
    #[error("Request body did not arrive in time")]
    Late,
    /// The method is not on the list.
    #[error("Method not found")]
    Method,
    /// No node is there, or none answers.
    #[error("Node is unhealthy")]
    Unhealthy,
    /// So many other requests are under way that this one is not begun.
    #[error("Too many requests are under way")]
    Busy,
    /// The client made more calls than it may in this time.
    #[error("Too many requests from this address, try again after {} s", seconds(.0))]
    Rate(Duration),
    /// The answer is larger than any that is passed on.
    #[error("Answer is too large")]
    Answer,
    /// No archive is there.
    #[error("No snapshot")]
    NoSnapshot,
}

impl RpcError {
    /// As JSON-RPC 2.0 and Agave's `rpc-client-api/src/custom_error.rs` number them.
    const fn code(self) -> i64 {
        match self {
            Self::Parse | Self::Broken => -32700,
            Self::Invalid | Self::Batch | Self::Body | Self::Late => -32600,
            Self::Method => -32601,
            Self::Answer => -32603,
            Self::Unhealthy | Self::Busy => -32005,
            // As public nodes say it.
            Self::Rate(_) => 429,
            Self::NoSnapshot => -32008,
        }
    }

    /// What a call comes to that meets it.
    pub fn outcome(self) -> Outcome {
        let mut error = json!({ "code": self.code(), "message": self.to_string() });
        if self.code() == Self::Unhealthy.code() {
            // Solana's client reads this of an error with this code.
            error["data"] = json!({ "numSlotsBehind": null });
        }
        Outcome::Error(Content::Made(error))
    }

    /// The answer to a request of which nothing is understood. A node answers 200 to all of them
    /// but those that it does not read to the end.
    pub fn reply(self) -> Reply {
        let status = match self {
            Self::Body => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Broken => StatusCode::BAD_REQUEST,
            Self::Late => StatusCode::REQUEST_TIMEOUT,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Rate(_) => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::OK,
        };
        let mut reply = json_reply(status, &self.outcome().under(null()));
        let wait = match self {
            Self::Rate(wait) => Some(seconds(&wait)),
            Self::Busy => Some(1),
            _ => None,
        };
        reply.headers.extend(wait.map(|wait| (RETRY_AFTER, HeaderValue::from(wait))));
        reply
    }
}

/// Whole seconds, as `retry-after` has them, at least one.
fn seconds(wait: &Duration) -> u64 {
    wait.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX).max(1)
}

/// What a call comes to. Cheap to clone: what a node wrote is shared.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A result.
    Result(Content),
    /// An error.
    Error(Content),
}

/// A result or an error.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Content {
    /// Of our own making.
    Made(Value),
    /// As a node wrote it, number by number: it may be large, and nobody here looks into it.
    #[serde(serialize_with = "as_given")]
    Given(Arc<RawValue>),
}

fn as_given<S: Serializer>(given: &Arc<RawValue>, to: S) -> Result<S::Ok, S::Error> {
    given.as_ref().serialize(to)
}

/// The answer to one call, in the order of Agave's keys.
#[derive(Serialize)]
pub(super) struct Document {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Content>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Content>,
    id: Box<RawValue>,
}

pub(super) fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

impl Outcome {
    /// The result that is this text.
    pub fn word(word: &str) -> Self {
        Self::Result(Content::Made(word.into()))
    }

    /// Whether it is no error.
    pub fn is_result(&self) -> bool {
        matches!(self, Self::Result(_))
    }

    /// Bytes of it, about.
    pub fn size(&self) -> usize {
        let (Self::Result(content) | Self::Error(content)) = self;
        match content {
            Content::Given(given) => given.get().len(),
            Content::Made(Value::String(text)) => text.len(),
            Content::Made(_) => 0,
        }
    }

    pub(super) fn under(self, id: Box<RawValue>) -> Document {
        let (result, error) = match self {
            Self::Result(result) => (Some(result), None),
            Self::Error(error) => (None, Some(error)),
        };
        Document { jsonrpc: "2.0", result, error, id }
    }
}

pub(super) fn json_reply<T: Serialize>(status: StatusCode, document: &T) -> Reply {
    match serde_json::to_vec(document) {
        Ok(body) => Reply::json(status, body),
        // Texts, numbers and what was JSON before can be written.
        Err(_) => Reply::empty(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_too_often_is_told_how_long_to_wait() {
        for (millis, expected) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2")] {
            let reply = RpcError::Rate(Duration::from_millis(millis)).reply();
            let headers: Vec<_> =
                reply.headers.iter().filter(|(name, _)| name == RETRY_AFTER).collect();
            assert_eq!(headers, [&(RETRY_AFTER, HeaderValue::from_static(expected))], "{millis}");
            let body: Value = serde_json::from_slice(&reply.body).expect("JSON");
            let message = body["error"]["message"].to_string();
            assert!(message.contains(&format!("after {expected} s")), "{message}");
        }
    }
}
