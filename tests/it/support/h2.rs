//! Clients that speak HTTP/2 over plain text, with prior knowledge.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use tokio::net::TcpStream;

/// Bytes that a client lets come before it has taken any.
const WINDOW: u32 = 1 << 20;

/// A request of which nothing but the head was taken.
pub struct Begun {
    // Without it the connection would end.
    _sender: SendRequest<Bytes>,
    body: RecvStream,
}

/// Asks, and reads the head.
pub async fn begin(to: SocketAddr, path: &str) -> Begun {
    let stream = TcpStream::connect(to).await.expect("connected");
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
    let (sender, connection) = builder.handshake(stream).await.expect("a handshake");
    tokio::spawn(async move {
        // It ends with the client.
        let _ = connection.await;
    });
    let mut sender = sender.ready().await.expect("ready");
    let request = http::Request::get(format!("http://{to}{path}")).body(()).expect("a request");
    let (response, _) = sender.send_request(request, true).expect("sent");
    let response = response.await.expect("an answer");
    assert_eq!(response.status(), 200);
    Begun { _sender: sender, body: response.into_body() }
}

/// Posts a body; returns status and body of the answer.
pub async fn post(to: SocketAddr, path: &str, body: String, expects: bool) -> (u16, Vec<u8>) {
    let stream = TcpStream::connect(to).await.expect("connected");
    let (sender, connection) = h2::client::handshake(stream).await.expect("a handshake");
    tokio::spawn(async move {
        // It ends with the client.
        let _ = connection.await;
    });
    let mut sender: SendRequest<Bytes> = sender.ready().await.expect("ready");
    let mut request = http::Request::post(format!("http://{to}{path}"));
    if expects {
        request = request.header("expect", "100-continue");
    }
    let request = request.body(()).expect("a request");
    let (response, mut sending) = sender.send_request(request, false).expect("sent");
    sending.send_data(body.into(), true).expect("sent");
    let response = response.await.expect("an answer");
    let (status, mut body, mut taken) = (response.status(), response.into_body(), Vec::new());
    while let Some(piece) = body.data().await {
        let piece = piece.expect("a piece");
        body.flow_control().release_capacity(piece.len()).expect("within the window");
        taken.extend_from_slice(&piece);
    }
    (status.as_u16(), taken)
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
