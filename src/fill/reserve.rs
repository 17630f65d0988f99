//! Room in the cache for an archive that has begun to come.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use crate::cache::{Announced, Claim, FillCounts, Refusal, Reservation, Store};
use crate::index::Source;
use crate::route::{ArchiveHead, Bypass};
use crate::snapshot::ArchiveName;

/// How long the disk has to make room before clients are served without it.
pub const PATIENCE_OF_CLIENTS: Duration = Duration::from_millis(500);
/// How long the disk may take where no client waits.
pub(super) const PATIENCE_OF_NOBODY: Duration = Duration::from_secs(15);

/// The copy that a source's answer announces.
pub fn announced(source: &Source, head: &ArchiveHead) -> Announced {
    Announced {
        target: source.target.clone(),
        length: head.length,
        copy: head.copy,
        modified: head.modified,
        listed: source.listed.modified,
        tag: head.tag,
    }
}

/// Makes room and begins with it, off the async threads. A refusal is in the log.
pub async fn prepare<T: Send + 'static>(
    name: ArchiveName,
    claim: Claim,
    announced: Announced,
    patience: Duration,
    begin: impl FnOnce(Reservation) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let counts = claim.counts();
    in_time(name, counts, patience, move || claim.reserve(announced).and_then(begin)).await
}

/// Whether there could be room for an archive of so many bytes, before anybody is asked for it. A
/// refusal is in the log. The claim comes back where there could be; a disk that hangs keeps it,
/// so that it is asked once.
pub(super) async fn could_hold(
    store: &Store,
    name: ArchiveName,
    claim: Claim,
    length: u64,
    patience: Duration,
) -> Result<Claim, Refusal> {
    let (store, counts) = (store.clone(), claim.counts());
    in_time(name, counts, patience, move || store.could_hold(&name, length).map(|()| claim)).await
}

async fn in_time<T: Send + 'static>(
    name: ArchiveName,
    counts: Arc<FillCounts>,
    patience: Duration,
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let done = match tokio::time::timeout(patience, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(done)) => done,
        Ok(Err(panic)) => Err(Refusal::Disk(std::io::Error::other(panic))),
        // What comes of it later is dropped, which undoes it.
        Err(_) => Err(Refusal::Slow(patience)),
    };
    if let Err(refusal) = &done {
        counts.refuse(refusal.cause());
        let cause = refusal.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        log::info!("cache: refresh of {name} refused: {refusal}{cause}");
    }
    done
}

/// What a client is told of a refusal.
pub fn bypass_of(refusal: &Refusal) -> Bypass {
    match refusal {
        Refusal::NoSpace { .. } | Refusal::TooLarge { .. } => Bypass::NoSpace,
        Refusal::Elsewhere => Bypass::Filling,
        Refusal::NameTaken(_) | Refusal::Disk(_) | Refusal::Thread(_) | Refusal::Slow(_) => {
            Bypass::Disk
        }
    }
}
