//! Asking one target what it has.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::{HeaderMap, LOCATION};
use http::status::StatusCode;

use super::client::{ClientError, GroupClient, Line, Place};
use super::doors::{Door, Shape};
use super::listing::{Listing, ListingError, MAX_LISTING};
use super::neighbours::Handed;
use super::nodes::Node;
use super::omissions::Omissions;
use super::presence::{self, Heads, Presence, Reason};
use super::short_form::{Remembered, Rest, Word, asks_to_wait, says_none};
use super::silence::{self, Answers};
use crate::access::{Access, Fault};
use crate::config::{Group, HostPort, Scheme, TargetKind};
use crate::hops::{Detour, EdgeId};
use crate::index::{Listed, Location};
use crate::snapshot::ArchiveName;

/// Redirects that are followed from a short form.
pub(super) const MAX_REDIRECTS: usize = 5;
/// Longest path that a redirect may lead to, in bytes: it goes into the heads of redirects.
const MAX_PATH: usize = 1024;

/// Why a target could not be asked. (A target without archives is an answer, not an error.)
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The target is an edge through which nothing can be had.
    #[error(transparent)]
    Detour(#[from] Detour),
    /// An answer that says that the target is not well.
    #[error("`{path}` answered status {status}")]
    Status {
        /// What was asked.
        path: String,
        /// The answer.
        status: u16,
    },
    /// An answer that says that who asks may not.
    #[error("`{url}` answered status {status}")]
    Denied {
        /// What was asked: another port than the target's gets no credentials.
        url: String,
        /// The answer.
        status: u16,
    },
    /// A redirect that leads to another host.
    #[error("`{path}` redirects to `{to}`, which is another host; list that host as a target")]
    Elsewhere {
        /// What was asked.
        path: String,
        /// Scheme, host and port that it leads to.
        to: String,
    },
    /// A redirect out of TLS, or into it.
    #[error("`{path}` redirects to `{to}`, set the group's `scheme` to what the targets speak")]
    OtherScheme {
        /// What was asked.
        path: String,
        /// Scheme, host and port that it leads to.
        to: String,
    },
    /// A redirect without a usable `location`.
    #[error("`{path}` redirects to nowhere")]
    BadLocation {
        /// What was asked.
        path: String,
    },
    /// Redirects without end.
    #[error("`{path}` redirects more than {MAX_REDIRECTS} times")]
    Loop {
        /// What was asked first.
        path: String,
    },
    /// A name of several addresses, none of which is of use.
    #[error("none of its {count} addresses answers as it should, {address} says most")]
    Addresses {
        /// How many there are.
        count: usize,
        /// The one whose failure says most.
        address: IpAddr,
        /// That failure.
        #[source]
        source: Box<ProbeError>,
    },
    /// A listing that is none.
    #[error("`{path}` answered 200 with `{media}` that is not a list of snapshots")]
    Listing {
        /// What was asked.
        path: String,
        /// The media type of the answer, where it tells.
        media: String,
        /// Why not.
        #[source]
        source: ListingError,
    },
}

