//! The published state of the index: immutable, shared, and laid out for the request path.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::ahead::Ahead;
use super::answer::Answer;
use super::best::{Choice, Generation, choose, promoted};
use super::distinct::distinct;
use super::entry::{Entry, Source};
use super::listing::{Held, Listed, TargetId};
use super::policy::{Policy, Publish};
use super::support::{Peak, Support};
use super::told::{Told, ToldByName, told};
use super::undelivered::{Missing, Nowhere, Undelivered, offerable, withheld};
use super::vote::{Conflict, Electorate, elect};
use super::worth::Worth;
use crate::snapshot::{ArchiveHash, ArchiveName, Compression, Kind, Slot};

/// What one group has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupView {
    /// What the short names lead to.
    pub best: Option<Generation>,
    /// What they are to lead to: `best`, or what is newer and has yet to be cached.
    pub wanted: Option<Generation>,
    /// Disagreements between its targets.
    pub conflicts: Vec<Conflict>,
    /// Targets that list archives at slots that nothing supports.
    pub ahead: BTreeMap<TargetId, Ahead>,
    /// The archives at those slots, and those of the cache.
    baseless: BTreeSet<ArchiveName>,
    peaks: BTreeMap<TargetId, Peak>,
    elected: HashSet<State>,
    /// What the cache holds for it.
    cached: BTreeSet<ArchiveName>,
    /// What it holds that nothing supports, of targets that are no longer there.
    orphans: BTreeSet<ArchiveName>,
    /// Archives that no target delivers, or that are of no use without those.
    withheld: BTreeSet<ArchiveName>,
    until: Option<Instant>,
    /// How it came to `best`.
    publish: Publish,
    /// Whether all of its targets were found and heard, or failed.
    surveyed: bool,
}

/// Everything that requests are answered from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    best: Option<Generation>,
    groups: BTreeMap<Arc<str>, GroupView>,
    sources: HashMap<ArchiveName, Vec<Arc<Source>>>,
    entries: Vec<Entry>,
    /// Positions in `entries` of the believed ones that are told of, the newest first.
    newest: Vec<usize>,
    /// Positions of one entry for each archive of each group, in the order of all.
    distinct: Vec<usize>,
    newest_distinct: Vec<usize>,
    missing: Missing,
    told: ToldByName,
}

/// What is known of archives besides what the targets of one group say.
#[derive(Clone, Copy)]
pub(super) struct Having<'a> {
    /// The archives of all ledgers, which are as good as cached.
    pub(super) local: &'a BTreeSet<ArchiveName>,
    /// The archives that no target delivers.
    pub(super) nowhere: &'a Nowhere,
}

impl GroupView {
    pub(super) fn new(
        members: &[(&TargetId, &Answer)],
        held: &[&Held],
        Having { local, nowhere }: Having<'_>,
        support: Support,
        before: Option<&Self>,
        policy: Policy,
        now: Instant,
    ) -> Self {
        let before = before.map_or_else(Choice::default, |before| Choice {
            wanted: before.wanted,
            offered: before.best,
            until: before.until,
        });
        let Support { baseless, ahead, peaks, orphans, trusted } = support;
        let elected =
            elect(&Electorate { members, held, baseless: &baseless, trusted: &trusted, nowhere });
        let names = offerable(&elected.names, nowhere);
        let withheld = withheld(members, &elected.names, &names, nowhere);
        let cached: BTreeMap<ArchiveName, Instant> =
            held.iter().map(|held| (held.name, held.since.instant)).collect();
        let is_listed =
            |name: &ArchiveName| members.iter().any(|(_, a)| a.holdings.contains_key(name));
        let servable = |name: &ArchiveName| {
            let is_there =
                cached.contains_key(name) || (!baseless.contains(name) && is_listed(name));
            is_there && !withheld.contains(name)
        };
        let first_seen = |name: &ArchiveName| {
            let holdings = members.iter().filter_map(|(_, a)| a.holdings.get(name));
            let since = holdings.map(|holding| holding.since);
            since.chain(cached.get(name).copied()).min().unwrap_or(now)
        };
        let Choice { wanted, offered, until } =
            choose(&names, &before, servable, first_seen, policy.pair_hold, now);
        let complete = cached.keys().chain(local).copied().collect();
        let best = match policy.publish {
            Publish::Seen => offered,
            Publish::Promoted => promoted(&names, wanted, before.offered, &complete, servable),
        };
        let cached = cached.keys().copied().collect();
        Self {
            best,
            wanted,
            conflicts: elected.conflicts,
            ahead,
            peaks,
            baseless,
            orphans,
            elected: elected.names.iter().map(State::of).collect(),
            cached,
            withheld,
            until,
            publish: policy.publish,
            surveyed: false,
        }
    }

