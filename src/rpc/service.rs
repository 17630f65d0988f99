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

use super::asker::Asker;
use super::backoff::Backoff;
use super::body::Bodies;
use super::counts::CallCounts;
use super::fair_share::{FairSemaphore, Share};
use super::genesis::Genesis;
use super::shared_calls::{self, SharedCalls};
use crate::config::{Config, RpcProxy};
use crate::configured::Configured;
use crate::hops::CdnLoop;
use crate::index::{TargetId, View};
use crate::published::Published;
use crate::route::{
    self, Ask, CallRate, Calls, ClientNet, Failure, NodeRoute, Outcome, Place, Question, Reply,
    RpcError, Said, SourceFailure, order_nodes,
};
use crate::scrape::{Node, NodeError, Nodes};

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
pub struct NodeProxy {
    published: Arc<Published>,
    nodes: Arc<Nodes>,
    /// Which nodes rest, of this alone: who is bad at calls may be good at archives.
    backoff: Backoff,
    rate: Mutex<CallRate>,
    shared: Arc<SharedCalls>,
    bodies: Bodies,
    places: Arc<FairSemaphore>,
    questions: Arc<FairSemaphore>,
    room: Arc<FairSemaphore>,
    genesis: Genesis,
    counts: Arc<CallCounts>,
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

impl NodeProxy {
    /// The answer to a request of a client for a node, which `came` through others; nothing to
    /// any other one, nor where nothing is passed on to nodes.
    pub async fn answer(
        &self,
        session: &mut Session,
        configured: &Configured,
        (client, place): (IpAddr, &Place),
        came: &CdnLoop,
    ) -> Option<Result<Reply, Failure>> {
        let rules = configured.config.rpc_proxy.as_ref()?;
        let head = session.req_header();
        let asker = |group| Asker { configured, client, group, came: came.clone() };
        match route::parse_node(&head.method, place, head.uri.query())? {
            Ok(NodeRoute::Health { group }) => {
                self.health_for(session, asker(group.as_deref())).await.map(Ok)
            }
            Ok(NodeRoute::Genesis { group }) => {
                Some(self.genesis_for(session, asker(group.as_deref())).await)
            }
            Ok(NodeRoute::Calls { group }) => {
                Some(self.calls_for(session, rules, asker(group.as_deref())).await)
            }
            Err(failure) => Some(Err(failure)),
        }
    }

    /// The one who asks, with the group that is asked; an error where there is no such group.
    fn led<'a>(&self, asker: Asker<'a>) -> Result<Asker<'a>, Failure> {
        let group = asker.group.or(asker.configured.settings.default_group.as_deref());
        self.published.load().best(group).map_err(|_| Failure::UnknownGroup)?;
        Ok(Asker { group, ..asker })
    }

    /// A node's word about its health; nothing where the edge's own word has to do.
    async fn health_for(&self, session: &mut Session, asker: Asker<'_>) -> Option<Reply> {
        let asker = self.led(asker).ok()?;
        if !session.as_downstream_mut().is_body_empty() {
            return None;
        }
        self.health(&asker, &self.published.load_full()).await
    }

    async fn genesis_for(&self, session: &mut Session, asker: Asker<'_>) -> Result<Reply, Failure> {
        let asker = self.led(asker)?;
        if !session.as_downstream_mut().is_body_empty() {
            return Err(Failure::Body);
        }
        self.genesis(&asker, &self.published.load_full()).await
    }

    async fn calls_for(
        &self,
        session: &mut Session,
        rules: &RpcProxy,
        asker: Asker<'_>,
    ) -> Result<Reply, Failure> {
        let asker = self.led(asker)?;
        // Before its body is read, which is not worth the while of who is over the rate.
        if let Err(error) = self.charge(asker.client, 1) {
            return Ok(self.counts.refuse(error));
        }
        let patience = asker.read_timeout();
        let read = self.bodies.read(session, asker.client, rules.max_body, patience);
        let body = match read.await {
            Ok(body) => body,
            Err(error) => return Ok(self.counts.refuse(error)),
        };
        // Once all of it is there: nobody is to keep a place by dripping.
        let place = timeout(asker.patience(), self.places.take(asker.client, 1)).await;
        let Ok(Some(place)) = place else { return Ok(self.counts.refuse(RpcError::Busy)) };
        // One view for all that is told of this moment.
        let view = self.published.load_full();
        let offered = view.best(asker.group).map_err(|_| Failure::UnknownGroup)?;
        let calls = Calls::read(&body, rules, offered).and_then(|calls| {
            self.charge(asker.client, calls.count().saturating_sub(1))?;
            Ok(calls)
        });
        let (reply, room) = match calls {
            Ok(calls) => self.calls(calls, &asker, &view).await,
            Err(error) => (self.counts.refuse(error), None),
        };
        let kept = Kept { body: reply.body, _place: place, _room: room };
        Ok(Reply { body: Bytes::from_owner(kept), ..reply })
    }
}

impl NodeProxy {
    /// A way to these nodes, for what the configuration lets clients ask of them.
    pub fn new(config: &Config, nodes: Arc<Nodes>, published: Arc<Published>) -> Self {
        let shares = |(all, each)| FairSemaphore::new(all, each);
        Self {
            rate: Mutex::new(CallRate::new(rate_of(config))),
            shared: Arc::default(),
            bodies: Bodies::default(),
            published,
            nodes,
            backoff: Backoff::default(),
            places: shares(PLACES),
            questions: shares(QUESTIONS),
            room: shares(ROOM),
            genesis: Genesis::default(),
            counts: Arc::default(),
        }
    }

    /// How many calls there were.
    pub fn counts(&self) -> Arc<CallCounts> {
        Arc::clone(&self.counts)
    }

    /// Goes on under another configuration.
    pub fn apply(&self, config: &Config) {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner).set(rate_of(config));
    }

    /// Forgets what nodes said: by now a group may be another cluster.
    pub fn forget(&self) {
        self.genesis.forget();
        self.shared.forget();
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
        let Some(first) = first else { return (self.counts.reply(calls, &known), None) };
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
                Err(error) => return (self.counts.refuse(error), None),
            }
        }
        (self.counts.reply(calls, &known), room)
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
            let Some(until) = Self::until(asker.patience(), deadline) else { break };
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
    fn until(patience: Duration, deadline: Deadline) -> Option<Deadline> {
        let now = Deadline::now();
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
            let until = Self::until(asker.patience(), deadline)?;
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
            Some(turn) => timeout(asker.read_timeout(), turn)
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
            let failure = match timeout(asker.read_timeout(), node.genesis()).await {
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
                    format!("no answer within {:?}", asker.read_timeout())
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
        let nodes =
            order_nodes(asker.configured.keys.choice, asker.client, nodes, resting).into_iter();
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

/// Most calls of one client in a second; of no matter where none are passed on.
fn rate_of(config: &Config) -> u32 {
    config.rpc_proxy.as_ref().map_or(1, |rules| rules.per_client_rate)
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
