//! The servers that an edge stands in front of, each answering as the real one does, and the ways
//! in which they fail.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use snapedge::route::{ContentRange, RangeRequest};
use snapedge::snapshot::ArchiveName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::body::Content;
use super::server::{Handler, Next, Request, Server, head};

/// Bytes that are written at once.
const BLOCK: usize = 256 << 10;
/// What Agave says to everything that it has no page for.
const NOT_ALLOWED: &str = "Used HTTP Method is not allowed. POST or OPTIONS is required\n";

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

/// What goes wrong with requests for archives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is answered.
    StallBeforeHead,
    /// Silence after so many bytes of the body.
    StallAfter(u64),
    /// The connection is closed after so many bytes of the body.
    CloseAfter(u64),
    /// The connection is reset after so many bytes of the body.
    ResetAfter(u64),
    /// A status without a body.
    Status(u16),
    /// A `content-length` and body that are longer by this.
    Longer(u64),
    /// `transfer-encoding: chunked` and no length.
    Chunked,
    /// No length, the end is where the connection ends.
    CloseDelimited,
    /// A 200 without a byte.
    Empty,
    /// A page, with a 200.
    Html,
    /// A page of exactly the archive's length.
    HtmlOfRightLength,
    /// `content-encoding: gzip`.
    Encoded,
    /// A redirect to this.
    Redirect(String),
    /// A few bytes at a time.
    Drip { bytes: usize, pause: Duration },
    /// Ranges are answered with another part than the asked one.
    WrongRange,
}

/// What an origin has and does.
#[derive(Debug)]
pub struct State {
    pub archives: BTreeMap<String, Content>,
    /// On archives' paths.
    pub fault: Option<Fault>,
    /// On everything else: the answer to probes.
    pub probe_fault: Option<Fault>,
    /// Every request so far.
    pub seen: Vec<Request>,
    /// Requests that are being answered, and the most at once.
    pub running: usize,
    pub most: usize,
    /// How long every answer takes.
    pub pause: Duration,
    /// What `getHighestSnapshotSlot` and the genesis path are answered from.
    pub genesis: u64,
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
                probe_fault: None,
                seen: Vec::new(),
                running: 0,
                most: 0,
                pause: Duration::ZERO,
                genesis: 328_348,
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
        self.handler.state.lock().unwrap().fault = fault.into();
    }

    pub fn fail_probes(&self, fault: impl Into<Option<Fault>>) {
        self.handler.state.lock().unwrap().probe_fault = fault.into();
    }

    pub fn slow_down(&self, pause: Duration) {
        self.handler.state.lock().unwrap().pause = pause;
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
        let done = match self.program {
            Program::Agave => self.agave(&request, stream).await,
            Program::Sidecar => self.sidecar(&request, stream).await,
            Program::FiredancerSnapshots => self.firedancer_snapshots(&request, stream).await,
            Program::FiredancerRpc(to) => self.firedancer_rpc(&request, to, stream).await,
        };
        drop(running);
        done
    }
}

/// Counts a request for as long as it is answered; a client that leaves ends it too.
struct Running<'a>(&'a Mutex<State>);

impl<'a> Running<'a> {
    fn new(state: &'a Mutex<State>, request: &Request) -> Self {
        let mut locked = state.lock().unwrap();
        locked.seen.push(request.clone());
        locked.running += 1;
        locked.most = locked.most.max(locked.running);
        drop(locked);
        Self(state)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap().running -= 1;
    }
}

impl Node {
    fn content(&self, name: &str) -> Option<Content> {
        self.state.lock().unwrap().archives.get(name).copied()
    }

    /// The newest archive that `wanted` accepts.
    fn newest(&self, wanted: impl Fn(&ArchiveName) -> bool) -> Option<ArchiveName> {
        let state = self.state.lock().unwrap();
        let names = state.archives.keys().filter_map(|name| name.parse().ok());
        names.filter(|name| wanted(name)).max()
    }

