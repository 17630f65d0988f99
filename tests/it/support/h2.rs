//! Clients that speak HTTP/2 over plain text, with prior knowledge.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::client::{Answer, Ask, Ended, connect};

/// Bytes that a client lets come before it has taken any.
const WINDOW: u32 = 1 << 20;

/// A request of which nothing but the head was taken.
pub struct Begun {
    // Without it the connection would end.
    _sender: SendRequest<Bytes>,
    body: RecvStream,
}

/// Asks on a connection by windows of so many bytes, and reads the head. It lasts as long as its
/// sender, or what comes of the body.
async fn ask_on(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    window: u32,
    url: String,
) -> (SendRequest<Bytes>, RecvStream) {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window).initial_connection_window_size(window);
    let (sender, connection) = builder.handshake(stream).await.expect("a handshake");
    tokio::spawn(async move {
        // It ends with the client.
        let _ = connection.await;
    });
    let mut sender = sender.ready().await.expect("ready");
    let request = http::Request::get(url).body(()).expect("a request");
    let (response, _) = sender.send_request(request, true).expect("sent");
    let response = response.await.expect("an answer");
    assert_eq!(response.status(), 200);
    (sender, response.into_body())
}

/// Asks, and reads the head.
pub async fn begin(to: SocketAddr, path: &str) -> Begun {
    let stream = TcpStream::connect(to).await.expect("connected");
    let (sender, body) = ask_on(stream, WINDOW, format!("http://{to}{path}")).await;
    Begun { _sender: sender, body }
}

/// Takes all of an answer on a connection that is there already.
pub async fn get_on(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    url: String,
) -> (Vec<u8>, Ended) {
    let (_sender, body) = ask_on(stream, WINDOW, url).await;
    collect(body, usize::MAX).await
}

/// Takes all of an archive at this rate, through windows that hold more than the systems do.
pub async fn get_slowly(to: SocketAddr, path: &str, rate: u64) -> (Vec<u8>, Ended) {
    let stream = TcpStream::connect(to).await.expect("connected");
    let stream = Slow { stream, rate, until: None };
    let (_sender, body) = ask_on(stream, 16 << 20, format!("http://{to}{path}")).await;
    collect(body, usize::MAX).await
}

/// A connection that is read at a rate.
struct Slow {
    stream: TcpStream,
    rate: u64,
    until: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for Slow {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(until) = &mut self.until {
            ready!(until.as_mut().poll(cx));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let bytes = (buf.filled().len() - before) as u64;
        let time = Duration::from_micros(bytes * 1_000_000 / self.rate);
        self.until = Some(Box::pin(tokio::time::sleep(time)));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Slow {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Sends a request and takes all of the answer. Its `head` is empty: there is none as text.
pub async fn send(ask: Ask, to: SocketAddr) -> Answer {
    let (sender, connection) =
        h2::client::handshake(connect(ask.from, to).await).await.expect("a handshake");
    tokio::spawn(async move {
        // It ends with the client.
        let _ = connection.await;
    });
    let mut sender: SendRequest<Bytes> = sender.ready().await.expect("ready");
    let mut request = http::Request::builder().method(ask.method);
    for (name, value) in &ask.headers {
        request = request.header(name, value);
    }
    let request = request.uri(format!("http://{to}{}", ask.path)).body(()).expect("a request");
    let (response, mut sending) = sender.send_request(request, ask.body.is_empty()).expect("sent");
    if !ask.body.is_empty() {
        sending.send_data(ask.body.into(), true).expect("sent");
    }
    let (parts, body) = response.await.expect("an answer").into_parts();
    let (body, ended) = collect(body, ask.leave_after.unwrap_or(usize::MAX)).await;
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in &parts.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers
            .entry(name.to_string())
            .and_modify(|all| *all += &format!(", {value}"))
            .or_insert(value);
    }
    Answer { status: parts.status.as_u16(), head: String::new(), headers, body, ended }
}

async fn collect(mut body: RecvStream, most: usize) -> (Vec<u8>, Ended) {
    let mut taken = Vec::new();
    while let Some(piece) = body.data().await {
        let Ok(piece) = piece else { return (taken, Ended::Short) };
        body.flow_control().release_capacity(piece.len()).expect("within the window");
        taken.extend_from_slice(&piece);
        if taken.len() >= most {
            return (taken, Ended::Left);
        }
    }
    (taken, Ended::Whole)
}

/// Takes all of it; returns how many bytes that were.
pub async fn get(to: SocketAddr, path: &str) -> u64 {
    begin(to, path).await.take().await
}

impl Begun {
    /// Takes all of it; returns how many bytes that were.
    pub async fn take(mut self) -> u64 {
        let mut taken = 0;
        while let Some(piece) = self.body.data().await {
            let piece = piece.expect("a piece");
            taken += piece.len() as u64;
            self.body.flow_control().release_capacity(piece.len()).expect("within the window");
        }
        taken
    }
}
