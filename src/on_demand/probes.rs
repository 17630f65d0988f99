//! Probes for archives that the index does not know yet: targets are asked, once for everybody who
//! waits, and what one of them has goes into the index, out of which all are served.
//!
//! Which names are worth it, and how many looks there may be, is decided in `worth` and `gate`.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http::Method;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::gate::{ProbeGate, ProbeState, Refused};
use super::worth::{is_known, is_news, whom_to_ask};
use crate::cache::Store;
use crate::configured::Live;
use crate::error_chain::chain;
use crate::hops::CdnLoop;
use crate::index::{Listed, Source, TargetId, View};
use crate::published::{Published, Reporter};
use crate::route::{Asked, ClientNet, Verdict, judge};
use crate::scrape::{HeadProbes, HeadResponse, ProbeHandle, ReferenceSlot, Scraper};
use crate::snapshot::ArchiveName;

/// Most edges that a request came through for whose archive others are asked: whoever asked those
/// asks all that it knows itself, and edges that all know each other would wait for each other.
const MAX_EDGES: usize = 1;

/// The looks of the process.
pub struct OnDemandProbes {
    desk: Arc<Desk>,
    /// The tasks that run. They end by themselves, in bounded time, or with the process.
    tasks: Mutex<JoinSet<()>>,
}

/// What all looks share.
struct Desk {
    live: Arc<Live>,
    head_probes: Arc<HeadProbes>,
    published: Arc<Published>,
    reporter: Reporter,
    /// What says which copies are no archives.
    store: Option<Store>,
    /// What the reference node has speaks for a name.
    reference: Arc<ReferenceSlot>,
    gate: Mutex<ProbeGate<PendingProbe>>,
    counts: Arc<ProbeCounts>,
}

/// A look that is under way, for one who waits for its end.
#[derive(Clone, Debug)]
pub struct PendingProbe(watch::Receiver<bool>);

impl PendingProbe {
    /// Waits for the end. What was found is in the view that is loaded then.
    pub async fn over(mut self) {
        // One that panicked is over as well.
        let _ = self.0.wait_for(|over| *over).await;
    }
}

/// Counts since the start of the process; they never go back.
#[derive(Debug, Default)]
pub struct ProbeCounts {
    begun: AtomicU64,
    found: AtomicU64,
    refused: AtomicU64,
}

impl ProbeCounts {
    /// Probes that were begun.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Probes that found the archive.
    pub fn found(&self) -> u64 {
        self.found.load(Ordering::Relaxed)
    }

    /// Requests that were answered without a look because there are too many.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl OnDemandProbes {
    /// Probes among the scraper's targets, within `limits.unknown_name_probe`, for what a cache has
    /// not found to be no archive.
    pub fn new(live: &Arc<Live>, scraper: &Scraper, store: Option<Store>) -> Self {
        let interval = live.load().config.scrape_interval;
        let desk = Desk {
            live: Arc::clone(live),
            head_probes: scraper.head_probes(),
            published: scraper.published(),
            reporter: scraper.reporter(),
            store,
            reference: scraper.reference(),
            gate: Mutex::new(ProbeGate::new(interval, Instant::now())),
            counts: Arc::default(),
        };
        Self { desk: Arc::new(desk), tasks: Mutex::default() }
    }

    /// Goes on under another configuration, which is live by now.
    pub fn apply(&self) {
        self.desk.gate().set_interval(self.desk.live.load().config.scrape_interval);
    }

    /// The head probes of all targets.
    pub(super) fn head_probes(&self) -> &HeadProbes {
        &self.desk.head_probes
    }

    /// How many there were.
    pub fn counts(&self) -> Arc<ProbeCounts> {
        Arc::clone(&self.desk.counts)
    }

