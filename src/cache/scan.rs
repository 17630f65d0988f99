//! What a process finds in the directory when it starts: what is whole is adopted, what is ours and
//! broken is swept, and everything else is left alone.

use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use super::fill::remove;
use super::layout::{Layout, Place};
use super::record::{MAX_RECORD, Record, RecordError};
use crate::snapshot::ArchiveName;

/// Most files that are not ours of which the log speaks one by one.
const MAX_LOGGED: usize = 20;

/// A file under an archive's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Absent,
    /// A regular file of so many bytes.
    File(u64),
    /// A directory, a symbolic link, or anything else that no refresh makes.
    Strange,
}

/// What is under the name of an archive's record.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Beside {
    Absent,
    Readable(Box<Result<Record, RecordError>>),
    /// No regular file, or one that cannot be read.
    Strange,
}

/// What is done with an archive and its record.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// The archive is whole.
    Adopt(Box<Record>),
    /// Both are ours, and broken.
    Sweep(String),
    /// Only the record is ours.
    SweepRecord(String),
    /// Not ours.
    Leave(String),
}

/// Decides about one archive name. Ours is what has a record, since that is written first and
/// removed last.
fn judge(name: &ArchiveName, body: Body, beside: Beside, groups: &[Arc<str>]) -> Verdict {
    let record = match beside {
        Beside::Absent => return Verdict::Leave("it has no record, so it is not ours".to_owned()),
        Beside::Strange => return Verdict::Leave("its record cannot be read".to_owned()),
        Beside::Readable(record) => record,
    };
    let length = match body {
        Body::File(length) => length,
        Body::Absent => return Verdict::SweepRecord("the archive is not there".to_owned()),
        Body::Strange => return Verdict::SweepRecord("the archive is no regular file".to_owned()),
    };
    match *record {
        Err(error) => Verdict::Sweep(error.to_string()),
        Ok(record) if record.name != *name => {
            Verdict::Sweep(format!("its record is about {}", record.name))
        }
        Ok(record) if record.length != length => {
            Verdict::Sweep(format!("it has {length} bytes instead of {}", record.length))
        }
        Ok(record) if !groups.contains(&record.target.group) => {
            Verdict::Sweep(format!("there is no group `{}`", record.target.group))
        }
        Ok(record) => Verdict::Adopt(Box::new(record)),
    }
}

/// Looks through the directory, sweeps, and returns what is to be adopted.
pub(super) fn scan(layout: &Layout, groups: &[Arc<str>]) -> io::Result<Vec<Record>> {
    let mut names = BTreeSet::<ArchiveName>::new();
    let mut log = Log::default();
    for entry in layout.directory().read_dir()? {
        let path = entry?.path();
        match path.file_name().map_or(Place::Foreign, Place::of) {
            Place::Archive(name) | Place::Record(name) => {
                names.insert(name);
            }
            Place::Unfinished if is_file(&path) => sweep(&[&path], "a refresh did not end"),
            Place::Unfinished => log.leave(&path, "it is no regular file"),
            Place::Lock | Place::Foreign => {}
        }
    }
    let mut adopted = Vec::new();
    for name in names {
        let (archive, record) = (layout.archive(&name), layout.record(&name));
        match judge(&name, body(&archive)?, beside(&record)?, groups) {
            Verdict::Adopt(record) => adopted.push(*record),
            Verdict::Sweep(why) => sweep(&[&archive, &record], &why),
            Verdict::SweepRecord(why) => {
                sweep(&[&record], &why);
                if archive.symlink_metadata().is_ok() {
                    log.leave(&archive, &why);
                }
            }
            Verdict::Leave(why) => log.leave(&archive, &why),
        }
    }
    Ok(adopted)
}

fn metadata(path: &Path) -> io::Result<Option<Metadata>> {
    match path.symlink_metadata() {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_file())
}

fn body(path: &Path) -> io::Result<Body> {
    Ok(match metadata(path)? {
        None => Body::Absent,
        Some(metadata) if metadata.is_file() => Body::File(metadata.len()),
        Some(_) => Body::Strange,
    })
}

fn beside(path: &Path) -> io::Result<Beside> {
    Ok(match metadata(path)? {
        None => Beside::Absent,
        Some(metadata) if metadata.is_file() => read(path)
            .map_or(Beside::Strange, |bytes| Beside::Readable(Box::new(Record::decode(&bytes)))),
        Some(_) => Beside::Strange,
    })
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let mut bytes = Vec::new();
    // One byte more than a record has is enough to know that it is none.
    file.take(MAX_RECORD + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn sweep(paths: &[&PathBuf], why: &str) {
    // The archive comes first and its record last: only then is it no longer known as ours.
    for path in paths {
        if !remove(path) {
            return;
        }
        log::info!("cache: swept `{}`: {why}", path.display());
    }
}

/// Says what is left alone, and of many only a few.
#[derive(Default)]
struct Log {
    left: usize,
}

impl Log {
    fn leave(&mut self, path: &Path, why: &str) {
        self.left += 1;
        if self.left <= MAX_LOGGED {
            log::warn!("cache: `{}` is left alone and not served: {why}", path.display());
        } else {
            log::debug!("cache: `{}` is left alone and not served: {why}", path.display());
        }
    }
}
