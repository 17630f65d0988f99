//! Requests under a condition: judged on the copy that their answer would come from, before
//! anything of it is fetched.

use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderValue, Method};

use super::context::Relay;
use super::edge::Edge;
use super::head::CACHE_STATUS;
use super::planning::{Planned, Request};
use crate::index::{CopyId, Source};
use crate::route::{ArchiveHead, Asked, Bypass, CacheStatus, Failure, Judgement, Reply};

/// Whether the target that a request would be answered from was asked for its copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inquiry {
    Open,
    /// The conditions are met, as far as can be told before the archive is asked for.
    Passed,
    /// The target does not tell, and its listing says that they are not met. What the head of the
    /// archive itself says decides, and nothing is begun for the cache.
    Unanswered,
}

/// A request whose target is asked for its copy.
pub(super) struct Inquiring {
    pub(super) request: Request,
    /// Nothing where the one is not there that would have to be asked.
    pub(super) source: Option<Arc<Source>>,
}

impl Request {
    /// True where a target has to be asked before it is asked for the archive. A HEAD is answered
    /// by what it says anyway.
    pub(super) fn wants_inquiry(&self) -> bool {
        let Asked { method, conditions, .. } = &self.asked;
        self.inquiry == Inquiry::Open && *method == Method::GET && !conditions.is_empty()
    }
}

impl Edge {
    /// The answer to a request of which this copy does not meet the conditions; nothing where it
    /// does. `how` is how the copy would come.
    pub(super) fn judged(
        &self,
        asked: &Asked,
        copy: CopyId,
        modified: Option<SystemTime>,
        how: CacheStatus,
    ) -> Option<Reply> {
        if asked.conditions.is_empty() {
            return None;
        }
        let judgement = asked.conditions.judge(copy, modified);
        let reply = judgement.reply(&self.tags.tag(copy), modified)?;
        Some(match HeaderValue::from_str(&how.to_string()) {
            Ok(how) => reply.with(CACHE_STATUS, how),
            Err(_) => reply,
        })
    }

    /// Whether a target's answer ends with its head, which does not meet the conditions. Of the
    /// archive nothing is read.
    pub(super) fn stops_at(&self, head: &ArchiveHead, relay: &mut Relay) -> bool {
        let how = CacheStatus::Bypass(Bypass::Condition);
        let reply = self.judged(relay.asked(), head.copy, head.modified, how);
        reply.map(|reply| relay.reply_with(reply)).is_some()
    }

    /// Asks the target that would be asked for the archive which copy it has, and decides again
    /// where that meets the conditions.
    pub(super) async fn inquire(&self, inquiring: Inquiring) -> Result<Planned, Failure> {
        let Inquiring { mut request, source } = inquiring;
        let Some(source) = source else {
            request.inquiry = Inquiry::Unanswered;
            return self.begin_again(request);
        };
        let asked = &request.asked;
        request.inquiry = if let Some(head) = self.looks.head(&source, &request.came).await {
            let how = CacheStatus::Bypass(Bypass::Condition);
            if let Some(reply) = self.judged(asked, head.copy, head.modified, how) {
                return Ok(Planned::Reply(reply));
            }
            Inquiry::Passed
        } else {
            let judge = |copy| asked.conditions.judge(copy, source.listed.modified);
            if source.copy().map(judge) == Some(Judgement::Met) {
                Inquiry::Passed
            } else {
                Inquiry::Unanswered
            }
        };
        self.begin_again(request)
    }
}
