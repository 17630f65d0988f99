//! The slot of the cluster, asked from one RPC node now and then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;
use serde::Deserialize;
use tokio::sync::watch;

use super::client::{Client, ClientError};
use super::remarks::Remarks;
use crate::error_chain::chain;
use crate::snapshot::ArchiveName;

/// Time that the RPC node has for one answer, as in the Go tracker.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The slot that the RPC node answered last, and those of its archives.
#[derive(Debug, Default)]
pub struct ReferenceSlot {
    told: watch::Sender<Option<Told>>,
    archives: Mutex<Option<Archives>>,
    /// Grows when another node is asked: what the one of before tells is of no use.
    node: AtomicU64,
}

/// The slots of the newest archives that a node has (`getHighestSnapshotSlot`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
struct Archives {
    full: u64,
    incremental: Option<u64>,
}

impl Archives {
    fn has(self, name: &ArchiveName) -> bool {
        let Self { full, incremental } = self;
        name.base_slot().0 == full && (name.is_full() || incremental == Some(name.slot().0))
    }
}

/// What the RPC node told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// The slot.
    pub(super) slot: u64,
    /// When it was told.
    pub(super) at: Instant,
    /// False once the node did not answer since then.
    pub(super) is_current: bool,
}

/// Why there is no slot, and what to do about it.
#[derive(Debug, thiserror::Error)]
enum ReferenceError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("no answer within {TIMEOUT:?}; it hangs, or is far away")]
    Timeout,
    #[error("it answered with status {}{said}; {}", status.as_u16(), meaning(*status))]
    Status { status: StatusCode, said: String },
    #[error("it refuses `getSlot`: {message} (code {code}); {}", refusal(*code))]
    Refused { code: i64, message: String },
    #[error(
        "it answered with {what}; set `rpc` to the URL, with port and path, of a node's JSON-RPC"
    )]
    NoJsonRpc { what: String },
}

/// Most characters of an answer that are told.
const MAX_TOLD: usize = 80;

/// What a status says of the URL that is asked, or of who is asked there.
fn meaning(status: StatusCode) -> &'static str {
    match status.as_u16() {
        300..=399 => "it redirects: set `rpc` to where that leads",
        401 | 403 | 407 => "it wants a key: set `rpc` to a URL with one that is good",
        404 | 405 | 410 => {
            "there is no JSON-RPC: set `rpc` to the URL, with port and path, of a node's"
        }
        429 => "it wants fewer questions: raise `scrape_interval`, or set `rpc` to another node",
        500..=599 => {
            "it, or what is before it, is not well: see its log, or set `rpc` to another node"
        }
        _ => "set `rpc` to the URL, with port and path, of a node's JSON-RPC",
    }
}

/// What an error of JSON-RPC says of the node.
fn refusal(code: i64) -> &'static str {
    match code {
        -32601 => "set `rpc` to a node that answers it",
        -32005 | -32004 => "it is behind, or begins: it is asked again",
        _ => "see its log, or set `rpc` to another node",
    }
}

impl ReferenceSlot {
    /// The slot; `None` while the RPC node does not answer.
    pub fn slot(&self) -> Option<u64> {
        self.told.borrow().filter(|told| told.is_current).map(|told| told.slot)
    }

    /// Whether the RPC node has an archive of this name's slots. Its hash it does not tell.
    pub fn has_archive_of(&self, name: &ArchiveName) -> bool {
        let archives = *self.archives.lock().unwrap_or_else(PoisonError::into_inner);
        archives.is_some_and(|archives| archives.has(name))
    }

