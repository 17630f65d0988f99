//! Questions about the copy that a target has now, before it is asked for all of it.

use std::time::Duration;

use http::{Method, StatusCode};
use tokio::time::timeout;

use super::probes::OnDemandProbes;
use crate::hops::CdnLoop;
use crate::index::Source;
use crate::route::{ArchiveHead, Asked, Verdict, judge};
use crate::scrape::HeadResponse;
use crate::snapshot::framing;

/// Longest that a target is waited for: Firedancer gives its server a second in all.
const PATIENCE: Duration = Duration::from_millis(800);

impl OnDemandProbes {
    /// The head of the archive as its target has it now, asked by HEAD and as many times at once
    /// as its head probe admits, for a request that `came` through others; `None` where it does not
    /// tell. Many servers do not answer a HEAD as they answer a GET, and that is nothing against
    /// them.
    pub async fn head(&self, source: &Source, came: &CdnLoop) -> Option<ArchiveHead> {
        let name = source.listed.name;
        let (target, handle) = self.head_probes().of(|target| *target == source.target).pop()?;
        let answer = timeout(PATIENCE, handle.ask(&name, came)).await;
        let Ok(Some(Ok(response))) = answer else {
            log::debug!("target {target} does not tell which copy of {name} it has");
            return None;
        };
        // What it lists is known.
        let HeadResponse::Head { status, headers, .. } = response else { return None };
        let length = framing::body_length(&headers).filter(|_| status == StatusCode::OK);
        match judge(&Asked::all(Method::HEAD), source, status, &headers) {
            Verdict::Deliver(head) if length == Some(head.length) => Some(head),
            _ => None,
        }
    }
}
