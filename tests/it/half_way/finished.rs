//! Whoever has all of a copy, or nothing of it, is served whatever there is.

use super::super::support::client::{Ask, Ended};
use super::{LENGTH, Mode, Scene, part_over_h2, whose};

/// A part of an archive whose other copy is gone.
async fn assert_served(scene: &Scene, client: u8, what: &str) {
    for range in ["1000-1999", "399000-", "-500"] {
        scene.edge.settles().await;
        let part = scene.part(client, range).await;
        assert_eq!((part.status, part.ended), (206, Ended::Whole), "{what} {range}: {}", part.head);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_all_of_a_copy_is_not_bound_to_it() {
    for mode in Mode::ALL {
        for client in [1, 2, 3, 4] {
            let scene = Scene::new(mode, "10m").await;
            let what = format!("{mode:?} {client}");
            let own = match client {
                // All at once.
                1 => whose(&scene.edge.ask(scene.get(client)).await.body, 0),
                // In two.
                2 => {
                    let start = scene.edge.ask(scene.get(client).leave_after(1000)).await;
                    let own = whose(&start.body[..1000], 0);
                    let rest = scene.part(client, "1000-").await;
                    assert_eq!((rest.status, whose(&rest.body, 1000)), (206, own), "{what}");
                    own
                }
                // In parts, in any order.
                _ => {
                    let mut owners = Vec::new();
                    for start in [200_000, 0, 100_000, 300_000] {
                        let part = scene.part(client, &format!("{start}-{}", start + 99_999)).await;
                        assert_eq!(part.status, 206, "{what}");
                        owners.push(whose(&part.body, start));
                    }
                    assert!(owners.iter().all(|own| *own == owners[0]), "{what} {owners:?}");
                    owners[0]
                }
            };
            scene.nodes[own].stop().await;
            assert_served(&scene, client, &what).await;
            scene.forget(own).await;
            assert_served(&scene, client, &what).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_told_of_a_copy_is_not_bound_to_it() {
    for mode in Mode::ALL {
        for client in 1..=6 {
            let scene = Scene::new(mode, "10m").await;
            let tag = |ask: Ask| async {
                scene.edge.ask(ask).await.header("etag").expect("a tag").to_owned()
            };
            let told = tag(Ask::head(format!("/{}", scene.name)).from(client)).await;
            // Somebody else has it fetched, maybe from the other node.
            let whole = scene.edge.ask(scene.get(100)).await;
            let got = whose(&whole.body, 0);
            let is_own = whole.header("etag") == Some(&*told);
            let own = if is_own { got } else { 1 - got };
            scene.nodes[own].stop().await;
            scene.edge.settles().await;
            let part = scene.part(client, "1000-1999").await;
            assert_eq!(part.status, 206, "{mode:?} {client} {is_own}: {}", part.head);
            let again = scene.part(client, "2000-").await;
            assert_eq!(whose(&again.body, 2000), whose(&part.body, 1000), "{mode:?} {client}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_all_of_a_copy_is_not_bound_to_it_over_http_2() {
    for mode in Mode::ALL {
        let scene = Scene::with(mode, "10m", "server: {h2c: true}").await;
        let (status, start) = part_over_h2(&scene, "0-199999").await;
        let own = whose(&start, 0);
        let (next, rest) = part_over_h2(&scene, "200000-").await;
        assert_eq!((status, next, whose(&rest, 200_000)), (206, 206, own), "{mode:?}");
        assert_eq!(start.len() + rest.len(), LENGTH as usize);
        scene.nodes[own].stop().await;
        let (status, part) = part_over_h2(&scene, "1000-1999").await;
        assert_eq!((status, part.len()), (206, 1000), "{mode:?}");
    }
}
