//! What a sidecar, a tracker or another edge lists at `/v1/snapshots`, read as it arrives: of ten
//! thousand targets that are tens of megabytes, of which only the newest names are kept.
//!
//! An entry that is not sound is left out, and the others hold.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::{MAX_SIZE, archive_at};
use super::client::{ClientError, Pieces};
use super::elements::{Element, Elements, NotAList, without_place};
use super::neighbours::Handed;
use super::omissions::Omissions;
use crate::index::{Listed, Location};
use crate::snapshot::ArchiveName;

/// Largest listing that is read, in bytes: of ten thousand targets with dozens of archives each.
pub(super) const MAX_LISTING: usize = 256 << 20;
/// Largest element of a listing, in bytes: one archive with all that it is based on.
const MAX_ELEMENT: usize = 256 << 10;
/// Most full archives that are taken from one target, the newest. Apart from the others, so that
/// no number of incremental archives leaves them without the full one below them.
const MAX_FULL: usize = 2_000;
/// Most incremental archives that are taken from one target, the newest.
const MAX_INCREMENTAL: usize = 8_000;

/// Why an answer is no listing.
#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    /// The answer is no list.
    #[error(transparent)]
    NotAList(#[from] NotAList),
    /// The answer is a list of something else.
    #[error("none of its {count} entries is sound, the first one: {first}")]
    Unsound {
        /// How many there are.
        count: u64,
        /// What is wrong with the first one, and its place.
        first: String,
    },
}

/// A listing that is being read.
#[derive(Debug)]
pub(super) struct Listing {
    elements: Elements,
    content: Content,
}

/// What it said so far.
#[derive(Debug)]
struct Content {
    full: Newest,
    incremental: Newest,
    omitted: Omissions,
    /// Entries that are sound, whether or not they name an archive.
    sound: u64,
}

/// The newest archives of a kind.
#[derive(Debug)]
struct Newest {
    most: usize,
    archives: BTreeMap<ArchiveName, Said>,
    /// How many were left out for newer ones.
    cut: u64,
}

/// What is said of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    size: Option<u64>,
    modified: Option<SystemTime>,
    handed: Handed,
}

/// Reads a listing of `/v1/snapshots` that comes in these pieces: the archives that it names, each
/// once. `location` says where an archive is.
pub fn parse_listing<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    location: impl Fn(&ArchiveName) -> Location,
) -> Result<Vec<Listed>, ListingError> {
    let mut listing = Listing::new();
    for piece in pieces {
        listing.push(piece)?;
    }
    listing.end(|name, _| Some(location(name))).map(|(listed, _)| listed)
}

impl Listing {
    /// A listing of which nothing came yet.
    pub(super) fn new() -> Self {
        let newest = |most| Newest { most, archives: BTreeMap::new(), cut: 0 };
        let (full, incremental) = (newest(MAX_FULL), newest(MAX_INCREMENTAL));
        let content = Content { full, incremental, omitted: Omissions::default(), sound: 0 };
        Self { elements: Elements::new(MAX_ELEMENT), content }
    }

    /// Reads all of a body; see [`Listing::end`]. The outer error: it broke off.
    pub(super) async fn read(
        body: &mut Pieces,
        location: impl Fn(&ArchiveName, &Handed) -> Option<Location>,
    ) -> Result<Result<(Vec<Listed>, Omissions), ListingError>, ClientError> {
        let mut listing = Self::new();
        while let Some(piece) = body.next().await? {
            if let Err(error) = listing.push(&piece) {
                return Ok(Err(error.into()));
            }
        }
        Ok(listing.end(location))
    }

    /// Reads on.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), NotAList> {
        let content = &mut self.content;
        self.elements.push(piece, |number, element| content.take(number, element))
    }

    /// Everything that it lists, each name once, and what was left out. `location` says where an
    /// archive is, if it can be had: what an edge has only through this one it has not for this
    /// one.
    pub(super) fn end(
        self,
        location: impl Fn(&ArchiveName, &Handed) -> Option<Location>,
    ) -> Result<(Vec<Listed>, Omissions), ListingError> {
        self.elements.end()?;
        let Content { full, incremental, mut omitted, sound } = self.content;
        if let Some(first) = omitted.first().filter(|_| sound == 0) {
            return Err(ListingError::Unsound { count: omitted.count(), first });
        }
        for newest in [&full, &incremental] {
            let most = newest.most;
            for _ in 0..newest.cut {
                let place = || format!("all but the newest {most}");
                omitted.add(place, "more archives than are taken of one kind from one target");
            }
        }
        let listed = |(name, Said { size, modified, handed })| {
            let location = Some(location(&name, &handed)?);
            Some(Listed { name, size, modified, tag: None, location })
        };
        let archives = full.archives.into_iter().chain(incremental.archives);
        Ok((archives.filter_map(listed).collect(), omitted))
    }
}