    async fn agave(&self, request: &Request, stream: &mut TcpStream) -> io::Result<Next> {
        if let Some(next) = self.probe_fault(request, stream).await? {
            return Ok(next);
        }
        let path = request.path();
        let full = self.newest(ArchiveName::is_full);
        let best = match path {
            "/snapshot.tar.bz2" => Some(full),
            "/incremental-snapshot.tar.bz2" => Some(full.and_then(|full| {
                self.newest(|name| !name.is_full() && name.base_slot() == full.slot())
            })),
            _ => None,
        };
        if let Some(best) = best {
            let Some(name) = best else { return agave_404(request, stream).await };
            let location = format!("/{name}");
            let length = location.len().to_string();
            let headers = [("location", location.clone()), ("content-length", length), date()];
            return reply(stream, request, "303 See Other", &headers, location.as_bytes()).await;
        }
        let state_genesis = self.state.lock().unwrap().genesis;
        if path == "/health" {
            let headers = [("content-length", "2".to_owned()), date()];
            return reply(stream, request, "200 OK", &headers, b"ok").await;
        }
        if path == "/genesis.tar.bz2" {
            let content = Content::new(1, state_genesis);
            let headers = vec![("content-length", state_genesis.to_string()), date()];
            return self.send(stream, request, "200 OK", headers, content, 0).await;
        }
        // A slash, and a name of one of the forms that Agave knows; any hash.
        let Some(name) = path.strip_prefix('/').filter(|name| agave_knows(name)) else {
            if request.method == "POST" {
                return self.json_rpc(request, stream).await;
            }
            let headers = [
                ("content-type", "text/plain; charset=utf-8".to_owned()),
                ("content-length", NOT_ALLOWED.len().to_string()),
                date(),
            ];
            let status = "405 Method Not Allowed";
            return reply(stream, request, status, &headers, NOT_ALLOWED.as_bytes()).await;
        };
        let Some(content) = self.content(name) else { return agave_404(request, stream).await };
        if let Some(next) = self.archive_fault(request, content, stream).await? {
            return Ok(next);
        }
        let headers = vec![("content-length", content.len.to_string()), date()];
        self.send(stream, request, "200 OK", headers, content, 0).await
    }

    async fn json_rpc(&self, request: &Request, stream: &mut TcpStream) -> io::Result<Next> {
        let asked: serde_json::Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let full = self.newest(ArchiveName::is_full);
        let result = match asked["method"].as_str() {
            Some("getHighestSnapshotSlot") => full.map(|full| {
                let on_full =
                    self.newest(|name| !name.is_full() && name.base_slot() == full.slot());
                let incremental = on_full.map(|name| name.slot().0);
                serde_json::json!({ "full": full.slot().0, "incremental": incremental })
            }),
            Some("getSlot") => full.map(|full| serde_json::json!(full.slot().0 + 10)),
            _ => None,
        };
        let answer = match result {
            Some(result) => {
                serde_json::json!({ "jsonrpc": "2.0", "result": result, "id": asked["id"] })
            }
            None => serde_json::json!({
                "jsonrpc": "2.0",
                "error": { "code": -32601, "message": "Method not found" },
                "id": asked["id"],
            }),
        };
        let body = answer.to_string();
        let headers = [
            ("content-type", "application/json; charset=utf-8".to_owned()),
            ("content-length", body.len().to_string()),
            date(),
        ];
        reply(stream, request, "200 OK", &headers, body.as_bytes()).await
    }

    async fn sidecar(&self, request: &Request, stream: &mut TcpStream) -> io::Result<Next> {
        if let Some(next) = self.probe_fault(request, stream).await? {
            return Ok(next);
        }
        let plain = |body: &str| {
            [
                ("Content-Type", "text/plain; charset=utf-8".to_owned()),
                ("Content-Length", body.len().to_string()),
                ("Date", date().1),
            ]
        };
        let nothing = "404 page not found";
        match request.path() {
            "/v1/snapshots" if request.method == "GET" => {
                let body = self.listing();
                let headers = [
                    ("Content-Type", "application/json; charset=utf-8".to_owned()),
                    ("Content-Length", body.len().to_string()),
                    ("Date", date().1),
                ];
                reply(stream, request, "200 OK", &headers, body.as_bytes()).await
            }
            "/v1/snapshot.tar.bz2" | "/v1/snapshot.tar.zst" => {
                match self.newest(ArchiveName::is_full) {
                    Some(name) => self.serve_content(&name.to_string(), request, stream).await,
                    None => {
                        let body = "no snapshot available";
                        let status = "202 Accepted";
                        reply(stream, request, status, &plain(body), body.as_bytes()).await
                    }
                }
            }
            path => match path.strip_prefix("/v1/snapshot/") {
                Some(name) if self.content(name).is_some() && !name.ends_with(".lz4") => {
                    self.serve_content(name, request, stream).await
                }
                Some(_) => {
                    let body = "snapshot not found";
                    reply(stream, request, "404 Not Found", &plain(body), body.as_bytes()).await
                }
                None => {
                    let headers = plain(nothing);
                    reply(stream, request, "404 Not Found", &headers, nothing.as_bytes()).await
                }
            },
        }
    }

