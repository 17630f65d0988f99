//! How targets are reached: `tls_config`, `basic_auth` and `bearer_auth` of a group.
//!
//! The files are read here, once, so that a bad one is an error like every other. What is wrong
//! with a value or a file is said without any of it.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::secret::{Credentials, Kept, MAX_FILE, Secret, bytes_in, password, secret_in, token};
use super::units::Scheme;
use super::yaml::Section;

/// Most certificates in one file: they are gone through for each connection.
const MAX_CERTIFICATES: usize = 1000;
/// Longest name of a user, in bytes.
const MAX_USERNAME: usize = 256;

/// Certificates of authorities.
pub type Authorities = Vec<CertificateDer<'static>>;

/// How TLS is spoken to the targets of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The authorities that alone may vouch for a target; those of the system where unset.
    pub authorities: Option<Authorities>,
    /// What this process shows where a target wants to know who it is.
    pub identity: Option<Identity>,
    /// Whether a target must prove that it is the one.
    pub verification: Verification,
}

impl Tls {
    /// When the certificate ends that targets are shown, in seconds since 1970, where there is one.
    pub fn expires(&self) -> Option<i64> {
        self.identity.as_ref()?.expires()
    }
}

/// A certificate of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate and those that vouch for it, the own one first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key of the certificate, DER.
    pub key: Secret,
}

impl Identity {
    /// When the certificate begins to be good and when it ends, in seconds since 1970.
    pub fn validity(&self) -> Option<(i64, i64)> {
        let (_, read) = x509_parser::parse_x509_certificate(self.chain.first()?).ok()?;
        let validity = read.validity();
        Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
    }

    /// When the certificate ends, in seconds since 1970.
    pub fn expires(&self) -> Option<i64> {
        self.validity().map(|(_, ends)| ends)
    }

    /// What is wrong with the time of the certificate, if anything is.
    pub fn out_of_time(&self) -> Option<String> {
        let (begins, ends) = self.validity()?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let shown = |seconds| jiff::Timestamp::from_second(seconds).unwrap_or_default();
        if now > ends {
            return Some(format!("expired on {}, renew it", shown(ends)));
        }
        let message = || format!("is valid from {} on, is the clock right?", shown(begins));
        (now < begins).then(message)
    }
}

/// Reads `cert_file` and `key_file`, both of which are needed: what clients are shown.
pub(super) fn identity_in(section: &mut Section) -> Option<Identity> {
    let [chain_in, key_in] = ["cert_file", "key_file"].map(|key| {
        let node = section.take_filled(key);
        if node.is_none() {
            section.reject(key, "expected the path of a file in PEM form");
        }
        node
    });
    let (chain, key) = (chain_in.and_then(|node| node.file(certificates)), key_in?.file(key)?);
    match identity(chain?, &key) {
        Err(message) => {
            section.reject("key_file", message);
            None
        }
        Ok(identity) => Some(identity),
    }
}

/// Whether a target must prove that it is the one that is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verification {
    /// By a certificate for its name, in its time, from a trusted authority.
    #[default]
    Full,
    /// Not at all: who is between here and the target can be the target.
    Off,
}

/// Reads `tls_config`; `scheme` is unset where it was wrong.
pub(super) fn tls(group: &mut Section, scheme: Option<Scheme>) -> Tls {
    let keys = ["ca_file", "cert_file", "key_file", "insecure_skip_verify"];
    let Some(mut section) = group.take_section("tls_config", &keys) else {
        return Tls::default();
    };
    if scheme == Some(Scheme::Http) {
        group.reject("tls_config", "needs `scheme: https`");
    }
    let mut path = |key| section.take_filled(key);
    let [authorities_in, chain_in, key_in] = [path("ca_file"), path("cert_file"), path("key_file")];
    let authorities = authorities_in.and_then(|node| node.path(authorities));
    let chain = chain_in.and_then(|node| node.path(certificates));
    let key = key_in.and_then(|node| node.path(key));
    let skip = section.take("insecure_skip_verify").and_then(|node| node.boolean());
    for (given, missing) in [("cert_file", "key_file"), ("key_file", "cert_file")] {
        if section.is_given(given) && !section.is_given(missing) {
            section.reject(given, format!("needs `{missing}` beside it"));
        }
    }
    let verification = if skip == Some(true) { Verification::Off } else { Verification::Full };
    if verification == Verification::Off && section.is_given("ca_file") {
        section.reject("insecure_skip_verify", "contradicts `ca_file`, remove one");
    }
    let identity = match chain.zip(key).map(|(chain, key)| identity(chain, &key)) {
        Some(Err(message)) => {
            section.reject("key_file", message);
            None
        }
        Some(Ok(identity)) => Some(identity),
        None => None,
    };
    section.close();
    Tls { authorities, identity, verification }
}

