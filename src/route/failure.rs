//! Everything that can be wrong with a request or its sources, and the one function that turns it
//! into an answer.

use std::time::Duration;

use http::header::{ALLOW, CONTENT_RANGE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::status::StatusCode;

use super::reply::Reply;
use crate::access::Fault;
use crate::hops::LoopFault;

/// Why a request is not answered with what it asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The path is none that is served.
    #[error("no such path")]
    NoSuchPath,
    /// No target holds an archive of this name, or nothing is there to redirect to.
    #[error("no target holds this archive")]
    NotHeld,
    /// The request goes round.
    #[error("{0}")]
    Loop(LoopFault),
    /// The asked group is not configured.
    #[error("no such group")]
    UnknownGroup,
    /// The path exists, for other methods.
    #[error("the method is not allowed on this path")]
    Method,
    /// The path exists, for POST alone.
    #[error("the method is not allowed on this path, POST is")]
    PostOnly,
    /// The head of the request is longer than one may be.
    #[error("the head of the request is too long")]
    LongHead,
    /// A GET or HEAD came with a body.
    #[error("a request body is not accepted")]
    Body,
    /// The request does not say under what name it came, and the answer would have to.
    #[error("the host header is not a host and port")]
    Host,
    /// A parameter of the query is not what it must be.
    #[error("`{key}` is not {expected}")]
    Query {
        /// The parameter.
        key: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// The asked range begins behind the end.
    #[error("the range begins behind the end of the archive")]
    Unsatisfiable {
        /// Bytes of the archive.
        total: u64,
    },
    /// The client was given the start of another copy, and asks for the rest without saying which
    /// copy it has.
    #[error(
        "the copy of this archive that the download began with is out of reach, and another one \
         would not fit to it: try again later, or begin anew at the first byte"
    )]
    OtherCopy,
    /// Every source of the archive failed; the last failure that was not a plain "gone".
    #[error("no source could deliver this archive")]
    Sources(#[source] SourceFailure),
    /// The client is in no network that may ask for it.
    #[error("this address may not ask for this")]
    Denied,
    /// The client has to show who it is, and by what.
    #[error("credentials are needed")]
    Unauthorized {
        /// By name and password.
        basic: bool,
        /// By a token.
        bearer: bool,
    },
    /// The client asks too often, and may again after this time.
    #[error("this address asks more often than it may, see `retry-after`")]
    Requests(Duration),
    /// The client showed too many wrong passwords, and is heard again after this time.
    #[error("this address showed too many wrong passwords, see `retry-after`")]
    Guesses(Duration),
    /// There is too much to do.
    #[error("{0}")]
    Busy(Busy),
    /// Something went wrong here.
    #[error("internal error")]
    Internal,
}

/// Which bound is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// The bound on transfers from one target, for every target that would do.
    #[error("every target that holds this archive carries as many transfers as it may")]
    Targets,
    /// The bound on transfers to clients.
    #[error("as many transfers are running as may run at once")]
    Transfers,
    /// The bound on transfers to one client.
    #[error("as many transfers are running to this address as may run at once")]
    Client,
    /// The bound on bytes of all heads.
    #[error("as many long heads of requests are held as may be")]
    Heads,
    /// The bound on connections, of which the last are kept for short answers.
    #[error("as many connections are open as may be")]
    Connections,
    /// The bound on passwords that are checked at once.
    #[error("as many passwords are being checked as may be at once")]
    Credentials,
    /// The bound on the rate of all transfers.
    #[error("one more transfer would leave too little for those that are running")]
    Rate,
}

/// After how many seconds a client that was refused may find it better. Archives take minutes.
const SOME_SECONDS: HeaderValue = HeaderValue::from_static("10");

/// How a client shows who it is (RFC 7617, RFC 6750).
const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"snapedge\", charset=\"UTF-8\"");
const BEARER: HeaderValue = HeaderValue::from_static("Bearer realm=\"snapedge\"");

/// After how many seconds a copy that is out of reach may be back. A node takes longer to start,
/// and what is remembered of the copy ends within minutes.
const HALF_A_MINUTE: HeaderValue = HeaderValue::from_static("30");

/// Why one source did not deliver.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceFailure {
    /// The target answered that it does not have the archive any more.
    #[error("the target no longer has the archive")]
    Gone,
    /// No connection came about.
    #[error("cannot connect")]
    Connect,
    /// No connection came about in time.
    #[error("cannot connect in time")]
    ConnectTimeout,
    /// The target and this process do not come together.
    #[error("{0}")]
    Access(Fault),
    /// There was no socket to connect with: too many open files, or no local address.
    #[error("cannot make a socket")]
    NoSocket,
    /// The target was silent for too long.
    #[error("the target is silent")]
    Timeout,
    /// The target sends, and so slowly that nobody would wait for it.
    #[error("the target sends too slowly")]
    Slow,
    /// The connection broke, or what came was not HTTP.
    #[error("the connection broke")]
    Broken,
    /// The head of its answer is longer than any that makes sense.
    #[error("the head of the answer is too long")]
    LongHead,
    /// The source is a local file, which cannot be opened.
    #[error("the archive's file cannot be opened")]
    Disk,
    /// The target said that the request goes round.
    #[error("the target is an edge that the request came through, or too many are before it")]
    Loop,
    /// A status that is not an archive's.
    #[error("status {0} instead of an archive")]
    Status(u16),
    /// A redirect: wherever it leads, it is not the archive of this source.
    #[error("a redirect instead of an archive")]
    Redirect,
    /// No `content-length`: nobody could tell a whole body from a broken one.
    #[error("no content-length")]
    NoLength,
    /// A 200 without a byte.
    #[error("an empty body")]
    Empty,
    /// Another length than the one that the target listed.
    #[error("{found} bytes instead of {expected}")]
    Length {
        /// Bytes that the target listed.
        expected: u64,
        /// Bytes that it announced now.
        found: u64,
    },
    /// Another range than the asked one, or one that contradicts itself.
    #[error("not the asked range")]
    Range,
    /// The body would arrive under an encoding.
    #[error("a content-encoding")]
    Encoded,
    /// A text, from a target that did not tell how long the archive is.
    #[error("a text instead of an archive")]
    Text,
    /// The target gave something of late that is no archive of this name.
    #[error("what the target has under this name is not sound")]
    Unsound,
    /// A page for people.
    #[error("a page of HTML instead of an archive")]
    Html,
}