    /// This view of the group, with whether all of its targets were found and heard, or failed.
    pub(super) fn surveyed(self, surveyed: bool) -> Self {
        Self { surveyed, ..self }
    }

    /// True for an archive in place of which others are offered, since no target delivers it.
    pub fn withholds(&self, name: &ArchiveName) -> bool {
        self.withheld.contains(name)
    }

    /// Whether an entry may be told of as one of the newest: where clients are led to nothing but
    /// what is cached, none is that is newer than what they are led to.
    fn tells_of(&self, entry: &Entry) -> bool {
        match self.publish {
            Publish::Seen => true,
            Publish::Promoted => {
                let mut chain = std::iter::once(&entry.source).chain(&entry.base);
                self.best.is_some_and(|best| chain.all(|part| best.reaches(&part.listed.name)))
            }
        }
    }

    /// What each target is known to have reached.
    pub(super) fn peaks(&self) -> &BTreeMap<TargetId, Peak> {
        &self.peaks
    }
}

impl View {
    pub(super) fn new<'a>(
        previous: &Self,
        groups: BTreeMap<Arc<str>, GroupView>,
        targets: impl Iterator<Item = (&'a TargetId, &'a Answer)>,
        cached: impl Iterator<Item = &'a Held>,
        nowhere: Nowhere,
    ) -> Self {
        let missing = Missing::new(nowhere, groups.values().filter_map(|group| group.best));
        let mut sources: HashMap<ArchiveName, Vec<Arc<Source>>> = HashMap::new();
        let mut entries = Vec::new();
        for (id, answer) in targets {
            let held = held_by(id, answer);
            for source in held.values() {
                sources.entry(source.listed.name).or_default().push(Arc::clone(source));
            }
            let baseless = groups.get(&id.group).map(|group| &group.baseless);
            let stands = |name: &ArchiveName| baseless.is_none_or(|names| !names.contains(name));
            let held = held.into_iter().filter(|(name, _)| stands(name)).collect();
            entries.extend(entries_of(&held, believed_in(&groups, &id.group)));
        }
        // What does not count in its group is not listed either.
        let counts = |held: &&Held| {
            groups.get(&held.target.group).is_some_and(|group| group.cached.contains(&held.name))
        };
        let cached: Vec<&Held> = cached.filter(counts).collect();
        for group in groups.keys() {
            entries.extend(only_cached(&cached, group, &groups, &sources));
        }
        // Stable: what only the cache has comes after the targets of its group.
        entries.sort_by(|a, b| a.source.target.group.cmp(&b.source.target.group));
        let believed = |name: &ArchiveName| {
            let is_offered = |group: &GroupView| {
                group.elected.contains(&State::of(name)) && !group.withholds(name)
            };
            missing.admits(name) && groups.values().any(is_offered)
        };
        let best = Generation::newer(
            groups.values().filter_map(|group| group.best).filter(|best| missing.allows(best)),
            previous.best.filter(|best| missing.allows(best)),
            |name| {
                let cached = groups.values().any(|group| group.cached.contains(name));
                (sources.contains_key(name) || cached) && believed(name)
            },
        );
        let is_told = |entry: &Entry| {
            let group = groups.get(&entry.source.target.group);
            let name = &entry.source.listed.name;
            let is_told = |group: &GroupView| group.tells_of(entry) && !group.withholds(name);
            entry.believed && group.is_some_and(is_told)
        };
        let newest_of = |places: &[usize]| {
            let mut newest: Vec<usize> =
                places.iter().copied().filter(|at| is_told(&entries[*at])).collect();
            // Stable: at equal worth by group and target, as the entries are.
            newest.sort_by_key(|at| Reverse(entries[*at].source.listed.name));
            newest
        };
        let all: Vec<usize> = (0..entries.len()).collect();
        let distinct = distinct(&entries);
        let (newest, newest_distinct) = (newest_of(&all), newest_of(&distinct));
        let told = told(&sources, &cached);
        Self { best, groups, sources, entries, newest, distinct, newest_distinct, missing, told }
    }

    /// The generation that short names of `group` lead to, over all groups for `None`.
    ///
    /// `Err` for a group that is not configured.
    pub fn best(&self, group: Option<&str>) -> Result<Option<Generation>, UnknownGroup> {
        match group {
            None => Ok(self.best),
            Some(name) => self.groups.get(name).map(|group| group.best).ok_or(UnknownGroup),
        }
    }

    /// The generation that each group wants, where it knows of one: what to fetch before clients
    /// ask for it.
    pub fn wanted(&self) -> impl Iterator<Item = (&Arc<str>, Generation)> {
        self.groups.iter().filter_map(|(name, group)| Some((name, group.wanted?)))
    }

    /// True for an archive that short names lead to or are to lead to, of whichever group.
    pub fn is_best(&self, name: &ArchiveName) -> bool {
        let of_groups = self.groups.values().flat_map(|group| [group.best, group.wanted]);
        of_groups.chain([self.best]).flatten().any(|best| best.names().any(|best| best == *name))
    }

    /// Whether an archive that came from `group` is worth keeping.
    pub fn worth(&self, name: &ArchiveName, group: &str) -> Worth {
        let is_wanted =
            |view: &GroupView| view.wanted.is_some_and(|g| g.names().any(|n| n == *name));
        if self.groups.values().any(is_wanted) {
            return Worth::Best;
        }
        if self.is_best(name) {
            return Worth::Offered;
        }
        if self.groups.get(group).is_some_and(|group| group.baseless.contains(name)) {
            return Worth::Baseless;
        }
        let wanted = self.groups.get(group).and_then(|group| group.wanted);
        let newer = wanted.is_some_and(|wanted| match (name.is_full(), wanted.incremental) {
            (false, Some(incremental)) => incremental > *name,
            (true, _) | (false, None) => wanted.full > *name,
        });
        if newer { Worth::Superseded } else { Worth::Doubtful }
    }

    /// True for an archive that the cache has of `group` and that is to go: nothing supports it,
    /// and the target that it came from is not there any more.
    pub fn is_orphan(&self, name: &ArchiveName, group: &str) -> bool {
        self.groups.get(group).is_some_and(|group| group.orphans.contains(name))
    }

    /// True for an archive that the cache has of a group that is not configured any more, and that
    /// no other group has. That is known once all of those offer something: one that was renamed
    /// has the archive once its targets have answered, and not before.
    pub fn is_forsaken(&self, name: &ArchiveName, group: &str) -> bool {
        let offers = |group: &GroupView| group.best.is_some();
        self.is_complete()
            && self.groups.values().all(offers)
            && !self.groups.contains_key(group)
            && !self.is_held(name, None)
    }

    /// Whether all targets of all groups were found and heard, or failed.
    pub fn is_complete(&self) -> bool {
        !self.groups.is_empty() && self.groups.values().all(|group| group.surveyed)
    }

    /// True where a target of the group (of any group, for `None`) lists the archive, or the cache
    /// holds it for the group.
    pub fn is_held(&self, name: &ArchiveName, group: Option<&str>) -> bool {
        let is_asked = |other: &str| group.is_none_or(|group| group == other);
        self.sources(name).iter().any(|source| is_asked(&source.target.group))
            || self.is_cached(name, group)
    }

    /// What one group has.
    pub fn group(&self, name: &str) -> Option<&GroupView> {
        self.groups.get(name)
    }

    /// Every group, by name.
    pub fn groups(&self) -> impl Iterator<Item = (&Arc<str>, &GroupView)> {
        self.groups.iter()
    }

    /// Every copy of an archive on a target, in the order of the targets.
    pub fn sources(&self, name: &ArchiveName) -> &[Arc<Source>] {
        self.sources.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether other targets of a group than this one have archives that `is_missing`, newer than
    /// those of their kind that are offered.
    pub fn has_rivals(&self, target: &TargetId, is_missing: impl Fn(&ArchiveName) -> bool) -> bool {
        let best = self.group(&target.group).and_then(|group| group.best);
        let is_newer = |name: &ArchiveName| {
            let offered =
                best.and_then(|best| best.names().find(|of| of.is_full() == name.is_full()));
            offered.is_none_or(|offered| *name > offered)
        };
        let is_of_others =
            |source: &Arc<Source>| source.target.group == target.group && source.target != *target;
        self.all_sources().any(|(name, sources)| {
            is_newer(name) && is_missing(name) && sources.iter().any(is_of_others)
        })
    }

    /// Every archive that a target lists, in no order.
    pub(super) fn all_sources(&self) -> impl Iterator<Item = (&ArchiveName, &[Arc<Source>])> {
        self.sources.iter().map(|(name, sources)| (name, sources.as_slice()))
    }

    /// The archives that no target delivers, and how each of their sources failed.
    pub fn undelivered(&self) -> impl Iterator<Item = (&ArchiveName, &[Undelivered])> {
        self.missing.nowhere.iter().map(|(name, failed)| (name, failed.as_slice()))
    }

    /// True for an archive that no target delivers.
    pub fn is_undelivered(&self, name: &ArchiveName) -> bool {
        self.missing.nowhere.contains_key(name)
    }

    /// True where the cache holds the archive for the group (for any group, for `None`).
    pub fn is_cached(&self, name: &ArchiveName, group: Option<&str>) -> bool {
        let is_asked = |other: &str| group.is_none_or(|group| group == other);
        self.groups.iter().any(|(id, group)| is_asked(id) && group.cached.contains(name))
    }

    /// True where a ledger has the archive: nobody need fetch it.
    pub fn is_local(&self, name: &ArchiveName) -> bool {
        self.sources(name).iter().any(|source| source.target.is_ledger())
    }

    /// Every archive on every target, by group, target and worth, the best first; in each group
    /// followed by what only the cache has.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The archives that are believed, over all targets, the best first. Where clients are led to
    /// nothing but what is cached, none is among them that is newer than what they are led to.
    pub fn newest(&self) -> impl Iterator<Item = &Entry> {
        self.newest.iter().map(|at| &self.entries[*at])
    }

    /// One of the entries for each archive of each group, by group and worth, the best first.
    pub fn distinct(&self) -> impl Iterator<Item = &Entry> {
        self.distinct.iter().map(|at| &self.entries[*at])
    }

    /// The believed entries as [`View::newest`] has them, of one group or, for `None`, of all: then
    /// an archive that several groups have is there once.
    pub fn newest_distinct(&self, group: Option<&str>) -> impl Iterator<Item = &Entry> {
        let in_group = move |entry: &&Entry| match group {
            Some(group) => *entry.source.target.group == *group,
            None => self.missing.admits(&entry.source.listed.name),
        };
        let newest = self.newest_distinct.iter().map(|at| &self.entries[*at]).filter(in_group);
        let mut before = None;
        newest.filter(move |entry| {
            let name = entry.source.listed.name;
            before.replace(name) != Some(name)
        })
    }

    /// What is told of a source's archive to those who get it from this edge, of whichever target.
    pub fn told(&self, source: &Source) -> Told {
        self.told.of(source)
    }

    /// When a choice changes although no target says anything new.
    pub fn until(&self) -> Option<Instant> {
        self.groups.values().filter_map(|group| group.until).min()
    }
}

