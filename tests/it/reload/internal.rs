//! The internal listener: how the process is, and what it is told to do.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use super::*;
use crate::support::origin::{Fault, Program};
use crate::support::process::{File, PROGRAM, Running};
use crate::support::{eventually, full};

fn one_group(origin: &Origin) -> String {
    let limits = "limits: {probe_timeout: 8s}";
    format!("scrape_interval: 100ms\n{limits}\ntarget_groups:\n{}", group("a", &[origin], ""))
}

async fn ask(ask: Ask, to: SocketAddr) -> (u16, String) {
    let answer = ask.send(to).await;
    (answer.status, String::from_utf8(answer.body).expect("text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_ready_after_the_first_round_of_probes() {
    let [well, silent] = [1, 2].map(|seed| (full(1000 + seed), Content::framed(seed, 1 << 20)));
    let well = Origin::run(Program::Agave, &[(&well.0, well.1)]).await;
    let silent = Origin::run(Program::Agave, &[(&silent.0, silent.1)]).await;
    silent.fail_probes(Fault::StallBeforeHead);
    let text = one_group(&well).replace("group: a", "group: b") + &group("a", &[&silent], "");
    let running = Running::start(&text).await;
    let ready = || ask(Ask::get("/readyz"), running.internal);
    running.offers("/snapshot.tar.bz2?group=b").await;
    let (status, why) = ready().await;
    assert_eq!((status, &*why), (503, "the first round of probes is not over\n"));
    assert_eq!(ask(Ask::get("/healthz"), running.internal).await, (200, "ok\n".to_owned()));
    eventually("the round is over", || async { ready().await.0 == 200 }).await;
    // What comes later makes no difference.
    running.rewrite(&(text.replace("group: a", "group: c") + &group("d", &[&silent], "kind: rpc")));
    assert_eq!(running.reload().await.0, 200);
    assert_eq!(ready().await, (200, "ready\n".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_path_has_its_methods_and_none_is_public() {
    let origin = Origin::run(Program::Agave, &[(&full(1000), BODY)]).await;
    let running = Running::start(&one_group(&origin)).await;
    for (method, path, status, allow) in [
        ("HEAD", "/healthz", 200, None),
        ("POST", "/healthz", 405, Some("GET, HEAD")),
        ("DELETE", "/readyz", 405, Some("GET, HEAD")),
        ("GET", "/reload", 405, Some("POST")),
        ("GET", "/", 200, None),
        ("POST", "/", 405, Some("GET, HEAD")),
        ("PUT", "/metrics", 405, Some("GET, HEAD")),
        ("GET", "/nothing", 404, None),
        ("GET", "/v1/snapshots", 404, None),
        ("POST", "/reload", 200, None),
    ] {
        let answer = Ask::method(method, path).send(running.internal).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.header("allow"), allow, "{method} {path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    for (method, path) in [("GET", "/healthz"), ("GET", "/readyz"), ("POST", "/reload")] {
        let answer = Ask::method(method, path).send(running.address).await;
        assert!([404, 405].contains(&answer.status), "{path}: {}", answer.status);
    }
    assert_eq!(running.log().matches("was reloaded").count(), 1, "{}", running.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_is_not_ready_and_reloads_nothing() {
    let origin = Origin::run(Program::Agave, &[(&full(1000), BODY)]).await;
    let running = Running::start(&one_group(&origin)).await;
    let path = format!("/{}", full(1000));
    eventually("the archive is known", || async {
        Ask::head(&path).send(running.address).await.status == 200
    })
    .await;
    assert_eq!(ask(Ask::get("/readyz"), running.internal).await.0, 200);
    origin.fail(Fault::Hold(BODY.len / 2));
    let download = Download::begin(&Ask::get(&path), running.address).await;
    running.signal("-TERM");
    eventually("it says that it ends", || async {
        ask(Ask::get("/readyz"), running.internal).await == (503, "draining\n".to_owned())
    })
    .await;
    let (status, said) = running.reload().await;
    assert_eq!(status, 503);
    assert!(said.contains("nothing was changed") && said.contains("about to end"), "{said}");
    origin.fail(None);
    download.finish().await;
}

/// The address that nobody named is no reason not to start, and one that somebody named is.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_taken() {
    let origin = Origin::run(Program::Agave, &[(&full(1000), BODY)]).await;
    // Where another process has it, that one takes it.
    let _taken = TcpListener::bind("127.0.0.1:8457");
    let running = Running::with_default(&one_group(&origin)).await;
    let text = format!("listen: ['{}']\n{}", running.address, one_group(&origin));
    let said = running.kill();
    assert!(said.contains("there is no internal listener: cannot listen on `127.0.0.1:8457`"));
    assert!(said.contains("set `internal_listen`"), "{said}");

    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let named = taken.local_addr().expect("bound");
    for (stated, code) in [(format!("'{named}'"), 1), ("nonsense".to_owned(), 64)] {
        let file = File::new(&format!("internal_listen: {stated}\n{text}"));
        let ended = Command::new(PROGRAM).arg("-c").arg(&file.path).output().expect("it runs");
        let said = String::from_utf8(ended.stderr).expect("text");
        assert_eq!(ended.status.code(), Some(code), "{said}");
        assert!(said.contains(stated.trim_matches('\'')), "{said}");
    }
    let off = format!("internal_listen: off\n{text}");
    let parsed = snapedge::config::parse(&off).expect("valid");
    assert_eq!(parsed.internal_listen, snapedge::config::InternalListen::Off);
}
