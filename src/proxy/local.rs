//! Archives out of local directories: opened for one request, and read as those of the cache are.

use std::sync::Arc;
use std::time::SystemTime;

use crate::cache::{Archive, Lent, Record};
use crate::error_chain::chain;
use crate::index::{CopyId, Source};
use crate::ledger::{Ledgers, OpenError, Opened};
use crate::route::SourceFailure;
use crate::upstream;

/// Opens the archive of a source that is a local directory.
pub(super) async fn open(ledgers: &Ledgers, source: &Source) -> Result<Archive, SourceFailure> {
    let (name, target) = (source.listed.name, &source.target);
    let ledger = ledgers.of(target).ok_or(SourceFailure::Gone)?;
    let failure = |error: OpenError| {
        // What is gone is said where it is reported.
        if !matches!(error, OpenError::Gone) {
            log::warn!("cannot open {name} of target {target}: {}", chain(&error));
        }
        upstream::open_failure(&error)
    };
    let Opened { file, length, modified, .. } = ledger.open(name).await.map_err(failure)?;
    let record = Record {
        name,
        target: target.clone(),
        length,
        copy: CopyId::of_file(&target.authority, length, modified),
        modified,
        sealed: SystemTime::now(),
    };
    let lent = Lent::new(file, record, Arc::clone(ledger.loads()));
    let lent = lent.map_err(|error| failure(OpenError::Disk(error)))?;
    Ok(Archive::Lent(Arc::new(lent)))
}
