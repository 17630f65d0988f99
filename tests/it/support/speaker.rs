//! A node that is probed well, and says to everything else what a test wants it to.

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::server::{Handler, Next, Request, Server, head};

/// What is said to one request.
pub enum Say {
    /// A status, headers and a body with its length.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// These bytes, and then the end of the connection.
    Raw(Vec<u8>),
    /// Nothing for so long, and then that.
    Late(Duration, Box<Say>),
    /// These bytes, and then those again and again, with a pause before each.
    Endless(Vec<u8>, Vec<u8>, Duration),
    /// The end of the connection.
    Nothing,
}

impl Say {
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::Answer(200, Vec::new(), body.into())
    }

    pub fn status(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::Answer(status, Vec::new(), body.into())
    }

    /// To each call this result.
    pub fn result(request: &Request, result: impl Into<Value>) -> Self {
        let result = result.into();
        let to = |call: &Value| json!({ "jsonrpc": "2.0", "result": result, "id": call["id"] });
        Self::ok(match &asked(request) {
            Value::Array(calls) => calls.iter().map(to).collect::<Value>().to_string(),
            call => to(call).to_string(),
        })
    }
}

/// What a POST asks.
pub fn asked(request: &Request) -> Value {
    serde_json::from_slice(&request.body).unwrap_or_default()
}

type Script = Box<dyn Fn(&Request) -> Say + Send>;

/// A node with one archive.
pub struct Speaker {
    archive: String,
    script: Mutex<Script>,
    seen: Mutex<Vec<Request>>,
}

/// A running one.
pub type SpeakerNode = Server<Speaker>;

impl SpeakerNode {
    pub async fn run(archive: &str, script: impl Fn(&Request) -> Say + Send + 'static) -> Self {
        let script: Script = Box::new(script);
        let (script, archive) = (Mutex::new(script), archive.to_owned());
        Self::start(Speaker { archive, script, seen: Mutex::default() }).await
    }

    pub fn say(&self, script: impl Fn(&Request) -> Say + Send + 'static) {
        *self.handler.script.lock().unwrap() = Box::new(script);
    }

    /// Requests that were no probes.
    pub fn seen(&self) -> Vec<Request> {
        self.handler.seen.lock().unwrap().clone()
    }

    pub fn posts(&self) -> usize {
        self.seen().iter().filter(|request| request.method == "POST").count()
    }
}

/// A configuration with one group for each list of nodes, named `a`, `b` and so on.
pub fn config(extra: &str, groups: &[&[&SpeakerNode]]) -> String {
    let mut text = format!("{}{extra}\ntarget_groups:\n", super::edge::QUICK);
    for (group, nodes) in "abcdefgh".chars().zip(groups) {
        let targets: Vec<SocketAddr> = nodes.iter().map(|node| node.address()).collect();
        let targets: Vec<String> = targets.iter().map(|target| format!("'{target}'")).collect();
        let targets = targets.join(", ");
        text.push_str(&format!(
            "  - {{group: {group}, kind: rpc, static_targets: {{targets: [{targets}]}}}}\n"
        ));
    }
    text
}

impl Handler for Speaker {
    async fn handle(&self, request: Request, stream: &mut TcpStream) -> io::Result<Next> {
        let say = match request.path().trim_start_matches('/') {
            "snapshot.tar.bz2" => {
                Say::Answer(303, vec![("location", format!("/{}", self.archive))], Vec::new())
            }
            "incremental-snapshot.tar.bz2" => Say::status(404, ""),
            path if path == self.archive => Say::ok("archive"),
            _ => {
                let say = (self.script.lock().unwrap())(&request);
                self.seen.lock().unwrap().push(request.clone());
                say
            }
        };
        say.to(&request, stream).await
    }
}

impl Say {
    async fn to(mut self, request: &Request, stream: &mut TcpStream) -> io::Result<Next> {
        while let Self::Late(pause, then) = self {
            tokio::time::sleep(pause).await;
            self = *then;
        }
        match self {
            Self::Answer(status, mut headers, body) => {
                headers.push(("content-length", body.len().to_string()));
                let mut bytes = head(&format!("{status} Said"), &headers);
                if request.method != "HEAD" {
                    bytes.extend(body);
                }
                stream.write_all(&bytes).await?;
                Ok(Next::KeepAlive)
            }
            Self::Raw(bytes) => stream.write_all(&bytes).await.map(|()| Next::Close),
            Self::Endless(first, again, pause) => {
                stream.write_all(&first).await?;
                loop {
                    tokio::time::sleep(pause).await;
                    stream.write_all(&again).await?;
                }
            }
            Self::Nothing | Self::Late(..) => Ok(Next::Close),
        }
    }
}
