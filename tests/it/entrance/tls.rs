//! TLS with clients of all ages, and certificates that change.

use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::HandshakeKind;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use super::*;
use crate::support::client::{Ask, Ended};
use crate::support::h2;
use crate::support::process::Running;
use crate::support::tls::{Authority, Issued};
use crate::support::tls_client::{Offer, TlsClient, USUAL, exchange};

const CONTENT: Content = Content::new(1, 3 << 20);

async fn origin() -> Origin {
    Origin::run(Program::Sidecar, &[(&full(1000), CONTENT)]).await
}

/// `tls: {..}` of this certificate.
fn keys(authority: &Authority, issued: &Issued, more: &str) -> String {
    format!("tls: {{{}{more}}}", authority.files("edge", issued))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_and_protocol_gets_the_same_bytes() {
    let (authority, origin) = (Authority::new(), origin().await);
    let issued = authority.issue(&["edge.example"]);
    let edge = edge(&keys(&authority, &issued, ""), "", &[&origin]).await;
    let path = format!("/{}", full(1000));
    for versions in [&[&TLS12][..], &[&TLS13], &[&TLS12, &TLS13]] {
        // As Firedancer, as curl, and as one that says nothing.
        for protocols in [&["http/1.1"][..], &["h2", "http/1.1"], &[]] {
            let offer = Offer { versions, protocols, identity: None };
            let client = TlsClient::new(&authority, &offer);
            let stream = client.connect(edge.address, "edge.example").await.expect("shaken");
            let spoken = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
            if spoken.as_deref() == Some(b"h2") {
                let (body, ended) = h2::get_on(stream, format!("https://edge.example{path}")).await;
                assert!(ended == Ended::Whole && body == CONTENT.all());
            } else {
                assert_eq!(spoken.is_some(), !protocols.is_empty());
                let request = format!("GET {path} HTTP/1.1\r\nhost: edge.example\r\n");
                let answer = exchange(stream, &request).await.expect("an answer");
                assert!(answer.status == 200 && answer.body == CONTENT.all());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn urls_and_targets_are_told_that_tls_was_spoken() {
    let (authority, origin) = (Authority::new(), origin().await);
    let issued = authority.issue(&["edge.example"]);
    let edge = edge(&keys(&authority, &issued, ""), "", &[&origin]).await;
    let client = TlsClient::new(&authority, &USUAL);
    let get = |path: String| {
        let client = client.clone();
        async move { client.get(edge.address, "edge.example", &path).await.expect("an answer") }
    };
    let listed = String::from_utf8(get("/v1/snapshots".to_owned()).await.body).expect("text");
    let base = format!("https://edge.example:{}", edge.address.port());
    assert!(listed.contains(&format!("\"url\":\"{base}/v1/snapshot/{}\"", full(1000))), "{listed}");
    assert!(listed.contains(&format!("\"target\":\"{base}\"")), "{listed}");
    let short = get("/snapshot.tar.bz2".to_owned()).await;
    let location = short.header("location").expect("a redirect").to_owned();
    assert_eq!(location, format!("/{}", full(1000)), "still relative");
    assert_eq!(get(location).await.status, 200);
    let seen = origin.seen();
    let asked = seen.iter().rev().find(|request| request.method == "GET").expect("asked");
    assert_eq!(asked.header("x-forwarded-proto"), Some("https"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_that_of_the_name_that_is_asked_for() {
    let authority = Authority::new();
    let origin = origin().await;
    let names = ["edge.example", "testnet.example", "*.wild.example"];
    let issued = names.map(|name| authority.issue(&[name]));
    let more: Vec<String> = issued[1..]
        .iter()
        .zip(["b", "c"])
        .map(|(issued, name)| format!("{{{}}}", authority.files(name, issued)))
        .collect();
    let more = format!(", certificates: [{}]", more.join(", "));
    let edge = edge(&keys(&authority, &issued[0], &more), "", &[&origin]).await;
    let client = TlsClient::new(&authority, &USUAL);
    for (name, expected) in
        [("edge.example", 0), ("testnet.example", 1), ("Testnet.Example", 1), ("a.wild.example", 2)]
    {
        let stream = client.connect(edge.address, name).await.expect(name);
        let shown = stream.get_ref().1.peer_certificates().expect("one").to_vec();
        assert_eq!(shown, issued[expected].parts().0, "{name}");
    }
    // Who asks for another one is shown the first, and judges for himself.
    for name in ["other.example", "a.b.wild.example", "127.0.0.1"] {
        let refused = client.connect(edge.address, name).await.expect_err(name);
        assert!(refused.to_string().contains("not valid for name"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_taken_up_again() {
    let (authority, origin) = (Authority::new(), origin().await);
    let issued = authority.issue(&["edge.example"]);
    let edge = edge(&keys(&authority, &issued, ""), "", &[&origin]).await;
    for version in [&TLS12, &TLS13] {
        let offer = Offer { versions: &[version], ..USUAL };
        let client = TlsClient::new(&authority, &offer);
        let mut kinds = Vec::new();
        for _ in 0..3 {
            let mut stream = client.connect(edge.address, "edge.example").await.expect("shaken");
            let request = b"GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
            stream.write_all(request).await.expect("written");
            stream.read_to_end(&mut Vec::new()).await.expect("an answer and an end in order");
            kinds.push(stream.get_ref().1.handshake_kind());
        }
        let resumed = Some(HandshakeKind::Resumed);
        assert_eq!(kinds, [Some(HandshakeKind::Full), resumed, resumed], "{version:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_those_come_in_whom_an_authority_vouches_for() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let (issued, origin) = (authority.issue(&["edge.example"]), origin().await);
    let ca = format!(", client_ca_file: '{}'", clients.path().display());
    let edge = edge(&keys(&authority, &issued, &ca), "", &[&origin]).await;
    let (ours, theirs) = (clients.issue(&["ours"]), authority.issue(&["theirs"]));
    let path = format!("/{}", full(1000));
    for versions in [&[&TLS12][..], &[&TLS13]] {
        for (identity, expected) in [(Some(&ours), true), (Some(&theirs), false), (None, false)] {
            let client = TlsClient::new(&authority, &Offer { versions, identity, ..USUAL });
            let answer = client.get(edge.address, "edge.example", &path).await;
            assert_eq!(answer.is_ok_and(|answer| answer.status == 200), expected);
        }
    }
    // What was let in by one authority does not come in by a ticket of then, once another one is.
    let others = Authority::new();
    let client = TlsClient::new(&authority, &Offer { identity: Some(&ours), ..USUAL });
    client.get(edge.address, "edge.example", &path).await.expect("let in");
    fs::copy(others.path(), clients.path()).expect("copied");
    let text = config("", &[&[&origin]]);
    let text = text.replacen("['127.0.0.1:0']", &listen(&keys(&authority, &issued, &ca)), 1);
    edge.reload(&text).await.expect("good");
    assert!(client.get(edge.address, "edge.example", &path).await.is_err());
}

/// Whoever connects and says nothing, or something else, holds a place for as long as half a head.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_handshake_has_its_time() {
    let (authority, origin) = (Authority::new(), origin().await);
    let issued = authority.issue(&["edge.example"]);
    let limits = "header_timeout: 300ms, per_client_connections: 3, ";
    let text = config("", &[&[&origin]]).replacen("limits: {", &format!("limits: {{{limits}"), 1);
    let keys = listen(&keys(&authority, &issued, ""));
    let edge = Edge::start(&text.replacen("['127.0.0.1:0']", &keys, 1));
    edge.knows(&origin).await;
    for begin in [&b""[..], b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n", &[0; 5000]] {
        let mut stream = tokio::net::TcpStream::connect(edge.address).await.expect("connected");
        // It may have been closed by then.
        let _ = stream.write_all(begin).await;
        let ended = tokio::time::timeout(Duration::from_secs(10), async {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        ended.await.expect("the connection ends");
    }
    let client = TlsClient::new(&authority, &USUAL);
    eventually("the places are free again", || async { edge.places.open() == 0 }).await;
    let answer = client.get(edge.address, "edge.example", "/health").await.expect("an answer");
    assert_eq!(answer.status, 200);
}

/// A body that ends too soon is never taken for a whole one.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_body_ends_short() {
    let (authority, name) = (Authority::new(), full(1000));
    let origin = origin().await;
    let issued = authority.issue(&["edge.example"]);
    let edge = edge(&keys(&authority, &issued, ""), "", &[&origin]).await;
    origin.fail_one(&name, crate::support::origin::Fault::CloseAfter(1 << 20));
    let client = TlsClient::new(&authority, &USUAL);
    let answer = client.get(edge.address, "edge.example", &format!("/{name}")).await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.ended == Ended::Short));
}

/// An exchange under load: no handshake fails, and the new certificate is shown soon.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_exchanged_under_load_and_bad_ones_are_not_taken() {
    let (authority, origin) = (Authority::new(), origin().await);
    let first = authority.issue(&["edge.example"]);
    let pair = authority.files("edge", &first);
    let address = crate::support::process::free();
    let text = format!(
        "listen: [{{address: '{address}', tls: {{{pair}}}}}]\nscrape_interval: 100ms\n\
         target_groups: [{{group: a, static_targets: {{targets: ['{}']}}}}]\n",
        origin.address()
    );
    let running = Running::listening(&text, address).await;
    let client = TlsClient::new(&authority, &USUAL);
    let (stop, shaken) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load = |_| {
        let (client, stop, shaken) = (client.clone(), Arc::clone(&stop), Arc::clone(&shaken));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let answer = client.get(address, "edge.example", "/health").await;
                assert_eq!(answer.expect("a handshake").status, 200);
                shaken.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let load: Vec<_> = (0..4).map(load).collect();
    let shown = || async {
        // Who takes a session up again is not shown it again.
        let client = TlsClient::new(&authority, &USUAL);
        let stream = client.connect(address, "edge.example").await.expect("shaken");
        stream.get_ref().1.peer_certificates().expect("one").to_vec()
    };
    assert_eq!(shown().await, first.parts().0);
    let second = authority.issue(&["edge.example"]);
    authority.files("edge", &second);
    eventually("the new one is shown", || async { shown().await == second.parts().0 }).await;
    // None of these is taken, and the log says why.
    let (expired, other) = (authority.issue_expired(&["edge.example"]), authority.issue(&["b"]));
    let path = |end: &str| authority.path().with_file_name(format!("edge.{end}"));
    let says = |part: &'static str| {
        let running = &running;
        eventually(part, move || async move { running.log().contains(part) })
    };
    authority.files("edge", &expired);
    says("expired on 2020-01-01T00:00:00Z, renew it").await;
    authority.files("edge", &second);
    fs::write(path("key"), {
        authority.files("other", &other);
        fs::read(authority.path().with_file_name("other.key")).expect("a key")
    })
    .expect("written");
    says("the private key is not that of the first certificate").await;
    fs::write(path("pem"), "no").expect("written");
    says("holds no certificate in PEM form").await;
    fs::remove_file(path("pem")).expect("removed");
    says("cannot read `").await;
    assert_eq!(shown().await, second.parts().0, "the one of before stays");
    let third = authority.issue(&["edge.example"]);
    authority.files("edge", &third);
    eventually("a good one is taken again", || async { shown().await == third.parts().0 }).await;
    stop.store(true, Ordering::Relaxed);
    for one in load {
        one.await.expect("no handshake failed");
    }
    assert!(shaken.load(Ordering::Relaxed) > 50);
}

/// IPv4 and IPv6, plain and not, side by side.
#[tokio::test(flavor = "multi_thread")]
async fn listeners_are_what_each_of_them_is() {
    let (authority, origin) = (Authority::new(), origin().await);
    let issued = authority.issue(&["edge.example"]);
    let tls = keys(&authority, &issued, "");
    let text = config("", &[&[&origin]]);
    let listen = format!("['127.0.0.1:0', {{address: '[::1]:0', {tls}}}]");
    let edge = Edge::start(&text.replacen("['127.0.0.1:0']", &listen, 1));
    edge.knows(&origin).await;
    assert_eq!(Ask::get("/health").send(edge.address).await.status, 200);
    let secure = edge.addresses[1];
    assert!(matches!(secure.ip(), IpAddr::V6(_)));
    let client = TlsClient::new(&authority, &USUAL);
    let answer = client.get(secure, "edge.example", "/health").await.expect("an answer");
    assert_eq!(answer.status, 200);
    assert!(client.get(edge.address, "edge.example", "/health").await.is_err(), "plain");
}
