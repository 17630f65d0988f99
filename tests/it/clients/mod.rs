//! The programs that download snapshots, replayed: the bytes that each of them sends, over a
//! socket, and its own rules for what it takes. A rule that an edge does not keep is a download
//! that fails.
//!
//! Beside each request stands where its bytes were seen: recorded on the wire, where the program or
//! the library that it speaks HTTP with could be run, and else read in its public source. How a
//! program goes on after its last byte (unpacking, renaming, ranking) is left out.

pub mod agave;
mod aria2;
mod browsers;
mod finders;
mod firedancer;
mod go_fetch;
mod go_finders;
mod nginx_slice;
mod sig;
mod snap_fetch;
mod wget;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::support::body::Content;
use super::support::client::{Answer, Ask, Ended, connect, read_head};
use super::support::edge::Edge;
use super::support::origin::{Origin, Program};
use super::support::{PATIENCE, eventually, full, incremental};

const FULL: Content = Content::new(1, 1_500_000);
const INCREMENTAL: Content = Content::new(2, 60_000);

/// Short names, as the clients spell them.
const SHORT_FULL: &str = "/snapshot.tar.bz2";
const SHORT_INCREMENTAL: &str = "/incremental-snapshot.tar.bz2";

const ZSTD_FORMS: [&str; 2] = ["/snapshot.tar.zst", "/incremental-snapshot.tar.zst"];

/// A connection of a client, which sends what it is told and nothing else.
struct Wire {
    stream: TcpStream,
    /// Longest that the client waited for bytes.
    longest_wait: Duration,
}

impl Wire {
    async fn to(address: SocketAddr) -> Self {
        Self::open(connect([127, 0, 0, 1].into(), address).await)
    }

    /// From the address 127.0.1.`number`.
    async fn from(number: u8, address: SocketAddr) -> Self {
        Self::open(connect([127, 0, 1, number].into(), address).await)
    }

    fn open(stream: TcpStream) -> Self {
        Self { stream, longest_wait: Duration::ZERO }
    }

    /// Sends a request and reads the head of its answer, and what of the body came with it.
    async fn begin(&mut self, request: &str) -> Answer {
        self.stream.write_all(request.as_bytes()).await.expect("sent");
        let sent = Instant::now();
        let answer = read_head(&mut self.stream, request.starts_with("HEAD ")).await;
        self.longest_wait = self.longest_wait.max(sent.elapsed());
        answer
    }

    /// The same, and reads on to the end of the body.
    async fn ask(&mut self, request: &str) -> Answer {
        let mut answer = self.begin(request).await;
        if !request.starts_with("HEAD ") {
            self.finish(&mut answer).await;
        }
        answer
    }

    /// Reads the rest of a body, as many bytes as were announced.
    async fn finish(&mut self, answer: &mut Answer) {
        let length = answer.length();
        self.read_to(answer, length).await;
        assert!(answer.body.len() as u64 <= length, "more than was announced: {}", answer.head);
    }

    /// Reads on until so many bytes of a body are there, or it ends before that.
    async fn read_to(&mut self, answer: &mut Answer, bytes: u64) {
        answer.ended = Ended::Whole;
        while (answer.body.len() as u64) < bytes {
            let asked = Instant::now();
            let read = timeout(PATIENCE, self.stream.read_buf(&mut answer.body));
            let count = read.await.expect("the body goes on or ends").unwrap_or(0);
            self.longest_wait = self.longest_wait.max(asked.elapsed());
            if count == 0 {
                answer.ended = Ended::Short;
                return;
            }
        }
    }

    /// The server has closed the connection, and sent nothing more before that.
    async fn ends(mut self) {
        let mut rest = Vec::new();
        let read = timeout(PATIENCE, self.stream.read_to_end(&mut rest));
        read.await.expect("it ends in time").expect("a clean end");
        assert_eq!(rest, b"", "after the last answer");
    }
}

/// What an edge has on its disk when a client comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cache {
    /// It has none at all.
    Off,
    /// Both archives of the best pair.
    Warm,
}

/// An edge before one origin with one pair of archives. The origin is probed once: whatever reaches
/// it later is for a client.
struct Stage {
    edge: Edge,
    origin: Origin,
    /// Connections that the origin had seen when the client came.
    probes: usize,
    cache: Cache,
    /// For messages.
    what: String,
    _directory: TempDir,
}

impl Stage {
    async fn new(program: Program, cache: Cache) -> Self {
        Self::with("", program, cache, &[(&full_name(), FULL), (&new_name(), INCREMENTAL)]).await
    }

