//! The readers of one key each that all sections share.

use std::time::Duration;

use super::units::duration;
use super::yaml::{Node, Section};

/// A whole number within bounds; `default` where the key is absent or wrong, which is told.
pub(super) fn integer(
    section: &mut Section,
    key: &'static str,
    least: u64,
    most: u64,
    default: u64,
) -> u64 {
    section.take(key).and_then(|node| node.integer(least, most)).unwrap_or(default)
}

/// A time of at least so much; `default` where the key is absent or wrong, which is told.
pub(super) fn time(
    section: &mut Section,
    key: &'static str,
    least: Duration,
    default: Duration,
) -> Duration {
    let bounded = |text: &str| at_least(text, least);
    let parsed = |node: Node| node.parsed("a duration such as `15s`", bounded);
    section.take(key).and_then(parsed).unwrap_or(default)
}

/// A time in words, where it is not too short.
pub(super) fn at_least(text: &str, least: Duration) -> Result<Duration, String> {
    match duration(text)? {
        value if value < least => Err(format!("`{text}` is too short, the least is {least:?}")),
        value => Ok(value),
    }
}
