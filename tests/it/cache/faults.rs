//! Rule 7, and what else can go wrong while an archive is fetched: whatever it is, the client gets
//! what there is, nothing is left behind, and the next one fills.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use super::super::support::body::Content;
use super::super::support::client::connect;
use super::super::support::origin::{Fault, Origin, Program};
use super::super::support::process::Running;
use super::super::support::{eventually, full, incremental};
use super::{
    CachedEdge, HIT, STORED, assert_on_disk, assert_whole, beside, bypass, files, get, head, pair,
    process, status,
};

/// Two blocks of what is written at once, and a part of a third one.
const LENGTH: u64 = 2_500_000;
const CONTENT: Content = Content::new(1, LENGTH);

/// What the client does.
#[derive(Clone, Copy, Debug)]
enum Client {
    Stays,
    /// Before the origin answers.
    LeavesEarly,
    /// When the origin has answered and the cache is being filled, and there is nothing yet that
    /// the edge would send.
    LeavesAtTheHead,
    /// With so many bytes of the body.
    LeavesAfter(u64),
}

/// What becomes of the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// With nothing.
    Nothing,
    /// In the cache.
    Cached,
    /// In the cache if all of it arrived, and otherwise with nothing.
    AsItArrived,
}

/// Breaks one fill. The client gets nothing but a start of the archive, or an error; no file is
/// left but a whole archive; the next client gets all, and then it is in the cache.
async fn check(fault: Fault, client: Client, ends: Ends) {
    let what = format!("{fault:?}, {client:?}");
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, CONTENT)]).await;
    let cached = CachedEdge::before(&[&origin]).await;
    origin.fail(fault.clone());
    let whole = download(&cached, &origin, &name, client, &what).await;
    let found = if ends == Ends::Cached {
        cached.holds(&name).await;
        cached.files()
    } else {
        cached.is_idle().await;
        cached.files()
    };
    if ends == Ends::Nothing || !whole {
        assert_eq!(found, [""; 0], "{what}");
    } else if !found.is_empty() {
        assert_eq!(found, pair(&name), "{what}");
        assert_on_disk(cached.directory.path(), &name, CONTENT);
    }
    assert!(ends != Ends::Cached || whole, "the client got all: {what}");

    origin.fail(None);
    if fault == Fault::Status(404) {
        // What a target says that it does not have is not asked for until the next probe.
        eventually("it is offered again", || async {
            status(&cached.edge.ask(get(&name)).await) == HIT
        })
        .await;
    }
    assert_whole(&cached.edge.ask(get(&name)).await, CONTENT);
    cached.refill(&name, CONTENT).await;
    assert_eq!(cached.files(), pair(&name), "{what}");
    assert_on_disk(cached.directory.path(), &name, CONTENT);
}

