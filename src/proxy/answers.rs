//! What targets answer: judged before anything of it goes to a client. And HEAD for an archive that
//! is at a target: answered by what the target lists where it answers nothing of use, and as a GET
//! or a range would be served then.

use std::time::{Duration, Instant};

use http::{HeaderMap, Method, StatusCode};

use super::archives::Archives;
use super::cache_fill::FillState;
use super::conditions::judged;
use super::forward::Forward;
use crate::config::Sharing;
use crate::index::Source;
use crate::route::{
    self, ArchiveHead, Bypass, CacheStatus, RangeRequest, Ranges, Reply, SourceFailure, Verdict,
};

/// How long a target has for its answer to a HEAD where its listing tells the length as well:
/// finders give up after a second.
const HEAD_PATIENCE: Duration = Duration::from_secs(1);

/// Whether a HEAD that the current source did not answer is answered by what it listed. One
/// that nobody can connect to would not serve a GET either, and what was answered is judged.
fn told_instead(forward: &mut Forward, failure: &SourceFailure) -> bool {
    let is_silence = matches!(failure, SourceFailure::Broken | SourceFailure::Timeout);
    let told = is_silence && forward.tell();
    if let Some(source) = forward.source().filter(|_| told) {
        log::debug!("HEAD of {} at target {}: {failure}", forward.name, source.target);
    }
    told
}

/// Whether a target's answer ends with its head, which does not meet the conditions. Of the
/// archive nothing is read.
fn stops_at(head: &ArchiveHead, forward: &mut Forward) -> bool {
    let how = CacheStatus::Bypass(Bypass::Condition);
    let tags = forward.configured.keys.tags;
    let reply = judged(tags, forward.asked(), head.copy, head.modified, how);
    reply.map(|reply| forward.reply_with(reply)).is_some()
}

/// How long the current source of a transfer may be silent.
pub(super) fn patience(forward: &Forward) -> Duration {
    let is_head = forward.asked().method == Method::HEAD;
    let listed = forward.source().filter(|_| is_head).and_then(|source| source.listed.size);
    let longest = forward.configured.config.limits.read_timeout;
    listed.map_or(longest, |_| longest.min(HEAD_PATIENCE))
}

/// An answer that goes to no client, and whether another try is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) retry: bool,
}

