//! What one group is asked: the sources that name its targets, the targets, each again and again by
//! a task of its own, and its local directories. A plan takes the place of another one while they
//! run: what both have goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::approach::Approach;
use super::discovery::{Conduct, Findings, Search, Seat, SourceConfig};
use super::ledger::LedgerWatch;
use super::member::Member;
use super::probe_context::ProbeContext;
use super::scrape_loop::ScrapeLoop;
use crate::access::Access;
use crate::config::{HostPort, Scheme};
use crate::index::{Event, TargetId};
use crate::ledger::Ledger;

/// What a group is asked, as a configuration has it.
#[derive(Clone)]
pub(super) struct GroupPlan {
    pub(super) members: Vec<Member>,
    pub(super) ledgers: Vec<Arc<Ledger>>,
    pub(super) conduct: Conduct,
}

/// What a group is told, and how it says that this is done.
pub(super) struct Command {
    /// The plan of the group; nothing where that is not configured any more.
    pub(super) plan: Option<GroupPlan>,
    pub(super) done: oneshot::Sender<()>,
}

/// The targets of one group, with the tasks that ask them.
pub(super) struct ScrapePool {
    name: Arc<str>,
    plan: GroupPlan,
    context: ProbeContext,
    findings: Findings,
    searches: Vec<Searching>,
    ledgers: BTreeMap<TargetId, (Arc<Ledger>, Task)>,
    running: BTreeMap<HostPort, Running>,
    surveyed: Option<bool>,
}

/// A task, which ends with whoever has this.
struct Task(JoinHandle<()>);

/// The search in one source.
struct Searching {
    /// The source; nothing for what an entry names itself.
    source: Option<SourceConfig>,
    scheme: Scheme,
    /// How the targets are reached that it names.
    access: Arc<Access>,
    seat: Seat,
    task: Option<Task>,
}

/// The task of one target.
struct Running {
    /// Which says how it is reached.
    member: watch::Sender<Member>,
    task: Task,
}

/// Nobody is left to tell.
struct Deaf;

impl Searching {
    fn is_of(&self, source: &SourceConfig, scheme: Scheme) -> bool {
        self.source.as_ref() == Some(source) && self.scheme == scheme
    }

    /// Whether it is one of the same kind, whose targets are reached in the same way: no other
    /// ones are told what is meant for them.
    fn is_like(&self, source: &SourceConfig, access: &Arc<Access>) -> bool {
        let kind = self.source.as_ref().map(SourceConfig::kind);
        kind == Some(source.kind()) && Arc::ptr_eq(&self.access, access)
    }
}

