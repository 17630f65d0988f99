//! Names with several addresses, over real sockets: 127.0.0.0/8 is all loopback.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::access::Accesses;

const FULL: &str = "snapshot-1000-426qDu1xtT27veQig8FUVaqbvbGgSguUuwtgsrfBh5oY.tar.zst";
const HOST: &str = "node.example";
const PATIENCE: Duration = Duration::from_secs(4);
/// How many ports are tried for one that is free at all addresses.
const ATTEMPTS: usize = 100;

const fn v4(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 3, last))
}

/// What is at one address of the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// A sidecar with one archive.
    Good,
    /// A sidecar without one.
    Empty,
    /// Nothing listens.
    Refuses,
    /// It accepts and says nothing.
    Hangs,
    /// It answers with this to whatever it is asked.
    Status(u16),
    /// A web page, whatever is asked.
    Page,
    /// No packet comes back.
    BlackHole,
    /// TLS with the certificate of another.
    Impostor,
    /// Bytes that are no TLS.
    Garbage,
}

impl Manner {
    fn answer(self, path: &str) -> String {
        let listing = format!(r#"[{{"files": [{{"file_name": "{FULL}", "size": 5}}]}}]"#);
        let (status, media, body) = match self {
            Self::Empty if path == "/v1/snapshots" => (200, "application/json", "[]".to_owned()),
            Self::Status(status) => (status, "text/plain", "no".to_owned()),
            Self::Page => (200, "text/html", "<html>".to_owned()),
            _ if path == "/v1/snapshots" => (200, "application/json", listing),
            _ => (404, "text/plain", "no".to_owned()),
        };
        let length = body.len();
        format!(
            "HTTP/1.1 {status} X\r\ncontent-type: {media}\r\ncontent-length: {length}\r\n\
             connection: close\r\n\r\n{body}"
        )
    }
}

/// One address, and what it does; it ends when it is dropped.
struct Place {
    asked: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Place {
    fn open(listener: Option<TcpListener>, manner: Manner, tls: Option<TlsAcceptor>) -> Self {
        let (asked, mut tasks) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
        let count = Arc::clone(&asked);
        if let Some(listener) = listener {
            tasks.spawn(async move {
                let mut connections = JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    count.fetch_add(1, Ordering::Relaxed);
                    let tls = tls.clone();
                    connections.spawn(async move {
                        match tls {
                            _ if manner == Manner::Garbage => speak(stream, manner).await,
                            Some(tls) => {
                                // Where not, the client did not like it.
                                if let Ok(stream) = tls.accept(stream).await {
                                    speak(stream, manner).await;
                                }
                            }
                            None => speak(stream, manner).await,
                        }
                    });
                }
            });
        }
        Self { asked, _tasks: tasks }
    }
}

async fn speak(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, manner: Manner) {
    let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if manner == Manner::Hangs {
            continue;
        }
        head.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&head);
        if text.contains("\r\n\r\n") || manner == Manner::Garbage {
            let path = text.split(' ').nth(1).unwrap_or_default();
            let _ = stream.write_all(manner.answer(path).as_bytes()).await;
            let _ = stream.shutdown().await;
            return;
        }
    }
}

/// Listeners at these addresses on one port, where something is to listen.
async fn listeners(addresses: &[(IpAddr, Manner)]) -> (u16, Vec<Option<TcpListener>>) {
    'port: for _ in 0..ATTEMPTS {
        let probe = TcpListener::bind("127.0.3.250:0").await.expect("a free port");
        let port = probe.local_addr().expect("bound").port();
        let mut all = Vec::new();
        for (address, manner) in addresses {
            let silent = matches!(manner, Manner::Refuses | Manner::BlackHole);
            let listener = match TcpListener::bind(SocketAddr::new(*address, port)).await {
                Ok(listener) => Some(listener).filter(|_| !silent),
                Err(_) if *manner == Manner::BlackHole => None,
                Err(_) => continue 'port,
            };
            all.push(listener);
        }
        return (port, all);
    }
    panic!("no port is free at all addresses");
}

/// A name with these addresses, and what asks it.
struct World {
    approach: Approach,
    places: Vec<Place>,
}

impl World {
    async fn new(addresses: &[(IpAddr, Manner)]) -> Self {
        Self::build(addresses, "", |_| None).await
    }

