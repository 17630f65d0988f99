//! `publish: promoted`, in the JSON lists.

use super::super::super::support::origin::{Fault, Origin, Program};
use super::super::super::support::{eventually, full, incremental};
use super::super::CachedEdge;
use super::{FULL, INCREMENTAL, fetched, sharing};

/// The names that the best entry has, and how many entries there are.
async fn best(cached: &CachedEdge, query: &str) -> (Vec<String>, usize) {
    let answer = cached.edge.get(&format!("/v1/best_snapshots{query}")).await;
    let elements: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    let files = elements[0]["files"].as_array().cloned().unwrap_or_default();
    let name = |file: &serde_json::Value| file["file_name"].as_str().expect("a name").to_owned();
    (files.iter().map(name).collect(), elements.as_array().expect("a list").len())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_best_snapshots_are_what_short_forms_lead_to_while_the_next_is_fetched() {
    let (old_full, old) = (full(1000), incremental(1000, 1500));
    let (next, new_full, new) = (incremental(1000, 1600), full(2000), incremental(2000, 2500));
    let origin = Origin::run(Program::Sidecar, &[(&old_full, FULL), (&old, INCREMENTAL)]).await;
    let cached = sharing("prefetch: all, publish: promoted", &[&origin]).await;
    cached.holds(&old).await;
    cached.holds(&old_full).await;

    origin.fail(Fault::Hold(INCREMENTAL.len / 2));
    origin.add(&next, INCREMENTAL);
    fetched(&cached, &next, 1).await;
    let offered = vec![old, old_full.clone()];
    for (query, count) in [("", 1), ("?max=5", 2), ("?group=a&max=-1", 2)] {
        assert_eq!(best(&cached, query).await, (offered.clone(), count), "{query}");
    }
    let all = cached.edge.get("/v1/snapshots").await;
    assert!(String::from_utf8_lossy(&all.body).contains(&next), "it is known all the same");
    origin.fail(None);
    let offered = vec![next.clone(), old_full];
    eventually("it is whole", || async { best(&cached, "").await.0 == offered }).await;

    origin.fail(Fault::Hold(INCREMENTAL.len / 2));
    origin.add(&new_full, FULL);
    origin.add(&new, INCREMENTAL);
    fetched(&cached, &new, 1).await;
    assert_eq!(best(&cached, "").await.0, offered, "neither half of the next generation");
    origin.fail(None);
    let offered = vec![new, new_full];
    eventually("all is whole", || async { best(&cached, "").await.0 == offered }).await;
}
