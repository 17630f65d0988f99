//! The archives that another edge is told of: none that it, or who asks through it, is on the way
//! of, and of each archive the shortest way.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::entry::Source;
use super::listing::Listed;
use super::view::View;
use crate::hops::{CdnLoop, Via};
use crate::snapshot::ArchiveName;

impl View {
    /// The shortest way by which a request that `came` through edges may have an archive of the
    /// group (of any one, for `None`); nothing where it may not.
    pub fn way(&self, name: &ArchiveName, group: Option<&str>, came: &CdnLoop) -> Option<Via> {
        let sources = self.sources(name).iter();
        let of_group =
            sources.filter(|source| group.is_none_or(|group| *source.target.group == *group));
        let ways = of_group.map(|source| source.via()).filter(|via| may_have(came, via));
        let shortest = ways.min_by_key(|via| via.edges().len()).cloned();
        shortest.or_else(|| self.is_cached(name, group).then(Via::kept))
    }

    /// Everything that an edge may have whose request `came` this way, the newest first: each
    /// archive once, and how it comes here.
    pub fn handed(&self, group: Option<&str>, came: &CdnLoop) -> Vec<(Arc<Source>, Via)> {
        let in_group =
            |source: &&Arc<Source>| group.is_none_or(|group| *source.target.group == *group);
        let mut handed = BTreeMap::new();
        for (name, sources) in self.all_sources() {
            let sources = || sources.iter().filter(in_group);
            let admitted = sources().filter(|source| may_have(came, source.via()));
            if let Some(source) = admitted.min_by_key(|source| source.via().edges().len()) {
                handed.insert(Reverse(*name), (Arc::clone(source), source.via().clone()));
            } else if let Some(source) = sources().next().filter(|_| self.is_cached(name, group)) {
                handed.insert(Reverse(*name), (Arc::new(source.unsized_copy()), Via::kept()));
            }
        }
        let entries = self.entries().iter().map(|entry| &entry.source).filter(in_group);
        for source in entries.filter(|source| source.is_kept()) {
            let kept = || (Arc::clone(source), Via::kept());
            handed.entry(Reverse(source.listed.name)).or_insert_with(kept);
        }
        handed.into_values().collect()
    }
}

fn may_have(came: &CdnLoop, via: &Via) -> bool {
    via.goes_on() && came.admits(via)
}

impl Source {
    /// True for what only the cache has.
    fn is_kept(&self) -> bool {
        self.listed.location.is_none() && !self.target.is_ledger()
    }

    /// An archive of this name of which no more is known: what the cache has is another copy.
    fn unsized_copy(&self) -> Self {
        let listed = Listed {
            name: self.listed.name,
            size: None,
            modified: None,
            tag: None,
            location: None,
        };
        Self { listed, target: self.target.clone(), updated_at: self.updated_at }
    }
}
