//! Frames of HTTP/2, as far as it takes to count them. Pure.
//!
//! Most frames ask for nothing that is served: they open windows, change settings, ask for a sign
//! of life, or are of a kind that nobody knows. A client needs some, and more of them the more it
//! takes; one that sends them for their own sake keeps a processor busy.

use std::time::{Duration, Instant};

/// What a client begins HTTP/2 with (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes before the payload of each frame.
const HEAD: usize = 9;
const HEADERS: u8 = 1;
const GOAWAY: u8 = 7;
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// Frames that are no requests which a client may send in one second, in the long run.
const PER_SECOND: u64 = 100;
/// Frames that it may send at once.
const AT_ONCE: u64 = 1000;
/// Frames that each request adds: windows, priorities, a body, a reset.
const PER_REQUEST: u64 = 20;
/// Bytes sent to the client that add one frame. Clients open their two windows for each 4 KiB.
const BYTES_FOR_ONE: u64 = 1 << 10;
/// Most frames that may be left over. All that is on the way to a client is acknowledged at once
/// where it was held up.
const MOST: u64 = 20_000;

/// One frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    kind: u8,
    stream: u32,
}

/// Where one is in a sequence of frames.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Frames {
    head: [u8; HEAD],
    /// Bytes of the head that are there.
    have: usize,
    /// Bytes of the payload that are yet to come.
    rest: usize,
}

impl Frames {
    /// Reads on, and tells of each frame whose head ends here.
    pub(super) fn read(&mut self, mut bytes: &[u8], mut each: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            if self.rest > 0 {
                let skipped = self.rest.min(bytes.len());
                self.rest -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = (HEAD - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == HEAD {
                let [a, b, c, kind, _, stream @ ..] = self.head;
                self.have = 0;
                self.rest = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(0);
                each(Frame { kind, stream: u32::from_be_bytes(stream) & (u32::MAX >> 1) });
            }
        }
    }

    /// Whether a frame has ended and no other one begun.
    pub(super) fn is_between(&self) -> bool {
        self.have == 0 && self.rest == 0
    }
}

/// How many frames a client may yet send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Calm {
    left: u64,
    /// When it was last given any for the time that had passed.
    since: Instant,
    /// Bytes that were sent by then and counted.
    sent: u64,
    /// The newest stream that the client opened.
    newest: u32,
}

impl Calm {
    /// For a connection that was made just now.
    pub(super) fn new(now: Instant) -> Self {
        Self { left: AT_ONCE, since: now, sent: 0, newest: 0 }
    }

    /// Gives what time and the bytes sent from the beginning allow.
    pub(super) fn rest(&mut self, sent: u64, now: Instant) {
        let frames = sent.saturating_sub(self.sent) / BYTES_FOR_ONE;
        self.sent += frames * BYTES_FOR_ONE;
        self.give(frames);
        let millis = now.saturating_duration_since(self.since).as_millis();
        let frames = u64::try_from(millis).unwrap_or(u64::MAX).saturating_mul(PER_SECOND) / 1000;
        self.since += Duration::from_millis(frames.saturating_mul(1000) / PER_SECOND);
        // Time alone gives no more than may come at once.
        self.left = self.left.max(AT_ONCE.min(self.left.saturating_add(frames)));
    }

    /// Counts a frame; false where it is one too many.
    pub(super) fn count(&mut self, frame: Frame) -> bool {
        if frame.kind == HEADERS && frame.stream > self.newest && frame.stream % 2 == 1 {
            self.newest = frame.stream;
            self.give(PER_REQUEST);
            return true;
        }
        let enough = self.left > 0;
        self.left = self.left.saturating_sub(1);
        enough
    }

    /// The frame that tells the client why it is left.
    pub(super) fn farewell(&self) -> Vec<u8> {
        let mut frame = vec![0, 0, 8, GOAWAY, 0, 0, 0, 0, 0];
        frame.extend(self.newest.to_be_bytes());
        frame.extend(ENHANCE_YOUR_CALM.to_be_bytes());
        frame
    }

    fn give(&mut self, frames: u64) {
        self.left = self.left.max(MOST.min(self.left.saturating_add(frames)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DATA: u8 = 0;
    const WINDOW_UPDATE: u8 = 8;

    fn bytes(kind: u8, stream: u32, payload: usize) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(payload).expect("short").to_be_bytes();
        let mut bytes = vec![a, b, c, kind, 0];
        bytes.extend(stream.to_be_bytes());
        bytes.resize(HEAD + payload, 0);
        bytes
    }

    fn read(frames: &mut Frames, bytes: &[u8]) -> Vec<Frame> {
        let mut found = Vec::new();
        frames.read(bytes, |frame| found.push(frame));
        found
    }

    /// How many frames of a kind pass in each of so many seconds, `sent` bytes going out in each.
    fn pass(kind: u8, seconds: u64, sent: u64) -> Vec<u64> {
        let start = Instant::now();
        let mut calm = Calm::new(start);
        (0..seconds)
            .map(|second| {
                calm.rest(sent * second, start + Duration::from_secs(second));
                let frame = |at| Frame { kind, stream: u32::try_from(at % 7).expect("small") };
                (0..100_000).take_while(|at| calm.count(frame(*at))).count() as u64
            })
            .collect()
    }

    #[test]
    fn frames_without_requests_are_bounded_whatever_they_are() {
        for kind in [DATA, 2, 4, 6, WINDOW_UPDATE, 9, 10, 77, 255] {
            assert_eq!(pass(kind, 4, 0), [1000, 100, 100, 100], "{kind}");
        }
        let again = pass(HEADERS, 2, 0);
        assert!(again[0] < 1200, "headers of streams that are there already: {again:?}");
    }

    #[test]
    fn who_takes_much_may_send_many() {
        let passed = pass(WINDOW_UPDATE, 3, 10 << 20);
        assert_eq!(passed[1..], [10_240, 10_240], "two for each 4 KiB, and more");
        let passed = pass(WINDOW_UPDATE, 3, 1 << 30);
        assert_eq!(passed[1..], [MOST, MOST]);
    }

    #[test]
    fn a_request_adds_some() {
        let mut calm = Calm::new(Instant::now());
        for request in 0..10_000 {
            assert!(calm.count(Frame { kind: HEADERS, stream: request * 2 + 1 }));
            for _ in 0..PER_REQUEST {
                assert!(calm.count(Frame { kind: WINDOW_UPDATE, stream: 0 }));
            }
        }
        let left = (0..MOST).take_while(|_| calm.count(Frame { kind: 6, stream: 0 })).count();
        assert_eq!(left as u64, AT_ONCE);
        assert_eq!(calm.farewell()[HEAD..], [0, 0, 0x4e, 0x1f, 0, 0, 0, 0xb], "the last stream");
    }

    proptest! {
        /// However they are cut.
        #[test]
        fn frames_are_found_in_pieces(
            all in prop::collection::vec((any::<u8>(), 0..u32::MAX >> 1, 0_usize..50), 0..20),
            piece in 1_usize..60,
        ) {
            let stream: Vec<u8> =
                all.iter().flat_map(|(kind, stream, len)| bytes(*kind, *stream, *len)).collect();
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            for piece in stream.chunks(piece) {
                found.extend(read(&mut frames, piece));
            }
            let frame = |(kind, stream, _): &_| Frame { kind: *kind, stream: *stream };
            let expected: Vec<Frame> = all.iter().map(frame).collect();
            prop_assert_eq!(found, expected);
            prop_assert!(frames.is_between());
        }
    }
}
