//! The program is killed in the middle of its work, again and again: what it leaves behind is never
//! wrong, and the next process goes on from there. And it is alone with its directory.
//!
//! The number of kills and the seed of all that is random are `SNAPEDGE_CRASHES` and
//! `SNAPEDGE_CRASH_SEED`; `make crash` is the long form.

mod client;
mod moment;
mod second;
mod world;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use tempfile::TempDir;
use tokio::task::JoinSet;

use self::client::client;
use self::moment::{Changes, MOMENTS, Moment};
use self::world::{Found, World};
use super::{files, status};
use crate::support::client::{Ask, Ended};
use crate::support::eventually;
use crate::support::origin::Origin;
use crate::support::process::Running;

/// Kills of the short form.
const CRASHES: u64 = 10;
const SEED: u64 = 1;
const CLIENTS: u8 = 4;
/// How long a moment may be waited for before the process is killed anyway.
const LATEST: Duration = Duration::from_secs(1);

/// A configuration with a cache. Names that no target lists are not looked for: what is found on
/// one of two origins and listed by none is a copy that a client may not be able to go on with.
fn config(directory: &Path, sharing: &str, origins: &[Origin]) -> String {
    let targets: Vec<String> =
        origins.iter().map(|origin| format!("'{}'", origin.address())).collect();
    format!(
        "scrape_interval: 100ms\nlimits: {{unknown_name_probe: 0s}}\n\
         server: {{threads: 2}}\nproxy_snapshot_cache_dir: '{}'\n\
         cache: {{sharing: {sharing}, min_free_space: 0B, verify: length}}\ntarget_groups: \
         [{{group: a, static_targets: {{targets: [{}]}}}}]\n",
        directory.display(),
        targets.join(", ")
    )
}

/// What was seen, so that a run in which nothing happened is none.
#[derive(Debug, Default)]
struct Tally {
    kills: u64,
    /// Of the moments that were waited for, those that never came.
    missed: u64,
    /// Kills that left such things.
    unfinished: u64,
    unfinished_records: u64,
    ahead: u64,
    behind: u64,
    whole: u64,
    /// Processes that found archives, and the archives.
    adopting: u64,
    adopted: usize,
    /// Answers to the clients, and those of them out of the cache.
    answers: Arc<AtomicU64>,
    hits: Arc<AtomicU64>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, missed, unfinished, unfinished_records, ahead, behind, .. } = self;
        let Self { whole, adopting, adopted, .. } = self;
        let (answers, hits) = (self.answers.load(Ordering::Relaxed), &self.hits);
        write!(
            f,
            "{kills} kills ({missed} at no particular moment), of which {unfinished} left an \
             unfinished archive, {unfinished_records} an unfinished record, {ahead} a record \
             before its archive, {behind} one after it, {whole} whole archives; {adopting} \
             processes adopted {adopted} archives; {answers} right answers, {} of them hits",
            hits.load(Ordering::Relaxed)
        )
    }
}

struct Run {
    directory: TempDir,
    sharing: &'static str,
    world: Arc<World>,
    random: ChaCha8Rng,
    tally: Tally,
}

impl Run {
    async fn new(seed: u64, sharing: &'static str) -> Self {
        Self {
            sharing,
            directory: tempfile::tempdir().expect("a directory"),
            world: Arc::new(World::new().await),
            random: ChaCha8Rng::seed_from_u64(seed),
            tally: Tally::default(),
        }
    }

    fn config(&self) -> String {
        config(self.directory.path(), self.sharing, &self.world.origins)
    }

    /// One process, from its start to its end by force.
    async fn crash(&mut self, moment: Moment) {
        let renewed = self.random.next_u32().is_multiple_of(2);
        if renewed {
            self.world.renew(false);
        }
        if moment.is_early() {
            self.start_and_kill(moment).await;
        } else {
            let process = self.start().await;
            self.serves_a_whole(&process).await;
            self.serve_and_kill(process, moment, renewed).await;
        }
        self.tally.kills += 1;
        let left = Found::check(self.directory.path(), &self.world);
        self.tally.unfinished += u64::from(left.unfinished > 0);
        self.tally.unfinished_records += u64::from(left.unfinished_records > 0);
        self.tally.ahead += u64::from(left.ahead > 0);
        self.tally.behind += u64::from(left.behind > 0);
        self.tally.whole += u64::from(left.archives > 0);
    }

    /// Starts a process, which has nothing left of its predecessors but what is whole.
    async fn start(&mut self) -> Running {
        let before = Found::check(self.directory.path(), &self.world);
        let process = Running::start(&self.config()).await;
        let found = Found::check(self.directory.path(), &self.world);
        assert_eq!(found, Found { archives: before.archives, ..Found::default() });
        let adopted = process.log().matches("cache: adopted").count();
        assert_eq!(adopted, found.archives, "{}", process.log());
        self.tally.adopting += u64::from(adopted > 0);
        self.tally.adopted += adopted;
        process
    }

