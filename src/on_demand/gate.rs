//! Which unknown names are being looked for, which were not found lately, and whether one more look
//! may begin.
//!
//! Names that something speaks for have looks of their own, so that whoever makes names up, from
//! however many addresses, takes none of theirs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::budget::ProbeBudget;
use super::heard::Heard;
use crate::limit::LogLimiter;
use crate::route::ClientNet;
use crate::snapshot::ArchiveName;

/// Probes at once of names that the same speaks for, whoever asks.
const MAX_AT_ONCE: usize = 16;
/// Of these, those that are kept for clients that had no look lately.
const RESERVE: usize = 4;
/// Probes at once for one client.
const MAX_CLIENT_AT_ONCE: usize = 4;
/// Longest that it is remembered that a name was not found.
const MAX_MEMORY: Duration = Duration::from_secs(5);
/// Most names of which that is remembered. The budget admits far fewer looks in that time.
const MAX_UNFOUND: usize = 1024;

/// What is to be done about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ProbeState<T> {
    /// The name is being looked for; this is where the others wait.
    Running(T),
    /// The name was looked for and not found a moment ago.
    Unfound,
    /// Nobody knows.
    Unknown,
}

/// What speaks for a name that nobody lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Support {
    /// Nothing but that somebody asks for it.
    Nothing,
    /// Clients of two networks ask for it.
    TwoNetworks,
    /// The reference node has an archive of its slot.
    Reference,
}

/// The looks of names that the same speaks for.
#[derive(Debug)]
struct Lane {
    support: Support,
    budget: ProbeBudget,
}

/// A look that does not begin: there are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// How many did not begin since the last time that this was said, where it is to be said now.
    pub said: Option<u64>,
}

/// The looks of the process. `T` is where those wait who ask for a name that is looked for.
#[derive(Debug)]
pub(super) struct ProbeGate<T> {
    /// How long a name stays unfound.
    memory: Duration,
    /// The lanes, those with the most support first.
    lanes: [Lane; 3],
    heard: Heard,
    running: BTreeMap<ArchiveName, Running<T>>,
    /// The names that were not found, and until when that is remembered.
    unfound: BTreeMap<ArchiveName, Instant>,
    refused: LogLimiter,
}

#[derive(Debug)]
struct Running<T> {
    client: ClientNet,
    lane: Support,
    place: T,
}

impl<T: Clone> ProbeGate<T> {
    /// Remembers what is not found as befits this interval from now on.
    pub(super) fn set_interval(&mut self, scrape_interval: Duration) {
        self.memory = scrape_interval.min(MAX_MEMORY);
    }

    /// No look, and nothing to remember. A name that was not found is news again when all targets
    /// were probed, or after some seconds.
    pub(super) fn new(scrape_interval: Duration, now: Instant) -> Self {
        Self {
            memory: scrape_interval.min(MAX_MEMORY),
            lanes: [Support::Reference, Support::TwoNetworks, Support::Nothing]
                .map(|support| Lane { support, budget: ProbeBudget::new(now) }),
            heard: Heard::new(now),
            running: BTreeMap::new(),
            unfound: BTreeMap::new(),
            refused: LogLimiter::default(),
        }
    }

    /// What is to be done about a name.
    pub(super) fn outlook(&self, name: &ArchiveName, now: Instant) -> ProbeState<T> {
        if let Some(running) = self.running.get(name) {
            return ProbeState::Running(running.place.clone());
        }
        match self.unfound.get(name) {
            Some(until) if now < *until => ProbeState::Unfound,
            _ => ProbeState::Unknown,
        }
    }

    /// Begins a probe for a name that is [`ProbeState::Unknown`]: among those of its support, or
    /// else among those of less.
    pub(super) fn begin(
        &mut self,
        name: ArchiveName,
        client: ClientNet,
        is_referred: bool,
        place: T,
        now: Instant,
    ) -> Result<(), Refused> {
        let is_second = self.heard.note(&name, client, now);
        let support = match (is_referred, is_second) {
            (true, _) => Support::Reference,
            (false, true) => Support::TwoNetworks,
            (false, false) => Support::Nothing,
        };
        let own = self.running.values().filter(|running| running.client == client).count();
        if own >= MAX_CLIENT_AT_ONCE {
            return Err(Refused { said: self.refused.count(now) });
        }
        let taken =
            |lane: Support| self.running.values().filter(|running| running.lane == lane).count();
        let mut lanes = self.lanes.iter_mut().filter(|lane| lane.support <= support);
        let lane = lanes.find_map(|lane| {
            let taken = taken(lane.support);
            lane.takes(client, taken, now).then_some(lane.support)
        });
        let Some(lane) = lane else { return Err(Refused { said: self.refused.count(now) }) };
        self.running.insert(name, Running { client, lane, place });
        Ok(())
    }

