//! A target that answers each request as a function says, for answers that no real server is
//! known to give and some will.

use std::io;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::body::Content;
use super::server::{Handler, Next, Request, Server, head};

/// What is said to one request.
#[derive(Clone, Debug)]
pub enum Said {
    /// A status, headers and a body. The length is said by the headers, or by nothing.
    Answer(&'static str, Vec<(&'static str, String)>, Vec<u8>),
    /// Nothing, for as long as the peer waits.
    Silence,
    /// Nothing, and the connection is closed.
    Closed,
}

impl Said {
    /// A status with a body of no bytes.
    pub fn status(status: &'static str) -> Self {
        Self::with(status, &[("content-length", "0")])
    }

    /// A status and headers, without a body.
    pub fn with(status: &'static str, headers: &[(&'static str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned()));
        Self::Answer(status, headers.collect(), Vec::new())
    }

    /// The bytes of an archive, or the part that is asked for, with these headers besides. In a
    /// `content-length` among them, `=` is the length, and `+` one byte more.
    pub fn archive(request: &Request, content: Content, more: &[(&'static str, &str)]) -> Self {
        let mut headers: Vec<_> =
            more.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let asked = request.header("range").and_then(|value| value.strip_prefix("bytes="));
        let asked = asked.and_then(|value| value.split_once('-'));
        let start = asked.and_then(|(first, _)| first.parse::<u64>().ok());
        let has_length = more.iter().any(|(name, _)| *name == "content-length");
        let (status, body) = match (start, asked) {
            (Some(start), Some((_, last))) => {
                let end = last.parse().map_or(content.len, |last: u64| content.len.min(last + 1));
                let place = format!("bytes {start}-{}/{}", end - 1, content.len);
                headers.push(("content-range", place));
                ("206 Partial Content", content.bytes(start, end))
            }
            _ => ("200 OK", content.all()),
        };
        let (length, more) = (body.len().to_string(), (body.len() + 1).to_string());
        for (_, value) in headers.iter_mut().filter(|(name, _)| *name == "content-length") {
            *value = value.replace('=', &length).replace('+', &more);
        }
        if !has_length {
            headers.push(("content-length", length));
        }
        Self::Answer(status, headers, body)
    }
}

/// What a sidecar lists that has this one archive.
pub fn listing(name: &str, size: u64, time: &str) -> Said {
    let file = serde_json::json!({ "file_name": name, "size": size, "mod_time": time });
    let body = serde_json::json!([{ "files": [file] }]).to_string();
    let headers = vec![
        ("content-type", "application/json".to_owned()),
        ("content-length", body.len().to_string()),
    ];
    Said::Answer("200 OK", headers, body.into_bytes())
}

type Script = dyn Fn(&Request) -> Said + Send + Sync;

pub struct Scripted {
    script: Box<Script>,
    seen: Mutex<Vec<Request>>,
}

impl Server<Scripted> {
    pub async fn script(script: impl Fn(&Request) -> Said + Send + Sync + 'static) -> Self {
        Self::start(Scripted { script: Box::new(script), seen: Mutex::default() }).await
    }

    /// How many requests with this method came for this path so far.
    pub fn heard(&self, method: &str, path: &str) -> usize {
        let seen = self.handler.seen.lock().unwrap();
        let ours = |request: &&Request| request.method == method && request.path().ends_with(path);
        seen.iter().filter(ours).count()
    }
}

impl Handler for Scripted {
    async fn handle(&self, request: Request, stream: &mut TcpStream) -> io::Result<Next> {
        self.seen.lock().unwrap().push(request.clone());
        match (self.script)(&request) {
            Said::Answer(status, headers, body) => {
                stream.write_all(&head(status, &headers)).await?;
                let chunked = headers.iter().any(|(name, _)| *name == "transfer-encoding");
                if request.method == "HEAD" {
                    return Ok(Next::KeepAlive);
                }
                if chunked {
                    stream.write_all(format!("{:x}\r\n", body.len()).as_bytes()).await?;
                    stream.write_all(&body).await?;
                    stream.write_all(b"\r\n0\r\n\r\n").await?;
                    return Ok(Next::KeepAlive);
                }
                stream.write_all(&body).await?;
                let framed = headers.iter().any(|(name, _)| *name == "content-length");
                Ok(if framed { Next::KeepAlive } else { Next::Close })
            }
            Said::Silence => {
                while stream.read(&mut [0; 1024]).await? > 0 {}
                Ok(Next::Close)
            }
            Said::Closed => Ok(Next::Close),
        }
    }
}
