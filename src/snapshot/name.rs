//! Names of archives: `snapshot-<slot>-<hash>.<ext>` and
//! `incremental-snapshot-<base>-<slot>-<hash>.<ext>`.

use super::hash::{ArchiveHash, HashError};
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Longest name that can be valid: the longer prefix, two slots of 20 digits, a hash of 44.
const MAX_NAME: usize = 21 + 20 + 1 + 20 + 1 + 44 + 8;

/// A slot of the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct Slot(pub u64);

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Slot {
    type Err = NameError;

    /// Decimal digits without sign, space or leading zero: each slot has exactly one spelling, so
    /// that each archive has exactly one name.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || (text.len() > 1 && text.starts_with('0')) {
            return Err(NameError::Slot);
        }
        text.parse().map(Slot).map_err(|_| NameError::Slot)
    }
}

/// Whether an archive stands alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The whole state.
    Full,
    /// What changed since the full archive at `base`.
    Incremental {
        /// Slot of the full archive that this one applies to.
        base: Slot,
    },
}

/// How the tar file is compressed, in order of preference, the best last: Firedancer reads only
/// zstd, Agave of today zstd and lz4, Agave of yesterday the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// `tar`
    None,
    /// `tar.xz`
    Xz,
    /// `tar.gz`
    Gzip,
    /// `tar.bz2`
    Bzip2,
    /// `tar.lz4`
    Lz4,
    /// `tar.zst`
    Zstd,
}

impl Compression {
    /// Every form, the preferred one last.
    pub const ALL: [Self; 6] =
        [Self::None, Self::Xz, Self::Gzip, Self::Bzip2, Self::Lz4, Self::Zstd];

    /// The extension, without its leading dot.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::None => "tar",
            Self::Xz => "tar.xz",
            Self::Gzip => "tar.gz",
            Self::Bzip2 => "tar.bz2",
            Self::Lz4 => "tar.lz4",
            Self::Zstd => "tar.zst",
        }
    }

    /// The media type that clients are told.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Zstd => "application/zstd",
            _ => "application/octet-stream",
        }
    }
}

/// Why a text is not the name of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Neither of the two shapes.
    #[error(
        "not the name of an archive, expected `snapshot-<slot>-<hash>.<ext>` or \
         `incremental-snapshot-<base>-<slot>-<hash>.<ext>`"
    )]
    Shape,
    /// The extension is none of an archive's.
    #[error(
        "unknown extension, expected `tar.zst`, `tar.lz4`, `tar.bz2`, `tar.gz`, `tar.xz` or `tar`"
    )]
    Extension,
    /// Not a decimal `u64` in its shortest form.
    #[error("a slot is not a decimal 64 bit number")]
    Slot,
    /// An incremental archive that would lead backwards.
    #[error("the base slot is not below the slot")]
    Base,
    /// The hash does not decode.
    #[error("bad hash")]
    Hash(#[from] HashError),
}

/// The name of an archive. Valid by construction; [`FromStr`] and [`fmt::Display`] are inverses.
///
/// The order is that of worth: by slot, at an equal slot a full archive above an incremental one,
/// then by base, hash and compression. The greatest is the best.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ArchiveName {
    kind: Kind,
    slot: Slot,
    hash: ArchiveHash,
    compression: Compression,
}

impl ArchiveName {
    /// The full archive at `slot`.
    pub const fn full(slot: Slot, hash: ArchiveHash, compression: Compression) -> Self {
        Self { kind: Kind::Full, slot, hash, compression }
    }

    /// The archive that leads from the full one at `base` to `slot`.
    ///
    /// Fails with [`NameError::Base`] unless `base < slot`.
    pub fn incremental(
        base: Slot,
        slot: Slot,
        hash: ArchiveHash,
        compression: Compression,
    ) -> Result<Self, NameError> {
        if base >= slot {
            return Err(NameError::Base);
        }
        Ok(Self { kind: Kind::Incremental { base }, slot, hash, compression })
    }

