//! What requests count with.

use std::sync::OnceLock;
use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
};

use super::definitions::{
    CONNECTIONS_CLOSED, Definition, ENDS, FAILOVERS, FIRST_BYTE, REFUSALS, REQUESTS, SENT_BYTES,
    SOURCE_FAILURES, TRANSFER_RATE,
};
use super::labels::{
    CacheResult, ClosedReason, End, LimitName, MethodClass, RouteClass, SourceClass,
};

/// The statuses that are counted by themselves, and 0 for no answer.
const STATUSES: [u16; 30] = [
    0, 200, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 408, 410, 411, 412, 413,
    414, 415, 416, 421, 429, 431, 500, 502, 503, 504, 508,
];
/// What others are counted as.
const OTHER_STATUS: &str = "other";
/// Bytes below which an answer tells nothing of a rate: it fits the buffers of a connection.
const MEASURABLE: u64 = 1 << 20;

/// Bounds of times to the first byte, in seconds: from what is answered out of memory to the
/// patience of the most patient client.
const TIMES: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
/// Bounds of rates, in MiB per second: around the 10 that validators want at least, and up to
/// what the fastest links bring.
const RATES: [f64; 14] =
    [0.5, 1.0, 2.0, 5.0, 8.0, 10.0, 12.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// How a request ended, for those who count.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// What it asked for.
    pub route: RouteClass,
    /// By what method.
    pub method: MethodClass,
    /// Status of the answer; 0 where there was none.
    pub status: u16,
    /// What the cache had to do with it.
    pub cache: CacheResult,
    /// How it ended.
    pub end: End,
    /// Time to the head of the answer, where there was one.
    pub first_byte: Option<Duration>,
    /// Bytes of the body that went out, and how long that took after the head.
    pub body: (u64, Duration),
    /// Whether it was for a full archive, where it was for one.
    pub is_full: Option<bool>,
}

/// Counters of what requests ask for and get. Each is made before it is needed, or once.
#[derive(Debug)]
pub struct RequestCounts {
    requests: IntCounterVec,
    /// By route, method, place of the status and cache result.
    seen: Box<[OnceLock<IntCounter>]>,
    sent: Vec<IntCounter>,
    first_byte: Vec<Histogram>,
    /// By kind and source.
    rates: Vec<Histogram>,
    ends: Vec<IntCounter>,
    refusals: Vec<IntCounter>,
    closed: Vec<IntCounter>,
    source_failures: IntCounterVec,
    failovers: IntCounterVec,
    registry: Registry,
}

fn options(of: &Definition) -> Opts {
    Opts::new(of.name, of.help)
}

fn counters(registry: &Registry, of: &Definition) -> prometheus::Result<IntCounterVec> {
    let made = IntCounterVec::new(options(of), of.labels)?;
    registry.register(Box::new(made.clone()))?;
    Ok(made)
}

fn histograms(
    registry: &Registry,
    of: &Definition,
    buckets: Vec<f64>,
) -> prometheus::Result<HistogramVec> {
    let options = HistogramOpts::from(options(of)).buckets(buckets);
    let made = HistogramVec::new(options, of.labels)?;
    registry.register(Box::new(made.clone()))?;
    Ok(made)
}

