//! Who may import whom, and where each thing of the outside is at home.

/// Which modules of the crate a module may import, besides itself. A new module needs a row.
pub(super) const IMPORTS: [(&str, &[&str]); 29] = [
    ("clients", &[]),
    ("clock", &[]),
    ("drain", &[]),
    ("error_chain", &[]),
    ("hops", &[]),
    ("limit", &[]),
    ("metrics", &[]),
    ("snapshot", &[]),
    ("status", &["error_chain"]),
    ("check", &["snapshot"]),
    ("index", &["hops", "limit", "snapshot", "clock"]),
    ("published", &["index", "snapshot"]),
    ("config", &["clients", "hops", "snapshot"]),
    ("fd_limit", &["config"]),
    ("access", &["hops", "config", "index"]),
    ("route", &["hops", "snapshot", "index", "config", "access", "clock", "limit"]),
    ("configured", &["clients", "config", "hops", "route"]),
    ("logging", &["config", "limit"]),
    ("cache", &["check", "config", "index", "snapshot", "clock"]),
    ("ledger", &["check", "config", "index", "snapshot"]),
    (
        "scrape",
        &[
            "hops",
            "config",
            "access",
            "ledger",
            "index",
            "snapshot",
            "clock",
            "error_chain",
            "limit",
            "published",
        ],
    ),
    ("api", &["hops", "route", "index", "snapshot", "config"]),
    (
        "upstream",
        &[
            "hops",
            "ledger",
            "route",
            "access",
            "index",
            "snapshot",
            "config",
            "configured",
            "limit",
            "metrics",
            "error_chain",
            "published",
        ],
    ),
    (
        "fill",
        &[
            "drain",
            "hops",
            "cache",
            "route",
            "upstream",
            "index",
            "snapshot",
            "config",
            "configured",
            "clock",
            "limit",
            "published",
        ],
    ),
    (
        "on_demand",
        &[
            "hops",
            "cache",
            "route",
            "scrape",
            "index",
            "snapshot",
            "config",
            "configured",
            "clock",
            "limit",
            "error_chain",
            "published",
        ],
    ),
    ("rpc", &["config", "configured", "hops", "index", "limit", "published", "route", "scrape"]),
    (
        "listener",
        &[
            "clients",
            "config",
            "drain",
            "error_chain",
            "fd_limit",
            "limit",
            "metrics",
            "route",
            "upstream",
        ],
    ),
    (
        "proxy",
        &[
            // Of tests alone, which build what is served from its parts.
            "access",
            "error_chain",
            "hops",
            "listener",
            "logging",
            "metrics",
            "rpc",
            "api",
            "fill",
            "on_demand",
            "upstream",
            "cache",
            "ledger",
            "route",
            "scrape",
            "index",
            "snapshot",
            "config",
            "configured",
            "clock",
            "limit",
            "drain",
            "published",
        ],
    ),
    ("lib", &[]),
];
/// What may import anything, and what nothing above may import.
pub(super) const ON_TOP: [&str; 4] = ["app", "cli", "demo", "main"];

pub(super) const PURE: [&str; 22] = [
    "src/hops.rs",
    "src/clients/",
    "src/snapshot/",
    "src/index/",
    "src/route/",
    "src/ledger/entry.rs",
    "src/ledger/vetting.rs",
    "src/limit/",
    "src/on_demand/budget.rs",
    "src/on_demand/gate.rs",
    "src/on_demand/worth.rs",
    "src/upstream/attempt.rs",
    "src/upstream/eviction.rs",
    "src/upstream/health.rs",
    "src/upstream/slots.rs",
    "src/error_chain.rs",
    "src/app/offers.rs",
    "src/metrics/",
    "src/status/amounts.rs",
    "src/status/changes.rs",
    "src/status/report.rs",
    "src/status/terminal.rs",
];
pub(super) const IMPURE: [&str; 6] =
    ["tokio", "std::fs", "std::net::Tcp", "std::net::Udp", "Instant::now", "SystemTime::now"];

pub(super) const WITH_PINGORA: [&str; 12] = [
    "src/rpc/",
    "src/listener/",
    "src/logging/process.rs",
    "src/proxy/",
    "src/fill/",
    "src/upstream/",
    "src/access/",
    "src/api/",
    "src/cache/storage.rs",
    "src/scrape/",
    "src/app/",
    "src/demo/",
];
pub(super) const WITH_YAML: [&str; 3] =
    ["src/config/yaml.rs", "src/config/tree.rs", "src/config/scalar.rs"];
/// Where files of certificates are read, where connections get their settings, and a test's server.
pub(super) const WITH_RUSTLS: [&str; 5] = [
    "src/config/access.rs",
    "src/access/",
    "src/listener/tls.rs",
    // Its log is turned off there.
    "src/logging/process.rs",
    "src/scrape/approach/tests.rs",
];
pub(super) const WITH_DNS: [&str; 1] = ["src/scrape/discovery/dns.rs"];
/// Files as memory, and what only a disk's caller needs.
pub(super) const WITH_MAPPING: [&str; 1] = ["src/cache/mapping.rs"];
pub(super) const WITH_RUSTIX: [&str; 5] =
    ["src/app/handover.rs", "src/cache/", "src/fd_limit.rs", "src/ledger/", "src/logging/sink.rs"];

pub(super) const VAGUE: [&str; 8] =
    ["utils", "util", "common", "helpers", "helper", "manager", "managers", "misc"];

/// How the first line of a comment does not begin that is to be read alone.
pub(super) const DANGLING: [&str; 18] = [
    "That ",
    "It ",
    "Its ",
    "It's ",
    "Those",
    "These",
    "They ",
    "Their ",
    "The same",
    "Both ",
    "See ",
    "All of it",
    "All of them",
    "Each of them",
    "Nothing.",
    "Nothing,",
    "One of which",
    "Since when there are any",
];

/// Never to be left behind. Split, so that this file does not find itself.
pub(super) const LEFTOVERS: [&str; 6] = [
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("#[ign", "ore"),
    concat!("db", "g!("),
];
