//! Who has a connection, in all and of each client address, and whose is ended where none is left.
//! Whoever has a [`Place`] is counted, and its end gives it back, however that comes.
//!
//! All places can be taken by few who do little with them. So where none is left, a client whose
//! address has fewer connections than another one's gets one of those: the one on which nothing has
//! been asked for the longest, or else the slowest. The last places are kept for short answers, so
//! that these go on also where nobody can be asked to leave.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::connection::Connection;
use super::endpoint::Owner;
use super::watch::{Standing, Why};
use crate::config::Limits;
use crate::limit::{KeyedCount, LogLimiter};
use crate::metrics::LimitName;

/// Which part of the places is kept for short answers.
const RESERVE: usize = 16;
/// Addresses whose connections are looked at, those with the most, before a client is refused.
const LOOKED_AT: usize = 8;
/// Connections that were ended for others and are not closed yet, at most.
const MOST_LEAVING: usize = 64;

/// The places of a listener.
#[derive(Debug)]
pub struct ConnectionLimit {
    taken: Mutex<Taken>,
}

/// One connection, for as long as it is there.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<ConnectionLimit>,
    owner: Owner,
    number: u64,
}

/// For what there is room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Anything,
    ShortAnswers,
}

#[derive(Debug)]
struct Member {
    number: u64,
    room: Room,
    connection: Arc<Connection>,
}

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    most: usize,
    most_of_one: usize,
    /// Bytes per second from which on nobody is asked to leave.
    enough: u64,
}

#[derive(Debug)]
struct Taken {
    bounds: Bounds,
    places: KeyedCount<Owner>,
    members: HashMap<Owner, Vec<Member>>,
    /// Connections that have room for short answers only.
    reserved: usize,
    /// Connections that are no longer counted, since others have their places.
    leaving: usize,
    next: u64,
    refused: LogLimiter,
    ended: LogLimiter,
}

impl ConnectionLimit {
    /// As many as the limits allow.
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        let taken = Taken {
            bounds: Bounds::new(limits),
            places: KeyedCount::default(),
            members: HashMap::new(),
            reserved: 0,
            leaving: 0,
            next: 0,
            refused: LogLimiter::default(),
            ended: LogLimiter::default(),
        };
        Arc::new(Self { taken: Mutex::new(taken) })
    }

    /// Goes on under other limits. Where there are more connections than these allow, no more is
    /// taken until enough of them have ended.
    pub(super) fn apply(&self, limits: &Limits) {
        self.lock().bounds = Bounds::new(limits);
    }

    /// Connections of clients that are open.
    pub fn open(&self) -> usize {
        self.lock().places.all()
    }

    /// Addresses that have one.
    pub fn clients(&self) -> usize {
        self.lock().places.owners()
    }

    /// Whether something is on its way to a client yet.
    pub fn owe(&self) -> bool {
        let taken = self.lock();
        let members = taken.members.values().flatten();
        let open: Vec<_> = members.map(|member| Arc::clone(&member.connection)).collect();
        drop(taken);
        open.iter().any(|connection| connection.owes())
    }

    /// Connections that are open, and those of the address that has the most.
    pub fn used(&self) -> (usize, usize) {
        let taken = self.lock();
        let clients = taken.members.iter().filter(|(owner, _)| **owner != Owner::Proxy);
        (taken.places.all(), clients.map(|(_, all)| all.len()).max().unwrap_or(0))
    }

    /// A place for a client's connection, where there is one or can be made. Otherwise the bound
    /// that it meets, and a line in the log that says so, unless one was written lately.
    pub(super) fn take(
        self: &Arc<Self>,
        owner: Owner,
        connection: &Arc<Connection>,
        now: Instant,
    ) -> Result<Place, LimitName> {
        let mut taken = self.lock();
        let Some(room) = taken.room(owner, now) else {
            let (refused, bounds) = (taken.refused.count(now), taken.bounds);
            let has_all_of_one = bounds.has_all(owner, taken.places.of(owner));
            drop(taken);
            bounds.say(refused, owner);
            let met =
                if has_all_of_one { LimitName::ClientConnections } else { LimitName::Connections };
            return Err(met);
        };
        let number = taken.begin(owner, room, connection);
        Ok(Place { places: Arc::clone(self), owner, number })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().give_back(self.owner, self.number);
    }
}

impl Bounds {
    fn new(limits: &Limits) -> Self {
        Self {
            most: limits.max_connections,
            most_of_one: limits.per_client_connections,
            enough: limits.min_rate,
        }
    }

    /// Whether an owner has as many connections as one may. A proxy has those of many clients.
    fn has_all(&self, owner: Owner, own: usize) -> bool {
        owner != Owner::Proxy && own >= self.most_of_one
    }

