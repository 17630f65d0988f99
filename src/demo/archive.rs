//! Generated archives: what a node writes, with noise where the accounts would be.
//!
//! One zstd frame without content size and without checksum, and in it a GNU tar with the members
//! that Agave 3.0 puts there, in its order: `version`, the status cache, the bank at the slot, the
//! account files. The bytes follow from the [`Recipe`] alone.

use std::io::{self, Read, Write};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use tar::{EntryType, Header};

use crate::snapshot::{ArchiveHash, ArchiveName, Slot};

/// The format of today's archives.
const VERSION: &[u8] = b"1.2.0";
/// The level that nodes compress with.
const LEVEL: i32 = 1;
/// Bytes of the status cache and of the bank, which are small beside the accounts.
const FIELDS: u64 = 32 << 10;
/// Least size of an account file, in bytes.
const LEAST_FILE: u64 = 128 << 10;
/// Above the least, a file has less than this many times eight bytes.
const FILE_STEPS: u64 = 128 << 10;
/// Time of the members that have one: none that passes, or bytes would change with it.
const MEMBER_TIME: u64 = 1_700_000_000;
/// Stands in for the origin where something is the same on all of them.
const NO_ORIGIN: u64 = u64::MAX;

/// What an archive is made from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recipe {
    /// Seed of the whole demo.
    pub(super) seed: u64,
    /// The node that writes it: the same state has other bytes on another node, since each lays
    /// out its account files in its own way.
    pub(super) origin: u64,
    /// The name, whose hash does not count.
    pub(super) name: ArchiveName,
    /// Least bytes of all account files together.
    pub(super) payload: u64,
}

/// Hash of the state at a slot, on every node.
pub(super) fn state_hash(seed: u64, slot: Slot) -> ArchiveHash {
    let mut bytes = [0; 32];
    noise(seed, NO_ORIGIN, slot, slot).fill_bytes(&mut bytes);
    ArchiveHash::new(bytes)
}

/// Writes the archive. Memory does not grow with its size.
pub(super) fn write(recipe: &Recipe, out: impl Write) -> io::Result<()> {
    let Recipe { seed, origin, name, .. } = *recipe;
    let mut noise = Noise(noise(seed, origin, name.base_slot(), name.slot()));
    let mut tar = tar::Builder::new(zstd::Encoder::new(out, LEVEL)?);
    for member in members(recipe, &mut noise.0) {
        let header = member.header()?;
        match member.content {
            Content::Directory => tar.append(&header, io::empty())?,
            Content::Version => tar.append(&header, VERSION)?,
            Content::Fields(size) | Content::Accounts(size) => {
                tar.append(&header, noise.by_ref().take(size))?;
            }
        }
    }
    tar.into_inner()?.finish()?.flush()
}

