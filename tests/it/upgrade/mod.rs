//! One process takes over from another, under load, with kills of either.

mod chaos;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::task::JoinHandle;

use super::support::body::Content;
use super::support::client::Ask;
use super::support::origin::{Fault, Origin, Program};
use super::support::process::{PROGRAM, Running};
use super::support::{eventually, full, incremental};

const CONTENT: Content = Content::new(1, 8 << 20);

/// A process that takes over, killed when the test is over.
struct Next {
    child: Child,
    log: tempfile::NamedTempFile,
}

impl Next {
    /// Starts one with the configuration of one that runs.
    fn of(file: &Path) -> Self {
        Self::start(file, &["-u"])
    }

    fn start(file: &Path, more: &[&str]) -> Self {
        let log = tempfile::NamedTempFile::new().expect("a file");
        let child = Command::new(PROGRAM)
            .args(["-c", file.to_str().expect("text")])
            .args(more)
            .stderr(log.reopen().expect("a file"))
            .spawn();
        Self { child: child.expect("the program runs"), log }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log.path()).expect("a log")
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
    }

    async fn takes_over(&self) {
        eventually("it takes over", || async { self.log().contains("took over after") }).await;
    }
}

impl Drop for Next {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config(origin: &Origin, more: &str) -> String {
    format!(
        "scrape_interval: 100ms\nserver: {{grace_period: 10m}}\n{more}target_groups: [{{group: a, \
         static_targets: {{targets: ['{}']}}}}]\n",
        origin.address()
    )
}

fn cached(directory: &Path) -> String {
    format!(
        "proxy_snapshot_cache_dir: '{}'\ncache: {{sharing: shared, prefetch: all, verify: length, \
         min_free_space: 0B}}\n",
        directory.display()
    )
}

/// Clients that ask again and again, each time on a connection of its own.
struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn on(to: SocketAddr) -> Self {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |number: usize| {
            let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let at = (asked.fetch_add(1, Ordering::Relaxed) * 7919) as u64 % CONTENT.len;
                    let end = (at + 1000).min(CONTENT.len - 1);
                    let (ask, status) = match number % 2 {
                        0 => (Ask::get("/snapshot.tar.bz2"), 303),
                        _ => {
                            let range = format!("bytes={at}-{end}");
                            (Ask::get(format!("/{}", full(1000))).with("range", range), 206)
                        }
                    };
                    let answer = ask.from(number as u8 + 1).send(to).await;
                    assert_eq!(answer.status, status, "{}", answer.head);
                    assert!(status == 303 || CONTENT.matches(at, &answer.body), "at {at}");
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
            })
        };
        let clients = (0..4).map(client).collect();
        Self { stop, asked, clients }
    }

    /// No request was lost, and there were some.
    async fn ends(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.expect("every request was answered");
        }
        assert!(self.asked.load(Ordering::Relaxed) > 20);
    }
}

/// The process that a log says wants to take over.
fn successor(log: &str) -> u32 {
    let (_, rest) = log.rsplit_once(" wants to take over").map_or(("", ""), |(a, b)| (b, a));
    rest.rsplit(' ').next().and_then(|pid| pid.parse().ok()).expect("a process")
}

