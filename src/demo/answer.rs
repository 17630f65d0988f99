//! What an origin answers, and how that is sent.

use bytes::BytesMut;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use http::{Method, StatusCode};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::{Error, ErrorType, OrErr, Result};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, SeekFrom};

use crate::route::ByteRange;

/// Bytes of an archive that are read and written at once.
const CHUNK: usize = 256 << 10;

/// What a request is answered with. The body tells the `content-length`, and a HEAD goes without.
pub(super) struct Answer {
    status: StatusCode,
    headers: Vec<(HeaderName, String)>,
    body: Body,
}

enum Body {
    Text(String),
    /// A part of a file, or all of it.
    File(File, ByteRange),
}

impl Answer {
    /// A short answer.
    pub(super) fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, headers: Vec::new(), body: Body::Text(body.into()) }
    }

    /// Bytes of an archive.
    pub(super) fn file(status: StatusCode, file: File, range: ByteRange) -> Self {
        Self { status, headers: Vec::new(), body: Body::File(file, range) }
    }

    /// The answer with one header more.
    pub(super) fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The answer as plain text.
    pub(super) fn plain(self) -> Self {
        self.with(CONTENT_TYPE, "text/plain; charset=utf-8")
    }

    /// Sends the answer as the response to the request that was read.
    pub(super) async fn write(self, http: &mut ServerSession) -> Result<()> {
        let length = match &self.body {
            Body::Text(text) => text.len() as u64,
            Body::File(_, range) => range.len(),
        };
        let mut head = ResponseHeader::build(self.status, Some(self.headers.len() + 3))?;
        for (name, value) in self.headers {
            head.insert_header(name, value)?;
        }
        head.insert_header(CONTENT_LENGTH, length.to_string())?;
        http.write_response_header(Box::new(head)).await?;
        if http.req_header().method == Method::HEAD {
            return Ok(());
        }
        match self.body {
            Body::Text(text) => http.write_response_body(text.into(), true).await,
            Body::File(file, range) => write_file(http, file, range).await,
        }
    }
}

/// Sends a part of a file. A file that is shorter than it should be is an error, on which the
/// connection is closed, so that the client does not take what it got for all of it.
async fn write_file(http: &mut ServerSession, mut file: File, range: ByteRange) -> Result<()> {
    let unreadable = || "cannot read an archive";
    file.seek(SeekFrom::Start(range.start()))
        .await
        .or_err_with(ErrorType::FileReadError, unreadable)?;
    let mut part = file.take(range.len());
    while part.limit() > 0 {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        let read = part.read_buf(&mut chunk).await;
        if read.or_err_with(ErrorType::FileReadError, unreadable)? == 0 {
            return Error::e_explain(ErrorType::FileReadError, "an archive is too short");
        }
        http.write_response_body(chunk.freeze(), false).await?;
    }
    Ok(())
}
