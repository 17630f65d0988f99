//! What targets are asked with.

use http::Method;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONNECTION, HOST, RANGE, USER_AGENT};
use pingora::http::RequestHeader;

use crate::index::Location;
use crate::route::RangeRequest;

/// The head of a request to a target, made here and from nothing that a client sent.
pub(super) fn request(
    location: &Location,
    method: Method,
    range: &RangeRequest,
) -> pingora::Result<RequestHeader> {
    let mut head = RequestHeader::build(method, location.path.as_bytes(), Some(10))?;
    head.insert_header(HOST, location.authority.as_bytes())?;
    head.insert_header(USER_AGENT, concat!("snapedge/", env!("CARGO_PKG_VERSION")))?;
    head.insert_header(ACCEPT, "*/*")?;
    head.insert_header(ACCEPT_ENCODING, "identity")?;
    // A connection for each transfer: next to an archive it costs nothing, and no answer can be
    // taken for that to another request.
    head.insert_header(CONNECTION, "close")?;
    if let Some(range) = range.to_header() {
        head.insert_header(RANGE, range)?;
    }
    Ok(head)
}
