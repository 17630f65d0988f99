//! How many connections there are, in all and of each client address. Whoever has a [`Place`] is
//! counted, and its end gives it back, however that comes.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::config::Limits;
use crate::refusals::Refusals;
use crate::tally::Tally;

/// The places of a listener.
#[derive(Debug)]
pub struct Places {
    most: usize,
    most_of_one: usize,
    taken: Mutex<Taken>,
}

/// One connection, for as long as it is there.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    client: IpAddr,
}

#[derive(Debug, Default)]
struct Taken {
    places: Tally<IpAddr>,
    refused: Refusals,
}

impl Places {
    /// As many as the limits allow.
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            most: limits.max_connections,
            most_of_one: limits.per_client_connections,
            taken: Mutex::default(),
        })
    }

    /// Connections of clients that are open.
    pub fn open(&self) -> usize {
        self.lock().places.all()
    }

    /// Addresses that have one.
    pub fn clients(&self) -> usize {
        self.lock().places.owners()
    }

    /// A place for a client, where there is one. Otherwise a line in the log says so, unless one
    /// was written lately.
    pub(super) fn take(self: &Arc<Self>, client: IpAddr, now: Instant) -> Option<Place> {
        let refused = self.lock().take(client, self.most, self.most_of_one, now);
        match refused {
            Ok(()) => Some(Place { places: Arc::clone(self), client }),
            Err(None) => None,
            Err(Some(refused)) => {
                log::warn!(
                    "{refused} connections closed unread, above `limits.max_connections` ({}) or \
                     `limits.per_client_connections` ({}), the last one of {client}",
                    self.most,
                    self.most_of_one,
                );
                None
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().places.end(self.client);
    }
}

impl Taken {
    /// Counts a connection, or tells how many refused ones are to be spoken of now.
    fn take(
        &mut self,
        client: IpAddr,
        most: usize,
        most_of_one: usize,
        now: Instant,
    ) -> Result<(), Option<u64>> {
        if self.places.all() < most && self.places.of(client) < most_of_one {
            self.places.begin(client);
            return Ok(());
        }
        Err(self.refused.count(now))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    fn client(number: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(127, 0, 0, number))
    }

    fn places(max_connections: usize, per_client_connections: usize) -> Arc<Places> {
        Places::new(&Limits { max_connections, per_client_connections, ..Limits::default() })
    }

    #[test]
    fn there_are_so_many_and_not_one_more() {
        let places = places(3, 2);
        let now = Instant::now();
        let take = |number| places.take(client(number), now);
        let (first, second) = (take(1).expect("the first"), take(1).expect("the second"));
        assert!(take(1).is_none(), "one client has two");
        let third = take(2).expect("the third");
        assert!(take(3).is_none(), "all have three");
        assert_eq!((places.open(), places.clients()), (3, 2));
        drop(first);
        assert!(take(1).is_some(), "and gives it back at once");
        drop((second, third));
        assert_eq!((places.open(), places.clients()), (0, 0), "addresses are forgotten");
    }

    #[test]
    fn refusals_are_spoken_of_now_and_then_with_their_number() {
        let (mut taken, start) = (Taken::default(), Instant::now());
        let mut refuse = |seconds| {
            let now = start + Duration::from_secs(seconds);
            taken.take(client(1), 0, 1, now).expect_err("no place")
        };
        let said = [0, 0, 1, 9, 10, 11, 19, 25].map(&mut refuse);
        assert_eq!(said, [Some(1), None, None, None, Some(4), None, None, Some(3)]);
    }

    proptest! {
        /// Against a plain list of who is there.
        #[test]
        fn places_are_counted_exactly(
            steps in prop::collection::vec((any::<bool>(), 0_u8..4, any::<Index>()), 0..200),
        ) {
            let (places, now) = (places(7, 3), Instant::now());
            let mut there: Vec<(u8, Place)> = Vec::new();
            for (comes, number, index) in steps {
                if comes {
                    let of_one = there.iter().filter(|(other, _)| *other == number).count();
                    let fits = there.len() < 7 && of_one < 3;
                    let place = places.take(client(number), now);
                    prop_assert_eq!(place.is_some(), fits);
                    there.extend(place.map(|place| (number, place)));
                } else if !there.is_empty() {
                    there.swap_remove(index.index(there.len()));
                }
                let mut numbers: Vec<u8> = there.iter().map(|(number, _)| *number).collect();
                numbers.sort_unstable();
                numbers.dedup();
                prop_assert_eq!((places.open(), places.clients()), (there.len(), numbers.len()));
            }
        }
    }
}
