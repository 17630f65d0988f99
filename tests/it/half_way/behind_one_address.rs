//! Many clients behind one address: each of them goes on with what it has, and none with what
//! another one has.

use super::super::support::client::Ended;
use super::super::support::origin::Fault;
use super::{HALF, LENGTH, Mode, Scene, content, whose};

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_half_way_gets_no_bytes_of_the_copy_that_another_one_began() {
    for mode in [Mode::Uncached, Mode::Exclusive] {
        let scene = Scene::new(mode, "10m").await;
        let own = scene.break_off(1).await;
        let rest = format!("{HALF}-");
        // Another one begins anew, and is half-way too when the first one goes on.
        scene.nodes[1 - own].fail(Fault::CloseAfter(HALF + 50_000));
        let other = scene.edge.ask(scene.get(1)).await;
        assert_eq!((other.body.len() as u64, whose(&other.body, 0)), (HALF + 50_000, 1 - own));
        scene.nodes[1 - own].fail(None);
        assert_eq!(scene.part(1, &rest).await.status, 503, "{mode:?}");
        let at = HALF + 50_000;
        let rest_of_other = scene.part(1, &format!("{at}-")).await;
        assert_eq!((rest_of_other.status, whose(&rest_of_other.body, at)), (206, 1 - own));
        // The other one has all of it, and the first one still has half of its own.
        assert_eq!(scene.part(1, &rest).await.status, 503, "{mode:?}");
        let third = scene.edge.ask(scene.get(1)).await;
        assert_eq!((third.status, whose(&third.body, 0)), (200, 1 - own), "{mode:?}");
        assert_eq!(scene.part(1, &rest).await.status, 503, "{mode:?}");
        scene.nodes[own].restart().await;
        super::eventually("the first one goes on", || async {
            let answer = scene.part(1, &rest).await;
            answer.status == 206 && whose(&answer.body, HALF) == own
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_behind_one_address_finish_and_the_twenty_first_is_served() {
    for mode in Mode::ALL {
        for dead in 0..2 {
            let scene = Scene::new(mode, "10m").await;
            let running: Vec<_> =
                (0..20).map(|_| tokio::spawn(scene.get(1).send(scene.edge.address))).collect();
            for answer in running {
                let answer = answer.await.expect("no panic");
                if answer.status == 200 {
                    assert_eq!(answer.body.len() as u64, LENGTH);
                    whose(&answer.body, 0);
                }
            }
            scene.nodes[dead].stop().await;
            // The end of an answer is noted a moment after the client has it.
            super::eventually(&format!("{mode:?} {dead}: it is served"), || async {
                let part = scene.part(1, "1000-1999").await;
                (part.status, part.ended) == (206, Ended::Whole)
            })
            .await;
        }
    }
}

/// As aria2 and snap-fetch do: parts side by side, of which some are there when the node dies.
#[tokio::test(flavor = "multi_thread")]
async fn parts_side_by_side_are_never_of_two_copies_when_their_node_dies() {
    for mode in [Mode::Uncached, Mode::Exclusive] {
        let scene = Scene::new(mode, "10m").await;
        let parts = |starts: &[u64]| {
            let asks = starts.iter().map(|start| {
                let range = format!("bytes={start}-{}", start + 49_999);
                (*start, tokio::spawn(scene.get(1).with("range", range).send(scene.edge.address)))
            });
            asks.collect::<Vec<_>>()
        };
        let mut owners = Vec::new();
        for (start, answer) in parts(&[50_000, 150_000, 250_000, 350_000]) {
            let answer = answer.await.expect("no panic");
            assert_eq!(answer.status, 206, "{mode:?} {start}: {}", answer.head);
            owners.push(whose(&answer.body, start));
        }
        let own = owners[0];
        assert!(owners.iter().all(|owner| *owner == own), "{mode:?} {owners:?}");
        scene.nodes[own].stop().await;
        // The missing ones, the first among them, and one that has to be asked again.
        for (start, answer) in parts(&[0, 100_000, 150_000, 200_000, 300_000]) {
            let answer = answer.await.expect("no panic");
            assert_eq!(answer.status, 503, "{mode:?} {start}: {}", answer.head);
        }
        // All of it is a new start.
        let anew = scene.edge.ask(scene.get(1)).await;
        assert_eq!(anew.status, 200, "{}", anew.head);
        assert!(anew.body == content(1 - own).all());
    }
}
