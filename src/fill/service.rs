//! The service that fills the cache without clients.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::connectors::http::v1::Connector;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::sync::{Mutex, mpsc};
use tokio::task::{JoinError, JoinSet};

use super::prefetch;
use super::queue::{FillFailure, FillQueue, Job};
use super::transfer::FillContext;
use crate::cache::Store;
use crate::config::Prefetch;
use crate::configured::Live;
use crate::drain::{Drain, Opening};
use crate::index::Held;
use crate::published::Published;
use crate::upstream::UpstreamPool;

/// Longest time between two looks at what may go.
const IDLE: Duration = Duration::from_secs(60);
/// Shortest one, however much changes.
const PAUSE: Duration = Duration::from_millis(100);
/// Rest before a task that ended by a fault is begun again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Fetches what is ordered and what is new, each archive in a task of its own, and lets go of what
/// has been kept long enough, or should not have been. Where requests fill the cache only the last
/// of that is left to do.
pub struct FillService {
    context: Arc<FillContext>,
    queue: FillQueue,
    inbox: Mutex<mpsc::Receiver<Job>>,
    opening: Arc<Opening>,
}

impl FillService {
    /// A service that fills this store.
    pub fn new(
        live: &Arc<Live>,
        store: Store,
        published: Arc<Published>,
        upstreams: Arc<UpstreamPool>,
        (drain, opening): (Arc<Drain>, Arc<Opening>),
    ) -> Self {
        let (queue, inbox) = FillQueue::new(store.clone(), Arc::clone(live));
        let (connector, live) = (Connector::new(None), Arc::clone(live));
        let context = FillContext { store, upstreams, published, connector, live, drain };
        let context = Arc::new(context);
        Self { context, queue, inbox: Mutex::new(inbox), opening }
    }

    /// Where to have archives fetched.
    pub fn queue(&self) -> FillQueue {
        self.queue.clone()
    }

    /// What is fetched ahead, and whether archives have leases, as it is configured now.
    fn kept(&self) -> (Prefetch, bool) {
        let configured = self.context.live.load();
        (configured.config.prefetches(), configured.config.cache.keep_previous)
    }

    /// Starts what runs beside the fills, and tells by what that is.
    fn spawn_keepers(&self, keepers: &mut JoinSet<()>) -> (Prefetch, bool) {
        keepers.spawn(sweep(Arc::clone(&self.context)));
        let (prefetch, has_leases) = self.kept();
        if prefetch != Prefetch::Off {
            let (context, queue) = (Arc::clone(&self.context), self.queue.clone());
            keepers.spawn(prefetch::keep(context, queue, prefetch));
        }
        if has_leases {
            keepers.spawn(expire(Arc::clone(&self.context)));
        }
        (prefetch, has_leases)
    }
}

/// What the service has to see to.
enum Event {
    Stop,
    Job(Box<Job>),
    FillEnded(Result<(), JoinError>),
    KeeperEnded(Result<(), JoinError>),
    Configured,
}

#[async_trait]
impl BackgroundService for FillService {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut drains = self.context.drain.begun();
        let mut inbox = self.inbox.lock().await;
        tokio::select! {
            () = self.opening.wait() => {}
            _ = shutdown.wait_for(|stop| *stop) => return,
        }
        let (mut keepers, mut fills) = (JoinSet::new(), JoinSet::new());
        let mut changes = self.context.live.subscribe();
        let mut kept = self.spawn_keepers(&mut keepers);
        loop {
            let event = tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => Event::Stop,
                _ = drains.wait_for(|drains| *drains) => Event::Stop,
                job = inbox.recv() => job.map_or(Event::Stop, |job| Event::Job(Box::new(job))),
                Some(ended) = fills.join_next() => Event::FillEnded(ended),
                Some(ended) = keepers.join_next() => Event::KeeperEnded(ended),
                Ok(()) = changes.changed() => Event::Configured,
            };
            match event {
                Event::Stop => break,
                Event::Job(job) => drop(fills.spawn(Arc::clone(&self.context).run(*job))),
                Event::FillEnded(Ok(())) => {}
                Event::FillEnded(Err(error)) => {
                    log::error!("a task that fills the cache ended: {error}");
                }
                Event::Configured if kept == self.kept() => {}
                // Fills that they began go on.
                Event::Configured => {
                    keepers.shutdown().await;
                    kept = self.spawn_keepers(&mut keepers);
                }
                // None of them ends by itself: this was a panic, and must not pass in silence.
                Event::KeeperEnded(ended) => {
                    log::error!("a task beside the cache ended, all are begun again: {ended:?}");
                    keepers.shutdown().await;
                    tokio::time::sleep(RESTART_PAUSE).await;
                    kept = self.spawn_keepers(&mut keepers);
                }
            }
        }
        // Nothing new is begun. What is under way ends without readers, or goes on as configured.
        inbox.close();
        while let Ok(job) = inbox.try_recv() {
            // Whoever waits for it is served past the cache.
            job.end(Err(FillFailure::Unwanted));
        }
        keepers.shutdown().await;
        while fills.join_next().await.is_some() {}
    }
}

/// Lets go of archives that nothing supports, once the targets that they came from have gone, and
/// of those of groups that are not configured any more, unless others have them.
async fn sweep(context: Arc<FillContext>) {
    let (mut views, mut held) = (context.published.subscribe(), context.store.held());
    loop {
        views.mark_unchanged();
        let view = context.published.load_full();
        let all = Arc::clone(&held.borrow_and_update());
        for Held { name, target, .. } in all.iter() {
            let why = if view.is_orphan(name, &target.group) {
                "its target has gone, and nothing else supports its slot"
            } else if view.is_forsaken(name, &target.group) {
                "its group is not configured any more, and no other one has it"
            } else {
                continue;
            };
            let (store, name) = (context.store.clone(), *name);
            let removed = tokio::task::spawn_blocking(move || store.let_go(&name, why)).await;
            if let Err(panic) = removed {
                log::error!("cache: {name} was not removed: {panic}");
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
async fn expire(context: Arc<FillContext>) {
    let (mut views, mut held) = (context.published.subscribe(), context.store.held());
    loop {
        views.mark_unchanged();
        held.mark_unchanged();
        let store = context.store.clone();
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
