//! Requests for archives: what is there is looked at, the next step is planned and carried out, and
//! that again until a step answers the request.
//!
//! All decisions are in [`plan`](crate::route::plan). Here is what they are made from, and what
//! each step does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::CACHE_CONTROL;
use http::{Method, StatusCode};

use super::admission::{Admission, Permit, piece};
use super::affinity_table::AffinityTable;
use super::cache_fill::FillState;
use super::cache_read::CacheRead;
use super::conditions::judged;
use super::fills::Fills;
use super::forward::Forward;
use super::{head, local};
use crate::cache::{Archive, ArchiveStorage, Growing, Record, Standing};
use crate::config::{Downloads, Limits};
use crate::configured::{Configured, Live};
use crate::fill::{AbandonPolicy, FillFailure, FillQueue, FillRequest, Joined, Placed};
use crate::index::{Source, TargetId};
use crate::ledger::Ledgers;
use crate::metrics::RequestCounts;
use crate::on_demand::OnDemandProbes;
use crate::published::Published;
use crate::route::plan::{
    Announced, ArchiveRequest, EntryState, Inquiry, Question, Step, Transfer, Tried, World, next,
};
use crate::route::{
    Affinity, Asked, Bypass, CacheStatus, ClientNet, Conflict, Failure, Judgement, Part, Reply,
    SourceFailure, Targets as _,
};
use crate::scrape::Scraper;
use crate::upstream::UpstreamPool;

/// What archives are answered from.
pub(super) struct Archives {
    pub(super) upstreams: Arc<UpstreamPool>,
    pub(super) published: Arc<Published>,
    pub(super) affinities: Arc<AffinityTable>,
    pub(super) admission: Arc<Admission>,
    pub(super) cache: Option<&'static ArchiveStorage>,
    fills: Arc<Fills>,
    /// The targets that are local directories.
    directories: Arc<Ledgers>,
    /// Where archives are asked for that requests share while they are fetched.
    pub(super) queue: Option<FillQueue>,
    /// For archives that the index does not know.
    pub(super) probes: OnDemandProbes,
    /// Where it is counted that another source is tried.
    pub(super) counts: Arc<RequestCounts>,
}

/// How a request is answered.
pub(super) enum Answer {
    Reply(Reply),
    Forward(Box<Forward>),
    CacheRead(Box<CacheRead>),
}

/// A request while it is decided about.
struct Pending<'a> {
    configured: &'a Arc<Configured>,
    request: &'a ArchiveRequest,
    tried: Tried,
    /// What it waited for just now and can be read: the next look is at this, and those after it
    /// are at the store.
    joined: Option<Arc<Growing>>,
    /// The fill that it began itself.
    own: Option<Arc<Growing>>,
}

/// The next step, and what it was planned from.
struct Planned {
    step: Step,
    standing: Option<Standing>,
    now: Instant,
}

impl Archives {
    /// On what the scraper publishes, with a cache or without one, which is filled by the queue or
    /// by requests.
    pub(super) fn new(
        live: &Arc<Live>,
        scraper: &Scraper,
        upstreams: Arc<UpstreamPool>,
        cache: Option<&'static ArchiveStorage>,
        queue: Option<FillQueue>,
        counts: Arc<RequestCounts>,
    ) -> Self {
        let store = cache.map(|cache| cache.store().clone());
        let configured = live.load();
        let limits = &configured.config.limits;
        Self {
            upstreams,
            published: scraper.published(),
            affinities: AffinityTable::new(limits.resume_memory),
            admission: Admission::new(limits),
            cache,
            fills: Fills::new(limits),
            directories: scraper.ledgers(),
            queue,
            probes: OnDemandProbes::new(live, scraper, store),
            counts,
        }
    }

    /// Goes on under other limits, which are live by now.
    pub(super) fn apply(&self, limits: &Limits) {
        self.upstreams.apply();
        self.affinities.remember_for(limits.resume_memory);
        self.admission.apply(limits, Instant::now());
        self.fills.apply(limits);
        self.probes.apply();
        if let Some(cache) = self.cache {
            cache.set_piece(piece(limits));
        }
    }

