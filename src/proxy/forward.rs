//! The carrying of one archive from a target to a client.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};

use super::affinity_table::Delivery;
use super::cache_fill::FillState;
use super::fills::Holding;
use crate::cache::{Abandoned, Announced, Claim, Fill, FillCell};
use crate::configured::Configured;
use crate::fill;
use crate::index::{Source, TargetId};
use crate::listener::Serving;
use crate::route::plan::{ArchiveRequest, Transfer};
use crate::route::{
    ArchiveHead, Asked, Bypass, ByteRange, ClientNet, Conflict, Failure, Part, PinnedCopy, Portion,
    Reply, SourceFailure, Walk,
};
use crate::snapshot::ArchiveName;
use crate::upstream::{Attempt, Claimant, Client, Reader, Slot, Taker};

/// What a source delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivered {
    /// The client has all of the archive.
    All,
    /// So much that its target can be said to be well.
    Enough,
    /// A few bytes, or none.
    Little,
}

/// The carrying of one archive.
pub(super) struct Forward {
    pub(super) name: ArchiveName,
    pub(super) client: IpAddr,
    asked: Asked,
    walk: Walk,
    /// What it began under.
    pub(super) configured: Arc<Configured>,
    /// The right to a transfer from the current source.
    slot: Option<Slot>,
    /// Until when the request waits for a slot, once it has begun to.
    waits_until: Option<Instant>,
    /// What the client is told although sources are left.
    refusal: Option<Failure>,
    /// What it is answered instead of with an archive, which is no failure.
    instead: Option<Reply>,
    /// The copy that the client has other bytes of; no other one will do.
    bound_to: Option<Arc<PinnedCopy>>,
    /// Where the answer begins in a file of the client's; nothing where it names its copy.
    portion: Option<Portion>,
    pub(super) delivered: Option<ArchiveHead>,
    /// The bytes of the answer on their way to the client; a HEAD has none.
    pub(super) delivery: Option<Delivery>,
    /// Whether that is what the source listed, in place of an answer to a HEAD.
    told: bool,
    pub(super) fill: FillState,
    /// The client of the request, where somebody looks after that.
    taker: Option<Arc<dyn Taker>>,
    /// There where it has or had the right to fill the cache.
    pub(super) holding: Option<Holding>,
    /// How the fill gets to Pingora.
    pub(super) cell: FillCell,
    /// How the current source does.
    attempt: Attempt,
    /// The target that was asked last.
    asked_last: Option<TargetId>,
}

impl Forward {
    /// The carrying of what a request asks for.
    pub(super) fn new(
        configured: &Arc<Configured>,
        request: &ArchiveRequest,
        Transfer { sources, pinned }: Transfer,
        fill: FillState,
        now: Instant,
    ) -> Self {
        let ArchiveRequest { name, client, ref asked, .. } = *request;
        Self {
            name,
            client,
            portion: asked.portion(),
            asked: asked.clone(),
            walk: Walk::new(sources),
            configured: Arc::clone(configured),
            slot: None,
            waits_until: None,
            refusal: None,
            instead: None,
            bound_to: pinned,
            delivered: None,
            delivery: None,
            told: false,
            fill,
            taker: None,
            holding: None,
            cell: FillCell::default(),
            attempt: Attempt::begin(Reader::Client, now),
            asked_last: None,
        }
    }

    /// Notes by what its client is served.
    pub(super) fn is_served_by(&mut self, serving: Option<&Serving>) {
        let Some(serving) = serving else { return };
        self.taker = serving.taker();
        if let Some(holding) = &self.holding {
            holding.is_seen_by(serving.presence());
        }
    }

    /// Who claims a slot.
    pub(super) fn claimant(&self) -> Claimant {
        Claimant {
            client: Client::One(ClientNet::of(self.client)),
            is_part: self.asked.range.is_part_of_a_file(),
            taker: self.taker.clone(),
        }
    }

    /// Bytes that came from the current source.
    pub(super) fn carried(&self) -> u64 {
        self.slot.as_ref().map_or(0, Slot::carried)
    }

    /// The source that is tried now.
    pub(super) fn source(&self) -> Option<&Arc<Source>> {
        self.walk.source()
    }

