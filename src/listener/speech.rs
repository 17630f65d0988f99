//! What a client says, as far as it takes to leave one that says too much. Pure: time is an
//! argument.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::frames::{Calm, Frames, PREFACE};
use super::heads::{Excess, Heads, Held, Scan};
use crate::limit::LogLimiter;
use crate::metrics::{LimitName, RequestCounts};

/// After how many seconds a client may find room for a long head again.
const SOME_SECONDS: u32 = 10;

/// Which protocols clients without TLS may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocols {
    Http1,
    Both,
}

/// Where a connection is when bytes of its client come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    /// Requests that were begun so far.
    pub(super) requests: u64,
    /// Whether none of them is under way.
    pub(super) between: bool,
}

/// Why a client is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unruly {
    /// By the length of a head.
    Head(Excess),
    /// By frames that ask for nothing.
    Restless,
}

/// What was said on one connection.
#[derive(Debug)]
pub(super) enum Speech {
    /// HTTP/2 perhaps: so many bytes of what it begins with came.
    Unsure(usize, Arc<Heads>),
    Http1(Head),
    Http2(Box<Multiplexed>),
}

/// The head that is being read, or was read last.
#[derive(Debug)]
pub(super) struct Head {
    scan: Scan,
    held: Held,
    /// Requests that had been begun before it.
    requests: u64,
}

/// Frames from both sides.
#[derive(Debug)]
pub(super) struct Multiplexed {
    from_client: Frames,
    to_client: Frames,
    calm: Calm,
}

impl Speech {
    /// What is said on a connection on which nothing was said so far.
    pub(super) fn new(protocols: Protocols, heads: &Arc<Heads>) -> Self {
        match protocols {
            Protocols::Http1 => Self::Http1(Head::new(heads)),
            Protocols::Both => Self::Unsure(0, Arc::clone(heads)),
        }
    }

    /// Listens to more bytes of the client, to which so many were sent from the beginning.
    pub(super) fn listen(
        &mut self,
        bytes: &[u8],
        stage: Heard,
        sent: u64,
        now: Instant,
    ) -> Result<(), Unruly> {
        match self {
            Self::Http1(head) => head.listen(bytes, stage).map_err(Unruly::Head),
            Self::Http2(frames) => frames.listen(bytes, sent, now),
            Self::Unsure(known, heads) => {
                let rest = PREFACE.get(*known..).unwrap_or_default();
                let same = rest.iter().zip(bytes).take_while(|(a, b)| a == b).count();
                let (_, after) = bytes.split_at(same);
                if same < rest.len() && after.is_empty() {
                    *known += same;
                    return Ok(());
                }
                if same == rest.len() {
                    *self = Self::Http2(Box::new(Multiplexed::new(now)));
                    return self.listen(after, stage, sent, now);
                }
                let mut head = Head::new(heads);
                head.scan.read(PREFACE.get(..*known).unwrap_or_default());
                *self = Self::Http1(head);
                self.listen(bytes, stage, sent, now)
            }
        }
    }

    /// Whether it is HTTP/2.
    pub(super) fn is_multiplexed(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// Notes what is sent to the client.
    pub(super) fn answer(&mut self, bytes: &[u8]) {
        if let Self::Http2(frames) = self {
            frames.to_client.read(bytes, |_| {});
        }
    }

    /// What a client is told that is left.
    pub(super) fn last_words(&self, unruly: Unruly) -> Vec<u8> {
        match (self, unruly) {
            // Within a frame nothing can be said.
            (Self::Http2(frames), _) if !frames.to_client.is_between() => Vec::new(),
            (Self::Http2(frames), _) => frames.calm.farewell(),
            (_, Unruly::Head(Excess::All)) => {
                let more = format!("retry-after: {SOME_SECONDS}\r\n");
                refusal("503 Service Unavailable", &more)
            }
            (_, Unruly::Head(Excess::One) | Unruly::Restless) => {
                refusal("431 Request Header Fields Too Large", "")
            }
        }
    }
}

fn refusal(status: &str, more: &str) -> Vec<u8> {
    let mut head = String::new();
    // A string takes everything.
    let _ =
        write!(head, "HTTP/1.1 {status}\r\n{more}content-length: 0\r\nconnection: close\r\n\r\n");
    head.into_bytes()
}

impl Head {
    fn new(heads: &Arc<Heads>) -> Self {
        Self { scan: Scan::default(), held: Held::new(heads), requests: 0 }
    }

