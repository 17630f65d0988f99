//! What `/status` tells, field by field: the same for the page, for `snapedge status` and for
//! programs. `docs/status.md` is its reference; a field that is new is no new version.

use serde::{Deserialize, Serialize};

/// The number that grows when a field goes, or means something else.
pub const VERSION: u32 = 1;

/// How one edge is at one time. Times are RFC 3339 in UTC, with milliseconds.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Status {
    /// [`VERSION`].
    pub version: u32,
    /// The version of the program.
    pub program: String,
    /// When this was true.
    pub now: String,
    /// When the process began.
    pub started: String,
    /// Seconds since then.
    pub uptime_seconds: f64,
    /// How it is, in a word.
    pub health: Health,
    /// Every reason for which that is not `healthy`: a plain sentence each.
    pub reasons: Vec<String>,
    /// The configuration that is followed.
    pub configuration: Configuration,
    /// The cluster's slot, where a node that is configured for that tells it.
    pub cluster_slot: Option<u64>,
    /// Every group, by name.
    pub groups: Vec<Group>,
    /// The targets, those with trouble first, the worst of it before the least; at most 1000.
    pub targets: Vec<Target>,
    /// How many targets there are.
    pub targets_total: usize,
    /// Archives on their way into the cache, the oldest fill first; at most 64.
    pub fills: Vec<Fill>,
    /// The cache, where there is one.
    pub cache: Option<Cache>,
    /// Archives on their way to clients, the largest first; at most 100.
    pub transfers: Vec<Transfer>,
    /// How many of those there are.
    pub transfers_total: usize,
    /// Every bound that can be reached, and how near it is.
    pub limits: Vec<Limit>,
    /// What went through.
    pub traffic: Traffic,
    /// One sample each ten seconds, the oldest first, over the last hour.
    pub history: Vec<Sample>,
    /// The last 200 things that happened, the newest first.
    pub events: Vec<Event>,
}

/// How an edge is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// The edge does what it is there for.
    Healthy,
    /// Something needs somebody to look.
    Degraded,
    /// The first round of probes is not over.
    Starting,
    /// The process is about to end, and takes nothing new.
    Draining,
    /// A word that this version does not know.
    #[serde(other)]
    Other,
}

/// The configuration that is followed.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Configuration {
    /// The file, where it was read from one.
    pub file: Option<String>,
    /// When it was taken.
    pub since: String,
    /// Reloads that were taken.
    pub reloads: u64,
    /// Reloads that were not, since something was wrong.
    pub reloads_failed: u64,
    /// What was wrong with the last reload, if that was not taken.
    pub last_error: Option<String>,
}

/// One group.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Group {
    /// The name of the group.
    pub name: String,
    /// What the short names lead to.
    pub offered: Option<Pair>,
    /// What they will lead to once it is in the cache, where that is something else.
    pub wanted: Option<Pair>,
    /// Slots between the newest archive that is offered and the newest slot that is known: that of
    /// the cluster, or that of the archive that will be offered next.
    pub age_slots: Option<u64>,
    /// Seconds since the newest archive that is offered was made, or was seen first where its time
    /// is not known.
    pub age_seconds: Option<f64>,
    /// Seconds since something else than before was offered.
    pub unchanged_seconds: Option<f64>,
    /// Targets that were found.
    pub targets: usize,
    /// Targets that answered their last probe and list archives, ejected ones too.
    pub targets_up: usize,
    /// Slots at which targets list archives of different hashes.
    pub conflicts: usize,
}

/// A full archive, and the incremental one that belongs to it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Pair {
    /// The full archive.
    pub full: Archive,
    /// The incremental archive on it, where there is one.
    pub incremental: Option<Archive>,
}

/// An archive.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Archive {
    /// The file name.
    pub name: String,
    /// The slot that it leads to.
    pub slot: u64,
    /// Bytes, where they are known.
    pub size: Option<u64>,
    /// Whether the cache has it.
    pub cached: bool,
    /// Targets of the group that list it.
    pub sources: usize,
}

/// One target.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Target {
    /// The group of the target.
    pub group: String,
    /// Host and port, or the path of a local directory.
    pub target: String,
    /// What it is.
    pub kind: TargetKind,
    /// How it is.
    pub state: TargetState,
    /// Why it offers nothing, or is ejected, in plain words.
    pub reason: Option<String>,
    /// Seconds since its last answer.
    pub answered_seconds_ago: Option<f64>,
    /// Seconds that its last probe took.
    pub probe_seconds: Option<f64>,
    /// Probes that failed since the last one that did not.
    pub failures: u32,
    /// Archives that it lists.
    pub archives: usize,
    /// The newest slot among those.
    pub slot: Option<u64>,
    /// Until when it gets no transfers, since those before failed.
    pub ejected_until: Option<String>,
    /// Bytes per second that it delivered of late, as choices between targets rely on it.
    pub rate: Option<u64>,
    /// Transfers that it carries.
    pub transfers: usize,
    /// Bytes that came from it since the process began.
    pub received_bytes: u64,
}

/// What a target is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetKind {
    /// Not known yet.
    Unknown,
    /// A node.
    Rpc,
    /// A sidecar, a tracker or another edge.
    Sidecar,
    /// A local directory.
    Ledger,
    /// A word that this version does not know.
    #[serde(other)]
    Other,
}

/// How a target is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetState {
    /// Probes fail, and the target's archives are no longer offered.
    Down,
    /// The last probe failed, and what the target listed before is still offered.
    Failing,
    /// Transfers from the target failed, and it rests; it answers and lists archives.
    Ejected,
    /// The target answers, and lists no archives.
    Empty,
    /// The target was not probed yet.
    Unknown,
    /// The target answers and lists archives.
    Up,
    /// A word that this version does not know.
    #[serde(other)]
    Other,
}

