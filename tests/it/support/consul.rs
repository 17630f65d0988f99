//! Consul's health endpoint, as far as it is asked: ACL token, datacenter, filter, health, and
//! queries that wait for a change.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::server::{Handler, Next, Request, Server, head};
use super::trouble::Trouble;

/// The one expression that filters, and what it stands for.
pub const FILTER: &str = r#""snapshots" in Service.Tags"#;
const TAG: &str = "snapshots";
/// The service and the datacenter that there are.
pub const SERVICE: &str = "solana main/net";
pub const DATACENTER: &str = "dc1";

/// One instance of the service.
#[derive(Clone, Debug)]
pub struct Instance {
    pub node: String,
    pub address: String,
    pub port: u16,
    pub passing: bool,
    pub tags: Vec<&'static str>,
}

impl Instance {
    /// A healthy one with its own address on a node that cannot be reached.
    pub fn at(address: std::net::SocketAddr) -> Self {
        Self {
            node: "192.0.2.1".to_owned(),
            address: address.ip().to_string(),
            port: address.port(),
            passing: true,
            tags: vec![TAG],
        }
    }
}

#[derive(Debug, Default)]
pub struct State {
    pub instances: Vec<Instance>,
    pub index: u64,
    /// Without it everybody may ask.
    pub token: Option<String>,
    /// What becomes of requests, those that wait included.
    pub trouble: Option<Trouble>,
    pub seen: Vec<Request>,
    /// Requests that wait for a change.
    pub waiting: usize,
}

pub struct Agent {
    pub state: Mutex<State>,
    changes: watch::Sender<()>,
}

/// A running agent.
pub type Consul = Server<Agent>;

impl Consul {
    pub async fn run() -> Self {
        let state = State { index: 10, ..State::default() };
        Self::start(Agent { state: Mutex::new(state), changes: watch::Sender::default() }).await
    }

    /// Changes something, and wakes those that wait, who look whether it is what they wait for.
    pub fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.handler.state.lock().unwrap());
        self.handler.changes.send_replace(());
    }

    /// Other instances, and so another index.
    pub fn set(&self, instances: Vec<Instance>) {
        self.change(|state| {
            state.instances = instances;
            state.index += 1;
        });
    }

    pub fn trouble(&self, trouble: impl Into<Option<Trouble>>) {
        self.change(|state| state.trouble = trouble.into());
    }

    pub fn seen(&self) -> Vec<Request> {
        self.handler.state.lock().unwrap().seen.clone()
    }

    pub fn waiting(&self) -> usize {
        self.handler.state.lock().unwrap().waiting
    }
}

/// The pairs of a request's query, decoded.
pub fn pairs(request: &Request) -> BTreeMap<String, String> {
    let query = request.target.split_once('?').map_or("", |(_, query)| query);
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

impl Handler for Agent {
    async fn handle(&self, request: Request, stream: &mut TcpStream) -> io::Result<Next> {
        self.state.lock().unwrap().seen.push(request.clone());
        let pairs = pairs(&request);
        if let Some((status, message)) = self.refusal(&request, &pairs) {
            return answer(stream, status, 0, message).await;
        }
        if let Some(index) = pairs.get("index").and_then(|index| index.parse::<u64>().ok()) {
            let wait = pairs.get("wait").and_then(|wait| wait.strip_suffix("ms")?.parse().ok());
            let wait = Duration::from_millis(wait.expect("a wait in milliseconds"));
            self.wait(index, wait).await;
        }
        let (trouble, index) = {
            let state = self.state.lock().unwrap();
            (state.trouble.clone(), state.index)
        };
        match trouble {
            Some(trouble) => trouble.answer(stream).await,
            None => answer(stream, "200 OK", index, &self.entries(&pairs)).await,
        }
    }
}

impl Agent {
    fn refusal(
        &self,
        request: &Request,
        pairs: &BTreeMap<String, String>,
    ) -> Option<(&'static str, &'static str)> {
        let state = self.state.lock().unwrap();
        if request.path() != "/v1/health/service/solana%20main%2Fnet" || request.method != "GET" {
            return Some(("404 Not Found", "no such endpoint"));
        }
        if state
            .token
            .as_deref()
            .is_some_and(|token| request.header("x-consul-token") != Some(token))
        {
            return Some(("403 Forbidden", "Permission denied"));
        }
        if pairs.get("dc").is_some_and(|dc| dc != DATACENTER) {
            return Some(("500 Internal Server Error", "No path to datacenter"));
        }
        if pairs.get("filter").is_some_and(|filter| filter != FILTER) {
            return Some(("400 Bad Request", "Failed to create boolean expression evaluator"));
        }
        None
    }

    /// Until the index is above this one, there is trouble, or the time is over.
    async fn wait(&self, index: u64, wait: Duration) {
        let mut news = self.changes.subscribe();
        self.state.lock().unwrap().waiting += 1;
        let _leaves = Leaves(self);
        let changed = news.wait_for(|()| {
            let state = self.state.lock().unwrap();
            state.index > index || state.trouble.is_some()
        });
        let _ = tokio::time::timeout(wait, changed).await;
    }

    fn entries(&self, pairs: &BTreeMap<String, String>) -> String {
        let state = self.state.lock().unwrap();
        let passing = pairs.get("passing").is_some_and(|passing| passing == "true");
        let filtered = pairs.contains_key("filter");
        let wanted = state.instances.iter().filter(|instance| {
            (instance.passing || !passing) && (!filtered || instance.tags.contains(&TAG))
        });
        let entries = wanted.map(|instance| {
            serde_json::json!({
                "Node": { "Node": "n", "Address": instance.node, "Datacenter": DATACENTER },
                "Service": {
                    "Service": SERVICE,
                    "Tags": instance.tags,
                    "Address": instance.address,
                    "Port": instance.port,
                },
                "Checks": [{ "Status": if instance.passing { "passing" } else { "critical" } }],
            })
        });
        entries.collect::<serde_json::Value>().to_string()
    }
}

/// Counts a request that waits down, also where it is dropped.
struct Leaves<'a>(&'a Agent);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().waiting -= 1;
    }
}

async fn answer(stream: &mut TcpStream, status: &str, index: u64, body: &str) -> io::Result<Next> {
    let headers = [
        ("X-Consul-Index", index.to_string()),
        ("content-type", "application/json".to_owned()),
        ("content-length", body.len().to_string()),
    ];
    stream.write_all(&head(status, &headers)).await?;
    stream.write_all(body.as_bytes()).await?;
    Ok(Next::KeepAlive)
}
