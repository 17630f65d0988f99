//! Counts of what is under way, in all and for each of those who have any. Pure.

use std::collections::HashMap;
use std::hash::Hash;

/// The counts. Whoever has nothing under way is forgotten, so that there are never more of them
/// than there is under way.
#[derive(Clone, Debug)]
pub struct KeyedCount<K> {
    all: usize,
    of_each: HashMap<K, usize>,
}

impl<K> Default for KeyedCount<K> {
    fn default() -> Self {
        Self { all: 0, of_each: HashMap::new() }
    }
}

impl<K: Copy + Eq + Hash> KeyedCount<K> {
    /// How many there are in all.
    pub fn all(&self) -> usize {
        self.all
    }

    /// What this one has.
    pub fn of(&self, key: K) -> usize {
        self.of_each.get(&key).copied().unwrap_or(0)
    }

    /// How many have any.
    pub fn owners(&self) -> usize {
        self.of_each.len()
    }

    /// The most that anybody has.
    pub fn most_of_one(&self) -> usize {
        self.of_each.values().copied().max().unwrap_or(0)
    }

    /// Counts one more.
    pub fn begin(&mut self, key: K) {
        self.all += 1;
        *self.of_each.entry(key).or_default() += 1;
    }

    /// Counts one less, of one that was begun.
    pub fn end(&mut self, key: K) {
        self.all = self.all.saturating_sub(1);
        match self.of(key).saturating_sub(1) {
            0 => self.of_each.remove(&key),
            left => self.of_each.insert(key, left),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However things come and go.
        #[test]
        fn counts_are_those_of_a_list(
            steps in prop::collection::vec((0..5_u16, any::<bool>()), 0..99),
        ) {
            let (mut tally, mut list) = (KeyedCount::default(), Vec::new());
            for (key, comes) in steps {
                if comes {
                    tally.begin(key);
                    list.push(key);
                } else if let Some(at) = list.iter().position(|other| *other == key) {
                    tally.end(key);
                    list.swap_remove(at);
                }
                prop_assert_eq!(tally.all(), list.len());
                for key in 0..5 {
                    let expected = list.iter().filter(|other| **other == key).count();
                    prop_assert_eq!(tally.of(key), expected);
                }
                let owners: std::collections::BTreeSet<_> = list.iter().collect();
                prop_assert_eq!(tally.owners(), owners.len());
            }
        }
    }
}
