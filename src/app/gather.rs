//! How the process is at one time: what each part says, put together.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::cache::Contents;
use crate::clock::Now;
use crate::config::{Config, Limits};
use crate::index::{Generation, GroupView, Source, TargetId, View};
use crate::metrics::{LimitName, SourceClass};
use crate::proxy::Transfer;
use crate::published::Published;
use crate::scrape::{Nature, ProbeState, ReferenceSlot, TargetStates};
use crate::snapshot::ArchiveName;
use crate::status::report;
use crate::status::report::{
    Archive, Cache, Cached, Fill, Group, Limit, Pair, Target, TargetKind, TargetState,
    Traffic as Sums, Unit,
};
use crate::upstream::{Delivering, UpstreamPool};

use super::offers::Offers;
use super::reload::Reloader;

/// The parts that are looked at.
pub(super) struct Parts {
    /// Whoever replaces the configuration has all that lasts.
    pub(super) reloader: Arc<Reloader>,
    pub(super) upstreams: Arc<UpstreamPool>,
    pub(super) published: Arc<Published>,
    pub(super) reference: Arc<ReferenceSlot>,
    pub(super) states: Arc<TargetStates>,
    pub(super) started: Now,
}

/// What lies behind a status and is not told there: what metrics show besides.
#[derive(Clone, Debug, Default)]
pub(super) struct Behind {
    /// Every target, by its id.
    pub(super) probes: BTreeMap<TargetId, ProbeState>,
    pub(super) delivering: BTreeMap<TargetId, Delivering>,
}

/// What one look at the parts finds, but for history and events.
#[derive(Clone, Debug)]
pub(super) struct Looked {
    pub(super) groups: Vec<Group>,
    /// Every target, those with trouble first.
    pub(super) targets: Vec<Target>,
    pub(super) fills: Vec<Fill>,
    pub(super) cache: Option<Cache>,
    pub(super) transfers: Vec<report::Transfer>,
    pub(super) limits: Vec<Limit>,
    pub(super) traffic: Sums,
    /// Where the bytes of each transfer come from, once that is known.
    pub(super) running: Vec<SourceClass>,
    /// How long the disk of the cache has been silent, where there is one.
    pub(super) disk_silence: Option<Duration>,
    pub(super) behind: Behind,
}

/// A time as it is shown.
pub(super) fn shown(time: SystemTime) -> String {
    format!("{:.3}", jiff::Timestamp::try_from(time).unwrap_or_default())
}

/// Bytes per second.
pub(super) fn rate(bytes: u64, time: Duration) -> u64 {
    let millis = time.as_millis().max(1);
    u64::try_from(u128::from(bytes) * 1000 / millis).unwrap_or(u64::MAX)
}

impl Parts {
    pub(super) fn new(reloader: &Arc<Reloader>, upstreams: Arc<UpstreamPool>) -> Self {
        let scraper = &reloader.scraper;
        Self {
            published: scraper.published(),
            reference: scraper.reference(),
            states: scraper.states(),
            reloader: Arc::clone(reloader),
            upstreams,
            started: Now::read(),
        }
    }

    /// Looks at everything but the disk, whose contents were looked at before.
    pub(super) fn look(
        &self,
        contents: Option<&Contents>,
        offers: &mut Offers,
        now: Now,
    ) -> Looked {
        let configured = self.reloader.live.load_full();
        let (config, view) = (&configured.config, self.published.load_full());
        let probes = self.states.all();
        let delivering = self.upstreams.delivering(probes.keys(), now.instant);
        let none = Delivering::default();
        let mut targets: Vec<Target> = probes
            .iter()
            .map(|(id, state)| target(id, state, delivering.get(id).unwrap_or(&none), config, now))
            .collect();
        targets.sort_by_key(|of| (of.state, Reverse(of.failures)));
        let newest = self.reference.slot();
        let groups = config.group_names();
        offers.keep(&groups);
        let groups = groups.iter().map(|name| {
            let about = About { name, view: &view, targets: &targets };
            about.group(offers, newest, now)
        });
        let groups = groups.collect();
        let transfers = self.reloader.traffic.transfers.all();
        let traffic = Sums {
            requests: self.reloader.traffic.counts.requests(),
            sent_bytes: self.reloader.traffic.counts.sent_bytes(),
            received_bytes: self.upstreams.received(),
            ..Sums::default()
        };
        Looked {
            groups,
            fills: contents.map(fills).unwrap_or_default(),
            cache: self.reloader.store.as_ref().zip(contents).map(|(store, contents)| {
                cache(store.directory().display().to_string(), contents, now)
            }),
            transfers: transfers.iter().map(|of| transfer(of, now.instant)).collect(),
            limits: self.limits(&config.limits, &delivering),
            disk_silence: None,
            running: transfers
                .iter()
                .filter_map(|of| of.answer().map(|answer| answer.source))
                .collect(),
            traffic,
            targets,
            behind: Behind { probes, delivering },
        }
    }

