//! Clients behind proxies: whose a request is, who is believed, and what follows from it.

use std::net::{IpAddr, Ipv4Addr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::support::client::{Answer, Ask, Ended, connect, raw, read_head};
use crate::support::tls::Authority;
use crate::support::tls_client::{TlsClient, USUAL};

const LENGTH: u64 = 200_000;
/// Where the proxy is that is trusted: the address of this machine that tests ask from.
const TRUSTED: &str = "trusted_proxies: [127.0.0.1]\n";

/// Two targets with copies of one archive that differ.
async fn two_copies() -> (Origin, Origin, String) {
    let name = full(1000);
    let a = Origin::run(Program::Sidecar, &[(&name, Content::new(1, LENGTH))]).await;
    let b = Origin::run(Program::Sidecar, &[(&name, Content::new(2, LENGTH))]).await;
    (a, b, name)
}

fn whose(body: &[u8]) -> u64 {
    let copies = [1, 2].into_iter().find(|seed| body == Content::new(*seed, LENGTH).all());
    copies.expect("one origin's bytes, all of them")
}

/// A header of the PROXY protocol, in version 1 or 2.
fn header(version: u8, client: IpAddr) -> Vec<u8> {
    let IpAddr::V4(client) = client else {
        return format!("PROXY TCP6 {client} ::1 1000 443\r\n").into_bytes();
    };
    if version == 1 {
        return format!("PROXY TCP4 {client} 127.0.0.1 1000 443\r\n").into_bytes();
    }
    let addresses = [&client.octets()[..], &[127, 0, 0, 1], &[1, 2], &[3, 4]].concat();
    // And something of the proxy's own behind the addresses.
    let more = [4, 0, 1, 7];
    let begin: [&[u8]; 4] = [b"\r\n\r\n\0\r\nQUIT\n", &[0x21, 0x11, 0, 16], &addresses, &more];
    begin.concat()
}

/// Asks as a proxy does, in pieces where `piece` is given.
async fn announced(edge: &Edge, begin: &[u8], request: &str, piece: usize) -> Answer {
    let mut stream = connect(IpAddr::V4(Ipv4Addr::LOCALHOST), edge.address).await;
    for part in begin.chunks(piece) {
        stream.write_all(part).await.expect("written");
        tokio::task::yield_now().await;
    }
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = read_head(&mut stream, false).await;
    let length = usize::try_from(answer.length()).expect("small");
    let mut body = std::mem::take(&mut answer.body);
    while body.len() < length {
        assert_ne!(stream.read_buf(&mut body).await.expect("bytes"), 0);
    }
    answer.body = body;
    answer
}

fn client(number: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, number).into()
}

/// The request of each client meets its copy, whichever proxy and whichever connection it takes.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_clients_behind_a_proxy_keep_their_copies() {
    let (a, b, name) = two_copies().await;
    let origins = [&a, &b];
    let extra = format!("{TRUSTED}client_address: x-forwarded-for");
    let by_header = edge("", &extra, &origins).await;
    let by_protocol = edge("proxy_protocol: required", TRUSTED, &origins).await;
    let mut seen = std::collections::BTreeSet::new();
    for number in 1..=50 {
        let get = |path: &str| Ask::get(path).with("x-forwarded-for", client(number).to_string());
        let path = format!("/{name}");
        let first = by_header.ask(get(&path).leave_after(1000)).await.body;
        let rest = get(&path).with("range", "bytes=1000-");
        let rest = by_header.ask(rest).await;
        assert_eq!((rest.status, rest.ended), (206, Ended::Whole), "client {number}");
        seen.insert(whose(&[&first[..1000], &rest.body].concat()));
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n");
        let (version, pieces) = (1 + number % 2, [1, 7, 1000][usize::from(number % 3)]);
        let begin = header(version, client(number));
        let part = format!("{request}range: bytes=0-999\r\n\r\n");
        let first = announced(&by_protocol, &begin, &part, pieces).await;
        let part = format!("{request}range: bytes=1000-\r\n\r\n");
        let rest = announced(&by_protocol, &begin, &part, 1000).await;
        assert_eq!((first.status, rest.status), (206, 206));
        whose(&[first.body, rest.body].concat());
    }
    assert_eq!(seen.len(), 2, "clients are spread over both");
}

/// Limits are each client's own, and targets hear of the client alone.
#[tokio::test(flavor = "multi_thread")]
async fn limits_are_those_of_the_client_behind_the_proxy() {
    let (a, b, name) = two_copies().await;
    let extra = format!("{TRUSTED}client_address: x-forwarded-for");
    let text = config(&extra, &[&[&a, &b]]);
    let text = text.replacen("limits: {", "limits: {requests: 3/s, per_client_connections: 2, ", 1);
    let edge = Edge::start(&text);
    edge.knows(&a).await;
    let of = |number: u8| {
        Ask::head("/snapshot.tar.bz2").with("x-forwarded-for", client(number).to_string())
    };
    // More connections of the proxy than one client may have, and more requests.
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(connect(IpAddr::V4(Ipv4Addr::LOCALHOST), edge.address).await);
    }
    for number in 1..=20 {
        assert_eq!(edge.ask(of(number)).await.status, 303, "client {number}");
    }
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(edge.ask(of(99)).await.status);
    }
    assert!(statuses.starts_with(&[303, 303, 303]) && statuses.contains(&429), "{statuses:?}");
    assert_eq!(edge.ask(of(98)).await.status, 303, "another one");
    // A /64 is one client.
    let v6 = |end: u8| {
        let told = format!("2001:db8::{end:x}");
        Ask::head("/snapshot.tar.bz2").with("x-forwarded-for", told)
    };
    let mut statuses = Vec::new();
    for end in 1..=10 {
        statuses.push(edge.ask(v6(end)).await.status);
    }
    assert!(statuses.contains(&429), "{statuses:?}");
    let told = Ask::get(format!("/{name}")).with("x-forwarded-for", "6.6.6.6, 192.0.2.77");
    edge.ask(told.with("x-forwarded-proto", "https")).await;
    let seen = [a.seen(), b.seen()].concat();
    let asked =
        seen.iter().find(|request| request.method == "GET" && request.path().contains(&name));
    let asked = asked.expect("one was asked");
    assert_eq!(asked.header("x-forwarded-for"), Some("192.0.2.77"), "and nothing that was forged");
    assert_eq!(asked.header("x-forwarded-proto"), Some("https"));
}

