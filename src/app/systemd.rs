//! What the service manager is told, where there is one that listens (`NOTIFY_SOCKET`): that the
//! process is ready, reloads and stops.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::error_chain::chain;

/// Tells the service manager, if there is one.
pub(super) fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("the service manager cannot be told of the state: {}", chain(&error));
    }
}

/// Tells that the configuration is read again, with the time that this needs.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => log::warn!("there is no time to tell of: {}", chain(&error)),
    }
}

/// Tells that requests are answered, by whichever configuration.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Tells that the process is about to end, and how long that may take.
pub(super) fn stopping(longest: Duration) {
    // The library knows of no more than 71 minutes.
    let longest = format!("EXTEND_TIMEOUT_USEC={}", longest.as_micros());
    tell(&[NotifyState::Stopping, NotifyState::Custom(&longest)]);
}

/// Tells that another process is the service from now on.
pub(super) fn succeeded_by(pid: u32) {
    tell(&[NotifyState::MainPid(pid)]);
}
