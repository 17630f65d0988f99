//! Texts of a language: JSON-RPC, and the configuration.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use serde_json::value::RawValue;
use snapedge::config::{self, RpcProxy};
use snapedge::route::{Calls, Question, Said};

/// Methods that may be asked for, as an operator lists them.
const METHODS: [&str; 3] = ["getHealth", "getHighestSnapshotSlot", "getSlot"];
const MAX_BATCH: usize = 10;

fn rules() -> RpcProxy {
    RpcProxy {
        methods: METHODS.into_iter().map(Box::from).collect(),
        max_body: 50 << 10,
        max_batch: MAX_BATCH,
        per_client_rate: 50,
    }
}

/// A body of calls is answered by JSON with as many answers as it has calls, each under the
/// client's own id; a node is asked for listed methods, each call once, under ids that count from
/// 0; and a node's answer to another question is none.
pub fn rpc_body(data: &[u8]) {
    let rules = rules();
    if data.len() > rules.max_body {
        return;
    }
    let calls = match Calls::read(data, &rules, None) {
        Ok(calls) => calls,
        Err(error) => return drop(json(&error.reply().body)),
    };
    assert!(calls.count() <= MAX_BATCH);
    let asks = calls.asks();
    assert!(asks.len() <= calls.count());
    assert!(asks.iter().all(|ask| rules.methods.contains(ask.method())));
    let different: HashSet<_> = asks.iter().collect();
    assert_eq!(different.len(), asks.len(), "each once");
    if let Some(question) = Question::new(asks) {
        check_question(&question);
    }
    check_reply(calls, data);
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("an answer in JSON")
}

fn check_question(question: &Question) {
    let posed = written(&question.body().expect("what was JSON"));
    for (id, call) in posed.iter().enumerate() {
        let call = fields(call).expect("an object");
        assert_eq!(call["id"].get(), id.to_string());
        assert_eq!(call["jsonrpc"].get(), "\"2.0\"");
        assert!(call.get("params").is_none_or(|params| params.get().starts_with(['[', '{'])));
    }
    let answer = |id: usize| serde_json::json!({ "jsonrpc": "2.0", "id": id, "result": id });
    let mut answers: Vec<Value> = (0..posed.len()).map(answer).collect();
    let said = question.check(&as_asked(&answers));
    assert!(matches!(said, Ok(Said::All(all)) if all.clone().into_outcomes().len() == posed.len()));
    answers[0]["id"] = posed.len().into();
    assert!(question.check(&as_asked(&answers)).is_err(), "under another id");
}

/// Answers as a node writes them: one by itself, several in a list.
fn as_asked(answers: &[Value]) -> Vec<u8> {
    match answers {
        [one] => one.to_string().into_bytes(),
        several => Value::from(several.to_vec()).to_string().into_bytes(),
    }
}

/// The fields of an object, as they are written: numbers of an id may be larger than any that is
/// counted with. `None` where it is none.
fn fields(text: &RawValue) -> Option<HashMap<String, Box<RawValue>>> {
    serde_json::from_str(text.get()).ok()
}

/// One value, or each of a list, as they are written.
fn written(text: &[u8]) -> Vec<Box<RawValue>> {
    let one: Box<RawValue> = serde_json::from_slice(text).expect("JSON");
    serde_json::from_slice(text).unwrap_or_else(|_| vec![one])
}

fn check_reply(calls: Calls, body: &[u8]) {
    let count = calls.count();
    let reply = calls.reply(&HashMap::new());
    if count == 0 {
        return assert!(reply.body.is_empty());
    }
    assert_eq!(reply.body.starts_with(b"["), body.trim_ascii_start().starts_with(b"["));
    let asked = written(body).into_iter().filter_map(|call| fields(&call));
    let ids: HashSet<String> =
        asked.filter_map(|call| call.get("id").map(|id| id.get().to_owned())).collect();
    let answers = written(&reply.body);
    assert_eq!(answers.len(), count);
    for answer in answers {
        let answer = fields(&answer).expect("an object");
        assert_ne!(answer.contains_key("result"), answer.contains_key("error"));
        let id = answer["id"].get();
        assert!(id == "null" || ids.contains(id), "{id} is nobody's");
    }
}

/// A configuration is good or not, with a reason that is on one line for each error; what it means
/// does not change by a comment behind it; and what it sets fits together.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parsed = config::parse(text);
    let config = match &parsed {
        Err(problems) => {
            assert!(!problems.is_empty());
            return assert!(problems.iter().all(|problem| !problem.message.is_empty()));
        }
        Ok(config) => config,
    };
    assert_eq!(config::parse(&format!("{text}\n# nothing\n")).as_ref(), Ok(config));
    assert!(!config.listen.is_empty() && !config.groups.is_empty());
    let limits = &config.limits;
    assert!(limits.probe_concurrency > 0 && limits.probe_failures > 0 && limits.per_target > 0);
    assert!(limits.total_rate.is_none_or(|rate| rate >= limits.min_rate));
    for group in &config.groups {
        assert!((1..=64).contains(&group.name.len()));
        assert!(!group.name.contains(char::is_control));
    }
    // Printed for an operator who looks at it: it shows no secret, and must not panic.
    assert!(!format!("{config:?}").is_empty());
}
