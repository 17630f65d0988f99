//! What a node's short forms say, and what is remembered for the times when they say little.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::{HeaderMap, RETRY_AFTER};

use super::answer::is_for_later;
use super::client::{Head, Place, TargetConnection};
use super::presence::{self, Heads, Presence, Reason};
use super::probe_error::ProbeError;
use crate::config::Scheme;
use crate::index::{AccessKey, Listed};
use crate::snapshot::ArchiveName;

/// Full archives that are looked for again after a node stopped naming them.
const REMEMBERED_FULL: usize = 2;
/// Incremental archives that are looked for again after a node stopped naming them: nodes keep
/// four on the newest full archive and one on each older one.
const REMEMBERED_INCREMENTAL: usize = 6;
/// Time for the look at one remembered archive. Its port may be closed since, and must not take the
/// time of the whole probe.
const REMEMBERED_TIMEOUT: Duration = Duration::from_secs(1);
/// Rounds in which a remembered archive is listed although the node says nothing of it.
const MAX_UNANSWERED: u32 = 3;
/// Longest time for which a target is left alone because it wants to be.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// What a short form says.
#[derive(Debug)]
pub(super) enum Word {
    /// The short form leads to this archive.
    Named(Listed),
    /// The node has none.
    None,
    /// Nothing of archives: that this is not the time to ask, or something that no node says.
    NotNow(ProbeError),
}

/// Whether a status means that the node has no archive to name.
pub(super) fn says_none(status: StatusCode) -> bool {
    matches!(status.as_u16(), 202 | 204 | 400 | 403..=405 | 410 | 500 | 503)
}

/// What a node named before. It names only its newest pair, and nothing at all of the old one once
/// a new full archive is there, but it goes on serving what it still has.
#[derive(Clone, Debug, Default)]
pub(super) struct Remembered(BTreeMap<ArchiveName, Known>);

/// One such archive.
#[derive(Clone, Debug)]
pub(super) struct Known {
    listed: Listed,
    /// Rounds since the node said last that it has it.
    unanswered: u32,
}

impl Remembered {
    /// Has what is remembered be reached by another access.
    pub(super) fn reach_by(&mut self, key: &AccessKey) {
        for known in self.0.values_mut() {
            if let Some(location) = &mut known.listed.location {
                location.access = key.clone();
            }
        }
    }

    /// What is remembered of an archive at this place.
    pub(super) fn known(&self, name: &ArchiveName, place: &Place) -> Option<&Listed> {
        let listed = self.0.get(name).map(|known| &known.listed);
        listed.filter(|listed| {
            listed.location.as_ref().is_some_and(|location| {
                location.address == place.address && location.path == place.path
            })
        })
    }

    /// Asks by name for what is remembered and not found yet. What is there is found; what the node
    /// said nothing of is returned.
    pub(super) async fn look(
        &self,
        connection: &TargetConnection,
        scheme: Scheme,
        heads: &Heads,
        found: &mut BTreeMap<ArchiveName, Listed>,
    ) -> Vec<Known> {
        let (mut unanswered, mut is_silent) = (Vec::new(), false);
        for (name, known) in &self.0 {
            let Some(location) = &known.listed.location else { continue };
            // At an address that is no longer the target's, there is nothing of it.
            if found.contains_key(name) || location.address.ip() != connection.address.ip() {
                continue;
            }
            let place = Place {
                scheme,
                address: location.address,
                authority: location.authority.to_string(),
                path: location.path.clone(),
            };
            // One that lets wait is enough for one round.
            let answer = if is_silent {
                None
            } else {
                let asked = presence::ask(connection, *name, &place, Reason::Remembered, heads);
                tokio::time::timeout(REMEMBERED_TIMEOUT, asked).await.ok()
            };
            let says_nothing = match answer {
                Some(Ok(Presence::There(listed))) => {
                    found.insert(*name, listed);
                    false
                }
                Some(Ok(Presence::Not(head))) => is_for_later(head.status),
                // It is asked for itself.
                Some(Ok(Presence::Doubt)) => false,
                Some(Err(error)) => !error.is_of_connecting(),
                Some(Ok(Presence::Silence)) | None => {
                    is_silent = true;
                    true
                }
            };
            if says_nothing && known.unanswered < MAX_UNANSWERED {
                let rounds = known.unanswered + 1;
                unanswered.push(Known { unanswered: rounds, ..known.clone() });
            }
        }
        unanswered
    }