    /// The same by TLS, under an authority of its own.
    async fn with_tls(addresses: &[(IpAddr, Manner)]) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let certificate =
            |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).expect("a key");
        let (good, other) = (certificate(HOST), certificate("other.example"));
        std::fs::write(file.path(), good.cert.pem() + &other.cert.pem()).expect("written");
        let acceptor = |made: &rcgen::CertifiedKey| {
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.key_pair.serialize_der()));
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = rustls::ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key)
                .expect("a pair");
            TlsAcceptor::from(Arc::new(config))
        };
        let (good, other) = (acceptor(&good), acceptor(&other));
        let group = format!("scheme: https, tls_config: {{ca_file: '{}'}},", file.path().display());
        let tls = |manner| Some(if manner == Manner::Impostor { &other } else { &good }.clone());
        Self::build(addresses, &group, tls).await
    }

    async fn build(
        addresses: &[(IpAddr, Manner)],
        group: &str,
        tls: impl Fn(Manner) -> Option<TlsAcceptor>,
    ) -> Self {
        let (port, listeners) = listeners(addresses).await;
        let with = addresses.iter().zip(listeners);
        let places = with
            .map(|((_, manner), listener)| Place::open(listener, *manner, tls(*manner)))
            .collect();
        let text = format!(
            "target_groups: [{{group: a, {group} static_targets: {{targets: ['{HOST}:{port}']}}}}]"
        );
        let config = crate::config::parse(&text).expect("valid");
        let accesses = Accesses::new(&config).expect("usable");
        let access = accesses.of("a").expect("there");
        let client = GroupClient::new(access, config.limits.connect_timeout).expect("a client");
        let known: Vec<IpAddr> = addresses.iter().map(|(address, _)| *address).collect();
        let lookups = Lookups::by(move |_, _| Ok(known.clone()));
        let group = &config.groups[0];
        let target = group.sources.static_targets[0].clone();
        Self { approach: Approach::new(client, group, target, lookups), places }
    }

    /// Where the archive of a round is, to be downloaded from; nothing where there is none.
    async fn round(&mut self) -> Result<Option<IpAddr>, String> {
        let probe = self.approach.probe(PATIENCE);
        let found =
            tokio::time::timeout(PATIENCE, probe).await.map_err(|_| "silence".to_owned())?;
        let found = found.map_err(|error| crate::error_chain::chain(&error))?;
        let at: BTreeSet<IpAddr> = found
            .iter()
            .map(|listed| listed.location.as_ref().expect("a place").address.ip())
            .collect();
        assert!(at.len() <= 1 && found.len() == at.len(), "of one machine");
        // What else is asked of the target meets the same machine.
        if let (Some(at), Some(head_probe)) = (at.first(), self.approach.head_probe()) {
            assert_eq!(head_probe.root.address.ip(), *at);
        }
        Ok(at.first().copied())
    }
}

#[tokio::test]
async fn of_several_addresses_the_good_one_is_found_and_kept() {
    let mut runs = JoinSet::new();
    let bad = [
        Manner::Refuses,
        Manner::Hangs,
        Manner::Empty,
        Manner::Status(500),
        Manner::Status(401),
        Manner::Status(404),
        Manner::Page,
    ];
    for (at, manner) in (0_u8..).zip(bad) {
        for good_is_last in [true, false] {
            let base = 10 * at + 1 + 5 * u8::from(good_is_last);
            runs.spawn(async move {
                let mut all = vec![(v4(base), Manner::Good), (v4(base + 1), manner)];
                all.push((v4(base + 2), manner));
                if good_is_last {
                    all.swap(0, 2);
                }
                let good = all.iter().find(|(_, manner)| *manner == Manner::Good).expect("one").0;
                let mut world = World::new(&all).await;
                for round in 0..4 {
                    let found = world.round().await;
                    assert_eq!(found, Ok(Some(good)), "{manner:?}, {good_is_last}, {round}");
                }
                for ((address, _), place) in all.iter().zip(&world.places) {
                    // Each is asked one thing in a round, the others where the kept one is slow, as
                    // on a machine with much to do.
                    let most = 4 * 2;
                    let asked = place.asked.load(Ordering::Relaxed);
                    assert!(asked <= most, "{manner:?} at {address}: asked {asked} times");
                }
            });
        }
    }
    while let Some(run) = runs.join_next().await {
        run.expect("as it should be");
    }
}

