//! The stream of a connection that is looked after: it tells what it reads and writes, and ends
//! when the client is left. It decides nothing.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::StatusCode;
use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    Stream, TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::{Connection, Waiting};
use super::parting::Parting;
use super::speech::{Protocols, Speech, Unruly};
use super::watch::Why;

/// Bytes of a client that are passed over at the end.
const MOST_PASSED_OVER: usize = 1 << 20;

/// A stream of Pingora, looked after.
#[derive(Debug)]
pub(super) struct Watched {
    stream: Stream,
    connection: Arc<Connection>,
    /// There while the client takes nothing of what is to be written.
    waiting: Option<Waiting>,
    speech: Speech,
    /// There once the client is told why it is left.
    parting: Option<Parting>,
    /// There once nothing more is written: bytes that came since.
    passed_over: Option<usize>,
    /// How requests find the connection. Pingora carries it along to each of them, for HTTP/1 and
    /// HTTP/2 alike, and does nothing else with it on this side.
    digest: Option<Arc<ProxyDigest>>,
}

impl Watched {
    pub(super) fn new(stream: Stream, connection: Arc<Connection>, protocols: Protocols) -> Self {
        let found: Box<dyn Any + Send + Sync> = Box::new(Arc::clone(&connection));
        let head = ResponseHeader::build(StatusCode::OK, Some(0)).ok();
        let digest = head.map(|head| Arc::new(ProxyDigest::new(Box::new(head), Some(found))));
        let speech = Speech::new(protocols, &connection.heads);
        Self { stream, connection, waiting: None, speech, parting: None, passed_over: None, digest }
    }

    fn check(&self) -> io::Result<()> {
        if self.connection.is_cut() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes too little"));
        }
        Ok(())
    }

    /// Notes whether the client is waited for.
    fn note<T>(&mut self, outcome: Poll<T>) -> Poll<T> {
        if outcome.is_ready() {
            self.waiting = None;
        } else {
            self.waiting.get_or_insert_with(|| Waiting::new(&self.connection));
        }
        outcome
    }

    fn note_written(
        &mut self,
        outcome: Poll<io::Result<usize>>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = outcome {
            self.connection.wrote(bytes);
            let mut left = bytes;
            for buf in bufs {
                let (written, _) = buf.split_at(left.min(buf.len()));
                self.speech.answer(written);
                left -= written.len();
            }
        }
        self.note(outcome)
    }

    /// Waits for the client to end a connection on which everything was said.
    ///
    /// Closed with something unread, as the windows are that a client of HTTP/2 opens while it
    /// takes the last bytes, it would be reset, and these lost with it. How long the client may
    /// take is watched as ever.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scratch = [0; 1024];
        loop {
            let mut buf = ReadBuf::new(&mut scratch);
            let outcome = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf));
            let passed_over = self.passed_over.get_or_insert_default();
            *passed_over += buf.filled().len();
            let is_over = buf.filled().is_empty() || *passed_over > MOST_PASSED_OVER;
            if outcome.is_err() || is_over {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Begins to tell the client why it is left.
    fn part(&mut self, unruly: Unruly, now: Instant) {
        self.parting = Some(Parting::new(self.speech.last_words(unruly)));
        self.connection.part(unruly, now);
    }

    /// Goes on with that. Whoever reads here waits until the connection is ended.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(parting) = &mut self.parting
            && parting.poll(&mut self.stream, cx).is_ready()
        {
            self.connection.end(Why::Unruly);
        }
        Poll::Pending
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.connection.close();
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check()?;
        if self.parting.is_some() {
            return self.poll_part(cx);
        }
        let (before, has_room) = (buf.filled().len(), buf.remaining() > 0);
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
        match &outcome {
            Poll::Ready(Ok(())) if has_room && buf.filled().len() == before => {
                self.connection.finish();
            }
            // Many clients of TLS end so when they have everything.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.connection.finish();
            }
            Poll::Ready(Err(_)) => self.connection.broke(),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        let (_, bytes) = buf.filled().split_at(before);
        if bytes.is_empty() {
            let has_ended = matches!(outcome, Poll::Ready(Ok(()))) && buf.remaining() > 0;
            // Whoever reads again, now and then or after the answer, finds it again.
            let waits = has_ended && self.connection.listens(Instant::now());
            return if waits { Poll::Pending } else { outcome };
        }
        let (now, sent) = (Instant::now(), self.connection.written());
        let heard = self.connection.hear(bytes.len(), now);
        match self.speech.listen(bytes, heard, sent, now) {
            Ok(()) => outcome,
            Err(unruly) => {
                buf.set_filled(before);
                self.part(unruly, now);
                self.poll_part(cx)
            }
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        if self.parting.is_some() {
            // After the last words nothing is said.
            return Poll::Ready(Ok(buf.len()));
        }
        self.connection.sends(buf);
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note_written(outcome, &[io::IoSlice::new(buf)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        if self.parting.is_some() {
            return Poll::Ready(Ok(()));
        }
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.note(outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        if self.parting.is_some() {
            return Poll::Ready(Ok(()));
        }
        if self.passed_over.is_none() {
            self.connection.finish();
            let outcome = Pin::new(&mut self.stream).poll_shutdown(cx);
            ready!(self.note(outcome))?;
            self.passed_over = Some(0);
        }
        // Requests of HTTP/1 are not over before the end of their connection is.
        if self.speech.is_multiplexed() { self.poll_end(cx) } else { Poll::Ready(Ok(())) }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        if self.parting.is_some() {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        self.connection.sends(bufs.first().map_or(&[][..], |buf| &buf[..]));
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note_written(outcome, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for Watched {
    async fn shutdown(&mut self) {
        // By our own writing side, so that it is bounded like all writing.
        let _ = std::future::poll_fn(|cx| Pin::new(&mut *self).poll_shutdown(cx)).await;
    }
}

#[async_trait]
impl Peek for Watched {
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        self.stream.try_peek(buf).await
    }
}

impl UniqueID for Watched {
    fn id(&self) -> UniqueIDType {
        self.stream.id()
    }
}

impl Ssl for Watched {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.stream.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.stream.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.stream.selected_alpn_proto()
    }
}

impl GetTimingDigest for Watched {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.stream.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.stream.get_write_pending_time()
    }
}

impl GetProxyDigest for Watched {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.digest.clone()
    }
}

impl GetSocketDigest for Watched {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_socket_digest()
    }
}
