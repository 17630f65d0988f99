//! From a [`Route`] and the published view to what is done.

use std::net::IpAddr;
use std::sync::Arc;

use http::status::StatusCode;

use super::balance::order;
use super::failure::Failure;
use super::reply::Reply;
use super::request::{Route, Style, Wanted};
use crate::config::Downloads;
use crate::index::{Source, TargetId, View};
use crate::snapshot::{ArchiveName, Slot};

/// The part of the configuration that decides about requests.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether archives are carried or redirected to.
    pub downloads: Downloads,
    /// The group that answers where none is named.
    pub default_group: Option<Arc<str>>,
    /// Base of the URLs in JSON answers.
    pub public_url: Option<String>,
    /// Slots that the newest archive may be behind the cluster.
    pub max_snapshot_age: u64,
}

/// Who asks, and which targets it had better not be sent to.
pub struct Requester<'a> {
    /// Address of the client.
    pub client: IpAddr,
    /// True for targets that failed lately.
    pub suspended: &'a dyn Fn(&TargetId) -> bool,
    /// True for the source that the client has bytes of.
    pub preferred: &'a dyn Fn(&Source) -> bool,
    /// The archive that a request for a part of a short form's archive goes on with.
    pub continues: Option<ArchiveName>,
}

/// What to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Answer at once.
    Reply(Reply),
    /// Carry an archive.
    Transfer(Transfer),
    /// Answer with JSON, or the text of the health check.
    Api(ApiCall),
}

/// An archive, and where to get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The archive.
    pub name: ArchiveName,
    /// Its sources in the order in which they are tried; never empty.
    pub sources: Vec<Arc<Source>>,
}

/// A call of the JSON API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiCall {
    /// All entries.
    Snapshots {
        /// Only this group.
        group: Option<String>,
        /// Only archives on this base slot.
        base: Option<Slot>,
    },
    /// The newest entries.
    BestSnapshots {
        /// Only this group.
        group: Option<String>,
        /// How many at most.
        max: usize,
    },
    /// Health as the tracker tells it.
    TrackerHealth {
        /// Of this group.
        group: Option<String>,
    },
    /// Health as a node tells it.
    Health,
}

/// Decides. Nothing here waits, and nothing is asked: the view is all there is.
pub fn plan(
    route: Route,
    view: &View,
    settings: &Settings,
    requester: &Requester<'_>,
) -> Result<Plan, Failure> {
    match route {
        Route::ShortForm { wanted, style, group } => {
            let group = group.as_deref().or(settings.default_group.as_deref());
            let best = view.best(group).map_err(|_| Failure::UnknownGroup)?;
            let name = best.and_then(|best| match wanted {
                Wanted::Full => Some(best.full),
                Wanted::Incremental => best.incremental,
            });
            // aria2 begins every part and every retry at the short form, so a part of what was best
            // when it began must not lead to what is best now.
            let name = continued(view, group, requester).or(name).ok_or(Failure::NotHeld)?;
            short_form(&name, style, view, settings, requester).map(Plan::Reply)
        }
        Route::Archive(name) => {
            let sources = sources(&name, view, requester)?;
            Ok(match settings.downloads {
                Downloads::Proxy => Plan::Transfer(Transfer { name, sources }),
                Downloads::Redirect => {
                    Plan::Reply(elsewhere(StatusCode::TEMPORARY_REDIRECT, &sources))
                }
            })
        }
        Route::Snapshots { group, base } => Ok(Plan::Api(ApiCall::Snapshots { group, base })),
        Route::BestSnapshots { group, max } => Ok(Plan::Api(ApiCall::BestSnapshots { group, max })),
        Route::TrackerHealth { group } => Ok(Plan::Api(ApiCall::TrackerHealth { group })),
        Route::Health => Ok(Plan::Api(ApiCall::Health)),
    }
}

/// The archive that the client goes on with, while the group still has it.
fn continued(view: &View, group: Option<&str>, requester: &Requester<'_>) -> Option<ArchiveName> {
    let in_group = |source: &Arc<Source>| group.is_none_or(|group| *source.target.group == *group);
    requester.continues.filter(|name| view.sources(name).iter().any(in_group))
}

fn short_form(
    name: &ArchiveName,
    style: Style,
    view: &View,
    settings: &Settings,
    requester: &Requester<'_>,
) -> Result<Reply, Failure> {
    match settings.downloads {
        Downloads::Proxy => Ok(Reply::redirect(StatusCode::SEE_OTHER, &style.path(name))),
        Downloads::Redirect => {
            Ok(elsewhere(StatusCode::SEE_OTHER, &sources(name, view, requester)?))
        }
    }
}

/// The sources of an archive for this client; at least one.
fn sources(
    name: &ArchiveName,
    view: &View,
    requester: &Requester<'_>,
) -> Result<Vec<Arc<Source>>, Failure> {
    let Requester { client, suspended, preferred, .. } = requester;
    let sources = order(*client, name, view.sources(name), preferred, suspended);
    if sources.is_empty() { Err(Failure::NotHeld) } else { Ok(sources) }
}

fn elsewhere(status: StatusCode, sources: &[Arc<Source>]) -> Reply {
    sources.first().map_or_else(
        || Failure::NotHeld.reply(),
        |source| Reply::redirect(status, &source.listed.location.url()),
    )
}
