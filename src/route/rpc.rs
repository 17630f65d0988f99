//! What a node answers on its RPC port besides archives: JSON-RPC, the genesis archive, and its own
//! health. What else it has there (`/v0/*`, web sockets, answers to browsers of other origins) is
//! left out.
//!
//! The body of a POST is parsed into [`Calls`], which know what is answered here and what a node is
//! asked. The question is made anew, of methods that are on the list, and under ids of our own, so
//! that the client may use any id, or one twice; of what the client wrote a node sees parameters
//! alone. The node's answer is checked against the question, and goes out under the client's ids,
//! byte by byte as the client wrote them.

use std::collections::HashMap;

use http::Method;
use http::status::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::failure::Failure;
use super::place::Place;
use super::reply::Reply;
use super::request::group_of;
use super::rpc_outcome::{Content, Outcome, RpcError, json_reply, null};
use crate::config::RpcProxy;
use crate::index::{Generation, TargetId, View};

/// The one method that is never passed on: nodes differ, and none of them knows what is offered.
const HIGHEST: &str = "getHighestSnapshotSlot";
/// How deep arrays and objects of parameters may lie in each other. Agave's parser gives up at 128,
/// and that would be an error in the place of all answers.
const MAX_DEPTH: usize = 64;

/// What only a node can answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeRoute {
    /// POST `/`: calls of JSON-RPC.
    Calls {
        /// Of which group; of any where that is not said.
        group: Option<String>,
    },
    /// `/genesis.tar.bz2`.
    Genesis {
        /// Of which group.
        group: Option<String>,
    },
    /// `/health`: that of the node that a client's calls go to.
    Health {
        /// Of which group.
        group: Option<String>,
    },
}

/// Understands a request for a node; nothing where it is for something else.
pub fn parse_node(
    method: &Method,
    place: &Place,
    query: Option<&str>,
) -> Option<Result<NodeRoute, Failure>> {
    let group = || place.group_or(group_of(query.unwrap_or_default()));
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match &*place.path {
        "/" if *method == Method::POST => Some(Ok(NodeRoute::Calls { group: group() })),
        "/" => Some(Err(Failure::PostOnly)),
        "/genesis.tar.bz2" if reads => Some(Ok(NodeRoute::Genesis { group: group() })),
        "/health" if reads => {
            // A node's has no query.
            Some(Ok(NodeRoute::Health { group: place.group_or(None) }))
        }
        "/genesis.tar.bz2" | "/health" => Some(Err(Failure::Method)),
        _ => None,
    }
}

/// The nodes that are asked: those of the group that is named. Where none is, those of the groups
/// that hold what the short forms lead to, while there are any: what nodes tell is then of the
/// cluster that the archives are of.
pub fn nodes_asked<T>(
    mut nodes: Vec<(TargetId, T)>,
    view: &View,
    group: Option<&str>,
) -> Vec<(TargetId, T)> {
    if let Some(group) = group {
        nodes.retain(|(target, _)| &*target.group == group);
        return nodes;
    }
    let Some(offered) = view.best(None).ok().flatten() else { return nodes };
    let holds = |target: &TargetId| view.is_held(&offered.full, Some(&target.group));
    if nodes.iter().any(|(target, _)| holds(target)) {
        nodes.retain(|(target, _)| holds(target));
    }
    nodes
}

/// A node's word about its health; nothing where it is none of Agave's.
pub fn health_word(body: &[u8]) -> Option<Outcome> {
    let word = match body.trim_ascii() {
        b"ok" => "ok",
        // The longer one is of nodes before Agave 2.
        b"behind" | b"transaction status behind" => "behind",
        b"unknown" => "unknown",
        _ => return None,
    };
    Some(Outcome::word(word))
}

/// A node's word about its health, passed on.
pub fn node_health(word: &Outcome) -> Option<Reply> {
    match word {
        Outcome::Result(Content::Made(Value::String(word))) => {
            Some(Reply::text(StatusCode::OK, word.clone()))
        }
        Outcome::Result(_) | Outcome::Error(_) => None,
    }
}

/// The calls of one request, in order.
#[derive(Clone, Debug)]
pub struct Calls {
    form: Form,
    calls: Vec<Call>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Single,
    Batch,
}

#[derive(Clone, Debug)]
struct Call {
    /// As the client wrote it: of a number that no double can hold, all digits.
    id: Box<RawValue>,
    /// The method, where it is one of those that are answered.
    method: Option<Box<str>>,
    course: Course,
}

/// What is done about a call.
#[derive(Clone, Debug)]
enum Course {
    /// The call is answered here.
    Here(Outcome),
    /// A node is asked.
    Node(Ask),
}