    /// Forgets what another node told.
    pub(super) fn forget(&self) {
        self.told.send_modify(|told| {
            // Under the lock that what is told is taken in under.
            self.node.fetch_add(1, Ordering::AcqRel);
            *told = None;
        });
        *self.archives.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What is told, always that of this moment.
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Told>> {
        self.told.subscribe()
    }

    fn set(&self, node: u64, slot: Option<u64>) {
        let now = Instant::now();
        self.told.send_if_modified(|told| {
            if self.node.load(Ordering::Acquire) != node {
                return false;
            }
            let before = *told;
            *told = match (slot, before) {
                (Some(slot), _) => Some(Told { slot, at: now, is_current: true }),
                (None, before) => before.map(|told| Told { is_current: false, ..told }),
            };
            before != *told
        });
    }

    fn set_archives(&self, node: u64, archives: Option<Archives>) {
        let mut known = self.archives.lock().unwrap_or_else(PoisonError::into_inner);
        if self.node.load(Ordering::Acquire) == node {
            *known = archives;
        }
    }

    /// Asks the RPC node at `url` every `interval`; never returns.
    pub(super) async fn keep(&self, client: Client, url: String, interval: Duration) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut remarks, node) = (Remarks::default(), self.node.load(Ordering::Acquire));
        loop {
            ticks.tick().await;
            let asked = tokio::time::timeout(TIMEOUT, ask(&client, &url)).await;
            match asked.unwrap_or(Err(ReferenceError::Timeout)) {
                Ok(slot) => {
                    self.set(node, Some(slot));
                    let archives = tokio::time::timeout(TIMEOUT, archives(&client, &url)).await;
                    self.set_archives(node, archives.ok().flatten());
                    if remarks.well() {
                        log::info!("the RPC node answers again, slot {slot}");
                    }
                }
                Err(error) => {
                    self.set(node, None);
                    self.set_archives(node, None);
                    if remarks.wrong(&error.reason(), Instant::now()) {
                        log::warn!("the RPC node does not tell its slot: {}", chain(&error));
                    }
                }
            }
        }
    }
}

impl ReferenceError {
    /// What is told apart: not what differs each time, such as how far a node is behind.
    fn reason(&self) -> String {
        match self {
            Self::Client(_) => "client".to_owned(),
            Self::Timeout => "timeout".to_owned(),
            Self::Status { status, .. } => format!("status {}", status.as_u16()),
            Self::Refused { code, .. } => format!("code {code}"),
            Self::NoJsonRpc { .. } => "no JSON-RPC".to_owned(),
        }
    }
}

async fn ask(client: &Client, url: &str) -> Result<u64, ReferenceError> {
    const REQUEST: &str =
        r#"{"jsonrpc":"2.0","id":1,"method":"getSlot","params":[{"commitment":"finalized"}]}"#;
    let (head, body) = client.post_json(url, REQUEST).await?;
    slot_in(head.status, &body)
}

/// The archives that the node has; nothing where it has none, or does not tell: nothing but the
/// order in which unknown names are looked for depends on it.
async fn archives(client: &Client, url: &str) -> Option<Archives> {
    #[derive(Deserialize)]
    struct Answer {
        result: Archives,
    }
    const REQUEST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"getHighestSnapshotSlot"}"#;
    let (head, body) = client.post_json(url, REQUEST).await.ok()?;
    let answer = (head.status == StatusCode::OK).then(|| serde_json::from_slice(&body));
    answer?.ok().map(|Answer { result }| result)
}

/// The slot that an answer tells. Pure.
fn slot_in(status: StatusCode, body: &[u8]) -> Result<u64, ReferenceError> {
    #[derive(Deserialize)]
    struct Answer {
        result: Option<serde_json::Value>,
        error: Option<Complaint>,
    }
    #[derive(Deserialize)]
    struct Complaint {
        code: i64,
        #[serde(default)]
        message: String,
    }
    let answer = serde_json::from_slice::<Answer>(body);
    if status != StatusCode::OK {
        let said = match answer {
            Ok(Answer { error: Some(Complaint { code, message }), .. }) => {
                format!(" and `{}` (code {code})", shown(message.as_bytes()))
            }
            _ => String::new(),
        };
        return Err(ReferenceError::Status { status, said });
    }
    match answer {
        Ok(Answer { error: Some(Complaint { code, message }), .. }) => {
            Err(ReferenceError::Refused { code, message: shown(message.as_bytes()) })
        }
        Ok(Answer { result: Some(result), .. }) => {
            let other =
                || ReferenceError::NoJsonRpc { what: "a result that is no slot".to_owned() };
            result.as_u64().ok_or_else(other)
        }
        Ok(Answer { result: None, error: None }) => {
            Err(ReferenceError::NoJsonRpc { what: "JSON that is no JSON-RPC".to_owned() })
        }
        Err(_) => Err(ReferenceError::NoJsonRpc { what: kind(body) }),
    }
}

/// What a body is that is no answer.
fn kind(body: &[u8]) -> String {
    let text = body.trim_ascii();
    match text.first() {
        None => "nothing".to_owned(),
        Some(b'<') => format!("a web page (`{}`)", shown(text)),
        Some(_) if serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok() => {
            "JSON that is no JSON-RPC".to_owned()
        }
        Some(_) => format!("what is no JSON (`{}`)", shown(text)),
    }
}

