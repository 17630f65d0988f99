//! Nodes whose short forms say that this is not the time to ask, and whose archives answer.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::super::support::body::Content;
use super::super::support::client::Ask;
use super::super::support::edge::{Edge, QUICK, config};
use super::super::support::origin::{Fault, Origin, Program};
use super::super::support::scripted::{Said, Scripted};
use super::super::support::server::Server;
use super::super::support::{eventually, full, incremental};

const BODY: Content = Content::new(1, 10_000);
const FULL: &str = "/snapshot.tar.bz2";
const INCREMENTAL: &str = "/incremental-snapshot.tar.bz2";

async fn location(edge: &Edge, path: &str) -> Option<String> {
    edge.ask(Ask::head(path)).await.header("location").map(str::to_owned)
}

async fn becomes(edge: &Edge, path: &str, expected: Option<&str>) {
    let expected = expected.map(|name| format!("/{name}"));
    eventually(&format!("{path} leads to {expected:?}"), || async {
        location(edge, path).await == expected
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_named_before_stays_while_its_short_forms_say_not_now() {
    let (base, newest) = (full(1000), incremental(1000, 1500));
    for kind in ["auto", "rpc"] {
        let origin = Origin::run(Program::Agave, &[(&base, BODY), (&newest, BODY)]).await;
        let text =
            config("", &[&[&origin]]).replace("group: a,", &format!("group: a, kind: {kind},"));
        let edge = Edge::start(&text);
        edge.knows(&origin).await;
        for status in [429, 408, 425, 451, 501, 502, 504, 421, 402, 418, 507, 520, 599] {
            origin.fail_probes(Fault::Status(status));
            // More rounds than may fail.
            let before = origin.asked("HEAD", FULL);
            eventually("five more rounds", || async { origin.asked("HEAD", FULL) >= before + 5 })
                .await;
            let what = format!("{kind} {status}");
            assert_eq!(location(&edge, FULL).await, Some(format!("/{base}")), "{what}");
            let leads = location(&edge, INCREMENTAL).await;
            assert_eq!(leads, Some(format!("/{newest}")), "{what}");
            let answer = edge.get(&format!("/{newest}")).await;
            assert!(answer.status == 200 && answer.body == BODY.all(), "{what}");
        }
        // What it no longer has goes, and what it has since is seen when it speaks again.
        origin.remove(&newest);
        becomes(&edge, INCREMENTAL, None).await;
        assert_eq!(location(&edge, FULL).await, Some(format!("/{base}")), "{kind}");
        origin.fail_probes(None);
        let later = incremental(1000, 1600);
        origin.add(&later, BODY);
        becomes(&edge, INCREMENTAL, Some(&later)).await;
        // With nothing that answers it is a target that fails, and that may come back.
        origin.fail_probes(Fault::Status(429));
        for name in [&base, &later] {
            origin.remove(name);
        }
        becomes(&edge, FULL, None).await;
        origin.add(&base, BODY);
        origin.fail_probes(None);
        becomes(&edge, FULL, Some(&base)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sidecar_listed_before_stays_while_it_does_not_want_to_list() {
    for kind in ["auto", "sidecar"] {
        let (base, listing) = (full(1000), Arc::new(Mutex::new(None)));
        let (name, says) = (base.clone(), Arc::clone(&listing));
        let server = Server::script(move |request| match request.path() {
            "/v1/snapshots" => says.lock().unwrap().clone().unwrap_or_else(|| {
                super::super::support::scripted::listing(&name, BODY.len, "2026-09-21T14:13:20Z")
            }),
            path if path.ends_with(&name) => Said::archive(request, BODY, &[]),
            _ => Said::status("404 Not Found"),
        });
        let server = server.await;
        let edge = Edge::start(&format!(
            "{QUICK}target_groups:\n  \
             - {{group: a, kind: {kind}, static_targets: {{targets: ['{}']}}}}\n",
            server.address()
        ));
        becomes(&edge, FULL, Some(&base)).await;
        for status in [
            "408 Request Timeout",
            "421 Misdirected Request",
            "425 Too Early",
            "429 Too Many Requests",
            "451 Unavailable For Legal Reasons",
            "503 Service Unavailable",
        ] {
            *listing.lock().unwrap() = Some(Said::status(status));
            let before = server.heard("GET", "/v1/snapshots");
            eventually("five more rounds", || async {
                server.heard("GET", "/v1/snapshots") >= before + 5
            })
            .await;
            let what = format!("{kind} {status}");
            assert_eq!(location(&edge, FULL).await, Some(format!("/{base}")), "{what}");
            let answer = edge.get(&format!("/{base}")).await;
            assert!(answer.status == 200 && answer.body == BODY.all(), "{what}");
        }
    }
}

/// A node with a pair, whose answers to its two short forms and to its archives are changed.
struct Node {
    server: Server<Scripted>,
    ways: Arc<Mutex<[Option<Said>; 3]>>,
    heard: Arc<Mutex<Vec<Instant>>>,
}

impl Node {
    async fn run() -> Self {
        let ways = Arc::new(Mutex::new([const { None }; 3]));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (base, newest) = (full(1000), incremental(1000, 1500));
        let (asked, times) = (Arc::clone(&ways), Arc::clone(&heard));
        let server = Server::script(move |request| {
            let ways = asked.lock().unwrap();
            let to = |name: &str| {
                let to = format!("/{name}");
                Said::with("303 See Other", &[("location", &to), ("content-length", "0")])
            };
            match request.path() {
                FULL => {
                    // A round asks by HEAD first.
                    if request.method == "HEAD" {
                        times.lock().unwrap().push(Instant::now());
                    }
                    ways[0].clone().unwrap_or_else(|| to(&base))
                }
                INCREMENTAL => ways[1].clone().unwrap_or_else(|| to(&newest)),
                path if path.ends_with(&base) || path.ends_with(&newest) => {
                    ways[2].clone().unwrap_or_else(|| Said::archive(request, BODY, &[]))
                }
                _ => Said::status("404 Not Found"),
            }
        });
        Self { server: server.await, ways, heard }
    }

    async fn edge(&self) -> Edge {
        let edge = Edge::start(&format!(
            "{QUICK}target_groups:\n  \
             - {{group: a, kind: rpc, static_targets: {{targets: ['{}']}}}}\n",
            self.server.address()
        ));
        edge.sees("both archives", |view| view.entries().len() == 2).await;
        edge
    }

    fn says(&self, ways: [Option<Said>; 3]) {
        *self.ways.lock().unwrap() = ways;
    }

    fn rounds(&self) -> usize {
        self.heard.lock().unwrap().len()
    }

    async fn more_rounds(&self, count: usize) {
        let before = self.rounds();
        eventually("more rounds", || async { self.rounds() >= before + count }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_short_form_that_says_not_now_takes_nothing_away() {
    let node = Node::run().await;
    let edge = node.edge().await;
    let busy = || Some(Said::status("429 Too Many Requests"));
    let absent = || Some(Said::status("404 Not Found"));
    for ways in [
        [busy(), None, None],
        [None, busy(), None],
        [busy(), absent(), None],
        [absent(), busy(), None],
        [busy(), busy(), None],
    ] {
        let what = format!("{ways:?}");
        node.says(ways);
        node.more_rounds(5).await;
        assert_eq!(edge.view().entries().len(), 2, "{what}");
    }
    // A node that says it to everything fails, as one that is silent does, and comes back.
    node.says([busy(), busy(), busy()]);
    becomes(&edge, FULL, None).await;
    node.says([None, None, None]);
    becomes(&edge, FULL, Some(&full(1000))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_left_alone_for_as_long_as_it_asks() {
    for status in ["429 Too Many Requests", "503 Service Unavailable", "404 Not Found"] {
        let node = Node::run().await;
        let edge = node.edge().await;
        let later = [("content-length", "0"), ("retry-after", "1")];
        let wait = Some(Said::with(status, &later));
        node.says([wait.clone(), wait, None]);
        // The round after one that may have been under way, and the one after that.
        node.more_rounds(1).await;
        let seen = node.rounds();
        node.more_rounds(2).await;
        let heard = node.heard.lock().unwrap()[seen..].to_vec();
        let pause = heard[1].duration_since(heard[0]);
        assert!(pause >= Duration::from_millis(900), "{status}: {pause:?}");
        assert_eq!(edge.view().entries().len(), 2, "{status}");
        let answer = edge.get(&format!("/{}", full(1000))).await;
        assert!(answer.status == 200 && answer.body == BODY.all(), "{status}");
    }
}
