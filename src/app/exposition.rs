//! The metrics in the text format of Prometheus: what requests counted, what the last look at the
//! process saw, and the process itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounterVec, Opts, Registry, TextEncoder};

use super::gather::{Parts, answers};
use super::observer::{Observer, Seen};
use crate::access::Fault;
use crate::logging;
use crate::metrics::{self as m, Definition, SourceClass, Type};
use crate::scrape::SourceKind;
use crate::snapshot::ArchiveName;
use crate::status::report::{Fill, Status, Target, TargetState};

/// The media type of the text format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics that are made for one answer.
struct Made(Registry);

impl Made {
    /// Adds a metric of which each sample is a value with its labels. Without samples it is left
    /// out.
    fn put<'a, V: AsRef<[&'a str]>>(
        &self,
        of: &Definition,
        samples: impl IntoIterator<Item = (V, f64)>,
    ) -> prometheus::Result<()> {
        let options = Opts::new(of.name, of.help);
        if of.kind == Type::Counter {
            let counters = IntCounterVec::new(options, of.labels)?;
            for (labels, value) in samples {
                // Counts, which are whole and not below zero.
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                counters.get_metric_with_label_values(labels.as_ref())?.inc_by(value as u64);
            }
            return self.0.register(Box::new(counters));
        }
        let gauges = GaugeVec::new(options, of.labels)?;
        for (labels, value) in samples {
            gauges.get_metric_with_label_values(labels.as_ref())?.set(value);
        }
        self.0.register(Box::new(gauges))
    }

    fn one(&self, of: &Definition, value: impl Into<Option<f64>>) -> prometheus::Result<()> {
        self.put(of, value.into().map(|value| ([], value)))
    }
}

/// Seconds since 1970 as a sample.
#[allow(clippy::cast_precision_loss)]
fn seconds(since: i64) -> f64 {
    since as f64
}

/// A count as a sample. Above 2^53 it is a little less exact.
#[allow(clippy::cast_precision_loss)]
fn float(count: u64) -> f64 {
    count as f64
}

fn size(count: usize) -> f64 {
    float(count as u64)
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

fn kind_of(name: &str) -> &'static str {
    match name.parse::<ArchiveName>() {
        Ok(name) if name.is_full() => "full",
        _ => "incremental",
    }
}

impl Observer {
    /// All metrics. An error is a fault of this program.
    pub fn exposition(&self) -> prometheus::Result<String> {
        let parts = self.parts();
        let mut families = parts.reloader.traffic.counts.registry().gather();
        let made = Made(Registry::new());
        process(&made, parts)?;
        if let Some(seen) = self.seen() {
            groups(&made, &seen.status)?;
            limits(&made, &seen.status)?;
            targets(&made, &seen)?;
            fills(&made, &seen.status.fills)?;
            cache(&made, parts, &seen.status)?;
            let silence = seen.looked.disk_silence.map(|silence| silence.as_secs_f64());
            made.one(&m::CACHE_SILENT, silence)?;
            transfers(&made, &seen)?;
        }
        sources(&made, parts)?;
        made.0.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        families.extend(made.0.gather());
        families.sort_by(|one, other| name(one).cmp(name(other)));
        TextEncoder::new().encode_to_string(&families)
    }
}

fn name(family: &MetricFamily) -> &str {
    family.name()
}

fn process(made: &Made, parts: &Parts) -> prometheus::Result<()> {
    made.put(&m::BUILD_INFO, [([env!("CARGO_PKG_VERSION")], 1.0)])?;
    let draining = parts.reloader.drain.is_begun();
    made.one(&m::READY, flag(parts.published.is_ready() && !draining))?;
    made.one(&m::DRAINING, flag(draining))?;
    let reloads = &parts.reloader.counts;
    let counts = [(["taken"], float(reloads.taken())), (["failed"], float(reloads.failed()))];
    made.put(&m::RELOADS, counts)?;
    made.one(&m::RELOAD_SUCCESSFUL, flag(reloads.last_error().is_none()))?;
    let since = reloads.since().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    made.one(&m::RELOAD_SUCCESS_TIME, since.as_secs_f64())?;
    let (access, own) = (parts.reloader.traffic.log.dropped(), logging::dropped());
    made.put(&m::LOG_DROPPED, [(["access"], float(access)), (["process"], float(own))])
}

