//! The task of one target: its probes, the pauses between them, and what is said of their outcome.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::approach::Approach;
use super::head_probes::HeadProbePlace;
use super::member::Member;
use super::nodes::NodePlace;
use super::omissions::{Omissions, Told};
use super::probe_context::{ProbeContext, ProbeSettings};
use super::probe_error::ProbeError;
use super::remarks::Remarks;
use super::silence;
use super::states::{Probed, StatePlace};
use super::turns::Standing;
use crate::clock::Now;
use crate::error_chain::chain;
use crate::hops::EdgeId;
use crate::index::{Event, Listed, TargetId};

/// The loop that asks one target again and again, and tells the index what it answers.
pub(super) struct ScrapeLoop {
    pub(super) id: TargetId,
    /// As the configuration has it now.
    pub(super) member: watch::Receiver<Member>,
    pub(super) place: NodePlace,
    pub(super) head_probe: HeadProbePlace,
    pub(super) state: StatePlace,
    pub(super) context: ProbeContext,
}

/// What was said last of who a target is.
#[derive(PartialEq, Eq)]
enum Identity {
    Unsaid,
    NoEdge,
    Edge(EdgeId),
}

/// The outcome of a probe.
enum Outcome {
    Answered(Vec<Listed>),
    Failed(ProbeError),
    /// The target said nothing in all the time that there was.
    Silent,
}

impl ScrapeLoop {
    /// Says which edge the target is, where that has changed; false where nobody listens any more.
    async fn identify(&self, before: &mut Identity, edge: Option<&EdgeId>) -> bool {
        let now = edge.cloned().map_or(Identity::NoEdge, Identity::Edge);
        if *before == now {
            return true;
        }
        *before = now;
        let event = Event::Identified { target: self.id.clone(), edge: edge.cloned() };
        self.context.events.send(event).await.is_ok()
    }

    /// Asks the target by this approach, for as long as somebody listens.
    pub(super) async fn keep(self, mut approach: Approach) {
        let mut standing = Standing::default();
        let (mut remarks, mut failing, mut edge) = (Remarks::default(), false, Identity::Unsaid);
        let (mut told, mut next) = (Told::default(), Instant::now());
        let (mut settings, mut member) = (self.context.settings.clone(), self.member.clone());
        let mut interval = settings.borrow_and_update().interval;
        loop {
            let asked = async {
                tokio::time::sleep_until(next).await;
                (Instant::now(), self.ask(&mut standing, &mut approach).await)
            };
            let (due, asked) = tokio::select! {
                asked = asked => asked,
                // What is being asked is dropped: it would be known in the way of before.
                Ok(()) = member.changed() => {
                    let Member { group, client } = member.borrow_and_update().clone();
                    approach.reconfigure(client, &group);
                    self.place.set((!failing).then(|| approach.node()).flatten());
                    self.head_probe.unheard();
                    next = Instant::now();
                    continue;
                }
                Ok(()) = settings.changed() => {
                    let before = interval;
                    interval = settings.borrow_and_update().interval;
                    if interval < before {
                        // Nobody waits for what it was.
                        next = next.min(Instant::now() + interval);
                    }
                    continue;
                }
            };
            let Some((at, outcome)) = asked else { return };
            self.note(&outcome, &approach, at.instant.elapsed());
            // A probe that takes longer than that delays the next one, it is not cut short.
            let ProbeSettings { interval, failures, .. } = self.context.settings();
            next = due + standing.rest(interval, failures);
            if let Some(rest) = approach.rest() {
                next = next.max(Instant::now() + rest);
            }
            let target = self.id.clone();
            let answered = matches!(outcome, Outcome::Answered(_));
            self.place.set(answered.then(|| approach.node()).flatten());
            self.remark(&mut remarks, failing, &outcome, &approach);
            failing = !answered;
            if answered {
                self.tell(&mut told, approach.omitted());
                if !self.identify(&mut edge, approach.listing_edge()).await {
                    return;
                }
            }
            let event = match outcome {
                Outcome::Answered(archives) => Event::Answered { target, at, archives },
                Outcome::Failed(_) | Outcome::Silent => {
                    self.head_probe.failed();
                    Event::Failed { target, at }
                }
            };
            if self.context.events.send(event).await.is_err() {
                return;
            }
            if answered {
                self.head_probe.answered(approach.head_probe());
            }
        }
    }

