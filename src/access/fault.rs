//! Why a target and this process do not come together although both are there.

use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use pingora::ErrorType;
use rustls::{AlertDescription, CertificateError};

/// Alerts about the certificate of this process, or that there is none. (What is called a failed
/// decryption is a certificate from an authority's namesake.)
const CERTIFICATE_ALERTS: [AlertDescription; 10] = [
    AlertDescription::CertificateRequired,
    AlertDescription::NoCertificate,
    AlertDescription::BadCertificate,
    AlertDescription::UnsupportedCertificate,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateUnknown,
    AlertDescription::UnknownCA,
    AlertDescription::AccessDenied,
    AlertDescription::DecryptError,
];

/// What is wrong, and what to do about it. The sentences go on from the name of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The target's certificate leads to no trusted authority.
    #[error(
        "its certificate is from no authority that is trusted, give the one that it is from in \
         `tls_config.ca_file`"
    )]
    UnknownIssuer,
    /// The target's certificate is no longer valid, or not yet.
    #[error(
        "its certificate has expired or is not valid yet, renew it on the target or set the clock"
    )]
    Expired,
    /// The target's certificate is for another name.
    #[error(
        "its certificate is for another name, list the target under a name that the certificate has"
    )]
    WrongName,
    /// The target refuses the certificate of this process, or wants one.
    #[error(
        "it accepts no client that does not show a certificate that it trusts, give one in \
         `tls_config.cert_file` and `tls_config.key_file`"
    )]
    ClientCertificate,
    /// No TLS comes about, for any other reason.
    #[error("no TLS comes about, see that it speaks TLS 1.2 or 1.3 on this port")]
    Tls,
    /// The target answers that who asks may not: 401, or 403.
    #[error(
        "it does not accept the credentials of the group, or there are none: see `basic_auth` and \
         `bearer_auth`"
    )]
    Credentials,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 6] = [
        Self::UnknownIssuer,
        Self::Expired,
        Self::WrongName,
        Self::ClientCertificate,
        Self::Tls,
        Self::Credentials,
    ];

    /// A word for it, as metrics have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownIssuer => "unknown_issuer",
            Self::Expired => "expired",
            Self::WrongName => "wrong_name",
            Self::ClientCertificate => "client_certificate",
            Self::Tls => "tls",
            Self::Credentials => "credentials",
        }
    }
}

/// How often each of them was met: by probes, by downloads, and by what only a node is asked.
#[derive(Debug, Default)]
pub struct Faults {
    unknown_issuer: AtomicU64,
    expired: AtomicU64,
    wrong_name: AtomicU64,
    client_certificate: AtomicU64,
    tls: AtomicU64,
    credentials: AtomicU64,
}

impl Faults {
    /// Counts one more.
    pub fn count(&self, fault: Fault) {
        self.counter(fault).fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn of(&self, fault: Fault) -> u64 {
        self.counter(fault).load(Ordering::Relaxed)
    }

    fn counter(&self, fault: Fault) -> &AtomicU64 {
        match fault {
            Fault::UnknownIssuer => &self.unknown_issuer,
            Fault::Expired => &self.expired,
            Fault::WrongName => &self.wrong_name,
            Fault::ClientCertificate => &self.client_certificate,
            Fault::Tls => &self.tls,
            Fault::Credentials => &self.credentials,
        }
    }
}

impl Fault {
    /// The fault that is behind an error, where there is one.
    pub fn behind(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(tls) = error.downcast_ref::<rustls::Error>() {
                return Some(Self::of(tls));
            }
            // An `io::Error` is not among its own causes, and hides what it was made from.
            let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            next = match inner {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        None
    }

    /// What is behind an error of Pingora's, which has its causes elsewhere.
    pub fn behind_pingora(error: &pingora::Error) -> Option<Self> {
        match error.etype() {
            // Of what goes wrong in a handshake only the words come through.
            ErrorType::TLSHandshakeFailure => Some(
                error.context.as_ref().map_or(Self::Tls, |context| Self::said(context.as_str())),
            ),
            ErrorType::InvalidCert => Some(Self::Tls),
            _ => {
                let cause = error.cause.as_deref()?;
                match cause.downcast_ref::<Box<pingora::Error>>() {
                    Some(error) => Self::behind_pingora(error),
                    None => Self::behind(cause),
                }
            }
        }
    }

    fn of(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(error) => Self::of_certificate(error),
            rustls::Error::AlertReceived(alert) if CERTIFICATE_ALERTS.contains(alert) => {
                Self::ClientCertificate
            }
            _ => Self::Tls,
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            // A bad signature is what an authority's namesake leaves.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownIssuer,
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Self::Expired,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::WrongName
            }
            _ => Self::Tls,
        }
    }