    fn listen(&mut self, bytes: &[u8], stage: Heard) -> Result<(), Excess> {
        if !stage.between {
            // A body, which has its bounds where it is read.
            return Ok(());
        }
        if self.requests != stage.requests {
            self.requests = stage.requests;
            self.scan = Scan::default();
            self.held.release();
        }
        self.scan.go_on();
        self.scan.read(bytes);
        self.held.hold_only(self.scan.length())
    }
}

impl Multiplexed {
    fn new(now: Instant) -> Self {
        let frames = Frames::default();
        Self { from_client: frames, to_client: frames, calm: Calm::new(now) }
    }

    fn listen(&mut self, bytes: &[u8], sent: u64, now: Instant) -> Result<(), Unruly> {
        let (calm, mut is_calm) = (&mut self.calm, true);
        calm.rest(sent, now);
        self.from_client.read(bytes, |frame| is_calm &= calm.count(frame));
        if is_calm { Ok(()) } else { Err(Unruly::Restless) }
    }
}

/// How many clients were left for what they said.
#[derive(Debug)]
pub(super) struct Left {
    heads: Mutex<LogLimiter>,
    frames: Mutex<LogLimiter>,
    counts: Arc<RequestCounts>,
}

impl Left {
    /// Nobody yet.
    pub(super) fn new(counts: Arc<RequestCounts>) -> Self {
        Self { heads: Mutex::default(), frames: Mutex::default(), counts }
    }

