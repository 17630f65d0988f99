//! What is fetched before anybody asks for it: one full and one incremental archive at a time, and
//! incremental ones first.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::queue::{AbandonPolicy, FillQueue, FillRequest, Placed};
use super::transfer::FillContext;
use crate::cache::Standing;
use crate::config::Prefetch;
use crate::index::{Generation, View};
use crate::snapshot::ArchiveName;

/// Longest time between two looks, and the rest after a fill that was not taken.
const IDLE: Duration = Duration::from_secs(60);
const REFUSED: Duration = Duration::from_secs(1);
/// How long the index may take to learn of an archive that is complete.
const CATCH_UP: Duration = Duration::from_millis(500);
/// Stands for the client where there is none.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// How long a full archive waits for incremental ones to be fetched first. Where they appear faster
/// than they can be fetched there is always one that is missing.
const FULL_WAITS: Duration = Duration::from_secs(60);

/// The full archives, or the incremental ones. One of each is fetched at a time: a node serves two
/// downloads well, and forgets an incremental archive long before a full one is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Incremental,
    Full,
}

impl Lane {
    fn archive(self, wanted: Generation) -> Option<ArchiveName> {
        match self {
            Self::Incremental => wanted.incremental,
            Self::Full => Some(wanted.full),
        }
    }
}

/// The archive of this kind that is fetched next, of those that are wanted and `is_missing`: that
/// of the group that comes after `last`, so that each has its turn.
fn next(
    view: &View,
    lane: Lane,
    last: Option<&str>,
    is_missing: impl Fn(&ArchiveName) -> bool,
) -> Option<(Arc<str>, ArchiveName)> {
    let missing = |(group, wanted): (&Arc<str>, Generation)| {
        let name = lane.archive(wanted).filter(&is_missing)?;
        Some((Arc::clone(group), name))
    };
    let all: Vec<_> = view.wanted().filter_map(missing).collect();
    let after = all.iter().find(|(group, _)| last.is_none_or(|last| **group > *last));
    after.or(all.first()).cloned()
}

/// Fetches what is new, for as long as that is configured as it is.
pub(super) async fn keep(context: Arc<FillContext>, queue: FillQueue, prefetch: Prefetch) {
    let lane = |lane| keep_lane(Arc::clone(&context), queue.clone(), lane);
    match prefetch {
        Prefetch::Off => {}
        Prefetch::Incremental => lane(Lane::Incremental).await,
        Prefetch::All => {
            tokio::join!(lane(Lane::Incremental), lane(Lane::Full));
        }
    }
}

async fn keep_lane(context: Arc<FillContext>, queue: FillQueue, lane: Lane) {
    let (mut views, mut held) = (context.published.subscribe(), context.store.held());
    let mut last: Option<Arc<str>> = None;
    // Since when a full archive could be fetched.
    let mut waiting: Option<Instant> = None;
    loop {
        views.mark_unchanged();
        held.mark_unchanged();
        let now = Instant::now();
        let view = context.published.load_full();
        let is_missing = |name: &ArchiveName| {
            !view.is_local(name)
                && !matches!(context.store.standing(name), Standing::Whole(_))
                && queue.rests_until(name, now).is_none()
                && context.has_source(name)
        };
        let mut again = rests_until(&view, &queue, now).unwrap_or(now + IDLE);
        let mut name = next(&view, lane, last.as_deref(), is_missing);
        waiting = waiting.filter(|_| name.is_some());
        if lane == Lane::Full && name.is_some() {
            let until = *waiting.get_or_insert(now) + FULL_WAITS;
            if now < until && next(&view, Lane::Incremental, None, is_missing).is_some() {
                (name, again) = (None, again.min(until));
            }
        }
        if let Some((group, name)) = name
            && let Ok(sources) = context.sources(name, NOBODY)
        {
            let (client, came) = (NOBODY, Arc::default());
            let request =
                FillRequest { name, client, came, sources, abandon: AbandonPolicy::ToTheEnd };
            match queue.place(request, now) {
                Placed::Running(ticket) => {
                    ticket.over().await;
                    (last, waiting) = (Some(group), None);
                    // What is offered may follow from what is complete now, and what is offered
                    // makes no way for the next one.
                    views.mark_unchanged();
                    let _ = tokio::time::timeout(CATCH_UP, views.changed()).await;
                    continue;
                }
                Placed::Whole => continue,
                Placed::Refused(_) => (last, again) = (Some(group), again.min(now + REFUSED)),
            }
        }
        tokio::select! {
            Ok(()) = views.changed() => {}
            Ok(()) = held.changed() => {}
            () = tokio::time::sleep_until(again.into()) => {}
        }
    }
}

/// When the first archive that is wanted and rests can be tried again.
fn rests_until(view: &View, queue: &FillQueue, now: Instant) -> Option<Instant> {
    let wanted = view.wanted().flat_map(|(_, wanted)| wanted.names());
    wanted.filter_map(|name| queue.rests_until(&name, now)).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;
    use crate::index::{Catalog, Event, Listed, Policy, Publish, TargetId};

    fn name(text: &str) -> ArchiveName {
        format!("{text}-{}.tar.zst", "1".repeat(32)).parse().expect("valid")
    }

    /// Two groups, of which the second is the newer one.
    fn view() -> View {
        let at = Now::read();
        let mut catalog = Catalog::default();
        let groups = [("a", 1000, 1500), ("b", 1200, 1600)];
        for (group, full, incremental) in groups {
            let target = TargetId { group: group.into(), authority: "10.0.0.1:8899".into() };
            let names = [
                name(&format!("snapshot-{full}")),
                name(&format!("incremental-snapshot-{full}-{incremental}")),
            ];
            let listed =
                |name| Listed { name, size: None, modified: None, tag: None, location: None };
            catalog.apply(Event::Answered { target, at, archives: names.map(listed).to_vec() });
        }
        let policy = Policy {
            probe_failures: 3,
            pair_hold: Duration::from_secs(600),
            publish: Publish::Seen,
        };
        catalog.view(&View::default(), &["a".into(), "b".into()], policy, at.instant)
    }

    #[test]
    fn each_group_has_its_turn() {
        let (view, mut last, mut served) = (view(), None, Vec::new());
        for _ in 0..4 {
            let (group, name) =
                next(&view, Lane::Incremental, last.as_deref(), |_| true).expect("one");
            served.push(name);
            last = Some(group);
        }
        let [a, b] = ["incremental-snapshot-1000-1500", "incremental-snapshot-1200-1600"].map(name);
        assert_eq!(served, [a, b, a, b], "although all of them are always missing");
        let only_a = |name: &ArchiveName| *name == a;
        for last in [None, Some("a"), Some("b"), Some("gone")] {
            let found = next(&view, Lane::Incremental, last, only_a);
            assert_eq!(found.map(|(_, name)| name), Some(a));
        }
        let full = next(&view, Lane::Full, None, |_| true).map(|(_, name)| name);
        assert_eq!(full, Some(name("snapshot-1000")));
        assert_eq!(next(&view, Lane::Full, None, |_| false), None);
    }
}