    /// Answers a request. A transfer gets a permit before anything else is waited for but targets
    /// that are asked for what nobody is known to have.
    pub(super) async fn resolve(
        &self,
        configured: &Arc<Configured>,
        request: &ArchiveRequest,
        permit: &mut Option<Permit>,
    ) -> Result<Answer, Failure> {
        let tried = Tried::default();
        let mut pending = Pending { configured, request, tried, joined: None, own: None };
        loop {
            // Whatever comes, others have their turn, and it is seen that the client left.
            tokio::task::consume_budget().await;
            let Planned { step, standing, now } = self.plan(&mut pending, permit.is_some())?;
            let answer = match step {
                Step::Redirect(reply) => {
                    self.upstreams.take_turn(&request.name);
                    Some(Answer::Reply(reply))
                }
                Step::Admit => {
                    let client = ClientNet::of(request.client);
                    *permit = Some(self.admission.wait(client).await.map_err(Failure::Busy)?);
                    None
                }
                Step::Probe => {
                    self.probe(&mut pending, now).await;
                    None
                }
                Step::AskHead(Question::Conditions, source) => {
                    self.ask_about_conditions(&mut pending, source).await
                }
                Step::AskHead(Question::Announced, source) => {
                    self.ask_about_announced(&mut pending, source).await;
                    None
                }
                Step::OpenLocal(directories) => self.open_local(&mut pending, directories).await?,
                Step::Measure => {
                    self.measure(&mut pending, standing).await;
                    None
                }
                Step::AwaitTurn => {
                    self.await_turn(&mut pending, now).await;
                    None
                }
                Step::Serve { whole } => self.serve(&mut pending, standing, whole, now)?,
                Step::Fill(transfer) => self.fill(&mut pending, transfer, now),
                Step::Join(sources) => {
                    self.join(&mut pending, sources, now).await?;
                    None
                }
                Step::Forward(transfer, why) => {
                    let fill = FillState::Bypass(why);
                    let forward = Forward::new(configured, request, transfer, fill, now);
                    Some(Answer::Forward(Box::new(forward)))
                }
            };
            if let Some(answer) = answer {
                return Ok(answer);
            }
        }
    }

    /// Looks at what is there, once, and plans the next step.
    fn plan(&self, pending: &mut Pending<'_>, admitted: bool) -> Result<Planned, Failure> {
        let (now, request) = (Instant::now(), pending.request);
        let Configured { settings, policy, config, .. } = &**pending.configured;
        let view = self.published.load();
        // Also where it was found just now.
        if let Some(group) = &request.group
            && view.is_held(&request.name, None)
            && !view.is_held(&request.name, Some(group))
        {
            return Err(Failure::NotHeld);
        }
        let joined = pending.joined.take().filter(|growing| !growing.has_failed());
        let stored = || self.cache.map(|cache| cache.store().standing(&request.name));
        let standing = joined.map(Standing::Growing).or_else(stored);
        let affinity = match settings.downloads {
            Downloads::Proxy => self.affinity(request, now),
            Downloads::Redirect => Affinity::Fresh,
        };
        let is_distrusted = |source: &Source| {
            let store = self.cache.map(ArchiveStorage::store);
            store.is_some_and(|store| store.is_distrusted(&source.target, &source.listed, now))
        };
        let world = World {
            view: &view,
            entry: standing.as_ref().map(|standing| entry(standing, config.cache.range_wait, now)),
            affinity: &affinity,
            targets: &self.upstreams.at(now),
            is_distrusted: &is_distrusted,
            has_failed: &|source: &Source| self.upstreams.has_failed(source),
            downloads: settings.downloads,
            policy: *policy,
            admitted,
        };
        let step = next(request, &world, &pending.tried)?;
        Ok(Planned { step, standing, now })
    }

    /// What the client has of the archive.
    fn affinity(&self, request: &ArchiveRequest, now: Instant) -> Affinity {
        let ArchiveRequest { name, client, asked, .. } = request;
        let is_named = |copy| asked.names(copy) == Some(true);
        self.affinities.affinity(*client, *name, asked.portion(), is_named, now)
    }

