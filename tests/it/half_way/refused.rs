//! Whoever has a part of a copy that is out of reach is told so, until that is back, or begun anew,
//! or was long ago.

use std::time::Duration;

use super::super::support::client::{Answer, Ask};
use super::super::support::edge::Edge;
use super::super::support::origin::{Origin, Program};
use super::super::support::{eventually, full};
use super::{HALF, LENGTH, Mode, Scene, content, part_over_h2, whose};

#[track_caller]
fn assert_refused(answer: &Answer, what: &str) {
    assert_eq!(answer.status, 503, "{what}: {}", answer.head);
    assert_eq!(answer.header("retry-after"), Some("30"), "{what}");
    let body = String::from_utf8_lossy(&answer.body);
    assert!(body.contains("begin anew at the first byte"), "{what}: {body}");
}

/// As curl and wget go on, as aria2 does, and as nginx with `slice` asks.
fn rests() -> [String; 4] {
    let next = HALF + 50_000;
    [format!("{HALF}-"), format!("{HALF}-{}", next - 1), format!("{next}-"), "-1000".to_owned()]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_a_copy_that_is_out_of_reach_is_refused() {
    for mode in [Mode::Uncached, Mode::Exclusive] {
        let scene = Scene::new(mode, "10m").await;
        let own = scene.break_off(1).await;
        for range in rests() {
            assert_refused(&scene.part(1, &range).await, &format!("{mode:?} {range}"));
        }
        // The other copy may be in the cache by now.
        let other = scene.edge.ask(scene.get(100)).await;
        assert_eq!(whose(&other.body, 0), 1 - own, "{mode:?}");
        scene.forget(own).await;
        for range in rests() {
            assert_refused(&scene.part(1, &range).await, &format!("{mode:?} {range}, forgotten"));
        }
        // Nobody else is held to it.
        let part = scene.part(2, &rests()[0]).await;
        assert_eq!((part.status, whose(&part.body, HALF)), (206, 1 - own), "{mode:?}");
        // It is back.
        scene.nodes[own].add(&scene.name, content(own));
        scene.nodes[own].restart().await;
        eventually("it goes on", || async { scene.part(1, &rests()[0]).await.status == 206 }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_begins_anew_is_served_at_once() {
    for mode in [Mode::Uncached, Mode::Exclusive] {
        for range in [None, Some("0-"), Some("0-99999")] {
            let scene = Scene::new(mode, "10m").await;
            let own = scene.break_off(1).await;
            let ask = scene.get(1);
            let ask = match range {
                Some(range) => ask.with("range", format!("bytes={range}")),
                None => ask,
            };
            let anew = scene.edge.ask(ask).await;
            assert!(matches!(anew.status, 200 | 206), "{mode:?} {range:?}: {}", anew.head);
            let (has, of) = (anew.body.len() as u64, whose(&anew.body, 0));
            assert_ne!(of, own, "{mode:?}");
            if has < LENGTH {
                let rest = scene.part(1, &format!("{has}-")).await;
                assert_eq!((rest.status, whose(&rest.body, has)), (206, of), "{mode:?} {range:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_forgotten_after_its_time() {
    for mode in [Mode::Uncached, Mode::Exclusive] {
        let scene = Scene::new(mode, "2s").await;
        let own = scene.break_off(1).await;
        assert_refused(&scene.part(1, &rests()[0]).await, "at once");
        eventually("it is forgotten", || async {
            let rest = scene.part(1, &rests()[0]).await;
            rest.status == 206 && whose(&rest.body, HALF) == 1 - own
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_a_cached_copy_comes_from_the_cache_whoever_is_dead() {
    for mode in [Mode::Exclusive, Mode::Shared] {
        let scene = Scene::with(mode, "10m", "").await;
        let whole = scene.edge.ask(scene.get(100)).await;
        let own = whose(&whole.body, 0);
        eventually("it is cached", || async {
            let head = scene.edge.ask(Ask::head(format!("/{}", scene.name)).from(101)).await;
            head.header("cache-status") == Some("snapedge; hit")
        })
        .await;
        let half = scene.edge.ask(scene.get(1).leave_after(1000)).await;
        assert_eq!(whose(&half.body, 0), own);
        scene.nodes[own].stop().await;
        scene.forget(own).await;
        let rest = scene.part(1, "1000-").await;
        assert_eq!((rest.status, whose(&rest.body, 1000)), (206, own), "{mode:?}");
    }
}

/// Archives that are not the best any more are carried past the cache, or kept there.
#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_an_older_archive_is_refused_as_well() {
    for mode in Mode::ALL {
        let scene = Scene::new(mode, "10m").await;
        for node in &scene.nodes {
            node.add(&full(2000), content(0));
        }
        let newer = full(2000).parse().expect("valid");
        scene.edge.sees("the newer one", |view| view.sources(&newer).len() == 2).await;
        let own = scene.break_off(1).await;
        assert_refused(&scene.part(1, &rests()[0]).await, &format!("{mode:?}"));
        let anew = scene.edge.ask(scene.get(1)).await;
        assert_eq!((anew.status, whose(&anew.body, 0)), (200, 1 - own), "{mode:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_a_copy_that_is_out_of_reach_is_refused_over_http_2() {
    let scene = Scene::with(Mode::Uncached, "2s", "server: {h2c: true}").await;
    let (_, start) = part_over_h2(&scene, "0-149999").await;
    let own = whose(&start, 0);
    scene.nodes[own].stop().await;
    assert_eq!(part_over_h2(&scene, &rests()[0]).await.0, 503);
    let (status, anew) = part_over_h2(&scene, "0-149999").await;
    assert_eq!((status, whose(&anew, 0)), (206, 1 - own));
    let (status, rest) = part_over_h2(&scene, &rests()[0]).await;
    assert_eq!((status, whose(&rest, HALF)), (206, 1 - own));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_a_file_that_is_gone_is_refused() {
    let (name, shelf) = (full(1000), tempfile::tempdir().expect("a directory"));
    let file = shelf.path().join(&name);
    let framed = |seed| super::Content::framed(seed, LENGTH);
    std::fs::write(shelf.path().join("tmp-x"), framed(1).all()).expect("written");
    std::fs::rename(shelf.path().join("tmp-x"), &file).expect("renamed");
    let node = Origin::run(Program::Sidecar, &[(&name, framed(2))]).await;
    let text = format!(
        "listen: ['127.0.0.1:0']\nscrape_interval: 100ms\nlimits: {{resume_memory: 3s}}\n\
         target_groups:\n  - {{group: a, static_targets: {{targets: ['{}']}}, \
         ledger_targets: {{paths: ['{}']}}}}\n",
        node.address(),
        shelf.path().display()
    );
    let edge = Edge::start(&text);
    let parsed = name.parse().expect("valid");
    edge.sees("both", |view| view.sources(&parsed).len() == 2).await;
    let get = |client, range: &str| {
        Ask::get(format!("/{name}")).from(client).with("range", format!("bytes={range}"))
    };
    let half = edge.ask(get(1, "0-149999")).await;
    assert!(framed(1).matches(0, &half.body), "the directory comes first");
    let all = edge.ask(Ask::get(format!("/{name}")).from(2)).await;
    assert!(framed(1).all() == all.body);
    std::fs::remove_file(&file).expect("removed");
    let rest = get(1, "150000-");
    assert_refused(&edge.ask(rest.clone()).await, "a file");
    let other = edge.ask(get(2, "150000-")).await;
    assert_eq!(other.status, 206, "{}", other.head);
    assert!(framed(2).bytes(150_000, LENGTH) == other.body, "who has all of the file");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let rest = edge.ask(rest).await;
    assert_eq!(rest.status, 206, "{}", rest.head);
}
