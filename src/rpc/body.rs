//! The bodies of requests for a node: read in bounded time, and in bounded memory while they come.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Version;
use http::header::{CONTENT_LENGTH, EXPECT, HeaderValue};
use pingora::http::RequestHeader;
use pingora_proxy::Session;
use tokio::time::timeout;

use super::fair_share::FairSemaphore;
use crate::route::RpcError;

/// Bytes of a body for which there is always room while it comes: the connections that are allowed
/// bound how many there are.
const SMALL_BODY: usize = 4 << 10;
/// Room for what comes of larger bodies, in all and for one client: in KiB.
const ROOM: (u32, u32) = (64 << 10, 2 << 10);
/// Bytes of a body that is too large which are read all the same: a client that is not heard to its
/// end may not hear the answer either.
const MAX_DISCARDED: usize = 1 << 20;

/// The bounds that all bodies are read within.
pub(super) struct Bodies {
    /// In KiB.
    room: Arc<FairSemaphore>,
}

impl Default for Bodies {
    fn default() -> Self {
        Self { room: FairSemaphore::new(ROOM.0, ROOM.1) }
    }
}

impl Bodies {
    /// Reads the body of a request, of at most so many bytes, all of which come within `patience`.
    /// What is not read to its end ends the connection.
    pub(super) async fn read(
        &self,
        session: &mut Session,
        client: IpAddr,
        most: usize,
        patience: Duration,
    ) -> Result<Bytes, RpcError> {
        let head = session.req_header();
        let length = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let length = length.and_then(|value| value.parse().ok()).unwrap_or(0_usize);
        let waits = waits_for_leave(head);
        if length > most && (waits || length - most > MAX_DISCARDED) {
            return Err(RpcError::Body);
        }
        let downstream = session.as_downstream_mut();
        let read = async {
            if waits {
                downstream.write_continue_response().await.map_err(|_| RpcError::Broken)?;
            }
            let (mut body, mut discarded, mut room) = (BytesMut::new(), 0, None);
            while let Some(piece) =
                downstream.read_request_body().await.map_err(|_| RpcError::Broken)?
            {
                if discarded > 0 || body.len() + piece.len() > most {
                    discarded += piece.len();
                } else {
                    if room.is_none() && body.len() + piece.len() > SMALL_BODY {
                        let kib = u32::try_from(most.div_ceil(1 << 10)).unwrap_or(u32::MAX);
                        room = self.room.take(client, kib).await;
                    }
                    body.extend_from_slice(&piece);
                }
                if discarded > MAX_DISCARDED {
                    break;
                }
            }
            if discarded > 0 { Err(RpcError::Body) } else { Ok(body.freeze()) }
        };
        let body = timeout(patience, read).await.unwrap_or(Err(RpcError::Late));
        if body == Err(RpcError::Broken) {
            // Nobody knows where it ends, so nothing after it is a request.
            session.set_keepalive(None);
        }
        body
    }
}

/// Whether a client sends its body only once it is told to (RFC 9110, 10.1.1). One of HTTP/1.0
/// would not understand that.
fn waits_for_leave(head: &RequestHeader) -> bool {
    let expected = head.headers.get(EXPECT).map(HeaderValue::as_bytes);
    head.version > Version::HTTP_10
        && expected.is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"))
}
