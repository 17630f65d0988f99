//! Which files of a directory are offered: those that nobody is writing, and that are whole. Pure.
//!
//! Nodes give an archive its name when all of it is there. Everybody else may not: `cp`, `rsync
//! --inplace` and downloaders write under the final name, and one that was killed leaves what it
//! had. So a file is offered once two listings found it unchanged, and, where its bytes tell, once
//! the frames in it were followed to its end. Both are remembered for as long as the file is the
//! same.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::entry::Unfit;
use crate::check::Flaw;
use crate::snapshot::{ArchiveName, Compression};

/// Time between two listings that say that nobody writes a file, where its bytes are looked at as
/// well.
const SETTLE: Duration = Duration::from_secs(1);
/// How long a file is not offered because it has yet to be looked through. A disk that takes longer
/// for 100 GB would keep a node's archives from clients for the better part of their life.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which file it is, in which state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The file system that it is on.
    pub device: u64,
    /// The number of the file there.
    pub inode: u64,
    /// Bytes.
    pub length: u64,
    /// Seconds and nanoseconds of its last change.
    pub modified: (i64, i64),
}

impl Identity {
    /// Whether it is one file, in whatever state.
    fn is_file_of(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// What is known of the files of one directory.
#[derive(Debug)]
pub(super) struct Vetting {
    /// Time between two listings, where bytes tell nothing.
    interval: Duration,
    /// Whether bytes are looked at.
    verify: bool,
    files: BTreeMap<ArchiveName, Vetted>,
}

#[derive(Debug)]
struct Vetted {
    identity: Identity,
    /// Since when the file is this one.
    since: Instant,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// One listing had the file.
    New,
    /// One listing had the file, and another one before it had it otherwise.
    Changing,
    /// Nobody writes it, and nobody looked at its bytes.
    Settled,
    /// The bytes of the file are being looked at.
    Walking,
    /// The file is whole, as far as can be told.
    Sound,
    /// The file is not whole.
    Damaged(Flaw),
}

/// What is done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The file is served.
    Offer,
    /// The file is not served yet, and there is no reason to speak of it.
    Wait,
    /// The file is not served.
    Refuse(Unfit),
}

impl Vetting {
    /// Of a directory that is listed in this interval.
    pub(super) fn new(interval: Duration, verify: bool) -> Self {
        Self { interval, verify, files: BTreeMap::new() }
    }

    /// Goes on otherwise, with what is known of the files.
    pub(super) fn set(&mut self, interval: Duration, verify: bool) {
        (self.interval, self.verify) = (interval, verify);
    }

    /// Takes in what a listing found.
    pub(super) fn list(&mut self, found: &BTreeMap<ArchiveName, Identity>, now: Instant) {
        self.files.retain(|name, _| found.contains_key(name));
        for (name, &identity) in found {
            let settle = self.settle(name);
            let vetted = self.files.entry(*name).or_insert(Vetted {
                identity,
                since: now,
                state: State::New,
            });
            if vetted.identity != identity {
                *vetted = Vetted { identity, since: now, state: State::Changing };
            } else if matches!(vetted.state, State::New | State::Changing)
                && now.saturating_duration_since(vetted.since) >= settle
            {
                vetted.state = State::Settled;
            }
        }
    }

    /// What is done with a file of the last listing.
    pub(super) fn verdict(&self, name: &ArchiveName, now: Instant) -> Verdict {
        let Some(Vetted { since, state, .. }) = self.files.get(name) else { return Verdict::Wait };
        match *state {
            State::New => Verdict::Wait,
            State::Changing => Verdict::Refuse(Unfit::Changing),
            State::Settled if !self.is_walked(name) => Verdict::Offer,
            State::Settled | State::Walking if now < *since + PATIENCE => Verdict::Wait,
            State::Settled | State::Walking | State::Sound => Verdict::Offer,
            State::Damaged(flaw) => Verdict::Refuse(Unfit::Damaged(flaw)),
        }
    }

    /// The best file whose bytes have yet to be looked at, which are from now on. One at a time.
    pub(super) fn walk(&mut self) -> Option<(ArchiveName, Identity)> {
        if self.files.values().any(|vetted| vetted.state == State::Walking) {
            return None;
        }
        let verify = self.verify;
        let is_next = |name: &ArchiveName, vetted: &Vetted| {
            verify && has_frames(name) && vetted.state == State::Settled
        };
        let mut files = self.files.iter_mut().rev();
        let (name, vetted) = files.find(|(name, vetted)| is_next(name, vetted))?;
        vetted.state = State::Walking;
        Some((*name, vetted.identity))
    }

