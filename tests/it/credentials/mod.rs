//! TLS and credentials towards targets: what is reached with them, what is not reached without, and
//! where they never go.

mod secrets;

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use snapedge::access::Fault;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use super::support::body::Content;
use super::support::client::Ask;
use super::support::edge::{Edge, QUICK};
use super::support::origin::{Fault as Reason, Origin, Program};
use super::support::process::{File, PROGRAM, Running};
use super::support::tls::{Authority, Front};
use super::support::{eventually, full, incremental};

const BODY: Content = Content::framed(1, 300_000);
const SECRET: &str = "s3cr3t-of-the-targets";
/// `snapedge:` and the secret.
const IN_BASE64: &str = "c25hcGVkZ2U6czNjcjN0LW9mLXRoZS10YXJnZXRz";

const FAULTS: [Fault; 6] = [
    Fault::UnknownIssuer,
    Fault::Expired,
    Fault::WrongName,
    Fault::ClientCertificate,
    Fault::Tls,
    Fault::Credentials,
];

/// A configuration with a group `a`, `b` and so on for each target and the keys beside it.
fn config(extra: &str, groups: &[(String, String)]) -> String {
    let mut text = format!("{QUICK}{extra}\ntarget_groups:\n");
    for (name, (target, keys)) in "abcdefgh".chars().zip(groups) {
        let targets = format!("static_targets: {{targets: ['{target}']}}");
        writeln!(text, "  - {{group: {name}, {targets}, {keys}}}").unwrap();
    }
    text
}

fn edge(extra: &str, target: &str, keys: &str) -> Edge {
    Edge::start(&config(extra, &[(target.to_owned(), keys.to_owned())]))
}

/// The target under a name, which leads to its address.
fn by_name(address: SocketAddr) -> String {
    format!("localhost:{}", address.port())
}

fn https(tls: &str) -> String {
    format!("scheme: https, tls_config: {{{tls}}}")
}

async fn lists(edge: &Edge, name: &str) {
    let name = name.parse().expect("a name");
    edge.sees("the archive is listed", |view| !view.sources(&name).is_empty()).await;
}

/// Waits until something is wrong, and makes sure that it is this and nothing else.
async fn meets(edge: &Edge, fault: Fault) {
    let faults = Arc::clone(&edge.accesses.of("a").expect("the group").faults);
    let met = || FAULTS.into_iter().filter(|fault| faults.of(*fault) > 0).collect::<Vec<_>>();
    eventually("a fault is counted", || async { !met().is_empty() }).await;
    assert_eq!(met(), [fault]);
}

fn assert_no_faults(edge: &Edge) {
    let faults = Arc::clone(&edge.accesses.of("a").expect("the group").faults);
    assert_eq!(FAULTS.map(|fault| faults.of(fault)), [0; 6]);
}

/// Whole, by HEAD, and in part.
async fn downloads(address: SocketAddr, name: &str) {
    let path = format!("/{name}");
    let head = Ask::head(&*path).send(address).await;
    assert_eq!((head.status, head.length()), (200, BODY.len), "{}", head.head);
    let part = Ask::get(&*path).with("range", "bytes=1000-1999").send(address).await;
    if part.status == 206 {
        assert_eq!(part.body, BODY.bytes(1000, 2000));
    } else {
        // Agave knows no ranges.
        assert_eq!((part.status, part.body.len() as u64), (200, BODY.len));
    }
    let whole = Ask::get(&*path).send(address).await;
    assert!(whole.status == 200 && whole.body == BODY.all(), "{}", whole.head);
}

fn cached(directory: &Path, sharing: &str) -> String {
    let directory = directory.display();
    format!(
        "proxy_snapshot_cache_dir: '{directory}'\ncache: {{sharing: {sharing}, min_free_space: 0B}}"
    )
}

async fn is_hit(edge: &Edge, name: &str) {
    eventually("the archive is cached", || async {
        let head = edge.ask(Ask::head(format!("/{name}"))).await;
        head.header("cache-status") == Some("snapedge; hit")
    })
    .await;
    let whole = edge.get(&format!("/{name}")).await;
    assert!(whole.status == 200 && whole.body == BODY.all(), "{}", whole.head);
}

