//! The accesses of this moment, by keys that outlive a change of the configuration.
//!
//! What was listed by an access has its key. Where a new configuration has the same targets, its
//! access takes the place of the old one under that key, so that what is asked from then on is
//! asked in the new way. Otherwise the old one is kept for as long as anything has its key: no
//! target is ever asked with what was meant for another one.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::tls::Authorities;
use super::{Access, AccessError};
use crate::config::{Config, Group, HostPort, Sources};
use crate::hops::EdgeId;
use crate::index::AccessKey;

/// The accesses of all targets.
pub struct Accesses {
    table: ArcSwap<Table>,
    /// Who this edge is where the configuration does not say.
    unnamed: EdgeId,
}

/// The accesses of a configuration, ready to take the place of those before.
pub struct Prepared {
    table: Table,
    /// The accesses, and their entries as they were read just now.
    read: Vec<(Arc<Access>, Group)>,
}

struct Table {
    /// The entries of the configuration, in their order.
    entries: Vec<Entry>,
    /// All accesses, also of entries that are gone, by the number of their keys.
    by_key: BTreeMap<u64, Arc<Access>>,
    edge: EdgeId,
    /// The number of the next key.
    next: u64,
}

/// An entry of the configuration.
#[derive(Clone)]
struct Entry {
    access: Arc<Access>,
    /// Where its targets come from.
    sources: Sources,
    /// Whether all that was ever listed by its key is of those.
    is_only_theirs: bool,
}

impl Entry {
    /// Whether it leads to what this entry of another configuration names, in whichever way, and
    /// its key to nothing else.
    fn leads_to(&self, other: &Group) -> bool {
        let way = (self.access.group(), self.access.scheme());
        self.is_only_theirs && way == (&other.name, other.scheme) && self.sources == other.sources
    }

    /// The entry of another configuration that is reached in the same way.
    fn of(self, other: &Group) -> Self {
        let all = |targets: &[HostPort]| targets.iter().cloned().collect::<BTreeSet<_>>();
        let (before, after) = (&self.sources, &other.sources);
        let is_more = all(&before.static_targets).is_subset(&all(&after.static_targets));
        let static_targets = before.static_targets.clone();
        let is_more = is_more && *before == Sources { static_targets, ..after.clone() };
        let is_only_theirs = self.is_only_theirs && is_more;
        Self { access: self.access, sources: other.sources.clone(), is_only_theirs }
    }
}

impl Accesses {
    /// Sets up what the configuration says.
    pub fn new(config: &Config) -> Result<Self, AccessError> {
        // The keys of a new hasher are random.
        let unnamed = EdgeId::of_bits(RandomState::new().hash_one(0));
        let empty =
            Table { entries: Vec::new(), by_key: BTreeMap::new(), edge: unnamed.clone(), next: 0 };
        let accesses = Self { table: ArcSwap::from_pointee(empty), unnamed };
        accesses.take(accesses.prepare(config)?);
        Ok(accesses)
    }

    /// Makes the accesses of another configuration. Those of entries that did not change are kept.
    pub fn prepare(&self, config: &Config) -> Result<Prepared, AccessError> {
        let (table, system) = (self.table.load(), Authorities::default());
        let edge = config.edge_id.clone().unwrap_or_else(|| self.unnamed.clone());
        let (mut before, mut next) = (table.entries.clone(), table.next);
        let mut entries: Vec<Option<Entry>> = vec![None; config.groups.len()];
        let make = |key, faults, group: &Group| {
            Access::new(key, group, edge.clone(), faults, &system).map(Arc::new)
        };
        let mut take = |is_it: &dyn Fn(&Entry) -> bool| {
            before.iter().position(is_it).map(|at| before.remove(at))
        };
        // What did not change at all, then what is reached otherwise, then what has other targets:
        // so that nothing is taken for another thing.
        for (place, group) in entries.iter_mut().zip(&config.groups) {
            let is_it =
                |old: &Entry| old.access.is_of(group, &edge) && old.sources == group.sources;
            *place = take(&is_it);
        }
        for (place, group) in entries.iter_mut().zip(&config.groups) {
            if place.is_none()
                && let Some(old) = take(&|old| old.leads_to(group))
            {
                let (key, faults) = (old.access.key.clone(), Arc::clone(&old.access.faults));
                *place = Some(Entry { access: make(key, faults, group)?, ..old });
            }
        }
        for (place, group) in entries.iter_mut().zip(&config.groups) {
            let old = place.take().or_else(|| take(&|old| old.access.is_of(group, &edge)));
            *place = Some(if let Some(old) = old {
                old.of(group)
            } else {
                next += 1;
                let access = make(AccessKey::new(next), Arc::default(), group)?;
                Entry { access, sources: group.sources.clone(), is_only_theirs: true }
            });
        }
        let entries: Vec<Entry> = entries.into_iter().flatten().collect();
        let of = |(entry, group): (&Entry, &Group)| (Arc::clone(&entry.access), group.clone());
        let read = entries.iter().zip(&config.groups).map(of).collect();
        // A key that only its access has is asked for by nobody, unless it was of use until now.
        let is_needed = |old: &Access| {
            !old.key.is_only() || table.entries.iter().any(|entry| entry.access.key == old.key)
        };
        let mut by_key: BTreeMap<u64, Arc<Access>> = table
            .by_key
            .iter()
            .filter(|(_, old)| is_needed(old))
            .map(|(number, old)| (*number, Arc::clone(old)))
            .collect();
        by_key.extend(
            entries.iter().map(|entry| (entry.access.key.number(), Arc::clone(&entry.access))),
        );
        Ok(Prepared { table: Table { entries, by_key, edge, next }, read })
    }

