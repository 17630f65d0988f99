//! A Pingora service on a socket that was bound before the server starts.
//!
//! Pingora binds inside a service's own runtime and panics there when it cannot, which leaves a
//! process that listens to nothing. A socket that is bound first makes that an error at start, and
//! tells which port "any port" is. It is handed over through the table that Pingora keeps for
//! graceful upgrades, as if a predecessor had left it there.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::sync::Arc;

use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::server::{Fds, ListenFds, ShutdownWatch};
use pingora::services::listening::Service;
use socket2::{Domain, Protocol, Socket, Type};

use super::inherited::Inherited;
use crate::drain::{Drain, Opening};

/// Connections that the system accepts before the process does, until Pingora asks for more.
const BACKLOG: i32 = 1024;

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
    /// The numbers of those, which they keep.
    numbers: Vec<RawFd>,
    drain: Arc<Drain>,
    opening: Arc<Opening>,
}

impl<A> Bound<A> {
    /// Binds every address, or none, but for those of which a socket was inherited. Nothing is
    /// accepted before `opening`, nor once `drain` has begun.
    pub fn new(
        mut service: Service<A>,
        addresses: &[SocketAddr],
        inherited: &mut Inherited,
        drain: Arc<Drain>,
        opening: Arc<Opening>,
    ) -> Result<Self, BindError> {
        let mut sockets = Vec::new();
        for &address in addresses {
            let error = |source| BindError { address, source };
            let socket = match inherited.take(address) {
                Some(socket) => socket,
                None => bind(address, is_of_one_family(address, addresses)).map_err(error)?,
            };
            let bound = socket.local_addr().map_err(error)?;
            service.add_tcp(&bound.to_string());
            sockets.push((bound, socket));
        }
        let numbers = sockets.iter().map(|(_, socket)| socket.as_raw_fd()).collect();
        Ok(Self { service, sockets, numbers, drain, opening })
    }

    /// The numbers of the sockets, for as long as they are listened on.
    pub fn numbers(&self) -> Vec<RawFd> {
        self.numbers.clone()
    }

    /// The addresses as bound, port 0 replaced by the port that was given.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|(address, _)| *address).collect()
    }
}

/// Whether the IPv4 side of a port is left to another address of the list: `[::]` takes both
/// otherwise, and the second of the two could not be bound.
fn is_of_one_family(address: SocketAddr, all: &[SocketAddr]) -> bool {
    let is_beside = |other: &SocketAddr| other.is_ipv4() && other.port() == address.port();
    address.is_ipv6() && all.iter().any(is_beside)
}

fn bind(address: SocketAddr, only_v6: bool) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if only_v6 {
        socket.set_only_v6(true)?;
    }
    // Connections of a process before, which linger, do not keep the address.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
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
        let begun = self.drain.begun();
        let (mut ends, mut ended) = (begun.clone(), shutdown.clone());
        tokio::select! {
            () = self.opening.wait() => {}
            _ = ends.wait_for(|ends| *ends) => return,
            _ = ended.wait_for(|ended| *ended) => return,
        }
        if *begun.borrow() {
            return;
        }
        tokio::select! {
            () = self.service.start_service(Some(fds), begun, listeners_per_fd) => {}
            () = pass_on(shutdown, &self.drain) => {}
        }
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

/// Makes of the server's own word that it ends the one that is listened to here. Never done, since
/// the service is, once it has heard.
async fn pass_on(mut shutdown: ShutdownWatch, drain: &Drain) {
    // A server that is gone without a word ends its services itself.
    if shutdown.wait_for(|ends| *ends).await.is_ok() {
        drain.begin();
    }
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_shared_by_the_two_families_where_both_are_given() {
        let check = |addresses: &[&str], expected: &[bool]| {
            let all: Vec<SocketAddr> =
                addresses.iter().map(|address| address.parse().expect("valid")).collect();
            let found: Vec<bool> =
                all.iter().map(|address| is_of_one_family(*address, &all)).collect();
            assert_eq!(found, expected, "{addresses:?}");
        };
        check(&["[::]:80"], &[false]);
        check(&["0.0.0.0:80", "[::]:80"], &[false, true]);
        check(&["[::]:80", "0.0.0.0:80"], &[true, false]);
        check(&["[::]:80", "127.0.0.1:80"], &[true, false]);
        check(&["[::1]:80", "127.0.0.1:80"], &[true, false]);
        check(&["[::]:80", "0.0.0.0:81"], &[false, false]);
        check(&["[::]:80", "[::]:81", "0.0.0.0:81"], &[false, true, false]);
    }
}