impl Archives {
    /// Judges the head of a source's answer; `Ok` is the head for the client.
    pub(super) fn judge(
        &self,
        forward: &mut Forward,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Result<ArchiveHead, Refused> {
        let source = forward.source().cloned().ok_or(Refused { retry: false })?;
        let verdict = route::judge(forward.asked(), &source, status, headers);
        match self.with_absence(verdict, &source, forward, status) {
            Verdict::Deliver(head) => self.deliver(forward, head),
            Verdict::AskWhole => {
                forward.ask_whole();
                Err(Refused { retry: true })
            }
            Verdict::Refuse(failure) => {
                forward.refuse(failure);
                Err(Refused { retry: false })
            }
            Verdict::Fail(failure) => Err(Refused { retry: self.source_failed(forward, failure) }),
        }
    }

    /// Notes that an answer is about to be given, where it fits to what the client has by now.
    fn deliver(&self, forward: &mut Forward, head: ArchiveHead) -> Result<ArchiveHead, Refused> {
        if stops_at(&head, forward) {
            return Err(Refused { retry: false });
        }
        let now = Instant::now();
        let head = forward.accept(self.with_ranges(forward, head), now).clone();
        let (client, name) = (forward.client, forward.name);
        let Some(part) = forward.part() else {
            if let Some(copy) = forward.copy() {
                self.affinities.announce(client, name, copy, now);
            }
            return Ok(head);
        };
        match self.affinities.begin(client, name, forward.portion(), part, now) {
            Ok(delivery) => {
                forward.delivery = Some(delivery);
                Ok(head)
            }
            Err(conflict) => Err(Refused { retry: forward.rebind(conflict) }),
        }
    }

    /// The head that answers a HEAD by a listing, or what does instead.
    pub(super) fn told(&self, forward: &mut Forward) -> Result<ArchiveHead, Reply> {
        let Some(told) = forward.told().cloned() else { return Err(forward.reply()) };
        if stops_at(&told, forward) {
            return Err(forward.reply());
        }
        if let Some(copy) = forward.copy() {
            self.affinities.announce(forward.client, forward.name, copy, Instant::now());
        }
        Ok(self.with_ranges(forward, told))
    }

    /// Notes that the current source failed before anything went to the client, and says whether
    /// another one is left.
    pub(super) fn source_failed(&self, forward: &mut Forward, failure: SourceFailure) -> bool {
        if told_instead(forward, &failure) {
            return false;
        }
        let cause = failure.cause();
        if let Some(source) = forward.source() {
            self.upstreams.refused(source, &forward.asked().method, &failure);
            if failure == SourceFailure::Gone {
                self.probes.gone(&forward.name, Instant::now());
            }
        }
        let goes_on = forward.next(failure);
        if goes_on {
            self.counts.failed_over(cause);
        }
        goes_on
    }

    /// The verdict, but for a HEAD that says what a GET said a moment ago: that the archive is
    /// gone, which the index need not know yet.
    fn with_absence(
        &self,
        verdict: Verdict,
        source: &Source,
        forward: &Forward,
        status: StatusCode,
    ) -> Verdict {
        let is_absent = forward.asked().method == Method::HEAD
            && matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
            && self.upstreams.is_gone(source, Instant::now());
        if is_absent { Verdict::Fail(SourceFailure::Gone) } else { verdict }
    }

    /// The head with what a range would be answered with: in the shared mode, where a range has the
    /// archive fetched, with parts, whatever its target knows of ranges; and otherwise as the
    /// target answered the last one, where it does not say.
    fn with_ranges(&self, forward: &Forward, head: ArchiveHead) -> ArchiveHead {
        let Some(source) = forward.source() else { return head };
        let asked = forward.asked();
        if asked.method == Method::GET && asked.range != RangeRequest::Whole {
            let is_part = head.status == StatusCode::PARTIAL_CONTENT;
            self.upstreams.answered_range(&source.target, is_part);
        }
        let is_fetched = matches!(forward.fill, FillState::Bypass(Bypass::Head))
            && forward.configured.policy.sharing == Sharing::Shared
            && self.queue.is_some();
        if is_fetched || self.upstreams.serves_ranges(&source.target) {
            return ArchiveHead { ranges: Ranges::Served, ..head };
        }
        head
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::archives::Answer;
    use crate::proxy::scene::{Cached, SIZE, Scene, node, request};
    use crate::route::plan::ArchiveRequest;
    use http::header::{HeaderName, HeaderValue};

    /// An archive on the targets 1 and 2, which a request is forwarded to.
    async fn forward(scene: &mut Scene, request: &ArchiveRequest) -> Box<Forward> {
        scene.lists(&node(1), SIZE);
        scene.lists(&node(2), SIZE);
        match scene.ask(request).await {
            Ok(Answer::Forward(forward)) => forward,
            Ok(_) => panic!("it is at targets"),
            Err(failure) => panic!("{failure}"),
        }
    }

    fn headers(lines: &[&str]) -> HeaderMap {
        let header = |line: &&str| {
            let (name, value) = line.split_once(": ").expect("a header");
            let value = HeaderValue::from_str(value).expect("a value");
            (name.parse::<HeaderName>().expect("a name"), value)
        };
        lines.iter().map(header).collect()
    }

    const WHOLE: [&str; 2] = ["content-length: 1000", "accept-ranges: bytes"];
    const PART: [&str; 2] = ["content-length: 5", "content-range: bytes 5-9/1000"];

    #[tokio::test]
    async fn an_archive_is_delivered_and_remembered() {
        let mut scene = Scene::new("", Cached::Off);
        for (asked, status, lines) in [
            (request(1, "GET", &[]), StatusCode::OK, WHOLE),
            (request(2, "GET", &["range: bytes=5-9"]), StatusCode::PARTIAL_CONTENT, PART),
            (request(3, "HEAD", &[]), StatusCode::OK, WHOLE),
        ] {
            let mut forward = forward(&mut scene, &asked).await;
            let head = scene.archives.judge(&mut forward, status, &headers(&lines));
            let head = head.expect("an archive");
            assert_eq!((head.status, head.ranges), (status, Ranges::Served), "{asked:?}");
            let has_bytes = asked.asked.method == Method::GET;
            assert_eq!(forward.delivery.is_some(), has_bytes, "{asked:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_archive_has_the_next_source_tried_and_the_last_failure_told() {
        let mut scene = Scene::new("", Cached::Off);
        for (status, lines) in [
            (StatusCode::NOT_FOUND, &["content-length: 5"][..]),
            (StatusCode::OK, &["content-length: 999"]),
            (StatusCode::OK, &["content-length: 1000", "content-type: text/html"]),
            (StatusCode::FOUND, &["content-length: 0", "location: /elsewhere"]),
            (StatusCode::PARTIAL_CONTENT, &PART),
            (StatusCode::INTERNAL_SERVER_ERROR, &[]),
        ] {
            let mut forward = forward(&mut scene, &request(1, "GET", &[])).await;
            let first = forward.source().expect("a source").target.clone();
            let mut judge = || scene.archives.judge(&mut forward, status, &headers(lines));
            assert_eq!(judge().err(), Some(Refused { retry: true }), "{status} {lines:?}");
            assert_eq!(judge().err(), Some(Refused { retry: false }), "{status} {lines:?}");
            assert_ne!(forward.source().map(|source| &source.target), Some(&first));
            let told = forward.reply().status;
            let expected =
                if status == StatusCode::NOT_FOUND { status } else { StatusCode::BAD_GATEWAY };
            assert_eq!(told, expected, "{status} {lines:?}");
        }
    }

    #[tokio::test]
    async fn what_a_target_cannot_do_in_part_is_asked_for_whole() {
        let mut scene = Scene::new("", Cached::Off);
        let mut forward = forward(&mut scene, &request(1, "GET", &["range: bytes=5-9,7-8"])).await;
        let refused = scene.archives.judge(&mut forward, StatusCode::BAD_REQUEST, &headers(&[]));
        assert_eq!(refused.err(), Some(Refused { retry: true }));
        assert_eq!(forward.asked().range, RangeRequest::Whole);
        let past = request(2, "GET", &["range: bytes=5000-"]);
        let mut forward = self::forward(&mut scene, &past).await;
        let lines = headers(&["content-range: bytes */1000"]);
        let refused = scene.archives.judge(&mut forward, StatusCode::RANGE_NOT_SATISFIABLE, &lines);
        assert_eq!(refused.err(), Some(Refused { retry: false }));
        assert_eq!(forward.reply().status, StatusCode::RANGE_NOT_SATISFIABLE);
    }

    #[tokio::test]
    async fn a_head_is_answered_by_the_listing_where_its_target_is_silent() {
        let mut scene = Scene::new("", Cached::Off);
        let head = request(1, "HEAD", &[]);
        for failure in [SourceFailure::Timeout, SourceFailure::Broken] {
            let mut forward = forward(&mut scene, &head).await;
            assert!(patience(&forward) <= HEAD_PATIENCE);
            assert!(!scene.archives.source_failed(&mut forward, failure), "no other is asked");
            let told = scene.archives.told(&mut forward).expect("the listing");
            assert_eq!((told.status, told.length), (StatusCode::OK, SIZE));
        }
        // One that nobody can connect to would not serve a GET either.
        let mut forward = forward(&mut scene, &head).await;
        assert!(scene.archives.source_failed(&mut forward, SourceFailure::Connect));
        assert!(!scene.archives.source_failed(&mut forward, SourceFailure::Connect));
        let reply = scene.archives.told(&mut forward).expect_err("nothing to tell");
        assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
        // A GET has all the time that there is.
        let get = self::forward(&mut scene, &request(2, "GET", &[])).await;
        assert!(patience(&get) > HEAD_PATIENCE);
    }
}