impl ProbeError {
    /// What is wrong between the target and this process, where that is it.
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Client(error) => error.fault(),
            Self::Denied { .. } => Some(Fault::Credentials),
            Self::Addresses { source, .. } => source.fault(),
            _ => None,
        }
    }

    /// Whether what was asked for may be there for others, or later.
    fn hides_archives(&self) -> bool {
        match self {
            Self::Denied { .. } => true,
            Self::Status { status, .. } => {
                StatusCode::from_u16(*status).is_ok_and(presence::is_for_later)
            }
            _ => false,
        }
    }
}

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
    /// The way to it, once it was asked.
    line: Option<Arc<Line>>,
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
            line: None,
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
        self.line.as_ref().map(|line| line.address.ip())
    }

    /// The same without what it remembers of an address: another one may be another machine.
    pub(super) fn forgetful(&self) -> Self {
        Self {
            line: None,
            nature: None,
            remembered: Remembered::default(),
            listed: Remembered::default(),
            ..self.clone()
        }
    }

    /// How long the target wants to be left alone, where it said so in the last round.
    pub(super) fn rest(&self) -> Option<Duration> {
        self.rest.take()
    }

    /// One round: everything that the target has now, at the end of this line.
    pub(super) async fn probe(&mut self, line: &Arc<Line>) -> Result<Vec<Listed>, ProbeError> {
        self.omitted = Omissions::default();
        self.line = Some(Arc::clone(line));
        // Its own, whoever else it was cloned for.
        self.answers = Arc::default();
        let nature = match self.kind {
            TargetKind::Rpc => Some(Nature::Rpc),
            TargetKind::Sidecar => Some(Nature::Sidecar),
            TargetKind::Auto => self.nature,
        };
        let found = match nature {
            Some(Nature::Rpc) => self.rpc(line).await,
            Some(Nature::Sidecar) => self.sidecar(line).await.and_then(|listed| listed),
            None => self.find_out(line).await,
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

    /// The edge that the target is, where its last answer was a list of all that it has.
    pub(super) fn listing_edge(&self) -> Option<&EdgeId> {
        self.edge.as_ref().filter(|_| self.is_sidecar())
    }

    fn is_sidecar(&self) -> bool {
        self.kind == TargetKind::Sidecar || self.nature == Some(Nature::Sidecar)
    }

    /// The way to the target where its last answer was that of a node.
    pub(super) fn node(&self) -> Option<Node> {
        let is_node = match self.kind {
            TargetKind::Rpc => true,
            TargetKind::Sidecar => false,
            TargetKind::Auto => self.nature == Some(Nature::Rpc),
        };
        let line = self.line.as_ref().filter(|_| is_node)?;
        let edge = self.edge.clone();
        Some(Node { line: Arc::clone(line), root: self.place(line, "/"), edge })
    }

    /// The way to single archives of the target, by what its last answer was. What has answered as
    /// a node, and has nothing yet, is one.
    pub(super) fn door(&self) -> Option<Door> {
        let shape = if self.is_sidecar() { Shape::Sidecar } else { Shape::Rpc };
        let line = self.line.as_ref()?;
        let (target, root) = (self.target.clone(), self.place(line, ""));
        let edge = self.edge.clone();
        Some(Door { line: Arc::clone(line), target, root, shape, edge })
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
    async fn find_out(&mut self, line: &Line) -> Result<Vec<Listed>, ProbeError> {
        let listing = match self.sidecar(line).await? {
            Ok(archives) => {
                self.nature = Some(Nature::Sidecar);
                return Ok(archives);
            }
            Err(error) => error,
        };
        let archives = self.rpc(line).await?;
        if !archives.is_empty() {
            self.nature = Some(Nature::Rpc);
        } else if listing.hides_archives() {
            // A sidecar that keeps its listing from us has no short forms to find archives by.
            return Err(listing);
        }
        Ok(archives)
    }

    fn place(&self, line: &Line, path: &str) -> Place {
        let (authority, path) = (self.authority.to_string(), format!("{}{path}", self.api_path));
        Place { scheme: self.scheme, address: line.address, authority, path }
    }

    /// The error that a status is which says that who asks may not.
    fn denied(&self, place: &Place, status: StatusCode) -> Option<ProbeError> {
        let denies = self.access().denies(status);
        denies.then(|| ProbeError::Denied { url: place.url(), status: status.as_u16() })
    }

    /// The listing of a sidecar. The outer error: no answer; the inner one: not a listing.
    async fn sidecar(
        &mut self,
        line: &Line,
    ) -> Result<Result<Vec<Listed>, ProbeError>, ProbeError> {
        Ok(match self.list(line).await? {
            Ok((archives, omitted)) => {
                self.omitted = omitted;
                let found = archives.into_iter().map(|listed| (listed.name, listed)).collect();
                Ok(self.listed.keep(found, Vec::new()))
            }
            Err(error) => self.listed_before(line, error).await,
        })
    }

    /// What a sidecar listed before and still has, where it only does not want to list it now.
    async fn listed_before(
        &mut self,
        line: &Line,
        error: ProbeError,
    ) -> Result<Vec<Listed>, ProbeError> {
        let mut found = BTreeMap::new();
        if !matches!(&error, ProbeError::Status { status, .. } if asks_to_wait(*status)) {
            return Err(error);
        }
        let known = self.listed.look(line, self.scheme, &self.heads, &mut found).await;
        if found.is_empty() { Err(error) } else { Ok(self.listed.keep(found, known)) }
    }

    /// The listing, with what was left out of it.
    async fn list(
        &mut self,
        line: &Line,
    ) -> Result<Result<(Vec<Listed>, Omissions), ProbeError>, ProbeError> {
        let place = self.place(line, "/v1/snapshots");
        let (head, mut body) = line.pieces(&place, MAX_LISTING).await?;
        self.answers().note(&place.path, &place.path, head.status, &head.headers);
        self.edge = head.edge(line.access())?;
        if head.status != StatusCode::OK {
            self.rest.note(&head);
            let status = head.status.as_u16();
            let denied = self.denied(&place, head.status);
            return Ok(Err(denied.unwrap_or(ProbeError::Status { path: place.path, status })));
        }
        let location = |name: &ArchiveName, handed: &Handed| {
            let via = handed.via(self.edge.as_ref(), line.access().edge()).ok()?;
            Some(Location {
                scheme: self.scheme.as_str(),
                address: line.address,
                authority: Arc::clone(&self.authority),
                path: format!("{}/v1/snapshot/{name}", self.api_path),
                access: line.access().entry(),
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
    async fn rpc(&mut self, line: &Line) -> Result<Vec<Listed>, ProbeError> {
        let full = self.place(line, "/snapshot.tar.bz2");
        let incremental = self.place(line, "/incremental-snapshot.tar.bz2");
        let ((edge, full), (_, incremental)) =
            tokio::try_join!(self.follow(line, full), self.follow(line, incremental))?;
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
        let known = self.remembered.look(line, self.scheme, &self.heads, &mut found).await;
        match refusal {
            // A node that says "not now" and serves what it named before is well.
            Some(refusal) if found.is_empty() => Err(refusal),
            _ => Ok(self.remembered.keep(found, known)),
        }
    }

    /// Follows a short form to an archive. And says which edge it is that was asked, if it is one.
    async fn follow(
        &self,
        line: &Line,
        short: Place,
    ) -> Result<(Option<EdgeId>, Word), ProbeError> {
        let (mut place, mut followed, mut doubted) = (short.clone(), 0, false);
        let mut edge = None;
        while followed <= MAX_REDIRECTS {
            followed += 1;
            let head = match archive_at(&place.path) {
                None => line.head(&place).await?,
                Some(name) => {
                    let known = self.remembered.known(&name, &place);
                    let reason = if doubted { Reason::Insisted } else { Reason::Named(known) };
                    match presence::ask(line, name, &place, reason, &self.heads).await? {
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
            edge = edge.or(head.edge(line.access())?);
            self.answers().note(&short.path, &place.path, head.status, &head.headers);
            if let Some(denied) = self.denied(&place, head.status) {
                return Err(denied);
            }
            match head.status.as_u16() {
                301..=303 | 307 | 308 => place = redirected(&self.target, &place, &head.headers)?,
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

/// Where a redirect of a target leads: another path, perhaps another port, never another host.
pub(super) fn redirected(
    target: &HostPort,
    from: &Place,
    headers: &HeaderMap,
) -> Result<Place, ProbeError> {
    let bad = || ProbeError::BadLocation { path: from.path.clone() };
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let base = url::Url::parse(&from.url()).map_err(|_| bad())?;
    let to = base.join(location.ok_or_else(bad)?).map_err(|_| bad())?;
    let host = to.host().ok_or_else(bad)?.to_string();
    let same = host == target.host() || host.parse() == Ok(from.address.ip());
    if to.path().len() > MAX_PATH {
        return Err(bad());
    }
    // Without its path and query, which may be a grant.
    let origin = || to.origin().ascii_serialization();
    if !same || !matches!(to.scheme(), "http" | "https") {
        return Err(ProbeError::Elsewhere { path: from.path.clone(), to: origin() });
    }
    if to.scheme() != from.scheme.as_str() {
        return Err(ProbeError::OtherScheme { path: from.path.clone(), to: origin() });
    }
    let port = to.port_or_known_default().ok_or_else(bad)?;
    // A query is dropped: where one is needed, it is a grant that ends before the next probe.
    let path = to.path().to_owned();
    Ok(Place {
        scheme: from.scheme,
        address: SocketAddr::new(from.address.ip(), port),
        authority: format!("{host}:{port}"),
        path,
    })
}

/// The archive that a path is the path of.
pub(super) fn archive_at(path: &str) -> Option<ArchiveName> {
    path.rsplit('/').next()?.parse().ok()
}
