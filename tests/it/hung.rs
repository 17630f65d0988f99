//! Targets that keep a probe waiting, beside one that lives.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::support::body::Content;
use super::support::client::Ask;
use super::support::edge::Edge;
use super::support::eventually;
use super::support::origin::{Origin, Program};
use super::support::{full, incremental};

const SMALL: Content = Content::new(1, 1000);
/// Each takes the whole time of a probe. One after the other, as many at once as may be, they take
/// more than ten seconds.
const HUNG: usize = 40;
const DRIPPING: usize = 30;
const SHAKING: usize = 20;
const REFUSING: usize = 40;

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("0.0.0.0:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    (listener, port)
}

/// Takes connections, and does this with each.
fn serve<F: Future<Output = ()> + Send + 'static>(
    tasks: &mut JoinSet<()>,
    listener: TcpListener,
    with: fn(TcpStream) -> F,
) {
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(with(stream));
            while connections.try_join_next().is_some() {}
        }
    });
}

async fn hang(mut stream: TcpStream) {
    while stream.read(&mut [0; 1024]).await.is_ok_and(|count| count > 0) {}
}

/// A head that never ends.
async fn drip(mut stream: TcpStream) {
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
    while stream.write_all(b"y").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn group(name: &str, network: u8, count: usize, port: u16, more: &str) -> String {
    let targets: Vec<String> =
        (1..=count).map(|at| format!("'127.1.{network}.{at}:{port}'")).collect();
    let targets = targets.join(", ");
    format!("  - {{group: {name}, {more} static_targets: {{targets: [{targets}]}}}}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_that_keep_a_probe_waiting_do_not_delay_the_archives_of_those_that_answer() {
    let living = Origin::run(Program::Agave, &[(&full(1000), SMALL)]).await;
    let (mut tasks, mut text) = (JoinSet::new(), String::new());
    let (listener, port) = listen().await;
    serve(&mut tasks, listener, hang);
    text += &group("hung", 1, HUNG, port, "");
    text += &group("shaking", 2, SHAKING, port, "scheme: https,");
    let (listener, port) = listen().await;
    serve(&mut tasks, listener, drip);
    text += &group("dripping", 3, DRIPPING, port, "");
    let (listener, port) = listen().await;
    drop(listener);
    text += &group("refusing", 4, REFUSING, port, "");
    // Among them, so that it is neither the first nor the last one.
    let address = living.address();
    text += &format!("  - {{group: living, static_targets: {{targets: ['{address}']}}}}\n");
    let edge = Edge::start(&format!(
        "listen: ['127.0.0.1:0']\nscrape_interval: 500ms\ndefault_group: living\n\
         limits: {{probe_concurrency: 32, connect_timeout: 5s}}\ntarget_groups:\n{text}"
    ));
    becomes(edge.address, "/snapshot.tar.bz2", &full(1000)).await;
    // Once more than one round is under way.
    let asked = living.seen().len();
    eventually("it is asked again", || async { living.seen().len() > asked }).await;
    for slot in [1100, 1200, 1300] {
        let (begun, name) = (Instant::now(), incremental(1000, slot));
        living.add(&name, SMALL);
        becomes(edge.address, "/incremental-snapshot.tar.bz2", &name).await;
        let delay = begun.elapsed();
        println!("{name} is offered after {delay:?}");
        assert!(delay < Duration::from_secs(4), "{delay:?}");
    }
    tasks.shutdown().await;
}

async fn becomes(edge: SocketAddr, path: &str, name: &str) {
    let expected = format!("/{name}");
    eventually(&format!("{path} leads to {name}"), || async {
        let answer = Ask::head(path).send(edge).await;
        answer.header("location") == Some(&*expected)
    })
    .await;
}