    /// Begins a look for an archive that `view` does not have, or joins the one that is under way;
    /// nothing where it is not worth one, or where there are too many. Edges that the request
    /// `came` through are not asked.
    pub fn begin(
        &self,
        name: ArchiveName,
        client: IpAddr,
        came: &Arc<CdnLoop>,
        view: &View,
        resting: impl Fn(&TargetId) -> bool,
        now: Instant,
    ) -> Option<PendingProbe> {
        let desk = &self.desk;
        if came.edges().len() > MAX_EDGES {
            return None;
        }
        let is_wanted = |target: &TargetId| is_news(&name, &target.group, view);
        if desk.patience().is_zero() || is_known(&name, view) || !desk.head_probes.any(is_wanted) {
            return None;
        }
        let (over, look) = watch::channel(false);
        let look = PendingProbe(look);
        // One lock for both, so that a name is never looked for twice at a time.
        let begun = {
            let mut gate = desk.gate();
            match gate.outlook(&name, now) {
                ProbeState::Running(look) => return Some(look),
                ProbeState::Unfound => return None,
                ProbeState::Unknown => {
                    let client = ClientNet::of(client);
                    let referred = desk.reference.has_archive_of(&name);
                    gate.begin(name, client, referred, look.clone(), now)
                }
            }
        };
        if let Err(refused) = begun {
            desk.refuse(refused);
            return None;
        }
        desk.counts.begun.fetch_add(1, Ordering::Relaxed);
        let came = Arc::clone(came);
        let running = Running { desk: Arc::clone(desk), name, came, found: false, over };
        let targets = whom_to_ask(&name, desk.head_probes.of(is_wanted), resting);
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(running.run(targets));
        Some(look)
    }

    /// A target that was said to have an archive answered that it has not. Where no other one has
    /// it, it is not looked for at once: its head may still be there.
    pub fn gone(&self, name: &ArchiveName, now: Instant) {
        self.desk.gate().remember(name, now);
    }
}

impl Desk {
    /// Longest that a look takes; none is begun where it is zero.
    fn patience(&self) -> Duration {
        self.live.load().config.limits.unknown_name_probe
    }

