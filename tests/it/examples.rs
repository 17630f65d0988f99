//! The configurations of `conf/examples`: each is checked as it is, and runs.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::body::Content;
use super::support::client::{Answer, Ask};
use super::support::eventually;
use super::support::origin::{Origin, Program};
use super::support::process::{File, PROGRAM, Running, free};
use super::support::tls::Authority;
use super::support::tls_client::{Offer, TlsClient, USUAL};
use super::support::{full, incremental};

/// A machine for an example: the files that it names, and where it finds what it names.
struct Machine {
    authority: Authority,
    clients: Authority,
    directory: tempfile::TempDir,
    origin: Origin,
    address: SocketAddr,
}

impl Machine {
    async fn new() -> Self {
        let (authority, clients) = (Authority::new(), Authority::new());
        let issued = authority.issue(&["snapshots.example"]);
        let directory = tempfile::tempdir().expect("a directory");
        authority.files("edge", &issued);
        let here = directory.path();
        for folder in ["tls", "tokens", "cache", "log"] {
            fs::create_dir(here.join(folder)).expect("a directory");
        }
        for (from, to) in
            [("edge.pem", ["edge.pem", "origin.pem"]), ("edge.key", ["edge.key", "origin.key"])]
        {
            for to in to {
                let from = authority.path().with_file_name(from);
                fs::copy(from, here.join("tls").join(to)).expect("copied");
            }
        }
        fs::copy(clients.path(), here.join("tls/cdn-ca.pem")).expect("copied");
        let hash = bcrypt::hash("word", 4).expect("a hash");
        let content = Content::new(1, 1000);
        let newer = incremental(1000, 1100);
        let archives = [(&*full(1000), content), (&*newer, content)];
        let origin = Origin::run(Program::Agave, &archives).await;
        for (name, text) in [
            ("denied.txt", "192.0.2.0/24\n".to_owned()),
            ("htpasswd", format!("ann:{hash}\n")),
            ("tokens/fleet", "a-token\n".to_owned()),
            ("consul-token", "t\n".to_owned()),
            ("testnet.txt", format!("{}\n", origin.address())),
            ("etag-secret", format!("{}\n", "0".repeat(32))),
        ] {
            fs::write(here.join(name), text).expect("written");
        }
        Self { authority, clients, directory, origin, address: free() }
    }

    /// The example with what is on this machine in place of what it names.
    fn put_into(&self, text: &str) -> String {
        let here = self.directory.path().display().to_string();
        text.replace("/etc/snapedge/", &format!("{here}/"))
            .replace("/var/cache/snapedge", &format!("{here}/cache"))
            .replace("/var/log/snapedge", &format!("{here}/log"))
    }

    /// Nobody else is asked for anything, and nothing takes longer than a test.
    fn aim(&self, text: &str) -> String {
        let origin = self.origin.address().to_string();
        let mut aimed = String::from("scrape_interval: 200ms\n");
        for line in self.put_into(text).lines() {
            let line = line.split(" #").next().unwrap_or_default();
            let keeps = line.trim_start();
            let is_target = keeps.starts_with("- 10.0.0.") || keeps.starts_with("- 203.0.113.");
            let line = match keeps {
                // One of them is enough.
                _ if is_target && aimed.contains(&origin) => continue,
                _ if is_target => line.replace(keeps, &format!("- '{origin}'")),
                _ if keeps.starts_with("targets: [10.1.0.5") => {
                    line.replace("10.1.0.5:8458", &format!("'{origin}'"))
                }
                _ if keeps.starts_with("rpc: http") => continue,
                _ if keeps.starts_with("min_free_space") => line.replace("GiB", "B"),
                // Bodies of tests are no archives.
                _ if keeps.starts_with("verify:") => continue,
                _ if line == "cache:" => "cache:\n  verify: length".to_owned(),
                _ if keeps.starts_with("url: https://sd") => {
                    line.replace("https://sd.example", &format!("http://{origin}"))
                }
                _ if keeps.starts_with("drain_delay") => line.replace("0s", "ms"),
                _ => line.to_owned(),
            };
            aimed.push_str(&line);
            aimed.push('\n');
        }
        aimed
    }
}

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/examples").join(name);
    fs::read_to_string(path).expect(name)
}

