//! Keeps the index true: finds targets, probes them, and publishes what is known.
//!
//! One task per source of targets; one task per group, which starts and stops the tasks of the
//! targets that were found; one task per target, which sleeps between its probes, and one per local
//! directory; one task that owns the catalog and publishes views. The last four meet in one bounded
//! queue. The request path reads [`Published`] and never waits for any of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;

use super::ahead::{self, report_ahead};
use super::client::{Client, ClientError, GroupClient};
use super::discovery::{Conduct, DiscoveryCounts, Findings, Search};
use super::doors::Doors;
use super::ledger::LedgerWatch;
use super::nodes::Nodes;
use super::reference::{ReferenceSlot, Told};
use super::resolution::Lookups;
use super::roster::{Means, Member, Roster};
use super::turns::Turns;
use crate::access::{Access, Accesses};
use crate::config::{self, Config, Downloads, Group};
use crate::index::{
    Catalog, Conflict, Distrusted, Event, Generation, Grounds, Held, Listed, Policy, Publish,
    TargetId, View,
};
use crate::ledger::Ledgers;
use crate::snapshot::ArchiveName;

/// Events that may wait for the catalog. Probes wait when it is full; hints are dropped.
const QUEUE: usize = 1024;
/// Least time between two views: what comes meanwhile goes into one.
const PUBLISH_PAUSE: Duration = Duration::from_millis(50);
/// Most new disagreements of one view that are logged in full.
const MAX_LOGGED_CONFLICTS: usize = 5;
/// Rest before tasks that ended by a fault are begun again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// Longest sleep of the publisher, which bounds how late the end of a hold is seen.
const IDLE: Duration = Duration::from_secs(60);

/// The view that requests are answered from. Reading takes no lock.
#[derive(Debug, Default)]
pub struct Published {
    view: ArcSwap<View>,
    /// How many views there were; for those that wait for the next one.
    count: watch::Sender<u64>,
}

impl Published {
    /// The view of this moment, to be held for no longer than one decision.
    pub fn load(&self) -> Guard<Arc<View>> {
        self.view.load()
    }

    /// The view of this moment, to be kept.
    pub fn load_full(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// A number that grows with each view. Who sees it grow and loads then has that view, or one
    /// that came after it.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }

    fn store(&self, view: View) {
        self.view.store(Arc::new(view));
        self.count.send_modify(|count| *count += 1);
    }
}

/// Tells the index what a transfer learned.
#[derive(Clone, Debug)]
pub struct Reporter(mpsc::Sender<Event>);

impl Reporter {
    /// The target answered that it does not have the archive any more. A hint: where the queue is
    /// full it is dropped, and the next probe finds out.
    pub fn gone(&self, target: &TargetId, name: ArchiveName) {
        let event = Event::Gone { target: target.clone(), name, at: Instant::now() };
        if self.0.try_send(event).is_err() {
            log::debug!("the index is busy, {target} will be found without {name} by a probe");
        }
    }

    /// The target answered that it has an archive which it did not list yet. Waits while the queue
    /// is full.
    pub async fn found(&self, target: TargetId, archive: Listed) {
        let event = Event::Found { target, at: Instant::now(), archive };
        // Nobody takes it when the process ends.
        let _ = self.0.send(event).await;
    }
}

/// The service that keeps the index.
pub struct Scraper {
    config: Config,
    accesses: Arc<Accesses>,
    /// For the reference node.
    client: Client,
    members: Vec<Member>,
    /// For sources of targets, which may be farther away than the targets.
    discovery_client: Client,
    publisher: Arc<Publisher>,
    published: Arc<Published>,
    reference: Arc<ReferenceSlot>,
    discovery: Arc<DiscoveryCounts>,
    nodes: Arc<Nodes>,
    doors: Arc<Doors>,
    ledgers: Arc<Ledgers>,
    events: mpsc::Sender<Event>,
}

/// Takes events in and publishes views.
struct Publisher {
    policy: Policy,
    /// What is relied on besides what targets say, but for the slot of the cluster.
    grounds: Grounds,
    groups: Vec<Arc<str>>,
    published: Arc<Published>,
    inbox: Mutex<Inbox>,
}

/// What the publisher learns from.
struct Inbox {
    events: mpsc::Receiver<Event>,
    /// What the cache holds; a channel that nobody sends to where there is no cache.
    held: watch::Receiver<Arc<[Held]>>,
    /// What it found not to be sound; the same where there is none.
    distrusted: watch::Receiver<Arc<[Distrusted]>>,
    /// The slot of the cluster.
    reference: watch::Receiver<Option<Told>>,
}

impl Scraper {
    /// Sets up what [`BackgroundService::start`] will run. It publishes to `views`, and counts what
    /// the cache holds now as held, and what it found not to be sound as not there.
    pub fn new(
        config: Config,
        accesses: Arc<Accesses>,
        views: Arc<Published>,
        held: watch::Receiver<Arc<[Held]>>,
        distrusted: watch::Receiver<Arc<[Distrusted]>>,
    ) -> Result<Self, ClientError> {
        let connect_timeout = config.limits.connect_timeout;
        let client = Client::new(connect_timeout)?;
        let discovery_client = Client::new(config.limits.probe_timeout)?;
        let member = |(group, access): (&Group, &Arc<Access>)| {
            let client = GroupClient::new(Arc::clone(access), connect_timeout);
            client.map(|client| Member { group: Arc::new(group.clone()), client })
        };
        let entries = config.groups.iter().zip(accesses.all());
        let members = entries.map(member).collect::<Result<_, _>>()?;
        let (events, inbox) = mpsc::channel(QUEUE);
        let reference = Arc::<ReferenceSlot>::default();
        let told = reference.subscribe();
        let index = Publisher {
            policy: policy(&config),
            grounds: ahead::grounds(&config),
            groups: config.group_names(),
            published: Arc::clone(&views),
            inbox: Mutex::new(Inbox { events: inbox, held, distrusted, reference: told }),
        };
        let discovery = Arc::new(DiscoveryCounts::new(config.group_names()));
        // So that a group is known before the first probe, and has nothing.
        let first =
            Catalog::default().view(&View::default(), &index.groups, index.policy, Instant::now());
        views.store(first);
        let publisher = Arc::new(index);
        let ledgers = Arc::new(Ledgers::new(&config));
        Ok(Self {
            config,
            accesses,
            client,
            members,
            discovery_client,
            publisher,
            published: views,
            reference,
            discovery,
            nodes: Arc::default(),
            doors: Arc::default(),
            ledgers,
            events,
        })
    }

