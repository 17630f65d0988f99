//! Whether a client is too slow. Pure: what it took, how long it was waited for, nothing else.
//!
//! A client owes bytes for the time in which it is waited for, and for no other time. It may be
//! behind by what it owes for one pause: who unpacks while reading takes nothing for a while, and
//! then everything at once. What it takes is made good at the rate, up to that and no further, so
//! that no fast start pays for a long stall, and a client that drips is left in the end.

use std::time::Duration;

use crate::limit::time_of;

/// What a client has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StallBudget {
    /// Bytes per second, never zero.
    rate: u64,
    /// The most that is ever left: how long a client may take nothing at all.
    full: Duration,
    left: Duration,
    /// Bytes that had been taken when that was last reckoned.
    taken: u64,
}

impl StallBudget {
    /// For clients that are to take so many bytes per second, and may pause for so long.
    pub(super) fn new(rate: u64, pause: Duration) -> Self {
        Self { rate: rate.max(1), full: pause, left: pause, taken: 0 }
    }

    /// Reckons with a client that was `waited` for since the last time, and that has taken so many
    /// bytes from the beginning. False for one that is too slow.
    pub(super) fn spend(&mut self, waited: Duration, taken: u64) -> bool {
        let more = taken.saturating_sub(self.taken);
        self.taken = taken;
        let left = self.left.saturating_add(time_of(more, self.rate));
        self.left = left.saturating_sub(waited).min(self.full);
        waited < left
    }

    /// How long the client may be waited for if it takes nothing.
    pub(super) fn left(&self) -> Duration {
        self.left
    }

    /// How long a client may be waited for that owes nothing.
    pub(super) fn full(&self) -> Duration {
        self.full
    }

    /// Forgives what is owed: another answer begins.
    pub(super) fn renew(&mut self) {
        self.left = self.full;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: u64 = 64 << 10;
    const PAUSE: Duration = Duration::from_secs(60);

    /// Steps of seconds waited and bytes taken in them; after how many the client is left.
    #[track_caller]
    fn check(what: &str, steps: &[(u64, u64)], left_after: Option<usize>) {
        let mut budget = StallBudget::new(RATE, PAUSE);
        let mut taken = 0;
        let cut = steps.iter().position(|(waited, bytes)| {
            taken += bytes;
            !budget.spend(Duration::from_secs(*waited), taken)
        });
        assert_eq!(cut.map(|at| at + 1), left_after, "{what}");
    }

    #[test]
    fn a_client_is_left_for_what_it_does_not_take_while_it_is_waited_for() {
        let of = |count, step| vec![step; count];
        check("takes nothing", &of(100, (1, 0)), Some(60));
        check("takes next to nothing", &of(100, (1, 1 << 10)), Some(61));
        check("half of the rate", &of(200, (1, RATE / 2)), Some(120));
        check("three quarters of the rate", &of(400, (1, RATE * 3 / 4)), Some(240));
        check("just the rate", &of(2000, (1, RATE)), None);
        check("is never waited for", &of(2000, (0, 0)), None);
        check("takes little, and is never waited for", &of(2000, (0, 1)), None);
        check("a fast start pays for no stall", &[(0, 1 << 40), (59, 0), (1, 0)], Some(3));
        check("one long silence", &[(60, 0)], Some(1));
    }

    #[test]
    fn a_client_may_pause_again_and_again_where_it_takes_its_rate_in_all() {
        let again = |count, steps: [(u64, u64); 2]| steps.repeat(count);
        let unpacks = [(50, 0), (1, 100 << 20)];
        check("unpacks for fifty seconds", &again(100, unpacks), None);
        check("takes just enough after each", &again(100, [(50, 0), (1, 51 * RATE)]), None);
        check("in pieces of fifty seconds", &vec![(50, 50 * RATE); 200], None);
        check("takes half of it after each", &again(100, [(50, 0), (0, 25 * RATE)]), Some(3));
        check("a byte is no end of a pause", &again(100, [(20, 0), (0, 1)]), Some(7));
        check("one pause is too long", &[(50, 0), (1, 1 << 30), (61, 0)], Some(3));
    }

    #[test]
    fn another_answer_begins_with_all_of_it() {
        let mut budget = StallBudget::new(RATE, PAUSE);
        assert!(budget.spend(Duration::from_secs(59), 0));
        assert_eq!(budget.left(), Duration::from_secs(1));
        budget.renew();
        assert_eq!(budget.left(), PAUSE);
        assert!(budget.spend(Duration::from_secs(59), 0));
    }

    proptest! {
        /// Whoever takes the rate in each second is never left, however the seconds are cut.
        #[test]
        fn whoever_keeps_the_rate_stays(
            rate in 1_u64..1 << 40,
            steps in prop::collection::vec(1_u64..59_999, 1..200),
        ) {
            let mut budget = StallBudget::new(rate, PAUSE);
            let mut taken = 0;
            for millis in steps {
                taken += (rate * millis).div_ceil(1000);
                prop_assert!(budget.spend(Duration::from_millis(millis), taken));
            }
        }

        /// Whoever takes less than the rate is left, however the seconds are cut.
        #[test]
        fn whoever_does_not_is_left(rate in 1000_u64..1 << 30, part in 0_u64..90) {
            let mut budget = StallBudget::new(rate, PAUSE);
            let full = budget.left().as_secs();
            let left = (1..=full * 11).find(|second| {
                !budget.spend(Duration::from_secs(1), rate * part / 100 * second)
            });
            let most = full * 100 / (100 - part) + 2;
            prop_assert!(left.is_some_and(|second| (full..=most).contains(&second)), "{left:?}");
        }
    }
}
