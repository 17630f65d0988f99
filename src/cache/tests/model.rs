//! The store against a plain map of what should be cached, by random operations, crashes included.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use super::{
    BLOCK, GROUPS, SLICE, Worths, announced, content, eventually, files, full, incremental, open,
    target,
};
use crate::cache::{Abandoned, Claim, Fill, Record, Reservation, SealedReader, Standing, Store};
use crate::clock::Now;
use crate::index::{Held, Worth};
use crate::snapshot::ArchiveName;

/// Archives that are played with: two generations, one of each group.
const NAMES: usize = 4;

fn name(archive: usize) -> ArchiveName {
    match archive {
        0 => full(1000),
        1 => incremental(1000, 1500),
        2 => full(2000),
        _ => incremental(2000, 2500),
    }
}

fn group(archive: usize) -> &'static str {
    GROUPS[archive / 2]
}

/// One thing that happens. An operation on an archive that is not at that stage does nothing.
#[derive(Clone, Debug)]
enum Op {
    /// What the archives are worth from now on.
    Worths([Worth; NAMES]),
    Claim(usize),
    /// Length and seed.
    Reserve(usize, usize, u32),
    Begin(usize),
    /// Pieces of these lengths, or of what is left.
    Write(usize, Vec<usize>),
    WriteAll(usize),
    /// Rightly or too early.
    Finish(usize),
    /// All, and one byte more.
    Overrun(usize),
    /// Whatever has been begun is dropped.
    Abandon(usize),
    /// From the claim to the end: length and seed, then the pieces.
    Fetch(usize, usize, u32, Vec<usize>),
    Remove(usize),
    Open(usize),
    /// One of the open readers: goes there, and reads so many slices.
    Read(usize, Option<(usize, usize)>, usize),
    /// The process vanishes and another one finds its files.
    Crash,
    /// The process ends and another one finds its files.
    Reopen,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let edge = |size: usize| [size - 1, size, size + 1];
    let edges = [edge(BLOCK), edge(2 * BLOCK), edge(SLICE + BLOCK)].concat();
    let length = prop_oneof![8 => 0..5000_usize, 1 => prop::sample::select(edges)];
    let piece = prop_oneof![Just(0), 1..3000_usize, 1..2 * BLOCK];
    let pieces = prop::collection::vec(piece, 0..5);
    let archive = || 0..NAMES;
    let place = || prop_oneof![0..6000_usize, 0..3 * BLOCK];
    let seek = prop::option::of((place(), place()));
    let worth = prop_oneof![
        4 => Just(Worth::Best),
        1 => Just(Worth::Doubtful),
        2 => Just(Worth::Superseded),
    ];
    let fetch = (archive(), length.clone(), any::<u32>(), pieces.clone());
    let reserve = (archive(), length, any::<u32>());
    let op = prop_oneof![
        3 => prop::array::uniform4(worth).prop_map(Op::Worths),
        2 => Just(Op::Worths([Worth::Best; NAMES])),
        3 => archive().prop_map(Op::Claim),
        3 => reserve.prop_map(|(archive, length, seed)| Op::Reserve(archive, length, seed)),
        3 => archive().prop_map(Op::Begin),
        4 => (archive(), pieces).prop_map(|(archive, pieces)| Op::Write(archive, pieces)),
        2 => archive().prop_map(Op::WriteAll),
        2 => archive().prop_map(Op::Finish),
        1 => archive().prop_map(Op::Overrun),
        1 => archive().prop_map(Op::Abandon),
        8 => fetch.prop_map(|(archive, length, seed, pieces)| {
            Op::Fetch(archive, length, seed, pieces)
        }),
        2 => archive().prop_map(Op::Remove),
        3 => archive().prop_map(Op::Open),
        4 => (0..9_usize, seek, 0..3_usize).prop_map(|(reader, seek, slices)| {
            Op::Read(reader, seek, slices)
        }),
        1 => Just(Op::Crash),
        1 => Just(Op::Reopen),
    ];
    prop::collection::vec(op, 1..40)
}

/// A refresh on its way.
enum Work {
    Claimed(Claim),
    Reserved(Box<Reservation>, Bytes),
    Filling { fill: Fill, bytes: Bytes, written: usize },
}

/// A reader, and what it has still to read.
struct Reading {
    reader: SealedReader,
    bytes: Bytes,
    rest: Range<usize>,
}

