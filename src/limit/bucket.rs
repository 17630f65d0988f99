//! So much at once, and so much in each second after that.

use std::time::{Duration, Instant};

/// A bucket of tokens that is full at first, written as the time at which it will be full again. It
/// fills by one token after the other.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    full_at: Instant,
}

/// How large a bucket is, and how fast it fills.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Tokens of a full bucket.
    pub burst: u32,
    /// Tokens that are added in each second, not zero.
    pub per_second: u32,
}

impl Size {
    fn pause(self) -> Duration {
        Duration::from_secs(1) / self.per_second
    }
}

impl Bucket {
    /// A bucket of which nothing was taken.
    pub fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Whether there are so many tokens, of which a full bucket has no fewer.
    pub fn has(&self, tokens: u32, size: Size, now: Instant) -> bool {
        self.full_at <= now + size.pause() * size.burst.saturating_sub(tokens)
    }

    /// Takes so many tokens, which are there.
    pub fn take(&mut self, tokens: u32, size: Size, now: Instant) {
        self.full_at = self.full_at.max(now) + size.pause() * tokens;
    }

    /// Whether nothing is missing.
    pub fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }

    /// When so many tokens will be there.
    pub fn wait(&self, tokens: u32, size: Size, now: Instant) -> Duration {
        let spare = size.pause() * size.burst.saturating_sub(tokens);
        self.full_at.saturating_duration_since(now).saturating_sub(spare)
    }
}
