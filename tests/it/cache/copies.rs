//! Two origins with the same name and different bytes: with a cache in between, too, nobody ever
//! gets a mixture.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Barrier;

use super::super::support::body::Content;
use super::super::support::client::{Answer, Ask, Ended};
use super::super::support::origin::{Origin, Program};
use super::super::support::{eventually, full};
use super::{CachedEdge, status};

const LENGTH: u64 = 300_000;
const ROUNDS: u64 = 10;
const CLIENTS: u8 = 20;

/// How a client begins, and when it asks for the rest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// It asks for all, leaves, and is back at once: before the archive is being fetched whole, or
    /// while it is.
    AtOnce,
    /// It asks for all, leaves, and is back when the archive is in the cache.
    Promoted,
    /// It asks for a part before anybody asks for all, and for the rest when that is in the cache.
    InParts,
}

impl Manner {
    fn of(client: u8) -> Self {
        match client % 4 {
            0 | 2 => Self::AtOnce,
            1 => Self::Promoted,
            _ => Self::InParts,
        }
    }
}

/// One archive on two origins, and the edge before them.
struct Scene {
    cached: CachedEdge,
    origins: [Origin; 2],
}

impl Scene {
    async fn new() -> Self {
        let name = full(1);
        let origins = [
            Origin::run(Program::Sidecar, &[(&name, Content::new(1, LENGTH))]).await,
            Origin::run(Program::Sidecar, &[(&name, Content::new(2, LENGTH))]).await,
        ];
        let cached = CachedEdge::before(&[&origins[0], &origins[1]]).await;
        Self { cached, origins }
    }

    /// Puts a new best archive on both origins.
    async fn next(&self, round: u64) -> (String, [Content; 2]) {
        let name = full(1000 + round);
        let contents = [10, 11].map(|seed| Content::new(round * 100 + seed, LENGTH));
        for (origin, content) in self.origins.iter().zip(contents) {
            origin.add(&name, content);
        }
        for origin in &self.origins {
            self.cached.edge.knows(origin).await;
        }
        (name, contents)
    }

    /// A download that breaks after `at` bytes and goes on without a word about its copy. The
    /// answer is the one that it went on with; the file is both.
    async fn broken(&self, client: u8, name: &str, at: u64, start: &Barrier) -> (Answer, Vec<u8>) {
        let manner = Manner::of(client);
        let first = match manner {
            Manner::InParts => get(client, name).with("range", format!("bytes=0-{}", at - 1)),
            Manner::AtOnce | Manner::Promoted => {
                start.wait().await;
                get(client, name).leave_after(at as usize)
            }
        };
        let mut file = self.cached.edge.ask(first).await.body;
        file.truncate(at as usize);
        if manner == Manner::InParts {
            start.wait().await;
        }
        if manner != Manner::AtOnce {
            self.cached.holds(name).await;
        }
        let rest = get(client, name).with("range", format!("bytes={at}-"));
        let rest = self.cached.edge.ask(rest).await;
        file.extend(&rest.body);
        (rest, file)
    }
}

