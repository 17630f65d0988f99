//! What is counted of one request, and how it ended.

use std::time::{Duration, Instant};

use http::{HeaderValue, Method};
use pingora::http::ResponseHeader;
use pingora::{Error, ErrorSource, ErrorType};

use super::head::CACHE_STATUS;
use super::request_id::RequestId;
use super::transfers::Running;
use crate::listener::Cut;
use crate::metrics::{CacheResult, End, Ended, LimitName, MethodClass, RequestCounts, RouteClass};
use crate::route::{Busy, Failure};
use crate::snapshot::ArchiveName;

/// What is counted of one request.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) id: RequestId,
    pub(super) route: RouteClass,
    /// When its head had been read.
    pub(super) started: Instant,
    /// The archive that is asked for.
    pub(super) name: Option<ArchiveName>,
    /// The place among those that run, where it carries an archive.
    pub(super) running: Option<Running>,
    /// When the head of the answer went out.
    answered: Option<Instant>,
    /// The status of that head and what it says of the cache, where it is that of an archive.
    head: Option<(u16, CacheResult)>,
    /// Bytes of the body that were counted as sent.
    counted: u64,
    refused: Option<LimitName>,
    /// How it ended, where that is known before its end.
    ended: Option<End>,
}

/// What is known of an answer at its end.
pub(super) struct Final<'a> {
    pub(super) method: &'a Method,
    /// 0 for none.
    pub(super) status: u16,
    pub(super) cache: CacheResult,
    pub(super) end: End,
    /// Bytes of the body that went out.
    pub(super) bytes: u64,
}

/// The bound that a refusal is for.
fn bound(busy: Busy) -> LimitName {
    match busy {
        Busy::Targets => LimitName::Targets,
        Busy::Transfers => LimitName::Transfers,
        Busy::Client => LimitName::ClientTransfers,
        Busy::Heads => LimitName::Heads,
        Busy::Connections => LimitName::Connections,
        Busy::Credentials => LimitName::Credentials,
        Busy::Rate => LimitName::Rate,
    }
}

impl Tally {
    pub(super) fn new(id: RequestId, started: Instant) -> Self {
        Self {
            id,
            route: RouteClass::Other,
            started,
            name: None,
            running: None,
            answered: None,
            head: None,
            counted: 0,
            refused: None,
            ended: None,
        }
    }

    /// Notes that the head of the answer goes out.
    pub(super) fn answer(&mut self, now: Instant) {
        self.answered.get_or_insert(now);
    }

    /// Notes that the head of an archive goes out.
    pub(super) fn answer_with(&mut self, head: &ResponseHeader, now: Instant) {
        self.answer(now);
        let cache = head.headers.get(CACHE_STATUS).map(HeaderValue::as_bytes);
        self.head = Some((head.status.as_u16(), CacheResult::of(cache)));
    }

    /// The status of the head that went out, and what it said of the cache.
    pub(super) fn head(&self) -> Option<(u16, CacheResult)> {
        self.head
    }

    /// Notes why there is no archive, or nothing at all.
    pub(super) fn fail(&mut self, failure: &Failure) {
        match failure {
            Failure::Busy(busy) => {
                self.refused = Some(bound(*busy));
                self.ended = Some(End::Refused);
            }
            Failure::Requests(_) => {
                self.refused = Some(LimitName::Requests);
                self.ended = Some(End::Refused);
            }
            Failure::Guesses(_) => {
                self.refused = Some(LimitName::Credentials);
                self.ended = Some(End::Refused);
            }
            Failure::Denied | Failure::Unauthorized { .. } => self.ended = Some(End::Refused),
            Failure::Sources(_) | Failure::OtherCopy => self.ended = Some(End::SourceFailed),
            Failure::Internal => self.ended = Some(End::Internal),
            _ => {}
        }
    }

    /// The bound that it was refused for.
    pub(super) fn refused(&self) -> Option<LimitName> {
        self.refused
    }

    /// Bytes that were counted.
    pub(super) fn counted(&self) -> u64 {
        self.counted
    }

    /// Time to the head of the answer.
    pub(super) fn first_byte(&self) -> Option<Duration> {
        self.answered.map(|at| at.saturating_duration_since(self.started))
    }

    /// Counts what went out of the body since this was called last: `sent` is all of it.
    pub(super) fn sent(&mut self, sent: u64, counts: &RequestCounts) {
        let more = sent.saturating_sub(self.counted);
        if more == 0 {
            return;
        }
        self.counted = sent;
        counts.sent(self.route, more);
        if let Some(running) = &self.running {
            running.sent(sent);
        }
    }

