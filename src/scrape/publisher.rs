//! The task that owns the catalog: what was learned goes in, and views come out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc, watch};

use super::ahead::{self, report_ahead};
use super::reference::Told;
use super::undelivered::report_undelivered;
use crate::config::{self, Config, Downloads};
use crate::index::{
    Catalog, Conflict, Distrusted, Event, Generation, Grounds, Held, Policy, Publish, Undelivered,
    View,
};
use crate::published::Published;

/// Events that may wait for the catalog. Probes wait when it is full; hints are dropped.
pub(super) const QUEUE: usize = 1024;
/// Least time between two views: what comes meanwhile goes into one.
const PUBLISH_PAUSE: Duration = Duration::from_millis(50);
/// Most new disagreements of one view that are logged in full.
const MAX_LOGGED_CONFLICTS: usize = 5;
/// Longest sleep of the publisher, which bounds how late the end of a hold is seen.
const IDLE: Duration = Duration::from_secs(60);

/// Takes events in and publishes views.
pub(super) struct Publisher {
    pub(super) rules: watch::Sender<Arc<Rules>>,
    /// The rules that the view follows which is published.
    followed: watch::Sender<Arc<Rules>>,
    published: Arc<Published>,
    inbox: Mutex<Inbox>,
}

/// By which views are made, as a configuration has it.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    policy: Policy,
    /// What is relied on besides what targets say, but for the slot of the cluster.
    grounds: Grounds,
    groups: Vec<Arc<str>>,
    /// Whether archives are had out of the cache.
    caches: bool,
}

/// What the publisher learns from.
pub(super) struct Inbox {
    pub(super) events: mpsc::Receiver<Event>,
    /// What the cache holds; a channel that nobody sends to where there is no cache.
    pub(super) held: watch::Receiver<Arc<[Held]>>,
    /// What it found not to be sound; the same where there is none.
    pub(super) distrusted: watch::Receiver<Arc<[Distrusted]>>,
    /// What did not come when this edge tried.
    pub(super) undelivered: watch::Receiver<Arc<[Undelivered]>>,
    /// The slot of the cluster.
    pub(super) reference: watch::Receiver<Option<Told>>,
}

impl Rules {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            policy: policy(config),
            grounds: ahead::grounds(config),
            groups: config.group_names(),
            caches: config.caches_in().is_some(),
        }
    }
}

fn policy(config: &Config) -> Policy {
    let publish = match (config.cache.publish, config.downloads) {
        (config::Publish::Promoted, Downloads::Proxy) => Publish::Promoted,
        // A redirector caches nothing, and would wait for ever.
        (config::Publish::Promoted, Downloads::Redirect) | (config::Publish::Seen, _) => {
            Publish::Seen
        }
    };
    let (probe_failures, pair_hold) = (config.limits.probe_failures, config.pair_hold);
    Policy { probe_failures, pair_hold, publish }
}

impl Publisher {
    /// Publishes to `views`, now and whenever something is learned.
    pub(super) fn new(rules: Rules, views: &Arc<Published>, inbox: Inbox) -> Self {
        // So that a group is known before the first probe, and has nothing.
        let (groups, policy) = (&rules.groups, rules.policy);
        views.store(Catalog::default().view(&View::default(), groups, policy, Instant::now()));
        let rules = Arc::new(rules);
        Self {
            rules: watch::Sender::new(Arc::clone(&rules)),
            followed: watch::Sender::new(rules),
            published: Arc::clone(views),
            inbox: Mutex::new(inbox),
        }
    }

    /// Makes views by other rules, and returns once one is published.
    pub(super) async fn follow(&self, rules: Rules) {
        let rules = Arc::new(rules);
        let mut followed = self.followed.subscribe();
        self.rules.send_replace(Arc::clone(&rules));
        // The sender lives as long as this.
        let _ = followed.wait_for(|followed| Arc::ptr_eq(followed, &rules)).await;
    }

