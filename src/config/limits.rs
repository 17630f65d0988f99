//! The `limits` section: every bound on time, rate and number, and which of them contradict each
//! other.

use std::time::Duration;

use super::keys::{integer, time};
use super::rpc::call_rate;
use super::units::{rate, size};
use super::yaml::{Node, Section};

/// Bounds, each named after its key below `limits`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time for one whole probe of one target.
    pub probe_timeout: Duration,
    /// Probes under way at once.
    pub probe_concurrency: usize,
    /// Failed probes in a row after which a target leaves the index.
    pub probe_failures: u32,
    /// Time in which targets are asked for a name that the index does not know; zero where they
    /// are not.
    pub unknown_name_probe: Duration,
    /// Time to connect to a target for a download.
    pub connect_timeout: Duration,
    /// Silence of a target, before its answer or within it, that counts as failure.
    pub read_timeout: Duration,
    /// Transfers from one target at once.
    pub per_target: usize,
    /// Time that a request waits to be let in, and for a target that may carry one more transfer.
    pub queue_wait: Duration,
    /// Transfers to clients at once.
    pub max_transfers: usize,
    /// Transfers to one client at once.
    pub per_client_transfers: usize,
    /// Bytes of archives per second that go to clients, over all transfers; any where unset.
    pub total_rate: Option<u64>,
    /// Bytes per second that each client is to have of `total_rate` at least.
    pub min_rate: u64,
    /// Connections of clients at once.
    pub max_connections: usize,
    /// Connections of one client address at once.
    pub per_client_connections: usize,
    /// Requests of one client in a second; any number where unset.
    pub requests: Option<u32>,
    /// Bytes that the head of a request may have.
    pub max_request_head: usize,
    /// Time in which the head of a request must be there once its first byte is.
    pub header_timeout: Duration,
    /// Time that a connection is kept open on which nothing is asked.
    pub idle_timeout: Duration,
    /// Longest that a client may take nothing of an answer.
    pub send_timeout: Duration,
    /// Bytes per second that a client must take of an answer, by and large.
    pub min_send_rate: u64,
    /// How long it is remembered, after the last byte of an unfinished download, of which copy the
    /// client has bytes.
    pub resume_memory: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            probe_timeout: Duration::from_secs(5),
            probe_concurrency: 64,
            probe_failures: 3,
            unknown_name_probe: Duration::from_millis(500),
            connect_timeout: Duration::from_millis(500),
            read_timeout: Duration::from_secs(10),
            per_target: 4,
            queue_wait: Duration::from_secs(2),
            max_transfers: 1000,
            per_client_transfers: 128,
            total_rate: None,
            min_rate: 10 << 20,
            max_connections: 4096,
            per_client_connections: 512,
            requests: None,
            max_request_head: 32 << 10,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(60),
            min_send_rate: 64 << 10,
            resume_memory: Duration::from_secs(600),
        }
    }
}

/// Slowest rate that transfers may be given, each of them or all together.
const SLOWEST: &str = "1MiB/s";
/// Shortest and longest head that may be the most: clients send some hundred bytes, and above that
/// Pingora has a bound of its own.
const HEADS: std::ops::RangeInclusive<u64> = (1 << 10)..=(1 << 19);
/// Slowest rate below which a client may be left.
const SLOWEST_CLIENT: &str = "1B/s";

pub(super) fn limits(node: Node) -> Limits {
    let mut section = node.section();
    let default = Limits::default();
    let least = Duration::from_millis(1);
    let mut bound = |key, default| time(&mut section, key, least, default);
    let probe_timeout = bound("probe_timeout", default.probe_timeout);
    let connect_timeout = bound("connect_timeout", default.connect_timeout);
    let read_timeout = bound("read_timeout", default.read_timeout);
    let header_timeout = bound("header_timeout", default.header_timeout);
    let idle_timeout = bound("idle_timeout", default.idle_timeout);
    let send_timeout = bound("send_timeout", default.send_timeout);
    let mut may_be_zero = |key, default| time(&mut section, key, Duration::ZERO, default);
    let unknown_name_probe = may_be_zero("unknown_name_probe", default.unknown_name_probe);
    let queue_wait = may_be_zero("queue_wait", default.queue_wait);
    let resume_memory = may_be_zero("resume_memory", default.resume_memory);
    let mut count = |key, most, default| count(&mut section, key, most, default);
    let probe_concurrency = count("probe_concurrency", 4096, default.probe_concurrency);
    let per_target = count("per_target", 1024, default.per_target);
    let max_transfers = count("max_transfers", 1_000_000, default.max_transfers);
    let per_client = default.per_client_transfers;
    let per_client_transfers = count("per_client_transfers", 1_000_000, per_client);
    let max_connections = count("max_connections", 1_000_000, default.max_connections);
    let per_client = default.per_client_connections;
    let per_client_connections = count("per_client_connections", 1_000_000, per_client);
    let failures = integer(&mut section, "probe_failures", 1, 1000, default.probe_failures.into());
    let total_rate = bytes_per_second(&mut section, "total_rate", SLOWEST);
    let min_rate = bytes_per_second(&mut section, "min_rate", SLOWEST).unwrap_or(default.min_rate);
    let requests = section.take("requests").and_then(|node| node.parsed("a rate", call_rate));
    let max_request_head = head(&mut section).unwrap_or(default.max_request_head);
    let min_send_rate = bytes_per_second(&mut section, "min_send_rate", SLOWEST_CLIENT);
    if total_rate.is_some_and(|total| total < min_rate) {
        section.reject("total_rate", "is below `limits.min_rate`, so that nobody would be served");
    }
    section.close();
    Limits {
        probe_timeout,
        probe_concurrency,
        probe_failures: u32::try_from(failures).unwrap_or(u32::MAX),
        unknown_name_probe,
        connect_timeout,
        read_timeout,
        per_target,
        queue_wait,
        max_transfers,
        per_client_transfers,
        total_rate,
        min_rate,
        max_connections,
        per_client_connections,
        requests,
        max_request_head,
        header_timeout,
        idle_timeout,
        send_timeout,
        min_send_rate: min_send_rate.unwrap_or(default.min_send_rate),
        resume_memory,
    }
}

/// A number of at least one.
fn count(section: &mut Section, key: &'static str, most: u64, default: usize) -> usize {
    let count = integer(section, key, 1, most, default as u64);
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn head(section: &mut Section) -> Option<usize> {
    let bounded = |text: &str| match size(text)? {
        bytes if HEADS.contains(&bytes) => usize::try_from(bytes).map_err(|e| e.to_string()),
        _ => Err(format!("`{text}` is out of bounds, write `1KiB` to `512KiB`")),
    };
    section.take("max_request_head")?.parsed("a size such as `32KiB`", bounded)
}

fn bytes_per_second(section: &mut Section, key: &'static str, least: &str) -> Option<u64> {
    section.take(key)?.parsed("a rate such as `100MiB/s`", |text| rate(text, least))
}
