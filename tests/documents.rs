//! Holds what operators read, and what they load into Prometheus and Grafana, to the code.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests are read by people, and their helpers are nobody's interface"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use snapedge::metrics::{self, Type};
use snapedge::status::report::EventKind;

/// What is known of the process itself, by the library that counts it.
const PROCESS: [&str; 7] = [
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_threads",
    "process_virtual_memory_bytes",
];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn names() -> BTreeSet<String> {
    let own = metrics::ALL.iter().map(|definition| definition.name);
    own.chain(PROCESS).map(str::to_owned).collect()
}

/// The first cell of each row of the tables below a heading, or of all tables.
fn first_cells(text: &str) -> Vec<String> {
    let cell = |line: &str| {
        let rest = line.strip_prefix("| `")?;
        rest.split_once("` |").map(|(cell, _)| cell.to_owned())
    };
    text.lines().filter_map(cell).collect()
}

fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let start = text.find(heading).unwrap_or_else(|| panic!("no {heading}"));
    let rest = &text[start + heading.len()..];
    rest.find("\n## ").map_or(rest, |end| &rest[..end])
}

/// Words of a text that are the names of metrics.
fn mentioned(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c: char| !is_part(c));
    let is_metric = |word: &&str| word.starts_with("snapedge_") || word.starts_with("process_");
    words.filter(is_metric).map(str::to_owned).collect()
}

#[test]
fn names_follow_the_conventions_of_prometheus() {
    let mut seen = BTreeSet::new();
    for metrics::Definition { name, kind, labels, help } in metrics::ALL {
        assert!(seen.insert(*name), "{name} is there twice");
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        assert!(plain(name) && name.starts_with("snapedge_"), "{name}");
        assert!(labels.iter().all(|label| plain(label)), "{name}: {labels:?}");
        assert_eq!(name.ends_with("_total"), *kind == Type::Counter, "{name}");
        assert!(help.ends_with('.') && help.len() < 120, "{name}: {help}");
        for unit in ["_ms", "_millis", "_kib", "_mib", "_percent"] {
            assert!(!name.contains(unit), "{name} is not in a base unit");
        }
    }
}

#[test]
fn each_metric_is_documented_once_and_nothing_else_is() {
    let rows = first_cells(&read("docs/metrics.md"));
    let rows: Vec<String> = rows.into_iter().filter(|row| !mentioned(row).is_empty()).collect();
    let documented: BTreeSet<String> = rows.iter().cloned().collect();
    assert_eq!(rows.len(), documented.len(), "a metric is there twice");
    assert_eq!(documented, names());
}

#[test]
fn rules_and_dashboard_ask_for_metrics_that_exist() {
    let names = names();
    let suffixes = ["_bucket", "_sum", "_count"];
    let is_known = |word: &String| {
        let base = suffixes.iter().find_map(|suffix| word.strip_suffix(suffix));
        let histogram = |base: &str| {
            metrics::ALL.iter().any(|of| of.name == base && of.kind == Type::Histogram)
        };
        names.contains(word) || base.is_some_and(histogram)
    };
    for file in [
        "conf/alerts.yml",
        "conf/grafana-dashboard.json",
        "tests/alerts.test.yml",
        "docs/metrics.md",
        "docs/operations.md",
    ] {
        let unknown: Vec<String> =
            mentioned(&read(file)).into_iter().filter(|word| !is_known(word)).collect();
        assert!(unknown.is_empty(), "{file} asks for {unknown:?}");
    }
    let shown = mentioned(&read("conf/grafana-dashboard.json"));
    assert!(shown.len() > 40, "the dashboard shows {} metrics", shown.len());
    serde_json::from_str::<serde_json::Value>(&read("conf/grafana-dashboard.json")).expect("JSON");
}

/// The names of all alerts.
fn alerts() -> BTreeSet<String> {
    let name = |line: &str| line.trim().strip_prefix("- alert: ").map(str::to_owned);
    read("conf/alerts.yml").lines().filter_map(name).collect()
}