/// An archive on its way into the cache.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Fill {
    /// The archive.
    pub name: String,
    /// The group whose target it comes from.
    pub group: String,
    /// The target that it comes from.
    pub source: String,
    /// Bytes that are there.
    pub received: u64,
    /// Bytes that it will have; nothing while the target has not answered.
    pub length: Option<u64>,
    /// Bytes per second of late.
    pub rate: Option<u64>,
    /// Seconds until it is whole, at that rate.
    pub seconds_left: Option<f64>,
    /// Seconds since it began.
    pub seconds: f64,
    /// Clients that read it as it grows.
    pub readers: usize,
}

/// The cache.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Cache {
    /// The directory.
    pub directory: String,
    /// Bytes of whole archives.
    pub used_bytes: u64,
    /// Bytes that are set aside on the disk for archives on their way, and so no longer free.
    pub reserved_bytes: u64,
    /// Bytes that are free on its file system; nothing where that cannot be asked.
    pub free_bytes: Option<u64>,
    /// `cache.max_size`.
    pub max_bytes: Option<u64>,
    /// `cache.min_free_space`.
    pub min_free_bytes: u64,
    /// The whole archives, by name.
    pub archives: Vec<Cached>,
}

/// A whole archive in the cache.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Cached {
    /// The file name.
    pub name: String,
    /// The group of the target that it came from.
    pub group: String,
    /// The target that it came from.
    pub source: String,
    /// Bytes.
    pub size: u64,
    /// Seconds since it is whole.
    pub age_seconds: f64,
    /// Clients that read it.
    pub readers: usize,
    /// Whether short names lead to it, or are to.
    pub offered: bool,
    /// Seconds until its lease ends, where it has one: nobody is led to it any more, and it is kept
    /// for those who were.
    pub lease_seconds: Option<f64>,
}

/// An archive on its way to a client.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Transfer {
    /// The request's id.
    pub request_id: String,
    /// The client's address.
    pub client: String,
    /// The archive.
    pub name: String,
    /// Where its bytes come from: a target, or `cache`.
    pub source: String,
    /// Bytes that went out.
    pub sent: u64,
    /// Bytes of the answer.
    pub length: Option<u64>,
    /// Bytes per second since it began.
    pub rate: u64,
    /// Seconds since it began.
    pub seconds: f64,
}

/// A bound, and how near it is.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Limit {
    /// The key of the configuration that sets it.
    pub name: String,
    /// How much of it is used.
    pub used: u64,
    /// The bound.
    pub limit: u64,
    /// What both are counted in.
    #[serde(default)]
    pub unit: Unit,
    /// How often somebody was refused for it.
    pub refused: u64,
}

/// What a bound is counted in.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// In things, such as transfers.
    #[default]
    Count,
    /// In bytes per second.
    BytesPerSecond,
    /// A word that this version does not know.
    #[serde(other)]
    Other,
}

/// What went through since the process began, and how fast it does now.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Traffic {
    /// Requests that were answered.
    pub requests: u64,
    /// Bytes of bodies to clients.
    pub sent_bytes: u64,
    /// Bytes of archives from targets.
    pub received_bytes: u64,
    /// Bytes per second to clients, over the last ten seconds.
    pub sent_rate: u64,
    /// Bytes per second from targets, over the last ten seconds.
    pub received_rate: u64,
}

/// What was measured over ten seconds.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Sample {
    /// When, in seconds since 1970.
    pub time: u64,
    /// Bytes per second to clients.
    pub sent_rate: u64,
    /// Bytes per second from targets.
    pub received_rate: u64,
    /// Age in seconds of the newest archive that is offered; of the oldest of these where there are
    /// several groups.
    pub age_seconds: Option<f64>,
}

/// Something that happened.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Event {
    /// When.
    pub time: String,
    /// What kind of thing that is; `docs/operations.md` has all of them.
    pub kind: EventKind,
    /// A plain sentence.
    pub text: String,
}

/// The kinds of things that happen.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The process began.
    Started,
    /// The process is about to end.
    Draining,
    /// A group offers something else, or nothing any more.
    Offered,
    /// An archive is whole in the cache.
    Promoted,
    /// An archive left the cache.
    Removed,
    /// A fill came to nothing.
    FillFailed,
    /// What a target delivered is no sound archive.
    Unsound,
    /// A target was found.
    TargetFound,
    /// A target is no longer there to be probed.
    TargetGone,
    /// A target does not answer, or offers nothing any more.
    TargetDown,
    /// A target answers and offers archives.
    TargetUp,
    /// Transfers from a target failed, and it rests.
    TargetEjected,
    /// A target that rested may carry transfers again.
    TargetReturned,
    /// Another configuration is followed.
    Reloaded,
    /// A configuration was not taken.
    ReloadFailed,
    /// Somebody was refused for a bound; at most one event each minute for each of them.
    Refused,
    /// A word that this version does not know.
    #[serde(other)]
    Other,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 16] = [
        Self::Started,
        Self::Draining,
        Self::Offered,
        Self::Promoted,
        Self::Removed,
        Self::FillFailed,
        Self::Unsound,
        Self::TargetFound,
        Self::TargetGone,
        Self::TargetDown,
        Self::TargetUp,
        Self::TargetEjected,
        Self::TargetReturned,
        Self::Reloaded,
        Self::ReloadFailed,
        Self::Refused,
    ];
}
