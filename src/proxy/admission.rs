//! How many archives go to clients at once, and at which rate together: rather one client less
//! than all of them too slow.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Limits;
use crate::pace::Pace;
use crate::route::Busy;
use crate::tally::Tally;

/// Bytes of one turn where the rate of all is bounded, and so of one piece out of the cache: as
/// much as of a target's archive is passed on at once.
pub const PACED_PIECE: usize = 64 << 10;

/// Who is let in.
#[derive(Debug)]
pub(super) struct Admission {
    bounds: Bounds,
    running: Mutex<Tally<IpAddr>>,
    /// What the archives' bytes are held to, where they are.
    pace: Option<Mutex<Pace>>,
}

/// Most transfers at once.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    all: usize,
    per_client: usize,
    /// Those that have the least rate each when all have the same.
    at_rate: usize,
}

/// One transfer to a client, for as long as it is kept.
#[derive(Debug)]
pub(super) struct Permit {
    admission: Arc<Admission>,
    client: IpAddr,
    /// Bytes that went to the client since its last turn.
    unpaced: usize,
}

impl Bounds {
    fn new(limits: &Limits) -> Self {
        let shares = limits.total_rate.map(|total| total / limits.min_rate.max(1));
        let shares = shares.map(|shares| usize::try_from(shares).unwrap_or(usize::MAX));
        Self {
            all: limits.max_transfers,
            per_client: limits.per_client_transfers,
            at_rate: shares.unwrap_or(usize::MAX),
        }
    }

    /// Whether there may be one more, where so many are running, of this client's so many.
    fn admit(&self, all: usize, of_client: usize) -> Result<(), Busy> {
        if all >= self.all {
            Err(Busy::Transfers)
        } else if of_client >= self.per_client {
            Err(Busy::Client)
        } else if all >= self.at_rate {
            Err(Busy::Rate)
        } else {
            Ok(())
        }
    }
}

