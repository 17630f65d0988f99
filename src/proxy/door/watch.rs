//! What is known of one connection, and when its client is left. Pure: time is an argument.
//!
//! Three bounds, of which one is in force at a time. While nothing is asked and nothing is left to
//! take: `header_timeout` until there is a head, once its first byte is there or the connection is
//! made, else `idle_timeout`. While there is something to take: the rate. While an answer is
//! waited for or a body is read there is none here; those who wait have theirs.

use std::time::{Duration, Instant};

use super::allowance::Allowance;
use crate::config::Limits;

/// How often a connection is looked at that has a request, at least.
const TICK: Duration = Duration::from_secs(1);
/// Least time between two looks.
const SHORTEST_TICK: Duration = Duration::from_millis(5);

/// What is to be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Look again after this time at the latest.
    Wait(Duration),
    /// Nothing is under way that would be lost, and it is over.
    Close(Why),
    /// The client takes too little of what it is sent.
    Cut,
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The head of a request was not there in time.
    Late,
    /// Nothing more was asked.
    Idle,
    /// What was sent last is not taken.
    Slow,
}

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Watch {
    header_timeout: Duration,
    idle_timeout: Duration,
    allowance: Allowance,
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
    /// Things that the client has yet to take.
    waiting: usize,
    /// Since when there are any.
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
            allowance: Allowance::new(limits.min_send_rate, limits.send_timeout),
            quiet: now,
            heard: None,
            asked: false,
            multiplexed: false,
            requests: 0,
            waiting: 0,
            waiting_since: None,
            waited: Duration::ZERO,
        }
    }

    /// Notes that bytes came.
    pub(super) fn hear(&mut self, now: Instant) {
        if self.is_quiet() {
            self.heard.get_or_insert(now);
        }
    }

    /// Notes that the head of a request is there.
    pub(super) fn begin_request(&mut self, multiplexed: bool) {
        if self.is_quiet() {
            self.allowance.renew();
        }
        self.asked = true;
        self.multiplexed |= multiplexed;
        self.requests += 1;
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

    /// Looks at the connection; `taken` tells how many bytes the client took so far.
    pub(super) fn judge(&mut self, now: Instant, taken: impl FnOnce() -> u64) -> Judgement {
        self.count(now);
        let waited = std::mem::take(&mut self.waited);
        if !waited.is_zero() && !self.allowance.spend(waited, taken()) {
            return if self.requests > 0 { Judgement::Cut } else { Judgement::Close(Why::Slow) };
        }
        // Whatever begins after this look is over no sooner than after this time.
        let shortest = self.header_timeout.min(self.idle_timeout).min(self.allowance.full());
        let wait = |time: Duration| Judgement::Wait(time.max(SHORTEST_TICK));
        if self.waiting > 0 {
            return wait(self.allowance.left().min(shortest).min(TICK));
        }
        if self.requests > 0 {
            return wait(shortest.min(TICK));
        }
        let (since, bound, why) = match self.heard {
            _ if !self.asked => (self.quiet, self.header_timeout, Why::Late),
            Some(heard) if !self.multiplexed => (heard, self.header_timeout, Why::Late),
            _ => (self.quiet, self.idle_timeout, Why::Idle),
        };
        let left = bound.saturating_sub(now.saturating_duration_since(since));
        if left.is_zero() { Judgement::Close(why) } else { wait(left.min(shortest)) }
    }

    /// Whether bytes came that have not become a request.
    pub(super) fn has_heard(&self) -> bool {
        self.is_quiet() && !self.multiplexed && self.heard.is_some()
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
                    Hear => watch.hear(now),
                    Ask => watch.begin_request(false),
                    AskBeside => watch.begin_request(true),
                    Answered => watch.end_request(now),
                    Send => watch.begin_waiting(now),
                    Took(bytes) => {
                        taken += bytes;
                        watch.end_waiting(now);
                    }
                }
            }
            match watch.judge(look, || taken) {
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
        check("takes nothing", &[(1, Ask), (2, Send)], (12, Judgement::Cut));
        let rest = [(1, Ask), (2, Send), (3, Answered)];
        check("takes nothing of the rest", &rest, (12, Judgement::Close(Why::Slow)));
        let sum = [(1, Ask), (2, Send), (9, Took(0)), (300, Send)];
        check("only what it is waited for counts", &sum, (303, Judgement::Cut));
        let makes_good = [(1, Ask), (2, Send), (9, Took(7 * RATE)), (300, Send)];
        check("what it takes is made good", &makes_good, (310, Judgement::Cut));
        let again = [(1, Ask), (2, Send), (9, Took(0)), (9, Answered), (20, Ask), (20, Send)];
        check("another answer begins anew", &again, (30, Judgement::Cut));
        let two = [(1, AskBeside), (1, AskBeside), (2, Send), (4, Send), (6, Took(0))];
        check("one of two is enough to wait for", &two, (12, Judgement::Cut));
    }

    #[test]
    fn a_look_is_never_too_late_and_never_without_a_pause() {
        let short = Duration::from_millis(1);
        let limits = Limits { header_timeout: short, idle_timeout: short, ..Limits::default() };
        let now = Instant::now();
        let mut watch = Watch::new(&limits, now);
        assert_eq!(watch.judge(now, || 0), Judgement::Wait(SHORTEST_TICK));
        watch.begin_request(false);
        assert_eq!(watch.judge(now, || 0), Judgement::Wait(SHORTEST_TICK));
        let mut watch = Watch::new(&Limits::default(), now);
        watch.begin_request(false);
        assert_eq!(watch.judge(now, || 0), Judgement::Wait(TICK));
    }
}
