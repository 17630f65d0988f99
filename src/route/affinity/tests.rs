//! What follows for one address from what it was given.

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use super::*;
use crate::index::TargetId;
use crate::route::{Asked, ByteRange, RangeRequest};
use proptest::prelude::*;

const SIZE: usize = 100;
const LENGTH: u64 = SIZE as u64;
const MEMORY: Duration = Duration::from_secs(600);

fn given(copy: char) -> Arc<PinnedCopy> {
    let authority = format!("{copy}:1");
    let target = TargetId { group: "g".into(), authority: authority.as_str().into() };
    Arc::new(PinnedCopy { copy: CopyId::new(&authority, LENGTH, None), target })
}

/// What became of an answer, as a test says it.
#[derive(Debug)]
struct Told(Mutex<Arrival>);

impl Receipt for Told {
    fn arrival(&self) -> Arrival {
        *self.0.lock().expect("not poisoned")
    }
}

fn told(arrival: Arrival) -> Arc<Told> {
    Arc::new(Told(Mutex::new(arrival)))
}

/// The files of one address, at a time that goes on.
struct Scene {
    files: Files,
    now: Instant,
}

impl Scene {
    fn new() -> Self {
        Self { files: Files::default(), now: Instant::now() }
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.files.settle(MEMORY, self.now);
    }

    fn begin(&mut self, range: &str, copy: char) -> Result<Arc<AtomicU64>, Conflict> {
        let range = RangeRequest::parse(range);
        let portion = Portion::of(&range);
        let asked = Asked { range, ..Asked::all(http::Method::GET) };
        let part = Part::of_file(given(copy), LENGTH, &asked);
        self.files.begin(Some(portion), part, self.now)
    }

    /// An answer of which so many bytes are handed over: all of it, or it breaks off.
    fn give(&mut self, range: &str, copy: char, bytes: u64) {
        let progress = self.begin(range, copy).expect("that copy");
        self.hand_over(&progress, bytes);
    }

    fn hand_over(&mut self, progress: &Arc<AtomicU64>, bytes: u64) {
        progress.store(bytes, Ordering::Relaxed);
        let running = self.files.begun.iter().flat_map(|file| &file.running);
        let mut running = running.filter(|running| Arc::ptr_eq(&running.progress, progress));
        let is_all = running.next().is_some_and(Running::has_handed_over_all);
        self.end(progress, is_all.then(|| told(Arrival::Taken)));
    }

    fn end(&mut self, progress: &Arc<AtomicU64>, arrival: Option<Arc<Told>>) {
        let receipt = arrival.map(|told| told as Arc<dyn Receipt>);
        self.files.end(progress, receipt, self.now);
        self.files.settle(MEMORY, self.now);
    }

    /// To which copy a request is bound: `a`, `b`, nothing (`-`), or to several (`!`). What is only
    /// preferred binds nothing.
    fn bound(&mut self, range: &str) -> char {
        let portion = Portion::of(&RangeRequest::parse(range));
        match self.files.affinity(Some(portion), |_| false, self.now) {
            Affinity::Fresh | Affinity::Announced(_) => '-',
            Affinity::Torn => '!',
            Affinity::Pinned(found) => {
                ['a', 'b'].into_iter().find(|copy| given(*copy) == found).expect("one of two")
            }
            other @ Affinity::Condition(_) => panic!("{other:?}"),
        }
    }

    /// The same for several requests.
    #[track_caller]
    fn check(&mut self, rows: &[(&str, char)]) {
        for (range, expected) in rows {
            assert_eq!(self.bound(range), *expected, "{range}: {:?}", self.files);
        }
    }
}

