//! HTTP/1.1 by hand, since the origins must be able to get it wrong.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::PATIENCE;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether all of the answer is on its way.
    pub answered: Arc<AtomicBool>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// What becomes of a connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    KeepAlive,
    Close,
    Reset,
}

/// Something that answers requests. It writes to the stream itself.
pub trait Handler: Send + Sync + 'static {
    fn handle(
        &self,
        request: Request,
        stream: &mut TcpStream,
    ) -> impl Future<Output = io::Result<Next>> + Send;
}

/// A listening server that can be stopped and started again on its port.
pub struct Server<H> {
    pub handler: Arc<H>,
    address: SocketAddr,
    task: Mutex<Option<JoinHandle<()>>>,
    /// Connections that were accepted so far.
    accepted: Arc<Mutex<usize>>,
}

impl<H: Handler> Server<H> {
    pub async fn start(handler: H) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let server = Self {
            handler: Arc::new(handler),
            address: listener.local_addr().expect("bound"),
            task: Mutex::new(None),
            accepted: Arc::default(),
        };
        server.accept(listener);
        server
    }

    fn accept(&self, listener: TcpListener) {
        let (handler, accepted) = (Arc::clone(&self.handler), Arc::clone(&self.accepted));
        let task = tokio::spawn(async move {
            // Dropped with the task, and all connections with it.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                *accepted.lock().unwrap() += 1;
                let handler = Arc::clone(&handler);
                connections.spawn(async move {
                    // A peer that leaves is no error of the origin.
                    let _ = serve(&*handler, stream).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        *self.task.lock().unwrap() = Some(task);
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn connections(&self) -> usize {
        *self.accepted.lock().unwrap()
    }

    /// Closes the port and every connection: from now on connecting is refused.
    pub async fn stop(&self) {
        let task = self.task.lock().unwrap().take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
    }

    /// Listens on the same port again.
    pub async fn restart(&self) {
        self.stop().await;
        // Meanwhile the system may have lent the port to somebody's connection.
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let socket = loop {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.set_reuseaddr(true).expect("an option");
            match socket.bind(self.address) {
                Ok(()) => break socket,
                Err(error) => {
                    assert!(tokio::time::Instant::now() < deadline, "the port of before: {error}");
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            }
        };
        self.accept(socket.listen(1024).expect("listening"));
    }
}

async fn serve<H: Handler>(handler: &H, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        let Some(request) = read_request(&mut stream, &mut buffer).await? else { return Ok(()) };
        match handler.handle(request, &mut stream).await? {
            Next::KeepAlive => {}
            Next::Close => return stream.shutdown().await,
            Next::Reset => {
                #[expect(deprecated, reason = "blocks only where there is time to linger")]
                return stream.set_linger(Some(std::time::Duration::ZERO));
            }
        }
    }
}

/// Reads one request; `None` at a clean end.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end);
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let header = |line: &str| {
        line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
    };
    let mut request = Request {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: lines.filter_map(header).collect(),
        body: Vec::new(),
        answered: Arc::default(),
    };
    let length = request.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    request.body = buffer.drain(..length).collect();
    Ok(Some(request))
}

/// A head from its parts; the names go out as they are given.
pub fn head(status: &str, headers: &[(&str, String)]) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status}\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// The headers of a head, for tests that compare them; `date` is left out.
pub fn without_date(head: &str) -> (String, BTreeMap<String, String>) {
    let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
    let status = lines.next().unwrap_or_default().to_owned();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.filter(|(name, _)| !name.eq_ignore_ascii_case("date"));
    (status, headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}