/// Who is not trusted changes nothing by what he says.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_word_changes_nothing() {
    let (a, b, name) = two_copies().await;
    let deny = "access: {all: {deny: [192.0.2.0/24, 127.0.1.9]}}\n";
    let extra = format!("trusted_proxies: [127.0.1.1]\nclient_address: x-forwarded-for\n{deny}");
    let edge = edge("proxy_protocol: required", &extra, &[&a, &b]).await;
    let path = format!("/{name}");
    let ask = |from: u8, claims: u8, header_claims: &'static str| {
        let (to, path) = (edge.address, path.clone());
        async move {
            let from = IpAddr::V4(Ipv4Addr::new(127, 0, 1, from));
            let mut stream = connect(from, to).await;
            let begin = header(2, IpAddr::V4(Ipv4Addr::new(192, 0, claims, 7)));
            stream.write_all(&begin).await.expect("written");
            let request = format!(
                "HEAD {path} HTTP/1.1\r\nhost: a\r\nx-forwarded-for: {header_claims}\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await.expect("written");
            read_head(&mut stream, true).await.status
        }
    };
    // The proxy that is trusted is believed about whom it announces, who is believed nothing.
    assert_eq!(ask(1, 3, "192.0.2.1").await, 200);
    assert_eq!(ask(1, 2, "192.0.3.1").await, 403);
    // Anybody else is who he is, whatever he says.
    assert_eq!(ask(2, 2, "192.0.2.1").await, 200);
    assert_eq!(ask(9, 3, "192.0.3.1").await, 403);
    // And what is no header is no connection.
    for begin in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PROXY TCP4 1 2 3 4\r\n", b"\x16\x03\x01\0"] {
        assert!(raw(edge.address, begin).await.is_empty());
    }
}

/// Headers of others are no targets' business where the connection tells.
#[tokio::test(flavor = "multi_thread")]
async fn without_trust_headers_are_neither_believed_nor_passed_on() {
    let (a, b, name) = two_copies().await;
    let edge = Edge::with("", &[&a, &b]).await;
    let ask = Ask::get(format!("/{name}")).from(7).with("x-forwarded-for", "6.6.6.6");
    let ask = ask.with("forwarded", "for=6.6.6.6").with("cf-connecting-ip", "6.6.6.6");
    assert_eq!(edge.ask(ask.with("x-forwarded-proto", "https")).await.status, 200);
    let seen = [a.seen(), b.seen()].concat();
    let asked =
        seen.iter().find(|request| request.method == "GET" && request.path().contains(&name));
    let asked = asked.expect("one was asked");
    assert_eq!(asked.header("x-forwarded-for"), Some("127.0.1.7"));
    assert_eq!(asked.header("x-forwarded-proto"), Some("http"));
    assert_eq!((asked.header("forwarded"), asked.header("cf-connecting-ip")), (None, None));
}

/// The word of the proxy comes before the handshake.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_announces_a_client_before_tls() {
    let (a, b, name) = two_copies().await;
    let authority = Authority::new();
    let issued = authority.issue(&["edge.example"]);
    let keys = format!("proxy_protocol: required, tls: {{{}}}", authority.files("edge", &issued));
    let extra = format!("{TRUSTED}access: {{all: {{deny: [192.0.2.2]}}}}");
    let edge = edge(&keys, &extra, &[&a, &b]).await;
    let tls = TlsClient::new(&authority, &USUAL);
    for (number, version, status) in [(1, 1, 200), (1, 2, 200), (2, 1, 403), (2, 2, 403)] {
        let mut stream = connect(IpAddr::V4(Ipv4Addr::LOCALHOST), edge.address).await;
        stream.write_all(&header(version, client(number))).await.expect("written");
        let stream = tls.over(stream, "edge.example").await.expect("shaken");
        let request = format!("GET /{name} HTTP/1.1\r\nhost: a\r\n");
        let answer = crate::support::tls_client::exchange(stream, &request).await;
        assert_eq!(answer.expect("an answer").status, status, "{number} {version}");
    }
}

/// A proxy that looks whether this end is there says so, and speaks for itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_health_check_of_the_proxy_is_its_own() {
    let origin = Origin::run(Program::Sidecar, &[]).await;
    let edge = edge("proxy_protocol: required", TRUSTED, &[&origin]).await;
    for begin in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let request = "GET /health HTTP/1.1\r\nhost: a\r\n\r\n";
        assert_eq!(announced(&edge, begin, request, 1).await.status, 200);
    }
    // It connects and leaves, and that is all.
    for _ in 0..10 {
        drop(connect(IpAddr::V4(Ipv4Addr::LOCALHOST), edge.address).await);
    }
    eventually("nothing is held", || async { edge.places.open() == 0 }).await;
}