    /// Ends a look. What it found is in the index.
    pub(super) fn end(&mut self, name: &ArchiveName, found: bool, now: Instant) {
        self.running.remove(name);
        if found {
            self.unfound.remove(name);
        } else {
            self.remember(name, now);
        }
    }

    /// Remembers that an archive is not there: it was looked for, or its target says that it is
    /// gone.
    pub(super) fn remember(&mut self, name: &ArchiveName, now: Instant) {
        self.unfound.retain(|_, until| now < *until);
        if self.unfound.len() < MAX_UNFOUND {
            self.unfound.insert(*name, now + self.memory);
        }
    }
}

impl Lane {
    /// Takes one look, where there is one left.
    fn takes(&mut self, client: ClientNet, taken: usize, now: Instant) -> bool {
        let reserve = if self.budget.is_newcomer(client, now) { 0 } else { RESERVE };
        taken + reserve < MAX_AT_ONCE && self.budget.take(client, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{ArchiveHash, Compression, Slot};
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const LONG: Duration = Duration::from_secs(3600);

    fn name(slot: u64) -> ArchiveName {
        ArchiveName::full(Slot(slot), ArchiveHash::new([1; 32]), Compression::Zstd)
    }

    fn client(number: u8) -> ClientNet {
        ClientNet::of(Ipv4Addr::from([10, 0, 0, number]).into())
    }

    #[test]
    fn one_name_is_looked_for_once_and_not_again_for_a_while() {
        let start = Instant::now();
        for (interval, memory) in [
            (LONG, Duration::from_secs(5)),
            (Duration::from_secs(5), Duration::from_secs(5)),
            (Duration::from_millis(100), Duration::from_millis(100)),
        ] {
            let mut gate = ProbeGate::new(interval, start);
            assert_eq!(gate.outlook(&name(1), start), ProbeState::Unknown);
            assert_eq!(gate.begin(name(1), client(1), false, "here", start), Ok(()));
            assert_eq!(gate.outlook(&name(1), start + LONG), ProbeState::Running("here"));
            assert_eq!(gate.outlook(&name(2), start), ProbeState::Unknown);
            let end = start + Duration::from_millis(500);
            gate.end(&name(1), false, end);
            assert_eq!(gate.outlook(&name(1), end), ProbeState::Unfound);
            let last = end + memory;
            let before = last.checked_sub(Duration::from_millis(1)).expect("late enough");
            assert_eq!(gate.outlook(&name(1), before), ProbeState::Unfound);
            assert_eq!(gate.outlook(&name(1), last), ProbeState::Unknown);
            assert_eq!(gate.outlook(&name(2), end), ProbeState::Unknown);
        }
    }

    #[test]
    fn what_was_found_and_is_unknown_again_is_looked_for_again() {
        let start = Instant::now();
        let mut gate = ProbeGate::new(LONG, start);
        for found in [true, true] {
            assert_eq!(gate.begin(name(1), client(1), false, (), start), Ok(()));
            gate.end(&name(1), found, start);
            assert_eq!(gate.outlook(&name(1), start), ProbeState::Unknown);
        }
    }

    #[test]
    fn what_is_gone_is_not_looked_for_and_there_is_room_for_so_many_such_names() {
        let start = Instant::now();
        let mut gate: ProbeGate<()> = ProbeGate::new(LONG, start);
        for slot in 0..2000 {
            gate.remember(&name(slot), start);
        }
        assert_eq!(gate.unfound.len(), MAX_UNFOUND);
        assert_eq!(gate.outlook(&name(0), start), ProbeState::Unfound);
        assert_eq!(gate.outlook(&name(0), start + MAX_MEMORY), ProbeState::Unknown);
        gate.remember(&name(1), start + MAX_MEMORY);
        assert_eq!(gate.unfound.len(), 1);
    }

    #[test]
    fn looks_are_bounded_in_number_for_each_client_and_for_all() {
        let start = Instant::now();
        let mut gate = ProbeGate::new(LONG, start);
        let mut begin = |number: u8, slot: u64, seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            gate.begin(name(slot), client(number), false, (), now)
        };
        // One in each second, which the budget does not mind; none of them ends.
        for slot in 0..4 {
            assert_eq!(begin(1, slot, slot), Ok(()));
        }
        assert!(begin(1, 4, 4).is_err(), "the fifth of one client");
        for slot in 4..12 {
            assert_eq!(begin(u8::try_from(slot).expect("small"), slot, slot), Ok(()));
        }
        assert!(begin(11, 12, 12).is_err(), "the rest is for newcomers");
        for slot in 12..16 {
            assert_eq!(begin(u8::try_from(slot).expect("small"), slot, slot), Ok(()));
        }
        assert!(begin(100, 16, 16).is_err(), "the seventeenth of all");
        gate.end(&name(15), false, start);
        let now = start + Duration::from_secs(17);
        assert!(gate.begin(name(16), client(1), false, (), now).is_err());
        assert_eq!(gate.begin(name(16), client(100), false, (), now), Ok(()));
    }

    #[test]
    fn what_did_not_begin_is_counted_and_said_now_and_then() {
        let start = Instant::now();
        let mut gate = ProbeGate::new(LONG, start);
        for slot in 0..4 {
            assert_eq!(gate.begin(name(slot), client(1), false, (), start), Ok(()));
        }
        let mut said = |seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            // Of those that still run, the client has as many as it may.
            gate.begin(name(9), client(1), false, (), now).expect_err("too many").said
        };
        assert_eq!(said(0), Some(1));
        assert_eq!([said(0), said(1), said(9)], [None; 3]);
        assert_eq!(said(10), Some(4));
        assert_eq!(said(19), None);
        assert_eq!(said(300), Some(2));
    }