/// The asked group is not configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownGroup;

fn held_by(id: &TargetId, answer: &Answer) -> BTreeMap<ArchiveName, Arc<Source>> {
    let source = |listed: &Listed| Source {
        target: id.clone(),
        listed: listed.clone(),
        updated_at: answer.at.wall,
    };
    let holdings = answer.holdings.iter();
    holdings.map(|(name, holding)| (*name, Arc::new(source(&holding.listed)))).collect()
}

/// Which archives of a group are believed.
fn believed_in<'a>(
    groups: &'a BTreeMap<Arc<str>, GroupView>,
    group: &str,
) -> impl Fn(&ArchiveName) -> bool + use<'a> {
    let elected = groups.get(group).map(|group| &group.elected);
    move |name| elected.is_some_and(|states| states.contains(&State::of(name)))
}

/// The archives of a group that the cache holds and no target lists any more.
fn only_cached(
    cached: &[&Held],
    group: &Arc<str>,
    groups: &BTreeMap<Arc<str>, GroupView>,
    sources: &HashMap<ArchiveName, Vec<Arc<Source>>>,
) -> Vec<Entry> {
    let source = |held: &&Held| Source {
        target: held.target.clone(),
        listed: Listed {
            name: held.name,
            size: Some(held.size),
            modified: held.modified,
            tag: None,
            location: None,
        },
        updated_at: held.since.wall,
    };
    let held = cached.iter().filter(|held| held.target.group == *group);
    let held: BTreeMap<_, _> = held.map(|held| (held.name, Arc::new(source(held)))).collect();
    let listed = |name: &ArchiveName| {
        let mut sources = sources.get(name).into_iter().flatten();
        sources.any(|source| source.target.group == *group)
    };
    let entries = entries_of(&held, believed_in(groups, group));
    entries.filter(|entry| !listed(&entry.source.listed.name)).collect()
}

