//! Clients: one download on one connection, every byte compared and thrown away.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use h2::RecvStream;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use http::{HeaderMap, Request};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::archive::{Archive, NAME};

/// Bytes that are read at once over HTTP/1.1.
const BLOCK: usize = 256 << 10;
/// Bytes that may come before any were taken over HTTP/2, as clients of Go have it.
const WINDOW: u32 = 4 << 20;

/// What clients speak.
#[derive(Clone, Copy, Debug)]
pub(super) enum Protocol {
    Http1,
    /// Without TLS, with prior knowledge.
    Http2,
}

/// How much a client takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Speed {
    /// All that comes.
    Full,
    /// So many bytes per second.
    Limited(u32),
}

/// The head of an answer.
pub(super) struct Head {
    pub(super) status: u16,
    headers: HeaderMap,
}

/// A body under way.
enum Body {
    Http1(BufReader<TcpStream>),
    Http2 {
        stream: RecvStream,
        // It is served as long as this is there.
        _connection: JoinSet<()>,
    },
}

/// A download of which the head has come.
pub(super) struct Download {
    pub(super) head: Head,
    body: Body,
    archive: Arc<Archive>,
    at: u32,
}

impl Head {
    /// What the edge says of its cache.
    pub(super) fn cache_status(&self) -> &str {
        self.text(&HeaderName::from_static("cache-status"))
    }

    fn text(&self, name: &HeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Asks for the head of the archive.
pub(super) async fn head(server: SocketAddr) -> Result<Head> {
    Ok(ask_http1("HEAD", server).await?.0)
}

impl Download {
    /// Asks for the archive.
    pub(super) async fn begin(
        protocol: Protocol,
        server: SocketAddr,
        archive: Arc<Archive>,
    ) -> Result<Self> {
        let (head, body) = match protocol {
            Protocol::Http1 => {
                let (head, stream) = ask_http1("GET", server).await?;
                (head, Body::Http1(stream))
            }
            Protocol::Http2 => ask_http2(server).await?,
        };
        ensure!(head.status == 200, "status {}", head.status);
        let length = head.text(&CONTENT_LENGTH);
        ensure!(length == archive.length().to_string(), "a length of `{length}`");
        Ok(Self { head, body, archive, at: 0 })
    }

    /// Takes all of it.
    pub(super) async fn take(mut self, speed: Speed) -> Result<()> {
        let began = Instant::now();
        while self.at < self.archive.length() {
            self.at = self.piece().await.with_context(|| format!("at byte {}", self.at))?;
            if let Speed::Limited(rate) = speed {
                sleep_until((began + Duration::from_secs(1) * self.at / rate).into()).await;
            }
        }
        Ok(())
    }

    /// Takes what is there of it; returns where it goes on.
    async fn piece(&mut self) -> Result<u32> {
        let next = match &mut self.body {
            Body::Http1(stream) => {
                let bytes = stream.fill_buf().await?;
                ensure!(!bytes.is_empty(), "it broke off");
                let (next, count) = (self.archive.compare(self.at, bytes), bytes.len());
                stream.consume(count);
                next
            }
            Body::Http2 { stream, .. } => {
                let bytes = stream.data().await.context("it broke off")??;
                stream.flow_control().release_capacity(bytes.len())?;
                self.archive.compare(self.at, &bytes)
            }
        };
        next.context("other bytes")
    }
}

async fn ask_http1(method: &str, server: SocketAddr) -> Result<(Head, BufReader<TcpStream>)> {
    let mut stream = BufReader::with_capacity(BLOCK, TcpStream::connect(server).await?);
    let request =
        format!("{method} /{NAME} HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let mut head = Head { status: status.context("no HTTP")?, headers: HeaderMap::new() };
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            bail!("it broke off");
        }
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        head.headers.insert(name.parse::<HeaderName>()?, value.parse::<HeaderValue>()?);
    }
    Ok((head, stream))
}

async fn ask_http2(server: SocketAddr) -> Result<(Head, Body)> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
    let (sender, connection) = builder.handshake::<_, bytes::Bytes>(stream).await?;
    let mut task = JoinSet::new();
    task.spawn(async move {
        // What is wrong with it, its streams tell.
        let _ = connection.await;
    });
    let request = Request::get(format!("http://{server}/{NAME}")).body(())?;
    let (answer, _) = sender.ready().await?.send_request(request, true)?;
    let (parts, body) = answer.await?.into_parts();
    let head = Head { status: parts.status.as_u16(), headers: parts.headers };
    Ok((head, Body::Http2 { stream: body, _connection: task }))
}