    fn listing(&self) -> String {
        let state = self.state.lock().unwrap();
        let mut names: Vec<ArchiveName> =
            state.archives.keys().filter_map(|name| name.parse().ok()).collect();
        names.sort_by(|a, b| b.cmp(a));
        let file = |name: &ArchiveName| {
            let mut file = serde_json::json!({
                "file_name": name.to_string(),
                "slot": name.slot(),
                "hash": name.hash().to_string(),
                "ext": format!(".{}", name.compression().extension()),
                "mod_time": "2026-09-21T13:33:20.123456789Z",
                "size": state.archives[&name.to_string()].len,
            });
            if !name.is_full() {
                file["base_slot"] = serde_json::json!(name.base_slot());
            }
            file
        };
        let infos = names.iter().map(|name| {
            let base = names.iter().find(|other| {
                other.is_full() && !name.is_full() && other.slot() == name.base_slot()
            });
            let files: Vec<_> = std::iter::once(name).chain(base).map(file).collect();
            serde_json::json!({
                "slot": name.slot(), "base_slot": name.base_slot(),
                "hash": name.hash().to_string(), "files": files, "size": 0,
            })
        });
        serde_json::Value::from(infos.collect::<Vec<_>>()).to_string()
    }

    /// What Go's `http.ServeContent` does.
    async fn serve_content(
        &self,
        name: &str,
        request: &Request,
        stream: &mut TcpStream,
    ) -> io::Result<Next> {
        let Some(content) = self.content(name) else { return Ok(Next::Close) };
        if let Some(next) = self.archive_fault(request, content, stream).await? {
            return Ok(next);
        }
        let changed = ("Last-Modified", httpdate::fmt_http_date(modified()));
        let common = [("Accept-Ranges", "bytes".to_owned()), changed, ("Date", date().1)];
        let condition =
            request.header("if-range").map(|value| httpdate::parse_http_date(value).ok());
        let asked = request.header("range").map_or(RangeRequest::Whole, RangeRequest::parse);
        let asked = match condition {
            Some(condition) if condition != Some(modified()) => RangeRequest::Whole,
            _ => asked,
        };
        match asked {
            RangeRequest::Whole => {
                let mut headers = common.to_vec();
                headers.push(("Content-Type", "application/zstd".to_owned()));
                headers.push(("Content-Length", content.len.to_string()));
                self.send(stream, request, "200 OK", headers, content, 0).await
            }
            RangeRequest::Single(spec) => match spec.resolve(content.len) {
                Some(range) => {
                    let mut headers = common.to_vec();
                    let place = ContentRange { range: Some(range), total: content.len };
                    headers.push(("Content-Type", "application/zstd".to_owned()));
                    headers.push(("Content-Length", range.len().to_string()));
                    headers.push(("Content-Range", place.to_string()));
                    let part = Content { len: range.end(), ..content };
                    let status = "206 Partial Content";
                    self.send(stream, request, status, headers, part, range.start()).await
                }
                None => {
                    let body = "invalid range: failed to overlap\n";
                    let headers = [
                        ("Content-Range", format!("bytes */{}", content.len)),
                        ("Content-Length", body.len().to_string()),
                        ("Content-Type", "text/plain; charset=utf-8".to_owned()),
                    ];
                    let status = "416 Requested Range Not Satisfiable";
                    reply(stream, request, status, &headers, body.as_bytes()).await
                }
            },
            RangeRequest::Multiple => {
                let body = in_parts(request.header("range").unwrap_or_default(), content);
                let mut headers = common.to_vec();
                let multipart = "multipart/byteranges; boundary=BOUNDARY".to_owned();
                headers.push(("Content-Type", multipart));
                headers.push(("Content-Length", body.len().to_string()));
                reply(stream, request, "206 Partial Content", &headers, &body).await
            }
        }
    }

