//! Listening sockets that were there before the process: passed by the service manager (socket
//! activation) or by the process that this one takes over from, so that nobody is refused.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use crate::error_chain::chain;
use crate::fd_limit;

/// The sockets that were passed, until they are taken.
#[derive(Debug, Default)]
pub struct Inherited(Vec<(SocketAddr, TcpListener)>);

impl Inherited {
    /// The sockets of the service manager, as `sd_listen_fds(3)` describes them. What is no
    /// listening socket of TCP is left alone.
    pub fn of_manager() -> Self {
        let passed = match sd_notify::listen_fds() {
            Ok(passed) => passed,
            Err(error) => {
                log::warn!("sockets of the service manager cannot be taken: {}", chain(&error));
                return Self::default();
            }
        };
        let mut all = Vec::new();
        for number in passed {
            let taken = fd_limit::second_of(number).and_then(|socket| {
                let listener = TcpListener::from(socket);
                listener.set_nonblocking(true)?;
                Ok((listener.local_addr()?, listener))
            });
            match taken {
                Ok(taken) => all.push(taken),
                Err(error) => {
                    log::warn!("socket {number} of the service manager is no listener: {error}");
                }
            }
        }
        Self(all)
    }

    /// Sockets that another process handed over.
    pub fn of(sockets: Vec<OwnedFd>) -> Self {
        let listener = |socket| {
            let listener = TcpListener::from(socket);
            listener.local_addr().ok().map(|address| (address, listener))
        };
        Self(sockets.into_iter().filter_map(listener).collect())
    }

    /// Takes the socket of an address, where there is one.
    pub(super) fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let at = self.0.iter().position(|(bound, _)| *bound == address)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Says which are of no use.
    pub fn complain(&self) {
        for (address, _) in &self.0 {
            log::warn!(
                "a socket for {address} was passed, where nothing is listened to: list the address \
                 in `listen`, or take it out of the socket unit"
            );
        }
    }
}