/// What a node is asked by a call. Calls of which it is the same need but one answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ask {
    method: Box<str>,
    /// JSON, as the client wrote it.
    params: Option<Box<str>>,
}

impl Ask {
    /// The method under which a node's page about its health is known here. None has a slash.
    pub const HEALTH: &str = "/health";

    /// A call of this method; parameters are JSON.
    pub fn new(method: &str, params: Option<&str>) -> Self {
        Self { method: method.into(), params: params.map(Box::from) }
    }

    /// The method.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Bytes of it.
    pub fn size(&self) -> usize {
        self.method.len() + self.params.as_ref().map_or(0, |params| params.len())
    }
}

/// What a node is asked at once: each call once.
#[derive(Clone, Debug)]
pub struct Question(Vec<Ask>);

/// An answer to all that a node was asked, in the order of the question.
#[derive(Clone, Debug)]
pub struct Answers(Vec<Outcome>);

impl Answers {
    /// The outcome of each of them.
    pub fn into_outcomes(self) -> Vec<Outcome> {
        self.0
    }
}

/// What a node says to a question.
#[derive(Clone, Debug)]
pub enum Said {
    /// An answer to each call.
    All(Answers),
    /// One error under the id `null`, or none, in the place of all answers. What is wrong may be
    /// the question: some nodes know no batches. Another node may take it.
    Refused(Answers),
}

/// Why an answer of a node is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    /// Not JSON, or another shape than that of the question.
    #[error("the answer is not one of JSON-RPC")]
    Shape,
    /// Not every call was answered once and under its own id.
    #[error("the answer is not one to what was asked")]
    Id,
}

impl Calls {
    /// Reads a body of a bounded length. `offered` is what short forms lead to.
    pub fn read(
        body: &[u8],
        rules: &RpcProxy,
        offered: Option<Generation>,
    ) -> Result<Self, RpcError> {
        let document: &RawValue = serde_json::from_slice(body).map_err(|_| RpcError::Parse)?;
        let (form, documents) = if document.get().starts_with('[') {
            let items: Vec<&RawValue> =
                serde_json::from_str(document.get()).map_err(|_| RpcError::Parse)?;
            (Form::Batch, items)
        } else {
            (Form::Single, vec![document])
        };
        if documents.is_empty() {
            return Err(RpcError::Invalid);
        }
        if documents.len() > rules.max_batch {
            return Err(RpcError::Batch);
        }
        let calls = documents.into_iter().filter_map(|call| Call::read(call, rules, offered));
        Ok(Self { form, calls: calls.collect() })
    }

    /// Calls in this request.
    pub fn count(&self) -> usize {
        self.calls.len()
    }

    /// Each call, by its method where that is one of those that are answered, and whether it has
    /// a result.
    pub fn ends<'a>(
        &'a self,
        outcomes: &'a HashMap<Ask, Outcome>,
    ) -> impl Iterator<Item = (Option<&'a str>, bool)> {
        self.calls.iter().map(move |call| {
            let outcome = match &call.course {
                Course::Here(outcome) => Some(outcome),
                Course::Node(ask) => outcomes.get(ask),
            };
            (call.method.as_deref(), outcome.is_some_and(Outcome::is_result))
        })
    }

    /// What a node is to be asked, each once, in order.
    pub fn asks(&self) -> Vec<Ask> {
        let mut asks: Vec<Ask> = Vec::new();
        for call in &self.calls {
            if let Course::Node(ask) = &call.course
                && !asks.contains(ask)
            {
                asks.push(ask.clone());
            }
        }
        asks
    }

    /// The answer to the client; an error to each call that wants an answer of a node and has none.
    pub fn reply(self, outcomes: &HashMap<Ask, Outcome>) -> Reply {
        let mut documents = Vec::with_capacity(self.calls.len());
        for call in self.calls {
            let outcome = match call.course {
                Course::Here(outcome) => outcome,
                Course::Node(ask) => {
                    let known = outcomes.get(&ask).cloned();
                    known.unwrap_or_else(|| RpcError::Unhealthy.outcome())
                }
            };
            documents.push(outcome.under(call.id));
        }
        match (self.form, &documents[..]) {
            // There were notifications and nothing else, which nobody wants an answer to.
            (_, []) => Reply::empty(StatusCode::OK),
            (Form::Single, [document, ..]) => json_reply(StatusCode::OK, document),
            (Form::Batch, documents) => json_reply(StatusCode::OK, &documents),
        }
    }
}

