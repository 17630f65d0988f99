//! The program as it is run: arguments, exit codes, signals, memory.

use std::process::{Command, Output};
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::support::body::Content;
use super::support::client::Ask;
use super::support::origin::{Origin, Program};
use super::support::process::{File, PROGRAM, Running};
use super::support::{eventually, full};

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().expect("the program runs")
}

fn check(text: &str) -> (i32, String) {
    let file = File::new(text);
    let output = run(&["-t", "-c", file.path.to_str().expect("a path")]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    (output.status.code().expect("an exit code"), text)
}

const GOOD: &str = "target_groups: [{group: a, static_targets: {targets: ['127.0.0.1:1']}}]\n";

#[test]
fn a_good_configuration_is_good() {
    let (code, text) = check(GOOD);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("is good"), "{text}");
    let tracker = "scrape_interval: 15s\ntarget_groups:\n  - group: mainnet\n    scheme: http\n    \
        api_path: \"\"\n    static_targets:\n      targets:\n        - 10.0.0.1:13080\n";
    assert_eq!(check(tracker).0, 0);
    for name in ["snapedge.yaml", "demo.yaml"] {
        let path = format!("{}/conf/{name}", env!("CARGO_MANIFEST_DIR"));
        let output = run(&["-t", "--config", &path]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{name}: {errors}");
    }
}

#[test]
fn a_bad_configuration_ends_with_64_and_every_error_with_its_path() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = format!(
        "scrape_intervall: 15s\npair_hold: soon\nproxy_snapshot_cache_dir: {}\ntarget_groups:\n\
         - {{group: a, scheme: http, static_targets: {{targets: ['https://n:1', 'n']}}}}\n\
         - {{group: a, static_targets: {{targets: ['n:1']}}}}\n",
        file.path().display()
    );
    for mode in [&["-t"][..], &[]] {
        let config = File::new(&text);
        let path = config.path.to_str().expect("a path");
        let output = run(&[mode, &["-c", path]].concat());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{errors}");
        for place in [
            "`scrape_intervall`: unknown key",
            "`pair_hold`: `soon` is not a duration",
            "`proxy_snapshot_cache_dir`: ",
            "`target_groups[0].static_targets.targets[0]`: `https://n:1` contradicts",
            "`target_groups[0].static_targets.targets[1]`: `n` has no port",
        ] {
            assert!(errors.contains(place), "no {place} in {errors}");
        }
    }
    assert_eq!(check("").0, 64);
    assert_eq!(check("target_groups: []").0, 64);
    assert_eq!(run(&["-t", "-c", "/does/not/exist"]).status.code(), Some(64));
    assert_eq!(run(&["--no-such-flag"]).status.code(), Some(64));
    assert_eq!(run(&["-t"]).status.code(), Some(64));
    assert_eq!(run(&[]).status.code(), Some(64));
    assert_eq!(run(&["--help"]).status.code(), Some(0));
    assert_eq!(run(&["--version"]).status.code(), Some(0));
}

#[test]
fn an_address_in_use_ends_with_1() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("bound");
    let file = File::new(&format!("listen: ['{address}']\n{GOOD}"));
    let output = run(&["-c", file.path.to_str().expect("a path")]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains(&format!("cannot listen on `{address}`")), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_end_the_process_and_leave_a_log() {
    for signal in ["-INT", "-TERM"] {
        let config = format!("server: {{grace_period: 0s}}\n{GOOD}");
        let mut running = Running::start(&config).await;
        assert_eq!(Ask::get("/snapshot.tar.bz2").send(running.address).await.status, 404);
        // A signal that ends the process at once leaves no time for it.
        eventually("the request is logged", || async {
            running.log().contains("GET /snapshot.tar.bz2 404 0 bytes")
        })
        .await;
        running.signal(signal);
        let mut code = None;
        eventually("the process ends", || {
            code = running.ended();
            let ended = code.is_some();
            async move { ended }
        })
        .await;
        assert_eq!(code.and_then(|code| code.code()), Some(0), "{signal}");
        let log = running.log();
        assert!(log.contains("GET /snapshot.tar.bz2 404 0 bytes"), "{log}");
        assert!(!log.contains("panicked"), "{log}");
    }
}

/// Ten gigabytes to a fast client, and as much as it takes to a slow one at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_depend_on_the_size_of_an_archive() {
    const LENGTH: u64 = 10 << 30;
    const BOUND_KIB: u64 = 64 << 10;
    let name = full(1000);
    let content = Content::new(1, LENGTH);
    let origin = Origin::run(Program::Agave, &[(&name, content)]).await;
    let config = format!(
        "scrape_interval: 200ms\ntarget_groups: \
         [{{group: a, static_targets: {{targets: ['{}']}}}}]\n",
        origin.address()
    );
    let running = Running::start(&config).await;
    let path = format!("/{name}");
    eventually("the archive is known", || async {
        Ask::head(&path).send(running.address).await.status == 200
    })
    .await;
    let before = running.anonymous();

    let slow = Ask::get(&path).from(2);
    let (head, mut stream) = slow.begin(running.address).await;
    assert_eq!((head.status, head.length()), (200, LENGTH));
    let slow = tokio::spawn(async move {
        let mut received = head.body.len() as u64;
        let mut block = vec![0; 64 << 10];
        loop {
            let count = stream.read(&mut block).await.expect("readable");
            assert!(content.matches(received, &block[..count]));
            received += count as u64;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });

    let (head, mut stream) = Ask::get(&path).from(1).begin(running.address).await;
    assert_eq!((head.status, head.length()), (200, LENGTH));
    let mut received = head.body.len() as u64;
    let mut block = vec![0; 1 << 20];
    let mut peak = before;
    let mut looked_at = 0;
    while received < LENGTH {
        let count = stream.read(&mut block).await.expect("readable");
        assert!(count > 0, "broke off after {received} bytes");
        // All of it would make the test a test of the generator; a mixture shows anywhere.
        if received >> 26 != looked_at >> 26 {
            assert!(content.matches(received, &block[..count]), "at {received}");
            looked_at = received;
            peak = peak.max(running.anonymous());
        }
        received += count as u64;
    }
    peak = peak.max(running.anonymous());
    assert!(!slow.is_finished(), "the slow client is still there");
    slow.abort();
    println!("anonymous memory: {before} KiB before, at most {peak} KiB during the transfers");
    assert!(peak < BOUND_KIB, "{peak} KiB");
}