    /// Counts one, and says now and then how many there were.
    pub(super) fn note(&self, unruly: Unruly, client: IpAddr, now: Instant) {
        let (refusals, what) = match unruly {
            Unruly::Head(Excess::One) => (&self.heads, "longer than `limits.max_request_head`"),
            Unruly::Head(Excess::All) => (&self.heads, "one too many that is long"),
            Unruly::Restless => (&self.frames, "frames of HTTP/2 that ask for nothing"),
        };
        if unruly == Unruly::Head(Excess::All) {
            self.counts.refused(LimitName::Heads);
        }
        let count = refusals.lock().unwrap_or_else(PoisonError::into_inner).count(now);
        match (count, unruly) {
            (None, _) => {}
            (Some(count), Unruly::Head(_)) => {
                log::warn!("{count} heads of requests refused, the last one of {client}: {what}");
            }
            (Some(count), Unruly::Restless) => {
                log::warn!("{count} connections closed, the last one of {client}: {what}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 32 << 10;
    const FIRST: Heard = Heard { requests: 0, between: true };

    /// Says these pieces, with what the connection is at by then; how that ends.
    #[track_caller]
    fn check(
        what: &str,
        protocols: Protocols,
        said: &[(&[u8], Heard)],
        outcome: Result<(), (usize, Unruly)>,
    ) {
        let (heads, now) = (Heads::new(MOST), Instant::now());
        let mut speech = Speech::new(protocols, &heads);
        for (at, (bytes, stage)) in said.iter().enumerate() {
            if let Err(unruly) = speech.listen(bytes, *stage, 0, now) {
                assert_eq!(Err((at, unruly)), outcome, "{what}");
                return;
            }
        }
        assert_eq!(Ok(()), outcome, "{what}");
    }

    fn head(length: usize) -> Vec<u8> {
        let mut head = b"GET / HTTP/1.1\r\nx: ".to_vec();
        head.resize(length - 4, b'y');
        head.extend(b"\r\n\r\n");
        head
    }

    #[test]
    fn a_head_is_as_long_as_it_may_be_and_not_longer() {
        let too_long = |at| Err((at, Unruly::Head(Excess::One)));
        let (longest, longer) = (head(MOST), head(MOST + 1));
        for protocols in [Protocols::Http1, Protocols::Both] {
            let check = |what, said: &[(&[u8], Heard)], outcome| {
                check(what, protocols, said, outcome);
            };
            check("just that", &[(&longest, FIRST)], Ok(()));
            check("one byte more", &[(&longer, FIRST)], too_long(0));
            let (first, rest) = longer.split_at(MOST - 10);
            check("in two pieces", &[(first, FIRST), (rest, FIRST)], too_long(1));
            let body = vec![b'z'; 100_000];
            let all = [&longest[..], &body].concat();
            check("a body behind it", &[(&all, FIRST)], Ok(()));
            let serving = Heard { requests: 1, between: false };
            let all = [(&longest[..], FIRST), (&body[..], serving)];
            check("a body", &all, Ok(()));
            let second = Heard { requests: 1, between: true };
            check("the next one", &[(&longest, FIRST), (&longest, second)], Ok(()));
            check("the next one is longer", &[(&longest, FIRST), (&longer, second)], too_long(1));
            check("empty lines", &[(&b"\r\n".repeat(MOST), FIRST)], too_long(0));
            check("no line at all", &[(&vec![0; MOST + 1], FIRST)], too_long(0));
            let more = [(&longest[..], FIRST), (&b"a: b\r\n"[..], FIRST)];
            check("whoever parses it wants more", &more, too_long(1));
        }
    }

    #[test]
    fn http2_is_known_by_its_preface_however_that_comes() {
        let pings = b"\0\0\x08\x06\0\0\0\0\0snapedge".repeat(1001);
        let restless = |at| Err((at, Unruly::Restless));
        for cut in 0..=PREFACE.len() {
            let (first, rest) = PREFACE.split_at(cut);
            let rest = [rest, &pings].concat();
            let said = [(first, FIRST), (&rest[..], FIRST)];
            check("a flood of pings", Protocols::Both, &said, restless(1));
            check("where nobody knows it", Protocols::Http1, &said, Ok(()));
        }
        // Its first empty line is at the eighteenth byte.
        for cut in 1..18 {
            let long = [&PREFACE[..cut], &vec![b'x'; MOST]].concat();
            let (first, rest) = long.split_at(cut);
            let outcome = Err((1, Unruly::Head(Excess::One)));
            check("nearly HTTP/2", Protocols::Both, &[(first, FIRST), (rest, FIRST)], outcome);
        }
    }

    #[test]
    fn last_words_fit_the_protocol() {
        let heads = Heads::new(MOST);
        let speech = Speech::new(Protocols::Http1, &heads);
        let said = |excess| {
            let words = speech.last_words(Unruly::Head(excess));
            String::from_utf8(words).expect("text")
        };
        assert!(said(Excess::One).starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"));
        assert!(said(Excess::All).starts_with("HTTP/1.1 503 Service Unavailable\r\nretry-after: "));
        assert!(said(Excess::One).ends_with("\r\nconnection: close\r\n\r\n"));
        let mut speech = Speech::new(Protocols::Both, &heads);
        speech.listen(PREFACE, FIRST, 0, Instant::now()).expect("calm");
        assert_eq!(speech.last_words(Unruly::Restless).get(3), Some(&7), "GOAWAY");
        speech.answer(b"\0\0\x04\0\0\0\0\0\x01hal");
        assert!(speech.last_words(Unruly::Restless).is_empty(), "not within a frame");
        speech.answer(b"f");
        assert!(!speech.last_words(Unruly::Restless).is_empty());
    }
}
