//! Those who wait for something, the longest first, and at most so many. Pure.
//!
//! Where there is no room for one more, whoever has the most places loses the last of them to one
//! who has fewer: nobody who comes with many keeps others from waiting at all.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// The queue, of things that belong to somebody.
#[derive(Debug)]
pub struct Queue<K, T> {
    most: usize,
    next: u64,
    waiting: VecDeque<Waiting<K, T>>,
}

/// One who waits.
#[derive(Debug)]
pub struct Waiting<K, T> {
    number: u64,
    /// The one who waits, as others know it.
    pub owner: K,
    /// For what, and how it is told.
    pub item: T,
}

impl<K: Copy + Eq + Hash, T> Queue<K, T> {
    /// Room for so many.
    pub fn new(most: usize) -> Self {
        Self { most, next: 0, waiting: VecDeque::new() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes the last place; the number to leave it by, and who lost one for that. Nothing where
    /// the queue is full of others who have no more than this one.
    pub fn join(&mut self, owner: K, item: T) -> Option<(u64, Option<Waiting<K, T>>)> {
        let mut displaced = None;
        if self.waiting.len() >= self.most {
            let place = self.place_to_lose(owner)?;
            displaced = self.waiting.remove(place);
        }
        Some((self.join_anyway(owner, item), displaced))
    }

    /// Takes the last place, whether there is room or not.
    pub fn join_anyway(&mut self, owner: K, item: T) -> u64 {
        self.next += 1;
        self.waiting.push_back(Waiting { number: self.next, owner, item });
        self.next
    }

    /// Gives a place up, where it is still there.
    pub fn leave(&mut self, number: u64) {
        self.waiting.retain(|waiting| waiting.number != number);
    }

    /// All that wait, the longest first.
    pub fn iter(&self) -> impl Iterator<Item = &Waiting<K, T>> {
        self.waiting.iter()
    }

    /// All that wait, the longest first, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Waiting<K, T>> {
        self.waiting.iter_mut()
    }

    /// Takes the one at this place out.
    pub fn remove(&mut self, place: usize) -> Option<Waiting<K, T>> {
        self.waiting.remove(place)
    }

    /// The last place of whoever has the most, where those are more than this one has.
    fn place_to_lose(&self, owner: K) -> Option<usize> {
        let mut counts: HashMap<K, (usize, usize)> = HashMap::new();
        for (place, waiting) in self.waiting.iter().enumerate() {
            let (count, last) = counts.entry(waiting.owner).or_default();
            (*count, *last) = (*count + 1, place);
        }
        let own = counts.get(&owner).map_or(0, |(count, _)| *count);
        let (count, last) = counts.into_values().max()?;
        (count > own + 1).then_some(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn owners(queue: &Queue<u8, u64>) -> Vec<u8> {
        queue.iter().map(|waiting| waiting.owner).collect()
    }

    #[test]
    fn who_has_the_most_makes_room() {
        let mut queue = Queue::new(4);
        for (item, owner) in [1, 1, 1, 2].into_iter().enumerate() {
            let (_, displaced) = queue.join(owner, item as u64).expect("room");
            assert!(displaced.is_none());
        }
        assert!(queue.join(1, 4).is_none(), "for itself there is none");
        let (number, displaced) = queue.join(3, 5).expect("a place of the first one's");
        assert_eq!(displaced.map(|lost| (lost.owner, lost.item)), Some((1, 2)), "the last one");
        assert_eq!(owners(&queue), [1, 1, 2, 3]);
        assert!(queue.join(2, 6).is_none(), "one has as many then as the other had");
        let lost = queue.join(4, 7).and_then(|(_, displaced)| displaced);
        assert_eq!(lost.map(|lost| lost.item), Some(1));
        assert!(queue.join(5, 8).is_none(), "each has one");
        queue.leave(number);
        assert_eq!(owners(&queue), [1, 2, 4]);
        queue.join_anyway(9, 9);
        queue.join_anyway(9, 10);
        assert_eq!(queue.len(), 5);
        let first = queue.remove(0).map(|waiting| waiting.item);
        assert_eq!((first, queue.remove(9).is_none()), (Some(0), true));
    }

    proptest! {
        /// However they come and go: nobody is counted twice, nobody vanishes, and who was turned
        /// away had as much as anybody but one.
        #[test]
        fn nobody_is_lost(steps in prop::collection::vec((0..5_u8, 0..4_usize), 0..200)) {
            let mut queue = Queue::new(8);
            let mut expected: Vec<(u64, u8)> = Vec::new();
            for (owner, what) in steps {
                if what == 0 && !expected.is_empty() {
                    let (number, _) = expected.remove(usize::from(owner) % expected.len());
                    queue.leave(number);
                    queue.leave(number);
                    continue;
                }
                let count = |of| expected.iter().filter(|(_, other)| *other == of).count();
                let most = (0..5).map(count).max().unwrap_or(0);
                match queue.join(owner, 0) {
                    Some((number, displaced)) => {
                        if let Some(lost) = displaced {
                            prop_assert!(expected.len() == 8 && count(lost.owner) == most);
                            expected.retain(|(number, _)| *number != lost.number);
                        }
                        expected.push((number, owner));
                    }
                    None => prop_assert!(expected.len() == 8 && count(owner) + 1 >= most),
                }
                let found: Vec<_> = queue.iter().map(|w| (w.number, w.owner)).collect();
                prop_assert_eq!(&found, &expected);
                prop_assert!(queue.len() <= 8 && queue.is_empty() == expected.is_empty());
            }
        }
    }
}