/// Through the proxy, and into the cache in both ways.
async fn serves_in_every_way(target: &str, keys: &str, name: &str) {
    let plain = edge("", target, keys);
    lists(&plain, name).await;
    downloads(plain.address, name).await;
    assert_no_faults(&plain);
    for sharing in ["exclusive", "shared"] {
        let directory = tempfile::tempdir().expect("a directory");
        let edge = edge(&cached(directory.path(), sharing), target, keys);
        lists(&edge, name).await;
        downloads(edge.address, name).await;
        is_hit(&edge, name).await;
        assert_no_faults(&edge);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_with_its_own_authority_that_wants_a_certificate_is_served_from() {
    let name = full(1000);
    let authority = Authority::new();
    let server = authority.issue(&["localhost", "127.0.0.1"]);
    let keys = https(&format!(
        "{}, {}",
        authority.trusted(),
        authority.client(&authority.issue(&["client"]))
    ));
    for (program, version) in [(Program::Agave, &TLS13), (Program::Sidecar, &TLS12)] {
        let origin = Origin::run(program, &[(&name, BODY)]).await;
        let tls = server.server_for(&authority, version);
        let front = Front::before(origin.address(), tls).await;
        serves_in_every_way(&by_name(front.address), &keys, &name).await;
        let named = front.named();
        assert!(named.iter().all(|name| name.as_deref() == Some("localhost")), "{named:?}");
        assert!(named.len() > 5, "{named:?}");
        // Those who asked the origin said the name of the target as it is listed.
        let hosts = origin
            .seen()
            .into_iter()
            .map(|request| request.header("host").expect("a host").to_owned());
        assert!(hosts.collect::<Vec<_>>().iter().all(|host| *host == by_name(front.address)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_known_by_its_address_where_it_is_listed_by_that() {
    let name = full(1000);
    let authority = Authority::new();
    let origin = Origin::run(Program::Sidecar, &[(&name, BODY)]).await;
    let front = Front::before(origin.address(), authority.issue(&["127.0.0.1"]).server()).await;
    let keys = https(&authority.trusted());
    serves_in_every_way(&front.address.to_string(), &keys, &name).await;
    assert!(front.named().iter().all(Option::is_none), "{:?}", front.named());
    // The same certificate says nothing of the name.
    let edge = edge("", &by_name(front.address), &keys);
    meets(&edge, Fault::WrongName).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_need_not_prove_anything_where_that_is_asked_for() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, BODY)]).await;
    let unknown = Authority::new().issue_expired(&["other.example"]);
    let front = Front::before(origin.address(), unknown.server()).await;
    let keys = https("insecure_skip_verify: true");
    serves_in_every_way(&by_name(front.address), &keys, &name).await;
}

/// Everything that can be wrong: the server's side, `tls_config`, and what that is.
fn distrust(authority: &Authority) -> [(Arc<ServerConfig>, String, Fault); 8] {
    let good = authority.issue(&["localhost"]);
    let stranger = Authority::new();
    let trusted = || authority.trusted();
    let with_strange_client = format!("{}, {}", trusted(), {
        let client = stranger.issue(&["client"]);
        authority.client(&client)
    });
    [
        (stranger.issue(&["localhost"]).server(), trusted(), Fault::UnknownIssuer),
        // The authorities of the system do not know ours.
        (good.server(), String::new(), Fault::UnknownIssuer),
        (authority.issue_expired(&["localhost"]).server(), trusted(), Fault::Expired),
        (authority.issue(&["other.example"]).server(), trusted(), Fault::WrongName),
        (good.server_for(authority, &TLS13), trusted(), Fault::ClientCertificate),
        (good.server_for(authority, &TLS12), trusted(), Fault::ClientCertificate),
        (good.server_for(authority, &TLS13), with_strange_client.clone(), Fault::ClientCertificate),
        (good.server_for(authority, &TLS12), with_strange_client, Fault::ClientCertificate),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_tls_is_told_apart_and_nothing_is_listed() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, BODY)]).await;
    let authority = Authority::new();
    for (row, (server, tls, fault)) in distrust(&authority).into_iter().enumerate() {
        println!("row {row}");
        let front = Front::before(origin.address(), server).await;
        let edge = edge("", &by_name(front.address), &https(&tls));
        meets(&edge, fault).await;
        assert_eq!(edge.get(&format!("/{name}")).await.status, 404, "{fault:?}");
    }
    // And where no TLS is spoken at all.
    let plain = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = plain.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = plain.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    let edge = edge("", &by_name(address), &https(&authority.trusted()));
    meets(&edge, Fault::Tls).await;
    assert_eq!(edge.get(&format!("/{name}")).await.status, 404);
    assert_eq!(origin.seen().len(), 0, "a request got through");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_tls_is_told_apart_in_downloads() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, BODY)]).await;
    let authority = Authority::new();
    for (server, tls, fault) in distrust(&authority) {
        // What the probe meets, once.
        let good = match &*tls {
            "" => continue,
            _ => authority.issue(&["localhost"]).server(),
        };
        for shared in [false, true] {
            println!("{fault:?}, shared {shared}");
            let directory = tempfile::tempdir().expect("a directory");
            let cache = if shared { cached(directory.path(), "shared") } else { String::new() };
            let front = Front::before(origin.address(), Arc::clone(&good)).await;
            let target = by_name(front.address);
            let text = config(&cache, &[(target, https(&tls))]);
            let edge = Edge::start(&text.replace("interval: 100ms", "interval: 1h"));
            lists(&edge, &name).await;
            front.speak(Arc::clone(&server));
            let answer = edge.get(&format!("/{name}")).await;
            assert_eq!(answer.status, 502, "{fault:?}, shared {shared}: {}", answer.head);
            meets(&edge, fault).await;
        }
    }
    assert_eq!(origin.asked("GET", &name), 0, "a download got through");
}