    /// Where the views appear.
    pub fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published)
    }

    /// The cluster's slot, where an RPC node is configured.
    pub fn reference(&self) -> Option<Arc<ReferenceSlot>> {
        self.config.rpc.as_ref().map(|_| Arc::clone(&self.reference))
    }

    /// The targets that are nodes.
    pub fn nodes(&self) -> Arc<Nodes> {
        Arc::clone(&self.nodes)
    }

    /// The ways to archives that no target listed yet.
    pub fn doors(&self) -> Arc<Doors> {
        Arc::clone(&self.doors)
    }

    /// The targets that are local directories.
    pub fn ledgers(&self) -> Arc<Ledgers> {
        Arc::clone(&self.ledgers)
    }

    /// How often the sources of targets failed.
    pub fn discovery(&self) -> Arc<DiscoveryCounts> {
        Arc::clone(&self.discovery)
    }

    /// The way in for what transfers learn.
    pub fn reporter(&self) -> Reporter {
        Reporter(self.events.clone())
    }

    /// Starts everything, with an empty catalog: what is known is known by those that run.
    fn spawn_all(&self, tasks: &mut JoinSet<()>) {
        tasks.spawn(Arc::clone(&self.publisher).publish());
        let turns = Arc::new(Turns::new(self.config.limits.probe_concurrency));
        let (lookups, failures) = (Lookups::new(), self.config.limits.probe_failures);
        for access in self.accesses.all().filter(|access| access.changes()) {
            let access = Arc::clone(access);
            tasks.spawn(async move { access.keep().await });
        }
        let (interval, timeout) = (self.config.scrape_interval, self.config.limits.probe_timeout);
        let (client, counts) = (self.discovery_client.clone(), Arc::clone(&self.discovery));
        let conduct = Conduct { interval, timeout, client, counts };
        for name in self.config.group_names() {
            let members: Vec<Member> =
                self.members.iter().filter(|member| member.group.name == name).cloned().collect();
            let named = members.iter().map(|member| &*member.group.sources.static_targets);
            let findings = Findings::new(named);
            for (at, member) in members.iter().enumerate() {
                for search in Search::all(&member.group, at, &findings, &conduct) {
                    tasks.spawn(search.keep());
                }
            }
            let means = Means {
                interval,
                timeout,
                nodes: Arc::clone(&self.nodes),
                doors: Arc::clone(&self.doors),
                counts: Arc::clone(&self.discovery),
                events: self.events.clone(),
                turns: Arc::clone(&turns),
                failures,
                lookups: lookups.clone(),
            };
            tasks.spawn(Roster::new(name, members, means).keep(findings.subscribe()));
        }
        for ledger in self.ledgers.all() {
            let (ledger, events) = (Arc::clone(ledger), self.events.clone());
            tasks.spawn(LedgerWatch { ledger, interval, timeout, events }.keep());
        }
        if let Some(url) = self.config.rpc.clone() {
            let (reference, client) = (Arc::clone(&self.reference), self.client.clone());
            let interval = self.config.scrape_interval;
            tasks.spawn(async move { reference.keep(client, url, interval).await });
        }
    }
}

