//! A complete answer that is made here and not upstream.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use http::status::StatusCode;

/// Status, headers and body. `content-length` and `date` are added where it is written, and the
/// body is left out where the request was a HEAD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// Headers; names are sent in lower case.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// A status without a body.
    pub const fn empty(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    /// A line of text.
    pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Self {
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        Self { status, headers: vec![(CONTENT_TYPE, plain)], body: body.into() }
    }

    /// A JSON document.
    pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Self {
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        Self { status, headers: vec![(CONTENT_TYPE, json)], body: body.into() }
    }

    /// A redirect whose body repeats its target, as Agave writes it.
    ///
    /// A location that cannot be a header's value is a 500: it is made from validated parts.
    pub fn redirect(status: StatusCode, location: &str) -> Self {
        match HeaderValue::from_str(location) {
            Ok(value) => Self {
                status,
                headers: vec![(LOCATION, value)],
                body: Bytes::copy_from_slice(location.as_bytes()),
            },
            Err(_) => Self::empty(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    /// The reply with one more header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}
