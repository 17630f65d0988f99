//! Heads of requests: where one ends, how long it may be, and what all of them hold. Pure.
//!
//! Pingora keeps whatever comes until a head is whole, up to a mebibyte for each connection. So the
//! bytes are counted before it gets them. The first few of a connection are its own; those beyond
//! come out of what all have together, and are given back with the request that they begin.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of a head that a connection has in any case: what Pingora sets aside for each.
const OWN: usize = 4 << 10;
/// Most bytes that all heads hold beyond those.
const TOGETHER: usize = 32 << 20;

/// Why a head is not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    /// The head is longer than one may be.
    One,
    /// All heads hold as much as they may.
    All,
}

/// The bounds, and what is held under them.
#[derive(Debug)]
pub(super) struct Heads {
    most: AtomicUsize,
    together: usize,
    held: AtomicUsize,
}

/// What one head holds of the bytes that all have together.
#[derive(Debug)]
pub(super) struct Held {
    heads: Arc<Heads>,
    bytes: usize,
}

impl Heads {
    /// Heads of at most so many bytes each.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Self::bounded(most, TOGETHER)
    }

    fn bounded(most: usize, together: usize) -> Arc<Self> {
        Arc::new(Self { most: AtomicUsize::new(most), together, held: AtomicUsize::new(0) })
    }

    /// Lets heads have at most so many bytes each from now on.
    pub(super) fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }
}

impl Held {
    /// A head that holds nothing yet.
    pub(super) fn new(heads: &Arc<Heads>) -> Self {
        Self { heads: Arc::clone(heads), bytes: 0 }
    }

    /// Whether a head of so many bytes may be, which holds nothing more here.
    pub(super) fn fits(&self, length: usize) -> Result<(), Excess> {
        let most = self.heads.most.load(Ordering::Relaxed);
        if length > most { Err(Excess::One) } else { Ok(()) }
    }

    /// Holds what a head of so many bytes takes, on a connection whose only one it is.
    pub(super) fn hold_only(&mut self, length: usize) -> Result<(), Excess> {
        self.hold(length, length.saturating_sub(OWN))
    }

    /// Holds what a head of so many bytes takes, which is one of many of its connection.
    pub(super) fn hold_beside(&mut self, length: usize) -> Result<(), Excess> {
        self.hold(length, length)
    }

    fn hold(&mut self, length: usize, bytes: usize) -> Result<(), Excess> {
        self.fits(length)?;
        let more = bytes.saturating_sub(self.bytes);
        let fits = |held: usize| Some(held + more).filter(|held| *held <= self.heads.together);
        let held = &self.heads.held;
        if more > 0 && held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            return Err(Excess::All);
        }
        self.bytes += more;
        Ok(())
    }

    /// Gives everything back.
    pub(super) fn release(&mut self) {
        self.heads.held.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

/// How much of a head of HTTP/1 came, read byte by byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    length: usize,
    line: Line,
    begun: bool,
    whole: bool,
}

/// What there is of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Line {
    #[default]
    Nothing,
    Return,
    Text,
}

impl Scan {
    /// Reads on, up to the empty line that ends the head; what follows that is not counted. (Empty
    /// lines before a head are part of it, and lines may end without a carriage return.)
    pub(super) fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.whole {
                return;
            }
            self.length += 1;
            self.line = match (byte, self.line) {
                (b'\n', Line::Text) => {
                    self.begun = true;
                    Line::Nothing
                }
                (b'\n', Line::Nothing | Line::Return) => {
                    self.whole = self.begun;
                    Line::Nothing
                }
                (b'\r', Line::Nothing) => Line::Return,
                _ => Line::Text,
            };
        }
    }

    /// Bytes of the head so far.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Takes what follows for more of the same head: whoever parses it wants more.
    pub(super) fn go_on(&mut self) {
        self.whole = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_head_ends_with_an_empty_line() {
        let length = |text: &str| {
            let mut scan = Scan::default();
            scan.read(text.as_bytes());
            (scan.length(), scan.whole)
        };
        for (text, expected) in [
            ("", (0, false)),
            ("GET / HTTP/1.1\r\n", (16, false)),
            ("GET / HTTP/1.1\r\n\r\n", (18, true)),
            ("GET / HTTP/1.1\r\n\r\nbody of it\r\n\r\n", (18, true)),
            ("GET / HTTP/1.1\n\n", (16, true)),
            ("GET / HTTP/1.1\n\r\n", (17, true)),
            ("GET / HTTP/1.1\r\na: b\r\n\r\n", (24, true)),
            ("\r\n\r\n\r\n", (6, false)),
            ("\r\n\n\r\nGET / HTTP/1.0\r\n\r\n", (23, true)),
            ("G\r\n\r\r\n\r\n", (8, true)),
        ] {
            assert_eq!(length(text), expected, "{text:?}");
        }
    }

    #[test]
    fn one_head_has_a_bound_and_all_have_another() {
        let heads = Heads::bounded(OWN + 1000, 1500);
        let [mut first, mut second, mut many] = [(); 3].map(|()| Held::new(&heads));
        assert_eq!(first.hold_only(OWN), Ok(()), "its own");
        assert_eq!(first.hold_only(OWN + 1001), Err(Excess::One));
        assert_eq!(first.hold_only(OWN + 1000), Ok(()));
        assert_eq!(second.hold_only(OWN + 501), Err(Excess::All));
        assert_eq!(second.hold_only(OWN + 400), Ok(()));
        assert_eq!(many.hold_beside(101), Err(Excess::All), "none of its own beside others");
        assert_eq!(many.hold_beside(100), Ok(()));
        first.release();
        assert_eq!(second.hold_only(OWN + 1000), Ok(()));
        drop((first, second, many));
        assert_eq!(heads.held.load(Ordering::Relaxed), 0, "all is given back");
    }

    proptest! {
        /// However it is cut, and as a search for the end finds it.
        #[test]
        fn it_makes_no_difference_how_a_head_comes(
            text in "[\r\na]{0,40}", cuts in prop::collection::vec(1_usize..5, 40),
        ) {
            let mut whole = Scan::default();
            whole.read(text.as_bytes());
            let (mut scan, mut rest) = (Scan::default(), text.as_bytes());
            for cut in cuts {
                let (piece, later) = rest.split_at(cut.min(rest.len()));
                scan.read(piece);
                rest = later;
            }
            prop_assert_eq!(scan, whole);
            prop_assert!(whole.length() <= text.len());
        }
    }
}