/// Reads `basic_auth` and `bearer_auth`, of which there may be one.
pub(super) fn credentials(group: &mut Section) -> Option<Credentials> {
    let keys = ["username", "password", "password_file"];
    let basic = group.take_section("basic_auth", &keys).map(basic);
    let bearer = group.take_section("bearer_auth", &["token", "token_file"]).map(bearer);
    if basic.is_some() && bearer.is_some() {
        group.reject("bearer_auth", "contradicts `basic_auth`, remove one");
    }
    basic.or(bearer).flatten()
}

fn basic(mut section: Section) -> Option<Credentials> {
    let name = section.take("username").and_then(|node| node.literal("a name", username));
    if !section.is_given("username") {
        section.reject("username", "expected the name of a user");
    }
    let password = kept(&mut section, ["password", "password_file"], password);
    section.close();
    Some(Credentials::Basic { username: name?, password: password? })
}

fn bearer(mut section: Section) -> Option<Credentials> {
    let token = kept(&mut section, ["token", "token_file"], token);
    section.close();
    token.map(Credentials::Bearer)
}

fn username(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_USERNAME {
        Err(format!("expected a name of 1 to {MAX_USERNAME} bytes"))
    } else if text.contains(|c: char| c == ':' || c.is_control()) {
        Err("a name has no colon and no control characters".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// A secret, or a file that holds it; exactly one of the two. An empty one counts where there is
/// no file: there are empty passwords.
fn kept(
    section: &mut Section,
    [here, file]: [&'static str; 2],
    parse: fn(&str) -> Result<Secret, &'static str>,
) -> Option<Kept> {
    let file_node = section.take_filled(file);
    let secret_node =
        if file_node.is_some() { section.take_filled(here) } else { section.take(here) };
    let secret = secret_node.and_then(|node| node.secret(parse));
    let in_file = file_node.and_then(|node| {
        node.parsed("a path", |text| {
            let path = PathBuf::from(text);
            let first = secret_in(&path, parse)?;
            Ok(Kept::File { path, first })
        })
    });
    match (section.is_given(here), section.is_given(file)) {
        (true, true) => section.reject(file, format!("contradicts `{here}`, remove one")),
        (false, false) => section.reject("", format!("add `{here}` or `{file}`")),
        _ => {}
    }
    secret.map(Kept::Here).or(in_file)
}

/// Authorities, each of which can be trusted by both of those who connect.
pub(super) fn authorities(path: &Path) -> Result<Authorities, String> {
    let (certificates, path) = (certificates(path)?, path.display());
    let mut store = RootCertStore::empty();
    for certificate in &certificates {
        let added = store.add(certificate.clone());
        added.map_err(|_| format!("`{path}` holds a certificate that cannot be an authority"))?;
    }
    Ok(certificates)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let (bytes, path) = (bytes_in(path, MAX_FILE)?, path.display());
    // The parser's own words can quote what it read, which may be a key.
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .take(MAX_CERTIFICATES + 1)
        .collect::<Result<_, _>>()
        .map_err(|_| format!("`{path}` is not sound PEM"))?;
    match certificates.len() {
        0 => return Err(format!("`{path}` holds no certificate in PEM form")),
        count if count > MAX_CERTIFICATES => {
            return Err(format!("`{path}` holds more than {MAX_CERTIFICATES} certificates"));
        }
        _ => {}
    }
    for certificate in &certificates {
        let read = x509_parser::parse_x509_certificate(certificate);
        if !read.is_ok_and(|(rest, _)| rest.is_empty()) {
            return Err(format!("`{path}` holds a certificate that cannot be read"));
        }
    }
    Ok(certificates)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let (bytes, path) = (bytes_in(path, MAX_FILE)?, path.display());
    match PrivateKeyDer::from_pem_slice(&bytes) {
        Ok(key) => Ok(key),
        Err(rustls::pki_types::pem::Error::NoItemsFound) => {
            Err(format!("`{path}` holds no private key in PEM form that is not encrypted"))
        }
        Err(_) => Err(format!("`{path}` is not sound PEM")),
    }
}

/// A certificate with its key, once it is sure that they can be used and belong together.
fn identity(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
) -> Result<Identity, &'static str> {
    let unusable = "the private key is of no kind that can be used, expected RSA of 2048 to 8192 \
                    bits, ECDSA on P-256 or P-384, or Ed25519";
    let der = key.secret_der().to_vec();
    // Pingora gets the bytes alone and must find out what they are.
    let guessed = PrivateKeyDer::try_from(der.clone()).map_err(|_| unusable)?;
    let signing = any_supported_type(&guessed).map_err(|_| unusable)?;
    match CertifiedKey::new(chain.clone(), signing).keys_match() {
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) | Ok(()) => {
            Ok(Identity { chain, key: Secret::new(der) })
        }
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err("the private key is not that of the first certificate in `cert_file`")
        }
        Err(_) => Err("the first certificate in `cert_file` cannot be used by TLS, make one of \
                       version 3 with a `subjectAltName`"),
    }
}
