//! The targets of one group, each watched by a task of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::client::GroupClient;
use super::discovery::{DiscoveryCounts, Found};
use super::doors::{DoorPlace, Doors};
use super::nodes::{NodePlace, Nodes};
use super::omissions::{Omissions, Told};
use super::probe::Prober;
use super::reference::chain;
use crate::clock::Now;
use crate::config::{Group, HostPort};
use crate::index::{Event, TargetId};

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
    /// Bounds how many there are at once.
    pub(super) probes: Arc<Semaphore>,
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
            let prober = Prober::new(member.client.clone(), &member.group, target.clone());
            let id = self.id(&target);
            let place = self.means.nodes.place(id.clone());
            let door = self.means.doors.place(id.clone());
            let watch = Watch { id, place, door, means: self.means.clone() };
            let running = Running { member: at, task: tokio::spawn(watch.keep(prober)) };
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

impl Watch {
    async fn keep(self, mut prober: Prober) {
        let mut ticks = tokio::time::interval(self.means.interval);
        // A probe that takes longer than the interval delays the next one, it is not cut short.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Whether it fails, and what is wrong then, where that is known: a fault that is put right
        // and leaves another one behind is worth a line.
        let mut failing = None;
        let mut told = Told::default();
        loop {
            ticks.tick().await;
            let Ok(permit) = self.means.probes.acquire().await else { return };
            let at = Now::read();
            let outcome = tokio::time::timeout(self.means.timeout, prober.probe()).await;
            drop(permit);
            let target = self.id.clone();
            let answered = matches!(outcome, Ok(Ok(_)));
            self.place.set(answered.then(|| prober.node()).flatten());
            let (fault, failure) = match outcome {
                Ok(Ok(archives)) => {
                    if failing.take().is_some() {
                        log::info!("target {target} answers again");
                    }
                    self.tell(&mut told, prober.omitted());
                    if self
                        .means
                        .events
                        .send(Event::Answered { target, at, archives })
                        .await
                        .is_err()
                    {
                        return;
                    }
                    self.door.open(prober.door());
                    continue;
                }
                Ok(Err(error)) => (error.fault(), chain(&error)),
                Err(_) => (None, format!("no answer within {:?}", self.means.timeout)),
            };
            self.door.shut();
            let advice = fault.map_or(String::new(), |fault| format!("{fault}: "));
            fault.inspect(|fault| prober.access().faults.count(*fault));
            if failing.replace(fault) != Some(fault) {
                log::warn!("cannot probe target {target}: {advice}{failure}");
            }
            if self.means.events.send(Event::Failed { target, at }).await.is_err() {
                return;
            }
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
