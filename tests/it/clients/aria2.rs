//! aria2 with up to sixteen connections, as scripts of validators start it (`-x16 -s16
//! --force-sequential=true`): its bytes were recorded from 1.36.0, what it does with an answer is
//! in `src/HttpResponseCommand.cc`, `HttpSkipResponseCommand.cc` and `HttpRequest.cc`.
//!
//! The first connection asks for everything. Once it knows the length, fifteen more begin at the
//! short name again, each with a range, and follow. What two connections get is one file to it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use super::super::support::body::Content;
use super::super::support::client::{Answer, Ended};
use super::super::support::edge::Edge;
use super::super::support::full;
use super::super::support::origin::{Origin, Program};
use super::{
    Cache, SHORT_FULL, Stage, Wire, assert_archive, assert_part, caching, full_name, location,
    probed,
};

/// `--min-split-size` and the length of a piece, by default.
const PIECE: u64 = 1 << 20;
const CONTENT: Content = Content::new(5, 17 * PIECE + 4321);
const CONNECTIONS: usize = 16;

/// The first connection also says that it takes descriptions of mirrors.
fn request(path: &str, range: Option<(u64, u64)>, to: SocketAddr) -> String {
    let (types, range) = match range {
        None => (",application/metalink4+xml,application/metalink+xml", String::new()),
        Some((start, end)) => ("", format!("Range: bytes={start}-{}\r\n", end - 1)),
    };
    format!(
        "GET {path} HTTP/1.1\r\nUser-Agent: aria2/1.36.0\r\nAccept: */*{types}\r\nHost: {to}\r\n\
         {range}Want-Digest: SHA-512;q=1, SHA-256;q=1, SHA;q=0.1\r\n\r\n"
    )
}

/// The pieces of a file, and who has which.
#[derive(Debug)]
struct Pieces {
    total: u64,
    taken: Vec<bool>,
    file: Vec<u8>,
    done: usize,
    /// What ended connections before their time.
    ended: Vec<u16>,
}

impl Pieces {
    fn new(total: u64) -> Self {
        let count = total.div_ceil(PIECE) as usize;
        let file = vec![0; total as usize];
        Self { total, taken: vec![false; count], file, done: 0, ended: Vec::new() }
    }

    /// This piece, where nobody has it.
    fn take(&mut self, piece: usize) -> bool {
        let free = self.taken.get(piece) == Some(&false);
        if free {
            self.taken[piece] = true;
        }
        free
    }

    fn take_any(&mut self) -> Option<usize> {
        let piece = self.taken.iter().position(|taken| !taken)?;
        self.taken[piece] = true;
        Some(piece)
    }

    fn range(&self, piece: usize) -> (u64, u64) {
        let start = piece as u64 * PIECE;
        (start, (start + PIECE).min(self.total))
    }

    fn put(&mut self, piece: usize, bytes: &[u8]) {
        let (start, end) = self.range(piece);
        self.file[start as usize..end as usize].copy_from_slice(bytes);
        self.done += 1;
    }
}

type Shared = Arc<Mutex<Pieces>>;

/// The connections that ask for parts. A 200 to a range ends one for good, and so does a 503
/// without `--retry-wait`; what it had is another one's then.
async fn parts(
    mut wire: Wire,
    mut piece: Option<usize>,
    name: String,
    file: Shared,
    to: SocketAddr,
) {
    loop {
        let next = piece.take().or_else(|| file.lock().unwrap().take_any());
        let Some(at) = next else { return };
        let (start, end) = file.lock().unwrap().range(at);
        let total = file.lock().unwrap().total;
        let first = wire.ask(&request(SHORT_FULL, Some((start, end)), to)).await;
        assert_eq!(location(&first), format!("/{name}"), "the file that was begun");
        let mut answer = wire.begin(&request(&format!("/{name}"), Some((start, end)), to)).await;
        if [200, 503].contains(&answer.status) {
            let mut file = file.lock().unwrap();
            file.ended.push(answer.status);
            file.taken[at] = false;
            return;
        }
        wire.finish(&mut answer).await;
        assert_part(&answer, start, end, total);
        file.lock().unwrap().put(at, &answer.body);
    }
}

/// The first connection: from the start on, up to where another one has begun.
async fn beginning(mut wire: Wire, mut answer: Answer, file: &Shared) {
    let mut piece = 0;
    loop {
        let (start, end) = file.lock().unwrap().range(piece);
        wire.read_to(&mut answer, end).await;
        assert_eq!(answer.ended, Ended::Whole, "{}", answer.head);
        let mut file = file.lock().unwrap();
        file.put(piece, &answer.body[start as usize..end as usize]);
        piece += 1;
        if !file.take(piece) {
            return;
        }
    }
}

/// A file, and what ended connections.
struct Download {
    file: Vec<u8>,
    ended: Vec<u16>,
}