    /// Full or incremental.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// True for a full archive.
    pub const fn is_full(&self) -> bool {
        matches!(self.kind, Kind::Full)
    }

    /// The slot whose state a node has after loading the archive (and its base, if it has one).
    pub const fn slot(&self) -> Slot {
        self.slot
    }

    /// Slot of the full archive that a node needs to load: its own for a full one.
    pub const fn base_slot(&self) -> Slot {
        match self.kind {
            Kind::Full => self.slot,
            Kind::Incremental { base } => base,
        }
    }

    /// Hash of the account state.
    pub const fn hash(&self) -> ArchiveHash {
        self.hash
    }

    /// The compression, which the extension tells.
    pub const fn compression(&self) -> Compression {
        self.compression
    }

    /// The archive of the same state in another compression.
    #[must_use]
    pub const fn compressed(self, compression: Compression) -> Self {
        Self { compression, ..self }
    }
}

impl Ord for ArchiveName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.slot
            .cmp(&other.slot)
            .then(self.is_full().cmp(&other.is_full()))
            .then(self.base_slot().cmp(&other.base_slot()))
            .then(self.hash.cmp(&other.hash))
            .then(self.compression.cmp(&other.compression))
    }
}

impl PartialOrd for ArchiveName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for ArchiveName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > MAX_NAME {
            return Err(NameError::Shape);
        }
        let (stem, extension) = text.split_once('.').ok_or(NameError::Shape)?;
        let fields: Vec<&str> = stem.split('-').collect();
        let (base, slot, hash) = match fields[..] {
            ["snapshot", slot, hash] => (None, slot, hash),
            ["incremental", "snapshot", base, slot, hash] => (Some(base), slot, hash),
            _ => return Err(NameError::Shape),
        };
        let compression = Compression::ALL
            .into_iter()
            .find(|compression| compression.extension() == extension)
            .ok_or(NameError::Extension)?;
        let (slot, hash) = (slot.parse()?, hash.parse()?);
        match base {
            None => Ok(Self::full(slot, hash, compression)),
            Some(base) => Self::incremental(base.parse()?, slot, hash, compression),
        }
    }
}

impl fmt::Display for ArchiveName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, slot, hash, compression } = self;
        let extension = compression.extension();
        match kind {
            Kind::Full => write!(f, "snapshot-{slot}-{hash}.{extension}"),
            Kind::Incremental { base } => {
                write!(f, "incremental-snapshot-{base}-{slot}-{hash}.{extension}")
            }
        }
    }
}

