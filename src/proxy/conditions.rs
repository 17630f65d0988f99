//! Conditions of a request, judged on a copy that is known.

use std::time::SystemTime;

use http::HeaderValue;

use super::head::CACHE_STATUS;
use crate::index::CopyId;
use crate::route::{Asked, CacheStatus, Reply, TagKey};

/// The answer to a request of which this copy does not meet the conditions; nothing where it
/// does. `how` is how the copy would come.
pub(super) fn judged(
    tags: TagKey,
    asked: &Asked,
    copy: CopyId,
    modified: Option<SystemTime>,
    how: CacheStatus,
) -> Option<Reply> {
    if asked.conditions.is_empty() {
        return None;
    }
    let judgement = asked.conditions.judge(copy, modified);
    let reply = judgement.reply(&tags.tag(copy), modified)?;
    Some(match HeaderValue::from_str(&how.to_string()) {
        Ok(how) => reply.with(CACHE_STATUS, how),
        Err(_) => reply,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::scene::{SIZE, request};
    use crate::route::{Bypass, TEST_KEY};
    use http::StatusCode;

    #[test]
    fn conditions_end_in_replies_that_say_how_it_came() {
        let copy = CopyId::new("10.0.0.1:8899", SIZE, None);
        let tag = TEST_KEY.tag(copy);
        let judged = |header: &str| {
            let asked = request(1, "GET", &[&header.replace("TAG", &tag)]).asked;
            let how = CacheStatus::Bypass(Bypass::Condition);
            judged(TEST_KEY, &asked, copy, None, how)
        };
        for header in ["range: bytes=5-", "if-match: TAG", "if-none-match: \"x\""] {
            assert!(judged(header).is_none(), "{header}");
        }
        for (header, status) in [
            ("if-none-match: TAG", StatusCode::NOT_MODIFIED),
            ("if-match: \"x\"", StatusCode::PRECONDITION_FAILED),
        ] {
            let reply = judged(header).expect("a reply");
            assert_eq!(reply.status, status, "{header}");
            let how = reply.headers.iter().find(|(name, _)| *name == CACHE_STATUS);
            let how = how.map(|(_, value)| value.to_str().expect("text"));
            assert_eq!(how, Some("snapedge; fwd=bypass; detail=condition"));
        }
    }
}
