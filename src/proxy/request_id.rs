//! What a request is known by: in the log, at its target, and to its client.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use siphasher::sip128::SipHasher13;

/// The header that carries it.
pub(super) const REQUEST_ID: http::HeaderName = http::HeaderName::from_static("x-request-id");

/// The id of one request, of 32 hexadecimal digits. No two are the same, of whichever process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestId(u128);

/// Makes ids, from which nobody can tell how many there are.
#[derive(Debug)]
pub(super) struct RequestIds {
    hasher: SipHasher13,
    made: AtomicU64,
}

impl Default for RequestIds {
    fn default() -> Self {
        // Keys of this process alone.
        let random = RandomState::new();
        let hasher = SipHasher13::new_with_keys(random.hash_one(0), random.hash_one(1));
        Self { hasher, made: AtomicU64::new(0) }
    }
}

impl RequestIds {
    /// The next one.
    pub(super) fn make(&self) -> RequestId {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        RequestId(self.hasher.hash(&number.to_le_bytes()).as_u128())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Twice for each request: the formatter takes ten times as long for 128 bits.
        let mut text = String::with_capacity(32);
        let digit = |value| char::from_digit(value, 16).unwrap_or_default();
        text.extend(
            self.0
                .to_be_bytes()
                .iter()
                .flat_map(|byte| [digit(u32::from(byte >> 4)), digit(u32::from(byte & 15))]),
        );
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_requests_have_one_id() {
        let (one, other) = (RequestIds::default(), RequestIds::default());
        let ids = (0..1000).flat_map(|_| [one.make(), other.make()]);
        let ids: HashSet<String> = ids.map(|id| id.to_string()).collect();
        assert_eq!(RequestId(0x0f1e << 100).to_string(), format!("{:032x}", 0x0f1e_u128 << 100));
        assert_eq!(ids.len(), 2000);
        assert!(ids.iter().all(|id| id.len() == 32));
    }
}