impl fmt::Debug for ArchiveName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HASH: &str = "426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY";

    fn check(text: &str, expected: Result<(u64, u64), NameError>) {
        let parsed = text.parse::<ArchiveName>();
        if let Ok(name) = parsed {
            assert_eq!(name.to_string(), text, "one spelling for one archive");
        }
        assert_eq!(parsed.map(|name| (name.base_slot().0, name.slot().0)), expected, "{text:?}");
    }

    #[test]
    fn names_and_almost_names() {
        check(&format!("snapshot-1000-{HASH}.tar.zst"), Ok((1000, 1000)));
        check(&format!("snapshot-0-{HASH}.tar"), Ok((0, 0)));
        check(&format!("snapshot-{}-{HASH}.tar.lz4", u64::MAX), Ok((u64::MAX, u64::MAX)));
        check(&format!("incremental-snapshot-1000-1500-{HASH}.tar.bz2"), Ok((1000, 1500)));
        check(&format!("incremental-snapshot-0-1-{HASH}.tar.gz"), Ok((0, 1)));

        let shape = [
            "",
            "snapshot",
            "snapshot.tar.bz2",
            "incremental-snapshot.tar.zst",
            &format!("snapshot-1000-{HASH}"),
            &format!("snapshot-1000-1001-{HASH}.tar.zst"),
            &format!("incremental-snapshot-1000-{HASH}.tar.zst"),
            &format!("tmp-snapshot-1000-{HASH}.tar.zst"),
            &format!("Snapshot-1000-{HASH}.tar.zst"),
            &format!("/snapshot-1000-{HASH}.tar.zst"),
            &format!("../snapshot-1000-{HASH}.tar.zst"),
            &format!("snapshot-1000-{HASH}-.tar.zst"),
            &format!("snapshot--1000-{HASH}.tar.zst"),
            &"snapshot-".repeat(1000),
        ];
        for text in shape {
            check(text, Err(NameError::Shape));
        }
        for extension in ["", "tar.zs", "tar.zst.", "tar.zst/", "tar.ZST", "zst", "tar.zst\0"] {
            let text = format!("snapshot-1000-{HASH}.{extension}");
            check(&text, Err(NameError::Extension));
        }
        for slot in ["", "01", "+1", " 1", "1_0", "0x1", "\u{661}", "18446744073709551616"] {
            check(&format!("snapshot-{slot}-{HASH}.tar.zst"), Err(NameError::Slot));
            let text = format!("incremental-snapshot-{slot}-2-{HASH}.tar.zst");
            check(&text, Err(NameError::Slot));
        }
        for (base, slot) in [(1000, 1000), (1001, 1000), (1, 0)] {
            let text = format!("incremental-snapshot-{base}-{slot}-{HASH}.tar.zst");
            check(&text, Err(NameError::Base));
        }
        check("snapshot-1-abc.tar.zst", Err(NameError::Hash(HashError::WrongLength)));
        check("snapshot-1-0OIl.tar.zst", Err(NameError::Hash(HashError::NotBase58)));
    }

    #[test]
    fn worth_is_slot_then_full_then_base_then_hash_then_compression() {
        let low = "1".repeat(32);
        let ascending = [
            format!("snapshot-999-{HASH}.tar.zst"),
            format!("incremental-snapshot-1-1000-{HASH}.tar.zst"),
            format!("incremental-snapshot-2-1000-{low}.tar.zst"),
            format!("incremental-snapshot-2-1000-{HASH}.tar"),
            format!("incremental-snapshot-2-1000-{HASH}.tar.lz4"),
            format!("incremental-snapshot-2-1000-{HASH}.tar.zst"),
            format!("snapshot-1000-{low}.tar.zst"),
            format!("snapshot-1000-{HASH}.tar.gz"),
            format!("snapshot-1000-{HASH}.tar.zst"),
        ];
        let names: Vec<ArchiveName> =
            ascending.iter().map(|text| text.parse().expect("valid")).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    }

    fn any_name() -> impl Strategy<Value = ArchiveName> {
        let parts = (any::<Option<u64>>(), any::<u64>(), any::<[u8; 32]>(), 0..6_usize);
        parts.prop_filter_map("base below slot", |(base, slot, hash, form)| {
            let (hash, compression) = (ArchiveHash::new(hash), Compression::ALL[form]);
            match base {
                None => Some(ArchiveName::full(Slot(slot), hash, compression)),
                Some(base) => {
                    ArchiveName::incremental(Slot(base), Slot(slot), hash, compression).ok()
                }
            }
        })
    }

    proptest! {
        #[test]
        fn display_and_parse_are_inverses(name in any_name()) {
            let text = name.to_string();
            prop_assert!(text.len() <= MAX_NAME);
            prop_assert_eq!(text.parse(), Ok(name));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let text = String::from_utf8_lossy(&bytes);
            if let Ok(name) = text.parse::<ArchiveName>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }

        #[test]
        fn mutated_names_parse_to_themselves_or_not_at_all(
            name in any_name(),
            at: prop::sample::Index,
            byte: char,
        ) {
            let mut text: Vec<char> = name.to_string().chars().collect();
            let at = at.index(text.len());
            text[at] = byte;
            let text: String = text.into_iter().collect();
            if let Ok(other) = text.parse::<ArchiveName>() {
                prop_assert_eq!(other.to_string(), text);
            }
        }
    }
}
