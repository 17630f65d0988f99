//! The hash in an archive's name: base58 of 32 bytes. It names the account state, not the bytes of
//! the file, so two archives of one name may differ byte by byte.

use std::fmt;
use std::str::FromStr;

/// Bytes in a hash.
const LEN: usize = 32;
/// The most characters that 32 bytes take in base58.
const MAX_TEXT: usize = 44;

/// Hash of the account state that an archive holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArchiveHash([u8; LEN]);

/// Why a text is not a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// A character outside of the base58 alphabet, or none at all.
    #[error("the hash is not base58")]
    NotBase58,
    /// Base58, but of fewer or more than 32 bytes.
    #[error("the hash is not 32 bytes long")]
    WrongLength,
}

impl ArchiveHash {
    /// The hash of these 32 bytes.
    pub const fn new(bytes: [u8; LEN]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; LEN] {
        &self.0
    }
}

impl FromStr for ArchiveHash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        // Decoding base58 is quadratic, so the length is bounded before it starts.
        if text.len() > MAX_TEXT {
            return Err(HashError::WrongLength);
        }
        let mut bytes = [0; LEN];
        match bs58::decode(text).onto(&mut bytes) {
            Ok(LEN) => Ok(Self(bytes)),
            Ok(_) | Err(bs58::decode::Error::BufferTooSmall) => Err(HashError::WrongLength),
            Err(_) => Err(HashError::NotBase58),
        }
    }
}

impl fmt::Display for ArchiveHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; MAX_TEXT];
        let len = bs58::encode(&self.0).onto(&mut text[..]).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&text[..len]).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for ArchiveHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: Result<[u8; LEN], HashError>) {
        assert_eq!(text.parse::<ArchiveHash>().map(|hash| hash.0), expected, "{text}");
    }

    #[test]
    fn only_base58_of_32_bytes_is_a_hash() {
        check(&"1".repeat(32), Ok([0; LEN]));
        check("", Err(HashError::WrongLength));
        check(&"1".repeat(31), Err(HashError::WrongLength));
        check(&"1".repeat(33), Err(HashError::WrongLength));
        check(&"z".repeat(44), Err(HashError::WrongLength));
        check(&"1".repeat(100_000), Err(HashError::WrongLength));
        check("0426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY", Err(HashError::WrongLength));
        check("O26qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY", Err(HashError::NotBase58));
        check("426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5o\u{e9}", Err(HashError::WrongLength));
    }

    proptest! {
        #[test]
        fn display_and_parse_are_inverses(bytes: [u8; LEN]) {
            let text = ArchiveHash(bytes).to_string();
            prop_assert!(text.len() <= MAX_TEXT);
            prop_assert_eq!(text.parse(), Ok(ArchiveHash(bytes)));
        }

        #[test]
        fn what_parses_is_canonical(text in "[1-9A-HJ-NP-Za-km-z]{30,46}") {
            if let Ok(hash) = text.parse::<ArchiveHash>() {
                prop_assert_eq!(hash.to_string(), text);
            }
        }
    }
}
