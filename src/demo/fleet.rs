//! The origins together: who holds what, and what comes next.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::archive::{self, Recipe};
use super::origin::{Dialect, Origin};
use super::shelf::Shelf;
use super::workspace::Workspace;
use crate::snapshot::{ArchiveName, Compression, NameError, Slot};

/// Slot of the full archive.
const FULL_SLOT: u64 = 350_000_000;
/// Slots between two incremental archives, as in nodes.
const INTERVAL_SLOTS: u64 = 100;
/// Incremental archives that are there from the start, where nothing lags.
const FIRST_ROUNDS: u64 = 2;
/// Bytes of accounts in the full archive: enough to see a transfer, little enough to make at once.
const FULL_PAYLOAD: u64 = 24 << 20;
/// Bytes of accounts in an incremental archive.
const INCREMENTAL_PAYLOAD: u64 = 3 << 20;

/// Name, kind, and by how many incremental archives it is behind.
const ORIGINS: [(&str, Dialect, u64); 3] =
    [("rpc-1", Dialect::Rpc, 0), ("rpc-2", Dialect::Rpc, 1), ("sidecar", Dialect::Sidecar, 0)];

/// One origin, as its archives are written.
struct Member {
    name: &'static str,
    dialect: Dialect,
    lag: u64,
    shelf: Arc<Shelf>,
}

/// All origins. What a method here makes is written to disk before it returns.
pub(super) struct Fleet {
    seed: u64,
    members: Vec<Member>,
    workspace: Arc<Workspace>,
    /// How many incremental archives there were, where nothing lags.
    rounds: AtomicU64,
}

impl Fleet {
    /// Origins that hold nothing yet.
    pub(super) fn new(seed: u64, workspace: Arc<Workspace>) -> io::Result<Self> {
        let member = |(name, dialect, lag)| {
            let shelf = Arc::new(Shelf::new(workspace.path().join(name))?);
            Ok(Member { name, dialect, lag, shelf })
        };
        let members = ORIGINS.into_iter().map(member).collect::<io::Result<_>>()?;
        Ok(Self { seed, members, workspace, rounds: AtomicU64::new(0) })
    }

    /// What answers for each origin, and its name.
    pub(super) fn origins(&self) -> impl Iterator<Item = (&'static str, Origin)> {
        self.members
            .iter()
            .map(|member| (member.name, Origin::new(member.dialect, Arc::clone(&member.shelf))))
    }

    /// Writes what is there from the start and returns the best of it. Blocks.
    pub(super) fn stock(&self) -> io::Result<ArchiveName> {
        let slot = Slot(FULL_SLOT);
        let hash = archive::state_hash(self.seed, slot);
        let mut newest = ArchiveName::full(slot, hash, Compression::Zstd);
        for (origin, member) in (0..).zip(&self.members) {
            self.make(origin, member, newest, FULL_PAYLOAD)?;
        }
        for _ in 0..FIRST_ROUNDS {
            newest = self.advance()?;
        }
        Ok(newest)
    }

    /// Writes one more incremental archive on each origin and returns the newest. Blocks.
    pub(super) fn advance(&self) -> io::Result<ArchiveName> {
        let round = self.rounds.fetch_add(1, Ordering::Relaxed) + 1;
        for (origin, member) in (0..).zip(&self.members) {
            if round > member.lag {
                let name = self.incremental(round - member.lag)?;
                self.make(origin, member, name, INCREMENTAL_PAYLOAD)?;
            }
        }
        self.incremental(round)
    }

    fn incremental(&self, round: u64) -> io::Result<ArchiveName> {
        let (base, slot) = (Slot(FULL_SLOT), Slot(FULL_SLOT + round * INTERVAL_SLOTS));
        let hash = archive::state_hash(self.seed, slot);
        ArchiveName::incremental(base, slot, hash, Compression::Zstd)
            .map_err(|error: NameError| io::Error::other(error))
    }

    fn make(
        &self,
        origin: u64,
        member: &Member,
        name: ArchiveName,
        payload: u64,
    ) -> io::Result<()> {
        let recipe = Recipe { seed: self.seed, origin, name, payload };
        self.workspace.write(|| member.shelf.store(name, |out| archive::write(&recipe, out)))
    }
}
