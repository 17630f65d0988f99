//! How many looks for unknown names there may be: a bucket of tokens for all, and a smaller one for
//! each client, so that one client cannot take everything. What is left in the end is for those who
//! had no look lately, so that many clients cannot take everything either.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::limit::{Bucket, Size};
use crate::route::ClientNet;

/// What is left of both. Clients are remembered for `ProbeBudget::MEMORY` after their last look, so
/// that there are never more of them than looks in that time.
#[derive(Debug)]
pub struct ProbeBudget {
    all: Bucket,
    clients: HashMap<ClientNet, Client>,
}

#[derive(Clone, Copy, Debug)]
struct Client {
    bucket: Bucket,
    last: Instant,
}

impl ProbeBudget {
    /// Probes that may begin at once where none did for a while.
    pub const BURST: u32 = 16;
    /// Probes that may begin in one second after that.
    pub const PER_SECOND: u32 = 8;
    /// Looks at once of one client: a validator asks for a full archive and an incremental one,
    /// each of them in two forms.
    pub const CLIENT_BURST: u32 = 4;
    /// Looks of one client in a second.
    pub const CLIENT_PER_SECOND: u32 = 2;
    /// Of the looks at once, those that are kept for newcomers.
    pub const RESERVE: u32 = 4;
    /// How long a client is no newcomer after a look.
    const MEMORY: Duration = Duration::from_secs(60);

    const ALL: Size = Size { burst: Self::BURST, per_second: Self::PER_SECOND };
    const CLIENT: Size = Size { burst: Self::CLIENT_BURST, per_second: Self::CLIENT_PER_SECOND };

    /// A budget of which nothing was taken.
    pub fn new(now: Instant) -> Self {
        Self { all: Bucket::full(now), clients: HashMap::new() }
    }

    /// True for a client that had no look lately.
    pub fn is_newcomer(&self, client: ClientNet, now: Instant) -> bool {
        self.clients.get(&client).is_none_or(|known| known.last + Self::MEMORY <= now)
    }

    /// Takes one look for a client; false where there is none left for it, and then nothing is
    /// taken.
    pub fn take(&mut self, client: ClientNet, now: Instant) -> bool {
        let reserve = if self.is_newcomer(client, now) { 0 } else { Self::RESERVE };
        let known = self.clients.get(&client);
        let mut bucket = known.map_or(Bucket::full(now), |known| known.bucket);
        if !self.all.has(1 + reserve, Self::ALL, now) || !bucket.has(1, Self::CLIENT, now) {
            return false;
        }
        bucket.take(1, Self::CLIENT, now);
        self.all.take(1, Self::ALL, now);
        self.clients.retain(|_, known| now < known.last + Self::MEMORY);
        self.clients.insert(client, Client { bucket, last: now });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn client(number: u8) -> ClientNet {
        ClientNet::of(Ipv4Addr::from([10, 0, 0, number]).into())
    }

    /// How many of so many looks a client gets at a moment.
    fn granted(budget: &mut ProbeBudget, number: u8, asked: usize, now: Instant) -> usize {
        (0..asked).filter(|_| budget.take(client(number), now)).count()
    }

    #[test]
    fn one_client_gets_a_part_and_the_rest_is_for_others() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut budget = ProbeBudget::new(start);
        // Client, time, looks asked for, looks granted.
        let rows = [
            (1, 0, 1000, 4),
            (2, 0, 2, 2),
            (1, 499, 5, 0),
            (1, 500, 5, 1),
            (1, 1500, 5, 2),
            (1, 61_000, 1000, 4),
            (2, 61_000, 1000, 4),
            (3, 61_000, 1000, 4),
            // Four are left, for newcomers, of which each is one once.
            (1, 61_000, 1000, 0),
            (4, 61_000, 1000, 1),
            (5, 61_000, 1000, 1),
            (6, 61_000, 1000, 1),
            (7, 61_000, 1000, 1),
            (8, 61_000, 1000, 0),
            (8, 61_124, 1000, 0),
            (8, 61_125, 1000, 1),
            (4, 61_500, 1000, 0),
            // Five are there, of which four are kept.
            (4, 61_750, 1000, 1),
            (5, 61_750, 1000, 0),
            (9, 61_750, 1000, 1),
            // A minute after its last look a client is a newcomer again.
            (4, 121_749, 1, 1),
            (1, 121_749, 1000, 4),
        ];
        for (number, millis, asked, expected) in rows {
            let granted = granted(&mut budget, number, asked, at(millis));
            assert_eq!(granted, expected, "client {number} at {millis} ms");
        }
    }

