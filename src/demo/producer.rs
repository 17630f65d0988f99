//! The service that makes archives: those of the start, then one more every half minute.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::ServiceReadyNotifier;
use pingora::services::background::BackgroundService;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

use super::console;
use super::fleet::Fleet;
use crate::published::Published;
use crate::snapshot::ArchiveName;

/// Time between two incremental archives.
const INTERVAL: Duration = Duration::from_secs(30);
/// How long the edge may take to offer the first archives before the demo says so all the same.
const OFFERED_WITHIN: Duration = Duration::from_secs(10);
/// Time between two looks at what the edge offers.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Why there is nothing to show. Ends the demo.
#[derive(Default)]
pub(super) struct Alarm {
    error: Mutex<Option<io::Error>>,
    raised: Notify,
}

impl Alarm {
    fn raise(&self, error: io::Error) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        self.raised.notify_one();
    }

    /// Waits for it.
    pub(super) async fn raised(&self) {
        self.raised.notified().await;
    }

    /// What it was raised for.
    pub(super) fn take_error(&self) -> Option<io::Error> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The service. It is ready when the origins have something to offer.
pub(super) struct Producer {
    /// The origins.
    pub(super) fleet: Arc<Fleet>,
    /// Where it says that it cannot go on.
    pub(super) alarm: Arc<Alarm>,
    /// What the edge offers.
    pub(super) published: Arc<Published>,
    /// Where the edge offers it.
    pub(super) addresses: Vec<SocketAddr>,
    /// Where the operator looks.
    pub(super) internal: Option<SocketAddr>,
}

impl Producer {
    async fn make(&self, what: fn(&Fleet) -> io::Result<ArchiveName>) -> io::Result<ArchiveName> {
        let fleet = Arc::clone(&self.fleet);
        tokio::task::spawn_blocking(move || what(&fleet)).await?
    }

    /// Waits until a client would be led to the archive.
    async fn offered(&self, newest: ArchiveName) {
        let deadline = Instant::now() + OFFERED_WITHIN;
        while Instant::now() < deadline {
            let best = self.published.load().best(None).ok().flatten();
            if best.is_some_and(|best| best.tip() == newest) {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn keep(&self) {
        let mut ticks = tokio::time::interval_at(Instant::now() + INTERVAL, INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.make(Fleet::advance).await {
                Ok(name) => log::info!("the origins have made {name}"),
                // The next one may fit on the disk again.
                Err(error) => log::warn!("no new archive this time: {error}"),
            }
        }
    }
}

#[async_trait]
impl BackgroundService for Producer {
    async fn start_with_ready_notifier(
        &self,
        mut shutdown: ShutdownWatch,
        ready: ServiceReadyNotifier,
    ) {
        let newest = match self.make(Fleet::stock).await {
            Ok(newest) => newest,
            Err(error) => return self.alarm.raise(error),
        };
        ready.notify_ready();
        self.offered(newest).await;
        if let Some(address) = self.addresses.first() {
            console::introduce(*address, self.internal);
        }
        tokio::select! {
            () = self.keep() => {}
            _ = shutdown.wait_for(|stop| *stop) => {}
        }
    }
}
