//! The archives that one origin holds, in a directory of its own.

use std::cmp::Reverse;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;

use crate::snapshot::{ArchiveName, Kind};

/// Incremental archives that are kept; nodes keep as many.
const KEPT_INCREMENTALS: usize = 4;

/// One archive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holding {
    /// The name of the archive.
    pub(super) name: ArchiveName,
    /// Bytes of the archive.
    pub(super) size: u64,
    /// When it was written.
    pub(super) modified: SystemTime,
}

/// What one origin holds. Has one writer; readers see an archive when it is complete.
pub(super) struct Shelf {
    dir: PathBuf,
    holdings: ArcSwap<Vec<Holding>>,
}

impl Shelf {
    /// An empty one in a new directory.
    pub(super) fn new(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir(&dir)?;
        Ok(Self { dir, holdings: ArcSwap::default() })
    }

    /// Everything there is, the best first.
    pub(super) fn holdings(&self) -> Arc<Vec<Holding>> {
        self.holdings.load_full()
    }

    /// The newest full archive.
    pub(super) fn full(&self) -> Option<ArchiveName> {
        self.holdings.load().iter().map(|holding| holding.name).find(ArchiveName::is_full)
    }

    /// The newest incremental archive on the newest full one, which is the only one that a node
    /// speaks of.
    pub(super) fn incremental(&self) -> Option<ArchiveName> {
        let kind = Kind::Incremental { base: self.full()?.slot() };
        self.holdings.load().iter().map(|holding| holding.name).find(|name| name.kind() == kind)
    }

    /// An archive that is held, and its bytes. They stay readable when the archive is retired.
    pub(super) async fn open(&self, name: ArchiveName) -> Option<(Holding, tokio::fs::File)> {
        let holding = self.holdings.load().iter().find(|holding| holding.name == name).copied()?;
        // It may be retired just now, which is the same as being gone already.
        let file = tokio::fs::File::open(self.path(name)).await.ok()?;
        Some((holding, file))
    }

    /// Adds an archive and retires what there is no room for. Blocks.
    pub(super) fn store(
        &self,
        name: ArchiveName,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let path = self.path(name);
        let temporary = self.dir.join(format!("tmp-{name}"));
        let holding = write_file(&temporary, &path, name, write).inspect_err(|_| {
            // On a full disk the next archive has a chance only if this one leaves nothing behind.
            let _ = fs::remove_file(&temporary);
        })?;
        let mut holdings = Vec::clone(&self.holdings.load());
        holdings.push(holding);
        holdings.sort_by_key(|holding| Reverse(holding.name));
        let incrementals = holdings.iter().filter(|holding| !holding.name.is_full());
        let retired: Vec<ArchiveName> =
            incrementals.skip(KEPT_INCREMENTALS).map(|holding| holding.name).collect();
        holdings.retain(|holding| !retired.contains(&holding.name));
        self.holdings.store(Arc::new(holdings));
        retired.into_iter().try_for_each(|name| fs::remove_file(self.path(name)))
    }

    fn path(&self, name: ArchiveName) -> PathBuf {
        self.dir.join(name.to_string())
    }
}

/// Writes under one path and moves to the other, so that what is there is whole.
fn write_file(
    temporary: &Path,
    path: &Path,
    name: ArchiveName,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<Holding> {
    let mut file = BufWriter::new(File::create(temporary)?);
    write(&mut file)?;
    let metadata = file.into_inner()?.metadata()?;
    fs::rename(temporary, path)?;
    Ok(Holding { name, size: metadata.len(), modified: metadata.modified()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{ArchiveHash, Compression, Slot};

    const HASH: ArchiveHash = ArchiveHash::new([7; 32]);

    fn full() -> ArchiveName {
        ArchiveName::full(Slot(1000), HASH, Compression::Zstd)
    }

    fn incremental(slot: u64) -> ArchiveName {
        ArchiveName::incremental(Slot(1000), Slot(slot), HASH, Compression::Zstd).unwrap()
    }

    #[test]
    fn the_newest_four_incrementals_stay() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(dir.path().join("shelf")).unwrap();
        assert_eq!((shelf.full(), shelf.incremental()), (None, None));
        shelf.store(full(), |out| out.write_all(b"full")).unwrap();
        assert_eq!((shelf.full(), shelf.incremental()), (Some(full()), None));
        for slot in 1001..=1006 {
            shelf.store(incremental(slot), |out| out.write_all(b"more")).unwrap();
            assert_eq!(shelf.incremental(), Some(incremental(slot)));
        }
        let names: Vec<ArchiveName> = shelf.holdings().iter().map(|held| held.name).collect();
        assert_eq!(
            names,
            [incremental(1006), incremental(1005), incremental(1004), incremental(1003), full()]
        );
        let mut files: Vec<ArchiveName> = fs::read_dir(dir.path().join("shelf"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
            .collect();
        files.sort_by(|a, b| b.cmp(a));
        assert_eq!(files, names);
        assert!(shelf.holdings().iter().all(|held| held.size == 4));
    }

    #[test]
    fn what_fails_is_not_held_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(dir.path().join("shelf")).unwrap();
        shelf.store(full(), |_| Err(io::Error::other("full disk"))).unwrap_err();
        assert!(shelf.holdings().is_empty());
        assert_eq!(fs::read_dir(dir.path().join("shelf")).unwrap().count(), 0);
    }
}