#[test]
fn where_an_answer_begins() {
    let from = |first, bounded| Portion::From { first, bounded };
    for (range, expected) in [
        ("", Portion::Start { bounded: false }),
        ("bytes=0-", Portion::Start { bounded: false }),
        ("bytes=0-9", Portion::Start { bounded: true }),
        ("bytes=5-", from(5, false)),
        ("bytes=5-9", from(5, true)),
        ("bytes=-5", Portion::Suffix(5)),
        ("bytes=-5,9-", from(9, true)),
        ("bytes=7-9,0-1", Portion::Start { bounded: true }),
        ("bytes=-5,-7", Portion::Suffix(5)),
    ] {
        assert_eq!(Portion::of(&RangeRequest::parse(range)), expected, "{range}");
    }
}

#[test]
fn who_has_a_part_gets_the_rest_of_it() {
    let mut scene = Scene::new();
    scene.check(&[("", '-'), ("bytes=5-", '-'), ("bytes=0-9", '-')]);
    scene.give("", 'a', 50);
    scene.check(&[("bytes=50-", 'a'), ("bytes=40-", 'a'), ("bytes=70-79", 'a'), ("bytes=-5", 'a')]);
    // Who asks for the first byte again begins anew.
    scene.check(&[("", '-'), ("bytes=0-", '-'), ("bytes=0-9", '-')]);
    let other = scene.begin("bytes=50-", 'b').expect_err("another copy");
    assert_eq!(other, Conflict::Other(given('a')));
    scene.wait(599);
    scene.check(&[("bytes=50-", 'a')]);
    scene.wait(1);
    scene.check(&[("bytes=50-", '-')]);
    assert!(scene.files.settle(MEMORY, scene.now), "nothing is left");
}

#[test]
fn what_is_all_there_binds_nobody() {
    let mut scene = Scene::new();
    scene.give("", 'a', LENGTH);
    scene.check(&[("bytes=50-", '-'), ("bytes=1-1", '-')]);
    scene.give("", 'a', 60);
    // Forty of those sixty are what it has.
    scene.give("bytes=40-", 'a', 30);
    scene.check(&[("bytes=70-", 'a')]);
    scene.give("bytes=70-", 'a', 30);
    scene.check(&[("bytes=70-", '-')]);
    for start in [20, 60, 0, 80, 40] {
        scene.give(&format!("bytes={start}-{}", start + 19), 'a', 20);
    }
    scene.check(&[("bytes=1-", '-')]);
    scene.give("bytes=0-49,60-99", 'a', 90);
    scene.check(&[("bytes=70-", 'a')]);
    scene.give("bytes=50-59", 'a', 10);
    scene.check(&[("bytes=70-", '-')]);
}

#[test]
fn who_got_nothing_is_bound_to_nothing() {
    let mut scene = Scene::new();
    scene.give("bytes=5-", 'a', 0);
    scene.check(&[("bytes=5-", '-')]);
    scene.give("", 'a', 50);
    scene.give("", 'b', 0);
    scene.check(&[("bytes=50-", 'a'), ("bytes=90-", 'a')]);
    scene.files.announce(given('b'), scene.now);
    scene.check(&[("bytes=50-", 'a')]);
    let portion = |range: &str| Some(Portion::of(&RangeRequest::parse(range)));
    let mut told = Files::default();
    told.announce(given('b'), scene.now);
    for range in ["", "bytes=0-9", "bytes=50-"] {
        let affinity = told.affinity(portion(range), |_| false, scene.now);
        assert_eq!(affinity, Affinity::Announced(given('b')), "{range}");
    }
    assert!(told.settle(MEMORY, scene.now + MEMORY));
}

#[test]
fn the_last_bytes_count_once_the_client_has_them() {
    let mut scene = Scene::new();
    let arrival = told(Arrival::OnTheWay);
    let progress = scene.begin("", 'a').expect("nothing else");
    progress.store(LENGTH, Ordering::Relaxed);
    scene.end(&progress, Some(Arc::clone(&arrival)));
    scene.check(&[("bytes=50-", 'a')]);
    *arrival.0.lock().expect("not poisoned") = Arrival::There;
    scene.wait(1);
    scene.check(&[("bytes=50-", '-')]);
    *arrival.0.lock().expect("not poisoned") = Arrival::Lost;
    scene.wait(1);
    scene.check(&[("bytes=50-", 'a')]);
    // It says itself what it has.
    scene.give("bytes=50-", 'a', 20);
    scene.check(&[("bytes=70-", 'a')]);
    let progress = scene.begin("bytes=70-", 'a').expect("the same");
    progress.store(30, Ordering::Relaxed);
    scene.end(&progress, Some(told(Arrival::Taken)));
    scene.check(&[("bytes=70-", '-')]);
}

