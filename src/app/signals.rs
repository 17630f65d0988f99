//! Signals that do not end the process: SIGHUP, by which the configuration is read again, and
//! SIGUSR1, by which the access log is opened anew.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;

use super::reload::Reloader;

/// The two signals, which from now on do not end the process.
pub(super) struct Listened {
    hangup: Signal,
    reopen: Signal,
}

/// Begins to listen to them.
pub(super) fn listen() -> std::io::Result<Listened> {
    // Of any runtime: what listens to signals is the process.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _entered = runtime.enter();
    let (hangup, reopen) = (signal(SignalKind::hangup())?, signal(SignalKind::user_defined1())?);
    Ok(Listened { hangup, reopen })
}

/// The service that does what they ask for.
pub(super) struct Signals {
    pub(super) reloader: Arc<Reloader>,
    pub(super) listened: Mutex<Listened>,
}

#[async_trait]
impl BackgroundService for Signals {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut listened = self.listened.lock().await;
        let Listened { hangup, reopen } = &mut *listened;
        let reloads = async {
            while hangup.recv().await.is_some() {
                // What came of it is in the log.
                let _ = self.reloader.reload().await;
            }
        };
        // Beside the reloads, which may take their time.
        let reopens = async {
            while reopen.recv().await.is_some() {
                self.reloader.traffic.log.reopen();
            }
        };
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => {}
            ((), ()) = async { tokio::join!(reloads, reopens) } => {}
        }
    }
}
