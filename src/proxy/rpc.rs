//! What only a node can answer: bodies are read, nodes are asked one after the other, and all of it
//! in bounded time and memory. What is asked and what is answered is decided in `route`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use pingora_proxy::Session;
use tokio::time::{Instant as Deadline, timeout, timeout_at};

use super::circles;
use super::edge::Edge;
use super::genesis::Genesis;
use super::head::client_address;
use super::rpc_body;
use super::shared_calls::{self, SharedCalls};
use super::shares::{Share, Shares};
use crate::config::{Config, RpcProxy};
use crate::hops::CdnLoop;
use crate::index::{TargetId, View};
use crate::route::{
    self, Ask, CallRate, Calls, ChoiceKey, ClientNet, Failure, NodeRoute, Outcome, Question, Reply,
    RpcError, Said, SourceFailure, order_nodes,
};
use crate::target::{Backoff, Node, NodeError, Nodes};

/// Longest that one node is waited for, where `limits.read_timeout` is not shorter.
const MAX_PATIENCE: Duration = Duration::from_secs(3);
/// Longest that a client waits for all of them: Agave's gives up after 5 s. What is left of it must
/// be half of what one node has, so that none is blamed for the time that others took.
const MAX_WAIT: Duration = Duration::from_millis(4500);
/// Longest that an answer waits for room.
const ROOM_PATIENCE: Duration = Duration::from_secs(1);
/// Most nodes that are asked for one request.
const MAX_NODES: usize = 3;
/// Most requests that are being asked or written, in all and of one client.
const PLACES: (u32, u32) = (1024, 128);
/// Most times that a call waits for an answer that somebody else has asked for.
const MAX_JOINED: usize = 3;
/// Most questions that nodes are asked at once, in all and for one client.
const QUESTIONS: (u32, u32) = (32, 8);
/// Bytes of an answer for which there is always room: places bound how many there are.
const FREE: usize = 16 << 10;
/// Room for larger answers, from when they are read until they are written, in all and for one
/// client: in KiB. While an answer is made ready, it takes twice its room.
const ROOM: (u32, u32) = (64 << 10, 16 << 10);
/// What clients may ask of nodes.
pub(super) struct NodeProxy {
    pub(super) rules: RpcProxy,
    nodes: Arc<Nodes>,
    choice: ChoiceKey,
    /// Its own: who is bad at this may be good at archives.
    backoff: Backoff,
    rate: Mutex<CallRate>,
    shared: Arc<SharedCalls>,
    pub(super) bodies: Arc<Shares>,
    places: Arc<Shares>,
    questions: Arc<Shares>,
    room: Arc<Shares>,
    genesis: Genesis,
    /// Longest that a client is waited for.
    pub(super) read_timeout: Duration,
}

/// Who asks, and of whom.
struct Asker<'a> {
    client: IpAddr,
    group: Option<&'a str>,
    /// The proxies that the request came through.
    came: CdnLoop,
}

/// Why a node did not answer.
enum Miss {
    /// By its own fault.
    Node(String),
    /// By what it was asked. The next one is asked all the same, and none of them rests: a client
    /// must not be able to take nodes from the others.
    Question(RpcError),
    /// There is no room for what it answers.
    Room,
}

