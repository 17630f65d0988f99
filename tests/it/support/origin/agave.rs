//! The RPC port of Agave and Jito.

use std::io;

use snapedge::snapshot::ArchiveName;
use tokio::net::TcpStream;

use super::super::body::Content;
use super::super::server::{Next, Request};
use super::{Node, date, reply};

/// What Agave says to everything that it has no page for.
const NOT_ALLOWED: &str = "Used HTTP Method is not allowed. POST or OPTIONS is required\n";

/// That of mainnet.
pub const GENESIS_HASH: &str = "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d";

impl Node {
    pub(super) async fn agave(
        &self,
        request: &Request,
        stream: &mut TcpStream,
    ) -> io::Result<Next> {
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
        if path == "/genesis.tar.bz2" && state_genesis == 0 {
            return agave_404(request, stream).await;
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
        let answer = match &asked {
            serde_json::Value::Array(calls) => calls.iter().map(|call| self.call(call)).collect(),
            call => self.call(call),
        };
        let says = self.state.lock().unwrap().says.clone();
        let body = says.unwrap_or_else(|| answer.to_string());
        let headers = [
            ("content-type", "application/json; charset=utf-8".to_owned()),
            ("content-length", body.len().to_string()),
            date(),
        ];
        reply(stream, request, "200 OK", &headers, body.as_bytes()).await
    }

    fn call(&self, asked: &serde_json::Value) -> serde_json::Value {
        let full = self.newest(ArchiveName::is_full);
        let result = match asked["method"].as_str() {
            Some("getHighestSnapshotSlot") => full.map(|full| {
                let on_full =
                    self.newest(|name| !name.is_full() && name.base_slot() == full.slot());
                let incremental = on_full.map(|name| name.slot().0);
                serde_json::json!({ "full": full.slot().0, "incremental": incremental })
            }),
            Some("getSlot") => full.map(|full| serde_json::json!(full.slot().0 + 10)),
            Some("getVersion") => Some(serde_json::json!({ "solana-core": "3.0.10" })),
            Some("getGenesisHash") => Some(serde_json::json!(GENESIS_HASH)),
            // A number that JSON can say and a double cannot.
            Some("getEpochInfo") => {
                serde_json::from_str(r#"{"epoch":18446744073709551615,"absoluteSlot":7}"#).ok()
            }
            Some("getIdentity") => {
                let genesis = self.state.lock().unwrap().genesis;
                Some(serde_json::json!({ "identity": genesis.to_string() }))
            }
            _ => None,
        };
        match result {
            Some(result) => {
                serde_json::json!({ "jsonrpc": "2.0", "result": result, "id": asked["id"] })
            }
            None => serde_json::json!({
                "jsonrpc": "2.0",
                "error": { "code": -32601, "message": "Method not found" },
                "id": asked["id"],
            }),
        }
    }
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
