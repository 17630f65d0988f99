//! Whether a client is too slow. Pure: what it took, how long it was waited for, nothing else.
//!
//! A client owes bytes for the time in which it is waited for, and for no other time. It may be
//! behind by what it owes for [`WINDOW`]: networks stall, disks are busy. What it takes is made
//! good at the rate, up to that and no further, so that no fast start pays for a long stall.

use std::time::Duration;

use crate::pace::time_of;

/// How long a client may take nothing at all.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// Bytes that the system of a slow reader may take at once and then none for a while, a sixteenth
/// of a large receive buffer. At a rate at which these take longer than [`WINDOW`], that is how
/// long the client may take nothing.
const GRAIN: u64 = 512 << 10;

/// What a client has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowance {
    /// Bytes per second, never zero.
    rate: u64,
    /// The most that is ever left.
    full: Duration,
    left: Duration,
    /// Bytes that had been taken when that was last reckoned.
    taken: u64,
}

impl Allowance {
    /// For clients that are to take so many bytes per second. None is ever waited for much longer
    /// than `most`, in which it must take one piece, where that is longer than [`WINDOW`].
    pub(super) fn new(rate: u64, most: Duration) -> Self {
        let rate = rate.max(1);
        let full = WINDOW.max(time_of(GRAIN, rate).min(most));
        Self { rate, full, left: full, taken: 0 }
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
    const MOST: Duration = Duration::from_secs(60);

    /// Steps of seconds waited and bytes taken in them; after how many the client is left.
    #[track_caller]
    fn check(what: &str, steps: &[(u64, u64)], left_after: Option<usize>) {
        let mut allowance = Allowance::new(RATE, MOST);
        let mut taken = 0;
        let cut = steps.iter().position(|(waited, bytes)| {
            taken += bytes;
            !allowance.spend(Duration::from_secs(*waited), taken)
        });
        assert_eq!(cut.map(|at| at + 1), left_after, "{what}");
    }

    #[test]
    fn a_client_is_left_for_what_it_does_not_take_while_it_is_waited_for() {
        let of = |count, step| vec![step; count];
        check("takes nothing", &of(20, (1, 0)), Some(10));
        check("takes next to nothing", &of(20, (1, 1 << 10)), Some(11));
        check("half of the rate", &of(40, (1, RATE / 2)), Some(20));
        check("three quarters of the rate", &of(200, (1, RATE * 3 / 4)), Some(40));
        check("just the rate", &of(2000, (1, RATE)), None);
        check("is never waited for", &of(2000, (0, 0)), None);
        check("takes little, and is never waited for", &of(2000, (0, 1)), None);
        check("pauses for nine seconds", &[(9, 0), (0, 9 * RATE), (9, 0), (0, RATE)], None);
        check("pauses again too early", &[(9, 0), (0, RATE), (2, 0)], Some(3));
        check("a fast start pays for no stall", &[(0, 1 << 40), (9, 0), (1, 0)], Some(3));
        check("in pieces of eight seconds", &of(200, (8, 8 * RATE)), None);
        check("one long silence", &[(10, 0)], Some(1));
    }

    #[test]
    fn a_low_rate_is_measured_for_longer() {
        for (rate, most, full) in [
            (RATE, MOST, WINDOW),
            (10 << 20, MOST, WINDOW),
            (16 << 10, MOST, Duration::from_secs(32)),
            (1, MOST, MOST),
            (1, Duration::from_millis(1), WINDOW),
            (0, MOST, MOST),
        ] {
            assert_eq!(Allowance::new(rate, most).left(), full, "{rate} B/s");
        }
    }

    #[test]
    fn another_answer_begins_with_all_of_it() {
        let mut allowance = Allowance::new(RATE, MOST);
        assert!(allowance.spend(Duration::from_secs(9), 0));
        assert_eq!(allowance.left(), Duration::from_secs(1));
        allowance.renew();
        assert_eq!(allowance.left(), WINDOW);
        assert!(allowance.spend(Duration::from_secs(9), 0));
    }

    proptest! {
        /// Whoever takes the rate in each second is never left, however the seconds are cut.
        #[test]
        fn whoever_keeps_the_rate_stays(
            rate in 1_u64..1 << 40,
            steps in prop::collection::vec(1_u64..9_999, 1..200),
        ) {
            let mut allowance = Allowance::new(rate, MOST);
            let mut taken = 0;
            for millis in steps {
                taken += (rate * millis).div_ceil(1000);
                prop_assert!(allowance.spend(Duration::from_millis(millis), taken));
            }
        }

        /// Whoever takes less than the rate is left, however the seconds are cut.
        #[test]
        fn whoever_does_not_is_left(rate in 1000_u64..1 << 30, part in 0_u64..90) {
            let mut allowance = Allowance::new(rate, MOST);
            let full = allowance.left().as_secs();
            let left = (1..=full * 11).find(|second| {
                !allowance.spend(Duration::from_secs(1), rate * part / 100 * second)
            });
            let most = full * 100 / (100 - part) + 2;
            prop_assert!(left.is_some_and(|second| (full..=most).contains(&second)), "{left:?}");
        }
    }
}
