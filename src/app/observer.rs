//! Looks at the process once a second, remembers what happened, and shows both to whoever asks:
//! nobody who asks waits for anything but that.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, timeout};

use super::gather::{Looked, Parts, rate, shown};
use super::offers::Offers;
use crate::cache::{Contents, FillEnd, Store};
use crate::clock::Now;
use crate::index::TargetId;
use crate::metrics::LimitName;
use crate::status::changes::{self, Change};
use crate::status::report::{
    Configuration, Event, EventKind, Health, Limit, Sample, Status, Target, TargetState, VERSION,
};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time of one sample of the history, and over which rates are measured; a little less than ten
/// looks take, so that the tenth is not too early.
const SAMPLE: Duration = Duration::from_millis(9_900);
/// Samples that are kept: an hour of them.
const SAMPLES: usize = 360;
/// Events that are kept.
const EVENTS: usize = 200;
/// Most events that one of a moment ago is told before.
const LATE: usize = 16;
/// Most targets, fills and transfers that are told of one by one.
const MAX_TARGETS: usize = 1000;
const MAX_TRANSFERS: usize = 100;
/// How long a look waits for the disk, before it goes on with what that said last.
const DISK_PATIENCE: Duration = Duration::from_millis(500);
/// How long the disk may be silent before that is a reason to look.
const DISK_SILENCE: Duration = Duration::from_secs(30);
/// Least time between two events about one bound.
const REFUSAL_PAUSE: Duration = Duration::from_secs(60);

/// What looks at the process, and what it saw last.
pub struct Observer {
    parts: Parts,
    seen: ArcSwapOption<Seen>,
    notes: Mutex<Notes>,
}

/// What was seen at one time.
pub(super) struct Seen {
    /// When that was.
    pub(super) at: Instant,
    pub(super) status: Status,
    pub(super) looked: Looked,
}

/// What is remembered from look to look.
#[derive(Default)]
struct Notes {
    offers: Offers,
    contents: Option<Contents>,
    /// When the disk said that, and what it is asked now.
    disk: Disk,
    /// When the last sample was taken.
    sampled: Option<Instant>,
    sums: VecDeque<(Instant, u64, u64)>,
    history: VecDeque<Sample>,
    events: VecDeque<Event>,
    fills: u64,
    reloads: (u64, u64),
    /// When refusals for each bound were told last, and how many there had been by then.
    refused: BTreeMap<String, (Instant, u64)>,
    draining: bool,
}

#[derive(Default)]
struct Disk {
    answered: Option<Instant>,
    asked: Option<JoinHandle<Contents>>,
}

impl Disk {
    /// What the store has: nothing new while the disk hangs, of which one thread waits for it.
    async fn ask(&mut self, store: &Store) -> Option<Contents> {
        let mut asked = self.asked.take().unwrap_or_else(|| {
            let store = store.clone();
            tokio::task::spawn_blocking(move || store.contents(Instant::now()))
        });
        let Ok(answer) = timeout(DISK_PATIENCE, &mut asked).await else {
            self.asked = Some(asked);
            return None;
        };
        let contents =
            answer.inspect_err(|fault| log::error!("a look at the cache ended: {fault}")).ok()?;
        self.answered = Some(Instant::now());
        Some(contents)
    }
}

impl Notes {
    fn tell(&mut self, (kind, text): Change, at: SystemTime) {
        self.insert(Event { time: shown(at), kind, text }, 0);
    }

    /// Tells of something that was a moment ago, before what came after it.
    fn tell_late(&mut self, (kind, text): Change, at: SystemTime) {
        let time = shown(at);
        let later = self.events.iter().rev().take(LATE).take_while(|event| event.time > time);
        let later = later.count();
        self.insert(Event { time, kind, text }, later);
    }

    fn insert(&mut self, event: Event, later: usize) {
        if self.events.len() >= EVENTS {
            self.events.pop_front();
        }
        self.events.insert(self.events.len().saturating_sub(later), event);
    }
}

impl Observer {
    pub(super) fn new(parts: Parts) -> Self {
        Self { parts, seen: ArcSwapOption::empty(), notes: Mutex::default() }
    }

