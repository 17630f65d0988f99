//! The serving of one archive out of a file: of the cache, complete or as it grows, or of a local
//! directory.

use std::ops::Range;
use std::sync::Arc;

use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora_proxy::{MultiRangeInfo, RangeType};

use super::affinity_table::Delivery;
use crate::cache::{Archive, Record};
use crate::metrics::SourceClass;
use crate::route::{Asked, ByteRange, CacheStatus, ContentRange, PinnedCopy, Selection};

/// The serving of one archive from the cache, complete or as it grows.
pub(super) struct CacheRead {
    pub(super) archive: Archive,
    /// How that came about.
    pub(super) how: CacheStatus,
    pub(super) asked: Asked,
    /// The bytes of the answer on their way; a HEAD has none.
    pub(super) delivery: Option<Delivery>,
}

impl CacheRead {
    /// The copy that is served.
    pub(super) fn copy(&self) -> Arc<PinnedCopy> {
        let Record { target, copy, .. } = self.archive.record();
        Arc::new(PinnedCopy { target: target.clone(), copy: *copy })
    }

    /// Where its bytes come from.
    pub(super) fn class(&self) -> SourceClass {
        match &self.archive {
            Archive::Lent(_) => SourceClass::Ledger,
            Archive::Whole(_) | Archive::Growing(_) => SourceClass::Cache,
        }
    }

    /// The local directory that its bytes come from, where they do.
    pub(super) fn origin(&self) -> Option<Arc<str>> {
        match &self.archive {
            Archive::Lent(lent) => Some(Arc::clone(&lent.record().target.authority)),
            Archive::Whole(_) | Archive::Growing(_) => None,
        }
    }
}

/// What of a cached archive is sent, with the head changed accordingly. Conditions that end in a
/// 304 were judged before.
pub(super) fn select(read: &CacheRead, resp: &mut ResponseHeader) -> RangeType {
    if resp.status != StatusCode::OK {
        return RangeType::None;
    }
    let Record { length: total, copy, .. } = *read.archive.record();
    if read.asked.if_range.as_ref().is_some_and(|condition| !condition.holds(copy)) {
        return RangeType::None;
    }
    let length = |length: u64| (CONTENT_LENGTH, length.to_string());
    let place = |range| (CONTENT_RANGE, ContentRange { range, total }.to_string());
    let (status, headers, body) = match read.asked.range.select(total) {
        Selection::Whole => return RangeType::None,
        Selection::Part(range) => (
            StatusCode::PARTIAL_CONTENT,
            [length(range.len()), place(Some(range))],
            RangeType::Single(positions(range)),
        ),
        Selection::Parts(ranges) => {
            let mut parts = MultiRangeInfo::new(ranges.into_iter().map(positions).collect());
            parts.set_total_length(position(total));
            parts.set_content_type(read.archive.record().name.compression().content_type().into());
            let kind = format!("multipart/byteranges; boundary={}", parts.boundary);
            let all = (CONTENT_LENGTH, parts.calculate_multipart_length().to_string());
            (StatusCode::PARTIAL_CONTENT, [all, (CONTENT_TYPE, kind)], RangeType::Multi(parts))
        }
        Selection::Unsatisfiable => {
            (StatusCode::RANGE_NOT_SATISFIABLE, [length(0), place(None)], RangeType::Invalid)
        }
    };
    match changed(resp, status, headers) {
        Ok(head) => {
            *resp = head;
            body
        }
        Err(error) => {
            log::error!("cannot make the head of a part: {error}");
            RangeType::None
        }
    }
}

fn changed(
    head: &ResponseHeader,
    status: StatusCode,
    headers: [(HeaderName, String); 2],
) -> Result<ResponseHeader> {
    let mut head = head.clone();
    head.set_status(status)?;
    for (name, value) in headers {
        head.insert_header(name, value)?;
    }
    if status == StatusCode::RANGE_NOT_SATISFIABLE {
        head.remove_header(&CONTENT_TYPE);
    }
    Ok(head)
}

fn positions(range: ByteRange) -> Range<usize> {
    position(range.start())..position(range.end())
}

/// A position in something that is mapped, and so fits the address space.
fn position(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Lent;
    use crate::index::CopyId;
    use crate::proxy::cache_phases::cached_head;
    use crate::proxy::scene::{SIZE, name, node, request};
    use crate::route::TEST_KEY;
    use std::time::UNIX_EPOCH;
    use tokio::sync::Semaphore;

    fn read(headers: &[&str]) -> CacheRead {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(SIZE).expect("room");
        let target = node(1);
        let copy = CopyId::new(&target.authority, SIZE, None);
        let record =
            Record { name: name(), target, length: SIZE, copy, modified: None, sealed: UNIX_EPOCH };
        let lent = Lent::new(file, record, Arc::new(Semaphore::new(1))).expect("a file");
        let archive = Archive::Lent(Arc::new(lent));
        let asked = request(1, "GET", headers).asked;
        CacheRead { archive, how: CacheStatus::Lent, asked, delivery: None }
    }

    /// Status, content length and place of what is sent, and how it is cut.
    #[track_caller]
    fn check(headers: &[&str], status: u16, length: u64, place: Option<&str>, cut: &str) {
        let read = read(headers);
        let mut head = cached_head(read.archive.record()).expect("a head");
        let shown = match select(&read, &mut head) {
            RangeType::None => "all".to_owned(),
            RangeType::Single(range) => format!("{range:?}"),
            RangeType::Multi(parts) => format!("{} parts", parts.ranges.len()),
            RangeType::Invalid => "nothing".to_owned(),
        };
        let text = |name: HeaderName| {
            head.headers.get(name).map(|value| value.to_str().expect("text").to_owned())
        };
        assert_eq!((head.status.as_u16(), &*shown), (status, cut), "{headers:?}");
        if status != 206 || place.is_some() {
            assert_eq!(text(CONTENT_LENGTH), Some(length.to_string()), "{headers:?}");
        }
        assert_eq!(text(CONTENT_RANGE).as_deref(), place, "{headers:?}");
    }

    #[test]
    fn a_range_is_cut_out_where_its_condition_holds() {
        check(&[], 200, 1000, None, "all");
        check(&["range: bytes=5-9"], 206, 5, Some("bytes 5-9/1000"), "5..10");
        check(&["range: bytes=990-2000"], 206, 10, Some("bytes 990-999/1000"), "990..1000");
        check(&["range: bytes=-1"], 206, 1, Some("bytes 999-999/1000"), "999..1000");
        check(&["range: bytes=0-0,9-9"], 206, 0, None, "2 parts");
        check(&["range: bytes=1000-"], 416, 0, Some("bytes */1000"), "nothing");
        check(&["range: lines=5-9"], 200, 1000, None, "all");
        let tag = format!("if-range: {}", TEST_KEY.tag(read(&[]).copy().copy));
        check(&["range: bytes=5-9", &tag], 206, 5, Some("bytes 5-9/1000"), "5..10");
        check(&["range: bytes=5-9", "if-range: \"x\""], 200, 1000, None, "all");
    }

    #[test]
    fn what_is_no_archive_is_sent_as_it_is() {
        let read = read(&["range: bytes=5-9"]);
        let mut head = ResponseHeader::build(StatusCode::NOT_FOUND, None).expect("a head");
        assert!(matches!(select(&read, &mut head), RangeType::None));
        assert_eq!(head.status, StatusCode::NOT_FOUND);
        assert_eq!(read.origin().as_deref(), Some("10.0.0.1:8899"));
    }
}
