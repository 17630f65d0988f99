//! One request on a connection, as the proxy sees it.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use pingora::http::RequestHeader;
use pingora_proxy::Session;

use super::connection::{Connection, Presence, Waiting};
use super::dismissal::{Dismissal, Served};
use super::heads::{Excess, Held};
use super::receipt::Sent;
use super::watch::Why;
use crate::route::{Busy, Failure, Receipt};
use crate::upstream::Taker;

/// Why a client is left in the middle of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The client takes too little.
    Slow,
    /// Another client needs the place.
    Crowded,
    /// The client sent too much.
    Unruly,
}

/// A request whose head is there, for as long as it is served.
#[derive(Debug)]
pub struct Serving {
    connection: Arc<Connection>,
    multiplexed: bool,
    dismissal: Option<Arc<Dismissal>>,
    /// What its head holds, where it is one of many on the connection.
    _held: Held,
    excess: Option<Excess>,
}

impl Serving {
    /// Notes that the head of a request is there. Nothing where nobody looks after the connection.
    pub fn begin(session: &Session) -> Option<Self> {
        let digest = session.digest()?.proxy_digest.as_ref()?;
        let connection = digest.user_data.as_ref()?.downcast_ref::<Arc<Connection>>()?;
        let (multiplexed, length) = (session.is_http2(), length_of(session.req_header()));
        let mut held = Held::new(&connection.heads);
        let fits = if multiplexed { held.hold_beside(length) } else { held.fits(length) };
        connection.begin_request(multiplexed);
        let (connection, dismissal) = (Arc::clone(connection), Dismissal::current());
        Some(Self { connection, multiplexed, dismissal, _held: held, excess: fits.err() })
    }

    /// Notes that nothing of it is still to come.
    pub fn complete(&self) {
        self.connection.complete_request();
    }

    /// Why the request, which is `short` where it is answered shortly and from memory, is answered
    /// with nothing but that.
    pub fn refusal(&self, short: bool) -> Option<Failure> {
        match self.excess {
            Some(Excess::One) => Some(Failure::LongHead),
            Some(Excess::All) => Some(Failure::Busy(Busy::Heads)),
            None if self.connection.has_room() || short => None,
            None => Some(Failure::Busy(Busy::Connections)),
        }
    }

    /// Hands a piece of a body over to the client. Over HTTP/1 the stream tells how long that
    /// takes. Over HTTP/2 a client need not open its window, of which the stream hears nothing: the
    /// piece itself tells when it is gone.
    pub fn hand_over(&self, body: &mut Option<Bytes>) {
        if self.multiplexed
            && let Some(bytes) = body.take_if(|bytes| !bytes.is_empty())
        {
            let waiting = Waiting::new(&self.connection);
            *body = Some(Bytes::from_owner(Piece { bytes, _waiting: waiting }));
        }
    }

    /// The client, for those who send it something.
    pub fn taker(&self) -> Option<Arc<dyn Taker>> {
        let dismissal = self.dismissal.clone()?;
        let (connection, multiplexed) = (Arc::clone(&self.connection), self.multiplexed);
        Some(Arc::new(Served { connection, multiplexed, dismissal }))
    }

    /// What tells whether the client gets everything that was written to it so far.
    pub fn receipt(&self) -> Arc<dyn Receipt> {
        Arc::new(Sent::now(&self.connection, self.multiplexed))
    }

    /// The other end of the connection.
    pub fn peer(&self) -> IpAddr {
        self.connection.origin().peer
    }

    /// Who the connection is from: the other end, or whom a trusted proxy announced.
    pub fn client(&self) -> IpAddr {
        self.connection.origin().client
    }

    /// Whether TLS is spoken on the connection.
    pub fn is_secure(&self) -> bool {
        self.connection.origin().secure
    }

    /// The group that the listener is for.
    pub fn group(&self) -> Option<&Arc<str>> {
        self.connection.origin().group.as_ref()
    }

    /// How it is seen whether the client is there.
    pub fn presence(&self) -> Presence {
        Presence(Arc::clone(&self.connection))
    }

    /// Whether the request was told to end, for others.
    pub fn is_dismissed(&self) -> bool {
        self.dismissal.as_ref().is_some_and(|dismissal| dismissal.was_told())
    }

    /// Whether and why the client was left.
    pub fn cut(&self) -> Option<Cut> {
        Some(match self.connection.cut()? {
            Why::Crowded => Cut::Crowded,
            Why::Unruly => Cut::Unruly,
            Why::Slow | Why::Idle | Why::Late => Cut::Slow,
        })
    }

    /// Whether and why the client was left, in words for the log.
    pub fn broken(&self) -> Option<&'static str> {
        Some(match self.cut()? {
            Cut::Crowded => " (broken off, another client needed the place)",
            Cut::Unruly => " (broken off, the client sent too much)",
            Cut::Slow => " (broken off, the client took too little)",
        })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.connection.end_request();
    }
}

/// Bytes of a head, and never more than it had on the wire.
fn length_of(head: &RequestHeader) -> usize {
    let fields = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 2);
    head.method.as_str().len() + head.raw_path().len() + fields.sum::<usize>()
}

/// A piece of a body on its way to the client.
struct Piece {
    bytes: Bytes,
    _waiting: Waiting,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
