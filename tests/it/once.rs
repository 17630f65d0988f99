//! JSON lists in which all archives are had from the edge itself: each of them is there once.

use super::support::body::Content;
use super::support::edge::{Edge, config};
use super::support::origin::{Origin, Program};
use super::support::{full, incremental};

/// Group and name of each element's first file, in order.
async fn listed(edge: &Edge, path: &str) -> Vec<(String, String)> {
    let answer = edge.get(path).await;
    assert_eq!(answer.status, 200, "{path}");
    let elements: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    let pair = |element: &serde_json::Value| {
        let name = element["files"][0]["file_name"].as_str().expect("a name");
        (element["group"].as_str().expect("a group").to_owned(), name.to_owned())
    };
    elements.as_array().expect("a list").iter().map(pair).collect()
}

fn in_group<'a>(group: &str, names: impl IntoIterator<Item = &'a String>) -> Vec<(String, String)> {
    names.into_iter().map(|name| (group.to_owned(), name.clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_listed_once_however_many_targets_have_it() {
    let names = [incremental(1000, 1500), full(1000), full(900)];
    let archives: Vec<_> = names.iter().map(|name| (name.as_str(), Content::new(1, 50))).collect();
    for count in [1, 2, 25] {
        let mut origins = Vec::new();
        for _ in 0..count {
            origins.push(Origin::run(Program::Sidecar, &archives).await);
        }
        let origins: Vec<&Origin> = origins.iter().collect();
        let edge = Edge::with("", &origins).await;
        let all = in_group("a", &names);
        for (max, expected) in [(0, 0), (1, 1), (2, 2), (3, 3), (25, 3), (-1, 3)] {
            let path = format!("/v1/best_snapshots?max={max}");
            assert_eq!(listed(&edge, &path).await, all[..expected], "{count} targets, {path}");
        }
        for path in ["/v1/snapshots", "/v1/snapshots?group=a", "/v1/best_snapshots?group=a&max=9"] {
            assert_eq!(listed(&edge, path).await, all, "{count} targets, {path}");
        }
        assert_eq!(listed(&edge, "/v1/snapshots?slot=900").await, all[2..], "{count} targets");

        // Where clients are sent to the targets, which of them has it is what they want to know.
        let edge = Edge::with("proxy_snapshot_downloads: false", &origins).await;
        assert_eq!(listed(&edge, "/v1/snapshots").await.len(), 3 * count);
        assert_eq!(listed(&edge, "/v1/best_snapshots?max=25").await.len(), (3 * count).min(25));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_sidecars_and_directories_are_one_source_of_an_archive() {
    let (base, newest) = (full(1000), incremental(1000, 1500));
    let archives = [(&*base, Content::framed(1, 5000)), (&*newest, Content::framed(2, 900))];
    let node = Origin::run(Program::Agave, &archives).await;
    let sidecar = Origin::run(Program::Sidecar, &archives).await;
    let directory = tempfile::tempdir().expect("a directory");
    for (name, content) in archives {
        std::fs::write(directory.path().join(name), content.all()).expect("a file");
    }
    let text = config("", &[&[&node, &sidecar]]);
    let ledger = format!("ledger_targets: {{paths: ['{}']}}", directory.path().display());
    let edge = Edge::start(&text.replace("group: a, ", &format!("group: a, {ledger}, ")));
    edge.knows(&node).await;
    edge.knows(&sidecar).await;
    edge.sees("the directory", |view| view.is_local(&newest.parse().expect("a name"))).await;
    let expected = in_group("a", [&newest, &base]);
    assert_eq!(listed(&edge, "/v1/snapshots").await, expected);
    assert_eq!(listed(&edge, "/v1/best_snapshots?max=3").await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn regions_list_an_archive_each_and_it_is_once_among_the_best_of_all() {
    let names = [incremental(1000, 1500), full(1000)];
    let archives: Vec<_> = names.iter().map(|name| (name.as_str(), Content::new(1, 50))).collect();
    let (a, b) = (
        Origin::run(Program::Sidecar, &archives).await,
        Origin::run(Program::Sidecar, &archives).await,
    );
    let edge = Edge::start(&config("", &[&[&a], &[&b]]));
    edge.knows(&a).await;
    edge.knows(&b).await;
    let both = [in_group("a", &names), in_group("b", &names)];
    assert_eq!(listed(&edge, "/v1/snapshots").await, both.concat());
    assert_eq!(listed(&edge, "/v1/best_snapshots?max=3").await, both[0]);
    assert_eq!(listed(&edge, "/v1/best_snapshots?group=b&max=3").await, both[1]);
}