    fn say(&self, refused: Option<u64>, owner: Owner) {
        if let Some(refused) = refused {
            log::warn!(
                "{refused} connections closed unread, above `limits.max_connections` ({}) or \
                 `limits.per_client_connections` ({}), the last one of {owner}",
                self.most,
                self.most_of_one,
            );
        }
    }
}

impl Taken {
    /// For what one more connection of a client has room, if for anything.
    fn room(&mut self, owner: Owner, now: Instant) -> Option<Room> {
        let Bounds { most, enough, .. } = self.bounds;
        let (all, own) = (self.places.all(), self.places.of(owner));
        if self.bounds.has_all(owner, own) || most == 0 {
            return None;
        }
        // The client behind a proxy may have none but this one.
        let own = if owner == Owner::Proxy { 0 } else { own };
        if all < most && all - self.reserved < most - most / RESERVE {
            return Some(Room::Anything);
        }
        let freed = (self.leaving < MOST_LEAVING)
            .then(|| self.idlest(own, now).or_else(|| self.slowest(own, enough, now)))
            .flatten();
        if let Some((owner, at)) = freed {
            let room = self.end(owner, at, now);
            // Where the bound was lowered, what is ended is nobody's place.
            return room.filter(|_| all <= most);
        }
        (all < most).then_some(Room::ShortAnswers)
    }

    fn begin(&mut self, owner: Owner, room: Room, connection: &Arc<Connection>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.places.begin(owner);
        if room == Room::ShortAnswers {
            self.reserved += 1;
            connection.narrow();
        }
        let connection = Arc::clone(connection);
        self.members.entry(owner).or_default().push(Member { number, room, connection });
        number
    }

    fn give_back(&mut self, owner: Owner, number: u64) {
        let found = self.members.get(&owner);
        let at = found.and_then(|all| all.iter().position(|member| member.number == number));
        match at {
            Some(at) => {
                self.remove(owner, at);
            }
            // Another one has its place.
            None => self.leaving = self.leaving.saturating_sub(1),
        }
    }

    fn remove(&mut self, owner: Owner, at: usize) -> Option<Member> {
        let all = self.members.get_mut(&owner)?;
        let member = all.swap_remove(at);
        if all.is_empty() {
            self.members.remove(&owner);
        }
        self.places.end(owner);
        if member.room == Room::ShortAnswers {
            self.reserved = self.reserved.saturating_sub(1);
        }
        Some(member)
    }

    /// Ends a connection, whose place another one has from now on.
    fn end(&mut self, owner: Owner, at: usize, now: Instant) -> Option<Room> {
        let member = self.remove(owner, at)?;
        self.leaving += 1;
        member.connection.end(Why::Crowded);
        if let Some(count) = self.ended.count(now) {
            log::warn!(
                "{count} connections closed to make room, since `limits.max_connections` are open, \
                 the last one of {owner}, which had the most of them"
            );
        }
        Some(member.room)
    }

    /// The addresses that have the most connections, and more than a client would have that has
    /// `own` already.
    fn largest(&self, own: usize) -> Vec<Owner> {
        let mut largest: Vec<(usize, Owner)> = Vec::with_capacity(LOOKED_AT + 1);
        let is_larger = |(owner, all): &(&Owner, &Vec<Member>)| {
            // Those of a proxy are of many clients, of whom none may have more than one.
            **owner != Owner::Proxy && all.len() > own + 1
        };
        for (client, all) in self.members.iter().filter(is_larger) {
            let at = largest.partition_point(|(count, _)| *count >= all.len());
            if at < LOOKED_AT {
                largest.insert(at, (all.len(), *client));
                largest.truncate(LOOKED_AT);
            }
        }
        largest.into_iter().map(|(_, client)| client).collect()
    }

    /// A connection of the first of those addresses that has one worth `worth`, where the most is
    /// taken.
    fn find(&self, own: usize, worth: impl Fn(&Member) -> Option<u128>) -> Option<(Owner, usize)> {
        self.largest(own).into_iter().find_map(|client| {
            let all = self.members.get(&client)?.iter().enumerate();
            let found = all.filter_map(|(at, member)| Some((worth(member)?, Reverse(at)))).max()?;
            let (_, Reverse(at)) = found;
            Some((client, at))
        })
    }

    fn idlest(&self, own: usize, now: Instant) -> Option<(Owner, usize)> {
        self.find(own, |member| match member.connection.standing(now) {
            Standing::Idle(time) => Some(time.as_nanos()),
            Standing::New | Standing::Serves(_) => None,
        })
    }