    /// Has targets asked for what none of them listed, where that is worth it, and waits for them.
    async fn probe(&self, pending: &mut Pending<'_>, now: Instant) {
        pending.tried.probed = true;
        let ArchiveRequest { name, client, ref came, .. } = *pending.request;
        let probe = {
            let targets = self.upstreams.at(now);
            let resting = |target: &TargetId| targets.stats(target).resting;
            self.probes.begin(name, client, came, &self.published.load(), resting, now)
        };
        if let Some(probe) = probe {
            probe.over().await;
        }
    }

    /// Asks the target that would be asked for the archive which copy it has. Where that does not
    /// meet the conditions, it is the answer.
    async fn ask_about_conditions(
        &self,
        pending: &mut Pending<'_>,
        source: Option<Arc<Source>>,
    ) -> Option<Answer> {
        let ArchiveRequest { asked, came, .. } = pending.request;
        pending.tried.inquiry = Inquiry::Unanswered;
        let source = source?;
        if let Some(head) = self.probes.head(&source, came).await {
            let how = CacheStatus::Bypass(Bypass::Condition);
            let tags = pending.configured.keys.tags;
            if let Some(reply) = judged(tags, asked, head.copy, head.modified, how) {
                return Some(Answer::Reply(reply));
            }
            pending.tried.inquiry = Inquiry::Passed;
        } else {
            let judge = |copy| asked.conditions.judge(copy, source.listed.modified);
            if source.copy().map(judge) == Some(Judgement::Met) {
                pending.tried.inquiry = Inquiry::Passed;
            }
        }
        None
    }

    /// Asks the target whose copy the client was told of whether that is there.
    async fn ask_about_announced(&self, pending: &mut Pending<'_>, source: Option<Arc<Source>>) {
        let head = match source {
            Some(source) => self.probes.head(&source, &pending.request.came).await,
            None => None,
        };
        pending.tried.announced =
            if head.is_some() { Announced::Answering } else { Announced::Silent };
    }

    /// Opens the archive in the first directory that still has it.
    async fn open_local(
        &self,
        pending: &mut Pending<'_>,
        Transfer { sources, pinned }: Transfer,
    ) -> Result<Option<Answer>, Failure> {
        let request = pending.request;
        let mut failed = SourceFailure::Gone;
        for source in &sources {
            let archive = match local::open(&self.directories, source).await {
                Ok(archive) => archive,
                Err(failure) => {
                    self.upstreams.refused(source, &request.asked.method, &failure);
                    failed = failed.or(failure);
                    continue;
                }
            };
            if pinned.as_ref().is_some_and(|given| given.copy != archive.record().copy) {
                return Err(Failure::OtherCopy);
            }
            let read =
                self.read(archive, CacheStatus::Lent, pending, &request.asked, Instant::now());
            match read {
                Ok(answer) => return Ok(Some(answer)),
                // Another request of the same client was faster, and began another copy.
                Err(Conflict::Other(begun)) if !begun.target.is_ledger() => break,
                Err(_) => return Err(Failure::OtherCopy),
            }
        }
        pending.tried.local = Some(failed);
        Ok(None)
    }

    /// Waits until it is known how fast an archive comes that is being fetched.
    async fn measure(&self, pending: &mut Pending<'_>, standing: Option<Standing>) {
        pending.tried.measured = Some(pending.tried.joins);
        let Some(Standing::Growing(growing)) = standing else { return };
        let start = pending.request.asked.range.last_start(growing.record().length);
        growing.measured(start, pending.configured.config.cache.range_wait).await;
        if growing.has_failed() {
            pending.tried.bypass = Some(Bypass::Backoff);
        }
        pending.joined = Some(growing);
    }

    /// Waits for the right to fill that may come free in a moment. Whoever is not faster fills, and
    /// is served past the cache otherwise.
    async fn await_turn(&self, pending: &mut Pending<'_>, now: Instant) {
        pending.tried.waited = true;
        let ArchiveRequest { name, client, .. } = pending.request;
        let patience = self.fills.turn(name, ClientNet::of(*client), now);
        if let (Some(cache), Some(patience)) = (self.cache, patience) {
            let _ = tokio::time::timeout(patience, cache.store().unclaimed(name)).await;
        }
    }