    /// Takes in what came of looking at a file's bytes; nothing where they could not be read, which
    /// whoever reads them next meets again.
    pub(super) fn walked(
        &mut self,
        name: &ArchiveName,
        identity: Identity,
        outcome: Option<Result<(), Flaw>>,
    ) {
        let vetted = self.files.get_mut(name).filter(|vetted| vetted.identity == identity);
        if let Some(vetted) = vetted {
            vetted.state = match outcome {
                Some(Err(flaw)) => State::Damaged(flaw),
                Some(Ok(())) | None => State::Sound,
            };
        }
    }

    /// Whether a file may be served that was opened just now. One that has taken the name since the
    /// last listing was renamed to it, as nodes do it; one that was offered and is not the same any
    /// more is being written.
    pub(super) fn admits(&self, name: &ArchiveName, opened: Identity, now: Instant) -> bool {
        match self.files.get(name) {
            Some(vetted) if vetted.identity == opened => self.verdict(name, now) == Verdict::Offer,
            Some(vetted) => !vetted.identity.is_file_of(&opened),
            None => false,
        }
    }

    /// When the directory is to be listed again, where that is sooner than usual.
    pub(super) fn next(&self, now: Instant) -> Option<Duration> {
        let ends = self.files.iter().filter_map(|(name, vetted)| match vetted.state {
            State::New | State::Changing => Some(vetted.since + self.settle(name)),
            State::Settled | State::Walking => {
                Some(vetted.since + PATIENCE).filter(|end| *end > now && self.is_walked(name))
            }
            State::Sound | State::Damaged(_) => None,
        });
        ends.min().map(|end| end.saturating_duration_since(now))
    }

    fn settle(&self, name: &ArchiveName) -> Duration {
        if self.is_walked(name) { self.interval.min(SETTLE) } else { self.interval }
    }

