//! Targets that answer and offer nothing.

use super::*;
use crate::support::body::Content;
use crate::support::edge::{Edge, QUICK};
use crate::support::full;
use crate::support::origin::{Origin, Program};

const LISTING: &str = "/v1/snapshots";
const ARCHIVES: &str = r#"[{"slot": 1000, "files": [{"file_name":
    "snapshot-1000-426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY.tar.zst", "size": 5}]}]"#;
const SIDECAR: Reply = Reply::new(200, "application/json", ARCHIVES).at(LISTING);

/// A group for each kind of target, one after the other.
async fn watch(groups: &[(&str, String)]) -> Running {
    let mut text = "scrape_interval: 100ms\ntarget_groups:\n".to_owned();
    for (at, (more, target)) in groups.iter().enumerate() {
        text += &format!("- {{group: g{at}, {more} static_targets: {{targets: ['{target}']}}}}\n");
    }
    Running::start(&text).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_target_that_offers_nothing_is_told_once_with_what_came_and_what_to_change() {
    let page = Reply::new(200, "text/html", "<html><h1>Index of /</h1></html>");
    let json = Reply::new(200, "application/json", r#"{"status": "ok"}"#);
    let empty = Reply::new(200, "application/json", "[]").at(LISTING);
    let bytes = Reply::new(200, "application/octet-stream", "BZh9").at("/snapshot.tar.bz2");
    let kinds = [
        (Reply::new(404, "text/html", "<h1>404</h1>"), "", "a file server is neither"),
        (page, "", "these are web pages"),
        (page, "kind: sidecar,", "set the port, `api_path` and `kind`"),
        (page, "kind: rpc,", "these are web pages"),
        (json, "", "this is another service"),
        (empty, "", "let the sidecar look at the directories"),
        (bytes, "", "has to have a sidecar beside it"),
        (Reply::new(403, "text/plain", "no"), "", "`bearer_auth`"),
        (Reply::new(500, "text/plain", "oops"), "kind: sidecar,", "its own log says why"),
        (Reply::new(404, "text/plain", "no"), "kind: sidecar,", "set the port, `api_path`"),
    ];
    let (mut groups, mut servers) = (Vec::new(), Vec::new());
    for (reply, more, _) in kinds {
        let server = Web::run(reply).await;
        groups.push((more, server.address().to_string()));
        servers.push(server);
    }
    // A node under another path than it has.
    let name = full(1000);
    let node = Origin::run(Program::Agave, &[(&name, Content::new(1, 1000))]).await;
    groups.push(("api_path: /mainnet,", node.address().to_string()));
    let edge = watch(&groups).await;
    for ((_, target), (_, _, advice)) in groups.iter().zip(kinds) {
        let told = line(&edge, &["WARN", &format!("target {target} in"), "answered", advice]).await;
        assert!(told.contains(LISTING) || told.contains("/snapshot.tar.bz2"), "{told}");
    }
    let (_, target) = &groups[kinds.len()];
    line(&edge, &[target, "`/mainnet/v1/snapshots` answered 405", "`api_path`"]).await;

    // Another reason, and then none.
    let server = &servers[0];
    let target = server.address().to_string();
    let before = count(&edge, &[&target]);
    server.handler.set(empty);
    line(&edge, &[&target, "a list without archives"]).await;
    server.handler.set(Reply::new(502, "text/html", "<h1>Bad Gateway</h1>"));
    line(&edge, &["cannot probe", &target, "502", "its own log says why"]).await;
    server.handler.set(SIDECAR);
    line(&edge, &["INFO", &target, "answers again"]).await;
    server.handler.set(empty);
    eventually("it is told anew", || async {
        count(&edge, &[&target, "a list without archives"]) == 2
    })
    .await;
    server.handler.set(SIDECAR);
    line(&edge, &["INFO", &target, "offers archives now"]).await;
    assert_eq!(count(&edge, &[&target, "target"]), before + 5, "{}", edge.log());
    for (_, target) in &groups[1..] {
        let target = format!("target {target} in");
        assert_eq!(count(&edge, &[&target]), 1, "many probes, one line: {}", edge.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_without_archives_is_told_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().display().to_string();
    let edge = Running::start(&format!(
        "scrape_interval: 100ms\n\
         target_groups: [{{group: a, ledger_targets: {{paths: ['{path}']}}}}]"
    ))
    .await;
    line(&edge, &[&path, "offers nothing", "the directory has no archive"]).await;
    std::fs::write(directory.path().join("readme.txt"), "not one").expect("written");
    // Of a kind that is not looked into.
    let name = full(1000).replace(".tar.zst", ".tar");
    std::fs::write(directory.path().join(name), "archive").expect("written");
    line(&edge, &[&path, "offers archives now"]).await;
    assert_eq!(count(&edge, &[&path, "offers nothing"]), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_targets_is_read_as_what_it_holds_whatever_its_name() {
    let name = full(1000);
    let node = Origin::run(Program::Agave, &[(&name, Content::new(1, 1000))]).await;
    let target = node.address();
    let directory = tempfile::tempdir().expect("a directory");
    for (file, text) in [
        ("targets", format!(r#"[{{"targets": ["{target}"]}}]"#)),
        ("targets.txt", format!("[\n  {{\n    \"targets\": [\"{target}\"]\n  }}\n]\n")),
        ("targets.json.new", format!("# ours\n- targets:\n  - {target}\n")),
        ("targets.conf", format!("---\n- targets: ['{target}']\n")),
        ("targets.lines", format!("{target}\n")),
    ] {
        let path = directory.path().join(file);
        std::fs::write(&path, text).expect("written");
        let edge = Edge::start(&format!(
            "{QUICK}target_groups: [{{group: a, file_targets: {{path: '{}'}}}}]",
            path.display()
        ));
        edge.knows(&node).await;
    }
}
