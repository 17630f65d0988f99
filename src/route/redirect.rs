//! What is answered with a redirect, from the published view.

use std::net::IpAddr;
use std::sync::Arc;

use http::status::StatusCode;

use super::balance::{Targets, order};
use super::failure::Failure;
use super::known_path::Wanted;
use super::place::Names;
use super::reply::Reply;
use super::request::ShortForm;
use crate::config::{Config, Downloads};
use crate::index::View;
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
    /// What names a group besides a query.
    pub names: Names,
}

impl Settings {
    /// The part of a configuration that decides about requests.
    pub fn of(config: &Config) -> Self {
        let Config { downloads, max_snapshot_age, .. } = *config;
        let (default_group, public_url) = (config.default_group.clone(), config.public_url.clone());
        let names = Names::of(config);
        Self { downloads, default_group, public_url, max_snapshot_age, names }
    }
}

/// Who asks, and what is known of the targets that it may be sent to.
pub struct Requester<'a> {
    /// Address of the client.
    pub client: IpAddr,
    /// How they do.
    pub targets: &'a dyn Targets,
}

/// The archive that a short form leads to, by the view alone: nothing here waits, and nothing is
/// asked.
///
/// `continues` is the archive that a request for a part goes on with: aria2 begins every part and
/// every retry at the short form, so a part of what was best when it began must not lead to what is
/// best now, while the group still has the other.
pub fn chosen(
    form: &ShortForm,
    continues: Option<ArchiveName>,
    view: &View,
    settings: &Settings,
) -> Result<ArchiveName, Failure> {
    let group = form.group.as_deref().or(settings.default_group.as_deref());
    let best = view.best(group).map_err(|_| Failure::UnknownGroup)?;
    let name = best.and_then(|best| match form.wanted {
        Wanted::Full => Some(best.full),
        Wanted::Incremental => best.incremental,
    });
    let begun = continues.filter(|name| view.is_held(name, group));
    begun.or(name).ok_or(Failure::NotHeld)
}

/// The answer to a short form that leads to this archive.
pub fn short_form(
    form: &ShortForm,
    name: &ArchiveName,
    view: &View,
    settings: &Settings,
    requester: &Requester<'_>,
) -> Result<Reply, Failure> {
    match settings.downloads {
        Downloads::Proxy => Ok(Reply::redirect(StatusCode::SEE_OTHER, &form.path(name))),
        Downloads::Redirect => elsewhere(StatusCode::SEE_OTHER, name, view, requester),
    }
}

/// The answer to a request for an archive that is not carried.
pub fn redirect(
    name: &ArchiveName,
    view: &View,
    requester: &Requester<'_>,
) -> Result<Reply, Failure> {
    elsewhere(StatusCode::TEMPORARY_REDIRECT, name, view, requester)
}

fn elsewhere(
    status: StatusCode,
    name: &ArchiveName,
    view: &View,
    Requester { client, targets }: &Requester<'_>,
) -> Result<Reply, Failure> {
    let sources = order(*client, name, view.sources(name), |_| false, *targets);
    let location = sources.first().and_then(|source| source.listed.location.as_ref());
    location.map(|location| Reply::redirect(status, &location.url())).ok_or(Failure::NotHeld)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;
    use crate::index::{AccessKey, Catalog, Event, Listed, Location, Policy, Publish, TargetId};
    use crate::route::{Strangers, Style};
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
                tag: None,
                location: Some(Location {
                    scheme: "http",
                    address: ([10, 0, 0, number], 8899).into(),
                    authority: Arc::clone(&authority),
                    path: format!("/at/{name}"),
                    access: AccessKey::default(),
                    via: crate::hops::Via::default(),
                }),
            };
            let archives = names.into_iter().map(listed).collect();
            let target = TargetId { group: group.into(), authority: Arc::clone(&authority) };
            catalog.apply(Event::Answered { target, at, archives });
        }
        let policy = Policy {
            probe_failures: 3,
            pair_hold: Duration::from_secs(600),
            publish: Publish::Seen,
        };
        let groups = ["a", "b", "c"].map(Arc::from);
        catalog.view(&View::default(), &groups, policy, at.instant)
    }

    fn settings(downloads: Downloads, default_group: Option<&str>) -> Settings {
        Settings {
            downloads,
            default_group: default_group.map(Arc::from),
            public_url: None,
            max_snapshot_age: 0,
            names: Names::default(),
        }
    }

    fn short(wanted: Wanted, group: Option<&str>) -> ShortForm {
        let (group, prefix) = (group.map(str::to_owned), String::new());
        ShortForm { wanted, style: Style::V1, group, prefix }
    }

    const REQUESTER: Requester<'static> = Requester { client: CLIENT, targets: &Strangers };

    fn shown(reply: &Reply) -> (u16, String) {
        let body = String::from_utf8(reply.body.to_vec()).expect("text");
        (reply.status.as_u16(), body)
    }

    #[expect(clippy::needless_pass_by_value, reason = "rows read better without `&`")]
    fn check(
        form: ShortForm,
        settings: &Settings,
        continues: Option<ArchiveName>,
        expected: Result<(u16, String), Failure>,
    ) {
        let view = view();
        let found = chosen(&form, continues, &view, settings);
        let found = found.and_then(|name| short_form(&form, &name, &view, settings, &REQUESTER));
        let found = found.map(|reply| shown(&reply));
        assert_eq!(found, expected, "{form:?} {settings:?} {continues:?}");
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
    fn without_proxying_everything_leads_to_a_target() {
        let settings = settings(Downloads::Redirect, None);
        let url = |name: ArchiveName| format!("http://10.0.0.1:8899/at/{name}");
        check(short(Wanted::Full, None), &settings, None, Ok((303, url(full(1000)))));
        let found = |name| redirect(&name, &view(), &REQUESTER).map(|reply| shown(&reply));
        assert_eq!(found(full(900)), Ok((307, url(full(900)))));
        assert_eq!(found(full(800)), Err(Failure::NotHeld));
    }
}
