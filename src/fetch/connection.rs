//! One request for an archive, from its connection to the head of the answer, and its body.

use std::time::Instant;

use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONNECTION, HOST, HeaderMap, IF_RANGE, RANGE, USER_AGENT,
};
use http::{Method, StatusCode};
use pingora::connectors::http::v1::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::v1::client::HttpSession;
use pingora::{Error, ErrorType};

use super::fleet::Slot;
use super::upstreams::Upstreams;
use crate::access::Fault;
use crate::hops::CdnLoop;
use crate::index::{Location, Source};
use crate::route::{
    ArchiveHead, Asked, RangeRequest, RangeSpec, Ranges, Rest, SourceFailure, Validator, Verdict,
    judge, judge_rest,
};

/// Why there is no connection.
pub fn connect_failure(error: &Error) -> SourceFailure {
    if let Some(fault) = Fault::behind_pingora(error) {
        return SourceFailure::Access(fault);
    }
    match error.etype() {
        ErrorType::ConnectTimedout => SourceFailure::ConnectTimeout,
        ErrorType::BindError | ErrorType::SocketError => SourceFailure::NoSocket,
        _ => SourceFailure::Connect,
    }
}

/// Why a connection did not bring what it should have.
pub fn transfer_failure(error: &Error) -> SourceFailure {
    // With TLS 1.3 a target says only here that it wanted a certificate.
    if let Some(fault) = Fault::behind_pingora(error) {
        return SourceFailure::Access(fault);
    }
    match error.etype() {
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => SourceFailure::Timeout,
        _ => SourceFailure::Broken,
    }
}

/// The head of a request to a target, made here and from nothing that a client sent.
pub(super) fn request(
    location: &Location,
    method: Method,
    range: &RangeRequest,
) -> pingora::Result<RequestHeader> {
    let mut head = RequestHeader::build(method, location.path.as_bytes(), Some(10))?;
    head.insert_header(HOST, location.authority.as_bytes())?;
    head.insert_header(USER_AGENT, concat!("snapedge/", env!("CARGO_PKG_VERSION")))?;
    head.insert_header(ACCEPT, "*/*")?;
    head.insert_header(ACCEPT_ENCODING, "identity")?;
    // A connection for each transfer: next to an archive it costs nothing, and no answer can be
    // taken for that to another request.
    head.insert_header(CONNECTION, "close")?;
    if let Some(range) = range.to_header() {
        head.insert_header(RANGE, range)?;
    }
    Ok(head)
}

/// An archive, or the rest of one, whose body follows.
pub(super) struct Body(Box<HttpSession>);

/// The whole archive on its way.
pub(super) struct Opened {
    pub(super) body: Body,
    pub(super) head: ArchiveHead,
    /// What the target calls its copy, where it can be asked for the rest of it.
    pub(super) validator: Option<Validator>,
}

/// How a target answered to the request for the rest of a copy.
pub(super) enum Reopened {
    /// It follows.
    Rest(Body),
    /// The copy is no longer there.
    Changed,
    /// The target failed.
    Failed(SourceFailure),
}

impl Body {
    /// The next bytes; `None` after the last one that was announced. A body that ends before that
    /// is an error.
    pub(super) async fn read(&mut self) -> Result<Option<&[u8]>, SourceFailure> {
        self.0.read_body_ref().await.map_err(|error| transfer_failure(&error))
    }
}

/// Who asks, and how.
#[derive(Clone, Copy)]
pub(super) struct Caller<'a> {
    pub(super) connector: &'a Connector,
    pub(super) upstreams: &'a Upstreams,
    /// The proxies that the request came through which is the reason.
    pub(super) came: &'a CdnLoop,
}

/// Asks a source for all of its archive.
pub(super) async fn open(
    caller: Caller<'_>,
    source: &Source,
    slot: &Slot,
) -> Result<Opened, SourceFailure> {
    let asked = Asked::all(Method::GET);
    let session = ask(caller, source, slot, &asked.range, None).await?;
    let (status, headers) = head_of(&session)?;
    match judge(&asked, source, status, headers) {
        Verdict::Deliver(head) => {
            let ranged = head.ranges == Ranges::Served;
            let validator = ranged.then(|| Validator::of(headers)).flatten();
            Ok(Opened { body: Body(Box::new(session)), head, validator })
        }
        Verdict::Fail(failure) => Err(failure),
        // Neither is said of a request without a range.
        Verdict::AskWhole | Verdict::Refuse(_) => Err(SourceFailure::Status(status.as_u16())),
    }
}

/// Asks a source for the rest of a copy of `total` bytes.
pub(super) async fn reopen(
    caller: Caller<'_>,
    source: &Source,
    slot: &Slot,
    validator: &Validator,
    from: u64,
    total: u64,
) -> Reopened {
    let rest = RangeRequest::Single(RangeSpec::From { first: from, last: None });
    let session = match ask(caller, source, slot, &rest, Some(validator)).await {
        Ok(session) => session,
        Err(failure) => return Reopened::Failed(failure),
    };
    let compression = source.listed.name.compression();
    let judged = head_of(&session)
        .map(|(status, headers)| judge_rest(validator, compression, from, total, status, headers));
    match judged {
        Ok(Rest::Follows) => Reopened::Rest(Body(Box::new(session))),
        Ok(Rest::Changed) => Reopened::Changed,
        Ok(Rest::Failed(failure)) | Err(failure) => Reopened::Failed(failure),
    }
}

/// Sends a request and reads the head of its answer.
async fn ask(
    caller: Caller<'_>,
    source: &Source,
    slot: &Slot,
    range: &RangeRequest,
    condition: Option<&Validator>,
) -> Result<HttpSession, SourceFailure> {
    let Caller { connector, upstreams, came } = caller;
    let head = upstreams.request(source, Method::GET, range, came);
    let mut head = head.map_err(|_| SourceFailure::Broken)?.ok_or(SourceFailure::Gone)?;
    if let Some(condition) = condition.and_then(Validator::condition) {
        head.insert_header(IF_RANGE, condition).map_err(|_| SourceFailure::Broken)?;
    }
    let peer = upstreams.peer(source).ok_or(SourceFailure::Gone)?;
    let begun = Instant::now();
    let connected = connector.get_http_session(&peer).await;
    let (mut session, _) = connected.map_err(|error| connect_failure(&error))?;
    let connected = Instant::now();
    // Pingora's proxy takes these from the peer, its connector does not.
    session.read_timeout = peer.options.read_timeout;
    session.write_timeout = peer.options.write_timeout;
    let answered = async {
        session.write_request_header(Box::new(head)).await?;
        loop {
            session.read_response().await?;
            match session.get_status() {
                Some(status) if is_interim(status) => {}
                _ => return Ok(()),
            }
        }
    };
    // Over all of them: each interim answer is a sign of life, and none is the answer.
    let answered = tokio::time::timeout(upstreams.limits().read_timeout, answered).await;
    let answered: pingora::Result<()> = answered.map_err(|_| SourceFailure::Timeout)?;
    answered.map_err(|error| transfer_failure(&error))?;
    slot.opened(connected.duration_since(begun), connected.elapsed());
    Ok(session)
}

fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

fn head_of(session: &HttpSession) -> Result<(StatusCode, &HeaderMap), SourceFailure> {
    let head = session.resp_header().ok_or(SourceFailure::Broken)?;
    Ok((head.status, &head.headers))
}
