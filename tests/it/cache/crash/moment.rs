//! When the process is killed: at any time, or a little after a change of its directory.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use snapedge::snapshot::ArchiveName;

/// The moment of a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// At any time before it serves.
    Starting,
    /// When it has swept a file.
    Sweeping,
    /// At any time while it serves.
    Serving,
    /// While a body is on its way to the disk.
    Filling,
    /// While a record is written.
    Recording,
    /// When the record is there, and the archive does not have its name yet.
    Recorded,
    /// When the archive has its name.
    Promoted,
    /// When a stale archive has gone, and its record is still there.
    Removing,
}

/// In turn, so that few kills are enough to meet every moment, and that there is something to be
/// swept where sweeping is waited for.
pub const MOMENTS: [Moment; 10] = [
    Moment::Filling,
    Moment::Sweeping,
    Moment::Recorded,
    Moment::Serving,
    Moment::Removing,
    Moment::Filling,
    Moment::Starting,
    Moment::Promoted,
    Moment::Recording,
    Moment::Removing,
];

impl Moment {
    pub fn is_early(self) -> bool {
        matches!(self, Self::Starting | Self::Sweeping)
    }

    /// Whether the moment is `delay` after a change of the directory, and this is the change.
    fn is(self, change: ReadFlags, file: &str) -> bool {
        let archive = ArchiveName::from_str(file).is_ok();
        match self {
            Self::Starting | Self::Serving => false,
            Self::Sweeping => change.contains(ReadFlags::DELETE),
            Self::Filling => change.contains(ReadFlags::CREATE) && !file.ends_with("-new"),
            Self::Recording => change.contains(ReadFlags::CREATE) && file.ends_with("-new"),
            Self::Recorded => change.contains(ReadFlags::MOVED_TO) && !archive,
            Self::Promoted => change.contains(ReadFlags::MOVED_TO) && archive,
            // Whatever goes first.
            Self::Removing => change.contains(ReadFlags::DELETE) && !file.contains(".snapedge-"),
        }
    }

    /// The rest of the way to the kill.
    pub fn delay(self, random: &mut ChaCha8Rng) -> Duration {
        let most = match self {
            Self::Starting => 60_000,
            Self::Serving => 200_000,
            Self::Filling => 50_000,
            Self::Recording | Self::Recorded | Self::Promoted => 2_000,
            Self::Sweeping | Self::Removing => 1,
        };
        // Often there is none: most of what follows a change follows at once.
        let often = most < 10_000 && random.next_u32().is_multiple_of(2);
        Duration::from_micros(if often { 0 } else { random.next_u64() % most })
    }
}

/// The changes of a directory from now on.
pub struct Changes(OwnedFd);

impl Changes {
    pub fn of(directory: &Path) -> Self {
        let flags = CreateFlags::NONBLOCK | CreateFlags::CLOEXEC;
        let changes = inotify::init(flags).expect("an inotify instance");
        let which = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE;
        inotify::add_watch(&changes, directory, which).expect("a watch");
        Self(changes)
    }

    /// Whether the change that `moment` is about was among those since the last time.
    pub fn met(&mut self, moment: Moment) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.0, &mut buffer);
        loop {
            match reader.next() {
                Ok(change) => {
                    let file = change.file_name().map(CStr::to_string_lossy).unwrap_or_default();
                    if moment.is(change.events(), &file) {
                        return true;
                    }
                }
                Err(Errno::AGAIN) => return false,
                Err(error) => panic!("no changes are told: {error}"),
            }
        }
    }
}
