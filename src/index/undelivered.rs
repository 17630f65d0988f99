//! Archives that none of their targets delivers, and what is offered in place of them.
//!
//! A listing says what a target has, and not that it can be had. An archive whose every source was
//! tried and failed is not the best one while something older can be had: short names go back to
//! that, and forward again when one source delivers. Who tries, and when, is in
//! [`Deliveries`](super::Deliveries).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::answer::Answer;
use super::best::{Generation, is_believed};
use super::distrust::are_one;
use super::listing::{Listed, TargetId};
use crate::snapshot::{ArchiveName, Slot};

/// An archive that one target lists and did not deliver when this edge tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// The target.
    pub target: TargetId,
    /// The archive as the target listed it then.
    pub listed: Listed,
    /// The reason, for the log.
    pub why: Arc<str>,
}

impl Undelivered {
    /// Whether this is what a target lists. Another length, time, tag or place is another copy, of
    /// which nothing is known.
    pub fn covers(&self, target: &TargetId, listed: &Listed) -> bool {
        self.target == *target && is_same(&self.listed, listed)
    }
}

/// Whether two listings of one target may be of one copy in one place: whatever both tell is the
/// same.
pub(super) fn is_same(a: &Listed, b: &Listed) -> bool {
    fn place(listed: &Listed) -> Option<(SocketAddr, &str)> {
        listed.location.as_ref().map(|location| (location.address, location.path.as_str()))
    }
    let differs = |differs: Option<bool>| differs == Some(true);
    a.name == b.name
        && !differs(a.size.zip(b.size).map(|(a, b)| a != b))
        && !differs(a.tag.zip(b.tag).map(|(a, b)| a != b))
        && !differs(a.modified.zip(b.modified).map(|(a, b)| !are_one(a, b)))
        && place(a) == place(b)
}

/// The archives that nobody delivers, and the sources of each that failed.
pub(super) type Nowhere = BTreeMap<ArchiveName, Vec<Undelivered>>;

/// Which of the `elected` archives of a group may be offered. What is `undelivered` may where
/// nothing else would be: a try is better than nothing. In turn, the first of these that there is:
///
/// - pairs that can be had, and full archives without incremental ones. A full archive none of
///   whose incremental ones can be had is held back like those;
/// - full archives that can be had, with all that there is on them;
/// - everything.
pub(super) fn offerable(
    elected: &BTreeSet<ArchiveName>,
    undelivered: &Nowhere,
) -> BTreeSet<ArchiveName> {
    if !elected.iter().any(|name| undelivered.contains_key(name)) {
        return elected.clone();
    }
    let can_be_had = |name: &&ArchiveName| !undelivered.contains_key(*name);
    let incrementals = || elected.iter().filter(|name| !name.is_full());
    let with_any: BTreeSet<Slot> = incrementals().map(ArchiveName::base_slot).collect();
    let with_some: BTreeSet<Slot> =
        incrementals().filter(can_be_had).map(ArchiveName::base_slot).collect();
    let fulls: BTreeSet<ArchiveName> =
        elected.iter().filter(|name| name.is_full()).filter(can_be_had).copied().collect();
    if fulls.is_empty() {
        return elected.clone();
    }
    let below = |fulls: &BTreeSet<ArchiveName>| -> BTreeSet<Slot> {
        fulls.iter().map(ArchiveName::slot).collect()
    };
    if fulls.iter().any(|full| with_some.contains(&full.slot())) {
        let is_sound = |full: &&ArchiveName| {
            with_some.contains(&full.slot()) || !with_any.contains(&full.slot())
        };
        let mut offerable: BTreeSet<ArchiveName> = fulls.iter().filter(is_sound).copied().collect();
        let bases = below(&offerable);
        let on_them = incrementals().filter(can_be_had);
        offerable.extend(on_them.filter(|name| bases.contains(&name.base_slot())));
        return offerable;
    }
    let bases = below(&fulls);
    let on_them = incrementals().filter(|name| bases.contains(&name.base_slot()));
    on_them.chain(&fulls).copied().collect()
}

/// The archives of a group that are not told of, since others are offered in place of them, in
/// whatever compression they are listed.
pub(super) fn withheld(
    members: &[(&TargetId, &Answer)],
    elected: &BTreeSet<ArchiveName>,
    offerable: &BTreeSet<ArchiveName>,
    undelivered: &Nowhere,
) -> BTreeSet<ArchiveName> {
    let left_out: BTreeSet<ArchiveName> = elected.difference(offerable).copied().collect();
    if left_out.is_empty() && undelivered.is_empty() {
        return left_out;
    }
    let listed = members.iter().flat_map(|(_, answer)| answer.holdings.keys());
    let is_left_out = |name: &&ArchiveName| {
        let alone = undelivered.contains_key(*name) && !offerable.contains(*name);
        alone || is_believed(name, &left_out)
    };
    listed.filter(is_left_out).chain(&left_out).copied().collect()
}

/// What is left out over all groups, besides what each of them leaves out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Missing {
    /// The archives that nobody delivers.
    pub(super) nowhere: Nowhere,
    /// The archives that nobody delivers, and what groups offer with them that have nothing else;
    /// empty where no group leads to what can be had.
    left_out: BTreeSet<ArchiveName>,
}

impl Missing {
    /// Given what each group leads to.
    pub(super) fn new(nowhere: Nowhere, best: impl Iterator<Item = Generation>) -> Self {
        let (sound, others): (Vec<Generation>, Vec<Generation>) =
            best.partition(|best| best.names().all(|name| !nowhere.contains_key(&name)));
        let mut left_out = BTreeSet::new();
        if !sound.is_empty() {
            let is_offered = |name: &ArchiveName| sound.iter().any(|best| best.full == *name);
            left_out.extend(others.iter().flat_map(Generation::names));
            left_out.retain(|name| !is_offered(name));
            left_out.extend(nowhere.keys());
        }
        Self { nowhere, left_out }
    }

    /// Whether a generation may be offered over all groups.
    pub(super) fn allows(&self, generation: &Generation) -> bool {
        generation.names().all(|name| self.admits(&name))
    }

    /// Whether an archive may be told of over all groups.
    pub(super) fn admits(&self, name: &ArchiveName) -> bool {
        !self.left_out.contains(name)
    }
}