/// What an answer takes until it is written: its bytes keep it.
struct Kept {
    body: Bytes,
    _place: Share,
    _room: Option<Share>,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
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
            Ok(NodeRoute::Health) => self.node_health(proxy, session).await.map(Ok),
            Ok(NodeRoute::Genesis { group }) => Some(self.genesis(proxy, session, group).await),
            Ok(NodeRoute::Calls { group }) => Some(self.calls(proxy, session, group).await),
            Err(failure) => Some(Err(failure)),
        }
    }

    /// The group that is asked, and an error where there is no such group.
    fn asker<'a>(
        &'a self,
        session: &Session,
        group: Option<&'a str>,
    ) -> Result<Asker<'a>, Failure> {
        let group = group.or(self.settings.default_group.as_deref());
        self.published.load().best(group).map_err(|_| Failure::UnknownGroup)?;
        let came = circles::came(session.req_header());
        Ok(Asker { client: client_address(session), group, came })
    }

    /// Nothing where the edge's own word has to do.
    async fn node_health(&self, proxy: &NodeProxy, session: &mut Session) -> Option<Reply> {
        let asker = self.asker(session, None).ok()?;
        if !session.as_downstream_mut().is_body_empty() {
            return None;
        }
        proxy.health(&asker, &self.published.load_full()).await
    }

    async fn genesis(
        &self,
        proxy: &NodeProxy,
        session: &mut Session,
        group: Option<String>,
    ) -> Result<Reply, Failure> {
        let asker = self.asker(session, group.as_deref())?;
        if !session.as_downstream_mut().is_body_empty() {
            return Err(Failure::Body);
        }
        proxy.genesis(&asker, &self.published.load_full()).await
    }

    async fn calls(
        &self,
        proxy: &NodeProxy,
        session: &mut Session,
        group: Option<String>,
    ) -> Result<Reply, Failure> {
        let asker = self.asker(session, group.as_deref())?;
        // Before its body is read, which is not worth the while of who is over the rate.
        if let Err(error) = proxy.charge(asker.client, 1) {
            return Ok(error.reply());
        }
        let body = match proxy.body(session, asker.client).await {
            Ok(body) => body,
            Err(error) => return Ok(error.reply()),
        };
        // Once all of it is there: nobody is to keep a place by dripping.
        let place = timeout(proxy.patience(), proxy.places.take(asker.client, 1)).await;
        let Ok(Some(place)) = place else { return Ok(RpcError::Busy.reply()) };
        // One view for all that is told of this moment.
        let view = self.published.load_full();
        let offered = view.best(asker.group).map_err(|_| Failure::UnknownGroup)?;
        let calls = Calls::read(&body, &proxy.rules, offered).and_then(|calls| {
            proxy.charge(asker.client, calls.count().saturating_sub(1))?;
            Ok(calls)
        });
        let (reply, room) = match calls {
            Ok(calls) => proxy.calls(calls, &asker, &view).await,
            Err(error) => (error.reply(), None),
        };
        let kept = Kept { body: reply.body, _place: place, _room: room };
        Ok(Reply { body: Bytes::from_owner(kept), ..reply })
    }
}

impl NodeProxy {
    /// Nothing where the configuration wants none.
    pub(super) fn new(config: &Config, choice: ChoiceKey, nodes: Arc<Nodes>) -> Option<Self> {
        let shares = |(all, each)| Shares::new(all, each);
        let rules = config.rpc_proxy.clone()?;
        Some(Self {
            rate: Mutex::new(CallRate::new(rules.per_client_rate)),
            shared: Arc::default(),
            bodies: shares(rpc_body::ROOM),
            rules,
            nodes,
            choice,
            backoff: Backoff::default(),
            places: shares(PLACES),
            questions: shares(QUESTIONS),
            room: shares(ROOM),
            genesis: Genesis::default(),
            read_timeout: config.limits.read_timeout,
        })
    }

    fn patience(&self) -> Duration {
        self.read_timeout.min(MAX_PATIENCE)
    }

    /// Counts calls of a client.
    fn charge(&self, client: IpAddr, calls: usize) -> Result<(), RpcError> {
        let calls = u32::try_from(calls).unwrap_or(u32::MAX);
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        rate.take(ClientNet::of(client), calls, Instant::now()).map_err(RpcError::Rate)
    }

    async fn calls(&self, calls: Calls, asker: &Asker<'_>, view: &View) -> (Reply, Option<Share>) {
        let deadline = Deadline::now() + MAX_WAIT;
        let mut known = HashMap::new();
        let mut room = None;
        // Shared with all whose first node is the same: a client that stays with one is told of no
        // slot that lies before what it was told already.
        let first = self.nodes_for(asker, view).next().map(|(target, _)| target);
        let Some(first) = first else { return (calls.reply(&known), None) };
        for _ in 0..MAX_JOINED {
            let (mut leads, mut coming) = (Vec::new(), Vec::new());
            for ask in calls.asks() {
                if known.contains_key(&ask) {
                    continue;
                }
                match self.shared.share(&first, &ask, Instant::now()) {
                    shared_calls::Share::Known(outcome) => drop(known.insert(ask, outcome)),
                    shared_calls::Share::Coming(answer) => coming.push((ask, answer)),
                    shared_calls::Share::Ask(lead) => leads.push((ask, lead)),
                }
            }
            if leads.is_empty() && coming.is_empty() {
                break;
            }
            if let Some(share) = self.lead(leads, &mut known, asker, view, deadline).await {
                room = Some(share);
            }
            for (ask, answer) in coming {
                let Ok(Some(outcome)) = timeout_at(deadline, answer.wait()).await else { continue };
                known.insert(ask, outcome);
            }
        }
        if room.is_none() {
            match self.room_for(&known, asker).await {
                Ok(share) => room = share,
                Err(error) => return (error.reply(), None),
            }
        }
        (calls.reply(&known), room)
    }

