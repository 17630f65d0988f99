//! The tracker API, byte by byte.

use super::support::body::Content;
use super::support::client::Ask;
use super::support::edge::{Edge, config};
use super::support::origin::{Origin, Program};
use super::support::{eventually, full, hash, incremental};

const BASE: u64 = 1000;

/// The one element of a sidecar with a pair, as it must be written; `updated_at` is put in.
fn expected(edge: &str, base: &str, newest: &str, updated_at: &str) -> String {
    format!(
        concat!(
            r#"{{"slot":1500,"base_slot":1000,"hash":"{new_hash}","files":["#,
            r#"{{"file_name":"{newest}","slot":1500,"base_slot":1000,"hash":"{new_hash}","#,
            r#""ext":".tar.zst","mod_time":"2026-09-21T14:13:20.123456789Z","size":20,"#,
            r#""url":"{edge}/v1/snapshot/{newest}"}},"#,
            r#"{{"file_name":"{base}","slot":1000,"hash":"{hash}","ext":".tar.zst","#,
            r#""mod_time":"2026-09-21T14:13:20.123456789Z","size":100,"#,
            r#""url":"{edge}/v1/snapshot/{base}"}}],"#,
            r#""size":120,"target":"{edge}","group":"a","updated_at":"{updated_at}"}}"#
        ),
        edge = edge,
        base = base,
        newest = newest,
        hash = hash((BASE % 256) as u8),
        new_hash = hash((1500 % 256) as u8),
        updated_at = updated_at,
    )
}

async fn pair() -> (Origin, String, String) {
    let (base, newest) = (full(BASE), incremental(BASE, 1500));
    let archives = [(&*base, Content::new(1, 100)), (&*newest, Content::new(2, 20))];
    (Origin::run(Program::Sidecar, &archives).await, base, newest)
}