impl SourceFailure {
    /// Whether it tells of how much the target can carry, and not just of what it has.
    pub fn is_weakness(&self) -> bool {
        match self {
            Self::Connect
            | Self::ConnectTimeout
            | Self::Access(_)
            | Self::Timeout
            | Self::Slow
            | Self::Broken
            | Self::Status(429 | 502..=504) => true,
            Self::Gone
            | Self::NoSocket
            | Self::Loop
            | Self::Status(_)
            | Self::Redirect
            | Self::NoLength
            | Self::Empty
            | Self::Length { .. }
            | Self::Range
            | Self::Encoded
            | Self::LongHead
            | Self::Text
            | Self::Unsound
            | Self::Disk
            | Self::Html => false,
        }
    }

    /// What it is, in a word for those who count.
    pub const fn cause(&self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Connect => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::Access(_) => "access",
            Self::NoSocket => "no_socket",
            Self::Timeout => "timeout",
            Self::Slow => "slow",
            Self::Broken => "broken",
            Self::LongHead => "long_head",
            Self::Disk => "disk",
            Self::Loop => "loop",
            Self::Status(_) => "status",
            Self::Redirect => "redirect",
            Self::NoLength => "no_length",
            Self::Empty => "empty",
            Self::Length { .. } => "length",
            Self::Range => "range",
            Self::Encoded => "encoded",
            Self::Text => "text",
            Self::Unsound => "unsound",
            Self::Html => "html",
        }
    }

    /// Whether there was no connection to ask anything on.
    pub fn is_of_connecting(&self) -> bool {
        matches!(self, Self::Connect | Self::ConnectTimeout | Self::NoSocket | Self::Access(_))
    }

    /// What to say when a second source failed too: "gone" only where all of them said so.
    #[must_use]
    pub fn or(self, later: Self) -> Self {
        if later == Self::Gone { self } else { later }
    }
}

impl Failure {
    /// The answer to the client. The only place where a failure gets a status.
    pub fn reply(&self) -> Reply {
        let status = self.status();
        match self {
            // As the nodes answer: finders probe many names, and there is nothing to read in it.
            Self::NoSuchPath
            | Self::NotHeld
            | Self::UnknownGroup
            | Self::Sources(SourceFailure::Gone) => Reply::empty(status),
            Self::Method => Reply::empty(status).with(ALLOW, HeaderValue::from_static("GET, HEAD")),
            Self::PostOnly => Reply::empty(status).with(ALLOW, HeaderValue::from_static("POST")),
            Self::Query { .. } => {
                let error = serde_json::json!({ "error": self.to_string() });
                Reply::json(status, error.to_string())
            }
            Self::Unsatisfiable { total } => {
                let reply = Reply::empty(status);
                match HeaderValue::from_str(&format!("bytes */{total}")) {
                    Ok(value) => reply.with(CONTENT_RANGE, value),
                    Err(_) => reply,
                }
            }
            Self::Unauthorized { basic, bearer } => {
                let schemes = [(*basic, BASIC), (*bearer, BEARER)];
                let wanted = schemes.into_iter().filter(|(is_wanted, _)| *is_wanted);
                wanted.fold(Reply::text(status, format!("{self}\n")), |reply, (_, scheme)| {
                    reply.with(WWW_AUTHENTICATE, scheme)
                })
            }
            Self::Requests(wait) | Self::Guesses(wait) => {
                let seconds = wait.as_millis().div_ceil(1000).max(1);
                let reply = Reply::text(status, format!("{self}\n"));
                match HeaderValue::from_str(&seconds.to_string()) {
                    Ok(seconds) => reply.with(RETRY_AFTER, seconds),
                    Err(_) => reply,
                }
            }
            Self::Busy(_) => {
                Reply::text(status, format!("{self}\n")).with(RETRY_AFTER, SOME_SECONDS)
            }
            Self::OtherCopy => {
                Reply::text(status, format!("{self}\n")).with(RETRY_AFTER, HALF_A_MINUTE)
            }
            Self::LongHead
            | Self::Body
            | Self::Host
            | Self::Denied
            | Self::Loop(_)
            | Self::Sources(_)
            | Self::Internal => Reply::text(status, format!("{self}\n")),
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::NoSuchPath
            | Self::NotHeld
            | Self::UnknownGroup
            | Self::Sources(SourceFailure::Gone) => StatusCode::NOT_FOUND,
            Self::Method | Self::PostOnly => StatusCode::METHOD_NOT_ALLOWED,
            Self::Body | Self::Host | Self::Query { .. } => StatusCode::BAD_REQUEST,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::Unauthorized { .. } => StatusCode::UNAUTHORIZED,
            Self::Requests(_) | Self::Guesses(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::LongHead => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Unsatisfiable { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Loop(_) => StatusCode::LOOP_DETECTED,
            // Not 404 or 416, which clients take for "does not exist" and "is complete", and not
            // 200, which wget appends to what it has.
            Self::OtherCopy | Self::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Sources(SourceFailure::Timeout | SourceFailure::ConnectTimeout) => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::Sources(_) => StatusCode::BAD_GATEWAY,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}
