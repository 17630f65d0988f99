//! Every row of the routes table, GET and HEAD.

use super::support::body::Content;
use super::support::client::{Answer, Ask, Ended};
use super::support::edge::{Edge, config};
use super::support::origin::{Origin, Program};
use super::support::{full, incremental};

/// What a row must answer: status, `location`, `content-type`, `allow`, body.
#[derive(Default)]
struct Expected<'a> {
    status: u16,
    location: Option<&'a str>,
    media: Option<&'a str>,
    body: Option<&'a [u8]>,
}

fn redirect(location: &str) -> Expected<'_> {
    let body = Some(location.as_bytes());
    Expected { status: 303, location: Some(location), body, ..Expected::default() }
}

fn nothing<'a>() -> Expected<'a> {
    Expected { status: 404, body: Some(b""), ..Expected::default() }
}

fn page<'a>(status: u16, media: &'a str, body: Option<&'a [u8]>) -> Expected<'a> {
    Expected { status, media: Some(media), body, ..Expected::default() }
}

/// GET and HEAD answer the same head, HEAD without a body; other methods answer 405.
async fn check(edge: &Edge, path: &str, expected: Expected<'_>) {
    let get = edge.ask(Ask::get(path)).await;
    let head = edge.ask(Ask::head(path)).await;
    let lasting = |answer: &Answer| {
        let mut headers = answer.headers.clone();
        headers.retain(|name, _| !["date", "x-request-id", " "].contains(&&**name));
        headers
    };
    assert_eq!(lasting(&get), lasting(&head), "{path}");
    for answer in [&get, &head] {
        assert_eq!(answer.status, expected.status, "{path}: {}", answer.head);
        assert_eq!(answer.header("location"), expected.location, "{path}: {}", answer.head);
        let in_lower_case = answer.head.matches("\r\nlocation: ").count();
        assert_eq!(in_lower_case, usize::from(expected.location.is_some()), "{}", answer.head);
        assert!(answer.head.len() < 4096, "{path}: {} bytes", answer.head.len());
        assert!(!answer.headers.contains_key("transfer-encoding"), "{path}: {}", answer.head);
        assert!(!answer.headers.contains_key("content-encoding"), "{path}: {}", answer.head);
        assert_eq!(answer.ended, Ended::Whole, "{path}");
        if expected.media.is_some() {
            assert_eq!(answer.header("content-type"), expected.media, "{path}");
        }
    }
    assert_eq!(get.length(), get.body.len() as u64, "{path}");
    assert!(head.body.is_empty(), "{path}");
    if let Some(body) = expected.body {
        assert_eq!(get.body, body, "{path}: {}", String::from_utf8_lossy(&get.body));
    }
    let known = expected.status != 404 || path.contains("snapshot.tar") || path.contains("-1111-");
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let answer = edge.ask(Ask::method(method, path)).await;
        let other = if known { (405, Some("GET, HEAD")) } else { (404, None) };
        assert_eq!((answer.status, answer.header("allow")), other, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_of_the_routes_table() {
    let (best, newest) = (full(1000), incremental(1000, 1500));
    let (content, other) = (Content::new(1, 70_000), Content::new(2, 5_000));
    let agave = Origin::run(Program::Agave, &[(&best, content), (&newest, other)]).await;
    let older = Content::new(3, 60_000);
    let sidecar = Origin::run(Program::Sidecar, &[(&full(900), older)]).await;
    let edge = Edge::start(&config("", &[&[&agave], &[&sidecar]]));
    edge.knows(&agave).await;
    edge.knows(&sidecar).await;

    let (root_full, root_new) = (format!("/{best}"), format!("/{newest}"));
    let (v1_full, v1_new) = (format!("/v1/snapshot/{best}"), format!("/v1/snapshot/{newest}"));
    for extension in ["bz2", "zst"] {
        let path = |form: &str| format!("{form}snapshot.tar.{extension}");
        check(&edge, &path("/"), redirect(&root_full)).await;
        check(&edge, &path("/incremental-"), redirect(&root_new)).await;
        check(&edge, &path("/v1/"), redirect(&v1_full)).await;
        check(&edge, &path("/v1/incremental-"), redirect(&v1_new)).await;
    }
    check(&edge, "/snapshot.tar.bz2?group=a", redirect(&root_full)).await;
    check(&edge, "/snapshot.tar.bz2?group=b", redirect(&format!("/{}", full(900)))).await;
    check(&edge, "/incremental-snapshot.tar.bz2?group=b", nothing()).await;
    check(&edge, "/snapshot.tar.bz2?group=c", nothing()).await;

    let zstd = "application/zstd";
    check(&edge, &root_full, page(200, zstd, Some(&content.all()))).await;
    check(&edge, &v1_full, page(200, zstd, Some(&content.all()))).await;
    check(&edge, &root_new, page(200, zstd, Some(&other.all()))).await;
    check(&edge, &format!("{root_full}?x=y"), page(200, zstd, Some(&content.all()))).await;
    check(&edge, &format!("/{}", full(900)), page(200, zstd, Some(&older.all()))).await;
    check(&edge, &format!("/{}", full(1111)), nothing()).await;
    check(&edge, &format!("/v1/snapshot/{}", incremental(900, 1111)), nothing()).await;

    let json = "application/json; charset=utf-8";
    check(&edge, "/v1/snapshots", page(200, json, None)).await;
    check(&edge, "/v1/best_snapshots?max=2", page(200, json, None)).await;
    check(&edge, "/v1/snapshots?slot=x", page(400, json, None)).await;
    check(&edge, "/v1/health", page(200, json, None)).await;
    check(&edge, "/health", page(200, "text/plain; charset=utf-8", Some(b"ok"))).await;
    for path in ["/", "/x", "/v1", "/v1/", "/snapshots", "/genesis.tar.bz2", "/metrics", "/v1/x"] {
        check(&edge, path, nothing()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_goes_out_under_a_head_of_its_own() {
    let name = full(1000);
    let content = Content::new(1, 1000);
    let sidecar = Origin::run(Program::Sidecar, &[(&name, content)]).await;
    let agave = Origin::run(Program::Agave, &[(&full(999), content)]).await;
    let edge = Edge::before(&[&sidecar, &agave]).await;

    let get = edge.get(&format!("/{name}")).await;
    let names: Vec<&str> = get.headers.keys().map(String::as_str).collect();
    let expected = [
        "accept-ranges",
        "cache-control",
        "cache-status",
        "connection",
        "content-length",
        "content-type",
        "date",
        "etag",
        "last-modified",
        "x-request-id",
    ];
    assert_eq!(names, expected, "nothing of the target's own: {}", get.head);
    assert_eq!(get.header("accept-ranges"), Some("bytes"));
    assert_eq!(get.header("last-modified"), Some("Mon, 21 Sep 2026 14:13:20 GMT"));
    assert_eq!(get.header("cache-status"), Some("snapedge; fwd=bypass; detail=off"));
    let tag = get.header("etag").expect("a tag");
    assert!(tag.starts_with('"') && tag.len() == 34, "strong: {tag}");

    let node = edge.get(&format!("/{}", full(999))).await;
    assert_eq!(node.header("accept-ranges"), Some("none"), "Agave ignores ranges");
    assert_eq!(node.header("last-modified"), None);
    assert_ne!(node.header("etag"), Some(tag));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_says_of_itself_stays_here() {
    let name = full(1000);
    let origin = Origin::run(Program::Agave, &[(&name, Content::new(1, 1000))]).await;
    let edge = Edge::before(&[&origin]).await;
    let ask = Ask::get(format!("/{name}?secret=1"))
        .from(7)
        .with("authorization", "Bearer client")
        .with("cookie", "a=b")
        .with("x-forwarded-for", "8.8.8.8")
        .with("accept-encoding", "gzip, br")
        .with("if-none-match", "\"theirs\"");
    assert_eq!(edge.ask(ask).await.status, 200);
    let request = origin
        .seen()
        .into_iter()
        .find(|request| request.method == "GET" && request.target.starts_with("/snapshot-"));
    let request = request.expect("the download");
    assert_eq!(request.target, format!("/{name}"));
    let names: Vec<String> =
        request.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    for hidden in ["authorization", "cookie", "if-none-match"] {
        assert!(!names.contains(&hidden.to_owned()), "{names:?}");
    }
    assert_eq!(request.header("host"), Some(&*origin.address().to_string()));
    assert_eq!(request.header("accept-encoding"), Some("identity"));
    assert_eq!(request.header("x-forwarded-for"), Some("127.0.1.7"));
    assert_eq!(request.header("x-forwarded-host"), Some(&*edge.address.to_string()));
    assert_eq!(request.header("x-forwarded-proto"), Some("http"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_group_answers_where_none_is_named() {
    let a = Origin::run(Program::Agave, &[(&full(1000), Content::new(1, 1000))]).await;
    let b = Origin::run(Program::Agave, &[(&full(2000), Content::new(1, 1000))]).await;
    let edge = Edge::start(&config("default_group: a", &[&[&a], &[&b]]));
    edge.knows(&a).await;
    edge.knows(&b).await;
    let location = |answer: Answer| answer.header("location").map(str::to_owned);
    assert_eq!(location(edge.get("/snapshot.tar.bz2").await), Some(format!("/{}", full(1000))));
    let b = location(edge.get("/snapshot.tar.bz2?group=b").await);
    assert_eq!(b, Some(format!("/{}", full(2000))));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_proxying_every_redirect_leads_to_a_target() {
    let (best, newest) = (full(1000), incremental(1000, 1500));
    let archives = [(&*best, Content::new(1, 1000)), (&*newest, Content::new(2, 100))];
    let agave = Origin::run(Program::Agave, &archives).await;
    let sidecar = Origin::run(Program::Sidecar, &[(&full(900), Content::new(3, 10))]).await;
    let edge = Edge::with("proxy_snapshot_downloads: false", &[&agave, &sidecar]).await;
    let node = agave.address();
    for (path, status, location) in [
        ("/snapshot.tar.bz2".to_owned(), 303, format!("http://{node}/{best}")),
        ("/v1/incremental-snapshot.tar.zst".to_owned(), 303, format!("http://{node}/{newest}")),
        (format!("/{best}"), 307, format!("http://{node}/{best}")),
        (format!("/v1/snapshot/{newest}"), 307, format!("http://{node}/{newest}")),
        (
            format!("/{}", full(900)),
            307,
            format!("http://{}/v1/snapshot/{}", sidecar.address(), full(900)),
        ),
    ] {
        for ask in [Ask::get(&path), Ask::head(&path)] {
            let answer = edge.ask(ask).await;
            assert_eq!(answer.status, status, "{path}");
            assert_eq!(answer.header("location"), Some(&*location), "{path}");
        }
    }
    assert_eq!(edge.get(&format!("/{}", full(1111))).await.status, 404);
    assert_eq!(agave.asked("GET", &best), 0, "redirects cost the target nothing");
}
