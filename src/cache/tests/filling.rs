//! One refresh after the other: who has the right to it, what it makes, and how it ends.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;

use super::{BLOCK, PATIENCE, Scene, announced, content, eventually, full, incremental, target};
use crate::cache::{Abandoned, Announced, Fill, Standing};
use crate::clock::Now;
use crate::index::{TargetId, Worth};

/// Ends of a refresh that are not an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Claim,
    Refused,
    Reservation,
    Untouched,
    Half,
    Blocks,
    Short,
    Long,
    NotBest,
    NotBestLate,
}

impl End {
    const ALL: [Self; 10] = [
        Self::Claim,
        Self::Refused,
        Self::Reservation,
        Self::Untouched,
        Self::Half,
        Self::Blocks,
        Self::Short,
        Self::Long,
        Self::NotBest,
        Self::NotBestLate,
    ];

    /// Goes to this end, with a look at the scene at every stage.
    async fn reach(self, scene: &Scene, look: impl Fn()) {
        let (name, length) = (full(1000), 2 * BLOCK + 1);
        let bytes = content(1, length);
        let claim = scene.store.claim(&name, &target("main")).expect("the right to fetch");
        look();
        match self {
            Self::Claim => return,
            Self::Refused => {
                let endless = Announced { length: u64::MAX, ..announced("main", 0) };
                return drop(claim.reserve(endless).expect_err("no disk is so large"));
            }
            _ => {}
        }
        let reservation = claim.reserve(announced("main", length)).expect("room");
        look();
        if self == Self::Reservation {
            return;
        }
        let mut fill = Fill::begin(reservation).expect("a thread");
        look();
        let written = match self {
            Self::Half => 1000,
            Self::Blocks => 2 * BLOCK,
            Self::Short => length - 1,
            Self::Long | Self::NotBestLate => length,
            _ => 0,
        };
        fill.write(bytes.slice(..written)).await.expect("it is still the best");
        look();
        match self {
            Self::Short => assert_eq!(fill.finish().await, Err(Abandoned::Length)),
            Self::Long => {
                let more = fill.write(Bytes::from_static(b"x")).await;
                assert_eq!(more, Err(Abandoned::Length));
            }
            Self::NotBest => {
                scene.worths.set_best([]);
                let _ = fill.write(bytes).await;
                let _ = fill.finish().await;
            }
            Self::NotBestLate => {
                scene.worths.set_best([]);
                let _ = fill.finish().await;
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_second_claim_is_refused_while_the_first_lives_and_possible_after_every_end() {
    let name = full(1000);
    for end in End::ALL {
        let scene = Scene::new([name]);
        let refused = || {
            let second = scene.store.claim(&name, &target("main"));
            assert!(second.is_none(), "{end:?}: a second one has the right");
            assert!(matches!(scene.store.standing(&name), Standing::Filling(_)), "{end:?}");
        };
        end.reach(&scene, refused).await;
        let second = eventually("a second claim", || scene.store.claim(&name, &target("main")));
        assert_eq!(scene.files(), [""; 0], "{end:?}");
        scene.worths.set_best([name]);
        drop(second);
        let bytes = content(2, 5);
        scene.cache(&name, &bytes).await;
        assert!(scene.store.claim(&name, &target("main")).is_none(), "{end:?}: what is whole");
        assert!(scene.store.remove(&name), "{end:?}");
        eventually("a claim after the removal", || scene.store.claim(&name, &target("main")));
    }
}

/// The name tells others whether they may begin, and the file is what they would meet.
#[tokio::test]
async fn the_name_is_free_only_after_the_file_is_gone() {
    let (name, bytes) = (full(1000), content(1, 2 * BLOCK));
    for round in 0..150 {
        // It ends before a block, when all is written, or when all is synced.
        let (asked, answers) = (AtomicUsize::new(0), 1 + round % 3);
        let scene = Scene::asking(Arc::new(move |_, _| {
            let is_best = asked.fetch_add(1, Ordering::SeqCst) < answers;
            if is_best { Worth::Best } else { Worth::Superseded }
        }));
        let mut fill = scene.begin(&name, bytes.len());
        if answers == 3 {
            std::fs::write(scene.path(&name, ""), b"not ours").expect("a file");
        }
        fill.write(bytes.clone()).await.expect("a queue with room");
        let _ = fill.finish().await;
        let deadline = Instant::now() + PATIENCE;
        while let Standing::Filling(_) = scene.store.standing(&name) {
            // Without a pause, which would give the file time to go.
            assert!(Instant::now() < deadline, "it goes on");
        }
        assert!(!scene.path(&name, ".snapedge-part").exists(), "round {round}");
        assert!(scene.store.names().is_empty(), "round {round}");
    }
}

#[tokio::test]
async fn what_ends_a_fill_first_is_the_reason() {
    let (name, scene) = (full(1000), Scene::new([full(1000)]));
    let fill = scene.begin(&name, 10);
    let reason = fill.reason();
    assert_eq!((reason.given(), fill.length()), (None, 10));
    reason.give(Abandoned::ClientLeft);
    drop(fill);
    scene.absent(&name);
    assert_eq!(reason.given(), Some(Abandoned::ClientLeft));

    let fill = scene.begin(&name, 10);
    let reason = fill.reason();
    assert_eq!(fill.finish().await, Err(Abandoned::Length));
    scene.absent(&name);
    assert_eq!(reason.given(), Some(Abandoned::Length));

    let reason = scene.begin(&name, 10).reason();
    scene.absent(&name);
    assert_eq!(reason.given(), Some(Abandoned::Ended));
}

#[tokio::test]
async fn who_asks_is_told_which_target_is_being_asked() {
    let (name, scene) = (full(1000), Scene::new([full(1000)]));
    let of = |authority: &str| TargetId { authority: authority.into(), ..target("main") };
    let filling = || match scene.store.standing(&name) {
        Standing::Filling(source) => source,
        standing => panic!("{standing:?}"),
    };
    let claim = scene.store.claim(&name, &of("a:1")).expect("the right to fetch");
    assert_eq!(filling(), of("a:1"));
    claim.asks(&of("b:1"));
    assert_eq!(filling(), of("b:1"));
    let copy = Announced { target: of("c:1"), ..announced("main", 3) };
    let reservation = claim.reserve(copy).expect("room");
    assert_eq!(filling(), of("c:1"));
    let fill = Fill::begin(reservation).expect("a thread");
    assert_eq!(filling(), of("c:1"));
    drop(fill);
    scene.absent(&name);
}

#[tokio::test]
async fn two_archives_are_fetched_at_once() {
    let names = [full(1000), incremental(1000, 1500)];
    let scene = Scene::new(names);
    let bytes = [content(1, 2 * BLOCK + 7), content(2, BLOCK + 9)];
    let mut fills = [0, 1].map(|at| scene.begin(&names[at], bytes[at].len()));
    for start in (0..bytes[0].len()).step_by(300_000) {
        for (fill, bytes) in fills.iter_mut().zip(&bytes) {
            let end = bytes.len().min(start + 300_000);
            fill.write(bytes.slice(start.min(end)..end)).await.expect("a disk that takes it");
        }
    }
    for fill in fills {
        fill.finish().await.expect("a disk that takes it");
    }
    for (name, bytes) in names.iter().zip(&bytes) {
        scene.whole(name);
        assert!(std::fs::read(scene.path(name, "")).expect("a file") == *bytes, "{name}");
    }
    assert_eq!(scene.store.names().len(), 2);
}

#[tokio::test]
async fn a_reservation_removes_what_is_stale_and_nothing_else() {
    let [old, kept, doubtful] = [full(1000), incremental(1000, 1500), full(1001)];
    let new = full(2000);
    let scene = Scene::new([old, kept, doubtful]);
    for name in [old, kept, doubtful] {
        scene.cache(&name, &content(1, 3)).await;
    }
    let held = scene.store.held();
    let of_main = |(name, worth)| (name, "main", worth);
    let best = [(kept, Worth::Best), (new, Worth::Best), (doubtful, Worth::Doubtful)].map(of_main);
    // What it is worth to a group that it did not come from does not count.
    scene.worths.set(best.into_iter().chain([(old, "other", Worth::Best)]));
    let claim = scene.store.claim(&new, &target("main")).expect("the right to fetch");
    assert_eq!(
        scene.store.names(),
        [old, doubtful, kept],
        "what is stale stays until there is a refresh"
    );
    let reservation = claim.reserve(announced("main", 3)).expect("room");
    assert_eq!(scene.store.names(), [kept]);
    assert_eq!(held.borrow().iter().map(|held| held.name).collect::<Vec<_>>(), [kept]);
    let expected = ["", ".snapedge"].map(|ending| format!("{kept}{ending}"));
    let expected = [&expected[..], &[format!("{new}.snapedge-part")]].concat();
    assert_eq!(scene.files(), expected);
    // A refresh that fails brings nothing back.
    drop(reservation);
    assert_eq!(scene.store.names(), [kept]);
}

#[tokio::test]
async fn an_archive_and_its_record_are_read_only_and_as_announced() {
    let (name, scene) = (full(1000), Scene::new([full(1000)]));
    let before = Now::read();
    let sealed = scene.cache(&name, &content(1, 12)).await;
    let record = sealed.record();
    let Announced { target, length, copy, modified, .. } = announced("main", 12);
    assert_eq!((record.name, &record.target, record.length), (name, &target, length));
    assert_eq!((record.copy, record.modified), (copy, modified));
    assert!(before.wall <= record.sealed && record.sealed <= Now::read().wall);
    for ending in ["", ".snapedge"] {
        let mode = scene.path(&name, ending).metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o7333, 0, "{name}{ending}: {mode:o}");
    }
    let held = scene.store.held();
    let held = held.borrow();
    assert!(before.instant <= held[0].since.instant && before.wall <= held[0].since.wall);
}

/// The writer of a record reads it back before it believes it.
#[tokio::test]
async fn what_a_record_cannot_say_is_not_cached() {
    let (name, scene) = (full(1000), Scene::new([full(1000)]));
    let claim = scene.store.claim(&name, &target("main")).expect("the right to fetch");
    let group = "main\nlength: 5";
    scene.worths.set([(name, group, Worth::Best)]);
    let two_lines = Announced { target: target(group), ..announced("main", 1) };
    let mut fill = Fill::begin(claim.reserve(two_lines).expect("room")).expect("a thread");
    fill.write(content(1, 1)).await.expect("a disk that takes it");
    fill.finish().await.expect("a disk that takes it");
    scene.absent(&name);
    assert_eq!(scene.files(), [""; 0]);
}

#[tokio::test]
async fn pieces_of_any_size_make_the_same_archive() {
    let (name, bytes) = (full(1000), content(1, 2 * BLOCK + 12_345));
    let scene = Scene::new([name]);
    for piece in [1000, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, bytes.len()] {
        let mut fill = scene.begin(&name, bytes.len());
        fill.write(Bytes::new()).await.expect("nothing");
        for start in (0..bytes.len()).step_by(piece) {
            let end = bytes.len().min(start + piece);
            fill.write(bytes.slice(start..end)).await.expect("a disk that takes it");
            fill.write(Bytes::new()).await.expect("nothing");
        }
        fill.finish().await.expect("a disk that takes it");
        scene.whole(&name);
        let found = std::fs::read(scene.path(&name, "")).expect("a file");
        assert!(found == bytes, "in pieces of {piece}");
        assert!(scene.store.remove(&name));
        scene.absent(&name);
    }
}

#[tokio::test]
async fn a_removal_concerns_one_complete_archive() {
    let [name, other] = [full(1000), incremental(1000, 1500)];
    let scene = Scene::new([name, other]);
    assert!(!scene.store.remove(&name));
    let bytes = content(1, 7);
    scene.cache(&other, &bytes).await;
    let mut fill = scene.begin(&name, 7);
    assert!(!scene.store.remove(&name), "it is not complete");
    fill.write(bytes).await.expect("a disk that takes it");
    fill.finish().await.expect("a disk that takes it");
    scene.whole(&name);
    assert!(scene.store.remove(&name));
    assert!(!scene.store.remove(&name));
    assert_eq!(scene.store.names(), [other]);
    assert_eq!(scene.files(), ["", ".snapedge"].map(|ending| format!("{other}{ending}")));
}

/// What cannot be read goes, unless something better has its name already.
#[tokio::test]
async fn only_the_broken_archive_itself_is_discarded() {
    let (name, scene) = (full(1000), Scene::new([full(1000)]));
    let broken = scene.cache(&name, &content(1, 7)).await;
    scene.store.discard(&broken);
    scene.absent(&name);
    assert_eq!(scene.files(), [""; 0]);
    assert!(scene.store.held().borrow().is_empty());
    let better = scene.cache(&name, &content(2, 7)).await;
    scene.store.discard(&broken);
    assert_eq!(scene.store.names(), [name]);
    scene.store.discard(&better);
    assert_eq!((scene.store.names(), scene.files()), (Vec::new(), Vec::new()));
}

/// An operator who moves files about by hand loses none of them.
#[tokio::test]
async fn a_removal_leaves_what_was_put_in_the_place_of_an_archive() {
    let (name, scene) = (full(1000), Scene::new([full(1000)]));
    scene.cache(&name, &content(1, 7)).await;
    std::fs::remove_file(scene.path(&name, "")).expect("a file");
    std::fs::write(scene.path(&name, ""), b"another").expect("a file");
    assert!(scene.store.remove(&name));
    assert_eq!(scene.files(), [name.to_string()]);
    assert_eq!(std::fs::read(scene.path(&name, "")).expect("a file"), b"another");

    std::fs::remove_file(scene.path(&name, "")).expect("a file");
    scene.absent(&name);
    scene.cache(&name, &content(1, 7)).await;
    std::fs::remove_file(scene.path(&name, "")).expect("a file");
    assert!(scene.store.remove(&name));
    assert_eq!(scene.files(), [""; 0]);
}
