//! The client: one request on one connection, and the body thrown away.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};

use super::origin::{self, PATTERN};
use super::start::PATIENCE;
use super::{LENGTH, NAME};

/// Bytes that are read at once.
const BLOCK: usize = 256 << 10;

/// What of a body is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// How long it is.
    Length,
    /// Every byte.
    Bytes,
}

/// The head of an answer.
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) cache_status: String,
}

/// Asks for the head.
pub(super) fn head(server: SocketAddr) -> Result<Head> {
    Ok(ask("HEAD", server)?.0)
}

/// Takes the whole archive.
pub(super) fn download(server: SocketAddr, check: Check) -> Result<Head> {
    let (head, mut body) = ask("GET", server)?;
    ensure!(head.status == 200, "status {}", head.status);
    let expected = (check == Check::Bytes).then(origin::pattern);
    let mut block = vec![0; BLOCK];
    let mut received = 0;
    loop {
        let count = body.read(&mut block).context("it broke off")?;
        if count == 0 {
            break;
        }
        if let Some(expected) = &expected {
            let at = received % PATTERN;
            let mut rest = expected.iter().cycle().skip(at);
            ensure!(block[..count].iter().all(|byte| rest.next() == Some(byte)), "other bytes");
        }
        received += count;
    }
    ensure!(received == usize::try_from(LENGTH)?, "{received} bytes");
    Ok(head)
}

fn ask(method: &str, server: SocketAddr) -> Result<(Head, BufReader<TcpStream>)> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "{method} /{NAME} HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\n\r\n")?;
    // Reads that are larger than its buffer, which all of the body's are, go past it.
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let mut head = Head { status: status.context("no HTTP")?, cache_status: String::new() };
    loop {
        line.clear();
        ensure!(stream.read_line(&mut line)? > 0, "it broke off");
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        if name.eq_ignore_ascii_case("cache-status") {
            value.clone_into(&mut head.cache_status);
        }
    }
    Ok((head, stream))
}
