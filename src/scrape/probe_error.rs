//! What may go wrong with a target that is asked what it has.

use std::net::IpAddr;

use http::StatusCode;

use super::answer::{MAX_REDIRECTS, is_for_later};
use super::client::ClientError;
use super::listing::ListingError;
use crate::access::Fault;
use crate::hops::Detour;

/// Why a target could not be asked. (A target without archives is an answer, not an error.)
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The target is an edge through which nothing can be had.
    #[error(transparent)]
    Detour(#[from] Detour),
    /// An answer that says that the target is not well.
    #[error("`{path}` answered status {status}")]
    Status {
        /// What was asked.
        path: String,
        /// The answer.
        status: u16,
    },
    /// An answer that says that who asks may not.
    #[error("`{url}` answered status {status}")]
    Denied {
        /// What was asked: another port than the target's gets no credentials.
        url: String,
        /// The answer.
        status: u16,
    },
    /// A redirect that leads to another host.
    #[error("`{path}` redirects to `{to}`, which is another host; list that host as a target")]
    Elsewhere {
        /// What was asked.
        path: String,
        /// Scheme, host and port that it leads to.
        to: String,
    },
    /// A redirect out of TLS, or into it.
    #[error("`{path}` redirects to `{to}`, set the group's `scheme` to what the targets speak")]
    OtherScheme {
        /// What was asked.
        path: String,
        /// Scheme, host and port that it leads to.
        to: String,
    },
    /// A redirect without a usable `location`.
    #[error("`{path}` redirects to nowhere")]
    BadLocation {
        /// What was asked.
        path: String,
    },
    /// Redirects without end.
    #[error("`{path}` redirects more than {MAX_REDIRECTS} times")]
    Loop {
        /// What was asked first.
        path: String,
    },
    /// A name of several addresses, none of which is of use.
    #[error("none of its {count} addresses answers as it should, {address} says most")]
    Addresses {
        /// How many there are.
        count: usize,
        /// The one whose failure says most.
        address: IpAddr,
        /// The failure at that address.
        #[source]
        source: Box<ProbeError>,
    },
    /// A listing that is none.
    #[error("`{path}` answered 200 with `{media}` that is not a list of snapshots")]
    Listing {
        /// What was asked.
        path: String,
        /// The media type of the answer, where it tells.
        media: String,
        /// Why not.
        #[source]
        source: ListingError,
    },
}

impl ProbeError {
    /// What is wrong between the target and this process, where that is it.
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Client(error) => error.fault(),
            Self::Denied { .. } => Some(Fault::Credentials),
            Self::Addresses { source, .. } => source.fault(),
            _ => None,
        }
    }

    /// Whether what was asked for may be there for others, or later.
    pub(super) fn hides_archives(&self) -> bool {
        match self {
            Self::Denied { .. } => true,
            Self::Status { status, .. } => StatusCode::from_u16(*status).is_ok_and(is_for_later),
            _ => false,
        }
    }
}
