//! Asking one target what it has.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::status::StatusCode;

use super::answer::{MAX_REDIRECTS, archive_at, asks_to_wait, is_redirect};
use super::client::{GroupClient, Place, TargetConnection};
use super::head_probes::{HeadProbe, Shape};
use super::listing::{Listing, MAX_LISTING};
use super::neighbours::Handed;
use super::nodes::Node;
use super::omissions::Omissions;
use super::presence::{self, Heads, Presence, Reason};
use super::probe_error::ProbeError;
use super::redirect::redirected;
use super::short_form::{Remembered, Rest, Word, says_none};
use super::silence::{self, Answers};
use super::states;
use crate::access::Access;
use crate::config::{Group, HostPort, Scheme, TargetKind};
use crate::hops::EdgeId;
use crate::index::{Listed, Location};
use crate::snapshot::ArchiveName;

/// What a target turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nature {
    Rpc,
    Sidecar,
}

/// Asks one target at one of its addresses, again and again, and remembers what that needs.
#[derive(Clone)]
pub(super) struct Prober {
    client: GroupClient,
    target: HostPort,
    authority: Arc<str>,
    scheme: Scheme,
    api_path: String,
    kind: TargetKind,
    /// The connection to it, once it was asked.
    connection: Option<Arc<TargetConnection>>,
    nature: Option<Nature>,
    /// Who it is, where its last answer was that of an edge.
    edge: Option<EdgeId>,
    /// What a node named before. It names only its newest pair, and nothing at all of the old one
    /// once a new full archive is there, but it goes on serving what it still has.
    remembered: Remembered,
    /// What a sidecar listed before.
    listed: Remembered,
    heads: Arc<Heads>,
    rest: Arc<Rest>,
    /// What the last listing said that is not sound.
    omitted: Omissions,
    /// What came in this round, for when it is nothing of use.
    answers: Arc<Mutex<Answers>>,
}

impl Prober {
    /// A prober for one target of a group.
    pub(super) fn new(client: GroupClient, group: &Group, target: HostPort) -> Self {
        Self {
            client,
            scheme: group.scheme,
            authority: target.to_string().into(),
            target,
            api_path: group.api_path.clone(),
            kind: group.kind,
            connection: None,
            nature: None,
            edge: None,
            remembered: Remembered::default(),
            listed: Remembered::default(),
            heads: Arc::default(),
            rest: Arc::default(),
            omitted: Omissions::default(),
            answers: Arc::default(),
        }
    }

