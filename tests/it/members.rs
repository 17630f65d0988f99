//! A group in several entries of the configuration, each with its own way to its targets: another
//! scheme, path, certificate, name and password.

use std::fmt::Write;

use super::support::body::Content;
use super::support::client::Ask;
use super::support::edge::{Edge, QUICK};
use super::support::origin::{Origin, Program};
use super::support::tls::{Authority, Front};
use super::support::{eventually, full};

const BODY: Content = Content::framed(1, 300_000);
/// `u:p`.
const BASIC: &str = "Basic dTpw";
const BEARER: &str = "Bearer 4711";

/// One group, `a`, in these entries.
fn config(extra: &str, entries: &[String]) -> String {
    let mut text = format!("{QUICK}{extra}\ntarget_groups:\n");
    for entry in entries {
        writeln!(text, "  - {{group: a, {entry}}}").unwrap();
    }
    text
}

fn targets(address: impl std::fmt::Display) -> String {
    format!("static_targets: {{targets: ['{address}']}}")
}

/// Three origins that have nothing in common, and the entries that lead to them.
struct World {
    names: [String; 3],
    entries: Vec<String>,
    /// They end with it.
    _origins: [Origin; 3],
    _authority: Authority,
}

impl World {
    async fn new() -> Self {
        let names = [full(1000), full(2000), full(3000)];
        let mut origins = Vec::new();
        for (name, program) in
            names.iter().zip([Program::Agave, Program::Sidecar, Program::Sidecar])
        {
            origins.push(Origin::run(program, &[(name, BODY)]).await);
        }
        let origins: [Origin; 3] = origins.try_into().ok().expect("three");
        let [first, second, third] = &origins;
        first.demand(BASIC);
        second.demand(BEARER);
        let authority = Authority::new();
        let server = authority.issue(&["127.0.0.1"]).server();
        let front = Front::before(third.address(), server).await;
        let entries = vec![
            format!("{}, basic_auth: {{username: u, password: p}}", targets(first.address())),
            format!("{}, kind: sidecar, bearer_auth: {{token: 4711}}", targets(second.address())),
            format!(
                "scheme: https, tls_config: {{{}}}, {}",
                authority.trusted(),
                targets(front.address)
            ),
        ];
        Self { names, entries, _origins: origins, _authority: authority }
    }
}

async fn lists(edge: &Edge, names: &[String]) {
    edge.sees(&format!("{names:?}"), |view| {
        names.iter().all(|name| !view.sources(&name.parse().expect("a name")).is_empty())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_target_is_probed_and_downloaded_from_in_the_way_of_its_entry() {
    let World { names, entries, _origins: origins, _authority: authority } = World::new().await;
    let directory = tempfile::tempdir().expect("a directory");
    let cached = |sharing: &str| {
        format!(
            "proxy_snapshot_cache_dir: '{}'\ncache: {{sharing: {sharing}, min_free_space: 0B}}",
            directory.path().join(sharing).display()
        )
    };
    for extra in [String::new(), cached("exclusive"), cached("shared")] {
        let edge = Edge::start(&config(&extra, &entries));
        lists(&edge, &names).await;
        for name in &names {
            let path = format!("/{name}");
            let head = edge.ask(Ask::head(&*path)).await;
            assert_eq!((head.status, head.length()), (200, BODY.len), "{extra} {}", head.head);
            let whole = edge.get(&path).await;
            assert!(whole.status == 200 && whole.body == BODY.all(), "{extra} {}", whole.head);
        }
        let part = Ask::get(format!("/{}", names[1])).with("range", "bytes=1000-1999");
        let part = edge.ask(part).await;
        assert_eq!((part.status, part.body), (206, BODY.bytes(1000, 2000)), "{extra}");
        assert_eq!(edge.view().groups().count(), 1);
    }
    for (origin, own) in origins.iter().zip([Some(BASIC), Some(BEARER), None]) {
        for request in origin.seen() {
            assert_eq!(request.header("authorization"), own, "{request:?}");
        }
    }
    drop(authority);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_redirected_with_the_scheme_of_the_entry() {
    let World { names, entries, _origins, _authority } = World::new().await;
    let edge = Edge::start(&config("proxy_snapshot_downloads: false", &entries));
    lists(&edge, &names).await;
    for (name, scheme) in names.iter().zip(["http://", "http://", "https://"]) {
        let answer = edge.get(&format!("/{name}")).await;
        let location = answer.header("location").expect("a redirect");
        assert!(answer.status == 307 && location.starts_with(scheme), "{}", answer.head);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_of_two_entries_is_reached_as_the_first_says_while_that_has_it() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, BODY)]).await;
    origin.demand(BASIC);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("targets");
    std::fs::write(&path, format!("{}\n", origin.address())).expect("written");
    let edge = Edge::start(&config(
        "",
        &[
            format!(
                "basic_auth: {{username: u, password: p}}, file_targets: {{path: '{}'}}",
                path.display()
            ),
            format!("bearer_auth: {{token: 4711}}, {}", targets(origin.address())),
        ],
    ));
    lists(&edge, std::slice::from_ref(&name)).await;
    assert_eq!(edge.get(&format!("/{name}")).await.status, 200);
    // The second entry knows it without any look, and the first one may be later by that.
    let said = |header| {
        move |request: &super::support::server::Request| {
            request.header("authorization") == Some(header)
        }
    };
    let count = |header| origin.seen().iter().filter(|request| said(header)(request)).count();
    let bearer = count(BEARER);
    eventually("more probes", || async { count(BASIC) > 4 }).await;
    assert_eq!(count(BEARER), bearer, "the first entry has it");
    origin.demand(BEARER);
    std::fs::write(&path, "").expect("written");
    eventually("probes of the second entry", || async { count(BEARER) > bearer + 4 }).await;
    lists(&edge, std::slice::from_ref(&name)).await;
    let whole = edge.get(&format!("/{name}")).await;
    assert!(whole.status == 200 && whole.body == BODY.all(), "{}", whole.head);
}