fn get(client: u8, name: &str) -> Ask {
    Ask::get(format!("/{name}")).from(client)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_broken_and_resumed_downloads_are_all_of_one_copy_with_a_cache() {
    let scene = Arc::new(Scene::new().await);
    // How the resumed parts were served.
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for round in 0..ROUNDS {
        let (name, contents) = scene.next(round).await;
        for origin in &scene.origins {
            // So slow that there is a while of "during".
            origin.slow_down(Duration::from_millis(20));
        }
        let start = Arc::new(Barrier::new(usize::from(CLIENTS) + 1));
        let clients: Vec<_> = (1..=CLIENTS)
            .map(|client| {
                let at = (round * 20 + u64::from(client)) * 1499 % (LENGTH - 2) + 1;
                let (scene, name, start) = (Arc::clone(&scene), name.clone(), Arc::clone(&start));
                tokio::spawn(async move { (client, scene.broken(client, &name, at, &start).await) })
            })
            .collect();
        start.wait().await;
        // Somebody has to stay to the end, or nothing is ever promoted.
        eventually("a whole download is promoted", || async {
            status(&scene.cached.edge.ask(get(100, &name)).await) == "snapedge; hit"
        })
        .await;
        for client in clients {
            let (client, (rest, file)) = client.await.expect("no panic");
            assert_eq!((rest.status, rest.ended), (206, Ended::Whole), "{client} {}", rest.head);
            let whole = contents.iter().any(|content| content.all() == file);
            assert!(whole, "a mixture for client {client}: {}", rest.head);
            *seen.entry(status(&rest).to_owned()).or_default() += 1;
        }
        scene.origins.iter().for_each(|origin| origin.slow_down(Duration::ZERO));
    }
    assert_eq!(seen.values().sum::<usize>(), 200);
    // Before and during the promotion, after it, and after it on the other copy.
    for way in ["fwd=bypass; detail=filling", "hit", "fwd=bypass; detail=other-copy"] {
        assert!(seen.contains_key(&format!("snapedge; {way}")), "{way} was not met: {seen:?}");
    }
    println!("{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resume_that_names_its_copy_is_served_from_wherever_that_is() {
    let scene = Scene::new().await;
    let (name, contents) = scene.next(0).await;
    let cut = |client| get(client, &name).with("range", "bytes=0-999");
    let (mut tags, mut clients) = (BTreeMap::new(), BTreeMap::new());
    for client in 1..=40 {
        let part = scene.cached.edge.ask(cut(client)).await;
        let own = contents.iter().position(|content| content.matches(0, &part.body));
        let own = own.expect("one origin's bytes");
        tags.insert(own, part.header("etag").expect("a tag").to_owned());
        clients.entry(own).or_insert_with(Vec::new).push(client);
    }
    assert_eq!(tags.len(), 2, "both origins were used");
    let filler = scene.cached.edge.ask(get(100, &name)).await;
    scene.cached.holds(&name).await;
    let cached = contents.iter().position(|content| content.all() == filler.body).expect("one");
    for (own, tag) in &tags {
        let way = if *own == cached { "hit" } else { "fwd=bypass; detail=other-copy" };
        // Whoever asks: the tag tells.
        for client in [clients[own][0], 200] {
            let rest = get(client, &name).with("range", "bytes=1000-");
            let rest = scene.cached.edge.ask(rest.with("if-range", tag)).await;
            assert_eq!((rest.status, status(&rest)), (206, &*format!("snapedge; {way}")));
            assert!(contents[*own].bytes(1000, LENGTH) == rest.body);
        }
        // Without a tag, the address tells, of one that does not have all of it yet.
        let blind = get(clients[own][2], &name).with("range", "bytes=1000-");
        let blind = scene.cached.edge.ask(blind).await;
        assert_eq!((blind.status, status(&blind)), (206, &*format!("snapedge; {way}")));
        assert!(contents[*own].bytes(1000, LENGTH) == blind.body);
    }
    // The other copy is gone: who has bytes of it is told, or given all of the cached one.
    let other = 1 - cached;
    scene.origins[other].stop().await;
    let rest = get(clients[&other][3], &name).with("range", "bytes=1000-");
    let refused = scene.cached.edge.ask(rest.clone()).await;
    assert_eq!(refused.status, 503, "not the cached copy's bytes: {}", refused.head);
    scene.origins[other].remove(&name);
    eventually("the other copy is forgotten", || async {
        scene.cached.edge.view().sources(&name.parse().expect("valid")).len() == 1
    })
    .await;
    let rest = scene.cached.edge.ask(rest.with("if-range", &tags[&other])).await;
    assert_eq!((rest.status, status(&rest)), (200, "snapedge; hit"));
    assert!(contents[cached].all() == rest.body);
    // With nobody but the cache left, it is still not the copy that the client began.
    scene.origins[cached].remove(&name);
    eventually("only the cache has it", || async {
        scene.cached.edge.view().sources(&name.parse().expect("valid")).is_empty()
    })
    .await;
    let blind = get(clients[&other][1], &name).with("range", "bytes=1000-");
    assert_eq!(scene.cached.edge.ask(blind).await.status, 503);
    let anew = scene.cached.edge.ask(get(clients[&other][1], &name)).await;
    assert_eq!((anew.status, status(&anew)), (200, "snapedge; hit"));
}
