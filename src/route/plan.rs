//! From a [`Route`] and the published view to what is done.

use std::net::IpAddr;
use std::sync::Arc;

use http::status::StatusCode;

use super::balance::order;
use super::failure::Failure;
use super::reply::Reply;
use super::request::{ApiCall, Route, Style, Wanted};
use crate::config::Downloads;
use crate::index::{Source, TargetId, View};
use crate::snapshot::ArchiveName;

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
    /// True for sources that come before all others: of the copy that the client has bytes of, or
    /// that the cache has.
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
        Route::Api(call) => Ok(Plan::Api(call)),
    }
}

/// The archive that the client goes on with, while the group still has it.
fn continued(view: &View, group: Option<&str>, requester: &Requester<'_>) -> Option<ArchiveName> {
    requester.continues.filter(|name| view.is_held(name, group))
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
    let location = sources.first().and_then(|source| source.listed.location.as_ref());
    location.map_or_else(
        || Failure::NotHeld.reply(),
        |location| Reply::redirect(status, &location.url()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;
    use crate::index::{Catalog, Event, Listed, Location, Policy};
    use std::net::Ipv4Addr;
    use std::time::{Duration, Instant, UNIX_EPOCH};

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn name(text: &str) -> ArchiveName {
        let text = text.replace('#', &"1".repeat(32));
        text.parse().expect("valid")
    }

    fn full(slot: u64) -> ArchiveName {
        name(&format!("snapshot-{slot}-#.tar.zst"))
    }

    fn incremental(base: u64, slot: u64) -> ArchiveName {
        name(&format!("incremental-snapshot-{base}-{slot}-#.tar.zst"))
    }

    /// Group `a` has a pair on one target, `b` a full archive on another, `c` is silent.
    fn view() -> View {
        let at = Now { instant: Instant::now(), wall: UNIX_EPOCH };
        let mut catalog = Catalog::default();
        let held = [
            ("a", 1, vec![full(1000), incremental(1000, 1500), full(900)]),
            ("b", 2, vec![full(1200)]),
        ];
        for (group, number, names) in held {
            let authority: Arc<str> = format!("10.0.0.{number}:8899").into();
            let listed = |name: ArchiveName| Listed {
                name,
                size: None,
                modified: None,
                location: Some(Location {
                    address: ([10, 0, 0, number], 8899).into(),
                    authority: Arc::clone(&authority),
                    path: format!("/at/{name}"),
                }),
            };
            let archives = names.into_iter().map(listed).collect();
            let target = TargetId { group: group.into(), authority: Arc::clone(&authority) };
            catalog.apply(Event::Answered { target, at, archives });
        }
        let policy = Policy { probe_failures: 3, pair_hold: Duration::from_secs(600) };
        let groups = ["a", "b", "c"].map(Arc::from);
        catalog.view(&View::default(), &groups, policy, at.instant)
    }

    fn settings(downloads: Downloads, default_group: Option<&str>) -> Settings {
        Settings {
            downloads,
            default_group: default_group.map(Arc::from),
            public_url: None,
            max_snapshot_age: 0,
        }
    }

    fn short(wanted: Wanted, group: Option<&str>) -> Route {
        Route::ShortForm { wanted, style: Style::V1, group: group.map(str::to_owned) }
    }

    #[expect(clippy::needless_pass_by_value, reason = "rows read better without `&`")]
    fn check(
        route: Route,
        settings: &Settings,
        continues: Option<ArchiveName>,
        expected: Result<(u16, String), Failure>,
    ) {
        let requester =
            Requester { client: CLIENT, suspended: &|_| false, preferred: &|_| false, continues };
        let found = plan(route.clone(), &view(), settings, &requester).map(|plan| match plan {
            Plan::Reply(reply) => {
                let body = String::from_utf8(reply.body.to_vec()).expect("text");
                (reply.status.as_u16(), body)
            }
            Plan::Transfer(Transfer { name, sources }) => {
                (200, format!("{name} from {}", sources[0].target.authority))
            }
            Plan::Api(call) => (200, format!("{call:?}")),
        });
        assert_eq!(found, expected, "{route:?} {settings:?} {continues:?}");
    }

    #[test]
    fn short_forms_lead_to_the_best_of_their_group() {
        let proxy = settings(Downloads::Proxy, None);
        let to = |name: ArchiveName| Ok((303, format!("/v1/snapshot/{name}")));
        check(short(Wanted::Full, None), &proxy, None, to(full(1000)));
        check(short(Wanted::Incremental, None), &proxy, None, to(incremental(1000, 1500)));
        check(short(Wanted::Full, Some("b")), &proxy, None, to(full(1200)));
        check(short(Wanted::Incremental, Some("b")), &proxy, None, Err(Failure::NotHeld));
        check(short(Wanted::Full, Some("c")), &proxy, None, Err(Failure::NotHeld));
        check(short(Wanted::Full, Some("d")), &proxy, None, Err(Failure::UnknownGroup));
        let b = settings(Downloads::Proxy, Some("b"));
        check(short(Wanted::Full, None), &b, None, to(full(1200)));
        check(short(Wanted::Full, Some("a")), &b, None, to(full(1000)));
    }

    #[test]
    fn a_part_goes_on_with_its_archive_while_the_group_has_it() {
        let proxy = settings(Downloads::Proxy, None);
        let to = |name: ArchiveName| Ok((303, format!("/v1/snapshot/{name}")));
        let wanted = || short(Wanted::Full, None);
        check(wanted(), &proxy, Some(full(900)), to(full(900)));
        check(wanted(), &proxy, Some(full(800)), to(full(1000)));
        check(short(Wanted::Full, Some("b")), &proxy, Some(full(900)), to(full(1200)));
        check(short(Wanted::Full, Some("c")), &proxy, Some(full(900)), Err(Failure::NotHeld));
    }

    #[test]
    fn archives_are_carried_or_redirected_to() {
        let proxy = settings(Downloads::Proxy, None);
        let redirect = settings(Downloads::Redirect, None);
        let from = |name: ArchiveName| Ok((200, format!("{name} from 10.0.0.1:8899")));
        check(Route::Archive(full(900)), &proxy, None, from(full(900)));
        check(Route::Archive(full(800)), &proxy, None, Err(Failure::NotHeld));
        let url = |name: ArchiveName| format!("http://10.0.0.1:8899/at/{name}");
        check(Route::Archive(full(900)), &redirect, None, Ok((307, url(full(900)))));
        check(short(Wanted::Full, None), &redirect, None, Ok((303, url(full(1000)))));
        check(Route::Archive(full(800)), &redirect, None, Err(Failure::NotHeld));
    }
}