    fn limits(&self, limits: &Limits, delivering: &BTreeMap<TargetId, Delivering>) -> Vec<Limit> {
        let running = self.reloader.proxy.running();
        let busiest = delivering.values().map(|of| of.transfers).max().unwrap_or(0);
        let (open, most_of_one) = self.reloader.listener.places().used();
        let bounds = [
            (LimitName::Transfers, running.all, limits.max_transfers),
            (LimitName::ClientTransfers, running.most_of_one, limits.per_client_transfers),
            (LimitName::Targets, busiest, limits.per_target),
            (LimitName::Connections, open, limits.max_connections),
            (LimitName::ClientConnections, most_of_one, limits.per_client_connections),
        ];
        let limit = |(name, used, limit): (LimitName, usize, usize)| Limit {
            name: name.as_str().to_owned(),
            used: used as u64,
            limit: limit as u64,
            unit: Unit::Count,
            refused: self.reloader.traffic.counts.refusals(name),
        };
        let mut all: Vec<Limit> = bounds.into_iter().map(limit).collect();
        // How much of the rate is used is measured over several looks.
        all.extend(limits.total_rate.map(|rate| Limit {
            name: LimitName::Rate.as_str().to_owned(),
            used: 0,
            limit: rate,
            unit: Unit::BytesPerSecond,
            refused: self.reloader.traffic.counts.refusals(LimitName::Rate),
        }));
        all
    }

    /// When the certificates end that targets are shown, in seconds since 1970, by group.
    pub(super) fn certificates(&self) -> BTreeMap<Arc<str>, i64> {
        let mut ends = BTreeMap::new();
        for group in &self.reloader.live.load().config.groups {
            if let Some(end) = group.tls.expires() {
                let first = ends.entry(Arc::clone(&group.name)).or_insert(end);
                *first = end.min(*first);
            }
        }
        ends
    }
}

/// What one group is told of by.
struct About<'a> {
    name: &'a Arc<str>,
    view: &'a View,
    targets: &'a [Target],
}

impl About<'_> {
    fn group(&self, offers: &mut Offers, cluster: Option<u64>, now: Now) -> Group {
        let none = GroupView::default();
        let view = self.view.group(self.name).unwrap_or(&none);
        let own = || self.targets.iter().filter(|target| *target.group == **self.name);
        // Not what any target claims: only what others support is ever wanted.
        let known = view.wanted.map(|wanted| wanted.tip().slot().0);
        let newest = view.best.map(|best| best.tip());
        let since = offers.note(self.name, view.best, now);
        let made = newest.map(|name| self.made(&name, since.seen));
        let seconds =
            |time: SystemTime| now.wall.duration_since(time).unwrap_or_default().as_secs_f64();
        Group {
            name: self.name.to_string(),
            offered: view.best.map(|best| self.pair(best)),
            wanted: view.wanted.filter(|_| view.wanted != view.best).map(|next| self.pair(next)),
            age_slots: newest
                .zip(cluster.or(known))
                .map(|(name, newest)| newest.saturating_sub(name.slot().0)),
            age_seconds: made.map(seconds),
            unchanged_seconds: since.changed.map(seconds),
            targets: own().count(),
            targets_up: own().filter(|target| answers(target)).count(),
            conflicts: view.conflicts.len(),
        }
    }

    /// When an archive was made, as the target in the middle of those of the group says, of which
    /// some may have another clock; or when it was seen first.
    fn made(&self, name: &ArchiveName, seen: SystemTime) -> SystemTime {
        let own = |source: &&Arc<Source>| source.target.group == *self.name;
        let sources = self.view.sources(name).iter().filter(own);
        let mut times: Vec<_> = sources.filter_map(|source| source.listed.modified).collect();
        times.sort_unstable();
        times.get(times.len().saturating_sub(1) / 2).copied().unwrap_or(seen)
    }

    fn pair(&self, of: Generation) -> Pair {
        let archive = |name: &ArchiveName| {
            let own = |source: &&Arc<Source>| source.target.group == *self.name;
            let sources: Vec<_> = self.view.sources(name).iter().filter(own).collect();
            Archive {
                name: name.to_string(),
                slot: name.slot().0,
                size: sources.first().and_then(|source| self.view.told(source).size),
                cached: self.view.is_cached(name, Some(self.name)),
                sources: sources.len(),
            }
        };
        Pair { full: archive(&of.full), incremental: of.incremental.as_ref().map(archive) }
    }
}