    #[test]
    fn names_that_something_speaks_for_have_looks_of_their_own() {
        let start = Instant::now();
        let mut gate = ProbeGate::new(LONG, start);
        // From as many networks as there are, each of which makes names up.
        let stranger = |number: u64| {
            let [.., a, b] = number.to_be_bytes();
            ClientNet::of(Ipv4Addr::from([11, a, b, 1]).into())
        };
        let flood = (0..5000)
            .filter(|&number| gate.begin(name(number), stranger(number), false, (), start).is_ok());
        assert_eq!(flood.count(), MAX_AT_ONCE);
        assert!(gate.begin(name(9000), client(1), false, (), start).is_err(), "one asks");
        assert!(gate.begin(name(9000), client(2), false, (), start).is_err(), "of one network");
        let second = ClientNet::of(Ipv4Addr::from([10, 0, 1, 1]).into());
        assert_eq!(gate.begin(name(9000), second, false, (), start), Ok(()), "and another");
        assert_eq!(gate.begin(name(9001), client(3), true, (), start), Ok(()), "the reference");
        // Nor is there an end of names that two networks ask for: that lane has its bound as well.
        let mut begun = 0;
        for number in 5000..5100 {
            let _ = gate.begin(name(number), stranger(number), false, (), start);
            let again = gate.begin(name(number), stranger(number + 5000), false, (), start);
            begun += usize::from(again.is_ok());
        }
        assert_eq!(begun, MAX_AT_ONCE - 1);
        assert_eq!(gate.begin(name(9002), client(4), true, (), start), Ok(()));
    }

    proptest! {
        #[test]
        fn whatever_comes_the_memory_is_bounded(
            steps in prop::collection::vec(
                (any::<u8>(), 0..5000_u64, any::<bool>(), 0..200_u64),
                1..500,
            ),
        ) {
            let start = Instant::now();
            let mut gate = ProbeGate::new(LONG, start);
            let mut now = start;
            let mut begun: Vec<ArchiveName> = Vec::new();
            for (number, slot, ends, pause) in steps {
                now += Duration::from_millis(pause);
                if gate.outlook(&name(slot), now) == ProbeState::Unknown
                    && gate.begin(name(slot), client(number), false, (), now).is_ok()
                {
                    begun.push(name(slot));
                }
                if ends && !begun.is_empty() {
                    gate.end(&begun.remove(0), false, now);
                }
                prop_assert!(gate.running.len() <= MAX_AT_ONCE);
                // Those of the burst, and what the rate admits in five seconds.
                prop_assert!(gate.unfound.len() <= 16 + 8 * 5 + MAX_AT_ONCE);
            }
        }
    }
}
