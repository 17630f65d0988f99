//! What is told of an archive to those who get it from this edge, whichever of its copies that is.
//! Pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::entry::Source;
use super::listing::Held;
use crate::snapshot::ArchiveName;

/// What is true of every copy that may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Bytes; nothing where targets have copies of several lengths.
    pub size: Option<u64>,
    /// When it last changed; nothing where that differs.
    pub modified: Option<SystemTime>,
}

/// The archives of each group whose copies differ, or one of which is cached: that one is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ToldByName(HashMap<(Arc<str>, ArchiveName), Told>);

/// What is told of archives otherwise than one of their sources says. `sources` are in the order
/// of the targets, and so of the groups.
pub(super) fn told(
    sources: &HashMap<ArchiveName, Vec<Arc<Source>>>,
    cached: &[&Held],
) -> ToldByName {
    let mut told = HashMap::new();
    for (name, sources) in sources {
        for of_group in sources.chunk_by(|one, other| one.target.group == other.target.group) {
            let Some(first) = of_group.first() else { continue };
            let own = Told { size: first.listed.size, modified: first.listed.modified };
            let is_same = |of: &dyn Fn(&Source) -> bool| of_group.iter().all(|source| of(source));
            let common = Told {
                size: own.size.filter(|_| is_same(&|of| of.listed.size == own.size)),
                modified: own
                    .modified
                    .filter(|_| is_same(&|of| of.listed.modified == own.modified)),
            };
            if of_group.len() > 1 && common != own {
                told.insert((Arc::clone(&first.target.group), *name), common);
            }
        }
    }
    for held in cached {
        let told_of = Told { size: Some(held.size), modified: held.modified };
        told.insert((Arc::clone(&held.target.group), held.name), told_of);
    }
    ToldByName(told)
}

impl ToldByName {
    /// What is told of a source's archive.
    pub(super) fn of(&self, source: &Source) -> Told {
        let Source { target, listed, .. } = source;
        let told = self.0.get(&(Arc::clone(&target.group), listed.name)).copied();
        told.unwrap_or(Told { size: listed.size, modified: listed.modified })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;
    use crate::index::{Listed, TargetId};
    use std::time::{Duration, UNIX_EPOCH};

    fn name() -> ArchiveName {
        format!("snapshot-1000-{}.tar.zst", "1".repeat(32)).parse().expect("valid")
    }

    fn source(group: &str, target: &str, size: Option<u64>, modified: u64) -> Arc<Source> {
        let modified = Some(UNIX_EPOCH + Duration::from_secs(modified));
        let listed = Listed { name: name(), size, modified, tag: None, location: None };
        let target = TargetId { group: group.into(), authority: target.into() };
        Arc::new(Source { target, listed, updated_at: UNIX_EPOCH })
    }

    #[test]
    fn what_differs_is_not_told_but_of_the_copy_that_is_cached() {
        let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
        let check = |sources: &[Arc<Source>], held: Option<u64>, expected: Option<Told>| {
            let held = held.map(|size| Held {
                name: name(),
                target: sources[0].target.clone(),
                size,
                modified: at(3),
                since: Now::read(),
                age: Duration::ZERO,
            });
            let held: Vec<&Held> = held.iter().collect();
            let all = HashMap::from([(name(), sources.to_vec())]);
            let told = told(&all, &held);
            assert_eq!(told.0.get(&("g".into(), name())).copied(), expected, "{sources:?}");
        };
        let (one, same) = (source("g", "a:1", Some(7), 1), source("g", "b:1", Some(7), 1));
        let (longer, later) = (source("g", "c:1", Some(8), 1), source("g", "d:1", Some(7), 2));
        let unknown = source("g", "e:1", None, 1);
        let elsewhere = source("h", "a:1", Some(9), 9);
        let told_of = |size, modified| Some(Told { size, modified });
        check(&[Arc::clone(&one)], None, None);
        check(&[Arc::clone(&one), same, elsewhere], None, None);
        check(&[Arc::clone(&one), longer], None, told_of(None, at(1)));
        check(&[Arc::clone(&one), Arc::clone(&later)], None, told_of(Some(7), None));
        check(&[Arc::clone(&one), unknown], None, told_of(None, at(1)));
        check(&[one, later], Some(5), told_of(Some(5), at(3)));
    }
}