fn groups(made: &Made, status: &Status) -> prometheus::Result<()> {
    let groups = &status.groups;
    let slots = groups.iter().flat_map(|group| {
        let pair = group.offered.iter();
        pair.flat_map(move |pair| {
            let full = [(&*group.name, "full", &pair.full)];
            let rest = pair.incremental.iter().map(|of| (&*group.name, "incremental", of));
            full.into_iter().chain(rest)
        })
    });
    made.put(
        &m::OFFERED_SLOT,
        slots.map(|(group, kind, archive)| ([group, kind], float(archive.slot))),
    )?;
    let of_each = |value: fn(&crate::status::report::Group) -> Option<f64>| {
        let sample =
            move |group| Some(([&*(group as &crate::status::report::Group).name], value(group)?));
        groups.iter().filter_map(sample).collect::<Vec<_>>()
    };
    made.put(&m::OFFERED_AGE_SLOTS, of_each(|group| group.age_slots.map(float)))?;
    made.put(&m::OFFERED_AGE, of_each(|group| group.age_seconds))?;
    made.put(&m::OFFERED_UNCHANGED, of_each(|group| group.unchanged_seconds))?;
    made.put(&m::CONFLICTS, of_each(|group| Some(size(group.conflicts))))?;
    made.one(&m::CLUSTER_SLOT, status.cluster_slot.map(float))
}

fn limits(made: &Made, status: &Status) -> prometheus::Result<()> {
    let of_each = |value: fn(&crate::status::report::Limit) -> u64| {
        let sample =
            move |limit| ([&*(limit as &crate::status::report::Limit).name], float(value(limit)));
        status.limits.iter().map(sample).collect::<Vec<_>>()
    };
    made.put(&m::LIMIT, of_each(|limit| limit.limit))?;
    made.put(&m::LIMIT_USED, of_each(|limit| limit.used))
}

fn state_of(state: TargetState) -> &'static str {
    match state {
        TargetState::Down => "down",
        TargetState::Failing => "failing",
        TargetState::Ejected => "ejected",
        TargetState::Empty => "empty",
        TargetState::Unknown => "unknown",
        TargetState::Up => "up",
        TargetState::Other => "other",
    }
}

const STATES: [TargetState; 6] = [
    TargetState::Down,
    TargetState::Failing,
    TargetState::Ejected,
    TargetState::Empty,
    TargetState::Unknown,
    TargetState::Up,
];

fn targets(made: &Made, Seen { status, looked, .. }: &Seen) -> prometheus::Result<()> {
    let counts = Observer::targets_by_state(looked);
    let by_state = status.groups.iter().flat_map(|group| {
        let count = |state| counts.get(&(&*group.name, state)).copied().unwrap_or(0);
        STATES.map(|state| ([&*group.name, state_of(state)], size(count(state))))
    });
    made.put(&m::TARGETS, by_state.collect::<Vec<_>>())?;
    let of_each = |value: fn(&Target) -> Option<f64>| {
        let sample = move |target| {
            let Target { group, target: name, .. } = target as &Target;
            Some(([&**group, &**name], value(target)?))
        };
        looked.targets.iter().filter_map(sample).collect::<Vec<_>>()
    };
    made.put(&m::TARGET_UP, of_each(|target| Some(flag(answers(target)))))?;
    made.put(&m::TARGET_SLOT, of_each(|target| target.slot.map(float)))?;
    made.put(&m::TARGET_PROBE_DURATION, of_each(|target| target.probe_seconds))?;
    made.put(&m::TARGET_EJECTED, of_each(|target| Some(flag(target.ejected_until.is_some()))))?;
    made.put(&m::TARGET_RATE, of_each(|target| target.rate.map(float)))?;
    made.put(&m::TARGET_TRANSFERS, of_each(|target| Some(size(target.transfers))))?;
    let probes = &looked.behind.probes;
    made.put(
        &m::TARGET_PROBES,
        probes.iter().map(|(id, state)| ([&*id.group, &*id.authority], float(state.probes))),
    )?;
    let failed = probes.iter().flat_map(|(id, state)| {
        let labels = move |cause| [&*id.group, &*id.authority, cause];
        state.failed.iter().map(move |(cause, count)| (labels(*cause), float(*count)))
    });
    made.put(&m::TARGET_PROBE_FAILURES, failed.collect::<Vec<_>>())?;
    let carried = looked.behind.delivering.iter();
    let known: Vec<_> = carried.map(|(id, of)| ([&*id.group, &*id.authority], of)).collect();
    made.put(&m::TARGET_EJECTIONS, known.iter().map(|(id, of)| (*id, float(of.ejections))))?;
    made.put(&m::TARGET_RECEIVED, known.iter().map(|(id, of)| (*id, float(of.received))))
}

fn fills(made: &Made, fills: &[Fill]) -> prometheus::Result<()> {
    let sums = |value: fn(&Fill) -> f64| {
        let mut sums: BTreeMap<[&str; 2], f64> = BTreeMap::new();
        for fill in fills {
            *sums.entry([&*fill.group, kind_of(&fill.name)]).or_default() += value(fill);
        }
        sums
    };
    made.put(&m::FILLS, sums(|_| 1.0))?;
    made.put(&m::FILL_RECEIVED, sums(|fill| float(fill.received)))?;
    made.put(&m::FILL_LENGTH, sums(|fill| float(fill.length.unwrap_or(0))))?;
    made.put(&m::FILL_RATE, sums(|fill| float(fill.rate.unwrap_or(0))))
}