impl Question {
    /// A question of these calls; nothing where nothing is asked.
    pub fn new(asks: Vec<Ask>) -> Option<Self> {
        (!asks.is_empty()).then_some(Self(asks))
    }

    /// As a node gets it.
    pub fn body(&self) -> Option<Vec<u8>> {
        let posed = self.0.iter().enumerate().map(|(id, ask)| Posed::new(id, ask));
        let posed: Option<Vec<Posed<'_>>> = posed.collect();
        match &posed?[..] {
            [single] => serde_json::to_vec(single).ok(),
            several => serde_json::to_vec(several).ok(),
        }
    }

    /// An error to all of it.
    pub fn failed(&self, error: RpcError) -> Answers {
        Answers(vec![error.outcome(); self.0.len()])
    }

    /// Checks what a node answered to the question.
    pub fn check(&self, body: &[u8]) -> Result<Said, BadAnswer> {
        let asked = self.0.len();
        if let Some(error) = refusal(body) {
            return Ok(Said::Refused(Answers(vec![error; asked])));
        }
        let documents = match asked {
            0 => return Err(BadAnswer::Shape),
            1 => serde_json::from_slice(body).map(|single: &RawValue| vec![single]),
            _ => serde_json::from_slice(body),
        };
        let mut outcomes = vec![None; asked];
        for document in documents.map_err(|_| BadAnswer::Shape)? {
            let document: Answered = object(document.get()).ok_or(BadAnswer::Shape)?;
            let id: usize = serde_json::from_str(document.id.get()).map_err(|_| BadAnswer::Id)?;
            let outcome = document.outcome().ok_or(BadAnswer::Shape)?;
            let place = outcomes.get_mut(id).filter(|place| place.is_none());
            *place.ok_or(BadAnswer::Id)? = Some(outcome);
        }
        let outcomes: Option<Vec<Outcome>> = outcomes.into_iter().collect();
        outcomes.map(|outcomes| Said::All(Answers(outcomes))).ok_or(BadAnswer::Id)
    }
}

impl Call {
    /// Nothing for a notification. No method has an effect, so that one need not be passed on.
    fn read(call: &RawValue, rules: &RpcProxy, offered: Option<Generation>) -> Option<Self> {
        let invalid =
            |id| Some(Self { id, method: None, course: Course::Here(RpcError::Invalid.outcome()) });
        let Some(Written { jsonrpc, id, method, params }) = object(call.get()) else {
            return invalid(null());
        };
        if id.as_ref().is_some_and(|id| id.get().starts_with(['[', '{', 't', 'f'])) {
            return invalid(null());
        }
        let is_version_2 = jsonrpc.as_ref().and_then(Value::as_str) == Some("2.0");
        let good_params = params.as_ref().is_none_or(|params| is_good(params.get()));
        let method = match method {
            Some(Value::String(method)) if is_version_2 && good_params => method,
            _ => return invalid(id.unwrap_or_else(null)),
        };
        let id = id?;
        let course = if !rules.methods.contains(&*method) {
            Course::Here(RpcError::Method.outcome())
        } else if method == HIGHEST {
            Course::Here(highest(offered))
        } else {
            Course::Node(Ask::new(&method, params.as_deref().map(RawValue::get)))
        };
        let method = rules.methods.get(&*method).cloned();
        Some(Self { id, method, course })
    }
}

/// A call as a client writes it. A key that comes twice makes it none: two readers could take one
/// of them each.
#[derive(Deserialize)]
struct Written {
    jsonrpc: Option<Value>,
    #[serde(default, deserialize_with = "even_null")]
    id: Option<Box<RawValue>>,
    method: Option<Value>,
    params: Option<Box<RawValue>>,
}

/// A call as a node gets it.
#[derive(Serialize)]
struct Posed<'a> {
    jsonrpc: &'static str,
    id: usize,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<&'a RawValue>,
}

impl<'a> Posed<'a> {
    fn new(id: usize, Ask { method, params }: &'a Ask) -> Option<Self> {
        // What was JSON in the request is so now.
        let params = params.as_deref().map(serde_json::from_str).transpose().ok()?;
        Some(Self { jsonrpc: "2.0", id, method, params })
    }
}

/// Parses an object: for what is derived an array would do as well.
fn object<'de, T: Deserialize<'de>>(text: &'de str) -> Option<T> {
    let object = Some(text).filter(|text| text.starts_with('{'));
    object.and_then(|text| serde_json::from_str(text).ok())
}

/// Whether parameters are an array or an object that is not too deep. They are JSON.
fn is_good(params: &str) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in params.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => depth += 1,
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return false;
        }
    }
    params.starts_with(['[', '{'])
}

