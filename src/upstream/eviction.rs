//! Who makes room at a target that carries as many transfers as it may, for one who waits. Pure.
//!
//! Nobody is ended while nobody waits. Whoever takes less than the least rate is, the slowest
//! first, once it has had time to show another one; where its client has more than its share, or
//! was too slow before, that time is short. Where nobody is slow, a client with more than its share
//! gives back parts of files, which it asks for again; what is all of an archive is left to it.

use std::time::Duration;

use super::claimant::Client;

/// How long a transfer may take to reach the least rate, and over how many seconds it is measured:
/// a client may pause while it unpacks.
pub(super) const GRACE: Duration = Duration::from_secs(5);
pub(super) const MEASURED: u64 = 30;
/// How long a transfer may take where its client has more than its share, or was ended before.
const SHORT_GRACE: Duration = Duration::from_secs(1);
pub(super) const SHORTLY: u64 = 2;
/// How long somebody waits before a transfer is ended that is not slow: others end by themselves.
const TURNOVER: Duration = Duration::from_millis(500);

/// The bounds that hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// Bytes per second that a transfer has to take.
    pub(super) least_rate: u64,
    /// How long requests wait.
    pub(super) patience: Duration,
}

/// One who waits for a target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    pub(super) client: Client,
    pub(super) waited: Duration,
    /// Transfers that a client may have of the target, so that all who want it have as many.
    pub(super) share: usize,
    /// Transfers of the target that its client has.
    pub(super) own: usize,
}

/// One transfer of a target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Carried {
    pub(super) number: u64,
    pub(super) client: Client,
    /// Transfers that its client has of the target.
    pub(super) own: usize,
    pub(super) age: Duration,
    /// Whether it is a part of a file, which is not lost by being asked for again.
    pub(super) is_part: bool,
    /// Whether its client was ended for being slow, of late.
    pub(super) was_slow: bool,
    /// Bytes per second over the last seconds, by the client's own doing.
    pub(super) shortly: Option<u64>,
    /// Bytes per second over many seconds, by the client's own doing.
    pub(super) measured: Option<u64>,
}

impl Terms {
    /// Which of these transfers is ended, and whether for being slow.
    pub(super) fn victim(
        &self,
        waiter: &Waiter,
        carried: impl Iterator<Item = Carried> + Clone,
    ) -> Option<(u64, Ended)> {
        if waiter.client != Client::Everyone && waiter.own >= waiter.share {
            return None;
        }
        let others = carried.filter(|of| of.client != Client::Everyone);
        let others = others.filter(|of| of.client != waiter.client);
        let slow = others.clone().filter_map(|of| Some((self.slow_rate(&of, waiter.share)?, of)));
        if let Some((_, slowest)) = slow.min_by_key(|(rate, _)| *rate) {
            return Some((slowest.number, Ended::Slow));
        }
        let has_too_much = |of: &Carried| {
            of.is_part && of.own > waiter.share.max(waiter.own + 1) && of.age >= self.short_grace()
        };
        if waiter.waited < TURNOVER.min(self.patience / 4) {
            return None;
        }
        // Of who has the most, the youngest.
        let greedy = others.filter(has_too_much).max_by_key(|of| (of.own, of.number))?;
        Some((greedy.number, Ended::Share))
    }

    /// The rate of a transfer that is too slow.
    fn slow_rate(&self, of: &Carried, share: usize) -> Option<u64> {
        let is_short = of.own > share || of.was_slow;
        let slow = |rate: Option<u64>| rate.filter(|rate| *rate < self.least_rate);
        let shortly = slow(of.shortly).filter(|_| is_short && of.age >= self.short_grace());
        shortly.or_else(|| slow(of.measured).filter(|_| of.age >= GRACE))
    }

    /// Such that who waits is served while it does.
    fn short_grace(&self) -> Duration {
        if self.patience.is_zero() { SHORT_GRACE } else { SHORT_GRACE.min(self.patience / 3) }
    }
}

