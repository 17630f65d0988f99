//! Keeps the index true: finds targets, probes them, and publishes what is known.
//!
//! One task per source of targets; one task per group, which starts and stops the tasks of the
//! targets that were found; one task per target, which sleeps between its probes, and one per local
//! directory; one task that owns the catalog and publishes views. The last four meet in one bounded
//! queue. The request path reads [`Published`] and never waits for any of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::timeout;

use super::discovery::{Conduct, DiscoveryCounts};
use super::head_probes::HeadProbes;
use super::nodes::Nodes;
use super::plan::Plan;
use super::probe_context::{ProbeContext, ProbeSettings};
use super::publisher::{Inbox, Publisher, QUEUE, Rules};
use super::reference::ReferenceSlot;
use super::resolution::Lookups;
use super::scrape_pool::{Command, GroupPlan, ScrapePool};
use super::states::TargetStates;
use crate::access::Access;
use crate::index::{Distrusted, Event, Held, Undelivered};
use crate::ledger::Ledgers;
use crate::published::{Published, Reporter};

/// Rest before tasks that ended by a fault are begun again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// Longest that it may take to follow another plan, before all is begun again by it.
const LONGEST_CHANGE: Duration = Duration::from_secs(30);

/// The service that keeps the index.
pub struct Scraper {
    /// What is to be followed.
    plan: watch::Sender<Arc<Plan>>,
    /// What the view follows that is published.
    followed: watch::Sender<Arc<Plan>>,
    publisher: Arc<Publisher>,
    published: Arc<Published>,
    reference: Arc<ReferenceSlot>,
    discovery: Arc<DiscoveryCounts>,
    states: Arc<TargetStates>,
    nodes: Arc<Nodes>,
    head_probes: Arc<HeadProbes>,
    ledgers: Arc<Ledgers>,
    events: mpsc::Sender<Event>,
}

impl Scraper {
    /// Sets up what [`BackgroundService::start`] will run. It publishes to `views`, and counts what
    /// the cache holds now as held, what it found not to be sound as not there, and what did not
    /// come as what short names lead to only where there is nothing else.
    pub fn new(
        plan: Plan,
        views: Arc<Published>,
        held: watch::Receiver<Arc<[Held]>>,
        distrusted: watch::Receiver<Arc<[Distrusted]>>,
        undelivered: watch::Receiver<Arc<[Undelivered]>>,
    ) -> Self {
        let (events, inbox) = mpsc::channel(QUEUE);
        let reference = Arc::<ReferenceSlot>::default();
        let inbox = Inbox {
            events: inbox,
            held,
            distrusted,
            undelivered,
            reference: reference.subscribe(),
        };
        let publisher = Arc::new(Publisher::new(Rules::of(&plan.config), &views, inbox));
        let discovery = Arc::new(DiscoveryCounts::new(plan.config.group_names()));
        let ledgers = Arc::new(Ledgers::new(&plan.config));
        let plan = Arc::new(plan);
        Self {
            plan: watch::Sender::new(Arc::clone(&plan)),
            followed: watch::Sender::new(plan),
            publisher,
            published: views,
            reference,
            discovery,
            states: Arc::default(),
            nodes: Arc::default(),
            head_probes: Arc::default(),
            ledgers,
            events,
        }
    }

    /// The plan that is to be followed.
    pub fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plan.borrow())
    }

    /// Follows another plan from now on. Returns once a view is published that does, or false where
    /// that takes longer than `LONGEST_CHANGE` twice.
    pub async fn follow(&self, plan: Plan) -> bool {
        let (plan, mut followed) = (Arc::new(plan), self.followed.subscribe());
        self.plan.send_replace(Arc::clone(&plan));
        // One that came after it has taken its place.
        let is_followed =
            followed.wait_for(|now| Arc::ptr_eq(now, &plan) || !Arc::ptr_eq(&self.plan(), &plan));
        timeout(2 * LONGEST_CHANGE, is_followed).await.is_ok()
    }

    /// Where the views appear.
    pub fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published)
    }

    /// The cluster's slot, where an RPC node is configured.
    pub fn reference(&self) -> Arc<ReferenceSlot> {
        Arc::clone(&self.reference)
    }

    /// The targets that are nodes.
    pub fn nodes(&self) -> Arc<Nodes> {
        Arc::clone(&self.nodes)
    }

    /// The head probes of all targets, for archives that none of them listed yet.
    pub fn head_probes(&self) -> Arc<HeadProbes> {
        Arc::clone(&self.head_probes)
    }

    /// The targets that are local directories.
    pub fn ledgers(&self) -> Arc<Ledgers> {
        Arc::clone(&self.ledgers)
    }

    /// How often the sources of targets failed.
    pub fn discovery(&self) -> Arc<DiscoveryCounts> {
        Arc::clone(&self.discovery)
    }

    /// How each target does.
    pub fn states(&self) -> Arc<TargetStates> {
        Arc::clone(&self.states)
    }

    /// The way in for what transfers learn.
    pub fn reporter(&self) -> Reporter {
        Reporter::new(self.events.clone())
    }
}

