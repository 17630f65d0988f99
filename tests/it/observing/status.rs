//! `/status`: what is under way, and what happened.

use serde_json::Value;

use super::super::support::body::Content;
use super::super::support::client::Ask;
use super::super::support::origin::{Fault, Origin, Program};
use super::super::support::process::Running;
use super::super::support::{full, incremental};
use super::{config, events, shows, status};

fn shared(directory: &tempfile::TempDir) -> String {
    let path = directory.path().display();
    format!(
        "log: {{access: off}}\nproxy_snapshot_cache_dir: '{path}'\n\
         cache: {{sharing: shared, prefetch: all, min_free_space: 0B}}"
    )
}

fn find<'a>(list: &'a Value, key: &str, value: &str) -> &'a Value {
    let mut list = list.as_array().into_iter().flatten();
    list.find(|entry| entry[key] == value).unwrap_or(&Value::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fill_is_seen_to_go_on_and_to_end() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, Content::framed(1, 24 << 20))]).await;
    origin.slow_to(8 << 20);
    let directory = tempfile::tempdir().expect("a directory");
    let edge = Running::start(&config(&shared(&directory), &[&origin])).await;
    let fill = |status: &Value| find(&status["fills"], "name", &name).clone();
    let begun =
        shows(&edge, "the fill", |status| fill(status)["received"].as_u64() > Some(0)).await;
    let first = fill(&begun);
    assert_eq!(first["length"], 24 << 20);
    assert_eq!(first["source"], origin.address().to_string());
    assert!(first["rate"].as_u64() > Some(1 << 20) && first["seconds_left"].is_number(), "{first}");
    let later = shows(&edge, "more of it", |status| {
        fill(status)["received"].as_u64() > first["received"].as_u64()
    });
    later.await;
    // A client that reads along is one of its readers, and a transfer.
    let (address, path) = (edge.address, format!("/{name}"));
    let reader = tokio::spawn(async move { Ask::get(path).send(address).await });
    let along = shows(&edge, "a reader", |status| fill(status)["readers"] == 1).await;
    let transfer = &along["transfers"][0];
    assert_eq!((&transfer["name"], &transfer["source"]), (&Value::from(&*name), &"cache".into()));
    assert_eq!(
        (&transfer["length"], &transfer["client"]),
        (&(24 << 20).into(), &"127.0.0.1".into())
    );
    assert_eq!(along["transfers_total"], 1);
    assert_eq!(reader.await.expect("no fault").status, 200);
    let whole = shows(&edge, "the archive", |status| {
        status["fills"] == Value::Array(Vec::new()) && status["transfers_total"] == 0
    })
    .await;
    let cached = find(&whole["cache"]["archives"], "name", &name);
    assert_eq!((&cached["size"], &cached["offered"]), (&(24 << 20).into(), &true.into()));
    assert_eq!(whole["groups"][0]["offered"]["full"]["cached"], true);
    assert_eq!(whole["cache"]["used_bytes"], 24 << 20);
    let events = events(&whole);
    let promoted = events.iter().filter(|(kind, text)| kind == "promoted" && text.contains(&name));
    assert_eq!(promoted.count(), 1, "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_seen_to_die_and_to_come_back() {
    let (name, newer) = (full(1000), incremental(1000, 1100));
    let archives = [(&*name, Content::new(1, 1000)), (&*newer, Content::new(2, 1000))];
    let one = Origin::run(Program::Sidecar, &archives).await;
    let other = Origin::run(Program::Sidecar, &archives).await;
    let edge = Running::start(&config("", &[&one, &other])).await;
    let (target, state) = (one.address().to_string(), |status: &Value, target: &str| {
        find(&status["targets"], "target", target)["state"].as_str().unwrap_or("").to_owned()
    });
    let is = |wanted: &'static str| {
        let target = target.clone();
        move |status: &Value| state(status, &target) == wanted
    };
    let up = shows(&edge, "both are up", |status| status["groups"][0]["targets_up"] == 2).await;
    assert_eq!(up["health"], "healthy");
    one.fail_probes(Fault::CloseBeforeHead);
    let down = shows(&edge, "one is down", is("down")).await;
    assert_eq!(down["targets"][0]["target"], *target, "trouble comes first");
    let reason = down["targets"][0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("see that the port"), "{reason}");
    assert_eq!(down["health"], "healthy", "the other one has all of it");
    other.fail_probes(Fault::CloseBeforeHead);
    let none = shows(&edge, "nothing is up", |status| status["health"] == "degraded").await;
    assert!(none["reasons"][0].as_str().expect("why").contains("Group a"), "{}", none["reasons"]);
    one.fail_probes(None);
    other.fail_probes(None);
    let back = shows(&edge, "both are back", |status| status["groups"][0]["targets_up"] == 2).await;
    let kinds: Vec<String> = events(&back)
        .into_iter()
        // Those that were there at the first look were not found since.
        .filter(|(kind, text)| text.contains(&target) && kind != "target_found")
        .map(|(kind, _)| kind)
        .collect();
    assert_eq!(kinds, ["target_up", "target_down", "target_up"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_is_told_in_sentences() {
    let origin = Origin::run(Program::Sidecar, &[(&full(1000), Content::new(1, 1000))]).await;
    let configuration = config("", &[&origin]);
    let edge = Running::start(&configuration).await;
    edge.offers("/snapshot.tar.bz2").await;
    edge.rewrite(&format!("{configuration}unknown: 1\n"));
    assert_eq!(edge.reload().await.0, 500);
    let bad = shows(&edge, "the reload failed", |status| status["health"] == "degraded").await;
    assert_eq!(bad["configuration"]["reloads_failed"], 1);
    assert!(bad["configuration"]["last_error"].as_str().expect("why").contains("unknown"));
    edge.rewrite(&configuration);
    assert_eq!(edge.reload().await.0, 200);
    let good = shows(&edge, "the reload", |status| status["health"] == "healthy").await;
    assert_eq!(good["configuration"]["last_error"], Value::Null);
    let kinds: Vec<String> = events(&good).into_iter().map(|(kind, _)| kind).collect();
    for kind in ["started", "offered", "reload_failed", "reloaded"] {
        assert_eq!(kinds.iter().filter(|of| *of == kind).count(), 1, "{kind}: {kinds:?}");
    }
    for (kind, text) in events(&good) {
        let begins_well = text.starts_with(|c: char| c.is_uppercase()) || kind == "started";
        assert!(text.ends_with('.') && begins_well, "{text}");
    }
    // However much happens, the last of it is told.
    for round in 0..150 {
        let name = format!("127.0.0.1:{}", 10_000 + round % 2);
        let more = configuration.replace("targets: [", &format!("targets: ['{name}', "));
        edge.rewrite(&more);
        assert_eq!(edge.reload().await.0, 200);
    }
    let many = status(edge.internal).await;
    assert!(many["events"].as_array().expect("a list").len() <= 200);
    assert_eq!(many["configuration"]["reloads_failed"], 1);
}
