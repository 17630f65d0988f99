//! What the service manager is told again and again: how it is, and that it is alive.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use sd_notify::NotifyState;

use super::observer::Observer;
use super::systemd::{ready, tell};
use crate::status::terminal;

/// Time between two words about how it is, where no watchdog wants them sooner.
const TELLING: Duration = Duration::from_secs(5);
/// How often it is asked whether the first round of probes is over.
const STARTING: Duration = Duration::from_millis(100);
/// Longest that this is waited for, also by a process that takes over: requests are answered before
/// it, and a target that hangs is no reason to begin anew.
pub(super) const LONGEST_START: Duration = Duration::from_secs(30);
/// How old the last look at everything may be for the process to be alive. Looks are a second
/// apart, and wait for locks of every part.
const OLDEST_LOOK: Duration = Duration::from_secs(20);

/// The service that tells.
pub(super) struct Watchdog(pub(super) Arc<Observer>);

#[async_trait]
impl BackgroundService for Watchdog {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let began = Instant::now();
        let watchdog = sd_notify::watchdog_enabled();
        let pause = watchdog.map_or(TELLING, |most| (most / 3).min(TELLING));
        let mut is_ready = false;
        loop {
            let probed = || self.0.parts().published.is_ready();
            if !is_ready && (probed() || began.elapsed() >= LONGEST_START) {
                ready();
                is_ready = true;
            }
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(if is_ready { pause } else { STARTING }) => {}
            }
            let Some(seen) = self.0.seen() else { continue };
            let told = terminal::line(&seen.status);
            let mut states = vec![NotifyState::Status(&told)];
            // A part that hangs keeps its lock, and whoever looks at it.
            if watchdog.is_some() && seen.at.elapsed() < OLDEST_LOOK {
                states.push(NotifyState::Watchdog);
            }
            tell(&states);
        }
    }
}
