//! What a process finds in the directory when it starts: what is whole is adopted, what is ours and
//! broken is swept, and everything else is left alone.

use std::collections::BTreeSet;
use std::fs::TryLockError;
use std::io::{self, Read};
use std::path::Path;

use super::layout::{Layout, Place, open_to_read, remove};
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
    /// A directory, a symbolic link, anything else that no refresh makes, or nobody can tell.
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
    /// Archive and record are ours, and broken.
    Sweep(String),
    /// Only the record is ours.
    SweepRecord(String),
    /// The archive is not ours.
    Leave(String),
    /// What has the record's name is not ours.
    LeaveRecord(String),
}

/// Decides about one archive name. Ours is what has a record, since that is written first and
/// removed last.
fn judge(name: &ArchiveName, body: Body, beside: Beside) -> Verdict {
    let record = match beside {
        Beside::Strange if body == Body::Absent => {
            return Verdict::LeaveRecord(
                "it is the name of a record, and cannot be read".to_owned(),
            );
        }
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
        Err(RecordError::Version) => Verdict::Leave(
            "its record is of another version of this program, run that one or remove both"
                .to_owned(),
        ),
        Err(error) => Verdict::Sweep(error.to_string()),
        Ok(record) if record.name != *name => {
            Verdict::Sweep(format!("its record is about {}", record.name))
        }
        Ok(record) if record.length != length => {
            Verdict::Sweep(format!("it has {length} bytes instead of {}", record.length))
        }
        Ok(record) => Verdict::Adopt(Box::new(record)),
    }
}

/// Whether what is ours and broken is swept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sweeping {
    /// As far as nobody is about to write it.
    Ours,
    /// Nothing is: the directory is another process's.
    Nothing,
}

impl Sweeping {
    pub(super) fn of(is_owner: bool) -> Self {
        if is_owner { Self::Ours } else { Self::Nothing }
    }
}

/// Looks through the directory, sweeps, and returns what is to be adopted.
pub(super) fn scan(layout: &Layout, sweeping: Sweeping) -> io::Result<Vec<Record>> {
    let mut names = BTreeSet::<ArchiveName>::new();
    // The archives that some process is about to write, and what nobody is.
    let mut written = BTreeSet::<ArchiveName>::new();
    let mut unfinished = Vec::new();
    let mut log = Log::default();
    for entry in layout.directory().read_dir()? {
        let path = entry?.path();
        match path.file_name().map_or(Place::Foreign, Place::of) {
            Place::Archive(name) | Place::Record(name) => {
                names.insert(name);
            }
            Place::Part(name) if is_written(&path) => {
                written.insert(name);
            }
            Place::Part(_) | Place::Unfinished => unfinished.push(path),
            Place::Lock | Place::Secret | Place::Foreign => {}
        }
    }
    if sweeping == Sweeping::Ours {
        for path in unfinished {
            let name = path.file_name().and_then(Place::of_unfinished_record);
            if name.is_some_and(|name| written.contains(&name)) {
                continue;
            }
            if is_file(&path) {
                sweep(&path, "the writing of it did not end");
            } else {
                log.leave(&path, "it is no regular file");
            }
        }
    }
    let mut adopted = Vec::new();
    for name in names {
        let (archive, record) = (layout.archive(&name), layout.record(&name));
        match judge(&name, body(&archive), beside(&record)) {
            Verdict::Adopt(record) => adopted.push(*record),
            // Whoever writes it, or has the directory, sees to it.
            _ if sweeping == Sweeping::Nothing || written.contains(&name) => {}
            Verdict::Sweep(why) if layout.remove(&name) => swept(&archive, &why),
            Verdict::Sweep(_) => {}
            Verdict::SweepRecord(why) => {
                sweep(&record, &why);
                if archive.symlink_metadata().is_ok() {
                    log.leave(&archive, &why);
                }
            }
            Verdict::Leave(why) => log.leave(&archive, &why),
            Verdict::LeaveRecord(why) => log.leave(&record, &why),
        }
    }
    Ok(adopted)
}

/// Whether a process that is there writes an unfinished archive: it has it locked.
fn is_written(path: &Path) -> bool {
    open_to_read(path)
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn is_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_file())
}

fn body(path: &Path) -> Body {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_file() => Body::File(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Body::Absent,
        Ok(_) | Err(_) => Body::Strange,
    }
}