    /// How it ended: `has_all` is whether the client has the whole answer, `cut` why it was left.
    pub(super) fn end(&self, error: Option<&Error>, has_all: bool, cut: Option<Cut>) -> End {
        let (Some(error), None) = (error, self.ended) else {
            return self.ended.unwrap_or(End::Done);
        };
        match (cut, error.esource()) {
            _ if has_all => End::Done,
            (Some(Cut::Slow), _) => End::ClientSlow,
            (Some(Cut::Crowded), _) => End::Dismissed,
            (Some(Cut::Unruly), _) => End::Refused,
            _ if *error.etype() == ErrorType::WriteTimedout => End::ClientSlow,
            (None, ErrorSource::Downstream) => End::ClientLeft,
            (None, ErrorSource::Upstream) => End::SourceFailed,
            (None, ErrorSource::Internal | ErrorSource::Unset) => End::Internal,
        }
    }

    /// Counts the end.
    pub(super) fn close(&mut self, of: &Final<'_>, now: Instant, counts: &RequestCounts) {
        self.sent(of.bytes, counts);
        if let Some(bound) = self.refused {
            counts.refused(bound);
        }
        let took = self.answered.map(|at| now.saturating_duration_since(at));
        counts.end(&Ended {
            route: self.route,
            method: MethodClass::of(of.method),
            status: of.status,
            cache: of.cache,
            end: of.end,
            first_byte: self.first_byte(),
            body: (of.bytes, took.unwrap_or_default()),
            is_full: self.name.as_ref().map(ArchiveName::is_full),
        });
        self.running = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::request_id::RequestIds;
    use crate::route::SourceFailure;
    use pingora::ErrorType;

    fn tally() -> Tally {
        Tally::new(RequestIds::default().make(), Instant::now())
    }

    #[test]
    fn how_a_request_ended_is_the_first_thing_that_went_wrong() {
        let down = Error::new_down(ErrorType::WriteError);
        let up = Error::new_up(ErrorType::ReadError);
        let inside = Error::new_in(ErrorType::InternalError);
        let failed = |failure: Failure| {
            let mut tally = tally();
            tally.fail(&failure);
            tally
        };
        let late = Error::new_down(ErrorType::WriteTimedout);
        let sources = || failed(Failure::Sources(SourceFailure::Gone));
        for (tally, error, has_all, cut, expected) in [
            (tally(), None, true, None, End::Done),
            (tally(), None, false, None, End::Done),
            (tally(), Some(&down), false, None, End::ClientLeft),
            (tally(), Some(&down), false, Some(Cut::Slow), End::ClientSlow),
            (tally(), Some(&down), false, Some(Cut::Crowded), End::Dismissed),
            (tally(), Some(&down), false, Some(Cut::Unruly), End::Refused),
            (tally(), Some(&late), false, None, End::ClientSlow),
            // Who leaves after the last byte has all of it.
            (tally(), Some(&down), true, None, End::Done),
            (tally(), Some(&up), false, None, End::SourceFailed),
            (tally(), Some(&inside), false, None, End::Internal),
            (failed(Failure::Busy(Busy::Rate)), None, true, None, End::Refused),
            (failed(Failure::Busy(Busy::Targets)), Some(&up), true, None, End::Refused),
            (sources(), Some(&up), true, None, End::SourceFailed),
            (failed(Failure::OtherCopy), None, true, None, End::SourceFailed),
            (failed(Failure::Internal), None, true, None, End::Internal),
            (failed(Failure::NotHeld), None, true, None, End::Done),
            (failed(Failure::NotHeld), Some(&down), false, None, End::ClientLeft),
            // A 304 in place of an archive is the end of a try, and an error to Pingora.
            (tally(), Some(&up), true, None, End::Done),
        ] {
            assert_eq!(tally.end(error.map(|e| &**e), has_all, cut), expected, "{tally:?}");
        }
    }

    #[test]
    fn every_byte_is_counted_once() {
        let counts = RequestCounts::new().expect("good definitions");
        let mut tally = tally();
        for sent in [0, 10, 10, 25] {
            tally.sent(sent, &counts);
        }
        tally.fail(&Failure::Busy(Busy::Heads));
        let method = Method::GET;
        let (cache, end) = (CacheResult::None, End::Refused);
        let last = Final { method: &method, status: 503, cache, end, bytes: 30 };
        tally.close(&last, Instant::now(), &counts);
        assert_eq!((counts.sent_bytes(), counts.requests(), tally.counted()), (30, 1, 30));
        assert_eq!(counts.refusals(LimitName::Heads), 1);
    }
}
