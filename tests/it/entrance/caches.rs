//! What caches in front are told: what is the same for ever may be kept, and nothing else.

use super::*;
use crate::support::client::{Answer, Ask};
use crate::support::h2;

const KEPT: &str = "public, max-age=86400, immutable, no-transform";

fn told(answer: &Answer) -> Option<&str> {
    assert!(!answer.headers.contains_key("age"), "{}", answer.head);
    answer.header("cache-control")
}

#[tokio::test(flavor = "multi_thread")]
async fn only_sealed_copies_may_be_kept() {
    let (best, old) = (full(1000), full(900));
    let content = Content::new(1, 300_000);
    let origin = Origin::run(Program::Sidecar, &[(&best, content), (&old, content)]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let extra = format!(
        "server: {{h2c: true}}\ncache: {{min_free_space: 0B, verify: length}}\n\
         proxy_snapshot_cache_dir: '{}'",
        directory.path().display()
    );
    let edge = Edge::with(&extra, &[&origin]).await;
    let path = format!("/{best}");
    // On its way into the cache it is not sealed, and who was first may have been lied to.
    assert_eq!(told(&edge.get(&path).await), Some("no-store"));
    eventually("it is cached", || async {
        let answer = edge.get(&path).await;
        answer.header("cache-status") == Some("snapedge; hit")
    })
    .await;
    let tag = edge.get(&path).await.header("etag").expect("a tag").to_owned();
    let asks = |ask: &dyn Fn() -> Ask| [ask(), ask()];
    let part = || Ask::get(&path).with("range", "bytes=5-9");
    let parts = || Ask::get(&path).with("range", "bytes=5-9,20-29");
    let behind = || Ask::get(&path).with("range", "bytes=300000-");
    let same = || Ask::get(&path).with("if-none-match", &*tag);
    let other = || Ask::get(&path).with("if-match", "\"x\"");
    for (what, ask, status, expected) in [
        ("whole", &(|| Ask::get(&path)) as &dyn Fn() -> Ask, 200, KEPT),
        ("head", &|| Ask::head(&path), 200, KEPT),
        ("part", &part, 206, KEPT),
        ("parts", &parts, 206, KEPT),
        ("nothing of it", &behind, 416, "no-store"),
        ("still the same", &same, 304, KEPT),
        ("not the same", &other, 412, "no-store"),
        ("another archive", &|| Ask::get(format!("/{old}")), 200, "no-store"),
        ("no archive", &|| Ask::get("/nothing"), 404, "no-store"),
        ("no such archive", &|| Ask::get(format!("/{}", full(7))), 404, "no-store"),
        ("short", &|| Ask::get("/snapshot.tar.bz2"), 303, "no-store"),
        ("short head", &|| Ask::head("/v1/snapshot.tar.zst"), 303, "no-store"),
        ("list", &|| Ask::get("/v1/snapshots"), 200, "no-store"),
        ("best", &|| Ask::get("/v1/best_snapshots"), 200, "no-store"),
        ("health", &|| Ask::get("/health"), 200, "no-store"),
        ("method", &|| Ask::method("PUT", "/health"), 405, "no-store"),
    ] {
        let [one, other] = asks(ask);
        // A 304 has no length, and ends with the connection.
        let one = one.with("connection", "close");
        for answer in [edge.ask(one).await, h2::send(other, edge.address).await] {
            assert_eq!((answer.status, told(&answer)), (status, Some(expected)), "{what}");
        }
    }
}

/// What a fill has so far is not sealed, nor is a file of somebody else's.
#[tokio::test(flavor = "multi_thread")]
async fn what_grows_and_what_is_lent_is_not_kept() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, Content::new(1, 3 << 20))]).await;
    origin.slow_to(1 << 20);
    let directory = tempfile::tempdir().expect("a directory");
    let extra = format!(
        "cache: {{min_free_space: 0B, verify: length, sharing: shared}}\n\
         proxy_snapshot_cache_dir: '{}'",
        directory.path().display()
    );
    let edge = Edge::with(&extra, &[&origin]).await;
    let path = format!("/{name}");
    let (answer, _stream) = Ask::get(&path).begin(edge.address).await;
    assert_eq!((answer.status, told(&answer)), (200, Some("no-store")));
    let (answer, _stream) = Ask::get(&path).from(2).begin(edge.address).await;
    assert_eq!((answer.status, told(&answer)), (200, Some("no-store")));
}

/// Who has to show something is the only one who may keep what he gets for it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_for_one_client_is_kept_by_that_alone() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, Content::new(1, 3000))]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let token = directory.path().join("token");
    std::fs::write(&token, "secret").expect("written");
    let extra = format!(
        "auth: {{bearer: {{token_files: ['{}']}}}}\n\
         cache: {{min_free_space: 0B, verify: length}}\nproxy_snapshot_cache_dir: '{}'",
        token.display(),
        directory.path().join("cache").display()
    );
    let edge = Edge::with(&extra, &[&origin]).await;
    let ask = || Ask::get(format!("/{name}")).with("authorization", "Bearer secret");
    eventually("it is cached", || async {
        edge.ask(ask()).await.header("cache-status") == Some("snapedge; hit")
    })
    .await;
    let answer = edge.ask(ask()).await;
    assert_eq!(told(&answer), Some("private, max-age=86400, immutable, no-transform"));
}
