//! The store as a storage backend of Pingora's cache.
//!
//! What a request reads or fills was decided when it was planned, and travels in the extensions of
//! its cache key: the archive that is served is the one whose copy was compared with what the
//! client has, and only the request that was given the right to fill can write.

use std::any::Any;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::ResponseHeader;
use pingora::{Error, ErrorType, Result};
use pingora_cache::storage::{
    HandleHit, HandleMiss, HitHandler, MissFinishType, MissHandler, PurgeOutcome, PurgeTarget,
    PurgeType, Storage,
};
use pingora_cache::trace::SpanHandle;
use pingora_cache::{CacheKey, CacheMeta};

use super::abandoned::Abandoned;
use super::archive::{Archive, Reader};
use super::fill::{Fill, Reason};
use super::record::Record;
use super::store::Store;
use crate::snapshot::ArchiveName;

/// How long the disk holds up the client before the fill is given up. Clients leave after two
/// seconds of silence.
const DISK_PATIENCE: Duration = Duration::from_secs(1);
/// Bytes per second below which a client that waits for the disk most of the time goes on without
/// it: what the more demanding clients want at least.
const SLOW_DISK: u64 = 50 << 20;
/// Most bytes of a reply of several parts that are handed out at once. Pingora copies them between
/// the heads of the parts, so that a client which takes nothing holds them.
const PIECE_OF_PARTS: usize = 64 << 10;
/// An archive never expires by itself: whether it is served is decided for each request.
const FRESH: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The storage backend.
#[derive(Debug)]
pub struct ArchiveStorage {
    store: Store,
    head: fn(&Record) -> Result<ResponseHeader>,
    /// Most bytes that are handed out at once.
    piece: AtomicUsize,
}

/// A fill on its way from the request that began it to Pingora, which asks for it by the key.
#[derive(Clone, Debug, Default)]
pub struct FillCell(Arc<Mutex<Option<Fill>>>);

