//! What must not be shown: passwords, tokens and private keys, given in the file or in files of
//! their own.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest file that is read, in bytes: every authority of the world, or one secret.
pub(super) const MAX_FILE: u64 = 1 << 20;
/// Longest password or token, in bytes. Servers take request heads of 8 KiB at least, and base64
/// adds a third.
const MAX_SECRET: usize = 4096;

/// Bytes that no log line, error or answer shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Keeps these bytes.
    pub(crate) fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes, for the one place that sends or signs with them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A secret of 128 bits, from which others are made; written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key([u8; Self::BYTES]);

impl Key {
    /// Bytes of a key.
    pub(crate) const BYTES: usize = 16;

    /// Keeps these bytes.
    pub const fn new(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// Reads the 32 digits.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let is_digits =
            text.len() == 2 * Self::BYTES && text.bytes().all(|c| c.is_ascii_hexdigit());
        let number = u128::from_str_radix(text, 16).ok().filter(|_| is_digits);
        let wrong = "is not 32 hexadecimal digits, make some with `openssl rand -hex 16`";
        number.map(|number| Self(number.to_be_bytes())).ok_or(wrong)
    }

    /// The 32 digits, for the one place that keeps them.
    pub(crate) fn digits(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.0))
    }

    /// The bytes, for those who make others of them.
    pub fn expose(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// Who the targets of a group are told that asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// `authorization: Basic` (RFC 7617).
    Basic {
        /// Name of the user, without a colon.
        username: String,
        /// The password of the user.
        password: Kept,
    },
    /// `authorization: Bearer` (RFC 6750).
    Bearer(Kept),
}

/// Where a password or token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// In the configuration.
    Here(Secret),
    /// In a file of its own, which may change.
    File {
        /// The file.
        path: PathBuf,
        /// What it held when the configuration was read.
        first: Secret,
    },
}

impl Kept {
    /// What was known when the configuration was read.
    pub fn first(&self) -> &Secret {
        match self {
            Self::Here(secret) | Self::File { first: secret, .. } => secret,
        }
    }
}

impl Credentials {
    /// Whether they are the same, or what the same file holds.
    pub fn is_same(&self, other: &Self) -> bool {
        let alike = |one: &Kept, other: &Kept| match (one, other) {
            (Kept::File { path, .. }, Kept::File { path: other, .. }) => path == other,
            _ => one == other,
        };
        match (self, other) {
            (
                Self::Basic { username, password },
                Self::Basic { username: other, password: others },
            ) => username == other && alike(password, others),
            (Self::Bearer(token), Self::Bearer(other)) => alike(token, other),
            _ => false,
        }
    }

    /// Where the password or token is.
    pub fn kept(&self) -> &Kept {
        match self {
            Self::Basic { password, .. } => password,
            Self::Bearer(token) => token,
        }
    }

    /// Reads the file of the password or token again; `None` where it is not in a file. May block.
    pub fn read_again(&self) -> Option<Result<Secret, String>> {
        let Kept::File { path, .. } = self.kept() else { return None };
        Some(match self {
            Self::Basic { .. } => secret_in(path, password),
            Self::Bearer(_) => secret_in(path, token),
        })
    }
}

/// A password as it can be sent.
pub(super) fn password(text: &str) -> Result<Secret, &'static str> {
    if text.len() > MAX_SECRET {
        return Err("is longer than 4096 bytes");
    }
    if text.contains(|c: char| c.is_control()) {
        return Err("holds a control character, which no password has");
    }
    Ok(Secret::new(text))
}

/// A token as it can be sent: it goes into a header as it is.
pub(super) fn token(text: &str) -> Result<Secret, &'static str> {
    if text.is_empty() {
        return Err("is empty");
    }
    if text.len() > MAX_SECRET {
        return Err("is longer than 4096 bytes");
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("holds a character that no token has, such as a space");
    }
    Ok(Secret::new(text))
}