/// What an archive is an archive of, in whatever compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    kind: Kind,
    slot: Slot,
    hash: ArchiveHash,
}

impl State {
    fn of(name: &ArchiveName) -> Self {
        Self { kind: name.kind(), slot: name.slot(), hash: name.hash() }
    }
}

/// Best first. An incremental archive without the full one below it is of no use to the clients of
/// the tracker API, which fetch all files of an entry from one place.
fn entries_of(
    held: &BTreeMap<ArchiveName, Arc<Source>>,
    believed: impl Fn(&ArchiveName) -> bool,
) -> impl Iterator<Item = Entry> {
    held.iter().rev().filter_map(move |(name, source)| {
        let base = if name.is_full() { None } else { Some(full_at(held, name.base_slot())?) };
        let stands = base.is_none_or(|base| believed(&base.listed.name));
        Some(Entry {
            source: Arc::clone(source),
            base: base.cloned(),
            believed: stands && believed(name),
        })
    })
}

/// The full archive at `slot`, in its best compression.
fn full_at(held: &BTreeMap<ArchiveName, Arc<Source>>, slot: Slot) -> Option<&Arc<Source>> {
    let greatest = ArchiveName::full(slot, ArchiveHash::new([0xff; 32]), Compression::Zstd);
    let (name, source) = held.range(..=greatest).next_back()?;
    (name.is_full() && name.slot() == slot).then_some(source)
}