    /// Reads what the cache has.
    fn serve(
        &self,
        pending: &mut Pending<'_>,
        standing: Option<Standing>,
        whole: bool,
        now: Instant,
    ) -> Result<Option<Answer>, Failure> {
        let (archive, how) = match standing {
            Some(Standing::Whole(sealed)) => (Archive::Whole(sealed), CacheStatus::Hit),
            Some(Standing::Growing(growing)) => {
                let is_own = pending.own.as_ref().is_some_and(|own| Arc::ptr_eq(own, &growing));
                let how = if is_own { CacheStatus::Stored } else { CacheStatus::Collapsed };
                (Archive::Growing(growing), how)
            }
            Some(Standing::Absent | Standing::Filling(_)) | None => {
                pending.tried.bypass = Some(Bypass::Backoff);
                return Ok(None);
            }
        };
        let request = pending.request;
        let all = whole.then(|| request.asked.whole());
        match self.read(archive, how, pending, all.as_ref().unwrap_or(&request.asked), now) {
            Ok(answer) => Ok(Some(answer)),
            // Another request of the same client was faster, and began another copy.
            Err(Conflict::Other(begun)) => {
                pending.tried.begun = Some(begun);
                pending.tried.bypass = Some(Bypass::OtherCopy);
                Ok(None)
            }
            Err(Conflict::Torn) => Err(Failure::OtherCopy),
        }
    }

    /// Carries the archive into the cache on its way to the client, where nobody else does.
    fn fill(&self, pending: &mut Pending<'_>, transfer: Transfer, now: Instant) -> Option<Answer> {
        let request = pending.request;
        let first = transfer.sources.first();
        let claim = self
            .cache
            .zip(first)
            .and_then(|(cache, first)| cache.store().claim(&request.name, &first.target));
        let Some(claim) = claim else {
            // Another request was faster, and its source is now everyone's.
            pending.tried.bypass = Some(Bypass::Filling);
            return None;
        };
        let holding = self.fills.hold(request.name, ClientNet::of(request.client));
        let fill = FillState::Claimed(claim);
        let mut forward = Forward::new(pending.configured, request, transfer, fill, now);
        forward.holding = Some(holding);
        Some(Answer::Forward(Box::new(forward)))
    }

    /// Has the archive fetched into the cache, and waits until it can be read. What nobody wanted
    /// any more until this request came is fetched anew.
    async fn join(
        &self,
        pending: &mut Pending<'_>,
        sources: Vec<Arc<Source>>,
        now: Instant,
    ) -> Result<(), Failure> {
        pending.tried.joins += 1;
        let Some(queue) = &self.queue else {
            pending.tried.bypass = Some(Bypass::Off);
            return Ok(());
        };
        let ArchiveRequest { name, client, ref came, .. } = *pending.request;
        let (came, abandon) = (Arc::clone(came), AbandonPolicy::AsConfigured);
        let placed = queue.place(FillRequest { name, client, came, sources, abandon }, now);
        let mut handle = match placed {
            Placed::Running(handle) => handle,
            Placed::Whole => return Ok(()),
            // A request carries it there, from when that was the way. A slow one is worth a moment.
            Placed::Refused(_) if self.fills.has_holder(&name) => {
                if pending.tried.waited {
                    pending.tried.bypass = Some(Bypass::Filling);
                } else {
                    self.await_turn(pending, now).await;
                }
                return Ok(());
            }
            Placed::Refused(why) => {
                pending.tried.bypass = Some(why);
                return Ok(());
            }
        };
        match handle.join(pending.configured.config.limits.queue_wait).await {
            Joined::Growing(growing) if growing.has_failed() => {
                pending.tried.bypass = Some(Bypass::Backoff);
            }
            Joined::Growing(growing) => {
                pending.own = handle.is_new.then(|| Arc::clone(&growing));
                pending.joined = Some(growing);
            }
            Joined::Whole | Joined::Not(FillFailure::Unwanted) => {}
            Joined::Not(FillFailure::Failed(failure)) => return Err(failure),
            Joined::Not(FillFailure::Refused(why)) => pending.tried.bypass = Some(why),
        }
        Ok(())
    }

