//! The members of the tar file in an archive, followed by their headers alone.
//!
//! The `tar` crate reads the headers, and this walks over them itself, for three reasons: that
//! crate takes a file that just ends for a whole one, does not look at what follows the mark of the
//! end, and keeps long names and the maps of sparse files in memory, of whatever size they claim
//! to be.

use std::fmt;

use tar::{EntryType, GnuExtSparseHeader};

use super::Flaw;
use super::pieces::{Header, Pieces};
use crate::snapshot::ArchiveName;

/// Everything in a tar file is in blocks of so many bytes.
const BLOCK: usize = 512;
/// Zero bytes that mark the end: two blocks.
const END: u64 = 2 * BLOCK as u64;

/// What nodes put into an archive ahead of the accounts, in whichever order, and look for there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// The version of the format.
    Version,
    /// Which transactions were seen lately.
    StatusCache,
    /// Everything else that is no account.
    Bank,
}

/// Follows a tar file as it passes, and tells whether it is a whole one and an archive's.
#[derive(Clone, Debug)]
pub(super) struct MemberWalk {
    pieces: Pieces<BLOCK>,
    next: Part,
    /// Path of [`Member::Bank`].
    bank: String,
    /// In the order of [`Member::ALL`].
    seen: [bool; 3],
    /// Whether the last header told more about the member after it, as one with a long name has.
    foretold: bool,
    /// The first flaw. There is no way on after one.
    flaw: Option<Flaw>,
}

/// What is read next.
#[derive(Clone, Copy, Debug)]
enum Part {
    Header,
    /// More of where the stretches of a sparse file belong, and then so many bytes of them.
    SparseMap(u64),
    /// Zeros, the first of them at this byte.
    End(u64),
}

impl Member {
    const ALL: [Self; 3] = [Self::Version, Self::StatusCache, Self::Bank];
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "`version`",
            Self::StatusCache => "`snapshots/status_cache`",
            Self::Bank => "`snapshots/<slot>/<slot>` with the slot of its name",
        })
    }
}

impl MemberWalk {
    /// At the first byte of the tar file in the archive of this name.
    pub(super) fn new(name: &ArchiveName) -> Self {
        let slot = name.slot();
        let bank = format!("snapshots/{slot}/{slot}");
        Self {
            pieces: Pieces::new(),
            next: Part::Header,
            bank,
            seen: [false; 3],
            foretold: false,
            flaw: None,
        }
    }

