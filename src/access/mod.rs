//! How the targets of a group are reached, by probes and by downloads alike: what TLS demands of
//! them, and who they are told that asks. The one place that makes the settings of connections and
//! the header, and that knows where the header must not go.

mod credentials;
mod fault;
mod heads;
mod registry;
mod tls;

pub use fault::{Fault, Faults};
pub use heads::{MAX_HEAD, is_long};
pub use registry::{Accesses, Prepared};
pub use tls::AccessError;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::HeaderValue;
use http::status::StatusCode;
use pingora::upstreams::peer::HttpPeer;

use crate::config::{Group, Scheme};
use crate::hops::{CdnLoop, EdgeId};
use crate::index::AccessKey;
use credentials::Presented;
use tls::{Authorities, Session};

/// The access to the targets that one entry of the configuration names for its group.
pub struct Access {
    key: AccessKey,
    entry: Group,
    session: Option<Session>,
    presented: Option<Presented>,
    edge: EdgeId,
    /// What went wrong so far, by this and by what it took the place of.
    pub faults: Arc<Faults>,
}

impl Access {
    fn new(
        key: AccessKey,
        entry: &Group,
        edge: EdgeId,
        faults: Arc<Faults>,
        system: &Authorities,
    ) -> Result<Self, AccessError> {
        let session = match entry.scheme {
            Scheme::Http => None,
            Scheme::Https => Some(Session::new(&entry.name, &entry.tls, system)?),
        };
        let presented = entry.credentials.clone().map(Presented::new).transpose()?;
        Ok(Self { key, entry: entry.clone(), session, presented, edge, faults })
    }

    /// The key by which it is found, as long as anybody has that.
    pub fn key(&self) -> &AccessKey {
        &self.key
    }

    /// The name of the group whose targets are reached by it.
    pub fn group(&self) -> &Arc<str> {
        &self.entry.name
    }

    /// Whether it is what a configuration with this entry and this name of the edge would make,
    /// whichever targets that names. A secret in a file is what the file holds.
    fn is_of(&self, entry: &Group, edge: &EdgeId) -> bool {
        let Group { name, scheme, tls, credentials, .. } = &self.entry;
        let is_same = match (credentials, &entry.credentials) {
            (None, None) => true,
            (Some(one), Some(other)) => one.is_same(other),
            _ => false,
        };
        (name, scheme, tls) == (&entry.name, &entry.scheme, &entry.tls)
            && is_same
            && self.edge == *edge
    }

    /// Takes over what the file of a secret held when this entry was read.
    fn renew(&self, entry: &Group) {
        if let (Some(presented), Some(credentials)) = (&self.presented, &entry.credentials) {
            presented.renew(self.group(), credentials.kept().first());
        }
    }

    /// Who this edge is to the targets.
    pub fn edge(&self) -> &EdgeId {
        &self.edge
    }

    /// Value of `cdn-loop` in a request to a target; of a request of our own that is this edge
    /// alone.
    pub fn came_through(&self, came: &CdnLoop) -> HeaderValue {
        // Names and what was a header's text before can be a header's value.
        HeaderValue::try_from(came.onward(&self.edge))
            .unwrap_or_else(|_| HeaderValue::from_static("snapedge"))
    }

    /// How targets are spoken to.
    pub fn scheme(&self) -> Scheme {
        if self.session.is_some() { Scheme::Https } else { Scheme::Http }
    }

    /// TLS for the client that probes; nothing where it is not spoken.
    pub fn client_tls(&self) -> Option<rustls::ClientConfig> {
        self.session.as_ref().map(Session::client)
    }

    /// Where and how to connect for a download: to this address, which must prove that it is the
    /// target that was listed as `target`, whatever name a redirect gave it since.
    pub fn peer(&self, address: SocketAddr, target: &str) -> HttpPeer {
        let Some(session) = &self.session else {
            return HttpPeer::new(address, false, String::new());
        };
        // Never empty: Pingora takes a connection without a name for one that verifies nothing.
        let mut peer = HttpPeer::new(address, true, host(target).to_owned());
        session.dress(&mut peer);
        peer
    }

    /// The `authorization` of a request to `asked` that is made because `target` is listed.
    ///
    /// Only the host and port that were listed get it. A redirect to another port of the host leads
    /// to what may be another program, run by somebody else.
    pub fn authorization(&self, target: &str, asked: &str) -> Option<HeaderValue> {
        let presented = self.presented.as_ref().filter(|_| target == asked)?;
        Some(presented.header())
    }

    /// Whether an answer means that who asks may not. Without credentials a 403 is what a file
    /// server says of a file that it does not have.
    pub fn denies(&self, status: StatusCode) -> bool {
        match status {
            StatusCode::UNAUTHORIZED => true,
            StatusCode::FORBIDDEN => self.presented.is_some(),
            _ => false,
        }
    }

    /// Whether there is a file to be read again and again.
    pub fn changes(&self) -> bool {
        self.presented.as_ref().is_some_and(Presented::changes)
    }

    /// Follows the file of the password or token; never returns.
    pub async fn keep(&self) {
        match &self.presented {
            Some(presented) => presented.keep(self.group()).await,
            None => std::future::pending().await,
        }
    }
}

/// The host in `host:port`, without the brackets of an IPv6 address: as TLS wants it.
fn host(authority: &str) -> &str {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    inner.filter(|inner| inner.parse::<IpAddr>().is_ok()).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(group: &str) -> Access {
        let text = format!(
            "target_groups: [{{group: g, static_targets: {{targets: ['a.example:80']}}, {group}}}]"
        );
        let config = crate::config::parse(&text).expect("valid");
        let (key, faults) = (AccessKey::default(), Arc::default());
        Access::new(key, &config.groups[0], EdgeId::of_bits(1), faults, &Authorities::default())
            .expect("usable")
    }

    #[test]
    fn hosts() {
        for (authority, expected) in
            [("a.example:80", "a.example"), ("10.0.0.1:80", "10.0.0.1"), ("[::1]:80", "::1")]
        {
            assert_eq!(host(authority), expected);
        }
    }

    #[test]
    fn credentials_go_to_what_was_listed() {
        let access = access("basic_auth: {username: Aladdin, password: open sesame}");
        let sent = |target, asked| access.authorization(target, asked);
        let header = sent("node.example:80", "node.example:80").expect("it is sent");
        // The example of RFC 7617.
        assert_eq!(header.as_bytes(), b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(!format!("{header:?}").contains("QWx"), "{header:?}");
        for asked in ["node.example:81", "node.example", "10.0.0.1:80", "other.example:80"] {
            assert_eq!(sent("node.example:80", asked), None, "{asked}");
        }
        let bearer = self::access("bearer_auth: {token: mF_9.B5f-4.1JqM}");
        let header = bearer.authorization("a:1", "a:1").expect("it is sent");
        assert_eq!(header.as_bytes(), b"Bearer mF_9.B5f-4.1JqM");
        assert_eq!(self::access("kind: rpc").authorization("a:1", "a:1"), None);
    }

    #[test]
    fn what_denies_who_asks() {
        for (group, status, expected) in [
            ("kind: rpc", 401, true),
            ("kind: rpc", 403, false),
            ("bearer_auth: {token: x}", 401, true),
            ("bearer_auth: {token: x}", 403, true),
            ("bearer_auth: {token: x}", 404, false),
        ] {
            let status = StatusCode::from_u16(status).expect("valid");
            assert_eq!(access(group).denies(status), expected, "{group} {status}");
        }
    }
}
