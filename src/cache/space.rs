//! The room of the directory: what makes way for an archive, and what is promised to those that are
//! on their way.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::options::StoreSettings;
use super::record::Record;
use super::reservation::Refusal;
use super::retention::{self, Entry, Retention};
use super::sealed::Sealed;
use super::shared::{Shared, State, Whole};
use crate::index::Worth;
use crate::snapshot::ArchiveName;

/// How long the room of a removed archive may take to come back.
const ROOM_PATIENCE: Duration = Duration::from_millis(300);
/// How often it is looked for.
const ROOM_PAUSE: Duration = Duration::from_millis(10);

impl Shared {
    /// What is there, and what it is worth now, noted for those that are no longer the best.
    pub(super) fn entries(&self, now: Instant) -> Vec<Entry> {
        let mut state = self.state();
        let entry = |whole: &mut Whole| {
            let Record { name, target, length, .. } = whole.sealed.record();
            let worth = self.worth(name, &target.group);
            whole.stale_since = match worth {
                Worth::Superseded | Worth::Baseless => whole.stale_since.or(Some(now)),
                Worth::Best | Worth::Offered => None,
                // Its targets do not answer: nothing is known.
                Worth::Doubtful => whole.stale_since,
            };
            let readers = whole.sealed.readers();
            Entry {
                name: *name,
                group: Arc::clone(&target.group),
                length: *length,
                worth,
                successor: (self.successor)(&target.group),
                stale_since: whole.stale_since,
                readers: readers.count,
                last_read: readers.last,
            }
        };
        state.whole.values_mut().map(entry).collect()
    }

    /// Removes what makes way for an archive of so many bytes; its readers are not disturbed.
    /// Returns how many bytes that were. Where nothing would make enough room, no more goes than
    /// would go anyway.
    pub(super) fn make_way(&self, name: &ArchiveName, length: u64) -> Result<u64, Refusal> {
        let now = Instant::now();
        let (gone, left) = self.parted(now);
        let missing = self.missing(name, length, &gone, &left)?;
        let victims = retention::victims(&left, missing).unwrap_or_default();
        let is_gone = |sealed: &Sealed| gone.iter().any(|entry| entry.name == sealed.record().name);
        let bytes = self.take(is_gone, "it is no longer the best");
        let more = self.take(|sealed| victims.contains(&sealed.record().name), "it makes room");
        Ok(bytes.saturating_add(more))
    }

    /// Whether an archive of so many bytes could be taken, whatever would have to go for it.
    pub(super) fn could_hold(&self, name: &ArchiveName, length: u64) -> Result<(), Refusal> {
        let (gone, left) = self.parted(Instant::now());
        let missing = self.missing(name, length, &gone, &left)?;
        if retention::victims(&left, missing).is_some() {
            return Ok(());
        }
        let others = left.iter().map(|entry| entry.length).fold(0, u64::saturating_add);
        match self.settings().max_size {
            Some(most) if length.saturating_add(others) > most => {
                Err(Refusal::TooLarge { needed: length, others, most })
            }
            _ => {
                let free = self.free().map_err(Refusal::Disk)?;
                Err(self.no_space(length, self.state().available(free)))
            }
        }
    }

    /// What goes before anything else is fetched, and what is left then.
    fn parted(&self, now: Instant) -> (Vec<Entry>, Vec<Entry>) {
        let entries = self.entries(now);
        let ended = match self.settings().retention {
            Retention::UntilRefresh => retention::stale(&entries),
            Retention::Leased(lease) => retention::ended(&entries, lease, now).names,
        };
        entries.into_iter().partition(|entry| ended.contains(&entry.name))
    }

    /// Removes what was overtaken while it was on its way, now that one of the two is complete.
    pub(super) fn settle(&self) {
        if self.settings().retention == Retention::UntilRefresh {
            let names = retention::overtaken(&self.entries(Instant::now()));
            self.take(|sealed| names.contains(&sealed.record().name), "it is no longer the best");
        }
    }

