//! `http_targets`: a server that names targets.

use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::*;
use crate::support::listing::Listing;
use crate::support::trouble::Trouble;

const KIND: SourceKind = SourceKind::Http;

fn source(listing: &Listing) -> String {
    format!("http_targets: {{url: 'http://{}/targets'}}", listing.address())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_targets_is_followed() {
    let (a, b) = (origin(1000).await, origin(2000).await);
    let listing = Listing::run().await;
    listing.name(addresses(&[&a]));
    let address = listing.address();
    let url = format!("http://user:pass@{address}/targets?cluster=main&key=x%20y");
    let edge = Edge::start(&group(&format!("http_targets: {{url: '{url}'}}")));
    finds(&edge, &[1000], &[]).await;
    listing.name(addresses(&[&a, &b]));
    finds(&edge, &[1000, 2000], &[]).await;
    listing.name(addresses(&[&b]));
    finds(&edge, &[2000], &[1000]).await;
    listing.name(Vec::new());
    finds(&edge, &[], &[1000, 2000]).await;
    assert_eq!(edge.discovery.failures("a", KIND), 0);
    for request in listing.seen() {
        assert_eq!(
            (&*request.method, &*request.target),
            ("GET", "/targets?cluster=main&key=x%20y")
        );
        assert_eq!(request.header("accept"), Some("application/json"));
        // `user:pass`.
        assert_eq!(request.header("authorization"), Some("Basic dXNlcjpwYXNz"));
        assert_eq!(request.header("host"), Some(&*address.to_string()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_fails_takes_no_target_away() {
    let (a, b) = (origin(1000).await, origin(2000).await);
    let (listing, elsewhere) = (Listing::run().await, Listing::run().await);
    listing.name(addresses(&[&a]));
    let edge = Edge::start(&group(&source(&listing)));
    finds(&edge, &[1000], &[]).await;
    let mut now = (&a, 1000);
    let mut next = (&b, 2000);
    for trouble in [
        Trouble::Status(500),
        Trouble::Status(204),
        Trouble::Status(404),
        Trouble::Body("<html>"),
        Trouble::Body(""),
        Trouble::Body("{}"),
        Trouble::Body(r#"[{"targets": ["no port", null]}]"#),
        Trouble::CutShort,
        Trouble::Endless,
        Trouble::Silence,
        Trouble::SilenceInBody,
        Trouble::Redirect(format!("http://{}/targets", elsewhere.address())),
    ] {
        listing.trouble(trouble);
        keeps(&edge, KIND, 1, &[now.1]).await;
        // What it names meanwhile counts once it is well.
        listing.name(addresses(&[next.0]));
        listing.trouble(None);
        finds(&edge, &[next.1], &[now.1]).await;
        std::mem::swap(&mut now, &mut next);
    }
    listing.stop().await;
    keeps(&edge, KIND, 2, &[now.1]).await;
    listing.name(addresses(&[next.0]));
    listing.restart().await;
    finds(&edge, &[next.1], &[now.1]).await;
    assert!(elsewhere.seen().is_empty(), "redirects to other servers are not followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_moved_on_its_server_is_followed() {
    let (a, b) = (origin(1000).await, origin(2000).await);
    let listing = Listing::run().await;
    listing.name(addresses(&[&a]));
    let address = listing.address();
    let absolute = format!("http://{address}/v2?key=x");
    let mut now = 1000;
    for (status, to) in [
        (301, "/targets/"),
        (302, "/there?of=a"),
        (303, "//moved"),
        (307, &*absolute),
        (308, "/targets/"),
    ] {
        // `//host` would be another host.
        let to = if to == "//moved" { format!("//{address}/moved") } else { to.to_owned() };
        listing.move_to(status, &to);
        let url = format!("http://user:pass@{address}/targets");
        let edge = Edge::start(&group(&format!("http_targets: {{url: '{url}'}}")));
        finds(&edge, &[now], &[]).await;
        let (next, other) = if now == 1000 { (&b, 2000) } else { (&a, 1000) };
        listing.name(addresses(&[next]));
        finds(&edge, &[other], &[now]).await;
        now = other;
        assert_eq!(edge.discovery.failures("a", KIND), 0, "{status} {to}");
    }
    for request in listing.seen() {
        assert_eq!(request.header("authorization"), Some("Basic dXNlcjpwYXNz"), "{request:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_without_end_and_to_others_take_no_target_away() {
    let a = origin(1000).await;
    let (listing, elsewhere) = (Listing::run().await, Listing::run().await);
    listing.name(addresses(&[&a]));
    let edge = Edge::start(&group(&source(&listing)));
    finds(&edge, &[1000], &[]).await;
    let (port, other) = (listing.address().port(), elsewhere.address());
    for to in [
        "/targets".to_owned(),
        format!("http://localhost:{port}/targets"),
        format!("http://{other}/targets"),
        format!("//{other}/targets"),
        "http://".to_owned(),
    ] {
        listing.trouble(Trouble::Redirect(to));
        keeps(&edge, KIND, 1, &[1000]).await;
        listing.trouble(None);
        let seen = listing.seen().len();
        eventually("it is asked again", || async { listing.seen().len() > seen + 1 }).await;
    }
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn null_is_an_empty_list() {
    let a = origin(1000).await;
    let listing = Listing::run().await;
    for text in ["null", "\u{feff}null\n", r#"[{"targets": null}]"#, "[]"] {
        listing.say(None);
        listing.name(addresses(&[&a]));
        let edge = Edge::start(&group(&source(&listing)));
        finds(&edge, &[1000], &[]).await;
        listing.say(text.to_owned());
        finds(&edge, &[], &[1000]).await;
        assert_eq!(edge.discovery.failures("a", KIND), 0, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_fails_is_asked_less_and_less_often() {
    let listing = Listing::run().await;
    listing.trouble(Trouble::Status(500));
    let edge = Edge::start(&group(&source(&listing)));
    let begun = std::time::Instant::now();
    // After rests of one, two and four seconds. The first may have been there already.
    eventually("4 failures", || async { edge.discovery.failures("a", KIND) == 4 }).await;
    assert!(begun.elapsed().as_secs_f64() > 6.9, "{:?}", begun.elapsed());
    assert_eq!(listing.seen().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn https_is_encrypted_and_not_believed_without_a_certificate() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("https://{}/", listener.local_addr().expect("bound"));
    let first = Arc::new(std::sync::Mutex::new(None));
    let seen = Arc::clone(&first);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            *seen.lock().unwrap() = stream.read_u8().await.ok();
        }
    });
    let edge = Edge::start(&group(&format!("http_targets: {{url: '{url}'}}")));
    keeps(&edge, KIND, 1, &[]).await;
    // A handshake of TLS.
    assert_eq!(*first.lock().unwrap(), Some(0x16));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_targets_are_refused_as_a_whole() {
    let a = origin(1000).await;
    let listing = Listing::run().await;
    listing.name(addresses(&[&a]));
    let edge = Edge::start(&group(&source(&listing)));
    finds(&edge, &[1000], &[]).await;
    listing.name((1..=10_001).map(|port| format!("127.0.0.2:{port}")).collect());
    keeps(&edge, KIND, 1, &[1000]).await;
    listing.name(Vec::new());
    finds(&edge, &[], &[1000]).await;
}
