//! Archives out of local directories: opened for one request, and read as those of the cache are.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::edge::Edge;
use super::planning::{Ledgers, Planned, Request};
use crate::cache::{Archive, Lent, Record};
use crate::index::{CopyId, Source};
use crate::ledger::{OpenError, Opened};
use crate::route::{CacheStatus, Failure, SourceFailure};
use crate::target::chain;

/// A request for an archive that ledgers have.
pub(super) struct Loan {
    pub(super) request: Request,
    /// In the order in which they are asked, at least one.
    pub(super) lenders: Vec<Arc<Source>>,
    /// The copy that the client has other bytes of; no other one will do.
    pub(super) bound_to: Option<CopyId>,
}

impl Edge {
    /// Opens the archive in the first ledger that still has it. Where none has, it is decided again
    /// as if there were no ledgers.
    pub(super) async fn borrow(&self, loan: Loan) -> Result<Planned, Failure> {
        let Loan { mut request, lenders, bound_to } = loan;
        let mut failed = SourceFailure::Gone;
        for source in &lenders {
            let archive = match self.open(source).await {
                Ok(archive) => archive,
                Err(failure) => {
                    self.upstreams.refused(source, &request.asked.method, &failure);
                    failed = failed.or(failure);
                    continue;
                }
            };
            if bound_to.is_some_and(|copy| copy != archive.record().copy) {
                return Err(Failure::OtherCopy);
            }
            match self.hit(archive, CacheStatus::Lent, &request, Instant::now()) {
                Ok(planned) => return Ok(planned),
                // Another request of the same client was faster, and began another copy.
                Err(begun) if begun.target.is_ledger() => return Err(Failure::OtherCopy),
                Err(_) => break,
            }
        }
        if bound_to.is_some() {
            return Err(Failure::OtherCopy);
        }
        request.ledgers = Ledgers::Passed;
        match self.begin_again(request) {
            Err(Failure::NotHeld) if failed != SourceFailure::Gone => Err(Failure::Sources(failed)),
            planned => planned,
        }
    }

    async fn open(&self, source: &Source) -> Result<Archive, SourceFailure> {
        let (name, target) = (source.listed.name, &source.target);
        let ledger = self.ledgers.of(target).ok_or(SourceFailure::Gone)?;
        let failure = |error: OpenError| {
            // What is gone is said where it is reported.
            if !matches!(error, OpenError::Gone) {
                log::warn!("cannot open {name} of target {target}: {}", chain(&error));
            }
            match error {
                OpenError::Gone | OpenError::Unfit(_) => SourceFailure::Gone,
                OpenError::Disk(_) => SourceFailure::Disk,
                OpenError::Slow => SourceFailure::Timeout,
            }
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
}