#[tokio::test(flavor = "multi_thread")]
async fn two_upgrades_run_through_a_download_and_lose_no_request() {
    let late = incremental(1000, 1100);
    let archives = [(&*full(1000), CONTENT), (&*late, CONTENT)];
    let origin = Origin::run(Program::Sidecar, &archives).await;
    let mut first = Running::start(&config(&origin, "")).await;
    first.offers("/incremental-snapshot.tar.bz2").await;
    let load = Load::on(first.address);
    // A download whose source waits in the middle, through all of it.
    origin.fail_one(&late, Fault::Hold(CONTENT.len / 2));
    let ask = Ask::get(format!("/{late}")).from(9);
    let (head, mut stream) = ask.begin(first.address).await;
    assert_eq!(head.status, 200);
    let second = Next::of(first.file());
    second.takes_over().await;
    eventually("it is said", || async { first.log().contains("another process has taken over") })
        .await;
    assert_eq!(first.ended(), None, "it has a download: {}", first.log());
    // And once more, by the process itself.
    let file = first.file().to_str().expect("text").to_owned();
    let upgraded = tokio::task::spawn_blocking(move || {
        Command::new(PROGRAM).args(["upgrade", "-c", &file]).output().expect("it runs")
    });
    let upgraded = upgraded.await.expect("no panic");
    assert!(upgraded.status.success(), "{}", String::from_utf8_lossy(&upgraded.stderr));
    let third = successor(&second.log());
    eventually("the second one ends", || async {
        second.log().contains("nothing is under way any more")
    })
    .await;
    assert_eq!(first.ended(), None, "it still has a download: {}", first.log());
    origin.fail_one(&late, None);
    let mut body = head.body.clone();
    stream.read_to_end(&mut body).await.expect("readable");
    assert!(body.len() as u64 == CONTENT.len && CONTENT.matches(0, &body), "byte by byte");
    eventually("the first one ends with it", || {
        let ended = first.ended();
        async move { ended.is_some_and(|code| code.success()) }
    })
    .await;
    load.ends().await;
    // Of its own group, and nobody's child here.
    let done = Command::new("kill").args(["-TERM", &third.to_string()]).status();
    assert!(done.expect("kill runs").success(), "the third one serves");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_does_not_start_leaves_the_other_as_it_was() {
    let origin = Origin::run(Program::Sidecar, &[(&full(1000), CONTENT)]).await;
    let running = Running::start(&config(&origin, "")).await;
    running.offers("/snapshot.tar.bz2").await;
    let load = Load::on(running.address);
    let good = fs::read_to_string(running.file()).expect("a file");
    let occupied = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = occupied.local_addr().expect("bound");
    for (bad, part) in [
        ("nonsense".to_owned(), "errors in the configuration"),
        (
            good.replacen("internal_listen: '", &format!("internal_listen: '{taken}' #"), 1),
            "cannot listen on",
        ),
        (format!("proxy_snapshot_cache_dir: /proc/x\n{good}"), "cannot use the cache directory"),
    ] {
        running.write(&bad);
        let mut next = Next::of(running.file());
        eventually("it ends", || {
            let ended = next.child.try_wait().expect("a child");
            async move { ended.is_some_and(|code| !code.success()) }
        })
        .await;
        assert!(next.log().contains(part), "{part}: {}", next.log());
    }
    drop(occupied);
    running.write(&good);
    // One that is killed before it is ready.
    let next = Next::of(running.file());
    eventually("it asks", || async { running.log().contains("wants to take over") }).await;
    next.signal("-KILL");
    drop(next);
    assert!(!running.log().contains("another process has taken over"));
    let next = Next::of(running.file());
    next.takes_over().await;
    load.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_be_taken_over_from_who_does_not_run() {
    let origin = Origin::run(Program::Sidecar, &[]).await;
    let address = crate::support::process::free();
    let text = format!("listen: ['{address}']\n{}", config(&origin, ""));
    let file = crate::support::process::File::new(&text);
    let path = file.path.to_str().expect("text");
    for arguments in [&["-c", path, "-u"][..], &["upgrade", "-c", path]] {
        let output = Command::new(PROGRAM).args(arguments).output().expect("it runs");
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(&address.to_string()), "{said}");
    }
}

/// Both have the directory for a while: what is in it serves both, and one of them fetches.
#[tokio::test(flavor = "multi_thread")]
async fn the_cache_goes_over_with_what_is_in_it_and_what_comes_into_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let (old, new) = (full(1000), full(2000));
    let origin = Origin::run(Program::Sidecar, &[(&old, CONTENT)]).await;
    let keeps =
        cached(directory.path()).replace("prefetch: all", "prefetch: all, keep_previous: true");
    let mut first = Running::start(&config(&origin, &keeps)).await;
    let get = |name: &str| Ask::get(format!("/{name}"));
    let to = first.address;
    let how = |name: String| async move {
        let answer = Ask::head(format!("/{name}")).send(to).await;
        answer.header("cache-status").unwrap_or_default().to_owned()
    };
    eventually("the old one is cached", || async { how(old.clone()).await == "snapedge; hit" })
        .await;
    origin.add(&new, CONTENT);
    origin.fail_one(&new, Fault::Hold(CONTENT.len / 2));
    let part = directory.path().join(format!("{new}.snapedge-part"));
    eventually("the new one is fetched", || async { part.exists() }).await;
    // Somebody reads it, so that it goes on.
    let (head, mut stream) = get(&new).from(9).begin(to).await;
    assert_eq!(head.status, 200);
    let second = Next::of(first.file());
    second.takes_over().await;
    assert_eq!(how(old.clone()).await, "snapedge; hit", "at once: {}", second.log());
    assert!(part.exists(), "nobody swept it: {}", second.log());
    eventually("the other one is known, and not there yet", || async {
        how(new.clone()).await.starts_with("snapedge; fwd=")
    })
    .await;
    origin.fail_one(&new, None);
    let mut body = head.body.clone();
    stream.read_to_end(&mut body).await.expect("readable");
    assert!(body.len() as u64 == CONTENT.len && CONTENT.matches(0, &body));
    eventually("the first one ends", || {
        let ended = first.ended();
        async move { ended.is_some_and(|code| code.success()) }
    })
    .await;
    eventually("what it fetched is a hit", || async { how(new.clone()).await == "snapedge; hit" })
        .await;
    eventually("the directory is the second one's", || async {
        second.log().contains("the directory is this process's own")
    })
    .await;
    // Of one archive there was one fetch of all of it, and the parts that went past.
    assert!(origin.sent() < 3 * CONTENT.len, "{} bytes", origin.sent());
}
