//! The source of the archive: a sidecar with one archive, whose bytes are one pattern repeated.

use std::io::{BufRead, BufReader, Result, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::{LENGTH, NAME};

/// Bytes after which the archive repeats itself.
pub(super) const PATTERN: usize = 1 << 20;

/// What the archive consists of.
pub(super) fn pattern() -> Vec<u8> {
    let mut bytes = vec![0; PATTERN];
    ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut bytes);
    bytes
}

/// A running origin. It ends with the process.
pub(super) struct Origin {
    address: SocketAddr,
}

impl Origin {
    pub(super) fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let pattern = Arc::new(pattern());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let pattern = Arc::clone(&pattern);
                // A client that leaves is no concern of others.
                std::thread::spawn(move || answer(stream, &pattern).ok());
            }
        });
        Ok(Self { address })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Answers one request, after which the connection ends.
fn answer(mut stream: TcpStream, pattern: &[u8]) -> Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    // The rest of the head says nothing that matters here.
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let common = "connection: close\r\nlast-modified: Mon, 21 Sep 2026 14:13:20 GMT\r\n";
    if request.starts_with("GET /v1/snapshots ") {
        let time = "2026-09-21T14:13:20Z";
        let body = format!(
            r#"[{{"files": [{{"file_name": "{NAME}", "size": {LENGTH}, "mod_time": "{time}"}}]}}]"#
        );
        return write!(
            stream,
            "HTTP/1.1 200 OK\r\n{common}content-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
    }
    if !request.contains(&format!(" /v1/snapshot/{NAME} ")) {
        return write!(stream, "HTTP/1.1 404 Not Found\r\n{common}content-length: 0\r\n\r\n");
    }
    write!(
        stream,
        "HTTP/1.1 200 OK\r\n{common}content-type: application/zstd\r\n\
         content-length: {LENGTH}\r\n\r\n"
    )?;
    let mut rest = if request.starts_with("GET") { LENGTH as usize } else { 0 };
    while rest > 0 {
        let count = rest.min(pattern.len());
        stream.write_all(&pattern[..count])?;
        rest -= count;
    }
    Ok(())
}