    /// The next bytes of the tar file, in pieces as they come. An error is final.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), Flaw> {
        if let Some(flaw) = self.flaw {
            return Err(flaw);
        }
        self.follow(bytes).inspect_err(|flaw| self.flaw = Some(*flaw))
    }

    /// The tar file ends here.
    pub(super) fn finish(&self) -> Result<(), Flaw> {
        if let Some(flaw) = self.flaw {
            return Err(flaw);
        }
        let at = self.pieces.end();
        match self.next {
            Part::End(begin) if at - begin >= END => Ok(()),
            Part::End(_) => Err(Flaw::NoEnd { at }),
            Part::Header if self.pieces.gathered() == Some(0) => Err(Flaw::NoEnd { at }),
            Part::Header | Part::SparseMap(_) => Err(Flaw::TarCutShort { at }),
        }
    }

    fn follow(&mut self, mut bytes: &[u8]) -> Result<(), Flaw> {
        loop {
            if let Part::End(_) = self.next {
                return self.follow_end(bytes);
            }
            let Some(block) = self.pieces.header(&mut bytes, BLOCK) else { return Ok(()) };
            self.next = match self.next {
                Part::SparseMap(stored) => self.sparse_map(&block, stored),
                _ => self.member(&block)?,
            };
        }
    }

    fn follow_end(&mut self, bytes: &[u8]) -> Result<(), Flaw> {
        if let Some(zeros) = bytes.iter().position(|byte| *byte != 0) {
            return Err(Flaw::AfterEnd { at: self.pieces.end() + zeros as u64 });
        }
        self.pieces.pass(bytes);
        Ok(())
    }

    /// Reads the header of a member, or the mark of the end.
    fn member(&mut self, block: &Header<BLOCK>) -> Result<Part, Flaw> {
        let at = block.at;
        if block.bytes.iter().all(|byte| *byte == 0) {
            self.complete(at)?;
            return if self.foretold { Err(Flaw::TarCutShort { at }) } else { Ok(Part::End(at)) };
        }
        let header = tar::Header::from_byte_slice(&block.bytes);
        let stored = stored(header).ok_or(Flaw::NotAMember { at })?;
        let kind = header.entry_type();
        self.admit(kind, &header.path_bytes(), at)?;
        self.foretold = tells_of_the_next(kind);
        if kind.is_gnu_sparse() && header.as_gnu().is_some_and(tar::GnuHeader::is_extended) {
            return Ok(Part::SparseMap(stored));
        }
        self.pieces.skip(stored);
        Ok(Part::Header)
    }

    fn sparse_map(&mut self, block: &Header<BLOCK>, stored: u64) -> Part {
        let mut map = GnuExtSparseHeader::new();
        *map.as_mut_bytes() = block.bytes;
        if map.is_extended() {
            return Part::SparseMap(stored);
        }
        self.pieces.skip(stored);
        Part::Header
    }

    /// Lets a member pass, which may be any once those of an archive were there.
    fn admit(&mut self, kind: EntryType, path: &[u8], at: u64) -> Result<(), Flaw> {
        let path = path.strip_prefix(b"./").unwrap_or(path);
        let seen = match kind {
            // Neither these nor what tells more about a following member are members of their own.
            EntryType::Directory | EntryType::XGlobalHeader => return Ok(()),
            kind if tells_of_the_next(kind) => return Ok(()),
            // Some nodes of version 2.0 and 2.1 wrote files with holes as such.
            EntryType::Regular | EntryType::GNUSparse => {
                Member::ALL.iter().position(|member| self.path(*member) == path)
            }
            _ => None,
        };
        match seen {
            Some(member) => self.seen[member] = true,
            None => self.complete(at)?,
        }
        Ok(())
    }

    fn complete(&self, at: u64) -> Result<(), Flaw> {
        match self.seen.iter().position(|seen| !seen) {
            Some(member) => Err(Flaw::Missing { member: Member::ALL[member], at }),
            None => Ok(()),
        }
    }

    fn path(&self, member: Member) -> &[u8] {
        match member {
            Member::Version => b"version",
            Member::StatusCache => b"snapshots/status_cache",
            Member::Bank => self.bank.as_bytes(),
        }
    }
}

/// Whether what is of this kind belongs to the member after it, and is none by itself.
const fn tells_of_the_next(kind: EntryType) -> bool {
    matches!(kind, EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader)
}

