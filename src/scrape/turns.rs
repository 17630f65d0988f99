//! Scheduling of probes. A target that answered last time is asked first and on time; silent ones
//! share a small part of the probes that may be under way at once, with backoff.
//!
//! Each probe has a seat. There are `limits.probe_concurrency` of them, in three shares: one for
//! targets that answered quickly, or of which nothing bad is known yet, one for those that are
//! slow, one for those that are silent. A probe in the first share that takes longer than its look
//! goes on in another one where that has room, or for as long as nobody waits, and otherwise leaves
//! its seat and is made again in its new share, with all of its time. The others borrow of the
//! first share while nobody waits there.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limit::doubled;

/// Time in the first share for a target of which nothing is known, or that failed quickly.
const FIRST_LOOK: Duration = Duration::from_millis(500);
/// Bounds of the time there for one that answered, around [`LOOK_FACTOR`] times what it took then.
const SHORTEST_LOOK: Duration = Duration::from_millis(250);
const LONGEST_LOOK: Duration = Duration::from_secs(1);
const LOOK_FACTOR: u32 = 4;
/// A failure within this time costs so little that the target is asked again as if it were new.
const QUICK: Duration = Duration::from_millis(250);
/// How often a probe that is over its look sees whether others wait.
const TICK: Duration = Duration::from_millis(100);
/// Longest time between two probes of a silent target, unless the interval is longer.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// A class of targets, which wait for their turns among themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Share {
    /// The target answered quickly.
    Prompt,
    /// Nothing is known of it, or it failed quickly: it may have some of the seats of the above.
    #[default]
    Unproven,
    /// The target answered slowly, or has become silent of late.
    Slow,
    /// The target does not answer.
    Silent,
}

/// The record of a target, as far as it decides about its next turn. Pure: time is an argument.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    share: Share,
    /// How long its last answer took.
    took: Duration,
    /// Probes since then that took their time and brought nothing.
    silences: u32,
    /// Whether it answered at all.
    heard: bool,
}

impl Standing {
    pub(super) const fn share(&self) -> Share {
        self.share
    }

    /// How long it may keep a seat of the first share while others wait for one.
    pub(super) fn look(&self) -> Duration {
        match self.share {
            Share::Prompt => (self.took * LOOK_FACTOR).clamp(SHORTEST_LOOK, LONGEST_LOOK),
            Share::Unproven | Share::Slow | Share::Silent => FIRST_LOOK,
        }
    }

    /// Notes that it had to leave its seat before it answered.
    pub(super) fn overdue(&mut self) {
        self.share = if self.heard { Share::Slow } else { Share::Silent };
    }

    /// Notes that it answered within this time.
    pub(super) fn answered(&mut self, took: Duration) {
        let share = if took <= LONGEST_LOOK { Share::Prompt } else { Share::Slow };
        *self = Self { share, took, silences: 0, heard: true };
    }

    /// Notes that it failed after this time. Once it has failed `patience` times in a row that took
    /// their time, what it answered before counts no more.
    pub(super) fn failed(&mut self, took: Duration, patience: u32) {
        if took <= QUICK {
            self.share = Share::Unproven;
            return;
        }
        self.silences = self.silences.saturating_add(1);
        self.heard &= self.silences < patience;
        self.overdue();
    }

    /// Time from this probe to the next one: longer for a target that goes on being silent after
    /// its archives are no longer offered, of which `patience` silent probes are the cause.
    pub(super) fn rest(&self, interval: Duration, patience: u32) -> Duration {
        let doublings = self.silences.saturating_sub(patience);
        match self.share {
            Share::Prompt | Share::Unproven => interval,
            Share::Slow | Share::Silent => {
                doubled(interval, doublings.saturating_add(1), LONGEST_REST).max(interval)
            }
        }
    }
}

/// The seats of all probes.
#[derive(Debug)]
pub(super) struct Turns {
    all: usize,
    prompt: Arc<Semaphore>,
    /// How many of the prompt ones' seats may be held by the unproven.
    unproven: Arc<Semaphore>,
    /// How many of them may be borrowed.
    spare: Arc<Semaphore>,
    slow: Arc<Semaphore>,
    silent: Arc<Semaphore>,
    /// How many wait for a seat of the first share who have a right to it.
    waiting: AtomicUsize,
}

