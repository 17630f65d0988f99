//! The servers that an edge stands in front of, each answering as the real one does, and the ways
//! in which they fail.

mod agave;
mod fault;
mod firedancer;
mod sidecar;

pub use agave::GENESIS_HASH;
pub use fault::Fault;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use snapedge::snapshot::ArchiveName;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::body::Content;
use super::server::{Handler, Next, Request, Server, head};

/// Bytes that are written at once.
const BLOCK: usize = 256 << 10;

/// Which program an origin is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The RPC port of Agave and Jito.
    Agave,
    /// `solana-cluster sidecar`.
    Sidecar,
    /// The snapshot server of Firedancer.
    FiredancerSnapshots,
    /// The RPC port of Firedancer, which redirects to its snapshot server.
    FiredancerRpc(SocketAddr),
}

/// What an origin has and does.
#[derive(Debug)]
pub struct State {
    pub archives: BTreeMap<String, Content>,
    /// On archives' paths.
    pub fault: Option<Fault>,
    /// The only archive whose path that is on, where it is not on all.
    pub faulty: Option<String>,
    /// Most archives that are sent at once, where that is bounded; above it the answer is 503.
    pub bound: Option<usize>,
    /// The answer to HEAD on archives' paths.
    pub head_status: Option<u16>,
    /// Requests that met [`Fault::EverySecond`].
    pub turns: usize,
    /// On everything else: the answer to probes.
    pub probe_fault: Option<Fault>,
    /// Every request so far.
    pub seen: Vec<Request>,
    /// Requests that are being answered, and the most at once.
    pub running: usize,
    pub most: usize,
    /// Archives that are being sent, and the most at once.
    pub transfers: usize,
    pub most_transfers: usize,
    /// Where a Firedancer RPC port redirects to, once it is another port than at first.
    pub moved_to: Option<SocketAddr>,
    /// How long every answer takes.
    pub pause: Duration,
    /// Bytes per second of each body, where that is bounded.
    pub rate: Option<u64>,
    /// Bytes of bodies that were sent so far.
    pub sent: u64,
    /// The only `authorization` that is answered, where there is one.
    pub authorization: Option<String>,
    /// Bytes of the genesis archive, and what `getIdentity` tells.
    pub genesis: u64,
    /// What JSON-RPC is answered with, whatever is asked.
    pub says: Option<String>,
}

pub struct Node {
    program: Program,
    pub state: Mutex<State>,
}

/// A running origin.
pub type Origin = Server<Node>;

impl Origin {
    pub async fn run(program: Program, archives: &[(&str, Content)]) -> Self {
        let archives = archives.iter().map(|(name, content)| ((*name).to_owned(), *content));
        Self::start(Node {
            program,
            state: Mutex::new(State {
                archives: archives.collect(),
                fault: None,
                faulty: None,
                bound: None,
                head_status: None,
                turns: 0,
                probe_fault: None,
                seen: Vec::new(),
                running: 0,
                most: 0,
                transfers: 0,
                most_transfers: 0,
                pause: Duration::ZERO,
                moved_to: None,
                rate: None,
                sent: 0,
                authorization: None,
                genesis: 328_348,
                says: None,
            }),
        })
        .await
    }

    pub fn add(&self, name: &str, content: Content) {
        self.handler.state.lock().unwrap().archives.insert(name.to_owned(), content);
    }

    pub fn remove(&self, name: &str) {
        self.handler.state.lock().unwrap().archives.remove(name);
    }

    pub fn fail(&self, fault: impl Into<Option<Fault>>) {
        let mut state = self.handler.state.lock().unwrap();
        (state.fault, state.faulty) = (fault.into(), None);
    }

    /// The same with requests for one archive alone.
    pub fn fail_one(&self, name: &str, fault: impl Into<Option<Fault>>) {
        let mut state = self.handler.state.lock().unwrap();
        (state.fault, state.faulty) = (fault.into(), Some(name.to_owned()));
    }

    /// Sends no more archives at once than this.
    pub fn carry_at_most(&self, bound: usize) {
        self.handler.state.lock().unwrap().bound = Some(bound);
    }

    pub fn fail_heads(&self, status: u16) {
        self.handler.state.lock().unwrap().head_status = Some(status);
    }

    pub fn fail_probes(&self, fault: impl Into<Option<Fault>>) {
        self.handler.state.lock().unwrap().probe_fault = fault.into();
    }

    pub fn redirect_to(&self, port: SocketAddr) {
        self.handler.state.lock().unwrap().moved_to = Some(port);
    }

    pub fn slow_down(&self, pause: Duration) {
        self.handler.state.lock().unwrap().pause = pause;
    }

    /// Has a genesis archive of this length, or none.
    pub fn begin_at(&self, genesis: u64) {
        self.handler.state.lock().unwrap().genesis = genesis;
    }

    /// Answers all of JSON-RPC with this from now on.
    pub fn say(&self, text: &str) {
        self.handler.state.lock().unwrap().says = Some(text.to_owned());
    }

    /// Answers nobody any more who does not say this.
    pub fn demand(&self, authorization: &str) {
        self.handler.state.lock().unwrap().authorization = Some(authorization.to_owned());
    }

    /// Sends no body faster than this.
    pub fn slow_to(&self, bytes_per_second: u64) {
        self.handler.state.lock().unwrap().rate = Some(bytes_per_second);
    }

    /// Bytes of bodies that were sent so far.
    pub fn sent(&self) -> u64 {
        self.handler.state.lock().unwrap().sent
    }

    /// How many requests with this method came for this archive.
    pub fn asked(&self, method: &str, name: &str) -> usize {
        let state = self.handler.state.lock().unwrap();
        let ours = |request: &&Request| request.method == method && request.path().ends_with(name);
        state.seen.iter().filter(ours).count()
    }

