//! `solana-cluster sidecar`.

use std::io;

use snapedge::route::{ContentRange, RangeRequest};
use snapedge::snapshot::ArchiveName;
use tokio::net::TcpStream;

use super::super::body::Content;
use super::super::server::{Next, Request};
use super::{Node, date, modified, reply};

impl Node {
    pub(super) async fn sidecar(
        &self,
        request: &Request,
        stream: &mut TcpStream,
    ) -> io::Result<Next> {
        if let Some(next) = self.probe_fault(request, stream).await? {
            return Ok(next);
        }
        let plain = |body: &str| {
            [
                ("Content-Type", "text/plain; charset=utf-8".to_owned()),
                ("Content-Length", body.len().to_string()),
                ("Date", date().1),
            ]
        };
        let nothing = "404 page not found";
        match request.path() {
            "/v1/snapshots" if request.method == "GET" => {
                let body = self.listing();
                let headers = [
                    ("Content-Type", "application/json; charset=utf-8".to_owned()),
                    ("Content-Length", body.len().to_string()),
                    ("Date", date().1),
                ];
                reply(stream, request, "200 OK", &headers, body.as_bytes()).await
            }
            "/v1/snapshot.tar.bz2" | "/v1/snapshot.tar.zst" => {
                match self.newest(ArchiveName::is_full) {
                    Some(name) => self.serve_content(&name.to_string(), request, stream).await,
                    None => {
                        let body = "no snapshot available";
                        let status = "202 Accepted";
                        reply(stream, request, status, &plain(body), body.as_bytes()).await
                    }
                }
            }
            path => match path.strip_prefix("/v1/snapshot/") {
                Some(name) if self.content(name).is_some() && !name.ends_with(".lz4") => {
                    self.serve_content(name, request, stream).await
                }
                Some(_) => {
                    let body = "snapshot not found";
                    reply(stream, request, "404 Not Found", &plain(body), body.as_bytes()).await
                }
                None => {
                    let headers = plain(nothing);
                    reply(stream, request, "404 Not Found", &headers, nothing.as_bytes()).await
                }
            },
        }
    }

    fn listing(&self) -> String {
        let state = self.state.lock().unwrap();
        let mut names: Vec<ArchiveName> =
            state.archives.keys().filter_map(|name| name.parse().ok()).collect();
        names.sort_by(|a, b| b.cmp(a));
        let file = |name: &ArchiveName| {
            let mut file = serde_json::json!({
                "file_name": name.to_string(),
                "slot": name.slot(),
                "hash": name.hash().to_string(),
                "ext": format!(".{}", name.compression().extension()),
                "mod_time": "2026-09-21T14:13:20.123456789Z",
                "size": state.archives[&name.to_string()].len,
            });
            if !name.is_full() {
                file["base_slot"] = serde_json::json!(name.base_slot());
            }
            file
        };
        let infos = names.iter().map(|name| {
            let base = names.iter().find(|other| {
                other.is_full() && !name.is_full() && other.slot() == name.base_slot()
            });
            let files: Vec<_> = std::iter::once(name).chain(base).map(file).collect();
            serde_json::json!({
                "slot": name.slot(), "base_slot": name.base_slot(),
                "hash": name.hash().to_string(), "files": files, "size": 0,
            })
        });
        serde_json::Value::from(infos.collect::<Vec<_>>()).to_string()
    }

    /// What Go's `http.ServeContent` does.
    async fn serve_content(
        &self,
        name: &str,
        request: &Request,
        stream: &mut TcpStream,
    ) -> io::Result<Next> {
        let Some(content) = self.content(name) else { return Ok(Next::Close) };
        if let Some(next) = self.archive_fault(request, content, stream).await? {
            return Ok(next);
        }
        let changed = ("Last-Modified", httpdate::fmt_http_date(modified()));
        let common = [("Accept-Ranges", "bytes".to_owned()), changed, ("Date", date().1)];
        let condition =
            request.header("if-range").map(|value| httpdate::parse_http_date(value).ok());
        let asked = request.header("range").map_or(RangeRequest::Whole, RangeRequest::parse);
        let asked = match condition {
            Some(condition) if condition != Some(modified()) => RangeRequest::Whole,
            _ => asked,
        };
        match asked {
            RangeRequest::Whole => {
                let mut headers = common.to_vec();
                headers.push(("Content-Type", "application/zstd".to_owned()));
                headers.push(("Content-Length", content.len.to_string()));
                self.send(stream, request, "200 OK", headers, content, 0).await
            }
            RangeRequest::Single(spec) => match spec.resolve(content.len) {
                Some(range) => {
                    let mut headers = common.to_vec();
                    let place = ContentRange { range: Some(range), total: content.len };
                    headers.push(("Content-Type", "application/zstd".to_owned()));
                    headers.push(("Content-Length", range.len().to_string()));
                    headers.push(("Content-Range", place.to_string()));
                    let part = Content { len: range.end(), ..content };
                    let status = "206 Partial Content";
                    self.send(stream, request, status, headers, part, range.start()).await
                }
                None => {
                    let body = "invalid range: failed to overlap\n";
                    let headers = [
                        ("Content-Range", format!("bytes */{}", content.len)),
                        ("Content-Length", body.len().to_string()),
                        ("Content-Type", "text/plain; charset=utf-8".to_owned()),
                    ];
                    let status = "416 Requested Range Not Satisfiable";
                    reply(stream, request, status, &headers, body.as_bytes()).await
                }
            },
            RangeRequest::Multiple(_) => {
                let body = in_parts(request.header("range").unwrap_or_default(), content);
                let mut headers = common.to_vec();
                let multipart = "multipart/byteranges; boundary=BOUNDARY".to_owned();
                headers.push(("Content-Type", multipart));
                headers.push(("Content-Length", body.len().to_string()));
                reply(stream, request, "206 Partial Content", &headers, &body).await
            }
        }
    }
}

fn in_parts(range: &str, content: Content) -> Vec<u8> {
    let mut body = Vec::new();
    let set = range.split_once('=').map_or("", |(_, set)| set);
    for text in set.split(',') {
        let RangeRequest::Single(spec) = RangeRequest::parse(&format!("bytes={}", text.trim()))
        else {
            continue;
        };
        let Some(range) = spec.resolve(content.len) else { continue };
        let place = ContentRange { range: Some(range), total: content.len };
        body.extend_from_slice(format!("--BOUNDARY\r\ncontent-range: {place}\r\n\r\n").as_bytes());
        body.extend_from_slice(&content.bytes(range.start(), range.end()));
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--BOUNDARY--\r\n");
    body
}
