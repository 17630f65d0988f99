//! Probes for the heads of single archives, at the targets that answered their last probe, for
//! names that no target listed yet.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, StatusCode};
use tokio::sync::{Semaphore, watch};

use super::answer::{MAX_REDIRECTS, archive_at, is_redirect};
use super::client::{Head, Place, TargetConnection};
use super::listing::{Listing, MAX_LISTING};
use super::neighbours::Handed;
use super::presence::{self, HEAD_TIMEOUT};
use super::probe_error::ProbeError;
use super::redirect::redirected;
use super::silence;
use crate::config::HostPort;
use crate::hops::{CdnLoop, EdgeId};
use crate::index::{Listed, Location, TargetId};
use crate::snapshot::ArchiveName;

/// Most archives that one target is asked for at once.
const MAX_AT_ONCE: usize = 4;

/// The head probes of all targets. The lock is held for a look at them or a change of one entry.
#[derive(Debug, Default)]
pub struct HeadProbes(Mutex<BTreeMap<TargetId, ProbeHandle>>);

/// The handle by which the head probe of one target is asked, whether or not there is one now.
#[derive(Clone, Debug)]
pub struct ProbeHandle {
    standing: watch::Receiver<Standing>,
    seats: Arc<Semaphore>,
}

/// What the last probe of a target said.
#[derive(Debug)]
enum Standing {
    /// None has ended yet.
    Unheard,
    /// The last probe was answered.
    Answered(Arc<HeadProbe>),
    /// The last probe failed.
    Failed,
}

impl HeadProbes {
    /// True where there is a target that may be asked and that `wanted` accepts.
    pub fn any(&self, wanted: impl Fn(&TargetId) -> bool) -> bool {
        self.handles().iter().any(|(id, handle)| !handle.has_failed() && wanted(id))
    }

    /// The targets that may be asked and that `wanted` accepts.
    pub fn of(&self, wanted: impl Fn(&TargetId) -> bool) -> Vec<(TargetId, ProbeHandle)> {
        let handles = self.handles();
        let askable = handles.iter().filter(|(id, handle)| !handle.has_failed() && wanted(id));
        askable.map(|(id, handle)| (id.clone(), handle.clone())).collect()
    }

    /// The place of one target, which nobody has heard of yet.
    pub(super) fn place(self: &Arc<Self>, target: TargetId) -> HeadProbePlace {
        let (standing, seen) = watch::channel(Standing::Unheard);
        let seats = Arc::new(Semaphore::new(MAX_AT_ONCE));
        let handle = ProbeHandle { standing: seen, seats: Arc::clone(&seats) };
        self.handles().insert(target.clone(), handle);
        HeadProbePlace { head_probes: Arc::clone(self), target, standing, seats }
    }

    fn handles(&self) -> MutexGuard<'_, BTreeMap<TargetId, ProbeHandle>> {
        // No change of the map can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProbeHandle {
    fn has_failed(&self) -> bool {
        matches!(*self.standing.borrow(), Standing::Failed)
    }

    /// Asks for an archive, once the target was heard of and others had their turn; `None` where it
    /// cannot be asked, or is an edge that the request `came` through. A caller bounds the time.
    pub async fn ask(
        mut self,
        name: &ArchiveName,
        came: &CdnLoop,
    ) -> Option<Result<HeadResponse, ProbeError>> {
        let heard = self.standing.wait_for(|standing| !matches!(standing, Standing::Unheard));
        let head_probe = match &*heard.await.ok()? {
            Standing::Answered(head_probe) => Arc::clone(head_probe),
            Standing::Unheard | Standing::Failed => return None,
        };
        if head_probe.edge.as_ref().is_some_and(|edge| came.edges().contains(edge)) {
            return None;
        }
        let _seat = self.seats.acquire().await.ok()?;
        Some(head_probe.after(came).look(name).await)
    }
}