    /// Asks what nobody else does, and tells those who wait for it.
    async fn lead(
        &self,
        leads: Vec<(Ask, shared_calls::Lead)>,
        known: &mut HashMap<Ask, Outcome>,
        asker: &Asker<'_>,
        view: &View,
        deadline: Deadline,
    ) -> Option<Share> {
        let question = Question::new(leads.iter().map(|(ask, _)| ask.clone()).collect())?;
        let (said, room) = self.ask(&question, asker, view, deadline).await;
        let is_answer = matches!(said, Said::All(_));
        let (Said::All(answers) | Said::Refused(answers)) = said;
        for ((ask, lead), outcome) in leads.into_iter().zip(answers.into_outcomes()) {
            lead.tell(&outcome, is_answer, Instant::now());
            known.insert(ask, outcome);
        }
        room
    }

    /// Room for answers that others asked for, where they are large.
    async fn room_for(
        &self,
        known: &HashMap<Ask, Outcome>,
        asker: &Asker<'_>,
    ) -> Result<Option<Share>, RpcError> {
        let bytes: usize = known.values().map(Outcome::size).sum();
        if bytes <= FREE {
            return Ok(None);
        }
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
        let room = timeout(ROOM_PATIENCE, self.room.take(asker.client, kib)).await;
        room.map_err(|_| RpcError::Busy)
    }

    /// Asks nodes until one answers. What comes of it where none does is an error to each call.
    async fn ask(
        &self,
        question: &Question,
        asker: &Asker<'_>,
        view: &View,
        deadline: Deadline,
    ) -> (Said, Option<Share>) {
        let mut last = (Said::Refused(question.failed(RpcError::Unhealthy)), None);
        let Some(body) = question.body().map(Bytes::from) else { return last };
        let turn = timeout_at(deadline, self.questions.take(asker.client, 1)).await;
        let Ok(Some(_turn)) = turn else { return last };
        for (target, node) in self.nodes_for(asker, view) {
            let Some(until) = self.until(deadline) else { break };
            match self.put(&node, &body, question, asker, until).await {
                Ok((said @ Said::All(_), room)) => {
                    self.backoff.succeeded(&target);
                    return (said, room);
                }
                Ok(refused) => last = refused,
                Err(Miss::Question(error)) => last = (Said::Refused(question.failed(error)), None),
                Err(Miss::Node(failure)) => self.failed(&target, &failure),
                Err(Miss::Room) => {
                    log::warn!("no room for an answer to {}: slow clients have it", asker.client);
                    break;
                }
            }
        }
        last
    }

    /// Until when the next node is waited for; nothing where that would be too short to blame it.
    fn until(&self, deadline: Deadline) -> Option<Deadline> {
        let (now, patience) = (Deadline::now(), self.patience());
        let is_fair = deadline.saturating_duration_since(now) >= patience / 2;
        is_fair.then(|| deadline.min(now + patience))
    }

    /// Puts a question to one node.
    async fn put(
        &self,
        node: &Node,
        body: &Bytes,
        question: &Question,
        asker: &Asker<'_>,
        until: Deadline,
    ) -> Result<(Said, Option<Share>), Miss> {
        let miss = |error| Miss::of(node, &error);
        let late = |_| Miss::Node("no answer in time".to_owned());
        let head = timeout_at(until, node.ask(body.clone())).await;
        let mut coming = head.map_err(late)?.map_err(miss)?;
        let first = timeout_at(until, coming.read(FREE)).await.map_err(late)?.map_err(miss)?;
        let (body, room) = if let Some(body) = first {
            (body, None)
        } else {
            let begun = Deadline::now();
            let kib = u32::try_from(coming.most().div_ceil(1 << 10)).unwrap_or(u32::MAX);
            let room = timeout(ROOM_PATIENCE, self.room.take(asker.client, kib)).await;
            let room = room.ok().flatten().ok_or(Miss::Room)?;
            // That was not the node's time.
            let until = until + begun.elapsed();
            let rest = timeout_at(until, coming.read_all()).await;
            (rest.map_err(late)?.map_err(miss)?, Some(room))
        };
        let said = question.check(&body).map_err(|error| Miss::Node(error.to_string()))?;
        Ok((said, room))
    }

