//! What is logged, and who may look, follow a reload.

use super::super::observing::{config, lines};
use super::super::support::body::Content;
use super::super::support::client::{Ask, last};
use super::super::support::origin::{Origin, Program};
use super::super::support::process::Running;
use super::super::support::{eventually, full};

#[tokio::test(flavor = "multi_thread")]
async fn lines_go_where_the_new_configuration_wants_them() {
    let origin = Origin::run(Program::Agave, &[(&full(1000), Content::new(1, 1000))]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let to = |format: &str, access: &str| {
        config(&format!("log: {{format: {format}, access: '{access}'}}"), &[&origin])
    };
    let file = |name: &str| path(name).to_str().expect("a path").to_owned();
    let edge = Running::start(&to("json", &file("one"))).await;
    edge.offers("/snapshot.tar.bz2").await;
    let written = |name: &'static str, asked: &'static str| {
        let path = path(name);
        eventually("the line", move || {
            let path = path.clone();
            async move { path.exists() && lines(&path).iter().any(|line| line["path"] == asked) }
        })
    };
    Ask::get("/a").send(edge.address).await;
    written("one", "/a").await;
    edge.rewrite(&to("json", &file("two")));
    assert_eq!(edge.reload().await.0, 200);
    Ask::get("/b").send(edge.address).await;
    written("two", "/b").await;
    // A file that cannot be opened changes nothing.
    edge.rewrite(&to("json", "/nowhere/at/all"));
    let (status, said) = edge.reload().await;
    assert_eq!(status, 500);
    assert!(said.contains("`log.access`"), "{said}");
    Ask::get("/c").send(edge.address).await;
    written("two", "/c").await;
    edge.rewrite(&to("text", "stderr"));
    assert_eq!(edge.reload().await.0, 200);
    Ask::get("/d").send(edge.address).await;
    eventually("a line for people", || async { edge.log().contains(" GET /d 404 ") }).await;
    edge.rewrite(&to("json", "stderr"));
    assert_eq!(edge.reload().await.0, 200);
    Ask::get("/e").send(edge.address).await;
    eventually("an object", || async { edge.log().contains("\"path\":\"/e\"") }).await;
    edge.rewrite(&to("json", "off"));
    assert_eq!(edge.reload().await.0, 200);
    Ask::get("/f").send(edge.address).await;
    edge.rewrite(&to("json", "stderr"));
    assert_eq!(edge.reload().await.0, 200);
    Ask::get("/g").send(edge.address).await;
    eventually("the next line", || async { edge.log().contains("\"path\":\"/g\"") }).await;
    assert!(!edge.log().contains("/f"), "{}", edge.log());
    let asked = |name: &str| lines(&path(name)).len();
    let (one, two) = (asked("one"), asked("two"));
    assert!(one >= 1 && two == 2, "{one} {two}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_the_internal_listener_come_and_go() {
    let origin = Origin::run(Program::Agave, &[(&full(1000), Content::new(1, 1000))]).await;
    let named = |names: &str| config(&format!("internal_hosts: [{names}]"), &[&origin]);
    let edge = Running::start(&named("a.example")).await;
    let ask = async |host: &str| {
        let request = format!("GET /status HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let answer = last(edge.internal, request.as_bytes()).await;
        String::from_utf8_lossy(&answer).split(' ').nth(1).map(str::to_owned)
    };
    let forbidden = Some("403".to_owned());
    assert_ne!(ask("a.example").await, forbidden);
    assert_eq!(ask("b.example").await, forbidden);
    edge.rewrite(&named("b.example"));
    assert_eq!(edge.reload().await.0, 200);
    assert_eq!(ask("a.example").await, forbidden);
    assert_ne!(ask("b.example").await, forbidden);
}
