//! What the index relies on besides what targets say, and the lines of the log about targets that
//! are ahead of it.

use super::reference::Told;
use crate::config::{Config, Trusted};
use crate::index::{Grounds, GroupView, Reference, TargetId};
use crate::snapshot::Slot;

/// Most targets of one view that the log names one by one.
const MAX_LOGGED: usize = 5;

/// What the configuration relies on.
pub(super) fn grounds(config: &Config) -> Grounds {
    let mut grounds = Grounds { max_slot_lead: config.max_slot_lead, ..Grounds::default() };
    for group in &config.groups {
        match &group.trusted {
            Trusted::All => {
                grounds.trusted_groups.insert(group.name.clone());
            }
            Trusted::Some(targets) => {
                let id = |target: &crate::config::HostPort| TargetId {
                    group: group.name.clone(),
                    authority: target.to_string().into(),
                };
                grounds.trusted_targets.extend(targets.iter().map(id));
            }
        }
    }
    grounds
}

/// What the reference node tells.
pub(super) fn reference(told: Option<Told>) -> Reference {
    match told {
        None => Reference::Unknown,
        Some(Told { slot, is_current: true, .. }) => Reference::Current(Slot(slot)),
        Some(Told { slot, at, is_current: false }) => Reference::Last(Slot(slot), at),
    }
}

/// One line for a target that begins to claim what nothing supports, and one when that is over.
pub(super) fn report_ahead(group: &str, before: Option<&GroupView>, after: &GroupView) {
    let was = |target: &TargetId| before.is_some_and(|before| before.ahead.contains_key(target));
    let mut new = after.ahead.iter().filter(|(target, _)| !was(target));
    for (target, ahead) in new.by_ref().take(MAX_LOGGED) {
        log::warn!("target {target} lists {ahead}");
    }
    let more = new.count();
    if more > 0 {
        log::warn!("group `{group}`: {more} more targets list what is too far ahead");
    }
    let old = before.iter().flat_map(|before| before.ahead.keys());
    for target in old.filter(|target| !after.ahead.contains_key(*target)).take(MAX_LOGGED) {
        log::info!("target {target} lists nothing that is too far ahead any more");
    }
}
