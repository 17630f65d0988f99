//! What goes wrong at an origin.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::body::Content;
use super::super::server::{Next, Request, head};
use super::{Node, Program, modified, reply};

const PAGE: &str = "<html><body>This is not what you are looking for.</body></html>";

/// What goes wrong with requests for archives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is answered.
    StallBeforeHead,
    /// The connection is closed instead of an answer.
    CloseBeforeHead,
    /// So many bytes of the body, then one now and then for as long as this is the fault, and then
    /// the rest.
    Hold(u64),
    /// So many bytes more than were announced.
    Excess(u64),
    /// Silence after so many bytes of the body.
    StallAfter(u64),
    /// The connection is closed after so many bytes of the body.
    CloseAfter(u64),
    /// The same, and nothing is wrong with later requests.
    CloseOnceAfter(u64),
    /// The connection is closed after so many bytes of the body, and of each part after one byte.
    Crumble(u64),
    /// The connection is reset after so many bytes of the body.
    ResetAfter(u64),
    /// A status without a body.
    Status(u16),
    /// The same to requests for parts alone.
    StatusOfParts(u16),
    /// A status, and the time after which it may be another one.
    Later(u16),
    /// A `content-length` and body that are longer by this.
    Longer(u64),
    /// `transfer-encoding: chunked` and no length.
    Chunked,
    /// No length, the end is where the connection ends.
    CloseDelimited,
    /// A 200 without a byte.
    Empty,
    /// A sentence, with this status.
    Text(u16),
    /// A page, with a 200.
    Html,
    /// A page of exactly the archive's length.
    HtmlOfRightLength,
    /// `content-encoding: gzip`.
    Encoded,
    /// A redirect to this.
    Redirect(String),
    /// A few bytes at a time.
    Drip { bytes: usize, pause: Duration },
    /// Every second request meets a closed connection.
    EverySecond,
    /// Ranges are answered with another part than the asked one.
    WrongRange,
    /// A connection whose peer takes nothing for so long is reset.
    CutSlowReaders(Duration),
    /// A 103 after each such pause, and never anything else.
    Interim(Duration),
}

