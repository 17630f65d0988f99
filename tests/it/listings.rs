//! Listings of sidecars, trackers and other edges: of ten thousand targets, and with entries that
//! are not sound.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

use snapedge::api::{self, Reference, Urls};
use snapedge::clock::Now;
use snapedge::config::Downloads;
use snapedge::hops::CdnLoop;
use snapedge::index::{
    AccessKey, Catalog, Event, Listed, Location, Policy, Publish, TargetId, View,
};
use snapedge::route::{ApiCall, Settings};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::support::edge::{Edge, QUICK};
use super::support::server::{Handler, Next, Request, Server, head};
use super::support::{eventually, full, incremental};

/// Something that answers its listing with a body of its own.
#[derive(Default)]
struct Lister {
    body: Mutex<Arc<Vec<u8>>>,
}

impl Handler for Lister {
    async fn handle(&self, request: Request, stream: &mut TcpStream) -> io::Result<Next> {
        if request.path() != "/v1/snapshots" {
            let length = [("content-length", "0".to_owned())];
            stream.write_all(&head("404 Not Found", &length)).await?;
            return Ok(Next::KeepAlive);
        }
        let body = Arc::clone(&self.body.lock().unwrap());
        let length = [("content-length", body.len().to_string())];
        stream.write_all(&head("200 OK", &length)).await?;
        stream.write_all(&body).await?;
        Ok(Next::KeepAlive)
    }
}

impl Lister {
    fn say(&self, body: impl Into<Vec<u8>>) {
        *self.body.lock().unwrap() = Arc::new(body.into());
    }
}

fn edge(address: SocketAddr, kind: &str) -> Edge {
    let quick = QUICK.replace("probe_timeout: 1s", "probe_timeout: 10s");
    Edge::start(&format!(
        "{quick}target_groups: [{{group: a, kind: {kind}, static_targets: {{targets: \
         ['{address}']}}}}]\n"
    ))
}

fn lists(view: &View, name: &str) -> bool {
    !view.sources(&name.parse().expect("a name")).is_empty()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_entry_of_a_listing_costs_one_entry() {
    let good = |name: &str| format!(r#"{{"files": [{{"file_name": "{name}", "size": 5}}]}}"#);
    let (one, bad, other) = (full(1000), full(2000), incremental(1000, 1500));
    let files = |more: &str| format!(r#"{{"files": [{{"file_name": "{bad}", {more}}}]}}"#);
    let lister = Server::start(Lister::default()).await;
    let elements = [
        "null",
        "7",
        r#"{"files": {}}"#,
        r#"{"files": [{"size": 5}]}"#,
        &files(r#""size": -1"#),
        &files(r#""size": "5""#),
        &files(r#""mod_time": 5"#),
    ];
    let kinds = ["auto", "sidecar"].into_iter().cycle();
    for ((element, kind), mark) in elements.into_iter().zip(kinds).zip(["\u{feff}", ""].repeat(4)) {
        lister.handler.say(format!("{mark}[{},{element},{}]", good(&one), good(&other)));
        let edge = edge(lister.address(), kind);
        edge.sees(element, |view| lists(view, &one) && lists(view, &other)).await;
        // After more rounds than a target may fail.
        let left_out = || edge.discovery.listing_omissions("a");
        eventually("five rounds", || async { left_out() > 4 }).await;
        let view = edge.view();
        assert!(lists(&view, &one) && lists(&view, &other), "{element}");
        assert!(!lists(&view, &bad), "{element}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_list_takes_the_archives_away_and_one_that_is_brings_them_back() {
    let good = format!(r#"[{{"files": [{{"file_name": "{}", "size": 5}}]}}]"#, full(1000));
    let lister = Server::start(Lister::default()).await;
    lister.handler.say(&*good);
    let edge = edge(lister.address(), "sidecar");
    for body in ["{}", "<html>", "[", "[{}", "[null]", "[1] []"] {
        lister.handler.say(&*good);
        edge.sees("it is there", |view| lists(view, &full(1000))).await;
        lister.handler.say(body);
        edge.sees(body, |view| !lists(view, &full(1000))).await;
    }
}

/// What an edge knows before so many targets, each with an old pair and a newer one of its own.
fn view_of(targets: u64) -> View {
    let mut catalog = Catalog::default();
    let at = Now { instant: Instant::now(), wall: UNIX_EPOCH + Duration::from_secs(1_790_000_000) };
    for number in 0..targets {
        let address: SocketAddr =
            ([10, 0, (number / 250) as u8, (number % 250) as u8], 8899).into();
        let authority: Arc<str> = address.to_string().into();
        let listed = |name: String| Listed {
            name: name.parse().expect("a name"),
            size: Some(108_765_431_160 + number),
            modified: Some(at.wall),
            tag: None,
            location: Some(Location {
                scheme: "http",
                address,
                authority: Arc::clone(&authority),
                path: format!("/v1/snapshot/{name}"),
                access: AccessKey::default(),
                via: snapedge::hops::Via::default(),
            }),
        };
        let base = 346_000_000;
        let archives = [
            full(base),
            incremental(base, base + 20_000 + number),
            incremental(base, base + 100 + number),
            full(base - 100_000),
        ];
        let target = TargetId { group: "a".into(), authority: Arc::clone(&authority) };
        let archives = archives.map(listed).to_vec();
        catalog.apply(Event::Answered { target, at, archives });
    }
    let policy =
        Policy { probe_failures: 3, pair_hold: Duration::from_secs(600), publish: Publish::Seen };
    catalog.view(&View::default(), &["a".into()], policy, Instant::now())
}

fn listing(view: &View, urls: &Urls) -> Vec<u8> {
    let settings = Settings {
        names: snapedge::route::Names::default(),
        downloads: Downloads::Redirect,
        default_group: None,
        public_url: None,
        max_snapshot_age: 5000,
    };
    let call = ApiCall::Snapshots { group: None, base: None };
    api::answer(&call, view, &settings, Reference::Unset, urls, &CdnLoop::default()).body.to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_edge_lists_of_ten_thousand_targets_another_edge_reads() {
    let view = view_of(10_000);
    let newest = incremental(346_000_000, 346_029_999);
    let lister = Server::start(Lister::default()).await;
    for urls in [Urls::Targets, Urls::Own("http://edge.example".to_owned())] {
        let body = listing(&view, &urls);
        assert!(body.len() > 2 << 20, "{} bytes", body.len());
        lister.handler.say(body);
        let edge = edge(lister.address(), "auto");
        edge.sees("the newest archive and its base", |view| {
            let best = view.best(None).ok().flatten();
            best.and_then(|best| best.incremental).is_some_and(|best| best.to_string() == newest)
                && lists(view, &full(346_000_000))
        })
        .await;
        // What does not fit is the oldest.
        assert!(lists(&edge.view(), &incremental(346_000_000, 346_022_000)));
        assert!(!lists(&edge.view(), &incremental(346_000_000, 346_000_100)));
    }
}