/// What the short forms lead to, in the words of a node.
fn highest(offered: Option<Generation>) -> Outcome {
    let Some(Generation { full, incremental }) = offered else {
        return RpcError::NoSnapshot.outcome();
    };
    let incremental = incremental.map(|incremental| incremental.slot().0);
    let slots = json!({ "full": full.slot().0, "incremental": incremental });
    Outcome::Result(Content::Made(slots))
}

/// What a node answers to one call.
#[derive(Deserialize)]
struct Answered {
    #[serde(default = "null")]
    id: Box<RawValue>,
    /// A result may be `null`.
    #[serde(default, deserialize_with = "even_null")]
    result: Option<Box<RawValue>>,
    #[serde(default)]
    error: Option<Box<RawValue>>,
}

fn even_null<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Deserialize::deserialize(from).map(Some)
}

/// The error that a node gives in the place of all answers.
fn refusal(body: &[u8]) -> Option<Outcome> {
    let document: &RawValue = serde_json::from_slice(body).ok()?;
    let document: Answered =
        object(document.get()).filter(|it: &Answered| it.id.get() == "null")?;
    document.outcome().filter(|outcome| matches!(outcome, Outcome::Error(_)))
}

impl Answered {
    fn outcome(self) -> Option<Outcome> {
        match (self.result, self.error) {
            (Some(result), None) => Some(Outcome::Result(Content::Given(result.into()))),
            (result, Some(error)) => {
                let no_result = result.is_none_or(|result| result.get() == "null");
                let is_error = no_result && error.get().starts_with('{');
                is_error.then_some(Outcome::Error(Content::Given(error.into())))
            }
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;
    use crate::index::{Catalog, Event, Listed, Policy, Publish};
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::time::{Duration, Instant, UNIX_EPOCH};

    const FULL: &str = "snapshot-1000-426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY.tar.zst";
    const INCREMENTAL: &str =
        "incremental-snapshot-1000-1200-8vQepw761FeA5b4iboDRDtN4o1vM6qcS4SD8E19FcYeC.tar.zst";

    fn rules() -> RpcProxy {
        let methods = ["getVersion", "getSlot", "getHighestSnapshotSlot"];
        let methods = methods.into_iter().map(Box::from).collect();
        RpcProxy { methods, max_body: 1000, max_batch: 3, per_client_rate: 50 }
    }

    fn pair() -> Generation {
        let incremental = Some(INCREMENTAL.parse().expect("valid"));
        Generation { full: FULL.parse().expect("valid"), incremental }
    }

    fn all(said: Result<Said, BadAnswer>) -> Answers {
        match said.expect("good") {
            Said::All(answers) => answers,
            Said::Refused(_) => panic!("refused"),
        }
    }

    fn read(body: &str) -> Calls {
        Calls::read(body.as_bytes(), &rules(), Some(pair())).expect(body)
    }

    /// What a node is asked for these calls.
    fn posed(calls: &Calls) -> Question {
        Question::new(calls.asks()).expect("a node is asked")
    }

    fn answered(calls: &Calls, answers: Option<Answers>) -> Reply {
        let outcomes = answers.map(Answers::into_outcomes).unwrap_or_default();
        calls.clone().reply(&calls.asks().into_iter().zip(outcomes).collect())
    }

    fn text(reply: &Reply) -> Value {
        serde_json::from_slice(&reply.body).unwrap_or_default()
    }

    #[test]
    fn routes() {
        let calls =
            |group: Option<&str>| Some(Ok(NodeRoute::Calls { group: group.map(str::to_owned) }));
        let genesis =
            |group: Option<&str>| Some(Ok(NodeRoute::Genesis { group: group.map(str::to_owned) }));
        for (method, path, query, expected) in [
            (Method::POST, "/", None, calls(None)),
            (Method::POST, "/", Some("group=a"), calls(Some("a"))),
            (Method::POST, "/", Some("group="), calls(None)),
            (Method::GET, "/", None, Some(Err(Failure::PostOnly))),
            (Method::OPTIONS, "/", None, Some(Err(Failure::PostOnly))),
            (Method::GET, "/genesis.tar.bz2", None, genesis(None)),
            (Method::HEAD, "/genesis.tar.bz2", Some("group=b"), genesis(Some("b"))),
            (Method::POST, "/genesis.tar.bz2", None, Some(Err(Failure::Method))),
            (Method::POST, "//", None, calls(None)),
            (Method::POST, "", None, None),
            (Method::POST, "/.", None, None),
            (Method::GET, "/health", None, Some(Ok(NodeRoute::Health { group: None }))),
            (Method::POST, "/health", None, Some(Err(Failure::Method))),
            (Method::GET, "//health/", None, Some(Ok(NodeRoute::Health { group: None }))),
            (Method::GET, "/genesis.tar.bz2/", Some("group=b"), genesis(Some("b"))),
            (Method::GET, "/health/.", None, None),
            (Method::GET, "/%2Fgenesis.tar.bz2", None, None),
            (Method::GET, "/v1/genesis.tar.bz2", None, None),
        ] {
            assert_eq!(
                parse_node(&method, &Place::root(path), query),
                expected,
                "{method} {path} {query:?}"
            );
        }
    }

    fn view(groups: &[(&'static str, &str)]) -> View {
        let mut catalog = Catalog::default();
        let at = Now { instant: Instant::now(), wall: UNIX_EPOCH };
        for (group, name) in groups {
            let name = name.parse().expect("valid");
            let archives =
                vec![Listed { name, size: None, modified: None, tag: None, location: None }];
            let target = target(group);
            catalog.apply(Event::Answered { target, at, archives });
        }
        let (pair_hold, publish) = (Duration::ZERO, Publish::Seen);
        let policy = Policy { probe_failures: 3, pair_hold, publish };
        let names = ["a", "b", "c"].map(Arc::from);
        catalog.view(&View::default(), &names, policy, at.instant)
    }

    fn target(group: &str) -> TargetId {
        TargetId { group: group.into(), authority: "10.0.0.1:8899".into() }
    }

    #[test]
    fn which_nodes_are_asked() {
        let newer = FULL.replace("1000", "2000");
        let nothing = view(&[]);
        let of_a = view(&[("a", FULL), ("b", &newer[..]), ("c", &newer[..])]);
        let of_one = view(&[("a", FULL), ("b", FULL), ("c", &newer[..])]);
        for (view, nodes, group, expected) in [
            (&of_a, "abc", Some("a"), "a"),
            (&of_a, "bc", Some("a"), ""),
            // The newest is offered, and these hold it.
            (&of_a, "abc", None, "bc"),
            (&of_a, "ac", None, "c"),
            // What is offered is held by no group with nodes, or nothing is.
            (&of_one, "ab", None, "ab"),
            (&nothing, "ab", None, "ab"),
            (&nothing, "ab", Some("b"), "b"),
            (&of_a, "", None, ""),
        ] {
            let nodes: Vec<(TargetId, char)> =
                nodes.chars().map(|group| (target(&group.to_string()), group)).collect();
            let asked = nodes_asked(nodes, view, group);
            let asked: String = asked.into_iter().map(|(_, group)| group).collect();
            assert_eq!(asked, expected, "{group:?}");
        }
    }

    /// What is answered without a node, whatever it is.
    #[test]
    fn answered_here() {
        let error = |code: i64, message: &str, id: Value| {
            let error = json!({ "code": code, "message": message });
            json!({ "jsonrpc": "2.0", "error": error, "id": id })
        };
        let invalid = |id: Value| error(-32600, "Invalid request", id);
        let not_found = |id: Value| error(-32601, "Method not found", id);
        let slots = json!({ "full": 1000, "incremental": 1200 });
        for (body, expected) in [
            (r#"{"jsonrpc":"2.0","id":1,"method":"getBalance"}"#, not_found(1.into())),
            (r#"{"jsonrpc":"2.0","id":"a b","method":""}"#, not_found("a b".into())),
            (r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#, not_found(Value::Null)),
            (r#"{"jsonrpc":"2.0","id":-1.5,"method":"GETSLOT"}"#, not_found((-1.5).into())),
            (r#"{"jsonrpc":"2.0","id":1,"id":1,"method":"getSlot"}"#, invalid(Value::Null)),
            (r#"{"jsonrpc":"2.0","id":1,"method":"x","method":"getSlot"}"#, invalid(Value::Null)),
            (r#"["2.0",1,"getSlot"]"#, vec![invalid(Value::Null); 3].into()),
            (r#"{"jsonrpc":"2.0","id":[1],"method":"getSlot"}"#, invalid(Value::Null)),
            (r#"{"jsonrpc":"2.0","id":true,"method":"getSlot"}"#, invalid(Value::Null)),
            (r#"{"jsonrpc":"1.0","id":1,"method":"getSlot"}"#, invalid(1.into())),
            (r#"{"id":1,"method":"getSlot"}"#, invalid(1.into())),
            (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, invalid(1.into())),
            (r#"{"jsonrpc":"2.0","id":1}"#, invalid(1.into())),
            (r#"{"jsonrpc":"2.0","id":1,"method":"getSlot","params":1}"#, invalid(1.into())),
            (r#"{"jsonrpc":"2.0","method":7}"#, invalid(Value::Null)),
            ("1", invalid(Value::Null)),
            ("{}", invalid(Value::Null)),
            ("[1, {}]", json!([invalid(Value::Null), invalid(Value::Null)])),
            (
                r#"{"jsonrpc":"2.0","id":9,"method":"getHighestSnapshotSlot"}"#,
                json!({ "jsonrpc": "2.0", "result": slots, "id": 9 }),
            ),
            (r#"{"jsonrpc":"2.0","method":"getSlot"}"#, Value::Null),
            (r#"[{"jsonrpc":"2.0","method":"getSlot"}]"#, Value::Null),
        ] {
            let calls = read(body);
            assert_eq!(calls.asks(), [], "{body}");
            let reply = answered(&calls, None);
            assert_eq!((reply.status, text(&reply)), (StatusCode::OK, expected), "{body}");
        }
    }

    #[test]
    fn refused_as_a_whole() {
        for (body, expected) in [
            ("", RpcError::Parse),
            ("{", RpcError::Parse),
            ("getSlot", RpcError::Parse),
            ("{} {}", RpcError::Parse),
            ("[]", RpcError::Invalid),
            ("[1,2,3,4]", RpcError::Batch),
        ] {
            let refused = Calls::read(body.as_bytes(), &rules(), None);
            assert_eq!(refused.err(), Some(expected), "{body}");
        }
        let deep = "[".repeat(100_000);
        let refused = Calls::read(deep.as_bytes(), &rules(), None);
        assert_eq!(refused.err(), Some(RpcError::Parse));
        for (error, status, code) in [
            (RpcError::Parse, 200, -32700),
            (RpcError::Invalid, 200, -32600),
            (RpcError::Batch, 200, -32600),
            (RpcError::Body, 413, -32600),
            (RpcError::Broken, 400, -32700),
            (RpcError::Late, 408, -32600),
            (RpcError::Unhealthy, 200, -32005),
            (RpcError::Busy, 503, -32005),
            (RpcError::Rate(Duration::from_millis(1200)), 429, 429),
            (RpcError::Answer, 200, -32603),
        ] {
            let reply = error.reply();
            let answer = text(&reply);
            assert_eq!((reply.status.as_u16(), &answer["id"]), (status, &Value::Null));
            assert_eq!(answer["error"]["code"], code, "{error}");
        }
    }

    #[test]
    fn what_is_offered_is_told_as_a_node_would() {
        let full = Generation { incremental: None, ..pair() };
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"getHighestSnapshotSlot"}"#;
        for (offered, key, expected) in [
            (Some(full), "result", json!({ "full": 1000, "incremental": null })),
            (None, "error", json!({ "code": -32008, "message": "No snapshot" })),
        ] {
            let calls = Calls::read(body.as_bytes(), &rules(), offered).expect(body);
            assert_eq!(text(&answered(&calls, None))[key], expected);
        }
        let unlisted = RpcProxy { methods: [Box::from("getSlot")].into(), ..rules() };
        let calls = Calls::read(body.as_bytes(), &unlisted, Some(pair())).expect(body);
        assert_eq!(text(&answered(&calls, None))["error"]["code"], -32601);
    }

    const SINGLE: &str =
        r#"{"jsonrpc":"2.0","id":"x","method":"getSlot","params":[{"commitment":"finalized"}]}"#;
    const BATCH: &str = r#"[{"jsonrpc":"2.0","id":5,"method":"getSlot"},
        {"jsonrpc":"2.0","id":5,"method":"getHighestSnapshotSlot"},
        {"jsonrpc":"2.0","id":"x","method":"getVersion","params":null}]"#;

    #[test]
    fn a_node_is_asked_anew_and_answers_in_any_order() {
        let calls = read(SINGLE);
        let question: Value =
            serde_json::from_slice(&posed(&calls).body().expect("asked")).expect("JSON");
        let params = json!([{ "commitment": "finalized" }]);
        let expected = json!({ "jsonrpc": "2.0", "id": 0, "method": "getSlot", "params": params });
        assert_eq!(question, expected);
        let answers = all(posed(&calls).check(br#"{"jsonrpc":"2.0","id":0,"result":7}"#));
        let expected = json!({ "jsonrpc": "2.0", "id": "x", "result": 7 });
        assert_eq!(text(&answered(&calls, Some(answers))), expected);

        let calls = read(BATCH);
        let question: Value =
            serde_json::from_slice(&posed(&calls).body().expect("asked")).expect("JSON");
        let expected = json!([
            { "jsonrpc": "2.0", "id": 0, "method": "getSlot" },
            { "jsonrpc": "2.0", "id": 1, "method": "getVersion" },
        ]);
        assert_eq!(question, expected);
        let answers = r#"[{"id":1,"error":{"code":1}},{"id":0,"result":null,"error":null}]"#;
        let answers = all(posed(&calls).check(answers.as_bytes()));
        let expected = json!([
            { "jsonrpc": "2.0", "id": 5, "result": null },
            { "jsonrpc": "2.0", "id": 5, "result": { "full": 1000, "incremental": 1200 } },
            { "jsonrpc": "2.0", "id": "x", "error": { "code": 1 } },
        ]);
        assert_eq!(text(&answered(&calls, Some(answers))), expected);

        let alone = text(&answered(&read(BATCH), None));
        for (at, code) in [(0, json!(-32005)), (1, Value::Null), (2, json!(-32005))] {
            assert_eq!(alone[at]["error"]["code"], code);
        }
    }

    #[test]
    fn what_is_asked_twice_is_asked_once_and_answered_twice() {
        let slot = |id: u8, params: &str| {
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"getSlot"{params}}}"#)
        };
        let finalized = r#","params":[{"commitment":"finalized"}]"#;
        let body = format!("[{},{},{}]", slot(1, ""), slot(2, finalized), slot(3, ""));
        let calls = read(&body);
        let finalized = Ask::new("getSlot", Some(r#"[{"commitment":"finalized"}]"#));
        assert_eq!(calls.asks(), [Ask::new("getSlot", None), finalized]);
        let answers = all(posed(&calls).check(br#"[{"id":0,"result":7},{"id":1,"result":5}]"#));
        let results: Vec<Value> = text(&answered(&calls, Some(answers)))
            .as_array()
            .into_iter()
            .flatten()
            .map(|answer| json!([answer["id"], answer["result"]]))
            .collect();
        assert_eq!(results, [json!([1, 7]), json!([2, 5]), json!([3, 7])]);
    }

    #[test]
    fn answers_that_do_not_fit_the_question() {
        for (body, answer, expected) in [
            (SINGLE, "", BadAnswer::Shape),
            (SINGLE, "<html>", BadAnswer::Shape),
            (SINGLE, "null", BadAnswer::Shape),
            (SINGLE, r#"[{"id":0,"result":1}]"#, BadAnswer::Shape),
            (SINGLE, r#"{"result":1}"#, BadAnswer::Id),
            (SINGLE, r#"{"id":0}"#, BadAnswer::Shape),
            (SINGLE, r#"{"id":0,"result":1,"error":{}}"#, BadAnswer::Shape),
            (SINGLE, r#"{"id":0,"error":"no"}"#, BadAnswer::Shape),
            (SINGLE, r#"{"id":1,"result":1}"#, BadAnswer::Id),
            (SINGLE, r#"{"id":"x","result":1}"#, BadAnswer::Id),
            (SINGLE, r#"{"id":null,"result":1}"#, BadAnswer::Id),
            (SINGLE, r#"{"id":null,"error":"no"}"#, BadAnswer::Id),
            (SINGLE, r#"{"id":0.0,"result":1}"#, BadAnswer::Id),
            (SINGLE, r#"{"id":0,"id":0,"result":1}"#, BadAnswer::Shape),
            (BATCH, r#"{"id":0,"result":1}"#, BadAnswer::Shape),
            (BATCH, r#"[{"id":0,"result":1}]"#, BadAnswer::Id),
            (BATCH, r#"[{"id":0,"result":1},{"id":0,"result":2}]"#, BadAnswer::Id),
            (BATCH, r#"[{"id":0,"result":1},{"id":2,"result":2}]"#, BadAnswer::Id),
        ] {
            let refused = posed(&read(body)).check(answer.as_bytes());
            assert_eq!(refused.err(), Some(expected), "{answer}");
        }
    }

    #[test]
    fn one_error_in_the_place_of_all_answers() {
        let error = json!({ "code": -32600, "message": "no batches", "data": [1] });
        let with_id = json!({ "jsonrpc": "2.0", "error": error, "id": null }).to_string();
        let without = json!({ "error": error }).to_string();
        for (body, answer) in [(SINGLE, &with_id), (BATCH, &with_id), (BATCH, &without)] {
            let calls = read(body);
            let Ok(Said::Refused(answers)) = posed(&calls).check(answer.as_bytes()) else {
                panic!("it is refused: {body}");
            };
            let answer = text(&answered(&calls, Some(answers)));
            let last = answer.get(2).unwrap_or(&answer);
            assert_eq!((&last["error"], &last["id"]), (&error, &json!("x")), "{body}");
        }
    }

    #[test]
    fn depth_of_parameters() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for (params, expected) in [
            ("[]".to_owned(), true),
            ("{}".to_owned(), true),
            ("1".to_owned(), false),
            ("\"[\"".to_owned(), false),
            (nested(MAX_DEPTH), true),
            (nested(MAX_DEPTH + 1), false),
            (format!("{{\"a\":{}}}", nested(MAX_DEPTH)), false),
            // As many one after the other, and in texts.
            (format!("[{}[]]", "[],".repeat(1000)), true),
            (format!(r#"["{}"]"#, r#"[\"["#.repeat(1000)), true),
            (format!(r#"["\\",{}]"#, nested(MAX_DEPTH)), false),
        ] {
            assert_eq!(is_good(&params), expected, "{params:.40}");
        }
    }

    #[test]
    fn words_of_health() {
        for (body, expected) in [
            ("ok", Some("ok")),
            (" behind\n", Some("behind")),
            ("unknown", Some("unknown")),
            ("transaction status behind", Some("behind")),
            ("OK", None),
            ("ok ok", None),
            ("", None),
        ] {
            let reply = health_word(body.as_bytes()).and_then(|word| node_health(&word));
            assert_eq!(reply, expected.map(|word| Reply::text(StatusCode::OK, word)), "{body}");
        }
    }

    /// Documents that look like calls, of which some are.
    fn call() -> impl Strategy<Value = Value> {
        let scalar = || {
            prop_oneof![
                Just(None),
                Just(Some(Value::Null)),
                any::<i64>().prop_map(|number| Some(number.into())),
                ".{0,5}".prop_map(|text| Some(text.into())),
                Just(Some(json!([]))),
            ]
        };
        let method = prop_oneof![
            Just(Some(json!("getSlot"))),
            Just(Some(json!("getHighestSnapshotSlot"))),
            scalar()
        ];
        let version = prop_oneof![4 => Just(Some(json!("2.0"))), 1 => scalar()];
        (scalar(), method, version, scalar()).prop_map(|(id, method, version, params)| {
            let pairs = [("id", id), ("method", method), ("jsonrpc", version), ("params", params)];
            let present = pairs
                .into_iter()
                .filter_map(|(key, value)| value.map(|value| (key.to_owned(), value)));
            Value::Object(present.collect())
        })
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body: Vec<u8>, answer: Vec<u8>) {
            if let Ok(calls) = Calls::read(&body, &rules(), None) {
                if let Some(question) = Question::new(calls.asks()) {
                    prop_assert!(question.body().is_some());
                    let _ = question.check(&answer);
                }
                answered(&calls, None);
            }
            prop_assert!(posed(&read(BATCH)).check(&answer).is_err());
        }

        #[test]
        fn an_answer_has_the_ids_of_the_request(batch in proptest::collection::vec(call(), 1..=3)) {
            let body = Value::from(batch.clone()).to_string();
            let calls = Calls::read(body.as_bytes(), &rules(), Some(pair())).expect("a batch");
            let good = |id: &Value| id.is_null() || id.is_number() || id.is_string();
            // What is not understood is answered under `null`, where it has no id that could be
            // repeated; a notification is not answered.
            let ids: Vec<Value> = batch.iter().filter_map(|call| {
                let is_call = call["jsonrpc"] == "2.0" && call["method"].is_string()
                    && (call["params"].is_null() || call["params"].is_array());
                match call.get("id") {
                    None => (!is_call).then_some(Value::Null),
                    Some(id) => Some(if good(id) { id.clone() } else { Value::Null }),
                }
            }).collect();
            let question = Question::new(calls.asks());
            let asked = calls.asks().len();
            let results: Vec<Value> =
                (0..asked).rev().map(|id| json!({ "id": id, "result": id })).collect();
            let answer = if asked == 1 { results[0].clone() } else { results.into() };
            let said = question.map(|question| question.check(answer.to_string().as_bytes()));
            let answers = match said {
                Some(Ok(Said::All(answers))) => Some(answers),
                None | Some(Ok(Said::Refused(_)) | Err(_)) => None,
            };
            prop_assert_eq!(answers.is_some(), asked > 0);
            for answers in [answers, None] {
                let answer = text(&answered(&calls, answers));
                let found: Vec<Value> = answer.as_array().into_iter().flatten()
                    .map(|answer| answer["id"].clone()).collect();
                prop_assert_eq!(&found, &ids);
            }
        }
    }
}
