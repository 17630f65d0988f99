//! The end of the process: at once, or with the last of what is under way.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch, UnixShutdownSignalWatch};

use crate::cache::Store;
use crate::configured::Live;
use crate::drain::Drain;

/// How often it is asked whether an archive that came whole is on the disk, at the end.
const SEALING_PAUSE: Duration = Duration::from_millis(20);

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
        self.drain.begin();
        let grace = self.live.load().config.server.grace_period;
        let left = || self.drain.under_way();
        log::info!("stopping: {} requests under way may finish, within {grace:?}", left());
        tokio::select! {
            () = self.done() => log::info!("stopping: nothing is under way any more"),
            () = tokio::time::sleep(grace) => {
                let left = left();
                log::warn!("stopping: `server.grace_period` is over, {left} requests break off");
            }
            _ = UnixShutdownSignalWatch.recv() => {
                log::warn!("stopping: told again, {} requests break off", left());
            }
        }
        // Pingora would sleep through its own grace period, whatever there is to wait for: it has
        // none left.
        ShutdownSignal::GracefulTerminate
    }
}

impl Stop {
    /// Waits for the last request, and for archives that came whole with it to be on the disk.
    async fn done(&self) {
        self.drain.idle().await;
        while self.store.as_ref().is_some_and(Store::is_sealing) {
            tokio::time::sleep(SEALING_PAUSE).await;
        }
    }
}
