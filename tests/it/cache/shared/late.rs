//! Archives that are dripped while others wait to be fetched and offered.

use super::super::super::support::body::Content;
use super::super::super::support::client::Ask;
use super::super::super::support::origin::{Origin, Program};
use super::super::super::support::{eventually, full, incremental};
use super::super::CachedEdge;
use super::{FULL, INCREMENTAL, fetched, sharing};

/// So little that a full archive takes fifteen seconds, and more than what counts as silence.
const DRIP: u64 = 300_000;
const STRICT: &str =
    "prefetch: all, publish: promoted, min_fill_rate: 100MiB/s, fill_grace: 1s, verify: length";
/// What comes late, and before any test has lost its patience.
const SMALL: Content = Content::framed(7, 900_000);

async fn leads_to(cached: &CachedEdge, form: &str, name: &str) {
    eventually(&format!("{form} leads to {name}"), || async {
        let answer = cached.edge.ask(Ask::head(form)).await;
        answer.header("location") == Some(&*format!("/{name}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_drips_holds_back_nothing_that_others_have() {
    let base = full(1000);
    let honest = Origin::run(Program::Sidecar, &[(&base, FULL)]).await;
    honest.add(&incremental(1000, 1500), INCREMENTAL);
    let dripping = Origin::run(Program::Sidecar, &[]).await;
    dripping.slow_to(DRIP);
    let cached = sharing(STRICT, &[&honest, &dripping]).await;
    cached.holds(&base).await;
    cached.holds(&incremental(1000, 1500)).await;
    // One new pair after the other, none of which comes to its end.
    for round in 0..3 {
        let (lie, next) = (1700 + round * 200, 1600 + round * 200);
        dripping.add(&full(lie), FULL);
        dripping.add(&incremental(lie, lie + 10), INCREMENTAL);
        if round == 0 {
            fetched(&cached, &full(lie), 1).await;
        }
        honest.add(&incremental(1000, next), INCREMENTAL);
        leads_to(&cached, "/incremental-snapshot.tar.bz2", &incremental(1000, next)).await;
        leads_to(&cached, "/snapshot.tar.bz2", &base).await;
    }
    // Nor is it held back itself, once it delivers what others have too.
    dripping.slow_to(1 << 30);
    honest.add(&full(3000), FULL);
    dripping.add(&full(3000), FULL);
    for origin in [&honest, &dripping] {
        origin.add(&incremental(3000, 3100), INCREMENTAL);
    }
    leads_to(&cached, "/snapshot.tar.bz2", &full(3000)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn incremental_archives_that_are_dripped_hold_back_none_either() {
    let base = full(1000);
    let honest = Origin::run(Program::Agave, &[(&base, SMALL)]).await;
    honest.add(&incremental(1000, 1500), INCREMENTAL);
    let dripping = Origin::run(Program::Sidecar, &[(&base, SMALL)]).await;
    let cached = sharing(STRICT, &[&honest, &dripping]).await;
    cached.holds(&base).await;
    cached.holds(&incremental(1000, 1500)).await;
    dripping.slow_to(DRIP);
    for round in 0..3 {
        let slot = 1600 + round * 100;
        dripping.add(&incremental(1000, slot + 50), FULL);
        honest.add(&incremental(1000, slot), INCREMENTAL);
        leads_to(&cached, "/incremental-snapshot.tar.bz2", &incremental(1000, slot)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_waits_for_may_take_its_time() {
    let (base, new) = (full(1000), full(2000));
    let origin = Origin::run(Program::Sidecar, &[(&base, SMALL)]).await;
    let cached = sharing(STRICT, &[&origin]).await;
    cached.holds(&base).await;
    origin.slow_to(DRIP);
    origin.add(&new, SMALL);
    leads_to(&cached, "/snapshot.tar.bz2", &new).await;
    cached.holds(&new).await;
    assert_eq!(origin.asked("GET", &new), 1, "at once");
}