    pub(super) async fn publish(self: Arc<Self>) {
        let mut inbox = self.inbox.lock().await;
        let Inbox { events: queue, held, distrusted, undelivered, reference } = &mut *inbox;
        let (mut catalog, mut rules) = (Catalog::default(), self.rules.subscribe());
        let mut events = Vec::new();
        loop {
            let by = Arc::clone(&rules.borrow_and_update());
            // What was said before the rules changed is known when they have.
            while events.len() < QUEUE
                && let Ok(event) = queue.try_recv()
            {
                events.push(event);
            }
            let held_now = Arc::clone(&held.borrow_and_update());
            catalog.hold(if by.caches { &held_now } else { &[] });
            catalog.distrust(&distrusted.borrow_and_update(), Instant::now());
            catalog.miss(&undelivered.borrow_and_update());
            let slot = ahead::reference(*reference.borrow_and_update());
            catalog.rely_on(Grounds { reference: slot, ..by.grounds.clone() });
            for event in events.drain(..) {
                catalog.apply(event);
            }
            if !Arc::ptr_eq(&self.followed.borrow(), &by) {
                catalog.keep_groups(&by.groups);
            }
            let before = self.published.load();
            let view = catalog.view(&before, &by.groups, by.policy, Instant::now());
            report_changes(&before, &view);
            let until = view.until();
            self.published.store(view);
            self.followed.send_if_modified(|followed| {
                let is_new = !Arc::ptr_eq(followed, &by);
                *followed = by;
                is_new
            });
            tokio::select! {
                () = tokio::time::sleep(PUBLISH_PAUSE) => {}
                // Whoever changed them waits.
                Ok(()) = rules.changed() => continue,
            }
            let wait = until.map_or(IDLE, |until| until.saturating_duration_since(Instant::now()));
            tokio::select! {
                received = queue.recv_many(&mut events, QUEUE) => if received == 0 { return },
                Ok(()) = held.changed() => {}
                Ok(()) = distrusted.changed() => {}
                Ok(()) = undelivered.changed() => {}
                Ok(()) = reference.changed() => {}
                Ok(()) = rules.changed() => {}
                // A hold has ended, and the view is made anew.
                () = tokio::time::sleep(wait.min(IDLE)) => {}
            }
        }
    }
}

/// One line for each thing that an operator wants to know of.
fn report_changes(before: &View, after: &View) {
    report_undelivered(before, after);
    for (name, group) in after.groups() {
        let old = before.group(name);
        let best = old.and_then(|old| old.best);
        if best != group.best {
            log::info!("group `{name}` now offers {}", describe(group.best));
        }
        report_ahead(name, old, group);
        let known: BTreeSet<&Conflict> = old.iter().flat_map(|old| &old.conflicts).collect();
        let mut new = group.conflicts.iter().filter(|conflict| !known.contains(conflict));
        for conflict in new.by_ref().take(MAX_LOGGED_CONFLICTS) {
            log::warn!("group `{name}`: {conflict}");
        }
        let more = new.count();
        if more > 0 {
            log::warn!("group `{name}`: {more} more disagreements");
        }
    }
}

fn describe(best: Option<Generation>) -> String {
    match best {
        None => "nothing".to_owned(),
        Some(Generation { full, incremental: None }) => full.to_string(),
        Some(Generation { full, incremental: Some(incremental) }) => {
            format!("{full} and {incremental}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_a_cache_waits_for_it() {
        let file = "target_groups: [{group: main, static_targets: {targets: ['a:1']}}]\n\
                    proxy_snapshot_cache_dir: /var/cache/snapedge\n\
                    cache: {sharing: shared, prefetch: all";
        for (rest, expected) in [
            ("}", Publish::Seen),
            (", publish: promoted}", Publish::Promoted),
            (", publish: promoted}\nproxy_snapshot_downloads: false", Publish::Seen),
        ] {
            let config = config::parse(&format!("{file}{rest}")).expect(rest);
            assert_eq!(policy(&config).publish, expected, "{rest}");
        }
    }
}
