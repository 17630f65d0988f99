//! Certificates, and TLS in front of an origin.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

/// An authority, and a directory for its files.
pub struct Authority {
    certificate: rcgen::Certificate,
    key: KeyPair,
    directory: TempDir,
}

/// A certificate and its key.
pub struct Issued {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        // All of them have one name: what tells them apart is their keys.
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { certificate, key, directory }
    }

    /// A certificate for these host names and addresses.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_with(names, |_| {})
    }

    pub fn issue_expired(&self, names: &[&str]) -> Issued {
        self.issue_with(names, |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1))
    }

    fn issue_with(&self, names: &[&str], with: impl FnOnce(&mut CertificateParams)) -> Issued {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        with(&mut params);
        let certificate = params.signed_by(&key, &self.certificate, &self.key).unwrap();
        Issued { certificate, key }
    }

    /// Where the certificate of the authority is.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// `ca_file: ..`.
    pub fn trusted(&self) -> String {
        format!("ca_file: '{}'", self.path().display())
    }

    /// The certificate of the authority.
    pub fn der(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    /// `cert_file: .., key_file: ..` of a certificate for a client.
    pub fn client(&self, issued: &Issued) -> String {
        self.files("c", issued)
    }

    /// `cert_file: .., key_file: ..` of a certificate, in files of this name.
    pub fn files(&self, name: &str, issued: &Issued) -> String {
        let path = |end: &str| self.directory.path().join(format!("{name}.{end}"));
        let (cert, key) = (path("pem"), path("key"));
        fs::write(&cert, issued.certificate.pem()).unwrap();
        fs::write(&key, issued.key.serialize_pem()).unwrap();
        format!("cert_file: '{}', key_file: '{}'", cert.display(), key.display())
    }
}

impl Issued {
    /// The certificate and its key.
    pub fn parts(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        (vec![self.certificate.der().clone()], key)
    }

    /// How a server with this certificate speaks TLS.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.build(&[&TLS12, &TLS13], None)
    }

    /// The same for a server that wants a certificate of this authority of its clients.
    pub fn server_for(
        &self,
        clients: &Authority,
        version: &'static SupportedProtocolVersion,
    ) -> Arc<ServerConfig> {
        self.build(&[version], Some(clients))
    }

    fn build(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        clients: Option<&Authority>,
    ) -> Arc<ServerConfig> {
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.certificate.der().clone()).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let (chain, key) = self.parts();
        Arc::new(builder.with_single_cert(chain, key).unwrap())
    }
}

/// TLS in front of something that does not speak it.
pub struct Front {
    pub address: SocketAddr,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    /// Names that clients asked for, in the order of the handshakes.
    named: Arc<Mutex<Vec<Option<String>>>>,
}

impl Front {
    /// Carries connections to `origin` until the test's runtime ends.
    pub async fn before(origin: SocketAddr, config: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let config = Arc::new(Mutex::new(config));
        let named = Arc::<Mutex<Vec<_>>>::default();
        let (current, seen) = (Arc::clone(&config), Arc::clone(&named));
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let config = Arc::clone(&*current.lock().unwrap());
                connections.spawn(carry(stream, config, origin, Arc::clone(&seen)));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, config, named }
    }

    /// From the next connection on.
    pub fn speak(&self, config: Arc<ServerConfig>) {
        *self.config.lock().unwrap() = config;
    }

    pub fn named(&self) -> Vec<Option<String>> {
        self.named.lock().unwrap().clone()
    }
}

async fn carry(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    origin: SocketAddr,
    names: Arc<Mutex<Vec<Option<String>>>>,
) {
    let accepted = TlsAcceptor::from(config).accept(stream).into_fallible().await;
    let mut client = match accepted {
        Ok(client) => client,
        Err((_, mut stream)) => {
            // Whoever closes with bytes unread resets the connection, and takes his alert along.
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
            return;
        }
    };
    names.lock().unwrap().push(client.get_ref().1.server_name().map(str::to_owned));
    let Ok(mut origin) = TcpStream::connect(origin).await else { return };
    let _ = tokio::io::copy_bidirectional(&mut client, &mut origin).await;
}
