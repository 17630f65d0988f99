//! The published state of the index: immutable, shared, and laid out for the request path.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::ahead::Ahead;
use super::best::{Choice, Generation, choose, promoted};
use super::catalog::{Answer, Held, Listed, Policy, Publish, TargetId};
use super::copy::CopyId;
use super::distinct::distinct;
use super::support::{Peak, Support};
use super::vote::{Conflict, Electorate, elect};
use crate::snapshot::{ArchiveHash, ArchiveName, Compression, Kind, Slot};

/// One archive on one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The target.
    pub target: TargetId,
    /// What it says of the archive.
    pub listed: Listed,
    /// When it said so.
    pub updated_at: SystemTime,
}

impl Source {
    /// Which copy it is, as far as the listing tells.
    pub fn copy(&self) -> Option<CopyId> {
        let Listed { size, modified, .. } = self.listed;
        let size = size?;
        Some(if self.target.is_ledger() {
            CopyId::of_file(&self.target.authority, size, modified)
        } else {
            CopyId::new(&self.target.authority, size, modified)
        })
    }
}

/// One archive on one target, as the tracker API lists it: with the archive below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The archive.
    pub source: Arc<Source>,
    /// For an incremental archive the full one below it, on the same target.
    pub base: Option<Arc<Source>>,
    /// False where most targets list another hash.
    pub believed: bool,
}

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
    /// Those archives, and those of the cache.
    baseless: BTreeSet<ArchiveName>,
    peaks: BTreeMap<TargetId, Peak>,
    elected: HashSet<State>,
    /// What the cache holds for it.
    cached: BTreeSet<ArchiveName>,
    /// What it holds that nothing supports, of targets that are no longer there.
    orphans: BTreeSet<ArchiveName>,
    until: Option<Instant>,
    /// How it came to `best`.
    pub(super) publish: Publish,
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
    /// The same of all entries, and of those, but one for each archive of each group.
    distinct: Vec<usize>,
    newest_distinct: Vec<usize>,
}

impl GroupView {
    /// `local` are the archives of all ledgers, which are as good as cached.
    pub(super) fn new(
        members: &[(&TargetId, &Answer)],
        held: &[&Held],
        local: &BTreeSet<ArchiveName>,
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
        let elected = elect(&Electorate { members, held, baseless: &baseless, trusted: &trusted });
        let cached: BTreeMap<ArchiveName, Instant> =
            held.iter().map(|held| (held.name, held.since.instant)).collect();
        let is_listed =
            |name: &ArchiveName| members.iter().any(|(_, a)| a.holdings.contains_key(name));
        let servable = |name: &ArchiveName| {
            cached.contains_key(name) || (!baseless.contains(name) && is_listed(name))
        };
        let first_seen = |name: &ArchiveName| {
            let holdings = members.iter().filter_map(|(_, a)| a.holdings.get(name));
            let since = holdings.map(|holding| holding.since);
            since.chain(cached.get(name).copied()).min().unwrap_or(now)
        };
        let Choice { wanted, offered, until } =
            choose(&elected.names, &before, servable, first_seen, policy.pair_hold, now);
        let complete = cached.keys().chain(local).copied().collect();
        let best = match policy.publish {
            Publish::Seen => offered,
            Publish::Promoted => {
                promoted(&elected.names, wanted, before.offered, &complete, servable)
            }
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
            until,
            publish: policy.publish,
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
    ) -> Self {
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
            groups.values().any(|group| group.elected.contains(&State::of(name)))
        };
        let best = Generation::newer(
            groups.values().filter_map(|group| group.best),
            previous.best,
            |name| {
                let cached = groups.values().any(|group| group.cached.contains(name));
                (sources.contains_key(name) || cached) && believed(name)
            },
        );
        let is_told = |entry: &Entry| {
            let group = groups.get(&entry.source.target.group);
            entry.believed && group.is_some_and(|group| group.tells_of(entry))
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
        Self { best, groups, sources, entries, newest, distinct, newest_distinct }
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

    /// Every archive that a target lists, in no order.
    pub(super) fn all_sources(&self) -> impl Iterator<Item = (&ArchiveName, &[Arc<Source>])> {
        self.sources.iter().map(|(name, sources)| (name, sources.as_slice()))
    }

    /// True where the cache holds the archive for the group (for any group, for `None`).
    pub(super) fn is_cached(&self, name: &ArchiveName, group: Option<&str>) -> bool {
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

    /// The same of [`View::newest`], of one group or, for `None`, of all of them: then an archive
    /// that several groups have is there once.
    pub fn newest_distinct(&self, group: Option<&str>) -> impl Iterator<Item = &Entry> {
        let in_group =
            move |entry: &&Entry| group.is_none_or(|group| *entry.source.target.group == *group);
        let newest = self.newest_distinct.iter().map(|at| &self.entries[*at]).filter(in_group);
        let mut before = None;
        newest.filter(move |entry| {
            let name = entry.source.listed.name;
            before.replace(name) != Some(name)
        })
    }

    /// When a choice changes although no target says anything new.
    pub fn until(&self) -> Option<Instant> {
        self.groups.values().filter_map(|group| group.until).min()
    }
}

/// What an archive is worth to a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// Short names lead to it, or are to lead to it, and to nothing newer.
    Best,
    /// They lead to it until they can lead to something newer.
    Offered,
    /// They are to lead to a newer one, if they do not yet.
    Superseded,
    /// They lead to nothing of its kind, or to something older: its targets may just not answer.
    Doubtful,
    /// Nothing supports that it is one of this cluster.
    Baseless,
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
