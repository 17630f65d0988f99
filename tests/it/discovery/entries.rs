//! Entries of lists that are no targets: each costs itself, whichever the source.

use std::fs;

use super::*;
use crate::support::consul::{Consul, Instance, SERVICE};
use crate::support::listing::Listing;
use crate::support::process::Running;

/// Waits until something was left out, and sees that the rest holds and nothing failed.
async fn holds(edge: &Edge, kind: SourceKind, slots: &[u64]) {
    finds(edge, slots, &[]).await;
    eventually(&format!("omissions of `{kind}`"), || async {
        edge.discovery.omissions("a", kind) > 2
    })
    .await;
    finds(edge, slots, &[]).await;
    assert_eq!(edge.discovery.failures("a", kind), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_entry_of_a_file_costs_one_entry() {
    let (a, b) = (origin(1000).await, origin(2000).await);
    let (one, other) = (a.address(), b.address());
    let directory = tempfile::tempdir().expect("a directory");
    for (name, text) in [
        ("t.txt", format!("{one}\n10.0.0.9\n{other}\n")),
        ("t.txt", format!("\u{feff}{one}\nnot a target: at all\n{other}")),
        ("t.json", format!(r#"[{{"targets":["{one}","10.0.0.9"]}},{{"targets":["{other}"]}}]"#)),
        ("t.json", format!(r#"[{{"targets":["{one}"]}},null,{{"targets":["{other}", 7]}}]"#)),
        ("t.yaml", format!("- targets: ['{one}', ~]\n- labels: {{}}\n- targets: ['{other}']\n")),
    ] {
        let path = directory.path().join(name);
        fs::write(&path, text).expect("written");
        let edge = Edge::start(&group(&format!("file_targets: {{path: '{}'}}", path.display())));
        holds(&edge, SourceKind::File, &[1000, 2000]).await;
    }
    // Bytes that are no text cost their line.
    let path = directory.path().join("bytes");
    fs::write(
        &path,
        [&b"# Z\xfcrich\n\xff:1\n"[..], format!("{one}\n{other}").as_bytes()].concat(),
    )
    .expect("written");
    let edge = Edge::start(&group(&format!("file_targets: {{path: '{}'}}", path.display())));
    holds(&edge, SourceKind::File, &[1000, 2000]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_entry_of_a_server_costs_one_entry() {
    let (a, b) = (origin(1000).await, origin(2000).await);
    let (one, other) = (a.address(), b.address());
    let listing = Listing::run().await;
    for bad in ["null", r#"{"targets":["10.0.0.9"]}"#, r#"{"targets":"x:1"}"#, "[[]]", "{}"] {
        let mark = if bad == "null" { "\u{feff}" } else { "" };
        let (one, other) =
            (format!(r#"{{"targets":["{one}"]}}"#), format!(r#"{{"targets":["{other}"]}}"#));
        listing.say(format!("{mark}[{one},{bad},{other}]"));
        let url = format!("http://{}/", listing.address());
        let edge = Edge::start(&group(&format!("http_targets: {{url: '{url}'}}")));
        holds(&edge, SourceKind::Http, &[1000, 2000]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_entry_of_consul_costs_one_entry() {
    let (a, b) = (origin(1000).await, origin(2000).await);
    let consul = Consul::run().await;
    let [one, mut bad, mut odd, other] =
        [&a, &a, &a, &b].map(|origin| Instance::at(origin.address()));
    bad.port = 0;
    odd.address = "no host".to_owned();
    consul.set(vec![one, bad, odd, other]);
    let source = format!("consul_sd_config: {{host: '{}', service: {SERVICE}}}", consul.address());
    let edge = Edge::start(&group(&source));
    finds(&edge, &[1000, 2000], &[]).await;
    assert_eq!(edge.discovery.failures("a", SourceKind::Consul), 0);
    assert!(edge.discovery.omissions("a", SourceKind::Consul) >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_is_said_once_with_its_place() {
    let a = origin(1000).await;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("targets");
    fs::write(&path, format!("# ours\n\n{}\n10.0.0.9\n", a.address())).expect("written");
    let running = Running::start(&format!(
        "scrape_interval: 100ms\ntarget_groups: [{{group: a, file_targets: {{path: '{}'}}}}]\n",
        path.display()
    ))
    .await;
    let line = format!(
        "group `a`: of what `file_targets` `{}` names, 1 entry is left out: line 4: `10.0.0.9` \
         has no port",
        path.display()
    );
    let heads = || async { a.asked("HEAD", "x") + a.seen().len() };
    eventually("it is said", || async { running.log().contains(&line) }).await;
    // Ten scrapes later it has moved, and is the same still.
    let before = heads().await;
    eventually("ten probes", || async { heads().await > before + 10 }).await;
    fs::write(&path, format!("{}\n10.0.0.9\n", a.address())).expect("written");
    let before = heads().await;
    eventually("ten probes", || async { heads().await > before + 10 }).await;
    fs::write(&path, format!("{}\n10.0.0.9\n10.0.0.8\n", a.address())).expect("written");
    let news = "2 entries are left out: line 3: `10.0.0.8` has no port";
    eventually("news is said", || async { running.log().contains(news) }).await;
    let log = running.kill();
    assert_eq!(log.matches("`10.0.0.9` has no port").count(), 1, "{log}");
    assert_eq!(log.matches("`10.0.0.8` has no port").count(), 1, "{log}");
}
