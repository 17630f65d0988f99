//! What is known of one connection, and when its client is left. Pure: time is an argument.
//!
//! Three bounds, of which one is in force at a time. While nothing is asked and nothing is left to
//! take: `header_timeout` until there is a head, once its first byte is there or the connection is
//! made, else `idle_timeout`. While there is something to take: the rate. While an answer is
//! waited for or a body is read there is none here; those who wait have theirs.
//!
//! Besides, a client that says too much is left with a few last words, and one that takes part in
//! filling all places is left where its address has many and does little with them.

use std::time::{Duration, Instant};

use super::speech::Heard;
use super::stall_budget::StallBudget;
use crate::config::Limits;
use crate::metrics::ClosedReason;

/// How often a connection is looked at that has a request, at least.
const TICK: Duration = Duration::from_secs(1);
/// Least time between two looks.
const SHORTEST_TICK: Duration = Duration::from_millis(5);
/// How long a client that is left may take to read why.
const LINGER: Duration = Duration::from_secs(2);
/// How long a connection may do nothing before another one may have its place.
const IDLE_GRACE: Duration = Duration::from_secs(1);
/// How long a client that has closed its side is taken for one that still listens, since it last
/// took something: who has left holds what it held for as long.
const END_GRACE: Duration = Duration::from_millis(500);
/// Least time over which it is measured how much a connection moves.
const PACE_WINDOW: Duration = Duration::from_secs(5);

/// What is to be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Look again after this time at the latest.
    Wait(Duration),
    /// The connection is over, and nothing is under way that would be lost.
    Close(Why),
    /// A request is under way that ends with it: the connection is over.
    Cut(Why),
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The head of a request was not there in time.
    Late,
    /// Nothing more was asked.
    Idle,
    /// The client takes too little of what it is sent.
    Slow,
    /// There is no place left, and its client has many.
    Crowded,
    /// The client said too much, and was told so.
    Unruly,
}

impl Why {
    /// What those count it as who count; nothing for who just asks nothing more.
    pub(super) fn reason(self) -> Option<ClosedReason> {
        match self {
            Self::Idle => None,
            Self::Late | Self::Slow => Some(ClosedReason::Slow),
            Self::Crowded => Some(ClosedReason::Crowded),
            Self::Unruly => Some(ClosedReason::Unruly),
        }
    }
}

/// What a connection does with its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Too new to tell.
    New,
    /// A connection on which nothing moved for so long.
    Idle(Duration),
    /// A connection that moves so many bytes per second.
    Serves(u64),
}

/// How the end of a connection is going that was decided elsewhere.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// The client was told since then.
    Parting(Instant),
    /// The connection is over.
    Over(Why),
}

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Watch {
    header_timeout: Duration,
    idle_timeout: Duration,
    stall_budget: StallBudget,
    /// Since when nothing is asked and nothing is left to take.
    quiet: Instant,
    /// When the first byte came since then.
    heard: Option<Instant>,
    /// Whether there was a request at all.
    asked: bool,
    /// Whether requests come beside each other, together with what are no requests.
    multiplexed: bool,
    /// Requests that are not over.
    requests: usize,
    /// Requests that were begun so far.
    begun: u64,
    /// Whether all of the request that is under way has come.
    complete: bool,
    /// How many bytes the client had taken when it was found to have closed its side, or when it
    /// last took some since, and when that was.
    closed: Option<(u64, Instant)>,
    /// Two earlier looks at how many bytes had been moved, the later one second.
    marks: [(Instant, u64); 2],
    ending: Option<Ending>,
    /// Things that the client has yet to take.
    waiting: usize,
    /// Since when there is something that the client has yet to take.
    waiting_since: Option<Instant>,
    /// How long there were some, since that was last reckoned.
    waited: Duration,
}