/// Why a transfer is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The client took too little.
    Slow,
    /// The client had more than its share.
    Share,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::ClientNet;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;
    const TERMS: Terms = Terms { least_rate: 10 * MIB, patience: Duration::from_secs(2) };

    fn client(number: u8) -> Client {
        Client::One(ClientNet::of(std::net::Ipv4Addr::from([10, 0, 0, number]).into()))
    }

    fn waiter(number: u8, share: usize, own: usize) -> Waiter {
        Waiter { client: client(number), waited: Duration::from_secs(1), share, own }
    }

    /// Of a client, with so many of its kind, so old, at a rate in KiB/s by its own doing.
    fn whole(number: u64, of: u8, own: usize, seconds: u64, rate: Option<u64>) -> Carried {
        let rate = rate.map(|kib| kib << 10);
        Carried {
            number,
            client: client(of),
            own,
            age: Duration::from_secs(seconds),
            is_part: false,
            was_slow: false,
            shortly: rate,
            measured: rate,
        }
    }

    fn part(number: u64, of: u8, own: usize, seconds: u64, rate: Option<u64>) -> Carried {
        Carried { is_part: true, ..whole(number, of, own, seconds, rate) }
    }

    #[track_caller]
    fn check(what: &str, waiter: Waiter, carried: &[Carried], expected: Option<(u64, Ended)>) {
        assert_eq!(TERMS.victim(&waiter, carried.iter().copied()), expected, "{what}");
    }

    const FAST: Option<u64> = Some(100 << 10);
    const SLOW: Option<u64> = Some(75);

    #[test]
    fn the_slowest_is_ended_first_and_nobody_before_its_time() {
        let new = waiter(9, 1, 0);
        let slowest = |number| Some((number, Ended::Slow));
        let of = [whole(1, 1, 1, 60, FAST), whole(2, 2, 1, 60, SLOW), whole(3, 3, 1, 60, Some(80))];
        check("one client each", new, &of, slowest(2));
        check("all are fast", new, &of[..1], None);
        check("none", new, &[], None);
        check("too young", new, &[whole(1, 1, 1, 4, SLOW)], None);
        check("old enough", new, &[whole(1, 1, 1, 5, SLOW)], slowest(1));
        check("a target that is slow", new, &[whole(1, 1, 1, 60, None)], None);
        let pause = Carried { shortly: Some(0), ..whole(1, 1, 1, 60, FAST) };
        check("a pause", new, &[pause], None);
        check("a pause of who has too much", new, &[Carried { own: 2, ..pause }], slowest(1));
        check("over its share, and young", new, &[whole(1, 1, 4, 1, SLOW)], slowest(1));
        check("over its share, and too young", new, &[whole(1, 1, 4, 0, SLOW)], None);
        let again = Carried { was_slow: true, ..whole(1, 1, 1, 1, SLOW) };
        check("it was too slow before", new, &[again], slowest(1));
        let fill = Carried { client: Client::Everyone, ..whole(1, 1, 1, 60, SLOW) };
        check("a fill for everyone", new, &[fill], None);
        check("the own ones", waiter(1, 2, 1), &[whole(1, 1, 1, 60, SLOW)], None);
        check("who has its share already", waiter(9, 1, 1), &of, None);
        let everyone = Waiter { client: Client::Everyone, ..waiter(9, 1, 0) };
        check("for everyone", everyone, &of, slowest(2));
    }

    #[test]
    fn parts_are_given_back_by_who_has_more_than_its_share() {
        let new = waiter(9, 2, 0);
        let most = |number| Some((number, Ended::Share));
        let of = [part(1, 1, 4, 60, FAST), part(2, 1, 4, 60, FAST), part(3, 2, 3, 60, None)];
        check("of who has the most the youngest", new, &of, most(2));
        check("of who has less", new, &of[2..], most(3));
        check("not what is all of it", new, &[whole(1, 1, 4, 60, FAST)], None);
        check("not who has its share", new, &[part(1, 1, 2, 60, FAST)], None);
        check("not before it has brought anything", new, &[part(1, 1, 4, 0, FAST)], None);
        let early = Waiter { waited: Duration::from_millis(100), ..new };
        check("others may end by themselves", early, &of, None);
        check("who has as many but one", waiter(9, 4, 3), &[part(1, 1, 4, 60, FAST)], None);
        let slow = [part(1, 1, 4, 60, FAST), part(2, 3, 1, 60, SLOW)];
        check("the slow ones first", new, &slow, Some((2, Ended::Slow)));
    }

    proptest! {
        /// Whoever has no more than its share and takes what it has to is never ended, nor is who
        /// waits itself, nor what is for everyone.
        #[test]
        fn who_keeps_to_the_rules_stays(
            carried in prop::collection::vec(
                (0..4_u8, 1..6_usize, 0..99_u64, any::<bool>(), any::<bool>(),
                 prop::option::of(0..40_000_u64)),
                0..12,
            ),
            share in 1..4_usize,
            own in 0..4_usize,
        ) {
            let of = |(number, (of, own, age, is_part, was_slow, rate))| Carried {
                is_part, was_slow, ..whole(number, of, own, age, rate)
            };
            let carried: Vec<_> = (0..).zip(carried).map(of).collect();
            let waiter = waiter(0, share, own);
            let Some((number, why)) = TERMS.victim(&waiter, carried.iter().copied()) else {
                return Ok(());
            };
            let victim = carried.iter().find(|of| of.number == number).expect("one of them");
            prop_assert!(own < share && victim.client != waiter.client);
            match why {
                Ended::Slow => {
                    prop_assert!(victim.measured.is_some_and(|rate| rate < 10 * MIB));
                    prop_assert!(victim.age >= TERMS.short_grace());
                }
                Ended::Share => prop_assert!(victim.own > share && victim.is_part),
            }
        }
    }
}