/// The secret in a file, without the white space around it that editors and `echo` leave.
pub(crate) fn secret_in<T>(
    path: &Path,
    parse: fn(&str) -> Result<T, &'static str>,
) -> Result<T, String> {
    let name = path.display();
    let text = text_in(path, MAX_FILE)?;
    match text.trim() {
        // What an interrupted writer leaves, too.
        "" => Err(format!("`{name}` is empty")),
        text => parse(text).map_err(|reason| format!("the content of `{name}` {reason}")),
    }
}

/// A file of text, of so many bytes at most.
pub(super) fn text_in(path: &Path, most: u64) -> Result<String, String> {
    let text = String::from_utf8(bytes_in(path, most)?);
    text.map_err(|_| format!("`{}` is not a text", path.display()))
}

/// All bytes of a file, of which there are so many at most.
pub(super) fn bytes_in(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let name = path.display();
    let unreadable = |error: std::io::Error| format!("cannot read `{name}`: {error}");
    // To open a pipe is to wait for who writes into it.
    if !path.metadata().map_err(unreadable)?.is_file() {
        return Err(format!("cannot read `{name}`: it is not a regular file"));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > most {
        return Err(format!("cannot read `{name}`: it has more than {most} bytes"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_shows_a_secret() {
        let kept = Kept::File { path: "/p".into(), first: Secret::new("hunter2") };
        let username = "u".to_owned();
        let shown = format!("{:?}", Credentials::Basic { username, password: kept });
        assert!(shown.contains("/p") && !shown.contains("hunter2"), "{shown}");
        let bytes = format!("{:?}", b"hunter2");
        assert!(!shown.contains(&bytes), "{shown}");
    }

    #[test]
    fn keys_are_32_digits_that_nothing_shows() {
        let digits = "000102030405060708090a0b0c0d0eFF";
        let key = Key::parse(digits).expect("32 digits");
        assert_eq!((key.expose()[0], key.expose()[15]), (0, 0xff));
        assert_eq!(key.digits(), digits.to_ascii_lowercase());
        assert_eq!(format!("{key:?}"), "Key");
        for bad in ["", "0x", &digits[1..], &format!("{digits}0"), &digits.replace("00", "+0")] {
            let reason = Key::parse(bad).expect_err(bad);
            assert!(reason.contains("openssl rand -hex 16"), "{reason}");
        }
    }

    #[test]
    fn passwords_and_tokens() {
        let long = "x".repeat(MAX_SECRET + 1);
        for good in ["", "a b", "p:w", "päß", &long[1..]] {
            assert_eq!(password(good), Ok(Secret::new(good)), "{good}");
        }
        for bad in ["a\nb", "a\0", &long] {
            assert!(password(bad).is_err(), "{bad}");
        }
        for good in ["a.b-c_d~e+f/g==", &long[1..]] {
            assert_eq!(token(good), Ok(Secret::new(good)), "{good}");
        }
        for bad in ["", "a b", "a\r\nx-b: c", "ä", &long] {
            assert!(token(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn files_of_secrets() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        let check = |content: &[u8], expected: Result<&str, &str>| {
            std::fs::write(&path, content).expect("written");
            match (secret_in(&path, token), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, Secret::new(expected)),
                (Err(found), Err(expected)) => {
                    assert!(found.contains(expected), "{found}");
                    assert!(found.contains(path.to_str().expect("text")), "{found}");
                    assert!(!found.contains("hunter2"), "{found}");
                }
                (found, expected) => panic!("{found:?} instead of {expected:?}"),
            }
        };
        check(b"hunter2", Ok("hunter2"));
        check(b" \thunter2\r\n\n", Ok("hunter2"));
        check(b"\n", Err("is empty"));
        check(b"hunter2 x", Err("such as a space"));
        check(b"hunter2\xff", Err("is not a text"));
        check(&vec![b'x'; (1 << 20) + 1], Err("more than 1048576 bytes"));
        std::fs::remove_file(&path).expect("removed");
        assert!(secret_in(&path, token).expect_err("gone").contains("cannot read `"));
        let error = secret_in(directory.path(), token).expect_err("a directory");
        assert!(error.contains("not a regular file"), "{error}");
    }
}