/// What `-t` says of an example as it is, but for where its files are.
fn check(machine: &Machine, text: &str) {
    let file = File::new(&machine.put_into(text));
    let path = file.path.to_str().expect("text");
    let checked = Command::new(PROGRAM).args(["-t", "-c", path]).output().expect("it runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

async fn ready(running: &Running) {
    eventually("it is ready", || async {
        Ask::get("/readyz").send(running.internal).await.status == 200
    })
    .await;
}

/// Starts it with its listeners and its internal one at addresses that are free.
async fn start(machine: &Machine, text: &str, from: &str) -> Running {
    let (to, internal) = (machine.address.to_string(), free());
    let mut text = machine.aim(text).replace(from, &to);
    for line in text.clone().lines() {
        if line.starts_with("internal_listen") {
            text = text.replace(line, "");
        } else if line.contains("- address: ") && !line.contains(&to) {
            let other = line.split(": ").nth(1).expect("an address").trim();
            text = text.replace(other, &free().to_string());
        }
    }
    Running::at(&text, machine.address, internal).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_edge_before_rpc_nodes() {
    let (machine, text) = (Machine::new().await, example("rpc-edge.yaml"));
    check(&machine, &text);
    let running = start(&machine, &text, "0.0.0.0:443").await;
    ready(&running).await;
    let client = TlsClient::new(&machine.authority, &USUAL);
    let get = |path: String| {
        let (client, to) = (client.clone(), machine.address);
        async move { client.get(to, "snapshots.example", &path).await.expect("an answer") }
    };
    eventually("the pair is offered", || async {
        get("/snapshot.tar.bz2".to_owned()).await.status == 303
    })
    .await;
    eventually("it is cached", || async {
        let archive = get(format!("/{}", full(1000))).await;
        archive.header("cache-status") == Some("snapedge; hit")
    })
    .await;
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"getSlot"}"#;
    let request = format!(
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{call}",
        call.len()
    );
    let mut stream = client.connect(machine.address, "snapshots.example").await.expect("shaken");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"result\""), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mirror_of_a_fleet() {
    let (machine, text) = (Machine::new().await, example("private-fleet.yaml"));
    check(&machine, &text);
    // The fleet is on this machine.
    let text = text.replace("10.9.0.0/24", "127.0.0.0/8");
    let running = start(&machine, &text, "10.0.0.5:8458").await;
    ready(&running).await;
    eventually("the pair is offered", || async {
        Ask::get("/snapshot.tar.bz2").send(machine.address).await.status == 303
    })
    .await;
    let get = |token: Option<&str>| {
        let ask = Ask::get(format!("/{}", full(1000)));
        let ask = token.map_or(ask.clone(), |token| ask.with("authorization", token));
        ask.send(machine.address)
    };
    assert_eq!(get(None).await.status, 401);
    assert_eq!(get(Some("Bearer a-token")).await.status, 200);
    assert_eq!(get(Some("Basic YW5uOndvcmQ=")).await.status, 200, "ann:word");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mirror_behind_a_cdn() {
    let (machine, text) = (Machine::new().await, example("public-mirror.yaml"));
    check(&machine, &text);
    // The CDN is on this machine.
    let text = text.replace("198.51.100.0/24", "127.0.0.0/8");
    let running = start(&machine, &text, "0.0.0.0:443").await;
    ready(&running).await;
    let shown = machine.clients.issue(&["cdn"]);
    let cdn = TlsClient::new(&machine.authority, &Offer { identity: Some(&shown), ..USUAL });
    let ask = |path: String, client: &'static str| {
        let (cdn, to) = (cdn.clone(), machine.address);
        async move {
            let request =
                format!("GET {path} HTTP/1.1\r\nhost: a\r\ncf-connecting-ip: {client}\r\n");
            let answer: Answer = cdn.ask(to, "snapshots.example", &request).await.expect("one");
            answer
        }
    };
    eventually("the pair is offered", || async {
        ask("/snapshot.tar.bz2".to_owned(), "203.0.113.9").await.status == 303
    })
    .await;
    eventually("it is cached, and may be kept", || async {
        let archive = ask(format!("/{}", full(1000)), "203.0.113.9").await;
        assert_eq!(archive.status, 200);
        archive.header("cache-control").is_some_and(|kept| kept.starts_with("public"))
    })
    .await;
    assert_eq!(ask(format!("/{}", full(1000)), "192.0.2.9").await.status, 403, "denied");
    let nobody = TlsClient::new(&machine.authority, &USUAL);
    assert!(nobody.get(machine.address, "snapshots.example", "/health").await.is_err());
}