fn beside(path: &Path) -> Beside {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_file() => read(path)
            .map_or(Beside::Strange, |bytes| Beside::Readable(Box::new(Record::decode(&bytes)))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Beside::Absent,
        Ok(_) | Err(_) => Beside::Strange,
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than a record has is enough to know that it is none.
    open_to_read(path)?.take(MAX_RECORD + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn sweep(path: &Path, why: &str) {
    if remove(path) {
        swept(path, why);
    }
}

fn swept(path: &Path, why: &str) {
    log::info!("cache: swept `{}`: {why}", path.display());
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    use crate::index::{CopyId, TargetId};

    const NAME: &str = "snapshot-1000-426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY.tar.zst";
    const OTHER: &str = "snapshot-1001-426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY.tar.zst";

    fn record(name: &str, group: &str, length: u64) -> Record {
        Record {
            name: name.parse().expect("valid"),
            target: TargetId { group: group.into(), authority: "10.0.0.1:8899".into() },
            length,
            copy: CopyId::new("10.0.0.1:8899", length, None),
            modified: None,
            sealed: SystemTime::UNIX_EPOCH,
        }
    }

    fn readable(record: Result<Record, RecordError>) -> Beside {
        Beside::Readable(Box::new(record))
    }

    fn judged(body: Body, beside: &Beside) -> Verdict {
        judge(&NAME.parse().expect("valid"), body, beside.clone())
    }

    #[track_caller]
    fn check(body: Body, beside: &Beside, expected: &Verdict) {
        assert_eq!(judged(body, beside), *expected, "{body:?} {beside:?}");
    }

    #[test]
    fn only_an_archive_that_its_record_describes_is_adopted() {
        // Whether a group is configured is not asked here: another one may have the archive.
        for group in ["main", "gone"] {
            for length in [0, 1, 7, u64::MAX] {
                let right = record(NAME, group, length);
                let adopt = Verdict::Adopt(Box::new(right.clone()));
                check(Body::File(length), &readable(Ok(right)), &adopt);
            }
        }
        let sweep = |record: Record, why: String| {
            check(Body::File(7), &readable(Ok(record)), &Verdict::Sweep(why));
        };
        sweep(record(NAME, "main", 8), "it has 7 bytes instead of 8".to_owned());
        sweep(record(NAME, "main", 6), "it has 7 bytes instead of 6".to_owned());
        sweep(record(NAME, "main", 0), "it has 7 bytes instead of 0".to_owned());
        sweep(record(OTHER, "main", 7), format!("its record is about {OTHER}"));
    }

    #[test]
    fn a_record_that_is_none_condemns_its_archive() {
        for error in [RecordError::Text, RecordError::Strange, RecordError::Checksum] {
            check(Body::File(7), &readable(Err(error)), &Verdict::Sweep(error.to_string()));
        }
    }

    #[test]
    fn a_record_of_another_version_protects_its_archive() {
        let verdict = judged(Body::File(7), &readable(Err(RecordError::Version)));
        let Verdict::Leave(why) = verdict else { panic!("{verdict:?}") };
        assert!(why.contains("another version") && why.contains("remove both"), "{why}");
    }

    /// What is touched at all, over everything that can be found.
    #[test]
    fn what_has_no_record_or_is_no_file_is_never_swept() {
        let bodies = [Body::Absent, Body::File(0), Body::File(7), Body::Strange];
        let besides = [
            Beside::Absent,
            Beside::Strange,
            readable(Err(RecordError::Checksum)),
            readable(Err(RecordError::Version)),
            readable(Ok(record(NAME, "main", 7))),
            readable(Ok(record(OTHER, "gone", 0))),
        ];
        for body in bodies {
            for beside in &besides {
                let verdict = judged(body, beside);
                let right = match (body, beside) {
                    (Body::Absent, Beside::Strange) => matches!(verdict, Verdict::LeaveRecord(_)),
                    (_, Beside::Absent | Beside::Strange) => matches!(verdict, Verdict::Leave(_)),
                    (Body::Absent | Body::Strange, _) => matches!(verdict, Verdict::SweepRecord(_)),
                    (Body::File(_), beside) if *beside == readable(Err(RecordError::Version)) => {
                        matches!(verdict, Verdict::Leave(_))
                    }
                    (Body::File(_), _) => matches!(verdict, Verdict::Adopt(_) | Verdict::Sweep(_)),
                };
                assert!(right, "{body:?} {beside:?}: {verdict:?}");
            }
        }
    }
}
