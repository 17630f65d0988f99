//! Log messages for operators: targets and nodes that are of no use, requests, malformed requests.

mod clients;
mod reference;
mod targets;

use std::io;
use std::sync::Mutex;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::support::eventually;
use super::support::process::Running;
use super::support::server::{Handler, Next, Request, Server, head};

/// A server that answers everything in one way.
pub struct Web(Mutex<Reply>);

#[derive(Clone, Copy, Debug)]
pub struct Reply {
    pub status: u16,
    pub media: &'static str,
    pub body: &'static str,
    /// The only path that is answered so, and the others with 404.
    pub only: Option<&'static str>,
}

impl Reply {
    pub const fn new(status: u16, media: &'static str, body: &'static str) -> Self {
        Self { status, media, body, only: None }
    }

    pub const fn at(self, path: &'static str) -> Self {
        Self { only: Some(path), ..self }
    }
}

impl Web {
    pub async fn run(reply: Reply) -> Server<Self> {
        Server::start(Self(Mutex::new(reply))).await
    }

    pub fn set(&self, reply: Reply) {
        *self.0.lock().unwrap() = reply;
    }
}

impl Handler for Web {
    async fn handle(&self, request: Request, stream: &mut TcpStream) -> io::Result<Next> {
        let reply = *self.0.lock().unwrap();
        let is_it = reply.only.is_none_or(|only| request.path() == only);
        let Reply { status, media, body, .. } =
            if is_it { reply } else { Reply::new(404, "text/html", "<h1>404</h1>") };
        let headers =
            [("content-type", media.to_owned()), ("content-length", body.len().to_string())];
        stream.write_all(&head(&format!("{status} X"), &headers)).await?;
        if request.method != "HEAD" {
            stream.write_all(body.as_bytes()).await?;
        }
        Ok(Next::KeepAlive)
    }
}

/// Waits until a line of the log has all of these parts, and tells it.
pub async fn line(running: &Running, parts: &[&str]) -> String {
    let find = || {
        let log = running.log();
        let found = log.lines().find(|line| parts.iter().all(|part| line.contains(part)));
        found.map(str::to_owned)
    };
    eventually(&format!("a line with {parts:?}"), || {
        let found = find().is_some();
        async move { found }
    })
    .await;
    find().expect("it was there")
}

/// Lines of the log with all of these parts.
pub fn count(running: &Running, parts: &[&str]) -> usize {
    let log = running.log();
    log.lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
}
