//! Where secrets never go.

use std::net::SocketAddr;

use super::super::support::client::{Answer, Ask};
use super::super::support::server::Request;
use super::*;

fn assert_clean(where_it_could_be: &str, text: &str) {
    for secret in [SECRET, IN_BASE64, "czNjcjN0"] {
        assert!(!text.contains(secret), "the secret is in {where_it_could_be}: {text}");
    }
    assert!(!text.to_ascii_lowercase().contains("authorization"), "{where_it_could_be}: {text}");
}

fn shown(request: &Request) -> String {
    format!("{request:?} {}", String::from_utf8_lossy(&request.body))
}

/// What answers a client: every route, and what a target has.
async fn ask_for_everything(address: SocketAddr, names: &[&str]) -> Vec<Answer> {
    let mut answers = Vec::new();
    let mut paths: Vec<String> = [
        "/snapshot.tar.bz2",
        "/incremental-snapshot.tar.zst",
        "/v1/snapshot.tar.bz2?group=a",
        "/v1/snapshots",
        "/v1/best_snapshots?max=25",
        "/v1/health",
        "/health",
        "/nothing",
        "/v1/snapshots?slot=x",
    ]
    .map(str::to_owned)
    .to_vec();
    paths.extend(names.iter().map(|name| format!("/{name}")));
    for path in paths {
        answers.push(Ask::get(&*path).send(address).await);
        answers.push(Ask::head(&*path).send(address).await);
        answers.push(Ask::get(&*path).with("range", "bytes=1-2").send(address).await);
        // What clients send of their own goes nowhere either.
        answers.push(Ask::get(&*path).with("authorization", "Bearer client").send(address).await);
    }
    answers
}

/// The targets of group `a` redirect: one to a host that is another one, one to another port.
/// Group `b` has no credentials.
#[tokio::test(flavor = "multi_thread")]
async fn the_secret_is_found_nowhere() {
    let (base, newest, other) = (full(1000), incremental(1000, 1500), full(900));
    let archives = [(&*base, BODY), (&*newest, BODY)];
    let basic = format!("basic_auth: {{username: snapedge, password: {SECRET}}}");
    let bearer = format!("bearer_auth: {{token: {SECRET}}}");
    for keys in [basic, bearer] {
        for extra in ["", "proxy_snapshot_downloads: false", "cache"] {
            let directory = tempfile::tempdir().expect("a directory");
            let extra = match extra {
                "cache" => cached(directory.path(), "shared"),
                extra => extra.to_owned(),
            };
            let own = Origin::run(Program::Agave, &archives).await;
            let elsewhere = Origin::run(Program::FiredancerSnapshots, &archives).await;
            let to_host = Origin::run(Program::Agave, &[]).await;
            let away = format!("http://localhost:{}/snapshot.tar.bz2", elsewhere.address().port());
            to_host.fail_probes(Reason::Redirect(away));
            let next_door = Origin::run(Program::FiredancerSnapshots, &archives).await;
            let to_port = Origin::run(Program::FiredancerRpc(next_door.address()), &[]).await;
            let foreign = Origin::run(Program::Sidecar, &[(&other, BODY)]).await;
            // An address is the same host as the name that led to it, but not the other way round.
            let targets = [
                own.address().to_string(),
                by_name(to_port.address()),
                to_host.address().to_string(),
            ];
            let text = format!(
                "scrape_interval: 100ms\nlog: {{level: trace}}\n{extra}\ntarget_groups:\n  \
                 - {{group: a, kind: rpc, static_targets: {{targets: {targets:?}}}, {keys}}}\n  \
                 - {{group: b, static_targets: {{targets: ['{}']}}}}\n",
                foreign.address()
            );
            let running = Running::start(&text).await;
            eventually("all is known", || async {
                let listing = Ask::get("/v1/snapshots").send(running.address).await;
                let listing = String::from_utf8(listing.body).expect("text");
                listing.matches(&newest).count() >= 2 && listing.contains(&other)
            })
            .await;
            for number in 1..=3 {
                let _ = Ask::get(format!("/{newest}")).from(number).send(running.address).await;
            }
            for answer in ask_for_everything(running.address, &[&base, &newest, &other]).await {
                let body = String::from_utf8_lossy(&answer.body).into_owned();
                assert_clean("an answer", &format!("{}{body}", answer.head));
            }
            for origin in [&elsewhere, &next_door, &foreign] {
                origin.seen().iter().for_each(|request| {
                    assert_clean("a request to another", &shown(request));
                });
            }
            assert_eq!(elsewhere.seen().len(), 0, "another host was asked");
            assert!(!next_door.seen().is_empty(), "another port was asked");
            assert!(own.seen().iter().all(|request| {
                let sent = request.header("authorization").expect("credentials");
                sent.contains(SECRET) || sent.contains(IN_BASE64)
            }));
            let log = running.kill();
            assert!(log.contains("TRACE"), "{log}");
            for secret in [SECRET, IN_BASE64] {
                let found = log.lines().find(|line| line.contains(secret));
                assert_eq!(found, None, "the secret is in the log");
            }
            let bytes = format!("{:?}", SECRET.as_bytes());
            assert!(!log.contains(bytes.trim_matches(['[', ']'])), "the secret is in the log");
        }
    }
}