impl Admission {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            bounds: Bounds::new(limits),
            running: Mutex::default(),
            pace: limits.total_rate.map(|rate| Mutex::new(Pace::new(rate))),
        })
    }

    /// Lets one more transfer begin.
    pub(super) fn admit(self: &Arc<Self>, client: IpAddr) -> Result<Permit, Busy> {
        let client = client.to_canonical();
        let mut running = self.running();
        self.bounds.admit(running.all(), running.of(client))?;
        running.begin(client);
        Ok(Permit { admission: Arc::clone(self), client, unpaced: 0 })
    }

    fn running(&self) -> MutexGuard<'_, Tally<IpAddr>> {
        // No change of the counts can panic half-way.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Notes bytes of an archive that go to the client, and tells how long to wait before that. All
    /// transfers that wait have their turns one after the other, each for as many bytes, so their
    /// shares are equal; what a slow client leaves is the others'.
    pub(super) fn pass(&mut self, bytes: usize, now: Instant) -> Option<Duration> {
        let pace = self.admission.pace.as_ref()?;
        self.unpaced = self.unpaced.saturating_add(bytes);
        if self.unpaced < PACED_PIECE {
            // As small as the records of TLS are, of which a turn each would be too little.
            return None;
        }
        let bytes = std::mem::take(&mut self.unpaced);
        let wait = pace.lock().unwrap_or_else(PoisonError::into_inner).pass(bytes, now);
        Some(wait).filter(|wait| !wait.is_zero())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.running().end(self.client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const MIB: u64 = 1 << 20;

    fn client(number: u8) -> IpAddr {
        Ipv4Addr::from([10, 0, 0, number]).into()
    }

    fn limits(all: usize, per_client: usize, total_rate: Option<u64>) -> Limits {
        Limits {
            max_transfers: all,
            per_client_transfers: per_client,
            total_rate,
            ..Limits::default()
        }
    }

    #[test]
    fn each_bound_is_exact() {
        let check = |limits: Limits, all, of_client, expected: Result<(), Busy>| {
            let found = Bounds::new(&limits).admit(all, of_client);
            assert_eq!(found, expected, "{all} {of_client} {limits:?}");
        };
        check(limits(3, 9, None), 2, 2, Ok(()));
        check(limits(3, 9, None), 3, 0, Err(Busy::Transfers));
        check(limits(9, 3, None), 5, 2, Ok(()));
        check(limits(9, 3, None), 5, 3, Err(Busy::Client));
        // Ten MiB/s each.
        let rate = |mib| limits(99, 99, Some(mib * MIB));
        check(rate(100), 9, 9, Ok(()));
        check(rate(100), 10, 0, Err(Busy::Rate));
        check(rate(109), 10, 0, Err(Busy::Rate));
        check(rate(110), 10, 0, Ok(()));
        check(rate(10), 0, 0, Ok(()));
        check(rate(10), 1, 0, Err(Busy::Rate));
        let slower = Limits { min_rate: 5 * MIB, ..rate(10) };
        check(slower, 1, 0, Ok(()));
    }

    #[test]
    fn clients_are_told_apart_and_forgotten() {
        let admission = Admission::new(&limits(9, 1, None));
        let first = admission.admit(client(1)).expect("the first one");
        assert_eq!(admission.admit(client(1)).expect_err("its second one"), Busy::Client);
        let mapped = Ipv4Addr::from([10, 0, 0, 1]).to_ipv6_mapped();
        assert_eq!(admission.admit(mapped.into()).expect_err("the same client"), Busy::Client);
        let second = admission.admit(client(2)).expect("another client");
        drop(first);
        drop(admission.admit(client(1)).expect("again"));
        drop(second);
        assert_eq!(admission.running().owners(), 0);
        assert_eq!(admission.running().all(), 0);
    }

    #[test]
    fn without_a_rate_nobody_waits() {
        let now = Instant::now();
        let admission = Admission::new(&limits(9, 9, None));
        let mut permit = admission.admit(client(1)).expect("the first one");
        assert_eq!(permit.pass(1 << 30, now), None);
        let admission = Admission::new(&limits(9, 9, Some(10 * MIB)));
        let mut permit = admission.admit(client(1)).expect("the first one");
        let waits: Duration = (0..10).filter_map(|_| permit.pass(1 << 20, now)).sum();
        assert_eq!(waits, Duration::from_millis(5500), "a tenth of a second after the other");
    }

    /// However small the pieces are in which a transfer's bytes come.
    #[test]
    fn shares_are_equal() {
        let admission = Admission::new(&limits(9, 9, Some(64 * MIB)));
        let start = Instant::now();
        let sizes = [PACED_PIECE, 16 << 10, 1000];
        let mut transfers: Vec<_> = sizes
            .iter()
            .map(|size| (start, *size, 0, admission.admit(client(1)).expect("three of nine")))
            .collect();
        let end = start + Duration::from_secs(10);
        loop {
            let next = transfers.iter_mut().min_by_key(|(at, ..)| *at).expect("three");
            let (at, size, sent, permit) = next;
            if *at > end {
                break;
            }
            *at += permit.pass(*size, *at).unwrap_or_default();
            *sent += *size as u64;
        }
        let all: u64 = transfers.iter().map(|(_, _, sent, _)| *sent).sum();
        assert!((all / MIB).abs_diff(640) < 10, "the rate, {all}");
        for (_, size, sent, _) in transfers {
            assert!((sent / MIB).abs_diff(213) < 8, "{size}: {sent}");
        }
    }

    proptest! {
        /// However permits come and go, they are counted.
        #[test]
        fn no_permit_is_lost(steps in prop::collection::vec((0..4_u8, any::<bool>()), 0..200)) {
            let admission = Admission::new(&limits(10, 4, None));
            let mut permits: Vec<(u8, Permit)> = Vec::new();
            for (number, comes) in steps {
                let of_client = permits.iter().filter(|(of, _)| *of == number).count();
                if comes {
                    let expected = if permits.len() >= 10 {
                        Some(Busy::Transfers)
                    } else {
                        (of_client >= 4).then_some(Busy::Client)
                    };
                    match admission.admit(client(number)) {
                        Ok(permit) => {
                            prop_assert_eq!(expected, None);
                            permits.push((number, permit));
                        }
                        Err(busy) => prop_assert_eq!(Some(busy), expected),
                    }
                } else if let Some(at) = permits.iter().position(|(of, _)| *of == number) {
                    permits.swap_remove(at);
                }
                prop_assert_eq!(admission.running().all(), permits.len());
            }
            permits.clear();
            prop_assert_eq!(admission.running().owners(), 0);
        }
    }
}
