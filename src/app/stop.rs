//! The end of the process: at once, or with the last of what is under way.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch, UnixShutdownSignalWatch};

use super::systemd;
use crate::cache::Store;
use crate::config::Server;
use crate::configured::{Configured, Live};
use crate::drain::Drain;

/// How often it is asked at the end whether the disk has done what is left to do.
const SEALING_PAUSE: Duration = Duration::from_millis(20);

/// Time that the process has for its end besides, as the service manager is told.
const SPARE: Duration = Duration::from_secs(30);

/// Ends the process: at once, or with the last of what is under way.
pub(super) struct Stop {
    pub(super) drain: Arc<Drain>,
    pub(super) store: Option<Store>,
    /// How long what is under way may take, as it is configured when the end begins.
    pub(super) live: Arc<Live>,
}

#[async_trait]
impl ShutdownSignalWatch for Stop {
    async fn recv(&self) -> ShutdownSignal {
        let signal = UnixShutdownSignalWatch.recv().await;
        if !matches!(signal, ShutdownSignal::GracefulTerminate) {
            return signal;
        }
        tokio::select! {
            () = self.drain() => {}
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
        let left = || self.drain.under_way();
        let fills = match &self.store {
            Some(store) if finishes && store.is_filling() => {
                ", and what fills the cache (`cache.finish_on_stop`)"
            }
            _ => "",
        };
        log::info!("stopping: {} requests under way may finish{fills}, within {grace:?}", left());
        tokio::select! {
            () = self.done() => log::info!("stopping: nothing is under way any more"),
            () = tokio::time::sleep(grace) => {
                let left = left();
                log::warn!("stopping: `server.grace_period` is over, {left} requests break off");
            }
        }
    }

    /// Waits for the last request, for archives that came whole with it to be on the disk, and for
    /// those that are not wanted any more to be off it.
    async fn done(&self) {
        self.drain.idle().await;
        while self.store.as_ref().is_some_and(|store| store.is_sealing() || store.is_filling()) {
            tokio::time::sleep(SEALING_PAUSE).await;
        }
    }
}
