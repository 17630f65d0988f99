//! Clients that speak TLS, as old or as new as wished.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use super::PATIENCE;
use super::client::{Answer, answer_of};
use super::tls::{Authority, Issued};

/// A client, and what it believes.
#[derive(Clone)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
}

/// What a client offers.
pub struct Offer<'a> {
    pub versions: &'a [&'static SupportedProtocolVersion],
    pub protocols: &'a [&'a str],
    /// What it shows where it is asked who it is.
    pub identity: Option<&'a Issued>,
}

/// As most clients do.
pub const USUAL: Offer<'static> =
    Offer { versions: &[&TLS12, &TLS13], protocols: &["http/1.1"], identity: None };

impl TlsClient {
    /// One that believes this authority.
    pub fn new(authority: &Authority, offer: &Offer<'_>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority.der()).expect("an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(offer.versions)
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match offer.identity {
            None => builder.with_no_client_auth(),
            Some(issued) => {
                let (chain, key): (_, PrivateKeyDer<'static>) = issued.parts();
                builder.with_client_auth_cert(chain, key).expect("a certificate")
            }
        };
        config.alpn_protocols =
            offer.protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Self { config: Arc::new(config) }
    }

    /// Connects, and shakes hands with who has to be this one.
    pub async fn connect(&self, to: SocketAddr, name: &str) -> io::Result<TlsStream<TcpStream>> {
        self.over(TcpStream::connect(to).await?, name).await
    }

    /// The same over a connection that is there.
    pub async fn over(&self, stream: TcpStream, name: &str) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let connected = TlsConnector::from(Arc::clone(&self.config)).connect(name, stream);
        tokio::time::timeout(PATIENCE, connected).await.expect("in time")
    }

    /// Asks for a path on a connection of its own, over HTTP/1.1.
    pub async fn get(&self, to: SocketAddr, name: &str, path: &str) -> io::Result<Answer> {
        self.ask(to, name, &format!("GET {path} HTTP/1.1\r\nhost: {name}:{}\r\n", to.port())).await
    }

    /// Sends a request without its last line, and reads the answer to its end.
    pub async fn ask(&self, to: SocketAddr, name: &str, request: &str) -> io::Result<Answer> {
        exchange(self.connect(to, name).await?, request).await
    }
}

/// Sends a request without its last line as the last one, and reads the answer to its end.
pub async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
) -> io::Result<Answer> {
    raw_exchange(stream, &format!("{request}connection: close\r\n\r\n")).await
}

/// Sends a request as it is, and reads to the end of the connection.
pub async fn raw_exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
) -> io::Result<Answer> {
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("in time")?;
    answer_of(&bytes).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