    /// What was seen last; nothing before the first look.
    pub(super) fn seen(&self) -> Option<Arc<Seen>> {
        self.seen.load_full()
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Looks now, whatever was seen before.
    async fn look(&self) {
        let mut notes = self.notes.lock().await;
        let notes = &mut *notes;
        if let Some(store) = &self.parts.reloader.store
            && let Some(contents) = notes.disk.ask(store).await
        {
            notes.contents = Some(contents);
        }
        let now = Now::read();
        let contents = notes.contents.as_ref();
        let mut looked = self.parts.look(contents, &mut notes.offers, now);
        let asked = notes.disk.answered.unwrap_or(self.parts.started.instant);
        let silence = now.instant.saturating_duration_since(asked);
        looked.disk_silence = self.parts.reloader.store.as_ref().map(|_| silence);
        let before = self.seen.load_full();
        Self::measure(notes, &mut looked, now);
        self.note_changes(notes, before.as_deref(), &looked, now);
        let status = self.told(notes, &looked, now);
        self.seen.store(Some(Arc::new(Seen { at: now.instant, status, looked })));
    }

    /// Rates over the last ten seconds, and a sample each ten.
    fn measure(notes: &mut Notes, looked: &mut Looked, now: Now) {
        let traffic = &mut looked.traffic;
        let (sent, received) = (traffic.sent_bytes, traffic.received_bytes);
        notes.sums.push_back((now.instant, sent, received));
        let is_old =
            |(at, ..): &(Instant, u64, u64)| now.instant.saturating_duration_since(*at) > SAMPLE;
        // The first one that is left is what the sums were about ten seconds ago.
        while notes.sums.get(1).is_some_and(is_old) {
            notes.sums.pop_front();
        }
        if let Some((since, sent_then, received_then)) = notes.sums.front().copied() {
            let time = now.instant.saturating_duration_since(since);
            if !time.is_zero() {
                traffic.sent_rate = rate(sent.saturating_sub(sent_then), time);
                traffic.received_rate = rate(received.saturating_sub(received_then), time);
            }
        }
        let of_rate = |limit: &&mut Limit| limit.name == LimitName::Rate.as_str();
        if let Some(limit) = looked.limits.iter_mut().find(of_rate) {
            limit.used = traffic.sent_rate;
        }
        let is_due = |at: Instant| now.instant.saturating_duration_since(at) >= SAMPLE;
        if notes.sampled.is_none_or(is_due) {
            // Of what is missed none is made up.
            notes.sampled = Some(now.instant);
            let ages = looked.groups.iter().filter_map(|group| group.age_seconds);
            if notes.history.len() >= SAMPLES {
                notes.history.pop_front();
            }
            notes.history.push_back(Sample {
                time: now.wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
                sent_rate: traffic.sent_rate,
                received_rate: traffic.received_rate,
                age_seconds: ages.max_by(f64::total_cmp),
            });
        }
    }

    fn note_changes(&self, notes: &mut Notes, before: Option<&Seen>, looked: &Looked, now: Now) {
        let wall = now.wall;
        if before.is_none() {
            let version = env!("CARGO_PKG_VERSION");
            notes.tell((EventKind::Started, format!("snapedge {version} began.")), wall);
        }
        let old = before.map(|seen| &seen.looked);
        let groups = old.map_or(&[][..], |old| &old.groups);
        self.note_cache(notes, old, looked, now);
        let mut happened = changes::of_groups(groups, &looked.groups);
        happened.extend(changes::of_targets(old.map(|old| &*old.targets), &looked.targets));
        for limit in &looked.limits {
            let told = notes.refused.get(&limit.name).copied();
            let lately = |(at, _): &(Instant, u64)| {
                now.instant.saturating_duration_since(*at) < REFUSAL_PAUSE
            };
            let before = told.map_or(0, |(_, refused)| refused);
            if let (None, Some(change)) = (told.filter(lately), changes::of_limit(limit, before)) {
                notes.refused.insert(limit.name.clone(), (now.instant, limit.refused));
                happened.push(change);
            }
        }
        for change in happened {
            notes.tell(change, wall);
        }
        self.note_reloads(notes, wall);
        if self.parts.reloader.drain.is_begun() && !std::mem::replace(&mut notes.draining, true) {
            let text = "The process is about to end, and takes nothing new.".to_owned();
            notes.tell((EventKind::Draining, text), wall);
        }
    }

    /// What became of fills, and what left the cache.
    fn note_cache(&self, notes: &mut Notes, old: Option<&Looked>, looked: &Looked, now: Now) {
        let Some(store) = &self.parts.reloader.store else { return };
        for end in store.counts().ends_after(notes.fills) {
            notes.fills = end.number;
            notes.tell_late(ended(&end), end.at);
        }
        let before = old.and_then(|old| old.cache.as_ref());
        let (Some(before), Some(after)) = (before, &looked.cache) else { return };
        for archive in &before.archives {
            if !after.archives.iter().any(|other| other.name == archive.name) {
                let text = format!("{} left the cache.", archive.name);
                notes.tell((EventKind::Removed, text), now.wall);
            }
        }
    }

    fn note_reloads(&self, notes: &mut Notes, at: SystemTime) {
        let reloads = &self.parts.reloader.counts;
        let (taken, failed) = (reloads.taken(), reloads.failed());
        if taken > notes.reloads.0 {
            let text = "Another configuration is followed.".to_owned();
            notes.tell((EventKind::Reloaded, text), at);
        }
        if failed > notes.reloads.1 {
            let why = reloads.last_failure().unwrap_or_default();
            let text = format!("A configuration was not taken: {why}.");
            notes.tell((EventKind::ReloadFailed, text), at);
        }
        notes.reloads = (taken, failed);
    }

    fn told(&self, notes: &Notes, looked: &Looked, now: Now) -> Status {
        let Parts { started, reloader, reference, .. } = &self.parts;
        let (file, reloads) = (&reloader.file, &reloader.counts);
        let (health, reasons) = self.health(looked);
        let mut transfers: Vec<_> = looked.transfers.iter().collect();
        transfers.sort_by_key(|transfer| Reverse((transfer.length, transfer.sent)));
        transfers.truncate(MAX_TRANSFERS);
        Status {
            version: VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            now: shown(now.wall),
            started: shown(started.wall),
            uptime_seconds: now.instant.saturating_duration_since(started.instant).as_secs_f64(),
            health,
            reasons,
            configuration: Configuration {
                file: file.as_ref().map(|file| file.display().to_string()),
                since: shown(reloads.since()),
                reloads: reloads.taken(),
                reloads_failed: reloads.failed(),
                last_error: reloads.last_error(),
            },
            cluster_slot: reference.slot(),
            groups: looked.groups.clone(),
            targets: looked.targets.iter().take(MAX_TARGETS).cloned().collect(),
            targets_total: looked.targets.len(),
            fills: looked.fills.clone(),
            cache: looked.cache.clone(),
            transfers: transfers.into_iter().cloned().collect(),
            transfers_total: looked.transfers.len(),
            limits: looked.limits.clone(),
            traffic: looked.traffic,
            history: notes.history.iter().copied().collect(),
            events: notes.events.iter().rev().cloned().collect(),
        }
    }

    fn health(&self, looked: &Looked) -> (Health, Vec<String>) {
        let mut reasons = Vec::new();
        let most = self.parts.reloader.live.load().config.max_snapshot_age;
        for group in &looked.groups {
            let name = &group.name;
            if group.offered.is_none() {
                reasons.push(format!("Group {name} offers nothing."));
            } else if !looked.targets.iter().any(|target| target.group == *name && serves(target)) {
                reasons.push(format!("Group {name} has no target that is up."));
            }
            if let Some(age) = group.age_slots.filter(|age| *age > most) {
                reasons.push(format!(
                    "What group {name} offers is {age} slots old, above max_snapshot_age ({most})."
                ));
            }
        }
        if let Some(error) = self.parts.reloader.counts.last_error() {
            reasons.push(format!("The last reload was not taken: {error}."));
        }
        if looked.disk_silence.is_some_and(|silence| silence > DISK_SILENCE) {
            reasons.push("The disk of the cache does not answer.".to_owned());
        }
        if self.parts.reloader.drain.is_begun() {
            (Health::Draining, vec!["The process is about to end.".to_owned()])
        } else if !self.parts.published.is_ready() {
            (Health::Starting, vec!["The first round of probes is not over.".to_owned()])
        } else if reasons.is_empty() {
            (Health::Healthy, reasons)
        } else {
            (Health::Degraded, reasons)
        }
    }

    /// Targets by group and state.
    pub(super) fn targets_by_state(looked: &Looked) -> BTreeMap<(&str, TargetState), usize> {
        let mut counts = BTreeMap::new();
        for target in &looked.targets {
            *counts.entry((&*target.group, target.state)).or_default() += 1;
        }
        counts
    }
}

/// Whether a target's archives are offered.
fn serves(target: &Target) -> bool {
    matches!(target.state, TargetState::Up | TargetState::Ejected | TargetState::Failing)
}

/// How a fill ended.
fn ended(end: &FillEnd) -> Change {
    let FillEnd { name, target, written, failed, .. } = end;
    match failed {
        None => {
            let TargetId { group, authority } = target;
            let text = format!("{name} from target {authority} of group {group} is in the cache.");
            (EventKind::Promoted, text)
        }
        Some((cause, why)) => {
            let kind = match *cause {
                "unsound" => EventKind::Unsound,
                _ => EventKind::FillFailed,
            };
            let TargetId { group, authority } = target;
            let text = format!(
                "{name} from target {authority} of group {group} was given up after {written} \
                 bytes: {why}."
            );
            (kind, text)
        }
    }
}

#[async_trait]
impl BackgroundService for Observer {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut looks = tokio::time::interval(INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                _ = looks.tick() => {}
            }
            self.look().await;
        }
    }
}
