//! An origin that answers requests for archives as the RPC port of an Agave 3.0 node does: there
//! are no ranges and no times, only the length. Everything else of such a port (health, genesis,
//! JSON-RPC) is left out.

use http::header::LOCATION;
use http::{Method, StatusCode};
use pingora::http::RequestHeader;

use super::answer::Answer;
use super::shelf::Shelf;
use crate::route::ByteRange;
use crate::snapshot::ArchiveName;

/// Answers one request.
pub(super) async fn answer(shelf: &Shelf, request: &RequestHeader) -> Answer {
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return not_allowed();
    }
    match request.uri.path() {
        "/snapshot.tar.bz2" => redirect(shelf.full()),
        "/incremental-snapshot.tar.bz2" => redirect(shelf.incremental()),
        path => match path.strip_prefix('/').and_then(|name| name.parse().ok()) {
            Some(name) => archive(shelf, name).await,
            None => not_allowed(),
        },
    }
}

/// Where a short name leads. The body says it again, as a node's does.
fn redirect(name: Option<ArchiveName>) -> Answer {
    let Some(name) = name else { return not_found() };
    let location = format!("/{name}");
    Answer::text(StatusCode::SEE_OTHER, location.as_str()).with(LOCATION, location)
}

/// All of an archive, whatever part was asked for.
async fn archive(shelf: &Shelf, name: ArchiveName) -> Answer {
    let Some((holding, file)) = shelf.open(name).await else { return not_found() };
    match ByteRange::new(0, holding.size) {
        Some(whole) => Answer::file(StatusCode::OK, file, whole),
        None => not_found(),
    }
}

fn not_found() -> Answer {
    Answer::text(StatusCode::NOT_FOUND, "")
}

/// What the JSON-RPC handler says to everything that is not JSON-RPC.
fn not_allowed() -> Answer {
    let body = "Used HTTP Method is not allowed. POST or OPTIONS is required\n";
    Answer::text(StatusCode::METHOD_NOT_ALLOWED, body).plain()
}
