//! An origin that answers as the sidecar of rpcpool/solana-cluster does: a listing, and archives
//! with times and single ranges. Its short names are left out; no edge asks for them.

use std::time::SystemTime;

use http::header::{
    ACCEPT_RANGES, CONTENT_RANGE, CONTENT_TYPE, HeaderName, IF_RANGE, LAST_MODIFIED, RANGE,
};
use http::{Method, StatusCode};
use pingora::http::RequestHeader;
use serde::Serialize;

use super::answer::Answer;
use super::shelf::{Holding, Shelf};
use crate::route::{ByteRange, ContentRange, RangeRequest};
use crate::snapshot::{ArchiveName, Slot};

/// An archive with what it needs below it, in the words of the listing.
#[derive(Serialize)]
struct Info {
    slot: Slot,
    base_slot: Slot,
    hash: String,
    /// The archive first, the full one last.
    files: Vec<File>,
    size: u64,
}

#[derive(Serialize)]
struct File {
    #[serde(rename = "file_name")]
    name: String,
    slot: Slot,
    /// Left out for a full archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    base_slot: Option<Slot>,
    hash: String,
    ext: String,
    mod_time: String,
    size: u64,
}

/// Answers one request.
pub(super) async fn answer(shelf: &Shelf, request: &RequestHeader) -> Answer {
    let path = request.uri.path();
    match request.method {
        Method::GET if path == "/v1/snapshots" => listing(&shelf.holdings()),
        Method::GET | Method::HEAD => match path.strip_prefix("/v1/snapshot/") {
            Some(name) => archive(shelf, name.parse().ok(), request).await,
            None => not_found("404 page not found"),
        },
        _ => not_found("404 page not found"),
    }
}

/// Everything, the best first.
fn listing(holdings: &[Holding]) -> Answer {
    let infos: Vec<Info> = holdings.iter().map(|holding| info(holding, holdings)).collect();
    match serde_json::to_string(&infos) {
        Ok(body) => {
            Answer::text(StatusCode::OK, body).with(CONTENT_TYPE, "application/json; charset=utf-8")
        }
        Err(_) => Answer::text(StatusCode::INTERNAL_SERVER_ERROR, ""),
    }
}

fn info(holding: &Holding, all: &[Holding]) -> Info {
    let name = holding.name;
    let below = |full: &&Holding| {
        !name.is_full() && full.name.is_full() && full.name.slot() == name.base_slot()
    };
    let files: Vec<File> =
        std::iter::once(holding).chain(all.iter().find(below)).map(file).collect();
    Info {
        slot: name.slot(),
        base_slot: name.base_slot(),
        hash: name.hash().to_string(),
        size: files.iter().map(|file| file.size).sum(),
        files,
    }
}

fn file(holding: &Holding) -> File {
    let name = holding.name;
    File {
        name: name.to_string(),
        slot: name.slot(),
        base_slot: (!name.is_full()).then(|| name.base_slot()),
        hash: name.hash().to_string(),
        ext: format!(".{}", name.compression().extension()),
        mod_time: timestamp(holding.modified),
        size: holding.size,
    }
}

fn timestamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).unwrap_or_default().to_string()
}

/// An archive, or the one range of it that is asked for.
async fn archive(shelf: &Shelf, name: Option<ArchiveName>, request: &RequestHeader) -> Answer {
    let missing = || not_found("snapshot not found");
    let Some(name) = name else { return missing() };
    let Some((holding, file)) = shelf.open(name).await else { return missing() };
    let Some(whole) = ByteRange::new(0, holding.size) else { return missing() };
    let modified = httpdate::fmt_http_date(holding.modified);
    let total = holding.size;
    let answer = match wanted(request, &modified) {
        RangeRequest::Whole | RangeRequest::Multiple(_) => {
            Answer::file(StatusCode::OK, file, whole)
        }
        RangeRequest::Single(spec) => {
            let Some(range) = spec.resolve(total) else { return unsatisfiable(total) };
            let content_range = ContentRange { range: Some(range), total };
            Answer::file(StatusCode::PARTIAL_CONTENT, file, range)
                .with(CONTENT_RANGE, content_range.to_string())
        }
    };
    answer
        .with(ACCEPT_RANGES, "bytes")
        .with(CONTENT_TYPE, "application/octet-stream")
        .with(LAST_MODIFIED, modified)
}

fn unsatisfiable(total: u64) -> Answer {
    Answer::text(StatusCode::RANGE_NOT_SATISFIABLE, "invalid range: failed to overlap\n")
        .plain()
        .with(CONTENT_RANGE, ContentRange { range: None, total }.to_string())
}

/// The range that counts: none where its condition names another time.
fn wanted(request: &RequestHeader, modified: &str) -> RangeRequest {
    let value = |name: HeaderName| request.headers.get(name)?.to_str().ok();
    if value(IF_RANGE).is_some_and(|condition| condition != modified) {
        return RangeRequest::Whole;
    }
    value(RANGE).map_or(RangeRequest::Whole, RangeRequest::parse)
}

fn not_found(text: &str) -> Answer {
    Answer::text(StatusCode::NOT_FOUND, text).plain()
}