    /// Bytes that have to go, of what is `left` when others are `gone`, before an archive of this
    /// length fits.
    fn missing(
        &self,
        name: &ArchiveName,
        length: u64,
        gone: &[Entry],
        left: &[Entry],
    ) -> Result<u64, Refusal> {
        let sum = |entries: &[Entry]| {
            entries.iter().map(|entry| entry.length).fold(0, u64::saturating_add)
        };
        let free = self.free().map_err(Refusal::Disk)?;
        let StoreSettings { min_free_space, max_size, .. } = self.settings();
        let state = self.state();
        let available = state.available(free).saturating_add(sum(gone));
        let on_disk = length.saturating_add(min_free_space).saturating_sub(available);
        let size = length.saturating_add(state.on_the_way(name)).saturating_add(sum(left));
        let over = max_size.map_or(0, |most| size.saturating_sub(most));
        Ok(on_disk.max(over))
    }

    /// Promises room to an archive, if there is enough with what has to stay free. Where so many
    /// bytes were `removed` just now that they would do, they may take a moment to come back.
    pub(super) fn promise(
        &self,
        name: &ArchiveName,
        length: u64,
        removed: u64,
    ) -> Result<(), Refusal> {
        let deadline = Instant::now() + ROOM_PATIENCE;
        loop {
            match self.try_to_promise(name, length) {
                Err(Refusal::NoSpace { needed, available, kept })
                    if needed.saturating_add(kept) <= available.saturating_add(removed)
                        && Instant::now() < deadline =>
                {
                    std::thread::sleep(ROOM_PAUSE);
                }
                outcome => return outcome,
            }
        }
    }

    fn try_to_promise(&self, name: &ArchiveName, length: u64) -> Result<(), Refusal> {
        let free = self.free().map_err(Refusal::Disk)?;
        let StoreSettings { min_free_space, max_size, .. } = self.settings();
        let mut state = self.state();
        let available = state.available(free);
        if length.saturating_add(min_free_space) > available {
            let (needed, kept) = (length, min_free_space);
            return Err(Refusal::NoSpace { needed, available, kept });
        }
        let whole = state.whole.values().map(|whole| whole.sealed.record().length);
        let others = whole.fold(state.on_the_way(name), u64::saturating_add);
        if let Some(most) = max_size.filter(|most| length.saturating_add(others) > *most) {
            return Err(Refusal::TooLarge { needed: length, others, most });
        }
        if let Some(filling) = state.filling.get_mut(name) {
            (filling.promised, filling.length) = (length, length);
        }
        Ok(())
    }

    /// Notes that so many bytes of what was promised are no longer free.
    pub(super) fn keep(&self, name: &ArchiveName, bytes: u64) {
        if let Some(filling) = self.state().filling.get_mut(name) {
            filling.promised = filling.promised.saturating_sub(bytes);
        }
    }

    /// What an error of the disk means for an archive of this length.
    pub(super) fn refusal(&self, needed: u64, error: io::Error) -> Refusal {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                let available = self.free().map(|free| self.state().available(free));
                available.map_or_else(Refusal::Disk, |available| self.no_space(needed, available))
            }
            _ => Refusal::Disk(error),
        }
    }

    fn no_space(&self, needed: u64, available: u64) -> Refusal {
        Refusal::NoSpace { needed, available, kept: self.settings().min_free_space }
    }

    /// Bytes that are free on the file system.
    pub(super) fn free(&self) -> io::Result<u64> {
        let space = rustix::fs::statvfs(self.layout().directory())?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }
}

impl State {
    /// Bytes of the archives that are being fetched, but for this one.
    fn on_the_way(&self, name: &ArchiveName) -> u64 {
        let others = self.filling.iter().filter(|(other, _)| *other != name);
        others.map(|(_, filling)| filling.length).fold(0, u64::saturating_add)
    }

    /// Bytes that are free and not promised to anybody.
    fn available(&self, free: u64) -> u64 {
        let promised = self.filling.values().map(|filling| filling.promised);
        free.saturating_sub(promised.fold(0, u64::saturating_add))
    }
}