/// Independent streams for everything that differs.
fn noise(seed: u64, origin: u64, base: Slot, slot: Slot) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (part, value) in key.chunks_exact_mut(8).zip([seed, origin, base.0, slot.0]) {
        part.copy_from_slice(&value.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// One entry of the tar file.
struct Member {
    path: String,
    content: Content,
}

enum Content {
    Directory,
    Version,
    /// Bytes of the status cache or the bank.
    Fields(u64),
    /// Bytes of an account file.
    Accounts(u64),
}

impl Member {
    fn size(&self) -> u64 {
        match self.content {
            Content::Directory => 0,
            Content::Version => VERSION.len() as u64,
            Content::Fields(size) | Content::Accounts(size) => size,
        }
    }

    fn header(&self) -> io::Result<Header> {
        // Account files come out of a node's storage and not out of a directory, so nodes leave
        // their mode and time at zero.
        let (kind, mode, time) = match self.content {
            Content::Directory => (EntryType::Directory, 0o755, MEMBER_TIME),
            Content::Version | Content::Fields(_) => (EntryType::Regular, 0o644, MEMBER_TIME),
            Content::Accounts(_) => (EntryType::Regular, 0, 0),
        };
        let mut header = Header::new_gnu();
        header.set_path(&self.path)?;
        header.set_entry_type(kind);
        header.set_size(self.size());
        header.set_mode(mode);
        header.set_mtime(time);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        Ok(header)
    }
}

/// The members in their order. Number, slots, ids and sizes of the account files are the node's.
fn members(recipe: &Recipe, rng: &mut ChaCha8Rng) -> Vec<Member> {
    let slot = recipe.name.slot();
    let member = |path: String, content| Member { path, content };
    let mut members = vec![
        member("version".to_owned(), Content::Version),
        member("snapshots/".to_owned(), Content::Directory),
        member("snapshots/status_cache".to_owned(), Content::Fields(FIELDS)),
        member(format!("snapshots/{slot}"), Content::Directory),
        member(format!("snapshots/{slot}/{slot}"), Content::Fields(FIELDS)),
    ];
    // A full archive holds accounts of any age, an incremental one what changed since its base.
    let ages = if recipe.name.is_full() { 1000 } else { slot.0 - recipe.name.base_slot().0 };
    let mut id = rng.next_u64() % 1_000_000;
    let mut left = recipe.payload;
    while left > 0 {
        // Sizes are multiples of eight as in nodes; it also keeps the noise independent of how
        // much of it is read at once, since its generator hands out words.
        let size = LEAST_FILE + rng.next_u64() % FILE_STEPS * 8;
        let written = slot.0.saturating_sub(rng.next_u64() % ages);
        members.push(member(format!("accounts/{written}.{id}"), Content::Accounts(size)));
        id += 1 + rng.next_u64() % 16;
        left = left.saturating_sub(size);
    }
    members
}

/// Bytes without end that nothing compresses.
struct Noise(ChaCha8Rng);

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.fill_bytes(buffer);
        Ok(buffer.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Compression;

    const PAYLOAD: u64 = 1 << 20;

    fn recipe(seed: u64, origin: u64, base: Option<u64>, slot: u64) -> Recipe {
        let (slot, hash) = (Slot(slot), state_hash(seed, Slot(slot)));
        let name = match base {
            None => ArchiveName::full(slot, hash, Compression::Zstd),
            Some(base) => {
                ArchiveName::incremental(Slot(base), slot, hash, Compression::Zstd).unwrap()
            }
        };
        Recipe { seed, origin, name, payload: PAYLOAD }
    }

    fn bytes(recipe: &Recipe) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(recipe, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn bytes_follow_from_seed_origin_and_name() {
        let archive = bytes(&recipe(1, 0, None, 1000));
        assert!(archive == bytes(&recipe(1, 0, None, 1000)), "the same recipe");
        let others = [
            recipe(2, 0, None, 1000),
            recipe(1, 1, None, 1000),
            recipe(1, 0, None, 1001),
            recipe(1, 0, Some(900), 1000),
        ];
        for other in others {
            assert!(archive != bytes(&other), "{other:?}");
        }
    }

    #[test]
    fn names_are_the_same_on_every_origin() {
        let name = recipe(1, 0, None, 1000).name;
        assert_eq!(name, recipe(1, 1, None, 1000).name);
        assert_ne!(name.hash(), recipe(2, 0, None, 1000).name.hash());
        assert_ne!(name.hash(), recipe(1, 0, None, 1001).name.hash());
    }

    #[test]
    fn noise_is_independent_of_how_it_is_read() {
        let mut whole = vec![0; 8 << 10];
        Noise(noise(1, 2, Slot(3), Slot(4))).read_exact(&mut whole).unwrap();
        let mut parts = vec![0; whole.len()];
        let mut noise = Noise(noise(1, 2, Slot(3), Slot(4)));
        parts.chunks_mut(264).for_each(|part| noise.read_exact(part).unwrap());
        assert!(whole == parts);
    }

    /// Decodes an archive and returns the paths, types and sizes of its members.
    fn decoded(archive: &[u8]) -> Vec<(String, EntryType, u64)> {
        let mut tar = tar::Archive::new(zstd::Decoder::new(archive).unwrap());
        let entries = tar.entries().unwrap();
        let members = entries.map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            let read = io::copy(&mut entry, &mut io::sink()).unwrap();
            assert_eq!(read, entry.header().size().unwrap(), "{path}");
            (path, entry.header().entry_type(), read)
        });
        members.collect()
    }

    fn check_members(recipe: &Recipe, oldest: u64) {
        let slot = recipe.name.slot().0;
        let archive = bytes(recipe);
        let found = decoded(&archive);
        let (fields, accounts) = found.split_at(5);
        let expected = [
            ("version".to_owned(), EntryType::Regular, 5),
            ("snapshots/".to_owned(), EntryType::Directory, 0),
            ("snapshots/status_cache".to_owned(), EntryType::Regular, FIELDS),
            (format!("snapshots/{slot}"), EntryType::Directory, 0),
            (format!("snapshots/{slot}/{slot}"), EntryType::Regular, FIELDS),
        ];
        assert_eq!(fields, expected);
        let mut total = 0;
        for (path, kind, size) in accounts {
            let (of, id) = path.strip_prefix("accounts/").unwrap().split_once('.').unwrap();
            assert!((oldest..=slot).contains(&of.parse().unwrap()), "{path}");
            assert!(id.parse::<u64>().is_ok() && *kind == EntryType::Regular, "{path}");
            total += size;
        }
        assert!(total >= PAYLOAD && archive.len() as u64 > PAYLOAD, "nothing compresses it");
    }

    #[test]
    fn members_are_those_of_a_real_archive_in_order() {
        check_members(&recipe(1, 0, None, 350_000_000), 349_999_001);
        check_members(&recipe(1, 0, None, 7), 0);
        check_members(&recipe(1, 2, Some(1000), 1100), 1001);
    }

    #[test]
    fn the_tar_ends_with_its_marker_in_one_frame_without_checksum() {
        let archive = bytes(&recipe(1, 0, None, 1000));
        // RFC 8878, 3.1.1.1: no single segment and no content size, no checksum, no dictionary.
        assert_eq!((&archive[..4], archive[4]), (&[0x28, 0xb5, 0x2f, 0xfd][..], 0));
        let mut decoder = zstd::Decoder::new(&archive[..]).unwrap().single_frame();
        let mut tar = Vec::new();
        decoder.read_to_end(&mut tar).unwrap();
        assert!(decoder.finish().buffer().is_empty(), "nothing after the first frame");
        assert!(tar.ends_with(&[0; 1024]));
        assert_eq!(tar.len() % 512, 0);
    }
}
