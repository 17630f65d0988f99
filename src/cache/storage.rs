//! The store as a storage backend of Pingora's cache.
//!
//! What a request reads or fills was decided when it was planned, and travels in the extensions of
//! its cache key: the archive that is served is the one whose copy was compared with what the client
//! has, and only the request that was given the right to fill can write.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

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

use super::fill::Fill;
use super::sealed::{Reader, Sealed};
use super::store::{Standing, Store};
use crate::snapshot::ArchiveName;

/// An archive never expires by itself: whether it is served is decided for each request.
const FRESH: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The storage backend.
#[derive(Debug)]
pub struct ArchiveStorage {
    store: Store,
    head: fn(&Sealed) -> Result<ResponseHeader>,
}

/// A fill on its way from the request that began it to Pingora, which asks for it by the key.
#[derive(Clone, Debug, Default)]
pub struct Handover(Arc<Mutex<Option<Fill>>>);

impl Handover {
    /// Leaves the fill to be picked up.
    pub fn put(&self, fill: Fill) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(fill);
    }

    fn take(&self) -> Option<Fill> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ArchiveStorage {
    /// A backend on a store. `head` makes the head under which an archive is served.
    pub fn new(store: Store, head: fn(&Sealed) -> Result<ResponseHeader>) -> Self {
        Self { store, head }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The key of an archive.
    pub fn key(name: &ArchiveName) -> CacheKey {
        CacheKey::new(name.to_string(), "")
    }

    /// The key of a request that reads this archive.
    pub fn key_of_hit(sealed: &Arc<Sealed>) -> CacheKey {
        let mut key = Self::key(&sealed.record().name);
        key.extensions.insert(Arc::clone(sealed));
        key
    }

    /// The key of a request that may fill this archive.
    pub fn key_of_fill(name: &ArchiveName, handover: &Handover) -> CacheKey {
        let mut key = Self::key(name);
        key.extensions.insert(handover.clone());
        key
    }

    /// What Pingora is told of an archive under this head.
    pub fn meta(head: ResponseHeader, since: SystemTime) -> CacheMeta {
        CacheMeta::new(since + FRESH, since, 0, 0, head)
    }

    fn find(&self, key: &CacheKey) -> Option<Arc<Sealed>> {
        if let Some(sealed) = key.extensions.get::<Arc<Sealed>>() {
            return Some(Arc::clone(sealed));
        }
        match self.store.standing(&key.primary_key_str()?.parse().ok()?) {
            Standing::Whole(sealed) => Some(sealed),
            Standing::Filling(_) | Standing::Absent => None,
        }
    }
}

#[async_trait]
impl Storage for ArchiveStorage {
    async fn lookup(
        &'static self,
        key: &CacheKey,
        _trace: &SpanHandle,
    ) -> Result<Option<(CacheMeta, HitHandler)>> {
        let Some(sealed) = self.find(key) else { return Ok(None) };
        let meta = Self::meta((self.head)(&sealed)?, sealed.record().sealed);
        Ok(Some((meta, Box::new(Hit(sealed.reader())))))
    }

    async fn get_miss_handler(
        &'static self,
        key: &CacheKey,
        _meta: &CacheMeta,
        _trace: &SpanHandle,
    ) -> Result<MissHandler> {
        match key.extensions.get::<Handover>().and_then(Handover::take) {
            Some(fill) => Ok(Box::new(Miss(fill))),
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

    /// Nothing is known of an archive that could change.
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

/// A reader of a complete archive.
struct Hit(Reader);

#[async_trait]
impl HandleHit for Hit {
    async fn read_body(&mut self) -> Result<Option<Bytes>> {
        self.0.next().await.map_err(|error| {
            log::error!("cache: cannot read {}: {error}", self.0.name());
            Error::because(ErrorType::ReadError, "reading a cached archive", error)
        })
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
        self.0.seek(start, end.unwrap_or(usize::MAX));
        Ok(())
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }

    fn as_any_mut(&mut self) -> &mut (dyn Any + Send + Sync) {
        self
    }
}

/// The writer of a fill.
struct Miss(Fill);

#[async_trait]
impl HandleMiss for Miss {
    async fn write_body(&mut self, data: Bytes, _eof: bool) -> Result<()> {
        let written = self.0.write(data).await;
        written.map_err(|why| Error::because(ErrorType::WriteError, "caching an archive", why))
    }

    async fn finish(self: Box<Self>) -> Result<MissFinishType> {
        let length = usize::try_from(self.0.length()).unwrap_or(usize::MAX);
        match self.0.finish().await {
            Ok(()) => Ok(MissFinishType::Created(length)),
            Err(why) => Error::e_because(ErrorType::WriteError, "caching an archive", why),
        }
    }
}
