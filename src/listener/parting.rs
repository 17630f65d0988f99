//! The end of a connection from this side: last words, and time for the client to read them.
//!
//! A socket that is closed while something of the client is unread is reset, and what was sent last
//! may be lost by that. So only the writing side is closed, and what the client still sends is read
//! and thrown away, up to a bound.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes of a client that are thrown away.
const MOST_THROWN: usize = 1 << 20;
/// Bytes that are read at once of those.
const PIECE: usize = 4 << 10;

/// How far it is.
#[derive(Debug)]
pub(super) struct Parting {
    words: Vec<u8>,
    written: usize,
    step: Step,
    thrown: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Write,
    Shut,
    Throw,
}

impl Parting {
    /// With these last words.
    pub(super) fn new(words: Vec<u8>) -> Self {
        Self { words, written: 0, step: Step::Write, thrown: 0 }
    }

    /// Goes on with it; ready once nothing is left to do. What fails means that nobody is left.
    pub(super) fn poll<S>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            match self.step {
                Step::Write => match self.words.get(self.written..) {
                    None | Some([]) => self.step = Step::Shut,
                    Some(rest) => match ready!(Pin::new(&mut *stream).poll_write(cx, rest)) {
                        Ok(0) | Err(_) => return Poll::Ready(()),
                        Ok(bytes) => self.written += bytes,
                    },
                },
                Step::Shut => {
                    // It flushes what was written.
                    if ready!(Pin::new(&mut *stream).poll_shutdown(cx)).is_err() {
                        return Poll::Ready(());
                    }
                    self.step = Step::Throw;
                }
                Step::Throw => {
                    let mut bytes = [0; PIECE];
                    let mut piece = ReadBuf::new(&mut bytes);
                    let read = ready!(Pin::new(&mut *stream).poll_read(cx, &mut piece));
                    self.thrown += piece.filled().len();
                    let is_over = piece.filled().is_empty() || self.thrown > MOST_THROWN;
                    if read.is_err() || is_over {
                        return Poll::Ready(());
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    async fn part(mut stream: DuplexStream, words: &[u8]) -> usize {
        let mut parting = Parting::new(words.to_vec());
        std::future::poll_fn(|cx| parting.poll(&mut stream, cx)).await;
        parting.thrown
    }

    #[tokio::test]
    async fn last_words_can_be_read_by_who_goes_on_to_send() {
        for sent in [0, 1, 100_000] {
            let (mut client, server) = duplex(1000);
            let talk = async {
                // The other side may have gone by then.
                let _ = client.write_all(&vec![0; sent]).await;
                let mut words = Vec::new();
                client.read_to_end(&mut words).await.expect("words");
                drop(client);
                words
            };
            let (words, thrown) = tokio::join!(talk, part(server, &[7; 300]));
            assert_eq!((words.len(), thrown), (300, sent));
        }
    }

    #[tokio::test]
    async fn who_sends_without_end_is_not_listened_to_for_ever() {
        let (mut client, server) = duplex(64 << 10);
        let flood = async { while client.write_all(&[0; 10_000]).await.is_ok() {} };
        let ((), thrown) = tokio::join!(flood, part(server, b"x"));
        assert!((MOST_THROWN..MOST_THROWN + 2 * PIECE).contains(&thrown), "{thrown}");
    }

    #[tokio::test]
    async fn nobody_is_waited_for_who_is_gone() {
        let (client, server) = duplex(10);
        drop(client);
        assert_eq!(part(server, b"longer than that").await, 0);
    }
}
