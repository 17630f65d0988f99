//! The `cache` section: how archives are kept and passed on, and which of its keys contradict each
//! other.

use std::time::Duration;

use super::keys::time;
use super::units::{rate, size};
use super::yaml::{Node, Section};
use super::{Cache, Prefetch, Publish, Sharing, Verify};

const SHARING: [(&str, Sharing); 2] =
    [("exclusive", Sharing::Exclusive), ("shared", Sharing::Shared)];
const PREFETCH: [(&str, Prefetch); 3] =
    [("off", Prefetch::Off), ("incremental", Prefetch::Incremental), ("all", Prefetch::All)];
const PUBLISH: [(&str, Publish); 2] = [("seen", Publish::Seen), ("promoted", Publish::Promoted)];
const VERIFY: [(&str, Verify); 3] =
    [("length", Verify::Length), ("frames", Verify::Frames), ("decode", Verify::Decode)];

/// Slowest rate at which archives may be fetched ahead: below it one takes days, and is superseded
/// long before it is whole.
const SLOWEST: &str = "1MiB/s";

/// Slowest rate that a fill may be held to.
const LEAST_FILL: &str = "1KiB/s";
/// Least time that a fill has besides: connections need some to come up to their rate.
const LEAST_GRACE: Duration = Duration::from_secs(1);

pub(super) fn cache(node: Node) -> Cache {
    let mut section = node.section();
    let default = Cache::default();
    let sharing = choice(&mut section, "sharing", &SHARING, default.sharing);
    let prefetch = choice(&mut section, "prefetch", &PREFETCH, default.prefetch);
    let publish = choice(&mut section, "publish", &PUBLISH, default.publish);
    let cache = Cache {
        min_free_space: bytes(&mut section, "min_free_space", 0).unwrap_or(default.min_free_space),
        max_size: bytes(&mut section, "max_size", 1),
        sharing: sharing.unwrap_or(default.sharing),
        finish_on_stop: boolean(&mut section, "finish_on_stop", default.finish_on_stop),
        finish_abandoned: boolean(&mut section, "finish_abandoned", default.finish_abandoned),
        range_wait: time(&mut section, "range_wait", Duration::ZERO, default.range_wait),
        prefetch: prefetch.unwrap_or(default.prefetch),
        prefetch_rate: section
            .take("prefetch_rate")
            .and_then(|node| node.parsed("a rate such as `100MiB/s`", |text| rate(text, SLOWEST))),
        min_fill_rate: section
            .take("min_fill_rate")
            .and_then(|node| node.parsed("a rate such as `4MiB/s`", |text| rate(text, LEAST_FILL)))
            .unwrap_or(default.min_fill_rate),
        fill_grace: time(&mut section, "fill_grace", LEAST_GRACE, default.fill_grace),
        publish: publish.unwrap_or(default.publish),
        keep_previous: boolean(&mut section, "keep_previous", default.keep_previous),
        lease: time(&mut section, "lease", Duration::ZERO, default.lease),
        verify: choice(&mut section, "verify", &VERIFY, default.verify).unwrap_or(default.verify),
    };
    // A value that is wrong has its own message, and contradicts nothing.
    for (key, is_wished) in [
        ("prefetch", cache.prefetch != Prefetch::Off),
        ("publish", cache.publish == Publish::Promoted),
        ("keep_previous", cache.keep_previous),
    ] {
        if is_wished && sharing == Some(Sharing::Exclusive) {
            section.reject(key, "needs `cache.sharing: shared`");
        }
    }
    // Nobody would fetch what clients are not told of yet.
    let is_fetched = prefetch.is_none_or(|prefetch| prefetch == Prefetch::All);
    if cache.publish == Publish::Promoted && !is_fetched {
        section.reject("publish", "`promoted` needs `cache.prefetch: all`");
    }
    section.close();
    cache
}

/// One of `words`, `default` where the key is absent; `None` where it is something else.
fn choice<T: Copy>(
    section: &mut Section,
    key: &'static str,
    words: &[(&str, T)],
    default: T,
) -> Option<T> {
    let Some(node) = section.take(key) else { return Some(default) };
    let quoted: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
    let expected = match quoted.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => quoted.concat(),
    };
    node.parsed(&expected, |text| {
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).ok_or_else(|| format!("expected {expected}, found `{text}`"))
    })
}

fn boolean(section: &mut Section, key: &'static str, default: bool) -> bool {
    section.take(key).and_then(|node| node.boolean()).unwrap_or(default)
}

/// A size of at least `least` bytes.
fn bytes(section: &mut Section, key: &'static str, least: u64) -> Option<u64> {
    let bounded = |text: &str| match size(text)? {
        value if value < least => Err(format!("`{text}` is too small, the least is `{least}B`")),
        value => Ok(value),
    };
    section.take(key)?.parsed("a size such as `1GiB`", bounded)
}
