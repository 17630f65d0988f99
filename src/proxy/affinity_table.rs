//! The memory of which copy of an archive each client has bytes of, for all clients.
//!
//! What follows from it is decided in [`Files`]; here it is kept, by client address and archive,
//! bounded in time and number. An answer that is under way is a [`Delivery`], which ends with the
//! request however that ends.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::index::CopyId;
use crate::route::{
    Affinity, Arrival, ClientNet, Conflict, Files, Part, PinnedCopy, Portion, Receipt, Wanted,
};
use crate::snapshot::ArchiveName;

/// Most archives that are remembered of one client: of an address, or of a network of 64 bits. What
/// a stranger begins pushes out nothing but what that one has begun.
const MAX_ARCHIVES: usize = 64;
/// Most clients that are remembered. With more, those are forgotten that were served last long ago.
const MAX_CLIENTS: usize = 65_536;
/// Clients below which nobody looks for those that are over.
const FEW_CLIENTS: usize = 1024;

/// Which copies clients have bytes of.
#[derive(Debug)]
pub(super) struct AffinityTable {
    clients: Mutex<Clients>,
}

#[derive(Debug)]
struct Clients {
    /// How long an unfinished file is remembered after its last byte.
    memory: Duration,
    entries: HashMap<ClientNet, Vec<Entry>>,
    /// With how many clients those are looked for that are over.
    next_sweep: usize,
}

/// What one address has of one archive.
#[derive(Debug)]
struct Entry {
    client: IpAddr,
    name: ArchiveName,
    files: Files,
    /// When it was begun or ended last.
    touched: Instant,
}

impl AffinityTable {
    pub(super) fn new(memory: Duration) -> Arc<Self> {
        let clients = Clients { memory, entries: HashMap::new(), next_sweep: 0 };
        Arc::new(Self { clients: Mutex::new(clients) })
    }

    /// Remembers unfinished files for so long from now on.
    pub(super) fn remember_for(&self, memory: Duration) {
        self.lock().memory = memory;
    }

    /// What decides about a request for this portion of an archive; `portion` is `None` where the
    /// request names its copy, and `is_named` tells which one that is.
    pub(super) fn affinity(
        &self,
        client: IpAddr,
        name: ArchiveName,
        portion: Option<Portion>,
        is_named: impl Fn(CopyId) -> bool,
        now: Instant,
    ) -> Affinity {
        let mut clients = self.lock();
        match clients.entry(client, name, now) {
            Some(entry) => entry.files.affinity(portion, is_named, now),
            None => Files::default().affinity(portion, is_named, now),
        }
    }

    /// Notes that an answer is about to be given. One step with the decision about it, since parts
    /// are asked side by side: the first one decides for those beside it.
    pub(super) fn begin(
        self: &Arc<Self>,
        client: IpAddr,
        name: ArchiveName,
        portion: Option<Portion>,
        part: Part,
        now: Instant,
    ) -> Result<Delivery, Conflict> {
        let mut clients = self.lock();
        let entry = clients.entry_or_new(client, name, now);
        entry.touched = now;
        let progress = entry.files.begin(portion, part, now)?;
        Ok(Delivery { table: Arc::clone(self), client, name, progress, receipt: None })
    }

    /// Notes that the client was told of this copy, and of its length.
    pub(super) fn announce(
        &self,
        client: IpAddr,
        name: ArchiveName,
        given: Arc<PinnedCopy>,
        now: Instant,
    ) {
        let mut clients = self.lock();
        let entry = clients.entry_or_new(client, name, now);
        entry.touched = now;
        entry.files.announce(given, now);
    }

    /// Notes that no answer came of the copy that one had to be of.
    pub(super) fn miss(&self, client: IpAddr, name: ArchiveName, now: Instant) {
        if let Some(entry) = self.lock().entry(client, name, now) {
            entry.files.miss(now);
        }
    }

    /// The full or incremental archive of which the client began a file last that it does not have
    /// all of.
    pub(super) fn archive(
        &self,
        client: IpAddr,
        wanted: Wanted,
        now: Instant,
    ) -> Option<ArchiveName> {
        let client = client.to_canonical();
        let mut clients = self.lock();
        let memory = clients.memory;
        let entries = clients.entries.get_mut(&ClientNet::of(client))?;
        entries.retain_mut(|entry| !entry.files.settle(memory, now));
        let of_client = entries.iter().filter(|entry| {
            let is_wanted = entry.name.is_full() == (wanted == Wanted::Full);
            entry.client == client && is_wanted && entry.files.is_under_way()
        });
        of_client.max_by_key(|entry| entry.touched).map(|entry| entry.name)
    }