/// Downloads, and says whether all of it came.
async fn download(
    cached: &CachedEdge,
    origin: &Origin,
    name: &str,
    client: Client,
    what: &str,
) -> bool {
    let ask = match client {
        Client::Stays => get(name),
        Client::LeavesAfter(bytes) => get(name).leave_after(bytes as usize),
        Client::LeavesEarly | Client::LeavesAtTheHead => {
            let mut stream = connect([127, 0, 0, 1].into(), cached.edge.address).await;
            let request = format!("GET /{name} HTTP/1.1\r\nhost: x\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("a request");
            eventually("the time to leave", || async {
                let begun = cached.files() == [beside(name, "-part")];
                origin.asked("GET", name) > 0 && (begun || matches!(client, Client::LeavesEarly))
            })
            .await;
            return false;
        }
    };
    let answer = cached.edge.ask(ask).await;
    if answer.status == 200 {
        assert_eq!((answer.length(), status(&answer)), (LENGTH, STORED), "{what}");
        assert!(CONTENT.all().starts_with(&answer.body), "{what}");
    } else {
        assert!((404..505).contains(&answer.status), "{}: {what}", answer.status);
        assert!(answer.body.len() < 200, "{what}");
    }
    answer.status == 200 && answer.body.len() as u64 == LENGTH
}

async fn check_all(cases: Vec<(Fault, Client, Ends)>) {
    let mut running = JoinSet::new();
    for (fault, client, ends) in cases {
        // A few at once, so that nobody is slow because of the others.
        if running.len() == 6 {
            running.join_next().await.expect("a case").expect("no panic");
        }
        running.spawn(check(fault, client, ends));
    }
    while let Some(case) = running.join_next().await {
        case.expect("no panic");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_7_a_source_that_breaks_off_leaves_nothing_behind() {
    let mut cases = vec![(Fault::CloseBeforeHead, Client::Stays, Ends::Nothing)];
    cases.push((Fault::StallBeforeHead, Client::Stays, Ends::Nothing));
    // After the head, in the first block, at its end, in the middle, and before the last byte.
    for at in [0, 1, 1000, 1 << 20, LENGTH / 2, LENGTH - 1] {
        for fault in [Fault::CloseAfter(at), Fault::ResetAfter(at), Fault::StallAfter(at)] {
            cases.push((fault, Client::Stays, Ends::Nothing));
        }
    }
    check_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_7_a_client_that_leaves_leaves_nothing_behind() {
    let mut cases = vec![
        (Fault::StallBeforeHead, Client::LeavesEarly, Ends::Nothing),
        (Fault::StallAfter(0), Client::LeavesAtTheHead, Ends::Nothing),
        (Fault::StallAfter(1), Client::LeavesAtTheHead, Ends::Nothing),
    ];
    // In the first block, at its end, in the middle, and before the last byte.
    for at in [1 << 16, 1 << 20, LENGTH / 2, LENGTH - 1] {
        cases.push((Fault::StallAfter(at), Client::LeavesAfter(at), Ends::Nothing));
    }
    // Of a source that sends on, too.
    for at in [1 << 16, 1 << 20, LENGTH / 2, LENGTH - 10_000] {
        cases.push((Fault::Hold(at), Client::LeavesAfter(at), Ends::Nothing));
    }
    check_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_7_what_is_no_whole_200_is_not_kept() {
    let elsewhere = || Fault::Redirect("http://127.0.0.1:1/elsewhere".to_owned());
    let faults = [
        Fault::Status(500),
        Fault::Status(503),
        Fault::Status(404),
        Fault::Status(403),
        Fault::Status(202),
        Fault::Status(206),
        Fault::Longer(1),
        Fault::Empty,
        Fault::Html,
        Fault::HtmlOfRightLength,
        Fault::Chunked,
        Fault::CloseDelimited,
        Fault::Encoded,
        elsewhere(),
    ];
    check_all(faults.map(|fault| (fault, Client::Stays, Ends::Nothing)).into()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_7_after_the_last_byte_nothing_can_break_it_any_more() {
    let leaves = Client::LeavesAfter(LENGTH);
    check_all(vec![
        (Fault::CloseAfter(LENGTH), Client::Stays, Ends::Cached),
        (Fault::StallAfter(LENGTH), Client::Stays, Ends::Cached),
        (Fault::StallAfter(LENGTH), leaves, Ends::Cached),
        (Fault::CloseAfter(LENGTH), leaves, Ends::Cached),
        // More than was announced is not of the archive.
        (Fault::Excess(1), Client::Stays, Ends::Cached),
        (Fault::Excess(100_000), leaves, Ends::Cached),
        // A reset takes with it what is still under way.
        (Fault::ResetAfter(LENGTH), Client::Stays, Ends::AsItArrived),
        (Fault::ResetAfter(LENGTH), leaves, Ends::AsItArrived),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_7_a_source_that_fails_is_replaced_within_the_refresh() {
    for fault in [Fault::CloseBeforeHead, Fault::Status(500), Fault::Html, Fault::StallBeforeHead] {
        let name = full(1000);
        let other = Content::new(2, LENGTH);
        let a = Origin::run(Program::Sidecar, &[(&name, CONTENT)]).await;
        let b = Origin::run(Program::Sidecar, &[(&name, other)]).await;
        let cached = CachedEdge::before(&[&a, &b]).await;
        let client = client_of(&cached, &name).await;
        a.fail(fault.clone());
        let before = a.asked("GET", &name);
        let answer = cached.edge.ask(get(&name).from(client)).await;
        assert_whole(&answer, other);
        assert_eq!(status(&answer), STORED, "{fault:?}");
        assert_eq!(a.asked("GET", &name), before + 1, "{fault:?} was met");
        cached.holds(&name).await;
        assert_eq!(cached.files(), pair(&name), "{fault:?}");
        assert_on_disk(cached.directory.path(), &name, other);
    }
}

/// The number of a client that is sent to the origin with [`CONTENT`].
async fn client_of(cached: &CachedEdge, name: &str) -> u8 {
    for client in 1..=100 {
        let part = cached.edge.ask(get(name).from(client).with("range", "bytes=0-99")).await;
        if CONTENT.matches(0, &part.body) {
            return client;
        }
    }
    panic!("no client of a hundred is sent to the first origin");
}

/// The next of a fixed sequence of pseudo-random numbers.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_7_no_claim_is_lost_by_two_hundred_clients_that_vanish() {
    const AT_ONCE: u8 = 8;
    const EACH: u32 = 25;
    let name = full(1000);
    let origin = Origin::run(Program::Sidecar, &[(&name, CONTENT)]).await;
    let cached = CachedEdge::before(&[&origin]).await;
    // Nobody gets all of it, so that there is always something to fill.
    origin.fail(Fault::Hold(LENGTH - 10_000));
    let mut clients = JoinSet::new();
    for client in 1..=AT_ONCE {
        let (address, name) = (cached.edge.address, name.clone());
        clients.spawn(async move {
            let (mut state, mut filled) = (u64::from(client), 0_u32);
            for _ in 0..EACH {
                let at = random(&mut state) % LENGTH;
                let mut stream = connect([127, 0, 1, client].into(), address).await;
                let request = format!("GET /{name} HTTP/1.1\r\nhost: x\r\n\r\n");
                // A part of a request, a whole one without a look at its answer, or some of that.
                match at % 5 {
                    0 => stream.write_all(&request.as_bytes()[..at as usize % 50]).await.unwrap(),
                    1 => stream.write_all(request.as_bytes()).await.unwrap(),
                    _ => {
                        let ask = get(&name).from(client).leave_after(at as usize % 2_000_000);
                        let answer = ask.send(address).await;
                        assert!(CONTENT.matches(0, &answer.body), "{}", answer.head);
                        filled += u32::from(status(&answer) == STORED);
                    }
                }
            }
            filled
        });
    }
    let mut filled = 0;
    while let Some(done) = clients.join_next().await {
        filled += done.expect("no panic");
    }
    assert!(filled > 0, "none of them was filling");
    cached.is_idle().await;
    assert_eq!(cached.files(), [""; 0]);
    origin.fail(None);
    cached.refill(&name, CONTENT).await;
    assert_eq!(cached.files(), pair(&name));
    assert_on_disk(cached.directory.path(), &name, CONTENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_7_a_write_that_fails_stops_the_refresh_and_not_the_client() {
    let (large, small) = (full(1000), incremental(1000, 1500));
    // So much that the queue before the disk is full long before the end.
    let (more, less) = (Content::new(1, 50_000_000), Content::new(2, 3_000_000));
    let origin = Origin::run(Program::Agave, &[(&large, more), (&small, less)]).await;
    // Where the build is, since a file system in memory refuses such a file before it is begun.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let path = directory.path();
    // Files of 4 MiB at most: beyond that, a write fails.
    let limited = ["bash", "-c", "trap '' XFSZ; ulimit -f 4096; exec \"$@\"", "bash"];
    let running = Running::under(&limited, &process(path, "0B", &origin)).await;
    let known = || async { head(&small).send(running.address).await.status == 200 };
    eventually("the archives are known", known).await;
    for refresh in 1..=2 {
        let answer = get(&large).send(running.address).await;
        assert_whole(&answer, more);
        assert_eq!(status(&answer), STORED, "as it seemed");
        eventually("nothing is left", || async { files(path).is_empty() }).await;
        let abandoned = format!("refresh of {large} abandoned after ");
        eventually("the log says so", || async {
            running.log().matches(&abandoned).count() == refresh
        })
        .await;
    }
    assert!(running.log().contains("the disk fails: File too large"), "{}", running.log());
    assert_whole(&get(&small).send(running.address).await, less);
    eventually("what fits is cached", || async { files(path) == pair(&small) }).await;
    assert_on_disk(path, &small, less);
    let log = running.kill();
    assert!(!log.contains(&format!("promoted {large}")), "{log}");
}

/// How a process gets a file system of its own on this machine, if it can.
fn private_mounts() -> Option<&'static [&'static str]> {
    let ways: [&[&str]; 2] = [&["unshare", "-m"], &["unshare", "-rm"]];
    let directory = tempfile::tempdir().expect("a directory");
    ways.into_iter().find(|way| {
        let mount = Command::new(way[0])
            .args(&way[1..])
            .args(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs"])
            .arg(directory.path())
            .output();
        mount.is_ok_and(|mount| mount.status.success())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_11_a_full_disk_stops_no_client() {
    let Some(way) = private_mounts() else {
        // Past the test harness, which would swallow it.
        let skipped = b"SKIPPED: a_full_disk_stops_no_client, this user may not mount a tmpfs\n";
        std::io::stderr().write_all(skipped).expect("a standard error");
        return;
    };
    let (large, small) = (full(1000), incremental(1000, 1500));
    let (more, less) = (Content::new(1, 12_000_000), Content::new(2, 3_000_000));
    let origin = Origin::run(Program::Agave, &[(&large, more), (&small, less)]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path().to_str().expect("a path");
    let script = "mount -t tmpfs -o size=8m tmpfs \"$1\" && shift && exec \"$@\"";
    let mounted = [way, &["bash", "-c", script, "bash", place]].concat();
    let running = Running::under(&mounted, &process(directory.path(), "0B", &origin)).await;
    // As the process sees it.
    let inside = format!("/proc/{}/root{place}", running.id());
    let inside = Path::new(&inside);
    let known = || async { head(&small).send(running.address).await.status == 200 };
    eventually("the archives are known", known).await;
    let stream = async |name: &str, content| {
        let answer = get(name).send(running.address).await;
        assert_whole(&answer, content);
        assert_eq!(status(&answer), bypass("no-space"));
    };
    stream(&large, more).await;
    assert_eq!(files(inside), [""; 0]);
    // Somebody else's file takes the room, and gives it back.
    let theirs = inside.join("theirs");
    std::fs::write(&theirs, vec![1; 6 << 20]).expect("room");
    stream(&small, less).await;
    assert_eq!(files(inside), ["theirs"]);
    std::fs::remove_file(&theirs).expect("removed");
    assert_whole(&get(&small).send(running.address).await, less);
    eventually("what fits is cached", || async { files(inside) == pair(&small) }).await;
    assert_on_disk(inside, &small, less);
    // With that in the way, too.
    stream(&large, more).await;
    assert_eq!(files(inside), pair(&small));
    let log = running.kill();
    assert_eq!(log.matches("refused: it needs ").count(), 3, "{log}");
    assert_eq!(files(directory.path()), [""; 0], "nothing beside the mount");
}