/// The place of one target among the head probes. It is empty when its owner ends, by whatever.
pub(super) struct HeadProbePlace {
    head_probes: Arc<HeadProbes>,
    target: TargetId,
    standing: watch::Sender<Standing>,
    seats: Arc<Semaphore>,
}

impl HeadProbePlace {
    /// Says that the last probe was answered, and what asked then. The answer has to be on its way
    /// to the index before: what is found is taken in only after that.
    pub(super) fn answered(&self, head_probe: Option<HeadProbe>) {
        let standing = head_probe.map(Arc::new).map_or(Standing::Failed, Standing::Answered);
        self.standing.send_replace(standing);
    }

    /// Says that the target is to be heard of anew.
    pub(super) fn unheard(&self) {
        self.standing.send_replace(Standing::Unheard);
    }

    /// Says that it failed.
    pub(super) fn failed(&self) {
        self.standing.send_replace(Standing::Failed);
    }
}

impl Drop for HeadProbePlace {
    fn drop(&mut self) {
        self.failed();
        let mut handles = self.head_probes.handles();
        // Where all probes begin anew, the next owner may have come before this one went.
        let is_ours = |handle: &ProbeHandle| Arc::ptr_eq(&handle.seats, &self.seats);
        if handles.get(&self.target).is_some_and(is_ours) {
            handles.remove(&self.target);
        }
    }
}

/// Under which paths a target has its archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `/<name>`
    Rpc,
    /// `/v1/snapshot/<name>`
    Sidecar,
}

/// The head probe of one target: what it takes to ask there for single archives.
pub(super) struct HeadProbe {
    pub(super) connection: Arc<TargetConnection>,
    pub(super) target: HostPort,
    /// The root of the target.
    pub(super) root: Place,
    pub(super) shape: Shape,
    /// Who it is, where it is an edge.
    pub(super) edge: Option<EdgeId>,
}

impl std::fmt::Debug for HeadProbe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} at {}", self.shape, self.root.url())
    }
}

/// What a target responds to a head probe for an archive.
#[derive(Debug)]
pub enum HeadResponse {
    /// The head under which it answered a request for it.
    Head {
        /// Where the archive is, if it is one.
        location: Location,
        /// The status.
        status: StatusCode,
        /// The rest of the head.
        headers: HeaderMap,
    },
    /// What it lists of it.
    Listing(Option<Listed>),
}

impl HeadProbe {
    /// This head probe for a request that `came` through others.
    fn after(&self, came: &CdnLoop) -> Self {
        let connection = Arc::new(self.connection.after(came));
        let (target, root) = (self.target.clone(), self.root.clone());
        Self { connection, target, root, shape: self.shape, edge: self.edge.clone() }
    }

    /// Asks for an archive: for its head, and a sidecar whose answer to that says nothing for what
    /// it lists.
    async fn look(&self, name: &ArchiveName) -> Result<HeadResponse, ProbeError> {
        if self.shape == Shape::Rpc {
            let (place, head) = self.head(name).await?;
            return self.response(&place, head);
        }
        let is_one = |place: &Place, head: &Head| {
            presence::archive(*name, &self.connection, place, head).is_some()
        };
        match tokio::time::timeout(HEAD_TIMEOUT, self.head(name)).await {
            Ok(Ok((place, head))) if is_one(&place, &head) => self.response(&place, head),
            Ok(Err(ProbeError::Client(error))) if error.is_of_connecting() => Err(error.into()),
            Ok(_) | Err(_) => self.listing(name).await,
        }
    }