    fn end(&self, delivery: &mut Delivery, now: Instant) {
        let Delivery { client, name, receipt, progress, .. } = delivery;
        let mut clients = self.lock();
        let Some(entry) = clients.of(*client, *name) else { return };
        entry.touched = now;
        entry.files.end(progress, receipt.take(), now);
    }

    fn lock(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clients {
    fn of(&mut self, client: IpAddr, name: ArchiveName) -> Option<&mut Entry> {
        let client = client.to_canonical();
        let entries = self.entries.get_mut(&ClientNet::of(client))?;
        entries.iter_mut().find(|entry| (entry.client, entry.name) == (client, name))
    }

    /// What is remembered and not over.
    fn entry(&mut self, client: IpAddr, name: ArchiveName, now: Instant) -> Option<&mut Entry> {
        let memory = self.memory;
        let entry = self.of(client, name)?;
        entry.files.settle(memory, now);
        Some(entry)
    }

    fn entry_or_new(&mut self, client: IpAddr, name: ArchiveName, now: Instant) -> &mut Entry {
        let (client, net, memory) = (client.to_canonical(), ClientNet::of(client), self.memory);
        if !self.entries.contains_key(&net) {
            self.make_room(now);
        }
        let entries = self.entries.entry(net).or_default();
        entries.retain_mut(|entry| {
            let is_it = (entry.client, entry.name) == (client, name);
            !entry.files.settle(memory, now) || is_it
        });
        let is_it = |entry: &Entry| (entry.client, entry.name) == (client, name);
        let place = entries.iter().position(is_it).unwrap_or_else(|| {
            if entries.len() >= MAX_ARCHIVES {
                forget_one(entries);
            }
            entries.push(Entry { client, name, files: Files::default(), touched: now });
            entries.len() - 1
        });
        &mut entries[place]
    }

    /// Forgets clients that are over, and where that is not enough, those that were served last
    /// long ago: many at once, so that not each new one has all of them looked at.
    fn make_room(&mut self, now: Instant) {
        if self.entries.len() < self.next_sweep.max(FEW_CLIENTS) {
            return;
        }
        self.entries.retain(|_, entries| {
            entries.retain_mut(|entry| !entry.files.settle(self.memory, now));
            !entries.is_empty()
        });
        if self.entries.len() >= MAX_CLIENTS {
            let last = |entries: &[Entry]| entries.iter().map(|entry| entry.touched).max();
            let mut all: Vec<_> =
                self.entries.iter().map(|(net, entries)| (last(entries), *net)).collect();
            all.sort_unstable();
            for (_, net) in all.into_iter().take(MAX_CLIENTS / 16) {
                self.entries.remove(&net);
            }
        }
        self.next_sweep = (self.entries.len() * 2).min(MAX_CLIENTS);
    }
}

/// Forgets what was begun or ended the longest ago, and rather what is not under way.
fn forget_one(entries: &mut Vec<Entry>) {
    let worth = |at: &usize| (entries[*at].files.is_running(), entries[*at].touched);
    if let Some(at) = (0..entries.len()).min_by_key(worth) {
        entries.swap_remove(at);
    }
}

/// An answer on its way to a client. Unless it is said to be complete, it was broken off.
#[derive(Debug)]
pub(super) struct Delivery {
    table: Arc<AffinityTable>,
    client: IpAddr,
    name: ArchiveName,
    progress: Arc<AtomicU64>,
    receipt: Option<Arc<dyn Receipt>>,
}

impl Delivery {
    /// Notes that so many bytes are handed over to the client's connection. They count as the
    /// client's from here on, whether or not it takes them.
    pub(super) fn pass(&self, bytes: usize) {
        self.progress.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Notes that the last byte was handed over; the receipt tells what becomes of it, where there
    /// is one.
    pub(super) fn complete(mut self, receipt: Option<Arc<dyn Receipt>>) {
        self.receipt = Some(receipt.unwrap_or_else(|| Arc::new(Unseen)));
    }

    /// Whether so many bytes are all that were handed over.
    pub(super) fn is_within(&self, bytes: usize) -> bool {
        self.progress.load(Ordering::Relaxed) <= bytes as u64
    }
}

/// The receipt of a client that nobody looks after.
#[derive(Debug)]
struct Unseen;

impl Receipt for Unseen {
    fn arrival(&self) -> Arrival {
        Arrival::Taken
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let table = Arc::clone(&self.table);
        table.end(self, Instant::now());
    }
}

#[cfg(test)]
mod tests;
