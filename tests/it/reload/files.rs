//! Files that cannot be taken, of which nothing is, and who is told so.

use std::fs;

use super::*;
use crate::support::origin::Program;
use crate::support::process::Running;
use crate::support::tls::Authority;
use crate::support::{eventually, full};

/// What a process answers that still follows the configuration that it began with.
async fn goes_on(running: &Running) {
    let answer = Ask::get("/snapshot.tar.bz2?group=a").send(running.address).await;
    assert_eq!((answer.status, leads_to(&answer)), (303, &*full(1000)));
}

fn quick(groups: &str) -> String {
    format!("scrape_interval: 100ms\ntarget_groups:\n{groups}")
}

/// The group `a` with the targets of this file.
fn from_file(path: &Path) -> String {
    format!("  - {{group: a, file_targets: {{path: '{}'}}}}\n", path.display())
}

async fn start(origin: &Origin) -> Running {
    let running = Running::start(&quick(&group("a", &[origin], ""))).await;
    running.offers("/snapshot.tar.bz2").await;
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_errors_changes_nothing_and_is_told_with_all_of_them() {
    let origin = Origin::run(Program::Agave, &[(&full(1000), BODY)]).await;
    let running = start(&origin).await;
    let bad = "limits: {per_target: 0, min_rate: fast}\nnonsense: 1\n";
    running.rewrite(&format!("{bad}{}", quick(&group("b", &[&origin], "kind: x"))));
    let (status, said) = running.reload().await;
    assert_eq!(status, 500);
    assert!(said.starts_with("nothing was changed: 4 errors in the configuration"), "{said}");
    let lines: Vec<&str> = said.lines().skip(1).collect();
    assert_eq!(lines.len(), 4, "a line for each: {said}");
    for (line, key) in lines.iter().zip(["per_target", "min_rate", "kind", "nonsense"]) {
        assert!(line.contains(key), "{key}: {said}");
    }
    goes_on(&running).await;
    running.signal("-HUP");
    eventually("the log says so as well", || async {
        running.log().matches("4 errors in the configuration").count() == 2
    })
    .await;
    for key in ["per_target", "min_rate", "kind", "nonsense"] {
        assert!(running.log().contains(key), "{}", running.log());
    }
    goes_on(&running).await;
    for (text, part) in
        [("{", "not valid YAML"), ("", "target_groups"), (&"# x\n".repeat(2 << 20), "most")]
    {
        running.write(text);
        let (status, said) = running.reload().await;
        assert!(status == 500 && said.contains(part), "{status} {said}");
    }
    goes_on(&running).await;
    running.rewrite(&quick(&group("b", &[&origin], "")));
    assert_eq!(running.reload().await, (200, "reloaded\n".to_owned()));
    assert_eq!(Ask::get("/snapshot.tar.bz2?group=a").send(running.address).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_restart_is_named_key_by_key_and_nothing_of_it_is_taken() {
    let origin = Origin::run(Program::Agave, &[(&full(1000), BODY)]).await;
    let running = start(&origin).await;
    let (listen, internal) = (running.address, running.internal);
    let directory = tempfile::tempdir().expect("a directory");
    let cache = format!("proxy_snapshot_cache_dir: '{}'\n", directory.path().display());
    let all = ["listen", "internal_listen", "proxy_snapshot_cache_dir", "server.threads"];
    let base = |listen: &str, internal: &str, more: &str| {
        let fixed = format!("listen: [{listen}]\ninternal_listen: {internal}\n{more}");
        format!("{fixed}{}", quick(&group("b", &[&origin], "")))
    };
    let (here, inside) = (format!("'{listen}'"), format!("'{internal}'"));
    let elsewhere = format!("'{listen}', '127.0.0.1:1'");
    let threads = "server: {threads: 7}\n";
    for (text, keys) in [
        (base(&elsewhere, &inside, ""), &all[..1]),
        (base(&here, "off", ""), &all[1..2]),
        (base(&here, &inside, &cache), &all[2..3]),
        (base(&here, &inside, threads), &all[3..]),
        (base(&elsewhere, "'127.0.0.1:2'", &format!("{cache}{threads}")), &all[..]),
    ] {
        running.write(&text);
        let (status, said) = running.reload().await;
        assert_eq!(status, 409, "{said}");
        for key in all {
            assert_eq!(said.contains(&format!("`{key}`")), keys.contains(&key), "{key}: {said}");
        }
        assert!(said.contains("restart"), "{said}");
        goes_on(&running).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_read_change_nothing() {
    let origin = Origin::run(Program::Agave, &[(&full(1000), BODY)]).await;
    let running = start(&origin).await;
    let (authority, directory) = (Authority::new(), tempfile::tempdir().expect("a directory"));
    let path = |name: &str| directory.path().join(name);
    fs::write(path("no.pem"), "-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n")
        .expect("written");
    fs::write(path("empty"), "").expect("written");
    let issued = authority.issue(&["localhost"]);
    let pair = authority.client(&issued);
    let tls = |keys: &str| format!("scheme: https, tls_config: {{{keys}}}");
    let shown = |name: &str| path(name).display().to_string();
    for (keys, part) in [
        (tls(&format!("ca_file: '{}'", shown("no.pem"))), "no.pem"),
        (tls(&format!("ca_file: '{}'", shown("gone.pem"))), "gone.pem"),
        (tls(&pair.replace("c.key", "gone.key")), "gone.key"),
        (tls(&pair.replace("c.key", "c.pem")), "c.pem"),
        (format!("bearer_auth: {{token_file: '{}'}}", shown("gone")), "gone"),
        (format!("bearer_auth: {{token_file: '{}'}}", shown("empty")), "empty"),
    ] {
        running.rewrite(&quick(&group("b", &[&origin], &keys)));
        let (status, said) = running.reload().await;
        assert!(status == 500 && said.contains(part), "{keys}: {status} {said}");
        goes_on(&running).await;
    }
    // The configuration itself.
    fs::remove_file(running.file()).expect("removed");
    let (status, said) = running.reload().await;
    assert!(status == 500 && said.contains("cannot read the configuration"), "{status} {said}");
    goes_on(&running).await;
    running.rewrite(&quick(&group("a", &[&origin], &tls(&authority.trusted()))));
    assert_eq!(running.reload().await.0, 200);
}

/// One that is there when the configuration is read, and vanishes then, is what it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_targets_that_vanishes_takes_no_target_away() {
    let origin = Origin::run(Program::Agave, &[(&full(1000), BODY)]).await;
    let running = start(&origin).await;
    let directory = tempfile::tempdir().expect("a directory");
    let targets = directory.path().join("targets.txt");
    fs::write(&targets, format!("{}\n", origin.address())).expect("written");
    let from_file = from_file(&targets);
    running.rewrite(&quick(&from_file));
    assert_eq!(running.reload().await.0, 200);
    // From the one source to the other, without a moment in which there is none.
    goes_on(&running).await;
    fs::remove_file(&targets).expect("removed");
    eventually("that is said", || async { running.log().contains("keeps what") }).await;
    goes_on(&running).await;
    // A reload that changes something else asks no source for the first time.
    running.rewrite(&quick(&from_file).replace("100ms", "120ms"));
    assert_eq!(running.reload().await.0, 200);
    goes_on(&running).await;
}

/// A source that is asked otherwise, and fails, takes no target away either.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_another_one_now_has_what_that_of_before_named() {
    let origin = Origin::run(Program::Agave, &[(&full(1000), BODY)]).await;
    let running = start(&origin).await;
    let directory = tempfile::tempdir().expect("a directory");
    let targets = directory.path().join("targets.txt");
    fs::write(&targets, format!("{}\n", origin.address())).expect("written");
    running.rewrite(&quick(&from_file(&targets)));
    assert_eq!(running.reload().await.0, 200);
    goes_on(&running).await;
    let other = directory.path().join("not-yet.txt");
    running.rewrite(&quick(&from_file(&other)));
    assert_eq!(running.reload().await.0, 200);
    eventually("it has failed", || async { running.log().contains("not-yet.txt") }).await;
    goes_on(&running).await;
    fs::write(&other, "127.0.0.1:1\n").expect("written");
    eventually("what it names takes their place", || async {
        Ask::get("/snapshot.tar.bz2?group=a").send(running.address).await.status == 404
    })
    .await;
}