#[test]
fn the_first_part_decides_for_those_beside_it() {
    let mut scene = Scene::new();
    let first = scene.begin("bytes=20-39", 'a').expect("nothing else");
    for range in ["bytes=40-59", "bytes=60-", "", "bytes=0-", "bytes=0-19"] {
        assert_eq!(scene.begin(range, 'b').expect_err(range), Conflict::Other(given('a')));
    }
    let second = scene.begin("bytes=0-19", 'a').expect("the same");
    scene.end(&first, None);
    // What is under way is the beginning of the file.
    scene.check(&[("", 'a'), ("bytes=40-", 'a')]);
    scene.end(&second, None);
    scene.check(&[("", '-'), ("bytes=40-", '-')]);
}

#[test]
fn the_first_of_scattered_parts_is_held_to_their_copy_for_a_minute() {
    let mut scene = Scene::new();
    scene.give("bytes=0-19", 'a', 12);
    scene.check(&[("bytes=0-19", '-')]);
    scene.give("bytes=20-39", 'a', 12);
    scene.check(&[("bytes=0-19", 'a'), ("", '-'), ("bytes=0-", '-')]);
    scene.files.miss(scene.now);
    scene.wait(59);
    scene.files.miss(scene.now);
    scene.check(&[("bytes=0-19", 'a'), ("bytes=12-19", 'a')]);
    scene.wait(1);
    scene.check(&[("bytes=0-19", '-'), ("bytes=12-19", 'a')]);
    // An answer of the copy shows that it is back.
    scene.give("bytes=12-19", 'a', 4);
    scene.check(&[("bytes=0-19", 'a')]);
}

#[test]
fn all_of_it_waits_a_minute_for_the_copy_of_parts_that_are_under_way() {
    let mut scene = Scene::new();
    scene.give("", 'a', 50);
    let _slow = scene.begin("bytes=50-", 'a').expect("the same");
    scene.check(&[("", 'a'), ("bytes=0-9", 'a')]);
    scene.files.miss(scene.now);
    scene.wait(60);
    scene.check(&[("", '-'), ("bytes=0-9", '-'), ("bytes=60-", 'a')]);
}

/// One address with two programs: the first got half of a copy, the second begins anew.
#[test]
fn two_behind_one_address_go_on_with_what_each_of_them_has() {
    let mut scene = Scene::new();
    scene.give("", 'a', 50);
    let second = scene.begin("", 'b').expect("a new start");
    second.store(30, Ordering::Relaxed);
    scene.check(&[("bytes=50-", 'a'), ("bytes=30-", 'b'), ("bytes=80-89", 'b')]);
    // Parts of the second, or the first's?
    scene.check(&[("bytes=40-49", '!'), ("bytes=50-59", '!')]);
    scene.end(&second, None);
    scene.check(&[("bytes=50-", 'a'), ("bytes=30-", 'b'), ("bytes=25-", 'b'), ("", '-')]);
    scene.give("bytes=30-", 'b', 25);
    // The first one where it ended, or the second, which lacks some of its last bytes?
    scene.check(&[("bytes=50-", '!'), ("bytes=55-", 'b')]);
    scene.give("bytes=55-", 'b', 45);
    // The second has all of it. What is left is for the first.
    scene.check(&[("bytes=50-", 'a'), ("bytes=40-49", 'a'), ("bytes=60-", '-')]);
}

