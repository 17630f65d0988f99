//! The identity of one copy of an archive.

use std::fmt;
use std::hash::Hasher;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use siphasher::sip128::{Hasher128, SipHasher13};

/// Says which copy of an archive a body is of. Two targets that hold an archive of one name hold
/// two copies, whose bytes must never meet in one file.
///
/// A hash over the target, the length and the time of the last change. It is stable across
/// processes and versions, so that what is cached is known again after a restart. It has no key, so
/// that who sees it can find out the target by trying: clients are shown a tag that is made from it
/// with a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CopyId(u128);

impl CopyId {
    /// The copy of `length` bytes on `target` (`host:port`), last changed at `modified`, of which
    /// HTTP tells whole seconds.
    pub fn new(target: &str, length: u64, modified: Option<SystemTime>) -> Self {
        let seconds = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let mut hasher = SipHasher13::new();
        hasher.write_u64(target.len() as u64);
        hasher.write(target.as_bytes());
        hasher.write_u64(length);
        hasher.write_u64(seconds.map_or(u64::MAX, |time| time.as_secs()));
        Self(hasher.finish128().as_u128())
    }

    /// The copy in a file of the local directory `ledger`, of which the whole time is known: one
    /// that was replaced within a second is another copy.
    pub fn of_file(ledger: &str, length: u64, modified: Option<SystemTime>) -> Self {
        let since = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let mut hasher = SipHasher13::new();
        hasher.write_u64(ledger.len() as u64);
        hasher.write(ledger.as_bytes());
        hasher.write_u64(length);
        hasher.write_u64(since.map_or(u64::MAX, |since| since.as_secs()));
        hasher.write_u32(since.map_or(u32::MAX, |since| since.subsec_nanos()));
        Self(hasher.finish128().as_u128())
    }

    /// The bytes of it.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

/// Why a text does not name a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not 32 hexadecimal digits in quotes")]
pub struct TagError;

/// The inverse of [`Display`](fmt::Display), byte for byte.
impl FromStr for CopyId {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, TagError> {
        let digits = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        let copy = digits.and_then(|digits| u128::from_str_radix(digits, 16).ok()).map(Self);
        copy.filter(|copy| copy.to_string() == text).ok_or(TagError)
    }
}

/// As in the record of a cached archive: in quotes.
impl fmt::Display for CopyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{:032x}\"", self.0)
    }
}

impl fmt::Debug for CopyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn tags_are_stable_and_tell_copies_apart() {
        let day = UNIX_EPOCH + Duration::from_secs(86_400);
        let id = CopyId::new("10.0.0.1:8899", 100, Some(day));
        // Pinned: what is cached is known by this across an upgrade.
        assert_eq!(id.to_string(), "\"2b486bc8274ccf184e008c184ae3d07e\"");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(format!("W/{id}").parse::<CopyId>().is_err());
        assert_eq!(id, CopyId::new("10.0.0.1:8899", 100, Some(day + Duration::from_millis(999))));
        let others = [
            CopyId::new("10.0.0.2:8899", 100, Some(day)),
            CopyId::new("10.0.0.1:8899", 101, Some(day)),
            CopyId::new("10.0.0.1:8899", 100, Some(day + Duration::from_secs(1))),
            CopyId::new("10.0.0.1:8899", 100, None),
        ];
        assert!(others.iter().all(|other| *other != id));
    }

    #[test]
    fn files_of_one_second_are_told_apart() {
        let day = UNIX_EPOCH + Duration::from_secs(86_400);
        let id = CopyId::of_file("/ledger", 100, Some(day));
        // Pinned, as above.
        assert_eq!(id.to_string(), "\"cff7f14b44f3e4e39eb900c1efcb5282\"");
        let others = [
            CopyId::of_file("/ledger", 100, Some(day + Duration::from_nanos(1))),
            CopyId::of_file("/ledger", 101, Some(day)),
            CopyId::of_file("/other", 100, Some(day)),
            CopyId::of_file("/ledger", 100, None),
            CopyId::new("/ledger", 100, Some(day)),
        ];
        assert!(others.iter().all(|other| *other != id));
    }
}