impl FillCell {
    /// Leaves the fill to be picked up.
    pub fn put(&self, fill: Fill) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(fill);
    }

    fn take(&self) -> Option<Fill> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ArchiveStorage {
    /// A backend on a store. `head` makes the head under which an archive is served, in pieces of
    /// at most `piece` bytes, of which there must be some.
    pub fn new(store: Store, head: fn(&Record) -> Result<ResponseHeader>, piece: usize) -> Self {
        Self { store, head, piece: AtomicUsize::new(piece.max(1)) }
    }

    /// Hands out at most so many bytes at once from now on, of what is read from now on.
    pub fn set_piece(&self, piece: usize) {
        self.piece.store(piece.max(1), Ordering::Relaxed);
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    fn key(name: &ArchiveName) -> CacheKey {
        CacheKey::new(name.to_string(), "")
    }

    /// The key of a request that reads this archive.
    pub fn key_of_hit(archive: &Archive) -> CacheKey {
        let mut key = Self::key(&archive.record().name);
        key.extensions.insert(archive.clone());
        key
    }

    /// The key of a request that may fill this archive.
    pub fn key_of_fill(name: &ArchiveName, cell: &FillCell) -> CacheKey {
        let mut key = Self::key(name);
        key.extensions.insert(cell.clone());
        key
    }

    /// What Pingora is told of an archive under this head.
    pub fn meta(head: ResponseHeader, since: SystemTime) -> CacheMeta {
        CacheMeta::new(since + FRESH, since, 0, 0, head)
    }
}

#[async_trait]
impl Storage for ArchiveStorage {
    async fn lookup(
        &'static self,
        key: &CacheKey,
        _trace: &SpanHandle,
    ) -> Result<Option<(CacheMeta, HitHandler)>> {
        let Some(archive) = key.extensions.get::<Archive>() else { return Ok(None) };
        let since = match archive {
            Archive::Whole(sealed) => sealed.record().sealed,
            Archive::Growing(_) | Archive::Lent(_) => SystemTime::now(),
        };
        let meta = Self::meta((self.head)(archive.record())?, since);
        let piece = self.piece.load(Ordering::Relaxed);
        let (reader, rest) = (archive.reader(), Bytes::new());
        Ok(Some((meta, Box::new(Hit { reader, store: Some(&self.store), piece, rest }))))
    }

    async fn get_miss_handler(
        &'static self,
        key: &CacheKey,
        _meta: &CacheMeta,
        _trace: &SpanHandle,
    ) -> Result<MissHandler> {
        match key.extensions.get::<FillCell>().and_then(FillCell::take) {
            Some(fill) => Ok(Box::new(Miss { fill, holdup: DiskLag::new(Instant::now()) })),
            None => Error::e_explain(ErrorType::InternalError, "no fill was begun"),
        }
    }

    async fn purge(
        &'static self,
        target: PurgeTarget<'_>,
        _purge_type: PurgeType,
        _trace: &SpanHandle,
    ) -> Result<PurgeOutcome> {
        let is_it = |name: &ArchiveName| Self::key(name).to_compact() == *target.key();
        let Some(name) = self.store.names().into_iter().find(is_it) else {
            return Ok(PurgeOutcome::NotFound);
        };
        let removed = tokio::task::spawn_blocking(move || self.store.remove(&name)).await;
        match removed {
            Ok(true) => Ok(PurgeOutcome::Purged(None)),
            Ok(false) => Ok(PurgeOutcome::NotFound),
            Err(error) => Error::e_because(ErrorType::InternalError, "purging", error),
        }
    }

    /// Changes nothing: nothing is known of an archive that could change.
    async fn update_meta(
        &'static self,
        _key: &CacheKey,
        _meta: &CacheMeta,
        _trace: &SpanHandle,
    ) -> Result<bool> {
        Ok(false)
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync + 'static) {
        self
    }
}

/// The reading half of the backend: for archives that are in no store, and so are never filled.
#[derive(Debug)]
pub struct LentStorage {
    head: fn(&Record) -> Result<ResponseHeader>,
}

impl LentStorage {
    /// A backend without a store. `head` makes the head under which an archive is served.
    pub const fn new(head: fn(&Record) -> Result<ResponseHeader>) -> Self {
        Self { head }
    }
}

#[async_trait]
impl Storage for LentStorage {
    async fn lookup(
        &'static self,
        key: &CacheKey,
        _trace: &SpanHandle,
    ) -> Result<Option<(CacheMeta, HitHandler)>> {
        let Some(archive) = key.extensions.get::<Archive>() else { return Ok(None) };
        let head = (self.head)(archive.record())?;
        let meta = ArchiveStorage::meta(head, SystemTime::now());
        // What is lent comes in small pieces anyway.
        let (reader, piece, rest) = (archive.reader(), usize::MAX, Bytes::new());
        Ok(Some((meta, Box::new(Hit { reader, store: None, piece, rest }))))
    }

    async fn get_miss_handler(
        &'static self,
        _key: &CacheKey,
        _meta: &CacheMeta,
        _trace: &SpanHandle,
    ) -> Result<MissHandler> {
        Error::e_explain(ErrorType::InternalError, "there is no store to fill")
    }

    async fn purge(
        &'static self,
        _target: PurgeTarget<'_>,
        _purge_type: PurgeType,
        _trace: &SpanHandle,
    ) -> Result<PurgeOutcome> {
        Ok(PurgeOutcome::NotFound)
    }

    async fn update_meta(
        &'static self,
        _key: &CacheKey,
        _meta: &CacheMeta,
        _trace: &SpanHandle,
    ) -> Result<bool> {
        Ok(false)
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync + 'static) {
        self
    }
}

/// A reader of an archive.
struct Hit {
    reader: Reader,
    /// The store that it is in, where it is in one.
    store: Option<&'static Store>,
    piece: usize,
    /// What was read and is not handed out yet.
    rest: Bytes,
}

#[async_trait]
impl HandleHit for Hit {
    async fn read_body(&mut self) -> Result<Option<Bytes>> {
        if self.rest.is_empty() {
            match self.read().await? {
                Some(bytes) => self.rest = bytes,
                None => return Ok(None),
            }
        }
        Ok(Some(self.rest.split_to(self.piece.min(self.rest.len()))))
    }

    async fn finish(
        self: Box<Self>,
        _storage: &'static (dyn Storage + Sync),
        _key: &CacheKey,
        _trace: &SpanHandle,
    ) -> Result<()> {
        Ok(())
    }

    fn can_seek(&self) -> bool {
        true
    }

    fn seek(&mut self, start: usize, end: Option<usize>) -> Result<()> {
        self.rest.clear();
        self.reader.seek(start, end.unwrap_or(usize::MAX));
        Ok(())
    }

    fn seek_multipart(&mut self, start: usize, end: Option<usize>) -> Result<()> {
        self.piece = self.piece.min(PIECE_OF_PARTS);
        self.seek(start, end)
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }

    fn as_any_mut(&mut self) -> &mut (dyn Any + Send + Sync) {
        self
    }
}

impl Hit {
    async fn read(&mut self) -> Result<Option<Bytes>> {
        self.reader.next().await.map_err(|error| {
            // Of an archive that is being fetched or is lent, that is in the log already.
            if let Some((broken, store)) = self.reader.sealed().cloned().zip(self.store) {
                log::error!("cache: cannot read {}: {error}", broken.record().name);
                // Whoever comes next is served by a target. Nobody waits for it on a disk that
                // fails.
                tokio::task::spawn_blocking(move || store.discard(&broken));
            }
            Error::because(ErrorType::ReadError, "reading a cached archive", error)
        })
    }
}

/// The writer of a fill.
struct Miss {
    fill: Fill,
    holdup: DiskLag,
}

/// How much the disk holds up the client.
struct DiskLag {
    began: Instant,
    waited: Duration,
    bytes: u64,
}

impl DiskLag {
    fn new(began: Instant) -> Self {
        Self { began, waited: Duration::ZERO, bytes: 0 }
    }

    /// Notes a step, and says whether the client is better off without the disk: it waits for that
    /// more than for anything else, and is slow.
    fn step(&mut self, bytes: u64, waited: Duration, now: Instant) -> bool {
        self.bytes += bytes;
        self.waited += waited;
        let all = now.saturating_duration_since(self.began);
        let rate = u128::from(self.bytes) * 1000 / all.as_millis().max(1);
        all > DISK_PATIENCE && self.waited > all / 2 && rate < u128::from(SLOW_DISK)
    }
}

#[async_trait]
impl HandleMiss for Miss {
    async fn write_body(&mut self, data: Bytes, _eof: bool) -> Result<()> {
        let (reason, length, before) = (self.fill.reason(), data.len() as u64, Instant::now());
        in_time(&reason, self.fill.write(data)).await?;
        let now = Instant::now();
        if self.holdup.step(length, now.saturating_duration_since(before), now) {
            reason.give(Abandoned::Slow);
        }
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<MissFinishType> {
        let length = usize::try_from(self.fill.length()).unwrap_or(usize::MAX);
        let reason = self.fill.reason();
        in_time(&reason, self.fill.finish()).await?;
        Ok(MissFinishType::Created(length))
    }
}

/// Waits for the disk, but not for longer than the client that is waiting as well.
async fn in_time(
    reason: &Reason,
    step: impl Future<Output = Result<(), Abandoned>> + Send,
) -> Result<()> {
    let outcome = tokio::time::timeout(DISK_PATIENCE, step).await.unwrap_or_else(|_| {
        reason.give(Abandoned::Slow);
        Err(Abandoned::Slow)
    });
    outcome.map_err(|why| Error::because(ErrorType::WriteError, "caching an archive", why))
}