    /// Out of the cache or from an origin.
    async fn serves_a_whole(&self, process: &Running) {
        let name = self.world.full();
        let ask = Ask::get(format!("/{name}"));
        eventually("the best full archive is served", || async {
            let answer = ask.clone().send(process.address).await;
            let whole = (answer.status, answer.ended) == (200, Ended::Whole);
            assert!(!whole || self.world.is_whole(&name, &answer.body), "{}", answer.head);
            whole
        })
        .await;
    }

    /// Kills a process that does not serve yet.
    async fn start_and_kill(&mut self, moment: Moment) {
        let mut changes = Changes::of(self.directory.path());
        let met = async {
            while !changes.met(moment) {
                tokio::task::yield_now().await;
            }
        };
        let delay = moment.delay(&mut self.random);
        let config = self.config();
        // A process whose start is given up is killed.
        tokio::select! {
            biased;
            () = met => {}
            () = tokio::time::sleep(delay), if moment == Moment::Starting => {}
            process = Running::start(&config) => {
                self.tally.missed += u64::from(moment != Moment::Starting);
                process.kill();
            }
        }
    }

    /// Kills a process that has clients, and to which a new archive is offered.
    async fn serve_and_kill(&mut self, process: Running, moment: Moment, renewed: bool) {
        let address = process.address;
        self.world.slow_down(moment == Moment::Filling);
        let end = Arc::new(AtomicBool::new(false));
        let changes = Changes::of(self.directory.path());
        let delay = moment.delay(&mut self.random);
        let killing = tokio::task::spawn_blocking({
            let end = Arc::clone(&end);
            move || kill_at(process, moment, changes, delay, &end)
        });
        let mut clients = JoinSet::new();
        for number in 1..=CLIENTS {
            let (world, end) = (Arc::clone(&self.world), Arc::clone(&end));
            let tally = (Arc::clone(&self.tally.answers), Arc::clone(&self.tally.hits));
            let seed = self.random.next_u64();
            clients.spawn(client(number, address, seed, world, end, tally));
        }
        if !renewed {
            self.world.renew(self.random.next_u32().is_multiple_of(2));
        }
        let (met, log) = killing.await.expect("a kill");
        self.tally.missed += u64::from(!met);
        while let Some(client) = clients.join_next().await {
            assert!(client.is_ok(), "a client complained, and the process said\n{log}");
        }
        assert!(!log.contains("panicked"), "{log}");
        self.world.slow_down(false);
    }

    /// What all of it was for: the best pair is in the cache, and nothing else.
    async fn ends_well(&mut self) {
        let process = self.start().await;
        self.serves_a_whole(&process).await;
        self.world.renew(false);
        let (full, incremental) = (self.world.full(), self.world.incremental());
        for name in [&incremental, &full] {
            let ask = Ask::get(format!("/{name}"));
            eventually("it is a hit", || async {
                let answer = ask.clone().send(process.address).await;
                let hit = status(&answer) == "snapedge; hit";
                assert!(!hit || self.world.is_whole(name, &answer.body), "{}", answer.head);
                hit
            })
            .await;
        }
        let pair = [&incremental, &full].map(|name| [name.clone(), format!("{name}.snapedge")]);
        assert_eq!(files(self.directory.path()), pair.concat());
        Found::check(self.directory.path(), &self.world);
    }
}

/// Waits for the moment, kills the process, and returns whether the moment came and what the
/// process said. In a thread of its own, which is faster than one that has clients to serve.
fn kill_at(
    process: Running,
    moment: Moment,
    mut changes: Changes,
    delay: Duration,
    end: &AtomicBool,
) -> (bool, String) {
    let latest = Instant::now() + LATEST;
    let mut met = moment == Moment::Serving;
    while !met && Instant::now() < latest {
        std::thread::sleep(Duration::from_micros(20));
        met = changes.met(moment);
    }
    if !delay.is_zero() {
        std::thread::sleep(delay);
    }
    end.store(true, Ordering::Release);
    (met, process.kill())
}

/// A number that the environment may give.
fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_leaves_is_never_wrong() {
    crash_and_recover("exclusive").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_leaves_that_is_killed_in_a_shared_fetch_is_never_wrong() {
    crash_and_recover("shared").await;
}

async fn crash_and_recover(sharing: &'static str) {
    let crashes = number("SNAPEDGE_CRASHES", CRASHES);
    let seed = number("SNAPEDGE_CRASH_SEED", SEED);
    println!("SNAPEDGE_CRASHES={crashes} SNAPEDGE_CRASH_SEED={seed}");
    let mut run = Run::new(seed, sharing).await;
    for (crash, moment) in (1..=crashes).zip(MOMENTS.into_iter().cycle()) {
        println!("crash {crash}: {moment:?}");
        run.crash(moment).await;
    }
    run.ends_well().await;
    println!("{}", run.tally);
    assert_eq!(run.tally.kills, crashes);
    assert!(run.tally.unfinished > 0, "no kill met a fill");
    assert!(run.tally.adopted > 0, "nothing was adopted");
    assert!(run.tally.hits.load(Ordering::Relaxed) > 0, "no client met the cache");
}