impl RequestCounts {
    /// Counters at zero. An error is a mistake in the definitions.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let requests = counters(&registry, &REQUESTS)?;
        let sent = counters(&registry, &SENT_BYTES)?;
        let first_byte = histograms(&registry, &FIRST_BYTE, TIMES.to_vec())?;
        let mebibytes = |rate: f64| rate * f64::from(1 << 20);
        let rates = histograms(&registry, &TRANSFER_RATE, RATES.map(mebibytes).to_vec())?;
        let ends = counters(&registry, &ENDS)?;
        let refusals = counters(&registry, &REFUSALS)?;
        let closed = counters(&registry, &CONNECTIONS_CLOSED)?;
        let source_failures = counters(&registry, &SOURCE_FAILURES)?;
        let failovers = counters(&registry, &FAILOVERS)?;
        let routes = || RouteClass::ALL.iter().map(|route| route.as_str());
        let of_kind = |full: &'static str| {
            let rates = &rates;
            let sources = SourceClass::ALL.iter();
            sources.map(move |source| rates.with_label_values(&[full, source.as_str()]))
        };
        let size = RouteClass::ALL.len() * Self::PER_ROUTE;
        Ok(Self {
            seen: std::iter::repeat_with(OnceLock::new).take(size).collect(),
            sent: routes().map(|route| sent.with_label_values(&[route])).collect(),
            first_byte: routes().map(|route| first_byte.with_label_values(&[route])).collect(),
            rates: of_kind("incremental").chain(of_kind("full")).collect(),
            ends: End::ALL.iter().map(|end| ends.with_label_values(&[end.as_str()])).collect(),
            refusals: LimitName::ALL
                .iter()
                .map(|bound| refusals.with_label_values(&[bound.as_str()]))
                .collect(),
            closed: ClosedReason::ALL
                .iter()
                .map(|reason| closed.with_label_values(&[reason.as_str()]))
                .collect(),
            requests,
            source_failures,
            failovers,
            registry,
        })
    }

    const PER_METHOD: usize = (STATUSES.len() + 1) * CacheResult::ALL.len();
    const PER_ROUTE: usize = MethodClass::ALL.len() * Self::PER_METHOD;

    /// Where these counters are found by those who show them.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Counts a request that has ended.
    pub fn end(&self, ended: &Ended) {
        let Ended { route, method, status, cache, end, first_byte, body, is_full } = *ended;
        let at = STATUSES.iter().position(|known| *known == status);
        let place = route as usize * Self::PER_ROUTE
            + method as usize * Self::PER_METHOD
            + at.unwrap_or(STATUSES.len()) * CacheResult::ALL.len()
            + cache as usize;
        if let Some(counter) = self.seen.get(place) {
            let made = || {
                let status = at.map_or(OTHER_STATUS.to_owned(), |_| status.to_string());
                let values = [route.as_str(), method.as_str(), &status, cache.as_str()];
                self.requests.with_label_values(&values)
            };
            counter.get_or_init(made).inc();
        }
        if let Some(counter) = self.ends.get(end as usize) {
            counter.inc();
        }
        if let (Some(time), Some(histogram)) = (first_byte, self.first_byte.get(route as usize)) {
            histogram.observe(time.as_secs_f64());
        }
        let (bytes, took) = body;
        if let Some(is_full) = is_full.filter(|_| bytes >= MEASURABLE) {
            let place = usize::from(is_full) * SourceClass::ALL.len() + cache.source() as usize;
            if let Some(histogram) = self.rates.get(place) {
                histogram.observe(rate(bytes, took));
            }
        }
    }

    /// Counts bytes of bodies that went out.
    pub fn sent(&self, route: RouteClass, bytes: u64) {
        if let Some(counter) = self.sent.get(route as usize) {
            counter.inc_by(bytes);
        }
    }

    /// Counts a request or connection that was refused for a bound.
    pub fn refused(&self, bound: LimitName) {
        if let Some(counter) = self.refusals.get(bound as usize) {
            counter.inc();
        }
    }

    /// Counts a try of a target that brought no archive, or not all of it.
    pub fn source_failed(&self, cause: &'static str) {
        self.source_failures.with_label_values(&[cause]).inc();
    }

    /// Counts that a request goes on to another target for that.
    pub fn failed_over(&self, cause: &'static str) {
        self.failovers.with_label_values(&[cause]).inc();
    }

    /// Counts a connection that ended otherwise than by its client's will.
    pub fn closed(&self, reason: ClosedReason) {
        if let Some(counter) = self.closed.get(reason as usize) {
            counter.inc();
        }
    }

    /// Bytes of bodies that went out, over all requests.
    pub fn sent_bytes(&self) -> u64 {
        self.sent.iter().map(IntCounter::get).sum()
    }

    /// Requests that have ended.
    pub fn requests(&self) -> u64 {
        self.ends.iter().map(IntCounter::get).sum()
    }

    /// How often somebody was refused for a bound.
    pub fn refusals(&self, bound: LimitName) -> u64 {
        self.refusals.get(bound as usize).map_or(0, IntCounter::get)
    }
}