/// One line for each thing that is wrong, which says what to do.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_what_to_do() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, BODY)]).await;
    origin.demand("Bearer right");
    let authority = Authority::new();
    let mut groups = vec![(origin.address().to_string(), "bearer_auth: {token: wrong}".to_owned())];
    let mut fronts = Vec::new();
    let advice = [
        (0, "is from no authority that is trusted, give the one that it is from in `tls_config.ca"),
        (2, "has expired or is not valid yet, renew it on the target or set the clock"),
        (3, "is for another name, list the target under a name that the certificate has"),
        (4, "accepts no client that does not show a certificate that it trusts, give one in `tls"),
    ];
    let rows = distrust(&authority);
    for (row, _) in advice {
        let (server, tls, _) = &rows[row];
        let front = Front::before(origin.address(), Arc::clone(server)).await;
        groups.push((by_name(front.address), https(tls)));
        fronts.push(front);
    }
    let text = config("", &groups).replace("listen: ['127.0.0.1:0']\n", "");
    let running = Running::start(&text).await;
    let credentials = "it does not accept the credentials of the group, or there are none: see";
    let expected = std::iter::once(credentials).chain(advice.map(|(_, advice)| advice));
    for ((target, _), part) in groups.iter().zip(expected) {
        let count = |log: &str| {
            let line = |line: &&str| {
                line.contains(&format!("cannot probe target {target} in")) && line.contains(part)
            };
            log.lines().filter(line).count()
        };
        eventually(part, || async { count(&running.log()) > 0 }).await;
        assert_eq!(count(&running.log()), 1, "{}", running.log());
    }
}

