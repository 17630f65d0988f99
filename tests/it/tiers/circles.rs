//! `cdn-loop` (RFC 8586): what is sent, what is refused, and what others see of it.

use super::super::support::body::Content;
use super::super::support::client::Ask;
use super::super::support::edge::Edge;
use super::super::support::full;
use super::super::support::origin::{Origin, Program};
use super::super::support::server::Request;

/// The last `cdn-loop` of a request of this kind at the origin.
fn told(origin: &Origin, method: &str, path: &str) -> String {
    let seen = origin.seen().into_iter().rev();
    let mut seen = seen.filter(|request| request.method == method && request.path() == path);
    seen.next().expect("a request").header("cdn-loop").expect("a way").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_here_before_is_refused_everywhere() {
    let name = full(1000);
    let node = Origin::run(Program::Agave, &[(&name, Content::new(1, 100))]).await;
    let edge = Edge::with("rpc_proxy: {enabled: true}", &[&node]).await;
    let own = told(&node, "HEAD", "/snapshot.tar.bz2");
    assert!(own.starts_with("snapedge-") && own.len() > "snapedge-".len() + 8, "{own}");
    let paths = [
        format!("/{name}"),
        format!("/v1/snapshot/{name}"),
        format!("/{}", full(2000)),
        "/snapshot.tar.bz2".to_owned(),
        "/incremental-snapshot.tar.zst".to_owned(),
        "/v1/snapshots".to_owned(),
        "/v1/health".to_owned(),
        "/health".to_owned(),
        "/genesis.tar.bz2".to_owned(),
        "/no-such-path".to_owned(),
    ];
    for way in [own.clone(), own.to_uppercase(), format!("cdn.example; x=\"a, b\" ,\t{own};y=1")] {
        for path in &paths {
            for ask in [Ask::get(path), Ask::head(path)] {
                let answer = edge.ask(ask.with("cdn-loop", &way)).await;
                assert_eq!(answer.status, 508, "{way} {path}");
            }
        }
        let answer = edge.ask(Ask::post("/", "{}").with("cdn-loop", &way)).await;
        assert_eq!(answer.status, 508, "{way}");
        // In a line of its own.
        let ask = Ask::get(&paths[0]).with("cdn-loop", "a, b").with("Cdn-Loop", &way);
        assert_eq!(edge.ask(ask).await.status, 508, "{way}");
    }
    for way in ["a, b, c, d, e", "a,b,,c ,d, e;p=1, f", "snapedge-1, snapedge-2, a, b, c"] {
        for path in &paths {
            assert_eq!(edge.ask(Ask::get(path).with("cdn-loop", way)).await.status, 508, "{way}");
        }
    }
    let is_own_probe = |request: &Request| request.header("cdn-loop") == Some(&*own);
    assert!(node.seen().iter().all(is_own_probe), "the node hears of none of them");
    assert_eq!(edge.get(&paths[0]).await.status, 200, "still at work");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_came_through_is_passed_on() {
    let name = full(1000);
    let node = Origin::run(Program::Sidecar, &[(&name, Content::new(1, 100))]).await;
    let edge = Edge::with("edge_id: Berlin-1", &[&node]).await;
    let path = format!("/v1/snapshot/{name}");
    assert_eq!(told(&node, "GET", "/v1/snapshots"), "snapedge-berlin-1", "a probe");
    for (ways, expected) in [
        (vec![], "snapedge-berlin-1"),
        (vec!["cdn.example; loops=1"], "cdn.example; loops=1, snapedge-berlin-1"),
        (vec!["a, b;x=\"y, z\"", "c"], "a, b;x=\"y, z\", c, snapedge-berlin-1"),
        (vec!["a", "snapedge-paris, b, c"], "a, snapedge-paris, b, c, snapedge-berlin-1"),
    ] {
        let ask = ways.iter().fold(Ask::get(&path), |ask, way| ask.with("cdn-loop", *way));
        assert_eq!(edge.ask(ask).await.status, 200, "{ways:?}");
        assert_eq!(told(&node, "GET", &path), expected);
    }
    // A name that nobody lists is looked for, and that says so as well.
    let unknown = format!("/v1/snapshot/{}", full(1001));
    let answer = edge.ask(Ask::get(&unknown).with("cdn-loop", "cdn.example")).await;
    assert_eq!(answer.status, 404);
    assert_eq!(told(&node, "HEAD", &unknown), "cdn.example, snapedge-berlin-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_edges_are_told_how_archives_came_here() {
    let name = full(1000);
    let node = Origin::run(Program::Sidecar, &[(&name, Content::new(1, 100))]).await;
    let edge = Edge::with("edge_id: berlin", &[&node]).await;
    for path in ["/v1/snapshots".to_owned(), "/snapshot.tar.bz2".to_owned(), format!("/{name}")] {
        for way in ["", "cdn.example"] {
            let ask = Ask::get(&path);
            let ask = if way.is_empty() { ask } else { ask.with("cdn-loop", way) };
            let answer = edge.ask(ask).await;
            assert_eq!(answer.header("snapedge-via"), None, "{path}");
            assert!(!String::from_utf8_lossy(&answer.body).contains("\"via\""), "{path}");
        }
        let answer = edge.ask(Ask::get(&path).with("cdn-loop", "snapedge-paris")).await;
        assert_eq!(answer.header("snapedge-via"), Some("berlin"), "{path}");
    }
    let list = edge.ask(Ask::get("/v1/snapshots").with("cdn-loop", "snapedge-paris")).await;
    let list: serde_json::Value = serde_json::from_slice(&list.body).expect("JSON");
    assert_eq!(list[0]["files"][0]["via"], serde_json::json!([]));
}
