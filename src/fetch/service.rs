//! The service that fills the cache without clients.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::connectors::http::v1::Connector;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::sync::{Mutex, mpsc};
use tokio::task::{JoinError, JoinSet};

use super::orders::{Job, Orders, Unfetched};
use super::prefetch;
use super::transfer::Kit;
use super::upstreams::Upstreams;
use crate::cache::Store;
use crate::config::{Cache, Prefetch};
use crate::index::Held;
use crate::target::Published;

/// Longest time between two looks at what may go.
const IDLE: Duration = Duration::from_secs(60);
/// Shortest one, however much changes.
const PAUSE: Duration = Duration::from_millis(100);
/// Rest before a task that ended by a fault is begun again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Fetches what is ordered and what is new, each archive in a task of its own, and lets go of what
/// has been kept long enough, or should not have been. Where requests fill the cache only the last
/// of that is left to do.
pub struct Fetcher {
    kit: Arc<Kit>,
    orders: Orders,
    inbox: Mutex<mpsc::Receiver<Job>>,
}

impl Fetcher {
    /// A service that fills this store.
    pub fn new(
        settings: Cache,
        store: Store,
        published: Arc<Published>,
        upstreams: Arc<Upstreams>,
    ) -> Self {
        let (orders, inbox) = Orders::new(store.clone());
        let connector = Connector::new(None);
        let kit = Arc::new(Kit { store, upstreams, published, connector, settings });
        Self { kit, orders, inbox: Mutex::new(inbox) }
    }

    /// Where to order archives.
    pub fn orders(&self) -> Orders {
        self.orders.clone()
    }

    /// Starts what runs beside the fills.
    fn spawn_keepers(&self, keepers: &mut JoinSet<()>) {
        keepers.spawn(sweep(Arc::clone(&self.kit)));
        if self.kit.settings.prefetch != Prefetch::Off {
            keepers.spawn(prefetch::keep(Arc::clone(&self.kit), self.orders.clone()));
        }
        if self.kit.settings.keep_previous {
            keepers.spawn(expire(Arc::clone(&self.kit)));
        }
    }
}

/// What the service has to see to.
enum Event {
    Stop,
    Job(Box<Job>),
    FillEnded(Result<(), JoinError>),
    KeeperEnded(Result<(), JoinError>),
}

#[async_trait]
impl BackgroundService for Fetcher {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut inbox = self.inbox.lock().await;
        let (mut keepers, mut fills) = (JoinSet::new(), JoinSet::new());
        self.spawn_keepers(&mut keepers);
        loop {
            let event = tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => Event::Stop,
                job = inbox.recv() => job.map_or(Event::Stop, |job| Event::Job(Box::new(job))),
                Some(ended) = fills.join_next() => Event::FillEnded(ended),
                Some(ended) = keepers.join_next() => Event::KeeperEnded(ended),
            };
            match event {
                Event::Stop => break,
                Event::Job(job) => drop(fills.spawn(Arc::clone(&self.kit).run(*job))),
                Event::FillEnded(Ok(())) => {}
                Event::FillEnded(Err(error)) => {
                    log::error!("a task that fills the cache ended: {error}");
                }
                // None of them ends by itself: this was a panic, and must not pass in silence.
                Event::KeeperEnded(ended) => {
                    log::error!("a task beside the cache ended, all are begun again: {ended:?}");
                    keepers.shutdown().await;
                    tokio::time::sleep(RESTART_PAUSE).await;
                    self.spawn_keepers(&mut keepers);
                }
            }
        }
        // Nothing new is begun. What is under way has readers, who may finish within the grace
        // period.
        inbox.close();
        while let Ok(job) = inbox.try_recv() {
            // Whoever waits for it is served past the cache.
            job.end(Err(Unfetched::Unwanted));
        }
        keepers.shutdown().await;
        while fills.join_next().await.is_some() {}
    }
}

/// Lets go of archives that nothing supports, once the targets that they came from have gone.
async fn sweep(kit: Arc<Kit>) {
    let (mut views, mut held) = (kit.published.subscribe(), kit.store.held());
    loop {
        views.mark_unchanged();
        let view = kit.published.load_full();
        let all = Arc::clone(&held.borrow_and_update());
        for Held { name, target, .. } in all.iter() {
            if view.is_orphan(name, &target.group) {
                let (store, name) = (kit.store.clone(), *name);
                let removed = tokio::task::spawn_blocking(move || store.disown(&name)).await;
                if let Err(panic) = removed {
                    log::error!("cache: {name} was not removed: {panic}");
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
        tokio::select! {
            Ok(()) = views.changed() => {}
            Ok(()) = held.changed() => {}
            () = tokio::time::sleep(IDLE) => {}
        }
    }
}

/// Lets go of archives whose lease is over.
async fn expire(kit: Arc<Kit>) {
    let (mut views, mut held) = (kit.published.subscribe(), kit.store.held());
    loop {
        views.mark_unchanged();
        held.mark_unchanged();
        let store = kit.store.clone();
        let expired = tokio::task::spawn_blocking(move || store.expire(Instant::now())).await;
        let latest = Instant::now() + IDLE;
        let next = expired.unwrap_or_default().map_or(latest, |next| next.min(latest));
        tokio::time::sleep(PAUSE).await;
        tokio::select! {
            Ok(()) = views.changed() => {}
            Ok(()) = held.changed() => {}
            () = tokio::time::sleep_until(next.into()) => {}
        }
    }
}