fn cache(made: &Made, parts: &Parts, status: &Status) -> prometheus::Result<()> {
    if let Some(store) = &parts.reloader.store {
        let counts = store.counts();
        made.one(&m::FILLS_STARTED, float(counts.started()))?;
        made.one(&m::FILLS_PROMOTED, float(counts.promoted()))?;
        made.put(&m::FILLS_FAILED, counts.failed().map(|(why, count)| ([why], float(count))))?;
        made.put(&m::CACHE_REFUSALS, counts.refused().map(|(why, count)| ([why], float(count))))?;
    }
    let Some(cache) = &status.cache else { return Ok(()) };
    made.one(&m::CACHE_BYTES, float(cache.used_bytes))?;
    made.one(&m::CACHE_RESERVED, float(cache.reserved_bytes))?;
    made.one(&m::CACHE_FREE, cache.free_bytes.map(float))?;
    made.one(&m::CACHE_MIN_FREE, float(cache.min_free_bytes))?;
    made.one(&m::CACHE_MAX, cache.max_bytes.map(float))?;
    let leased = cache.archives.iter().filter(|archive| archive.lease_seconds.is_some());
    made.one(&m::CACHE_LEASES, size(leased.count()))?;
    let mut archives: BTreeMap<[&str; 2], f64> = BTreeMap::new();
    for archive in &cache.archives {
        *archives.entry([&*archive.group, kind_of(&archive.name)]).or_default() += 1.0;
    }
    made.put(&m::CACHE_ARCHIVES, archives)
}

fn transfers(made: &Made, seen: &Seen) -> prometheus::Result<()> {
    let mut running: BTreeMap<[&str; 1], f64> =
        SourceClass::ALL.iter().map(|source| ([source.as_str()], 0.0)).collect();
    for class in &seen.looked.running {
        *running.entry([class.as_str()]).or_default() += 1.0;
    }
    made.put(&m::TRANSFERS, running)
}

/// What is counted of the sources of targets, and of what is behind them.
fn sources(made: &Made, parts: &Parts) -> prometheus::Result<()> {
    let groups = parts.reloader.live.load().config.group_names();
    let discovery = parts.reloader.scraper.discovery();
    let of_kinds = |count: &dyn Fn(&str, SourceKind) -> u64| {
        let of =
            |group| SourceKind::ALL.map(|kind| ([group, kind.label()], float(count(group, kind))));
        groups.iter().flat_map(|group| of(&**group)).collect::<Vec<_>>()
    };
    made.put(&m::DISCOVERY_FAILURES, of_kinds(&|group, kind| discovery.failures(group, kind)))?;
    made.put(&m::DISCOVERY_OMISSIONS, of_kinds(&|group, kind| discovery.omissions(group, kind)))?;
    made.put(
        &m::LISTING_OMISSIONS,
        groups.iter().map(|group| ([&**group], float(discovery.listing_omissions(group)))),
    )?;
    let mut faults: BTreeMap<[&str; 2], f64> = BTreeMap::new();
    let accesses = parts.reloader.accesses.all();
    for access in &accesses {
        for fault in Fault::ALL {
            let count = float(access.faults.of(fault));
            *faults.entry([&**access.group(), fault.as_str()]).or_default() += count;
        }
    }
    made.put(&m::ACCESS_FAULTS, faults)?;
    let ends = parts.certificates().into_iter().map(|(group, end)| (group, seconds(end)));
    let ends: Vec<_> = ends.collect();
    made.put(&m::CERTIFICATE_EXPIRY, ends.iter().map(|(group, end)| ([&**group], *end)))?;
    let endpoints = parts.reloader.listener.endpoints();
    let shown = |(address, end): (SocketAddr, i64)| (address.to_string(), seconds(end));
    let ends: Vec<_> = endpoints.expiries().map(shown).collect();
    made.put(
        &m::LISTENER_CERTIFICATE_EXPIRY,
        ends.iter().map(|(address, end)| ([&**address], *end)),
    )?;
    let probes = parts.reloader.proxy.probes();
    made.put(
        &m::UNKNOWN_NAMES,
        [
            (["looked"], float(probes.begun())),
            (["found"], float(probes.found())),
            (["refused"], float(probes.refused())),
        ],
    )?;
    let calls = parts.reloader.proxy.calls().all();
    made.put(
        &m::RPC_CALLS,
        calls.iter().map(|(method, end, count)| ([&**method, end.as_str()], float(*count))),
    )
}