    /// Serves from a file what meets the conditions, unless the client began another copy
    /// meanwhile, which is the error.
    fn read(
        &self,
        archive: Archive,
        how: CacheStatus,
        pending: &Pending<'_>,
        asked: &Asked,
        now: Instant,
    ) -> Result<Answer, Conflict> {
        let ArchiveRequest { name, client, .. } = *pending.request;
        let Record { copy, modified, length, .. } = *archive.record();
        let tags = pending.configured.keys.tags;
        if let Some(reply) = judged(tags, asked, copy, modified, how) {
            // What a cache in front has of it is as good as before.
            let is_kept = how == CacheStatus::Hit && reply.status == StatusCode::NOT_MODIFIED;
            let caching = head::caching(is_kept, pending.configured.is_for_all());
            return Ok(Answer::Reply(reply.with(CACHE_CONTROL, caching)));
        }
        let mut read = CacheRead { archive, how, asked: asked.clone(), delivery: None };
        if asked.method == Method::HEAD {
            self.affinities.announce(client, name, read.copy(), now);
        } else {
            let part = Part::of_file(read.copy(), length, asked);
            if !part.ranges.is_empty() {
                let portion = pending.request.asked.portion();
                read.delivery = Some(self.affinities.begin(client, name, portion, part, now)?);
            }
        }
        Ok(Answer::CacheRead(Box::new(read)))
    }
}