    /// True for a request that the fault of probes has met.
    pub fn listing_stalls(&self, request: &Request) -> bool {
        let state = self.handler.state.lock().unwrap();
        state.probe_fault.is_some() && state.running > 0 && request.path() == "/v1/snapshots"
    }

    pub fn seen(&self) -> Vec<Request> {
        self.handler.state.lock().unwrap().seen.clone()
    }

    pub fn most_at_once(&self) -> usize {
        self.handler.state.lock().unwrap().most
    }

    /// Forgets how many archives were sent at once.
    pub fn forget_most(&self) {
        let mut state = self.handler.state.lock().unwrap();
        state.most_transfers = state.transfers;
    }

    /// Archives that are being sent now, and the most that ever were at once.
    pub fn transfers(&self) -> (usize, usize) {
        let state = self.handler.state.lock().unwrap();
        (state.transfers, state.most_transfers)
    }
}

/// When every archive of a sidecar was changed last.
pub fn modified() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_790_000_000)
}

impl Handler for Node {
    async fn handle(&self, request: Request, stream: &mut TcpStream) -> io::Result<Next> {
        let running = Running::new(&self.state, &request);
        let pause = self.state.lock().unwrap().pause;
        tokio::time::sleep(pause).await;
        if self.denies(&request) {
            let headers = [
                ("www-authenticate", "Bearer realm=\"origin\"".to_owned()),
                ("content-length", "0".to_owned()),
            ];
            return reply(stream, &request, "401 Unauthorized", &headers, b"").await;
        }
        let done = match self.program {
            Program::Agave => self.agave(&request, stream).await,
            Program::Sidecar => self.sidecar(&request, stream).await,
            Program::FiredancerSnapshots => self.firedancer_snapshots(&request, stream).await,
            Program::FiredancerRpc(first) => {
                let to = self.state.lock().unwrap().moved_to.unwrap_or(first);
                self.firedancer_rpc(&request, to, stream).await
            }
        };
        drop(running);
        done
    }
}

/// Counts a request for as long as it is answered; a client that leaves ends it too.
struct Running<'a> {
    state: &'a Mutex<State>,
    request: Request,
}

/// Counts one transfer less, once.
fn finish(state: &Mutex<State>, request: &Request) {
    if !request.answered.swap(true, Ordering::Relaxed) {
        state.lock().unwrap().transfers -= 1;
    }
}

impl<'a> Running<'a> {
    fn new(state: &'a Mutex<State>, request: &Request) -> Self {
        let mut locked = state.lock().unwrap();
        locked.seen.push(request.clone());
        locked.running += 1;
        locked.most = locked.most.max(locked.running);
        let name = request.path().rsplit('/').next().unwrap_or_default();
        let is_transfer = request.method == "GET" && locked.archives.contains_key(name);
        request.answered.store(!is_transfer, Ordering::Relaxed);
        locked.transfers += usize::from(is_transfer);
        locked.most_transfers = locked.most_transfers.max(locked.transfers);
        drop(locked);
        Self { state, request: request.clone() }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        finish(self.state, &self.request);
        self.state.lock().unwrap().running -= 1;
    }
}

impl Node {
    fn content(&self, name: &str) -> Option<Content> {
        self.state.lock().unwrap().archives.get(name).copied()
    }

    fn denies(&self, request: &Request) -> bool {
        let state = self.state.lock().unwrap();
        state.authorization.is_some()
            && state.authorization.as_deref() != request.header("authorization")
    }

    /// The newest archive that `wanted` accepts.
    fn newest(&self, wanted: impl Fn(&ArchiveName) -> bool) -> Option<ArchiveName> {
        let state = self.state.lock().unwrap();
        let names = state.archives.keys().filter_map(|name| name.parse().ok());
        names.filter(|name| wanted(name)).max()
    }

    /// A head, and the content from `start` on.
    async fn send(
        &self,
        stream: &mut TcpStream,
        request: &Request,
        status: &str,
        headers: Vec<(&str, String)>,
        content: Content,
        start: u64,
    ) -> io::Result<Next> {
        stream.write_all(&head(status, &headers)).await?;
        if request.method == "HEAD" {
            return Ok(Next::KeepAlive);
        }
        let rate = self.state.lock().unwrap().rate;
        let began = tokio::time::Instant::now();
        // Twenty pieces in a second, which is no silence.
        let size = rate.map_or(BLOCK, |rate| (rate as usize / 20).clamp(1, BLOCK));
        let mut block = vec![0; size];
        let mut at = start;
        while at < content.len {
            let count = size.min((content.len - at) as usize);
            content.fill(at, &mut block[..count]);
            if at + count as u64 == content.len {
                // Whoever has the last byte may begin the next one before this is over.
                finish(&self.state, request);
            }
            stream.write_all(&block[..count]).await?;
            at += count as u64;
            self.state.lock().unwrap().sent += count as u64;
            if let Some(rate) = rate {
                let due = Duration::from_secs_f64((at - start) as f64 / rate as f64);
                tokio::time::sleep_until(began + due).await;
            }
        }
        Ok(Next::KeepAlive)
    }
}

fn date() -> (&'static str, String) {
    ("date", httpdate::fmt_http_date(SystemTime::now()))
}

async fn reply(
    stream: &mut TcpStream,
    request: &Request,
    status: &str,
    headers: &[(&str, String)],
    body: &[u8],
) -> io::Result<Next> {
    let mut bytes = head(status, headers);
    if request.method != "HEAD" {
        bytes.extend_from_slice(body);
    }
    stream.write_all(&bytes).await?;
    Ok(Next::KeepAlive)
}
