//! An address for a server that is started, and waiting until it serves.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Longest that anything is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// An address that was free a moment ago.
pub(super) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Looks again and again.
pub(super) fn wait(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !condition()? {
        if Instant::now() > deadline {
            bail!("never happened: {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