    /// A node's word about its health, which is asked for once for all who ask at once.
    async fn health(&self, asker: &Asker<'_>, view: &View) -> Option<Reply> {
        let (first, _) = self.nodes_for(asker, view).next()?;
        let ask = Ask::new(Ask::HEALTH, None);
        for _ in 0..MAX_JOINED {
            match self.shared.share(&first, &ask, Instant::now()) {
                shared_calls::Share::Known(word) => return route::node_health(&word),
                shared_calls::Share::Coming(answer) => {
                    let word = timeout(MAX_WAIT, answer.wait()).await.ok()?;
                    if let Some(word) = word {
                        return route::node_health(&word);
                    }
                }
                shared_calls::Share::Ask(lead) => {
                    let word = self.ask_health(asker, view).await;
                    let none = || RpcError::Unhealthy.outcome();
                    let word = word.unwrap_or_else(none);
                    lead.tell(&word, word.is_result(), Instant::now());
                    return route::node_health(&word);
                }
            }
        }
        None
    }

    async fn ask_health(&self, asker: &Asker<'_>, view: &View) -> Option<Outcome> {
        let deadline = Deadline::now() + MAX_WAIT;
        let turn = self.questions.take(asker.client, 1);
        let _turn = timeout_at(deadline, turn).await.ok()??;
        for (target, node) in self.nodes_for(asker, view) {
            let until = self.until(deadline)?;
            match timeout_at(until, node.health()).await {
                Ok(Ok(word)) => match route::health_word(&word) {
                    Some(word) => return Some(word),
                    None => log::debug!("target {target} has no word about its health"),
                },
                // A node that does not have this page may be good for all else.
                Ok(Err(error @ NodeError::Status { .. })) => {
                    let described = node.described(&error);
                    log::debug!("target {target} has no word about its health: {described}");
                }
                Ok(Err(error)) => self.failed(&target, &node.described(&error)),
                Err(_) => self.failed(&target, "no word about its health in time"),
            }
        }
        None
    }

    /// The genesis archive: one that was given lately, or that of the first node that has it.
    async fn genesis(&self, asker: &Asker<'_>, view: &View) -> Result<Reply, Failure> {
        let genesis = self.genesis.of(asker.group);
        if let Some(known) = genesis.known(Instant::now()) {
            return Ok(genesis_reply(known));
        }
        // Of two edges that ask each other neither waits for the turn of the other.
        let turn = (!asker.came.is_of_an_edge()).then(|| genesis.turn.acquire());
        let _turn = match turn {
            Some(turn) => timeout(self.read_timeout, turn)
                .await
                .map_err(|_| Failure::Sources(SourceFailure::Timeout))?
                .map(Some)
                .map_err(|_| Failure::Internal)?,
            None => None,
        };
        if let Some(known) = genesis.known(Instant::now()) {
            return Ok(genesis_reply(known));
        }
        let mut outcome = Failure::NotHeld;
        for (target, node) in self.nodes_for(asker, view) {
            let failure = match timeout(self.read_timeout, node.genesis()).await {
                Ok(Ok(archive)) => {
                    return Ok(genesis_reply(genesis.learn(archive, Instant::now())));
                }
                Ok(Err(NodeError::NoGenesis)) => continue,
                Ok(Err(error)) => {
                    outcome = Failure::Sources(SourceFailure::Broken);
                    node.described(&error)
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

    fn nodes_for(
        &self,
        asker: &Asker<'_>,
        view: &View,
    ) -> impl Iterator<Item = (TargetId, Arc<Node>)> {
        let now = Instant::now();
        let nodes = route::nodes_asked(self.nodes.all(), view, asker.group);
        let resting = |target: &TargetId| self.backoff.is_resting(target, now);
        let nodes = order_nodes(self.choice, asker.client, nodes, resting).into_iter();
        // An edge that asks is not asked, nor is any other one for it where there is a node.
        let others = nodes.filter_map(|(target, node)| Some((target, node.after(&asker.came)?)));
        let mut others: Vec<_> = others.collect();
        if asker.came.is_of_an_edge() && others.iter().any(|(_, node)| !node.is_an_edge()) {
            others.retain(|(_, node)| !node.is_an_edge());
        }
        others.into_iter().take(MAX_NODES)
    }

    /// Notes a node's failure: one line for each of its rests, however many clients meet it.
    fn failed(&self, target: &TargetId, failure: &str) {
        let now = Instant::now();
        if !self.backoff.is_resting(target, now) {
            log::warn!("target {target} does not answer as a node: {failure}");
        }
        self.backoff.failed(target, now);
    }
}

impl Miss {
    fn of(node: &Node, error: &NodeError) -> Self {
        match error {
            NodeError::Question => Self::Question(RpcError::Body),
            NodeError::Answer => Self::Question(RpcError::Answer),
            _ => Self::Node(node.described(error)),
        }
    }
}

fn genesis_reply(archive: Bytes) -> Reply {
    let media = HeaderValue::from_static("application/x-bzip2");
    Reply { status: StatusCode::OK, headers: vec![(CONTENT_TYPE, media)], body: archive }
}