fn json(body: &[u8]) -> serde_json::Value {
    serde_json::from_slice(body).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_element_is_written_as_the_tracker_writes_it() {
    let (origin, base, newest) = pair().await;
    for (extra, own) in
        [("", None), ("public_url: https://edge.example/", Some("https://edge.example"))]
    {
        let edge = Edge::with(extra, &[&origin]).await;
        let answer = edge.get("/v1/best_snapshots").await;
        let updated_at = json(&answer.body)[0]["updated_at"].as_str().expect("a time").to_owned();
        assert!(updated_at.ends_with('Z') && updated_at.len() >= 20, "{updated_at}");
        let own = own.map_or_else(|| format!("http://{}", edge.address), str::to_owned);
        let element = expected(&own, &base, &newest, &updated_at);
        let body = String::from_utf8(answer.body).expect("text");
        assert_eq!(body, format!("[{element}]"));
        assert_eq!(answer.headers["content-type"], "application/json; charset=utf-8");
        assert!(!body.contains(&origin.address().to_string()), "no private address is shown");
    }
    // Another name of ours gives other URLs.
    let edge = Edge::before(&[&origin]).await;
    let answer = edge.ask(Ask::get("/v1/best_snapshots").with("x-forwarded-host", "evil")).await;
    assert!(!String::from_utf8_lossy(&answer.body).contains("evil"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_proxying_the_targets_own_urls_are_shown() {
    let (origin, base, newest) = pair().await;
    let edge = Edge::with("proxy_snapshot_downloads: false", &[&origin]).await;
    let answer = edge.get("/v1/best_snapshots").await;
    let updated_at = json(&answer.body)[0]["updated_at"].as_str().expect("a time").to_owned();
    let own = format!("http://{}", origin.address());
    let element = expected(&own, &base, &newest, &updated_at);
    assert_eq!(String::from_utf8(answer.body).expect("text"), format!("[{element}]"));
}

/// `(group, slot)` of each element, in order.
async fn listed(edge: &Edge, path: &str) -> Vec<(String, u64)> {
    let answer = edge.get(path).await;
    assert_eq!(answer.status, 200, "{path}");
    let elements = json(&answer.body);
    let elements = elements.as_array().expect("always an array, never null");
    let pair = |element: &serde_json::Value| {
        (element["group"].as_str().unwrap().to_owned(), element["slot"].as_u64().unwrap())
    };
    elements.iter().map(pair).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_selected_and_ordered_as_in_the_tracker() {
    let (first, _, _) = pair().await;
    let other = full(1200);
    let second = Origin::run(Program::Sidecar, &[(&other, Content::new(3, 7))]).await;
    let node = Origin::run(Program::Agave, &[(&full(BASE), Content::new(4, 9))]).await;
    let edge = Edge::start(&config("", &[&[&first, &node], &[&second]]));
    for origin in [&first, &second, &node] {
        edge.knows(origin).await;
    }
    let is = |list: &[(&str, u64)]| {
        list.iter().map(|(group, slot)| ((*group).to_owned(), *slot)).collect::<Vec<_>>()
    };
    // The full archive is on two targets of the group, and there once.
    let group_a = is(&[("a", 1500), ("a", 1000)]);
    let all: Vec<_> = group_a.iter().cloned().chain(is(&[("b", 1200)])).collect();
    assert_eq!(listed(&edge, "/v1/snapshots").await, all);
    assert_eq!(listed(&edge, "/v1/snapshots?slot=0").await, all);
    assert_eq!(listed(&edge, "/v1/snapshots?group=a").await, group_a);
    assert_eq!(listed(&edge, "/v1/snapshots?slot=1000").await, group_a, "base slot, not slot");
    assert_eq!(listed(&edge, "/v1/snapshots?slot=1000&group=a").await, group_a, "both at once");
    assert_eq!(listed(&edge, "/v1/snapshots?slot=1000&group=b").await, []);
    assert_eq!(listed(&edge, "/v1/snapshots?slot=1500").await, []);
    assert_eq!(listed(&edge, "/v1/snapshots?group=c").await, []);

    let newest = is(&[("a", 1500), ("b", 1200), ("a", 1000)]);
    assert_eq!(listed(&edge, "/v1/best_snapshots").await, newest[..1], "one, not two");
    for max in 0..4 {
        let path = format!("/v1/best_snapshots?max={max}");
        assert_eq!(listed(&edge, &path).await, newest[..max], "exactly as many as asked");
    }
    for max in ["-1", "25", "26", "9223372036854775807"] {
        assert_eq!(listed(&edge, &format!("/v1/best_snapshots?max={max}")).await, newest);
    }
    assert_eq!(listed(&edge, "/v1/best_snapshots?group=b&max=9").await, is(&[("b", 1200)]));
    assert_eq!(listed(&edge, "/v1/best_snapshots?group=c").await, []);

    for path in ["/v1/snapshots?slot=-1", "/v1/best_snapshots?max=x"] {
        let answer = edge.get(path).await;
        assert_eq!(answer.status, 400, "{path}");
        assert!(json(&answer.body)["error"].is_string(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_most_twenty_five_and_an_empty_list_is_a_list() {
    let names: Vec<String> = (1000..1040).map(full).collect();
    let archives: Vec<_> = names.iter().map(|name| (name.as_str(), Content::new(1, 5))).collect();
    let origin = Origin::run(Program::Sidecar, &archives).await;
    let edge = Edge::before(&[&origin]).await;
    assert_eq!(listed(&edge, "/v1/best_snapshots?max=-1").await.len(), 25);
    assert_eq!(listed(&edge, "/v1/best_snapshots?max=30").await.len(), 25);
    assert_eq!(listed(&edge, "/v1/snapshots").await.len(), 40);
    let empty = Origin::run(Program::Sidecar, &[]).await;
    let edge = Edge::before(&[&empty]).await;
    assert_eq!(edge.get("/v1/snapshots").await.body, b"[]");
}

/// What the Go `fetch` does: the first element's files, each from its target.
#[tokio::test(flavor = "multi_thread")]
async fn fetch_gets_the_whole_chain() {
    let (origin, base, newest) = pair().await;
    let edge = Edge::before(&[&origin]).await;
    let best = json(&edge.get("/v1/best_snapshots?group=a&max=-1").await.body);
    let target = best[0]["target"].as_str().expect("a target");
    assert_eq!(target, format!("http://{}", edge.address), "with scheme, no trailing slash");
    let files = best[0]["files"].as_array().expect("files");
    let names: Vec<_> = files.iter().map(|file| file["file_name"].as_str().unwrap()).collect();
    assert_eq!(names, [&*newest, &*base]);
    for (name, content) in [(newest, Content::new(2, 20)), (base, Content::new(1, 100))] {
        let answer = edge.get(&format!("/v1/snapshot/{name}")).await;
        assert_eq!((answer.status, answer.length()), (200, content.len));
        assert!(answer.header("last-modified").is_some());
        assert!(answer.body == content.all());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_follows_the_rpc_node_and_its_age_is_signed() {
    // This origin answers `getSlot` with its own newest full slot and ten.
    let rpc = Origin::run(Program::Agave, &[(&full(5000), Content::new(1, 5))]).await;
    let edge = |slot: u64| {
        let url = format!("rpc: http://{}\nmax_snapshot_age: 100", rpc.address());
        async move {
            let origin = Origin::run(Program::Sidecar, &[(&full(slot), Content::new(1, 5))]).await;
            (Edge::with(&url, &[&origin]).await, origin)
        }
    };
    for (slot, status, health, word) in [
        (4950, 200, "healthy", "ok"),
        (4910, 200, "healthy", "ok"),
        (4909, 503, "snapshot too old", "behind"),
        (6000, 200, "healthy", "ok"),
    ] {
        let (edge, _origin) = edge(slot).await;
        let body = format!(r#"{{"MaxSnapshot":{slot},"CurrentSlot":5010,"Health":"{health}"}}"#);
        eventually(&body, || async {
            let answer = edge.get("/v1/health").await;
            (answer.status, answer.body) == (status, body.clone().into_bytes())
        })
        .await;
        let answer = edge.get("/health").await;
        assert_eq!((answer.status, answer.body), (200, word.as_bytes().to_vec()));
        assert_eq!(edge.get("/v1/health?group=none").await.status, 500);
    }
    let (edge, _origin) = edge(4950).await;
    rpc.stop().await;
    eventually("rpc unhealthy", || async { edge.get("/v1/health").await.status == 502 }).await;
    assert_eq!(edge.get("/health").await.body, b"unknown");
    let empty = Origin::run(Program::Sidecar, &[]).await;
    let edge = Edge::before(&[&empty]).await;
    let answer = edge.get("/v1/health").await;
    let none = br#"{"MaxSnapshot":0,"CurrentSlot":0,"Health":"no snapshots found"}"#;
    assert_eq!((answer.status, &*answer.body), (500, &none[..]));
}
