//! What only a node can answer: bodies are read, nodes are asked one after the other, and all of it
//! in bounded time and memory. What is asked and what is answered is decided in `route`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderValue};
use pingora_proxy::Session;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::edge::{Edge, client_address};
use crate::config::{Config, RpcProxy};
use crate::index::TargetId;
use crate::route::{
    self, Answers, Calls, Failure, NodeRoute, Reply, RpcError, SourceFailure, order_nodes,
};
use crate::target::{Backoff, Node, NodeError, Nodes, chain};

/// Longest that one node is waited for, where `limits.read_timeout` is not shorter: Agave's client
/// waits for 5 s in all, and the next node is to have its turn in that.
const MAX_PATIENCE: Duration = Duration::from_secs(3);
/// Most nodes that are asked for one request.
const MAX_NODES: usize = 3;
/// Most questions under way at once: each answer is held in memory.
const MAX_AT_ONCE: usize = 32;
/// Bytes of a body that is too large which are read all the same: a client that is not heard to its
/// end may not hear the answer either.
const MAX_DISCARDED: usize = 1 << 20;
/// How long a genesis archive is believed. It never changes, but for a cluster that begins anew.
const GENESIS_LIFE: Duration = Duration::from_secs(60);

/// What clients may ask of nodes.
pub(super) struct NodeProxy {
    rules: RpcProxy,
    nodes: Arc<Nodes>,
    /// Its own: who is bad at this may be good at archives.
    backoff: Backoff,
    questions: Semaphore,
    genesis: Genesis,
    /// Longest that a client is waited for.
    read_timeout: Duration,
}

/// The genesis archives that nodes gave.
struct Genesis {
    /// By the group that was asked for, which is a configured one.
    known: Mutex<BTreeMap<Option<String>, (Bytes, Instant)>>,
    /// One is fetched at a time.
    turn: Semaphore,
}

/// Who asks, and of whom.
struct Asker<'a> {
    client: IpAddr,
    group: Option<&'a str>,
}

impl Edge {
    /// The answer to a request for a node, where such are passed on; nothing to any other one.
    pub(super) async fn answer_for_nodes(
        &self,
        session: &mut Session,
    ) -> Option<Result<Reply, Failure>> {
        let proxy = self.rpc.as_ref()?;
        let head = session.req_header();
        match route::parse_node(&head.method, head.uri.path(), head.uri.query())? {
            Ok(route) => Some(self.pass_on(proxy, session, route).await),
            Err(failure) => Some(Err(failure)),
        }
    }

    async fn pass_on(
        &self,
        proxy: &NodeProxy,
        session: &mut Session,
        route: NodeRoute,
    ) -> Result<Reply, Failure> {
        let (NodeRoute::Calls { group } | NodeRoute::Genesis { group }) = &route;
        let group = group.as_deref().or(self.settings.default_group.as_deref());
        let offered = || self.published.load().best(group).map_err(|_| Failure::UnknownGroup);
        let asker = Asker { client: client_address(session), group };
        // Before anything is read or asked.
        offered()?;
        match &route {
            NodeRoute::Genesis { .. } if !session.as_downstream_mut().is_body_empty() => {
                Err(Failure::Body)
            }
            NodeRoute::Genesis { .. } => proxy.genesis(&asker).await,
            NodeRoute::Calls { .. } => {
                let body = match proxy.body(session).await {
                    Ok(body) => body,
                    Err(error) => return Ok(error.reply()),
                };
                match Calls::read(&body, &proxy.rules, offered()?) {
                    Ok(calls) => Ok(proxy.calls(calls, &asker).await),
                    Err(error) => Ok(error.reply()),
                }
            }
        }
    }
}

impl NodeProxy {
    /// Nothing where the configuration wants none.
    pub(super) fn new(config: &Config, nodes: Arc<Nodes>) -> Option<Self> {
        Some(Self {
            rules: config.rpc_proxy.clone()?,
            nodes,
            backoff: Backoff::default(),
            questions: Semaphore::new(MAX_AT_ONCE),
            genesis: Genesis { known: Mutex::default(), turn: Semaphore::new(1) },
            read_timeout: config.limits.read_timeout,
        })
    }

    fn patience(&self) -> Duration {
        self.read_timeout.min(MAX_PATIENCE)
    }