/// Numbers of seats. The first three add up to all, where there are three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seats {
    prompt: usize,
    slow: usize,
    silent: usize,
    unproven: usize,
    spare: usize,
}

impl Seats {
    fn of(all: usize) -> Self {
        let (slow, silent) = ((all / 4).max(1), (all / 8).max(1));
        let prompt = all.saturating_sub(slow + silent).max(1);
        Self { prompt, slow, silent, unproven: (prompt * 5 / 8).max(1), spare: prompt / 4 }
    }
}

/// The right to a probe.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    /// Where it moves to when it takes long.
    beyond: &'a Arc<Semaphore>,
    seat: OwnedSemaphorePermit,
    /// The right to a seat of the first share, where that is not its own.
    lent: Option<OwnedSemaphorePermit>,
    /// Whether it has to leave when it takes long and others wait.
    may_have_to_leave: bool,
}

impl Turns {
    /// Turns for `all` probes at once.
    pub(super) fn new(all: usize) -> Self {
        let seats = Seats::of(all);
        let of = |count| Arc::new(Semaphore::new(count));
        let prompt = of(seats.prompt);
        // Of one or two there is no share for each.
        let slow = if all < 2 { Arc::clone(&prompt) } else { of(seats.slow) };
        let silent = if all < 3 { Arc::clone(&slow) } else { of(seats.silent) };
        let (unproven, spare) = (of(seats.unproven), of(seats.spare));
        let waiting = AtomicUsize::new(0);
        Self { all, prompt, unproven, spare, slow, silent, waiting }
    }

    /// How many probes there may be at once.
    pub(super) fn all(&self) -> usize {
        self.all
    }

    /// Waits for the turn of a target; nothing when there are no more.
    pub(super) async fn turn(&self, share: Share) -> Option<Turn<'_>> {
        let beyond = match share {
            Share::Prompt | Share::Slow => &self.slow,
            Share::Unproven | Share::Silent => &self.silent,
        };
        let turn = |seat, lent, may_have_to_leave| {
            let may_have_to_leave = may_have_to_leave && !Arc::ptr_eq(&self.prompt, beyond);
            Turn { turns: self, beyond, seat, lent, may_have_to_leave }
        };
        match share {
            Share::Prompt => {
                let _waiting = Waiting::new(&self.waiting);
                Some(turn(seat(&self.prompt).await?, None, true))
            }
            Share::Unproven => {
                let _waiting = Waiting::new(&self.waiting);
                let lent = seat(&self.unproven).await?;
                Some(turn(seat(&self.prompt).await?, Some(lent), true))
            }
            Share::Slow | Share::Silent => tokio::select! {
                biased;
                own = seat(beyond) => Some(turn(own?, None, false)),
                borrowed = self.borrow() => {
                    let (seat, lent) = borrowed?;
                    Some(turn(seat, Some(lent), true))
                }
            },
        }
    }

    async fn borrow(&self) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let lent = seat(&self.spare).await?;
        Some((seat(&self.prompt).await?, lent))
    }
}

async fn seat(share: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(share).acquire_owned().await.ok()
}

impl Turn<'_> {
    /// Does what the turn is for; nothing where it has to leave before that is done.
    pub(super) async fn take<T>(
        mut self,
        look: Duration,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let mut work = pin!(work);
        let mut left = look;
        while self.may_have_to_leave {
            if let Ok(done) = tokio::time::timeout(left, &mut work).await {
                return Some(done);
            }
            if let Ok(seat) = Arc::clone(self.beyond).try_acquire_owned() {
                (self.seat, self.lent, self.may_have_to_leave) = (seat, None, false);
            } else if self.turns.waiting.load(Ordering::Acquire) > 0 {
                return None;
            }
            left = TICK;
        }
        Some(work.await)
    }
}

