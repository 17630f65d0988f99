//! Every metric: its name, unit, labels and help. `docs/metrics.md` says what to do about each.
//!
//! No label has a value that a client can choose. Those of targets and groups are as many as are
//! configured or discovered.

/// What the value of a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A count that only grows.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// How many were below each bound.
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// The name, with the unit.
    pub name: &'static str,
    /// What its value is.
    pub kind: Type,
    /// The labels, in the order of their values.
    pub labels: &'static [&'static str],
    /// What it tells, in one sentence.
    pub help: &'static str,
}

macro_rules! definitions {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Definition = Definition {
                name: $name,
                kind: Type::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )*
        /// Every metric but those of the process.
        pub const ALL: &[Definition] = &[$($constant),*];
    };
}

definitions! {
    BUILD_INFO = Gauge "snapedge_build_info" ["version"]
        "Always 1, for the version of the program.";
    READY = Gauge "snapedge_ready" []
        "Whether the first round of probes is over and the process does not end, 1 or 0.";
    DRAINING = Gauge "snapedge_draining" []
        "Whether the process is about to end and accepts nothing new, 1 or 0.";

    REQUESTS = Counter "snapedge_requests_total" ["route", "method", "status", "cache"]
        "Requests that were answered, or left by their client before that with status 0.";
    SENT_BYTES = Counter "snapedge_sent_bytes_total" ["route"]
        "Bytes of bodies that went to clients.";
    FIRST_BYTE = Histogram "snapedge_first_byte_seconds" ["route"]
        "Time from the head of a request to that of its answer.";
    TRANSFER_RATE = Histogram "snapedge_transfer_rate_bytes_per_second" ["kind", "source"]
        "Mean rate of answers with 1 MiB of an archive or more; validators want 10 MiB/s.";
    TRANSFERS = Gauge "snapedge_transfers" ["source"]
        "Archives on their way to clients.";
    ENDS = Counter "snapedge_ends_total" ["end"]
        "How requests ended.";
    SOURCE_FAILURES = Counter "snapedge_source_failures_total" ["cause"]
        "Tries of targets, for clients and the cache, that brought no archive or not all of it.";
    FAILOVERS = Counter "snapedge_failovers_total" ["cause"]
        "Times that a request went on to another target after such a failure.";

    LIMIT = Gauge "snapedge_limit" ["limit"]
        "A bound of the configuration that can be reached.";
    LIMIT_USED = Gauge "snapedge_limit_used" ["limit"]
        "How much of that bound is used.";
    REFUSALS = Counter "snapedge_refusals_total" ["limit"]
        "Requests and connections that were refused for a bound.";

    CONNECTIONS_CLOSED = Counter "snapedge_connections_closed_total" ["reason"]
        "Connections that were closed for what their client did, or that brought no request.";

    FILLS_STARTED = Counter "snapedge_fills_started_total" []
        "Archives that began to come into the cache.";
    FILLS_PROMOTED = Counter "snapedge_fills_promoted_total" []
        "Archives that are whole in the cache, by a fill.";
    FILLS_FAILED = Counter "snapedge_fills_failed_total" ["reason"]
        "Fills that came to nothing.";
    FILLS = Gauge "snapedge_fills" ["group", "kind"]
        "Fills that are under way.";
    FILL_RECEIVED = Gauge "snapedge_fill_received_bytes" ["group", "kind"]
        "Bytes that the fills under way have brought.";
    FILL_LENGTH = Gauge "snapedge_fill_length_bytes" ["group", "kind"]
        "Bytes that they will bring.";
    FILL_RATE = Gauge "snapedge_fill_rate_bytes_per_second" ["group", "kind"]
        "Bytes per second that they bring.";

    CACHE_BYTES = Gauge "snapedge_cache_bytes" []
        "Bytes of whole archives in the cache.";
    CACHE_RESERVED = Gauge "snapedge_cache_reserved_bytes" []
        "Bytes that are taken from the disk for archives on their way.";
    CACHE_FREE = Gauge "snapedge_cache_free_bytes" []
        "Bytes that are free on the file system of the cache.";
    CACHE_MIN_FREE = Gauge "snapedge_cache_min_free_bytes" []
        "Bytes that stay free there, `cache.min_free_space`.";
    CACHE_MAX = Gauge "snapedge_cache_max_bytes" []
        "Most bytes of the cache, `cache.max_size`; missing where that is not set.";
    CACHE_SILENT = Gauge "snapedge_cache_silent_seconds" []
        "Time since the disk of the cache answered last.";
    CACHE_ARCHIVES = Gauge "snapedge_cache_archives" ["group", "kind"]
        "Whole archives in the cache.";
    CACHE_LEASES = Gauge "snapedge_cache_leases" []
        "Whole archives that nobody is led to any more, kept for those who were.";
    CACHE_REFUSALS = Counter "snapedge_cache_refusals_total" ["reason"]
        "Times that the cache did not take an archive, which is carried past it then.";

    OFFERED_SLOT = Gauge "snapedge_offered_slot" ["group", "kind"]
        "Slot of the archive that short names lead to.";
    OFFERED_AGE_SLOTS = Gauge "snapedge_offered_age_slots" ["group"]
        "Slots between the newest archive that is offered and the newest slot that is known.";
    OFFERED_AGE = Gauge "snapedge_offered_age_seconds" ["group"]
        "Time since the newest archive that is offered was made, or was seen first.";
    OFFERED_UNCHANGED = Gauge "snapedge_offered_unchanged_seconds" ["group"]
        "Time since another pair than before was offered.";
    CLUSTER_SLOT = Gauge "snapedge_cluster_slot" []
        "Slot of the cluster; missing where no node tells it.";
    CONFLICTS = Gauge "snapedge_conflicts" ["group"]
        "Slots at which targets list archives of different hashes.";

    TARGETS = Gauge "snapedge_targets" ["group", "state"]
        "Targets by how they are.";
    TARGET_UP = Gauge "snapedge_target_up" ["group", "target"]
        "Whether a target answered its last probe and lists archives, 1 or 0.";
    TARGET_SLOT = Gauge "snapedge_target_slot" ["group", "target"]
        "Newest slot that a target lists.";
    TARGET_PROBES = Counter "snapedge_target_probes_total" ["group", "target"]
        "Probes of a target.";
    TARGET_PROBE_FAILURES =
        Counter "snapedge_target_probe_failures_total" ["group", "target", "reason"]
        "Probes of a target that failed.";
    TARGET_PROBE_DURATION = Gauge "snapedge_target_probe_duration_seconds" ["group", "target"]
        "Time that the last probe of a target took.";
    TARGET_EJECTED = Gauge "snapedge_target_ejected" ["group", "target"]
        "Whether a target gets no transfers since those before failed, 1 or 0.";
    TARGET_EJECTIONS = Counter "snapedge_target_ejections_total" ["group", "target"]
        "Times that a target was ejected.";
    TARGET_RATE = Gauge "snapedge_target_rate_bytes_per_second" ["group", "target"]
        "Rate that a target delivered of late, by which it is chosen.";
    TARGET_TRANSFERS = Gauge "snapedge_target_transfers" ["group", "target"]
        "Transfers that a target carries; `limits.per_target` is the bound.";
    TARGET_RECEIVED = Counter "snapedge_target_received_bytes_total" ["group", "target"]
        "Bytes of archives from a target.";
    ACCESS_FAULTS = Counter "snapedge_access_faults_total" ["group", "fault"]
        "Meetings with targets that failed for TLS or credentials.";
    CERTIFICATE_EXPIRY = Gauge "snapedge_certificate_expiry_timestamp_seconds" ["group"]
        "When the certificate ends that targets of a group are shown, in seconds since 1970.";
    LISTENER_CERTIFICATE_EXPIRY = Gauge
        "snapedge_listener_certificate_expiry_timestamp_seconds" ["listener"]
        "When the first certificate of a listener ends, in seconds since 1970.";

    DISCOVERY_FAILURES = Counter "snapedge_discovery_failures_total" ["group", "source"]
        "Times that a source of targets could not be read.";
    DISCOVERY_OMISSIONS = Counter "snapedge_discovery_omissions_total" ["group", "source"]
        "Entries of such a source that were left out, since they are no targets.";
    LISTING_OMISSIONS = Counter "snapedge_listing_omissions_total" ["group"]
        "Entries of what targets list that were left out, since they are no archives.";
    UNKNOWN_NAMES = Counter "snapedge_unknown_names_total" ["outcome"]
        "Archives that were looked for on targets that did not list them.";

    RPC_CALLS = Counter "snapedge_rpc_calls_total" ["method", "outcome"]
        "Calls that only a node can answer; methods that are not configured count as `other`.";

    RELOADS = Counter "snapedge_reloads_total" ["outcome"]
        "Reloads of the configuration.";
    RELOAD_SUCCESSFUL = Gauge "snapedge_config_last_reload_successful" []
        "Whether the last reload was taken, 1 or 0.";
    RELOAD_SUCCESS_TIME = Gauge "snapedge_config_last_reload_success_timestamp_seconds" []
        "When the configuration was taken that is followed, in seconds since 1970.";
    LOG_DROPPED = Counter "snapedge_log_lines_dropped_total" ["log"]
        "Lines that were not written, since whoever takes them is too slow.";
}