    /// Asks a sidecar for what it lists.
    async fn listing(&self, name: &ArchiveName) -> Result<HeadResponse, ProbeError> {
        let below =
            |path: &str| Place { path: format!("{}{path}", self.root.path), ..self.root.clone() };
        let place = below("/v1/snapshots");
        let (head, mut body) = self.connection.pieces(&place, MAX_LISTING).await?;
        if head.status != StatusCode::OK {
            let status = head.status.as_u16();
            return Err(ProbeError::Status { path: place.path, status });
        }
        let (edge, own) = (head.edge(self.connection.access())?, self.connection.access().edge());
        let location = |name: &ArchiveName, handed: &Handed| {
            let via = handed.via(edge.as_ref(), own).ok()?;
            Some(presence::location(&self.connection, &below(&format!("/v1/snapshot/{name}")), via))
        };
        let (archives, _) = Listing::read(&mut body, location).await?.map_err(|source| {
            let media = silence::media(&head.headers);
            ProbeError::Listing { path: place.path, media, source }
        })?;
        Ok(HeadResponse::Listing(archives.into_iter().find(|listed| listed.name == *name)))
    }

    /// Asks for the head of an archive. A redirect is followed where it leads to the same name on
    /// the same host: there are servers that send everybody to what they have, whatever was asked.
    async fn head(&self, name: &ArchiveName) -> Result<(Place, Head), ProbeError> {
        let path = match self.shape {
            Shape::Rpc => format!("{}/{name}", self.root.path),
            Shape::Sidecar => format!("{}/v1/snapshot/{name}", self.root.path),
        };
        let mut place = Place { path, ..self.root.clone() };
        for _ in 0..=MAX_REDIRECTS {
            let head = self.connection.head_alone(&place).await?;
            if !is_redirect(head.status) {
                return Ok((place, head));
            }
            let next = redirected(&self.target, &place, &head.headers)?;
            if archive_at(&next.path) != Some(*name) {
                return Ok((place, head));
            }
            place = next;
        }
        Err(ProbeError::Loop { path: place.path })
    }

    fn response(&self, place: &Place, head: Head) -> Result<HeadResponse, ProbeError> {
        let via = head.via(self.connection.access())?;
        let Head { status, headers } = head;
        Ok(HeadResponse::Head {
            location: presence::location(&self.connection, place, via),
            status,
            headers,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> TargetId {
        TargetId { group: "g".into(), authority: text.into() }
    }

    fn names(head_probes: &HeadProbes) -> Vec<String> {
        let all = head_probes.of(|_| true);
        assert_eq!(head_probes.any(|_| true), !all.is_empty());
        all.iter().map(|(id, _)| id.authority.to_string()).collect()
    }

    #[test]
    fn a_head_probe_is_there_until_its_target_fails_or_its_owner_ends() {
        let head_probes = Arc::<HeadProbes>::default();
        assert!(names(&head_probes).is_empty());
        let (a, b) = (head_probes.place(target("a")), head_probes.place(target("b")));
        assert_eq!(names(&head_probes), ["a", "b"], "nobody has heard of them yet");
        a.failed();
        assert_eq!(names(&head_probes), ["b"]);
        assert!(!head_probes.any(|id| *id == target("a")));
        drop(b);
        assert!(names(&head_probes).is_empty());
    }

    #[test]
    fn the_place_of_a_new_owner_outlives_the_old_one() {
        let head_probes = Arc::<HeadProbes>::default();
        let old = head_probes.place(target("a"));
        let _new = head_probes.place(target("a"));
        drop(old);
        assert_eq!(names(&head_probes), ["a"]);
    }

    #[tokio::test]
    async fn who_asks_where_the_target_fails_or_goes_away_hears_nothing() {
        let head_probes = Arc::<HeadProbes>::default();
        let name = format!("snapshot-1-{}.tar.zst", "1".repeat(32)).parse().expect("valid");
        for ends in [HeadProbePlace::failed as fn(&HeadProbePlace), |_| {}] {
            let place = head_probes.place(target("a"));
            let (_, handle) = head_probes.of(|_| true).remove(0);
            let came = CdnLoop::default();
            let asked = async { handle.ask(&name, &came).await.is_none() };
            let ended = async {
                ends(&place);
                drop(place);
            };
            assert!(tokio::join!(asked, ended).0);
        }
    }
}