/// One more that waits, for as long as it does.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Instant;

    use super::*;

    const PATIENCE: u32 = 3;
    const TIMEOUT: Duration = Duration::from_secs(5);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn shares_add_up_to_what_is_allowed() {
        for all in 3..=4096 {
            let seats = Seats::of(all);
            assert_eq!(seats.prompt + seats.slow + seats.silent, all);
            assert!(seats.prompt >= seats.unproven && seats.unproven > 0, "{all}: {seats:?}");
            let others = seats.unproven + seats.spare;
            assert!(others < seats.prompt || seats.prompt < 4, "{all}: {seats:?}");
            assert!(seats.silent <= (all / 8).max(1), "{all}: {seats:?}");
        }
        let turns = Turns::new(1);
        assert!(Arc::ptr_eq(&turns.prompt, &turns.silent));
        assert!(Arc::ptr_eq(&turns.prompt, &turns.slow));
        let turns = Turns::new(2);
        assert!(Arc::ptr_eq(&turns.slow, &turns.silent));
        assert!(!Arc::ptr_eq(&turns.prompt, &turns.silent));
    }

    #[test]
    fn who_answered_comes_first_and_who_is_silent_waits_with_its_like() {
        let mut standing = Standing::default();
        assert_eq!((standing.share(), standing.look()), (Share::Unproven, FIRST_LOOK));
        standing.overdue();
        assert_eq!(standing.share(), Share::Silent, "it never answered");
        standing.answered(ms(20));
        assert_eq!((standing.share(), standing.look()), (Share::Prompt, SHORTEST_LOOK));
        standing.answered(ms(100));
        assert_eq!((standing.share(), standing.look()), (Share::Prompt, ms(400)));
        standing.answered(ms(900));
        assert_eq!((standing.share(), standing.look()), (Share::Prompt, LONGEST_LOOK));
        standing.answered(ms(1100));
        assert_eq!(standing.share(), Share::Slow);
        standing.answered(ms(20));
        standing.overdue();
        assert_eq!(standing.share(), Share::Slow, "it answered last time");
        for expected in [Share::Slow, Share::Slow, Share::Silent, Share::Silent] {
            standing.failed(TIMEOUT, PATIENCE);
            assert_eq!(standing.share(), expected);
        }
        // Refused, which costs nothing.
        standing.failed(ms(1), PATIENCE);
        assert_eq!(standing.share(), Share::Unproven);
        standing.answered(ms(1));
        assert_eq!(standing.share(), Share::Prompt);
    }

    #[test]
    fn who_goes_on_being_silent_is_asked_less_often() {
        let interval = Duration::from_secs(15);
        let mut standing = Standing::default();
        let mut rests = Vec::new();
        for _ in 0..7 {
            standing.failed(TIMEOUT, PATIENCE);
            rests.push(standing.rest(interval, PATIENCE).as_secs());
        }
        assert_eq!(rests, [15, 15, 15, 30, 60, 60, 60]);
        let hour = Duration::from_secs(3600);
        assert_eq!(standing.rest(hour, PATIENCE), hour, "never more often than the interval");
        for _ in 0..100 {
            standing.failed(TIMEOUT, PATIENCE);
        }
        assert_eq!(standing.rest(interval, PATIENCE), LONGEST_REST);
        let mut refusing = Standing::default();
        for _ in 0..100 {
            refusing.failed(ms(1), PATIENCE);
            assert_eq!(refusing.rest(interval, PATIENCE), interval);
        }
        standing.answered(ms(1));
        assert_eq!(standing.rest(interval, PATIENCE), interval);
    }

    /// What a simulated target does with each of its probes.
    #[derive(Clone, Copy, Debug)]
    enum Manner {
        Lives,
        Refuses,
        /// The connection is given up.
        NoRoute,
        Hangs,
        /// An answer in the last moment, each time.
        Drips,
        /// It answers once, and hangs from then on.
        Dies,
    }

    /// Time for one simulated probe, and between two of them.
    const SHORT_TIMEOUT: Duration = Duration::from_secs(2);
    const INTERVAL: Duration = Duration::from_millis(200);

    /// One target, asked again and again; when each of its answers came.
    async fn target(turns: Arc<Turns>, manner: Manner, answers: Arc<Mutex<Vec<Instant>>>) {
        let mut standing = Standing::default();
        loop {
            let begun = Instant::now();
            let (took, answered) = loop {
                let turn = turns.turn(standing.share()).await.expect("open");
                let begun = Instant::now();
                let probe = async {
                    let (time, answers) = match manner {
                        Manner::Refuses => (Duration::ZERO, false),
                        Manner::NoRoute => (ms(500), false),
                        Manner::Hangs => (SHORT_TIMEOUT, false),
                        Manner::Drips => (SHORT_TIMEOUT.saturating_sub(ms(10)), true),
                        Manner::Dies if standing.heard => (SHORT_TIMEOUT, false),
                        Manner::Lives | Manner::Dies => (ms(5), true),
                    };
                    tokio::time::sleep(time).await;
                    answers
                };
                match turn.take(standing.look(), probe).await {
                    Some(answered) => break (begun.elapsed(), answered),
                    None => standing.overdue(),
                }
            };
            if answered {
                standing.answered(took);
                answers.lock().unwrap().push(Instant::now());
            } else {
                standing.failed(took, PATIENCE);
            }
            let rest = standing.rest(INTERVAL, PATIENCE);
            tokio::time::sleep(rest.saturating_sub(begun.elapsed())).await;
        }
    }

    /// The longest time without an answer of one that lives beside so many of another manner, once
    /// each of them has had its first look.
    async fn longest_wait(manner: Manner, count: usize) -> Duration {
        const SETTLED: Duration = Duration::from_secs(3);
        const FOR: Duration = Duration::from_millis(5500);
        let turns = Arc::new(Turns::new(16));
        let answers = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = tokio::task::JoinSet::new();
        for at in 0..=count {
            let lives = at == count / 2;
            let manner = if lives { Manner::Lives } else { manner };
            let answers = if lives { Arc::clone(&answers) } else { Arc::default() };
            tasks.spawn(target(Arc::clone(&turns), manner, answers));
        }
        let settled = Instant::now() + SETTLED;
        tokio::time::sleep(FOR).await;
        tasks.shutdown().await;
        let answers = answers.lock().unwrap().clone();
        let later = answers.iter().copied().filter(|at| *at > settled);
        let (mut before, mut longest) = (settled, Duration::ZERO);
        for at in later.chain([Instant::now()]) {
            longest = longest.max(at - before);
            before = at;
        }
        longest
    }

    /// By one queue for all, thirty that hang would take four seconds of each round.
    #[tokio::test(flavor = "multi_thread")]
    async fn the_living_are_asked_on_time_whatever_the_others_do() {
        let mut runs = tokio::task::JoinSet::new();
        for manner in [Manner::Hangs, Manner::Drips, Manner::Refuses, Manner::NoRoute, Manner::Dies]
        {
            runs.spawn(async move { (manner, longest_wait(manner, 30).await) });
        }
        while let Some(run) = runs.join_next().await {
            let (manner, longest) = run.expect("no panic");
            assert!(longest < ms(1500), "{manner:?}: {longest:?}");
        }
    }

    #[tokio::test]
    async fn never_more_at_once_than_allowed() {
        for all in [1, 2, 3, 8, 64] {
            let turns = Arc::new(Turns::new(all));
            let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let mut tasks = tokio::task::JoinSet::new();
            for at in 0..300_u64 {
                let shares = [Share::Prompt, Share::Unproven, Share::Slow, Share::Silent];
                let share = shares[(at % 4) as usize];
                let (turns, now, most) = (turns.clone(), now.clone(), most.clone());
                tasks.spawn(async move {
                    let turn = turns.turn(share).await.expect("open");
                    let work = async {
                        let _one = Waiting::new(&now);
                        most.fetch_max(now.load(Ordering::Acquire), Ordering::AcqRel);
                        tokio::time::sleep(ms(at % 3)).await;
                    };
                    turn.take(ms(1), work).await
                });
            }
            while tasks.join_next().await.is_some() {}
            let most = most.load(Ordering::Acquire);
            assert!(most <= all, "{most} of {all}");
            assert_eq!(now.load(Ordering::Acquire), 0);
        }
    }
}
