//! A client that shows exactly what came over the wire.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::PATIENCE;

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With the last byte that was announced.
    Whole,
    /// With the connection, before that.
    Short,
    /// The client stopped reading.
    Left,
}

/// An answer, byte for byte.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// The head as it came, the empty line included.
    pub head: String,
    /// By name in lower case; `head` shows in which case it came.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    pub ended: Ended,
}

impl Answer {
    /// A header by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub fn length(&self) -> u64 {
        self.header("content-length").and_then(|value| value.parse().ok()).expect("a length")
    }
}

/// A request to be made.
#[derive(Clone, Debug)]
pub struct Ask {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) from: IpAddr,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) leave_after: Option<usize>,
}

impl Ask {
    pub fn get(path: impl Into<String>) -> Self {
        Self::method("GET", path)
    }

    pub fn head(path: impl Into<String>) -> Self {
        Self::method("HEAD", path)
    }

    pub fn method(method: &'static str, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            from: IpAddr::V4(Ipv4Addr::LOCALHOST),
            headers: Vec::new(),
            body: Vec::new(),
            leave_after: None,
        }
    }

    /// What is asked for.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// From the address 127.0.1.`number`.
    pub fn from(mut self, number: u8) -> Self {
        self.from = IpAddr::V4(Ipv4Addr::new(127, 0, 1, number));
        self
    }

    /// From this address, of all of 127/8.
    pub fn sent_from(mut self, address: impl Into<IpAddr>) -> Self {
        self.from = address.into();
        self
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// A POST with a body of JSON.
    pub fn post(path: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let ask = Self::method("POST", path).with("content-type", "application/json");
        let ask = ask.with("content-length", body.len().to_string());
        Self { body, ..ask }
    }

    /// Closes the connection once so many bytes of the body are there.
    pub fn leave_after(mut self, bytes: usize) -> Self {
        self.leave_after = Some(bytes);
        self
    }

    pub async fn send(self, to: SocketAddr) -> Answer {
        let mut body = Vec::new();
        let leave_after = self.leave_after;
        let (mut answer, mut stream) = self.begin(to).await;
        body.append(&mut answer.body);
        let expected = expected_length(&answer);
        let done = tokio::time::timeout(PATIENCE, async {
            loop {
                if expected == Some(body.len() as u64) {
                    return Ended::Whole;
                }
                if leave_after.is_some_and(|bytes| body.len() >= bytes) {
                    return Ended::Left;
                }
                // No more than that: what it has read, it has.
                let most = leave_after.map_or(u64::MAX, |bytes| (bytes - body.len()) as u64);
                match (&mut stream).take(most).read_buf(&mut body).await {
                    Ok(0) if expected.is_none() => return Ended::Whole,
                    Ok(0) | Err(_) => return Ended::Short,
                    Ok(_) => {}
                }
            }
        });
        answer.ended = done.await.expect("an answer in time");
        answer.body = body;
        answer
    }

    /// Sends the request and reads the head; what came of the body is in the answer.
    pub async fn begin(&self, to: SocketAddr) -> (Answer, TcpStream) {
        let mut request = format!("{} {} HTTP/1.1\r\nhost: {to}\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        let mut stream = connect(self.from, to).await;
        stream.write_all(request.as_bytes()).await.expect("a request");
        // Who answers early may have closed the connection before all of it is written.
        let _ = stream.write_all(&self.body).await;
        let answer = read_head(&mut stream, self.method == "HEAD").await;
        (answer, stream)
    }
}

pub async fn connect(from: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    // A port that is bound before the peer is known is taken from everybody, also for the minute
    // that a closed connection lingers: a suite of many short connections runs out of them.
    if from != Ipv4Addr::LOCALHOST {
        socket.set_reuseaddr(true).expect("an option");
        socket.bind(SocketAddr::new(from, 0)).expect("a local address");
    }
    tokio::time::timeout(PATIENCE, socket.connect(to)).await.expect("in time").expect("connected")
}

/// Sends bytes as they are, and then no more, and reads until the connection ends.
pub async fn raw(to: SocketAddr, request: &[u8]) -> Vec<u8> {
    exchange(to, request, true).await
}

/// Sends a request that asks for the connection to be closed after its answer.
pub async fn last(to: SocketAddr, request: &[u8]) -> Vec<u8> {
    exchange(to, request, false).await
}

async fn exchange(to: SocketAddr, request: &[u8], shut: bool) -> Vec<u8> {
    let mut stream = connect(IpAddr::V4(Ipv4Addr::LOCALHOST), to).await;
    // The server may have answered and closed before it has read everything.
    let _ = stream.write_all(request).await;
    if shut {
        let _ = stream.shutdown().await;
    }
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer));
    let _ = read.await.expect("the connection ends in time");
    answer
}

/// Reads a head from a stream.
pub async fn read_head(stream: &mut TcpStream, no_body: bool) -> Answer {
    let mut buffer = Vec::new();
    let end = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                return at + 4;
            }
            let count = stream.read_buf(&mut buffer).await.expect("readable");
            assert!(count > 0, "no head: {:?}", String::from_utf8_lossy(&buffer));
        }
    });
    let end = end.await.expect("a head in time");
    let body = buffer.split_off(end);
    let mut answer = parse_head(String::from_utf8(buffer).expect("a head of text"));
    if no_body {
        assert!(body.is_empty(), "a body after {}", answer.head);
        answer.headers.insert(NO_BODY.to_owned(), String::new());
    }
    answer.body = body;
    answer
}

/// Marks answers to HEAD in `headers`, under a name that no header can have.
const NO_BODY: &str = " ";

fn expected_length(answer: &Answer) -> Option<u64> {
    if answer.headers.contains_key(NO_BODY) {
        return Some(0);
    }
    answer.header("content-length").and_then(|value| value.parse().ok())
}

fn parse_head(head: String) -> Answer {
    let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
    let status_line = lines.next().expect("a status line");
    let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.expect("a status");
    let headers = lines
        .map(|line| line.split_once(": ").unwrap_or((line, "")))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Answer { status, head, headers, body: Vec::new(), ended: Ended::Whole }
}

/// An answer whose connection has ended; nothing where there is no head.
pub fn answer_of(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let mut answer = parse_head(String::from_utf8(bytes[..end].to_vec()).ok()?);
    answer.body = bytes[end..].to_vec();
    let expected = expected_length(&answer);
    let is_whole = expected.is_none_or(|length| length == answer.body.len() as u64);
    answer.ended = if is_whole { Ended::Whole } else { Ended::Short };
    Some(answer)
}