fn policy(config: &Config) -> Policy {
    let publish = match (config.cache.publish, config.downloads) {
        (config::Publish::Promoted, Downloads::Proxy) => Publish::Promoted,
        // A redirector caches nothing, and would wait for ever.
        (config::Publish::Promoted, Downloads::Redirect) | (config::Publish::Seen, _) => {
            Publish::Seen
        }
    };
    let (probe_failures, pair_hold) = (config.limits.probe_failures, config.pair_hold);
    Policy { probe_failures, pair_hold, publish }
}

impl Publisher {
    async fn publish(self: Arc<Self>) {
        let mut inbox = self.inbox.lock().await;
        let Inbox { events: queue, held, distrusted, reference } = &mut *inbox;
        let mut catalog = Catalog::default();
        let mut events = Vec::new();
        loop {
            catalog.hold(&held.borrow_and_update());
            catalog.distrust(&distrusted.borrow_and_update(), Instant::now());
            let slot = ahead::reference(*reference.borrow_and_update());
            catalog.rely_on(Grounds { reference: slot, ..self.grounds.clone() });
            for event in events.drain(..) {
                catalog.apply(event);
            }
            let before = self.published.load();
            let view = catalog.view(&before, &self.groups, self.policy, Instant::now());
            report_changes(&before, &view);
            let until = view.until();
            self.published.store(view);
            tokio::time::sleep(PUBLISH_PAUSE).await;
            let wait = until.map_or(IDLE, |until| until.saturating_duration_since(Instant::now()));
            tokio::select! {
                received = queue.recv_many(&mut events, QUEUE) => if received == 0 { return },
                Ok(()) = held.changed() => {}
                Ok(()) = distrusted.changed() => {}
                Ok(()) = reference.changed() => {}
                // A hold has ended, and the view is made anew.
                () = tokio::time::sleep(wait.min(IDLE)) => {}
            }
        }
    }
}

#[async_trait]
impl BackgroundService for Scraper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut tasks = JoinSet::new();
        self.spawn_all(&mut tasks);
        loop {
            let ended = tokio::select! {
                // While transfers finish, there is nobody left to be redirected.
                _ = shutdown.wait_for(|stop| *stop) => break,
                ended = tasks.join_next() => ended,
            };
            // None of them ends by itself: this was a panic, and an index that stands still must
            // neither pass in silence nor last.
            log::error!("a task of the scraper ended, all are begun again: {ended:?}");
            tasks.shutdown().await;
            tokio::time::sleep(RESTART_PAUSE).await;
            self.spawn_all(&mut tasks);
        }
        tasks.shutdown().await;
    }
}

/// One line for each thing that an operator wants to know of.
fn report_changes(before: &View, after: &View) {
    for (name, group) in after.groups() {
        let old = before.group(name);
        let best = old.and_then(|old| old.best);
        if best != group.best {
            log::info!("group `{name}` now offers {}", describe(group.best));
        }
        report_ahead(name, old, group);
        let known: BTreeSet<&Conflict> = old.iter().flat_map(|old| &old.conflicts).collect();
        let mut new = group.conflicts.iter().filter(|conflict| !known.contains(conflict));
        for conflict in new.by_ref().take(MAX_LOGGED_CONFLICTS) {
            log::warn!("group `{name}`: {conflict}");
        }
        let more = new.count();
        if more > 0 {
            log::warn!("group `{name}`: {more} more disagreements");
        }
    }
}

fn describe(best: Option<Generation>) -> String {
    match best {
        None => "nothing".to_owned(),
        Some(Generation { full, incremental: None }) => full.to_string(),
        Some(Generation { full, incremental: Some(incremental) }) => {
            format!("{full} and {incremental}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_the_next_view_finds_it() {
        let published = Published::default();
        let mut views = published.subscribe();
        assert!(!views.has_changed().expect("it lives"), "nothing was stored");
        let before = *views.borrow();
        let view = Catalog::default().view(
            &View::default(),
            &["main".into()],
            Policy { probe_failures: 1, pair_hold: Duration::ZERO, publish: Publish::Seen },
            Instant::now(),
        );
        published.store(view);
        assert!(views.has_changed().expect("it lives"));
        assert!(*views.borrow_and_update() > before);
        assert!(published.load().group("main").is_some());
        assert!(!views.has_changed().expect("it lives"));
    }

    #[test]
    fn only_what_has_a_cache_waits_for_it() {
        let file = "target_groups: [{group: main, static_targets: {targets: ['a:1']}}]\n\
                    proxy_snapshot_cache_dir: /var/cache/snapedge\n\
                    cache: {sharing: shared, prefetch: all";
        for (rest, expected) in [
            ("}", Publish::Seen),
            (", publish: promoted}", Publish::Promoted),
            (", publish: promoted}\nproxy_snapshot_downloads: false", Publish::Seen),
        ] {
            let config = config::parse(&format!("{file}{rest}")).expect(rest);
            assert_eq!(policy(&config).publish, expected, "{rest}");
        }
    }
}