/// What the service has to see to.
enum News {
    Stop,
    Fault(String),
    Plan,
}

/// The tasks that follow a plan.
struct Following<'a> {
    scraper: &'a Scraper,
    plan: Arc<Plan>,
    tasks: JoinSet<()>,
    settings: watch::Sender<ProbeSettings>,
    lookups: Lookups,
    pools: BTreeMap<Arc<str>, mpsc::Sender<Command>>,
    /// The accesses whose files are followed.
    keepers: Vec<(Arc<Access>, AbortHandle)>,
    reference: Option<AbortHandle>,
}

impl Scraper {
    /// Follows the plan of this moment, from the beginning.
    fn begin(&self, plans: &mut watch::Receiver<Arc<Plan>>) -> Following<'_> {
        let plan = Arc::clone(&plans.borrow_and_update());
        if self.followed.borrow().config.rpc != plan.config.rpc {
            self.reference.forget();
        }
        let mut following = Following::begin(self, Arc::clone(&plan));
        let (publisher, followed) = (Arc::clone(&self.publisher), self.followed.clone());
        following.tasks.spawn(async move {
            publisher.follow(Rules::of(&plan.config)).await;
            followed.send_replace(plan);
        });
        following
    }
}

impl<'a> Following<'a> {
    /// Starts everything, with an empty catalog: what is known is known by those that run.
    fn begin(scraper: &'a Scraper, plan: Arc<Plan>) -> Self {
        scraper.discovery.keep(plan.config.group_names());
        scraper.ledgers.apply(&plan.config);
        let mut following = Self {
            scraper,
            settings: watch::Sender::new(ProbeSettings::of(&plan.config, None)),
            tasks: JoinSet::new(),
            lookups: Lookups::new(),
            pools: BTreeMap::new(),
            keepers: Vec::new(),
            reference: None,
            plan,
        };
        following.tasks.spawn(Arc::clone(&scraper.publisher).publish());
        following.keep_accesses();
        for name in following.plan.config.group_names() {
            following.add(name);
        }
        following.keep_reference();
        following
    }

    /// Follows another plan, in which what did not change goes on.
    async fn change(&mut self, plan: Arc<Plan>) {
        let before = std::mem::replace(&mut self.plan, plan);
        let (scraper, config) = (self.scraper, &self.plan.config);
        scraper.discovery.keep(config.group_names());
        scraper.ledgers.apply(config);
        self.settings.send_if_modified(|settings| {
            let new = ProbeSettings::of(config, Some(settings));
            let is_new = new != *settings;
            *settings = new;
            is_new
        });
        self.keep_accesses();
        let asked = |plan: &Plan| {
            let timeout = plan.client.connect_timeout();
            (plan.config.rpc.clone(), plan.config.scrape_interval, timeout)
        };
        if asked(&before) != asked(&self.plan) {
            if before.config.rpc != self.plan.config.rpc {
                // Whatever the node of before is about to tell.
                scraper.reference.forget();
            }
            self.keep_reference();
        }
        let names = self.plan.config.group_names();
        let gone = self.pools.keys().filter(|name| !names.contains(name)).cloned().collect();
        let gone: Vec<Arc<str>> = gone;
        for name in gone {
            if let Some(pool) = self.pools.remove(&name) {
                tell(&pool, None).await;
                log::info!("group `{name}` is not configured any more");
            }
        }
        for name in names {
            match self.pools.get(&name) {
                Some(pool) => tell(pool, Some(self.group_plan(&name))).await,
                None => self.add(name),
            }
        }
        scraper.publisher.follow(Rules::of(&self.plan.config)).await;
    }