    /// What is asked of it.
    pub(super) fn asked(&self) -> &Asked {
        &self.asked
    }

    /// The sources of which one is to be given a slot, unless the current one has it: that and
    /// those after it, where the client has no bytes of a copy. Parts of one file are asked side by
    /// side and without a word of it, and all of them have to be of the first one while that is
    /// there. Without a body there is no transfer.
    pub(super) fn wants_slot(&mut self) -> Option<Vec<Arc<Source>>> {
        let target = self.source().map(|source| &source.target);
        if target != self.slot.as_ref().map(Slot::target) {
            self.slot = None;
        }
        if self.slot.is_some() || self.asked.method == Method::HEAD {
            return None;
        }
        let has_to_fit = self.asked.has_to_fit() && self.walk.failure().is_none();
        let count = if has_to_fit { 1 } else { usize::MAX };
        let sources: Vec<_> = self.walk.rest().iter().take(count).cloned().collect();
        (!sources.is_empty()).then_some(sources)
    }

    /// Until when it waits for a slot, over all tries.
    pub(super) fn waits_until(&mut self, patience: Duration, now: Instant) -> Instant {
        *self.waits_until.get_or_insert(now + patience)
    }

    /// Turns to the source at this place of those that could be given one.
    pub(super) fn take_slot(&mut self, place: usize, slot: Slot) {
        self.walk.prefer(place);
        if let Some(holding) = &self.holding {
            holding.is_taken_by(slot.taking());
        }
        self.slot = Some(slot);
    }

    /// Notes that the current source is connected to.
    pub(super) fn connect(&mut self, now: Instant) {
        self.attempt.connected(now);
    }

    /// The target that was asked last.
    pub(super) fn asked_last(&self) -> Option<&str> {
        self.asked_last.as_ref().map(|target| &*target.authority)
    }

    /// Notes that the current source is turned to, again or for the first time.
    pub(super) fn turn(&mut self, now: Instant) {
        self.asked_last = self.source().map(|source| source.target.clone());
        self.attempt = Attempt::begin(Reader::Client, now);
        if let (FillState::Claimed(claim), Some(source)) = (&self.fill, self.source()) {
            claim.asks(&source.target);
        }
    }

    /// How long the current source has had for its answer.
    pub(super) fn waited(&self, now: Instant) -> Duration {
        self.attempt.age(now)
    }

    /// Notes that a piece of the body is passed on.
    pub(super) fn piece(&mut self, bytes: usize, now: Instant) {
        let waited = self.attempt.piece(now);
        if let Some(slot) = &mut self.slot {
            slot.piece(bytes, waited);
        }
    }

    /// Whether a body that breaks off now does so by the target's fault.
    pub(super) fn is_targets_fault(&self, failure: &SourceFailure, now: Instant) -> bool {
        self.attempt.is_targets_fault(failure, now)
    }

    /// From now on all of the archive is asked for.
    pub(super) fn ask_whole(&mut self) {
        self.asked = self.asked.whole();
    }

    /// Goes on to the next source; true where there is one.
    pub(super) fn next(&mut self, failure: SourceFailure) -> bool {
        self.walk.next(failure)
    }

    pub(super) fn refuse(&mut self, failure: Failure) {
        self.refusal = Some(failure);
    }

    /// Answers without an archive, for the sake of a condition: no bytes of it are read.
    pub(super) fn reply_with(&mut self, reply: Reply) {
        self.instead = Some(reply);
    }

    /// Where the answer begins in a file of the client's.
    pub(super) fn portion(&self) -> Option<Portion> {
        self.portion
    }

    /// What the accepted answer gives; a HEAD gives nothing.
    pub(super) fn part(&self) -> Option<Part> {
        let (head, source) = (self.delivered.as_ref()?, self.source()?);
        let gives = self.asked.method == Method::GET;
        gives.then(|| Part::of_head(head, &self.asked, source))
    }

    /// Whether nothing came of the copy that the answer had to be of.
    pub(super) fn is_missing_copy(&self) -> bool {
        self.outcome() == Failure::OtherCopy
    }