    #[test]
    fn a_host_is_one_client() {
        let of = |text: &str| ClientNet::of(text.parse().expect("an address"));
        assert_eq!(of("10.0.0.1"), of("::ffff:10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("0.0.0.1"), of("0:0:0:1::"));
        assert_eq!(of("::ffff:10.0.0.1").to_string(), "10.0.0.1");
        assert_eq!(of("2001:db8::1").to_string(), "2001:db8::/64");
    }

    proptest! {
        #[test]
        fn in_no_time_are_there_more_than_the_burst_and_the_rate(
            asked in prop::collection::vec((0..40_u8, 0..400_u64), 1..400),
        ) {
            let start = Instant::now();
            let mut budget = ProbeBudget::new(start);
            let mut now = 0;
            let mut granted: Vec<(u8, u64)> = Vec::new();
            for (number, pause) in asked {
                // Most of them at once.
                now += pause.saturating_sub(300);
                if budget.take(client(number), start + Duration::from_millis(now)) {
                    granted.push((number, now));
                }
            }
            let bound = |burst: u32, rate: u32, millis: u64| {
                u64::from(burst) + u64::from(rate) * millis / 1000
            };
            for (first, (who, from)) in granted.iter().enumerate() {
                for (last, (_, to)) in granted.iter().enumerate().skip(first) {
                    let all = (last - first + 1) as u64;
                    prop_assert!(
                        all <= bound(ProbeBudget::BURST, ProbeBudget::PER_SECOND, to - from)
                    );
                    let window = &granted[first..=last];
                    let own = window.iter().filter(|(other, _)| other == who).count() as u64;
                    let (burst, rate) = (ProbeBudget::CLIENT_BURST, ProbeBudget::CLIENT_PER_SECOND);
                    prop_assert!(own <= bound(burst, rate, to - from));
                }
            }
            let memory = u64::try_from(ProbeBudget::MEMORY.as_millis()).expect("a minute");
            let most = bound(ProbeBudget::BURST, ProbeBudget::PER_SECOND, memory);
            prop_assert!(budget.clients.len() as u64 <= most);
        }

        #[test]
        fn whatever_known_clients_ask_a_newcomer_has_its_look(
            asked in prop::collection::vec((0..40_u8, 0..400_u64), 1..400),
        ) {
            let start = Instant::now();
            let at = |millis| start + Duration::from_millis(millis);
            let mut budget = ProbeBudget::new(start);
            // Those who asked before, and the time in which the reserve is there again.
            for number in 0..40 {
                budget.take(client(number), at(u64::from(number) * 250));
            }
            let mut now = 40 * 250;
            for (number, pause) in asked {
                now += pause.saturating_sub(300);
                budget.take(client(number), at(now));
                if now > 50_000 {
                    break;
                }
                let mut other = ProbeBudget { clients: budget.clients.clone(), ..budget };
                for newcomer in 100..104 {
                    prop_assert!(other.take(client(newcomer), at(now)));
                }
            }
        }

        #[test]
        fn who_asks_slowly_is_never_refused_for_itself(
            pauses in prop::collection::vec(500..900_u64, 1..50),
        ) {
            let start = Instant::now();
            let mut budget = ProbeBudget::new(start);
            let mut now = 0;
            for pause in pauses {
                prop_assert!(budget.take(client(1), start + Duration::from_millis(now)));
                now += pause;
            }
        }
    }
}