/// Bytes that a member takes up after its header, or nothing where this is no header.
fn stored(header: &tar::Header) -> Option<u64> {
    let mut sealed = header.clone();
    sealed.set_cksum();
    if header.cksum().ok()? != sealed.cksum().ok()? {
        return None;
    }
    header.entry_size().ok()?.checked_next_multiple_of(BLOCK as u64)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::{ArchiveHash, Compression, Slot};

    fn member(kind: EntryType, path: &str, size: u64) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        // As it is written here: `set_path` refuses and corrects some.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mtime(0);
        header.set_cksum();
        let content = size.next_multiple_of(512);
        [&header.as_bytes()[..], &vec![0xaa; usize::try_from(content).unwrap()]].concat()
    }

    fn file(path: &str) -> Vec<u8> {
        member(EntryType::Regular, path, 600)
    }

    fn directory(path: &str) -> Vec<u8> {
        member(EntryType::Directory, path, 0)
    }

    /// A file with two holes, and maps of so many blocks after its header.
    fn sparse(path: &str, maps: usize) -> Vec<u8> {
        let mut member = member(EntryType::GNUSparse, path, 1000);
        let mut header = tar::Header::from_byte_slice(&member[..BLOCK]).clone();
        let gnu = header.as_gnu_mut().unwrap();
        gnu.set_real_size(1 << 20);
        gnu.sparse[0].set_offset(4096);
        gnu.sparse[0].set_length(1000);
        gnu.set_is_extended(maps > 0);
        header.set_cksum();
        member.splice(..BLOCK, *header.as_bytes());
        for left in 0..maps {
            let mut map = GnuExtSparseHeader::new();
            map.set_is_extended(left > 0);
            member.splice(BLOCK..BLOCK, *map.as_bytes());
        }
        member
    }

    fn start() -> Vec<u8> {
        [file("version"), file("snapshots/status_cache"), file("snapshots/1000/1000")].concat()
    }

    fn walk(tar: &[u8], piece: usize) -> Result<(), Flaw> {
        let hash = ArchiveHash::new([7; 32]);
        let name = ArchiveName::incremental(Slot(900), Slot(1000), hash, Compression::None);
        let mut walk = MemberWalk::new(&name.unwrap());
        tar.chunks(piece).try_for_each(|piece| walk.push(piece))?;
        walk.finish()
    }

    #[track_caller]
    fn check(parts: &[&[u8]], expected: Result<(), Flaw>) {
        let tar = parts.concat();
        assert_eq!(walk(&tar, tar.len().max(1)), expected, "in one piece");
        for piece in [1, 7, 512, 1000] {
            assert_eq!(walk(&tar, piece), expected, "in pieces of {piece}");
        }
    }

    /// Members, and the mark of the end after them.
    #[track_caller]
    fn check_members(members: &[&[u8]], expected: Result<(), Flaw>) {
        check(&[&members.concat(), &[0; 1024]], expected);
    }

    const MEMBER: u64 = 512 + 1024;

    fn missing(member: Member, at: u64) -> Result<(), Flaw> {
        Err(Flaw::Missing { member, at })
    }

    #[test]
    fn the_members_of_an_archive_come_first() {
        let [version, cache] = [file("version"), file("snapshots/status_cache")];
        let [bank, account] = [file("snapshots/1000/1000"), file("accounts/999.1")];
        let [above, below] = [directory("snapshots/"), directory("snapshots/1000")];
        check_members(&[&version, &above, &cache, &below, &bank, &account], Ok(()));
        check_members(&[&above, &below, &bank, &cache, &version, &account], Ok(()));
        check_members(&[&cache, &version, &bank], Ok(()));
        let dotted = ["./version", "./snapshots/status_cache", "./snapshots/1000/1000"].map(file);
        check_members(&[&directory("./"), &dotted.concat(), &account], Ok(()));

        let none = missing(Member::Version, 0);
        check_members(&[], none);
        check_members(&[&account, &version, &cache, &bank], none);
        check_members(&[&cache, &bank, &account], missing(Member::Version, 2 * MEMBER));
        let no_cache = missing(Member::StatusCache, 2 * MEMBER);
        check_members(&[&version, &bank, &account, &cache], no_cache);
        let no_bank = missing(Member::Bank, 2 * MEMBER);
        check_members(&[&version, &cache], no_bank);
        check_members(&[&version, &cache, &account], no_bank);
        // Another slot's, and that of the archive below.
        for other in ["snapshots/1001/1001", "snapshots/900/900", "snapshots/1000/1001"] {
            check_members(&[&version, &cache, &file(other), &bank], no_bank);
        }
        for strange in ["/version", "../version", "././version", "version/", "Version", "versio"] {
            check_members(&[&file(strange), &version, &cache, &bank], none);
        }
    }

    #[test]
    fn only_files_are_members_of_an_archive() {
        let with = |first: Vec<u8>| [first, start()].concat();
        // These say something of the member after them.
        for kind in [b'L', b'K', b'x', b'g'] {
            let extension = member(EntryType::new(kind), "version", 600);
            check(&[&with(extension), &[0; 1024]], Ok(()));
        }
        for kind in [b'1', b'2', b'3', b'4', b'6', b'7', b'M', b'A'] {
            let other = member(EntryType::new(kind), "version", 0);
            check(&[&with(other.clone()), &[0; 1024]], missing(Member::Version, 0));
            check(&[&start(), &other, &[0; 1024]], Ok(()));
        }
        check(&[&with(directory("accounts/")), &[0; 1024]], Ok(()));
    }

    #[test]
    fn files_with_holes_are_as_long_as_what_is_stored_of_them() {
        let whole = [sparse("version", 0), start(), sparse("accounts/999.1", 1)].concat();
        check(&[&whole, &sparse("accounts/999.2", 3), &file("accounts/3.1"), &[0; 1024]], Ok(()));
        let cut = &whole[..whole.len() - 1024];
        check(&[cut], Err(Flaw::TarCutShort { at: cut.len() as u64 }));
        let cut = &whole[..whole.len() - 1025];
        check(&[cut], Err(Flaw::TarCutShort { at: cut.len() as u64 }));
    }

    #[test]
    fn the_end_is_marked_and_nothing_follows() {
        let start = start();
        let end = start.len() as u64;
        check(&[], Err(Flaw::NoEnd { at: 0 }));
        check(&[&start], Err(Flaw::NoEnd { at: end }));
        check(&[&start, &[0; 511]], Err(Flaw::TarCutShort { at: end + 511 }));
        check(&[&start, &[0; 512]], Err(Flaw::NoEnd { at: end + 512 }));
        check(&[&start, &[0; 1023]], Err(Flaw::NoEnd { at: end + 1023 }));
        for zeros in [1024, 1025, 10 << 10, 20 << 10] {
            check(&[&start, &vec![0; zeros]], Ok(()));
            let at = end + zeros as u64;
            check(&[&start, &vec![0; zeros], &[1]], Err(Flaw::AfterEnd { at }));
        }
        check(&[&start, &[0; 1024], &start], Err(Flaw::AfterEnd { at: end + 1024 }));
        check(&[&start, &[0; 512], &file("accounts/1.1"), &[0; 1024]], {
            Err(Flaw::AfterEnd { at: end + 512 })
        });
    }

    #[test]
    fn what_is_no_header_is_found() {
        let start = start();
        let at = start.len() as u64;
        let not = Err(Flaw::NotAMember { at });
        check(&[&start, &[b'x'; 512]], not);
        check(&[b"<html>", &[b' '; 2000]], Err(Flaw::NotAMember { at: 0 }));
        let account = file("accounts/1.1");
        for byte in [0, 105, 124, 130, 148, 156, 257, 345, 511] {
            let mut changed = account.clone();
            changed[byte] ^= 1;
            check(&[&start, &changed, &[0; 1024]], not);
        }
        // Shifted by what was lost before it.
        let lost = [&start[..1024], &start[1536..]].concat();
        check(&[&lost], Err(Flaw::NotAMember { at: MEMBER }));
        for size in [u64::MAX, u64::MAX - 511] {
            let mut header = tar::Header::from_byte_slice(&account[..BLOCK]).clone();
            header.set_size(size);
            header.set_cksum();
            let expected = if size % 512 == 0 {
                Flaw::TarCutShort { at: at + 512 }
            } else {
                Flaw::NotAMember { at }
            };
            check(&[&start, header.as_bytes()], Err(expected));
        }
    }

    #[test]
    fn what_is_told_of_a_member_is_followed_by_one() {
        let (start, account) = (start(), file("accounts/1.1"));
        let at = start.len() as u64 + MEMBER;
        for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
            let told = member(kind, "././@LongLink", 600);
            check_members(&[&start, &told, &account], Ok(()));
            check_members(&[&start, &told, &told, &account], Ok(()));
            check_members(&[&start, &account, &told], Err(Flaw::TarCutShort { at: at + MEMBER }));
        }
        // This one is about all that come after it, if any.
        check_members(&[&start, &member(EntryType::XGlobalHeader, "x", 600)], Ok(()));
    }

    #[test]
    fn an_error_is_final() {
        let hash = ArchiveHash::new([7; 32]);
        let mut walk = MemberWalk::new(&ArchiveName::full(Slot(1), hash, Compression::Zstd));
        let flaw = Err(Flaw::NotAMember { at: 0 });
        assert_eq!(walk.push(&[b'x'; 512]), flaw);
        assert_eq!(walk.push(&[]), flaw);
        assert_eq!(walk.finish(), flaw);
    }
    proptest! {
        #[test]
        fn the_verdict_does_not_depend_on_the_pieces(
            changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            end: prop::sample::Index,
            piece in 1..3000_usize,
        ) {
            let mut tar = [start(), sparse("accounts/1.1", 2), vec![0; 2048]].concat();
            for (at, with) in changes {
                let at = at.index(tar.len());
                tar[at] = with;
            }
            tar.truncate(tar.len() - end.index(tar.len()));
            prop_assert_eq!(walk(&tar, tar.len()), walk(&tar, piece));
        }
    }
}