    /// The same with more configuration, and with these archives.
    async fn with(
        more: &str,
        program: Program,
        cache: Cache,
        archives: &[(&str, Content)],
    ) -> Self {
        let origin = Origin::run(program, archives).await;
        let directory = tempfile::tempdir().expect("a directory");
        let disk = match cache {
            Cache::Off => String::new(),
            Cache::Warm => caching(directory.path(), ""),
        };
        let edge = Edge::start(&probed_once(&format!("{more}\n{disk}"), &[&origin]));
        edge.knows(&origin).await;
        if cache == Cache::Warm {
            for (name, _) in archives {
                eventually("the archive is cached", || async {
                    let answer = edge.ask(Ask::get(format!("/{name}")).from(250)).await;
                    answer.header("cache-status") == Some("snapedge; hit")
                })
                .await;
            }
        }
        let probes = origin.connections();
        let what = format!("{program:?}, cache {cache:?}");
        Self { edge, origin, probes, cache, what, _directory: directory }
    }

    /// Each of these programs, without a cache and with what it has in the cache.
    async fn each(programs: &[Program]) -> Vec<Self> {
        let mut stages = Vec::new();
        for program in programs {
            for cache in [Cache::Off, Cache::Warm] {
                stages.push(Self::new(*program, cache).await);
            }
        }
        stages
    }

    async fn wire(&self) -> Wire {
        Wire::to(self.edge.address).await
    }

    /// True where a part is answered with a part: from the cache, and by every target but Agave.
    fn has_ranges(&self) -> bool {
        self.cache == Cache::Warm || !self.what.starts_with("Agave")
    }

    /// Connections that the origin has seen because of clients.
    fn asked_upstream(&self) -> usize {
        self.origin.connections() - self.probes
    }

    /// Nothing that the client was answered so far came from upstream.
    #[track_caller]
    fn assert_from_memory(&self) {
        assert_eq!(self.asked_upstream(), 0, "{}", self.what);
    }

    /// What is in the cache is served from there.
    #[track_caller]
    fn assert_from_cache_where_warm(&self) {
        if self.cache == Cache::Warm {
            self.assert_from_memory();
        }
    }
}

/// Origins of which each answers in a way of its own: without ranges, with ranges, and with ranges
/// from a program of another family.
const PROGRAMS: [Program; 3] = [Program::Agave, Program::Sidecar, Program::FiredancerSnapshots];

fn full_name() -> String {
    full(1000)
}

fn new_name() -> String {
    incremental(1000, 1500)
}

/// The part of a configuration that switches a cache on. Bodies here are no archives.
fn caching(directory: &Path, more: &str) -> String {
    let directory = directory.display();
    format!(
        "proxy_snapshot_cache_dir: '{directory}'\n\
         cache: {{min_free_space: 0B, verify: length{more}}}"
    )
}

/// A configuration whose targets are asked when the edge starts, and not again on its own account.
fn probed_once(more: &str, origins: &[&Origin]) -> String {
    probed("1h", more, origins)
}

/// A configuration whose targets are asked so often.
fn probed(interval: &str, more: &str, origins: &[&Origin]) -> String {
    let targets: Vec<String> =
        origins.iter().map(|origin| format!("'{}'", origin.address())).collect();
    format!(
        "listen: ['127.0.0.1:0']\nscrape_interval: {interval}\n{more}\n\
         target_groups: [{{group: a, static_targets: {{targets: [{}]}}}}]\n",
        targets.join(", ")
    )
}

/// Where a redirect leads, for a client that wants no more than a redirect.
#[track_caller]
fn location(answer: &Answer) -> String {
    assert!([301, 302, 303, 307, 308].contains(&answer.status), "{}", answer.head);
    answer.header("location").expect("a location").to_owned()
}

/// All of an archive, framed by its length and not transformed.
#[track_caller]
fn assert_archive(answer: &Answer, content: Content, what: &str) {
    assert_eq!((answer.status, answer.ended), (200, Ended::Whole), "{what}: {}", answer.head);
    assert_untouched(answer);
    assert!(answer.body == content.all(), "{what}: other bytes after {}", answer.head);
}

/// Bytes as they are in the file.
#[track_caller]
fn assert_untouched(answer: &Answer) {
    for header in ["transfer-encoding", "content-encoding", "content-disposition"] {
        assert!(!answer.headers.contains_key(header), "{}", answer.head);
    }
}

/// Exactly the bytes `start..end` of `total`, as those judge who put a file together of parts.
#[track_caller]
fn assert_part(answer: &Answer, start: u64, end: u64, total: u64) {
    assert_eq!(answer.status, 206, "{}", answer.head);
    let place = format!("bytes {start}-{}/{total}", end - 1);
    assert_eq!(answer.header("content-range"), Some(&*place), "{}", answer.head);
    assert_eq!(answer.length(), end - start, "{}", answer.head);
    assert_untouched(answer);
    assert_eq!(answer.ended, Ended::Whole, "{}", answer.head);
}
