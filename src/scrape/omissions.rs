//! Entries of a list that were left out since they say nothing sound, while the others hold.

use std::collections::VecDeque;

/// Most omissions of one list that are told with their place.
const MAX_TOLD: usize = 5;
/// Most reasons that are remembered, so that they are told once.
const MAX_REMEMBERED: usize = 64;
/// Longest reason, in characters: it may quote what somebody sent.
const MAX_REASON: usize = 200;

/// What was left out of one list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Omissions {
    count: u64,
    first: Vec<Omission>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Omission {
    place: String,
    reason: String,
}

impl Omissions {
    /// Notes that the entry at `place` (`line 7`) is left out, and why.
    pub(super) fn add(&mut self, place: impl FnOnce() -> String, reason: &str) {
        self.count += 1;
        let known = self.first.iter().any(|omission| omission.reason == reason);
        if self.first.len() < MAX_TOLD && !known {
            let escaped = |c: char| if c.is_control() { ' ' } else { c };
            let reason = reason.chars().take(MAX_REASON).map(escaped).collect();
            self.first.push(Omission { place: place(), reason });
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The first one; nothing where nothing was left out.
    pub(super) fn first(&self) -> Option<String> {
        self.first.first().map(|Omission { place, reason }| format!("{place}: {reason}"))
    }
}

/// What was told of the lists of one source.
#[derive(Debug, Default)]
pub(super) struct Told(VecDeque<String>);

impl Told {
    /// What is to be told of a list: reasons that were not told before. The place of a reason may
    /// change from list to list, as entries come and go before it.
    pub(super) fn news(&mut self, omissions: &Omissions) -> Option<String> {
        let is_new = |omission: &&Omission| !self.0.contains(&omission.reason);
        let new: Vec<Omission> = omissions.first.iter().filter(is_new).cloned().collect();
        if new.is_empty() {
            return None;
        }
        self.0.extend(new.iter().map(|omission| omission.reason.clone()));
        self.0.drain(..self.0.len().saturating_sub(MAX_REMEMBERED));
        let told: Vec<String> =
            new.iter().map(|Omission { place, reason }| format!("{place}: {reason}")).collect();
        let entries = if omissions.count == 1 { "entry is" } else { "entries are" };
        Some(format!("{} {entries} left out: {}", omissions.count, told.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn omissions(list: &[(&str, &str)]) -> Omissions {
        let mut omissions = Omissions::default();
        for (place, reason) in list {
            omissions.add(|| (*place).to_owned(), reason);
        }
        omissions
    }

    #[test]
    fn each_reason_is_told_once_with_its_first_place() {
        let mut told = Told::default();
        assert_eq!(told.news(&omissions(&[])), None);
        let one = omissions(&[("line 7", "`b` has no port")]);
        assert_eq!(
            told.news(&one).as_deref(),
            Some("1 entry is left out: line 7: `b` has no port")
        );
        assert_eq!(told.news(&one), None);
        assert_eq!(told.news(&omissions(&[("line 8", "`b` has no port")])), None, "it moved");
        let more = omissions(&[("line 1", "x"), ("line 2", "`b` has no port"), ("line 3", "x")]);
        assert_eq!(told.news(&more).as_deref(), Some("3 entries are left out: line 1: x"));
        assert_eq!(told.news(&one), None);
        assert_eq!(more.first().as_deref(), Some("line 1: x"));
    }

    #[test]
    fn what_is_told_and_remembered_is_bounded() {
        let mut told = Told::default();
        for round in 0..100 {
            let mut omissions = Omissions::default();
            for at in 0..1000 {
                let reason = format!("{round} {at}\n{}", "y".repeat(1000));
                omissions.add(|| format!("line {at}"), &reason);
            }
            assert_eq!((omissions.count(), omissions.first.len()), (1000, MAX_TOLD));
            let news = told.news(&omissions).expect("they are new");
            assert!(news.len() < MAX_TOLD * 300 && !news.contains('\n'), "{news}");
        }
        assert!(told.0.len() <= MAX_REMEMBERED);
    }
}