    /// Reads the body of a request.
    async fn body(&self, session: &mut Session) -> Result<Bytes, RpcError> {
        let head = session.req_header();
        let length = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let length = length.and_then(|value| value.parse().ok()).unwrap_or(0_usize);
        let waits = head.headers.contains_key(EXPECT);
        let most = self.rules.max_body;
        if length > most && (waits || length - most > MAX_DISCARDED) {
            return Err(RpcError::Body);
        }
        let read = async {
            let session = session.as_downstream_mut();
            if waits {
                session.write_continue_response().await.map_err(|_| RpcError::Late)?;
            }
            let (mut body, mut discarded) = (BytesMut::new(), 0);
            // What ends by an error is a body that is none, or a client that left.
            while let Some(piece) =
                session.read_request_body().await.map_err(|_| RpcError::Parse)?
            {
                if discarded > 0 || body.len() + piece.len() > most {
                    discarded += piece.len();
                } else {
                    body.extend_from_slice(&piece);
                }
                if discarded > MAX_DISCARDED {
                    break;
                }
            }
            if discarded > 0 { Err(RpcError::Body) } else { Ok(body.freeze()) }
        };
        timeout(self.read_timeout, read).await.unwrap_or(Err(RpcError::Late))
    }

    async fn calls(&self, calls: Calls, asker: &Asker<'_>) -> Reply {
        let answers = match calls.question() {
            Some(question) => self.ask(&calls, question.into(), asker).await,
            None => None,
        };
        calls.reply(answers)
    }

    /// Asks nodes until one answers.
    async fn ask(&self, calls: &Calls, question: Bytes, asker: &Asker<'_>) -> Option<Answers> {
        let _turn = timeout(self.patience(), self.questions.acquire()).await.ok()?.ok()?;
        for (target, node) in self.nodes_for(asker) {
            let answer = timeout(self.patience(), node.ask(question.clone())).await;
            let answers = match answer {
                Ok(Ok(body)) => calls.check(&body).map_err(|error| error.to_string()),
                Ok(Err(error)) => Err(chain(&error)),
                Err(_) => Err(format!("no answer within {:?}", self.patience())),
            };
            match answers {
                Ok(answers) => {
                    self.backoff.succeeded(&target);
                    return Some(answers);
                }
                Err(failure) => self.failed(&target, &failure),
            }
        }
        None
    }

    /// The genesis archive: one that was given lately, or that of the first node that has it.
    async fn genesis(&self, asker: &Asker<'_>) -> Result<Reply, Failure> {
        if let Some(known) = self.genesis.known(asker.group) {
            return Ok(genesis_reply(known));
        }
        let _turn = timeout(self.read_timeout, self.genesis.turn.acquire())
            .await
            .map_err(|_| Failure::Sources(SourceFailure::Timeout))?
            .map_err(|_| Failure::Internal)?;
        if let Some(known) = self.genesis.known(asker.group) {
            return Ok(genesis_reply(known));
        }
        let mut outcome = Failure::NotHeld;
        for (target, node) in self.nodes_for(asker) {
            let failure = match timeout(self.read_timeout, node.genesis()).await {
                Ok(Ok(archive)) => {
                    self.genesis.learn(asker.group, archive.clone());
                    return Ok(genesis_reply(archive));
                }
                Ok(Err(NodeError::NoGenesis)) => continue,
                Ok(Err(error)) => {
                    outcome = Failure::Sources(SourceFailure::Broken);
                    chain(&error)
                }
                Err(_) => {
                    outcome = Failure::Sources(SourceFailure::Timeout);
                    format!("no answer within {:?}", self.read_timeout)
                }
            };
            self.failed(&target, &failure);
        }
        Err(outcome)
    }

    fn nodes_for(&self, asker: &Asker<'_>) -> impl Iterator<Item = (TargetId, Arc<Node>)> {
        let now = Instant::now();
        let nodes = self.nodes.of(asker.group);
        let resting = |target: &TargetId| self.backoff.is_resting(target, now);
        order_nodes(asker.client, nodes, resting).into_iter().take(MAX_NODES)
    }

    fn failed(&self, target: &TargetId, failure: &str) {
        log::warn!("target {target} does not answer as a node: {failure}");
        self.backoff.failed(target, Instant::now());
    }
}

impl Genesis {
    fn known(&self, group: Option<&str>) -> Option<Bytes> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (archive, since) = known.get(&group.map(str::to_owned))?;
        (since.elapsed() < GENESIS_LIFE).then(|| archive.clone())
    }

    fn learn(&self, group: Option<&str>, archive: Bytes) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(group.map(str::to_owned), (archive, Instant::now()));
    }
}

fn genesis_reply(archive: Bytes) -> Reply {
    let media = HeaderValue::from_static("application/x-bzip2");
    Reply { status: StatusCode::OK, headers: vec![(CONTENT_TYPE, media)], body: archive }
}
