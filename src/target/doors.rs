//! The ways to single archives of the targets that answered their last probe, for names that no
//! target listed yet.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, StatusCode};
use tokio::sync::{Semaphore, watch};

use super::client::{Head, Line, Place};
use super::listing::{Listing, MAX_LISTING};
use super::neighbours::Handed;
use super::presence::{self, HEAD_TIMEOUT};
use super::probe::{MAX_REDIRECTS, ProbeError, archive_at, redirected};
use super::silence;
use crate::config::HostPort;
use crate::hops::{CdnLoop, EdgeId};
use crate::index::{Listed, Location, TargetId};
use crate::snapshot::ArchiveName;

/// Most archives that one target is asked for at once.
const MAX_AT_ONCE: usize = 4;

/// The doors of all targets. The lock is held for a look at them or a change of one entry.
#[derive(Debug, Default)]
pub struct Doors(Mutex<BTreeMap<TargetId, Entrance>>);

/// The door of one target, whether or not it can be asked.
#[derive(Clone, Debug)]
pub struct Entrance {
    standing: watch::Receiver<Standing>,
    seats: Arc<Semaphore>,
}

/// What the last probe said.
#[derive(Debug)]
enum Standing {
    /// None has ended yet.
    Unheard,
    Open(Arc<Door>),
    /// It failed.
    Shut,
}

impl Doors {
    /// True where there is a target that may be asked and that `wanted` accepts.
    pub fn any(&self, wanted: impl Fn(&TargetId) -> bool) -> bool {
        self.entrances().iter().any(|(id, entrance)| !entrance.is_shut() && wanted(id))
    }

    /// The targets that may be asked and that `wanted` accepts.
    pub fn of(&self, wanted: impl Fn(&TargetId) -> bool) -> Vec<(TargetId, Entrance)> {
        let entrances = self.entrances();
        let open = entrances.iter().filter(|(id, entrance)| !entrance.is_shut() && wanted(id));
        open.map(|(id, entrance)| (id.clone(), entrance.clone())).collect()
    }

    /// The place of one target, which nobody has heard of yet.
    pub(super) fn place(self: &Arc<Self>, target: TargetId) -> DoorPlace {
        let (standing, seen) = watch::channel(Standing::Unheard);
        let seats = Arc::new(Semaphore::new(MAX_AT_ONCE));
        let entrance = Entrance { standing: seen, seats: Arc::clone(&seats) };
        self.entrances().insert(target.clone(), entrance);
        DoorPlace { doors: Arc::clone(self), target, standing, seats }
    }

    fn entrances(&self) -> MutexGuard<'_, BTreeMap<TargetId, Entrance>> {
        // No change of the map can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entrance {
    fn is_shut(&self) -> bool {
        matches!(*self.standing.borrow(), Standing::Shut)
    }

    /// Asks for an archive, once the target was heard of and others had their turn; `None` where it
    /// cannot be asked, or is an edge that the request `came` through. A caller bounds the time.
    pub async fn ask(
        mut self,
        name: &ArchiveName,
        came: &CdnLoop,
    ) -> Option<Result<Sighting, ProbeError>> {
        let heard = self.standing.wait_for(|standing| !matches!(standing, Standing::Unheard));
        let door = match &*heard.await.ok()? {
            Standing::Open(door) => Arc::clone(door),
            Standing::Unheard | Standing::Shut => return None,
        };
        if door.edge.as_ref().is_some_and(|edge| came.edges().contains(edge)) {
            return None;
        }
        let _seat = self.seats.acquire().await.ok()?;
        Some(door.after(came).look(name).await)
    }
}

/// The place of one target among the doors. It is empty when its owner ends, by whatever.
pub(super) struct DoorPlace {
    doors: Arc<Doors>,
    target: TargetId,
    standing: watch::Sender<Standing>,
    seats: Arc<Semaphore>,
}

impl DoorPlace {
    /// Says that the last probe was answered, and what asked then. The answer has to be on its way
    /// to the index before: what is found is taken in only after that.
    pub(super) fn open(&self, door: Option<Door>) {
        let standing = door.map_or(Standing::Shut, |door| Standing::Open(Arc::new(door)));
        self.standing.send_replace(standing);
    }

    /// Says that it failed.
    pub(super) fn shut(&self) {
        self.standing.send_replace(Standing::Shut);
    }
}

impl Drop for DoorPlace {
    fn drop(&mut self) {
        self.shut();
        let mut entrances = self.doors.entrances();
        // Where all probes begin anew, the next owner may have come before this one went.
        let is_ours = |entrance: &Entrance| Arc::ptr_eq(&entrance.seats, &self.seats);
        if entrances.get(&self.target).is_some_and(is_ours) {
            entrances.remove(&self.target);
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

/// The way to single archives of one target.
pub(super) struct Door {
    pub(super) line: Arc<Line>,
    pub(super) target: HostPort,
    /// Its root.
    pub(super) root: Place,
    pub(super) shape: Shape,
    /// Who it is, where it is an edge.
    pub(super) edge: Option<EdgeId>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} at {}", self.shape, self.root.url())
    }
}

/// What a target says of an archive.
#[derive(Debug)]
pub enum Sighting {
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

impl Door {
    /// The same door for a request that `came` through others.
    fn after(&self, came: &CdnLoop) -> Self {
        let line = Arc::new(self.line.after(came));
        let (target, root) = (self.target.clone(), self.root.clone());
        Self { line, target, root, shape: self.shape, edge: self.edge.clone() }
    }

