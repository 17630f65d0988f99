//! A Pingora service on a socket that was bound before the server starts.
//!
//! Pingora binds inside a service's own runtime and panics there when it cannot, which leaves a
//! process that listens to nothing. A socket that is bound first makes that an error at start, and
//! tells which port "any port" is. It is handed over through the table that Pingora keeps for
//! graceful upgrades, as if a predecessor had left it there.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;

use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::server::{Fds, ListenFds, ShutdownWatch};
use pingora::services::listening::Service;

/// A socket that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on `{address}`")]
pub struct BindError {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// A service and the sockets that it will listen on.
pub struct Bound<A> {
    service: Service<A>,
    sockets: Vec<(SocketAddr, TcpListener)>,
}

impl<A> Bound<A> {
    /// Binds every address, or none.
    pub fn new(mut service: Service<A>, addresses: &[SocketAddr]) -> Result<Self, BindError> {
        let mut sockets = Vec::new();
        for &address in addresses {
            let error = |source| BindError { address, source };
            let socket = TcpListener::bind(address).map_err(error)?;
            socket.set_nonblocking(true).map_err(error)?;
            let bound = socket.local_addr().map_err(error)?;
            service.add_tcp(&bound.to_string());
            sockets.push((bound, socket));
        }
        Ok(Self { service, sockets })
    }

    /// The addresses as bound, port 0 replaced by the port that was given.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|(address, _)| *address).collect()
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> pingora::services::Service for Bound<A> {
    async fn start_service(
        &mut self,
        fds: Option<ListenFds>,
        shutdown: ShutdownWatch,
        listeners_per_fd: usize,
    ) {
        let fds = fds.unwrap_or_else(|| ListenFds::new(Fds::new().into()));
        for (address, socket) in self.sockets.drain(..) {
            // From here on the table and Pingora's listener own the descriptor.
            fds.lock().add(address.to_string(), socket.into_raw_fd());
        }
        self.service.start_service(Some(fds), shutdown, listeners_per_fd).await;
    }

    fn name(&self) -> &str {
        self.service.name()
    }

    fn threads(&self) -> Option<usize> {
        self.service.threads()
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        self.service.listen_addresses()
    }
}