impl Node {
    pub(super) async fn probe_fault(
        &self,
        request: &Request,
        stream: &mut TcpStream,
    ) -> io::Result<Option<Next>> {
        let name = request.path().rsplit('/').next().unwrap_or_default();
        let fault = self.state.lock().unwrap().probe_fault.clone();
        match fault {
            Some(fault) if self.content(name).is_none() => {
                self.apply(fault, request, Content::new(0, 1000), stream).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    pub(super) async fn archive_fault(
        &self,
        request: &Request,
        content: Content,
        stream: &mut TcpStream,
    ) -> io::Result<Option<Next>> {
        let fault = self.fault_with(request);
        let refused = self.state.lock().unwrap().head_status;
        if let Some(status) = refused.filter(|_| request.method == "HEAD") {
            let fault = Fault::Status(status);
            return self.apply(fault, request, content, stream).await.map(Some);
        }
        // Probes are HEADs; a fault is about what is downloaded.
        match fault.filter(|_| request.method == "GET") {
            Some(Fault::WrongRange | Fault::StatusOfParts(_))
                if request.header("range").is_none() =>
            {
                Ok(None)
            }
            Some(Fault::EverySecond) => {
                let mut state = self.state.lock().unwrap();
                state.turns += 1;
                Ok(state.turns.is_multiple_of(2).then_some(Next::Reset))
            }
            Some(fault) => self.apply(fault, request, content, stream).await.map(Some),
            None => Ok(None),
        }
    }

    /// What goes wrong with this request for an archive.
    fn fault_with(&self, request: &Request) -> Option<Fault> {
        let state = self.state.lock().unwrap();
        if state.bound.is_some_and(|bound| state.transfers > bound) {
            return Some(Fault::Status(503));
        }
        let is_met = state.faulty.as_ref().is_none_or(|name| request.path().ends_with(&**name));
        state.fault.clone().filter(|_| is_met)
    }

    async fn apply(
        &self,
        fault: Fault,
        request: &Request,
        content: Content,
        stream: &mut TcpStream,
    ) -> io::Result<Next> {
        let length = |length: u64| vec![("content-length", length.to_string())];
        match fault {
            Fault::StallBeforeHead => stall(stream).await,
            Fault::CloseBeforeHead => Ok(Next::Close),
            Fault::Hold(bytes) => self.hold(stream, content, bytes).await,
            Fault::Excess(by) => {
                let longer = Content { len: content.len + by, ..content };
                self.send(stream, request, "200 OK", length(content.len), longer, 0).await
            }
            Fault::StallAfter(bytes) => {
                self.begin(stream, content, bytes).await?;
                stall(stream).await
            }
            Fault::CloseAfter(bytes) => {
                self.begin(stream, content, bytes).await.map(|()| Next::Close)
            }
            Fault::CloseOnceAfter(bytes) => {
                self.state.lock().unwrap().fault = None;
                self.begin(stream, content, bytes).await.map(|()| Next::Close)
            }
            Fault::Crumble(bytes) => self.crumb(request, content, bytes, stream).await,
            Fault::ResetAfter(bytes) => {
                self.begin(stream, content, bytes).await.map(|()| Next::Reset)
            }
            Fault::Later(status) => refuse(stream, request, status, Some("1")).await,
            Fault::Status(status) | Fault::StatusOfParts(status) => {
                refuse(stream, request, status, None).await
            }
            Fault::Longer(by) => {
                let longer = Content { len: content.len + by, ..content };
                self.send(stream, request, "200 OK", length(longer.len), longer, 0).await
            }
            Fault::EverySecond => Ok(Next::Reset),
            other => self.answer_wrongly(other, request, content, stream).await,
        }
    }

    /// Answers that are whole, and no archive or not as one comes; and slow ones.
    async fn answer_wrongly(
        &self,
        fault: Fault,
        request: &Request,
        content: Content,
        stream: &mut TcpStream,
    ) -> io::Result<Next> {
        let length = |length: u64| vec![("content-length", length.to_string())];
        let html = ("content-type", "text/html; charset=utf-8".to_owned());
        match fault {
            Fault::Chunked => chunked(stream, &content.all()).await,
            Fault::CloseDelimited => {
                stream.write_all(&head("200 OK", &[("connection", "close".to_owned())])).await?;
                stream.write_all(&content.all()).await?;
                Ok(Next::Close)
            }
            Fault::Empty => reply(stream, request, "200 OK", &length(0), b"").await,
            Fault::Text(status) => text(stream, request, status).await,
            Fault::Html => {
                let headers = [length(PAGE.len() as u64).remove(0), html];
                reply(stream, request, "200 OK", &headers, PAGE.as_bytes()).await
            }
            Fault::HtmlOfRightLength => {
                let headers = vec![length(content.len).remove(0), html];
                self.send(stream, request, "200 OK", headers, content, 0).await
            }
            Fault::Encoded => {
                let mut headers = length(content.len);
                headers.push(("content-encoding", "gzip".to_owned()));
                self.send(stream, request, "200 OK", headers, content, 0).await
            }
            Fault::Redirect(to) => {
                let headers = [("location", to), length(0).remove(0)];
                reply(stream, request, "302 Found", &headers, b"").await
            }
            Fault::Drip { bytes, pause } => {
                stream.write_all(&head("200 OK", &length(content.len))).await?;
                for block in content.all().chunks(bytes) {
                    stream.write_all(block).await?;
                    tokio::time::sleep(pause).await;
                }
                Ok(Next::KeepAlive)
            }
            Fault::CutSlowReaders(patience) => {
                stream.write_all(&head("200 OK", &length(content.len))).await?;
                for start in (0..content.len).step_by(1 << 16) {
                    let block = content.bytes(start, (start + (1 << 16)).min(content.len));
                    let written = tokio::time::timeout(patience, stream.write_all(&block)).await;
                    if written.is_err() {
                        return Ok(Next::Reset);
                    }
                }
                Ok(Next::KeepAlive)
            }
            Fault::Interim(pause) => loop {
                stream.write_all(&head("103 Early Hints", &[("link", "x".to_owned())])).await?;
                tokio::time::sleep(pause).await;
            },
            Fault::WrongRange => {
                let place = ("content-range", format!("bytes 0-9/{}", content.len));
                let headers = [place, length(10).remove(0)];
                let body = content.bytes(0, 10);
                reply(stream, request, "206 Partial Content", &headers, &body).await
            }
            other => unreachable!("{other:?} is no answer"),
        }
    }

    /// The head of the whole archive, and so many of its bytes.
    async fn begin(&self, stream: &mut TcpStream, content: Content, bytes: u64) -> io::Result<()> {
        let mut headers = vec![("content-length", content.len.to_string())];
        if self.program == Program::Sidecar {
            headers.push(("accept-ranges", "bytes".to_owned()));
            headers.push(("last-modified", httpdate::fmt_http_date(modified())));
        }
        stream.write_all(&head("200 OK", &headers)).await?;
        stream.write_all(&content.bytes(0, bytes)).await?;
        self.state.lock().unwrap().sent += bytes;
        stream.flush().await
    }

    /// So many bytes of all of it, or the head of the rest that is asked for and one byte of that.
    async fn crumb(
        &self,
        request: &Request,
        content: Content,
        bytes: u64,
        stream: &mut TcpStream,
    ) -> io::Result<Next> {
        if request.header("range").is_none() {
            return self.begin(stream, content, bytes).await.map(|()| Next::Close);
        }
        let start = request.header("range").and_then(|value| value.strip_prefix("bytes="));
        let start: u64 =
            start.and_then(|value| value.strip_suffix('-')?.parse().ok()).expect("a rest");
        let headers = [
            ("content-length", (content.len - start).to_string()),
            ("content-range", format!("bytes {start}-{}/{}", content.len - 1, content.len)),
            ("last-modified", httpdate::fmt_http_date(modified())),
        ];
        stream.write_all(&head("206 Partial Content", &headers)).await?;
        stream.write_all(&content.bytes(start, start + 1)).await?;
        Ok(Next::Close)
    }

    /// The byte now and then is no silence, so that nobody gives the transfer up meanwhile.
    async fn hold(&self, stream: &mut TcpStream, content: Content, bytes: u64) -> io::Result<Next> {
        self.begin(stream, content, bytes).await?;
        let mut at = bytes;
        while self.state.lock().unwrap().fault == Some(Fault::Hold(bytes)) {
            assert!(at + 1 < content.len, "there is nothing left to hold back");
            stream.write_all(&content.bytes(at, at + 1)).await?;
            at += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stream.write_all(&content.bytes(at, content.len)).await?;
        Ok(Next::KeepAlive)
    }
}

/// A status without a body, and after how many seconds it may be another one.
async fn refuse(
    stream: &mut TcpStream,
    request: &Request,
    status: u16,
    later: Option<&str>,
) -> io::Result<Next> {
    let mut headers = vec![("content-length", "0".to_owned())];
    headers.extend(later.map(|seconds| ("retry-after", seconds.to_owned())));
    reply(stream, request, &format!("{status} Fault"), &headers, b"").await
}

/// Silence until the peer gives up.
async fn stall(stream: &mut TcpStream) -> io::Result<Next> {
    while stream.read(&mut [0; 1024]).await? > 0 {}
    Ok(Next::Close)
}

/// A sentence instead of an archive.
async fn text(stream: &mut TcpStream, request: &Request, status: u16) -> io::Result<Next> {
    let body = "no snapshot available";
    let headers = [
        ("content-type", "text/plain; charset=utf-8".to_owned()),
        ("content-length", body.len().to_string()),
    ];
    reply(stream, request, &format!("{status} Fault"), &headers, body.as_bytes()).await
}

/// A body that has no length.
async fn chunked(stream: &mut TcpStream, body: &[u8]) -> io::Result<Next> {
    let coding = ("transfer-encoding", "chunked".to_owned());
    stream.write_all(&head("200 OK", &[coding])).await?;
    stream.write_all(format!("{:x}\r\n", body.len()).as_bytes()).await?;
    stream.write_all(body).await?;
    stream.write_all(b"\r\n0\r\n\r\n").await?;
    Ok(Next::KeepAlive)
}