#[tokio::test]
async fn a_good_address_that_dies_is_replaced_in_the_same_round() {
    for ending in [Manner::Refuses, Manner::Hangs, Manner::Empty, Manner::Status(500)] {
        let addresses = [(v4(101), Manner::Good), (v4(102), Manner::Good)];
        let mut world = World::new(&addresses).await;
        let first = world.round().await.expect("an answer").expect("an archive");
        let at = addresses.iter().position(|(address, _)| *address == first).expect("one of them");
        let port = world.approach.target.port();
        // Its listener ends with its task, and something else may be there in its place.
        world.places.swap_remove(at);
        let listener = match ending {
            Manner::Refuses => None,
            _ => loop {
                match TcpListener::bind(SocketAddr::new(first, port)).await {
                    Ok(listener) => break Some(listener),
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            },
        };
        world.places.push(Place::open(listener, ending, None));
        let second = addresses[1 - at].0;
        for _ in 0..3 {
            assert_eq!(world.round().await, Ok(Some(second)), "{ending:?}");
        }
    }
}

#[tokio::test]
async fn an_address_that_swallows_everything_takes_its_time_to_connect_and_no_more() {
    // Of TEST-NET-1, where no machine is (RFC 5737).
    let nowhere = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let addresses = [(nowhere, Manner::BlackHole), (v4(111), Manner::Good)];
    let mut world = World::new(&addresses).await;
    for _ in 0..2 {
        assert_eq!(world.round().await, Ok(Some(v4(111))));
    }
}

#[tokio::test]
async fn addresses_of_both_families_are_one_target() {
    let six = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let Ok(_) = TcpListener::bind(SocketAddr::new(six, 0)).await else {
        println!("this machine has no IPv6");
        return;
    };
    for (one, other) in [(Manner::Good, Manner::Refuses), (Manner::Refuses, Manner::Good)] {
        let addresses = [(six, one), (v4(121), other)];
        let good = if one == Manner::Good { six } else { v4(121) };
        assert_eq!(World::new(&addresses).await.round().await, Ok(Some(good)));
    }
}

#[tokio::test]
async fn an_address_that_is_not_the_target_by_its_certificate_is_passed_over() {
    let bad = [Manner::Impostor, Manner::Garbage, Manner::Refuses, Manner::Hangs];
    for (at, manner) in (0_u8..).zip(bad) {
        let base = 130 + 4 * at;
        let addresses = [(v4(base), manner), (v4(base + 1), Manner::Good)];
        let mut world = World::with_tls(&addresses).await;
        for _ in 0..2 {
            assert_eq!(world.round().await, Ok(Some(v4(base + 1))), "{manner:?}");
        }
    }
}

#[tokio::test]
async fn where_no_address_is_of_use_the_one_that_says_most_is_told() {
    let addresses = [(v4(151), Manner::Refuses), (v4(152), Manner::Status(502))];
    let mut world = World::new(&addresses).await;
    let error = world.round().await.expect_err("none");
    let expected = "none of its 2 addresses answers as it should, 127.0.3.152 says most: ";
    assert!(error.starts_with(expected) && error.contains("502"), "{error}");
    let mut world = World::new(&[(v4(153), Manner::Refuses)]).await;
    let error = world.round().await.expect_err("nobody listens");
    assert!(error.starts_with("GET `http://node.example:"), "{error}");
    // An answer without archives is one.
    let addresses = [(v4(154), Manner::Refuses), (v4(155), Manner::Empty)];
    assert_eq!(World::new(&addresses).await.round().await, Ok(None));
}

#[test]
fn the_order_of_addresses() {
    let [a4, b4, c4] = [v4(1), v4(2), v4(3)];
    let six = |last| IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last));
    let [x6, y6, z6] = [six(1), six(2), six(3)];
    for (addresses, kept, tries, expected) in [
        (&[][..], None, 0, &[][..]),
        (&[a4], None, 7, &[a4]),
        (&[a4, b4, c4], None, 0, &[a4, b4, c4]),
        (&[a4, b4, c4], None, 1, &[a4, b4, c4]),
        (&[a4, b4, c4], Some(b4), 0, &[b4, a4, c4]),
        (&[a4, b4], Some(c4), 0, &[a4, b4]),
        (&[x6, y6, a4, b4], None, 0, &[x6, a4, y6, b4]),
        (&[a4, b4, c4, x6], None, 0, &[a4, x6, b4, c4]),
        (&[x6, y6, a4], Some(a4), 0, &[a4, x6, y6]),
        // More than are asked at once.
        (&[x6, y6, z6, a4, b4], None, 0, &[x6, a4, y6, b4, z6]),
        (&[x6, y6, z6, a4, b4], None, 4, &[z6, x6, a4, y6, b4]),
        (&[x6, y6, z6, a4, b4, c4], Some(c4), 2, &[c4, y6, b4, z6, x6, a4]),
    ] {
        let found: Vec<IpAddr> = order(addresses, kept, tries).into();
        assert_eq!(found, expected, "{addresses:?}, {kept:?}, {tries}");
    }
}
