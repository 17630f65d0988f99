//! Two origins that change, and what may be in the directory of an edge before them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::str::FromStr;
use std::sync::Mutex;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore;
use snapedge::cache::Record;
use snapedge::snapshot::ArchiveName;

use crate::cache::files;
use crate::support::body::Content;
use crate::support::origin::{Fault, Origin, Program};
use crate::support::{full, incremental};

/// No multiples of anything.
pub const FULL: u64 = (3 << 20) + 4321;
pub const INCREMENTAL: u64 = (1 << 20) + 77;

/// Two origins with the same names and different bytes, and what they ever had.
pub struct World {
    pub origins: [Origin; 2],
    offered: Mutex<Offered>,
}

#[derive(Default)]
struct Offered {
    slot: u64,
    full: String,
    incremental: String,
    /// What was the best before; the origins still have it.
    before: Vec<String>,
    /// By name, in the order of the origins.
    contents: BTreeMap<String, [Content; 2]>,
}

impl World {
    pub async fn new() -> Self {
        let origins =
            [Origin::run(Program::Agave, &[]).await, Origin::run(Program::Agave, &[]).await];
        let world = Self { origins, offered: Mutex::default() };
        world.renew(true);
        world
    }

    /// A new best incremental archive, or a new best pair.
    pub fn renew(&self, pair: bool) {
        let mut offered = self.offered.lock().unwrap();
        for name in std::mem::take(&mut offered.before) {
            self.origins.iter().for_each(|origin| origin.remove(&name));
        }
        offered.slot += 1;
        if pair {
            let name = full(offered.slot);
            offered.add(&self.origins, &name, FULL);
            let old = std::mem::replace(&mut offered.full, name);
            offered.before.push(old);
            offered.slot += 1;
        }
        let base = ArchiveName::from_str(&offered.full).expect("a name").slot();
        let name = incremental(base.0, offered.slot);
        offered.add(&self.origins, &name, INCREMENTAL);
        let old = std::mem::replace(&mut offered.incremental, name);
        offered.before.push(old);
        // Before the first pair there was nothing.
        offered.before.retain(|name| !name.is_empty());
    }

    pub fn full(&self) -> String {
        self.offered.lock().unwrap().full.clone()
    }

    pub fn incremental(&self) -> String {
        self.offered.lock().unwrap().incremental.clone()
    }

    /// What a client asks for: the best ones, and at times what was the best.
    pub fn any(&self, random: &mut ChaCha8Rng) -> String {
        let offered = self.offered.lock().unwrap();
        match random.next_u32() % 8 {
            0 => offered.before.first().unwrap_or(&offered.full).clone(),
            1..4 => offered.full.clone(),
            _ => offered.incremental.clone(),
        }
    }

    /// The content of an archive on an origin.
    pub fn content(&self, name: &str, authority: &str) -> Content {
        let at = self.origins.iter().position(|origin| origin.address().to_string() == authority);
        self.offered.lock().unwrap().contents[name][at.expect("an origin")]
    }

    /// Whether these are the bytes of one origin, from `start` on.
    pub fn has(&self, name: &str, start: u64, bytes: &[u8]) -> bool {
        let contents = self.offered.lock().unwrap().contents[name];
        contents.iter().any(|content| {
            let first = &bytes[..bytes.len().min(64)];
            let fits = start + bytes.len() as u64 <= content.len;
            fits && content.matches(start, first) && content.matches(start, bytes)
        })
    }

    /// Whether these are all bytes of one origin.
    pub fn is_whole(&self, name: &str, bytes: &[u8]) -> bool {
        let length = self.offered.lock().unwrap().contents[name][0].len;
        bytes.len() as u64 == length && self.has(name, 0, bytes)
    }

    /// Makes every transfer take its time.
    pub fn slow_down(&self, slow: bool) {
        let drip = Fault::Drip { bytes: 64 << 10, pause: Duration::from_micros(500) };
        self.origins.iter().for_each(|origin| origin.fail(slow.then(|| drip.clone())));
    }
}

impl Offered {
    fn add(&mut self, origins: &[Origin; 2], name: &str, length: u64) {
        let contents = [1, 2].map(|origin| Content::new(2 * self.slot + origin, length));
        for (origin, content) in origins.iter().zip(contents) {
            origin.add(name, content);
        }
        self.contents.insert(name.to_owned(), contents);
    }
}

/// What is in a directory, all of it right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub archives: usize,
    pub unfinished: usize,
    pub unfinished_records: usize,
    /// Records whose archive is whole and has not got its name.
    pub ahead: usize,
    /// Records whose archive has gone.
    pub behind: usize,
}

impl Found {
    /// Looks at every file: what has an archive's name has a record, and all of its origin's bytes.
    #[track_caller]
    pub fn check(directory: &Path, world: &World) -> Self {
        let mut found = Self::default();
        for file in files(directory) {
            let path = directory.join(&file);
            if let Ok(name) = file.parse::<ArchiveName>() {
                let record = fs::read(directory.join(format!("{file}.snapedge")));
                let record = record.unwrap_or_else(|error| panic!("{file}: no record: {error}"));
                let record = Record::decode(&record).expect("a record");
                let bytes = fs::read(path).expect("an archive");
                let content = world.content(&file, &record.target.authority);
                assert_eq!((record.name, record.length), (name, content.len), "{file}");
                assert_eq!(bytes.len() as u64, content.len, "{file}");
                assert!(content.matches(0, &bytes), "{file} has other bytes than its origin");
                found.archives += 1;
            } else if let Some(name) = file.strip_suffix(".snapedge") {
                let record = Record::decode(&fs::read(path).expect("a record"));
                assert_eq!(record.expect("a record").name.to_string(), name);
                let part = directory.join(format!("{name}.snapedge-part")).exists();
                let lone = !directory.join(name).exists();
                found.ahead += usize::from(lone && part);
                found.behind += usize::from(lone && !part);
            } else if file.ends_with("-part") {
                found.unfinished += 1;
            } else if file.ends_with("-new") {
                found.unfinished_records += 1;
            } else {
                panic!("{file} is nobody's");
            }
        }
        found
    }
}
