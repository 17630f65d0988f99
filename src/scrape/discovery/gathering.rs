//! Targets that are gathered from a list, entry by entry. One that is none is left out, and the
//! others hold; a list of which no entry is one is a failure, since it is more likely something
//! else than a list of nothing.

use std::collections::BTreeSet;

use crate::config::{HostPort, MAX_TARGETS, Scheme};
use crate::scrape::omissions::Omissions;

/// Longest target of a list: a scheme, a host name and a port.
const MAX_TARGET: usize = 300;

/// What a list names.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub(super) targets: BTreeSet<HostPort>,
    pub(super) omitted: Omissions,
}

/// What of a list was read so far.
#[derive(Debug)]
pub(super) struct Gathering {
    scheme: Scheme,
    count: usize,
    named: Named,
}

impl Gathering {
    /// Gathers targets, of which there are none yet and which are to be of this scheme.
    pub(super) fn new(scheme: Scheme) -> Self {
        Self { scheme, count: 0, named: Named::default() }
    }

    /// Takes the entry at `place`, or leaves it out. Fails where there are too many.
    pub(super) fn take(
        &mut self,
        place: impl FnOnce() -> String,
        entry: Result<&str, &str>,
    ) -> Result<(), String> {
        self.count += 1;
        if self.count > MAX_TARGETS {
            return Err(format!("more than {MAX_TARGETS} targets"));
        }
        let target = entry.map_err(str::to_owned).and_then(|text| match text.len() {
            0..=MAX_TARGET => HostPort::parse(text, self.scheme),
            _ => Err(format!("a target of more than {MAX_TARGET} bytes")),
        });
        match target {
            Ok(target) => drop(self.named.targets.insert(target)),
            Err(reason) => self.named.omitted.add(place, &reason),
        }
        Ok(())
    }

    /// Leaves out what is no target and holds none.
    pub(super) fn omit(&mut self, place: impl FnOnce() -> String, reason: &str) {
        self.named.omitted.add(place, reason);
    }

    /// All that was gathered.
    pub(super) fn end(self) -> Result<Named, String> {
        match self.named.omitted.first() {
            Some(first) if self.named.targets.is_empty() => {
                Err(format!("none of its entries is a target, the first one: {first}"))
            }
            _ => Ok(self.named),
        }
    }
}

/// What a text of targets was read as is what it should be: the targets, or a part of the error.
#[cfg(test)]
#[track_caller]
pub(super) fn check(text: &str, found: Result<Named, String>, expected: Result<&[&str], &str>) {
    match (found.map(|named| named.targets), expected) {
        (Ok(found), Ok(expected)) => {
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{text}");
        }
        (Err(found), Err(expected)) => assert!(found.contains(expected), "{text}: {found}"),
        (found, expected) => panic!("{text}: {found:?} instead of {expected:?}"),
    }
}
