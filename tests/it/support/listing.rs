//! A server of Prometheus' HTTP service discovery.

use std::io;
use std::sync::Mutex;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::server::{Handler, Next, Request, Server, head};
use super::trouble::Trouble;

#[derive(Debug, Default)]
pub struct State {
    pub targets: Vec<String>,
    pub trouble: Option<Trouble>,
    /// The body, whatever the targets.
    pub says: Option<String>,
    /// Status and `location` of every answer but that at the location.
    pub moved: Option<(u16, String)>,
    pub seen: Vec<Request>,
}

pub struct List {
    pub state: Mutex<State>,
}

/// A running server of targets.
pub type Listing = Server<List>;

impl Listing {
    pub async fn run() -> Self {
        Self::start(List { state: Mutex::default() }).await
    }

    pub fn name(&self, targets: Vec<String>) {
        self.handler.state.lock().unwrap().targets = targets;
    }

    /// Answers with this from now on.
    pub fn say(&self, body: impl Into<Option<String>>) {
        self.handler.state.lock().unwrap().says = body.into();
    }

    /// Is at this location from now on.
    pub fn move_to(&self, status: u16, location: &str) {
        self.handler.state.lock().unwrap().moved = Some((status, location.to_owned()));
    }

    pub fn trouble(&self, trouble: impl Into<Option<Trouble>>) {
        self.handler.state.lock().unwrap().trouble = trouble.into();
    }

    pub fn seen(&self) -> Vec<Request> {
        self.handler.state.lock().unwrap().seen.clone()
    }
}

impl Handler for List {
    async fn handle(&self, request: Request, stream: &mut TcpStream) -> io::Result<Next> {
        let (targets, trouble, says, moved) = {
            let mut state = self.state.lock().unwrap();
            state.seen.push(request.clone());
            let State { targets, trouble, says, moved, .. } = &*state;
            (targets.clone(), trouble.clone(), says.clone(), moved.clone())
        };
        if let Some((status, to)) = moved.filter(|(_, to)| !to.ends_with(&request.target)) {
            let headers = [("location", to), ("content-length", "0".to_owned())];
            stream.write_all(&head(&format!("{status} Moved"), &headers)).await?;
            return Ok(Next::KeepAlive);
        }
        if let Some(trouble) = trouble {
            return trouble.answer(stream).await;
        }
        let blocks = targets.iter().map(|target| {
            serde_json::json!({ "targets": [target], "labels": { "__meta_region": "eu" } })
        });
        let body = says.unwrap_or_else(|| blocks.collect::<serde_json::Value>().to_string());
        let headers = [
            ("content-type", "application/json".to_owned()),
            ("content-length", body.len().to_string()),
        ];
        stream.write_all(&head("200 OK", &headers)).await?;
        stream.write_all(body.as_bytes()).await?;
        Ok(Next::KeepAlive)
    }
}