impl Task {
    fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task))
    }

    /// Stops it, and waits until it has stopped.
    async fn end(mut self) {
        self.0.abort();
        let _ = (&mut self.0).await;
    }

    /// None ends by itself, so this was a panic.
    fn has_ended(&self) -> bool {
        self.0.is_finished()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl ScrapePool {
    /// The targets of the group that has this name.
    pub(super) fn new(name: Arc<str>, plan: GroupPlan, context: ProbeContext) -> Self {
        Self {
            name,
            plan,
            context,
            findings: Findings::default(),
            searches: Vec::new(),
            ledgers: BTreeMap::new(),
            running: BTreeMap::new(),
            surveyed: None,
        }
    }

    /// Watches what is found, until it is told that there is no such group any more.
    pub(super) async fn keep(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut found = self.findings.subscribe();
        self.search(true).await;
        let mut done: Option<oneshot::Sender<()>> = None;
        loop {
            let (targets, is_all) = found.targets();
            if self.watch_ledgers().await.is_err()
                || self.reconcile(targets, is_all).await.is_err()
                || self.tell(is_all).await.is_err()
            {
                return;
            }
            if let Some(done) = done.take() {
                // Who asked may have given up.
                let _ = done.send(());
            }
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command { plan: Some(plan), done: told }) => {
                        let is_new = !self.plan.conduct.is_same(&plan.conduct);
                        (self.plan, done) = (plan, Some(told));
                        self.search(is_new).await;
                    }
                    Some(Command { plan: None, done }) => {
                        self.end().await;
                        let _ = done.send(());
                        return;
                    }
                    None => return,
                },
                () = found.changed() => {}
                // A task may have ended by a fault since.
                () = tokio::time::sleep(self.context.settings().interval) => {
                    self.mend().await;
                }
            }
        }
    }

    /// Has each source searched that the plan has, by the task that does so already unless all
    /// begin anew or that ended by a fault.
    async fn search(&mut self, anew: bool) {
        let mut before = std::mem::take(&mut self.searches);
        let mut wanted: Vec<(usize, SourceConfig, Option<Searching>)> = Vec::new();
        for (member, Member { group, client }) in self.plan.members.iter().enumerate() {
            // Before those go that are gone: a target that moves from one source to another one
            // never leaves the group.
            let seat = self.findings.name(member, &group.sources.static_targets);
            let (scheme, access) = (group.scheme, Arc::clone(client.access()));
            self.searches.push(Searching { source: None, scheme, access, seat, task: None });
            for source in SourceConfig::all(&group.sources) {
                let is_it = |old: &Searching| old.is_of(&source, group.scheme);
                let old = before.iter().position(is_it).map(|at| before.remove(at));
                wanted.push((member, source, old));
            }
        }
        for (member, source, old) in wanted {
            let Member { group, client } = &self.plan.members[member];
            let (scheme, access) = (group.scheme, Arc::clone(client.access()));
            let is_alike = |old: &Searching| old.is_like(&source, &access);
            let (seat, task) = match old {
                Some(Searching { seat, task, .. }) => {
                    (seat, task.filter(|task| !anew && !task.has_ended()))
                }
                // What one of its kind named last stays until it names others.
                None => match before.iter().position(is_alike).map(|at| before.remove(at)) {
                    Some(Searching { seat, task: Some(task), .. }) => {
                        task.end().await;
                        (seat, None)
                    }
                    Some(Searching { seat, task: None, .. }) => (seat, None),
                    None => (self.findings.seat(member), None),
                },
            };
            self.findings.move_to(seat, member);
            let task = task.unwrap_or_else(|| {
                let place = (&self.findings, seat);
                let search = Search::new(&self.name, &source, scheme, place, &self.plan.conduct);
                Task::spawn(search.keep())
            });
            let (source, task) = (Some(source), Some(task));
            self.searches.push(Searching { source, scheme, access, seat, task });
        }
        for Searching { seat, task, .. } in before {
            if let Some(task) = task {
                // Before its seat is gone, to which it would say something.
                task.end().await;
            }
            self.findings.leave(seat);
        }
    }

    /// Has sources searched anew whose task ended by a fault.
    async fn mend(&mut self) {
        let has_ended = |of: &&Searching| of.task.as_ref().is_some_and(Task::has_ended);
        let ended = self.searches.iter().filter(has_ended).count();
        if ended > 0 {
            log::error!("the search for targets of group `{}` ended, it begins again", self.name);
            self.search(false).await;
        }
    }

    /// Says whether all targets are found, where that has changed.
    async fn tell(&mut self, is_all: bool) -> Result<(), Deaf> {
        if self.surveyed.replace(is_all) == Some(is_all) {
            return Ok(());
        }
        self.send(Event::Surveyed { group: Arc::clone(&self.name), all: is_all }).await
    }

    async fn send(&self, event: Event) -> Result<(), Deaf> {
        self.context.events.send(event).await.map_err(|_| Deaf)
    }

    /// Has the local directories listed that the plan has.
    async fn watch_ledgers(&mut self) -> Result<(), Deaf> {
        let is_planned = |ledger: &Arc<Ledger>| {
            self.plan.ledgers.iter().any(|planned| Arc::ptr_eq(planned, ledger))
        };
        let gone: Vec<TargetId> = self
            .ledgers
            .iter()
            .filter(|(_, (ledger, task))| !is_planned(ledger) || task.has_ended())
            .map(|(id, _)| id.clone())
            .collect();
        for target in gone {
            let Some((_, task)) = self.ledgers.remove(&target) else { continue };
            if task.has_ended() {
                log::error!("the listings of target {target} ended, they begin again");
            }
            task.end().await;
            if !self.plan.ledgers.iter().any(|ledger| *ledger.id() == target) {
                log::info!("target {target} left the group");
                self.send(Event::Removed { target }).await?;
            }
        }
        for ledger in self.plan.ledgers.clone() {
            let target = ledger.id().clone();
            if self.ledgers.contains_key(&target) {
                continue;
            }
            self.send(Event::Expected { target: target.clone() }).await?;
            let (settings, events) = (self.context.settings.clone(), self.context.events.clone());
            let state = self.context.states.place(target.clone());
            let watch = LedgerWatch { ledger: Arc::clone(&ledger), settings, state, events };
            self.ledgers.insert(target, (ledger, Task::spawn(watch.keep())));
        }
        Ok(())
    }

    /// Has these targets asked, each as the plan says. The others go, once these are all.
    async fn reconcile(
        &mut self,
        targets: BTreeMap<HostPort, usize>,
        is_all: bool,
    ) -> Result<(), Deaf> {
        if is_all {
            let is_gone = |target: &&HostPort| !targets.contains_key(target);
            let gone: Vec<HostPort> = self.running.keys().filter(is_gone).cloned().collect();
            for target in gone {
                self.remove(&target).await?;
            }
        }
        // Before any of them answers, so that the index knows whom it has not heard yet.
        for target in targets.keys().filter(|target| !self.running.contains_key(*target)) {
            self.send(Event::Expected { target: self.id(target) }).await?;
        }
        for (target, at) in targets {
            let Some(member) = self.plan.members.get(at).cloned() else { continue };
            match self.running.get(&target) {
                Some(Running { task, .. }) if task.has_ended() => {
                    log::error!("the probes of target {target} ended, they begin again");
                }
                Some(running) => {
                    running.member.send_if_modified(|before| {
                        let is_new = !before.is_same(&member);
                        *before = member;
                        is_new
                    });
                    continue;
                }
                None => {}
            }
            let running = self.scrape(&target, member);
            self.running.insert(target, running);
        }
        Ok(())
    }

    /// Begins to ask a target.
    fn scrape(&self, target: &HostPort, member: Member) -> Running {
        let (client, lookups) = (member.client.clone(), self.context.lookups.clone());
        let approach = Approach::new(client, &member.group, target.clone(), lookups);
        let id = self.id(target);
        let place = self.context.nodes.place(id.clone());
        let head_probe = self.context.head_probes.place(id.clone());
        let (sender, member) = watch::channel(member);
        let context = self.context.clone();
        let state = self.context.states.place(id.clone());
        let scrape = ScrapeLoop { id, member, place, head_probe, state, context };
        Running { member: sender, task: Task::spawn(scrape.keep(approach)) }
    }

    async fn remove(&mut self, target: &HostPort) -> Result<(), Deaf> {
        let Some(Running { task, .. }) = self.running.remove(target) else { return Ok(()) };
        // Ended before it is taken out, so that no last answer of its puts it back.
        task.end().await;
        log::info!("target {target} left group `{}`", self.name);
        self.send(Event::Removed { target: self.id(target) }).await
    }

    /// Takes everything out.
    async fn end(&mut self) {
        self.searches.clear();
        self.plan.ledgers.clear();
        let targets: Vec<HostPort> = self.running.keys().cloned().collect();
        for target in targets {
            if self.remove(&target).await.is_err() {
                return;
            }
        }
        // The process ends where nobody listens any more.
        let _ = self.watch_ledgers().await;
    }

    fn id(&self, target: &HostPort) -> TargetId {
        TargetId { group: Arc::clone(&self.name), authority: target.to_string().into() }
    }
}