    /// Follows the files of passwords and tokens.
    fn keep_accesses(&mut self) {
        let wanted: Vec<Arc<Access>> =
            self.plan.members.iter().map(|member| Arc::clone(member.client.access())).collect();
        let is_wanted = |access: &Arc<Access>| wanted.iter().any(|of| Arc::ptr_eq(of, access));
        self.keepers.retain(|(access, keeper)| {
            let stays = is_wanted(access);
            if !stays {
                keeper.abort();
            }
            stays
        });
        for access in wanted.into_iter().filter(|access| access.changes()) {
            if !self.keepers.iter().any(|(kept, _)| Arc::ptr_eq(kept, &access)) {
                let kept = Arc::clone(&access);
                let keeper = self.tasks.spawn(async move { kept.keep().await });
                self.keepers.push((access, keeper));
            }
        }
    }

    fn keep_reference(&mut self) {
        if let Some(before) = self.reference.take() {
            before.abort();
        }
        let Some(url) = self.plan.config.rpc.clone() else { return };
        let (reference, client) = (Arc::clone(&self.scraper.reference), self.plan.client.clone());
        let interval = self.plan.config.scrape_interval;
        let task = async move { reference.keep(client, url, interval).await };
        self.reference = Some(self.tasks.spawn(task));
    }

    fn group_plan(&self, name: &Arc<str>) -> GroupPlan {
        let Plan { config, members, discovery_client, .. } = &*self.plan;
        let members = members.iter().filter(|member| member.group.name == *name).cloned();
        let conduct = Conduct {
            interval: config.scrape_interval,
            timeout: config.limits.probe_timeout,
            client: discovery_client.clone(),
            counts: Arc::clone(&self.scraper.discovery),
        };
        let ledgers = self.scraper.ledgers.of_group(name);
        GroupPlan { members: members.collect(), ledgers, conduct }
    }

    /// Begins to ask a group.
    fn add(&mut self, name: Arc<str>) {
        let context = ProbeContext {
            settings: self.settings.subscribe(),
            nodes: Arc::clone(&self.scraper.nodes),
            head_probes: Arc::clone(&self.scraper.head_probes),
            counts: Arc::clone(&self.scraper.discovery),
            states: Arc::clone(&self.scraper.states),
            events: self.scraper.events.clone(),
            lookups: self.lookups.clone(),
        };
        let (commands, inbox) = mpsc::channel(1);
        let pool = ScrapePool::new(Arc::clone(&name), self.group_plan(&name), context);
        self.tasks.spawn(pool.keep(inbox));
        self.pools.insert(name, commands);
    }

    /// Waits until a task ends by a fault, and tells which.
    async fn fault(tasks: &mut JoinSet<()>) -> JoinError {
        loop {
            match tasks.join_next().await {
                Some(Err(error)) if error.is_panic() => return error,
                // That of a group that is gone, or of what is followed no more.
                Some(Ok(()) | Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

/// Tells the task of a group what it asks from now on, and waits until that is done.
async fn tell(pool: &mpsc::Sender<Command>, plan: Option<GroupPlan>) {
    let (done, told) = oneshot::channel();
    if pool.send(Command { plan, done }).await.is_ok() {
        // A task that ends by a fault begins anew, with all others.
        let _ = told.await;
    }
}

#[async_trait]
impl BackgroundService for Scraper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut plans = self.plan.subscribe();
        let mut following = self.begin(&mut plans);
        loop {
            let mut news = tokio::select! {
                // While transfers finish, there is nobody left to be redirected.
                _ = shutdown.wait_for(|stop| *stop) => News::Stop,
                error = Following::fault(&mut following.tasks) => News::Fault(error.to_string()),
                Ok(()) = plans.changed() => News::Plan,
            };
            if matches!(news, News::Plan) {
                let plan = Arc::clone(&plans.borrow_and_update());
                news = tokio::select! {
                    _ = shutdown.wait_for(|stop| *stop) => News::Stop,
                    changed = timeout(LONGEST_CHANGE, following.change(Arc::clone(&plan))) => {
                        match changed {
                            Ok(()) => {
                                self.followed.send_replace(plan);
                                continue;
                            }
                            Err(late) => News::Fault(format!("a change of the plan: {late}")),
                        }
                    }
                };
            }
            if let News::Fault(error) = news {
                // An index that stands still must neither pass in silence nor last.
                log::error!("a task of the scraper ended, all are begun again: {error}");
                following.tasks.shutdown().await;
                tokio::time::sleep(RESTART_PAUSE).await;
                following = self.begin(&mut plans);
            } else {
                break;
            }
        }
        following.tasks.shutdown().await;
    }
}
