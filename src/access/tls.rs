//! TLS towards the targets of a group, twice from the same settings: for the client that probes,
//! and for Pingora's connector.
//!
//! What Pingora's rustls backend does with a peer (0.9.1, `connectors/tls/rustls`): authorities and
//! client certificate of the peer are honoured, and so is `verify_cert`, as long as there is any
//! authority to build a verifier with. An empty `sni` turns verification off. An underscore in the
//! first label is replaced before the name is checked; the configuration refuses such names.

use std::sync::{Arc, OnceLock};

use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::config::{Identity, Tls, Verification};

/// Why the targets of a group cannot be reached as the configuration wants it.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The system's authorities cannot be read.
    #[error(
        "cannot read the certificate authorities of this system, give group `{group}` a \
         `tls_config.ca_file`"
    )]
    Unreadable {
        /// The group.
        group: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The system has none.
    #[error(
        "this system has no certificate authorities, install `ca-certificates`, or give group \
         `{group}` a `tls_config.ca_file`"
    )]
    NoAuthorities {
        /// The group.
        group: String,
    },
    /// What was read from the files does not go together after all.
    #[error("the certificates of group `{group}` cannot be used")]
    Unusable {
        /// The group.
        group: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// A secret that was good is none.
    #[error("the credentials cannot be sent in a header")]
    Header,
}

/// The authorities of the system, once somebody has asked for them. Pingora reads the same ones
/// when it starts, for peers without their own.
#[derive(Default)]
pub(super) struct Authorities(OnceLock<Arc<RootCertStore>>);

impl Authorities {
    fn read(&self, group: &str) -> Result<Arc<RootCertStore>, AccessError> {
        if let Some(store) = self.0.get() {
            return Ok(Arc::clone(store));
        }
        let found = rustls_native_certs::load_native_certs();
        let unreadable = |source| AccessError::Unreadable { group: group.to_owned(), source };
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(found.map_err(unreadable)?);
        if store.is_empty() {
            return Err(AccessError::NoAuthorities { group: group.to_owned() });
        }
        Ok(Arc::clone(self.0.get_or_init(|| Arc::new(store))))
    }
}

/// How TLS is spoken.
pub(super) struct Session {
    client: ClientConfig,
    authorities: Option<Arc<CaType>>,
    identity: Option<Arc<CertKey>>,
    verification: Verification,
}

impl Session {
    pub(super) fn new(group: &str, tls: &Tls, system: &Authorities) -> Result<Self, AccessError> {
        let unusable = |source| AccessError::Unusable { group: group.to_owned(), source };
        let authorities = match &tls.authorities {
            None => system.read(group)?,
            Some(own) => {
                let mut store = RootCertStore::empty();
                own.iter().try_for_each(|der| store.add(der.clone())).map_err(unusable)?;
                Arc::new(store)
            }
        };
        let wrapped = |der: &CertificateDer| WrappedX509::new(der.to_vec(), parse_x509);
        let own = tls.authorities.as_ref();
        Ok(Self {
            client: client(tls, authorities).map_err(unusable)?,
            authorities: own.map(|own| own.iter().map(wrapped).collect::<Vec<_>>().into()),
            identity: tls.identity.as_ref().map(cert_key),
            verification: tls.verification,
        })
    }

    pub(super) fn client(&self) -> ClientConfig {
        self.client.clone()
    }

    /// Puts the settings on a peer that is to be connected to by TLS.
    pub(super) fn dress(&self, peer: &mut HttpPeer) {
        peer.options.ca.clone_from(&self.authorities);
        peer.client_cert_key.clone_from(&self.identity);
        let verify = self.verification == Verification::Full;
        peer.options.verify_cert = verify;
        peer.options.verify_hostname = verify;
    }
}

fn cert_key(identity: &Identity) -> Arc<CertKey> {
    let chain = identity.chain.iter().map(|der| der.to_vec()).collect();
    Arc::new(CertKey::new(chain, identity.key.expose().to_vec()))
}

fn client(tls: &Tls, authorities: Arc<RootCertStore>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match tls.verification {
        Verification::Full => {
            let verifier = WebPkiServerVerifier::builder_with_provider(authorities, provider);
            let verifier =
                verifier.build().map_err(|error| rustls::Error::General(error.to_string()))?;
            builder.dangerous().with_custom_certificate_verifier(verifier)
        }
        Verification::Off => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        }
    };
    let mut client = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some(Identity { chain, key }) => {
            let key = PrivateKeyDer::try_from(key.expose().to_vec())
                .map_err(|reason| rustls::Error::General(reason.to_owned()))?;
            builder.with_client_auth_cert(chain.clone(), key)?
        }
    };
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(client)
}

/// Takes everybody for who he says he is: `insecure_skip_verify`.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