    /// Remembers the newest archives of each kind, to be looked for next time, and lists all.
    pub(super) fn keep(
        &mut self,
        found: BTreeMap<ArchiveName, Listed>,
        unanswered: Vec<Known>,
    ) -> Vec<Listed> {
        let found = found.into_values().map(|listed| Known { listed, unanswered: 0 });
        let all: BTreeMap<ArchiveName, Known> =
            found.chain(unanswered).map(|known| (known.listed.name, known)).collect();
        let newest = |full: bool, count| {
            let of_kind = move |(name, _): &(&ArchiveName, &Known)| name.is_full() == full;
            all.iter().rev().filter(of_kind).take(count)
        };
        let newest = newest(true, REMEMBERED_FULL).chain(newest(false, REMEMBERED_INCREMENTAL));
        self.0 = newest.map(|(name, known)| (*name, known.clone())).collect();
        all.into_values().map(|known| known.listed).collect()
    }
}

/// How long a target wants to be left alone, by the answers of one round; in milliseconds.
#[derive(Debug, Default)]
pub(super) struct Rest(AtomicU64);

impl Rest {
    /// Notes what a refusal says of it.
    pub(super) fn note(&self, head: &Head) {
        let rest = retry_after(&head.headers, SystemTime::now()).unwrap_or_default();
        let rest = u64::try_from(rest.as_millis()).unwrap_or(u64::MAX);
        self.0.fetch_max(rest, Ordering::Relaxed);
    }

    /// What was noted since this was asked last.
    pub(super) fn take(&self) -> Option<Duration> {
        let rest = self.0.swap(0, Ordering::Relaxed);
        (rest > 0).then(|| Duration::from_millis(rest))
    }
}

/// The time that a `retry-after` names, in seconds or as a date (RFC 9110, section 10.2.3), as far
/// as it is waited for.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let rest = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits that are no number are too many of them.
        value.parse().map_or(LONGEST_REST, Duration::from_secs)
    } else {
        httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default()
    };
    Some(rest.min(LONGEST_REST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use std::time::UNIX_EPOCH;

    #[test]
    fn a_target_that_wants_to_be_left_alone_is_for_a_minute_at_most() {
        let now = UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        for (value, expected) in [
            ("5", Some(5)),
            (" 5 ", Some(5)),
            ("0", Some(0)),
            ("60", Some(60)),
            ("61", Some(60)),
            ("99999999999999999999999999", Some(60)),
            ("Mon, 21 Sep 2026 14:13:27 GMT", Some(7)),
            ("Mon, 21 Sep 2026 14:13:13 GMT", Some(0)),
            ("Tue, 22 Sep 2026 14:13:13 GMT", Some(60)),
            ("", None),
            ("-5", None),
            ("5s", None),
            ("1.5", None),
            ("soon", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
            let rest = retry_after(&headers, now).map(|rest| rest.as_secs());
            assert_eq!(rest, expected, "{value}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn what_was_said_once_holds_once_and_the_longest_of_a_round_counts() {
        let rest = Rest::default();
        assert_eq!(rest.take(), None);
        for seconds in ["3", "5", "4"] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(seconds));
            rest.note(&Head { status: StatusCode::TOO_MANY_REQUESTS, headers });
        }
        assert_eq!(rest.take(), Some(Duration::from_secs(5)));
        assert_eq!(rest.take(), None);
    }

    #[test]
    fn every_status_of_a_short_form_has_a_meaning() {
        for status in [202, 400, 403, 404, 405, 410, 500, 503] {
            assert!(says_none(StatusCode::from_u16(status).expect("a status")), "{status}");
        }
        for status in [408, 421, 425, 429, 451, 501, 502, 504, 505, 507, 511, 520, 529, 599] {
            assert!(!says_none(StatusCode::from_u16(status).expect("a status")), "{status}");
        }
    }
}
