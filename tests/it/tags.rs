//! Entity tags tell copies apart, over restarts and over a fleet, and never where a copy is.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use snapedge::index::CopyId;

use super::support::body::Content;
use super::support::client::{Answer, Ask};
use super::support::edge::Edge;
use super::support::origin::{Origin, Program, modified};
use super::support::process::{File, PROGRAM, Running};
use super::support::{eventually, full};

const CONTENT: Content = Content::framed(3, 200_000);
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const HIT: &str = "snapedge; hit";

fn tag(answer: &Answer) -> String {
    answer.header("etag").unwrap_or_else(|| panic!("no tag: {}", answer.head)).to_owned()
}

fn get(name: &str) -> Ask {
    Ask::get(format!("/{name}"))
}

/// What somebody makes who has guessed the address, and knows what everybody can ask for: the
/// length, the time of the last change, and how identities of copies are made.
fn guessed(authority: &str, modified: Option<SystemTime>) -> Vec<String> {
    [
        CopyId::new(authority, CONTENT.len, modified),
        CopyId::new(authority, CONTENT.len, None),
        CopyId::of_file(authority, CONTENT.len, modified),
    ]
    .map(|copy| copy.to_string())
    .to_vec()
}

fn caching(directory: &Path, sharing: &str) -> String {
    format!(
        "proxy_snapshot_cache_dir: '{}'\n\
         cache: {{min_free_space: 0B, verify: length, sharing: {sharing}}}",
        directory.display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guessed_address_cannot_be_confirmed_by_a_tag_wherever_the_bytes_come_from() {
    let name = full(1000);
    for program in [Program::Sidecar, Program::Agave] {
        for sharing in [None, Some("exclusive"), Some("shared")] {
            let origin = Origin::run(program, &[(&name, CONTENT)]).await;
            let directory = tempfile::tempdir().expect("a directory");
            let cache = sharing.map(|sharing| caching(directory.path(), sharing));
            let edge = Edge::with(&cache.unwrap_or_default(), &[&origin]).await;
            let mut answers = vec![
                edge.ask(Ask::head(format!("/{name}"))).await,
                edge.ask(get(&name).with("range", "bytes=5-9").from(2)).await,
                edge.ask(get(&name)).await,
                edge.ask(get(&name)).await,
            ];
            if sharing.is_some() {
                eventually("a hit", || async {
                    edge.ask(get(&name)).await.header("cache-status") == Some(HIT)
                })
                .await;
                answers.push(edge.ask(get(&name)).await);
                answers.push(edge.ask(get(&name).with("range", "bytes=900000-")).await);
            }
            let address = origin.address().to_string();
            for answer in &answers {
                assert_eq!(tag(answer), tag(&answers[0]), "{}", answer.head);
                assert!(!guessed(&address, Some(modified())).contains(&tag(answer)));
            }
        }
    }
    let shelf = tempfile::tempdir().expect("a directory");
    std::fs::write(shelf.path().join(&name), CONTENT.all()).expect("written");
    let changed = shelf.path().join(&name).metadata().and_then(|data| data.modified());
    let path = shelf.path().to_str().expect("text");
    let edge = Edge::start(&format!(
        "listen: ['127.0.0.1:0']\nscrape_interval: 100ms\n\
         target_groups: [{{group: a, ledger_targets: {{paths: ['{path}']}}}}]\n"
    ));
    edge.sees("the file", |view| !view.sources(&name.parse().expect("valid")).is_empty()).await;
    for ask in [get(&name), Ask::head(format!("/{name}")), get(&name).with("range", "bytes=1-2")] {
        let answer = edge.ask(ask).await;
        assert!(!guessed(path, changed.as_ref().ok().copied()).contains(&tag(&answer)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn edges_agree_on_their_tags_where_they_are_given_one_secret() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, CONTENT)]).await;
    let file = File::new(&format!("{}\n", SECRET.to_ascii_uppercase()));
    let cache = tempfile::tempdir().expect("a directory");
    let given = format!("etag_secret: '{SECRET}'\n");
    let mut tags = Vec::new();
    for settings in [
        given.clone(),
        format!("etag_secret_file: '{}'\n", file.path.display()),
        format!("{given}{}", caching(cache.path(), "shared")),
        "etag_secret: 'ffffffffffffffffffffffffffffffff'\n".to_owned(),
        String::new(),
        String::new(),
    ] {
        let edge = Edge::with(&settings, &[&origin]).await;
        tags.push(tag(&edge.ask(get(&name)).await));
    }
    assert_eq!([&tags[1], &tags[2]], [&tags[0]; 2]);
    assert!(!cache.path().join("snapedge.secret").exists(), "what is given is not kept");
    tags.drain(1..3);
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 4, "each without a secret has its own: {tags:?}");
}

/// A process on this directory, once it knows the archive.
async fn process(directory: &Path, more: &str, origin: &Origin, name: &str) -> Running {
    let config = format!(
        "scrape_interval: 100ms\n{more}{}\n\
         target_groups: [{{group: a, static_targets: {{targets: ['{}']}}}}]\n",
        caching(directory, "exclusive"),
        origin.address()
    );
    let running = Running::start(&config).await;
    eventually("the archive is known", || async {
        Ask::head(format!("/{name}")).send(running.address).await.status == 200
    })
    .await;
    running
}

/// Waits until an archive comes out of the cache.
async fn hit(running: &Running, name: &str) -> Answer {
    let is_hit = |answer: &Answer| answer.header("cache-status") == Some(HIT);
    eventually("a hit", || async { is_hit(&get(name).send(running.address).await) }).await;
    get(name).send(running.address).await
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_outlive_a_restart_beside_a_cache_and_what_is_cached_outlives_the_secret() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, CONTENT)]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let (path, secret) = (directory.path(), directory.path().join("snapedge.secret"));
    let first = process(path, "", &origin, &name).await;
    let before = tag(&hit(&first, &name).await);
    let kept = std::fs::read_to_string(&secret).expect("a secret");
    assert_eq!(secret.metadata().expect("a file").mode() & 0o7777, 0o600);
    let record = std::fs::read_to_string(path.join(format!("{name}.snapedge"))).expect("a record");
    assert!(!record.contains(&before), "who reads the record learns no tag: {record}");
    assert!(!first.kill().contains(kept.trim()), "nothing shows it");

    let part = || get(&name).with("range", "bytes=5-9");
    let same = process(path, "", &origin, &name).await;
    let asked = origin.asked("GET", &name);
    let answer = part().with("if-range", &before).send(same.address).await;
    assert_eq!((answer.status, &tag(&answer)), (206, &before));
    assert_eq!(answer.header("cache-status"), Some(HIT), "adopted");
    assert_eq!(std::fs::read_to_string(&secret).expect("a secret"), kept);
    same.kill();

    // Another secret, given or made anew: the archive stays, and its old tag names nothing.
    for (more, gone) in [(format!("etag_secret: '{SECRET}'\n"), false), (String::new(), true)] {
        if gone {
            std::fs::remove_file(&secret).expect("removed");
            std::fs::write(path.join("snapedge.secret-new"), "half").expect("written");
        }
        let other = process(path, &more, &origin, &name).await;
        let answer = part().with("if-range", &before).send(other.address).await;
        assert_eq!((answer.status, answer.header("cache-status")), (200, Some(HIT)));
        assert!(answer.body == CONTENT.all());
        assert_ne!(tag(&answer), before);
        let again = part().with("if-range", tag(&answer)).send(other.address).await;
        assert_eq!((again.status, again.body.len()), (206, 5));
        assert!(!path.join("snapedge.secret-new").exists(), "swept");
        other.kill();
    }
    assert_ne!(std::fs::read_to_string(&secret).expect("made anew"), kept);
    assert_eq!(origin.asked("GET", &name), asked, "nothing was fetched again");
}

#[test]
fn a_secret_that_is_none_is_named_at_the_start_and_not_replaced() {
    for content in [&b""[..], b"hunter2\n", b"\xff\xfe", &[b'0'; 64]] {
        let directory = tempfile::tempdir().expect("a directory");
        let secret = directory.path().join("snapedge.secret");
        std::fs::write(&secret, content).expect("written");
        let file = File::new(&format!(
            "listen: ['127.0.0.1:0']\n{}\n\
             target_groups: [{{group: a, static_targets: {{targets: ['127.0.0.1:1']}}}}]\n",
            caching(directory.path(), "exclusive")
        ));
        let path = file.path.to_str().expect("a path");
        let output = std::process::Command::new(PROGRAM).args(["-c", path]).output();
        let output = output.expect("the program runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(secret.to_str().expect("text")), "{said}");
        assert!(said.contains("remove the file") && !said.contains("hunter2"), "{said}");
        assert_eq!(std::fs::read(&secret).expect("still there"), content);
    }
}