/// Bytes per second.
fn rate(bytes: u64, took: Duration) -> f64 {
    // Beyond 2^53 bytes it is a little less exact.
    #[allow(clippy::cast_precision_loss)]
    let bytes = bytes as f64;
    bytes / took.as_secs_f64().max(1e-6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::TextEncoder;

    fn shown(counts: &RequestCounts) -> String {
        TextEncoder::new().encode_to_string(&counts.registry().gather()).expect("text")
    }

    #[test]
    fn a_request_is_counted_by_what_it_was_and_how_it_ended() {
        let counts = RequestCounts::new().expect("good definitions");
        let ended = Ended {
            route: RouteClass::Archive,
            method: MethodClass::Get,
            status: 200,
            cache: CacheResult::Hit,
            end: End::Done,
            first_byte: Some(Duration::from_millis(2)),
            body: (20 << 20, Duration::from_secs(2)),
            is_full: Some(true),
        };
        counts.end(&ended);
        counts.end(&ended);
        counts.end(&Ended { status: 299, end: End::ClientLeft, ..ended });
        counts.sent(RouteClass::Archive, 5);
        counts.refused(LimitName::Rate);
        counts.source_failed("timeout");
        counts.source_failed("timeout");
        counts.failed_over("timeout");
        counts.closed(ClosedReason::Malformed);
        let text = shown(&counts);
        let labels = r#"{cache="hit",method="get",route="archive",status="200"}"#;
        for line in [
            &*format!("snapedge_requests_total{labels} 2"),
            r#"snapedge_ends_total{end="done"} 2"#,
            r#"snapedge_ends_total{end="client_left"} 1"#,
            r#"snapedge_sent_bytes_total{route="archive"} 5"#,
            r#"snapedge_refusals_total{limit="total_rate"} 1"#,
            r#"snapedge_source_failures_total{cause="timeout"} 2"#,
            r#"snapedge_failovers_total{cause="timeout"} 1"#,
            r#"snapedge_connections_closed_total{reason="malformed"} 1"#,
            r#"snapedge_first_byte_seconds_bucket{route="archive",le="0.0025"} 3"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        // Exactly what validators want at least is in the bucket that ends with that.
        let at = |kind, bound, count| {
            let name = "snapedge_transfer_rate_bytes_per_second_bucket";
            format!("{name}{{kind=\"{kind}\",source=\"cache\",le=\"{bound}\"}} {count}")
        };
        assert!(text.contains(&at("full", 10 << 20, 3)), "{text}");
        assert!(text.contains(&at("full", 8 << 20, 0)), "{text}");
        assert!(text.contains(&at("incremental", 10 << 20, 0)), "{text}");
        assert_eq!((counts.requests(), counts.sent_bytes()), (3, 5));
        assert_eq!((counts.refusals(LimitName::Rate), counts.refusals(LimitName::Heads)), (1, 0));
    }

    #[test]
    fn there_are_as_many_series_as_there_are_kinds_and_no_more() {
        let counts = RequestCounts::new().expect("good definitions");
        let mut ended = Ended {
            route: RouteClass::Other,
            method: MethodClass::Other,
            status: 0,
            cache: CacheResult::None,
            end: End::Done,
            first_byte: None,
            body: (0, Duration::ZERO),
            is_full: None,
        };
        let mut all = 0;
        for route in RouteClass::ALL {
            for method in MethodClass::ALL {
                for cache in CacheResult::ALL {
                    (ended.route, ended.method, ended.cache) = (*route, *method, *cache);
                    for status in 0..1000 {
                        ended.status = status;
                        counts.end(&ended);
                    }
                    all += STATUSES.len() + 1;
                }
            }
        }
        let text = shown(&counts);
        let series = text.lines().filter(|line| line.starts_with("snapedge_requests_total{"));
        assert_eq!(series.count(), all);
    }
}
