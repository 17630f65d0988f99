//! The record beside each cached archive: what it is, and which copy.
//!
//! Lines of text, so that an operator can read them, in this order and no other:
//!
//! ```text
//! snapedge archive record 1
//! name: snapshot-1000-426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY.tar.zst
//! group: mainnet
//! source: 10.0.0.1:8899
//! length: 25287658
//! etag: "6a3f0c7c1f2e4d5b8a9900aabbccddee"
//! last-modified: Mon, 21 Sep 2026 14:13:20 GMT
//! sealed: Mon, 21 Sep 2026 14:20:00 GMT
//! checksum: 496d4ed4b8359570
//! ```
//!
//! `last-modified` is `-` where the source did not tell. The checksum is SipHash-1-3 with a key of
//! zeros over every byte before its line. The first line names the version of the format.

use std::fmt::Write as _;
use std::hash::Hasher;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use siphasher::sip::SipHasher13;

use crate::index::{CopyId, TargetId};
use crate::snapshot::ArchiveName;

/// Longest record that is read, in bytes; the longest that is written is half as long.
pub(super) const MAX_RECORD: u64 = 2048;

const FIRST_LINE: &str = "snapedge archive record 1";
/// What the first line of every version begins with.
const FAMILY: &str = "snapedge archive record ";
const CHECKSUM: &str = "checksum: ";
const UNKNOWN: &str = "-";

/// What is known of a cached archive. Times are whole seconds, as HTTP tells them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The archive.
    pub name: ArchiveName,
    /// The target that it was fetched from.
    pub target: TargetId,
    /// Bytes.
    pub length: u64,
    /// Which copy it is: the tag under which clients know it.
    pub copy: CopyId,
    /// When the source's copy last changed, where it told.
    pub modified: Option<SystemTime>,
    /// When it was complete here.
    pub sealed: SystemTime,
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not text, or longer than any record.
    #[error("the record is not text of at most {MAX_RECORD} bytes")]
    Text,
    /// Of another version of the format.
    #[error("the record does not begin with `{FIRST_LINE}`")]
    Version,
    /// The text is nothing like a record.
    #[error("the record does not begin as one")]
    Strange,
    /// Changed since it was written, or cut.
    #[error("the checksum of the record is wrong")]
    Checksum,
    /// A line that is not what it must be, under a right checksum.
    #[error("the record has no valid `{0}`")]
    Line(&'static str),
}

impl Record {
    /// The bytes on disk.
    pub fn encode(&self) -> Vec<u8> {
        let Self { name, target, length, copy, modified, sealed } = self;
        let modified = modified.map_or_else(|| UNKNOWN.to_owned(), date);
        let mut text = format!(
            "{FIRST_LINE}\nname: {name}\ngroup: {}\nsource: {}\nlength: {length}\netag: {copy}\n\
             last-modified: {modified}\nsealed: {}\n",
            target.group,
            target.authority,
            date(*sealed)
        );
        let checksum = checksum(text.as_bytes());
        // A string takes everything.
        let _ = writeln!(text, "{CHECKSUM}{checksum:016x}");
        text.into_bytes()
    }

    /// The record as it is read back.
    pub(super) fn in_whole_seconds(&self) -> Self {
        let whole = |time: SystemTime| UNIX_EPOCH + since_epoch(time);
        Self { modified: self.modified.map(whole), sealed: whole(self.sealed), ..self.clone() }
    }

    /// Reads what [`Record::encode`] wrote, and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() as u64 > MAX_RECORD {
            return Err(RecordError::Text);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| RecordError::Text)?;
        let body = text.strip_prefix(FIRST_LINE).and_then(|rest| rest.strip_prefix('\n'));
        let body = body.ok_or_else(|| another_version(text))?;
        let (body, end) = body.rsplit_once(CHECKSUM).ok_or(RecordError::Checksum)?;
        let covered = FIRST_LINE.len() + 1 + body.len();
        if end != format!("{:016x}\n", checksum(&bytes[..covered])) {
            return Err(RecordError::Checksum);
        }
        let mut lines = body.split_terminator('\n');
        let mut line = |key: &'static str| {
            let value = lines.next().and_then(|line| line.strip_prefix(key)?.strip_prefix(": "));
            value.ok_or(RecordError::Line(key))
        };
        let record = Self {
            name: parsed("name", line("name")?)?,
            target: TargetId { group: line("group")?.into(), authority: line("source")?.into() },
            length: parsed("length", line("length")?)?,
            copy: parsed("etag", line("etag")?)?,
            modified: match line("last-modified")? {
                UNKNOWN => None,
                value => Some(time("last-modified", value)?),
            },
            sealed: time("sealed", line("sealed")?)?,
        };
        if lines.next().is_some() || record.encode() != bytes {
            return Err(RecordError::Line("end"));
        }
        Ok(record)
    }
}

/// A first line that is like ours, with another number, in a whole record.
fn another_version(text: &str) -> RecordError {
    let number = text.strip_prefix(FAMILY).and_then(|rest| rest.split_once('\n'));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match number {
        Some((number, rest)) if is_number(number) && rest.contains(CHECKSUM) => {
            RecordError::Version
        }
        _ => RecordError::Strange,
    }
}

fn parsed<T: FromStr>(key: &'static str, value: &str) -> Result<T, RecordError> {
    value.parse().map_err(|_| RecordError::Line(key))
}