/// The beginning of what an answer says, without control characters.
fn shown(bytes: &[u8]) -> String {
    bytes.iter().take(MAX_TOLD).copied().collect::<Vec<u8>>().escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_of_the_slots_that_the_node_tells() {
        let name = |slots: &str| -> ArchiveName {
            let kind = if slots.contains('-') { "incremental-snapshot" } else { "snapshot" };
            format!("{kind}-{slots}-{}.tar.zst", "1".repeat(32)).parse().expect("valid")
        };
        let check = |archives: Option<(u64, Option<u64>)>, slots: &str, expected: bool| {
            let reference = ReferenceSlot::default();
            reference.set_archives(
                0,
                archives.map(|(full, incremental)| Archives { full, incremental }),
            );
            let found = reference.has_archive_of(&name(slots));
            assert_eq!(found, expected, "{slots} of {archives:?}");
        };
        let pair = Some((1000, Some(1200)));
        check(None, "1000", false);
        check(pair, "1000", true);
        check(pair, "1200", false);
        check(pair, "1000-1200", true);
        check(pair, "1000-1100", false);
        check(pair, "900-1200", false);
        check(Some((1000, None)), "1000", true);
        check(Some((1000, None)), "1000-1200", false);
        let told = r#"{"full":1000,"incremental":null}"#;
        let told: Archives = serde_json::from_str(told).expect("as nodes tell it");
        assert_eq!(told, Archives { full: 1000, incremental: None });
    }

    #[test]
    fn an_answer_is_a_slot_or_says_what_it_means_and_what_to_change() {
        let check = |status: u16, body: &str, expected: Result<u64, &[&str]>| {
            let status = StatusCode::from_u16(status).expect("valid");
            let found = slot_in(status, body.as_bytes()).map_err(|error| chain(&error));
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{body}"),
                (Err(found), Err(parts)) => {
                    for part in parts {
                        assert!(found.contains(part), "{status} {body}: {found}");
                    }
                    assert!(!found.contains("line 1") && found.len() < 500, "{found}");
                    assert!(!found.chars().any(char::is_control), "{found}");
                }
                (found, expected) => panic!("{body}: {found:?} instead of {expected:?}"),
            }
        };
        check(200, r#"{"jsonrpc":"2.0","id":1,"result":1150}"#, Ok(1150));
        check(200, r#"{"result":1150,"error":null}"#, Ok(1150));
        check(500, "", Err(&["status 500", "is not well"]));
        check(502, "<html>", Err(&["status 502", "is not well"]));
        check(401, "", Err(&["status 401", "wants a key"]));
        check(403, r#"{"error":"no key"}"#, Err(&["status 403", "wants a key"]));
        check(404, "Not Found", Err(&["status 404", "set `rpc` to the URL"]));
        check(405, "", Err(&["status 405", "set `rpc` to the URL"]));
        check(301, "", Err(&["status 301", "redirects"]));
        check(429, "", Err(&["status 429", "fewer questions"]));
        check(418, "", Err(&["status 418", "set `rpc`"]));
        let behind = r#"{"error":{"code":-32005,"message":"Node is behind by 42 slots"}}"#;
        check(200, behind, Err(&["`getSlot`: Node is behind by 42 slots (code -32005)", "behind"]));
        check(503, behind, Err(&["status 503 and `Node is behind by 42 slots` (code -32005)"]));
        let unknown = r#"{"error":{"code":-32601,"message":"Method not found"}}"#;
        check(200, unknown, Err(&["Method not found (code -32601)", "answers it"]));
        check(200, "<!DOCTYPE html>\n<p>\u{1b}[31m", Err(&["a web page (`<!DOCTYPE html>"]));
        check(200, "ok", Err(&["what is no JSON (`ok`)", "set `rpc`"]));
        check(200, "", Err(&["with nothing", "set `rpc`"]));
        check(200, " \r\n", Err(&["with nothing"]));
        check(200, "{", Err(&["what is no JSON (`{`)"]));
        check(200, "[]", Err(&["JSON that is no JSON-RPC"]));
        check(200, "{}", Err(&["JSON that is no JSON-RPC"]));
        check(200, "1150", Err(&["JSON that is no JSON-RPC"]));
        check(200, r#"{"result":"1150"}"#, Err(&["a result that is no slot"]));
        check(200, r#"{"result":-1}"#, Err(&["a result that is no slot"]));
        check(200, &"x".repeat(100_000), Err(&["what is no JSON (`xxx"]));
    }
}