    async fn firedancer_snapshots(
        &self,
        request: &Request,
        stream: &mut TcpStream,
    ) -> io::Result<Next> {
        let none = [("Content-Length", "0".to_owned())];
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            reply(stream, request, "500 Internal Server Error", &none, b"").await?;
            return Ok(Next::Close);
        }
        if request.header("content-length").is_some_and(|length| length != "0") {
            return reply(stream, request, "400 Bad Request", &none, b"").await;
        }
        let slashes = request.target.len() - request.target.trim_start_matches('/').len();
        let name = &request.target[slashes..];
        let best = match name {
            _ if slashes > 16 => return reply(stream, request, "404 Not Found", &none, b"").await,
            "snapshot.tar.zst" | "snapshot.tar.bz2" => Some(self.newest(ArchiveName::is_full)),
            // Chosen without regard to the full one.
            "incremental-snapshot.tar.zst" | "incremental-snapshot.tar.bz2" => {
                Some(self.newest(|name| !name.is_full()))
            }
            _ => None,
        };
        if let Some(best) = best {
            let Some(best) = best else {
                return reply(stream, request, "404 Not Found", &none, b"").await;
            };
            let headers = [("Location", format!("/{best}")), none[0].clone()];
            return reply(stream, request, "302 Found", &headers, b"").await;
        }
        let Some(content) = self.content(name) else {
            return reply(stream, request, "404 Not Found", &none, b"").await;
        };
        if let Some(next) = self.archive_fault(request, content, stream).await? {
            return Ok(next);
        }
        let media = if name.ends_with(".zst") { "application/zstd" } else { "application/x-tar" };
        let mut headers =
            vec![("Content-Type", media.to_owned()), ("Accept-Ranges", "bytes".to_owned())];
        let asked = match request.header("range") {
            Some(value) if request.method == "GET" => Some(RangeRequest::parse(value)),
            _ => None,
        };
        match asked {
            None => {
                headers.push(("Content-Length", content.len.to_string()));
                self.send(stream, request, "200 OK", headers, content, 0).await
            }
            Some(RangeRequest::Single(spec)) => match spec.resolve(content.len) {
                Some(range) => {
                    let place = ContentRange { range: Some(range), total: content.len };
                    headers.push(("Content-Length", range.len().to_string()));
                    headers.push(("Content-Range", place.to_string()));
                    let part = Content { len: range.end(), ..content };
                    let status = "206 Partial Content";
                    self.send(stream, request, status, headers, part, range.start()).await
                }
                None => {
                    let place = ("Content-Range", format!("bytes */{}", content.len));
                    let headers = [place, none[0].clone()];
                    reply(stream, request, "416 Range Not Satisfiable", &headers, b"").await
                }
            },
            Some(_) => reply(stream, request, "400 Bad Request", &none, b"").await,
        }
    }

    async fn firedancer_rpc(
        &self,
        request: &Request,
        to: SocketAddr,
        stream: &mut TcpStream,
    ) -> io::Result<Next> {
        if request.method == "HEAD" {
            return Ok(Next::Close);
        }
        let path = request.path();
        let none = ("Content-Length", "0".to_owned());
        if path.starts_with("/snapshot") || path.starts_with("/incremental-snapshot") {
            let headers = [("Location", format!("http://{to}{path}")), none];
            return reply(stream, request, "302 Found", &headers, b"").await;
        }
        reply(stream, request, "404 Not Found", &[none], b"").await
    }

    async fn probe_fault(
        &self,
        request: &Request,
        stream: &mut TcpStream,
    ) -> io::Result<Option<Next>> {
        let name = request.path().rsplit('/').next().unwrap_or_default();
        let fault = self.state.lock().unwrap().probe_fault.clone();
        match fault {
            Some(fault) if self.content(name).is_none() => {
                self.apply(fault, request, Content::new(0, 1000), stream).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    async fn archive_fault(
        &self,
        request: &Request,
        content: Content,
        stream: &mut TcpStream,
    ) -> io::Result<Option<Next>> {
        let fault = self.state.lock().unwrap().fault.clone();
        // Probes are HEADs; a fault is about what is downloaded.
        match fault.filter(|_| request.method == "GET") {
            Some(Fault::WrongRange) if request.header("range").is_none() => Ok(None),
            Some(fault) => self.apply(fault, request, content, stream).await.map(Some),
            None => Ok(None),
        }
    }

    async fn apply(
        &self,
        fault: Fault,
        request: &Request,
        content: Content,
        stream: &mut TcpStream,
    ) -> io::Result<Next> {
        let length = |length: u64| vec![("content-length", length.to_string())];
        let html = ("content-type", "text/html; charset=utf-8".to_owned());
        match fault {
            Fault::StallBeforeHead => stall(stream).await,
            Fault::StallAfter(bytes) => {
                self.begin(stream, content, bytes).await?;
                stall(stream).await
            }
            Fault::CloseAfter(bytes) => {
                self.begin(stream, content, bytes).await?;
                Ok(Next::Close)
            }
            Fault::ResetAfter(bytes) => {
                self.begin(stream, content, bytes).await?;
                Ok(Next::Reset)
            }
            Fault::Status(status) => {
                reply(stream, request, &format!("{status} Fault"), &length(0), b"").await
            }
            Fault::Longer(by) => {
                let longer = Content { len: content.len + by, ..content };
                let headers = length(longer.len);
                self.send(stream, request, "200 OK", headers, longer, 0).await
            }
            Fault::Chunked => {
                stream
                    .write_all(&head("200 OK", &[("transfer-encoding", "chunked".to_owned())]))
                    .await?;
                let body = content.all();
                stream.write_all(format!("{:x}\r\n", body.len()).as_bytes()).await?;
                stream.write_all(&body).await?;
                stream.write_all(b"\r\n0\r\n\r\n").await?;
                Ok(Next::KeepAlive)
            }
            Fault::CloseDelimited => {
                stream.write_all(&head("200 OK", &[("connection", "close".to_owned())])).await?;
                stream.write_all(&content.all()).await?;
                Ok(Next::Close)
            }
            Fault::Empty => reply(stream, request, "200 OK", &length(0), b"").await,
            Fault::Html => {
                let page = "<html><body>This is not what you are looking for.</body></html>";
                let headers = [length(page.len() as u64).remove(0), html];
                reply(stream, request, "200 OK", &headers, page.as_bytes()).await
            }
            Fault::HtmlOfRightLength => {
                let headers = vec![length(content.len).remove(0), html];
                self.send(stream, request, "200 OK", headers, content, 0).await
            }
            Fault::Encoded => {
                let mut headers = length(content.len);
                headers.push(("content-encoding", "gzip".to_owned()));
                self.send(stream, request, "200 OK", headers, content, 0).await
            }
            Fault::Redirect(to) => {
                let headers = [("location", to), length(0).remove(0)];
                reply(stream, request, "302 Found", &headers, b"").await
            }
            Fault::Drip { bytes, pause } => {
                stream.write_all(&head("200 OK", &length(content.len))).await?;
                for block in content.all().chunks(bytes) {
                    stream.write_all(block).await?;
                    tokio::time::sleep(pause).await;
                }
                Ok(Next::KeepAlive)
            }
            Fault::WrongRange => {
                let place = ("content-range", format!("bytes 0-9/{}", content.len));
                let headers = [place, length(10).remove(0)];
                let body = content.bytes(0, 10);
                reply(stream, request, "206 Partial Content", &headers, &body).await
            }
        }
    }

    /// The head of the whole archive, and so many of its bytes.
    async fn begin(&self, stream: &mut TcpStream, content: Content, bytes: u64) -> io::Result<()> {
        let headers = [("content-length", content.len.to_string())];
        stream.write_all(&head("200 OK", &headers)).await?;
        stream.write_all(&content.bytes(0, bytes)).await?;
        stream.flush().await
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
        let mut block = vec![0; BLOCK];
        let mut at = start;
        while at < content.len {
            let count = BLOCK.min((content.len - at) as usize);
            content.fill(at, &mut block[..count]);
            stream.write_all(&block[..count]).await?;
            at += count as u64;
        }
        Ok(Next::KeepAlive)
    }
}

/// Silence until the peer gives up.
async fn stall(stream: &mut TcpStream) -> io::Result<Next> {
    while stream.read(&mut [0; 1024]).await? > 0 {}
    Ok(Next::Close)
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

async fn agave_404(request: &Request, stream: &mut TcpStream) -> io::Result<Next> {
    // On a HEAD there is no length at all.
    let headers = match request.method.as_str() {
        "HEAD" => vec![date()],
        _ => vec![("content-length", "0".to_owned()), date()],
    };
    reply(stream, request, "404 Not Found", &headers, b"").await
}

/// The two expressions of Agave 3: any alphanumeric hash, two extensions.
fn agave_knows(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let word =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let Some((stem, "tar.zst" | "tar.lz4")) = name.split_once('.') else { return false };
    match stem.split('-').collect::<Vec<_>>()[..] {
        ["snapshot", slot, hash] => digits(slot) && word(hash),
        ["incremental", "snapshot", base, slot, hash] => digits(base) && digits(slot) && word(hash),
        _ => false,
    }
}

fn in_parts(range: &str, content: Content) -> Vec<u8> {
    let mut body = Vec::new();
    let set = range.split_once('=').map_or("", |(_, set)| set);
    for text in set.split(',') {
        let RangeRequest::Single(spec) = RangeRequest::parse(&format!("bytes={}", text.trim()))
        else {
            continue;
        };
        let Some(range) = spec.resolve(content.len) else { continue };
        let place = ContentRange { range: Some(range), total: content.len };
        body.extend_from_slice(format!("--BOUNDARY\r\ncontent-range: {place}\r\n\r\n").as_bytes());
        body.extend_from_slice(&content.bytes(range.start(), range.end()));
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--BOUNDARY--\r\n");
    body
}
