//! Whether a target has an archive, asked at the path of that: by HEAD, and where the answer says
//! nothing, by a GET for the first byte. Whoever serves a GET well may refuse HEAD, leave the
//! length out, or not answer at all.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::StatusCode;
use http::header::{CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, LAST_MODIFIED};

use super::answer::{MAX_SIZE, is_for_later};
use super::client::{ClientError, Head, Place, TargetConnection};
use crate::hops::Via;
use crate::index::{Listed, Location, Tag};
use crate::snapshot::{ArchiveName, framing};

/// How long a HEAD is waited for before a GET is tried.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_millis(500);
/// How often the first byte is asked for at once after a HEAD that was of no use.
const TIMES_WITHOUT_HEAD: u32 = 100;

/// How often in a row no HEAD is answered and what is known already counts as confirmed.
const UNANSWERED_HEADS: u32 = 20;

/// Why a target is asked for an archive.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reason<'a> {
    /// The node leads there, and may have told before what is there.
    Named(Option<&'a Listed>),
    /// The node goes on to lead there.
    Insisted,
    /// The node had it when it was asked last, and names it no more.
    Remembered,
}

/// What a target says of one archive.
#[derive(Debug)]
pub(super) enum Presence {
    /// The archive is there.
    There(Listed),
    /// What came was the head of something else: of a redirect, or of a refusal.
    Not(Head),
    /// The archive is not there, which is a reason to ask again what leads there: in between it may
    /// have gone.
    Doubt,
    /// Nothing came in time.
    Silence,
}

/// What the HEADs of one target are worth.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// How often none is asked any more.
    skipped: AtomicU32,
    /// How often in a row none was answered.
    unanswered: AtomicU32,
}

impl Heads {
    fn are_worth_it(&self) -> bool {
        let left = |left: u32| left.checked_sub(1);
        self.skipped.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_err()
    }

    /// Notes that one was answered in time or was not, and says whether what is known without it
    /// will do.
    fn were_answered(&self, in_time: bool) -> bool {
        if in_time {
            self.unanswered.store(0, Ordering::Relaxed);
            return false;
        }
        let times = self.unanswered.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        !times.is_multiple_of(UNANSWERED_HEADS)
    }

    fn were_useless(&self) {
        self.skipped.store(TIMES_WITHOUT_HEAD, Ordering::Relaxed);
    }
}

/// Asks for an archive. The error is that there was no answer to the last question; a caller bounds
/// the time for that.
///
/// A server that ignores ranges begins to send all of an archive whose first byte is asked for. So
/// that is done only where a HEAD contradicts what led here, or nothing is known yet: one that is
/// late says nothing new, and the 404 of what is no longer named is believed while HEADs are good.
pub(super) async fn ask(
    connection: &TargetConnection,
    name: ArchiveName,
    place: &Place,
    reason: Reason<'_>,
    heads: &Heads,
) -> Result<Presence, ClientError> {
    let mut was_useless = false;
    if heads.are_worth_it() {
        let answer = tokio::time::timeout(HEAD_TIMEOUT, connection.head_alone(place)).await;
        let known_will_do = heads.were_answered(answer.is_ok());
        match answer {
            Ok(Ok(head)) => {
                if let Some(listed) = archive(name, connection, place, &head) {
                    return Ok(Presence::There(listed));
                }
                match (head.status, reason) {
                    (StatusCode::NOT_FOUND | StatusCode::GONE, Reason::Remembered) => {
                        return Ok(Presence::Not(head));
                    }
                    (StatusCode::NOT_FOUND | StatusCode::GONE, Reason::Named(_)) => {
                        return Ok(Presence::Doubt);
                    }
                    (status, _) if is_for_later(status) => return Ok(Presence::Not(head)),
                    _ => {}
                }
                was_useless = true;
            }
            Ok(Err(error)) if error.is_of_connecting() => return Err(error),
            Ok(Err(_)) => was_useless = true,
            Err(_) => match reason {
                Reason::Named(Some(known)) if known_will_do => {
                    return Ok(Presence::There(known.clone()));
                }
                Reason::Named(_) | Reason::Insisted => {}
                Reason::Remembered => return Ok(Presence::Silence),
            },
        }
    }
    let head = connection.first_byte(place).await?;
    if let Some(listed) = archive(name, connection, place, &head) {
        if was_useless {
            heads.were_useless();
        }
        return Ok(Presence::There(listed));
    }
    Ok(Presence::Not(head))
}

