//! Which copy of an archive the next answer to a client has to be of.
//!
//! Two nodes' archives of one name are different bytes, and clients such as wget and aria2 go on
//! with a broken download by a bare range, without a word about the copy that they have the start
//! of. So it is known of each client address which files it is putting together, of which copy each
//! is, and which bytes of it were handed over. Several programs may be behind one address, and a
//! program may begin anew: then there are several files, and a request goes on with the one that
//! ends where it begins.
//!
//! Pure: times are arguments, and what became of bytes on their way is asked of a [`Receipt`].

mod file;
mod part;
mod portion;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

pub use self::file::{Arrival, Receipt};
use self::file::{File, Running};
pub use self::part::Part;
pub use self::portion::Portion;
use super::pinned_copy::PinnedCopy;
use crate::index::CopyId;

/// Most files of one archive that are told apart at one address. With more, two of one copy count
/// as one of which nobody knows what is missing, or else the oldest is forgotten.
const MAX_FILES: usize = 128;
/// Most bytes that a client may lack of those that were handed over: what both systems, a proxy in
/// between and the program itself hold back.
const NEAR: u64 = 16 << 20;
/// How long a request for the first byte is held to a copy that is out of reach.
const REUNION: Duration = Duration::from_secs(60);

/// What a client has of an archive, as far as it decides about its next answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// The client has nothing: any copy will do.
    Fresh,
    /// Nothing but the head of this copy, which its request may be laid out by. Any other one will
    /// do where this one is out of reach.
    Announced(Arc<PinnedCopy>),
    /// The request says which copy it has. This is it, where it is known.
    Condition(Option<Arc<PinnedCopy>>),
    /// Bytes of this copy, to which those of no other one may be added.
    Pinned(Arc<PinnedCopy>),
    /// Bytes of several copies, and nobody can tell to which of them the answer would be added.
    Torn,
}

impl Affinity {
    /// The copy that the answer has to be of.
    pub fn pinned(&self) -> Option<&Arc<PinnedCopy>> {
        match self {
            Self::Pinned(given) => Some(given),
            _ => None,
        }
    }

    /// The copy that the client is known to have bytes of.
    pub fn given(&self) -> Option<&Arc<PinnedCopy>> {
        match self {
            Self::Pinned(given) | Self::Condition(Some(given)) => Some(given),
            _ => None,
        }
    }

    /// The copy that it was told of.
    pub fn announced(&self) -> Option<&Arc<PinnedCopy>> {
        match self {
            Self::Announced(given) => Some(given),
            _ => None,
        }
    }
}

/// Why an answer of a copy must not be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// The answer has to be of this other copy.
    Other(Arc<PinnedCopy>),
    /// Of which one is not known.
    Torn,
}

/// The files of one archive that are put together at one address, in the order in which they were
/// begun.
#[derive(Debug, Default)]
pub struct Files {
    begun: Vec<File>,
    announced: Option<(Arc<PinnedCopy>, Instant)>,
    /// Since when no answer came of a copy that one had to be of.
    missed: Option<Instant>,
}

/// Which file an answer goes into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    New,
    File(usize),
    Torn,
}

impl Files {
    /// What decides about a request for this portion; `None` where it names its copy, which is the
    /// one that `is_named`.
    pub fn affinity(
        &mut self,
        portion: Option<Portion>,
        is_named: impl Fn(CopyId) -> bool,
        now: Instant,
    ) -> Affinity {
        let Some(portion) = portion else {
            let named = self.begun.iter().rev().find(|file| is_named(file.given.copy));
            return Affinity::Condition(named.map(|file| Arc::clone(&file.given)));
        };
        match self.target(portion, now) {
            Target::File(at) => Affinity::Pinned(Arc::clone(&self.begun[at].given)),
            Target::Torn => {
                // Whichever it goes on with, its program lacks what comes after that.
                for file in self.begun.iter_mut().filter(|file| file.beyond(portion).is_some()) {
                    file.spans.doubt();
                }
                Affinity::Torn
            }
            Target::New => self.preferred(portion).map_or(Affinity::Fresh, Affinity::Announced),
        }
    }

    /// The copy that a file is begun of where that may be: the one that the client was told of
    /// last, and for the first of several parts the one that its address has others of.
    fn preferred(&self, portion: Portion) -> Option<Arc<PinnedCopy>> {
        let is_part = matches!(portion, Portion::Start { bounded: true });
        let current = self.current().filter(|_| is_part).map(|at| &self.begun[at].given);
        current.or(self.announced.as_ref().map(|(given, _)| given)).cloned()
    }

