//! The source of the archive: as much of an Agave node's RPC port as the edge needs to find one.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::archive::{Archive, NAME};

/// How far an origin that was kept waiting may catch up: about what sockets hold. With more, a
/// fetch that was held up would not show.
const CATCH_UP: Duration = Duration::from_millis(20);

type Stream = BufStream<TcpStream>;

/// A running origin. It ends when it is dropped.
pub(super) struct Origin {
    address: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

struct State {
    archive: Arc<Archive>,
    /// Bytes per second to each client, as many as it takes without.
    rate: Option<u32>,
    fetches: AtomicU32,
    /// When the last byte of the archive was sent.
    sent: watch::Sender<Option<Instant>>,
}

impl Origin {
    pub(super) async fn start(archive: &Arc<Archive>, rate: Option<u32>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (archive, fetches) = (Arc::clone(archive), AtomicU32::new(0));
        let state = Arc::new(State { archive, rate, fetches, sent: watch::Sender::new(None) });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&state)));
        Ok(Self { address, state, _tasks: tasks })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many times the archive was asked for.
    pub(super) fn fetches(&self) -> u32 {
        self.state.fetches.load(Ordering::Relaxed)
    }

    /// Waits until the last byte of the archive was sent, and tells when that was.
    pub(super) async fn sent(&self) -> Result<Instant> {
        let mut sent = self.state.sent.subscribe();
        let sent = sent.wait_for(Option::is_some).await?;
        sent.context("it was waited for")
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    // They end with this task.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        // A client that leaves is no concern of others.
        connections.spawn(async move { state.serve(stream).await.ok() });
    }
}

impl State {
    /// Answers one request after another.
    async fn serve(&self, stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        let mut stream = BufStream::new(stream);
        let mut line = String::new();
        while stream.read_line(&mut line).await? > 0 {
            let mut words = line.split(' ');
            let method = words.next().unwrap_or_default().to_owned();
            let path = words.next().unwrap_or_default().to_owned();
            // The rest of the head says nothing that matters here.
            while !line.trim_end().is_empty() {
                line.clear();
                stream.read_line(&mut line).await?;
            }
            line.clear();
            self.answer(&method, &path, &mut stream).await?;
        }
        Ok(())
    }

    async fn answer(&self, method: &str, path: &str, stream: &mut Stream) -> Result<()> {
        let name = path.strip_prefix('/').unwrap_or_default();
        let location = format!("/{NAME}");
        let head = match name {
            "snapshot.tar.bz2" => format!(
                "303 See Other\r\nlocation: {location}\r\ncontent-length: {}",
                location.len()
            ),
            NAME => format!("200 OK\r\ncontent-length: {}", self.archive.length()),
            _ => "404 Not Found\r\ncontent-length: 0".to_owned(),
        };
        stream.write_all(format!("HTTP/1.1 {head}\r\n\r\n").as_bytes()).await?;
        match name {
            "snapshot.tar.bz2" if method == "GET" => stream.write_all(location.as_bytes()).await?,
            NAME if method == "GET" => self.send(stream).await?,
            _ => {}
        }
        Ok(stream.flush().await?)
    }

    /// Sends the archive, at the rate that is asked for.
    async fn send(&self, stream: &mut Stream) -> Result<()> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        let mut due = Instant::now();
        let mut at = 0;
        while at < self.archive.length() {
            let piece = self.archive.piece(at);
            stream.write_all(piece).await?;
            let count = u32::try_from(piece.len())?;
            at += count;
            if let (Some(rate), Some(earliest)) = (self.rate, Instant::now().checked_sub(CATCH_UP))
            {
                due = due.max(earliest) + Duration::from_secs(1) * count / rate;
                sleep_until(due.into()).await;
            }
        }
        stream.flush().await?;
        self.sent.send_replace(Some(Instant::now()));
        Ok(())
    }
}
