//! Whether a client has got an answer to its end.

use std::sync::Arc;

use super::connection::Connection;
use crate::route::{Arrival, Receipt};

/// The end of an answer, on the connection that it went out on.
#[derive(Debug)]
pub(super) struct Sent {
    connection: Arc<Connection>,
    /// Bytes that the system had taken over when the answer was over.
    taken_over: u64,
    /// Requests that had come by then, where they are answered one after the other.
    requests: Option<u64>,
}

impl Sent {
    /// Everything that was written so far.
    pub(super) fn now(connection: &Arc<Connection>, multiplexed: bool) -> Self {
        let requests = (!multiplexed).then(|| connection.requests());
        Self { connection: Arc::clone(connection), taken_over: connection.taken_over(), requests }
    }
}

impl Receipt for Sent {
    /// A client that asks for the next thing has read the one before, and so has one that closes
    /// its side in order: a system resets a connection of which its program has not read all.
    /// Over HTTP/2 nothing tells: a client may end a connection with frames that it did not read,
    /// and has read all of its answers.
    fn arrival(&self) -> Arrival {
        let connection = &self.connection;
        if self.requests.is_none_or(|requests| connection.requests() > requests) {
            return Arrival::Taken;
        }
        if connection.is_reset() {
            return Arrival::Lost;
        }
        match connection.confirmed() {
            Some(confirmed) if confirmed < self.taken_over => Arrival::OnTheWay,
            _ if connection.is_over() => Arrival::Taken,
            _ => Arrival::There,
        }
    }
}