impl Watch {
    /// A connection that was made just now.
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
            stall_budget: StallBudget::new(limits.min_send_rate, limits.send_timeout),
            quiet: now,
            heard: None,
            asked: false,
            multiplexed: false,
            requests: 0,
            begun: 0,
            complete: false,
            closed: None,
            marks: [(now, 0); 2],
            ending: None,
            waiting: 0,
            waiting_since: None,
            waited: Duration::ZERO,
        }
    }

    /// Notes that bytes came, and tells where the connection is.
    pub(super) fn hear(&mut self, now: Instant) -> Heard {
        if self.is_quiet() {
            self.heard.get_or_insert(now);
        }
        Heard { requests: self.begun, between: self.requests == 0 }
    }

    /// Notes that the head of a request is there; so many bytes were moved by then.
    pub(super) fn begin_request(&mut self, multiplexed: bool, moved: u64, now: Instant) {
        if self.is_quiet() {
            self.stall_budget.renew();
        }
        if self.requests == 0 {
            self.marks = [(now, moved); 2];
        }
        self.asked = true;
        self.multiplexed |= multiplexed;
        self.requests += 1;
        self.begun += 1;
        (self.complete, self.closed) = (false, None);
    }

    /// Notes that all of the request has come.
    pub(super) fn complete(&mut self) {
        self.complete = true;
    }

    /// Whether the client, which was found to have closed its side, is served on: it has asked, and
    /// may still listen (RFC 9112, 9.6). Nothing tells one that has left from it before it is sent
    /// something; it took so many bytes by now.
    pub(super) fn listens(&mut self, taken: u64, now: Instant) -> bool {
        if !self.complete || self.requests != 1 || self.multiplexed {
            return false;
        }
        let (_, since) = match self.closed {
            Some(closed) if closed.0 == taken => closed,
            _ => *self.closed.insert((taken, now)),
        };
        now.saturating_duration_since(since) < END_GRACE
    }

    /// Whether it is known that the client has closed its side since it asked.
    pub(super) fn has_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Notes that the client is being told why it is left.
    pub(super) fn part(&mut self, now: Instant) {
        self.ending.get_or_insert(Ending::Parting(now));
    }

    /// Ends the connection.
    pub(super) fn end(&mut self, why: Why) {
        if !matches!(self.ending, Some(Ending::Over(_))) {
            self.ending = Some(Ending::Over(why));
        }
    }

    /// Whether that was decided.
    #[cfg(test)]
    pub(super) fn is_over(&self) -> bool {
        matches!(self.ending, Some(Ending::Over(_)))
    }

    /// What the connection does with its place; so many bytes were moved by now.
    pub(super) fn standing(&self, moved: u64, now: Instant) -> Standing {
        let age = |since: Instant| now.saturating_duration_since(since);
        if self.requests == 0 {
            let idle = age(self.quiet);
            return if idle < IDLE_GRACE { Standing::New } else { Standing::Idle(idle) };
        }
        let [(since, before), _] = self.marks;
        if age(since) < PACE_WINDOW {
            return Standing::New;
        }
        let millis = age(since).as_millis().max(1);
        let rate = u128::from(moved.saturating_sub(before)) * 1000 / millis;
        Standing::Serves(u64::try_from(rate).unwrap_or(u64::MAX))
    }

    /// Notes that a request is over.
    pub(super) fn end_request(&mut self, now: Instant) {
        self.requests = self.requests.saturating_sub(1);
        self.rest(now);
    }

    /// Notes that there is something more for the client to take.
    pub(super) fn begin_waiting(&mut self, now: Instant) {
        self.waiting += 1;
        self.waiting_since.get_or_insert(now);
    }

    /// Notes that something was taken.
    pub(super) fn end_waiting(&mut self, now: Instant) {
        self.waiting = self.waiting.saturating_sub(1);
        if self.waiting == 0 {
            self.count(now);
            self.waiting_since = None;
        }
        self.rest(now);
    }

    /// Looks at the connection; so many bytes were moved, and `taken` tells how many the client
    /// took so far.
    pub(super) fn judge(
        &mut self,
        moved: u64,
        now: Instant,
        taken: impl FnOnce() -> u64,
    ) -> Judgement {
        if let Some(judgement) = self.judge_ending(now) {
            return judgement;
        }
        if now.saturating_duration_since(self.marks[1].0) >= PACE_WINDOW {
            self.marks = [self.marks[1], (now, moved)];
        }
        self.count(now);
        let waited = std::mem::take(&mut self.waited);
        if !waited.is_zero() && !self.stall_budget.spend(waited, taken()) {
            return self.over(Why::Slow);
        }
        // Whatever begins after this look is over no sooner than after this time.
        let shortest = self.header_timeout.min(self.idle_timeout).min(self.stall_budget.full());
        let wait = |time: Duration| Judgement::Wait(time.max(SHORTEST_TICK));
        if self.waiting > 0 {
            return wait(self.stall_budget.left().min(shortest).min(TICK));
        }
        if self.requests > 0 {
            let tick = if self.closed.is_some() { END_GRACE / 2 } else { TICK };
            return wait(shortest.min(tick));
        }
        let (since, bound, why) = match self.heard {
            _ if !self.asked => (self.quiet, self.header_timeout, Why::Late),
            Some(heard) if !self.multiplexed => (heard, self.header_timeout, Why::Late),
            _ => (self.quiet, self.idle_timeout, Why::Idle),
        };
        let left = bound.saturating_sub(now.saturating_duration_since(since));
        if left.is_zero() { Judgement::Close(why) } else { wait(left.min(shortest)) }
    }

    /// Whether bytes came that have not become a request, and nobody was told of that.
    pub(super) fn has_heard(&self) -> bool {
        self.is_quiet() && !self.multiplexed && self.heard.is_some() && self.ending.is_none()
    }

    fn judge_ending(&self, now: Instant) -> Option<Judgement> {
        Some(match self.ending? {
            Ending::Over(why) => self.over(why),
            Ending::Parting(since) => {
                let left = LINGER.saturating_sub(now.saturating_duration_since(since));
                if left.is_zero() { self.over(Why::Unruly) } else { Judgement::Wait(left) }
            }
        })
    }

    fn over(&self, why: Why) -> Judgement {
        if self.requests > 0 { Judgement::Cut(why) } else { Judgement::Close(why) }
    }

    /// Whether no request is under way, and none has left anything to take.
    pub(super) fn is_quiet(&self) -> bool {
        self.requests == 0 && self.waiting == 0
    }

    fn rest(&mut self, now: Instant) {
        if self.is_quiet() {
            self.quiet = now;
            self.heard = None;
        }
    }

    /// Counts the time up to now in which there was something to take.
    fn count(&mut self, now: Instant) {
        if let Some(since) = &mut self.waiting_since {
            self.waited += now.saturating_duration_since(*since);
            *since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 64 << 10;

    /// What happens to a connection, at so many seconds.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        Hear,
        Ask,
        AskBeside,
        Answered,
        Send,
        Took(u64),
    }
    use Event::{Answered, Ask, AskBeside, Hear, Send, Took};

    /// Plays the events, looks as often as it is asked to, and checks when and how it ends.
    #[track_caller]
    fn check(what: &str, events: &[(u64, Event)], end: (u64, Judgement)) {
        let limits = Limits {
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(10),
            min_send_rate: RATE,
            ..Limits::default()
        };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (mut watch, mut taken) = (Watch::new(&limits, start), 0);
        let (mut events, mut look) = (events.iter().peekable(), start);
        loop {
            while let Some((seconds, event)) = events.next_if(|(seconds, _)| at(*seconds) <= look) {
                let now = at(*seconds);
                match event {
                    Hear => {
                        watch.hear(now);
                    }
                    Ask => watch.begin_request(false, 0, now),
                    AskBeside => watch.begin_request(true, 0, now),
                    Answered => watch.end_request(now),
                    Send => watch.begin_waiting(now),
                    Took(bytes) => {
                        taken += bytes;
                        watch.end_waiting(now);
                    }
                }
            }
            match watch.judge(0, look, || taken) {
                Judgement::Wait(time) => look += time,
                judgement => {
                    let nearest = look.saturating_duration_since(start) + TICK / 2;
                    assert_eq!((nearest.as_secs(), judgement), end, "{what}");
                    return;
                }
            }
            // A request that begins is looked at at once.
            if let Some((seconds, Ask | AskBeside)) = events.peek() {
                look = look.min(at(*seconds));
            }
            assert!(look < at(1000), "{what}: never ends");
        }
    }

    #[test]
    fn a_head_has_its_time_from_the_connection_or_its_first_byte() {
        let late = |seconds| (seconds, Judgement::Close(Why::Late));
        check("says nothing", &[], late(10));
        check("drips", &[(1, Hear), (5, Hear), (9, Hear)], late(10));
        let first = [(9, Hear), (9, Ask), (9, Answered)];
        check("one request, and then a drip", &[&first[..], &[(20, Hear), (25, Hear)]].concat(), {
            late(30)
        });
        let after = [(68, Hear), (77, Hear)];
        check("the drip begins late", &[&first[..], &after].concat(), late(78));
        let beside = [(1, AskBeside), (2, Answered), (20, Hear), (61, Hear)];
        check("frames are no heads", &beside, (62, Judgement::Close(Why::Idle)));
    }

    #[test]
    fn a_connection_on_which_nothing_is_asked_ends() {
        let idle = |seconds| (seconds, Judgement::Close(Why::Idle));
        check("after an answer", &[(1, Ask), (3, Answered)], idle(63));
        let twice = [(1, Ask), (3, Answered), (50, Hear), (51, Ask), (52, Answered)];
        check("after the last one", &twice, idle(112));
        let long = [(1, Ask), (500, Answered)];
        check("no answer is waited for here", &long, idle(560));
        let body = [(1, Ask), (2, Hear), (30, Hear), (40, Answered)];
        check("a body is no head", &body, idle(100));
        let rest = [(1, Ask), (2, Send), (3, Answered), (9, Took(0))];
        check("what is left to take belongs to the answer", &rest, idle(69));
    }

    #[test]
    fn a_client_is_left_that_takes_too_little() {
        check("takes nothing", &[(1, Ask), (2, Send)], (12, Judgement::Cut(Why::Slow)));
        let rest = [(1, Ask), (2, Send), (3, Answered)];
        check("takes nothing of the rest", &rest, (12, Judgement::Close(Why::Slow)));
        let sum = [(1, Ask), (2, Send), (9, Took(0)), (300, Send)];
        check("only what it is waited for counts", &sum, (303, Judgement::Cut(Why::Slow)));
        let makes_good = [(1, Ask), (2, Send), (9, Took(7 * RATE)), (300, Send)];
        check("what it takes is made good", &makes_good, (310, Judgement::Cut(Why::Slow)));
        let again = [(1, Ask), (2, Send), (9, Took(0)), (9, Answered), (20, Ask), (20, Send)];
        check("another answer begins anew", &again, (30, Judgement::Cut(Why::Slow)));
        let two = [(1, AskBeside), (1, AskBeside), (2, Send), (4, Send), (6, Took(0))];
        check("one of two is enough to wait for", &two, (12, Judgement::Cut(Why::Slow)));
    }

    #[test]
    fn a_client_that_has_closed_its_side_is_served_while_it_takes_something() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut watch = Watch::new(&Limits::default(), start);
        assert!(!watch.listens(0, start), "nothing was asked");
        watch.begin_request(false, 0, start);
        assert!(!watch.listens(0, start), "its body may be on its way");
        watch.complete();
        assert!(watch.listens(0, start) && watch.listens(0, at(499)));
        assert!(!watch.listens(0, at(500)), "nothing came for it");
        assert!(watch.listens(9, at(500)) && watch.listens(9, at(999)));
        assert!(!watch.listens(9, at(1000)));
        watch.end_request(start);
        assert!(!watch.listens(9, at(1000)), "it was answered");
        watch.begin_request(false, 9, at(2000));
        watch.complete();
        assert!(watch.listens(9, at(2000)), "the next one");
        watch.end_request(at(2000));
        watch.begin_request(true, 0, at(3000));
        watch.complete();
        assert!(!watch.listens(0, at(3000)), "HTTP/2 ends streams, and not by the connection");
    }

    #[test]
    fn a_client_that_has_closed_its_side_is_looked_at_soon() {
        let now = Instant::now();
        let mut watch = Watch::new(&Limits::default(), now);
        watch.begin_request(false, 0, now);
        watch.complete();
        assert_eq!(watch.judge(0, now, || 0), Judgement::Wait(TICK));
        assert!(watch.listens(0, now));
        assert_eq!(watch.judge(0, now, || 0), Judgement::Wait(END_GRACE / 2));
    }

    #[test]
    fn a_look_is_never_too_late_and_never_without_a_pause() {
        let short = Duration::from_millis(1);
        let limits = Limits { header_timeout: short, idle_timeout: short, ..Limits::default() };
        let now = Instant::now();
        let mut watch = Watch::new(&limits, now);
        assert_eq!(watch.judge(0, now, || 0), Judgement::Wait(SHORTEST_TICK));
        watch.begin_request(false, 0, now);
        assert_eq!(watch.judge(0, now, || 0), Judgement::Wait(SHORTEST_TICK));
        let mut watch = Watch::new(&Limits::default(), now);
        watch.begin_request(false, 0, now);
        assert_eq!(watch.judge(0, now, || 0), Judgement::Wait(TICK));
    }

    #[test]
    fn a_place_is_worth_what_is_done_with_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = Watch::new(&Limits::default(), start);
        assert_eq!(watch.standing(0, start), Standing::New);
        assert_eq!(watch.standing(0, at(3)), Standing::Idle(Duration::from_secs(3)));
        watch.hear(at(3));
        assert_eq!(watch.standing(5, at(4)), Standing::Idle(Duration::from_secs(4)), "half a head");
        watch.begin_request(false, 100, at(4));
        assert_eq!(watch.standing(100, at(8)), Standing::New, "it may be waited for here");
        assert_eq!(watch.standing(100 + 6 * RATE, at(10)), Standing::Serves(RATE));
        for second in 5..60 {
            watch.judge(RATE * 20, at(second), || 0);
        }
        assert_eq!(watch.standing(RATE * 20, at(60)), Standing::Serves(0), "what was is forgotten");
        watch.end_request(at(60));
        assert_eq!(watch.standing(RATE * 20, at(62)), Standing::Idle(Duration::from_secs(2)));
    }

    #[test]
    fn an_end_that_was_decided_elsewhere_comes_at_once_or_after_last_words() {
        let start = Instant::now();
        for (requests, over) in [
            (0, Judgement::Close as fn(Why) -> Judgement),
            (1, Judgement::Cut as fn(Why) -> Judgement),
        ] {
            let watch = || {
                let mut watch = Watch::new(&Limits::default(), start);
                (0..requests).for_each(|_| watch.begin_request(true, 0, start));
                watch
            };
            let mut crowded = watch();
            crowded.end(Why::Crowded);
            assert_eq!(crowded.judge(0, start, || 0), over(Why::Crowded));
            let mut unruly = watch();
            unruly.part(start);
            assert_eq!(unruly.judge(0, start, || 0), Judgement::Wait(LINGER));
            assert_eq!(unruly.judge(0, start + LINGER, || 0), over(Why::Unruly));
            unruly.end(Why::Unruly);
            assert_eq!(unruly.judge(0, start, || 0), over(Why::Unruly), "they are read");
        }
    }
}