impl Content {
    fn take(&mut self, number: usize, element: Element) {
        let files = match element {
            Element::Whole(bytes) => files_of(bytes),
            Element::TooLarge => Err(format!("is larger than {MAX_ELEMENT} bytes")),
        };
        match files {
            Ok(files) if files.is_empty() => self.sound += 1,
            Ok(files) => {
                for (at, raw) in files.iter().enumerate() {
                    match file(raw) {
                        Ok((name, said)) => self.keep(&name, said),
                        Err(reason) => {
                            let place = || format!("element {number}, file {}", at + 1);
                            self.omitted.add(place, &reason);
                        }
                    }
                }
            }
            Err(reason) => self.omitted.add(|| format!("element {number}"), &reason),
        }
    }

    fn keep(&mut self, file_name: &str, said: Said) {
        self.sound += 1;
        // The file name may be a path or a URL in some trackers; other files are passed over.
        match archive_at(file_name) {
            Some(name) if name.is_full() => self.full.keep(name, said),
            Some(name) => self.incremental.keep(name, said),
            None => {}
        }
    }
}

impl Newest {
    /// An archive that is listed twice with different sizes (a tracker lists the copies of several
    /// nodes) has a size that is not known.
    fn keep(&mut self, name: ArchiveName, said: Said) {
        if let Some(known) = self.archives.get_mut(&name) {
            if *known != said {
                (known.size, known.modified) = (None, None);
            }
            return;
        }
        self.archives.insert(name, said);
        if self.archives.len() > self.most {
            self.archives.pop_first();
            self.cut += 1;
        }
    }
}

/// The parts of an element that matter here; see the tracker API for the rest.
#[derive(Deserialize)]
struct Info<'a> {
    #[serde(borrow, default)]
    files: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow, rename = "file_name")]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    size: Option<&'a RawValue>,
    #[serde(borrow)]
    mod_time: Option<&'a RawValue>,
    #[serde(borrow)]
    via: Option<&'a RawValue>,
    #[serde(borrow)]
    kept: Option<&'a RawValue>,
}

/// The files of an element, each as it is written.
fn files_of(bytes: &[u8]) -> Result<Vec<&RawValue>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not a text in UTF-8".to_owned())?;
    match kind(text) {
        "an object" => {}
        kind => return Err(format!("is {kind}, expected an object")),
    }
    let Info { files } = serde_json::from_str(text).map_err(|error| without_place(&error))?;
    let Some(files) = files else { return Ok(Vec::new()) };
    match kind(files.get()) {
        "a list" => serde_json::from_str(files.get()).map_err(|error| without_place(&error)),
        kind => Err(format!("`files` is {kind}, expected a list")),
    }
}

/// The name of a file and what is said of it. Reasons hold nothing that differs from file to file.
fn file(raw: &RawValue) -> Result<(String, Said), String> {
    match kind(raw.get()) {
        "an object" => {}
        kind => return Err(format!("is {kind}, expected an object")),
    }
    let File { name, size, mod_time, via, kept } =
        serde_json::from_str(raw.get()).map_err(|error| without_place(&error))?;
    let name = name.ok_or_else(|| "`file_name` is missing".to_owned())?;
    let name = text_of("file_name", name)?;
    let size = size.map(size_of).transpose()?.flatten();
    let time = mod_time.map(|raw| text_of("mod_time", raw)).transpose()?;
    let modified = time.and_then(|time| time.parse::<jiff::Timestamp>().ok());
    // Go's zero time, among others: HTTP has no date for it.
    let modified = modified.map(SystemTime::from).filter(|time| *time >= UNIX_EPOCH);
    Ok((name, Said { size, modified, handed: Handed::read(via, kept) }))
}

fn text_of(field: &str, raw: &RawValue) -> Result<String, String> {
    match kind(raw.get()) {
        "a text" => serde_json::from_str(raw.get()).map_err(|error| without_place(&error)),
        kind => Err(format!("`{field}` is {kind}, expected a text")),
    }
}

/// Bytes, where they can be believed: `0` is how Go writes that it does not know.
fn size_of(raw: &RawValue) -> Result<Option<u64>, String> {
    match kind(raw.get()) {
        "a number" => {}
        kind => return Err(format!("`size` is {kind}, expected a number")),
    }
    if raw.get().starts_with('-') {
        return Err("`size` is negative".to_owned());
    }
    let size: u64 =
        raw.get().parse().map_err(|_| "`size` is not a whole number of 64 bits".to_owned())?;
    Ok(Some(size).filter(|size| (1..=MAX_SIZE).contains(size)))
}

/// What a value of JSON is, by its first byte.
fn kind(text: &str) -> &'static str {
    match text.as_bytes().first() {
        None => "nothing",
        Some(b'"') => "a text",
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b't' | b'f') => "a truth value",
        Some(b'n') => "null",
        Some(b'-' | b'0'..=b'9') => "a number",
        Some(_) => "no JSON",
    }
}

#[cfg(test)]
mod tests;