/// The archive that a head is the head of: of all of it, or of its first byte.
pub(super) fn archive(
    name: ArchiveName,
    connection: &TargetConnection,
    place: &Place,
    head: &Head,
) -> Option<Listed> {
    let size = size(name, head)?;
    // An edge that has it only by way of this one has it not for this one.
    let via = head.via(connection.access()).ok()?;
    let modified = head.headers.get(LAST_MODIFIED).and_then(|value| value.to_str().ok());
    Some(Listed {
        name,
        size: Some(size),
        modified: modified.and_then(|value| httpdate::parse_http_date(value).ok()),
        tag: head.headers.get(ETAG).map(|tag| Tag::new(tag.as_bytes())),
        location: Some(location(connection, place, via)),
    })
}

/// Bytes of the archive that a head is the head of.
fn size(name: ArchiveName, head: &Head) -> Option<u64> {
    let Head { status, headers } = head;
    let size = match *status {
        StatusCode::OK => framing::body_length(headers),
        StatusCode::PARTIAL_CONTENT => total(headers),
        _ => None,
    };
    let is_one = framing::is_file_itself(headers, name.compression()) && !is_page(headers);
    size.filter(|size| is_one && (1..=MAX_SIZE).contains(size))
}

pub(super) fn location(connection: &TargetConnection, place: &Place, via: Via) -> Location {
    Location {
        scheme: place.scheme.as_str(),
        address: place.address,
        authority: place.authority.as_str().into(),
        path: place.path.clone(),
        access: connection.access().key().clone(),
        via,
    }
}

/// Bytes of the whole, of which there is the first one.
fn total(headers: &HeaderMap) -> Option<u64> {
    let place = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let total = place.strip_prefix("bytes 0-0/")?.trim();
    total.bytes().all(|byte| byte.is_ascii_digit()).then(|| total.parse().ok())?
}

fn is_page(headers: &HeaderMap) -> bool {
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    media.is_some_and(|media| media.to_ascii_lowercase().contains("html"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::HeaderName;

    fn size(status: u16, lines: &str) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines.lines().filter_map(|line| line.split_once(": ")) {
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, value.parse().expect("a value"));
        }
        let status = StatusCode::from_u16(status).expect("a status");
        let name = format!("snapshot-1-{}.tar.zst", "1".repeat(32)).parse().expect("valid");
        super::size(name, &Head { status, headers })
    }

    #[test]
    fn the_head_of_an_archive_or_of_its_first_byte_tells_its_size() {
        for (status, lines, expected) in [
            (200, "content-length: 7", Some(7)),
            (200, "content-length: 7, 7\ncontent-encoding: zstd", Some(7)),
            (206, "content-range: bytes 0-0/7\ncontent-length: 1", Some(7)),
            (200, "", None),
            (200, "content-length: 0", None),
            (200, "content-length: 7, 8", None),
            (200, "content-length: 7\ntransfer-encoding: chunked", None),
            (200, "content-length: 7\ncontent-encoding: gzip", None),
            (200, "content-length: 7\ncontent-type: Text/HTML", None),
            (200, "content-length: 1125899906842625", None),
            (206, "content-length: 1", None),
            (206, "content-range: bytes 0-0/*", None),
            (206, "content-range: bytes 0-1/7", None),
            (206, "content-range: bytes 0-0/+7", None),
            (206, "content-range: bytes 0-0/", None),
            (202, "content-length: 7", None),
            (404, "content-length: 7", None),
        ] {
            assert_eq!(size(status, lines), expected, "{status} {lines}");
        }
    }

    #[test]
    fn what_is_known_will_do_while_heads_are_late_but_not_for_ever() {
        let heads = Heads::default();
        for _ in 0..2 {
            for _ in 1..UNANSWERED_HEADS {
                assert!(heads.were_answered(false));
            }
            assert!(!heads.were_answered(false));
        }
        assert!(heads.were_answered(false));
        assert!(!heads.were_answered(true), "what was answered counts");
        assert_eq!((0..UNANSWERED_HEADS).filter(|_| !heads.were_answered(false)).count(), 1);
    }

    #[test]
    fn a_head_of_no_use_is_not_asked_for_again_at_once() {
        let heads = Heads::default();
        assert!(heads.are_worth_it() && heads.are_worth_it());
        heads.were_useless();
        assert_eq!((0..TIMES_WITHOUT_HEAD).filter(|_| heads.are_worth_it()).count(), 0);
        assert!(heads.are_worth_it());
    }
}