fn time(key: &'static str, value: &str) -> Result<SystemTime, RecordError> {
    httpdate::parse_http_date(value).map_err(|_| RecordError::Line(key))
}

fn date(time: SystemTime) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + since_epoch(time))
}

/// A time between 1970 and the year 9999 in whole seconds, which is all that HTTP can tell.
fn since_epoch(time: SystemTime) -> Duration {
    const LAST: u64 = 253_402_300_799;
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_secs(since.as_secs().min(LAST))
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAME: &str = "snapshot-1000-426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY.tar.zst";

    /// The format on disk: a change here makes every cache of the version before unreadable, and
    /// needs another first line.
    const GOLDEN: &str = "snapedge archive record 1\n\
        name: snapshot-1000-426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY.tar.zst\n\
        group: eu west\n\
        source: 10.0.0.1:8899\n\
        length: 25287658\n\
        etag: \"9dd3b6e0ba4d5e1b1d93c7f2ea1d3c0f\"\n\
        last-modified: Mon, 21 Sep 2026 14:13:20 GMT\n\
        sealed: Mon, 21 Sep 2026 14:20:00 GMT\n\
        checksum: ea90acfc7ae5fa15\n";

    fn record() -> Record {
        Record {
            name: NAME.parse().expect("valid"),
            target: TargetId { group: "eu west".into(), authority: "10.0.0.1:8899".into() },
            length: 25_287_658,
            copy: "\"9dd3b6e0ba4d5e1b1d93c7f2ea1d3c0f\"".parse().expect("a tag"),
            modified: Some(UNIX_EPOCH + Duration::from_secs(1_790_000_000)),
            sealed: UNIX_EPOCH + Duration::from_secs(1_790_000_400),
        }
    }

    #[test]
    fn golden_bytes() {
        let text = String::from_utf8(record().encode()).expect("text");
        assert_eq!(text, GOLDEN);
        assert_eq!(Record::decode(text.as_bytes()), Ok(record()));
        let unknown = Record { modified: None, ..record() };
        let bytes = unknown.encode();
        assert!(String::from_utf8_lossy(&bytes).contains("\nlast-modified: -\n"));
        assert_eq!(Record::decode(&bytes), Ok(unknown));
    }

    /// A record with one line replaced, under a checksum that is right.
    fn check(line: &str, instead: &str, expected: RecordError) {
        let text = GOLDEN.replace(line, instead);
        let body = text.rsplit_once(CHECKSUM).expect("a checksum").0;
        let text = format!("{body}{CHECKSUM}{:016x}\n", checksum(body.as_bytes()));
        assert_eq!(Record::decode(text.as_bytes()), Err(expected), "{line} -> {instead}");
    }

    #[test]
    fn a_line_that_is_wrong_is_named() {
        check("record 1", "record 2", RecordError::Version);
        check("name: snapshot-1000", "name: snapshot-01000", RecordError::Line("name"));
        check("name: ", "nome: ", RecordError::Line("name"));
        check("group: eu west\n", "", RecordError::Line("group"));
        check("length: 25287658", "length: -1", RecordError::Line("length"));
        check("length: 25287658", "length: 025287658", RecordError::Line("end"));
        check("etag: \"9", "etag: \"g", RecordError::Line("etag"));
        check("Mon, 21 Sep 2026 14:13:20 GMT", "yesterday", RecordError::Line("last-modified"));
        check("sealed: ", "sealed: x", RecordError::Line("sealed"));
        check("14:20:00 GMT\n", "14:20:00 GMT\nmore: 1\n", RecordError::Line("end"));
    }

    #[test]
    fn everything_that_was_cut_or_changed_is_refused() {
        let bytes = record().encode();
        for end in 0..bytes.len() {
            assert!(Record::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert!(Record::decode(&changed).is_err(), "bit {bit} of byte {at}");
            }
        }
        let longer = [&bytes[..], b"\n"].concat();
        assert_eq!(Record::decode(&longer), Err(RecordError::Checksum));
        assert_eq!(Record::decode(&[b'x'; 4096]), Err(RecordError::Text));
        assert_eq!(Record::decode(&[0; 100]), Err(RecordError::Strange));
        assert_eq!(Record::decode(b"snapedge archive record 2\n"), Err(RecordError::Strange));
        assert_eq!(Record::decode(&[0xff]), Err(RecordError::Text));
    }

    #[test]
    fn the_longest_record_can_be_read() {
        let target = TargetId {
            group: "\u{1f600}".repeat(16).into(),
            authority: format!("{}:65535", "x".repeat(253)).into(),
        };
        let name = format!("incremental-snapshot-{}-{}-{}", u64::MAX - 1, u64::MAX, "1".repeat(32));
        let name = format!("{name}.tar.bz2").parse().expect("valid");
        let longest = Record { name, target, length: u64::MAX, ..record() };
        let bytes = longest.encode();
        assert!(bytes.len() as u64 <= MAX_RECORD / 2, "{}", bytes.len());
        assert_eq!(Record::decode(&bytes), Ok(longest));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, at in 0_usize..400, with: Vec<u8>) {
            let _ = Record::decode(&bytes);
            let mut spliced = record().encode();
            let at = at.min(spliced.len());
            spliced.splice(at..at, with);
            let _ = Record::decode(&spliced);
        }
    }
}
