//! The two ports of Firedancer: its snapshot server, and the RPC port that redirects there.

use std::io;
use std::net::SocketAddr;

use snapedge::route::{ContentRange, RangeRequest};
use snapedge::snapshot::ArchiveName;
use tokio::net::TcpStream;

use super::super::body::Content;
use super::super::server::{Next, Request};
use super::{Node, reply};

impl Node {
    pub(super) async fn firedancer_snapshots(
        &self,
        request: &Request,
        stream: &mut TcpStream,
    ) -> io::Result<Next> {
        let none = [("Content-Length", "0".to_owned())];
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            reply(stream, request, "500 Internal Server Error", &none, b"").await?;
            return Ok(Next::Close);
        }
        if request.header("content-length").is_some_and(|length| length != "0") {
            return reply(stream, request, "400 Bad Request", &none, b"").await;
        }
        let slashes = request.target.len() - request.target.trim_start_matches('/').len();
        let name = &request.target[slashes..];
        let best = match name {
            _ if slashes > 16 => return reply(stream, request, "404 Not Found", &none, b"").await,
            "snapshot.tar.zst" | "snapshot.tar.bz2" => Some(self.newest(ArchiveName::is_full)),
            // Chosen without regard to the full one.
            "incremental-snapshot.tar.zst" | "incremental-snapshot.tar.bz2" => {
                Some(self.newest(|name| !name.is_full()))
            }
            _ => None,
        };
        if let Some(best) = best {
            let Some(best) = best else {
                return reply(stream, request, "404 Not Found", &none, b"").await;
            };
            let headers = [("Location", format!("/{best}")), none[0].clone()];
            return reply(stream, request, "302 Found", &headers, b"").await;
        }
        let Some(content) = self.content(name) else {
            return reply(stream, request, "404 Not Found", &none, b"").await;
        };
        if let Some(next) = self.archive_fault(request, content, stream).await? {
            return Ok(next);
        }
        let media = if name.ends_with(".zst") { "application/zstd" } else { "application/x-tar" };
        let mut headers =
            vec![("Content-Type", media.to_owned()), ("Accept-Ranges", "bytes".to_owned())];
        let asked = match request.header("range") {
            Some(value) if request.method == "GET" => Some(RangeRequest::parse(value)),
            _ => None,
        };
        match asked {
            None => {
                headers.push(("Content-Length", content.len.to_string()));
                self.send(stream, request, "200 OK", headers, content, 0).await
            }
            Some(RangeRequest::Single(spec)) => match spec.resolve(content.len) {
                Some(range) => {
                    let place = ContentRange { range: Some(range), total: content.len };
                    headers.push(("Content-Length", range.len().to_string()));
                    headers.push(("Content-Range", place.to_string()));
                    let part = Content { len: range.end(), ..content };
                    let status = "206 Partial Content";
                    self.send(stream, request, status, headers, part, range.start()).await
                }
                None => {
                    let place = ("Content-Range", format!("bytes */{}", content.len));
                    let headers = [place, none[0].clone()];
                    reply(stream, request, "416 Range Not Satisfiable", &headers, b"").await
                }
            },
            Some(_) => reply(stream, request, "400 Bad Request", &none, b"").await,
        }
    }

    pub(super) async fn firedancer_rpc(
        &self,
        request: &Request,
        to: SocketAddr,
        stream: &mut TcpStream,
    ) -> io::Result<Next> {
        if request.method == "HEAD" {
            return Ok(Next::Close);
        }
        let path = request.path();
        let none = ("Content-Length", "0".to_owned());
        if path.starts_with("/snapshot") || path.starts_with("/incremental-snapshot") {
            let headers = [("Location", format!("http://{to}{path}")), none];
            return reply(stream, request, "302 Found", &headers, b"").await;
        }
        reply(stream, request, "404 Not Found", &[none], b"").await
    }
}