    /// Notes that an answer is about to be given, and returns what counts its bytes. It may have
    /// been decided about long before: meanwhile another one may have been begun.
    pub fn begin(
        &mut self,
        portion: Option<Portion>,
        part: Part,
        now: Instant,
    ) -> Result<Arc<AtomicU64>, Conflict> {
        let begins = part.is_from_start(portion);
        let target = match portion {
            Some(portion) => self.target(portion, now),
            None if begins => Target::New,
            None => self.of_copy(part.given.copy).map_or(Target::New, Target::File),
        };
        let progress = Arc::new(AtomicU64::new(0));
        let (Part { given, length, ranges }, progress_of) = (part, Arc::clone(&progress));
        let at = match target {
            Target::Torn => return Err(Conflict::Torn),
            Target::File(at) if self.begun[at].given != given => {
                return Err(Conflict::Other(Arc::clone(&self.begun[at].given)));
            }
            Target::File(at) => portion.map_or(at, |portion| self.unite(at, portion)),
            Target::New => self.add(given, length, now),
        };
        if target != Target::New {
            self.missed = None;
            // It is put together again, where no other copy is; or a part of another file begins
            // there by chance, to which nothing of it belongs.
            let is_of_copy = |current: usize| self.begun[current].given == self.begun[at].given;
            let is_again = self.begun[at].superseded && self.current().is_none_or(is_of_copy);
            let file = &mut self.begun[at];
            file.superseded &= !is_again;
            if is_again && portion.is_some_and(Portion::is_bounded) {
                file.spans.doubt();
            }
        }
        // Who says which copy it has may be another program than one that does not.
        let aside = portion.is_none() && !begins && target == Target::New && at > 0;
        let file = &mut self.begun[at];
        file.superseded |= aside;
        file.length = file.length.or(length);
        file.torn &= portion.is_none_or(|portion| file.beyond(portion).is_none());
        for range in &ranges {
            file.spans.remove(*range);
        }
        let begins = begins && target == Target::New;
        let resumes = matches!(portion, Some(Portion::From { bounded: false, .. }));
        file.running.push(Running { progress: progress_of, ranges, begins, resumes });
        Ok(progress)
    }

    /// Notes that an answer is over: with its last byte, of whose arrival the receipt tells, or
    /// broken off.
    pub fn end(
        &mut self,
        progress: &Arc<AtomicU64>,
        whole: Option<Arc<dyn Receipt>>,
        now: Instant,
    ) {
        let is = |running: &Running| Arc::ptr_eq(&running.progress, progress);
        let Some(at) = self.begun.iter().position(|file| file.running.iter().any(is)) else {
            return;
        };
        let file = &mut self.begun[at];
        let Some(place) = file.running.iter().position(is) else { return };
        let ended = file.running.swap_remove(place);
        let handed_over = ended.handed_over();
        if handed_over.is_empty() {
            if ended.begins {
                // Its program may have thrown away what it had.
                self.begun[..at].iter_mut().for_each(|older| older.spans.doubt());
            }
            return;
        }
        for range in handed_over {
            file.spans.add(range);
        }
        if whole.is_some() && ended.resumes {
            file.spans.trust();
        }
        // For good: what comes whole after that may be a part elsewhere, which mends nothing.
        file.loose |= whole.is_none();
        // Of the last bytes nobody knows whether they went out.
        file.torn |= whole.is_none() && ended.has_handed_over_all();
        file.receipts.extend(whole);
        file.last = now;
        if ended.begins {
            self.begun[..at].iter_mut().for_each(|older| older.superseded = true);
        }
    }

    /// Notes that the client was told of a copy.
    pub fn announce(&mut self, given: Arc<PinnedCopy>, now: Instant) {
        self.announced = Some((given, now));
    }

    /// Notes that no answer came of the copy that one had to be of.
    pub fn miss(&mut self, now: Instant) {
        self.missed.get_or_insert(now);
    }

    /// Forgets what is over: files that their clients have, and those of which no byte was handed
    /// over for so long. True where nothing is left.
    pub fn settle(&mut self, memory: Duration, now: Instant) -> bool {
        let is_old = |since: Instant| now.saturating_duration_since(since) >= memory;
        for file in &mut self.begun {
            file.settle();
        }
        let is_forgotten = |file: &File| file.running.is_empty() && is_old(file.last);
        self.begun.retain(|file| !(file.is_over() || is_forgotten(file)));
        self.announced.take_if(|(_, since)| is_old(*since));
        if self.begun.is_empty() {
            self.missed = None;
        }
        self.begun.is_empty() && self.announced.is_none()
    }

    /// Whether a file is being put together.
    pub fn is_under_way(&self) -> bool {
        self.begun.iter().any(File::binds)
    }