/// All of it. `meanwhile` happens once the length is known.
async fn download(to: SocketAddr, number: u8, meanwhile: impl AsyncFnOnce()) -> Download {
    let mut wire = Wire::from(number, to).await;
    let first = wire.ask(&request(SHORT_FULL, None, to)).await;
    let path = location(&first);
    let name = path.rsplit('/').next().expect("a name").to_owned();
    let answer = wire.begin(&request(&path, None, to)).await;
    assert_eq!(answer.status, 200, "{}", answer.head);
    super::assert_untouched(&answer);
    let file = Arc::new(Mutex::new(Pieces::new(answer.length())));
    meanwhile().await;
    assert!((0..CONNECTIONS).all(|piece| file.lock().unwrap().take(piece)));
    let mut others = Vec::new();
    for piece in 1..CONNECTIONS {
        let wire = Wire::from(number, to).await;
        others.push(tokio::spawn(parts(wire, Some(piece), name.clone(), Arc::clone(&file), to)));
    }
    beginning(wire, answer, &file).await;
    for other in others {
        other.await.expect("what it got was right");
    }
    // What was left behind by a connection that ended is asked for by one that goes on; here that
    // is a new one, of which the real program does not open more than it had.
    parts(Wire::from(number, to).await, None, name, Arc::clone(&file), to).await;
    let Pieces { file, done, taken, ended, .. } = {
        let mut pieces = file.lock().unwrap();
        std::mem::replace(&mut *pieces, Pieces::new(0))
    };
    assert_eq!(done, taken.len(), "every piece, after {ended:?}");
    Download { file, ended }
}

#[tokio::test(flavor = "multi_thread")]
async fn aria2_puts_a_cached_archive_together() {
    let name = full_name();
    let stage = Stage::with("", Program::Agave, Cache::Warm, &[(&name, CONTENT)]).await;
    let got = download(stage.edge.address, 1, async || {}).await;
    assert_eq!(got.ended, [0; 0]);
    assert!(got.file == CONTENT.all(), "other bytes");
    stage.assert_from_memory();
}

/// Two sidecars have the same name and other bytes, and publish a newer archive in the middle of
/// it.
#[tokio::test(flavor = "multi_thread")]
async fn aria2_gets_one_copy_of_one_archive_without_a_cache() {
    let name = full_name();
    let copies = [CONTENT, Content { seed: 6, ..CONTENT }];
    let a = Origin::run(Program::Sidecar, &[(&name, copies[0])]).await;
    let b = Origin::run(Program::Sidecar, &[(&name, copies[1])]).await;
    let edge = Edge::start(&probed("100ms", "limits: {per_target: 64}", &[&a, &b]));
    edge.knows(&a).await;
    edge.knows(&b).await;
    let got = download(edge.address, 1, async || {
        a.add(&full(2000), Content::new(9, 1000));
        edge.knows(&a).await;
    })
    .await;
    assert_eq!(got.ended, [0; 0]);
    assert!(copies.iter().any(|copy| copy.all() == got.file), "a mixture");
}

/// A target may carry four transfers here, and the others that wait too long are refused. What was
/// not refused goes on to the end.
#[tokio::test(flavor = "multi_thread")]
async fn aria2_ends_with_a_whole_file_where_some_connections_are_refused() {
    let name = full_name();
    let limits = "limits: {per_target: 4, queue_wait: 100ms}";
    let stage = Stage::with(limits, Program::Sidecar, Cache::Off, &[(&name, CONTENT)]).await;
    // So that a piece takes longer than anybody waits.
    stage.origin.slow_to(4 * PIECE);
    let got = download(stage.edge.address, 1, async || {}).await;
    assert!(got.ended.iter().all(|status| *status == 503), "{:?}", got.ended);
    assert!(got.file == CONTENT.all(), "other bytes");
}

/// A node knows no ranges: each connection but the first is answered with everything, which it does
/// not take.
#[tokio::test(flavor = "multi_thread")]
async fn aria2_falls_back_to_one_connection_before_a_node() {
    let name = full_name();
    let limits = "limits: {per_target: 64}";
    let stage = Stage::with(limits, Program::Agave, Cache::Off, &[(&name, CONTENT)]).await;
    let to = stage.edge.address;
    let mut wire = stage.wire().await;
    let first = wire.ask(&request(SHORT_FULL, None, to)).await;
    let path = location(&first);
    let mut answer = wire.begin(&request(&path, None, to)).await;
    let mut others = Vec::new();
    for piece in 1..CONNECTIONS as u64 {
        let mut other = stage.wire().await;
        let range = Some((piece * PIECE, (piece + 1) * PIECE));
        let first = other.ask(&request(SHORT_FULL, range, to)).await;
        assert_eq!(location(&first), path);
        let refused = other.begin(&request(&path, range, to)).await;
        assert_eq!((refused.status, refused.length()), (200, CONTENT.len), "{}", refused.head);
        others.push(other);
    }
    drop(others);
    wire.finish(&mut answer).await;
    assert_archive(&answer, CONTENT, "the first one");
}

/// While the archive is being fetched once for all: parts come out of the growing file or from the
/// target, and where neither can be had the first connection gets everything.
#[tokio::test(flavor = "multi_thread")]
async fn aria2_puts_an_archive_together_that_is_being_fetched() {
    for program in [Program::Agave, Program::Sidecar] {
        let directory = tempfile::tempdir().expect("a directory");
        let name = full_name();
        let more = caching(directory.path(), ", sharing: shared");
        let more = format!("limits: {{per_target: 64}}\n{more}");
        let stage = Stage::with(&more, program, Cache::Off, &[(&name, CONTENT)]).await;
        stage.origin.slow_to(32 * PIECE);
        let got = download(stage.edge.address, 1, async || {}).await;
        assert!(got.file == CONTENT.all(), "{program:?}: other bytes");
        assert!(got.ended.iter().all(|status| *status == 200), "{:?}", got.ended);
    }
}