    /// Has what is asked from now on asked by these.
    pub fn take(&self, Prepared { table, read }: Prepared) {
        for (access, entry) in &read {
            access.renew(entry);
        }
        self.table.store(Arc::new(table));
    }

    /// Who this edge is to the targets.
    pub fn edge(&self) -> EdgeId {
        self.table.load().edge.clone()
    }

    /// The access that has this key now.
    pub fn at(&self, key: &AccessKey) -> Option<Arc<Access>> {
        self.table.load().by_key.get(&key.number()).cloned()
    }

    /// The access of the first entry of a group.
    pub fn of(&self, group: &str) -> Option<Arc<Access>> {
        let table = self.table.load();
        let mut accesses = table.entries.iter().map(|entry| &entry.access);
        accesses.find(|access| **access.group() == *group).cloned()
    }

    /// The accesses of the entries of the configuration, in their order.
    pub fn all(&self) -> Vec<Arc<Access>> {
        self.table.load().all()
    }
}

impl Table {
    fn all(&self) -> Vec<Arc<Access>> {
        self.entries.iter().map(|entry| Arc::clone(&entry.access)).collect()
    }
}

impl Prepared {
    /// The accesses of the entries of the configuration, in their order.
    pub fn all(&self) -> Vec<Arc<Access>> {
        self.table.all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "{group: a, static_targets: {targets: ['a.example:80']}, X}";
    const B: &str = "{group: a, static_targets: {targets: ['b.example:80']}, X}";

    fn config(entries: &[&str]) -> Config {
        let text = format!("edge_id: here\ntarget_groups: [{}]", entries.join(", "));
        crate::config::parse(&text).expect("valid")
    }

    fn with(entry: &str, more: &str) -> String {
        entry.replace('X', more)
    }

    fn reload(accesses: &Accesses, entries: &[&str]) {
        accesses.take(accesses.prepare(&config(entries)).expect("usable"));
    }

    #[test]
    fn an_access_that_did_not_change_is_kept() {
        let (plain, other) = (with(A, "kind: rpc"), with(B, "kind: rpc"));
        let accesses = Accesses::new(&config(&[&plain, &other])).expect("usable");
        let before = accesses.all();
        for entries in [[&plain, &other], [&other, &plain]] {
            reload(&accesses, &entries.map(String::as_str));
            let after = accesses.all();
            for access in &before {
                assert!(after.iter().any(|other| Arc::ptr_eq(access, other)));
            }
        }
    }

    #[test]
    fn what_is_asked_from_now_on_is_asked_in_the_new_way() {
        let (one, two) =
            (with(A, "bearer_auth: {token: one}"), with(A, "bearer_auth: {token: two}"));
        let accesses = Accesses::new(&config(&[&one])).expect("usable");
        let listed = accesses.all()[0].key().clone();
        let sent = || {
            let access = accesses.at(&listed).expect("kept");
            access.authorization("a.example:80", "a.example:80").expect("credentials")
        };
        assert_eq!(sent().as_bytes(), b"Bearer one");
        accesses.all()[0].faults.count(crate::access::Fault::Credentials);
        reload(&accesses, &[&two]);
        assert_eq!(sent().as_bytes(), b"Bearer two");
        let count = accesses.of("a").expect("there").faults.of(crate::access::Fault::Credentials);
        assert_eq!(count, 1, "counted over all of them");
    }

    #[test]
    fn no_target_is_asked_with_what_is_another_ones() {
        let (one, two) =
            (with(A, "bearer_auth: {token: one}"), with(B, "bearer_auth: {token: two}"));
        let accesses = Accesses::new(&config(&[&one, &two])).expect("usable");
        let listed = accesses.all()[0].key().clone();
        for _ in 0..3 {
            reload(&accesses, &[&two]);
            let access = accesses.at(&listed).expect("kept while it is listed");
            let sent = access.authorization("a.example:80", "a.example:80").expect("its own");
            assert_eq!(sent.as_bytes(), b"Bearer one");
        }
        // Once nothing is listed by it, it goes.
        let number = listed.number();
        drop((accesses.at(&listed), listed));
        reload(&accesses, &[&two]);
        assert!(accesses.at(&AccessKey::new(number)).is_none());
    }
    /// Whatever targets an entry names, and whichever order entries have.
    #[test]
    fn an_access_outlives_a_change_of_its_targets() {
        let both = "{group: a, static_targets: {targets: ['a.example:80', 'c.example:80']}, X}";
        let keys = "bearer_auth: {token: one}";
        let accesses = Accesses::new(&config(&[&with(A, keys)])).expect("usable");
        let before = accesses.all();
        reload(&accesses, &[&with(B, "kind: rpc"), &with(both, keys)]);
        assert!(Arc::ptr_eq(&accesses.all()[1], &before[0]));
    }

    #[test]
    fn a_secret_in_a_file_is_what_the_file_holds() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        std::fs::write(&path, "one").expect("written");
        let entry = with(A, &format!("bearer_auth: {{token_file: '{}'}}", path.display()));
        let accesses = Accesses::new(&config(&[&entry])).expect("usable");
        let before = accesses.all();
        std::fs::write(&path, "two").expect("written");
        reload(&accesses, &[&entry]);
        assert!(Arc::ptr_eq(&accesses.all()[0], &before[0]), "nothing begins anew");
        let sent = before[0].authorization("a.example:80", "a.example:80").expect("one");
        assert_eq!(sent.as_bytes(), b"Bearer two", "and it is in force at once");
    }
    /// However often entries change: what is listed by a key is asked with what was meant for it.
    #[test]
    fn a_key_that_led_elsewhere_is_never_taken_for_another_target() {
        let (one, x) = ("bearer_auth: {token: one}", "bearer_auth: {token: x}");
        let accesses = Accesses::new(&config(&[&with(A, one)])).expect("usable");
        let sent = |key: &AccessKey, target: &str| {
            let access = accesses.at(key).expect("kept");
            let header = access.authorization(target, target).expect("credentials");
            header.to_str().expect("text").to_owned()
        };
        // B is listed by the key of what was A's.
        reload(&accesses, &[&with(B, one)]);
        let listed = accesses.all()[0].key().clone();
        reload(&accesses, &[&with(B, "bearer_auth: {token: two}"), &with(A, x)]);
        assert_eq!(sent(&listed, "b.example:80"), "Bearer one", "never what A is told");
        // One more in front takes nothing from those behind it.
        let plain = "kind: rpc";
        let c = "{group: a, static_targets: {targets: ['c.example:80']}, X}";
        let accesses = Accesses::new(&config(&[&with(A, plain), &with(B, plain)])).expect("usable");
        let before = accesses.all();
        reload(&accesses, &[&with(c, plain), &with(A, plain), &with(B, plain)]);
        let after = accesses.all();
        assert!(Arc::ptr_eq(&after[1], &before[0]) && Arc::ptr_eq(&after[2], &before[1]));
    }

    #[test]
    fn more_targets_are_no_other_ones() {
        let both = "{group: a, static_targets: {targets: ['a.example:80', 'c.example:80']}, X}";
        let (one, two) = ("bearer_auth: {token: one}", "bearer_auth: {token: two}");
        let accesses = Accesses::new(&config(&[&with(A, one)])).expect("usable");
        let listed = accesses.all()[0].key().clone();
        reload(&accesses, &[&with(both, one)]);
        reload(&accesses, &[&with(both, two)]);
        let access = accesses.at(&listed).expect("kept");
        let sent = access.authorization("a.example:80", "a.example:80").expect("credentials");
        assert_eq!(sent.as_bytes(), b"Bearer two", "the key goes on");
    }
}
