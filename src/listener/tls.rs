//! TLS with clients: which versions, which certificate, and who they must be.
//!
//! The handshake is done where connections are looked after, so that it has a place among them and
//! its time, as half a head of a request has.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora::listeners::tls::Acceptor;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    Stream, TimingDigest, UniqueID, UniqueIDType,
};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{Ticketer, default_provider, sign::any_supported_type};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, ServerConfig,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use x509_parser::extensions::GeneralName;

use super::connection::Connection;
use crate::config::{Identity, ServerTls};

/// Why TLS cannot be spoken to clients.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A key or an authority that was read cannot be used.
    #[error("the certificates of a listener cannot be used")]
    Unusable(#[from] rustls::Error),
    /// A certificate that is new is not good now.
    #[error("a certificate of a listener {0}")]
    OutOfTime(String),
    /// The authorities cannot vouch for clients.
    #[error("the file in `client_ca_file` cannot vouch for anybody")]
    Authorities(#[from] rustls::server::VerifierBuilderError),
}

/// Why a client and this process did not come together.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Failed(String);

impl Failed {
    /// What is at the bottom of it; Pingora writes its own words around that, twice.
    pub(super) fn of(error: &pingora::Error) -> Self {
        let cause = error.root_cause().to_string();
        let advice = if cause.contains("InvalidContentType") {
            ", it does not speak TLS (plain HTTP?)"
        } else if cause.contains("peer sent no certificates") {
            ", it shows no certificate (`client_ca_file`)"
        } else {
            ""
        };
        let (_, cause) = cause.rsplit_once("tls connect error: ").unwrap_or(("", &cause));
        Self(format!("TLS: {cause}{advice}"))
    }
}

/// What is made of the certificates of a listener.
pub(super) struct Secured {
    made_of: ServerTls,
    acceptor: Acceptor,
    tickets: Arc<dyn ProducesTickets>,
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secured").field("made_of", &self.made_of).finish_non_exhaustive()
    }
}

impl Secured {
    /// TLS by these certificates, or what is there `before` where that is by the same ones.
    pub(super) fn new(tls: &ServerTls, before: Option<&Arc<Self>>) -> Result<Arc<Self>, TlsError> {
        if let Some(before) = before.filter(|before| before.made_of == *tls) {
            return Ok(Arc::clone(before));
        }
        // What is out of its time does not take the place of what may not be.
        let is_new = |identity: &&Identity| {
            before.is_some_and(|before| !before.made_of.identities.contains(identity))
        };
        let out_of_time = tls.identities.iter().filter(is_new).find_map(Identity::out_of_time);
        if let Some(message) = out_of_time {
            return Err(TlsError::OutOfTime(message));
        }
        let tickets = match before {
            Some(before) => Arc::clone(&before.tickets),
            None => Ticketer::new()?,
        };
        let config = Arc::new(server_config(tls, &tickets)?);
        let acceptor = Acceptor::from_server_config(config);
        Ok(Arc::new(Self { made_of: tls.clone(), acceptor, tickets }))
    }

    pub(super) fn expires(&self) -> Option<i64> {
        self.made_of.expires()
    }

    /// Shakes hands with a client. What goes over the wire is counted for the connection.
    pub(super) async fn shake_hands(
        &self,
        stream: Stream,
        connection: &Arc<Connection>,
    ) -> pingora::Result<Stream> {
        let wire = Wire { stream, connection: Arc::clone(connection) };
        Ok(Box::new(self.acceptor.tls_handshake(wire).await?))
    }
}

fn server_config(
    tls: &ServerTls,
    tickets: &Arc<dyn ProducesTickets>,
) -> Result<ServerConfig, TlsError> {
    let provider: Arc<CryptoProvider> = Arc::new(default_provider());
    let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_protocol_versions(&versions)?;
    let builder = match &tls.client_authorities {
        None => builder.with_no_client_auth(),
        Some(authorities) => {
            let mut roots = RootCertStore::empty();
            for authority in authorities {
                roots.add(authority.clone())?;
            }
            let roots = Arc::new(roots);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(Certificates::new(&tls.identities)?));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if tls.client_authorities.is_some() {
        // A session that is taken up again is not asked for a certificate, however old that is.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    } else {
        config.ticketer = Arc::clone(tickets);
        // As many as a client uses: it asks one after the other, or opens some at once.
        config.send_tls13_tickets = 2;
    }
    config.ignore_client_order = true;
    Ok(config)
}

/// The certificates of a listener, one of which is shown.
#[derive(Debug)]
struct Certificates(Vec<Named>);

/// A certificate and the names that it is for, in lower case.
#[derive(Debug)]
struct Named {
    names: Vec<String>,
    key: Arc<CertifiedKey>,
}

impl Certificates {
    fn new(identities: &[Identity]) -> Result<Self, rustls::Error> {
        let mut all = Vec::with_capacity(identities.len());
        for identity in identities {
            let key = PrivateKeyDer::try_from(identity.key.expose().to_vec());
            let key = key.map_err(|message| rustls::Error::General(message.to_owned()))?;
            let key = CertifiedKey::new(identity.chain.clone(), any_supported_type(&key)?);
            all.push(Named { names: names(identity), key: Arc::new(key) });
        }
        Ok(Self(all))
    }

    /// The certificate for a name: one of that name, else one of all names beside it, else the
    /// first.
    fn of(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let name = name.map(str::to_ascii_lowercase);
        let named =
            |wanted: &str| self.0.iter().find(|one| one.names.iter().any(|name| name == wanted));
        let found = name.and_then(|name| {
            let (_, parent) = name.split_once('.').unwrap_or_default();
            named(&name).or_else(|| named(&format!("*.{parent}")))
        });
        found.or(self.0.first()).map(|one| &one.key)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.of(hello.server_name()).map(Arc::clone)
    }
}

/// The names that a certificate is for.
fn names(identity: &Identity) -> Vec<String> {
    let Some(certificate) = identity.chain.first() else { return Vec::new() };
    // It was read before.
    let Ok((_, read)) = x509_parser::parse_x509_certificate(certificate) else { return Vec::new() };
    let Ok(Some(names)) = read.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(name).collect()
}

/// What is below TLS: the stream of a connection, whose bytes as they are sent are counted.
#[derive(Debug)]
struct Wire {
    stream: Stream,
    connection: Arc<Connection>,
}

impl Wire {
    fn count(&self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = outcome {
            self.connection.sent(bytes);
        }
        outcome
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.connection.came(buf.filled().len() - before);
        outcome
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.count(outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.count(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for Wire {
    async fn shutdown(&mut self) {
        self.stream.shutdown().await;
    }
}

impl Peek for Wire {}

impl UniqueID for Wire {
    fn id(&self) -> UniqueIDType {
        self.stream.id()
    }
}

impl Ssl for Wire {
    fn get_ssl(&self) -> Option<&TlsRef> {
        None
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        None
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        None
    }
}

impl GetTimingDigest for Wire {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.stream.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.stream.get_write_pending_time()
    }
}

impl GetProxyDigest for Wire {
    fn get_proxy_digest(&self) -> Option<Arc<pingora::protocols::raw_connect::ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Wire {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_socket_digest()
    }
}