    /// The fault that Pingora's words for a failed handshake tell of. They end with those of
    /// rustls, which begin alike for errors that are alike; a test holds them to that.
    fn said(words: &str) -> Self {
        let cause = words.split_once("cause: ").map_or(words, |(_, cause)| cause);
        let begins = |beginnings: &[&str], words: &str| {
            beginnings.iter().any(|beginning| words.starts_with(beginning))
        };
        if let Some(reason) = cause.strip_prefix("invalid peer certificate: ") {
            return if begins(&["UnknownIssuer", "BadSignature"], reason) {
                Self::UnknownIssuer
            } else if begins(&["certificate not valid for name", "NotValidForName"], reason) {
                Self::WrongName
            } else if begins(
                &["certificate expired", "Expired", "certificate not valid yet", "NotValidYet"],
                reason,
            ) {
                Self::Expired
            } else {
                Self::Tls
            };
        }
        match cause.strip_prefix("received fatal alert: ") {
            Some(words) if CERTIFICATE_ALERTS.iter().any(|alert| starts_with(words, *alert)) => {
                Self::ClientCertificate
            }
            _ => Self::Tls,
        }
    }
}

fn starts_with(words: &str, alert: AlertDescription) -> bool {
    words.starts_with(&format!("{alert:?}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pingora::OrErr;
    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;

    /// Every error that means something of its own, and two that do not.
    fn errors() -> Vec<(rustls::Error, Fault)> {
        let time = UnixTime::since_unix_epoch(Duration::from_secs(5));
        let (not_after, not_before) = (time, time);
        let expected = ServerName::try_from("node.example").expect("a name").to_owned();
        // A name can look like anything.
        let presented = vec!["DnsName(\"cause: received fatal alert: UnknownCA\")".to_owned()];
        let certificates = [
            (CertificateError::UnknownIssuer, Fault::UnknownIssuer),
            (CertificateError::BadSignature, Fault::UnknownIssuer),
            (CertificateError::Expired, Fault::Expired),
            (CertificateError::ExpiredContext { time, not_after }, Fault::Expired),
            (CertificateError::NotValidYet, Fault::Expired),
            (CertificateError::NotValidYetContext { time, not_before }, Fault::Expired),
            (CertificateError::NotValidForName, Fault::WrongName),
            (CertificateError::NotValidForNameContext { expected, presented }, Fault::WrongName),
            (CertificateError::Revoked, Fault::Tls),
        ];
        let certificates = certificates
            .into_iter()
            .map(|(error, fault)| (rustls::Error::InvalidCertificate(error), fault));
        let alerts = CERTIFICATE_ALERTS.map(|alert| (alert, Fault::ClientCertificate)).into_iter();
        let alerts = alerts.chain([(AlertDescription::HandshakeFailure, Fault::Tls)]);
        let alerts = alerts.map(|(alert, fault)| (rustls::Error::AlertReceived(alert), fault));
        certificates.chain(alerts).collect()
    }

    #[test]
    fn faults_behind_errors() {
        for (error, fault) in errors() {
            let error = io::Error::new(io::ErrorKind::InvalidData, error);
            assert_eq!(Fault::behind(&error), Some(fault), "{error}");
            let wrapped = io::Error::other(error);
            assert_eq!(Fault::behind(&wrapped), Some(fault), "{wrapped}");
            // As it comes after the handshake.
            let read: Result<(), _> = Err(wrapped);
            let read = read.or_err(ErrorType::ReadError, "while reading").expect_err("an error");
            assert_eq!(Fault::behind_pingora(&read), Some(fault), "{read}");
            let outer = read.more_context("more");
            assert_eq!(Fault::behind_pingora(&outer), Some(fault), "{outer}");
        }
        assert_eq!(Fault::behind(&io::Error::other("something else")), None);
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(Fault::behind(&refused), None);
        let other = pingora::Error::explain(ErrorType::ConnectRefused, "UnknownIssuer");
        assert_eq!(Fault::behind_pingora(&other), None);
    }

    #[test]
    fn faults_behind_the_words_of_a_failed_handshake() {
        let words = |cause: &str| {
            let context = format!(
                "TLS connect() failed:  TLSHandshakeFailure context: tls connect error cause: \
                 {cause}, SNI: node.example"
            );
            Fault::behind_pingora(&pingora::Error::explain(ErrorType::TLSHandshakeFailure, context))
        };
        for (error, fault) in errors() {
            assert_eq!(words(&error.to_string()), Some(fault), "{error}");
        }
        assert_eq!(words("tls handshake eof"), Some(Fault::Tls));
    }

    #[test]
    fn each_is_counted_by_itself() {
        let faults = Faults::default();
        let all = [
            Fault::UnknownIssuer,
            Fault::Expired,
            Fault::WrongName,
            Fault::ClientCertificate,
            Fault::Tls,
            Fault::Credentials,
        ];
        for (at, fault) in all.into_iter().enumerate() {
            (0..=at).for_each(|_| faults.count(fault));
        }
        let counts = all.map(|fault| faults.of(fault));
        assert_eq!(counts, [1, 2, 3, 4, 5, 6]);
    }
}
