//! The JSON API of the public listener: calls in, [`Reply`] out.
//!
//! It speaks as the Go tracker of rpcpool/solana-cluster does, so that its `fetch` works
//! unmodified; where that has defects they are not copied, and the docstrings say so.

mod health;
mod tracker;

pub use health::{Health, Reference};
pub use tracker::Urls;

use crate::hops::CdnLoop;
use crate::index::View;
use crate::route::{ApiCall, Reply, Settings};

/// Answers a call from what is in memory.
///
/// An edge, whose request `came` through edges, is told of archives that it may have, and how they
/// come here.
///
/// `group` of a health call falls back to the default group, and without one to the best over all.
pub fn answer(
    call: &ApiCall,
    view: &View,
    settings: &Settings,
    reference: Reference,
    urls: &Urls,
    came: &CdnLoop,
) -> Reply {
    let health = |group: Option<&str>| {
        let group = group.or(settings.default_group.as_deref());
        // A group that is not known has no archives, which is what the tracker says of it.
        let best = view.best(group).ok().flatten();
        Health::assess(best, reference, settings.max_snapshot_age)
    };
    match call {
        ApiCall::Snapshots { group, base } if came.is_of_an_edge() => {
            tracker::handed(view, group.as_deref(), *base, urls, came)
        }
        ApiCall::Snapshots { group, base } => {
            tracker::snapshots(view, group.as_deref(), *base, urls)
        }
        ApiCall::BestSnapshots { group, max } => {
            tracker::best_snapshots(view, group.as_deref(), *max, urls)
        }
        ApiCall::TrackerHealth { group } => health(group.as_deref()).tracker_reply(),
        ApiCall::Health { group } => health(group.as_deref()).node_reply(),
    }
}