    /// The address that it asked last.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.connection.as_ref().map(|connection| connection.address.ip())
    }

    /// This prober without what it remembers of an address: another one may be another machine.
    pub(super) fn forgetful(&self) -> Self {
        Self {
            connection: None,
            nature: None,
            remembered: Remembered::default(),
            listed: Remembered::default(),
            ..self.clone()
        }
    }

    /// Goes on as an entry of the configuration has it now. What is remembered is of no use where
    /// other places are asked, or another service is meant.
    pub(super) fn reconfigure(&mut self, client: GroupClient, group: &Group) {
        let before = (self.scheme, &*self.api_path, self.kind);
        if before == (group.scheme, &*group.api_path, group.kind) {
            let address = self.address();
            let connection = address.and_then(|at| client.connection(&self.target, at).ok());
            (self.connection, self.client) = (connection.map(Arc::new), client);
            // What is remembered is nowhere listed as it was reached before.
            let key = self.client.access().key();
            self.remembered.reach_by(key);
            self.listed.reach_by(key);
        } else {
            *self = Self::new(client, group, self.target.clone());
        }
    }

    /// How long the target wants to be left alone, where it said so in the last round.
    pub(super) fn rest(&self) -> Option<Duration> {
        self.rest.take()
    }

    /// One round: everything that the target has now, by this connection.
    pub(super) async fn probe(
        &mut self,
        connection: &Arc<TargetConnection>,
    ) -> Result<Vec<Listed>, ProbeError> {
        self.omitted = Omissions::default();
        self.connection = Some(Arc::clone(connection));
        // Its own, whoever else it was cloned for.
        self.answers = Arc::default();
        let found = match self.known() {
            Some(Nature::Rpc) => self.rpc(connection).await,
            Some(Nature::Sidecar) => self.sidecar(connection).await.and_then(|listed| listed),
            None => self.find_out(connection).await,
        };
        if found.is_err() {
            // It may come back as something else.
            self.nature = None;
        }
        found
    }

    /// What was asked, what came, and what to change, after a round that brought nothing.
    pub(super) fn told(&self) -> String {
        self.answers().tell()
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        // No change can panic half-way.
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the target is, as far as that is known.
    fn known(&self) -> Option<Nature> {
        match self.kind {
            TargetKind::Rpc => Some(Nature::Rpc),
            TargetKind::Sidecar => Some(Nature::Sidecar),
            TargetKind::Auto => self.nature,
        }
    }

    /// What the target is known to be, for those who look.
    pub(super) fn shown_nature(&self) -> Option<states::Nature> {
        self.known().map(|nature| match nature {
            Nature::Rpc => states::Nature::Node,
            Nature::Sidecar => states::Nature::Sidecar,
        })
    }

    /// The edge that the target is, where its last answer was a list of all that it has.
    pub(super) fn listing_edge(&self) -> Option<&EdgeId> {
        self.edge.as_ref().filter(|_| self.is_sidecar())
    }

    fn is_sidecar(&self) -> bool {
        self.known() == Some(Nature::Sidecar)
    }

    /// The way to the target where its last answer was that of a node.
    pub(super) fn node(&self) -> Option<Node> {
        let is_node = self.known() == Some(Nature::Rpc);
        let connection = self.connection.as_ref().filter(|_| is_node)?;
        let edge = self.edge.clone();
        Some(Node { connection: Arc::clone(connection), root: self.place(connection, "/"), edge })
    }

    /// The head probe of the target, by what its last answer was. What has answered as a node,
    /// and has nothing yet, is one.
    pub(super) fn head_probe(&self) -> Option<HeadProbe> {
        let shape = if self.is_sidecar() { Shape::Sidecar } else { Shape::Rpc };
        let connection = self.connection.as_ref()?;
        let (target, root) = (self.target.clone(), self.place(connection, ""));
        let edge = self.edge.clone();
        Some(HeadProbe { connection: Arc::clone(connection), target, root, shape, edge })
    }

    /// What was left out of the last answer.
    pub(super) fn omitted(&self) -> &Omissions {
        &self.omitted
    }

    /// How the targets of the group are reached.
    pub(super) fn access(&self) -> &Arc<Access> {
        self.client.access()
    }

    /// A sidecar answers its listing; what answers anything else there is asked as a node.
    async fn find_out(&mut self, connection: &TargetConnection) -> Result<Vec<Listed>, ProbeError> {
        let listing = match self.sidecar(connection).await? {
            Ok(archives) => {
                self.nature = Some(Nature::Sidecar);
                return Ok(archives);
            }
            Err(error) => error,
        };
        let archives = self.rpc(connection).await?;
        if !archives.is_empty() {
            self.nature = Some(Nature::Rpc);
        } else if listing.hides_archives() {
            // A sidecar that keeps its listing from us has no short forms to find archives by.
            return Err(listing);
        }
        Ok(archives)
    }

    fn place(&self, connection: &TargetConnection, path: &str) -> Place {
        let (authority, path) = (self.authority.to_string(), format!("{}{path}", self.api_path));
        Place { scheme: self.scheme, address: connection.address, authority, path }
    }

    /// The error that a status is which says that who asks may not.
    fn denied(&self, place: &Place, status: StatusCode) -> Option<ProbeError> {
        let denies = self.access().denies(status);
        denies.then(|| ProbeError::Denied { url: place.url(), status: status.as_u16() })
    }

    /// The listing of a sidecar. The outer error: no answer; the inner one: not a listing.
    async fn sidecar(
        &mut self,
        connection: &TargetConnection,
    ) -> Result<Result<Vec<Listed>, ProbeError>, ProbeError> {
        Ok(match self.list(connection).await? {
            Ok((archives, omitted)) => {
                self.omitted = omitted;
                let found = archives.into_iter().map(|listed| (listed.name, listed)).collect();
                Ok(self.listed.keep(found, Vec::new()))
            }
            Err(error) => self.listed_before(connection, error).await,
        })
    }

    /// What a sidecar listed before and still has, where it only does not want to list it now.
    async fn listed_before(
        &mut self,
        connection: &TargetConnection,
        error: ProbeError,
    ) -> Result<Vec<Listed>, ProbeError> {
        let mut found = BTreeMap::new();
        if !matches!(&error, ProbeError::Status { status, .. } if asks_to_wait(*status)) {
            return Err(error);
        }
        let known = self.listed.look(connection, self.scheme, &self.heads, &mut found).await;
        if found.is_empty() { Err(error) } else { Ok(self.listed.keep(found, known)) }
    }

    /// The listing, with what was left out of it.
    async fn list(
        &mut self,
        connection: &TargetConnection,
    ) -> Result<Result<(Vec<Listed>, Omissions), ProbeError>, ProbeError> {
        let place = self.place(connection, "/v1/snapshots");
        let (head, mut body) = connection.pieces(&place, MAX_LISTING).await?;
        self.answers().note(&place.path, &place.path, head.status, &head.headers);
        self.edge = head.edge(connection.access())?;
        if head.status != StatusCode::OK {
            self.rest.note(&head);
            let status = head.status.as_u16();
            let denied = self.denied(&place, head.status);
            return Ok(Err(denied.unwrap_or(ProbeError::Status { path: place.path, status })));
        }
        let location = |name: &ArchiveName, handed: &Handed| {
            let via = handed.via(self.edge.as_ref(), connection.access().edge()).ok()?;
            Some(Location {
                scheme: self.scheme.as_str(),
                address: connection.address,
                authority: Arc::clone(&self.authority),
                path: format!("{}/v1/snapshot/{name}", self.api_path),
                access: connection.access().key().clone(),
                via,
            })
        };
        let read = Listing::read(&mut body, location).await?;
        let is_list = match &read {
            Ok(_) => silence::Listing::Empty,
            Err(_) => silence::Listing::None,
        };
        self.answers().listing(is_list);
        let media = silence::media(&head.headers);
        Ok(read.map_err(|source| ProbeError::Listing { path: place.path, media, source }))
    }

    /// What a node's short forms lead to, and what it led to before and still has.
    async fn rpc(&mut self, connection: &TargetConnection) -> Result<Vec<Listed>, ProbeError> {
        let full = self.place(connection, "/snapshot.tar.bz2");
        let incremental = self.place(connection, "/incremental-snapshot.tar.bz2");
        let ((edge, full), (_, incremental)) =
            tokio::try_join!(self.follow(connection, full), self.follow(connection, incremental))?;
        self.edge = edge;
        let (mut found, mut refusal) = (BTreeMap::new(), None);
        for (word, full) in [(full, true), (incremental, false)] {
            match word {
                Word::Named(listed) if listed.name.is_full() == full => {
                    found.insert(listed.name, listed);
                }
                Word::Named(_) | Word::None => {}
                Word::NotNow(error) => refusal = Some(error),
            }
        }
        let known = self.remembered.look(connection, self.scheme, &self.heads, &mut found).await;
        match refusal {
            // A node that says "not now" and serves what it named before is well.
            Some(refusal) if found.is_empty() => Err(refusal),
            _ => Ok(self.remembered.keep(found, known)),
        }
    }

    /// Follows a short form to an archive. And says which edge it is that was asked, if it is one.
    async fn follow(
        &self,
        connection: &TargetConnection,
        short: Place,
    ) -> Result<(Option<EdgeId>, Word), ProbeError> {
        let (mut place, mut followed, mut doubted) = (short.clone(), 0, false);
        let mut edge = None;
        while followed <= MAX_REDIRECTS {
            followed += 1;
            let head = match archive_at(&place.path) {
                None => connection.head(&place).await?,
                Some(name) => {
                    let known = self.remembered.known(&name, &place);
                    let reason = if doubted { Reason::Insisted } else { Reason::Named(known) };
                    match presence::ask(connection, name, &place, reason, &self.heads).await? {
                        Presence::There(listed) => return Ok((edge, Word::Named(listed))),
                        Presence::Not(head) => head,
                        Presence::Doubt => {
                            (place, followed, doubted) = (short.clone(), 0, true);
                            continue;
                        }
                        Presence::Silence => return Ok((edge, Word::None)),
                    }
                }
            };
            edge = edge.or(head.edge(connection.access())?);
            self.answers().note(&short.path, &place.path, head.status, &head.headers);
            if let Some(denied) = self.denied(&place, head.status) {
                return Err(denied);
            }
            match head.status.as_u16() {
                _ if is_redirect(head.status) => {
                    place = redirected(&self.target, &place, &head.headers)?;
                }
                // Bytes without a name, or without a length.
                200 | 206 => return Ok((edge, Word::None)),
                status => {
                    self.rest.note(&head);
                    let none = says_none(head.status);
                    let error = ProbeError::Status { path: place.path, status };
                    return Ok((edge, if none { Word::None } else { Word::NotNow(error) }));
                }
            }
        }
        Err(ProbeError::Loop { path: short.path })
    }
}