/// The store, and what should be in it.
struct World {
    runtime: Runtime,
    directory: TempDir,
    store: Store,
    held: watch::Receiver<Arc<[Held]>>,
    worths: Worths,
    /// The model: what is cached, and since when where this process found it.
    cached: BTreeMap<usize, (Bytes, Option<Now>)>,
    works: BTreeMap<usize, Work>,
    readings: Vec<Reading>,
}

/// Bytes of an unfinished file: whole blocks, or all at its end.
fn on_disk(written: usize) -> usize {
    written / BLOCK * BLOCK
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let worths = Worths::default();
        let store = open(directory.path(), &worths, Now::read());
        let world = Self {
            runtime: Builder::new_current_thread().enable_time().build().expect("a runtime"),
            held: store.held(),
            directory,
            store,
            worths,
            cached: BTreeMap::new(),
            works: BTreeMap::new(),
            readings: Vec::new(),
        };
        world.value([Worth::Best; NAMES]);
        world
    }

    fn value(&self, worths: [Worth; NAMES]) {
        let archives = (0..NAMES).zip(worths);
        self.worths.set(archives.map(|(archive, worth)| (name(archive), group(archive), worth)));
    }

    fn worth(&self, archive: usize) -> Worth {
        self.worths.of(&name(archive), group(archive))
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Worths(worths) => self.value(worths),
            Op::Claim(archive) => self.claim(archive),
            Op::Reserve(archive, length, seed) => self.reserve(archive, content(seed, length)),
            Op::Begin(archive) => self.begin(archive),
            Op::Write(archive, pieces) => self.write(archive, pieces),
            Op::WriteAll(archive) => self.write(archive, vec![usize::MAX]),
            Op::Finish(archive) => self.finish(archive),
            Op::Overrun(archive) => self.overrun(archive),
            Op::Abandon(archive) => {
                self.works.remove(&archive);
                self.is_abandoned(archive);
            }
            Op::Fetch(archive, length, seed, pieces) => {
                self.claim(archive);
                self.reserve(archive, content(seed, length));
                self.begin(archive);
                self.write(archive, pieces);
                self.write(archive, vec![usize::MAX]);
                self.finish(archive);
            }
            Op::Remove(archive) => {
                let was_there = self.cached.remove(&archive).is_some();
                assert_eq!(self.store.remove(&name(archive)), was_there);
                self.is_abandoned(archive);
            }
            Op::Open(archive) => self.open(archive),
            Op::Read(reader, seek, slices) => self.read(reader, seek, slices),
            // These are another world.
            Op::Crash | Op::Reopen => {}
        }
    }

    /// Waits until the thread of a fill that was ended has undone it, where it was not cached.
    fn is_abandoned(&self, archive: usize) {
        if self.cached.contains_key(&archive) || self.works.contains_key(&archive) {
            return;
        }
        eventually("nothing is left of the fill", || {
            matches!(self.store.standing(&name(archive)), Standing::Absent).then_some(())
        });
    }

    fn claim(&mut self, archive: usize) {
        let claim = self.store.claim(&name(archive), &target(group(archive)));
        let expected = !self.cached.contains_key(&archive) && !self.works.contains_key(&archive);
        assert_eq!(claim.is_some(), expected, "a claim of {archive}");
        if let Some(claim) = claim {
            self.works.insert(archive, Work::Claimed(claim));
        }
    }

    /// What is no longer the best goes.
    fn reserve(&mut self, archive: usize, bytes: Bytes) {
        match self.works.remove(&archive) {
            Some(Work::Claimed(claim)) => {
                let worth = |archive| self.worths.of(&name(archive), group(archive));
                self.cached.retain(|archive, _| worth(*archive) == Worth::Best);
                // The thread that sealed what goes may not have given the name free yet.
                let others = (0..NAMES).filter(|other| *other != archive);
                let reservation = claim.reserve(announced(group(archive), bytes.len()));
                let work = Work::Reserved(Box::new(reservation.expect("room")), bytes);
                self.works.insert(archive, work);
                others.for_each(|other| self.is_abandoned(other));
            }
            Some(work) => drop(self.works.insert(archive, work)),
            None => {}
        }
    }

    fn begin(&mut self, archive: usize) {
        match self.works.remove(&archive) {
            Some(Work::Reserved(reservation, bytes)) => {
                let fill = Fill::begin(*reservation).expect("a thread");
                self.works.insert(archive, Work::Filling { fill, bytes, written: 0 });
            }
            Some(work) => drop(self.works.insert(archive, work)),
            None => {}
        }
    }

    fn write(&mut self, archive: usize, pieces: Vec<usize>) {
        let worth = self.worth(archive);
        let Some(Work::Filling { fill, bytes, written }) = self.works.get_mut(&archive) else {
            return;
        };
        let (before, goes_on) = (*written, worth != Worth::Superseded);
        for piece in pieces {
            let end = bytes.len().min(written.saturating_add(piece));
            match self.runtime.block_on(fill.write(bytes.slice(*written..end))) {
                Ok(()) => *written = end,
                // The writer learns it with the first of the blocks, at any time from then on.
                Err(why) => {
                    assert!(!goes_on && on_disk(end) > on_disk(before), "{archive}: {why}");
                    assert_eq!(why, Abandoned::NotBest);
                    *written = end;
                    break;
                }
            }
        }
        let (blocks, reason) = (on_disk(*written), fill.reason());
        if goes_on || blocks == on_disk(before) {
            let part = self.directory.path().join(format!("{}.snapedge-part", name(archive)));
            eventually("the blocks are in the file", || {
                (part.metadata().expect("a file").len() == blocks as u64).then_some(())
            });
            assert_eq!(reason.given(), None);
        } else if let Some(Work::Filling { fill, .. }) = self.works.remove(&archive) {
            // Those who hold it are told, however late they ask.
            self.is_abandoned(archive);
            assert_eq!(reason.given(), Some(Abandoned::NotBest));
            assert_eq!(self.runtime.block_on(fill.finish()), Err(Abandoned::NotBest));
        }
    }

    fn finish(&mut self, archive: usize) {
        if !matches!(self.works.get(&archive), Some(Work::Filling { .. })) {
            return;
        }
        let Some(Work::Filling { fill, bytes, written }) = self.works.remove(&archive) else {
            return;
        };
        let finished = self.runtime.block_on(fill.finish());
        if written < bytes.len() {
            assert_eq!(finished, Err(Abandoned::Length));
        } else if self.worth(archive) != Worth::Superseded {
            assert_eq!(finished, Ok(()));
            eventually("the archive is sealed", || match self.store.standing(&name(archive)) {
                Standing::Whole(_) => Some(()),
                Standing::Filling(_) | Standing::Growing(_) => None,
                Standing::Absent => panic!("{archive} was abandoned"),
            });
            self.cached.insert(archive, (bytes, None));
        } else {
            assert!(matches!(finished, Ok(()) | Err(Abandoned::NotBest)), "{finished:?}");
        }
        self.is_abandoned(archive);
    }

    fn overrun(&mut self, archive: usize) {
        if let Some(Work::Filling { fill, bytes, written }) = self.works.get_mut(&archive) {
            let more = Bytes::from([&bytes[*written..], b"x"].concat());
            let (reason, overrun) = (fill.reason(), fill.write(more));
            assert_eq!(self.runtime.block_on(overrun), Err(Abandoned::Length));
            self.works.remove(&archive);
            self.is_abandoned(archive);
            assert_eq!(reason.given(), Some(Abandoned::Length));
        }
    }

    fn open(&mut self, archive: usize) {
        if let Standing::Whole(sealed) = self.store.standing(&name(archive)) {
            let bytes = self.cached[&archive].0.clone();
            self.readings.push(Reading { reader: sealed.reader(), rest: 0..bytes.len(), bytes });
        }
    }

    fn read(&mut self, reader: usize, seek: Option<(usize, usize)>, slices: usize) {
        let Some(Reading { reader, bytes, rest }) = self.readings.get_mut(reader) else { return };
        if let Some((start, end)) = seek {
            reader.seek(start, end);
            *rest = start.min(bytes.len())..end.min(bytes.len());
        }
        for _ in 0..slices {
            let slice = self.runtime.block_on(reader.next()).expect("a disk that reads");
            if rest.start >= rest.end {
                assert_eq!(slice, None);
                continue;
            }
            let slice = slice.expect("not the end");
            assert!(slice.len() >= BLOCK.min(rest.len()), "a small slice");
            assert!(slice == bytes[rest.start..rest.start + slice.len()], "{rest:?}");
            rest.start += slice.len();
        }
    }

    /// Another process, on these files or on those of the last one. Readers stay.
    fn restart(self, copy: Option<TempDir>) -> Self {
        let Self { runtime, directory, store, worths, mut cached, works, readings, .. } = self;
        drop((works, store));
        let directory = copy.unwrap_or(directory);
        let now = Now::read();
        let store = open(directory.path(), &worths, now);
        for (_, since) in cached.values_mut() {
            *since = Some(now);
        }
        let (held, works) = (store.held(), BTreeMap::new());
        Self { runtime, directory, store, held, worths, cached, works, readings }
    }

    /// Compares everything that can be seen with the model.
    fn check(&self) {
        let cached: Vec<ArchiveName> = self.cached.keys().map(|archive| name(*archive)).collect();
        assert_eq!(self.store.names(), cached);
        let held = self.held.borrow();
        assert_eq!(held.iter().map(|held| held.name).collect::<Vec<_>>(), cached);
        let mut expected = Vec::new();
        for (held, (archive, (bytes, since))) in held.iter().zip(&self.cached) {
            let copy = announced(group(*archive), bytes.len());
            assert_eq!((&held.target, held.size), (&copy.target, copy.length));
            assert_eq!(held.modified, copy.modified);
            assert!(since.is_none_or(|since| since == held.since));
        }
        for archive in 0..NAMES {
            let name = name(archive);
            let standing = self.store.standing(&name);
            if let Some((bytes, _)) = self.cached.get(&archive) {
                let Standing::Whole(sealed) = standing else { panic!("{name}: {standing:?}") };
                self.check_archive(archive, bytes, sealed.record());
                expected.extend([name.to_string(), format!("{name}.snapedge")]);
            } else if let Some(work) = self.works.get(&archive) {
                let Standing::Filling(source) = standing else { panic!("{name}: {standing:?}") };
                assert_eq!(source, target(group(archive)));
                if !matches!(work, Work::Claimed(_)) {
                    expected.push(format!("{name}.snapedge-part"));
                }
            } else {
                assert!(matches!(standing, Standing::Absent), "{name}: {standing:?}");
            }
        }
        expected.sort();
        assert_eq!(files(self.directory.path()), expected);
    }

    fn check_archive(&self, archive: usize, bytes: &Bytes, record: &Record) {
        let (name, copy) = (name(archive), announced(group(archive), bytes.len()));
        assert_eq!((record.name, record.length), (name, copy.length));
        assert_eq!((&record.target, record.copy), (&copy.target, copy.copy));
        assert_eq!(record.modified, copy.modified);
        let file = |ending: &str| {
            let path = self.directory.path().join(format!("{name}{ending}"));
            std::fs::read(path).expect("a file")
        };
        assert!(file("") == *bytes, "{name} has other bytes");
        assert_eq!(Record::decode(&file(".snapedge")), Ok(record.in_whole_seconds()));
    }

    /// Reads everything to its end, whatever has become of it.
    fn drain(mut self) {
        for archive in 0..NAMES {
            self.open(archive);
        }
        for reader in 0..self.readings.len() {
            self.read(reader, None, 4);
            assert!(self.readings[reader].rest.is_empty());
        }
    }
}

/// The files of a process at an instant in which it writes none of them.
fn copy_of(directory: &Path) -> TempDir {
    let copy = tempfile::tempdir().expect("a directory");
    for file in files(directory) {
        std::fs::copy(directory.join(&file), copy.path().join(&file)).expect("a copy");
    }
    copy
}

/// One case in thousands by chance: there is no byte at which the system could look for a hole.
#[test]
fn an_empty_file_is_kept_as_any_other() {
    let mut world = World::new();
    for op in [Op::Fetch(0, 0, 0, Vec::new()), Op::Open(0)] {
        world.apply(op);
        world.check();
    }
    world.restart(None).drain();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        // Milliseconds: what hangs is as long as our patience in each attempt.
        max_shrink_time: 60_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_store_is_a_map_that_survives_crashes(ops in ops()) {
        let mut world = World::new();
        world.check();
        for op in ops {
            world = match op {
                Op::Crash => {
                    let copy = copy_of(world.directory.path());
                    world.restart(Some(copy))
                }
                Op::Reopen => world.restart(None),
                op => {
                    world.apply(op);
                    world
                }
            };
            world.check();
        }
        world.drain();
    }
}
