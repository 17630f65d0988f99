//! Whose a request is, and where it came to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::header::HeaderName;
use pingora::Result;
use pingora::http::RequestHeader;
use pingora_proxy::Session;

use super::head;
use crate::configured::Configured;
use crate::listener::Serving;
use crate::route::Place;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Who asks, and where.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    /// The client: the connection's other end, or whom trusted proxies name.
    pub(super) client: IpAddr,
    /// The connection's other end.
    pub(super) peer: IpAddr,
    /// Whether it came by TLS, to here or to a trusted proxy.
    pub(super) secure: bool,
    /// What it asks for, and of which group.
    pub(super) place: Place,
}

impl Default for Visitor {
    fn default() -> Self {
        let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self { client: nobody, peer: nobody, secure: false, place: Place::default() }
    }
}

impl Visitor {
    /// The one whose request this is.
    pub(super) fn of(
        session: &Session,
        configured: &Configured,
        serving: Option<&Serving>,
    ) -> Self {
        let request = session.req_header();
        // Only a listener that is not on the network has clients without an address.
        let address = session.client_addr().and_then(|address| address.as_inet());
        let address = address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), SocketAddr::ip);
        let peer = serving.map_or(address.to_canonical(), Serving::peer);
        let connection = serving.map_or(peer, Serving::client);
        let rules = &configured.config.clients;
        let told = rules.is_secure(connection, &request.headers);
        let listener = serving.and_then(Serving::group);
        let names = &configured.settings.names;
        Self {
            client: rules.client(connection, &request.headers),
            peer,
            secure: told.unwrap_or_else(|| serving.is_some_and(Serving::is_secure)),
            place: names.place(request.uri.path(), || head::authority(session), listener),
        }
    }

    /// The scheme that the client used.
    pub(super) fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// Adds to the request to a target what it is told of the client: its address and the host that
    /// it asked. Cookies and credentials of clients are none of a target's business, and conditions
    /// are judged here.
    pub(super) fn introduce(&self, session: &Session, head: &mut RequestHeader) -> Result<()> {
        head.insert_header(FORWARDED_FOR, self.client.to_string())?;
        if let Some(host) = head::authority(session) {
            head.insert_header(FORWARDED_HOST, host)?;
        }
        head.insert_header(FORWARDED_PROTO, self.scheme())
    }
}
