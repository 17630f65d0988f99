//! Calls of the JSON API, and whose URLs their answers show.

use pingora_proxy::Session;

use super::head;
use super::service::SnapshotProxy;
use super::visitor::Visitor;
use crate::api::{self, Reference, Urls};
use crate::config::Downloads;
use crate::configured::Configured;
use crate::hops::CdnLoop;
use crate::route::{ApiCall, Failure, Reply};

impl SnapshotProxy {
    /// Answers a call from what is in memory.
    pub(super) fn call(
        &self,
        (session, visitor): (&Session, &Visitor),
        Configured { config, settings, .. }: &Configured,
        call: &ApiCall,
        came: &CdnLoop,
    ) -> Result<Reply, Failure> {
        let shows_urls = matches!(call, ApiCall::Snapshots { .. } | ApiCall::BestSnapshots { .. });
        let group = match call {
            ApiCall::Snapshots { group, .. } | ApiCall::BestSnapshots { group, .. } => group,
            ApiCall::TrackerHealth { .. } | ApiCall::Health { .. } => &None,
        };
        let prefix = visitor.place.prefix_of(group.as_deref());
        let urls = match (settings.downloads, &settings.public_url) {
            (Downloads::Redirect, _) => Urls::Targets,
            (Downloads::Proxy, Some(base)) => Urls::Own(format!("{base}{prefix}")),
            (Downloads::Proxy, None) if shows_urls => {
                Urls::Own(own_base(session, visitor)? + &prefix)
            }
            (Downloads::Proxy, None) => Urls::Own(String::new()),
        };
        let reference = match &config.rpc {
            None => Reference::Unset,
            Some(_) => self.reference.slot().map_or(Reference::Unknown, Reference::Slot),
        };
        Ok(api::answer(call, &self.archives.published.load(), settings, reference, &urls, came))
    }
}

/// Scheme and host under which the request came.
fn own_base(session: &Session, visitor: &Visitor) -> Result<String, Failure> {
    let server = || session.server_addr().and_then(|address| address.as_inet()).copied();
    let named = head::authority(session);
    let has_host = session.req_header().headers.contains_key(http::header::HOST);
    let authority = match named {
        Some(authority) => authority,
        // HTTP/1.0 need not name a host; then it is the address that was connected to.
        None if !has_host => server().ok_or(Failure::Host)?.to_string(),
        None => return Err(Failure::Host),
    };
    Ok(format!("{}://{authority}", visitor.scheme()))
}
