//! Where the redirects of targets may lead.

use std::net::SocketAddr;

use http::header::{HeaderMap, LOCATION};

use super::client::Place;
use super::probe_error::ProbeError;
use crate::config::HostPort;

/// Longest path that a redirect may lead to, in bytes: it goes into the heads of redirects.
const MAX_PATH: usize = 1024;

/// Where a redirect of a target leads: another path, perhaps another port, never another host.
pub(super) fn redirected(
    target: &HostPort,
    from: &Place,
    headers: &HeaderMap,
) -> Result<Place, ProbeError> {
    let bad = || ProbeError::BadLocation { path: from.path.clone() };
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let base = url::Url::parse(&from.url()).map_err(|_| bad())?;
    let to = base.join(location.ok_or_else(bad)?).map_err(|_| bad())?;
    let host = to.host().ok_or_else(bad)?.to_string();
    let same = host == target.host() || host.parse() == Ok(from.address.ip());
    if to.path().len() > MAX_PATH {
        return Err(bad());
    }
    // Without its path and query, which may be a grant.
    let origin = || to.origin().ascii_serialization();
    if !same || !matches!(to.scheme(), "http" | "https") {
        return Err(ProbeError::Elsewhere { path: from.path.clone(), to: origin() });
    }
    if to.scheme() != from.scheme.as_str() {
        return Err(ProbeError::OtherScheme { path: from.path.clone(), to: origin() });
    }
    let port = to.port_or_known_default().ok_or_else(bad)?;
    // A query is dropped: where one is needed, it is a grant that ends before the next probe.
    let path = to.path().to_owned();
    Ok(Place {
        scheme: from.scheme,
        address: SocketAddr::new(from.address.ip(), port),
        authority: format!("{host}:{port}"),
        path,
    })
}
