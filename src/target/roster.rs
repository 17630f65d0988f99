//! The targets of one group, each watched by a task of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::approach::Approach;
use super::client::GroupClient;
use super::discovery::{DiscoveryCounts, Found};
use super::doors::{DoorPlace, Doors};
use super::nodes::{NodePlace, Nodes};
use super::omissions::{Omissions, Told};
use super::probe::ProbeError;
use super::reference::chain;
use super::remarks::Remarks;
use super::resolution::Lookups;
use super::silence;
use super::turns::{Standing, Turns};
use crate::clock::Now;
use crate::config::{Group, HostPort};
use crate::hops::EdgeId;
use crate::index::{Event, Listed, TargetId};

/// What all probes have in common.
#[derive(Clone)]
pub(super) struct Means {
    /// Time between two probes of one target.
    pub(super) interval: Duration,
    /// Time for one probe.
    pub(super) timeout: Duration,
    /// Where those appear that are nodes.
    pub(super) nodes: Arc<Nodes>,
    /// Where all of them appear, for what they did not list yet.
    pub(super) doors: Arc<Doors>,
    pub(super) counts: Arc<DiscoveryCounts>,
    /// Where they say what they found.
    pub(super) events: mpsc::Sender<Event>,
    /// Bounds how many there are at once, and says whose turn it is.
    pub(super) turns: Arc<Turns>,
    /// Failed probes in a row after which a target's archives are no longer offered.
    pub(super) failures: u32,
    /// How names are resolved.
    pub(super) lookups: Lookups,
}

/// One entry of a group in the configuration: a way to some of its targets.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) group: Arc<Group>,
    pub(super) client: GroupClient,
}

/// The targets of one group.
pub(super) struct Roster {
    name: Arc<str>,
    members: Vec<Member>,
    means: Means,
    running: BTreeMap<HostPort, Running>,
}

/// The task of one target.
struct Running {
    /// Which member says how it is reached.
    member: usize,
    task: JoinHandle<()>,
}

impl Roster {
    /// The targets of the group that has this name and these members.
    pub(super) fn new(name: Arc<str>, members: Vec<Member>, means: Means) -> Self {
        Self { name, members, means, running: BTreeMap::new() }
    }

    /// Watches what is found, for as long as it is; never returns.
    pub(super) async fn keep(mut self, mut found: Found) {
        loop {
            self.reconcile(found.targets()).await;
            tokio::select! {
                () = found.changed() => {}
                // A task may have ended by a fault since.
                () = tokio::time::sleep(self.means.interval) => {}
            }
        }
    }

    async fn reconcile(&mut self, targets: BTreeMap<HostPort, usize>) {
        let gone: Vec<HostPort> =
            self.running.keys().filter(|target| !targets.contains_key(target)).cloned().collect();
        for target in gone {
            let Some(mut running) = self.running.remove(&target) else { continue };
            // Ended before it is taken out, so that no last answer of its puts it back.
            running.end().await;
            log::info!("target {target} left group `{}`", self.name);
            if self.means.events.send(Event::Removed { target: self.id(&target) }).await.is_err() {
                return;
            }
        }
        // Before any of them answers, so that the index knows whom it has not heard yet.
        for target in targets.keys().filter(|target| !self.running.contains_key(*target)) {
            if self.means.events.send(Event::Expected { target: self.id(target) }).await.is_err() {
                return;
            }
        }
        for (target, at) in targets {
            let Some(member) = self.members.get(at) else { continue };
            match self.running.get_mut(&target) {
                Some(Running { task, .. }) if task.is_finished() => {
                    // None ends by itself, so this was a panic; the target is watched anew.
                    log::error!("the probes of target {target} ended, they begin again");
                }
                Some(running) if running.member == at => continue,
                // What it has stays listed until the first answer to who asks in the other way.
                Some(running) => running.end().await,
                None => {}
            }
            let (client, lookups) = (member.client.clone(), self.means.lookups.clone());
            let approach = Approach::new(client, &member.group, target.clone(), lookups);
            let id = self.id(&target);
            let place = self.means.nodes.place(id.clone());
            let door = self.means.doors.place(id.clone());
            let watch = Watch { id, place, door, means: self.means.clone() };
            let running = Running { member: at, task: tokio::spawn(watch.keep(approach)) };
            self.running.insert(target, running);
        }
    }

    fn id(&self, target: &HostPort) -> TargetId {
        TargetId { group: Arc::clone(&self.name), authority: target.to_string().into() }
    }
}

impl Drop for Roster {
    fn drop(&mut self) {
        self.running.values().for_each(|running| running.task.abort());
    }
}