#[test]
fn many_behind_one_address_are_told_apart() {
    let mut scene = Scene::new();
    for copy in ['a', 'b'] {
        for bytes in [10, 20] {
            scene.give("", copy, bytes + if copy == 'b' { 5 } else { 0 });
        }
    }
    scene.check(&[("bytes=10-", '!'), ("bytes=15-", 'b'), ("bytes=20-", '!'), ("bytes=25-", 'b')]);
    for _ in 0..2 * MAX_FILES {
        scene.give("", 'a', 30);
    }
    assert!(scene.files.begun.len() <= MAX_FILES);
    // Of those of one copy that were made one, nobody knows any more where each of them ended.
    scene.check(&[("bytes=25-", '!'), ("bytes=30-", 'a')]);
}

#[test]
fn who_names_a_copy_is_not_asked_what_it_has() {
    let mut scene = Scene::new();
    scene.give("", 'a', 50);
    let is_b = |copy| copy == given('b').copy;
    assert_eq!(scene.files.affinity(None, is_b, scene.now), Affinity::Condition(None));
    let part = Part {
        given: given('b'),
        length: Some(LENGTH),
        ranges: vec![ByteRange::new(50, 60).expect("bytes")],
    };
    let progress = scene.files.begin(None, part, scene.now).expect("it is named");
    progress.store(10, Ordering::Relaxed);
    scene.end(&progress, None);
    let named = scene.files.affinity(None, is_b, scene.now);
    assert_eq!(named, Affinity::Condition(Some(given('b'))));
    // And others at its address go on with what they have.
    scene.check(&[("bytes=50-", 'a'), ("bytes=80-", 'a')]);
}

#[test]
fn a_part_elsewhere_does_not_mend_what_broke_off() {
    let mut scene = Scene::new();
    scene.give("", 'a', 65);
    scene.give("", 'b', 69);
    // The younger one may lack its last bytes, so that it may be the one.
    scene.check(&[("bytes=65-", '!'), ("bytes=69-", 'b')]);
    scene.give("bytes=80-89", 'b', 10);
    scene.check(&[("bytes=65-", '!'), ("bytes=69-", 'b')]);
    // Until somebody has gone on from there.
    scene.give("bytes=69-", 'b', 31);
    scene.check(&[("bytes=65-", 'a')]);
}

#[test]
fn a_file_that_may_be_thrown_away_binds_until_somebody_says_that_it_has_it() {
    // By a new start that brought nothing, or by a part that begins where an older file ends.
    for is_part in [false, true] {
        let mut scene = Scene::new();
        scene.give("", 'a', 90);
        if is_part {
            scene.give("", 'b', 100);
        } else {
            scene.give("", 'b', 0);
        }
        scene.give("bytes=90-99", 'a', 10);
        scene.check(&[("bytes=10-19", 'a'), ("bytes=90-", 'a')]);
        scene.give("bytes=90-", 'a', 10);
        scene.check(&[("bytes=10-19", '-')]);
    }
}

#[test]
fn of_two_files_of_one_copy_either_may_have_what_comes() {
    let mut scene = Scene::new();
    scene.give("bytes=10-19", 'b', 6);
    scene.give("", 'a', 54);
    scene.give("", 'b', 20);
    scene.give("bytes=16-", 'b', 7);
    scene.check(&[("bytes=22-", 'b'), ("bytes=20-", 'b'), ("bytes=23-", 'b')]);
}

/// What one client does: it asks for parts of one file, and may begin it anew.
#[derive(Clone, Debug)]
enum Event {
    /// All of it, from the first byte on; what was there before is thrown away.
    Anew {
        copy: bool,
        bytes: u64,
    },
    /// Goes on after the first bytes that it has.
    Resume {
        copy: bool,
        lost: u64,
        bytes: u64,
    },
    /// Parts side by side, each of another copy where that may be.
    Beside(Vec<(u64, bool, u64)>),
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let bytes = || prop_oneof![0..=LENGTH, Just(LENGTH)];
    prop_oneof![
        (any::<bool>(), bytes()).prop_map(|(copy, bytes)| Event::Anew { copy, bytes }),
        (any::<bool>(), 0_u64..9, bytes()).prop_map(|(copy, lost, bytes)| Event::Resume {
            copy,
            lost,
            bytes
        }),
        prop::collection::vec((0_u64..10, any::<bool>(), 0_u64..=10), 1..6).prop_map(Event::Beside),
        (0_u64..300).prop_map(Event::Wait),
    ]
}

