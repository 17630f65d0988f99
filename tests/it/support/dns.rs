//! A DNS server of a few records, byte for byte (RFC 1035), over UDP and TCP.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub const A: u16 = 1;
pub const AAAA: u16 = 28;
pub const SRV: u16 = 33;

/// How many ports are tried for one that is free for UDP and TCP.
const TRIES: usize = 100;

#[derive(Clone, Copy, Debug)]
pub enum DnsTrouble {
    /// An answer with this code and no records.
    Code(u8),
    /// Bytes that are no message.
    Garbage,
    /// Nothing.
    Silence,
    /// An answer over UDP that is said to be cut, and has nothing.
    Truncated,
}

/// Time to live in seconds, and data.
type Record = (u32, Vec<u8>);

#[derive(Debug, Default)]
pub struct State {
    /// By name in lower case and type.
    pub records: BTreeMap<(String, u16), Vec<Record>>,
    pub trouble: Option<DnsTrouble>,
    /// What was asked for when.
    pub seen: Vec<(String, u16, Instant)>,
    /// Questions that came over TCP.
    pub over_tcp: usize,
}

/// A running server.
pub struct Dns {
    pub state: Arc<Mutex<State>>,
    pub address: SocketAddr,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Dns {
    pub async fn run() -> Self {
        let (udp, tcp) = sockets().await;
        let address = udp.local_addr().expect("bound");
        let server = Self { state: Arc::default(), address, task: Mutex::new(None) };
        server.serve(udp, tcp);
        server
    }

    fn serve(&self, udp: UdpSocket, tcp: TcpListener) {
        let state = Arc::clone(&self.state);
        let task = tokio::spawn(async move {
            let (one, other) = tokio::join!(over_udp(&state, udp), over_tcp(&state, tcp));
            one.and(other).expect("sockets that work");
        });
        *self.task.lock().unwrap() = Some(task);
    }

    /// Closes the port: from now on it is refused.
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
        let udp = UdpSocket::bind(self.address).await.expect("the port of before");
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("an option");
        socket.bind(self.address).expect("the port of before");
        self.serve(udp, socket.listen(16).expect("listening"));
    }

    pub fn trouble(&self, trouble: impl Into<Option<DnsTrouble>>) {
        self.state.lock().unwrap().trouble = trouble.into();
    }

    /// All records of this name and type from now on.
    pub fn set(&self, name: &str, kind: u16, ttl: u32, data: Vec<Vec<u8>>) {
        let records = data.into_iter().map(|data| (ttl, data)).collect();
        self.state.lock().unwrap().records.insert((name.to_owned(), kind), records);
    }
}

async fn sockets() -> (UdpSocket, TcpListener) {
    for _ in 0..TRIES {
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().expect("bound")).await {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both UDP and TCP");
}

pub fn a(address: [u8; 4]) -> Vec<u8> {
    address.to_vec()
}

pub fn aaaa(address: Ipv6Addr) -> Vec<u8> {
    address.octets().to_vec()
}

pub fn srv(port: u16, target: &str) -> Vec<u8> {
    let mut data = vec![0, 1, 0, 1];
    data.extend(port.to_be_bytes());
    for label in target.split('.').filter(|label| !label.is_empty()) {
        data.push(label.len() as u8);
        data.extend(label.as_bytes());
    }
    data.push(0);
    data
}

async fn over_udp(state: &Mutex<State>, socket: UdpSocket) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer).await?;
        if let Some(answer) = answer(state, &buffer[..length], true) {
            // A peer that left is no error of the server.
            let _ = socket.send_to(&answer, peer).await;
        }
    }
}

async fn over_tcp(state: &Mutex<State>, listener: TcpListener) -> io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let _ = one_over_tcp(state, &mut stream).await;
    }
}

async fn one_over_tcp(state: &Mutex<State>, stream: &mut TcpStream) -> io::Result<()> {
    let length = stream.read_u16().await?;
    let mut query = vec![0; length.into()];
    stream.read_exact(&mut query).await?;
    state.lock().unwrap().over_tcp += 1;
    if let Some(answer) = answer(state, &query, false) {
        stream.write_u16(answer.len() as u16).await?;
        stream.write_all(&answer).await?;
    }
    Ok(())
}

/// The answer to a message with one question; `None` for silence.
fn answer(state: &Mutex<State>, query: &[u8], may_be_cut: bool) -> Option<Vec<u8>> {
    let (name, end) = name_at(query, 12)?;
    let kind = u16::from_be_bytes([*query.get(end)?, *query.get(end + 1)?]);
    let question = query.get(12..end + 4)?;
    let mut state = state.lock().unwrap();
    state.seen.push((name.clone(), kind, Instant::now()));
    let known = state.records.keys().any(|(known, _)| *known == name);
    let records = state.records.get(&(name, kind)).cloned().unwrap_or_default();
    let (code, cut, records) = match state.trouble {
        Some(DnsTrouble::Silence) => return None,
        Some(DnsTrouble::Garbage) => return Some(b"this is no message".to_vec()),
        Some(DnsTrouble::Code(code)) => (code, false, Vec::new()),
        Some(DnsTrouble::Truncated) if may_be_cut => (0, true, Vec::new()),
        Some(DnsTrouble::Truncated) | None if known => (0, false, records),
        // NXDOMAIN.
        Some(DnsTrouble::Truncated) | None => (3, false, Vec::new()),
    };
    let mut message = query.get(..2)?.to_vec();
    // An authoritative answer, to a question that wants and gets recursion.
    message.extend([0x85 | if cut { 2 } else { 0 }, 0x80 | code, 0, 1]);
    message.extend((records.len() as u16).to_be_bytes());
    message.extend([0, 0, 0, 0]);
    message.extend(question);
    for (ttl, data) in records {
        // The name is that of the question.
        message.extend([0xc0, 12]);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        message.extend(ttl.to_be_bytes());
        message.extend((data.len() as u16).to_be_bytes());
        message.extend(data);
    }
    Some(message)
}

/// The name that begins at `at`, in lower case and without its last dot, and where it ends.
fn name_at(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        let label = message.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
}