/// What the store has, for those who decide.
fn entry(standing: &Standing, range_wait: Duration, now: Instant) -> EntryState<'_> {
    match standing {
        Standing::Absent => EntryState::Nothing,
        Standing::Filling(target) => EntryState::Filling(target),
        Standing::Growing(growing) => {
            let Record { target, copy, length, .. } = growing.record();
            EntryState::Growing {
                target,
                copy: *copy,
                length: *length,
                reach: growing.progress().reach(range_wait, now),
                ranges: growing.source_has_ranges(),
            }
        }
        Standing::Whole(sealed) => {
            let Record { target, copy, .. } = sealed.record();
            EntryState::Whole { target, copy: *copy }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::scene::{Cached, SIZE, Scene, name, node, request};
    use crate::route::TEST_KEY;

    const NO_PROBES: &str = "limits: {unknown_name_probe: 0s}";

    /// How a request is answered, in a word.
    fn shown(answer: &Result<Answer, Failure>) -> String {
        match answer {
            Err(failure) => format!("{failure:?}"),
            Ok(Answer::Reply(reply)) => reply.status.as_u16().to_string(),
            Ok(Answer::CacheRead(read)) => format!("read, {}", read.how),
            Ok(Answer::Forward(forward)) => {
                let fill = match &forward.fill {
                    FillState::Bypass(why) => why.detail(),
                    FillState::Claimed(_) => "claimed",
                    FillState::Filling(_) => "filling",
                };
                let from = forward.source().map_or("nobody", |source| &source.target.authority);
                format!("forward from {from}, {fill}")
            }
        }
    }

    async fn check(scene: &Scene, request: &ArchiveRequest, expected: &str) {
        assert_eq!(shown(&scene.ask(request).await), expected, "{request:?}");
    }

    #[tokio::test]
    async fn what_is_there_is_forwarded_and_what_is_not_is_not_held() {
        let mut scene = Scene::new(NO_PROBES, Cached::Off);
        for method in ["GET", "HEAD"] {
            check(&scene, &request(1, method, &[]), "NotHeld").await;
        }
        scene.lists(&node(1), SIZE);
        for method in ["GET", "HEAD"] {
            check(&scene, &request(1, method, &[]), "forward from 10.0.0.1:8899, off").await;
        }
        // A transfer has a permit, and a HEAD is none.
        for (method, transfers) in [("GET", true), ("HEAD", false)] {
            let (answer, permit) = scene.ask_for_permit(&request(1, method, &[])).await;
            assert!(answer.is_ok());
            assert_eq!(permit.is_some(), transfers, "{method}");
        }
    }

    #[tokio::test]
    async fn who_gets_no_place_is_told_so() {
        let limits = "limits: {max_transfers: 1, queue_wait: 0s, unknown_name_probe: 0s}";
        let mut scene = Scene::new(limits, Cached::Off);
        scene.lists(&node(1), SIZE);
        let (_, permit) = scene.ask_for_permit(&request(1, "GET", &[])).await;
        assert!(permit.is_some());
        check(&scene, &request(2, "GET", &[]), "Busy(Transfers)").await;
        check(&scene, &request(2, "HEAD", &[]), "forward from 10.0.0.1:8899, off").await;
        drop(permit);
        check(&scene, &request(2, "GET", &[]), "forward from 10.0.0.1:8899, off").await;
    }

    #[tokio::test]
    async fn what_is_not_carried_is_redirected_to() {
        let mut scene = Scene::redirecting(NO_PROBES);
        check(&scene, &request(1, "GET", &[]), "NotHeld").await;
        scene.lists(&node(1), SIZE);
        check(&scene, &request(1, "GET", &[]), "307").await;
    }

    #[tokio::test]
    async fn a_local_file_is_read_and_where_it_is_gone_a_target_is_asked() {
        let mut scene = Scene::new(NO_PROBES, Cached::Off);
        scene.lists(&node(1), SIZE);
        scene.write(SIZE);
        let lent = "read, snapedge; hit; detail=ledger";
        for (method, headers) in [("GET", &[][..]), ("HEAD", &[]), ("GET", &["range: bytes=5-9"])] {
            check(&scene, &request(1, method, headers), lent).await;
        }
        // Conditions are judged on the file.
        let file = scene.ask(&request(1, "HEAD", &[])).await;
        let Ok(Answer::CacheRead(read)) = file else { panic!("{}", shown(&file)) };
        let tag = TEST_KEY.tag(read.copy().copy);
        for (condition, expected) in
            [("if-none-match", "304"), ("if-match", lent), ("if-range", lent)]
        {
            let headers = [format!("{condition}: {tag}"), "range: bytes=5-".to_owned()];
            let request = request(2, "GET", &[&headers[0], &headers[1]]);
            check(&scene, &request, expected).await;
        }
        let path = scene.directory.path().join("ledger").join(name().to_string());
        std::fs::remove_file(path).expect("removed");
        check(&scene, &request(3, "GET", &[]), "forward from 10.0.0.1:8899, off").await;
    }

    #[tokio::test]
    async fn who_has_bytes_of_a_file_is_given_no_others() {
        let mut scene = Scene::new(NO_PROBES, Cached::Off);
        scene.write(SIZE);
        let first = scene.ask(&request(1, "GET", &[])).await;
        let Ok(Answer::CacheRead(mut read)) = first else { panic!("{}", shown(&first)) };
        let delivery = read.delivery.take().expect("bytes");
        delivery.pass(500);
        drop(delivery);
        let rest = request(1, "GET", &["range: bytes=500-"]);
        check(&scene, &rest, "read, snapedge; hit; detail=ledger").await;
        // It is another file now; or it is gone, and a target has the archive.
        scene.write(SIZE + 1);
        check(&scene, &rest, "OtherCopy").await;
        scene.lists(&node(1), SIZE);
        check(&scene, &rest, "OtherCopy").await;
        check(&scene, &request(2, "GET", &[]), "read, snapedge; hit; detail=ledger").await;
    }

    #[tokio::test]
    async fn of_several_at_once_one_fills_the_cache() {
        let mut scene = Scene::new(NO_PROBES, Cached::Exclusive);
        scene.lists(&node(1), SIZE);
        let from = "forward from 10.0.0.1:8899";
        let part = request(1, "GET", &["range: bytes=5-"]);
        check(&scene, &part, &format!("{from}, range")).await;
        check(&scene, &request(1, "HEAD", &[]), &format!("{from}, head")).await;
        let first = scene.ask(&request(2, "GET", &[])).await;
        assert_eq!(shown(&first), format!("{from}, claimed"));
        check(&scene, &request(3, "GET", &[]), &format!("{from}, filling")).await;
        // The right to fill comes back with who had it.
        drop(first);
        check(&scene, &request(3, "GET", &[]), &format!("{from}, claimed")).await;
    }
}