    fn slowest(&self, own: usize, enough: u64, now: Instant) -> Option<(Owner, usize)> {
        self.find(own, |member| match member.connection.standing(now) {
            Standing::Serves(rate) if rate < enough => Some(u128::from(enough - rate)),
            Standing::Serves(_) | Standing::New | Standing::Idle(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::listener::connection::Origin;
    use crate::listener::heads::Heads;
    use crate::listener::speech::Left;
    use crate::metrics::RequestCounts;

    fn client(number: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(127, 0, 0, number))
    }

    fn limits(max_connections: usize, per_client_connections: usize) -> Limits {
        Limits { max_connections, per_client_connections, ..Limits::default() }
    }

    fn places(max_connections: usize, per_client_connections: usize) -> Arc<ConnectionLimit> {
        ConnectionLimit::new(&limits(max_connections, per_client_connections))
    }

    fn connection(number: u8, now: Instant) -> Arc<Connection> {
        let heads = Heads::new(1);
        let counts = RequestCounts::new().expect("good definitions");
        let left = Arc::new(Left::new(Arc::new(counts)));
        Arc::new(Connection::of(&Limits::default(), Origin::of(client(number)), &heads, &left, now))
    }

    /// A connection of a client and its place.
    type Taken = (Arc<Connection>, Place);

    fn take(places: &Arc<ConnectionLimit>, number: u8, now: Instant) -> Option<Taken> {
        let connection = connection(number, now);
        let place = places.take(Owner::client(client(number)), &connection, now).ok()?;
        Some((connection, place))
    }

    #[test]
    fn there_are_so_many_and_not_one_more() {
        let places = places(3, 2);
        let now = Instant::now();
        let take = |number| take(&places, number, now);
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
    fn other_bounds_count_the_connections_that_are_there() {
        let (places, now) = (places(4, 4), Instant::now());
        let take = |number| take(&places, number, now);
        let mut taken: Vec<_> = (1..=4).map(|number| take(number).expect("a place")).collect();
        places.apply(&limits(2, 4));
        while taken.len() > 2 {
            assert!(take(9).is_none(), "{} are there", taken.len());
            taken.pop();
        }
        assert!(take(9).is_none(), "as many as may be");
        taken.pop();
        let last = take(9).expect("a place");
        places.apply(&limits(4, 1));
        assert!(take(9).is_none(), "one client has as many as it may");
        assert!(take(5).is_some(), "and there is room for others");
        drop((last, taken));
        assert_eq!(places.open(), 0);
    }

    /// Nobody keeps all others out by having what a bound of before allowed.
    #[test]
    fn what_is_above_a_lowered_bound_is_ended_for_nobody() {
        let (places, start) = (places(8, 8), Instant::now());
        let mut taken: Vec<_> = (0..8).map(|_| take(&places, 1, start).expect("a place")).collect();
        places.apply(&limits(6, 8));
        let later = start + Duration::from_secs(10);
        for above in [2, 1] {
            assert!(take(&places, 2, later).is_none(), "{above} above the bound");
        }
        assert_eq!(places.open(), 6);
        let comes = take(&places, 2, later).expect("one of theirs is ended for this one");
        assert_eq!(places.open(), 6);
        assert_eq!(taken.iter().filter(|(connection, _)| connection.is_ended()).count(), 3);
        taken.clear();
        drop(comes);
        assert_eq!(places.open(), 0);
    }

    /// How a connection that was made at the beginning stands after ten seconds.
    #[derive(Clone, Copy, Debug)]
    enum Does {
        Nothing,
        Moves(usize),
    }
    use Does::{Moves, Nothing};

    /// The places are taken in this order by clients that do that, and ten seconds later `comes`
    /// comes. Which place it gets.
    #[track_caller]
    fn check(what: &str, there: &[(u8, Does)], comes: u8, leaves: Option<usize>) {
        let start = Instant::now();
        let places = places(there.len(), 100);
        let take = |number, now| take(&places, number, now);
        let taken: Vec<_> = there
            .iter()
            .map(|(number, does)| {
                let (connection, place) = take(*number, start).expect("a place");
                if let Moves(bytes) = does {
                    connection.begin_request(false);
                    connection.wrote(*bytes);
                }
                (connection, place)
            })
            .collect();
        let later = Instant::now() + Duration::from_secs(10);
        let came = take(comes, later);
        assert_eq!(came.is_some(), leaves.is_some(), "{what}");
        let left = taken.iter().position(|(connection, _)| connection.is_ended());
        assert_eq!(left, leaves, "{what}");
        assert_eq!(places.open(), there.len(), "{what}");
        drop((taken, came));
        assert_eq!((places.open(), places.clients()), (0, 0), "{what}");
        let taken = places.lock();
        assert_eq!((taken.leaving, taken.reserved), (0, 0), "{what}");
    }

    #[test]
    fn where_no_place_is_left_who_has_most_and_does_least_loses_one() {
        let fast = Moves(200 << 20);
        let (slow, slower) = (Moves(1 << 20), Moves(1 << 10));
        check("everybody has one", &[(1, Nothing), (2, Nothing), (3, Nothing)], 4, None);
        check("one has two", &[(1, fast), (2, fast), (2, Nothing)], 3, Some(2));
        check("it is the same one", &[(1, fast), (2, fast), (2, Nothing)], 2, None);
        check("nothing before slow", &[(2, slower), (2, Nothing), (1, Nothing)], 3, Some(1));
        check("the slowest", &[(2, slow), (2, slower), (1, slower)], 3, Some(1));
        check("all are fast enough", &[(2, fast), (2, fast), (1, Nothing)], 3, None);
        let crowd = [(1, Nothing), (1, Nothing), (2, fast), (2, slow), (2, fast)];
        check("of who has the most that is idle", &crowd, 3, Some(0));
        let equal = [(1, Nothing), (1, Nothing), (2, Nothing), (2, Nothing)];
        check("who would have as many gets none", &equal, 1, None);
    }

    #[test]
    fn what_has_just_come_is_let_be() {
        let (places, now) = (places(3, 9), Instant::now());
        let there: Vec<_> = (0..3).map(|_| take(&places, 1, now).expect("a place")).collect();
        assert!(take(&places, 2, now).is_none());
        assert!(take(&places, 2, now + Duration::from_secs(2)).is_some());
        drop(there);
    }

    #[test]
    fn eight_addresses_do_not_keep_the_others_out() {
        let places = ConnectionLimit::new(&Limits::default());
        let start = Instant::now();
        let crowd: Vec<_> = (0..4096)
            .map(|at| take(&places, u8::try_from(at % 8).expect("small"), start).expect("a place"))
            .collect();
        let short = crowd.iter().filter(|(connection, _)| !connection.has_room()).count();
        assert_eq!(short, 4096 / RESERVE, "the last ones are for short answers");
        let mut others = Vec::new();
        let later = start + Duration::from_secs(2);
        for number in 100..164 {
            others.push(take(&places, number, later).expect("a place"));
        }
        assert!(take(&places, 164, later).is_none(), "no more than {MOST_LEAVING} at once");
        assert_eq!(places.open(), 4096);
        drop(crowd);
        assert_eq!((places.open(), places.lock().leaving), (64, 0));
    }

    /// Nothing of what many clients do by one proxy is held against one of them.
    #[test]
    fn a_proxy_has_the_connections_of_its_clients() {
        let (places, now) = (places(6, 2), Instant::now());
        let later = now + Duration::from_secs(10);
        let by_proxy = |now| {
            let connection = connection(9, now);
            places.take(Owner::Proxy, &connection, now).map(|place| (connection, place))
        };
        let theirs: Vec<_> = (0..4).map(|_| by_proxy(now).expect("a place")).collect();
        let ours: Vec<_> = (0..2).map(|_| take(&places, 1, now).expect("a place")).collect();
        let ended = || ours.iter().filter(|(connection, _)| connection.is_ended()).count();
        let more = by_proxy(later).expect("a place");
        assert_eq!(ended(), 1, "one of who has two");
        assert!(take(&places, 2, later).is_none(), "nobody else has more than one");
        assert!(by_proxy(later).is_err());
        assert!(theirs.iter().chain([&more]).all(|(connection, _)| !connection.is_ended()));
    }

    #[test]
    fn one_client_is_a_network_of_ipv6() {
        let (places, now) = (places(10, 2), Instant::now());
        let take = |text: &str| {
            let client = text.parse().expect("an address");
            let connection = connection(1, now);
            places.take(Owner::client(client), &connection, now).ok()
        };
        let held = [take("2001:db8::1"), take("2001:db8::2")];
        assert!(held.iter().all(Option::is_some) && take("2001:db8::3").is_none());
        assert!(take("2001:db8:0:1::1").is_some());
    }

    #[test]
    fn the_last_places_are_for_short_answers() {
        let (places, now) = (places(32, 32), Instant::now());
        let mut there: Vec<_> =
            (0..32).map(|number| take(&places, number, now).expect("a place")).collect();
        let has_room: Vec<bool> = there.iter().map(|(one, _)| one.has_room()).collect();
        assert_eq!(has_room, [vec![true; 30], vec![false; 2]].concat());
        there.remove(0);
        assert!(take(&places, 40, now).expect("a place").0.has_room(), "that of the first");
    }

    proptest! {
        /// Against a plain list of who is there.
        #[test]
        fn places_are_counted_exactly(
            steps in prop::collection::vec((any::<bool>(), 0_u8..4, any::<Index>()), 0..200),
        ) {
            let (places, now) = (places(7, 3), Instant::now());
            let mut there: Vec<(u8, Taken)> = Vec::new();
            for (comes, number, index) in steps {
                if comes {
                    let of_one = there.iter().filter(|(other, _)| *other == number).count();
                    let fits = there.len() < 7 && of_one < 3;
                    let place = take(&places, number, now);
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
