//! The edge: the program itself, with nothing in its cache.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use super::client;
use super::directory::Directory;
use super::process::Process;

/// The values of `cache-status`.
pub(super) const STORED: &str = "snapedge; fwd=miss; stored";
pub(super) const COLLAPSED: &str = "snapedge; fwd=miss; collapsed";
pub(super) const HIT: &str = "snapedge; hit";

/// Time between two looks at whether something is the case.
const INTERVAL: Duration = Duration::from_millis(20);

/// A running edge. It is gone with its cache when it is dropped.
pub(super) struct Edge {
    pub(super) address: SocketAddr,
    process: Process,
    // Behind the process that uses it, so that it goes after it.
    _directory: Directory,
}

impl Edge {
    /// Starts one that knows the archive of this origin. The kernel stops it when the thread that
    /// called this ends, which has to be the first one.
    pub(super) async fn start(program: &Path, origin: SocketAddr) -> Result<Self> {
        let directory = Directory::new()?;
        // It was free a moment ago.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let config = format!(
            "listen: ['{address}']\nproxy_snapshot_cache_dir: '{}'\n\
             cache: {{sharing: shared, min_free_space: 0B}}\nlog: {{level: warn, access: off}}\n\
             server: {{h2c: true, grace_period: 0s}}\ntarget_groups: [{{group: bench, \
             static_targets: {{targets: ['{origin}']}}}}]\n",
            directory.path().join("cache").display(),
        );
        let path = directory.path().join("snapedge.yaml");
        fs::write(&path, config)?;
        let process = Process::start(program, &["-c".as_ref(), path.as_os_str()])?;
        let edge = Self { address, process, _directory: directory };
        while !client::head(address).await.is_ok_and(|head| head.status == 200) {
            sleep(INTERVAL).await;
        }
        Ok(edge)
    }

    /// Waits until the archive is in the cache.
    pub(super) async fn caches(&self) -> Result<()> {
        while client::head(self.address).await?.cache_status() != HIT {
            sleep(INTERVAL).await;
        }
        Ok(())
    }

    /// Processor time that it has used.
    pub(super) fn cpu(&self) -> Result<Duration> {
        Ok(self.process.used()?.cpu)
    }
}
