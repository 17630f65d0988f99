//! One request for an archive, from its connection to the head of the answer, and its body.

use std::time::Instant;

use http::header::{HeaderMap, IF_RANGE};
use http::{Method, StatusCode};
use pingora::connectors::http::v1::Connector;
use pingora::protocols::http::v1::client::HttpSession;
use pingora::{Error, ErrorType};

use super::attempt::{Attempt, Reader};
use super::pool::UpstreamPool;
use super::slot_pool::Slot;
use crate::access::Fault;
use crate::hops::CdnLoop;
use crate::index::Source;
use crate::ledger::OpenError;
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

/// Why a file of a local directory cannot be opened.
pub fn open_failure(error: &OpenError) -> SourceFailure {
    match error {
        OpenError::Gone | OpenError::Unfit(_) => SourceFailure::Gone,
        OpenError::Disk(_) => SourceFailure::Disk,
        OpenError::Slow => SourceFailure::Timeout,
    }
}

/// An archive, or the rest of one, whose body follows.
pub struct Body {
    session: Box<HttpSession>,
    attempt: Attempt,
}

/// The whole archive on its way.
pub struct Opened {
    /// What follows the head.
    pub body: Body,
    /// What was answered.
    pub head: ArchiveHead,
    /// What the target calls its copy, where it can be asked for the rest of it.
    pub validator: Option<Validator>,
}

/// How a target answered to the request for the rest of a copy.
pub enum Reopened {
    /// The rest of the copy follows.
    Rest(Body),
    /// The copy is no longer there.
    Changed,
    /// The target failed.
    Failed(SourceFailure),
}

impl Body {
    /// Whether it breaks off by the target's fault, where it does so now.
    pub fn is_targets_fault(&self, failure: &SourceFailure) -> bool {
        self.attempt.is_targets_fault(failure, Instant::now())
    }

    /// The next bytes; `None` after the last one that was announced. A body that ends before that
    /// is an error.
    pub async fn read(&mut self) -> Result<Option<&[u8]>, SourceFailure> {
        self.session.read_body_ref().await.map_err(|error| transfer_failure(&error))
    }
}

/// Who asks, and how.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// What connects.
    pub connector: &'a Connector,
    /// The targets.
    pub upstreams: &'a UpstreamPool,
    /// The proxies that the request came through which is the reason.
    pub came: &'a CdnLoop,
}

/// Asks a source for all of its archive.
pub async fn open(
    caller: Caller<'_>,
    source: &Source,
    slot: &Slot,
) -> Result<Opened, SourceFailure> {
    let (body, head) = judged(caller, source, Some(slot), &Asked::all(Method::GET)).await?;
    let (_, headers) = head_of(&body)?;
    let ranged = head.ranges == Ranges::Served;
    let validator = ranged.then(|| Validator::of(headers)).flatten();
    Ok(Opened { body, head, validator })
}

/// Asks a source for a part of its archive that begins with its first byte, or for all of it: what
/// of it will be read is up to the caller, and no transfer.
pub(super) async fn open_part(
    caller: Caller<'_>,
    source: &Source,
    range: &RangeRequest,
) -> Result<Body, SourceFailure> {
    let asked = Asked { range: range.clone(), ..Asked::all(Method::GET) };
    judged(caller, source, None, &asked).await.map(|(body, _)| body)
}

/// Asks a source, and judges the head of its answer.
async fn judged(
    caller: Caller<'_>,
    source: &Source,
    slot: Option<&Slot>,
    asked: &Asked,
) -> Result<(Body, ArchiveHead), SourceFailure> {
    let body = ask(caller, source, slot, &asked.range, None).await?;
    let (status, headers) = head_of(&body)?;
    match judge(asked, source, status, headers) {
        Verdict::Deliver(head) => Ok((body, head)),
        Verdict::Fail(failure) => Err(failure),
        // Of a request without a range neither is said.
        Verdict::AskWhole | Verdict::Refuse(_) => Err(SourceFailure::Status(status.as_u16())),
    }
}

/// Asks a source for the rest of a copy of `total` bytes.
pub async fn reopen(
    caller: Caller<'_>,
    source: &Source,
    slot: &Slot,
    validator: &Validator,
    from: u64,
    total: u64,
) -> Reopened {
    let rest = RangeRequest::Single(RangeSpec::From { first: from, last: None });
    let body = match ask(caller, source, Some(slot), &rest, Some(validator)).await {
        Ok(body) => body,
        Err(failure) => return Reopened::Failed(failure),
    };
    let compression = source.listed.name.compression();
    let judged = head_of(&body)
        .map(|(status, headers)| judge_rest(validator, compression, from, total, status, headers));
    match judged {
        Ok(Rest::Follows) => Reopened::Rest(body),
        Ok(Rest::Changed) => Reopened::Changed,
        Ok(Rest::Failed(failure)) | Err(failure) => Reopened::Failed(failure),
    }
}

/// Sends a request and reads the head of its answer.
async fn ask(
    caller: Caller<'_>,
    source: &Source,
    slot: Option<&Slot>,
    range: &RangeRequest,
    condition: Option<&Validator>,
) -> Result<Body, SourceFailure> {
    let Caller { connector, upstreams, came } = caller;
    let head = upstreams.request(source, Method::GET, range, came);
    let mut head = head.map_err(|_| SourceFailure::Broken)?.ok_or(SourceFailure::Gone)?;
    if let Some(condition) = condition.and_then(Validator::condition) {
        head.insert_header(IF_RANGE, condition).map_err(|_| SourceFailure::Broken)?;
    }
    let peer = upstreams.peer(source).ok_or(SourceFailure::Gone)?;
    let mut attempt = Attempt::begin(Reader::Edge, Instant::now());
    let connected = connector.get_http_session(&peer).await;
    let (mut session, _) = connected.map_err(|error| connect_failure(&error))?;
    attempt.connected(Instant::now());
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
    let answered = tokio::time::timeout(upstreams.read_timeout(), answered).await;
    let answered: pingora::Result<()> = answered.map_err(|_| SourceFailure::Timeout)?;
    answered.map_err(|error| transfer_failure(&error))?;
    if let (Some(slot), Some((connect, answer))) = (slot, attempt.answered(Instant::now())) {
        slot.opened(connect, answer);
    }
    Ok(Body { session: Box::new(session), attempt })
}

fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

fn head_of(body: &Body) -> Result<(StatusCode, &HeaderMap), SourceFailure> {
    let head = body.session.resp_header().ok_or(SourceFailure::Broken)?;
    Ok((head.status, &head.headers))
}