#[test]
fn each_alert_is_documented_and_tested() {
    let operations = read("docs/operations.md");
    let headings: BTreeSet<String> = operations
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .map(str::to_owned)
        .collect();
    assert_eq!(headings, alerts());
    let tests = read("tests/alerts.test.yml");
    for alert in alerts() {
        let cases = tests.matches(&format!("alertname: {alert}\n")).count();
        assert!(
            cases >= 2,
            "{alert} has {cases} cases, one in which it fires and one in which not"
        );
    }
    let rules = read("conf/alerts.yml");
    for line in rules.lines().filter(|line| line.contains("runbook: ")) {
        let anchor = line.split('#').nth(1).expect("an anchor").trim_matches(['"', '\'', ' ']);
        let is_one = alerts().iter().any(|alert| alert.to_lowercase() == anchor);
        assert!(is_one, "{line}");
    }
}

#[test]
fn each_kind_of_event_is_documented() {
    let operations = read("docs/operations.md");
    let rows: BTreeSet<String> =
        first_cells(section(&operations, "\n## Events")).into_iter().collect();
    let kind = |kind: &EventKind| {
        let shown = serde_json::to_value(kind).expect("a word");
        shown.as_str().expect("a text").to_owned()
    };
    let kinds: BTreeSet<String> = EventKind::ALL.iter().map(kind).collect();
    assert_eq!(rows, kinds);
}

/// Every field of the status, as far as one of each thing shows.
#[test]
fn each_field_of_the_status_is_documented() {
    let source = read("src/status/report.rs");
    let field = |line: &str| {
        let rest = line.trim().strip_prefix("pub ")?;
        let (name, _) = rest.split_once(": ")?;
        name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_').then(|| name.to_owned())
    };
    let fields: BTreeSet<String> = source.lines().filter_map(field).collect();
    assert!(fields.len() > 60, "{fields:?}");
    let rows = first_cells(&read("docs/status.md"));
    let last = |row: &String| row.rsplit(['.', ']']).next().unwrap_or_default().to_owned();
    let documented: BTreeSet<String> = rows.iter().map(last).collect();
    let missing: Vec<&String> = fields.difference(&documented).collect();
    assert!(missing.is_empty(), "{missing:?} are not in docs/status.md");
    let unknown: Vec<&String> = documented.difference(&fields).collect();
    assert!(unknown.is_empty(), "{unknown:?} are in docs/status.md alone");
}

/// All files of the program, without their tests.
fn sources(directory: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path).expect("text");
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            // A text that goes on in the next line is one text.
            let mut joined = String::new();
            for line in code.lines() {
                if let Some(before) = joined.strip_suffix('\\') {
                    joined = format!("{before}{}", line.trim_start());
                } else {
                    joined.push('\n');
                    joined.push_str(line);
                }
            }
            found.insert(path, joined);
        }
    }
}

#[test]
fn each_warning_and_error_of_the_log_has_a_row() {
    let mut files = BTreeMap::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let operations = read("docs/operations.md");
    let rows = first_cells(section(&operations, "\n## Lines of the log"));
    assert!(rows.len() > 50, "{}", rows.len());
    for row in &rows {
        let is_there = files.values().any(|code| code.contains(&**row));
        assert!(is_there, "no line of the log has `{row}`");
    }
    let mut missing = Vec::new();
    for (path, code) in &files {
        for macro_name in ["log::warn!(", "log::error!("] {
            for (at, _) in code.match_indices(macro_name) {
                let rest = &code[at..];
                let call = &rest[..rest.find(";\n").or(rest.find(")\n")).unwrap_or(rest.len())];
                if !rows.iter().any(|row| call.contains(&**row)) {
                    missing.push(format!("{}: {}", path.display(), call.replace('\n', " ")));
                }
            }
        }
    }
    assert!(missing.is_empty(), "without a row in docs/operations.md:\n{}", missing.join("\n"));
}