fn at(position: u64) -> usize {
    usize::try_from(position).expect("small")
}

/// A program that assembles a file, byte by byte.
struct Program {
    scene: Scene,
    file: [Option<char>; SIZE],
    /// Since when no byte came.
    last: Instant,
}

impl Program {
    /// Asks for bytes, and is given them of the copy that `prefers` says where nothing binds it.
    fn ask(&mut self, range: &str, prefers: bool) -> Option<(Arc<AtomicU64>, char)> {
        let free = if prefers { 'a' } else { 'b' };
        let copy = match self.scene.bound(range) {
            '-' => free,
            '!' => return None,
            copy => copy,
        };
        self.scene.begin(range, copy).ok().map(|progress| (progress, copy))
    }

    fn take(&mut self, progress: &Arc<AtomicU64>, copy: char, start: u64, bytes: u64) {
        let end = (start + bytes).min(LENGTH);
        self.file[at(start)..at(end)].fill(Some(copy));
        self.scene.hand_over(progress, end - start);
        if bytes > 0 {
            self.last = self.scene.now;
        }
    }

    fn do_next(&mut self, event: Event) {
        match event {
            Event::Wait(seconds) => self.scene.wait(seconds),
            Event::Anew { copy, bytes } => {
                if let Some((progress, copy)) = self.ask("", copy) {
                    self.file = [None; SIZE];
                    self.take(&progress, copy, 0, bytes);
                }
            }
            Event::Resume { copy, lost, bytes } => {
                let has = self.file.iter().take_while(|byte| byte.is_some()).count() as u64;
                let start = has.saturating_sub(lost);
                if start > 0 && start < LENGTH {
                    self.file[at(start)..].fill(None);
                    if let Some((progress, copy)) = self.ask(&format!("bytes={start}-"), copy) {
                        self.take(&progress, copy, start, bytes);
                    }
                }
            }
            Event::Beside(parts) => {
                let missing = |(part, ..): &(u64, bool, u64)| self.file[at(*part) * 10].is_none();
                // The first part of a file is a new start, and is asked for before all others.
                let parts: Vec<_> =
                    parts.into_iter().filter(missing).filter(|part| part.0 > 0).collect();
                let begun: Vec<_> = parts
                    .into_iter()
                    .filter_map(|(part, copy, bytes)| {
                        let start = part * 10;
                        let asked = self.ask(&format!("bytes={start}-{}", start + 9), copy)?;
                        Some((start, asked, bytes))
                    })
                    .collect();
                for (start, (progress, copy), bytes) in begun {
                    self.take(&progress, copy, start, bytes);
                }
            }
        }
    }
}

proptest! {
    /// Whatever one client does, all bytes of its file are of one copy, as long as it goes on
    /// within the memory.
    #[test]
    fn no_file_is_of_two_copies(events in prop::collection::vec(event(), 1..30)) {
        let scene = Scene::new();
        let last = scene.now;
        let mut program = Program { scene, file: [None; SIZE], last };
        for event in events {
            program.do_next(event);
            if program.scene.now.duration_since(program.last) >= MEMORY {
                // Whoever goes on after that is on its own.
                program.file = [None; SIZE];
            }
            let mut copies: Vec<char> = program.file.iter().flatten().copied().collect();
            copies.dedup();
            copies.sort_unstable();
            copies.dedup();
            prop_assert!(copies.len() <= 1, "{:?}", program.file);
            if program.file.iter().all(Option::is_some) {
                // It is done, and begins another file.
                program.file = [None; SIZE];
            }
        }
    }
}
