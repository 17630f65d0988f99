//! The end of the process: at once, or with the last of what is under way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch, UnixShutdownSignalWatch};
use tokio::sync::Notify;

use super::systemd;
use super::upgrade::LINGER;
use crate::cache::Store;
use crate::config::Server;
use crate::configured::{Configured, Live};
use crate::drain::Drain;
use crate::listener::ConnectionLimit;

/// How often it is asked at the end whether the network and the disk have done what is left to do.
const PAUSE: Duration = Duration::from_millis(20);

/// Time that the process has for its end besides, as the service manager is told.
const SPARE: Duration = Duration::from_secs(30);

/// Longest that what is left of fills is waited for.
const DISK_PATIENCE: Duration = Duration::from_secs(15);

/// Ends the process: at once, or with the last of what is under way.
pub(super) struct Stop {
    pub(super) drain: Arc<Drain>,
    pub(super) store: Option<Store>,
    /// Connections of clients.
    pub(super) places: Arc<ConnectionLimit>,
    /// How long what is under way may take, as it is configured when the end begins.
    pub(super) live: Arc<Live>,
    /// Told when another process has taken over.
    pub(super) upgraded: Arc<Notify>,
}

#[async_trait]
impl ShutdownSignalWatch for Stop {
    async fn recv(&self) -> ShutdownSignal {
        let is_upgrade = tokio::select! {
            signal = UnixShutdownSignalWatch.recv() => {
                if !matches!(signal, ShutdownSignal::GracefulTerminate) {
                    return signal;
                }
                false
            }
            () = self.upgraded.notified() => true,
        };
        let end = async { if is_upgrade { self.give_way().await } else { self.drain().await } };
        tokio::select! {
            () = end => {}
            _ = UnixShutdownSignalWatch.recv() => {
                self.drain.begin();
                let left = self.drain.under_way();
                log::warn!("stopping: told again, {left} requests break off");
            }
        }
        // Pingora would sleep through its own grace period, whatever there is to wait for: it has
        // none left.
        ShutdownSignal::GracefulTerminate
    }
}

impl Stop {
    /// Says that the end is near, then accepts nothing more, and waits for what is under way.
    async fn drain(&self) {
        let (server, finishes) = {
            let Configured { config, .. } = &**self.live.load();
            (config.server.clone(), config.cache.finish_on_stop)
        };
        let Server { drain_delay: delay, grace_period: grace, .. } = server;
        self.drain.announce();
        systemd::stopping(delay.saturating_add(grace).saturating_add(SPARE));
        if !delay.is_zero() {
            log::info!(
                "stopping: not ready any more, and accepting for `server.drain_delay`, {delay:?}"
            );
            tokio::time::sleep(delay).await;
        }
        self.drain.begin();
        self.wait(grace, finishes).await;
    }

    /// Ends after another process, which has taken over.
    async fn give_way(&self) {
        log::info!("another process has taken over, and this one ends with what it has under way");
        tokio::time::sleep(LINGER).await;
        let (grace, finishes) = {
            let Configured { config, .. } = &**self.live.load();
            (config.server.grace_period, config.cache.finish_on_stop)
        };
        self.drain.begin();
        self.wait(grace, finishes).await;
    }

    /// Waits for what is under way, and no longer than that may take.
    async fn wait(&self, grace: Duration, finishes: bool) {
        let left = || self.drain.under_way();
        let fills = match &self.store {
            Some(store) if finishes && store.is_filling() => {
                ", and what fills the cache (`cache.finish_on_stop`)"
            }
            _ => "",
        };
        log::info!("stopping: {} requests under way may finish{fills}, within {grace:?}", left());
        tokio::select! {
            () = self.done(finishes) => log::info!("stopping: nothing is under way any more"),
            () = tokio::time::sleep(grace) => {
                let left = left();
                log::warn!("stopping: `server.grace_period` is over, {left} requests break off");
            }
        }
    }

    /// Waits for the last request and for its last bytes to be with the client, for archives that
    /// came whole with it to be on the disk, and for those not wanted any more to be off it.
    async fn done(&self, finishes: bool) {
        self.drain.idle().await;
        // What the system has taken over may be megabytes, and is lost with the network of a
        // container, or where the client answers a process that is gone.
        while self.places.owe() {
            tokio::time::sleep(PAUSE).await;
        }
        // A disk that hangs is not waited for by those who want nothing of it any more.
        let until = Instant::now() + DISK_PATIENCE;
        let fills = |store: &Store| store.is_filling() && (finishes || Instant::now() < until);
        while self.store.as_ref().is_some_and(|store| store.is_sealing() || fills(store)) {
            tokio::time::sleep(PAUSE).await;
        }
    }
}
