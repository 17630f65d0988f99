//! `/v1/snapshots` and `/v1/best_snapshots`.

use std::sync::Arc;
use std::time::SystemTime;

use http::StatusCode;
use serde::Serialize;

use crate::hops::{CdnLoop, Via};
use crate::index::{Entry, Location, Source, Told, View};
use crate::route::{Reply, Style};
use crate::snapshot::Slot;

/// Whose URLs are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Urls {
    /// URLs of this process, which is reached under this base (no trailing slash): every byte flows
    /// through it, and no address behind it is told.
    Own(String),
    /// URLs of the targets.
    Targets,
}

/// One entry; keys and their order as in the Go tracker, and `url` in each file.
#[derive(Serialize)]
struct Element<'a> {
    slot: Slot,
    base_slot: Slot,
    hash: String,
    files: Vec<File>,
    size: u64,
    target: String,
    group: &'a str,
    updated_at: String,
}

#[derive(Serialize)]
struct File {
    #[serde(rename = "file_name")]
    name: String,
    slot: Slot,
    #[serde(skip_serializing_if = "Option::is_none")]
    base_slot: Option<Slot>,
    hash: String,
    ext: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mod_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    handed: Option<Handed>,
}

/// Fields that only an edge is told.
#[derive(Serialize)]
struct Handed {
    /// The edges through which it comes here.
    via: Vec<String>,
    /// Whether the cache has it, and no target any more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    kept: bool,
}

/// Every archive on every target, by group, target and worth; where all of them are had from this
/// process, each archive of a group once. `base` selects by base slot, also together with `group`
/// (the Go tracker fails on both at once).
pub(super) fn snapshots(
    view: &View,
    group: Option<&str>,
    base: Option<Slot>,
    urls: &Urls,
) -> Reply {
    let is_selected = |entry: &&Entry| {
        in_group(entry, group)
            && base.is_none_or(|base| entry.source.listed.name.base_slot() == base)
    };
    match urls {
        Urls::Own(_) => list(view, view.distinct().filter(is_selected), urls),
        Urls::Targets => list(view, view.entries().iter().filter(is_selected), urls),
    }
}

/// The `max` newest archives, the newest first. Exactly `max` (the Go tracker answers one more),
/// and none whose hash most targets contradict. Where all of them are had from this process, no
/// archive is there twice.
pub(super) fn best_snapshots(view: &View, group: Option<&str>, max: usize, urls: &Urls) -> Reply {
    match urls {
        Urls::Own(_) => list(view, view.newest_distinct(group).take(max), urls),
        Urls::Targets => {
            list(view, view.newest().filter(|entry| in_group(entry, group)).take(max), urls)
        }
    }
}

/// Every archive that an edge may have: each once, by itself, and how it comes here.
pub(super) fn handed(
    view: &View,
    group: Option<&str>,
    base: Option<Slot>,
    urls: &Urls,
    came: &CdnLoop,
) -> Reply {
    let is_selected =
        |source: &Source| base.is_none_or(|base| source.listed.name.base_slot() == base);
    let mut handed = view.handed(group, came);
    handed.retain(|(source, _)| is_selected(source));
    let elements: Vec<Element> =
        handed.iter().map(|(source, via)| element(view, source, None, urls).handed(via)).collect();
    json(StatusCode::OK, &elements)
}

impl Element<'_> {
    fn handed(mut self, via: &Via) -> Self {
        for file in &mut self.files {
            let names = via.edges().iter().map(ToString::to_string).collect();
            file.handed = Some(Handed { via: names, kept: via.is_kept() });
        }
        self
    }
}

fn in_group(entry: &Entry, group: Option<&str>) -> bool {
    group.is_none_or(|group| *entry.source.target.group == *group)
}

fn list<'a>(view: &View, entries: impl Iterator<Item = &'a Entry>, urls: &Urls) -> Reply {
    let element = |entry: &'a Entry| element(view, &entry.source, entry.base.as_ref(), urls);
    let elements: Vec<Element> = entries.map(element).collect();
    json(StatusCode::OK, &elements)
}

/// A value that cannot be written is a 500; those of this module all can.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(body) => Reply::json(status, body),
        Err(error) => {
            log::error!("cannot write JSON: {error}");
            Reply::empty(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

fn element<'a>(
    view: &View,
    source: &'a Arc<Source>,
    base: Option<&Arc<Source>>,
    urls: &Urls,
) -> Element<'a> {
    let files = std::iter::once(source).chain(base).map(|source| file(view, source, urls));
    let files: Vec<File> = files.collect();
    let size = files.iter().filter_map(|file| file.size).fold(0, u64::saturating_add);
    let name = source.listed.name;
    Element {
        slot: name.slot(),
        base_slot: name.base_slot(),
        hash: name.hash().to_string(),
        files,
        size,
        target: match urls {
            Urls::Own(base) => base.clone(),
            Urls::Targets => {
                let location = source.listed.location.as_ref();
                let scheme = location.map_or("http", |location| location.scheme);
                format!("{scheme}://{}", source.target.authority)
            }
        },
        group: &source.target.group,
        updated_at: timestamp(source.updated_at),
    }
}

fn file(view: &View, source: &Source, urls: &Urls) -> File {
    let listed = &source.listed;
    let name = listed.name;
    // Who gets it from here may get the copy of any target.
    let Told { size, modified } = match urls {
        Urls::Own(_) => view.told(source),
        Urls::Targets => Told { size: listed.size, modified: listed.modified },
    };
    File {
        name: name.to_string(),
        slot: name.slot(),
        base_slot: (!name.is_full()).then(|| name.base_slot()),
        hash: name.hash().to_string(),
        ext: format!(".{}", name.compression().extension()),
        mod_time: modified.map(timestamp),
        size,
        url: match urls {
            Urls::Own(base) => Some(format!("{base}{}", Style::V1.path(&name))),
            Urls::Targets => listed.location.as_ref().map(Location::url),
        },
        handed: None,
    }
}

/// RFC 3339 in UTC with as many digits as needed, as Go writes `RFC3339Nano`.
fn timestamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).unwrap_or_default().to_string()
}