    /// Whether an answer is being given.
    pub fn is_running(&self) -> bool {
        self.begun.iter().any(|file| !file.running.is_empty())
    }

    fn target(&self, portion: Portion, now: Instant) -> Target {
        match portion {
            Portion::Start { bounded } => self.target_of_start(bounded, now),
            Portion::From { bounded, .. } => self.target_of_rest(portion, bounded),
            Portion::Suffix(_) => self.target_of_rest(portion, true),
        }
    }

    /// A request for the first byte begins a file, unless it may be one of several parts that are
    /// asked side by side: others are under way, or what was given of the file is scattered.
    fn target_of_start(&self, bounded: bool, now: Instant) -> Target {
        let patience = |since| now.saturating_duration_since(since) < REUNION;
        if !self.missed.is_none_or(patience) {
            return Target::New;
        }
        let goes_on = |file: &File| {
            let beside = file.running.iter().any(|running| !running.begins);
            beside || (bounded && !file.superseded && file.spans.are_scattered())
        };
        let file = self.begun.iter().rposition(|file| file.binds() && goes_on(file));
        file.map_or(Target::New, Target::File)
    }

    /// Everything else goes on with the file that ends where it begins, or with the last one that
    /// was begun.
    fn target_of_rest(&self, portion: Portion, bounded: bool) -> Target {
        let current = self.current();
        let Some((at, beyond)) = self.nearest(portion, bounded) else {
            return current.map_or(Target::New, Target::File);
        };
        let other = current.map(|current| &self.begun[current]);
        let Some(other) = other.filter(|other| other.given != self.begun[at].given) else {
            return Target::File(at);
        };
        // A bounded one may be a part of the last file, which begins there by chance; and the last
        // one may lack what was handed over last.
        let is_near = !bounded && beyond <= NEAR;
        let may_lack = other.loose && other.beyond(portion).is_some_and(|beyond| beyond <= NEAR);
        if is_near && !may_lack { Target::File(at) } else { Target::Torn }
    }

    /// The file that a request goes on with, and how many bytes were given behind that: the one
    /// that ends just there, or the last one that ends near, or the one that ends nearest. What is
    /// open to its end is what resumes a file, and may lack what was handed over last.
    fn nearest(&self, portion: Portion, bounded: bool) -> Option<(usize, u64)> {
        let files = self.begun.iter().enumerate().filter(|(_, file)| file.binds());
        let claims = files.filter_map(|(at, file)| Some((at, file.beyond(portion)?)));
        claims.min_by_key(|(at, beyond)| {
            let beyond = if !bounded && (1..=NEAR).contains(beyond) { 1 } else { *beyond };
            (beyond, usize::MAX - at)
        })
    }

    /// The file that was begun last.
    fn current(&self) -> Option<usize> {
        self.begun.iter().rposition(|file| file.binds() && !file.superseded)
    }

    fn of_copy(&self, copy: CopyId) -> Option<usize> {
        self.begun.iter().rposition(|file| file.binds() && file.given.copy == copy)
    }

    /// Makes one of a file and of those of the same copy that a request may go on with as well:
    /// nobody knows which of them its bytes will be in. Where that one is.
    fn unite(&mut self, at: usize, portion: Portion) -> usize {
        let mut at = at;
        loop {
            let may_be = |(other, file): &(usize, &File)| {
                let is_near = || file.beyond(portion).is_some_and(|beyond| beyond <= NEAR);
                *other != at && file.given == self.begun[at].given && file.binds() && is_near()
            };
            let Some((other, _)) = self.begun.iter().enumerate().find(may_be) else { return at };
            let older = self.begun.remove(at.min(other));
            at = at.max(other) - 1;
            self.begun[at].join(older);
        }
    }

    fn add(&mut self, given: Arc<PinnedCopy>, length: Option<u64>, now: Instant) -> usize {
        if self.begun.len() >= MAX_FILES {
            self.make_room();
        }
        self.begun.push(File::new(given, length, now));
        self.begun.len() - 1
    }

    /// Makes one of two files of one copy, or forgets the oldest.
    fn make_room(&mut self) {
        for at in 0..self.begun.len() {
            let given = &self.begun[at].given;
            if self.begun[at + 1..].iter().any(|younger| younger.given == *given) {
                let older = self.begun.remove(at);
                let same = self.begun[at..].iter_mut().find(|file| file.given == older.given);
                if let Some(same) = same {
                    same.join(older);
                }
                return;
            }
        }
        let oldest = self.begun.iter().position(|file| file.running.is_empty()).unwrap_or(0);
        self.begun.remove(oldest);
    }
}

#[cfg(test)]
mod tests;