impl Running {
    /// Stops it, and waits until it has stopped.
    async fn end(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

/// One target.
struct Watch {
    id: TargetId,
    place: NodePlace,
    door: DoorPlace,
    means: Means,
}

/// The outcome of a probe.
enum Outcome {
    Answered(Vec<Listed>),
    Failed(ProbeError),
    /// Nothing, in all the time that there was.
    Silent,
}

impl Watch {
    /// Says which edge the target is, where that has changed; false where nobody listens any more.
    async fn identify(&self, before: &mut Option<EdgeId>, edge: Option<&EdgeId>) -> bool {
        if before.as_ref() == edge {
            return true;
        }
        *before = edge.cloned();
        let event = Event::Identified { target: self.id.clone(), edge: before.clone() };
        self.means.events.send(event).await.is_ok()
    }

    async fn keep(self, mut approach: Approach) {
        let mut standing = Standing::default();
        let (mut remarks, mut failing, mut edge) = (Remarks::default(), false, None);
        let (mut told, mut next) = (Told::default(), Instant::now());
        loop {
            tokio::time::sleep_until(next).await;
            let due = Instant::now();
            let Some((at, outcome)) = self.ask(&mut standing, &mut approach).await else { return };
            // A probe that takes longer than that delays the next one, it is not cut short.
            next = due + standing.rest(self.means.interval, self.means.failures);
            if let Some(rest) = approach.rest() {
                next = next.max(Instant::now() + rest);
            }
            let target = self.id.clone();
            let answered = matches!(outcome, Outcome::Answered(_));
            self.place.set(answered.then(|| approach.node()).flatten());
            self.remark(&mut remarks, failing, &outcome, &approach);
            failing = !answered;
            if answered {
                self.tell(&mut told, approach.omitted());
                if !self.identify(&mut edge, approach.listing_edge()).await {
                    return;
                }
            }
            let event = match outcome {
                Outcome::Answered(archives) => Event::Answered { target, at, archives },
                Outcome::Failed(_) | Outcome::Silent => {
                    self.door.shut();
                    Event::Failed { target, at }
                }
            };
            if self.means.events.send(event).await.is_err() {
                return;
            }
            if answered {
                self.door.open(approach.door());
            }
        }
    }

    /// Says once why a target offers nothing, again when there is another reason, and when it does.
    fn remark(
        &self,
        remarks: &mut Remarks,
        was_failing: bool,
        outcome: &Outcome,
        approach: &Approach,
    ) {
        let (target, now) = (&self.id, std::time::Instant::now());
        let (reason, failure) = match outcome {
            Outcome::Answered(archives) if !archives.is_empty() => {
                if remarks.well() {
                    let does = if was_failing { "answers again" } else { "offers archives now" };
                    log::info!("target {target} {does}");
                }
                return;
            }
            Outcome::Answered(_) => {
                let told = approach.told();
                if remarks.wrong(&told, now) {
                    log::warn!("target {target} offers nothing: {told}");
                }
                return;
            }
            Outcome::Failed(error) => {
                let (fault, advice) = (error.fault(), silence::advice(error));
                fault.inspect(|fault| approach.access().faults.count(*fault));
                let fault = fault.map_or(String::new(), |fault| format!("{fault}: "));
                let advice = advice.map_or(String::new(), |advice| format!("; {advice}"));
                (silence::reason(error), format!("{fault}{}{advice}", chain(error)))
            }
            Outcome::Silent => {
                let timeout = self.means.timeout;
                let advice = "it hangs, or needs more time than `limits.probe_timeout`";
                ("silent".to_owned(), format!("no answer within {timeout:?}; {advice}"))
            }
        };
        if remarks.wrong(&reason, now) {
            log::warn!("cannot probe target {target}: {failure}");
        }
    }

    /// Asks the target when it has its turn, again where it had to leave that to others; when that
    /// was, and what became of it. Nothing where there are no more turns.
    async fn ask(
        &self,
        standing: &mut Standing,
        approach: &mut Approach,
    ) -> Option<(Now, Outcome)> {
        let Means { turns, timeout, failures, .. } = &self.means;
        loop {
            let turn = turns.turn(standing.share()).await?;
            let at = Now::read();
            let probe = tokio::time::timeout(*timeout, approach.probe(*timeout));
            let Some(outcome) = turn.take(standing.look(), probe).await else {
                standing.overdue();
                continue;
            };
            let took = at.instant.elapsed();
            let outcome = match outcome {
                Ok(Ok(archives)) => Outcome::Answered(archives),
                Ok(Err(error)) => Outcome::Failed(error),
                Err(_) => Outcome::Silent,
            };
            match outcome {
                Outcome::Answered(_) => standing.answered(took),
                Outcome::Failed(_) | Outcome::Silent => standing.failed(took, *failures),
            }
            return Some((at, outcome));
        }
    }

    /// Says what was left out of a listing, once, and counts it.
    fn tell(&self, told: &mut Told, omitted: &Omissions) {
        self.means.counts.unlisted(&self.id.group, omitted.count());
        if let Some(news) = told.news(omitted) {
            log::warn!("of what target {} lists, {news}", self.id);
        }
    }
}
