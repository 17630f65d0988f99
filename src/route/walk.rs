//! The way from one source of an archive to the next, and what is said when none of them delivers.

use std::sync::Arc;

use super::failure::SourceFailure;
use crate::index::{Source, TargetId};

/// Most sources that are tried for one request.
const MAX_TRIES: usize = 8;

/// Sources in the order in which they are tried, and how far that has got.
#[derive(Clone, Debug)]
pub struct Walk {
    sources: Vec<Arc<Source>>,
    at: usize,
    failure: Option<SourceFailure>,
}

impl Walk {
    /// Begins at the first source.
    pub fn new(sources: Vec<Arc<Source>>) -> Self {
        Self { sources, at: 0, failure: None }
    }

    /// The source that is tried now.
    pub fn source(&self) -> Option<&Arc<Source>> {
        self.rest().first()
    }

    /// The source that is tried now, and those after it.
    pub fn rest(&self) -> &[Arc<Source>] {
        let rest = self.sources.get(self.at..).filter(|_| self.at < MAX_TRIES);
        rest.unwrap_or_default()
    }

    /// Tries this one of the [rest](Self::rest) now, and those before it after it.
    pub fn prefer(&mut self, place: usize) {
        if let Some(rest) = self.sources.get_mut(self.at..=self.at.saturating_add(place)) {
            rest.rotate_right(1);
        }
    }

    /// Leaves out every source but those of this target, as if nothing had been tried yet; false
    /// where it has none.
    pub fn only(&mut self, target: &TargetId) -> bool {
        let is_its = |source: &Arc<Source>| source.target == *target;
        if !self.sources.iter().any(is_its) {
            return false;
        }
        self.sources.retain(is_its);
        self.at = 0;
        true
    }

    /// Goes on to the next source; true where there is one.
    pub fn next(&mut self, failure: SourceFailure) -> bool {
        self.failure = Some(match self.failure.take() {
            None => failure,
            Some(earlier) => earlier.or(failure),
        });
        self.at += 1;
        !self.rest().is_empty()
    }

    /// What the failures so far come to.
    pub fn failure(&self) -> Option<&SourceFailure> {
        self.failure.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{AccessKey, Listed, Location};
    use std::time::UNIX_EPOCH;

    fn source(number: u8) -> Arc<Source> {
        let name = format!("snapshot-1-{}.tar.zst", "1".repeat(32)).parse().expect("valid");
        let address = ([10, 0, 0, number], 8899).into();
        let authority: Arc<str> = format!("10.0.0.{number}:8899").into();
        let path = "/x".to_owned();
        let via = crate::hops::Via::default();
        let authority_of = authority.clone();
        let location = Location {
            scheme: "http",
            address,
            authority: authority_of,
            path,
            access: AccessKey::default(),
            via,
        };
        Arc::new(Source {
            target: TargetId { group: "g".into(), authority },
            listed: Listed {
                name,
                size: None,
                modified: None,
                tag: None,
                location: Some(location),
            },
            updated_at: UNIX_EPOCH,
        })
    }

    #[test]
    fn every_source_is_tried_once_in_its_order() {
        let sources = vec![source(2), source(1), source(3)];
        let mut walk = Walk::new(sources.clone());
        assert_eq!((walk.source(), walk.failure()), (Some(&sources[0]), None));
        assert!(walk.next(SourceFailure::Connect));
        assert_eq!(walk.source(), Some(&sources[1]));
        assert!(walk.next(SourceFailure::Gone));
        assert!(!walk.next(SourceFailure::Gone));
        assert_eq!((walk.source(), walk.failure()), (None, Some(&SourceFailure::Connect)));
        assert!(!Walk::new(Vec::new()).next(SourceFailure::Gone));
    }

    #[test]
    fn there_is_an_end_to_trying() {
        let all: Vec<_> = (0..20).map(source).collect();
        let mut walk = Walk::new(all.clone());
        walk.prefer(19);
        assert_eq!(walk.source(), Some(&all[19]));
        let tries = 1 + (0..20).filter(|_| walk.next(SourceFailure::Connect)).count();
        assert_eq!((tries, walk.source(), walk.rest().len()), (MAX_TRIES, None, 0));
    }

    #[test]
    fn another_source_can_be_tried_first() {
        let all: Vec<_> = (0..4).map(source).collect();
        let mut walk = Walk::new(all.clone());
        assert!(walk.next(SourceFailure::Connect));
        assert_eq!(walk.rest(), &all[1..]);
        walk.prefer(0);
        assert_eq!(walk.rest(), &all[1..]);
        walk.prefer(3);
        assert_eq!(walk.rest(), &all[1..], "there is none");
        walk.prefer(2);
        assert_eq!(walk.rest(), [3, 1, 2].map(|at| all[at].clone()));
        assert!(walk.next(SourceFailure::Connect) && walk.next(SourceFailure::Connect));
        assert!(!walk.next(SourceFailure::Connect));
        assert_eq!(walk.rest(), []);
        walk.prefer(0);
    }

    #[test]
    fn a_walk_can_be_narrowed_to_one_target_that_it_has() {
        let mut walk = Walk::new(vec![source(1), source(2)]);
        assert!(walk.next(SourceFailure::Timeout));
        assert!(!walk.only(&source(3).target));
        assert_eq!(walk.source(), Some(&source(2)));
        assert!(walk.only(&source(1).target));
        assert_eq!(walk.source(), Some(&source(1)));
        assert!(!walk.next(SourceFailure::Gone));
        assert_eq!(walk.failure(), Some(&SourceFailure::Timeout));
    }
}