    /// Accepts the answer of the current source.
    pub(super) fn accept(&mut self, head: ArchiveHead, now: Instant) -> &ArchiveHead {
        if let Some(slot) = &self.slot
            && let Some((connect, answer)) = self.attempt.answered(now)
        {
            slot.opened(connect, answer);
        }
        self.delivered.insert(head)
    }

    /// Answers a HEAD by what the current source listed, in place of its answer; false where that
    /// is not a HEAD, or no length was listed.
    pub(super) fn tell(&mut self) -> bool {
        let is_head = self.asked.method == Method::HEAD;
        let listed = self.source().filter(|_| is_head).and_then(|s| ArchiveHead::listed(s));
        self.told = listed.is_some();
        self.delivered = listed;
        self.told
    }

    /// The head that is told in place of an answer.
    pub(super) fn told(&self) -> Option<&ArchiveHead> {
        self.delivered.as_ref().filter(|_| self.told)
    }

    /// Takes back what was accepted, since it does not fit to what the client has by now. True
    /// where the copy that does can be asked for instead.
    pub(super) fn rebind(&mut self, conflict: Conflict) -> bool {
        self.delivered = None;
        if let (None, Conflict::Other(given)) = (&self.bound_to, conflict)
            && self.walk.only(&given.target)
        {
            self.bound_to = Some(given);
            return true;
        }
        self.refusal = Some(Failure::OtherCopy);
        false
    }

    /// The copy that was accepted.
    pub(super) fn copy(&self) -> Option<Arc<PinnedCopy>> {
        let head = self.delivered.as_ref()?;
        let target = self.source()?.target.clone();
        Some(Arc::new(PinnedCopy { target, copy: head.copy }))
    }

    /// What an end without an error says of the source.
    pub(super) fn delivered(&self) -> Delivered {
        let is_whole = self.delivered.as_ref().is_some_and(|head| head.status == StatusCode::OK);
        match &self.slot {
            Some(_) if is_whole => Delivered::All,
            Some(slot) if slot.is_proof() => Delivered::Enough,
            _ => Delivered::Little,
        }
    }

    /// When the current source was turned to.
    pub(super) fn began(&self) -> Instant {
        self.attempt.began()
    }

    /// Bytes from the start of the archive up to where those of the current source end.
    pub(super) fn reached(&self) -> u64 {
        let head = self.delivered.as_ref();
        let part = head.and_then(|head| head.content_range).and_then(|found| found.range);
        part.map_or(0, ByteRange::start).saturating_add(self.carried())
    }

    /// Notes that the next piece is not taken before this time has passed, by our own will.
    pub(super) fn held_up(&mut self, delay: Duration) {
        self.attempt.held_up(delay);
    }

    /// The right to fill the cache, and the copy that was accepted, for the one who does it.
    pub(super) fn take_claim(&mut self) -> Option<(Claim, Announced)> {
        let head = self.delivered.as_ref().filter(|head| head.status == StatusCode::OK)?;
        let announced = fill::announced(self.source()?, head);
        match std::mem::replace(&mut self.fill, FillState::Bypass(Bypass::Disk)) {
            FillState::Claimed(claim) => Some((claim, announced)),
            other => {
                self.fill = other;
                None
            }
        }
    }

    /// Says why the fill ends, where there is one.
    pub(super) fn abandon(&self, why: Abandoned) {
        if let FillState::Filling(reason) = &self.fill {
            reason.give(why);
        }
    }

    /// True once the fill has come to nothing.
    pub(super) fn is_abandoned(&self) -> bool {
        matches!(&self.fill, FillState::Filling(reason) if reason.given().is_some())
    }

    /// What the client is told that got no archive.
    pub(super) fn reply(&mut self) -> Reply {
        self.instead.take().unwrap_or_else(|| self.outcome().reply())
    }