/// Whether a target answered its last probe and lists archives.
pub(super) fn answers(target: &Target) -> bool {
    matches!(target.state, TargetState::Up | TargetState::Ejected)
}

fn target(
    id: &TargetId,
    probe: &ProbeState,
    carried: &Delivering,
    config: &Config,
    now: Now,
) -> Target {
    let ejected = carried.ejected_until;
    let state = if probe.failures >= config.limits.probe_failures {
        TargetState::Down
    } else if probe.failures > 0 {
        if probe.answered.is_some() { TargetState::Failing } else { TargetState::Down }
    } else if probe.probes == 0 {
        TargetState::Unknown
    } else if probe.archives == 0 {
        TargetState::Empty
    } else if ejected.is_some() {
        TargetState::Ejected
    } else {
        TargetState::Up
    };
    let reason = match state {
        TargetState::Ejected => Some("transfers from it failed".to_owned()),
        _ => probe.reason.clone(),
    };
    let until = |until: Instant| shown(now.wall + until.saturating_duration_since(now.instant));
    Target {
        group: id.group.to_string(),
        target: id.authority.to_string(),
        kind: match probe.nature {
            Nature::Unknown => TargetKind::Unknown,
            Nature::Node => TargetKind::Rpc,
            Nature::Sidecar => TargetKind::Sidecar,
            Nature::Ledger => TargetKind::Ledger,
        },
        state,
        reason,
        answered_seconds_ago: probe
            .answered
            .map(|at| now.instant.saturating_duration_since(at).as_secs_f64()),
        probe_seconds: probe.took.map(|took| took.as_secs_f64()),
        failures: probe.failures,
        archives: probe.archives,
        slot: probe.slot.map(|slot| slot.0),
        ejected_until: ejected.map(until),
        rate: carried.rate,
        transfers: carried.transfers,
        received_bytes: carried.received,
    }
}

fn fills(contents: &Contents) -> Vec<Fill> {
    let mut fills: Vec<Fill> = contents
        .fills
        .iter()
        .map(|fill| {
            let left = fill.length.map(|length| length.saturating_sub(fill.received));
            let seconds_left = left.zip(fill.rate.filter(|rate| *rate > 0)).map(|(left, rate)| {
                Duration::from_millis(left.saturating_mul(1000) / rate).as_secs_f64()
            });
            Fill {
                name: fill.name.to_string(),
                group: fill.target.group.to_string(),
                source: fill.target.authority.to_string(),
                received: fill.received,
                length: fill.length,
                rate: fill.rate,
                seconds_left,
                seconds: fill.age.as_secs_f64(),
                readers: fill.readers,
            }
        })
        .collect();
    fills.sort_by(|one, other| other.seconds.total_cmp(&one.seconds));
    fills
}

fn cache(directory: String, contents: &Contents, now: Now) -> Cache {
    let archive = |archive: &crate::cache::WholeArchive| Cached {
        name: archive.name.to_string(),
        group: archive.target.group.to_string(),
        source: archive.target.authority.to_string(),
        size: archive.size,
        age_seconds: now.wall.duration_since(archive.sealed).unwrap_or_default().as_secs_f64(),
        readers: archive.readers,
        offered: archive.offered,
        lease_seconds: archive.lease.map(|lease| lease.as_secs_f64()),
    };
    let sum = |bytes: &mut dyn Iterator<Item = u64>| bytes.fold(0, u64::saturating_add);
    Cache {
        directory,
        used_bytes: sum(&mut contents.whole.iter().map(|archive| archive.size)),
        reserved_bytes: sum(&mut contents.fills.iter().map(|fill| fill.reserved)),
        free_bytes: contents.free,
        max_bytes: contents.max_size,
        min_free_bytes: contents.min_free,
        archives: contents.whole.iter().map(archive).collect(),
    }
}

fn transfer(of: &Transfer, now: Instant) -> report::Transfer {
    let (sent, time) = (of.sent(), now.saturating_duration_since(of.began));
    let source = of.answer().map(|answer| match answer.source {
        SourceClass::Cache => "cache".to_owned(),
        _ => answer.target.to_string(),
    });
    report::Transfer {
        request_id: of.request_id(),
        client: of.client.to_string(),
        name: of.name.to_string(),
        source: source.unwrap_or_default(),
        sent,
        length: of.answer().and_then(|answer| answer.length),
        rate: rate(sent, time),
        seconds: time.as_secs_f64(),
    }
}
