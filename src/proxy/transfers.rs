//! Archives on their way to clients, for those who look.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use super::request_id::RequestId;
use crate::metrics::SourceClass;
use crate::snapshot::ArchiveName;

/// Parts of the list, each with a lock of its own, so that a look holds up few.
const PARTS: usize = 16;

/// The archives on their way. Bytes are counted without a lock.
#[derive(Debug, Default)]
pub struct Transfers {
    parts: [Mutex<HashMap<u64, Arc<Transfer>>>; PARTS],
    begun: AtomicU64,
}

/// One archive on its way to a client.
#[derive(Debug)]
pub struct Transfer {
    /// The request's id.
    id: RequestId,
    /// The client's address.
    pub client: IpAddr,
    /// The archive.
    pub name: ArchiveName,
    /// When its request came.
    pub began: Instant,
    /// From where it comes and how many bytes of it, once that is known.
    answer: OnceLock<Answer>,
    sent: AtomicU64,
}

/// What the head of the answer says.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Where the bytes come from.
    pub source: SourceClass,
    /// The target that they come from, or came from to the cache.
    pub target: Arc<str>,
    /// Bytes of the answer.
    pub length: Option<u64>,
}

impl Transfer {
    /// The request's id, as its client was told.
    pub fn request_id(&self) -> String {
        self.id.to_string()
    }

    /// What the head of the answer said, once it went out.
    pub fn answer(&self) -> Option<&Answer> {
        self.answer.get()
    }

    /// Bytes that went out.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// A transfer, for as long as it is kept.
#[derive(Debug)]
pub(super) struct Running {
    transfers: Arc<Transfers>,
    number: u64,
    transfer: Arc<Transfer>,
}

impl Running {
    /// Notes the head of the answer, the first time.
    pub(super) fn answer(&self, answer: Answer) {
        // A second one would be of the same request.
        let _ = self.transfer.answer.set(answer);
    }

    /// Notes how many bytes went out.
    pub(super) fn sent(&self, bytes: u64) {
        self.transfer.sent.store(bytes, Ordering::Relaxed);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.transfers.part(self.number).remove(&self.number);
    }
}

impl Transfers {
    /// Adds one.
    pub(super) fn begin(
        self: &Arc<Self>,
        id: RequestId,
        client: IpAddr,
        name: ArchiveName,
        began: Instant,
    ) -> Running {
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let (answer, sent) = (OnceLock::new(), AtomicU64::new(0));
        let transfer = Arc::new(Transfer { id, client, name, began, answer, sent });
        self.part(number).insert(number, Arc::clone(&transfer));
        Running { transfers: Arc::clone(self), number, transfer }
    }

    /// Every transfer, in no order.
    pub fn all(&self) -> Vec<Arc<Transfer>> {
        let of = |part: &Mutex<HashMap<_, _>>| locked(part).values().cloned().collect::<Vec<_>>();
        self.parts.iter().flat_map(of).collect()
    }

    fn part(&self, number: u64) -> MutexGuard<'_, HashMap<u64, Arc<Transfer>>> {
        let [first, ..] = &self.parts;
        let place = usize::try_from(number % PARTS as u64).unwrap_or(0);
        locked(self.parts.get(place).unwrap_or(first))
    }
}

fn locked<T>(part: &Mutex<T>) -> MutexGuard<'_, T> {
    // No change of a part can panic half-way.
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::request_id::RequestIds;
    use crate::proxy::scene::name;
    use std::net::Ipv4Addr;

    #[test]
    fn a_transfer_is_listed_for_as_long_as_it_runs() {
        let (transfers, ids, now) =
            (Arc::<Transfers>::default(), RequestIds::default(), Instant::now());
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let running: Vec<Running> =
            (0..100).map(|_| transfers.begin(ids.make(), client, name(), now)).collect();
        assert_eq!(transfers.all().len(), 100);
        running[7].sent(5);
        let answer = Answer { source: SourceClass::Cache, target: "a:1".into(), length: Some(9) };
        running[7].answer(answer);
        let sent: u64 = transfers.all().iter().map(|transfer| transfer.sent()).sum();
        assert_eq!(sent, 5);
        let answered = |transfer: &&Arc<Transfer>| transfer.answer().is_some();
        assert_eq!(transfers.all().iter().filter(answered).count(), 1);
        drop(running);
        assert!(transfers.all().is_empty());
    }
}