    /// Shows how the target does to those who look.
    fn note(&self, outcome: &Outcome, approach: &Approach, took: Duration) {
        let probed = match outcome {
            Outcome::Answered(archives) => Probed::listed(archives, || approach.told()),
            Outcome::Failed(error) => Probed::Failed(silence::cause(error), Self::failure(error)),
            Outcome::Silent => Probed::Failed("timeout", self.silence()),
        };
        self.state.note(approach.nature(), probed, took);
    }

    fn failure(error: &ProbeError) -> String {
        let fault = error.fault().map_or(String::new(), |fault| format!("{fault}: "));
        let advice = silence::advice(error).map_or(String::new(), |advice| format!("; {advice}"));
        format!("{fault}{}{advice}", chain(error))
    }

    fn silence(&self) -> String {
        let timeout = self.context.settings().timeout;
        let advice = "it hangs, or needs more time than `limits.probe_timeout`";
        format!("no answer within {timeout:?}; {advice}")
    }

    /// Says once why a target offers nothing, again when there is another reason, and when it does.
    fn remark(
        &self,
        remarks: &mut Remarks,
        was_failing: bool,
        outcome: &Outcome,
        approach: &Approach,
    ) {
        let (target, now) = (&self.id, std::time::Instant::now());
        let (reason, failure) = match outcome {
            Outcome::Answered(archives) if !archives.is_empty() => {
                if remarks.well() {
                    let does = if was_failing { "answers again" } else { "offers archives now" };
                    log::info!("target {target} {does}");
                }
                return;
            }
            Outcome::Answered(_) => {
                let told = approach.told();
                if remarks.wrong(&told, now) {
                    log::warn!("target {target} offers nothing: {told}");
                }
                return;
            }
            Outcome::Failed(error) => {
                error.fault().inspect(|fault| approach.access().faults.count(*fault));
                (silence::reason(error), Self::failure(error))
            }
            Outcome::Silent => ("silent".to_owned(), self.silence()),
        };
        if remarks.wrong(&reason, now) {
            log::warn!("cannot probe target {target}: {failure}");
        }
    }

    /// Asks the target when it has its turn, again where it had to leave that to others; when that
    /// was, and what became of it. Nothing where there are no more turns.
    async fn ask(
        &self,
        standing: &mut Standing,
        approach: &mut Approach,
    ) -> Option<(Now, Outcome)> {
        let ProbeSettings { turns, timeout, failures, .. } = self.context.settings();
        loop {
            let turn = turns.turn(standing.share()).await?;
            let at = Now::read();
            let probe = tokio::time::timeout(timeout, approach.probe(timeout));
            let Some(outcome) = turn.take(standing.look(), probe).await else {
                standing.overdue();
                continue;
            };
            let took = at.instant.elapsed();
            let outcome = match outcome {
                Ok(Ok(archives)) => Outcome::Answered(archives),
                Ok(Err(error)) => Outcome::Failed(error),
                Err(_) => Outcome::Silent,
            };
            match outcome {
                Outcome::Answered(_) => standing.answered(took),
                Outcome::Failed(_) | Outcome::Silent => standing.failed(took, failures),
            }
            return Some((at, outcome));
        }
    }

    /// Says what was left out of a listing, once, and counts it.
    fn tell(&self, told: &mut Told, omitted: &Omissions) {
        self.context.counts.unlisted(&self.id.group, omitted.count());
        if let Some(news) = told.news(omitted) {
            log::warn!("of what target {} lists, {news}", self.id);
        }
    }
}