    fn gate(&self) -> MutexGuard<'_, ProbeGate<PendingProbe>> {
        // No change of it can panic half-way.
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, Refused { said }: Refused) {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        if let Some(count) = said {
            log::warn!(
                "too many requests for archives that no target lists: {count} were answered with \
                 404 without asking the targets"
            );
        }
    }

    /// Whether an archive is one that the index would not take in.
    fn is_distrusted(&self, target: &TargetId, archive: &Listed) -> bool {
        let store = self.store.as_ref();
        store.is_some_and(|store| store.is_distrusted(target, archive, Instant::now()))
    }

    /// Waits until the index has the archive.
    async fn listed(&self, name: &ArchiveName) {
        let mut views = self.published.subscribe();
        while self.published.load().sources(name).is_empty() {
            if views.changed().await.is_err() {
                // Nothing is published any more.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Asks targets until one has the archive and the index has learned of it. Returns where none
    /// has it.
    async fn ask(
        &self,
        name: ArchiveName,
        came: &Arc<CdnLoop>,
        targets: Vec<(TargetId, ProbeHandle)>,
    ) {
        let mut asked = JoinSet::new();
        for (target, handle) in targets {
            asked.spawn(ask(name, Arc::clone(came), target, handle));
        }
        while let Some(answer) = asked.join_next().await {
            if let Ok(Some((target, archive))) = answer
                && !self.is_distrusted(&target, &archive)
            {
                // The others are not waited for.
                asked.abort_all();
                log::info!("{name} was found at target {target} before a probe found it");
                self.reporter.found(target, archive).await;
                std::future::pending::<()>().await;
            }
        }
    }
}

/// A look that is under way. It ends by being dropped.
struct Running {
    desk: Arc<Desk>,
    name: ArchiveName,
    came: Arc<CdnLoop>,
    found: bool,
    over: watch::Sender<bool>,
}

impl Running {
    async fn run(mut self, targets: Vec<(TargetId, ProbeHandle)>) {
        let desk = Arc::clone(&self.desk);
        let look = async {
            tokio::select! {
                // By this look or by a probe.
                () = desk.listed(&self.name) => true,
                () = desk.ask(self.name, &self.came, targets) => false,
            }
        };
        self.found = timeout(desk.patience(), look).await.unwrap_or(false);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.found {
            self.desk.counts.found.fetch_add(1, Ordering::Relaxed);
        }
        self.desk.gate().end(&self.name, self.found, Instant::now());
        self.over.send_replace(true);
    }
}

/// What one target says to a name.
async fn ask(
    name: ArchiveName,
    came: Arc<CdnLoop>,
    target: TargetId,
    handle: ProbeHandle,
) -> Option<(TargetId, Listed)> {
    match handle.ask(&name, &came).await? {
        Ok(response) => {
            let archive = archive_of(name, &target, response)?;
            Some((target, archive))
        }
        Err(error) => {
            log::debug!("{name} at target {target}: {}", chain(&error));
            None
        }
    }
}

/// The archive that a target lists, or that a head is the head of, by the rules for one that a
/// client is given.
fn archive_of(name: ArchiveName, target: &TargetId, response: HeadResponse) -> Option<Listed> {
    let (location, status, headers) = match response {
        HeadResponse::Head { location, status, headers } => (location, status, headers),
        HeadResponse::Listing(listed) => return listed,
    };
    let listed = Listed { name, size: None, modified: None, tag: None, location: Some(location) };
    let source = Source { target: target.clone(), listed, updated_at: SystemTime::UNIX_EPOCH };
    let asked = Asked::all(Method::HEAD);
    match judge(&asked, &source, status, &headers) {
        Verdict::Deliver(head) => {
            let (size, modified, tag) = (Some(head.length), head.modified, head.tag);
            Some(Listed { size, modified, tag, ..source.listed })
        }
        verdict => {
            log::debug!("{name} at target {target}: {verdict:?}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{AccessKey, Location};
    use http::header::HeaderName;
    use http::{HeaderMap, StatusCode};

    /// Bytes of the archive that an answer to HEAD is the head of.
    #[track_caller]
    fn check(status: u16, lines: &str, expected: Option<u64>) {
        let mut headers = HeaderMap::new();
        for line in lines.lines() {
            let (name, value) = line.split_once(": ").expect("a header");
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, value.parse().expect("a value"));
        }
        let name: ArchiveName =
            format!("snapshot-1-{}.tar.zst", "1".repeat(32)).parse().expect("valid");
        let location = Location {
            scheme: "http",
            address: ([10, 0, 0, 1], 8899).into(),
            authority: "10.0.0.1:8899".into(),
            path: format!("/{name}"),
            access: AccessKey::default(),
            via: crate::hops::Via::default(),
        };
        let target = TargetId { group: "g".into(), authority: "10.0.0.1:8899".into() };
        let status = StatusCode::from_u16(status).expect("a status");
        let response = HeadResponse::Head { location: location.clone(), status, headers };
        let found = archive_of(name, &target, response);
        assert_eq!(found.as_ref().and_then(|listed| listed.size), expected, "{status} {lines}");
        if let Some(listed) = found {
            assert_eq!((listed.name, listed.location), (name, Some(location)));
        }
    }

    #[test]
    fn only_the_head_of_an_archive_is_one() {
        check(200, "content-length: 7", Some(7));
        check(200, "content-length: 7\ncontent-type: application/zstd", Some(7));
        check(200, "content-length: 0", None);
        check(200, "content-type: application/zstd", None);
        check(200, "content-length: 7\ntransfer-encoding: chunked", None);
        check(200, "content-length: 7\ncontent-encoding: gzip", None);
        check(200, "content-length: 7\ncontent-type: text/html; charset=utf-8", None);
        check(200, "content-length: 7\ncontent-type: text/plain", None);
        check(200, "content-length: 7\ncontent-type: application/json", None);
        for status in [201, 202, 206, 302, 307, 400, 403, 404, 405, 410, 416, 500, 501, 503] {
            check(status, "content-length: 7", None);
        }
    }
}
