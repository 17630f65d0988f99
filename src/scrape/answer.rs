//! What is taken from an answer of a target, whatever was asked. Pure.

use http::StatusCode;

use crate::snapshot::ArchiveName;

/// Redirects that are followed from a short form, or from the name of an archive.
pub(super) const MAX_REDIRECTS: usize = 5;
/// Largest size that is believed, in bytes: a pebibyte, so that sums of sizes cannot overflow.
pub(super) const MAX_SIZE: u64 = 1 << 50;

/// The archive that a path is the path of.
pub(super) fn archive_at(path: &str) -> Option<ArchiveName> {
    path.rsplit('/').next()?.parse().ok()
}

/// Whether an answer leads elsewhere. A 300 leaves the choice to its reader, a 304 leads nowhere.
pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301..=303 | 307 | 308)
}

/// Whether a status says only that this is not the time to ask.
pub(super) fn is_for_later(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 421 | 425 | 429 | 451 | 502 | 504..)
}

/// Whether a status says of whatever is asked that this is not the time for it.
pub(super) fn asks_to_wait(status: u16) -> bool {
    matches!(status, 408 | 421 | 425 | 429 | 451 | 503)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_elsewhere_says_where() {
        let leads = |status: &u16| is_redirect(StatusCode::from_u16(*status).expect("a status"));
        let all: Vec<u16> = (100..600).filter(leads).collect();
        assert_eq!(all, [301, 302, 303, 307, 308]);
    }

    #[test]
    fn what_asks_to_wait_is_for_later_but_for_a_node_without_archives() {
        for status in [408, 421, 425, 429, 451] {
            assert!(asks_to_wait(status), "{status}");
            assert!(is_for_later(StatusCode::from_u16(status).expect("a status")), "{status}");
        }
        // A node without archives says 503 of a short form.
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        assert!(asks_to_wait(unavailable.as_u16()) && !is_for_later(unavailable));
    }
}