#[test]
fn a_bad_file_ends_with_64() {
    let authority = Authority::new();
    let path = authority.path();
    let path = path.display();
    for (keys, place) in [
        (https("ca_file: /does/not/exist"), "tls_config.ca_file`: cannot read `/does/not/exist`"),
        (
            https(&format!("cert_file: '{path}', key_file: '{path}'")),
            "tls_config.key_file`: `PATH` holds no private key",
        ),
        (format!("bearer_auth: {{token_file: '{path}'}}"), "bearer_auth.token_file`: the content"),
    ] {
        let file = File::new(&config("", &[("localhost:1".to_owned(), keys)]));
        for mode in [&["-t"][..], &[]] {
            let arguments = [mode, &["-c", file.path.to_str().expect("a path")]].concat();
            let output = Command::new(PROGRAM).args(arguments).output().expect("the program runs");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(64), "{errors}");
            let place = place.replace("PATH", &path.to_string());
            assert!(errors.contains(&format!("`target_groups[0].{place}")), "{errors}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_wants_credentials_is_served_from_with_the_right_ones() {
    let name = full(1000);
    let basic = format!("basic_auth: {{username: snapedge, password: {SECRET}}}");
    let bearer = format!("bearer_auth: {{token: {SECRET}}}");
    for (keys, demanded) in
        [(basic, format!("Basic {IN_BASE64}")), (bearer, format!("Bearer {SECRET}"))]
    {
        for program in [Program::Agave, Program::Sidecar, Program::FiredancerSnapshots] {
            let origin = Origin::run(program, &[(&name, BODY)]).await;
            origin.demand(&demanded);
            let target = origin.address().to_string();
            serves_in_every_way(&target, &keys, &name).await;
            for wrong in ["kind: auto", "bearer_auth: {token: wrong}"] {
                let edge = edge("", &target, wrong);
                meets(&edge, Fault::Credentials).await;
                assert_eq!(edge.get(&format!("/{name}")).await.status, 404);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_is_denied_is_counted() {
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, BODY)]).await;
    let target = origin.address().to_string();
    for shared in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = if shared { cached(directory.path(), "shared") } else { String::new() };
        origin.demand("Bearer first");
        let text = config(&cache, &[(target.clone(), "bearer_auth: {token: first}".to_owned())]);
        let edge = Edge::start(&text.replace("interval: 100ms", "interval: 1h"));
        lists(&edge, &name).await;
        origin.demand("Bearer second");
        let answer = edge.get(&format!("/{name}")).await;
        assert_eq!(answer.status, 502, "{}", answer.head);
        meets(&edge, Fault::Credentials).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_followed_while_the_edge_runs() {
    let name = full(1000);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("token");
    std::fs::write(&path, "t0ken-one\n").expect("written");
    let origin = Origin::run(Program::Sidecar, &[(&name, BODY)]).await;
    origin.demand("Bearer t0ken-one");
    let keys = format!("bearer_auth: {{token_file: '{}'}}", path.display());
    let text = config("", &[(origin.address().to_string(), keys)]);
    let running = Running::start(&text.replace("listen: ['127.0.0.1:0']\n", "")).await;
    let answers = || async {
        let head = Ask::head(format!("/{name}")).send(running.address).await;
        head.status == 200
    };
    eventually("the archive is listed", answers).await;
    downloads(running.address, &name).await;

    // What is not good changes nothing.
    for (bad, said) in [("", "is empty"), ("two words", "holds a character that no token has")] {
        let before = running.log().len();
        std::fs::write(&path, bad).expect("written");
        let line = "group `a` keeps its credentials as they are: ";
        eventually("the log says so", || async {
            running.log()[before..].lines().any(|text| text.contains(line) && text.contains(said))
        })
        .await;
        downloads(running.address, &name).await;
    }
    std::fs::remove_file(&path).expect("removed");
    eventually("the log says so", || async { running.log().contains("cannot read `") }).await;
    downloads(running.address, &name).await;

    origin.demand("Bearer t0ken-two");
    std::fs::write(&path, "t0ken-two\n").expect("written");
    eventually("the new token is used", answers).await;
    downloads(running.address, &name).await;
    let log = running.kill();
    assert!(log.contains("the file of the credentials of group `a` is good again"), "{log}");
    assert!(log.contains("group `a` has new credentials"), "{log}");
    for secret in ["t0ken-one", "t0ken-two", "two words"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_not_left_by_a_redirect() {
    let name = full(1000);
    let snapshots = Origin::run(Program::FiredancerSnapshots, &[(&name, BODY)]).await;
    let rpc = Origin::run(Program::FiredancerRpc(snapshots.address()), &[]).await;
    let authority = Authority::new();
    let front = Front::before(rpc.address(), authority.issue(&["127.0.0.1"]).server()).await;
    let keys = format!("{}, bearer_auth: {{token: x}}", https(&authority.trusted()));
    let edge = edge("", &front.address.to_string(), &keys);
    eventually("it is asked", || async { rpc.seen().len() > 4 }).await;
    assert_eq!(snapshots.seen().len(), 0, "TLS was left");
    assert_eq!(edge.get(&format!("/{name}")).await.status, 404);
}
