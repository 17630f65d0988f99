//! The transfers that one target carries: for whom each is, and what its client takes of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::claimant::{Claimant, Client, Taker};
use super::eviction::{Carried, GRACE, MEASURED, SHORTLY};
use super::gauge::Gauge;
use crate::limit::KeyedCount;

/// What is taken of one transfer.
#[derive(Debug)]
pub struct Taking {
    gauge: Mutex<Gauge>,
    taker: Option<Arc<dyn Taker>>,
}

impl Taking {
    fn new(taker: Option<Arc<dyn Taker>>, now: Instant) -> Self {
        Self { gauge: Mutex::new(Gauge::new(now)), taker }
    }

    /// Notes bytes that go to the client.
    pub(super) fn pass(&self, bytes: u64, now: Instant) {
        self.looked_at(now).pass(bytes, now);
    }

    /// Whether another client that takes the least rate would have all of `length` bytes before
    /// this one has the rest of them.
    pub fn is_overtaken(&self, length: u64, least_rate: u64, now: Instant) -> bool {
        let gauge = self.looked_at(now);
        let rest = length.saturating_sub(gauge.bytes());
        let rate = gauge.rate_of_client(MEASURED, now).filter(|_| gauge.age(now) >= GRACE);
        rate.is_some_and(|rate| {
            u128::from(rest) * u128::from(least_rate) > u128::from(length) * u128::from(rate)
        })
    }

    /// With what was waited for the client until now.
    fn looked_at(&self, now: Instant) -> MutexGuard<'_, Gauge> {
        // No change of it can panic half-way.
        let mut gauge = self.gauge.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taker) = &self.taker {
            gauge.wait(taker.waited(now), now);
        }
        gauge
    }
}

/// One transfer, as whoever has it knows it.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) number: u64,
    pub(super) taking: Arc<Taking>,
    /// Where the bytes of all transfers of its target are counted.
    pub(super) received: Arc<AtomicU64>,
}

/// The transfers of one target.
#[derive(Debug, Default)]
pub(super) struct Load {
    counts: KeyedCount<Client>,
    transfers: Vec<Transfer>,
    next: u64,
    received: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Transfer {
    number: u64,
    client: Client,
    is_part: bool,
    taking: Arc<Taking>,
    /// Whether it was told to end.
    dismissed: bool,
}

impl Load {
    /// How many there are.
    pub(super) fn all(&self) -> usize {
        self.counts.all()
    }

    /// Bytes that came by all transfers so far.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Transfers of one client.
    pub(super) fn of(&self, client: Client) -> usize {
        self.counts.of(client)
    }

    /// For whom there are any.
    pub(super) fn clients(&self) -> impl Iterator<Item = Client> {
        self.transfers.iter().map(|transfer| transfer.client)
    }

    /// Counts one more.
    pub(super) fn begin(&mut self, of: &Claimant, now: Instant) -> Begun {
        self.next += 1;
        self.counts.begin(of.client);
        let taking = Arc::new(Taking::new(of.taker.clone(), now));
        self.transfers.push(Transfer {
            number: self.next,
            client: of.client,
            is_part: of.is_part,
            taking: Arc::clone(&taking),
            dismissed: false,
        });
        Begun { number: self.next, taking, received: Arc::clone(&self.received) }
    }

    /// Counts one less, of those that were begun.
    pub(super) fn end(&mut self, number: u64) {
        let place = self.transfers.iter().position(|transfer| transfer.number == number);
        if let Some(place) = place {
            self.counts.end(self.transfers.remove(place).client);
        }
    }

    /// The transfers that could be told to end, by what their clients take now.
    pub(super) fn carried(&self, was_slow: impl Fn(Client) -> bool, now: Instant) -> Vec<Carried> {
        let may_end = |of: &&Transfer| !of.dismissed && of.taking.taker.is_some();
        let carried = |of: &Transfer| {
            let gauge = of.taking.looked_at(now);
            Carried {
                number: of.number,
                client: of.client,
                own: self.counts.of(of.client),
                age: gauge.age(now),
                is_part: of.is_part,
                was_slow: was_slow(of.client),
                shortly: gauge.rate_of_client(SHORTLY, now),
                measured: gauge.rate_of_client(MEASURED, now),
            }
        };
        self.transfers.iter().filter(may_end).map(carried).collect()
    }

    /// Marks one as told to end; who is to be told, and for whom it is.
    pub(super) fn dismiss(&mut self, number: u64) -> Option<(Client, Arc<dyn Taker>)> {
        let transfer = self.transfers.iter_mut().find(|transfer| transfer.number == number)?;
        transfer.dismissed = true;
        Some((transfer.client, Arc::clone(transfer.taking.taker.as_ref()?)))
    }
}