    /// Asks for an archive: for its head, and a sidecar whose answer to that says nothing for what
    /// it lists.
    async fn look(&self, name: &ArchiveName) -> Result<Sighting, ProbeError> {
        if self.shape == Shape::Rpc {
            let (place, head) = self.head(name).await?;
            return self.sighting(&place, head);
        }
        let is_one = |place: &Place, head: &Head| {
            presence::archive(*name, &self.line, place, head).is_some()
        };
        match tokio::time::timeout(HEAD_TIMEOUT, self.head(name)).await {
            Ok(Ok((place, head))) if is_one(&place, &head) => self.sighting(&place, head),
            Ok(Err(ProbeError::Client(error))) if error.is_of_connecting() => Err(error.into()),
            Ok(_) | Err(_) => self.listing(name).await,
        }
    }

    /// Asks a sidecar for what it lists.
    async fn listing(&self, name: &ArchiveName) -> Result<Sighting, ProbeError> {
        let below =
            |path: &str| Place { path: format!("{}{path}", self.root.path), ..self.root.clone() };
        let place = below("/v1/snapshots");
        let (head, mut body) = self.line.pieces(&place, MAX_LISTING).await?;
        if head.status != StatusCode::OK {
            let status = head.status.as_u16();
            return Err(ProbeError::Status { path: place.path, status });
        }
        let (edge, own) = (head.edge(self.line.access())?, self.line.access().edge());
        let location = |name: &ArchiveName, handed: &Handed| {
            let via = handed.via(edge.as_ref(), own).ok()?;
            Some(presence::location(&self.line, &below(&format!("/v1/snapshot/{name}")), via))
        };
        let (archives, _) = Listing::read(&mut body, location).await?.map_err(|source| {
            let media = silence::media(&head.headers);
            ProbeError::Listing { path: place.path, media, source }
        })?;
        Ok(Sighting::Listing(archives.into_iter().find(|listed| listed.name == *name)))
    }

    /// Asks for the head of an archive. A redirect is followed where it leads to the same name on
    /// the same host: there are servers that send everybody to what they have, whatever was asked.
    async fn head(&self, name: &ArchiveName) -> Result<(Place, Head), ProbeError> {
        let path = match self.shape {
            Shape::Rpc => format!("{}/{name}", self.root.path),
            Shape::Sidecar => format!("{}/v1/snapshot/{name}", self.root.path),
        };
        let mut place = Place { path, ..self.root.clone() };
        for _ in 0..MAX_REDIRECTS {
            let head = self.line.head_alone(&place).await?;
            if !matches!(head.status.as_u16(), 301..=303 | 307 | 308) {
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

    fn sighting(&self, place: &Place, head: Head) -> Result<Sighting, ProbeError> {
        let via = head.via(self.line.access())?;
        let Head { status, headers } = head;
        Ok(Sighting::Head { location: presence::location(&self.line, place, via), status, headers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> TargetId {
        TargetId { group: "g".into(), authority: text.into() }
    }

    fn names(doors: &Doors) -> Vec<String> {
        let all = doors.of(|_| true);
        assert_eq!(doors.any(|_| true), !all.is_empty());
        all.iter().map(|(id, _)| id.authority.to_string()).collect()
    }

    #[test]
    fn a_door_is_there_until_its_probe_fails_or_its_owner_ends() {
        let doors = Arc::<Doors>::default();
        assert!(names(&doors).is_empty());
        let (a, b) = (doors.place(target("a")), doors.place(target("b")));
        assert_eq!(names(&doors), ["a", "b"], "nobody has heard of them yet");
        a.shut();
        assert_eq!(names(&doors), ["b"]);
        assert!(!doors.any(|id| *id == target("a")));
        drop(b);
        assert!(names(&doors).is_empty());
    }

    #[test]
    fn the_place_of_a_new_owner_outlives_the_old_one() {
        let doors = Arc::<Doors>::default();
        let old = doors.place(target("a"));
        let _new = doors.place(target("a"));
        drop(old);
        assert_eq!(names(&doors), ["a"]);
    }

    #[tokio::test]
    async fn who_asks_at_a_door_that_shuts_or_goes_away_hears_nothing() {
        let doors = Arc::<Doors>::default();
        let name = format!("snapshot-1-{}.tar.zst", "1".repeat(32)).parse().expect("valid");
        for ends in [DoorPlace::shut as fn(&DoorPlace), |_| {}] {
            let place = doors.place(target("a"));
            let (_, entrance) = doors.of(|_| true).remove(0);
            let came = CdnLoop::default();
            let asked = async { entrance.ask(&name, &came).await.is_none() };
            let ended = async {
                ends(&place);
                drop(place);
            };
            assert!(tokio::join!(asked, ended).0);
        }
    }
}