    fn is_walked(&self, name: &ArchiveName) -> bool {
        self.verify && has_frames(name)
    }
}

fn has_frames(name: &ArchiveName) -> bool {
    name.compression() == Compression::Zstd
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(15);
    const FLAW: Flaw = Flaw::CutShort { at: 5 };

    fn name(slot: u64, ending: &str) -> ArchiveName {
        format!("snapshot-{slot}-{}.{ending}", "1".repeat(32)).parse().expect("valid")
    }

    fn file(inode: u64, length: u64, changed: i64) -> Identity {
        Identity { device: 1, inode, length, modified: (changed, 0) }
    }

    /// A directory, and the time that has passed.
    struct Scene {
        vetting: Vetting,
        start: Instant,
    }

    impl Scene {
        fn new(verify: bool) -> Self {
            Self { vetting: Vetting::new(INTERVAL, verify), start: Instant::now() }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn list(&mut self, seconds: u64, found: &[(ArchiveName, Identity)]) {
            let now = self.at(seconds);
            self.vetting.list(&found.iter().copied().collect(), now);
        }

        fn verdict(&self, seconds: u64, name: &ArchiveName) -> Verdict {
            self.vetting.verdict(name, self.at(seconds))
        }
    }

    #[test]
    fn a_file_is_offered_once_two_listings_found_it_unchanged() {
        // What is looked into is not waited for as long as what is not.
        for (verify, ending, settle) in [
            (false, "tar.zst", 15),
            (true, "tar.lz4", 15),
            (false, "tar", 15),
            (true, "tar.zst", 1),
        ] {
            let (mut scene, name) = (Scene::new(verify), name(1000, ending));
            assert_eq!(scene.verdict(0, &name), Verdict::Wait, "nobody has seen it");
            scene.list(0, &[(name, file(1, 10, 0))]);
            assert_eq!(scene.verdict(0, &name), Verdict::Wait);
            assert_eq!(scene.vetting.next(scene.at(0)), Some(Duration::from_secs(settle)));
            // It grows, and stands still for a moment.
            scene.list(settle, &[(name, file(1, 20, 1))]);
            assert_eq!(scene.verdict(settle, &name), Verdict::Refuse(Unfit::Changing));
            scene.list(settle, &[(name, file(1, 20, 1))]);
            assert_eq!(scene.verdict(settle, &name), Verdict::Refuse(Unfit::Changing));
            scene.list(2 * settle, &[(name, file(1, 20, 1))]);
            if settle == 1 {
                assert_eq!(scene.verdict(2, &name), Verdict::Wait, "it is looked into first");
                let (walked, identity) = scene.vetting.walk().expect("it");
                assert_eq!((walked, identity), (name, file(1, 20, 1)));
                scene.vetting.walked(&name, identity, Some(Ok(())));
            }
            assert_eq!(scene.verdict(2 * settle, &name), Verdict::Offer);
            assert_eq!(scene.vetting.next(scene.at(2 * settle)), None);
            // Any change begins it anew: of the time, of the length, of the file.
            for other in [file(1, 20, 2), file(1, 21, 2), file(2, 21, 2)] {
                scene.list(100, &[(name, other)]);
                assert_eq!(scene.verdict(100, &name), Verdict::Refuse(Unfit::Changing));
            }
            scene.list(101, &[]);
            assert_eq!(scene.verdict(101, &name), Verdict::Wait);
        }
    }

    #[test]
    fn bytes_are_looked_at_once_and_one_file_after_the_other_the_best_first() {
        let (mut scene, all) =
            (Scene::new(true), [1000, 2000, 3000].map(|slot| name(slot, "tar.zst")));
        let found = all.map(|name| (name, file(1, 10, 0)));
        for seconds in [0, 1] {
            scene.list(seconds, &found);
        }
        for (name, outcome) in [(all[2], Some(Ok(()))), (all[1], Some(Err(FLAW))), (all[0], None)] {
            let (walked, identity) = scene.vetting.walk().expect("one is left");
            assert_eq!(walked, name);
            assert_eq!(scene.vetting.walk(), None, "one at a time");
            scene.vetting.walked(&name, identity, outcome);
        }
        scene.list(3, &found);
        assert_eq!(scene.vetting.walk(), None, "that is remembered");
        assert_eq!(scene.verdict(3, &all[2]), Verdict::Offer);
        assert_eq!(scene.verdict(3, &all[1]), Verdict::Refuse(Unfit::Damaged(FLAW)));
        assert_eq!(scene.verdict(3, &all[0]), Verdict::Offer, "whoever reads it meets that");
    }

    #[test]
    fn what_takes_too_long_is_offered_and_what_comes_of_it_counts_all_the_same() {
        let (mut scene, name) = (Scene::new(true), name(1000, "tar.zst"));
        let found = [(name, file(1, 10, 0))];
        scene.list(0, &found);
        scene.list(1, &found);
        let (_, identity) = scene.vetting.walk().expect("it");
        assert_eq!(scene.verdict(59, &name), Verdict::Wait);
        assert_eq!(scene.vetting.next(scene.at(1)), Some(Duration::from_secs(59)));
        assert_eq!(scene.verdict(60, &name), Verdict::Offer);
        assert_eq!(scene.vetting.next(scene.at(60)), None, "no busy loop");
        scene.vetting.walked(&name, identity, Some(Err(FLAW)));
        assert_eq!(scene.verdict(62, &name), Verdict::Refuse(Unfit::Damaged(FLAW)));
        // Of what was there before it says nothing of what is there now.
        scene.list(63, &[(name, file(1, 11, 1))]);
        scene.vetting.walked(&name, identity, Some(Ok(())));
        assert_eq!(scene.verdict(63, &name), Verdict::Refuse(Unfit::Changing));
    }

    #[test]
    fn what_is_opened_is_what_was_offered_or_was_renamed_to_its_name() {
        let (mut scene, name) = (Scene::new(false), name(1000, "tar.zst"));
        let (offered, now) = (file(1, 10, 0), scene.at(15));
        assert!(!scene.vetting.admits(&name, offered, now), "no listing had it");
        scene.list(0, &[(name, offered)]);
        assert!(!scene.vetting.admits(&name, offered, scene.at(0)), "it may be being written");
        scene.list(15, &[(name, offered)]);
        assert!(scene.vetting.admits(&name, offered, now));
        assert!(scene.vetting.admits(&name, file(2, 99, 9), now), "renamed");
        for written in [file(1, 9, 0), file(1, 10, 1), file(1, 11, 1)] {
            assert!(!scene.vetting.admits(&name, written, now), "written to: {written:?}");
        }
    }
}
