//! What is asked, what there is, and what was tried: all that a plan is made from.

use std::net::IpAddr;
use std::sync::Arc;

use http::Method;

use super::entry::{CachePolicy, EntryState};
use crate::config::Downloads;
use crate::hops::CdnLoop;
use crate::index::{Source, View};
use crate::route::affinity::Affinity;
use crate::route::asked::Asked;
use crate::route::balance::Targets;
use crate::route::cache_status::Bypass;
use crate::route::failure::SourceFailure;
use crate::route::pinned_copy::PinnedCopy;
use crate::snapshot::ArchiveName;

/// A request for an archive.
#[derive(Clone, Debug)]
pub struct ArchiveRequest {
    /// The archive.
    pub name: ArchiveName,
    /// Who asks.
    pub client: IpAddr,
    /// What is asked of it.
    pub asked: Asked,
    /// The proxies that it came through.
    pub came: Arc<CdnLoop>,
    /// The group that it has to be of, where that was said.
    pub group: Option<Arc<str>>,
}

/// All that a decision may look at, as of one moment.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// What targets have.
    pub view: &'a View,
    /// What the cache has of the archive; `None` without a cache.
    pub entry: Option<EntryState<'a>>,
    /// What the client has of it.
    pub affinity: &'a Affinity,
    /// How targets do.
    pub targets: &'a dyn Targets,
    /// Whether a source's copy is no archive of its name.
    pub is_distrusted: &'a dyn Fn(&Source) -> bool,
    /// Whether this edge tried a source, and it failed.
    pub has_failed: &'a dyn Fn(&Source) -> bool,
    /// Whether archives are carried.
    pub downloads: Downloads,
    /// How the cache is used.
    pub policy: CachePolicy,
    /// Whether the request has a place among the transfers.
    pub admitted: bool,
}

/// What a target is asked by HEAD before it is asked for the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Which copy it has, on which the conditions of the request are judged.
    Conditions,
    /// Whether the copy is there that the client was told of.
    Announced,
}

/// What is known of the conditions of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Inquiry {
    /// Nobody was asked yet.
    #[default]
    Open,
    /// The conditions are met, as far as can be told before the archive is asked for.
    Passed,
    /// The target does not tell, and its listing says that they are not met. What the head of the
    /// archive itself says decides, and nothing is begun for the cache.
    Unanswered,
}

/// What is known of the target whose copy the client was told of, and which the cache has not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Announced {
    /// Nobody was asked yet.
    #[default]
    Open,
    /// The target answers, so that its copy is asked for.
    Answering,
    /// The target does not answer, and any other copy will do.
    Silent,
}

/// What was done about a request so far, and what came of it. It only grows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// Whether targets were asked for an archive that none of them listed.
    pub probed: bool,
    /// What a target said of the conditions.
    pub inquiry: Inquiry,
    /// What it said of the copy that the client was told of.
    pub announced: Announced,
    /// How the local directories failed, once they were tried: not at all, but by being gone, where
    /// the client began another copy meanwhile.
    pub local: Option<SourceFailure>,
    /// After how many joined fills it was waited for how fast the last one of them comes, or the
    /// one that was there.
    pub measured: Option<u8>,
    /// Whether the right to fill the cache was waited for.
    pub waited: bool,
    /// How many fills of the cache were joined.
    pub joins: u8,
    /// Why the request goes past the cache, once that is certain.
    pub bypass: Option<Bypass>,
    /// The copy that another request of the same client began meanwhile.
    pub begun: Option<Arc<PinnedCopy>>,
}

impl ArchiveRequest {
    /// True where a target has to be asked before it is asked for the archive. A HEAD is answered
    /// by what it says anyway.
    pub(super) fn is_conditional(&self) -> bool {
        self.asked.method == Method::GET && !self.asked.conditions.is_empty()
    }
}