    /// Why the client gets no archive; nothing where that is for the sake of a condition.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.instead.is_none().then(|| self.outcome())
    }

    /// Why the client got nothing.
    fn outcome(&self) -> Failure {
        match (&self.refusal, self.walk.failure()) {
            (Some(refusal), _) => refusal.clone(),
            (None, _) if self.bound_to.is_some() => Failure::OtherCopy,
            (None, Some(failure)) => Failure::Sources(failure.clone()),
            (None, None) => Failure::Internal,
        }
    }

    /// Begins to fill the cache with the accepted answer, where the request has the right to. The
    /// client is served whatever becomes of it.
    pub(super) async fn begin_fill(&mut self, enabled: bool) {
        let Some((claim, announced)) = self.take_claim() else { return };
        if !enabled {
            self.fill = FillState::Bypass(Bypass::Abandoned);
            return;
        }
        let patience = fill::PATIENCE_OF_CLIENTS;
        match fill::prepare(self.name, claim, announced, patience, Fill::begin).await {
            Ok(fill) => {
                if let Some(holding) = &self.holding {
                    holding.ends_by(fill.reason(), fill.length());
                }
                self.fill = FillState::Filling(fill.reason());
                self.cell.put(fill);
            }
            Err(refusal) => self.fill = FillState::Bypass(fill::bypass_of(&refusal)),
        }
    }

    /// Gives up the fill of a try that is followed by another one; true where there was one.
    pub(super) fn forget_fill(&mut self) -> bool {
        let filling = matches!(self.fill, FillState::Filling(_));
        if filling {
            self.fill = FillState::Bypass(Bypass::Abandoned);
        }
        filling
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::CopyId;
    use crate::proxy::scene::{SIZE, configured, node, request, source};
    use crate::route::Ranges;
    use http::HeaderValue;

    fn forward(method: &str, headers: &[&str], sources: &[u8], pinned: Option<u8>) -> Forward {
        let transfer = Transfer {
            sources: sources.iter().map(|number| source(*number)).collect(),
            pinned: pinned.map(given),
        };
        let request = request(1, method, headers);
        Forward::new(
            &configured(),
            &request,
            transfer,
            FillState::Bypass(Bypass::Off),
            Instant::now(),
        )
    }

    fn given(number: u8) -> Arc<PinnedCopy> {
        let target = node(number);
        Arc::new(PinnedCopy { copy: CopyId::new(&target.authority, SIZE, None), target })
    }

    fn head(status: StatusCode) -> ArchiveHead {
        ArchiveHead {
            status,
            length: SIZE,
            copy: given(1).copy,
            modified: None,
            tag: None,
            content_range: None,
            content_type: HeaderValue::from_static("x"),
            ranges: Ranges::Served,
        }
    }

    /// The targets of which one is to be given a slot.
    fn wants(forward: &mut Forward) -> Option<Vec<Arc<str>>> {
        let sources = forward.wants_slot()?;
        Some(sources.iter().map(|source| Arc::clone(&source.target.authority)).collect())
    }

    #[test]
    fn any_source_will_do_for_all_of_an_archive_and_the_first_one_for_a_part() {
        let all = |numbers: &[u8]| {
            Some(numbers.iter().map(|number| node(*number).authority).collect::<Vec<_>>())
        };
        assert_eq!(wants(&mut forward("GET", &[], &[1, 2, 3], None)), all(&[1, 2, 3]));
        let mut part = forward("GET", &["range: bytes=5-"], &[1, 2, 3], None);
        assert_eq!(wants(&mut part), all(&[1]));
        // Once that failed, any other one.
        assert!(part.next(SourceFailure::Timeout));
        assert_eq!(wants(&mut part), all(&[2, 3]));
        // A HEAD is no transfer, and without a source there is none.
        assert_eq!(wants(&mut forward("HEAD", &[], &[1], None)), None);
        let mut last = forward("GET", &[], &[1], None);
        assert!(!last.next(SourceFailure::Gone));
        assert_eq!(wants(&mut last), None);
    }

    #[test]
    fn what_is_told_without_an_archive_is_the_worst_of_what_happened() {
        let status = |mut forward: Forward| forward.reply().status.as_u16();
        let mut failed = forward("GET", &[], &[1, 2], None);
        assert!(failed.next(SourceFailure::Timeout));
        assert!(!failed.next(SourceFailure::Gone));
        assert_eq!(status(failed), 504);
        let mut refused = forward("GET", &[], &[1], None);
        refused.refuse(Failure::Unsatisfiable { total: SIZE });
        assert_eq!(status(refused), 416);
        let mut bound = forward("GET", &["range: bytes=5-"], &[1], Some(1));
        assert!(!bound.next(SourceFailure::Gone));
        assert!(bound.is_missing_copy());
        assert_eq!(status(bound), 503);
        let mut instead = forward("GET", &[], &[1], None);
        instead.refuse(Failure::OtherCopy);
        instead.reply_with(Reply::text(StatusCode::NOT_MODIFIED, ""));
        assert_eq!(status(instead), 304);
    }

    #[test]
    fn who_began_another_copy_meanwhile_is_led_to_that_once() {
        let mut free = forward("GET", &["range: bytes=5-"], &[1, 2], None);
        free.accept(head(StatusCode::PARTIAL_CONTENT), Instant::now());
        assert!(free.rebind(Conflict::Other(given(2))));
        assert_eq!(free.source().map(|source| source.target.clone()), Some(node(2)));
        assert!(free.delivered.is_none());
        // Twice it is too late.
        assert!(!free.rebind(Conflict::Other(given(1))));
        assert!(free.is_missing_copy());
        for conflict in [Conflict::Other(given(9)), Conflict::Torn] {
            let mut forward = forward("GET", &["range: bytes=5-"], &[1, 2], None);
            assert!(!forward.rebind(conflict));
            assert!(forward.is_missing_copy());
        }
    }

    #[test]
    fn an_answer_gives_what_its_head_says() {
        let now = Instant::now();
        let mut whole = forward("GET", &[], &[1], None);
        assert!(whole.part().is_none() && whole.copy().is_none());
        whole.accept(head(StatusCode::OK), now);
        let part = whole.part().expect("bytes");
        assert_eq!((part.length, part.ranges.len()), (Some(SIZE), 1));
        assert_eq!(whole.copy(), Some(given(1)));
        // Without a slot nothing was carried.
        assert_eq!((whole.delivered(), whole.carried()), (Delivered::Little, 0));
        let mut head_only = forward("HEAD", &[], &[1], None);
        head_only.accept(head(StatusCode::OK), now);
        assert!(head_only.part().is_none());
        let range = ByteRange::new(5, 10);
        let content_range = Some(crate::route::ContentRange { range, total: SIZE });
        let mut middle = forward("GET", &["range: bytes=5-9"], &[1], None);
        let partial = ArchiveHead { content_range, ..head(StatusCode::PARTIAL_CONTENT) };
        middle.accept(partial, now);
        assert_eq!((middle.reached(), whole.reached()), (5, 0));
    }

    #[test]
    fn a_head_is_told_by_the_listing_alone() {
        let mut get = forward("GET", &[], &[1], None);
        assert!(!get.tell() && get.told().is_none());
        let mut head = forward("HEAD", &[], &[1], None);
        assert!(head.tell());
        assert_eq!(head.told().map(|told| told.length), Some(SIZE));
    }

    #[tokio::test]
    async fn without_the_right_to_fill_nothing_is_filled() {
        let mut forward = forward("GET", &[], &[1], None);
        forward.accept(head(StatusCode::OK), Instant::now());
        forward.begin_fill(true).await;
        assert!(matches!(forward.fill, FillState::Bypass(Bypass::Off)));
        assert!(!forward.forget_fill() && !forward.is_abandoned());
        forward.abandon(Abandoned::ClientLeft);
        assert!(!forward.is_abandoned());
    }

    #[test]
    fn slots_are_waited_for_over_all_tries() {
        let (mut forward, now) = (forward("GET", &[], &[1, 2], None), Instant::now());
        let patience = Duration::from_secs(2);
        let until = forward.waits_until(patience, now);
        assert_eq!(until, now + patience);
        assert_eq!(forward.waits_until(patience, now + patience), until);
        forward.turn(now + patience);
        assert_eq!(forward.began(), now + patience);
        assert_eq!(forward.waited(now + 2 * patience), patience);
        assert!(forward.is_targets_fault(&SourceFailure::Broken, now + 2 * patience));
        let claimant = forward.claimant();
        assert!(!claimant.is_part && claimant.taker.is_none());
    }
}
