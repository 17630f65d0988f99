//! How many calls a client may make, as nginx's `limit_req` bounds requests.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::client_net::ClientNet;
use crate::limit::{Bucket, Size};

/// Clients that are looked through at each call, for those that have nothing to be remembered for.
const SWEPT: usize = 1024;

/// What each client has left. One that has all of it is forgotten, so that there are never more of
/// them than calls in the time in which a bucket fills.
#[derive(Debug)]
pub struct CallRate {
    size: Size,
    clients: HashMap<ClientNet, Bucket>,
    /// How many clients there may be before those are looked for that can be forgotten.
    swept_above: usize,
}

impl CallRate {
    /// A bound of so many calls in a second, and as many at once.
    pub fn new(per_second: u32) -> Self {
        let per_second = per_second.max(1);
        let size = Size { burst: per_second, per_second };
        Self { size, clients: HashMap::new(), swept_above: SWEPT }
    }

    /// Goes on by another rate.
    pub fn set(&mut self, per_second: u32) {
        self.size = Self::new(per_second).size;
    }

    /// Whether so many calls of a client would be let through, or how long it is to wait.
    pub fn could_take(&self, client: ClientNet, calls: u32, now: Instant) -> Result<(), Duration> {
        let calls = calls.min(self.size.burst);
        let bucket = self.clients.get(&client).copied().unwrap_or_else(|| Bucket::full(now));
        if bucket.has(calls, self.size, now) {
            return Ok(());
        }
        Err(bucket.wait(calls, self.size, now))
    }

    /// Counts so many calls of a client, or says how long it is to wait. More than fit at once are
    /// counted as so many as fit: they would never be let through.
    pub fn take(&mut self, client: ClientNet, calls: u32, now: Instant) -> Result<(), Duration> {
        let calls = calls.min(self.size.burst);
        let known = self.clients.get(&client).copied();
        let mut bucket = known.unwrap_or_else(|| Bucket::full(now));
        if !bucket.has(calls, self.size, now) {
            return Err(bucket.wait(calls, self.size, now));
        }
        bucket.take(calls, self.size, now);
        self.clients.insert(client, bucket);
        if self.clients.len() > self.swept_above {
            self.clients.retain(|_, bucket| !bucket.is_full(now));
            self.swept_above = SWEPT.max(self.clients.len() * 2);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn client(number: u32) -> ClientNet {
        ClientNet::of(IpAddr::V4(Ipv4Addr::from(number)))
    }

    #[test]
    fn each_client_has_a_second_s_worth_at_once_and_the_rate_after_that() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut rate = CallRate::new(10);
        let mut granted = |number, calls: u32, asked: usize, millis| {
            (0..asked).filter(|_| rate.take(client(number), calls, at(millis)).is_ok()).count()
        };
        // Client, calls of each request, requests, time, let through.
        for (number, calls, asked, millis, expected) in [
            (1, 1, 100, 0, 10),
            (2, 3, 100, 0, 3),
            (1, 1, 100, 99, 0),
            (1, 1, 100, 100, 1),
            (1, 2, 100, 200, 0),
            (1, 2, 100, 300, 1),
            // A batch of more than fit is let through where nothing else was.
            (3, 100, 5, 300, 1),
            (3, 1, 1, 300, 0),
            (1, 1, 100, 60_000, 10),
        ] {
            assert_eq!(granted(number, calls, asked, millis), expected, "{number} at {millis}");
        }
    }

    #[test]
    fn another_rate_holds_from_then_on() {
        let (start, mut rate) = (Instant::now(), CallRate::new(1));
        let count = |rate: &mut CallRate| {
            (0..20).filter(|_| rate.take(client(1), 1, start).is_ok()).count()
        };
        assert_eq!(count(&mut rate), 1);
        rate.set(10);
        assert!(count(&mut rate) <= 10, "no more than the new rate");
        rate.set(1);
        assert_eq!(count(&mut rate), 0);
    }

    #[test]
    fn a_client_is_told_how_long_to_wait() {
        let (start, mut rate) = (Instant::now(), CallRate::new(4));
        let take = |rate: &mut CallRate, calls| rate.take(client(1), calls, start);
        assert_eq!(take(&mut rate, 4), Ok(()));
        assert_eq!(take(&mut rate, 1), Err(Duration::from_millis(250)));
        assert_eq!(take(&mut rate, 4), Err(Duration::from_secs(1)));
    }

    #[test]
    fn clients_are_forgotten_once_nothing_is_to_be_remembered() {
        let (start, mut rate) = (Instant::now(), CallRate::new(10));
        for number in 0..50_000 {
            // A thousand new ones in each second.
            let now = start + Duration::from_millis(number.into());
            assert_eq!(rate.take(client(number), 1, now), Ok(()));
        }
        assert!(rate.clients.len() <= 2 * SWEPT, "{}", rate.clients.len());
        let networks = |text: &str| ClientNet::of(text.parse().expect("an address"));
        assert_eq!(networks("2001:db8::1"), networks("2001:db8::ffff"), "one host has all of it");
    }
}
